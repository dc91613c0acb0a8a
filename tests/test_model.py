import copy
import itertools
import math

import pytest
import torch

from config import Config
from dataset import collate, geometry
from htr.images import load_image
from model import (
    CRNN,
    Columns,
    candidate_log_probs,
    ctc_loss,
    frames_needed,
    greedy_decode,
    grow_labels,
    log_probabilities,
    similar_labels,
)


def small_model(num_labels=5, seed=0) -> CRNN:
    """A network whose every part matters: random heads and feedback, BatchNorm statistics of real pictures."""
    torch.manual_seed(seed)
    model = CRNN(num_labels, 32, (8, 8, 16, 16, 16, 16), hidden=16, layers=3, dropout=0.2)
    for linear in (*model.heads, *model.feedback):
        torch.nn.init.normal_(linear.weight)
    for _ in range(10):
        model(torch.rand(4, 1, 32, 64), torch.full((4,), 64))
    return model.eval()


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


def test_shapes():
    model = small_model(num_labels=5)
    images, widths = torch.rand(3, 1, 32, 64), torch.tensor([64, 50, 3])
    logits, lengths = model(images, widths)
    assert logits.shape == (8, 3, 6)
    assert lengths.tolist() == [8, 7, 1]


@torch.no_grad()
def test_the_last_of_all_readings_is_the_one_that_counts():
    model, images, widths = small_model(), torch.rand(3, 1, 32, 64), torch.tensor([64, 50, 3])
    readings, lengths = model(images, widths, all_readings=True)
    assert [reading.shape for reading in readings] == [(8, 3, 6)] * 4  # the CNN's, and one after each LSTM layer
    last, same_lengths = model(images, widths)
    assert torch.equal(readings[-1], last) and torch.equal(lengths, same_lengths)


@torch.no_grad()
def test_each_layer_knows_what_was_read_before_it():
    """Where nothing but a reading changes, all later ones change, and none before it."""
    model, images, widths = small_model(), torch.rand(1, 1, 32, 64), torch.tensor([64])
    before, _ = model(images, widths, all_readings=True)
    for layer in range(2):
        changed = copy.deepcopy(model)
        changed.heads[layer].bias += torch.tensor([3.0, 0, 0, 0, 0, 0])
        after, _ = changed(images, widths, all_readings=True)
        same = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
        assert same == [n <= layer for n in range(4)]


def test_a_new_network_reads_what_its_columns_say():
    """At the start of training the LSTM is silent, so that the CNN learns first."""
    torch.manual_seed(0)
    model = CRNN(5, 32, (8, 8, 16, 16, 16, 16), hidden=16, layers=3, dropout=0.2)
    first, *later = model(torch.rand(2, 1, 32, 64), torch.tensor([64, 64]), all_readings=True)[0]
    assert all(torch.equal(first, reading) for reading in later)


def test_three_bidirectional_layers_and_batchnorm():
    model = small_model()
    assert sum(isinstance(m, torch.nn.LSTM) for m in model.lstm.modules()) == 2 * len(model.lstm) == 6
    assert sum(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules()) == 7


@torch.no_grad()
def test_a_reading_does_not_depend_on_the_batch():
    model = small_model()
    generator = torch.Generator().manual_seed(3)
    widths = torch.tensor([17, 200, 64, 90, 33, 4, 1])
    images = torch.zeros(len(widths), 1, 32, 208)
    for image, width in zip(images, widths, strict=True):
        image[..., :width] = torch.rand(32, width, generator=generator)
    together, lengths = model(images, widths)
    for n, width in enumerate(widths):
        alone, (length,) = model(images[n : n + 1, ..., : 8 * CRNN.frames(width)], widths[n : n + 1])
        difference = (together[: lengths[n], n].log_softmax(1) - alone[:length, 0].log_softmax(1)).abs().max()
        assert length == lengths[n]
        assert difference < 1e-4


@torch.no_grad()
def test_both_directions_reach_every_frame():
    """The first frame hears of the last column and the other way round, farther than the convolutions see.

    In double precision: little of so small a random network's signal is left after 16 frames.
    """
    model = small_model().double()
    ink, widths = torch.rand(1, 1, 32, 128, dtype=torch.double), torch.tensor([128])
    before = model(ink, widths)[0]
    for column, frame in ((127, 0), (0, 15)):
        changed = ink.clone()
        changed[..., column] = 1 - changed[..., column]
        assert (model(changed, widths)[0][frame] - before[frame]).abs().max() > 1e-7


@torch.no_grad()
def test_a_fused_model_reads_the_same_without_batchnorm():
    model, images, widths = small_model(), torch.rand(3, 1, 32, 64), torch.tensor([64, 30, 5])
    before = model(images, widths)[0]
    after = model.fuse()(images, widths)[0]
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    assert torch.allclose(before, after, atol=1e-4)


@torch.no_grad()
def test_columns_know_the_height_and_their_maximum():
    """Without its convolution a column is the maximum of its rows; with it, the same rows in another order differ."""
    torch.manual_seed(0)
    columns, x = Columns(8, rows=4).eval(), torch.rand(2, 8, 4, 10)
    mask = torch.ones(2, 1, 1, 10, dtype=torch.bool)
    mask[1, ..., 6:] = False
    upside_down = x.flip(2)
    assert not torch.allclose(columns(x, mask), columns(upside_down, mask))
    assert (columns(x, mask)[1, :, 6:] == 0).all()
    columns.conv.weight.zero_()
    assert torch.equal(columns(x, mask)[0], x[0].amax(1))
    assert torch.equal(columns(x, mask), columns(upside_down, mask))


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
    logits = torch.nn.functional.one_hot(torch.tensor(path), 4).float()[:, None] * 5
    (reading,) = greedy_decode(logits, torch.tensor([len(path)]))
    assert reading.labels == labels
    assert len(reading.label_confidences) == len(labels)


def test_decoding_stops_at_the_length():
    logits = torch.nn.functional.one_hot(torch.tensor([1, 0, 2]), 4).float()[:, None] * 5
    assert greedy_decode(logits, torch.tensor([2]))[0].labels == [0]


def test_label_confidence_is_the_best_frame_of_its_run():
    probs = torch.tensor([[0.1, 0.6, 0.3], [0.1, 0.8, 0.1], [0.9, 0.05, 0.05], [0.25, 0.2, 0.55]])
    (reading,) = greedy_decode(probs.log()[:, None], torch.tensor([4]))
    assert reading.labels == [0, 1]
    assert reading.label_confidences == pytest.approx([0.8, 0.55])


@pytest.mark.parametrize("seed", range(8))
def test_confidence_is_the_sum_over_all_paths(seed):
    torch.manual_seed(seed)
    frames, classes = 5, 3
    logits = torch.randn(frames, 1, classes) * (1 + seed)
    by_labels = probabilities_by_brute_force(logits[:, 0].log_softmax(1))
    assert sum(by_labels.values()) == pytest.approx(1)
    (reading,) = greedy_decode(logits, torch.tensor([frames]))
    assert reading.confidence == pytest.approx(by_labels[tuple(reading.labels)], rel=1e-4)
    for labels, probability in by_labels.items():
        assert math.exp(-ctc_loss(logits, torch.tensor([frames]), [labels])) == pytest.approx(probability, rel=1e-4)


def test_confidence_of_an_empty_and_of_a_sure_reading():
    blank = torch.zeros(4, 1, 3)
    blank[..., 0] = 2.0
    (reading,) = greedy_decode(blank, torch.tensor([4]))
    assert reading.labels == []
    assert reading.confidence == pytest.approx(float(blank[0, 0].softmax(0)[0]) ** 4, rel=1e-5)
    sure = torch.nn.functional.one_hot(torch.tensor([1, 0, 2]), 3).float()[:, None] * 200
    assert greedy_decode(sure, torch.tensor([3]))[0].confidence == 1.0


def test_confidence_counts_true_frames_only():
    torch.manual_seed(0)
    logits = torch.randn(6, 2, 4)
    lengths = torch.tensor([6, 3])
    alone = greedy_decode(logits[:3, 1:], torch.tensor([3]))[0]
    assert greedy_decode(logits, lengths)[1] == alone


def test_probabilities_of_candidates_are_sums_over_all_paths():
    torch.manual_seed(3)
    log_probs, lengths = log_probabilities(torch.randn(5, 2, 3)), torch.tensor([5, 3])
    truths = [probabilities_by_brute_force(log_probs[:length, n]) for n, length in enumerate(lengths)]
    candidates = [[list(labels) for labels in truth] for truth in truths]
    for n, values in enumerate(candidate_log_probs(log_probs, lengths, candidates)):
        for labels, value in zip(candidates[n], values, strict=True):
            assert math.exp(value) == pytest.approx(truths[n][tuple(labels)], rel=1e-4)
        assert sum(map(math.exp, values)) == pytest.approx(1, rel=1e-5)  # of all texts that there are


def test_candidates_that_do_not_fit_have_no_probability():
    log_probs = log_probabilities(torch.zeros(2, 1, 3))
    assert candidate_log_probs(log_probs, torch.tensor([2]), [[[0, 0], [0, 1, 0]]]) == [[-math.inf, -math.inf]]


def test_similar_labels_by_hand():
    # a, then b or less likely c, then a blank that may be c: classes blank, a, b, c
    frames = [[0.02, 0.96, 0.01, 0.01], [0.01, 0.01, 0.58, 0.40], [0.78, 0.01, 0.01, 0.20]]
    log_probs = torch.tensor(frames).log()
    found = similar_labels(log_probs, 100)
    assert found[0] == [0, 2]  # b replaced by c costs least,
    assert found[1] == [0, 1, 2]  # then c put in at the end
    assert [1] in found  # a left out
    assert [0, 1] not in found  # the greedy reading itself
    assert len(set(map(tuple, found))) == len(found)
    assert similar_labels(log_probs, 2) == found[:2]


def test_similar_labels_of_blank_frames():
    log_probs = torch.tensor([[0.9, 0.06, 0.04]] * 3).log()
    assert similar_labels(log_probs, 9) == [[0], [1]]


def test_loss_is_float32_under_half_precision():
    torch.manual_seed(0)
    logits = torch.randn(20, 2, 6).bfloat16()
    losses = ctc_loss(logits, torch.tensor([20, 20]), [[0, 1, 2], [4]])
    assert losses.dtype == torch.float32
    assert torch.equal(losses, ctc_loss(logits.float(), torch.tensor([20, 20]), [[0, 1, 2], [4]]))


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


def test_loss_is_infinite_exactly_where_frames_are_missing():
    logits = torch.randn(3, 1, 4)
    assert torch.isfinite(ctc_loss(logits, torch.tensor([3]), [[1, 1]]))
    assert torch.isinf(ctc_loss(logits, torch.tensor([2]), [[1, 1]]))


def test_frames_of_a_width():
    assert [CRNN.frames(width) for width in (1, 8, 9, 16, 17)] == [1, 1, 2, 2, 3]
    assert CRNN.frames(torch.tensor([1, 9])).tolist() == [1, 2]


def test_overfits_one_batch(data_dir):
    """The whole network memorises eight images."""
    torch.manual_seed(0)
    files = sorted((data_dir / "train_v2" / "train").iterdir())[:8]
    images, widths = collate([load_image(file, geometry(Config(IMG_HEIGHT=32))).pixels for file in files])
    labels = [[n % 4, n // 4, n % 4, 3 - n % 4] for n in range(8)]
    model = CRNN(4, 32, (8, 16, 16, 16, 32, 32), hidden=32, layers=3, dropout=0.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        readings, lengths = model(images, widths, all_readings=True)
        *earlier, loss = [ctc_loss(logits, lengths, labels).mean() for logits in readings]
        loss += 0.3 * sum(earlier)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.5
    assert [reading.labels for reading in greedy_decode(readings[-1], lengths)] == labels


def test_grown_labels_leave_the_others_as_they_were():
    """A label begun like another one has its logit; one that is like none has the lowest constant and no more."""
    torch.manual_seed(0)
    model = CRNN(3, 32, (4, 4, 4, 4, 8, 8), 8, 2, 0.0).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    grown = CRNN(5, 32, (4, 4, 4, 4, 8, 8), 8, 2, 0.0).eval()
    grown.load_state_dict(grow_labels(model.state_dict(), [1, None]))
    images, widths = torch.rand(2, 1, 32, 64), torch.tensor([64, 40])
    (first, *_), _ = model(images, widths, all_readings=True)
    (first_grown, *_), _ = grown(images, widths, all_readings=True)
    assert torch.allclose(first_grown[..., :4], first, atol=1e-6)
    assert torch.allclose(first_grown[..., 4], first[..., 2], atol=1e-6)  # the blank is class 0
    assert (first_grown[..., 5] == model.shortcut.bias.min()).all()
    assert same_shapes(grown.state_dict(), grow_labels(model.state_dict(), [None, None]))
    with pytest.raises(ValueError, match="is not of"):
        grow_labels(model.state_dict() | {"shortcut.bias": torch.zeros(9)}, [])


def same_shapes(a, b) -> bool:
    return {name: value.shape for name, value in a.items()} == {name: value.shape for name, value in b.items()}
