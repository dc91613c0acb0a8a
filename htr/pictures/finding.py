"""The lines of a page from the maps that a network makes of it: what it is given, and what its answer means.

The maps hold, for each place of the page, the probabilities that a line's baseline runs there, that one starts and that
one ends there. A baseline is followed from column to column along the map's ridges, which stay apart even where lines
touch; the maps of the ends say where lines that run on from each other are two.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from htr.pictures.cutting import bands, turned, usual_unit
from htr.pictures.documents import open_page, page_shape
from htr.pictures.images import to_grey
from htr.pictures.levels import dilate, erode, has_light_ink, sampled
from htr.pictures.line_maps import MULTIPLE, SCALE

PIXELS = 740_000  # of a page as the network sees it: an A4 page of 1,024 x 724
MOST_PIXELS = 4 * PIXELS  # of one with small writing
SMALLEST, LARGEST, USUAL = 15, 90, 32  # pixels between lines that the network sees well, and those that suit it best
FEWEST = 3  # lines that tell how far apart lines are
SMALL, THIN = PIXELS // 4, 3  # pixels of a page, and of the width of its strokes then
LIGHT = 41  # pixels: what is darker than the lightest in such a square is ink
FAINTEST = 0.15  # share of the light that the strongest ink takes away at least

RIDGE = 0.2  # probability of a baseline that is followed
APART = 3  # rows between ridges in one column
STEEP = 1.5  # rows by which a ridge may leave its course from column to column
SKIPPED = 3  # columns that a ridge may be missing in
COURSE = 20  # columns by which the course of a ridge is known
GAP = 40  # columns over which ridges are joined
OFF, OFF_A_COLUMN = 3.0, 0.12  # rows by which they may miss each other, and what each column of the gap adds
END = 0.5  # probability of a start or an end at which ridges are not joined
NEAR_END = 8  # columns around an end
SURE = 0.45  # mean probability along a line
SHORTEST = 5  # columns
KNOT = 6  # columns between the points of a baseline
COLUMN = 3  # lines of a column of the text at least
ROW = 0.3  # of the distance of lines, by which those of a row differ in height at most
OVERLAP = 0.02  # of a line at either end, that may be in the next column
COLUMN_WIDTH = 0.15  # of all columns together, its usual line at least

TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}
Maps = np.ndarray  # float32 (MAPS, H / SCALE, W / SCALE), probabilities
Network = Callable[[np.ndarray], Maps]  # of ink uint8 (H, W), whose sides are multiples of MULTIPLE


class FoundLines(NamedTuple):
    """The lines of a page.

    lines: their baselines (K, 2) in reading order, each from where its writing starts. size: (width, height) of the
    picture as viewers show it, whose pixels count. turned: by how many degrees the writing is turned clockwise: 0, 90,
    180 or 270.
    """

    lines: list[np.ndarray]
    size: tuple[int, int]
    turned: int = 0


# ------------------------------------------------------------------------------------------------- input


def ink_of(grey: np.ndarray) -> np.ndarray:
    """The ink of a page uint8 (H, W), dark on light: uint8 (H, W), 0 where there is none. Shadows are none."""
    light = erode(dilate(grey, LIGHT), LIGHT)
    shares = (1 / np.maximum(np.arange(256), 32)).astype(np.float32)
    ink = (light - grey) * shares[light]
    most = max(FAINTEST, float(np.percentile(ink[::3, ::3], 98)))
    return np.rint(np.minimum(ink * (255 / most), 255)).astype(np.uint8)


def is_light_on_dark(page: Image.Image) -> bool:
    """Whether strokes on a page (mode L) are lighter than the paper.

    Seen small, strokes are a pixel or two wide: what is that thin is rather darker, or rather lighter, than what is
    around it, under any light. A picture that is small is one of a line.
    """
    small = np.asarray(reduced(page, SMALL))
    if small.size < SMALL / 2:
        return has_light_ink(sampled(page))
    darker, lighter = erode(dilate(small, THIN), THIN) - small, small - dilate(erode(small, THIN), THIN)
    return bool(lighter.mean() > darker.mean())


def reduced(grey: Image.Image, pixels: float) -> Image.Image:
    """A page (mode L) of at most so many pixels, in its own proportions."""
    factor = (pixels / (grey.width * grey.height)) ** 0.5
    if factor >= 1:
        return grey
    size = [max(1, round(side * factor)) for side in grey.size]
    return grey.resize(size, Image.Resampling.BOX, reducing_gap=2.0)


def find_lines(path: str | os.PathLike, number: int, network: Network, degrees: int | None = None) -> FoundLines:
    """Find the lines of a page of a file. Raises ImageError where it cannot be read.

    degrees: by how many the writing is turned clockwise. By default it is upright or, where hardly any lines are
    level, runs upwards: whether it is the right way up is not seen.
    """
    size = page_shape(path, number).size

    def look(pixels: float, degrees: int) -> list[np.ndarray]:
        """Lines (K, 2) of the page once it is turned upright."""
        share = min(1.0, (pixels / (size[0] * size[1])) ** 0.5)
        page = to_grey(open_page(path, (max(1, int(min(size) * share)),) * 2, number))
        scale = size[0] / page.width
        if is_light_on_dark(page):
            page = ImageOps.invert(page)
        return [line * scale for line in _found(page.transpose(TURNS[degrees]) if degrees else page, pixels, network)]

    lines = look(PIXELS, degrees or 0)
    if degrees is None:
        degrees = 0
        if len(lines) < FEWEST and len(sideways := look(PIXELS, 270)) >= max(FEWEST, 2 * len(lines)):
            degrees, lines = 270, sideways
    if len(lines) >= FEWEST:
        unit = usual_unit(bands(lines, [None] * len(lines)))
        seen = unit * min(1.0, (PIXELS / (size[0] * size[1])) ** 0.5)
        if not SMALLEST <= seen <= LARGEST:
            again = look(min(MOST_PIXELS, size[0] * size[1] * (USUAL / unit) ** 2), degrees)
            lines = again if len(again) >= len(lines) else lines
    return FoundLines([_turned_back(lines[n], degrees, size) for n in reading_order(lines)], size, degrees)


def _turned_back(line: np.ndarray, degrees: int, size: tuple[int, int]) -> np.ndarray:
    """Where a line (K, 2) is on a page of that size that was turned upright to find it."""
    x, y = line.T
    places = {0: (x, y), 90: (size[0] - y, x), 180: (size[0] - x, size[1] - y), 270: (y, size[1] - x)}
    return np.stack(places[degrees], 1)


def _found(page: Image.Image, pixels: float, network: Network) -> list[np.ndarray]:
    """The baselines of a page, as the network sees them when it has so many pixels."""
    small = reduced(page, pixels)
    ink = ink_of(np.asarray(small))
    height, width = ink.shape
    padded = np.pad(ink, ((0, -height % MULTIPLE), (0, -width % MULTIPLE)))
    maps = network(padded)[:, : -(-height // SCALE), : -(-width // SCALE)]
    return [line * (page.width / width, page.height / height) for line in baselines_of(maps)]


# -------------------------------------------------------------------------------------------------- maps


@dataclass
class Ridge:
    """A ridge of a map: the rows at which it runs, column by column, and the probabilities there."""

    columns: list[int] = field(default_factory=list)
    rows: list[float] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)

    def course(self, at_start: bool) -> tuple[float, float]:
        """Its row and its slope at one of its ends."""
        part = slice(None, COURSE) if at_start else slice(-COURSE, None)
        columns, rows = np.array(self.columns[part], dtype=float), np.array(self.rows[part])
        place = self.columns[0 if at_start else -1]
        if len(columns) < 4:
            return float(rows.mean()), 0.0
        slope, row = np.polyfit(columns - place, rows, 1)
        return float(row), float(slope)

    def joined(self, other: "Ridge") -> "Ridge":
        """It and one that runs on from it."""
        return Ridge(*(mine + its for mine, its in zip(self._all(), other._all(), strict=True)))

    def parts(self, cuts: Sequence[int]) -> "list[Ridge]":
        """It, cut at columns."""
        bounds = [0, *np.searchsorted(self.columns, cuts).tolist(), len(self.columns)]
        return [Ridge(*(each[start:end] for each in self._all())) for start, end in pairwise(bounds) if end > start]

    def _all(self) -> tuple[list, list, list]:
        return self.columns, self.rows, self.probabilities


def ridges(baselines: np.ndarray) -> list[Ridge]:
    """Follow the ridges of a map (H, W) from left to right."""
    smooth = _smooth(baselines)
    column, row = np.nonzero(_peaks(smooth).T)
    if not len(column):
        return []
    heights = smooth[row, column]
    rows = (row + _offset(smooth, row, column)).tolist()
    starts = np.searchsorted(column, np.arange(smooth.shape[1] + 1)).tolist()
    probabilities = heights.tolist()
    done: list[Ridge] = []
    going: list[Ridge] = []
    for x in range(smooth.shape[1]):
        places = range(starts[x], starts[x + 1])
        ended = [ridge for ridge in going if x - ridge.columns[-1] > SKIPPED]
        if ended:
            done += ended
            going = [ridge for ridge in going if x - ridge.columns[-1] <= SKIPPED]
        taken = _followed(going, x, [rows[place] for place in places])
        for n, place in enumerate(places):
            ridge = taken.get(n)
            if ridge is None:
                going.append(ridge := Ridge())
            ridge.columns.append(x)
            ridge.rows.append(rows[place])
            ridge.probabilities.append(probabilities[place])
    return done + going


def _smooth(probabilities: np.ndarray) -> np.ndarray:
    """A map in which the middle of a baseline stands out: averaged over five rows and three columns."""
    padded = np.pad(probabilities, ((2, 2), (1, 1)))
    height, width = probabilities.shape
    rows = sum(weight * padded[n : n + height] for n, weight in enumerate((1, 2, 3, 2, 1)))
    return sum(rows[:, n : n + width] for n in range(3)) / 27


def _peaks(smooth: np.ndarray) -> np.ndarray:
    """Where a map is higher than in the APART - 1 rows above and below."""
    padded = np.pad(smooth, ((APART - 1, APART - 1), (0, 0)))
    height = len(smooth)
    peak = smooth >= RIDGE
    for n in range(1, APART):
        peak &= smooth > padded[APART - 1 - n : APART - 1 - n + height]
        peak &= smooth >= padded[APART - 1 + n : APART - 1 + n + height]
    return peak


def _offset(smooth: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """By how much the top of a parabola through each peak and its neighbours lies below the peak, in rows."""
    above, below = smooth[np.maximum(row - 1, 0), column], smooth[np.minimum(row + 1, len(smooth) - 1), column]
    bend = 2 * smooth[row, column] - above - below
    return np.where(bend > 0, (below - above) / np.maximum(2 * bend, 1e-6), 0).clip(-0.5, 0.5)


def _followed(going: Sequence[Ridge], x: int, rows: Sequence[float]) -> dict[int, Ridge]:
    """Which of the rows in column x continue which ridges: those nearest to each other first."""
    pairs = []
    for k, ridge in enumerate(going):
        last = ridge.rows[-1]
        back = max(-8, -len(ridge.rows))
        passed = ridge.columns[-1] - ridge.columns[back]
        slope = (last - ridge.rows[back]) / passed if passed >= 4 else 0.0
        expected = last + slope * (x - ridge.columns[-1])
        pairs += [(abs(row - expected), n, k) for n, row in enumerate(rows) if abs(row - expected) <= STEEP]
    taken: dict[int, Ridge] = {}
    used = set()
    for _, n, k in sorted(pairs):
        if n not in taken and k not in used:
            taken[n] = going[k]
            used.add(k)
    return taken


def cut_at_ends(ridge: Ridge, starts: np.ndarray, ends: np.ndarray) -> list[Ridge]:
    """Cut a ridge where the maps say that one line ends and another starts soon after."""
    columns, rows = np.array(ridge.columns), np.clip(np.rint(ridge.rows).astype(int), 0, len(starts) - 1)
    ending, starting = ends[rows, columns] > END, starts[rows, columns] > END
    cuts = []
    place = 0
    while place < len(columns) and ending[place:].any():
        end = place + int(np.argmax(ending[place:]))
        after = slice(end, end + 3 * NEAR_END)
        if end > SHORTEST and starting[after].any():
            begin = end + int(np.flatnonzero(starting[after])[-1])
            if len(columns) - begin > SHORTEST:
                cuts.append(int(columns[(end + begin) // 2]))
            place = begin + 1
        else:
            place = end + max(1, int(np.argmin(np.r_[ending[end:], False])))
    return ridge.parts(cuts)


def join(found: Sequence[Ridge], starts: np.ndarray, ends: np.ndarray) -> list[Ridge]:
    """Join ridges that run on from each other over a gap in which no line ends."""
    rest = sorted((ridge for ridge in found if len(ridge.columns) > 1), key=lambda ridge: ridge.columns[0])
    joints = []
    for a, left in enumerate(rest):
        row, slope = left.course(at_start=False)
        for b, right in enumerate(rest):
            gap = right.columns[0] - left.columns[-1]
            if a == b or not 0 < gap <= GAP:
                continue
            other_row, other_slope = right.course(at_start=True)
            half = gap / 2
            off = min(abs(row - other_row), abs(row + half * slope - (other_row - half * other_slope)))
            if off > OFF + OFF_A_COLUMN * gap or (_is_end(ends, left, -1) and _is_end(starts, right, 0)):
                continue
            joints.append((off + 0.1 * gap, a, b))
    after: dict[int, int] = {}
    before: dict[int, int] = {}
    for _, a, b in sorted(joints):
        if a not in after and b not in before:
            after[a], before[b] = b, a
    joined = []
    for a, ridge in enumerate(rest):
        if a in before:
            continue
        whole, last = ridge, a
        while last in after:
            last = after[last]
            whole = whole.joined(rest[last])
        joined.append(whole)
    return joined


def _is_end(ends: np.ndarray, ridge: Ridge, place: int) -> bool:
    """Whether a map of ends has one near an end of a ridge."""
    x, y = ridge.columns[place], round(ridge.rows[place])
    near = ends[max(0, y - 3) : y + 4, max(0, x - NEAR_END) : x + NEAR_END + 1]
    return bool(near.max(initial=0) > END)


def baselines_of(maps: Maps) -> list[np.ndarray]:
    """The baselines (K, 2) that maps show, in pixels of the page that they were made of, from left to right each."""
    baselines, starts, ends = maps
    found = [part for ridge in ridges(baselines) for part in cut_at_ends(ridge, starts, ends)]
    lines = []
    for ridge in join(found, starts, ends):
        columns, rows = np.array(ridge.columns, dtype=float), np.array(ridge.rows)
        if columns[-1] - columns[0] + 1 < SHORTEST or np.mean(ridge.probabilities) < SURE:
            continue
        x = np.linspace(columns[0], columns[-1], max(2, 1 + round((columns[-1] - columns[0]) / KNOT)))
        mean = np.convolve(np.pad(rows, KNOT, "edge"), np.full(2 * KNOT + 1, 1 / (2 * KNOT + 1)), "valid")
        lines.append((np.stack([x, np.interp(x, columns, mean)], 1) + 0.5) * SCALE)
    return lines


# ------------------------------------------------------------------------------------------------- order


def reading_order(lines: Sequence[np.ndarray]) -> list[int]:
    """The order in which lines (K, 2), from left to right each, are read: row by row, columns one after the other.

    Columns are parts beside each other with some lines each, with nothing across the gap between them, as in a
    recursive X-Y cut (Nagy, Seth and Viswanathan 1992).
    """
    if not lines:
        return []
    across = np.sum([line[-1] - line[0] for line in lines], axis=0)
    lines = [turned(line, np.arctan2(across[1], across[0])) for line in lines]  # as if the page were level
    boxes = []
    for n, line in enumerate(lines):
        inset = OVERLAP * (line[-1, 0] - line[0, 0])
        boxes.append(Box(n, float(line[0, 0] + inset), float(line[-1, 0] - inset), float(line[:, 1].mean())))
    row = ROW * usual_unit(bands(lines, [None] * len(lines)))
    return _ordered(sorted(boxes, key=lambda box: box.height), row)


class Box(NamedTuple):
    """Where a line is, as far as the order asks: its number, its ends, and its mean height on the page."""

    number: int
    left: float
    right: float
    height: float


def _ordered(boxes: Sequence[Box], row: float) -> list[int]:
    """The numbers of lines, which come sorted by height, in reading order. Those of a row differ by less than `row`."""
    best: tuple[int, int, list[list[Box]]] = (0, 0, [])
    start = 0
    while start < len(boxes) - 2 * COLUMN + 1:
        end, columns = _columns(boxes[start:])
        if columns and end > best[1] - best[0]:
            best = start, start + end, columns
        start += max(1, end) if columns else 1
    first, last, columns = best
    if columns:
        middle = [number for column in columns for number in _ordered(column, row)]
        return _ordered(boxes[:first], row) + middle + _ordered(boxes[last:], row)
    rows: list[list[Box]] = []
    for box in boxes:
        if rows and box.height - rows[-1][0].height < row:
            rows[-1].append(box)
        else:
            rows.append([box])
    return [box.number for each in rows for box in sorted(each, key=lambda box: box.left)]


def _columns(boxes: Sequence[Box]) -> tuple[int, list[list[Box]]]:
    """How many of the first boxes are in columns, and these; the longest run that starts with the first one."""
    parts: list[tuple[float, float, list[Box]]] = []  # left, right, and what is in between
    found: tuple[int, list[list[Box]]] = 0, []
    for count, box in enumerate([*boxes, None]):
        if box is None:
            across, beside = parts, []
        else:
            beside = [part for part in parts if part[1] <= box.left or part[0] >= box.right]
            across = [part for part in parts if part[1] > box.left and part[0] < box.right]
        if len(across) > 1 and (columns := _as_columns([part[2] for part in parts])):  # they end here
            found = count, columns
        if box is None or (not beside and count >= COLUMN):
            break
        inside = [each for part in across for each in part[2]] + [box]
        left, right = min(part[0] for part in (*across, (box.left,))), max([part[1] for part in across] + [box.right])
        parts = [*beside, (left, right, inside)]
    return found


def _as_columns(parts: Sequence[Sequence[Box]]) -> list[list[Box]]:
    """Parts beside each other as columns from left to right, what is no column with the one next to it; or nothing."""
    if sum(len(part) >= COLUMN for part in parts) < 2:
        return []
    width = max(box.right for part in parts for box in part) - min(box.left for part in parts for box in part)
    wide = [
        part
        for part in parts
        if len(part) >= COLUMN and np.median([box.right - box.left for box in part]) >= COLUMN_WIDTH * width
    ]
    if len(wide) < 2:
        return []
    ranges = [(min(box.height for box in part), max(box.height for box in part)) for part in wide]
    common = min(last for _, last in ranges) - max(first for first, _ in ranges)
    if common < min(last - first for first, last in ranges) / 2:
        return []
    columns = [list(part) for part in wide]
    for part in parts:
        if not any(part is other for other in wide):
            place = np.mean([box.left + box.right for box in part])
            nearest = min(range(len(wide)), key=lambda n: abs(np.mean([b.left + b.right for b in wide[n]]) - place))
            columns[nearest] += part
    columns.sort(key=lambda column: np.median([box.left for box in column]))
    return [sorted(column, key=lambda box: box.height) for column in columns]
