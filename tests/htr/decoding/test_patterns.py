import itertools
import random
import re
import time

import numpy as np
import pytest

from htr.decoding.beam import beam_search
from htr.decoding.ctc import candidate_log_probs
from htr.decoding.patterns import Pattern, of_characters
from htr.system.scripts import HTRError

CHARACTERS = "ab1 ."
TEXTS = [text for size in range(5) for text in itertools.product(CHARACTERS, repeat=size)]


def encoded(text) -> list[int]:
    return [CHARACTERS.index(character) for character in text]


@pytest.mark.parametrize(
    "expression",
    [
        "a", "ab|b", "^a+$", "[a-b1]{2,3}", "[^a]*", r"\d\s\w", r"\D*\.", "(?:a|(b1)?)+", "a*?b+?", "", ".", "a{,2}",
        "()*a", "(a*)*", r"[\d.]+", r"\W|\S\S", "[^\\w]", "a|", "(?:ab){2,}",
    ],
)  # fmt: skip
def test_a_pattern_allows_what_the_expression_matches(expression):
    pattern = Pattern(expression, CHARACTERS)
    for text in TEXTS:
        assert pattern.allows(encoded(text)) == bool(re.fullmatch(expression, "".join(text))), text


@pytest.mark.parametrize("characters", ["a", "a-b", "1.", "b-", "^a", "a^", "]a", "[", "\\", "a \\-"])
def test_characters_are_given_as_in_a_class(characters):
    every = "ab1 .-^][\\"
    pattern = Pattern(of_characters(characters), every)
    found = {character for n, character in enumerate(every) if pattern.allows([n])}
    assert found == ({"a", "b"} if characters == "a-b" else set(characters))


def test_the_probability_of_all_texts_that_a_pattern_allows():
    rng = np.random.default_rng(0)
    for expression, length in itertools.product(("[ab]*", "a+b?", "(ab|1)+", ".{2}", "aa?a?a?"), (1, 2, 4)):
        pattern, logits = Pattern(expression, CHARACTERS), 3 * rng.normal(size=(length, 6))
        frames = (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32)
        texts = [encoded(text) for text in TEXTS if re.fullmatch(expression, "".join(text))]
        likelihoods = candidate_log_probs(frames[:, None], np.array([length]), [texts])[0]
        assert np.exp(pattern.ahead(frames)[0][0, pattern.start]) == pytest.approx(np.exp(likelihoods).sum(), rel=1e-4)


def random_expression(rng: random.Random, depth: int = 3) -> str:
    if depth == 0 or rng.random() < 0.3:
        return rng.choice(["a", "b", "1", r"\d", ".", "[ab]", "[^a]", r"\.", r"\w", ""])
    parts = [random_expression(rng, depth - 1) for _ in range(rng.randint(1, 3))]
    if rng.random() < 0.3:
        return f"({'|'.join(parts)})"
    return f"({''.join(parts)}){rng.choice(['', '', '*', '+', '?', '{2}', '{0,3}', '{1,}'])}"


def test_what_is_read_is_always_as_the_pattern_says():
    rng, numbers = random.Random(0), np.random.default_rng(0)
    read = refused = 0
    for _ in range(2_000):
        expression, logits = random_expression(rng), 3 * numbers.normal(size=(rng.randint(1, 6), 6))
        frames = (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32)
        try:
            pattern = Pattern(expression, CHARACTERS)
        except HTRError:
            refused += 1
            continue
        (found,) = beam_search([frames], None, pattern, width=4)
        for text in found:
            read += 1
            assert re.fullmatch(expression, "".join(CHARACTERS[label] for label in text.labels)), expression
    assert read > 2_000 and refused < 60


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("((((a{100}){100}){100}){100})", "more than 1,000 steps"),
        ("(((){1000}){1000}){1000}", "more than 1,000 steps"),
        ("(a|b)*a(a|b){20}", "more than 300 states"),
        ("a{99999999999}", "is no pattern"),
        ("(" * 2000 + "a" + ")" * 2000, "is no pattern"),
        ("(?i)a", "has flags"),
        (r"(a)\1", "has groupref"),
        ("(?=a)b", "has assert"),
        (r"\bab", "has at"),
        ("a^b", "has at"),
        ("a**", "is no pattern"),
        ("[", "is no pattern"),
        ("x+", "no text of the characters"),
    ],
)
def test_what_is_no_pattern_or_too_large_is_refused(expression, said):
    started = time.process_time()
    with pytest.raises(HTRError, match=said) as refused:
        Pattern(expression, CHARACTERS)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 300
    assert time.process_time() - started < 20  # by how much it is bounded is not judged here


def test_nested_repetition_is_no_danger():
    pattern = Pattern("((a*)*(a|b)*)*", CHARACTERS)
    assert len(pattern.table) == 1 and pattern.allows(encoded("abba"))
