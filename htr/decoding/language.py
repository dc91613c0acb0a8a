"""The language of running text as a guide of the beam search: how likely each next character is after those before.

States are whole numbers, classes those of the network: label i is class i + 1. Class 0, the blank, stands for the edge
of a text.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from htr.decoding.confidence import EDGE, Ngrams
from htr.system.scripts import HTRError, printable
from htr.texts.labels import LabelRules

CODES = 62  # bits of a run of characters
RUNNING = 300_000  # words of running text, for which the frequencies of a language's words count


def text_files(path: str | Path) -> list[Path]:
    """The files of a corpus: the one, or those of a folder."""
    path = Path(path)
    return sorted(path.rglob("*.txt")) if path.is_dir() else [path]


def read_corpus(path: str | Path, rules: LabelRules) -> Counter:
    """The lines of a text file, or of those in a folder (*.txt), cleaned as labels are, and how often each occurs.

    Raises HTRError where there is none, or one cannot be read.
    """
    texts = Counter()
    for file in text_files(path):
        try:
            texts.update(rules.clean(line) for line in file.read_text(encoding="utf-8-sig").splitlines())
        except OSError as error:
            raise HTRError(f"{file} cannot be read: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise HTRError(f"{file} is no text in UTF-8: save it as such") from error
    texts.pop("", None)
    if not texts:
        raise HTRError(f"{path} holds no text: name a text file, or a folder of *.txt")
    return texts


def common_words(code: str, rules: LabelRules) -> Counter:
    """The words of a language by its code (fr, en, ...), cleaned as labels are, and how often each occurs in RUNNING
    words. They are those of the package wordfreq (Speer 2022, doi 10.5281/zenodo.7199437).

    Raises HTRError where the package is missing or does not know the language.
    """
    try:
        import wordfreq
    except ImportError as error:
        raise HTRError("the words of a language are those of the package wordfreq: pip install wordfreq") from error
    codes = sorted(wordfreq.available_languages("small"))
    if code not in codes:
        raise HTRError(f"{printable(code, 20)} is none of the languages there are: {', '.join(codes)}")
    words = Counter()
    for word, frequency in wordfreq.get_frequency_dict(code, "small").items():
        words[rules.clean(word)] += round(frequency * RUNNING)
    return +words


class Language:
    """A character n-gram model as an automaton; its probabilities are those of `htr.decoding.confidence.Ngrams`.

    A state is the longest run of characters before, of at most n - 1, that the model knows. Runs with a character that
    is not in `characters`, those of an alphabet in the order of its ids, are left out.
    """

    def __init__(self, ngrams: Ngrams, characters: str):
        self.classes = len(characters) + 1
        self.order = max(1, min(ngrams.order, int(CODES / np.log2(self.classes))))
        runs, counts = self._runs(ngrams, characters)
        self._build(runs, counts)
        self.start = 0
        for _ in range(self.order - 1):
            self.start = int(self.step(np.array([self.start]), np.array([0]))[1][0])

    def _runs(self, ngrams: Ngrams, characters: str) -> tuple[np.ndarray, np.ndarray]:
        """The classes (M, n) of all runs, and how often each occurs (M,)."""
        text = "".join(ngrams.counts)
        codes = np.frombuffer(text.encode("utf-32-le"), np.uint32).reshape(-1, ngrams.order)[:, -self.order :]
        class_of = np.full(max([int(codes.max(initial=0)), ord(EDGE), *map(ord, characters)]) + 1, -1)
        class_of[ord(EDGE)] = 0
        class_of[[ord(character) for character in characters]] = np.arange(1, self.classes)
        runs = class_of[codes]
        known = (runs >= 0).all(1)
        return runs[known], np.fromiter(ngrams.counts.values(), np.float64, len(ngrams.counts))[known]

    def _build(self, runs: np.ndarray, counts: np.ndarray) -> None:
        """The states, those of the shortest runs first, and of each its place among its longer and shorter ones."""
        codes, levels = np.zeros(len(runs), np.int64), []
        for length in range(1, self.order + 1):
            codes = codes + runs[:, self.order - length] * self.classes ** (length - 1)
            levels.append(np.unique(codes, return_inverse=True))
        known = [np.zeros(0, np.int64)]  # of each length, the codes of the runs
        for level, _ in reversed(levels):  # what comes before a known run is known, too
            known.insert(0, np.union1d(level, known[0] // self.classes))
        known = [np.zeros(1, np.int64), *known[:-1]]
        first = np.cumsum([0, *map(len, known)])
        size = first[-1]
        # Of each state: log P(last character | those before), what it is multiplied with where a character after it is
        # unknown, the state without its first character, and that of its last n - 1.
        probabilities, rest = np.zeros(size), np.ones(size)
        self.shorter, self.state, keys = np.zeros(size, np.int64), np.arange(size), np.zeros(size, np.int64)
        for length in range(1, self.order + 1):
            own = np.arange(first[length], first[length + 1])
            before = first[length - 1] + np.searchsorted(known[length - 1], known[length] // self.classes)
            shorter = known[length] % self.classes ** (length - 1)
            self.shorter[own] = first[length - 1] + np.searchsorted(known[length - 1], shorter)
            keys[own] = before * self.classes + known[length] % self.classes
            level, inverse = levels[length - 1]
            seen = np.zeros(len(own))
            seen[np.searchsorted(known[length], level)] = np.bincount(inverse, counts, len(level))
            totals, followers = np.bincount(before, seen, size), np.bincount(before, seen > 0, size)
            if length == 1:
                probabilities[0] = 1 / (followers[0] + 1)
            share = totals[before] + followers[before]
            lower = probabilities[self.shorter[own]]
            with np.errstate(divide="ignore", invalid="ignore"):
                found = (seen + followers[before] * lower) / share
                rest[before] = np.where(share > 0, followers[before] / share, 1)
            probabilities[own] = np.where(share > 0, found, lower)
        self.state[first[self.order] :] = self.shorter[first[self.order] :]
        self.keys = keys[1:]
        self.log_probs, self.rest = np.log(probabilities), np.log(rest)

    def step(self, states: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """log P(class | state) in nats, and the next state; all (M,)."""
        found, following = np.zeros(len(states)), np.zeros(len(states), np.int64)
        todo, at, classes = np.arange(len(states)), states, np.asarray(classes)
        while len(todo):
            keys = at * self.classes + classes[todo]
            places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
            hit = self.keys[places] == keys if len(self.keys) else np.zeros(len(keys), bool)
            done, place = todo[hit], places[hit] + 1
            found[done] += self.log_probs[place]
            following[done] = self.state[place]
            todo, at = todo[~hit], at[~hit]
            found[todo] += self.rest[at]
            unknown = at == 0
            found[todo[unknown]] += self.log_probs[0]
            todo, at = todo[~unknown], self.shorter[at[~unknown]]
        return found, following

    def text_log_probs(self, texts: Sequence[Sequence[int]]) -> np.ndarray:
        """log P(text), including its end, of texts as label ids."""
        sizes = np.array([len(text) + 1 for text in texts], np.int64)
        classes = np.zeros((len(texts), max(sizes, default=0)), np.int64)
        for row, text in zip(classes, texts, strict=True):
            row[: len(text)] = np.add(text, 1)
        sums, states = np.zeros(len(texts)), np.full(len(texts), self.start)
        for place, column in enumerate(classes.T):
            found, states = self.step(states, column)
            sums += np.where(place < sizes, found, 0)
        return sums
