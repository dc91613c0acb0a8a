"""The network as an ONNX file, against PyTorch."""

import json
import random
import sys

import numpy as np
import pytest
import torch

from dataset import collate
from htr.decoding import onnx
from htr.decoding.ctc import frames
from htr.decoding.onnx import Session, Sizes, encode, load, weight_shapes
from htr.system.onnx_file import weights_at_the_end
from htr.system.scripts import HTRError
from model import CRNN, log_probabilities

SMALL = Sizes(height=32, classes=6, channels=(4, 4, 8, 8, 8, 8), hidden=8, layers=2)
TEXT = json.dumps({"graph": onnx.GRAPH, "alphabet": "ABCDE"}).encode()


def small_model(sizes=SMALL, seed=0) -> CRNN:
    """Random in all its parts, with BatchNorm statistics of some lines."""
    torch.manual_seed(seed)
    model = CRNN(sizes, 0.2)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    for _ in range(5):
        model(torch.rand(4, 1, sizes.height, 64), torch.full((4,), 64))
    return model.eval()


def weights(sizes=SMALL) -> dict[str, np.ndarray]:
    return small_model(sizes).fuse().exported()


def lines(*widths, height=32, seed=0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 256, (height, width), dtype=np.uint8) for width in widths]


def sizes_of(facts) -> Sizes:
    return SMALL


@pytest.fixture
def path(tmp_path):
    """A file as it should be."""
    path = tmp_path / "small.onnx"
    path.write_bytes(encode(TEXT, SMALL, weights()))
    return path


# ------------------------------------------------------------------------------------------------ reading


@pytest.mark.parametrize(
    "sizes",
    [
        SMALL,
        Sizes(64, 30, (8, 8, 16, 16, 16, 16), 16, 3),
        Sizes(16, 2, (1, 1, 1, 1, 1, 1), 1, 1),
        Sizes(80, 100, (4, 6, 8, 10, 12, 14), 5, 4),
        Sizes(32, 6, (4, 4, 8, 8, 8, 8), 8, 2, frame=4),
    ],
)
@torch.no_grad()
def test_it_reads_as_with_pytorch(sizes):
    model = small_model(sizes)
    batches = [lines(*widths, height=sizes.height) for widths in ((1,), (8, 7, 5), (200, 197), (64,) * 9)]
    expected = [log_probabilities(model(*collate(batch))[0]) for batch in batches]
    session = Session(encode(TEXT, sizes, model.fuse().exported()), sizes.frame)
    for batch, log_probs in zip(batches, expected, strict=True):
        found, lengths = session(batch)
        assert lengths.tolist() == [model.frames(line.shape[1]) for line in batch]
        assert found.shape == (lengths[0], len(batch), sizes.classes) and found.dtype == np.float32
        assert np.abs(found - log_probs[: lengths[0]].numpy()).max() < 1e-4
        assert np.abs(np.exp(found).sum(2) - 1).max() < 1e-5


def test_a_reading_does_not_depend_on_the_batch():
    session, batch = Session(encode(TEXT, SMALL, weights()), 8), lines(*range(57, 65))
    together, _ = session(batch)
    for n, line in enumerate(batch):
        alone, _ = session([line])
        assert np.abs(together[:, n] - alone[:, 0]).max() < 1e-5


def test_weights_are_those_that_shapes_name():
    for sizes in (SMALL, Sizes(64, 30, (8, 8, 16, 16, 16, 16), 16, 3)):
        assert {name: weight.shape for name, weight in weights(sizes).items()} == weight_shapes(sizes)


def test_batches_hold_lines_of_one_number_of_frames():
    session = Session(encode(TEXT, SMALL, weights()), 8)
    generator = random.Random(0)
    widths = [generator.randint(1, 60) for _ in range(200)]
    batches = session.batches(widths, 7)
    assert sorted(i for batch in batches for i in batch) == list(range(200))
    assert max(map(len, batches)) == 7
    assert all(len({frames(widths[i], 8) for i in batch}) == 1 for batch in batches)
    assert len(batches) <= 8 + 200 / 7
    assert session.batches([], 7) == []


def test_without_onnx_runtime_the_message_says_what_to_install(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(HTRError, match="pip install onnxruntime"):
        load(path, sizes_of)


# ------------------------------------------------------------------------------------------------- files


def test_facts_and_weights_come_back(path):
    facts, session = load(path, sizes_of)
    assert facts == json.loads(TEXT)
    assert (
        json.loads(session.runtime.session.get_modelmeta().custom_metadata_map["htr_crnn"]) == facts
    )  # to other programs
    found, expected = weights_at_the_end(path.read_bytes(), weight_shapes(SMALL), False), weights()
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in found)


def test_half_precision_halves_the_file_and_rounds_the_weights(path):
    """It reads as a file of float32 does that holds the same rounded weights."""
    facts = json.dumps({"graph": onnx.GRAPH, "half": True}).encode()
    rounded = {name: weight.astype(np.float16).astype(np.float32) for name, weight in weights().items()}
    batch, whole, numbers = lines(64, 60), path.stat().st_size, sum(weight.size for weight in weights().values())
    expected, _ = Session(encode(TEXT, SMALL, rounded), 8)(batch)
    path.write_bytes(encode(facts, SMALL, weights(), half=True))
    assert whole - path.stat().st_size == pytest.approx(2 * numbers, rel=0.2)  # bytes
    found, session = load(path, sizes_of)
    assert found == json.loads(facts)
    assert np.array_equal(session(batch)[0], expected)


def test_a_promise_of_huge_weights_costs_nothing(path):
    huge = Sizes(512, 1_000_000, (1024,) * 6, 2048, 10)
    with pytest.raises(HTRError, match="is missing"):
        load(path, lambda facts: huge)
