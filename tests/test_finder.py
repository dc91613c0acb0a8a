"""The network that finds lines: its shapes, the same with PyTorch and ONNX Runtime, and the shipped weights."""

import json

import numpy as np
import pytest
import torch

from config import SHIPPED_FINDER
from finder import LineFinder
from htr.pictures import line_maps
from htr.pictures.line_maps import MAPS, MULTIPLE, SCALE, Session, graph, weight_shapes
from htr.system import onnx_file
from htr.system.scripts import HTRError
from utils import TorchFinder, load_finder, restore_finder, save_checkpoint

FACTS = json.dumps({"format": line_maps.FORMAT, "graph": line_maps.GRAPH}).encode()


@pytest.fixture(scope="module")
def model() -> LineFinder:
    """Random in all its parts, with BatchNorm statistics of some pictures."""
    torch.manual_seed(0)
    model = LineFinder()
    for _ in range(5):
        model(torch.rand(2, 1, 2 * MULTIPLE, MULTIPLE))
    return model.eval()


def ink(height, width) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)


@torch.no_grad()
def test_shapes(model):
    logits = model(torch.rand(3, 1, 2 * MULTIPLE, 3 * MULTIPLE))
    assert logits.shape == (3, MAPS, 2 * MULTIPLE // SCALE, 3 * MULTIPLE // SCALE)
    assert {name: weight.shape for name, weight in copied(model).fuse().exported().items()} == weight_shapes()


def copied(model: LineFinder) -> LineFinder:
    other = LineFinder()
    other.load_state_dict(model.state_dict())
    return other.eval()


@torch.no_grad()
def test_every_engine_finds_the_same(model, tmp_path):
    """PyTorch with and without BatchNorm folded in, and ONNX Runtime, at several sizes."""
    path = tmp_path / "finder.onnx"
    path.write_bytes(onnx_file.encode(FACTS, graph(), copied(model).fuse().exported()))
    folded, session = TorchFinder(copied(model), torch.device("cpu")), Session(path)
    for size in ((MULTIPLE, MULTIPLE), (2 * MULTIPLE, 5 * MULTIPLE)):
        picture = ink(*size)
        expected = model(torch.from_numpy(picture)[None, None].float() / 255)[0].sigmoid().numpy()
        for engine in (folded, session):
            found = engine(picture)
            assert found.dtype == np.float32
            assert np.abs(found - expected).max() < 1e-4
            with engine.threads() as pool:
                assert np.array_equal(pool.submit(engine, picture).result(), found)


def test_the_shipped_onnx_file_is_that_of_the_shipped_weights():
    picture = ink(2 * MULTIPLE, 3 * MULTIPLE)
    found = [load_finder(name, "cpu")(picture) for name in ("x.pth", "x.onnx")]
    assert np.abs(found[0] - found[1]).max() < 0.02  # both are stored in half precision
    for suffix in (".pth", ".onnx"):
        assert SHIPPED_FINDER.with_suffix(suffix).stat().st_size < 3_000_000


def test_other_files_are_refused(tmp_path):
    other = tmp_path / "other.onnx"
    other.write_bytes(onnx_file.encode(b'{"graph": 1}', graph(), LineFinder().fuse().exported()))
    with pytest.raises(HTRError, match="not an ONNX file of a network that finds lines"):
        Session(other)
    path = tmp_path / "other.pth"
    save_checkpoint({"model": {}}, path)
    with pytest.raises(HTRError, match="is not a checkpoint of this program"):
        restore_finder(path)
    save_checkpoint({"format": line_maps.FORMAT, "model": {}}, path)
    with pytest.raises(HTRError, match=r"does not fit its settings: the weight .* is missing"):
        restore_finder(path)
