import math

import pytest
import torch

from htr.pictures.augmentation import (
    Strengths,
    add_neighbours,
    augment,
    augmented_share,
    change_strokes,
    color_jitter,
    random_affine,
    random_warp,
)

DEFAULT = Strengths(rotation=2, shear=12, shrink=0.8, neighbours=0.25, brightness=0.3, contrast=0.3)


def words(count=6, width=200, height=64):
    """Ink (N, 1, H, W) in a band across the middle, widths 40 px less for every other picture, paper beyond."""
    generator = torch.Generator().manual_seed(0)
    images = torch.zeros(count, 1, height, width)
    widths = torch.tensor([width - 40 * (n % 2) for n in range(count)])
    for n, w in enumerate(widths.tolist()):
        images[n, 0, 24:40, 5 : w - 5] = (torch.rand(16, w - 10, generator=generator) > 0.4).float()
    return images, widths


@pytest.mark.parametrize("width", [40, 300, 1500])
def test_affine_never_cuts_a_letter_off(width):
    """A fully inked picture keeps all its ink, scaled as far as its four corners ask for."""
    torch.manual_seed(0)
    count, height = 40, 48
    angles, slants = torch.empty(count).uniform_(-0.17, 0.17), torch.empty(count).uniform_(-0.35, 0.35)
    scales = torch.empty(count).uniform_(0.7, 1)
    ink, widths = torch.ones(count, 1, height, width), torch.full((count,), width)
    out = random_affine(ink, widths, angles, slants, scales)
    for n in range(count):
        angle, slant = float(angles[n]), math.tan(float(slants[n]))
        corners = []
        for corner in (-width / 2, width / 2):  # of the upper edge; those of the lower lie opposite
            x, y = corner - slant * height / 2, -height / 2
            corners.append((math.cos(angle) * x - math.sin(angle) * y, math.sin(angle) * x + math.cos(angle) * y))
        fit_x = width / 2 / max(abs(x) for x, _ in corners)
        fit_y = height / 2 / max(abs(y) for _, y in corners)
        scale = min(float(scales[n]), fit_x, fit_y)
        assert float(out[n].sum()) == pytest.approx(scale**2 * height * width, rel=0.03)


def test_affine_turns_and_slants_as_told():
    ink = torch.zeros(1, 1, 65, 201)
    ink[0, 0, 12:53, 100] = 1  # an upright stroke through the middle
    ink[0, 0, 32, 60:141] = 1  # and a level one
    one, zero, width = torch.ones(1), torch.zeros(1), torch.tensor([201])

    def stroke_ends(angle=zero, slant=zero, scale=0.8 * one):
        out = random_affine(ink, width, angle, slant, scale)[0, 0]
        y, x = (out > 0.3).nonzero().T
        return (x[y == y.min()].float().mean() - x[y == y.max()].float().mean()), x.max() - x.min(), y.max() - y.min()

    lean, wide, high = stroke_ends()
    assert (abs(float(lean)), int(wide), int(high)) == (0, pytest.approx(64, abs=2), pytest.approx(32, abs=2))
    lean, wide, high = stroke_ends(scale=torch.tensor([[0.6, 0.8]]))
    assert (abs(float(lean)), int(wide), int(high)) == (0, pytest.approx(48, abs=2), pytest.approx(32, abs=2))
    lean, wide, high = stroke_ends(scale=torch.tensor([[0.8, 0.6]]))
    assert (abs(float(lean)), int(wide), int(high)) == (0, pytest.approx(64, abs=2), pytest.approx(24, abs=2))
    lean, wide, high = stroke_ends(slant=torch.tensor([0.3]))
    assert abs(float(lean)) == pytest.approx(32 * math.tan(0.3), abs=2)
    assert int(wide) == pytest.approx(64, abs=2)
    lean, wide, high = stroke_ends(angle=torch.tensor([0.1]))
    assert abs(float(lean)) == pytest.approx(32 * math.sin(0.1), abs=2)


def test_a_neighbour_is_a_strip_of_the_next_picture_on_paper():
    """The line keeps all its pixels; what is added is the other's edge, near the line and not on it."""
    line, other = torch.zeros(64, 90), torch.zeros(64, 90)
    line[24:40, 5:85] = 1
    other[10:30, 5:65] = torch.arange(20)[:, None] / 40 + 0.51  # every row its own grey
    images = torch.stack([line, other])[:, None]
    torch.manual_seed(0)
    sides = set()
    for _ in range(200):
        crowded = add_neighbours(images[:1], images[1:], torch.tensor([60]))[0, 0]
        assert torch.equal(crowded[:, 60:], line[:, 60:])  # nothing comes into the padding
        assert torch.equal(crowded[24:40], line[24:40])
        changed = (crowded != line).any(1).nonzero()[:, 0]
        strip = crowded[changed].amax(1)
        assert 3 <= len(changed) <= 11
        above = bool(changed[-1] < 24)
        sides.add(above)
        gap = 24 - int(changed[-1]) - 1 if above else int(changed[0]) - 40
        assert 1 <= gap <= 7
        rows = torch.arange(20 - len(strip), 20) if above else torch.arange(len(strip))
        assert torch.allclose(strip, rows / 40 + 0.51)
    assert sides == {True, False}


def test_no_neighbour_where_there_is_no_room():
    full = torch.ones(2, 1, 64, 90)
    assert torch.equal(add_neighbours(full, full, torch.tensor([90, 90])), full)


def test_color_jitter_scales_the_ink_and_keeps_the_mean_under_contrast():
    images, widths = words(4)
    images = images * 0.5
    one = torch.ones(4)
    assert torch.allclose(color_jitter(images, widths, 1.4 * one, one), 1.4 * images)
    flat = color_jitter(images, widths, one, 0 * one)
    mean = images[1, 0, :, : widths[1]].mean()
    assert torch.allclose(flat[1, 0, :, : widths[1]], mean)
    assert (flat[1, 0, :, widths[1] :] == 0).all()


def test_only_a_share_of_the_pictures_is_augmented():
    images, widths = words(400)
    torch.manual_seed(0)

    def changed(share):
        return int((augment(images, widths, DEFAULT, share) != images).any(3).any(2).sum())

    assert changed(0) == 0
    assert 60 < changed(0.25) < 140
    assert changed(1) == 400


def test_letters_become_narrower_or_flatter():
    torch.manual_seed(0)
    images, widths = torch.zeros(200, 1, 64, 200), torch.full((200,), 200)
    images[:, :, 16:48, 50:150] = 1
    out = augment(images, widths, Strengths(0, 0, 1, 0, 0, 0, stretch=0.5), 1)
    wide, high = ((out > 0.5).any(side)[:, 0].sum(1) for side in (2, 3))
    assert int(wide.max()) == 100 and int(high.max()) == 32  # never larger
    assert float((wide / 100).min()) == pytest.approx(2 / 3, abs=0.05) == float((high / 32).min())
    assert 60 < int((wide < 97).sum()) < 140  # about half of them narrower, the others flatter
    assert not ((wide < 97) & (high < 31)).any()


def test_the_share_grows_at_first_and_falls_with_the_rate():
    assert [augmented_share(step, 1, 100) for step in (0, 25, 100, 1000)] == [0, 0.25, 1, 1]
    assert [augmented_share(1000, pace, 100) for pace in (1, 0.25, 0.125, 0)] == [1, 1, 0.5, 0]
    assert augmented_share(10, 0.125, 100) == 0.1
    assert augmented_share(0, 1, 0) == 1


@pytest.mark.parametrize("width", [9, 40, 300, 1500])
def test_a_warp_is_smooth_and_cuts_nothing_off(width):
    """Neighbouring pixels move alike and keep their order, up to the edges, which stay where they are."""
    torch.manual_seed(0)
    count, height = 20, 48
    widths = torch.tensor([width, max(5, width - 30)] * (count // 2))
    warp = random_warp(widths, (height, width), 0.1)
    assert warp.abs().max() <= 0.1 * height
    assert warp[:, 1].abs().amax((1, 2)).min() > 0.03 * height
    x, y = torch.arange(width) + warp[:, 0], torch.arange(height)[:, None] + warp[:, 1]  # where pixels come from
    assert (y[:, 1:] > y[:, :-1]).all() and (y[:, 0] == 0).all() and (y[:, -1] == height - 1).all()
    for n, w in enumerate(widths.tolist()):
        assert (x[n, :, 1:w] > x[n, :, : w - 1]).all() and (x[n, :, 0] == 0).all() and (x[n, :, w - 1] == w - 1).all()
    none, ink = torch.zeros(count), torch.rand(count, 1, height, width)
    still = random_affine(ink, widths, none, none, torch.ones(count), torch.zeros_like(warp))
    assert torch.allclose(still, random_affine(ink, widths, none, none, torch.ones(count)), atol=1e-5)


def test_strokes_become_thicker_or_thinner():
    ink = torch.zeros(1, 1, 20, 20)
    ink[0, 0, :, 8:12] = 1

    def columns(amount):
        return change_strokes(ink, torch.tensor([float(amount)]))[0, 0, 10].tolist()

    assert columns(0) == ink[0, 0, 10].tolist()
    assert columns(1)[6:14] == [0, 1, 1, 1, 1, 1, 1, 0]
    assert columns(0.5)[6:14] == [0, 0.5, 1, 1, 1, 1, 0.5, 0]
    assert columns(-1)[6:14] == [0, 0, 0, 1, 1, 0, 0, 0]
    assert columns(-0.5)[6:14] == [0, 0, 0.5, 1, 1, 0.5, 0, 0]


@pytest.mark.parametrize("strengths", [DEFAULT, DEFAULT._replace(warp=0.1, stroke=0.7)])
@pytest.mark.parametrize("share", [0.5, 1])
def test_a_picture_stays_in_its_frame_and_in_range(share, strengths):
    images, widths = words(50)
    torch.manual_seed(0)
    out = augment(images, widths, strengths, share)
    assert out.shape == images.shape
    assert out.min() >= 0
    assert out.max() <= 1
    for image, width in zip(out, widths.tolist(), strict=True):
        assert (image[..., width + 1 :] == 0).all()
    assert not torch.equal(out, augment(images, widths, strengths, share))
    torch.manual_seed(0)
    assert torch.equal(out, augment(images, widths, strengths, share))


def test_pictures_of_a_batch_change_each_in_its_own_way():
    images, widths = words(2)
    torch.manual_seed(0)
    out = augment(images[[0, 0]], widths[[0, 0]], DEFAULT, 1)
    assert not torch.allclose(out[0], out[1], atol=0.1)
