"""ONNX files that are as they should be, damaged, or made to harm."""

import json
import os
import random

import numpy as np
import pytest

from htr.system import onnx_file
from htr.system.onnx_file import FLOAT, UINT8, Graph, Runtime, cores, encode, load, node, value, weights_at_the_end
from htr.system.scripts import HTRError

GRAPH = Graph(  # (images @ weight + bias) * half, rectified
    "small",
    [
        node("Cast", "images", "numbers", to=FLOAT), node("MatMul", "numbers weight", "product"),
        node("Add", "product bias", "sum"), node("Relu", "sum", "rectified"), node("Mul", "rectified half", "found"),
    ],
    value("images", UINT8, "N", 5),
    value("found", FLOAT, "N", 200),
    {"half": (FLOAT, (), np.float32(0.5))},
    {"weight": (5, 200), "bias": (200,)},
)  # fmt: skip
TEXT = json.dumps({"graph": 3, "a": "b"}).encode()
DAMAGED = "damaged or not an ONNX file of this program"
IMAGES = np.arange(20, dtype=np.uint8).reshape(4, 5)


def weights() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {name: generator.normal(size=shape).astype(np.float32) for name, shape in GRAPH.weights.items()}


def loaded(path) -> tuple[dict, bytes]:
    return load(path, 3, lambda facts: GRAPH)


@pytest.fixture
def path(tmp_path):
    """A file as it should be."""
    path = tmp_path / "small.onnx"
    path.write_bytes(encode(TEXT, GRAPH, weights()))
    return path


# ------------------------------------------------------------------------------------------------ running


def test_it_computes_what_its_nodes_say(path):
    expected = np.maximum(IMAGES @ weights()["weight"] + weights()["bias"], 0) / 2
    facts, data = loaded(path)
    assert facts == {"graph": 3, "a": "b"}
    assert np.allclose(Runtime(data).run(IMAGES), expected, atol=1e-4)
    again = weights_at_the_end(data, GRAPH.weights, False)
    assert all(np.array_equal(again[name], weight) for name, weight in weights().items())


def test_as_many_threads_as_pytorch_would_take(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert cores() == 3
    for nothing in ("", "0", "x"):
        monkeypatch.setenv("OMP_NUM_THREADS", nothing)
        assert 1 <= cores() <= os.cpu_count()


def test_too_little_memory_is_a_memory_error(path):
    runtime = Runtime(path.read_bytes())

    class Full:
        def run(self, *_):
            raise RuntimeError("Failed to allocate memory for requested buffer of size 99")

    runtime.session = Full()
    with pytest.raises(MemoryError):
        runtime.run(IMAGES)


# -------------------------------------------------------------------------------------------------- files


def test_weights_of_another_precision_than_the_facts_say_are_refused(path):
    for text, half in ((TEXT, True), (json.dumps({"graph": 3, "half": True}).encode(), False)):
        path.write_bytes(encode(text, GRAPH, weights(), half=half))
        with pytest.raises(HTRError, match=DAMAGED):
            loaded(path)


def test_a_flipped_bit_is_noticed_anywhere(path):
    data, generator = path.read_bytes(), random.Random(0)
    for place in [*range(400), *generator.sample(range(400, len(data)), 300), len(data) - 1]:
        damaged = bytearray(data)
        damaged[place] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(HTRError, match=f"small.onnx (is|was) ({DAMAGED}|exported by another)"):
            loaded(path)


def test_a_file_that_was_cut_off_or_added_to_is_refused(path):
    data = path.read_bytes()
    others = [data[:end] for end in (0, 1, 9, 99, 999, len(data) // 2, len(data) - 1)]
    others += [data + b"\0", data + data, b"no such file", bytes(1000), random.Random(0).randbytes(1000)]
    others += [b"\x72" + b"\xff" * 9, b"\x72\x02\x0a\x7f", onnx_file._metadata("other", TEXT)]
    for other in others:
        path.write_bytes(other)
        with pytest.raises(HTRError, match=DAMAGED):
            loaded(path)


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"3", b"\xff\xfe", b'{"graph":', b"[" * 100_000, b'{"graph": 1e999}', b'{"graph": 2}', b"{}"]
)
def test_facts_that_make_no_sense_are_refused(path, text):
    path.write_bytes(encode(text, GRAPH, weights()))
    with pytest.raises(HTRError, match=r"small\.onnx"):
        loaded(path)


def test_a_graph_that_is_not_ours_is_refused(path, tmp_path):
    """With the right checksum: another operator, one more, and weights in a file elsewhere."""
    secret = tmp_path.parent / "secret"
    secret.write_bytes(bytes(10_000))
    data = path.read_bytes()
    for old, new in ((b"\x22\x04Relu", b"\x22\x04Loop"), (b"MatMul", b"Random"), (b"\x22\x03Add", b"\x22\x03Div")):
        path.write_bytes(data.replace(old, new))
        assert path.read_bytes() != data
        with pytest.raises(HTRError, match="not what was exported"):
            loaded(path)
    graph = data.index(onnx_file._field(2, "small"))  # a field of the graph, and after it the bytes of its weights
    place = onnx_file._field(13, onnx_file._field(1, "location") + onnx_file._field(2, f"../{secret.name}"))
    outside = onnx_file._field(5, onnx_file._field(1, 200) + onnx_file._field(2, 1)
                               + onnx_file._field(8, "bias") + place + onnx_file._field(14, 1))  # fmt: skip
    for added in (outside, onnx_file._field(1, node("Loop", "images", "more"))):
        path.write_bytes(data[:graph] + added + data[graph:])
        with pytest.raises(HTRError, match="not what was exported"):
            loaded(path)


def test_weights_that_are_not_finite_are_refused(path):
    for number in (np.nan, np.inf):
        broken = weights()
        broken["bias"] = broken["bias"] * np.float32(number)
        path.write_bytes(encode(TEXT, GRAPH, broken))
        with pytest.raises(HTRError, match="its weight bias is not finite"):
            loaded(path)


def test_a_file_that_is_not_there_or_no_file(tmp_path, monkeypatch):
    with pytest.raises(HTRError, match=r"there is no ONNX file .*none\.onnx; make one with predict\.py --export"):
        loaded(tmp_path / "none.onnx")
    with pytest.raises(HTRError, match="cannot be read"):
        loaded(tmp_path)
    monkeypatch.setattr(onnx_file, "MOST_BYTES", 99)
    (tmp_path / "large.onnx").write_bytes(bytes(100))
    with pytest.raises(HTRError, match="more than 99 bytes"):
        loaded(tmp_path / "large.onnx")
