"""Levels: turns handwriting on any paper, in any light, into black ink on white paper.

Ink is what is thinner than its surroundings and darker, or on dark paper lighter. So the paper's light at each pixel is
estimated by a morphological closing, which fills in everything thin (Serra 1982; the difference is the "black hat"),
and ink is the share of that light that is missing. What share counts as black is a quantile over all ink, so that
neither a dead pixel nor a staple nor a printed frame sets the scale.
"""

import numpy as np
from PIL import Image, ImageOps

WHITE = 250  # greys from here on are white paper in a binarised scan
MOST_PIXELS = 1_000_000  # a larger image is reduced first
FAINTEST = 0.03  # share of the light that ink takes away at least
FEWEST = 12  # pixels that make a writing; fewer are dust on a blank page
STRONG, FAINT = 0.5, 0.25  # of the writing's darkness: what surely belongs to it; what may not
MOST_SAMPLED = 30_000  # pixels of a page that tell its levels
CANVAS = 0.6  # what surrounds the paper is darker than this share of it


def normalise_levels(grey: Image.Image) -> Image.Image:
    """Make paper white (255) and ink black (about 0) in a mode-L image, whatever the paper, the ink and the light.

    What is around the paper becomes white, or is cut off: the result may be smaller. A blank image becomes white. An
    image that is black on white already, as a binarised scan is, stays as it is, and white on black is inverted.
    """
    if is_black_on_white(grey):
        return grey
    inverted = ImageOps.invert(grey)
    if is_black_on_white(inverted):
        return inverted
    while grey.width * grey.height > MOST_PIXELS:
        grey = grey.reduce(2)
    return Image.fromarray(to_black_on_white(np.asarray(grey, dtype=np.float32)))


def is_black_on_white(image: Image.Image) -> bool:
    """Whether nearly all is white and the rest is mostly black, with no ruled line, canvas or corner among it."""
    counts = np.cumsum(image.histogram())  # of pixels of each grey or darker
    total, ink, light = counts[255], counts[242], counts[WHITE - 1] - counts[127]
    darkest, dark = np.searchsorted(counts, (0.02 * ink, 0.1 * ink))
    if total - counts[WHITE - 1] < 0.55 * total or darkest > 70 or dark > 130:
        return False
    pixels = np.asarray(image)
    height, width = pixels.shape
    if light > 0.05 * total and min(height, width) >= 5:  # speckles and the edges of strokes, or a shadow
        grey = (pixels < WHITE) & (pixels >= 128)
        if np.count_nonzero(running(np.minimum, running(np.minimum, grey, 5, 0), 5, 1)) > 0.01 * total:
            return False
    if ink > 0.55 * width and np.count_nonzero(pixels < 243, axis=1).max() > 0.55 * width:
        return False
    black = pixels < 128
    for edge in (black[0], black[-1]):
        if edge.any():
            longest = max(first_run(edge), first_run(edge[::-1]))
            if longest >= min(width, max(0.75 * height, 0.1 * width)) or 2 * np.count_nonzero(edge) >= width:
                return False
    rows, columns = np.flatnonzero(black.any(1)), np.flatnonzero(black.any(0))
    if not len(rows):
        return True
    box = (rows[-1] + 1 - rows[0]) * (columns[-1] + 1 - columns[0])
    return bool(2 * counts[127] < box)  # more is paper on a canvas


def to_black_on_white(pixels: np.ndarray) -> np.ndarray:
    """float (H, W) in [0, 255] -> uint8 (H', W'): paper 255, ink about 0."""
    blank = np.full(pixels.shape, 255, dtype=np.uint8)
    noise = noise_of(pixels)
    if contrast(pixels) <= max(4, 6 * noise):
        return blank
    pixels = cut_canvas(pixels, noise)
    on_paper = paper_mask(pixels, noise)
    paper = float(np.median(pixels[on_paper]))
    lowest, highest = np.percentile(pixels[on_paper], (0.5, 99.5))
    if has_light_ink(np.where(on_paper, pixels, paper)):
        pixels, paper = highest + lowest - pixels, highest + lowest - paper
    brightest = np.percentile(pixels[on_paper], 90)  # above it are reflections, and halos of a sharpened photo
    pixels = even_light(np.clip(pixels, 0, brightest), paper)
    dark = missing_light(pixels, paper)

    deviation = max(1.4826 * float(np.median(dark)), noise / max(paper, 1))
    dark = remove_lines(dark, max(FAINTEST, 4 * deviation))
    ink = dark > max(FAINTEST, 5 * deviation)
    ink &= neighbours(ink) >= 3  # no single pixels
    broad = opening(dark)
    writing = ink & (ink.mean(1) < 0.6)[:, None] & (ink.mean(0) < 0.8)  # without the lines of a form
    if np.count_nonzero(thin := writing & (2 * broad < dark)) >= FEWEST:
        writing = thin
    if writing.sum() < FEWEST:
        writing = ink
    if writing.sum() < FEWEST:
        return blank[: len(dark), : dark.shape[1]]
    black = min(1.0, float(np.percentile(dark[writing], 75)) / 0.85)  # as it is in a binarised scan
    floor = min(2 * deviation, 0.5 * black)
    dark = without_faint(dark, broad, ink, black)
    strength = np.clip((dark - floor) / (black - floor), 0, 1) * dilate(ink, 5)
    return np.rint(255 * (1 - strength)).astype(np.uint8)


def normalise_page(pixels: np.ndarray, height: float, written: np.ndarray) -> np.ndarray:
    """Make paper white and ink black on a page of many lines, which keeps its size.

    pixels: uint8 (H, W). height: of its usual line in pixels. written: bool (H, W), where the lines are: the levels are
    those of all of them, so that a line that holds little ink, or only a fold, is no different from the others. Returns
    uint8 (H, W), paper 255, ink about 0.
    """
    places = np.flatnonzero(written)
    places = places[:: max(1, len(places) // MOST_SAMPLED)]
    low, paper, high = np.percentile(pixels.ravel()[places], (1, 50, 99))
    if high - paper > paper - low:  # light ink
        pixels, paper, low, high = 255 - pixels, 255 - paper, 255 - high, 255 - low
    noise = noise_of(pixels[:: 1 + len(pixels) // 512].astype(np.float32))
    blank = np.full(pixels.shape, 255, dtype=np.uint8)
    if high - low <= max(4, 6 * noise):
        return blank
    brightest = np.percentile(pixels.ravel()[places], 90)  # above it are halos of a sharpened photo
    pixels = np.minimum(pixels, np.uint8(brightest))
    size = max(9, round(0.4 * height)) | 1
    light = erode(dilate(pixels, size), size)
    shares = (1 / np.maximum(np.arange(256), max(paper, 1) / 4)).astype(np.float32)
    dark = (light - pixels) * shares[light]
    dark -= np.median(dark.ravel()[places])
    np.clip(dark, 0, 1, out=dark)
    deviation = max(1.4826 * float(np.median(dark.ravel()[places])), noise / max(paper, 1))
    ink = dark > max(FAINTEST, 5 * deviation)
    ink &= neighbours(ink) >= 3  # no single pixels
    writing = dark[ink & written]
    if len(writing) < FEWEST:
        return blank
    black = min(1.0, float(np.percentile(writing[:: max(1, len(writing) // MOST_SAMPLED)], 75)) / 0.85)
    floor = min(2 * deviation, 0.5 * black)
    dark -= floor
    dark *= 255 / (black - floor)
    np.clip(dark, 0, 255, out=dark)
    return np.where(dilate(ink, 5), 255 - np.rint(dark).astype(np.uint8), 255).astype(np.uint8)


def clean_line(strip: np.ndarray) -> np.ndarray:
    """Take ruled and squared lines out of a line of `normalise_page`, uint8 (H, W)."""
    return np.rint(255 * (1 - remove_lines(1 - strip.astype(np.float32) / 255, FAINT))).astype(np.uint8)


# ------------------------------------------------------------------------------------------ measurements


def noise_of(pixels: np.ndarray) -> float:
    """The standard deviation of the noise, from differences of neighbours."""
    return float(np.median(np.abs(np.diff(pixels, axis=1)))) * 1.4826 / 2**0.5 if pixels.shape[1] > 1 else 0.0


def contrast(pixels: np.ndarray) -> float:
    """The range of greys, without the half per cent at either end."""
    return float(np.ptp(np.percentile(pixels, (0.5, 99.5))))


def first_run(flags: np.ndarray) -> int:
    """How many are set before the first that is not."""
    return len(flags) if flags.all() else int(np.argmin(flags))


def has_light_ink(pixels: np.ndarray) -> bool:
    """Whether the writing is lighter than the paper: a vote of parts of the line, each about as wide as it is high.

    Of whole parts, and of the second and third quarter of their height: a tint or a shadow along the line fills most of
    these, a frame none.
    """
    parts, quarter = max(1, round(pixels.shape[1] / pixels.shape[0])), pixels.shape[0] // 4
    middle = [pixels[quarter : 2 * quarter], pixels[2 * quarter : 3 * quarter]] if quarter else []
    vote = 0.0
    for band, weight in zip([pixels, *middle], (0.5, 1, 1), strict=False):
        for part in np.array_split(band, parts, axis=1):
            low, paper, high = np.percentile(part, (1, 50, 99))
            vote += weight * ((high - paper) - (paper - low))
    return vote > 0


def sampled(grey: Image.Image) -> np.ndarray:
    """Some of the pixels of an image, as floats (H, W)."""
    step = 1 + grey.height // 160
    return np.asarray(grey)[::step, ::step].astype(np.float32)


def legibility(pixels: np.ndarray) -> float:
    """How well an image (H, W) shows dark writing: the share of light that ink takes away, times how even light is.

    A tint, of a marker or of paper, is broad: it changes the light, and least in one of the colours.
    """
    light = np.maximum(closing(pixels), 1)
    low, high = np.percentile(light, (3, 97))
    return float(np.percentile(1 - pixels / light, 99) * (low / high) ** 2)


# ---------------------------------------------------------------------------------------- what is no ink


def cut_canvas(pixels: np.ndarray, noise: float) -> np.ndarray:
    """Cut off the rows and columns around the paper that are each of one colour, where the paper has another one."""
    tolerance = max(4, 6 * noise, 0.05 * contrast(pixels))
    runs, colours = [], []
    for axis in (1, 0):
        low, middle, high = np.percentile(pixels, (2, 50, 98), axis=axis)
        uniform = high - low <= tolerance
        for lines, flags in ((middle, uniform), (middle[::-1], uniform[::-1])):
            steps = np.abs(np.diff(lines, prepend=lines[0]))
            runs.append(first_run(flags & (steps <= tolerance)))
            colours.append(lines[0])
    (top, bottom, left, right), (height, width) = runs, pixels.shape
    inner = pixels[top : height - bottom, left : width - right]
    if not inner.size:
        return pixels
    paper = np.median(inner)
    if not is_area(np.abs(inner - paper) <= tolerance):
        return pixels
    top, bottom, left, right = (
        run * is_other(colour, paper, tolerance) for run, colour in zip(runs, colours, strict=True)
    )
    if not (top or bottom):  # a narrow strip may be the stem of a letter
        left, right = (run * (run > 0.25 * height) for run in (left, right))
    return pixels[top : height - bottom, left : width - right]


def paper_mask(pixels: np.ndarray, noise: float) -> np.ndarray:
    """(H, W) bool: what is paper and ink, not the canvas around paper that lies askew."""
    everything = np.ones(pixels.shape, dtype=bool)
    ring = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    colour, tolerance = np.median(ring), max(4, 6 * noise, 0.05 * contrast(pixels))
    if (np.abs(ring - colour) <= tolerance).mean() < 0.6:
        return everything
    alike = np.abs(pixels - colour) <= tolerance
    canvas = np.zeros_like(alike)
    for axis in (0, 1):  # from each side as far as the colour goes
        canvas |= np.logical_and.accumulate(alike, axis)
        canvas |= np.flip(np.logical_and.accumulate(np.flip(alike, axis), axis), axis)
    if canvas.mean() > 0.95:
        return everything
    paper = np.median(pixels[~canvas])
    if not is_other(colour, paper, tolerance) or not is_area(np.abs(pixels - paper) <= tolerance):
        return everything
    return ~canvas


def is_other(colour: float, paper: float, tolerance: float) -> bool:
    """Whether what is around the paper is no paper: a lighter canvas must differ more, as paper around a tint does."""
    return bool(abs(colour - paper) > (4 if colour > paper else 2) * tolerance)


def is_area(mask: np.ndarray) -> bool:
    """Whether `mask` holds an area of paper: long runs in several rows in turn, as no writing has."""
    height, width = mask.shape
    length, rows = max(width // 4, height // 2, 16), max(4, round(0.1 * height))
    if length > width or rows > height:
        return False
    return bool(running(np.minimum, running(np.minimum, mask, length, 1).any(1), rows, 0).any())


def dark_sides(pixels: np.ndarray, paper: float) -> tuple[bool, bool, bool, bool]:
    """Whether dark canvas lies above, below, to the left and to the right of the paper.

    Above or below, it takes most of the edge or a long run from a corner, as a line that was turned leaves it. A single
    dark edge at the left or right may be a letter.
    """
    height, width = pixels.shape
    need = min(max(height, 0.15 * width), 0.9 * width)
    shares, runs = [], []
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        dark = edge < CANVAS * paper
        shares.append(dark.mean())
        runs.append(max(first_run(dark), first_run(dark[::-1])))
    top, bottom = (share >= 0.8 or run >= need for share, run in zip(shares[:2], runs[:2], strict=True))
    left, right = (
        (top or bottom) and (share >= 0.9 or run >= 0.2 * height)
        for share, run in zip(shares[2:], runs[2:], strict=True)
    )
    return top, bottom, left, right


def remove_lines(dark: np.ndarray, threshold: float) -> np.ndarray:
    """Take ruled and squared lines out of dark (H, W): all of those fainter than the ink, and thin dark level ones."""
    height, width = dark.shape
    mask = dark > threshold
    rows = long_runs(mask, max(round(1.5 * height), width // 4), 1)
    columns = long_runs(mask, round(0.9 * height), 0)
    writing = mask & ~rows & ~columns
    if writing.sum() < FEWEST:
        return dark
    ink, thickness = np.percentile(dark[writing], 75), max(2, height // 16)
    window = 2 * thickness + 1
    # A fold, from edge to edge: no letter is as high and as straight.
    through = long_runs(mask & (dark > 0.35 * ink), height, 0)
    for axis, lines, faintest in ((0, rows, 0.6), (1, columns, 0.6), (1, through, 0.85)):
        if lines.any() and np.median(dark[lines]) <= faintest * ink:
            faint = lines & (dark < 1.6 * np.median(dark[lines]))
            without = np.where(faint, 0, dark)
            bridged = erode_along(dilate_along(without, window, axis), window, axis)  # strokes that cross the line
            dark = np.where(faint, np.minimum(bridged, dark), without)
    if rows.any() and np.median(dark[rows]) > 0.6 * ink:
        above, below = np.zeros_like(mask), np.zeros_like(mask)
        above[thickness:], below[:-thickness] = mask[:-thickness], mask[thickness:]
        dark = np.where(rows & ~(above | below), 0, dark)  # but for what crosses them
        if long_runs(mask, round(0.8 * width), 1).any():  # a frame
            dark = np.where(columns, 0, dark)
    return dark


def without_faint(dark: np.ndarray, broad: np.ndarray, ink: np.ndarray, black: float) -> np.ndarray:
    """Take out what is much fainter than the writing and lies apart from it: the other side of the sheet, dots, stains.

    Only where most is not faint: else it is the writing. dark: (H, W); broad: (H, W), what of it is no stroke; ink:
    (H, W) bool; black: how dark writing is.
    """
    strong = dark > STRONG * black
    if 4 * np.count_nonzero(strong & ink) < np.count_nonzero(ink):
        return dark
    dark = np.where(broad < STRONG * black, np.maximum(dark - broad, 0), dark)
    near = dilate(strong, 2 * max(2, len(dark) // 20) + 1)  # as far as strokes fade out
    dark = np.where(near | (dark > FAINT * black), dark, 0)
    inked = dark > 0.1 * black
    small = max(3, len(dark) // 12) | 1
    spots = inked & ~strong & (dilate(box_sum(inked, 2 * small + 1) <= box_sum(inked, small), 3))
    return np.where(spots, 0, dark)


# ------------------------------------------------------------------------------------------------- light


def even_light(pixels: np.ndarray, paper: float) -> np.ndarray:
    """Divide by a quadratic surface fitted to the paper, as the corners of a photo or one side of it are darker."""
    height, width = pixels.shape
    y = np.unique(np.linspace(0, height - 1, min(height, 48)).astype(int))
    x = np.unique(np.linspace(0, width - 1, min(width, 96)).astype(int))
    values = pixels[np.ix_(y, x)].ravel()

    def terms(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        y, x = np.meshgrid(y / height - 0.5, x / width - 0.5, indexing="ij")
        return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], -1)

    sampled, fit, before = terms(y, x).reshape(-1, 6), np.full(len(values), paper), None
    for _ in range(6):
        near = np.abs(values - fit) <= 0.2 * fit
        if near.sum() < 0.3 * len(values):  # no smooth light, as where a shadow has an edge
            return pixels
        if before is not None and np.array_equal(near, before):
            break
        chosen, before = sampled * near[:, None], near
        weights = np.linalg.lstsq(chosen.T @ sampled, chosen.T @ values, rcond=None)[0]
        fit = np.maximum(sampled @ weights, 1)
    surface = terms(np.arange(height), np.arange(width)) @ weights
    return (pixels * (paper / np.maximum(surface, 0.1 * max(paper, 1)))).astype(np.float32)


def missing_light(pixels: np.ndarray, paper: float) -> np.ndarray:
    """The share of the paper's light that is missing at each pixel, in [0, 1]; canvas around the paper has none."""
    size = max(9, round(0.4 * min(pixels.shape))) | 1  # pixels; more than a stroke is wide
    sides = dark_sides(pixels, paper)
    top, bottom, left, right = (size * side for side in sides)
    # Canvas goes on outside the image, so that it contains a square of this size where it tapers, too.
    padded = np.pad(pixels, ((top, bottom), (left, right)), mode="edge")
    light = erode(dilate(padded, size), size)[top : top + len(pixels), left : left + pixels.shape[1]]
    dark = (light - pixels) / np.maximum(light, 0.25 * max(paper, 1))
    if not any(sides):
        return np.clip(dark - np.median(dark), 0, 1)
    canvas = light < CANVAS * paper
    edge = max(3, len(pixels) // 40) | 1
    border = dilate(canvas, edge) & ~erode(canvas, edge + 2)
    border[: edge // 2 + 1] = border[-(edge // 2) - 1 :] = True
    border[:, : edge // 2 + 1] = border[:, -(edge // 2) - 1 :] = True
    dark[border] = 0
    return np.clip(dark - (0 if border.all() else np.median(dark[~border])), 0, 1)


# ----------------------------------------------------------------------------------- windows over pixels


def running(op: np.ufunc, values: np.ndarray, size: int, axis: int) -> np.ndarray:
    """`op` (np.minimum or np.maximum) over every `size` neighbours along an axis, which gets shorter by size - 1."""
    values, done = np.moveaxis(values, axis, 0), 1
    while done < size:
        step = min(done, size - done)
        values, done = op(values[:-step], values[step:]), done + step
    return np.moveaxis(values, 0, axis)


def dilate_along(values: np.ndarray, size: int, axis: int) -> np.ndarray:
    """The maximum over odd `size` pixels around each along an axis, as far as they lie in the image."""
    lowest = {"b": False, "u": 0}.get(values.dtype.kind, -np.inf)
    size = min(size, 2 * values.shape[axis] - 1)
    padding = [(size // 2, size // 2) if axis == each else (0, 0) for each in (0, 1)]
    return running(np.maximum, np.pad(values, padding, constant_values=lowest), size, axis)


def erode_along(values: np.ndarray, size: int, axis: int) -> np.ndarray:
    """The minimum, likewise."""
    if values.dtype.kind in "bu":
        return ~dilate_along(~values, size, axis)
    return -dilate_along(-values, size, axis)


def dilate(values: np.ndarray, size: int) -> np.ndarray:
    """The maximum over a square of odd `size` around each pixel."""
    return dilate_along(dilate_along(values, size, 0), size, 1)


def opening(dark: np.ndarray) -> np.ndarray:
    """What is broader than a stroke, a square of 0.2 times the height."""
    size = max(7, round(0.2 * min(dark.shape))) | 1
    return dilate(erode(dark, size), size)


def closing(pixels: np.ndarray) -> np.ndarray:
    """The light of the paper: everything dark that is less broad than a square of 0.4 times the height is filled in."""
    size = max(9, round(0.4 * min(pixels.shape))) | 1
    return erode(dilate(pixels, size), size)


def erode(values: np.ndarray, size: int) -> np.ndarray:
    """The minimum over a square of odd `size` around each pixel."""
    return erode_along(erode_along(values, size, 0), size, 1)


def box_sum(mask: np.ndarray, size: int) -> np.ndarray:
    """How many are set in a square of odd `size` around each pixel."""
    sums = np.pad(mask, ((size // 2 + 1, size // 2),) * 2).astype(np.int32).cumsum(0).cumsum(1)
    return sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size] + sums[:-size, :-size]


def neighbours(mask: np.ndarray) -> np.ndarray:
    """How many of the nine pixels around and at each are set."""
    padded = np.pad(mask, 1).astype(np.uint8)
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]


def long_runs(mask: np.ndarray, length: int, axis: int) -> np.ndarray:
    """What of `mask` lies on a run of `length` along an axis that may drift sideways by a pixel."""
    mask = np.moveaxis(mask, axis, 1)
    if length > mask.shape[1]:
        return np.zeros_like(np.moveaxis(mask, 1, axis))
    wide = running(np.maximum, np.pad(mask, ((1, 1), (0, 0))), 3, 0)
    starts = running(np.minimum, wide, length, 1)
    runs = running(np.maximum, np.pad(starts, ((0, 0), (length - 1, length - 1))), length, 1)
    return np.moveaxis(runs & mask, 1, axis)
