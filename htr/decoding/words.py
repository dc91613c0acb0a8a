"""How sure each word of a reading is, so that the doubtful ones can be looked at first."""

import math
import re
from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

from htr.decoding.confidence import FLOOR

OTHERWISE = 0.7  # what the beam's share of a word counts where the network by itself reads another one


def own_confidences(text: str, characters: Sequence[float], probability: float) -> list[float]:
    """The probability of each word of a greedy reading; their product is that of the whole text.

    characters: the confidence of each character of `text`. A word is as doubtful as its characters and the spaces
    beside it: log(probability) is shared out in proportion to the sum of the logs of these.
    """
    logs = [math.log(max(confidence, FLOOR)) for confidence in characters]
    sums = [sum(logs[max(word.start() - 1, 0) : word.end() + 1]) for word in re.finditer(r"\S+", text)]
    total, whole = sum(sums), math.log(max(probability, FLOOR))
    return [math.exp(whole * (each / total if total else 1 / len(sums))) for each in sums]


def found_confidences(
    text: str, greedy: str, own: Sequence[float], candidates: Sequence[str], probabilities: Sequence[float]
) -> list[float]:
    """The probability of each word of a text that was chosen among candidates.

    It is the mean of two: the share of the candidates' probability that has the word in this place, and, where the
    network by itself reads the same word there, `own`, that of each word of `greedy`.
    """
    words, among = text.split(), max(sum(probabilities), FLOOR)
    shares, alone = [0.0] * len(words), [math.nan] * len(words)
    for candidate, probability in zip(candidates, probabilities, strict=True):
        for place, _ in _same(words, candidate.split()):
            shares[place] += probability / among
    for place, other in _same(words, greedy.split()):
        alone[place] = own[other]
    return [
        OTHERWISE * share if math.isnan(one) else (share + one) / 2 for share, one in zip(shares, alone, strict=True)
    ]


def _same(words: Sequence[str], others: Sequence[str]) -> list[tuple[int, int]]:
    """The places of words that are the same in two lists, which are aligned by the fewest edits (Levenshtein)."""
    return [
        (place, block.dest_start + place - block.src_start)
        for block in Levenshtein.opcodes(words, others)
        if block.tag == "equal"
        for place in range(block.src_start, block.src_end)
    ]
