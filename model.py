"""The network (CNN, bidirectional LSTM) and the CTC loss that trains it. Works on label ids.

Label ids count from 0; the network's class 0 is the blank, so label i is class i + 1. Nothing outside this file and
`htr.decoding.ctc`, which decodes, needs to know that. Letters in shapes: N batch, T frames, C classes, H and W pixels.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from htr.decoding.ctc import BLANK, frames
from htr.decoding.onnx import POOLS, Sizes


class ConvBlock(nn.Module):
    """3 x 3 convolution, BatchNorm, max-pooling, ReLU; what lies to the right of each image is set to 0 again.

    Pooling comes before the ReLU, which gives the same result from fewer values.
    """

    def __init__(self, channels_in: int, channels_out: int, pool: tuple[int, int] = (1, 1)):
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels_out)
        self.pool = nn.MaxPool2d(pool) if pool != (1, 1) else nn.Identity()
        self.stride = pool[1]

    def fuse(self) -> None:
        self.conv, self.norm = fuse_conv_bn_eval(self.conv, self.norm), nn.Identity()

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """x (N, C_in, H, W), mask (N, 1, 1, W) -> (N, C_out, H', W') and its mask (N, 1, 1, W')."""
        mask = mask[..., :: self.stride]
        x = F.relu(self.pool(self.norm(self.conv(x))), inplace=True)
        return x * mask.to(x.dtype), mask


class Columns(nn.Module):
    """Reduces each column to one vector: the maximum over its rows, plus a convolution over all of them.

    The maximum finds a letter at any height (Retsinas et al. 2022, arXiv:2404.11339). The convolution knows heights,
    and so can tell the line to be read from a neighbouring one that the scan cut off.
    """

    def __init__(self, channels: int, rows: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, (rows, 1), bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def fuse(self) -> None:
        self.conv, self.norm = fuse_conv_bn_eval(self.conv, self.norm), nn.Identity()

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (N, C, rows, T), mask (N, 1, 1, T) -> (N, C, T)."""
        x = x.amax(2, keepdim=True) + F.relu(self.norm(self.conv(x)), inplace=True)
        return (x * mask.to(x.dtype)).squeeze(2)


class BiLSTM(nn.Module):
    """A bidirectional LSTM layer for sequences of different lengths.

    Each direction is a plain LSTM; the backward one gets every sequence reversed within its own length, so that padding
    comes last for both and changes nothing. On a CPU this is much faster than packed sequences.
    """

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.ahead = nn.LSTM(inputs, hidden)
        self.back = nn.LSTM(inputs, hidden)

    def forward(self, x: Tensor, reverse: Tensor) -> Tensor:
        """x (T, N, inputs), reverse (T, N, 1) from `reversed_frames` -> (T, N, 2 * hidden)."""
        ahead, _ = self.ahead(x)  # (T, N, hidden)
        back, _ = self.back(x.gather(0, reverse.expand_as(x)))
        return torch.cat([ahead, back.gather(0, reverse.expand_as(back))], 2)

    def exported(self, n: int) -> dict[str, Tensor]:
        """The weights of layer n as `htr.decoding.onnx.weight_shapes` names them, both directions in one."""

        def both(*names: str) -> Tensor:
            parts = [[getattr(lstm, name).chunk(4) for name in names] for lstm in (self.ahead, self.back)]
            return torch.stack([torch.cat([each for i, f, c, o in part for each in (i, o, f, c)]) for part in parts])

        return {
            f"lstm{n}.weight": both("weight_ih_l0"), f"lstm{n}.recurrent": both("weight_hh_l0"),
            f"lstm{n}.bias": both("bias_ih_l0", "bias_hh_l0"),
        }  # fmt: skip


def reversed_frames(lengths: Tensor, frames: int) -> Tensor:
    """The frame indices that reverse each sequence within its own length: lengths (N,) -> (frames, N, 1)."""
    t = torch.arange(frames)[:, None]
    return torch.where(t < lengths, lengths - 1 - t, t)[..., None]


class CRNN(nn.Module):
    """Reads a line of text: CNN -> 3-layer BiLSTM -> CTC (Shi, Bai and Yao 2015, arXiv:1507.05717).

    The text is read several times: from the CNN's columns, and again after each LSTM layer, which adds to that first
    reading (a shortcut around the LSTM) and takes the previous reading as input, beside the features. So a layer can
    look at the letters around before it decides on one: self-conditioned CTC (Nozaki and Komatsu 2021,
    arXiv:2104.02724). The last reading counts. Training learns from all of them, and the gradient of the first reaches
    the CNN directly, so that training leaves the all-blank plateau within an epoch (Retsinas et al. 2022,
    arXiv:2404.11339).

    sizes: of the network; classes include the blank. With frames of 4 pixels, each column of the CNN, which is 8 pixels
    wide, is read as two frames one after the other: room for narrow letters, at next to no cost.
    """

    def __init__(self, sizes: Sizes, dropout: float):
        super().__init__()
        classes, hidden = sizes.split * sizes.classes, sizes.hidden
        channels = (1, *sizes.channels)
        last = channels[-1]
        inputs = [last] + [2 * hidden] * (sizes.layers - 1)  # of each LSTM layer
        self.frame, self.split = sizes.frame, sizes.split
        self.blocks = nn.ModuleList(
            ConvBlock(*pair, pool) for pair, pool in zip(pairwise(channels), POOLS, strict=True)
        )
        self.columns = Columns(last, sizes.height // 16)
        self.shortcut = nn.Linear(last, classes)
        self.feedback = nn.ModuleList(nn.Linear(classes, size, bias=False) for size in inputs)
        self.lstm = nn.ModuleList(BiLSTM(size, hidden) for size in inputs)
        self.heads = nn.ModuleList(nn.Linear(2 * hidden, classes) for _ in inputs)
        self.dropout = nn.Dropout(dropout)
        for linear in (*self.feedback, *self.heads):  # the recurrent part starts at 0
            for parameter in linear.parameters():
                nn.init.zeros_(parameter)
        self.to(memory_format=torch.channels_last)  # faster on CPUs

    def fuse(self) -> "CRNN":
        """Fold each BatchNorm into the convolution before it, for reading only: the same result in less time."""
        for part in (*self.eval().blocks, self.columns):
            part.fuse()
        return self.to(memory_format=torch.channels_last)

    @torch.no_grad()
    def exported(self) -> dict[str, np.ndarray]:
        """The weights of a fused model as `htr.decoding.onnx.weight_shapes` names them."""
        weights = {"columns.weight": self.columns.conv.weight, "columns.bias": self.columns.conv.bias}
        weights |= {"shortcut.weight": self.shortcut.weight.T, "shortcut.bias": self.shortcut.bias}
        for n, block in enumerate(self.blocks):
            weights |= {f"conv{n}.weight": block.conv.weight, f"conv{n}.bias": block.conv.bias}
        for n, (feedback, layer, head) in enumerate(zip(self.feedback, self.lstm, self.heads, strict=True)):
            weights |= {f"feedback{n}.weight": feedback.weight.T, **layer.exported(n)}
            weights |= {f"head{n}.weight": head.weight.T, f"head{n}.bias": head.bias}
        return {name: weight.cpu().numpy() for name, weight in weights.items()}

    def frames(self, widths: Tensor) -> Tensor:
        """The numbers of frames of images that are so many pixels wide."""
        return frames(widths, self.frame)

    def forward(
        self, images: Tensor, widths: Tensor, all_readings: bool = False
    ) -> tuple[Tensor | list[Tensor], Tensor]:
        """images (N, 1, height, W) of ink with W a multiple of 8, widths (N,) in pixels, on the CPU.

        Returns logits (T, N, C) and their lengths (N,) in frames, on the CPU; logits beyond a length are meaningless.
        With `all_readings`, a list of logits instead: the CNN's own, and those after each LSTM layer. In evaluation
        mode, the logits of an image do not depend on padding or on the other images.
        """
        lengths = self.frames(widths)
        x = images.contiguous(memory_format=torch.channels_last)
        inside = torch.arange(x.shape[3]) < (lengths * self.frame)[:, None]  # (N, W)
        mask = inside[:, None, None].to(x.device)  # (N, 1, 1, W)
        for block in self.blocks:
            x, mask = block(x, mask)
        x = self.columns(x, mask).permute(2, 0, 1)  # (T / split, N, C6)
        reverse = reversed_frames(lengths // self.split, len(x)).to(x.device)
        readings = [self.shortcut(x)]
        for feedback, layer, head in zip(self.feedback, self.lstm, self.heads, strict=True):
            probabilities = readings[-1].unflatten(2, (self.split, -1)).softmax(3).flatten(2)
            x = x + feedback(probabilities).to(x.dtype)
            x = layer(self.dropout(x), reverse)  # (T / split, N, 2 * hidden)
            readings.append(readings[0] + head(self.dropout(x)))  # (T / split, N, split * C)
        frames = [self._frames_of(reading) for reading in (readings if all_readings else readings[-1:])]
        return frames if all_readings else frames[0], lengths

    def _frames_of(self, columns: Tensor) -> Tensor:
        """The logits of frames from those of columns: (T / split, N, split * C) -> (T, N, C)."""
        if self.split == 1:
            return columns
        return columns.unflatten(2, (self.split, -1)).transpose(1, 2).flatten(0, 1)


@torch.no_grad()
def grow_labels(weights: dict[str, Tensor], like: Sequence[int | None], split: int = 1) -> dict[str, Tensor]:
    """The weights of a CRNN for more labels: those it has and, after them, `len(like)` new ones.

    A new label begins with the weights of the label that it is like; where that is None, with none but the lowest of
    the constants. split: frames of a column. Raises ValueError where the weights are not those of one number of labels.
    """
    sources = torch.tensor([0 if label is None else label + 1 for label in like], dtype=torch.long)
    alike = torch.tensor([label is not None for label in like], dtype=torch.bool)

    def grow(weight: Tensor, place: int) -> Tensor:  # the dimension of the classes
        weight = weight.unflatten(place, (split, -1))
        place += 1
        new = weight.index_select(place, sources)
        new = new * alike.view([-1 if n == place else 1 for n in range(weight.dim())])
        if weight.dim() == 2:
            new[:, ~alike] = weight.min()
        return torch.cat([weight, new], place).flatten(place - 1, place)

    return _of_classes(weights, grow)


@torch.no_grad()
def split_frames(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a CRNN with frames of 4 pixels that reads what one with frames of 8 pixels reads, both alike.

    Raises ValueError where the weights are not those of one number of labels.
    """
    return _of_classes(
        weights, lambda weight, place: torch.cat([weight, weight], place) / (2 if place else 1)
    )  # the feedback adds up what both say


def _of_classes(weights: dict[str, Tensor], change: Callable[[Tensor, int], Tensor]) -> dict[str, Tensor]:
    """Changes the weights that have a row or a column for each class."""
    classes, changed = len(weights["shortcut.bias"]), dict(weights)
    for name, weight in weights.items():
        if name.startswith(("shortcut.", "heads.", "feedback.")):
            place = 1 if name.startswith("feedback.") else 0
            if weight.shape[place] != classes:
                raise ValueError(f"{name} is not of {classes} classes")
            changed[name] = change(weight, place)
    return changed


# --------------------------------------------------------------------------------------------------- CTC


def ctc_loss(logits: Tensor, lengths: Tensor, labels: Sequence[Sequence[int]]) -> Tensor:
    """-log P(labels | image) of each image, summed over all CTC paths (Graves et al. 2006), in nats.

    logits (T, N, C) of any precision, lengths (N,) in frames, labels: N sequences of ids. Returns (N,) float32;
    inf where an image has fewer frames than `htr.decoding.ctc.frames_needed`.
    """
    log_probs = log_probabilities(logits)
    targets = torch.tensor([label + 1 for sequence in labels for label in sequence], dtype=torch.long)
    target_lengths = torch.tensor([len(sequence) for sequence in labels], dtype=torch.long)
    return F.ctc_loss(log_probs, targets.to(log_probs.device), lengths, target_lengths, blank=BLANK, reduction="none")


def log_probabilities(logits: Tensor) -> Tensor:
    """log P(class) at every frame: float32 (T, N, C), on a device that has CTC."""
    if logits.device.type == "mps":  # PyTorch has no CTC there
        logits = logits.cpu()
    return logits.float().log_softmax(2)
