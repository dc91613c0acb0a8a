import math
import sys

import numpy as np
import pytest

from htr.decoding.confidence import Ngrams
from htr.decoding.language import Language, common_words, read_corpus
from htr.system.scripts import HTRError
from htr.texts.labels import LabelRules

TEXTS = {"ab a": 3, "aab": 2, "b": 1, "cab ba": 2}


@pytest.mark.parametrize("order", [1, 2, 4, 6])
def test_an_automaton_says_what_the_ngrams_say(order):
    """Which add up texts one character after the other, see test_confidence.py."""
    ngrams, characters = Ngrams.of(TEXTS, order), "cba x"
    language = Language(ngrams, characters)
    texts = ["", "ab a", "cab", "xx", "ax b", "cab ba cab ba"]
    found = language.text_log_probs([[characters.index(c) for c in text] for text in texts])
    assert found == pytest.approx([ngrams.log_prob(text) for text in texts])


def test_the_next_characters_are_certain_to_be_one_of_all():
    language, states = Language(Ngrams.of(TEXTS, 3), "abc "), [0]
    for label in (0, 1, 3, 0):
        states.append(int(language.step(np.array(states[-1:]), np.array([label + 1]))[1][0]))
    for state in [language.start, *states]:
        found, _ = language.step(np.full(5, state), np.arange(5))
        unknown = language.step(np.array([state]), np.array([99]))[0]  # what is none of these
        assert np.exp(found).sum() + math.exp(unknown[0]) == pytest.approx(1)


def test_runs_with_other_characters_are_left_out():
    language = Language(Ngrams.of({"aé": 1, "ab": 1}, 2), "ab")
    only = Language(Ngrams({"\na": 2, "ab": 1, "b\n": 1}), "ab")
    assert language.text_log_probs([[0, 1]]) == pytest.approx(only.text_log_probs([[0, 1]]))


def test_with_many_characters_runs_are_shorter():
    characters = "".join(map(chr, range(0x4E00, 0x4E00 + 5000)))
    language = Language(Ngrams.of({characters[:9]: 1}, 6), characters)
    shorter = Ngrams.of({characters[:9]: 1}, 5)
    assert language.order == 5
    assert language.text_log_probs([range(9)])[0] == pytest.approx(shorter.log_prob(characters[:9]))


def test_without_a_text_all_is_alike():
    language = Language(Ngrams({}), "ab")
    assert language.text_log_probs([[], [0, 1]]) == pytest.approx([0, 0])


def test_a_checkpoint_holds_the_runs_in_one_string():
    ngrams = Ngrams.of(TEXTS, 3)
    assert Ngrams.restore(ngrams.state()).counts == ngrams.counts
    with pytest.raises(ValueError, match="do not fit"):
        Ngrams.restore(ngrams.state() | {"runs": "abc"})
    assert Ngrams.restore(ngrams.counts).counts == ngrams.counts  # as earlier versions had it


def test_further_texts_count_like_those_before():
    both = Ngrams.of(TEXTS, 3).with_texts({"b": 4, "cc": 1})
    assert both.counts == Ngrams.of(TEXTS | {"b": 5, "cc": 1}, 3).counts


def test_a_corpus_is_a_file_or_a_folder_of_texts(tmp_path):
    (tmp_path / "a.txt").write_text("\ufeffUne  ligne\n\nune autre\n", encoding="utf-8")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "b.txt").write_text("Une ligne", encoding="utf-8")
    (tmp_path / "c.csv").write_text("no text", encoding="utf-8")
    rules = LabelRules(uppercase=False)
    assert read_corpus(tmp_path / "a.txt", rules) == {"Une ligne": 1, "une autre": 1}
    assert read_corpus(tmp_path, rules) == {"Une ligne": 2, "une autre": 1}
    assert read_corpus(tmp_path, LabelRules(uppercase=True)) == {"UNE LIGNE": 2, "UNE AUTRE": 1}
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty").mkdir()
    for path, said in (("none.txt", "cannot be read"), ("bad.txt", "no text in UTF-8"), ("empty", "holds no text")):
        with pytest.raises(HTRError, match=said):
            read_corpus(tmp_path / path, rules)


def test_the_common_words_of_a_language():
    """Frequencies as anybody knows them; and how a word begins is known from the space before it alone."""
    words = common_words("fr", LabelRules(uppercase=True))
    assert words["DE"] > words["MAISON"] > words["CHEMISE"] > 0
    assert all(word and word == word.upper() for word in words)
    ngrams = Ngrams.of({"x ab": 1}, 3)
    more = ngrams.with_words({"ac": 4})
    assert more.counts == {**ngrams.counts, "  a": 4, " ac": 4, "ac ": 4}
    with pytest.raises(HTRError, match=r"xx is none of the languages there are: .*, fr, "):
        common_words("xx", LabelRules(uppercase=False))


def test_without_the_package_of_words(monkeypatch):
    monkeypatch.setitem(sys.modules, "wordfreq", None)
    with pytest.raises(HTRError, match="pip install wordfreq"):
        common_words("fr", LabelRules(uppercase=False))
