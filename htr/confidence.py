"""How sure a reading is: how name-like its text is, a calibrated probability, and measures of calibration.

Works on text and probabilities alone. A calibration is fitted on labelled images that the network was not trained on.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # imported where something is fitted, so that reading starts without it
    from torch import Tensor

EDGE = "\n"  # stands before and after each text, and in none: labels hold no line ends
FLOOR = 1e-6  # probabilities closer than this to 0 or 1 are not told apart
ECE_BINS = 15


class Trigrams:
    """How likely a text is: a character trigram model with Witten-Bell smoothing (Chen and Goodman 1999, 2.1.5).

    counts: in how many distinct texts each trigram occurs, with EDGE around the text.
    """

    def __init__(self, counts: dict[str, int]):
        self.counts = counts
        self.levels = [Counter(), Counter(), Counter()]  # of runs of one, two and three characters
        for trigram, count in counts.items():
            for length in (1, 2, 3):
                self.levels[length - 1][trigram[3 - length :]] += count
        self.followers, self.totals = Counter(), Counter()  # of what comes before the last character
        for level in self.levels:
            for run, count in level.items():
                self.followers[run[:-1]] += 1
                self.totals[run[:-1]] += count
        self.known: dict[str, float] = {}

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Trigrams":
        counts = Counter()
        for text in set(texts):
            padded = EDGE * 2 + text + EDGE
            counts.update(padded[i : i + 3] for i in range(len(padded) - 2))
        return cls(dict(sorted(counts.items())))

    def _log_prob(self, trigram: str) -> float:
        if trigram not in self.known:
            probability = 1 / (self.followers[""] + 1)
            for length in (1, 2, 3):
                run = trigram[3 - length :]
                total, followers = self.totals[run[:-1]], self.followers[run[:-1]]
                if total:
                    probability = (self.levels[length - 1][run] + followers * probability) / (total + followers)
            self.known[trigram] = math.log(probability)
        return self.known[trigram]

    def log_prob(self, text: str) -> float:
        """log P(text), including its end, in nats."""
        padded = EDGE * 2 + text + EDGE
        return sum(self._log_prob(padded[i : i + 3]) for i in range(len(padded) - 2))


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
    log-probability per character. weights: of these two, and the constant; ValueError where there are not three.
    """

    trigrams: Trigrams
    weights: Sequence[float] = (1.0, 0.0, 0.0)  # leaves the model's probability as it is

    def __post_init__(self):
        if len(self.weights) != 3:
            raise ValueError(f"a calibration has 3 weights, not {len(self.weights)}")

    def features(self, text: str, probability: float) -> tuple[float, float, float]:
        return log_odds(probability), self.trigrams.log_prob(text) / (len(text) + 1), 1.0

    def __call__(self, text: str, probability: float) -> float:
        """The probability that `text` is right, in [0, 1], given the model's own `probability`."""
        odds = sum(w * x for w, x in zip(self.weights, self.features(text, probability), strict=True))
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, odds))))

    @classmethod
    def fit(
        cls, trigrams: Trigrams, texts: Sequence[str], probabilities: Sequence[float], right: Sequence[bool]
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
        return cls(Trigrams(state["trigrams"]), [float(weight) for weight in state["weights"]])


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
