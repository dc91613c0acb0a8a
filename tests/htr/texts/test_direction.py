import json
import re
import unicodedata

import pandas as pd
import pytest
import right_to_left
from bidi import get_display
from conftest import ROOT
from rapidfuzz.distance import Levenshtein

from config import SHIPPED_WEIGHTS
from htr.results.scores import Score
from htr.texts.direction import USUAL, to_logical, to_visual, usual_ways
from htr.texts.labels import Alphabet
from predict import predict_batch
from utils import load_checkpoint, save_checkpoint

RIGHT_TO_LEFT_LETTERS = [chr(code) for code in range(0x5D0, 0x11000) if unicodedata.bidirectional(chr(code)) == "R"]
HEBREW, ARABIC = "\u05e9\u05dc\u05d5\u05dd", "\u0633\u0644\u0627\u0645"
TEXTS = [
    HEBREW,
    ARABIC,
    f"{HEBREW} {HEBREW}",
    f"{HEBREW} 12",
    f"12 {HEBREW}",
    f"{HEBREW} 12 abc {HEBREW}",
    f"{HEBREW} abc 12 {HEBREW}",
    f"{HEBREW} abc 12",
    f"{HEBREW} 12 abc",
    f"abc 12 {HEBREW}",
    f"abc {HEBREW} 12.5, def",
    f"{HEBREW} 12/3/2020",
    f"{HEBREW}, abc! ({HEBREW})",
    f"{HEBREW} (abc) 12",
    f"abc ({HEBREW}) def",
    f"{ARABIC} \u0661\u0662\u0663 abc",
    f"{ARABIC} 15, Main {ARABIC}",
    "\u05d8\u05dc. 03-1234567",
    "\u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd",  # with vowel points
    "\u0645\u064e\u0631\u0652\u062d\u064e\u0628\u064b\u0627",
    "50% \u05d0-\u05d1",
]


@pytest.mark.parametrize(
    ("text", "visual"),
    [  # by hand, after the examples of UAX 9
        ("abc", "abc"),
        ("\u05d0\u05d1\u05d2", "\u05d2\u05d1\u05d0"),
        ("\u05d0\u05d1 12 \u05d2", "\u05d2 12 \u05d1\u05d0"),
        ("a \u05d0\u05d1 b", "a \u05d1\u05d0 b"),
        ("\u05d0 ab \u05d1", "\u05d1 ab \u05d0"),
        ("\u05d0 (ab) 1", "1 (ab) \u05d0"),  # brackets open to the other side, and stay brackets
        ("[\u05d0] b", "b [\u05d0]"),
        ("\u0661\u0662 \u0628", "\u0628 \u0661\u0662"),  # numbers run from left to right
    ],
)
def test_visual_order_by_hand(text, visual):
    assert to_visual(text) == visual


@pytest.mark.parametrize("text", TEXTS)
def test_visual_order_is_what_is_displayed(text):
    without_brackets = str.maketrans("()", "--")
    assert to_visual(text).translate(without_brackets) == get_display(text).translate(without_brackets)


@pytest.mark.parametrize("text", TEXTS)
def test_texts_come_back_from_their_picture(text):
    """Of those that look the same, the labels say which one is meant."""
    ways = usual_ways([text])
    visual = to_visual(text)
    logical, places = to_logical(visual, ways)
    assert logical == text
    assert sorted(places) == list(range(len(text)))
    assert all(visual[place] == c for place, c in zip(places, text, strict=True) if c not in "()")
    same_look, _ = to_logical(visual)
    assert to_visual(same_look) == visual


def test_other_texts_are_left_alone():
    for text in ("", "DUPONT", "Été (1) [2]", "\u674e\u660e", "\u0440\u0443\u0441", "\u0e44\u0e17\u0e22"):
        assert to_visual(text) == text
        assert to_logical(text) == (text, list(range(len(text))))


def test_what_pictures_no_text_is_turned_too():
    for visual in (")\u05d0(1[", "1 a\u05d0 \u0661-b2", "\u0300\u05d0"):
        logical, places = to_logical(visual)
        assert sorted(places) == list(range(len(visual)))
        assert len(logical) == len(visual)


def test_an_alphabet_writes_texts_as_they_are_pictured():
    alphabet = Alphabet.of(TEXTS)
    for text in TEXTS:
        ids = alphabet.encode(text)
        assert "".join(alphabet.characters[i] for i in ids) == to_visual(text)
        assert to_visual(alphabet.decode(ids)) == to_visual(text)
        assert alphabet.knows(text)
    with pytest.raises(ValueError, match="no ways"):
        Alphabet("A", (9,))
    as_they_are = Alphabet.of(TEXTS, visual_order=False)
    for text in TEXTS:
        assert "".join(as_they_are.characters[i] for i in as_they_are.encode(text)) == text
        assert as_they_are.decode(as_they_are.encode(text)) == text


def test_the_way_back_is_that_of_most_labels():
    from_left, from_right = f"abc 12 {HEBREW}", f"{HEBREW} 12 abc"
    assert to_visual(from_left) == to_visual(from_right)
    for many, few in ((from_left, from_right), (from_right, from_left)):
        alphabet = Alphabet.of([f"{many}{n}" for n in "abc"] + [many, few, "abc"])
        assert alphabet.decode(alphabet.encode(few)) == many
    assert set(usual_ways([])) == set(USUAL)


def test_texts_that_look_the_same_score_as_the_same():
    score = Score()
    assert score.add(f"abc 12 {HEBREW}", f"{HEBREW} 12 abc") == 0
    assert score.add(HEBREW, HEBREW[1:]) == 1
    assert score.add(HEBREW, HEBREW[::-1]) == 4


def test_a_network_learns_to_read_from_right_to_left(tmp_path, script):
    """Hebrew and Arabic, with Latin words and numbers. Its tables and its page hold texts as they are read."""
    right_to_left.draw_dataset(tmp_path, {"train": 600, "validation": 60, "test": 60})
    script(
        tmp_path, "train.py", "--num-samples", 0, "--epochs", 6, "--lr-cycle", 6, "--batch-size", 8,
        "--learning-rate", 4e-3, "--img-height", 32, "--cnn-channels", 16, 16, 32, 32, 48, 48, "--lstm-hidden", 48,
        "--lstm-layers", 2, "--augment-steps", 100_000, "--no-uppercase", "--device", "cpu",
    )  # fmt: skip
    labels = "CSV/written_name_test.csv"
    done = script(tmp_path, "predict.py", "--labels", labels, "--html", "--device", "cpu")
    rows = pd.read_csv(tmp_path / "output" / "predictions.csv", dtype=str, keep_default_na=False)
    truths = pd.read_csv(tmp_path / labels, dtype=str)["IDENTITY"].tolist()
    edits = [Levenshtein.distance(*pair) for pair in zip(truths, rows["PREDICTION"], strict=True)]
    assert sum(edits) < 0.05 * sum(map(len, truths))  # in logical order, by nothing of ours
    assert rows["TRUTH"].tolist() == truths
    cer = float(re.search(r"CER (\d\.\d+)", done.stdout)[1])
    assert cer == pytest.approx(sum(edits) / sum(map(len, truths)), abs=0.01)
    mixed = [n for n, truth in enumerate(truths) if re.search("[0-9]", truth) and re.search("[a-z]", truth)]
    assert len(mixed) > 10
    assert sum(edits[n] == 0 for n in mixed) > len(mixed) / 2
    data = re.search(r'<script[^>]*id="data"[^>]*>(.*?)</script>', (tmp_path / "output" / "report.html").read_text())[1]
    assert {item["text"] for item in json.loads(data)} == set(rows["PREDICTION"])


def test_character_confidences_are_in_the_order_of_the_text(tmp_path):
    """Where letters are taken for others, from right to left, they are turned with the text."""
    checkpoint = load_checkpoint(SHIPPED_WEIGHTS)
    there = {c: c for c in checkpoint["alphabet"] if c in " -'"} | dict(
        zip(filter(str.isalpha, checkpoint["alphabet"]), RIGHT_TO_LEFT_LETTERS, strict=False)
    )
    alphabet = "".join(there.get(c, c) for c in checkpoint["alphabet"])
    config = checkpoint["config"] | {"VISUAL_ORDER": True}
    save_checkpoint(checkpoint | {"alphabet": alphabet, "config": config}, tmp_path / "a.pth")
    before, after = (
        predict_batch(path, ROOT / "samples", save_csv=False, device="cpu")
        for path in (SHIPPED_WEIGHTS, tmp_path / "a.pth")
    )
    assert after["PREDICTION"].tolist() == [text.translate(str.maketrans(there))[::-1] for text in before["PREDICTION"]]
    turned = [" ".join(cell.split()[::-1]) for cell in before["CHARACTER_CONFIDENCES"]]
    assert after["CHARACTER_CONFIDENCES"].tolist() == turned != before["CHARACTER_CONFIDENCES"].tolist()
