import pytest
from conftest import compared

from htr.results.scores import Comparison, Score, Truth
from htr.system.scripts import HTRError
from htr.texts.labels import LabelRules


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


@pytest.mark.parametrize(
    ("pairs", "wer", "spaces"),
    [
        ([("THE CAT SAT", "THE CAT SAT")], 0, True),
        ([("THE CAT SAT", "THE HAT SAT")], 1 / 3, True),  # one word of three
        ([("THE CAT SAT", "THECAT SAT")], 2 / 3, True),  # a space lost: one word for two
        ([("THE CAT", "THE CAT SAT")], 1 / 2, True),
        ([("A", ""), ("B C D", "B C D")], 1 / 4, True),  # not the mean of 1 and 0
        ([("CAT", "HAT")], 1, False),
    ],
)
def test_wer(pairs, wer, spaces):
    score, comparison = Score(), Comparison()
    for reference, reading in pairs:
        score.add(reference, reading)
        comparison.add("a.png", reading, 0.5, reference)
    assert score.wer == pytest.approx(wer)
    assert score.has_spaces == spaces
    assert any(line.startswith(f"WER {wer:.4f} (") for line in comparison.lines()) == spaces


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


RULES = LabelRules(uppercase=True, ignored=("EMPTY", "UNREADABLE"))


def test_labels_that_mean_no_text_do_not_count(tmp_path):
    (tmp_path / "a.csv").write_text("FILENAME,IDENTITY\n1.png,lea\n2.png,EMPTY\n3.png,\n1.png,LEO\n")
    names = [f"sub/{n}.png" for n in (1, 2, 3)]
    truth = Truth(tmp_path / "a.csv", RULES, [(name, tmp_path / name) for name in names])
    rows = list(truth.compare({"FILENAME": name, "PREDICTION": "LEO", "CONFIDENCE": 0.5} for name in names))
    assert [(row["TRUTH"], row["EDITS"]) for row in rows] == [("LEA", 1), ("", ""), ("", "")]
    assert (truth.comparison.score.edits, truth.comparison.score.images) == (1, 1)
    assert truth.notes == ["labels for a file that had one already, passed over: 1"]


def test_what_does_not_fit_is_counted_and_nothing_is_an_error(tmp_path):
    files = [(name, tmp_path / name) for name in ("a/1.png", "b/1.png", "c.png")]
    table = tmp_path / "labels.csv"
    table.write_text("FILENAME,IDENTITY\n1.png,LEA\nc.png,LEO\nnowhere.png,MAX\n")
    truth = Truth(table, RULES, files)
    assert truth.labels == {"c.png": "LEO"}
    assert truth.notes == [
        "labels that name none of the 3 images: 1, such as 'nowhere.png'; the images are called 'a/1.png' and so on",
        "labels that fit several images: 1, such as '1.png': a/1.png or b/1.png",
    ]
    for content, reason in (
        ("nowhere.png,MAX\n", "such as 'nowhere.png'; the images are called 'a/1.png' and so on"),
        ("1.png,LEA\n", "'1.png': a/1.png or b/1.png"),
        ("c.png,EMPTY\n", "it holds no text"),
    ):
        table.write_text("FILENAME,IDENTITY\n" + content)
        with pytest.raises(HTRError, match="does not fit") as error:
            Truth(table, RULES, files)
        assert reason in str(error.value)
