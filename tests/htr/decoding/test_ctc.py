import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from htr.decoding.ctc import candidate_log_probs, frames_needed, greedy_decode


def collapse(path):
    """CTC's map from a path of classes to labels, written down as the paper defines it; class 0 is the blank."""
    merged = [key for key, _ in itertools.groupby(path)]
    return tuple(c - 1 for c in merged if c != 0)


def probabilities_by_brute_force(log_probs):
    """P(labels) for every labelling, by adding up all paths; log_probs (T, C)."""
    total = {}
    for path in itertools.product(range(log_probs.shape[1]), repeat=log_probs.shape[0]):
        p = math.exp(sum(float(log_probs[t, c]) for t, c in enumerate(path)))
        total[collapse(path)] = total.get(collapse(path), 0) + p
    return total


def log_softmax(logits) -> np.ndarray:
    """(..., C) float32."""
    logits = np.asarray(logits, dtype=np.float64)
    return (logits - np.log(np.exp(logits).sum(-1, keepdims=True))).astype(np.float32)


def random_log_probs(seed, *shape, scale=1.0) -> np.ndarray:
    return log_softmax(np.random.default_rng(seed).normal(size=shape) * scale)


def sure_of(path, classes, scale=5) -> np.ndarray:
    """log_probs (T, 1, C) of frames that are sure of a path."""
    return log_softmax(np.eye(classes)[path][:, None] * scale)


@pytest.mark.parametrize(
    ("path", "labels"),
    [
        ([1, 1, 2, 3], [0, 1, 2]),
        ([0, 1, 1, 0, 1, 0], [0, 0]),
        ([1, 1, 1, 1], [0]),
        ([0, 0, 0], []),
        ([2, 0, 0, 2, 2, 3], [1, 1, 2]),
        ([0], []),
    ],
)
def test_greedy_decoding_by_hand(path, labels):
    (reading,) = greedy_decode(sure_of(path, 4), np.array([len(path)]))
    assert reading.labels == labels
    assert len(reading.label_confidences) == len(labels)


def test_decoding_stops_at_the_length():
    assert greedy_decode(sure_of([1, 0, 2], 4), np.array([2]))[0].labels == [0]


def test_label_confidence_is_the_best_frame_of_its_run():
    probs = np.array([[0.1, 0.6, 0.3], [0.1, 0.8, 0.1], [0.9, 0.05, 0.05], [0.25, 0.2, 0.55]], dtype=np.float32)
    (reading,) = greedy_decode(np.log(probs)[:, None], np.array([4]))
    assert reading.labels == [0, 1]
    assert reading.label_confidences == pytest.approx([0.8, 0.55])


def test_images_of_a_batch_are_decoded_one_by_one():
    log_probs, lengths = random_log_probs(5, 12, 9, 4, scale=2), np.array([12, 1, 5, 12, 7, 3, 11, 2, 12])
    together = greedy_decode(log_probs, lengths)
    for n, length in enumerate(lengths):
        (alone,) = greedy_decode(log_probs[:length, n : n + 1], np.array([length]))
        path = log_probs[:length, n].argmax(1).tolist()
        assert tuple(alone.labels) == collapse(path) == tuple(together[n].labels)
        assert alone.confidence == pytest.approx(together[n].confidence, rel=1e-12)
        runs = [list(run) for _, run in itertools.groupby(range(length), path.__getitem__)]
        best = [math.exp(max(log_probs[t, n, path[t]] for t in run)) for run in runs if path[run[0]]]
        assert alone.label_confidences == pytest.approx(best, rel=1e-6)
        assert together[n].label_confidences == alone.label_confidences


@pytest.mark.parametrize("seed", range(8))
def test_confidence_is_the_sum_over_all_paths(seed):
    frames, classes = 5, 3
    log_probs, lengths = random_log_probs(seed, frames, 1, classes, scale=1 + seed), np.array([frames])
    by_labels = probabilities_by_brute_force(log_probs[:, 0])
    assert sum(by_labels.values()) == pytest.approx(1)
    (reading,) = greedy_decode(log_probs, lengths)
    assert reading.confidence == pytest.approx(by_labels[tuple(reading.labels)], rel=1e-5)
    (values,) = candidate_log_probs(log_probs, lengths, [list(by_labels)])
    assert np.exp(values) == pytest.approx(list(by_labels.values()), rel=1e-5)


def test_confidence_of_an_empty_and_of_a_sure_reading():
    blank = log_softmax([[[2.0, 0, 0]]] * 4)
    (reading,) = greedy_decode(blank, np.array([4]))
    assert reading.labels == []
    assert reading.confidence == pytest.approx(math.exp(blank[0, 0, 0]) ** 4, rel=1e-5)
    assert greedy_decode(sure_of([1, 0, 2], 3, 200), np.array([3]))[0].confidence == 1.0


def test_confidence_counts_true_frames_only():
    log_probs, lengths = random_log_probs(0, 6, 2, 4), np.array([6, 3])
    alone = greedy_decode(log_probs[:3, 1:], np.array([3]))[0]
    assert greedy_decode(log_probs, lengths)[1] == alone


def test_probabilities_of_candidates_are_sums_over_all_paths():
    log_probs, lengths = random_log_probs(3, 5, 2, 3), np.array([5, 3])
    truths = [probabilities_by_brute_force(log_probs[:length, n]) for n, length in enumerate(lengths)]
    candidates = [[list(labels) for labels in truth] for truth in truths]
    for n, values in enumerate(candidate_log_probs(log_probs, lengths, candidates)):
        for labels, value in zip(candidates[n], values, strict=True):
            assert math.exp(value) == pytest.approx(truths[n][tuple(labels)], rel=1e-5)
        assert sum(map(math.exp, values)) == pytest.approx(1, rel=1e-5)  # of all texts that there are


@pytest.mark.parametrize(("frames", "scale"), [(40, 1.0), (40, 20.0), (300, 0.1), (1000, 0.0), (1000, 5.0)])
def test_probabilities_of_long_lines_are_those_of_pytorch(frames, scale):
    """Also where paths are as many as can be, or each as unlikely as can be."""
    log_probs, lengths = random_log_probs(7, frames, 3, 5, scale=scale), np.array([frames, frames - 7, 25])
    greedy = [reading.labels for reading in greedy_decode(log_probs, lengths)]
    candidates = [[labels, labels[:-1], [*labels, 0], [*labels[:5], 3, *labels[5:]]] for labels in greedy]
    candidates[2].append([0] * 13)
    found = candidate_log_probs(log_probs, lengths, candidates)
    for n, several in enumerate(candidates):
        for labels, value in zip(several, found[n], strict=True):
            frames = torch.from_numpy(log_probs[: lengths[n], n : n + 1]).double()
            targets, sizes = torch.tensor([[label + 1 for label in labels]]), torch.tensor([len(labels)])
            loss = functional.ctc_loss(frames, targets, torch.tensor(lengths[n : n + 1]), sizes, reduction="none")
            assert value == pytest.approx(-float(loss), rel=1e-6, abs=1e-4)


def test_candidates_that_do_not_fit_have_no_probability():
    log_probs = log_softmax(np.zeros((2, 1, 3)))
    assert candidate_log_probs(log_probs, np.array([2]), [[[0, 0], [0, 1, 0]]]) == [[-math.inf, -math.inf]]


def test_an_image_may_have_no_candidate():
    log_probs, lengths = random_log_probs(1, 4, 3, 3), np.array([4, 4, 4])
    assert candidate_log_probs(log_probs, lengths, [[], [[]], []])[::2] == [[], []]
    assert candidate_log_probs(log_probs, lengths, [[], [], []]) == [[], [], []]


def test_frames_needed_against_all_paths():
    """The shortest path that collapses to the labels, found by trying all."""
    for size in range(4):
        for labels in itertools.product(range(2), repeat=size):
            shortest = next(
                frames
                for frames in itertools.count()
                if any(collapse(path) == labels for path in itertools.product(range(3), repeat=frames))
            )
            assert frames_needed(labels) == shortest
