"""The network (CNN, bidirectional LSTM, CTC) and everything that knows about the CTC blank. Works on label ids.

Label ids count from 0; the network's class 0 is the blank, so label i is class i + 1. Nothing outside this file
needs to know that. Letters in shapes: N batch, T frames, C classes, H and W pixels.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

BLANK = 0
FRAME = 8  # width of a frame in pixels
SUBSTITUTES = 5  # classes tried in place of one that was read


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

    num_labels: characters without the blank. height: of the images, in pixels. channels: of the six convolutions.
    """

    def __init__(self, num_labels: int, height: int, channels: Sequence[int], hidden: int, layers: int, dropout: float):
        super().__init__()
        c1, c2, c3, c4, c5, c6 = channels
        classes = num_labels + 1
        inputs = [c6] + [2 * hidden] * (layers - 1)  # of each LSTM layer
        self.blocks = nn.ModuleList(
            [
                ConvBlock(1, c1, pool=(2, 2)),
                ConvBlock(c1, c2, pool=(2, 2)),
                ConvBlock(c2, c3),
                ConvBlock(c3, c4, pool=(2, 2)),
                ConvBlock(c4, c5, pool=(2, 1)),
                ConvBlock(c5, c6),
            ]
        )
        self.columns = Columns(c6, height // 16)
        self.shortcut = nn.Linear(c6, classes)
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

    @staticmethod
    def frames(width):
        """The number of frames of an image `width` pixels wide (an int or a tensor): width / 8, rounded up."""
        return (width + FRAME - 1) // FRAME

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
        inside = torch.arange(x.shape[3]) < (lengths * FRAME)[:, None]  # (N, W)
        mask = inside[:, None, None].to(x.device)  # (N, 1, 1, W)
        for block in self.blocks:
            x, mask = block(x, mask)
        x = self.columns(x, mask).permute(2, 0, 1)  # (T, N, C6)
        reverse = reversed_frames(lengths, len(x)).to(x.device)
        readings = [self.shortcut(x)]
        for feedback, layer, head in zip(self.feedback, self.lstm, self.heads, strict=True):
            x = x + feedback(readings[-1].softmax(2)).to(x.dtype)
            x = layer(self.dropout(x), reverse)  # (T, N, 2 * hidden)
            readings.append(readings[0] + head(self.dropout(x)))  # (T, N, C)
        return readings if all_readings else readings[-1], lengths


@torch.no_grad()
def grow_labels(weights: dict[str, Tensor], like: Sequence[int | None]) -> dict[str, Tensor]:
    """The weights of a CRNN for more labels: those it has and, after them, `len(like)` new ones.

    A new label begins with the weights of the label that it is like; where that is None, with none but the lowest of
    the constants. Raises ValueError where the weights are not those of one number of labels.
    """
    classes = len(weights["shortcut.bias"])
    sources = torch.tensor([0 if label is None else label + 1 for label in like], dtype=torch.long)
    alike = torch.tensor([label is not None for label in like], dtype=torch.bool)
    grown = dict(weights)
    for name, weight in weights.items():
        if name.startswith(("shortcut.", "heads.", "feedback.")):
            place = 1 if name.startswith("feedback.") else 0  # the dimension of the classes
            if weight.shape[place] != classes:
                raise ValueError(f"{name} is not of {classes} classes")
            new = weight.index_select(place, sources)
            new = new * alike.view([-1 if n == place else 1 for n in range(weight.dim())])
            if weight.dim() == 1:
                new[~alike] = weight.min()
            grown[name] = torch.cat([weight, new], place)
    return grown


# --------------------------------------------------------------------------------------------------- CTC


def frames_needed(labels: Sequence) -> int:
    """The fewest frames to which CTC can align `labels`: one each, and a blank between equal neighbours."""
    return len(labels) + sum(a == b for a, b in itertools.pairwise(labels))


def ctc_loss(logits: Tensor, lengths: Tensor, labels: Sequence[Sequence[int]]) -> Tensor:
    """-log P(labels | image) of each image, summed over all CTC paths (Graves et al. 2006), in nats.

    logits (T, N, C) of any precision, lengths (N,) in frames, labels: N sequences of ids. Returns (N,) float32;
    inf where an image has fewer frames than `frames_needed`.
    """
    return _ctc_loss(log_probabilities(logits), lengths, labels)


def log_probabilities(logits: Tensor) -> Tensor:
    """log P(class) at every frame: float32 (T, N, C), on a device that has CTC."""
    if logits.device.type == "mps":  # PyTorch has no CTC there
        logits = logits.cpu()
    return logits.float().log_softmax(2)


def _ctc_loss(log_probs: Tensor, lengths: Tensor, labels: Sequence[Sequence[int]]) -> Tensor:
    targets = torch.tensor([label + 1 for sequence in labels for label in sequence], dtype=torch.long)
    target_lengths = torch.tensor([len(sequence) for sequence in labels], dtype=torch.long)
    return F.ctc_loss(log_probs, targets.to(log_probs.device), lengths, target_lengths, blank=BLANK, reduction="none")


@dataclass
class Reading:
    """labels: ids. confidence: P(labels | image) over all CTC paths. label_confidences: for each label the highest
    probability that the network gives it on any frame of its run."""

    labels: list[int]
    confidence: float
    label_confidences: list[float]


@torch.no_grad()
def greedy_decode(logits: Tensor, lengths: Tensor) -> list[Reading]:
    """Best-path decoding: the most likely class of each frame, repeats merged, blanks dropped (Graves et al. 2006).

    logits (T, N, C), lengths (N,) in frames. Returns N readings.
    """
    probs, classes = logits.float().softmax(2).max(2)  # (T, N)
    inside = torch.arange(logits.shape[0])[:, None] < lengths.cpu()[None]  # (T, N)
    classes = classes.cpu().where(inside, BLANK)
    starts = torch.ones_like(inside)
    starts[1:] = classes[1:] != classes[:-1]
    runs = starts.long().cumsum(0) - 1  # (T, N): which run of equal classes a frame belongs to
    run_probs = torch.zeros(classes.shape).scatter_reduce_(0, runs, probs.cpu(), "amax")
    kept = starts & (classes != BLANK)  # (T, N)

    labels, label_confidences = [], []
    for n in range(classes.shape[1]):
        frames = kept[:, n]
        labels.append((classes[frames, n] - 1).tolist())
        label_confidences.append(run_probs[runs[frames, n], n].tolist())
    confidences = ctc_loss(logits, lengths, labels).neg().exp().clamp(max=1).tolist()
    return [Reading(*fields) for fields in zip(labels, confidences, label_confidences, strict=True)]


@torch.no_grad()
def candidate_log_probs(
    log_probs: Tensor, lengths: Tensor, candidates: Sequence[Sequence[Sequence[int]]]
) -> list[list[float]]:
    """log P(labels | image) of several candidates for each image, summed over all CTC paths, in nats.

    log_probs (T, N, C) from `log_probabilities`, lengths (N,) in frames, candidates: for each image, sequences of ids.
    """
    rows = torch.tensor([n for n, several in enumerate(candidates) for _ in several], dtype=torch.long)
    flat = [labels for several in candidates for labels in several]
    found = iter((-_ctc_loss(log_probs[:, rows.to(log_probs.device)], lengths[rows], flat)).tolist())
    return [list(itertools.islice(found, len(several))) for several in candidates]


def similar_labels(log_probs: Tensor, most: int) -> list[list[int]]:
    """What else the frames of one image may say: the greedy reading with one label replaced, removed or inserted.

    log_probs (T, C) of the image's own frames. Returns at most `most` sequences of ids, in the order of what their best
    path costs.
    """
    frames = log_probs.cpu().numpy()
    classes = frames.argmax(1)
    starts = [t for t, c in enumerate(classes) if c != BLANK and (t == 0 or classes[t - 1] != c)]
    ends = [t + next((k for k, c in enumerate(classes[t:]) if c != classes[t]), len(classes) - t) for t in starts]
    labels = [int(classes[t]) - 1 for t in starts]
    costs: dict[tuple[int, ...], float] = {}

    def put(sequence: list[int], cost: float) -> None:
        key = tuple(sequence)
        costs[key] = min(cost, costs.get(key, cost))

    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        run = frames[start:end]
        own, best = labels[i] + 1, run.max(0)
        put(labels[:i] + labels[i + 1 :], float((run[:, own] - run[:, BLANK]).sum()))
        for other in (-best).argsort()[:SUBSTITUTES].tolist():
            if other not in (BLANK, own):
                put([*labels[:i], other - 1, *labels[i + 1 :]], float(best[own] - best[other]))
    for i, (start, end) in enumerate(zip([0, *ends], [*starts, len(frames)], strict=True)):
        if start < end:
            best = (frames[start:end] - frames[start:end, BLANK : BLANK + 1]).max(0)
            for other in (-best).argsort()[:SUBSTITUTES].tolist():
                if other != BLANK:
                    put([*labels[:i], other - 1, *labels[i:]], -float(best[other]))
    costs.pop(tuple(labels), None)
    return [list(key) for key in sorted(costs, key=costs.__getitem__)[:most]]
