"""The network that finds lines as an ONNX file: its sizes, its graph, and running it without PyTorch.

images (1, 1, H, W) uint8, the ink of a page (see `htr.pictures.finding`), H and W multiples of MULTIPLE
maps (1, MAPS, H / SCALE, W / SCALE) float32, probabilities
"""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from htr.system import onnx_file
from htr.system.onnx_file import FLOAT, UINT8, Graph, Runtime, cores, node, value
from htr.system.scripts import HTRError

FORMAT = "htr-line-finder"
GRAPH = 1  # to be raised whenever `graph` makes another file of the same weights
CHANNELS = (12, 24, 40, 56, 72, 72)  # of its levels, each of half the size of the one before
STEM = 5  # side of the first convolution, which halves the picture
SCALE = 2  # pixels of a page to one of the maps
MAPS = 3  # baselines, where they start, where they end
MULTIPLE = SCALE * 2 ** (len(CHANNELS) - 1)


def weight_shapes() -> dict[str, tuple[int, ...]]:
    """The weights in the order in which a file holds them, all float32."""
    first = CHANNELS[0]
    convolutions = {"stem0": (first, 1, STEM, STEM)}
    for n, (before, here) in enumerate(itertools.pairwise((first, *CHANNELS))):
        convolutions |= {f"down{n}.0": (here, before, 3, 3), f"down{n}.1": (here, here, 3, 3)}
    for n, (below, here) in enumerate(itertools.pairwise(CHANNELS[::-1])):
        convolutions[f"up{n}.0"] = (here, below + here, 3, 3)
    convolutions["head"] = (MAPS, first, 1, 1)
    shapes = {}
    for name, shape in convolutions.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


def graph() -> Graph:
    """The network of `finder.LineFinder`, with each BatchNorm in the convolution before it."""
    nodes = [node("Cast", "images", "ink", to=FLOAT), node("Mul", "ink scale", x := "scaled")]

    def convolve(x: str, name: str, **attributes: tuple[int, ...]) -> str:
        nodes.append(node("Conv", f"{x} {name}.weight {name}.bias", f"{name}.sums", **attributes))
        nodes.append(node("Relu", f"{name}.sums", name))
        return name

    x = convolve(x, "stem0", pads=(STEM // 2,) * 4, strides=(2, 2))
    skipped = []
    for n in range(len(CHANNELS)):
        if n:
            nodes.append(node("MaxPool", x, x := f"pooled{n}", kernel_shape=(2, 2), strides=(2, 2)))
        for each in (f"down{n}.0", f"down{n}.1"):
            x = convolve(x, each, pads=(1, 1, 1, 1))
        skipped.append(x)
    for n, skip in enumerate(skipped[-2::-1]):
        nodes += [
            node("Resize", f"{x} region twice", f"wide{n}", mode="nearest", nearest_mode="floor",
                 coordinate_transformation_mode="asymmetric"),
            node("Concat", f"wide{n} {skip}", f"both{n}", axis=1),
        ]  # fmt: skip
        x = convolve(f"both{n}", f"up{n}.0", pads=(1, 1, 1, 1))
    nodes += [node("Conv", f"{x} head.weight head.bias", "logits"), node("Sigmoid", "logits", "maps")]
    constants = {
        "scale": (FLOAT, (), np.float32(1 / 255)), "region": (FLOAT, (0,), np.zeros(0, np.float32)),
        "twice": (FLOAT, (4,), np.array([1, 1, 2, 2], dtype=np.float32)),
    }  # fmt: skip
    images, maps = value("images", UINT8, 1, 1, "H", "W"), value("maps", FLOAT, 1, MAPS, "H_2", "W_2")
    return Graph("line_finder", nodes, images, maps, constants, weight_shapes())


class Session:
    """Runs it with ONNX Runtime, on the CPU.

    Raises HTRError where that is not installed, or the file is missing, damaged or not one of a network that finds
    lines.
    """

    def __init__(self, path):
        def graph_of(facts: dict) -> Graph:
            if facts.get("format") != FORMAT:
                raise HTRError(f"{path} is not an ONNX file of a network that finds lines")
            return graph()

        self.runtime = Runtime(onnx_file.load(path, GRAPH, graph_of)[1])

    def threads(self) -> ThreadPoolExecutor:
        """Where to call it from: several pages at once, each in one thread."""
        return ThreadPoolExecutor(cores())

    def __call__(self, ink: np.ndarray) -> np.ndarray:
        """Ink uint8 (H, W) -> maps float32 (MAPS, H / SCALE, W / SCALE). Raises MemoryError."""
        return self.runtime.run(ink[None, None])[0]
