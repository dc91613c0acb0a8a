"""Lines out of a page: each is the band along its baseline, made level, without the ink of its neighbours.

The height of a band follows from the distance to the line above, so that letters get the same size whether or not
there are ascenders among them. Where neighbours reach into it, it ends at the path from left to right that cuts the
least ink, found by dynamic programming, as in seam carving (Avidan and Shamir 2007; for lines of text, Saabni and
El-Sana 2011).
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageOps
from PIL.PngImagePlugin import PngInfo

from htr.pictures.documents import open_page
from htr.pictures.images import LEVELLED, Decoded, Geometry, ImageError, Part, scaled_line, to_grey
from htr.pictures.levels import clean_line, normalise_page
from htr.system.scripts import HTRError

UP, DOWN = 0.8, 0.38  # of the distance to the line above: how far a band reaches from its baseline
NARROWEST, WIDEST = 0.6, 1.35  # of the page's median distance, within which a line's own counts
LIKE_OUTLINES = 1.3  # of the outlines' median height; larger distances are those of paragraphs or of a table's rows
LONE = 12  # of a single line without outline, its length by the distance that another would have
LONGEST = 3  # the longest line of a page without outlines has at least so many times its height
SIDE = 0.25  # of the distance: how far a band reaches beyond the ends of its baseline
TURNED = np.radians(10)  # lines whose directions differ by more are not beside each other
LEAST_APART = 4  # pixels between baselines that are two lines
COVERED = 0.25  # of a line's columns: as many must have a line above that tells the distance
MOST_UP, MOST_DOWN = 1.05, 0.7  # how far neighbours' ink is followed, to know whose it is
BODY, FOOT = 0.3, 0.08  # the letters' body reaches from that much above the baseline to that much below,
TALL, LOW = 0.5, 0.15  # or with some hands so far; ink there costs four times as much
FAINT = 0.15  # ink below it costs nothing
AWAY = 0.02  # cost of a distance of 1 from the usual border
STEEP, TURN = 3, 0.01  # rows by which a border may rise or fall from column to column, and what each costs
LOWEST = 96  # pixels: a page is reduced as long as its usual band stays higher than that
STEP = 8  # pixels between the places where neighbours are looked for
KNOTS = 100  # of a baseline, when it is made level


@dataclass
class Band:
    """Where a line lies on its page, in pixels.

    angle: of the direction in which its neighbours and it are level, in radians, clockwise from the page's x axis. All
    else is in coordinates turned by that. x, y: (K,) its baseline. left, right: its ends. unit: the distance to the
    line above that it goes by. beside: (3, G) places along it, and how far away the next baselines above and below are
    there, inf where there are none.
    """

    angle: float
    x: np.ndarray
    y: np.ndarray
    left: float
    right: float
    unit: float
    beside: np.ndarray

    def moved(self, corner: tuple[float, float], by: float) -> "Band":
        """The band on a page that was cropped to begin at this corner, and then reduced by a factor."""
        across, down = turned(np.array(corner), self.angle)
        lengths = (self.x - across, self.y - down, self.left - across, self.right - across, self.unit)
        beside = (self.beside - [[across], [0], [0]]) / by
        return Band(self.angle, *(length / by for length in lengths), beside)

    def baseline(self) -> np.ndarray:
        """Its baseline (K, 2), in pixels of the page."""
        return turned(np.stack([self.x, self.y], 1), -self.angle)

    def outline(self) -> np.ndarray:
        """The polygon (N, 2) around it, in pixels of the page."""
        inner = self.x[(self.x > self.left) & (self.x < self.right)]
        x = np.concatenate([[self.left], inner, [self.right]])
        y = np.interp(x, self.x, self.y)
        upper, lower = np.stack([x, y - UP * self.unit], 1), np.stack([x, y + DOWN * self.unit], 1)
        return turned(np.concatenate([upper, lower[::-1]]), -self.angle)


# --------------------------------------------------------------------------------------------------- bands


def turned(points: np.ndarray, angle: float) -> np.ndarray:
    """Points (N, 2) in coordinates whose x axis has this angle to that of theirs."""
    cos, sin = np.cos(angle), np.sin(angle)
    return points @ np.array([[cos, -sin], [sin, cos]])


def baseline_of(outline: np.ndarray) -> np.ndarray:
    """A baseline (2, 2) for an outline (N, 2): straight, a quarter of its height above the lower edge."""
    left, right = outline[:, 0].min(), outline[:, 0].max()
    start, end = outline, np.roll(outline, -1, axis=0)
    places = left + (right - left) * (np.arange(16) + 0.5) / 16
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (places[:, None] - start[:, 0]) / (end - start)[:, 0]  # (16, N)
        edges = np.where((share >= 0) & (share <= 1), start[:, 1] + share * (end - start)[:, 1], np.nan)
    lower, upper = np.nanmax(edges, 1), np.nanmin(edges, 1)
    slope, height = np.polyfit(places, lower - (lower - upper) / 4, 1)
    return np.array([[left, slope * left + height], [right, slope * right + height]])


def upright(baseline: np.ndarray) -> np.ndarray:
    """A baseline from left to right; one that runs rather up or down stays as it is, as the writing is turned."""
    across, down = baseline[-1] - baseline[0]
    return baseline[::-1] if across < 0 and abs(across) >= abs(down) else baseline


def bands(
    baselines: Sequence[np.ndarray | None],
    outlines: Sequence[np.ndarray | None],
    upside_down: Sequence[bool] | None = None,
) -> list[Band]:
    """The bands of the lines of a page, each of which has a baseline (K, 2) or an outline (N, 2).

    upside_down: which of them are written from right to left because the page is turned; by default none.
    """
    lines = []
    for baseline, outline, turned_over in zip(
        baselines, outlines, upside_down or [False] * len(baselines), strict=True
    ):
        line = upright(baseline_of(outline) if baseline is None else baseline)
        lines.append(line[::-1] if turned_over else line)
    found: list[Band | None] = [None] * len(lines)
    for angle, members in _side_by_side(lines):
        points = [turned(lines[n], angle) for n in members]
        heights = [0 if outlines[n] is None else np.ptp(turned(outlines[n], angle)[:, 1]) for n in members]
        for n, band in zip(members, _bands(angle, points, np.array(heights)), strict=True):
            found[n] = band
    return found


def _side_by_side(lines: Sequence[np.ndarray]) -> Iterator[tuple[float, list[int]]]:
    """Lines of about the same direction, and that direction."""
    across = np.array([line[-1] - line[0] for line in lines]).reshape(-1, 2)
    angles, lengths = np.arctan2(across[:, 1], across[:, 0]), np.hypot(*across.T)
    rest = np.arange(len(lines))
    while len(rest):
        mean = np.angle(np.sum(lengths[rest] * np.exp(1j * angles[rest])))
        off = (angles - mean + np.pi) % (2 * np.pi) - np.pi
        order = rest[np.argsort(off[rest])]
        sums = np.cumsum(lengths[order])
        middle = off[order[np.searchsorted(sums, sums[-1] / 2)]]  # half of all writing is turned further
        angle = (mean + middle + np.pi) % (2 * np.pi) - np.pi
        near = np.abs((off[rest] - middle + np.pi) % (2 * np.pi) - np.pi) <= TURNED
        yield float(angle), rest[near].tolist()
        rest = rest[~near]


def _bands(angle: float, lines: Sequence[np.ndarray], outlined: np.ndarray) -> list[Band]:
    """The bands of lines (K, 2) in turned coordinates. outlined: (N,) the heights of their outlines, 0 without one."""
    lines = [line[np.argsort(line[:, 0], kind="stable")] for line in lines]
    starts, ends = np.array([line[0, 0] for line in lines]), np.array([line[-1, 0] for line in lines])
    step = max(STEP, (ends.max() - starts.min()) * max(1, len(lines) / 1000) / 1000)
    grid = np.arange(starts.min() - 4 * STEP, ends.max() + 4 * STEP, step)
    heights = np.array([np.interp(grid, line[:, 0], line[:, 1]) for line in lines])  # (N, G)
    there = (grid >= starts[:, None] - STEP) & (grid <= ends[:, None] + STEP)
    others = np.where(there, heights, np.inf)

    beside, distances = [], np.full(len(lines), np.nan)
    for n in range(len(lines)):
        along = slice(*np.searchsorted(grid, (starts[n] - 8 * STEP, ends[n] + 8 * STEP)))
        below = others[:, along] - heights[n, along]
        above = np.where(there[:, along], -below, np.inf)
        below[below < LEAST_APART], above[above < LEAST_APART] = np.inf, np.inf
        beside.append(np.stack([grid[along], above.min(0), below.min(0)]))
        known = beside[n][1, there[n, along]]
        if np.isfinite(known).mean() >= COVERED:
            distances[n] = np.median(known[np.isfinite(known)])
    usual = _usual(distances, outlined, ends - starts)
    distances = np.where(np.isnan(distances), usual, distances)
    distances = np.maximum(distances, outlined / LIKE_OUTLINES)  # something may lie across the line
    distances = np.clip(distances, NARROWEST * usual, WIDEST * usual)

    found = []
    for n, line in enumerate(lines):
        side = SIDE * distances[n]
        level = np.abs(heights[:, np.searchsorted(grid, starts[n])] - line[0, 1]) < distances[n] / 2  # in its row
        before, after = ends[level & (ends <= starts[n])], starts[level & (starts >= ends[n])]
        left = starts[n] - min([side, *(starts[n] - before) / 2])
        right = ends[n] + min([side, *(after - ends[n]) / 2])
        found.append(Band(angle, *line.T, left, max(right, left + 1), float(distances[n]), beside[n]))
    return found


def _usual(distances: np.ndarray, outlined: np.ndarray, lengths: np.ndarray) -> float:
    """The usual distance of neighbouring lines, from what is known of their distances and outlines, or else lengths."""
    outlined = outlined[outlined > 0]
    known = distances[np.isfinite(distances)]
    guesses = [np.median(known)] if len(known) else []
    guesses += [LIKE_OUTLINES * np.median(outlined) if len(outlined) else lengths.max() / LONGEST]
    return float(max(min(guesses) if len(known) or len(outlined) else np.median(lengths) / LONE, LEAST_APART))


# -------------------------------------------------------------------------------------------------- strips


@dataclass
class PagePicture:
    """A page's picture, and the lines that are cut out of it: the `whole` of their `Part`s.

    path, number: of the file, and of the page in it from 0. size: (width, height) of the picture in pixels. as_stored:
    whether that, and the bands, count it as it is stored; else as its EXIF tag turns it. bands: of all lines of the
    page, by which its levels are known. described_in: the file that the bands come from. keep: the folder in which
    lines that are read are also kept as pictures, under their names.
    """

    path: Path
    number: int
    size: tuple[int, int]
    as_stored: bool
    bands: Sequence[Band]
    described_in: Path | None = None
    keep: Path | None = None

    def read(self, parts: "Sequence[PageLine]", geometry: Geometry) -> list[Decoded | ImageError]:
        """Its lines as the network's input; see `htr.pictures.images.to_line`."""
        read: list[Decoded | ImageError] = []
        for part, strip in zip(parts, self.strips([part.place for part in parts], geometry.levels), strict=True):
            if isinstance(strip, ImageError):
                read.append(strip)
                continue
            line = Image.fromarray(strip)
            if self.keep:
                keep_line(line, self.keep / part.name, geometry.levels)
            read.append(Decoded(scaled_line(line, geometry, band=geometry.levels), 1))
        return read

    def strips(self, places: Sequence[int], levels: bool = True) -> "list[np.ndarray | ImageError]":
        """Lines as they are cut out, grey uint8 (H, W) each; with `levels`, paper white and ink black."""
        if not places:
            return []
        try:
            page, bands = self._opened(levels)
        except ImageError as error:
            return [error] * len(places)
        outlines = [band.outline() for band in bands]
        there = [(line.max(0) > 0).all() and (line.min(0) < page.size).all() for line in outlines]
        chosen = [bands[place] for place in places if there[place]]
        if levels and chosen:
            unit = usual_unit(bands)
            written = Image.new("1", page.size)
            draw = ImageDraw.Draw(written)
            for line in outlines:
                draw.polygon([tuple(point) for point in line], fill=1)
            page = Image.fromarray(normalise_page(np.asarray(page), (UP + DOWN) * unit, np.asarray(written)))
            cut = iter([clean_line(strip) for strip in cut_lines(page, chosen, unit)])
        else:
            cut = iter([cropped(np.asarray(level_strip(page, band)), band) for band in chosen])
        return [next(cut) if there[place] else ImageError("lies outside of its page") for place in places]

    def picture(self, side: int | None = None) -> Image.Image:
        """The page as the bands count it; decoded smaller where its shorter side still has `side` pixels then.

        Raises ImageError where it cannot be read.
        """
        image = open_page(self.path, None if side is None else (max(1, side),) * 2, self.number)
        image = image if self.as_stored else ImageOps.exif_transpose(image)
        image.info.pop("exif", None)  # it is turned already as it should be
        return image

    def shown(self, size: int) -> Image.Image:
        """The page in colour, its longer side `size` pixels at most. Raises ImageError where it cannot be read."""
        share = min(1.0, size / max(self.size))
        image = self.picture(int(min(self.size) * share)).convert("RGB")
        image.thumbnail((size, size))
        return image

    def _opened(self, levels: bool) -> tuple[Image.Image, list[Band]]:
        """The part of the page that holds lines, grey and reduced as far as its lines allow; and where they are there.

        Raises ImageError where the picture cannot be read, or is another one than it was.
        """
        factor = max(1, int((UP + DOWN) * usual_unit(self.bands) / LOWEST))
        image = self.picture(min(self.size) // factor)
        drafted = round(self.size[0] / image.width)
        if image.size != tuple(-(-side // drafted) for side in self.size):
            raise ImageError(f"has {image.width} x {image.height} pixels, and had {self.size[0]} x {self.size[1]}")
        bands = [band.moved((0, 0), drafted) for band in self.bands]
        edge = usual_unit(bands)
        corners = np.concatenate([band.outline() for band in bands])
        left, top = np.clip(np.floor(corners.min(0) - edge), 0, image.size).astype(int).tolist()
        right, bottom = np.clip(np.ceil(corners.max(0) + edge), 0, image.size).astype(int).tolist()
        if left >= right or top >= bottom:
            raise ImageError("lies outside of its page")
        grey, rest = to_grey(image.crop((left, top, right, bottom)), levels), factor // drafted
        return grey.reduce(rest) if rest > 1 else grey, [band.moved((left, top), max(rest, 1)) for band in bands]


class PageLine(Part):
    """A line of a page. whole: its PagePicture. place: of its band there.

    As a path it is the picture that is kept of it, or else its name.
    """

    def __init__(self, name: str, whole: PagePicture, place: int):
        super().__init__(name, whole, [each for each in (whole.path, whole.described_in) if each])
        self.place = place

    @property
    def band(self) -> Band:
        """Where it lies on its page."""
        return self.whole.bands[self.place]

    def __fspath__(self) -> str:
        return os.fspath(self.whole.keep / self.name if self.whole.keep else self.name)

    def place_key(self) -> str:
        """Changes with where the line lies."""
        lengths = (self.band.angle, self.band.left, self.band.right, self.band.unit, *self.band.x, *self.band.y)
        return f"{self.whole.number} {' '.join(f'{length:.2f}' for length in lengths)}"


def keep_line(line: Image.Image, path: Path, levelled: bool) -> None:
    """Write a line as a PNG; one whose levels are right says so, so that it is read as it was.

    Raises HTRError where it cannot be written.
    """
    texts = PngInfo()
    if levelled:
        texts.add_text(LEVELLED, "of its page")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        line.save(path, "PNG", pnginfo=texts, compress_level=1)  # its row follows: a torn file is written anew
    except OSError as error:
        raise HTRError(f"{path} cannot be written: {error.strerror or error}") from error


def usual_unit(bands: Sequence[Band]) -> float:
    """The median of the distances that bands go by."""
    return float(np.median([band.unit for band in bands]))


def cropped(strip: np.ndarray, band: Band) -> np.ndarray:
    """A strip without what `level_strip` adds above and below."""
    top = round((MOST_UP - UP) * band.unit)
    return strip[top : top + max(1, round((UP + DOWN) * band.unit))]


def cut_lines(page: Image.Image, bands: Sequence[Band], unit: float) -> list[np.ndarray]:
    """Bands of a page (mode L, black on white) as strips (H, W) uint8 at its own scale; `unit` is its usual one."""
    cell = max(1, round(unit / 16)), max(1, round(unit / 32))  # width and height in which borders are looked for
    strips = [np.asarray(level_strip(page, band)) for band in bands]
    zones = [zone for strip, band in zip(strips, bands, strict=True) for zone in _zones(strip, band, cell)]
    paths = cheapest_paths([zone.cost for zone in zones])
    cut = []
    for n, (strip, band) in enumerate(zip(strips, bands, strict=True)):
        rows, columns = np.arange(strip.shape[0])[:, None], np.arange(strip.shape[1])
        upper, lower = (
            np.interp(columns, (np.arange(len(path)) + 0.5) * cell[0] - 0.5, zone.top + (path + 0.5) * cell[1])
            for path, zone in zip(paths[2 * n : 2 * n + 2], zones[2 * n : 2 * n + 2], strict=True)
        )
        cut.append(cropped(np.where((rows < upper) | (rows > lower), np.uint8(255), strip), band))
    return cut


def level_strip(page: Image.Image, band: Band) -> Image.Image:
    """A band of a page (mode L) with what is above and below it, its baseline made level at MOST_UP units.

    What is outside of the page is white.
    """
    up, down = MOST_UP * band.unit, MOST_DOWN * band.unit
    width, height = max(1, round(band.right - band.left)), max(1, round(up + down))
    scale = width / (band.right - band.left)
    knots = np.rint((band.x[:: 1 + len(band.x) // KNOTS] - band.left) * scale)
    columns = np.unique(np.clip([0, *knots, width], 0, width).astype(int))  # between them the baseline is straight
    x = band.left + columns / scale
    y = np.interp(x, band.x, band.y)
    upper = turned(np.stack([x, y - up], 1), -band.angle)
    lower = turned(np.stack([x, y + down], 1), -band.angle)
    parts = [
        ((start, 0, end, height), (*upper[n], *lower[n], *lower[n + 1], *upper[n + 1]))
        for n, (start, end) in enumerate(zip(columns[:-1].tolist(), columns[1:].tolist(), strict=True))
    ]
    return page.transform((width, height), Image.Transform.MESH, parts, Image.Resampling.BILINEAR, fillcolor=255)


class Zone(NamedTuple):
    """The part of a strip in which its border to a neighbour runs.

    cost: (R, C) of passing through a cell, inf where it must not. top: the strip's row at which the first cells begin.
    """

    cost: np.ndarray
    top: int


def _zones(strip: np.ndarray, band: Band, cell: tuple[int, int]) -> list[Zone]:
    """Above and below the body of a line's letters, as far as that of its neighbours' letters."""
    unit, base = band.unit, MOST_UP * band.unit
    zones = []
    for side, (first, last) in enumerate(((0, base - BODY * unit), (base + FOOT * unit, strip.shape[0]))):
        top, bottom = round(first), max(round(last), round(first) + cell[1])
        part = Image.fromarray(strip[top:bottom]).reduce(cell)
        ink = 1 - np.asarray(part, dtype=np.float32) / 255
        ink[ink < FAINT] = 0
        rows, columns = (top + (np.arange(len(ink)) + 0.5) * cell[1] - base) / unit, np.arange(ink.shape[1]) + 0.5
        away = np.interp(band.left + columns * cell[0], band.beside[0], np.minimum(band.beside[1 + side], 1e6)) / unit
        lone = away > (MOST_UP + DOWN if side == 0 else MOST_DOWN + UP)
        if side == 0:  # heights in units, up is negative
            usual = -UP * np.minimum(away, 1)
            closed = rows[:, None] < FOOT - away
        else:
            usual = np.minimum(DOWN * away, DOWN)
            closed = rows[:, None] > away * (1 - BODY)
        near = (rows[:, None] > -TALL if side == 0 else rows[:, None] < LOW) * 3.0  # to its own letters
        cost = np.where(lone, 0, ink * (1 + near)) + AWAY * np.abs(rows[:, None] - usual)
        closed &= ~lone & ~closed.all(0)
        zones.append(Zone(np.where(closed, np.float32(np.inf), cost.astype(np.float32)), top))
    return zones


def cheapest_paths(costs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """For each (R_i, C_i) of costs the row of each column on the path from left to right of least cost.

    From column to column it rises or falls by STEEP rows at most.
    """
    rows, columns = (max(cost.shape[axis] for cost in costs) for axis in (0, 1))
    padded = np.full((columns, len(costs), rows + 2 * STEEP), np.inf, dtype=np.float32)
    for n, cost in enumerate(costs):
        padded[: cost.shape[1], n, STEEP : STEEP + len(cost)] = cost.T
        padded[cost.shape[1] :, n, STEEP : STEEP + len(cost)] = 0
    inner, total = slice(STEEP, STEEP + rows), padded[0].copy()
    came = np.zeros((columns, len(costs), rows), dtype=np.int8)
    moves = sorted(range(-STEEP, STEEP + 1), key=abs)
    for column in range(1, columns):
        best = total[:, inner].copy()
        for move in moves[1:]:
            other = total[:, STEEP + move : STEEP + move + rows] + abs(move) * TURN
            better = other < best
            np.copyto(best, other, where=better)
            np.copyto(came[column], move, where=better)
        total[:, inner] = best + padded[column][:, inner]
    row = total[:, inner].argmin(1)
    paths = np.empty((columns, len(costs)), dtype=np.int64)
    for column in range(columns - 1, -1, -1):
        paths[column] = row
        row = row + came[column, np.arange(len(costs)), row]
    return [paths[: cost.shape[1], n] for n, cost in enumerate(costs)]
