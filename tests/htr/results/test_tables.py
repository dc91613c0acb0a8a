import json
import os
import re

import openpyxl
import pandas as pd
import pytest

from htr.results import tables
from htr.results.tables import Journal, only_reading, write_predictions
from htr.system.scripts import HTRError

COLUMNS = ("FILENAME", "PREDICTION", "CONFIDENCE", "ERROR")


def row(name: str, text: str = "A", error: str = "") -> dict:
    return dict(zip(COLUMNS, (name, text, 0.5, error), strict=True))


def test_tables_keep_text_as_it_is(tmp_path):
    texts = ["=1+1", "NULL", 'A "B", C', " X ", "É名", "-5", "", "new\nline"]
    rows = [row(f"{n}.png", text) for n, text in enumerate(texts)]
    assert list(write_predictions(rows, tmp_path, COLUMNS)) == rows
    read = pd.read_csv(tmp_path / "predictions.csv", dtype=str, keep_default_na=False)
    assert read["PREDICTION"].tolist() == texts
    lines = (tmp_path / "predictions.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(texts)  # a line a row
    assert [line.split("\t")[1] for line in lines[:-1]] == texts[:-1]
    assert lines[-1] == "7.png\tnew\\nline\t0.5"


def test_what_utf8_cannot_write_does_not_stop_a_table(tmp_path):
    list(write_predictions([row("a.png", "\ud800")], tmp_path, COLUMNS))
    assert "\\ud800" in (tmp_path / "predictions.csv").read_text(encoding="utf-8")


TEXTS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\n=1", "007", "1E5", "3-4", "1/2", "1,5", "1.5", "TRUE", "NULL", "",
         " X ", "É名", "שלום", "_x0041_", "\x01", "http://a.b", "mailto:a@b.c", "12:30", "50%", "€ 5", "{=1}",
         "a" * 5000]  # fmt: skip


def test_in_a_workbook_every_text_is_text(tmp_path):
    """Read back with another library: what programs take for formulas, dates, numbers or links is the same text."""
    rows = [row(text + ".png", text) | {"CONFIDENCE": n / 1000} for n, text in enumerate(TEXTS)]
    rows.append(row("bad.png", "", "cannot be read") | {"CONFIDENCE": ""})
    list(write_predictions(rows, tmp_path, COLUMNS, spreadsheet=True))
    (sheet,) = openpyxl.load_workbook(tmp_path / "predictions.xlsx").worksheets
    head, *cells = sheet.iter_rows()
    assert tuple(cell.value for cell in head) == COLUMNS
    for expected, (name, text, confidence, error) in zip(rows, cells, strict=True):
        for cell, column in ((name, "FILENAME"), (text, "PREDICTION"), (error, "ERROR")):
            assert escaped(cell.value or "") == expected[column]
            assert cell.value is None or (cell.data_type, cell.number_format) in (("s", "@"), ("inlineStr", "@"))
            assert cell.hyperlink is None
        if expected["CONFIDENCE"] != "":
            assert (confidence.data_type, confidence.value) == ("n", expected["CONFIDENCE"])
    assert not list(tmp_path.glob(".*"))


def escaped(text: str) -> str:
    """The same text without the escapes of Office Open XML (ECMA-376, 22.9.2.19)."""
    return re.sub("_x([0-9A-F]{4})_", lambda match: chr(int(match[1], 16)), text)


def test_what_a_workbook_cannot_hold_does_not_stop_it(tmp_path):
    list(write_predictions([row("\ud800", "\uffff")], tmp_path, COLUMNS, spreadsheet=True))
    sheet = openpyxl.load_workbook(tmp_path / "predictions.xlsx").worksheets[0]
    assert [cell.value for cell in sheet[2]][:2] == ["\ufffd", "\ufffd"]


def test_more_rows_than_a_sheet_holds_go_on_on_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "MOST_ROWS", 4)
    rows = [row(f"{n}.png") for n in range(7)]
    list(write_predictions(rows, tmp_path, COLUMNS, spreadsheet=True))
    sheets = openpyxl.load_workbook(tmp_path / "predictions.xlsx").worksheets
    names = [[cells[0].value for cells in sheet.iter_rows()] for sheet in sheets]
    assert names == [["FILENAME", *(f"{n}.png" for n in part)] for part in (range(3), range(3, 6), range(6, 7))]


def test_a_workbook_appears_as_a_whole_or_not_at_all(tmp_path):
    rows = write_predictions((row(f"{n}.png") for n in range(9)), tmp_path, COLUMNS, spreadsheet=True)
    next(rows)
    with pytest.raises(KeyboardInterrupt):
        rows.throw(KeyboardInterrupt)
    assert list(tmp_path.iterdir()) == []


def test_one_process_writes_into_a_folder(tmp_path):
    with only_reading(tmp_path), pytest.raises(HTRError, match="another process is writing"), only_reading(tmp_path):
        pass


@pytest.fixture
def pictures(tmp_path):
    """Files that were there long before a run."""
    paths = [tmp_path / f"{n}.png" for n in range(4)]
    for path in paths:
        path.touch()
    return paths


def interrupted(journal: Journal, paths, rows) -> None:
    """Write rows, and stop before the end."""
    with (
        pytest.raises(KeyboardInterrupt),
        journal.written(zip(paths, rows, [True] * len(rows), strict=False)) as passed,
    ):
        assert list(passed) == rows
        raise KeyboardInterrupt


def test_a_journal_keeps_what_was_read(tmp_path, pictures):
    rows = [row("0.png"), row("1.png", "É\n"), row("2.png", "", "cannot be read")]
    interrupted(Journal(tmp_path, "key"), pictures, rows)
    journal = Journal(tmp_path, "key")
    assert journal.rows(pictures) == dict(zip(pictures[:2], rows, strict=False))  # what failed is tried again
    more = [(pictures[0], rows[0], False), (pictures[2], row("2.png", "C"), True)]
    with pytest.raises(KeyboardInterrupt), journal.written(more) as passed:
        list(passed)
        raise KeyboardInterrupt
    again = Journal(tmp_path, "key")
    assert again.rows(pictures) == {pictures[0]: rows[0], pictures[1]: rows[1], pictures[2]: row("2.png", "C")}
    with again.written([]) as passed:
        list(passed)
    assert not again.path.exists()  # all went well


def test_a_torn_line_is_dropped(tmp_path, pictures):
    rows = [row("0.png"), row("1.png")]
    journal = Journal(tmp_path, "key")
    interrupted(journal, pictures, rows)
    whole = journal.path.read_bytes()
    for length in range(len(whole)):
        journal.path.write_bytes(whole[:length])
        torn = Journal(tmp_path, "key")
        kept = torn.rows(pictures)
        assert list(kept.values()) == rows[: len(kept)]
        assert torn.end <= length
        interrupted(torn, pictures[3:], [row("3.png")])
        assert Journal(tmp_path, "key").rows(pictures) == kept | {pictures[3]: row("3.png")}


def test_a_picture_that_changed_is_read_again(tmp_path, pictures):
    interrupted(Journal(tmp_path, "key"), pictures, [row(f"{n}.png") for n in range(4)])
    later = os.stat(tmp_path / "predictions.partial.jsonl").st_mtime + 10
    os.utime(pictures[1], (later, later))
    pictures[2].unlink()
    assert list(Journal(tmp_path, "key").rows(pictures)) == [pictures[0], pictures[3]]


def test_other_runs_are_not_gone_on_from(tmp_path, pictures):
    assert Journal(tmp_path, "key").rows(pictures) == {}
    interrupted(Journal(tmp_path, "key"), pictures, [row("0.png")])
    with pytest.raises(HTRError, match="another checkpoint, lexicon, corpus or setting of --spelling"):
        Journal(tmp_path, "other").rows(pictures)
    Journal(tmp_path, "key").path.write_text(json.dumps([1, 2]) + "\n")
    with pytest.raises(HTRError, match="not written by this program"):
        Journal(tmp_path, "key").rows(pictures)


def test_the_key_changes_with_checkpoint_and_lexicon(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"1")
    b.write_bytes(b"2")
    keys = {Journal.key_of(*files) for files in [(a, None), (b, None), (a, b), (b, a)]}
    assert len(keys) == 4
    assert Journal.key_of(a, b) == Journal.key_of(a, b)
    with pytest.raises(HTRError, match="none cannot be read"):
        Journal.key_of(a, tmp_path / "none")
