"""Reads labels from the network's frames, and gives their exact probability: CTC in NumPy, for whatever computed the
frames.

Label ids count from 0; class 0 of the frames is the blank, so label i is class i + 1. Letters in shapes: N batch,
T frames, C classes, K candidates of all images, L labels. log_probs (T, N, C) float32 is log P(class) at every frame,
in nats; lengths (N,) are in frames, and what lies beyond a length is ignored.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BLANK = 0
COLUMN = 8  # pixels that the network's convolutions make one column of
RESCALE = 64  # frames after which the sums are brought back to 1


@dataclass
class Reading:
    """labels: ids. confidence: P(labels | image) over all CTC paths. label_confidences: for each label the highest
    probability that the network gives it on any frame of its run."""

    labels: list[int]
    confidence: float
    label_confidences: list[float]


def frames(width, frame: int):
    """The number of frames of an image `width` pixels wide (an int or a tensor), of `frame` pixels each.

    Those of whole columns, each of which gives 8 // frame frames.
    """
    return (width + COLUMN - 1) // COLUMN * (COLUMN // frame)


def frames_needed(labels: Sequence) -> int:
    """The fewest frames to which CTC can align `labels`: one each, and a blank between equal neighbours."""
    return len(labels) + sum(a == b for a, b in itertools.pairwise(labels))


def greedy_decode(log_probs: np.ndarray, lengths: np.ndarray) -> list[Reading]:
    """Best-path decoding: the most likely class of each frame, repeats merged, blanks dropped (Graves et al. 2006).

    Returns N readings.
    """
    longest, images, _ = log_probs.shape
    inside = np.arange(longest)[:, None] < lengths  # (T, N)
    classes = np.where(inside, log_probs.argmax(2), BLANK).T  # (N, T)
    starts = np.ones(classes.shape, dtype=bool)
    starts[:, 1:] = classes[:, 1:] != classes[:, :-1]
    first = np.flatnonzero(starts)  # of each run of equal classes, in all images, one after the other
    best = np.maximum.reduceat(log_probs.max(2).T.ravel(), first)
    found = classes.ravel()[first]
    kept = found != BLANK
    ends = np.cumsum(np.bincount(first[kept] // longest, minlength=images))[:-1]
    labels = [part.tolist() for part in np.split(found[kept] - 1, ends)]
    label_confidences = [part.tolist() for part in np.split(np.exp(best[kept]), ends)]
    several = candidate_log_probs(log_probs, lengths, [[each] for each in labels])
    confidences = [min(float(np.exp(value)), 1.0) for (value,) in several]
    return [Reading(*fields) for fields in zip(labels, confidences, label_confidences, strict=True)]


def candidate_log_probs(
    log_probs: np.ndarray, lengths: np.ndarray, candidates: Sequence[Sequence[Sequence[int]]]
) -> list[list[float]]:
    """log P(labels | image) of several candidates for each image, summed over all CTC paths, in nats.

    candidates: for each image, sequences of ids. Returns -inf where an image has fewer frames than `frames_needed`, or
    where the labels are less likely than e^-700 times the best path.

    The forward algorithm of Graves et al. 2006, 4.1, over all candidates at once. Every frame's probabilities are taken
    relative to its highest, so that the best path has 1 and nothing is lost to rounding.
    """
    counts = list(map(len, candidates))
    flat = [labels for several in candidates for labels in several]
    rows = np.repeat(np.arange(len(counts)), counts)  # (K,): the image of each candidate
    sizes = np.array(list(map(len, flat)), dtype=np.int64)  # (K,)
    classes = np.full((len(flat), max(sizes.max(initial=0), 1)), BLANK)  # (K, L)
    for row, labels in zip(classes, flat, strict=True):
        row[: len(labels)] = np.add(labels, 1)
    repeated = classes[:, 1:] == classes[:, :-1]

    peaks = log_probs.max(2)  # (T, N)
    relative = np.exp(log_probs - peaks[..., None], dtype=np.float64)  # (T, N, C)
    totals = np.where(np.arange(len(peaks))[:, None] < lengths, peaks, 0).sum(0, dtype=np.float64)[rows]  # (K,)
    ends, found = np.asarray(lengths)[rows], np.full(len(flat), -np.inf)
    own = rows[:, None] * log_probs.shape[2]
    of_labels, of_blank = own + classes, own + BLANK  # places in a frame
    # The sums over all paths that end on a label, and on the blank before or after it: (K, L) and (K, L + 1).
    labelled, blank = np.zeros(classes.shape), np.zeros((len(flat), classes.shape[1] + 1))
    blank[:, 0] = 1  # before the first frame
    for t, frame in enumerate(relative.reshape(len(relative), -1)):
        moved = labelled.copy()
        labelled += blank[:, :-1]
        labelled[:, 1:] += np.where(repeated, 0, moved[:, :-1])
        labelled *= frame[of_labels]
        blank[:, 1:] += moved
        blank *= frame[of_blank]
        if t % RESCALE == RESCALE - 1:  # so that the number of paths does not overflow
            scale = np.maximum(blank.max(1), labelled.max(1))
            scale[scale == 0] = 1
            labelled /= scale[:, None]
            blank /= scale[:, None]
            totals += np.log(scale)
        last = np.flatnonzero(ends == t + 1)
        if len(last):
            sums = blank[last, sizes[last]] + np.where(sizes[last] > 0, labelled[last, sizes[last] - 1], 0)
            with np.errstate(divide="ignore"):
                found[last] = np.log(sums) + totals[last]
    values = iter(found.tolist())
    return [list(itertools.islice(values, count)) for count in counts]
