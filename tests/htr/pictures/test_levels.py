import tracemalloc

import numpy as np
import pytest
from conftest import ROOT, drawing
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from htr.pictures.images import cut_margins, to_grey
from htr.pictures.levels import (
    dilate,
    erode,
    is_black_on_white,
    long_runs,
    missing_light,
    neighbours,
    normalise_levels,
    running,
)


def line(size=(300, 50)) -> Image.Image:
    """Black writing on white paper: strokes of three pixels, none of them longer than the line is high."""
    image = Image.new("L", (size[0] * 4, size[1] * 4), 255)
    draw = ImageDraw.Draw(image)
    for x in range(40, size[0] * 4 - 160, 120):
        draw.line((x, 150, x + 40, 40, x + 80, 150), fill=0, width=13, joint="curve")
        draw.line((x + 20, 100, x + 60, 100), fill=0, width=13)
    return image.reduce(4)


def levels(ink: int, paper: int):
    return lambda image: image.point([round(ink + value * (paper - ink) / 255) for value in range(256)])


def ink_of(image: Image.Image) -> np.ndarray:
    """(H, W) bool, of what is left when the margins are cut."""
    return np.asarray(cut_margins(image)) < 128


def same_writing(image: Image.Image, reference: Image.Image) -> bool:
    """Whether both hold the same ink, but for a pixel at the edges of strokes."""
    found, expected = ink_of(image), ink_of(reference)
    if abs(found.shape[0] - expected.shape[0]) > 2 or abs(found.shape[1] - expected.shape[1]) > 2:
        return False
    height, width = (min(pair) for pair in zip(found.shape, expected.shape, strict=True))
    for y in (0, 1, 2):
        for x in (0, 1, 2):  # wherever the margins were cut
            a, b = found[y : y + height - 2, x : x + width - 2], expected[1 : height - 1, 1 : width - 1]
            height_, width_ = min(a.shape[0], b.shape[0]), min(a.shape[1], b.shape[1])
            a, b = a[:height_, :width_], b[:height_, :width_]
            if (a & ~dilate(b, 3)).sum() + (b & ~dilate(a, 3)).sum() <= 0.02 * b.sum():
                return True
    return False


def test_black_on_white_stays_as_it_is():
    image = line()
    assert is_black_on_white(image)
    assert normalise_levels(image) is image
    assert ImageChops.difference(normalise_levels(ImageOps.invert(image)), image).getbbox() is None


@pytest.mark.parametrize(
    "other", ["pencil", "ruled", "canvas", "corners", "noise", "frame of a photo", "white paper on black"]
)
def test_what_is_not_black_on_white_is_known(other):
    image = line()
    image = {
        "pencil": lambda: levels(170, 235)(image),
        "ruled": lambda: Image.fromarray(
            np.minimum(image, np.where(np.arange(50)[:, None] % 12 == 3, 200, 255)).astype("u1")
        ),
        "canvas": lambda: ImageOps.expand(image, 20, 0),
        "corners": lambda: image.rotate(3, expand=False, fillcolor=0),
        "noise": lambda: Image.fromarray(
            np.clip(np.random.default_rng(0).normal(0, 30, (50, 300)) + image, 0, 255).astype("u1")
        ),
        "frame of a photo": lambda: levels(60, 190)(image),
        "white paper on black": lambda: ImageOps.expand(image, (150, 90), 0),
    }[other]()
    assert not is_black_on_white(image)
    assert not is_black_on_white(ImageOps.invert(image))


@pytest.mark.parametrize(
    ("ink", "paper"),
    [(0, 240), (0, 215), (70, 190), (170, 235), (0, 110), (120, 255), (200, 225), (255, 60), (235, 40), (140, 90)],
)
def test_any_ink_on_any_paper(ink, paper):
    assert same_writing(normalise_levels(levels(ink, paper)(line())), line())


def surrounded(image, grey, margin):
    return ImageOps.expand(image, margin, grey)


@pytest.mark.parametrize("ink_paper", [(0, 255), (150, 230), (235, 60)])
@pytest.mark.parametrize("around", [0, 40, 255])
def test_what_is_around_the_paper_is_no_ink(ink_paper, around):
    paper = levels(*ink_paper)(line())
    for margin in ((30, 20), (200, 90), (25, 10, 60, 10)):
        assert same_writing(normalise_levels(surrounded(paper, around, margin)), line())


@pytest.mark.parametrize("degrees", [-5, -3, -1, 2, 3, 4])
@pytest.mark.parametrize("ink_paper", [(0, 255), (150, 230)])
def test_dark_corners_of_a_turned_line_are_no_ink(degrees, ink_paper):
    bicubic = Image.Resampling.BICUBIC
    turned = levels(*ink_paper)(line()).rotate(degrees, bicubic, expand=True, fillcolor=0)
    assert same_writing(normalise_levels(turned), line().rotate(degrees, bicubic, expand=True, fillcolor=255))


@pytest.mark.parametrize("ink_paper", [(0, 255), (60, 190), (235, 90)])
@pytest.mark.parametrize("light", ["along", "down", "edge", "vignette", "slanted edge"])
def test_uneven_light(light, ink_paper):
    y, x = np.mgrid[:50, :300] / np.array([50, 300])[:, None, None]
    share = {
        "along": 1 - 0.4 * x,
        "down": 0.7 + 0.3 * y,
        "edge": np.where(x < 0.5, 1, 0.75),
        "vignette": 1 - 0.7 * ((x - 0.5) ** 2 + (y - 0.5) ** 2),
        "slanted edge": np.where(x + 0.1 * y < 0.4, 1, 0.8),
    }[light]
    image = np.asarray(levels(*ink_paper)(line())) * share
    assert same_writing(normalise_levels(Image.fromarray(np.rint(image).astype(np.uint8))), line())


@pytest.mark.parametrize("thing", ["dead pixel", "hot pixel", "staple", "frame"])
def test_one_thing_does_not_set_the_scale(thing):
    """The pencil beside it becomes as black as it does alone."""
    image = levels(150, 230)(ImageOps.expand(line(), 12, 255))
    alone = np.asarray(normalise_levels(image))
    draw = ImageDraw.Draw(image)
    if thing == "dead pixel":
        image.putpixel((5, 5), 0)
    elif thing == "hot pixel":
        image.putpixel((5, 5), 255)
    elif thing == "staple":
        draw.line((3, 6, 20, 9), fill=0, width=3)
    else:
        draw.rectangle((3, 3, image.width - 4, image.height - 4), outline=0, width=2)
    found = np.asarray(normalise_levels(image))
    writing = alone < 128
    assert found.shape == alone.shape
    assert found[writing].mean() == pytest.approx(alone[writing].mean(), abs=25)


@pytest.mark.parametrize("grey", [200, 140])
@pytest.mark.parametrize("squared", [False, True])
def test_ruled_lines_are_no_ink(grey, squared):
    values = np.array(line())
    values[3::14] = np.minimum(values[3::14], grey)
    if squared:
        values[:, 5::14] = np.minimum(values[:, 5::14], grey)
    found = np.asarray(normalise_levels(Image.fromarray(values))) < 128
    assert not found[:, -20:].any()  # where no writing is
    expected = np.asarray(line()) < 128
    assert (expected & ~dilate(found, 3)).sum() < 0.08 * expected.sum()  # strokes that cross them stay


@pytest.mark.parametrize("paper", [0, 60, 200, 255])
@pytest.mark.parametrize("noise", [0, 2, 8])
@pytest.mark.parametrize("light", [0, 0.3])
def test_a_blank_picture_stays_blank(paper, noise, light):
    values = paper * (1 - light * np.linspace(0, 1, 300)) + np.random.default_rng(0).normal(0, noise, (50, 300))
    image = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    found = normalise_levels(image)
    assert (np.asarray(found) < 128).mean() < 0.001


def test_a_single_stroke_is_writing():
    """It fills its box, as paper on a canvas does."""
    image = Image.new("L", (60, 50), 255)
    ImageDraw.Draw(image).line((30, 8, 30, 42), fill=0, width=4)
    for changed in (image, levels(150, 230)(image), ImageOps.invert(image)):
        assert same_writing(normalise_levels(changed), image)


def test_letters_at_the_edge_are_no_canvas():
    """A word that is cut out tightly: a bar along the upper edge, a stem along the left one."""
    image = Image.new("L", (160, 40), 255)
    draw = ImageDraw.Draw(image)
    for box in ((0, 0, 3, 39), (0, 0, 20, 3), (40, 0, 43, 39), (40, 36, 62, 39), (80, 0, 110, 3), (94, 0, 97, 39)):
        draw.rectangle(box, fill=0)
    for changed in (image, levels(150, 230)(image)):
        assert same_writing(normalise_levels(changed), image)


def test_a_large_picture_is_reduced():
    photo = levels(80, 200)(line((300, 50)).resize((3000, 1000)))
    assert normalise_levels(photo).size == (1500, 500)


def test_the_samples_are_black_on_white():
    for path in (ROOT / "samples").glob("*.png"):
        with Image.open(path) as image:
            assert is_black_on_white(image.convert("L"))


def test_levels_of_the_tests_drawing():
    assert same_writing(normalise_levels(levels(90, 200)(drawing(levels=False))), drawing(levels=False))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_running_windows_by_hand(size):
    values = np.random.default_rng(0).integers(0, 99, (6, 9))
    expected = np.array([[row[x : x + size].max() for x in range(10 - size)] for row in values])
    assert np.array_equal(running(np.maximum, values, size, 1), expected)


def test_dilation_and_erosion_against_their_definition():
    values = np.random.default_rng(1).normal(0, 1, (7, 8))
    for y in range(7):
        for x in range(8):
            square = values[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
            assert (dilate(values, 3)[y, x], erode(values, 3)[y, x]) == (square.max(), square.min())
    mask = values > 0
    assert np.array_equal(erode(mask, 3), ~dilate(~mask, 3))
    counts = [[mask[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].sum() for x in range(8)] for y in range(7)]
    assert np.array_equal(neighbours(mask), counts)


def test_long_runs_may_drift():
    mask = np.zeros((9, 40), dtype=bool)
    mask[4, :20] = mask[5, 20:] = True  # a line that drops by a pixel
    mask[1, 3:12] = True
    runs = long_runs(mask, 30, 1)
    assert runs[4, :20].all() and runs[5, 20:].all()
    assert not runs[1].any()
    assert np.array_equal(long_runs(mask.T, 30, 0), runs.T)


def test_missing_light_is_the_share_that_ink_takes():
    values = np.full((40, 100), 200, dtype=np.float32)
    values[18:21, 30:60] = 50
    dark = missing_light(values, 200)
    assert dark[19, 40] == pytest.approx(0.75)
    assert dark[5].max() == 0


@pytest.mark.parametrize("size", [(20, 20_000), (20_000, 20), (1, 900), (900, 1), (3, 3), (2, 9), (40, 300)])
@pytest.mark.parametrize("grey", [0, 90, 255])
def test_pictures_of_any_shape(size, grey):
    """Whatever becomes of them, it is a picture, and takes little memory."""
    image = Image.new("L", size, grey)
    draw = ImageDraw.Draw(image)
    for x, y in ((0, 0), (size[0] // 2, size[1] // 2), (size[0] - 5, size[1] - 9)):
        draw.line((x, y, x + 9, y + 5), fill=200 - grey // 2, width=2)
    tracemalloc.start()
    found = normalise_levels(image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.mode == "L" and found.width >= 1 and found.height >= 1
    assert peak < 200_000_000


def on_grey(ink: float = 20, paper: float = 215) -> np.ndarray:
    """The reference in grey, as floats."""
    return ink + np.asarray(drawing(levels=False), dtype=np.float32) * (paper - ink) / 255


def coloured(light: np.ndarray) -> Image.Image:
    """The reference on paper of colours (H, W, 3), in shares of grey paper's light."""
    return Image.fromarray(np.rint(on_grey()[:, :, None] * light).astype(np.uint8))


TINTS = {"yellow": (1, 1, 0), "orange": (1, 0.65, 0.1), "pink": (1, 0.4, 0.7), "green": (0.3, 0.9, 0.3)}


@pytest.mark.parametrize("where", ["left half", "stripe", "soft edge"])
@pytest.mark.parametrize("tint", TINTS)
def test_a_tint_is_no_ink(tint, where):
    height, width = drawing().size[::-1]
    share = np.zeros((height, width, 1))
    if where == "left half":
        share[:, : width // 2] = 1
    elif where == "stripe":
        share[height // 4 : 3 * height // 4] = 1
    else:
        share[:] = np.clip(np.linspace(2, -1, width), 0, 1)[None, :, None]
    tinted = to_grey(coloured(1 - share + share * np.array(TINTS[tint])))
    plain = to_grey(coloured(np.ones((height, width, 3))))
    tinted, plain = (cut_margins(normalise_levels(grey)) for grey in (tinted, plain))
    assert max(abs(a - b) for a, b in zip(tinted.size, plain.size, strict=True)) <= 2
    assert np.asarray(ImageChops.difference(tinted.resize(plain.size), plain)).mean() < 8


@pytest.mark.parametrize("what", ["the other side", "a fold", "dots", "a broad shade"])
def test_what_is_fainter_than_the_writing_goes(what):
    pixels = on_grey()
    plain = np.asarray(normalise_levels(Image.fromarray(pixels.astype(np.uint8))))
    height, width = pixels.shape
    y, x = np.mgrid[:height, :width]
    if what == "the other side":
        other = np.asarray(drawing().transpose(Image.Transpose.FLIP_LEFT_RIGHT), float) / 255
        pixels = pixels * (1 - 0.18 * (1 - other))
    elif what == "a fold":
        pixels[:, 15] *= 0.5
    elif what == "dots":
        pixels[(y % 12 < 2) & (x % 12 < 2)] *= 0.7
    else:
        pixels = pixels * (1 - 0.25 * np.exp(-((y - 20) ** 2 + (x - 105) ** 2) / 60))
    found = np.asarray(normalise_levels(Image.fromarray(pixels.astype(np.uint8))))
    away = np.asarray(drawing().filter(ImageFilter.MinFilter(7))) == 255  # from the writing
    assert (found[away] < 200).mean() < 0.02
    assert np.abs(found[~away].astype(float) - plain[~away]).mean() < 25
