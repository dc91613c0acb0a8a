"""The network as an ONNX file: its graph, and reading with it, without PyTorch.

    images (N, 1, H, W) uint8, grey lines with white paper = 255, W a multiple of 8
    log_probs (W / width of a frame, N, C) float32, log P(class) at every frame in nats; class 0 is the CTC blank

Its metadata hold all else that reading needs. Lines of other widths are padded with white up to the next multiple, and
those of one batch have the same number of frames, so that no padding has to be masked.
"""

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from htr.decoding.ctc import COLUMN, frames
from htr.system import onnx_file
from htr.system.onnx_file import FLOAT, INT64, UINT8, Graph, Runtime, cores, node, value

GRAPH = 1  # to be raised whenever `graph_of` makes another file of the same weights


POOLS = (2, 2), (2, 2), (1, 1), (2, 2), (2, 1), (1, 1)  # after each convolution, rows and columns


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
    def split(self) -> int:
        """Frames that are read from each column of the convolutions."""
        return COLUMN // self.frame


def weight_shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """The weights of a network in the order in which a file holds them, all float32. Gates of LSTMs are i, o, f, c."""
    shapes: dict[str, tuple[int, ...]] = {}
    for n, (before, after) in enumerate(itertools.pairwise((1, *sizes.channels))):
        shapes |= {f"conv{n}.weight": (after, before, 3, 3), f"conv{n}.bias": (after,)}
    last, classes, hidden = sizes.channels[-1], sizes.split * sizes.classes, sizes.hidden
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


# ---------------------------------------------------------------------------------------------------- graph


def _nodes(sizes: Sizes) -> list[bytes]:
    """The network of `model.CRNN`, with each BatchNorm in the convolution before it."""
    nodes = [node("Cast", "images", "grey", to=FLOAT), node("Mul", "grey scale", "scaled"),
             node("Add", "scaled one", "ink")]  # fmt: skip
    x = "ink"
    for n, pool in enumerate(POOLS):
        nodes.append(node("Conv", f"{x} conv{n}.weight conv{n}.bias", f"conv{n}", pads=(1, 1, 1, 1)))
        nodes.append(node("Relu", f"conv{n}", x := f"block{n}"))
        if pool != (1, 1):
            nodes.append(node("MaxPool", x, x := f"pooled{n}", kernel_shape=pool, strides=pool))
    nodes += [
        node("MaxPool", x, "highest", kernel_shape=(sizes.height // 16, 1)),
        node("Conv", f"{x} columns.weight columns.bias", "whole"), node("Relu", "whole", "rectified"),
        node("Add", "highest rectified", "columns"), node("Squeeze", "columns rows", "features"),
        node("Transpose", "features", x := "frames", perm=(2, 0, 1)),  # (T, N, C6)
        node("MatMul", f"{x} shortcut.weight", "shortcut"), node("Add", "shortcut shortcut.bias", "reading0"),
    ]  # fmt: skip
    for n in range(sizes.layers):
        weights = f"lstm{n}.weight lstm{n}.recurrent lstm{n}.bias"
        if sizes.split > 1:
            nodes += [
                node("Reshape", f"reading{n} split", f"split{n}"),  # (T, N, split, C)
                node("Softmax", f"split{n}", f"each{n}", axis=3),
                node("Reshape", f"each{n} joined", f"probs{n}"),
            ]
        else:
            nodes.append(node("Softmax", f"reading{n}", f"probs{n}", axis=2))
        nodes += [
            node("MatMul", f"probs{n} feedback{n}.weight", f"feedback{n}"),
            node("Add", f"{x} feedback{n}", f"input{n}"),
            node("LSTM", f"input{n} {weights}", f"lstm{n}", direction="bidirectional", hidden_size=sizes.hidden),
            node("Transpose", f"lstm{n}", f"both{n}", perm=(0, 2, 1, 3)),  # (T, N, 2, hidden)
            node("Reshape", f"both{n} joined", x := f"hidden{n}"),
            node("MatMul", f"{x} head{n}.weight", f"head{n}"), node("Add", f"head{n} head{n}.bias", f"added{n}"),
            node("Add", f"reading0 added{n}", f"reading{n + 1}"),
        ]  # fmt: skip
    last = f"reading{sizes.layers}"
    if sizes.split > 1:
        nodes += [
            node("Transpose", last, "lines", perm=(1, 0, 2)),  # (N, T, split * C)
            node("Reshape", "lines one_by_one", "framed"),  # (N, T * split, C)
            node("Transpose", "framed", last := "reading", perm=(1, 0, 2)),
        ]
    return [*nodes, node("LogSoftmax", last, "log_probs", axis=2)]


def graph_of(sizes: Sizes) -> Graph:
    constants = {
        "scale": (FLOAT, (), np.float32(-1 / 255)), "one": (FLOAT, (), np.float32(1)),
        "rows": (INT64, (1,), np.array([2])), "joined": (INT64, (3,), np.array([0, 0, -1])),
    }  # fmt: skip
    if sizes.split > 1:
        constants["split"] = (INT64, (4,), np.array([0, 0, sizes.split, sizes.classes]))
        constants["one_by_one"] = (INT64, (3,), np.array([0, -1, sizes.classes]))
    images = value("images", UINT8, "N", 1, sizes.height, "W")
    log_probs = value("log_probs", FLOAT, "T", "N", sizes.classes)
    return Graph("crnn", _nodes(sizes), images, log_probs, constants, weight_shapes(sizes))


def encode(facts: bytes, sizes: Sizes, weights: Mapping[str, np.ndarray], half: bool = False) -> bytes:
    """The bytes of an ONNX file; see `htr.system.onnx_file.encode`."""
    return onnx_file.encode(facts, graph_of(sizes), weights, half)


def load(path: str | os.PathLike, sizes_of: Callable[[dict[str, Any]], Sizes]) -> tuple[dict[str, Any], "Session"]:
    """The facts of an ONNX file, and its network. sizes_of: of the network, by the facts; may raise HTRError.

    Raises HTRError, naming the file and the cause, where it is not one of ours, is damaged or was made by another
    version of this program, or where ONNX Runtime is not installed.
    """
    facts, data = onnx_file.load(path, GRAPH, lambda facts: graph_of(sizes_of(facts)))
    return facts, Session(data, sizes_of(facts).frame)


# ------------------------------------------------------------------------------------------------- reading


class Session:
    """Reads lines with ONNX Runtime, on the CPU. Raises HTRError where that is not installed.

    data: an ONNX file. frame: the width of its frames in pixels. in_batch: lines in a batch that suits it; what is
    computed of more would not fit into a processor's cache.
    """

    in_batch = 8

    def __init__(self, data: bytes, frame: int):
        self.frame, self.runtime = frame, Runtime(data)

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
        return self.runtime.run(batch), np.full(len(images), length)
