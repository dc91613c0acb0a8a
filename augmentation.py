"""Augmentation: makes other handwriting out of a batch of lines, on the device that trains.

torchvision's transforms give all pictures of a batch the same parameters, so they would need a call for each. Here each
picture has parameters of its own, drawn as RandomAffine and ColorJitter draw them, and the pixels are computed for all
at once. All that is drawn comes from torch's global random state on the CPU, so a run can be repeated and continued
wherever it computes. Ink is in [0, 1], paper is 0.
"""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import ColorJitter, RandomAffine

from config import Config


def uniform(count: int, low: float, high: float) -> Tensor:
    return torch.empty(count).uniform_(low, high)


def inside_of(widths: Tensor, width: int) -> Tensor:
    """(N,) widths -> (N, 1, 1, width): which columns belong to the picture and not to the padding."""
    return (torch.arange(width) < widths[:, None])[:, None, None]


def ink_rows(images: Tensor) -> tuple[Tensor, Tensor]:
    """images (N, 1, H, W) -> first row with ink and the one after the last, each (N,) on the CPU; (0, H) where none."""
    rows = (images > 0.5).any(3)[:, 0].cpu()  # (N, H)
    height, empty = rows.shape[1], ~rows.any(1)
    top = rows.int().argmax(1)
    bottom = height - rows.flip(1).int().argmax(1)
    return top.masked_fill(empty, 0), bottom.masked_fill(empty, height)


def add_neighbours(images: Tensor, others: Tensor, widths: Tensor) -> Tensor:
    """Put a strip of another line above or below, as where a scan cuts through the form's next line.

    images and others (N, 1, H, W), widths (N,) of the images. The strip is 3 to 11 rows high and lies up to 7 rows off
    the line, on paper only; where there is no room for it the picture stays as it is.
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


def cut_lines(images: Tensor) -> Tensor:
    """Wipe up to a fifth of the line off its top and its foot, as where a scan cuts the letters: (N, 1, H, W)."""
    count, _, height, _ = images.shape
    top, bottom = ink_rows(images)
    most = 0.2 * (bottom - top)
    side = torch.rand(count)
    first, last = top + most * side, bottom - most * (1 - side) * torch.rand(count)
    y = torch.arange(height)
    kept = (y >= first[:, None].floor()) & (y < last[:, None].ceil())  # (N, H)
    return images * kept[:, None, :, None].to(images.device)


def change_strokes(images: Tensor, change: Tensor) -> Tensor:
    """Make strokes thicker or thinner: a blend with the picture's 3 x 3 dilation or erosion.

    images (N, 1, H, W); change (N,) in [-1, 1]: the share of the dilated picture, negative for the eroded.
    """

    def shifted(tensor, axis):
        return [tensor.narrow(axis, start, tensor.shape[axis] - 2) for start in range(3)]

    change = change[:, None, None, None].to(images.device)
    thicker = thinner = F.pad(images, (1, 1, 1, 1))
    for axis in (2, 3):  # of shifted pictures: on a CPU many times faster than max_pool2d
        thicker = functools.reduce(torch.maximum, shifted(thicker, axis))
        thinner = functools.reduce(torch.minimum, shifted(thinner, axis))
    return images + change.clamp(min=0) * (thicker - images) + change.clamp(max=0) * (images - thinner)


def break_strokes(images: Tensor, share: Tensor) -> Tensor:
    """Wipe spots of about four pixels off the ink, as where a scan loses faint strokes.

    images (N, 1, H, W); share (N,): of the area that is wiped.
    """
    count, _, height, width = images.shape
    noise = torch.rand(count, 1, math.ceil(height / 4), math.ceil(width / 4))
    spots = (noise < share[:, None, None, None]).float().to(images.device)
    return images * (1 - F.interpolate(spots, (height, width), mode="bilinear"))


def random_affine(
    images: Tensor,
    widths: Tensor,
    angles: Tensor,
    slants: Tensor,
    scales: Tensor,
    squeezes: Tensor,
    bends: Tensor,
) -> Tensor:
    """Rotate, slant, shrink, squeeze and bend each picture by its own amount; never cuts a letter off.

    images (N, 1, H, W), widths (N,) in pixels; angles and slants (N,) in radians; scales (N,) and, for the width alone,
    squeezes (N,), at most 1; bends (N,): how far a pixel may be moved by a smooth random field, in pixels (elastic
    distortion, Simard et al. 2003). The picture is shrunk as far as it takes to lie wholly within its frame, and moved
    by a random share of the room that is left. Returns (N, 1, H, W).
    """
    count, _, height, width = images.shape
    cos, sin, slant = angles.cos(), angles.sin(), slants.tan()
    # A picture's point p goes to centre + shift + scale * [rotation @ shear](squeeze * (p - centre)).
    wide = (widths * squeezes + 2 * bends).clamp(min=1)
    extent_x = cos.abs() * wide + (cos * slant - sin).abs() * (height + 2 * bends)
    extent_y = sin.abs() * wide + (sin * slant + cos).abs() * (height + 2 * bends)
    scales = scales.minimum(widths / extent_x).minimum(height / extent_y)
    shift_x = uniform(count, -1, 1) * (widths - scales * extent_x) / 2
    shift_y = uniform(count, -1, 1) * (height - scales * extent_y) / 2
    centre_x, centre_y = (widths - 1) / 2, (height - 1) / 2

    # Where the pixels of a coarse grid come from: interpolated linearly, that is exact for the affine part.
    rows, columns = 5, 2 + width // 24
    x = torch.linspace(0, width - 1, columns) - (centre_x + shift_x)[:, None, None]  # (N, 1, columns)
    y = torch.linspace(0, height - 1, rows)[:, None] - (centre_y + shift_y)[:, None, None]  # (N, rows, 1)
    cos, sin, slant, scales, squeezes, bends, centre_x = (
        values[:, None, None] for values in (cos, sin, slant, scales, squeezes, bends, centre_x)
    )
    back_x, back_y = (cos * x + sin * y) / scales, (cos * y - sin * x) / scales  # (N, rows, columns)
    from_x = (back_x - slant * back_y) / squeezes + centre_x
    from_y = back_y + centre_y
    field = uniform(2 * count * rows * columns, -1, 1).view(2, count, rows, columns) * bends
    coarse = torch.stack([2 * (from_x + field[0]) / (width - 1) - 1, 2 * (from_y + field[1]) / (height - 1) - 1], 1)
    grid = F.interpolate(coarse.to(images.device), (height, width), mode="bilinear", align_corners=True)
    grid = grid.permute(0, 2, 3, 1)  # (N, H, W, 2)
    return F.grid_sample(images, grid, align_corners=True)


def color_jitter(images: Tensor, widths: Tensor, brightness: Tensor, contrast: Tensor) -> Tensor:
    """Multiply each picture's ink, and its distance from the picture's mean, by factors (N,), within [0, 1]."""
    factors = [factor[:, None, None, None].to(images.device) for factor in (brightness, contrast)]
    inside = inside_of(widths, images.shape[3]).to(images.device)
    images = (images * factors[0]).clamp(0, 1)
    area = (widths * images.shape[2])[:, None, None, None].to(images.device)
    mean = images.sum((1, 2, 3), keepdim=True) / area  # padding is 0
    return ((images - mean) * factors[1] + mean).clamp(0, 1) * inside


def heaviness(config: Config, step: int) -> float:
    """How far the heavy augmentation has grown in: 0 up to a third of HEAVY_STEPS, 1 from HEAVY_STEPS on."""
    if step >= config.HEAVY_STEPS:
        return 1.0
    return max(0.0, (step / config.HEAVY_STEPS - 1 / 3) * 1.5)


def augment(images: Tensor, widths: Tensor, config: Config, step: int) -> Tensor:
    """Augment each picture of a batch with the share and the strength that the settings give this training step.

    images (N, 1, H, W) of ink on any device, widths (N,) in pixels on the CPU. First a growing share of the pictures
    gets light changes: strips of neighbouring lines, RandomAffine, ColorJitter. Then heavy ones grow in, for which a
    short training has no use: bent and squeezed letters, other strokes, lines cut off.
    """
    count = len(images)
    share = 1.0 if step >= config.AUGMENT_STEPS else step / config.AUGMENT_STEPS
    heavy = heaviness(config, step)
    chosen = torch.rand(count) < share
    plain, images = images, images.clone()

    def some(share):
        return (torch.rand(count) < share).nonzero()[:, 0]

    if len(crowded := some(config.NEIGHBOURS)):
        images[crowded] = add_neighbours(images[crowded], plain[(crowded + 1) % count], widths[crowded])
    if heavy:
        if len(cut := some(heavy * config.WEAR)):
            images[cut] = cut_lines(images[cut])
        if len(broken := some(heavy * config.WEAR)):
            images[broken] = break_strokes(images[broken], uniform(len(broken), 0, 0.2))
        images = change_strokes(images, heavy * config.STROKES * uniform(count, -1, 1))
    size = [images.shape[3], images.shape[2]]
    affine = [
        RandomAffine.get_params(
            (-config.ROTATION, config.ROTATION), None, (config.SHRINK, 1.0), (-config.SHEAR, config.SHEAR), size
        )
        for _ in range(count)
    ]
    images = random_affine(
        images,
        widths,
        torch.deg2rad(torch.tensor([angle for angle, _, _, _ in affine])),
        torch.deg2rad(torch.tensor([slant for _, _, _, (slant, _) in affine])),
        torch.tensor([scale for _, _, scale, _ in affine]),
        1 - heavy * config.SQUEEZE * torch.rand(count),
        heavy * config.ELASTIC * torch.rand(count),
    )
    strengths = (1 - config.BRIGHTNESS, 1 + config.BRIGHTNESS), (1 - config.CONTRAST, 1 + config.CONTRAST)
    jitter = torch.tensor([ColorJitter.get_params(*strengths, None, None)[1:3] for _ in range(count)])
    images = color_jitter(images, widths, *jitter.T)
    return torch.where(chosen[:, None, None, None].to(images.device), images, plain)
