import pytest
from conftest import compared

from htr.labels import LabelRules
from htr.scores import Comparison, Score, Truth


@pytest.mark.parametrize(
    ("pairs", "cer", "exact"),
    [
        ([("MARTIN", "MARTIN")], 0, 1),
        ([("MARTIN", "MARTN")], 1 / 6, 0),  # one deletion
        ([("MARTIN", "MARRTIN")], 1 / 6, 0),  # one insertion
        ([("MARTIN", "NARTIM")], 2 / 6, 0),  # two substitutions
        ([("KITTEN", "SITTING")], 3 / 6, 0),
        ([("A", ""), ("ABCDEFGHI", "ABCDEFGHI")], 1 / 10, 1 / 2),  # not the mean of 1 and 0
        ([("AB", "XYZUV")], 5 / 2, 0),  # may exceed 1
        ([("ABC", "BCA")], 2 / 3, 0),  # by edits, not by position
    ],
)
def test_cer_and_exact_match(pairs, cer, exact):
    score = Score()
    for reference, reading in pairs:
        score.add(reference, reading)
    assert score.cer == pytest.approx(cer)
    assert score.exact == pytest.approx(exact)


def test_a_score_of_nothing_is_zero():
    assert (Score().cer, Score().exact) == (0, 0)


def test_a_comparison_by_hand():
    comparison = compared()
    assert (comparison.score.edits, comparison.score.right) == (3, 1)
    assert comparison.confusions == {("N", "M"): 2, ("N", ""): 1}
    assert comparison.suspects == [(0.95, "b.jpg", "LEO", "LEON")]
    said = "\n".join(comparison.lines())
    assert "exact match 0.2500" in said
    assert "N as M (2), N as nothing (1)" in said
    assert "1 labels to check" in said
    assert "b.jpg reads LEO, labelled LEON" in said


def test_confidence_is_judged_on_enough_images():
    comparison = Comparison()
    for n in range(100):
        assert not any("ECE" in line for line in comparison.lines()) or n >= 50
        comparison.add(f"{n}", "A" if n % 10 else "B", 0.9 if n % 10 else 0.1, "A")
    assert "confidence: ECE 0.1000, AUROC 1.0000, exact among the surest 90% 1.0000" in comparison.lines()


def test_nothing_compared():
    assert Comparison().lines() == ["CER 0.0000, exact match 0.0000 (0 of 0 labelled images)"]


def test_labels_match_by_the_last_part_of_a_path_and_sentinels_do_not_count(tmp_path):
    (tmp_path / "a.csv").write_text("FILENAME,IDENTITY\n1.png,lea\n2.png,EMPTY\n3.png,\n")
    truth = Truth(tmp_path / "a.csv", LabelRules(uppercase=True, ignored=("EMPTY", "UNREADABLE")))
    rows = list(truth.compare({"FILENAME": f"sub/{n}.png", "PREDICTION": "LEO", "CONFIDENCE": 0.5} for n in (1, 2, 3)))
    assert [(row["TRUTH"], row["EDITS"]) for row in rows] == [("LEA", 1), ("", ""), ("", "")]
    assert (truth.comparison.score.edits, truth.comparison.score.images) == (1, 1)
