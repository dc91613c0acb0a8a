"""Augmentation: varies the handwriting in a batch of lines, on the device that trains.

torchvision's transforms give all images of a batch the same parameters, so they would need a call per image. Here each
image has its own parameters, drawn as RandomAffine and ColorJitter draw them, and the pixels of all are computed at
once. All random numbers come from torch's global generator on the CPU, so that a run can be repeated and continued on
any device. Ink is in [0, 1], paper is 0.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import ColorJitter, RandomAffine


class Strengths(NamedTuple):
    """How strongly to augment."""

    rotation: float  # largest angle in degrees
    shear: float  # largest slant in degrees
    shrink: float  # smallest scale
    neighbours: float  # share of images that get a strip of another line
    brightness: float  # largest relative change of the ink
    contrast: float  # largest relative change of the contrast
    warp: float = 0.0  # largest shift of a part of the line, as a share of its height
    stroke: float = 0.0  # share of images whose strokes become thicker or thinner
    stretch: float = 0.0  # largest relative change of the width of letters to their height


def uniform(count: int, low: float, high: float) -> Tensor:
    return torch.empty(count).uniform_(low, high)


def inside_of(widths: Tensor, width: int) -> Tensor:
    """(N,) widths -> (N, 1, 1, width): which columns belong to the image rather than to the padding."""
    return (torch.arange(width) < widths[:, None])[:, None, None]


def ink_rows(images: Tensor) -> tuple[Tensor, Tensor]:
    """images (N, 1, H, W) -> first row with ink and the one after the last, each (N,) on the CPU; (0, H) where none."""
    rows = (images > 0.5).any(3)[:, 0].cpu()  # (N, H)
    height, empty = rows.shape[1], ~rows.any(1)
    top = rows.int().argmax(1)
    bottom = height - rows.flip(1).int().argmax(1)
    return top.masked_fill(empty, 0), bottom.masked_fill(empty, height)


def add_neighbours(images: Tensor, others: Tensor, widths: Tensor) -> Tensor:
    """Put a strip of another line above or below, as where a scan cuts into the form's next line.

    images and others (N, 1, H, W), widths (N,) of the images. The strip is 3 to 11 rows high and lies 1 to 7 rows off
    the line, on paper only; where there is no room for it the image stays as it is.
    """
    count, _, height, width = images.shape
    (top, bottom), (other_top, other_bottom) = ink_rows(images), ink_rows(others)
    above, gap = torch.rand(count) < 0.5, torch.randint(1, 8, (count,))
    room = torch.where(above, top, height - bottom) - gap
    rows = torch.randint(3, 12, (count,)).minimum(room).minimum(other_bottom - other_top)
    rows = torch.where(rows >= 3, rows, 0)
    first = torch.where(above, top - gap - rows, bottom + gap)
    other_first = torch.where(above, other_bottom - rows, other_top)
    y = torch.arange(height)  # (H,)
    in_strip = (y >= first[:, None]) & (y < (first + rows)[:, None])  # (N, H)
    source = (y - first[:, None] + other_first[:, None]).clamp(0, height - 1)  # (N, H)
    strip = others.gather(2, source.to(images.device)[:, None, :, None].expand_as(images))
    replaced = in_strip[:, None, :, None] & inside_of(widths, width)
    return torch.where(replaced.to(images.device), strip, images)


def affine_matrices(*rows: tuple) -> Tensor:
    """Affine maps (N, 3, 3) from their upper two rows, given as numbers or tensors (N,)."""
    values = torch.broadcast_tensors(
        *(torch.as_tensor(value, dtype=torch.float32) for row in (*rows, (0, 0, 1)) for value in row)
    )
    return torch.stack(values, -1).view(-1, 3, 3)


def random_warp(widths: Tensor, size: tuple[int, int], share: float) -> Tensor:
    """Smooth random shifts of all pixels (Simard et al. 2003): (N, 2, height, width) in pixels.

    widths (N,) in pixels; size: height and width of the batch. Shifts are at most a `share` of the height, and fall to
    0 towards an image's edges, so that nothing leaves it.
    """
    (height, width), count = size, len(widths)
    knots = (4, 2 + width // 32)
    shifts = uniform(count * 2 * knots[0] * knots[1], -1, 1).view(count, 2, *knots)
    shifts = F.interpolate(shifts, size, mode="bicubic", align_corners=True).clamp(-1, 1)
    x, y = torch.arange(width), torch.arange(height)
    inward_x = x.minimum(widths[:, None] - 1 - x)[:, None]  # (N, 1, width), pixels from the nearer edge
    inward_y = y.minimum(height - 1 - y)[:, None].expand(count, height, 1)
    shifts[:, 0] *= (4 * inward_x / height).clamp(0, 1)
    shifts[:, 1] *= (4 * inward_y / height).clamp(0, 1)
    return share * height * shifts


def change_strokes(images: Tensor, amounts: Tensor) -> Tensor:
    """Make strokes thicker, up to a pixel on each side for an amount (N,) of 1, or thinner, down to -1."""
    amounts = amounts[:, None, None, None].to(images.device)
    thicker, thinner = F.max_pool2d(images, 3, 1, 1), -F.max_pool2d(-images, 3, 1, 1)
    return torch.where(
        amounts > 0, images.lerp(thicker, amounts.clamp(min=0)), images.lerp(thinner, -amounts.clamp(max=0))
    )


def random_affine(
    images: Tensor, widths: Tensor, angles: Tensor, slants: Tensor, scales: Tensor, warp: Tensor | None = None
) -> Tensor:
    """Rotate, shear and shrink each image by its own amount, without cutting off a letter.

    images (N, 1, H, W), widths (N,) in pixels; angles and slants (N,) in radians, scales (N,), or (N, 2) across and
    down. An image is shrunk until it lies within its frame, and shifted by a random share of the room that is left.
    With `warp` (N, 2, H, W), from `random_warp`, pixels are shifted by so much besides. Returns (N, 1, H, W).
    """
    count, _, height, width = images.shape
    cos, sin, slant = angles.cos(), angles.sin(), slants.tan()
    # rotation @ shear = [[a, b], [c, d]]; extents of the frame's image under it.
    a, b, c, d = cos, cos * slant - sin, sin, sin * slant + cos
    if scales.dim() == 2:
        larger = scales.amax(1)
        across, down = (scales / larger[:, None]).T
        a, b, c, d, scales = a * across, b * down, c * across, d * down, larger
    extent_x, extent_y = a.abs() * widths + b.abs() * height, c.abs() * widths + d.abs() * height
    scales = scales.minimum(widths / extent_x).minimum(height / extent_y)
    shift_x = uniform(count, -1, 1) * (widths - scales * extent_x) / 2
    shift_y = uniform(count, -1, 1) * (height - scales * extent_y) / 2

    centre_x, centre_y = (widths - 1) / 2, (height - 1) / 2
    from_centre = affine_matrices((1, 0, -centre_x), (0, 1, -centre_y))
    change = affine_matrices((scales * a, scales * b, shift_x), (scales * c, scales * d, shift_y))
    to_centre = affine_matrices((1, 0, centre_x), (0, 1, centre_y))
    half_x, half_y = (width - 1) / 2, (height - 1) / 2
    to_pixels = affine_matrices((half_x, 0, half_x), (0, half_y, half_y))  # from [-1, 1] x [-1, 1]
    source = to_pixels.inverse() @ (to_centre @ change @ from_centre).inverse() @ to_pixels
    # The same as F.affine_grid, in a quarter of its time on a CPU.
    by_x, by_y, constant = source.to(images.device)[:, :2, :, None, None].unbind(2)  # (N, 2, 1, 1)
    x = torch.linspace(-1, 1, width, device=images.device)
    y = torch.linspace(-1, 1, height, device=images.device)[:, None]
    grid = by_x * x + (by_y * y + constant)  # (N, 2, H, W)
    if warp is not None:
        grid = (
            grid + warp.to(images.device) * torch.tensor([1 / half_x, 1 / half_y], device=images.device)[:, None, None]
        )
    grid = torch.stack(grid.unbind(1), 3)
    return F.grid_sample(images, grid, align_corners=True)


def color_jitter(images: Tensor, widths: Tensor, brightness: Tensor, contrast: Tensor) -> Tensor:
    """Scale each image's ink, and its distance from the image's mean, by factors (N,), clamped to [0, 1]."""
    factors = [factor[:, None, None, None].to(images.device) for factor in (brightness, contrast)]
    inside = inside_of(widths, images.shape[3]).to(images.device)
    images = (images * factors[0]).clamp(0, 1)
    area = (widths * images.shape[2])[:, None, None, None].to(images.device)
    mean = images.sum((1, 2, 3), keepdim=True) / area  # padding is 0
    return ((images - mean) * factors[1] + mean).clamp(0, 1) * inside


def augmented_share(step: int, pace: float, grow_steps: int) -> float:
    """The share of images to augment.

    It grows to all over the first `grow_steps` steps, and falls once the learning rate is below a quarter of its own
    (`pace` < 0.25), so that training ends on images like those to be read (He et al. 2019, arXiv:1909.09148).
    """
    return min(1.0, step / grow_steps if grow_steps else 1.0, 4 * pace)


def augment(images: Tensor, widths: Tensor, strengths: Strengths, share: float) -> Tensor:
    """Augment a `share` of the images of a batch: strips of neighbouring lines, RandomAffine, ColorJitter.

    images (N, 1, H, W) of ink on any device, widths (N,) in pixels on the CPU. Returns (N, 1, H, W).
    """
    count = len(images)
    chosen = torch.rand(count) < share
    plain, images = images, images.clone()
    crowded = (torch.rand(count) < strengths.neighbours).nonzero()[:, 0]
    if len(crowded):
        images[crowded] = add_neighbours(images[crowded], plain[(crowded + 1) % count], widths[crowded])
    size = [images.shape[3], images.shape[2]]
    rotation, shear = (-strengths.rotation, strengths.rotation), (-strengths.shear, strengths.shear)
    affine = [RandomAffine.get_params(rotation, None, (strengths.shrink, 1.0), shear, size) for _ in range(count)]
    scales = torch.tensor([scale for _, _, scale, _ in affine])
    if strengths.stretch:
        wider = (uniform(count, -1, 1) * math.log1p(strengths.stretch)).exp()
        scales = scales[:, None] * torch.stack([wider.clamp(max=1), (1 / wider).clamp(max=1)], 1)
    images = random_affine(
        images,
        widths,
        torch.deg2rad(torch.tensor([angle for angle, _, _, _ in affine])),
        torch.deg2rad(torch.tensor([slant for _, _, _, (slant, _) in affine])),
        scales,
        random_warp(widths, images.shape[2:], strengths.warp) if strengths.warp else None,
    )
    if strengths.stroke:
        images = change_strokes(images, uniform(count, -0.7, 1) * (torch.rand(count) < strengths.stroke))
    factors = [(1 - strength, 1 + strength) for strength in (strengths.brightness, strengths.contrast)]
    jitter = torch.tensor([ColorJitter.get_params(*factors, None, None)[1:3] for _ in range(count)])
    images = color_jitter(images, widths, *jitter.T)
    return torch.where(chosen[:, None, None, None].to(images.device), images, plain)
