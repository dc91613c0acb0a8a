"""How lines are shown to the network: wider or narrower, and with more or less slant.

People write small or large for the distance of their lines, upright or slanted, and mostly one of them wrote a page.
A network reads best what is like most lines that it was trained on. Which view of a page is that, it tells itself: by
how sure it is of what it reads in some places of the page.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

WIDTHS = (0.7, 0.84, 1.0, 1.2, 1.44, 1.73)
SLANTS = (-0.4, -0.2, 0.0, 0.2, 0.4)
SAMPLES, SAMPLE = 16, 256  # of a page, and pixels of each
LEAST = 0.75  # of the characters that are read in one view, as many in a better one
TINY = 1e-300  # probability

Read = Callable[[Sequence[np.ndarray]], Sequence[tuple[str, float]]]  # lines -> their texts, and P(text | line)


class View(NamedTuple):
    """width: a factor. slant: by how many columns a row strokes are leaned to the right, or negative, to the left."""

    width: float = 1.0
    slant: float = 0.0

    def of(self, line: np.ndarray) -> np.ndarray:
        """A line, grey uint8 (H, W), as it is seen; where there is nothing it is white."""
        if self == View():
            return line
        height, width = line.shape
        lean = abs(self.slant) * height
        seen = max(1, round((width + lean) * self.width)), height
        source = (1 / self.width, self.slant, -lean if self.slant > 0 else 0, 0, 1, 0)
        image = Image.fromarray(line).transform(
            seen, Image.Transform.AFFINE, source, Image.Resampling.BICUBIC, fillcolor=255
        )
        return np.asarray(image)

    def then(self, other: "View") -> "View":
        """What is seen in this view, seen in another one."""
        return View(self.width * other.width, self.slant + other.slant / self.width)


def samples_of(lines: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Parts of lines (H, W_i), evenly spread over all that they show; all of it where it is no more."""
    ends = np.cumsum([line.shape[1] for line in lines])
    if ends[-1] <= SAMPLES * SAMPLE:
        return list(lines)
    samples = []
    for place in (np.arange(SAMPLES) + 0.5) * ends[-1] / SAMPLES:
        n = int(np.searchsorted(ends, place, side="right"))
        width = lines[n].shape[1]
        start = int(np.clip(place - (ends[n] - width) - SAMPLE / 2, 0, max(0, width - SAMPLE)))
        samples.append(lines[n][:, start : start + SAMPLE])
    return samples


def climb(is_better: Callable[[View, View], bool]) -> View:
    """The best view: first of the widths, then of the slants, of which the next one is tried while it is better."""
    best = View()
    for name, steps in (("width", WIDTHS), ("slant", SLANTS)):
        start = steps.index(getattr(best, name))
        for way in (1, -1):
            place = start + way
            while 0 <= place < len(steps) and is_better(view := best._replace(**{name: steps[place]}), best):
                best = view
                place += way
            if getattr(best, name) != steps[start]:
                break
    return best


def best_view(lines: Sequence[np.ndarray], read: Read) -> View:
    """The view in which a page's lines are read with most confidence, by the mean logarithm for a character."""
    samples = samples_of(lines)

    @functools.cache
    def judged(view: View) -> tuple[float, int]:
        """The mean logarithm, and the number of characters."""
        readings = read([view.of(sample) for sample in samples])
        characters = sum(len(text) for text, _ in readings)
        return sum(math.log(max(each, TINY)) for _, each in readings) / max(1, characters), characters

    def is_better(view: View, other: View) -> bool:
        (mine, characters), (others, least) = judged(view), judged(other)
        return mine > others and characters >= LEAST * least  # paper on which nothing is seen is sure, too

    return climb(is_better)
