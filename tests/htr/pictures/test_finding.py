"""Lines from maps that are drawn, and from pages whose baselines a stand-in for the network sees as they are drawn."""

import itertools
import random

import numpy as np
import pytest
from PIL import Image, ImageDraw

from htr.pictures import finding
from htr.pictures.finding import baselines_of, find_lines, ink_of, reading_order
from htr.pictures.images import Held, ImageError
from htr.pictures.line_maps import MAPS, MULTIPLE, SCALE


def maps_with(lines, size=(300, 200), ends=True) -> np.ndarray:
    """Maps of lines [(x, y), ...] in pixels of the maps."""
    maps = [Image.new("L", size) for _ in range(MAPS)]
    draw = [ImageDraw.Draw(each) for each in maps]
    for line in lines:
        draw[0].line(line, fill=240, width=3)
        for on, (x, y) in zip(draw[1:], (line[0], line[-1]), strict=True):
            if ends:
                on.ellipse([x - 3, y - 3, x + 3, y + 3], fill=240)
    return np.stack([np.asarray(each) for each in maps]).astype(np.float32) / 255


def heights(line, places) -> np.ndarray:
    """The heights of a line (K, 2) at places along it."""
    return np.interp(places, *np.asarray(line, dtype=float).T)


def assert_found(found, lines) -> None:
    """Each line is found once, in the order of their heights: pixels of the page against those of the maps."""
    found = sorted(found, key=lambda line: line[:, 1].mean())
    lines = sorted(lines, key=lambda line: np.mean([y for _, y in line]))
    assert len(found) == len(lines)
    for mine, true in zip(found, [(np.asarray(line) + 0.5) * SCALE for line in lines], strict=True):
        assert np.abs(mine[[0, -1], 0] - true[[0, -1], 0]).max() < 8
        places = np.linspace(true[0, 0] + 8, true[-1, 0] - 8, 50)
        assert np.abs(heights(mine, places) - heights(true, places)).max() < 2.5
        assert (np.diff(mine[:, 0]) > 0).all()


# -------------------------------------------------------------------------------------------------- maps


@pytest.mark.parametrize("slope", [0, 0.1, -0.2, 0.5])
def test_sloping_lines_are_followed(slope):
    lines = [[(20, y), (280, y + 260 * slope)] for y in (60, 75, 100)]
    assert_found(baselines_of(maps_with(lines, (300, 260))), lines)


def test_bent_lines_are_followed():
    lines = [[(x, y + 8 * np.sin(x / 30)) for x in range(10, 290, 3)] for y in (40, 60, 120)]
    assert_found(baselines_of(maps_with(lines)), lines)


def test_lines_that_touch_stay_apart():
    """Six rows from each other, three of which each takes, and touching in the middle."""
    maps = maps_with(lines := [[(20, y), (280, y)] for y in (50, 56, 62)])
    maps[0, 50:63, 140:144] = np.maximum(maps[0, 50:63, 140:144], 0.6)
    assert_found(baselines_of(maps), lines)


def test_a_gap_is_closed_unless_lines_end_there():
    left, right = [(20, 80), (130, 82)], [(150, 82), (280, 84)]
    maps = maps_with([left, right], ends=False)
    assert_found(baselines_of(maps), [[left[0], right[-1]]])
    assert_found(baselines_of(maps_with([left, right])), [left, right])


def test_what_is_beside_the_course_is_another_line():
    left, right = [(20, 80), (130, 80)], [(150, 94), (280, 94)]
    assert_found(baselines_of(maps_with([left, right], ends=False)), [left, right])


def test_lines_that_run_into_each_other_are_cut_at_their_ends():
    left, right = [(20, 80), (140, 80)], [(148, 80), (280, 80)]
    maps = maps_with([left, right])
    maps[0, 79:82, 138:150] = 0.9
    found = sorted(baselines_of(maps), key=lambda line: line[0, 0])
    assert len(found) == 2
    assert 138 * SCALE < found[0][-1, 0] < found[1][0, 0] < 152 * SCALE


def test_specks_and_faint_traces_are_no_lines():
    maps = maps_with([[(50, 50), (52, 50)]])
    maps[0, 100:103, 20:280] = 0.15
    assert baselines_of(maps) == []
    assert baselines_of(np.zeros((MAPS, 32, 32), np.float32)) == []


def test_a_line_may_run_along_the_edge():
    for y in (0, 199):
        (line,) = baselines_of(maps_with([[(0, y), (299, y)]]))
        assert np.abs(line[:, 1] - y * SCALE).max() < 6


# ------------------------------------------------------------------------------------------------- pages


class Seen:
    """Sees baselines where there is ink; keeps the shapes of what it is given."""

    def __init__(self):
        self.shapes = []

    def __call__(self, ink: np.ndarray) -> np.ndarray:
        self.shapes.append(ink.shape)
        height, width = ink.shape
        assert height % MULTIPLE == width % MULTIPLE == 0 and ink.dtype == np.uint8
        cells = ink.reshape(height // SCALE, SCALE, width // SCALE, SCALE).max((1, 3)) / np.float32(255)
        level = np.zeros_like(cells)  # ink that runs rather across than down, as that of upright writing does
        level[:, 2:-2] = np.min([cells[:, n : n + cells.shape[1] - 4] for n in range(5)], axis=0)
        return np.stack([level, np.zeros_like(cells), np.zeros_like(cells)])


def ruled(size, lines, thick=4, paper=220, pen=30) -> Image.Image:
    page = Image.new("L", size, paper)
    draw = ImageDraw.Draw(page)
    for line in lines:
        draw.line(line, fill=pen, width=thick)
    return page


def assert_same(found, lines, within) -> None:
    assert len(found) == len(lines)
    for mine, true in zip(found, lines, strict=True):
        assert np.abs(mine[[0, -1]] - true).max() < within


LINES = [[(100, y), (600, y + 10)] for y in range(100, 700, 40)]


@pytest.mark.parametrize("scale", [1, 3, 5])
def test_places_are_those_of_the_picture(scale):
    lines = np.array(LINES) * scale
    page = ruled((700 * scale, 800 * scale), [list(map(tuple, line)) for line in lines.tolist()], 4 * scale)
    found = find_lines(Held("page", page), 0, seen := Seen())
    assert (found.size, found.turned) == (page.size, 0)
    assert_same(found.lines, lines, 10 * scale)
    assert all(height * width < 1.3 * finding.PIXELS for height, width in seen.shapes)


@pytest.mark.parametrize("turned", [90, 180, 270])
def test_a_page_that_is_turned(turned):
    """Its lines run from where the writing starts, in the order in which it is read."""
    page = ruled((700, 800), LINES)
    turned_page = page.rotate(-turned, expand=True)
    found = find_lines(Held("page", turned_page), 0, Seen(), turned)
    back = find_lines(Held("page", page), 0, Seen()).lines
    x, y = np.array([line[[0, -1]] for line in back]).transpose(2, 0, 1)
    expected = {90: (800 - y, x), 180: (700 - x, 800 - y), 270: (y, 700 - x)}[turned]
    assert found.turned == turned and found.size == turned_page.size
    assert_same(found.lines, np.stack(expected, 2), 6)


def test_writing_that_runs_upwards_is_noticed():
    page = ruled((700, 800), LINES).rotate(90, expand=True)
    found = find_lines(Held("page", page), 0, Seen())
    assert found.turned == 270 and len(found.lines) == len(LINES)
    assert all(line[0, 1] > line[-1, 1] for line in found.lines)
    assert np.all(np.diff([line[:, 0].mean() for line in found.lines]) > 0)


def test_light_ink_on_a_board():
    found = find_lines(Held("page", ruled((700, 800), LINES, paper=40, pen=230)), 0, Seen())
    assert_same(found.lines, np.array(LINES), 10)


def test_small_writing_is_looked_at_again():
    """Lines 40 pixels apart on a page of 3,000 x 4,000, which the network first sees less than 10 pixels apart."""
    lines = [[(200, y), (2800, y)] for y in range(200, 3800, 40)]
    found = find_lines(Held("page", ruled((3000, 4000), lines, 10)), 0, seen := Seen())
    first, second = (height * width for height, width in seen.shapes)
    assert first < 1.3 * finding.PIXELS < second < 1.3 * finding.MOST_PIXELS
    assert_same(found.lines, np.array(lines), 20)


def test_nothing_is_found_where_there_is_nothing():
    for page in (Image.new("L", (700, 800), 255), Image.new("RGB", (1, 1)), Image.new("L", (30_000, 40), 200)):
        assert find_lines(Held("page", page), 0, Seen()).lines == []
    with pytest.raises(ImageError):
        find_lines(Held("page", b"x"), 0, Seen())


def test_shadows_are_no_ink():
    """The same strokes under even light, and under one that falls to a third."""
    page = np.asarray(ruled((700, 800), LINES)).astype(float)
    shaded = (page * np.linspace(1, 1 / 3, 700)).astype(np.uint8)
    bright, dark = ink_of(page.astype(np.uint8)), ink_of(shaded)
    assert ((bright > 128) == (dark > 128)).mean() > 0.995
    assert (dark > 128).any()


# ------------------------------------------------------------------------------------------------- order


def block(left, right, *heights) -> list[np.ndarray]:
    return [np.array([[left, y], [right, y]], dtype=float) for y in heights]


@pytest.mark.parametrize(
    "lines",
    [
        block(0, 100, 10, 20, 30),
        block(60, 100, 10) + block(0, 40, 20) + block(0, 100, 30, 40, 50),  # a date above the address
        block(0, 45, *range(10, 60, 10)) + block(55, 100, *range(12, 62, 10)),  # two pages of a book
        block(0, 100, 5) + block(0, 45, *range(10, 60, 10)) + block(55, 100, *range(11, 61, 10)) + block(20, 80, 70),
        block(0, 30, 10, 20, 30) + block(33, 66, 9, 19, 29) + block(68, 100, 11, 21, 31),
        block(0, 46, 10, 20, 30, 40) + block(45, 100, 10, 20, 30, 40),  # a line may reach a little into the next column
    ],
)
def test_lines_are_read_in_order(lines):
    """In whichever order they come."""
    generator = random.Random(0)
    for _ in range(5):
        places = list(range(len(lines)))
        generator.shuffle(places)
        order = reading_order([lines[place] for place in places])
        assert [places[n] for n in order] == list(range(len(lines)))


def test_a_page_that_slopes_is_read_in_order():
    """By 14 degrees: the end of a line is lower than the start of the next one's neighbour."""
    lines = [np.array([[x, y + x / 4], [x + 400, y + (x + 400) / 4]]) for y in range(0, 400, 40) for x in (0, 500)]
    lines = [line for line in lines if line[0, 0] == 0 or line[0, 1] - 125 in (0, 320)]  # short ones at the right
    assert reading_order(lines) == list(range(len(lines)))


def test_a_table_is_read_row_by_row():
    """Cells that are narrow are no columns of a text."""
    rows = [block(left, left + 8, y) for y in (10, 20, 30, 40) for left in range(0, 100, 10)]
    lines = list(itertools.chain(*rows))
    found = reading_order(lines)
    assert [lines[n][0, 1] for n in found] == sorted(line[0, 1] for line in lines)


def test_every_line_has_one_place():
    generator = np.random.default_rng(0)
    for count in (0, 1, 2, 7, 60):
        left = generator.uniform(0, 900, count)
        lines = [np.array([[x, y], [x + w, y + d]]) for x, y, w, d in zip(
            left, generator.uniform(0, 900, count), generator.uniform(1, 500, count), generator.normal(0, 9, count),
            strict=True)]  # fmt: skip
        assert sorted(reading_order(lines)) == list(range(count))
