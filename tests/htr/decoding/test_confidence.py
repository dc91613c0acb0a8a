import itertools
import math
import random

import pytest
import torch

from htr.decoding.confidence import (
    EDGE,
    Calibration,
    Ngrams,
    auroc,
    coverage_curve,
    expected_calibration_error,
    fit_weights,
)

NAMES = dict.fromkeys(["ANNA", "ANNE", "HANNA", "LEA", "LEON"], 1)


def test_trigrams_by_hand():
    trigrams = Ngrams.of({"A": 1}, 3)  # the runs are: edge edge A, edge A edge
    # one character: A once, the edge once, of two kinds; a third one stands for all unknown
    unigram = (1 + 2 * (1 / 3)) / (2 + 2)
    bigram = (1 + 1 * unigram) / (1 + 1)
    trigram = (1 + 1 * bigram) / (1 + 1)
    assert trigrams.log_prob("A") == pytest.approx(2 * math.log(trigram))


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("before", ["", "A", "AN", "ANN", "Z", "LE"])
def test_what_follows_has_probability_one_in_all(before, order):
    ngrams = Ngrams.of(NAMES | {"ANNE": 7}, order)
    context = (EDGE * (order - 1) + before)[len(before) :]
    known = [*sorted(set("".join(NAMES))), EDGE]
    total = sum(math.exp(ngrams._log_prob(context + character)) for character in (*known, "?"))
    assert total == pytest.approx(1)


def test_texts_like_the_known_ones_are_likelier():
    trigrams = Ngrams.of(NAMES, 3)
    assert trigrams.log_prob("HANNE") > trigrams.log_prob("NEHNA") > trigrams.log_prob("ZQXWV")
    assert trigrams.log_prob("") < 0
    assert Ngrams({}).log_prob("ANNA") == 0  # knows nothing


def test_the_order_of_texts_does_not_matter():
    assert list(Ngrams.of(NAMES, 3).counts) == list(Ngrams.of(dict(reversed(NAMES.items())), 3).counts)


def test_texts_count_as_often_as_they_occur():
    counts = Ngrams.of({"AA": 2, "A": 3}, 2).counts
    assert counts == {EDGE + "A": 5, "AA": 2, "A" + EDGE: 5}
    assert Ngrams.of({"AA": 2, "A": 3}, 2, least=3).counts == {EDGE + "A": 5, "A" + EDGE: 5}


@pytest.mark.parametrize("counts", [{"AB": 1, "ABC": 1}, {"AB": 0}, {"AB": -1}, {"AB": math.nan}])
def test_what_are_no_counts_is_refused(counts):
    with pytest.raises(ValueError, match="n-grams of several lengths, or counts below 1"):
        Ngrams(counts)


def test_fit_weights_finds_the_minimum():
    goal = torch.tensor([3.0, -2.0], dtype=torch.float64)
    found = fit_weights(lambda weights: 1000 * ((weights - goal) ** 2).sum(), [0.0, 0.0])
    assert found == pytest.approx([3, -2], abs=1e-3)


def overconfident(count, seed=0):
    """Probabilities, and whether they were right: less often than they say, and more often for names."""
    random.seed(seed)
    texts, probabilities, right = [], [], []
    for _ in range(count):
        named, p = random.random() < 0.5, random.random()
        texts.append(random.choice(list(NAMES)) if named else "".join(random.sample("QXZWKV", 4)))
        probabilities.append(p)
        right.append(random.random() < 1 / (1 + math.exp(-(0.5 * math.log(p / (1 - p)) + (1 if named else -1)))))
    return texts, probabilities, right


def test_a_fitted_calibration_holds_on_other_data():
    trigrams = Ngrams.of(NAMES, 3)
    calibration = Calibration.fit(trigrams, *overconfident(2000))
    texts, raw, right = overconfident(4000, seed=1)
    fitted = [calibration(*pair) for pair in zip(texts, raw, strict=True)]
    assert expected_calibration_error(fitted, right) < 0.03 < 0.1 < expected_calibration_error(raw, right)
    assert auroc(fitted, right) > auroc(raw, right) + 0.05
    assert calibration.weights[0] == pytest.approx(0.5, abs=0.1)


def test_a_calibration_survives_being_kept():
    calibration = Calibration.fit(Ngrams.of(NAMES, 3), *overconfident(100))
    again = Calibration.restore(calibration.state())
    assert [again(text, 0.3) for text in NAMES] == [calibration(text, 0.3) for text in NAMES]


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("text", ["", "ANNA", "é" * 300])
@pytest.mark.parametrize("probability", [0.0, 1e-45, 0.5, 1.0])
def test_always_a_probability(text, probability, right):
    calibration = Calibration.fit(Ngrams.of(NAMES, 3), [text] * 5, [probability] * 5, [right] * 5)
    assert 0 <= calibration(text, probability) <= 1
    assert abs(calibration(text, probability) - right) < 0.5


def test_calibration_error_by_hand():
    # bins of 1/15: 0.62 and 0.65 fall into one, 0.10 into another
    confidences, right = [0.62, 0.65, 0.10, 1.0], [True, False, False, True]
    assert expected_calibration_error(confidences, right) == pytest.approx((0.27 + 0.10 + 0) / 4)


def test_auroc_against_all_pairs():
    random.seed(0)
    confidences = [random.randrange(8) / 8 for _ in range(60)]
    right = [random.random() < c for c in confidences]
    pairs = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for (a, yes), (b, no) in itertools.product(zip(confidences, right, strict=True), repeat=2)
        if yes and not no
    ]
    assert auroc(confidences, right) == pytest.approx(sum(pairs) / len(pairs))
    assert math.isnan(auroc([0.5, 0.6], [True, True]))


def test_coverage_by_hand():
    assert coverage_curve([0.2, 0.9, 0.5], [True, True, False]) == [1, 1 / 2, 2 / 3]
