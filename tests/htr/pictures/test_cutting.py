"""Lines out of pages: level, of one height, and with their own ink alone."""

import itertools

import numpy as np
import pytest
from PIL import Image, ImageDraw

from htr.pictures import cutting
from htr.pictures.cutting import (
    DOWN,
    STEEP,
    TURN,
    UP,
    Band,
    PageLine,
    PagePicture,
    bands,
    baseline_of,
    cheapest_paths,
    keep_line,
    upright,
)
from htr.pictures.images import Geometry, ImageError, load_image, open_image, scaled_line

GEOMETRY = Geometry(64, 1.2, 2048)
APART = 60


def page_of(tmp_path, draw, size=(800, 500), paper=235):
    """A page that `draw` draws on."""
    image = Image.new("L", size, paper)
    draw(ImageDraw.Draw(image))
    image.save(tmp_path / "page.png")
    return image


def strips(tmp_path, baselines, outlines=None, size=(800, 500)):
    found = bands(baselines, outlines or [None] * len(baselines))
    return PagePicture(tmp_path / "page.png", 0, size, False, found).strips(range(len(baselines)))


def ink(strip) -> np.ndarray:
    return strip < 128


def test_a_bent_line_becomes_straight(tmp_path):
    """A row of bars that stand on a wave: in the strip all of them end at the same row."""
    x = np.arange(40, 760, 20)
    wave = 200 + 25 * np.sin(x / 90)
    baseline = np.stack([x, wave], 1).astype(float)

    def draw(on):
        for place, foot in zip(x, wave, strict=True):
            on.rectangle([place - 3, foot - 20, place + 3, foot], fill=30)

    page_of(tmp_path, draw)
    (strip,) = strips(tmp_path, [baseline])
    unit = (760 - 40) / cutting.LONE
    assert strip.shape[0] == pytest.approx((UP + DOWN) * unit, abs=3)
    feet = [np.flatnonzero(column)[-1] for column in ink(strip).T if column.sum() > 12]
    assert len(feet) > 150
    assert np.std(feet) < 1
    assert np.mean(feet) == pytest.approx(UP * unit, abs=2.5)


@pytest.mark.parametrize("degrees", [-90, -80, -45, -12, 0, 7, 30, 90, 100])
def test_a_turned_line_is_the_same_line(tmp_path, degrees):
    """Writing in any direction is cut as if it were level."""
    turn = np.radians(degrees)
    middle, across = np.array([400.0, 400.0]), np.array([np.cos(turn), np.sin(turn)])
    down = np.array([-across[1], across[0]])
    ends = [middle - 200 * across, middle + 200 * across]

    def draw(on):
        for place, high in ((-150, 30), (-50, 12), (60, 12), (140, 30)):  # not symmetric
            foot = middle + place * across
            on.line([*foot, *(foot - high * down)], fill=30, width=5)
        on.line([*(middle + 90 * across), *(middle + 120 * across)], fill=30, width=5)

    image = Image.new("L", (800, 800), 235)
    draw(ImageDraw.Draw(image))
    image.save(tmp_path / "page.png")
    (strip,) = strips(tmp_path, [np.array(ends)], size=(800, 800))
    places = (
        np.flatnonzero(ink(strip)[: round(UP * 400 / cutting.LONE) - 6].any(0)) + 400 / cutting.LONE * -cutting.SIDE
    )
    groups = np.split(places, np.flatnonzero(np.diff(places) > 5) + 1)
    seen = [group.mean() - 200 for group in groups]
    assert seen == pytest.approx([-150, -50, 60, 140], abs=4)


def test_writing_upside_down_is_cut_as_if_it_were_upright(tmp_path):
    """Three lines, and the same picture the other way up: the same distances, the same strips."""
    lines = [np.array([[100.0, y], [700, y + 6]]) for y in (150, 210, 270)]

    def draw(on):
        for (left, y), (right, _) in lines:
            for place in range(int(left), int(right), 23):
                on.line([place, y + (place - left) / 100, place + 5, y - 25 + (place - left) / 100], fill=30, width=4)

    page = page_of(tmp_path, draw)
    upright_strips = strips(tmp_path, lines)
    page.rotate(180).save(tmp_path / "page.png")
    over = [np.array([800, 500]) - line for line in lines]  # from where the writing starts, which is on the right
    for given in (over, [line[::-1] for line in over]):
        found = bands(given, [None] * 3, [True] * 3)
        assert [band.unit for band in found] == pytest.approx([60] * 3, abs=1)
        cut = PagePicture(tmp_path / "page.png", 0, (800, 500), False, found).strips(range(3))
        for mine, true in zip(cut, upright_strips, strict=True):
            assert mine.shape == true.shape
            assert (ink(mine) != ink(true)).mean() < 0.03
        assert np.allclose([band.baseline()[0, 0] for band in found], 700)


def test_baselines_run_from_left_to_right_but_for_turned_writing():
    left = np.array([[500.0, 100], [10, 120]])
    assert upright(left).tolist() == [[10, 120], [500, 100]]
    up = np.array([[50.0, 400], [40, 10]])
    assert upright(up) is up


def test_an_outline_gives_a_baseline():
    box = np.array([[0.0, 0], [100, 0], [100, 40], [0, 40]])
    assert baseline_of(box) == pytest.approx(np.array([[0, 30], [100, 30]]))
    slanted = np.array([[0.0, 0], [100, 50], [100, 90], [0, 40]])
    assert baseline_of(slanted) == pytest.approx(np.array([[0, 30], [100, 80]]))


def level(*heights, left=50, right=700):
    return [np.array([[left, y], [right, y]], dtype=float) for y in heights]


def test_heights_follow_the_distance_to_the_line_above():
    found = bands(level(100, 160, 220, 280, 340), [None] * 5)
    assert [band.unit for band in found] == [60] * 5
    paragraphs = bands(level(100, 160, 220, 400, 460), [None] * 5)  # a gap is not a higher line
    assert [band.unit for band in paragraphs] == [60, 60, 60, cutting.WIDEST * 60, 60]
    inserted = bands(level(100, 160, 190, 220, 280), [None] * 5)  # a word between the lines
    assert inserted[2].unit == pytest.approx(cutting.NARROWEST * np.median([60, 60, 60, 30, 30, 60][1:]), rel=0.6)
    assert min(band.unit for band in inserted) >= cutting.NARROWEST * 30


def test_outlines_bound_the_height_where_rows_are_far_apart():
    """A table: its rows are far apart, its letters are not that high."""
    heights = (100, 250, 400)
    outlines = [np.array([[50.0, y - 30], [700, y - 30], [700, y + 10], [50, y + 10]]) for y in heights]
    usual = cutting.LIKE_OUTLINES * 40
    wide = cutting.WIDEST * usual
    assert [band.unit for band in bands(level(*heights), outlines)] == pytest.approx([usual, wide, wide])
    assert [band.unit for band in bands(level(*heights), [None] * 3)] == [150] * 3


def test_two_lines_far_apart_are_not_that_high():
    far = bands(level(100, 2000), [None] * 2)
    assert max(band.unit for band in far) <= cutting.WIDEST * 650 / cutting.LONGEST


def test_cells_of_a_row_do_not_reach_into_each_other():
    row = [np.array([[50.0, 100], [200, 100]]), np.array([[210.0, 101], [400, 101]]), *level(160)]
    left, right, below = bands(row, [None] * 3)
    assert left.right == pytest.approx(205)
    assert right.left == pytest.approx(205)
    assert left.left == pytest.approx(50 - cutting.SIDE * left.unit)
    assert below.unit == pytest.approx(59.5, abs=1)


def test_a_line_keeps_its_own_ink_and_loses_its_neighbours(tmp_path):
    """A long descender of the line above and an ascender of the line below reach into the band; a long ascender of its
    own, an accent and a descender stay."""
    y = [100, 160, 220]

    def draw(on):
        for foot in y:
            for x in range(60, 700, 24):
                on.line([x, foot, x + 4, foot - 20], fill=30, width=4)
        on.line([300, 95, 300, 130], fill=30, width=5)  # hangs down from the first line
        on.line([400, 218, 400, 178], fill=30, width=5)  # rises from the third
        on.line([500, 158, 500, 116], fill=30, width=5)  # its own ascender
        on.line([555, 124, 562, 118], fill=30, width=4)  # its own accent
        on.line([200, 158, 200, 178], fill=30, width=5)  # its own descender

    page_of(tmp_path, draw)
    strip = strips(tmp_path, level(*y))[1]
    left, top = 50 - cutting.SIDE * 60, 160 - UP * 60

    def inked(x0, y0, x1, y1):
        return ink(strip)[round(max(y0 - top, 0)) : round(y1 - top), round(x0 - left) : round(x1 - left)].sum()

    assert inked(296, 112, 305, 131) <= 2
    assert inked(396, 177, 405, 183) <= 2
    assert inked(496, 116, 505, 140) > 90
    assert inked(553, 116, 566, 126) > 12
    assert inked(196, 162, 205, 178) > 60


def test_where_ink_touches_the_least_is_cut(tmp_path):
    """A stroke through both lines is cut where it is thinnest, and nothing else is lost."""
    y = [100, 160]

    def draw(on):
        for foot in y:
            for x in range(60, 700, 24):
                on.line([x, foot, x + 4, foot - 20], fill=30, width=4)
        on.line([300, 95, 300, 122], fill=30, width=9)
        on.line([300, 122, 300, 158], fill=30, width=3)

    page_of(tmp_path, draw)
    strip = strips(tmp_path, level(*y))[1]
    column = ink(strip)[:, round(300 - (50 - cutting.SIDE * 60))]
    assert column[: round(UP * 60) - 36].sum() <= 4  # of the thick part
    assert column[round(UP * 60) - 20 : round(UP * 60) - 3].all()


def test_the_cheapest_path_is_the_cheapest():
    """Against all paths of small grids."""
    rng = np.random.default_rng(0)
    grids = [
        rng.random((rows, columns)).astype(np.float32) for rows, columns in ((1, 4), (3, 5), (5, 4), (6, 3), (4, 1))
    ]
    grids[2][1:3, 2] = np.inf
    for cost, path in zip(grids, cheapest_paths(grids), strict=True):
        rows, columns = cost.shape

        def length(way, cost=cost):
            turns = np.abs(np.diff(way))
            return np.inf if (turns > STEEP).any() else cost[list(way), range(len(way))].sum() + TURN * turns.sum()

        best = min(map(length, itertools.product(range(rows), repeat=columns)))
        assert length(tuple(path)) == pytest.approx(best, rel=1e-5)


def test_levels_are_those_of_the_page(tmp_path):
    """A line with nothing but a faint fold is white, whatever is on its strip; pencil and ink keep their ratio."""

    def draw(on):
        for foot, grey in ((100, 40), (160, 40), (220, 120)):
            for x in range(60, 700, 24):
                on.line([x, foot, x + 4, foot - 24], fill=grey, width=4)
        on.line([300, 250, 300, 290], fill=231, width=1)

    page_of(tmp_path, draw)
    lines = strips(tmp_path, level(100, 160, 220, 280))
    assert lines[3].min() > 200
    assert lines[0].min() < 60
    assert 60 < np.percentile(lines[2], 1) < 170


@pytest.mark.parametrize("light", [False, True])
def test_paper_and_ink_may_be_of_any_grey(tmp_path, light):
    def draw(on):
        for foot in (100, 160, 220):
            for x in range(60, 700, 24):
                on.line([x, foot, x + 4, foot - 24], fill=200 if light else 60, width=4)

    image = page_of(tmp_path, draw, paper=70 if light else 190)
    shade = np.linspace(0.75, 1.0, image.width)  # a light from one side
    Image.fromarray((np.asarray(image) * shade).astype(np.uint8)).save(tmp_path / "page.png")
    for strip in strips(tmp_path, level(100, 160, 220)):
        assert np.median(strip) == 255
        assert 0.02 < ink(strip).mean() < 0.3


def test_what_lies_outside_of_the_page(tmp_path):
    page_of(tmp_path, lambda on: on.line([20, 90, 300, 90], fill=30, width=5))
    cut = strips(tmp_path, [np.array([[-50.0, 100], [900, 100]]), np.array([[50.0, 470], [700, 520]])])
    assert all(isinstance(strip, np.ndarray) for strip in cut)
    inside, lost = strips(tmp_path, [*level(100), np.array([[50.0, 9000], [700, 9000]])])
    assert (inside.min() < 128, str(lost)) == (True, "lies outside of its page")
    (lost,) = strips(tmp_path, [np.array([[2000.0, 100], [2600, 100]])])
    assert str(lost) == "lies outside of its page"
    assert isinstance(lost, ImageError)


def test_large_pages_are_reduced_as_far_as_their_lines_allow(tmp_path):
    """A JPEG is decoded smaller at once; the lines are those of the small page."""
    y = [800, 1280, 1760]
    image = Image.new("RGB", (3200, 2400), (235, 230, 220))
    on = ImageDraw.Draw(image)
    for foot in y:
        for x in range(480, 2800, 192):
            on.line([x, foot, x + 32, foot - 160], fill=(30, 30, 60), width=32)
    image.save(tmp_path / "page.jpg", quality=95)
    found = bands(level(*y, left=400, right=2900), [None] * 3)
    whole = PagePicture(tmp_path / "page.jpg", 0, image.size, False, found)
    opened, _ = open_image(tmp_path / "page.jpg", (2400 // 5,) * 2)
    assert opened.size == (800, 600)
    for strip in whole.strips(range(3)):
        assert 96 <= strip.shape[0] <= 192
        assert strip.shape[1] == pytest.approx(2500 / 480 * strip.shape[0] / 1.18, rel=0.12)
        assert ink(strip).any(0).sum() > 60


def test_a_line_that_is_kept_is_read_as_it_was(tmp_path):
    """Its file says that its levels are right: they are not guessed anew."""

    def draw(on):
        for foot, grey in ((100, 40), (160, 170)):
            for x in range(60, 300, 24):
                on.line([x, foot, x + 4, foot - 24], fill=grey, width=4)

    page_of(tmp_path, draw)
    for n, strip in enumerate(strips(tmp_path, level(100, 160))):
        line = Image.fromarray(strip)
        keep_line(line, tmp_path / "lines" / f"{n}.png", levelled=True)
        kept = load_image(tmp_path / "lines" / f"{n}.png", GEOMETRY)
        assert np.array_equal(kept.pixels, scaled_line(line, GEOMETRY, band=True))


def test_letters_have_the_size_that_the_distance_of_the_lines_gives_them(tmp_path):
    """A line without tall letters is not enlarged to the height of one that has them, and small ones are enlarged."""
    for share in (1, 4):

        def draw(on, share=share):
            for foot, tall in ((100, 24), (160, 44)):
                for x in range(60, 300, 24):
                    on.line([x / share, foot / share, x / share, (foot - tall) / share], fill=40, width=4 // share)

        page_of(tmp_path, draw)
        lines = [line / share for line in level(100, 160)]
        whole = PagePicture(tmp_path / "page.png", 0, (800, 500), False, bands(lines, [None] * 2))
        read = whole.read([PageLine(str(n), whole, n) for n in range(2)], GEOMETRY)
        heights = [np.flatnonzero((each.pixels < 128).any(1)) for each in read]
        unit = GEOMETRY.height / (UP + DOWN) / 60
        assert [np.ptp(rows) for rows in heights] == pytest.approx([24 * unit, 44 * unit], abs=3)
        assert [rows[-1] for rows in heights] == pytest.approx([UP * 60 * unit] * 2, abs=3)


def test_without_levels_greys_stay_as_they_are(tmp_path):
    page_of(tmp_path, lambda on: on.line([60, 90, 300, 90], fill=90, width=5), paper=200)
    whole = PagePicture(tmp_path / "page.png", 0, (800, 500), False, bands(level(100), [None]))
    (strip,) = whole.strips([0], levels=False)
    assert (np.median(strip), strip.min()) == (200, 90)


def test_a_page_without_lines_has_none(tmp_path):
    assert bands([], []) == []
    page_of(tmp_path, lambda on: None)
    assert PagePicture(tmp_path / "page.png", 0, (800, 500), False, []).strips([]) == []
    blank = strips(tmp_path, level(100, 160))
    assert all((strip == 255).all() for strip in blank)


def test_bands_move_with_the_page():
    (band,) = bands([np.array([[100.0, 100], [300, 150]])], [None])
    moved = band.moved((20, 10), 2)
    assert isinstance(moved, Band)
    assert moved.baseline() == pytest.approx((band.baseline() - [20, 10]) / 2)
    assert moved.outline() == pytest.approx((band.outline() - [20, 10]) / 2)
