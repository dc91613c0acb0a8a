"""Views of a page's lines: what they do to strokes, and which one suits a page."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from htr.pictures.images import Geometry, load_image
from htr.pictures.views import SAMPLE, SAMPLES, SLANTS, WIDTHS, View, best_view, samples_of

HEIGHT = 64


def strokes(lean: float, width: int = 400, count: int = 6) -> np.ndarray:
    """A line of straight strokes whose tops lean to the right by so many columns a row."""
    image = Image.new("L", (width, HEIGHT), 255)
    for x in np.linspace(40, width - 60, count):
        ImageDraw.Draw(image).line((x, HEIGHT - 4, x + lean * (HEIGHT - 8), 4), fill=0, width=3)
    return np.asarray(image)


def lean_of(line: np.ndarray) -> float:
    """By how many columns a row strokes lean to the right: sheared so, their ink falls onto the fewest columns."""
    ink = 255.0 - line
    rows = np.arange(HEIGHT)[:, None]

    def sharpness(lean: float) -> float:
        columns = np.rint(np.arange(line.shape[1]) + lean * rows + HEIGHT).astype(int)
        return float((np.bincount(columns.ravel(), ink.ravel()) ** 2).sum())

    return max(np.arange(-80, 81) / 100, key=sharpness)


def test_a_page_as_it_is_stays_so():
    line = strokes(0.2)
    assert View().of(line) is line


@pytest.mark.parametrize("slant", [slant for slant in SLANTS if slant])
def test_a_view_changes_the_slant(slant):
    assert lean_of(View(slant=slant).of(strokes(0.1))) == pytest.approx(0.1 + slant, abs=0.03)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("slant", SLANTS)
def test_no_ink_leaves_a_view(width, slant):
    line = np.zeros((HEIGHT, 300), dtype=np.uint8)  # ink up to all edges
    seen = View(width, slant).of(line)
    assert seen.shape[0] == HEIGHT and seen.dtype == np.uint8
    assert (255.0 - seen).sum() == pytest.approx(width * 255.0 * line.size, rel=0.02)


def test_one_view_after_another_is_a_view():
    first, second, line = View(1.2, 0.2), View(0.7, -0.4), strokes(0.1)
    both = first.then(second).of(line)
    after = second.of(first.of(line))
    assert lean_of(both) == pytest.approx(lean_of(after), abs=0.02)
    assert (255.0 - both).sum() == pytest.approx((255.0 - after).sum(), rel=0.02)


def test_lines_are_decoded_as_they_are_seen(tmp_path):
    Image.fromarray(strokes(0.1)).save(tmp_path / "line.png")
    view = View(1.44, -0.2)
    plain, seen = (load_image(tmp_path / "line.png", Geometry(64, 1.2, 2048, view=each)) for each in (View(), view))
    assert (seen.pixels == view.of(plain.pixels)).all()


def test_samples_come_from_the_whole_page():
    lines = [np.full((HEIGHT, 1000), n, dtype=np.uint8) for n in range(40)]
    samples = samples_of(lines)
    assert [sample.shape for sample in samples] == [(HEIGHT, SAMPLE)] * SAMPLES
    assert [int(sample[0, 0]) for sample in samples] == [1, 3, 6, 8, 11, 13, 16, 18, 21, 23, 26, 28, 31, 33, 36, 38]


def test_of_a_short_page_all_is_a_sample():
    lines = [strokes(0.0, width) for width in (100, 1200, 300)]
    assert all(a is b for a, b in zip(samples_of(lines), lines, strict=True))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("slant", SLANTS)
def test_the_view_of_most_confidence_is_found(width, slant):
    """Of a reader that likes upright strokes, and so much ink."""
    line = strokes(-slant)

    def read(lines):
        (seen,) = lines
        ink = (255.0 - seen).sum() / (255.0 - line).sum()
        return [("stroke", np.exp(-6 * (abs(np.log(ink / width)) + abs(lean_of(seen)))))]

    view = best_view([line], read)
    assert view.width == width
    assert lean_of(view.of(line)) == pytest.approx(0, abs=0.04)


def test_a_view_that_hides_writing_is_none():
    """Blank paper is sure: reading less must not count as reading better."""

    def read(lines):
        narrow = lines[0].shape[1] < 400
        return [("a" if narrow else "abcdefgh", 0.9 if narrow else 0.01)]

    assert best_view([strokes(0.0)], read) == View()
