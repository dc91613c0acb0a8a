import math
import random
from string import ascii_uppercase

import numpy as np
import pytest
from rapidfuzz.distance import Levenshtein

from htr.decoding import lexicon as lexicon_module
from htr.decoding.confidence import EDGE, Ngrams
from htr.decoding.language import Language
from htr.decoding.lexicon import FEATURES, NEUTRAL, Lexicon, Prior, fit_prior, spelling_of
from htr.system.scripts import HTRError
from htr.texts.labels import LabelRules

RULES = LabelRules(uppercase=True, ignored=("EMPTY", "UNREADABLE"))


def csv(tmp_path, text):
    path = tmp_path / "names.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "text",
    [
        "NAME,COUNT\nLéa,2\nLEON,1\n",
        "name,count\n léa ,1\nLEON,1\nLÉA,1\n",
        "FILENAME,IDENTITY\na.jpg,LÉA\nb.jpg,LEON\nc.jpg,Léa\nd.jpg,EMPTY\ne.jpg,\n",
        "surname\nLÉA\nLEON\nLÉA\n",
        "LÉA\nLEON\nLÉA\n",  # a list needs no header
        "LÉA,2\nLEON,1\n",
        "\nLÉA\n\nLEON\nléa",
        "word;count\nLÉA;2\nLEON;1\n",
        "nom;count\nLÉA;2\nLEON;1\n",
        '[{"name": "LÉA", "count": 2}, {"name": "LEON", "count": 1}]',
    ],
)
def test_names_from_any_table(tmp_path, text):
    lexicon = Lexicon.load(csv(tmp_path, text), RULES)
    assert lexicon.counts == {"LÉA": 2, "LEON": 1}
    assert lexicon.words == ["LÉA", "LEON"]


def test_one_name_alone_is_a_lexicon(tmp_path):
    assert Lexicon.load(csv(tmp_path, "LEA\n"), RULES).counts == {"LEA": 1}


def test_null_is_a_name(tmp_path):
    assert Lexicon.load(csv(tmp_path, "NAME\nNULL\nNA\n"), RULES).counts == {"NULL": 1, "NA": 1}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("NAME,COUNT\nLEA,many\n", "not a whole number"),
        ("NAME,COUNT\nLEA,0\n", "below 1"),
        ("NAME\nEMPTY\n", "holds no name"),
        ("first_name,surname\nLEA,MEIER\n", "first_name and surname may hold the names: keep one such column"),
        ("MEIER,Hans\nHAUS,Eva\n", "several columns, and its first line, MEIER, Hans, does not say which"),
        ("nom,frequency\nLEA,3\n", "does not say which of them holds the names: call that one NAME"),
        ("", "cannot be read"),
    ],
)
def test_what_is_no_lexicon_is_refused(tmp_path, text, part):
    with pytest.raises(HTRError, match=part):
        Lexicon.load(csv(tmp_path, text), RULES)


def test_near_names_are_all_found_nearest_first():
    random.seed(0)
    words = {"".join(random.choices("ABC", k=random.randint(2, 9))): random.randint(1, 9) for _ in range(60)}
    lexicon = Lexicon(words)
    for text in ("ABC", "ABCAB", "ABCABCA", ""):
        limit = 1 if len(text) <= 3 else 2 if len(text) <= 5 else 3
        distances = {word: Levenshtein.distance(text, word) for word in words}
        expected = [word for word in words if distances[word] <= limit]
        expected.sort(key=lambda word: (distances[word], -words[word], word))
        assert lexicon.near([text]) == [expected[:32]]


def make_prior(weights=NEUTRAL):
    names = {"ANNE": 90, "ANNA": 10}
    return Prior(Language(Ngrams.of(dict.fromkeys(names, 1), 3), ascii_uppercase), Lexicon(names), weights)


def choose(prior, candidates, probabilities):
    log_probs = [math.log(p) for p in probabilities]
    spelling = prior.language.text_log_probs([[ord(c) - ord("A") for c in text] for text in candidates])
    return prior.choose(candidates, prior.features(candidates, log_probs, spelling, candidates[0]))


def test_without_fitting_the_network_decides():
    choice = choose(make_prior(), ["ANNF", "ANNE", "ANNA"], [0.6, 0.3, 0.05])
    assert (choice.text, choice.runner_up) == ("ANNF", "ANNE")
    assert choice.probability == pytest.approx(0.6)  # 0.05 is left for none of them
    assert choice.runner_up_probability == pytest.approx(0.3)


def test_known_names_win_only_where_the_network_allows_it():
    prior = make_prior((1.0, 3.0, 5.0, 1.0, 1.0, 0.0, 1.0, 0.0))
    assert choose(prior, ["ANNF", "ANNE", "ANNA"], [0.6, 0.3, 0.05]).text == "ANNE"
    assert choose(prior, ["ANNF", "ANNA", "ANNE"], [0.6, 0.2, 0.19]).text == "ANNE"  # the more frequent one
    assert choose(prior, ["ANNF", "ANNE"], [0.99, 1e-5]).text == "ANNF"  # an unknown name survives


def test_spelling_decides_between_texts_that_look_alike():
    ngrams = spelling_of({"ANNE": 90, "ANNA": 10, "JEANNE": 50, "XQ": 1})
    spelling = Language(ngrams, ascii_uppercase)
    weights = (1.0, 5.0, 5.0, 5.0, 5.0, 0.0, 1.0, 0.0)  # those of known names have no effect: no name is known
    prior = Prior(spelling, weights=weights)
    assert choose(prior, ["ANNF", "ANNE"], [0.6, 0.3]).text == "ANNE"
    assert choose(prior, ["ANNF", "ANNE"], [0.99, 1e-9]).text == "ANNF"
    assert choose(Prior(spelling, weights=NEUTRAL), ["ANNF", "ANNE"], [0.6, 0.3]).text == "ANNF"
    features = prior.features(["ANNE", "ANNF"], [-0.5, -3.0], [-4.0, -9.0], greedy="ANNF")
    assert features[:2].tolist() == [[-0.5, 0, 0, -0.4, 0.5, 0, 0, 0], [-3.0, 0, 0, -0.9, 0.5, 1, 0, 0]]


def test_the_most_frequent_runs_are_kept(monkeypatch):
    labels = {"ANNE": 9, "LEA": 5, "XQ": 1}
    whole = spelling_of(labels)
    assert whole.order == 6 and whole.counts[EDGE * 5 + "X"] == 1
    monkeypatch.setattr(lexicon_module, "MOST", 9)  # five of ANNE, four of LEA
    assert spelling_of(labels).counts == {run: count for run, count in whole.counts.items() if count > 1}


def test_a_lone_candidate_has_no_runner_up():
    choice = choose(make_prior(), ["ANNE"], [1.0])
    assert (choice.text, choice.runner_up, choice.runner_up_probability) == ("ANNE", "", 0.0)
    assert 0.99 < choice.probability <= 1


def test_fitting_finds_the_weights_that_are_best():
    """By what is least written out once more: no weights near the ones found have less of it."""
    rng, letters = np.random.default_rng(0), "ABC"
    features, candidates, truths = [], [], []
    for _ in range(300):
        texts = list({"".join(rng.choice(list(letters), 3)) for _ in range(rng.integers(1, 5))})
        features.append(rng.normal(size=(len(texts) + 1, FEATURES)))
        candidates.append(texts)
        truths.append(rng.choice([*texts, "CAB"]))

    def loss(weights) -> float:
        total = 0.0
        for rows, texts, truth in zip(features, candidates, truths, strict=True):
            scores = np.exp(rows @ weights)
            right = texts.index(truth) if truth in texts else len(texts)
            total -= np.log(scores[right] / scores.sum())
            edits = [Levenshtein.distance(text, truth) for text in texts]
            total += scores[:-1] @ edits / scores[:-1].sum()
        return total

    found = np.array(fit_prior(features, candidates, truths))
    assert loss(found) < loss(np.zeros(FEATURES)) - 1
    for _ in range(100):
        assert loss(found) < loss(found + 0.3 * rng.normal(size=FEATURES))


def test_of_wrong_candidates_the_one_with_few_errors_is_chosen():
    rows = np.zeros((3, FEATURES))
    rows[0, 1] = rows[2, 7] = 1
    weights = fit_prior([rows] * 100, [["ANNA", "LEON"]] * 100, ["ANNE"] * 100)
    scores = rows @ weights
    assert scores[0] > scores[1] + 0.5
    assert scores[2] > scores[0]  # which is right is none of them
