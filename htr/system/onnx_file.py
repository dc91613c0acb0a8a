"""ONNX files: written, checked, and opened with ONNX Runtime.

An ONNX file is a message of Protocol Buffers (https://protobuf.dev/programming-guides/encoding) with the fields of
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto. The graphs are ours, and a file is run only if it is, byte for
byte, what `encode` makes of the facts and weights in it: nothing else in it has a say. The facts are JSON, in its
metadata under the key `htr_crnn`.
"""

import hashlib
import json
import math
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from htr.system.scripts import HTRError

FACTS = "htr_crnn"  # their key in the metadata
OPERATORS, FORMAT = 17, 8  # versions of ONNX: its operators, and its files
MOST_BYTES = 2**31 - 1  # of a message
FLOAT, UINT8, INT64, FLOAT16 = 1, 2, 7, 10  # types of tensors
# How a file holds its weights, by whether in half precision: type, its numbers, and an ending of their names.
STORED = {False: (FLOAT, np.dtype("<f4"), ""), True: (FLOAT16, np.dtype("<f2"), ".half")}


class Graph(NamedTuple):
    """A network.

    nodes: as `node` makes them. input, output: as `value` does. constants: type, shape and value by name. weights:
    shapes by name, in the order in which a file holds them, all float32.
    """

    name: str
    nodes: Sequence[bytes]
    input: bytes
    output: bytes
    constants: Mapping[str, tuple[int, tuple[int, ...], np.ndarray]]
    weights: Mapping[str, tuple[int, ...]]


# ------------------------------------------------------------------------------------------------- messages


def _varint(number: int) -> bytes:
    number, out = number % 2**64, bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _field(number: int, value: int | float | str | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    if isinstance(value, float):
        return _varint(number << 3 | 5) + struct.pack("<f", value)
    value = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def node(operator: str, inputs: str, output: str, **attributes: int | str | Sequence[int]) -> bytes:
    """NodeProto. inputs: names with spaces between them."""
    message = b"".join(_field(1, name) for name in inputs.split()) + _field(2, output)
    message += _field(3, output) + _field(4, operator)
    for name, value in sorted(attributes.items()):
        if isinstance(value, int):
            attribute = _field(3, value) + _field(20, 2)
        elif isinstance(value, str):
            attribute = _field(4, value) + _field(20, 3)
        else:
            attribute = b"".join(_field(8, each) for each in value) + _field(20, 7)
        message += _field(5, _field(1, name) + attribute)
    return message


def _tensor(name: str, kind: int, shape: Sequence[int], data: bytes) -> bytes:
    """TensorProto, its bytes last."""
    return b"".join(_field(1, size) for size in shape) + _field(2, kind) + _field(8, name) + _field(9, data)


def value(name: str, kind: int, *shape: int | str) -> bytes:
    """ValueInfoProto of a tensor. shape: sizes, or names of those that vary."""
    sizes = b"".join(_field(1, _field(2 if isinstance(size, str) else 1, size)) for size in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, kind) + _field(2, sizes)))


def _metadata(key: str, value: str | bytes) -> bytes:
    return _field(14, _field(1, key) + _field(2, value))


def _message_at(data: bytes, place: int, number: int) -> tuple[bytes, int]:
    """The content of field `number`, which begins at `place`, and where it ends. Raises ValueError if there is none."""
    mark = _varint(number << 3 | 2)
    if not data.startswith(mark, place):
        raise ValueError(f"no field {number}")
    place, length, shift = place + len(mark), 0, 0
    while True:
        if place >= len(data) or shift > 28:
            raise ValueError(f"field {number} has no end")
        length |= (data[place] & 127) << shift
        place, shift = place + 1, shift + 7
        if data[place - 1] < 128:
            break
    if place + length > len(data):
        raise ValueError(f"field {number} is cut off")
    return data[place : place + length], place + length


# ---------------------------------------------------------------------------------------------------- files


def encode(facts: bytes, graph: Graph, weights: Mapping[str, np.ndarray], half: bool = False) -> bytes:
    """The bytes of an ONNX file: ModelProto. facts: JSON; weights: float32, of the graph's shapes.

    half: whether the file holds them as float16, from which they are converted before anything is computed.
    """
    kind, number, ending = STORED[half]
    widened = [node("Cast", f"{name}{ending}", name, to=FLOAT) for name in graph.weights] if half else []
    message = b"".join(_field(1, each) for each in (*widened, *graph.nodes)) + _field(2, graph.name)
    message += _field(11, graph.input) + _field(12, graph.output)
    for name, (of_kind, shape, constant) in graph.constants.items():
        message += _field(5, _tensor(name, of_kind, shape, constant.tobytes()))
    data = {name: weights[name].astype(number).tobytes() for name in graph.weights}
    parts = [_field(5, _tensor(f"{name}{ending}", kind, weights[name].shape, each)) for name, each in data.items()]
    message = b"".join([message, *parts])
    digest = hashlib.blake2b(b"".join([facts, *data.values()]), digest_size=32).hexdigest()
    head = _metadata(FACTS, facts) + _metadata("checksum", digest)
    return head + _field(1, FORMAT) + _field(2, "htr") + _field(8, _field(2, OPERATORS)) + _field(7, message)


def weights_at_the_end(data: bytes, shapes: Mapping[str, tuple[int, ...]], half: bool) -> dict[str, np.ndarray]:
    """The weights in an ONNX file, if it is one that `encode` made. Raises ValueError if it is too short."""
    kind, number, ending = STORED[half]
    weights, end = {}, len(data)
    for name, shape in reversed(shapes.items()):
        length = number.itemsize * math.prod(shape)
        if length > end:
            raise ValueError(f"{name} is missing")
        weights[name] = np.frombuffer(data, number, math.prod(shape), end - length).reshape(shape)
        end -= len(_field(5, _tensor(f"{name}{ending}", kind, shape, data[end - length : end])))
    return weights


def load(
    path: str | os.PathLike, version: int, graph_of: Callable[[dict[str, Any]], Graph]
) -> tuple[dict[str, Any], bytes]:
    """The facts of an ONNX file, and its bytes. version: of the graphs, as the facts have it under "graph".

    graph_of: the network, by the facts; may raise HTRError. Raises HTRError, naming the file and the cause, where it is
    not one of ours, is damaged or was made by another version of this program.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise HTRError(f"{path} has more than {MOST_BYTES:,} bytes, so it is not an ONNX file of this program")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise HTRError(f"there is no ONNX file {path}; make one with predict.py --export") from error
    except OSError as error:
        raise HTRError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        entry, _ = _message_at(data, 0, 14)
        key, place = _message_at(entry, 0, 1)
        text, _ = _message_at(entry, place, 2)
        if key != FACTS.encode():
            raise ValueError("its metadata are not those of this program")
        facts = json.loads(text)
        if not isinstance(facts, dict):
            raise ValueError("its metadata make no sense")
    except (ValueError, RecursionError) as error:
        raise HTRError(f"{path} is damaged or not an ONNX file of this program: {error}") from error
    if facts.get("graph") != version:
        raise HTRError(f"{path} was exported by another version of this program: export it again from its checkpoint")
    graph, half = graph_of(facts), facts.get("half") is True
    try:
        weights = weights_at_the_end(data, graph.weights, half)
        if encode(text, graph, weights, half) != data:
            raise ValueError("it is not what was exported")
    except ValueError as error:
        raise HTRError(f"{path} is damaged or not an ONNX file of this program: {error}") from error
    for name, weight in weights.items():
        if not np.isfinite(weight).all():
            raise HTRError(f"{path} is unusable: its weight {name} is not finite")
    return facts, data


# -------------------------------------------------------------------------------------------------- running


class Runtime:
    """An ONNX file in ONNX Runtime, on the CPU, in one thread. Raises HTRError where that is not installed."""

    def __init__(self, data: bytes):
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise HTRError("an ONNX file is read with ONNX Runtime: pip install onnxruntime") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors, which are raised in any case
        self.session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def run(self, images: np.ndarray) -> np.ndarray:
        """The network's only output for its input `images`. Raises MemoryError where there is too little memory."""
        try:
            (found,) = self.session.run(None, {"images": images})
        except Exception as error:  # of a class that ONNX Runtime does not name
            if "allocate memory" in str(error):
                raise MemoryError(str(error)) from error
            raise
        return found


def cores() -> int:
    """Threads that may compute at the same time: as many as OMP_NUM_THREADS says, or as there are cores to use."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdecimal() and int(given):
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
