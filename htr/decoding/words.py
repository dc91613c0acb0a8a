"""How sure each word of a reading is, so that the doubtful ones can be looked at first."""

import math
import re
from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

from htr.decoding.confidence import FLOOR, log_odds

CERTAIN = 1e-3  # how close to 0 and 1 a probability may come whose log-odds count
# Of the probability of a word that was chosen, in log-odds: what those of its share of the candidates count, those of
# its own confidence where the network by itself reads it, too, that it does, and a constant. Fitted on 10,687 words of
# lines on which the shipped weights of lines were not trained.
SHARE, OWN, SAME, CONSTANT = 0.14, 0.85, 1.3, -0.63


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

    A logistic regression of two: the share of the candidates' probability that has the word in this place, and, where
    the network by itself reads the same word there, `own`, that of each word of `greedy`.
    """
    words, among = text.split(), max(sum(probabilities), FLOOR)
    shares = [0.0] * len(words)
    for candidate, probability in zip(candidates, probabilities, strict=True):
        for place, _ in _same(words, candidate.split()):
            shares[place] += probability / among
    odds = [CONSTANT + SHARE * _log_odds(share) for share in shares]
    for place, other in _same(words, greedy.split()):
        odds[place] += SAME + OWN * _log_odds(own[other])
    return [1 / (1 + math.exp(-each)) for each in odds]


def _log_odds(probability: float) -> float:
    return log_odds(min(max(probability, CERTAIN), 1 - CERTAIN))


def _same(words: Sequence[str], others: Sequence[str]) -> list[tuple[int, int]]:
    """The places of words that are the same in two lists, which are aligned by the fewest edits (Levenshtein)."""
    return [
        (place, block.dest_start + place - block.src_start)
        for block in Levenshtein.opcodes(words, others)
        if block.tag == "equal"
        for place in range(block.src_start, block.src_end)
    ]
