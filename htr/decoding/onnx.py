"""The network as an ONNX file: written, checked, and run with ONNX Runtime, without PyTorch.

    images (N, 1, H, W) uint8, grey lines with white paper = 255, W a multiple of the frame's width
    log_probs (W / width of a frame, N, C) float32, log P(class) at every frame in nats; class 0 is the CTC blank

Its metadata hold all else that reading needs, as JSON under the key `htr_crnn`. Lines of other widths are padded with
white up to the next multiple, and those of one batch have the same number of frames, so that no padding has to be
masked.

An ONNX file is a message of Protocol Buffers (https://protobuf.dev/programming-guides/encoding) with the fields of
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto. The graph is always the same but for its sizes, and a file is
run only if it is, byte for byte, what `encode` makes of the facts and weights in it: nothing else in it has a say.
"""

import hashlib
import itertools
import json
import math
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from htr.decoding.ctc import frames
from htr.system.scripts import HTRError

GRAPH = 1  # to be raised whenever `encode` makes another file of the same weights
FACTS = "htr_crnn"  # their key in the metadata
OPERATORS, FORMAT = 17, 8  # versions of ONNX: its operators, and its files
MOST_BYTES = 2**31 - 1  # of a message
FLOAT, UINT8, INT64, FLOAT16 = 1, 2, 7, 10  # types of tensors
# How a file holds its weights, by whether in half precision: type, its numbers, and an ending of their names.
STORED = {False: (FLOAT, np.dtype("<f4"), ""), True: (FLOAT16, np.dtype("<f2"), ".half")}


class Sizes(NamedTuple):
    """Of a network: height of the lines, classes, output channels of the convolutions, LSTM units in each direction,
    LSTM layers, and the width of a frame in pixels."""

    height: int
    classes: int
    channels: tuple[int, ...]
    hidden: int
    layers: int
    frame: int = 8

    @property
    def block(self) -> int:
        """Side of the square blocks of pixels that become channels before the first convolution.

        With frames of 4 pixels these are blocks of 2 x 2, and rows are pooled early, so that twice as many frames cost
        little more.
        """
        return 8 // self.frame

    def pools(self) -> tuple[tuple[int, int], ...]:
        """How much is pooled after each convolution, rows and columns."""
        if self.frame == 4:
            return (1, 1), (2, 2), (2, 1), (1, 1), (2, 1), (1, 1)
        return (2, 2), (2, 2), (1, 1), (2, 2), (2, 1), (1, 1)


def weight_shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """The weights of a network in the order in which a file holds them, all float32. Gates of LSTMs are i, o, f, c."""
    shapes: dict[str, tuple[int, ...]] = {}
    for n, (before, after) in enumerate(itertools.pairwise((sizes.block**2, *sizes.channels))):
        shapes |= {f"conv{n}.weight": (after, before, 3, 3), f"conv{n}.bias": (after,)}
    last, classes, hidden = sizes.channels[-1], sizes.classes, sizes.hidden
    shapes |= {"columns.weight": (last, last, sizes.height // 16, 1), "columns.bias": (last,)}
    shapes |= {"shortcut.weight": (last, classes), "shortcut.bias": (classes,)}
    for n, inputs in enumerate([last] + [2 * hidden] * (sizes.layers - 1)):
        shapes |= {
            f"feedback{n}.weight": (classes, inputs),
            f"lstm{n}.weight": (2, 4 * hidden, inputs), f"lstm{n}.recurrent": (2, 4 * hidden, hidden),
            f"lstm{n}.bias": (2, 8 * hidden),
            f"head{n}.weight": (2 * hidden, classes), f"head{n}.bias": (classes,),
        }  # fmt: skip
    return shapes


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


def _node(operator: str, inputs: str, output: str, **attributes: int | str | Sequence[int]) -> bytes:
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


def _value(name: str, kind: int, *shape: int | str) -> bytes:
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


# ---------------------------------------------------------------------------------------------------- graph


def _nodes(sizes: Sizes) -> list[bytes]:
    """The network of `model.CRNN`, with each BatchNorm in the convolution before it."""
    nodes = [_node("Cast", "images", "grey", to=FLOAT), _node("Mul", "grey scale", "scaled"),
             _node("Add", "scaled one", "ink")]  # fmt: skip
    x = "ink"
    if sizes.block > 1:
        nodes.append(_node("SpaceToDepth", x, x := "blocks", blocksize=sizes.block))
    for n, pool in enumerate(sizes.pools()):
        nodes.append(_node("Conv", f"{x} conv{n}.weight conv{n}.bias", f"conv{n}", pads=(1, 1, 1, 1)))
        nodes.append(_node("Relu", f"conv{n}", x := f"block{n}"))
        if pool != (1, 1):
            nodes.append(_node("MaxPool", x, x := f"pooled{n}", kernel_shape=pool, strides=pool))
    nodes += [
        _node("MaxPool", x, "highest", kernel_shape=(sizes.height // 16, 1)),
        _node("Conv", f"{x} columns.weight columns.bias", "whole"), _node("Relu", "whole", "rectified"),
        _node("Add", "highest rectified", "columns"), _node("Squeeze", "columns rows", "features"),
        _node("Transpose", "features", x := "frames", perm=(2, 0, 1)),  # (T, N, C6)
        _node("MatMul", f"{x} shortcut.weight", "shortcut"), _node("Add", "shortcut shortcut.bias", "reading0"),
    ]  # fmt: skip
    for n in range(sizes.layers):
        weights = f"lstm{n}.weight lstm{n}.recurrent lstm{n}.bias"
        nodes += [
            _node("Softmax", f"reading{n}", f"probs{n}", axis=2),
            _node("MatMul", f"probs{n} feedback{n}.weight", f"feedback{n}"),
            _node("Add", f"{x} feedback{n}", f"input{n}"),
            _node("LSTM", f"input{n} {weights}", f"lstm{n}", direction="bidirectional", hidden_size=sizes.hidden),
            _node("Transpose", f"lstm{n}", f"both{n}", perm=(0, 2, 1, 3)),  # (T, N, 2, hidden)
            _node("Reshape", f"both{n} joined", x := f"hidden{n}"),
            _node("MatMul", f"{x} head{n}.weight", f"head{n}"), _node("Add", f"head{n} head{n}.bias", f"added{n}"),
            _node("Add", f"reading0 added{n}", f"reading{n + 1}"),
        ]  # fmt: skip
    return [*nodes, _node("LogSoftmax", f"reading{sizes.layers}", "log_probs", axis=2)]


def encode(facts: bytes, sizes: Sizes, weights: Mapping[str, np.ndarray], half: bool = False) -> bytes:
    """The bytes of an ONNX file: ModelProto. facts: JSON; weights: float32, of `weight_shapes`.

    half: whether the file holds them as float16, from which they are converted before anything is computed.
    """
    constants = {
        "scale": (FLOAT, (), np.float32(-1 / 255)), "one": (FLOAT, (), np.float32(1)),
        "rows": (INT64, (1,), np.array([2])), "joined": (INT64, (3,), np.array([0, 0, -1])),
    }  # fmt: skip
    kind, number, ending = STORED[half]
    widened = [_node("Cast", f"{name}{ending}", name, to=FLOAT) for name in weight_shapes(sizes)] if half else []
    graph = b"".join(_field(1, node) for node in (*widened, *_nodes(sizes))) + _field(2, "crnn")
    graph += _field(11, _value("images", UINT8, "N", 1, sizes.height, "W"))
    graph += _field(12, _value("log_probs", FLOAT, "T", "N", sizes.classes))
    for name, (of_kind, shape, value) in constants.items():
        graph += _field(5, _tensor(name, of_kind, shape, value.tobytes()))
    data = {name: weights[name].astype(number).tobytes() for name in weight_shapes(sizes)}
    parts = [_field(5, _tensor(f"{name}{ending}", kind, weights[name].shape, each)) for name, each in data.items()]
    graph = b"".join([graph, *parts])
    digest = hashlib.blake2b(b"".join([facts, *data.values()]), digest_size=32).hexdigest()
    head = _metadata(FACTS, facts) + _metadata("checksum", digest)
    return head + _field(1, FORMAT) + _field(2, "htr") + _field(8, _field(2, OPERATORS)) + _field(7, graph)


def weights_at_the_end(data: bytes, sizes: Sizes, half: bool) -> dict[str, np.ndarray]:
    """The weights in an ONNX file, if it is one that `encode` made. Raises ValueError if it is too short."""
    kind, number, ending = STORED[half]
    weights, end = {}, len(data)
    for name, shape in reversed(weight_shapes(sizes).items()):
        length = number.itemsize * math.prod(shape)
        if length > end:
            raise ValueError(f"{name} is missing")
        weights[name] = np.frombuffer(data, number, math.prod(shape), end - length).reshape(shape)
        end -= len(_field(5, _tensor(f"{name}{ending}", kind, shape, data[end - length : end])))
    return weights


def load(path: str | os.PathLike, sizes_of: Callable[[dict[str, Any]], Sizes]) -> tuple[dict[str, Any], "Session"]:
    """The facts of an ONNX file, and its network. sizes_of: of the network, by the facts; may raise HTRError.

    Raises HTRError, naming the file and the cause, where it is not one of ours, is damaged or was made by another
    version of this program, or where ONNX Runtime is not installed.
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
    if facts.get("graph") != GRAPH:
        raise HTRError(f"{path} was exported by another version of this program: export it again from its checkpoint")
    sizes, half = sizes_of(facts), facts.get("half") is True
    try:
        weights = weights_at_the_end(data, sizes, half)
        if encode(text, sizes, weights, half) != data:
            raise ValueError("it is not what was exported")
    except ValueError as error:
        raise HTRError(f"{path} is damaged or not an ONNX file of this program: {error}") from error
    for name, weight in weights.items():
        if not np.isfinite(weight).all():
            raise HTRError(f"{path} is unusable: its weight {name} is not finite")
    return facts, Session(data, sizes.frame)


# ------------------------------------------------------------------------------------------------- reading


class Session:
    """Reads lines with ONNX Runtime, on the CPU. Raises HTRError where that is not installed.

    data: an ONNX file. frame: the width of its frames in pixels. in_batch: lines in a batch that suits it; what is
    computed of more would not fit into a processor's cache.
    """

    in_batch = 8

    def __init__(self, data: bytes, frame: int):
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise HTRError("an ONNX file is read with ONNX Runtime: pip install onnxruntime") from error
        self.frame = frame
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors, which are raised in any case
        self.session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def batches(self, widths: Sequence[int], most: int) -> list[list[int]]:
        """The indices of lines in batches of one number of frames, of at most so many lines, the widest first."""
        lengths = [frames(width, self.frame) for width in widths]
        order = sorted(range(len(widths)), key=lengths.__getitem__, reverse=True)
        groups = [list(group) for _, group in itertools.groupby(order, lengths.__getitem__)]
        return [group[start : start + most] for group in groups for start in range(0, len(group), most)]

    def threads(self) -> ThreadPoolExecutor:
        """Where to call it from: several batches at once, each in one thread, waste less than several on one."""
        return ThreadPoolExecutor(cores())

    def __call__(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Grey uint8 lines (H, W_i) of one number of frames T -> log_probs (T, N, C) float32 and lengths (N,).

        Raises MemoryError where there is too little memory.
        """
        length = frames(images[0].shape[1], self.frame)
        batch = np.full((len(images), 1, images[0].shape[0], length * self.frame), 255, dtype=np.uint8)
        for row, image in zip(batch, images, strict=True):
            row[0, :, : image.shape[1]] = image
        try:
            (log_probs,) = self.session.run(None, {"images": batch})
        except Exception as error:  # of a class that ONNX Runtime does not name
            if "allocate memory" in str(error):
                raise MemoryError(str(error)) from error
            raise
        return log_probs, np.full(len(images), length)


def cores() -> int:
    """Threads that may compute at the same time: as many as OMP_NUM_THREADS says, or as there are cores to use."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdecimal() and int(given):
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
