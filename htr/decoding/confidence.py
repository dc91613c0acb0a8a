"""How sure a reading is: how name-like its text is, a calibrated probability, and measures of calibration.

Works on text and probabilities alone. A calibration is fitted on labelled images that the network was not trained on.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # imported where something is fitted, so that reading starts without it
    from torch import Tensor

EDGE = "\n"  # stands before and after each text, and in none: labels hold no line ends
FLOOR = 1e-6  # probabilities closer than this to 0 or 1 are not told apart
ECE_BINS = 15


class Ngrams:
    """How likely a text is: a character n-gram model with Witten-Bell smoothing (Chen and Goodman 1999, 2.1.5).

    counts: how often each run of n characters occurs, with n - 1 times EDGE before each text and EDGE after it.
    Raises ValueError where they are of several lengths, or occur less than once.
    """

    def __init__(self, counts: Mapping[str, int]):
        self.counts = counts
        self.order = len(next(iter(counts), EDGE))  # n
        if any(len(ngram) != self.order or not count >= 1 for ngram, count in counts.items()):
            raise ValueError("n-grams of several lengths, or counts below 1")
        self.known: dict[str, float] = {}

    @cached_property
    def _tables(self) -> tuple[list[Counter], Counter, Counter]:
        """How often each run of one, two, ... characters occurs; how many follow what comes before the last character,
        and how often."""
        levels, followers, totals = [Counter() for _ in range(self.order)], Counter(), Counter()
        for ngram, count in self.counts.items():
            for length, level in enumerate(levels, 1):
                level[ngram[self.order - length :]] += count
        for level in levels:
            for run, count in level.items():
                followers[run[:-1]] += 1
                totals[run[:-1]] += count
        return levels, followers, totals

    @classmethod
    def of(cls, texts: Mapping[str, int], order: int, least: int = 1) -> "Ngrams":
        """Of texts and how often each is to count; runs of `order` characters that occur less than `least` times are
        left out."""
        counts = _counted(texts, order)
        return cls({ngram: count for ngram, count in sorted(counts.items()) if count >= least})

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint: all runs one after the other, and how often each occurs."""
        return {"order": self.order, "runs": "".join(self.counts), "counts": list(self.counts.values())}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> "Ngrams":
        """Raises ValueError where they do not fit together; earlier versions had each run and its count."""
        if "runs" not in state:
            return cls(state)
        order, runs, counts = (state[name] for name in ("order", "runs", "counts"))
        if len(runs) != order * len(counts):
            raise ValueError("n-grams and their counts do not fit")
        return cls(dict(zip(map("".join, zip(*[iter(runs)] * order, strict=True)), counts, strict=True)))

    def with_texts(self, texts: Mapping[str, int]) -> "Ngrams":
        """With the runs of further texts, and how often each is to count."""
        return Ngrams(Counter(self.counts) + _counted(texts, self.order))

    def with_words(self, words: Mapping[str, int]) -> "Ngrams":
        """With the runs of single words of running text, and how often each is to count.

        What comes before a word is not known but for the space: that it is one of many spaces, as no text has them,
        leaves the probabilities of longer runs as they are.
        """
        counts, before = Counter(self.counts), " " * (self.order - 1)
        for word, count in words.items():
            padded = f"{before}{word} "
            for place in range(len(word) + 1):
                counts[padded[place : place + self.order]] += count
        return Ngrams(counts)

    def _log_prob(self, ngram: str) -> float:
        if ngram not in self.known:
            levels, all_followers, totals = self._tables
            probability = 1 / (all_followers[""] + 1)
            for length, level in enumerate(levels, 1):
                run = ngram[self.order - length :]
                total, followers = totals[run[:-1]], all_followers[run[:-1]]
                if total:
                    probability = (level[run] + followers * probability) / (total + followers)
            self.known[ngram] = math.log(probability)
        return self.known[ngram]

    def log_prob(self, text: str) -> float:
        """log P(text), including its end, in nats."""
        return sum(map(self._log_prob, _runs(text, self.order)))


def _runs(text: str, length: int) -> list[str]:
    """All runs of so many characters in a text with its edges."""
    padded = EDGE * (length - 1) + text + EDGE
    return [padded[i : i + length] for i in range(len(text) + 1)]


def _counted(texts: Mapping[str, int], order: int) -> Counter[str]:
    """How often all runs of so many characters occur, of texts and how often each is to count."""
    counts = Counter()
    for text, count in texts.items():
        for ngram in _runs(text, order):
            counts[ngram] += count
    return counts


def log_odds(probability: float) -> float:
    probability = min(max(probability, FLOOR), 1 - FLOOR)
    return math.log(probability / (1 - probability))


def fit_weights(loss_of: "Callable[[Tensor], Tensor]", start: Sequence[float]) -> list[float]:
    """The weights (K,) float64 that minimise the summed loss, found with L-BFGS.

    A wide Gaussian prior (standard deviation 10) around `start` keeps weights there that the data does not determine.
    """
    import torch

    first = torch.tensor(start, dtype=torch.float64)
    weights = first.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def step() -> "Tensor":
        optimizer.zero_grad()
        loss = loss_of(weights) + 0.5 * ((weights - first) / 10).square().sum()
        loss.backward()
        return loss

    optimizer.step(step)
    return weights.tolist()


@dataclass
class Calibration:
    """The probability that a text is right, from the model's own probability and from how name-like the text is.

    Logistic regression (Platt 1999) on the log-odds of the model's probability and on the trigram model's mean
    log-probability per character. weights: of these two, and the constant; ValueError where there are not three finite
    ones.
    """

    trigrams: Ngrams
    weights: Sequence[float] = (1.0, 0.0, 0.0)  # leaves the model's probability as it is

    def __post_init__(self):
        if len(self.weights) != 3 or not all(map(math.isfinite, self.weights)):
            raise ValueError(f"a calibration has 3 finite weights, not {self.weights!r:.80}")

    def features(self, text: str, probability: float) -> tuple[float, float, float]:
        return log_odds(probability), self.trigrams.log_prob(text) / (len(text) + 1), 1.0

    def __call__(self, text: str, probability: float) -> float:
        """The probability that `text` is right, in [0, 1], given the model's own `probability`."""
        odds = sum(w * x for w, x in zip(self.weights, self.features(text, probability), strict=True))
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, odds))))

    @classmethod
    def fit(
        cls, trigrams: Ngrams, texts: Sequence[str], probabilities: Sequence[float], right: Sequence[bool]
    ) -> "Calibration":
        """Fit on readings of labelled images: their texts, the model's probabilities, and whether they are right."""
        import torch

        untrained = cls(trigrams)
        features = [untrained.features(*pair) for pair in zip(texts, probabilities, strict=True)]
        x, y = torch.tensor(features, dtype=torch.float64), torch.tensor(right, dtype=torch.float64)

        def loss(weights: "Tensor") -> "Tensor":
            return torch.nn.functional.binary_cross_entropy_with_logits(x @ weights, y, reduction="sum")

        return cls(trigrams, fit_weights(loss, untrained.weights))

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {"weights": list(self.weights), "trigrams": self.trigrams.counts}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> "Calibration":
        return cls(Ngrams(state["trigrams"]), [float(weight) for weight in state["weights"]])


# ---------------------------------------------------------------------------------------------- measures


def expected_calibration_error(confidences: Sequence[float], right: Sequence[bool]) -> float:
    """ECE: mean gap between confidence and accuracy over 15 equal bins, weighted by their images (Guo et al. 2017)."""
    gaps = Counter()
    for confidence, correct in zip(confidences, right, strict=True):
        gaps[min(int(confidence * ECE_BINS), ECE_BINS - 1)] += confidence - correct
    return sum(map(abs, gaps.values())) / max(1, len(confidences))


def auroc(confidences: Sequence[float], right: Sequence[bool]) -> float:
    """The probability that a right reading has a higher confidence than a wrong one; ties count half.

    NaN where all are right or all are wrong.
    """
    wins, below, wrong = 0.0, 0, len(right) - sum(right)
    groups: dict[float, list[int]] = {}
    for confidence, correct in zip(confidences, right, strict=True):
        groups.setdefault(confidence, [0, 0])[correct] += 1
    for confidence in sorted(groups):
        wrongs, rights = groups[confidence]
        wins += rights * (below + wrongs / 2)
        below += wrongs
    pairs = wrong * sum(right)
    return wins / pairs if pairs else math.nan


def coverage_curve(confidences: Sequence[float], right: Sequence[bool]) -> list[float]:
    """For n = 1, 2, ... the share of right ones among the n surest readings."""
    surest = sorted(zip(confidences, right, strict=True), key=lambda pair: -pair[0])
    correct, shares = 0, []
    for n, (_, is_right) in enumerate(surest, 1):
        correct += is_right
        shares.append(correct / n)
    return shares
