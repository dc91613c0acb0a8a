"""The ONNX file against PyTorch, and files that are damaged or made to harm."""

import json
import os
import random
import sys

import numpy as np
import pytest
import torch

from dataset import collate
from htr.decoding import onnx
from htr.decoding.ctc import frames
from htr.decoding.onnx import Session, Sizes, encode, load, weight_shapes
from htr.system.scripts import HTRError
from model import CRNN, log_probabilities

SMALL = Sizes(height=32, classes=6, channels=(4, 4, 8, 8, 8, 8), hidden=8, layers=2)
TEXT = json.dumps({"graph": onnx.GRAPH, "alphabet": "ABCDE"}).encode()
DAMAGED = "damaged or not an ONNX file of this program"


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


@pytest.fixture
def nothing_runs(monkeypatch):
    """ONNX Runtime gets to see no file."""

    def refuse(data, frame):
        raise AssertionError("run")

    monkeypatch.setattr(onnx, "Session", refuse)


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


def test_as_many_threads_as_pytorch_would_take(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert onnx.cores() == 3
    for nothing in ("", "0", "x"):
        monkeypatch.setenv("OMP_NUM_THREADS", nothing)
        assert 1 <= onnx.cores() <= os.cpu_count()


def test_too_little_memory_is_a_memory_error():
    session = Session(encode(TEXT, SMALL, weights()), 8)

    class Full:
        def run(self, *_):
            raise RuntimeError("Failed to allocate memory for requested buffer of size 99")

    session.session = Full()
    with pytest.raises(MemoryError):
        session(lines(8))


def test_without_onnx_runtime_the_message_says_what_to_install(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(HTRError, match="pip install onnxruntime"):
        load(path, sizes_of)


# ------------------------------------------------------------------------------------------------- files


def test_facts_and_weights_come_back(path):
    facts, session = load(path, sizes_of)
    assert facts == json.loads(TEXT)
    assert json.loads(session.session.get_modelmeta().custom_metadata_map["htr_crnn"]) == facts  # to other programs
    found, expected = onnx.weights_at_the_end(path.read_bytes(), SMALL, False), weights()
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


def test_weights_of_another_precision_than_the_facts_say_are_refused(path, nothing_runs):
    for text, half in ((TEXT, True), (json.dumps({"graph": onnx.GRAPH, "half": True}).encode(), False)):
        path.write_bytes(encode(text, SMALL, weights(), half=half))
        with pytest.raises(HTRError, match=DAMAGED):
            load(path, sizes_of)


def test_a_flipped_bit_is_noticed_anywhere(path, nothing_runs):
    data, generator = path.read_bytes(), random.Random(0)
    with pytest.raises(AssertionError, match="run"):
        load(path, sizes_of)  # a whole file would be
    for place in [*range(400), *generator.sample(range(400, len(data)), 300), len(data) - 1]:
        damaged = bytearray(data)
        damaged[place] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(HTRError, match=f"small.onnx (is|was) ({DAMAGED}|exported by another)"):
            load(path, sizes_of)


def test_a_file_that_was_cut_off_or_added_to_is_refused(path, nothing_runs):
    data = path.read_bytes()
    others = [data[:end] for end in (0, 1, 9, 99, 999, len(data) // 2, len(data) - 1)]
    others += [data + b"\0", data + data, b"no such file", bytes(1000), random.Random(0).randbytes(1000)]
    others += [b"\x72" + b"\xff" * 9, b"\x72\x02\x0a\x7f", onnx._metadata("other", TEXT)]
    for other in others:
        path.write_bytes(other)
        with pytest.raises(HTRError, match=DAMAGED):
            load(path, sizes_of)


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"3", b"\xff\xfe", b'{"graph":', b"[" * 100_000, b'{"graph": 1e999}', b'{"graph": 2}', b"{}"]
)
def test_facts_that_make_no_sense_are_refused(path, nothing_runs, text):
    path.write_bytes(encode(text, SMALL, weights()))
    with pytest.raises(HTRError, match=r"small\.onnx"):
        load(path, sizes_of)


def test_a_promise_of_huge_weights_costs_nothing(path, nothing_runs):
    huge = Sizes(512, 1_000_000, (1024,) * 6, 2048, 10)
    with pytest.raises(HTRError, match="is missing"):
        load(path, lambda facts: huge)


def test_a_graph_that_is_not_ours_is_refused(path, nothing_runs, tmp_path):
    """With the right checksum: another operator, one more, and weights in a file elsewhere."""
    secret = tmp_path.parent / "secret"
    secret.write_bytes(bytes(10_000))
    data = path.read_bytes()
    for old, new in ((b"\x22\x04Relu", b"\x22\x04Loop"), (b"LogSoftmax", b"BernoulliX"), (b"MaxPool", b"EyeLike")):
        path.write_bytes(data.replace(old, new))
        assert path.read_bytes() != data
        with pytest.raises(HTRError, match="not what was exported"):
            load(path, sizes_of)
    graph = data.index(onnx._field(2, "crnn"))  # a field of the graph, and after it the bytes of its weights
    place = onnx._field(13, onnx._field(1, "location") + onnx._field(2, f"../{secret.name}"))
    shape = weight_shapes(SMALL)["head1.bias"]
    outside = onnx._field(5, b"".join(onnx._field(1, n) for n in shape) + onnx._field(2, 1)
                          + onnx._field(8, "head1.bias") + place + onnx._field(14, 1))  # fmt: skip
    for added in (outside, onnx._field(1, onnx._node("Loop", "images", "more"))):
        path.write_bytes(data[:graph] + added + data[graph:])
        with pytest.raises(HTRError, match="not what was exported"):
            load(path, sizes_of)


def test_weights_that_are_not_finite_are_refused(path, nothing_runs):
    for value in (np.nan, np.inf):
        broken = weights()
        broken["lstm0.bias"] = broken["lstm0.bias"] * np.float32(value)
        path.write_bytes(encode(TEXT, SMALL, broken))
        with pytest.raises(HTRError, match=r"its weight lstm0\.bias is not finite"):
            load(path, sizes_of)


def test_a_file_that_is_not_there_or_no_file(tmp_path, monkeypatch):
    with pytest.raises(HTRError, match=r"there is no ONNX file .*none\.onnx; make one with predict\.py --export"):
        load(tmp_path / "none.onnx", sizes_of)
    with pytest.raises(HTRError, match="cannot be read"):
        load(tmp_path, sizes_of)
    monkeypatch.setattr(onnx, "MOST_BYTES", 99)
    (tmp_path / "large.onnx").write_bytes(bytes(100))
    with pytest.raises(HTRError, match="more than 99 bytes"):
        load(tmp_path / "large.onnx", sizes_of)
