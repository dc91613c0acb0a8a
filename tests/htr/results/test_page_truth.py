"""Which line of an ALTO or PAGE file a line that was read is."""

import numpy as np
import pytest
from pages import LINES, TEXTS, alto, page, write_page
from test_transcripts import to_read

from htr.pictures.cutting import bands
from htr.results.page_truth import PageTruth, along, matching
from htr.system.scripts import HTRError
from htr.texts.labels import LabelRules

RULES = LabelRules(False, ("EMPTY",))


def row(line, text):
    return {"FILENAME": line.name, "PREDICTION": text, "CONFIDENCE": 0.5, "ERROR": ""}


def test_texts_of_the_same_file_and_of_another(tmp_path):
    folder = write_page(tmp_path / "in")
    pages = to_read(folder)
    truth = PageTruth(folder, RULES, pages)
    assert [truth.labels[line.name] for line in pages[0].lines] == TEXTS
    shifted = [(*line[:1], f"x{n}", [(x + 6, y - 4) for x, y in line[2]], *line[3:]) for n, line in enumerate(LINES)]
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth/page.xml").write_text(page(shifted[::-1]), encoding="utf-8")  # other ids, order and format
    truth = PageTruth(tmp_path / "truth", RULES, pages)
    assert [truth.labels[line.name] for line in pages[0].lines] == TEXTS


def test_lines_that_were_not_found_count_with_all_their_characters(tmp_path):
    folder = write_page(tmp_path / "in")
    (folder / "page.xml").write_text(alto(LINES[:2]), encoding="utf-8")
    pages = to_read(folder)
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth/page.xml").write_text(alto(), encoding="utf-8")
    truth = PageTruth(tmp_path / "truth", RULES, pages)
    assert truth.notes == ["lines of the labels that no line that was found runs along: 2"]
    list(truth.compare([row(pages[0].lines[0], TEXTS[0]), row(pages[0].lines[1], "a & b")]))
    score = truth.comparison.score
    assert score.edits == len(" < c") + len(TEXTS[2]) + len(TEXTS[3])
    assert score.characters == sum(map(len, TEXTS))


def test_scores_by_page(tmp_path):
    for name in ("one", "two"):
        write_page(tmp_path, name)
    pages = to_read(tmp_path)
    truth = PageTruth(tmp_path, RULES, pages)
    rows = [
        row(line, text if each.name == "one" else "")
        for each in pages
        for line, text in zip(each.lines, TEXTS, strict=True)
    ]
    assert [read["RIGHT"] for read in truth.compare(rows)] == ["yes"] * 4 + ["no"] * 4
    assert truth.lines()[1] == (
        "by page: CER 0.5000 in the median of 2, from 0.0000 (one.png) to 1.0000 (two.png); WER 0.5000 in the median"
    )


def test_files_of_other_pages_are_an_error(tmp_path):
    write_page(tmp_path / "in")
    write_page(tmp_path / "other", "another")
    with pytest.raises(
        HTRError, match=r"other holds no text of a line of these pages: .* is of a picture that is not there"
    ):
        PageTruth(tmp_path / "other", RULES, to_read(tmp_path / "in"))


def lines(*ends):
    return bands([np.array([[x0, y0], [x1, y1]], dtype=float) for x0, y0, x1, y1 in ends], [None] * len(ends))


def test_a_line_is_the_one_along_which_it_runs():
    true = lines((0, 100, 400, 100), (0, 160, 400, 160), (500, 160, 900, 160))
    read = lines((450, 165, 880, 158), (10, 95, 390, 104), (0, 400, 400, 400))
    assert matching(true, read) == [1, None, 0]
    assert matching(true, []) == [None] * 3
    assert matching([], read) == []
    halves = lines((0, 100, 190, 100), (210, 100, 400, 100))
    assert sorted(along(true[0], half) for half in halves) == pytest.approx([0.5, 0.5], abs=0.1)
