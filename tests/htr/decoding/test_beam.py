import itertools
import re

import numpy as np
import pytest

from htr.decoding.beam import OF_LANGUAGE, OF_LENGTH, beam_search, without_pauses
from htr.decoding.confidence import Ngrams
from htr.decoding.ctc import candidate_log_probs
from htr.decoding.language import Language
from htr.decoding.patterns import Pattern

CHARACTERS = "abc"
LANGUAGE = Language(Ngrams.of({"ab": 3, "aab": 2, "ba": 1, "cab": 2, "": 1}, 3), CHARACTERS)


def frames_of(rng, length: int, classes: int = len(CHARACTERS) + 1) -> np.ndarray:
    logits = 3 * rng.normal(size=(length, classes))
    return (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32)


def all_texts(length: int) -> list[list[int]]:
    sizes = range(length + 1)
    return [list(text) for size in sizes for text in itertools.product(range(len(CHARACTERS)), repeat=size)]


def expected_scores(frames, language, expression) -> dict[tuple[int, ...], float]:
    """By brute force: of all texts that the frames have room for, from the sum over all their paths."""
    texts = all_texts(len(frames))
    texts = [text for text in texts if re.fullmatch(expression, "".join(CHARACTERS[label] for label in text))]
    scores = np.array(candidate_log_probs(frames[:, None], np.array([len(frames)]), [texts])[0])
    if language:
        scores = scores + OF_LANGUAGE * language.text_log_probs(texts) + OF_LENGTH * np.array(list(map(len, texts)))
    return {tuple(text): score for text, score in zip(texts, scores, strict=True) if score > -np.inf}


@pytest.mark.parametrize("language", [None, LANGUAGE])
@pytest.mark.parametrize("expression", [None, "[ab]*", "(ab|c)+", "a(b|c){1,2}", ".{2}", "(a*)*b?"])
def test_a_wide_beam_finds_all_texts_and_their_scores(language, expression):
    rng = np.random.default_rng(0)
    pattern = Pattern(expression, CHARACTERS) if expression else None
    lines = [frames_of(rng, length) for length in (4, 1, 5, 3, 2, 4)]
    for frames, found in zip(lines, beam_search(lines, language, pattern, width=400), strict=True):
        expected = expected_scores(frames, language, expression or ".*")
        scores = [text.score for text in found]
        assert {tuple(text.labels): text.score for text in found} == pytest.approx(expected, abs=1e-4)
        assert scores == sorted(scores, reverse=True) and len(found) == len(expected)


@pytest.mark.parametrize("expression", [None, "[ab]*", "(ab|c)+", "a?b?c?"])
def test_a_narrow_beam_finds_the_best_one(expression):
    rng = np.random.default_rng(1)
    pattern = Pattern(expression, CHARACTERS) if expression else None
    for _ in range(50):
        frames = frames_of(rng, 5)
        expected = expected_scores(frames, LANGUAGE, expression or ".*")
        assert tuple(beam_search([frames], LANGUAGE, pattern)[0][0].labels) == max(expected, key=expected.get)


def test_lines_are_read_as_each_by_itself():
    rng = np.random.default_rng(2)
    lines = [frames_of(rng, length, 12) for length in (9, 3, 30, 1, 17)]
    language = Language(Ngrams.of({"abc": 1}, 2), "abcdefghijk")
    for frames, found in zip(lines, beam_search(lines, language), strict=True):
        (alone,) = beam_search([frames], language)
        assert [text.labels for text in found] == [text.labels for text in alone]
        assert [text.score for text in found] == pytest.approx([text.score for text in alone])


def test_a_text_that_comes_back_is_not_followed_twice():
    rng = np.random.default_rng(3)
    for _ in range(30):
        (found,) = beam_search([frames_of(rng, 12)], width=3)
        assert len({tuple(text.labels) for text in found}) == len(found)


def test_pauses_change_nothing():
    pause = np.log(np.array([[0.9997, 0.0001, 0.0001, 0.0001]], np.float32))
    rng = np.random.default_rng(4)
    parts = [frames_of(rng, 2), *[pause] * 5, frames_of(rng, 2), *[pause] * 9]
    frames = np.concatenate(parts)
    assert len(without_pauses(frames)) == 6
    assert np.array_equal(without_pauses(frames[:2]), frames[:2])
    (found,) = beam_search([frames], LANGUAGE, width=400)
    expected = expected_scores(np.concatenate([parts[0], pause, parts[6], pause]), LANGUAGE, ".*")
    assert found[0].score == pytest.approx(max(expected.values()), abs=1e-3)
    labels = found[0].labels
    ((exact,),) = candidate_log_probs(frames[:, None], np.array([len(frames)]), [[labels]])
    added = OF_LENGTH * len(labels) + OF_LANGUAGE * LANGUAGE.text_log_probs([labels])[0]
    assert found[0].score - added == pytest.approx(exact, abs=0.02)


def test_a_pattern_is_met_where_the_frames_say_something_else():
    """The beam is not lost in texts that look better and cannot end."""
    frames = np.log(np.array([[0.01, 0.97, 0.01, 0.01], [0.97, 0.01, 0.01, 0.01]] * 6, np.float32))  # aaaaaa
    (found,) = beam_search([frames], None, Pattern("a{5}b", CHARACTERS), width=2)
    assert found[0].labels == [0, 0, 0, 0, 0, 1]
    assert beam_search([frames], None, Pattern("a{13}", CHARACTERS)) == [[]]
    assert beam_search([], LANGUAGE) == []
