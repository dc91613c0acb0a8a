import math

import pytest

from htr.decoding.words import CONSTANT, OWN, SAME, SHARE, found_confidences, own_confidences


def test_the_words_of_a_greedy_reading_multiply_to_its_probability():
    text = "ab c def"
    characters = [0.9, 0.8, 0.7, 0.6, 1.0, 1.0, 1.0, 1.0]  # two letters, a space, a letter, a space, three letters
    found = own_confidences(text, characters, 0.25)
    logs = [math.log(0.9 * 0.8 * 0.7), math.log(0.7 * 0.6 * 1.0), 0.0]  # with the spaces beside them
    assert found == pytest.approx([0.25 ** (each / sum(logs)) for each in logs])
    assert math.prod(found) == pytest.approx(0.25)
    assert own_confidences(text, [1.0] * 8, 0.125) == pytest.approx([0.5] * 3)
    assert own_confidences("", [], 0.5) == own_confidences(" ", [0.5], 0.5) == []
    assert own_confidences("a b", [0.0, 0.0, 0.0], 0.0) == pytest.approx([1e-3, 1e-3])


def test_a_word_has_the_share_of_the_candidates_that_hold_it():
    """Here of three, which have 0.8 together; the network by itself reads the third."""
    candidates, probabilities = ["le chat dort", "le chien dort", "chat dort"], [0.4, 0.3, 0.1]
    found = found_confidences("le chat dort", "chat dor", [0.9, 0.2], candidates, probabilities)
    odds = [math.log(each / (1 - each)) for each in found]
    assert odds == pytest.approx(
        [
            CONSTANT + SHARE * math.log(0.7 / 0.1),  # in two of the three, and not in the network's own reading
            CONSTANT + SHARE * math.log(0.5 / 0.3) + SAME + OWN * math.log(9),
            CONSTANT + SHARE * math.log(999),
        ]
    )
    assert found_confidences("", "a", [0.5], [""], [1.0]) == []
