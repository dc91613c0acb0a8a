import csv
import json
import os

import pandas as pd
import pytest

from htr.scripts import HTRError
from htr.tables import Journal, no_formula, only_reading, write_predictions

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


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_a_spreadsheet_gets_no_formula(tmp_path, text):
    list(write_predictions([row("=a.png", text), row("b.png", "B")], tmp_path, COLUMNS, spreadsheet=True))
    assert (tmp_path / "predictions.spreadsheet.csv").read_bytes().startswith(b"\xef\xbb\xbfFILENAME,")
    with open(tmp_path / "predictions.spreadsheet.csv", newline="", encoding="utf-8-sig") as file:
        first, second = csv.DictReader(file)
    assert (first["FILENAME"], first["PREDICTION"]) == ("'=a.png", "'" + text)
    assert (second["FILENAME"], second["PREDICTION"], second["CONFIDENCE"]) == ("b.png", "B", "0.5")


def test_numbers_are_no_formulas():
    assert (no_formula(-0.5), no_formula("A=B")) == (-0.5, "A=B")


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
    with pytest.raises(HTRError, match="another checkpoint or lexicon"):
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
