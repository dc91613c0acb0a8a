"""CTC prefix beam search: the likeliest texts of lines, by a language's weights, among those that a pattern allows."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from htr.decoding.ctc import BLANK
from htr.decoding.language import Language
from htr.decoding.patterns import Pattern

WIDTH = 16  # texts that are followed
OF_LANGUAGE, OF_LENGTH = 0.5, 1.6  # what log P(text) counts, and each of its characters
TRIED = 8  # characters that are tried on each frame, the likeliest ones; where there is a pattern, all
FACTOR = 6_364_136_223_846_793_005  # of the codes of texts, which wrap around (Knuth, MMIX)
SURE = np.log(0.999)  # of a blank from which on a frame says nothing else


class Found(NamedTuple):
    """A text that the beam holds at its end. labels: ids. score: log P(labels | image) as far as its paths were
    followed, and what the language adds: OF_LANGUAGE * log P(labels) + OF_LENGTH * their number."""

    labels: list[int]
    score: float


def without_pauses(log_probs: np.ndarray) -> np.ndarray:
    """Frames (T, C) without those that repeat a sure blank: all but the first of a run of these change nothing."""
    sure = log_probs[:, BLANK] > SURE
    return log_probs[~(sure & np.roll(sure, 1)) | (np.arange(len(sure)) == 0)]


def beam_search(
    frames: Sequence[np.ndarray],
    language: Language | None = None,
    pattern: Pattern | None = None,
    width: int = WIDTH,
) -> list[list[Found]]:
    """The texts that the beam holds at the end of each line's frames (T, C), log-probabilities; the best first.

    Prefix beam search (Graves 2012, Hannun et al. 2014, arXiv:1408.2873) of all lines at once: for each text the
    summed probability of the paths that end on its last character, and on a blank. Where `width` texts are as many as
    there are, the sums are exact. With a pattern a text is followed by how likely any of those is that it may become.
    A line that is too short for what the pattern asks for has none.
    """
    frames = [without_pauses(each) for each in frames]
    if pattern:
        return [_search([each], language, pattern, width)[0] for each in frames]
    order = sorted(range(len(frames)), key=lambda n: -len(frames[n]))
    found = dict(zip(order, _search([frames[n] for n in order], language, None, width), strict=True))
    return [found[n] for n in range(len(frames))]


def _search(
    frames: Sequence[np.ndarray], language: Language | None, pattern: Pattern | None, width: int
) -> list[list[Found]]:
    """Of lines in the order of their length, the longest first; with a pattern, of one."""
    lengths = np.array(list(map(len, frames)), np.int64)
    ahead = pattern.ahead(frames[0]) if pattern else None
    beams = _Beams(len(frames), width, language, pattern)
    for t in range(lengths.max(initial=0)):
        active = int(np.searchsorted(-lengths, -t))  # lines that have this frame
        later = (ahead[0][t + 1], ahead[1][t + 1]) if pattern else None
        beams.advance(np.stack([each[t] for each in frames[:active]]), later)
    return beams.texts()


class _Beams:
    """The texts that are followed of each of N lines, K at most.

    Arrays (N, K): log-probabilities of their paths that end on a blank, and on the last character; that character's
    class, 0 before the first; what the language added; the states of the language and of the pattern; codes of the
    text and of the text before its last character; the number of the text.
    """

    def __init__(self, lines: int, width: int, language: Language | None, pattern: Pattern | None):
        self.language, self.pattern, self.width = language, pattern, width
        shape = (lines, width)
        self.blank, self.label = np.full(shape, -np.inf), np.full(shape, -np.inf)
        self.blank[:, 0] = 0
        self.last, self.added = np.zeros(shape, np.int64), np.zeros(shape)
        self.state = np.full(shape, language.start if language else 0, np.int64)
        self.place = np.full(shape, pattern.start if pattern else 0, np.int64)
        self.code, self.before, self.number = np.zeros(shape, np.int64), np.full(shape, -1), np.zeros(shape, np.int64)
        self.parents, self.classes = [np.array([-1])], [np.array([0])]  # of each text, by its number
        self.count = 1

    def advance(self, frame: np.ndarray, later: tuple[np.ndarray, np.ndarray] | None) -> None:
        """Read a frame (n, C) of the first n lines. later: see `Pattern.ahead`, from the next frame on."""
        lines = len(frame)
        blank, label, last, added = (each[:lines] for each in (self.blank, self.label, self.last, self.added))
        state, place, code, before, number = (
            each[:lines] for each in (self.state, self.place, self.code, self.before, self.number)
        )
        rows = np.arange(lines)[:, None]
        if self.pattern:
            tops = self.pattern.used[None]
        else:
            tops = np.argpartition(-frame[:, 1:], min(TRIED, frame.shape[1] - 1) - 1)[:, :TRIED] + 1
        total = np.logaddexp(blank, label)
        own = np.where(last > 0, frame[rows, last], -np.inf)  # of the last character
        # A text that is one of the others and a character more gets that one's paths, too.
        longer = code[:, :, None] == before[:, None, :]  # (n, shorter, longer)
        longer &= (total > -np.inf)[:, :, None] & (total > -np.inf)[:, None, :]
        shorter, is_longer = longer.argmax(1), longer.any(1)
        doubled = last[rows, shorter] == last
        gained = np.where(doubled, blank[rows, shorter], total[rows, shorter]) + own
        stays_blank = total + frame[:, :1]
        stays_label = np.logaddexp(label + own, np.where(is_longer, gained, -np.inf))

        # All others: each text and one of the characters. (n, K, characters)
        further = np.where(tops[:, None] == last[..., None], blank[..., None], total[..., None])
        further = further + frame[rows, tops][:, None]
        known = (longer[..., None] & (last[:, None, :, None] == tops[:, None, None])).any(2)
        further[known] = -np.inf
        places, states = np.zeros((2, *further.shape), np.int64)
        new = np.broadcast_to(added[..., None], further.shape).copy()
        ahead = 0.0, 0.0, 0.0  # for texts that stay on a blank, on their last character, and that get a further one
        if later:
            places = self.pattern.table[place[..., None], tops[:, None]]
            further[places < 0] = -np.inf
            ahead = later[0][place], later[1][place, last], later[1][places, tops[:, None]]
        hope = np.logaddexp(stays_blank + ahead[0], stays_label + ahead[1]) + added
        further_hope = further + ahead[2] + new
        if self.language:
            least = np.sort(hope, 1)[:, :1, None]  # as the language adds no more than what a character has
            asked = np.nonzero(further_hope + OF_LENGTH > least)
            language, following = self.language.step(state[asked[:2]], tops[asked[0], asked[2]])
            gains = OF_LANGUAGE * language + OF_LENGTH
            states[asked], further_hope[asked] = following, further_hope[asked] + gains
            new[asked] += gains

        stay = {"blank": stays_blank, "label": stays_label, "last": last, "added": added, "state": state,
                "place": place, "before": before, "code": code, "number": number}  # fmt: skip
        come = {"blank": np.full(further.shape, -np.inf), "label": further, "last": tops[:, None], "added": new,
                "state": states, "place": places, "before": code[..., None],
                "code": code[..., None] * FACTOR + tops[:, None], "number": number[..., None]}  # fmt: skip
        self._keep_best(hope, further_hope, stay, come)

    def _keep_best(
        self, hope: np.ndarray, further_hope: np.ndarray, stay: dict[str, np.ndarray], come: dict[str, np.ndarray]
    ) -> None:
        """Of the texts that stay, (n, K), and those with a further character, (n, K, characters), follow the likeliest.

        stay, come: the arrays of both, by their names here; the number of what comes is that of the text before.
        """
        lines, shape = len(hope), further_hope.shape
        everything = np.concatenate([hope, further_hope.reshape(lines, -1)], 1)
        best = np.argpartition(-everything, self.width - 1)[:, : self.width]
        alive = np.take_along_axis(everything, best, 1) > -np.inf
        chosen = {}
        for name, staying in stay.items():
            coming = np.broadcast_to(come[name], shape).reshape(lines, -1)
            chosen[name] = np.take_along_axis(np.concatenate([staying, coming], 1), best, 1)
        for name, values in chosen.items():  # of which those before are views
            getattr(self, name)[:lines] = values
        for ends in (self.blank, self.label):
            ends[:lines][~alive] = -np.inf
        made = alive & (best >= self.width)
        numbers = self.number[:lines]  # a view
        self.parents.append(numbers[made])
        self.classes.append(self.last[:lines][made])
        numbers[made] = self.count + np.arange(made.sum())
        self.count += int(made.sum())

    def texts(self) -> list[list[Found]]:
        parents, classes = np.concatenate(self.parents).tolist(), np.concatenate(self.classes).tolist()
        scores = np.logaddexp(self.blank, self.label) + self.added
        if self.language:
            ends, _ = self.language.step(self.state.ravel(), np.full(self.state.size, BLANK))
            scores = scores + OF_LANGUAGE * ends.reshape(self.state.shape)
        if self.pattern:
            scores[~self.pattern.accepting[self.place]] = -np.inf
        found = []
        for row, numbers in zip(scores, self.number, strict=True):
            several = []
            for place in np.argsort(-row).tolist():
                if row[place] > -np.inf:
                    labels, number = [], int(numbers[place])
                    while number > 0:
                        labels.append(classes[number] - 1)
                        number = parents[number]
                    several.append(Found(labels[::-1], float(row[place])))
            found.append(several)
        return found
