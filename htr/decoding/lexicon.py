"""A prior over texts: a list of known names, or the spelling of the training labels, weighed against what the network
saw.

Every reading is a choice among candidates: what the network reads by itself, what else its frames may say, and the
known names close to it. A log-linear model, fitted on labelled images, gives each candidate a probability from its
exact CTC probability and from how common or how name-like it is. "None of these" is one of the candidates, so that
unknown names survive and the probabilities mean what they say.
"""

import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from htr.decoding.confidence import FLOOR, Ngrams, fit_weights
from htr.decoding.language import Language
from htr.system.names import has_suffix
from htr.system.scripts import HTRError, printable
from htr.texts.cells import Cells, plain_name, read_cells
from htr.texts.labels import PICTURE_COLUMNS, TEXT_COLUMNS, LabelRules, find_column

if TYPE_CHECKING:
    from torch import Tensor

NAME_COLUMNS = ("identity", "name", "names", "surname", "last_name", "first_name", "word", *TEXT_COLUMNS)
NEAREST = 32  # known names that a reading is compared with
TRIGRAMS = 3  # characters in the runs that show how the names of a lexicon are spelled
SPELLING = 6  # characters in the runs that show how labels are spelled and go on, without a lexicon
MOST = 400_000  # such runs that are kept, the most frequent ones
FARTHEST = 3  # edits from the greedy reading to a known name, at most; 1 and 2 for readings of up to 3 and 5 letters
# Of a candidate: log P(text | image); whether it is known; if it is, the log of its share; if not, its n-gram
# log-probability, its length, and whether it is the greedy reading. Of "none of these": the log of the probability
# that the candidates leave, and a constant.
FEATURES = 8
NEUTRAL = (1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # the model's own probabilities


class Lexicon:
    """Known names with their counts.

    counts: by cleaned name, not empty. words: the names, the most frequent first.
    """

    def __init__(self, counts: dict[str, int]):
        self.counts = counts
        self.total = sum(counts.values())
        self.words = sorted(counts, key=lambda word: (-counts[word], word))

    def __len__(self) -> int:
        return len(self.words)

    @classmethod
    def load(cls, path: str | os.PathLike, rules: LabelRules) -> "Lexicon":
        """Read a table with a column of names (IDENTITY, NAME, ...) and, optionally, one called COUNT.

        Any label table will do, and a list of names, alone or with counts, needs no header. Names are cleaned as labels
        are, and equal ones added up; blank and ignored ones do not count. Raises HTRError where the file cannot be
        read, holds no name, may mean several things, or has a count that is not a positive whole number.
        """
        cells = read_cells(path, NAME_COLUMNS + PICTURE_COLUMNS)
        names, counts = _names_and_counts(path, cells)
        known = Counter()
        for name, count in zip(names, counts, strict=True):
            known[rules.clean(name)] += count
        known = {name: count for name, count in known.items() if rules.hold_text(name)}
        if not known:
            raise HTRError(f"{path} holds no name")
        return cls(known)

    def summary(self, writable: Callable[[str], bool]) -> str:
        """How many names there are, and how many of them hold a character that the network cannot write."""
        lost = sum(not writable(word) for word in self.words)
        return f"lexicon: {len(self):,} names" + (
            f", {lost:,} of them with characters never trained on" if lost else ""
        )

    def near(self, texts: Sequence[str]) -> list[list[str]]:
        """For each text the known names a few edits away (Levenshtein), the nearest and most frequent first."""
        distances = process.cdist(
            texts, self.words, scorer=Levenshtein.distance, score_cutoff=FARTHEST, dtype=np.uint8, workers=-1
        )
        found = []
        for text, row in zip(texts, distances, strict=True):
            places = np.flatnonzero(row <= 1 + (len(text) > 3) + (len(text) > 5))
            places = places[np.argsort(row[places], kind="stable")][:NEAREST]
            found.append([self.words[place] for place in places])
        return found


def _names_and_counts(path: str | os.PathLike, cells: Cells) -> tuple[list[str], list[int]]:
    """The names of a lexicon's table, and how often each occurs."""
    first, rows = cells.rows[0], cells.rows
    places = [place for place, name in enumerate(first) if plain_name(name) in NAME_COLUMNS]
    labels = len(first) > 1 and has_suffix(first[0])  # of pictures, without a header
    count = find_column(first, ("count",))
    if cells.keyed or (not labels and (places or count is not None or find_column(first, PICTURE_COLUMNS) is not None)):
        rows = rows[1:]
        if not places and count is not None and len(first) == 2:
            places = [1 - count]
        places = [place for place in places if any(row[place] for row in rows)] or places
        if len(places) != 1:
            several = " and ".join(first[place] for place in places) or "none"
            raise HTRError(
                f"{path} has {', '.join(first)}, of which {several} may hold the names: keep one such column, and call"
                " it NAME"
            )
        names = [row[places[0]] for row in rows]
        if count is None:
            return names, [1] * len(names)
    elif len(first) == 1:
        return [row[0] for row in rows], [1] * len(rows)
    elif len(first) == 2 and labels:
        return [row[1] for row in rows], [1] * len(rows)
    elif len(first) == 2 and all(row[1].isdecimal() for row in rows):
        names, count = [row[0] for row in rows], 1
    else:
        raise HTRError(
            f"{path} has several columns, and its first line, {printable(', '.join(first), 80)}, does not say which of"
            " them holds the names: call that one NAME, and their numbers COUNT"
        )
    try:
        counts = [int(row[count]) for row in rows]
    except ValueError as error:
        raise HTRError(f"{path} has a COUNT that is not a whole number: {error}") from error
    if min(counts, default=1) < 1:
        raise HTRError(f"{path} has a COUNT below 1")
    return names, counts


@dataclass
class Choice:
    """probability: that `text` is right. runner_up: the second choice, "" where there is no other candidate."""

    text: str
    probability: float
    runner_up: str
    runner_up_probability: float

    @classmethod
    def among(cls, candidates: Sequence[str], probabilities: Sequence[float]) -> "Choice":
        """The likeliest of some texts; "" where there is none."""
        order = sorted(range(len(candidates)), key=lambda place: -probabilities[place])
        first, second = [*[(candidates[place], probabilities[place]) for place in order[:2]], ("", 0.0), ("", 0.0)][:2]
        return cls(*first, *second)


def spelling_of(labels: Mapping[str, int]) -> Ngrams:
    """How labels are spelled, of these and how often each occurs."""
    ngrams = Ngrams.of(labels, SPELLING)
    return Ngrams(dict(Counter(ngrams.counts).most_common(MOST)))


@dataclass
class Prior:
    """Chooses among candidates. language: of known names, or of labels where there is no lexicon, and no name is known.

    weights: one finite number per feature, see FEATURES; ValueError where there are others.
    """

    language: Language
    lexicon: Lexicon | None = None
    weights: Sequence[float] = NEUTRAL

    def __post_init__(self):
        if len(self.weights) != FEATURES or not all(map(math.isfinite, self.weights)):
            raise ValueError(f"{FEATURES} finite weights are needed, not {self.weights!r:.80}")

    def features(
        self, candidates: Sequence[str], log_probs: Sequence[float], spelling: Sequence[float], greedy: str
    ) -> np.ndarray:
        """(K + 1, FEATURES) float64: a row for each candidate, then "none of these".

        log_probs: log P(text | image). spelling: log P(text) by the language. greedy: what is read greedily.
        """
        rows = []
        for text, log_prob, by_ngrams in zip(candidates, log_probs, spelling, strict=True):
            if count := self.lexicon.counts.get(text, 0) if self.lexicon else 0:
                rows.append((log_prob, 1, np.log(count / self.lexicon.total) / 10, 0, 0, 0, 0, 0))
            else:
                rows.append((log_prob, 0, 0, by_ngrams / 10, (len(text) + 1) / 10, float(text == greedy), 0, 0))
        rest = max(1 - float(np.exp(log_probs).sum()), FLOOR)
        rows.append((0, 0, 0, 0, 0, 0, np.log(rest), 1))
        return np.array(rows, dtype=np.float64)

    def probabilities(self, features: np.ndarray) -> list[float]:
        """Of K candidates; they leave what "none of these" has. `features` as from the method of that name."""
        scores = features @ np.array(self.weights, dtype=np.float64)  # (K + 1,)
        likelihoods = np.exp(scores - scores.max())
        return (likelihoods / likelihoods.sum())[:-1].tolist()

    def choose(self, candidates: Sequence[str], features: np.ndarray) -> Choice:
        """The likeliest candidate, never "none of these"."""
        return Choice.among(candidates, self.probabilities(features))


def fit_prior(
    features: Sequence[np.ndarray], candidates: Sequence[Sequence[str]], truths: Sequence[str]
) -> list[float]:
    """The weights by which a choice is likely right, and else has few errors.

    features, candidates: of labelled images; truths: their labels. The sum of two is minimised: minus the
    log-likelihood of the truth, or of "none of these", and the expected edit distance (Levenshtein) of a candidate
    drawn by its probability (minimum risk, Shen et al. 2016, arXiv:1512.02433).
    """
    import torch

    most = max(len(rows) for rows in features)
    padded = torch.zeros(len(features), most, FEATURES, dtype=torch.float64)
    edits = torch.full((len(features), most), torch.inf, dtype=torch.float64)
    right = []
    for n, (rows, texts, truth) in enumerate(zip(features, candidates, truths, strict=True)):
        padded[n, : len(rows)] = torch.from_numpy(rows)
        edits[n, : len(texts)] = torch.tensor([Levenshtein.distance(text, truth) for text in texts])
        right.append(texts.index(truth) if truth in texts else len(texts))
    right, counts = torch.tensor(right), torch.tensor(list(map(len, features)))
    absent = torch.arange(most) >= counts[:, None]
    none = torch.isinf(edits)

    def loss(weights: "Tensor") -> "Tensor":
        scores = (padded @ weights).masked_fill(absent, -torch.inf)
        unlikely = torch.nn.functional.cross_entropy(scores, right, reduction="sum")
        chosen = torch.softmax(scores.masked_fill(none, -torch.inf), 1)
        return unlikely + (chosen * edits.masked_fill(none, 0)).sum()

    return fit_weights(loss, NEUTRAL)
