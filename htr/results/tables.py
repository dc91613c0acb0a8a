"""The tables of readings: written as a whole or not at all, and a journal from which an interrupted run resumes."""

import contextlib
import csv
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from htr.pictures.images import Part
from htr.system.files import file_name, only_writer, whole_file
from htr.system.scripts import HTRError, printable

Row = dict[str, Any]
WORKBOOK = "predictions.xlsx"
ROWS = 2  # version of the rows that a journal keeps: those of another one lack columns
MOST_ROWS = 1_048_576  # of a sheet
NOT_IN_XML = re.compile("[\ud800-\udfff\ufffe\uffff]")


def only_reading(output_dir: str | Path) -> contextlib.AbstractContextManager[None]:
    """Be the only process that writes tables to a folder; see `only_writer`."""
    names = ("predictions.csv", "predictions.txt", WORKBOOK, "report.html")
    return only_writer(*(Path(output_dir, name) for name in names))


def write_predictions(
    rows: Iterable[Row], output_dir: str | Path, columns: Sequence[str], spreadsheet: bool = False
) -> Iterator[Row]:
    """Pass rows through while writing predictions.csv and predictions.txt, which appear after the last row.
    Of a row only `columns` are written.

    With `spreadsheet`, also writes a workbook, see `written_workbook`. predictions.txt has one line per row, whatever
    the texts hold.
    """
    output_dir = Path(output_dir)
    options = {"newline": "", "encoding": "utf-8", "errors": "backslashreplace"}
    with contextlib.ExitStack() as stack:
        table = stack.enter_context(whole_file(output_dir / "predictions.csv", **options))
        text = stack.enter_context(whole_file(output_dir / "predictions.txt", **options))
        writer = csv.DictWriter(table, columns, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        write_cells = stack.enter_context(written_workbook(output_dir / WORKBOOK)) if spreadsheet else None
        if write_cells:
            write_cells(columns)
        for row in rows:
            writer.writerow(row)
            if write_cells:
                write_cells([row[column] for column in columns])
            name, reading = (printable(row[column], 100_000) for column in ("FILENAME", "PREDICTION"))
            text.write(f"{name}\t{reading}\t{row['CONFIDENCE']}\n")
            yield row


@contextlib.contextmanager
def written_workbook(path: Path) -> Iterator[Callable[[Sequence[Any]], None]]:
    """Write a workbook (.xlsx) row by row with the function that this yields.

    Numbers are numbers and all else is text: nothing becomes a date, a number or a formula, in whatever language the
    spreadsheet program is. What does not fit on one sheet goes on on the next, under the same first row.
    """
    import xlsxwriter

    with whole_file(path, "wb") as file, tempfile.TemporaryDirectory() as place:
        workbook = xlsxwriter.Workbook(file, {"constant_memory": True, "tmpdir": place})
        as_text, bold = workbook.add_format({"num_format": "@"}), workbook.add_format({"bold": True})
        first: Sequence[Any] = ()
        sheet, next_row = None, MOST_ROWS

        def write(cells: Sequence[Any]) -> None:
            nonlocal first, sheet, next_row
            first = first or cells
            if next_row == MOST_ROWS:
                sheet, next_row = workbook.add_worksheet(), 0
                sheet.freeze_panes(1, 0)
                sheet.set_column(0, len(cells) - 1, 20, as_text)
                if cells is not first:
                    write(first)
            for column, cell in enumerate(cells):
                if isinstance(cell, (int, float)):
                    sheet.write_number(next_row, column, cell)
                else:
                    text = NOT_IN_XML.sub("\ufffd", cell)
                    sheet.write_string(next_row, column, text, as_text if next_row else bold)
            next_row += 1

        yield write
        workbook.close()


class Journal:
    """The rows read so far, a line of JSON each, in predictions.partial.jsonl: what a killed run leaves to resume from.

    key: changes with everything that a row depends on besides its image.
    """

    def __init__(self, output_dir: str | Path, key: str):
        self.path = Path(output_dir, "predictions.partial.jsonl")
        self.key = key
        self.end = 0  # bytes that are whole lines

    @staticmethod
    def key_of(*files: str | Path | None, settings: str = "") -> str:
        """A key that changes with the content of these files, and with what is set besides."""
        digest = hashlib.blake2b(f"{ROWS} {settings}".encode("utf-8", "surrogateescape"), digest_size=16)
        for path in files:
            try:
                digest.update(hashlib.blake2b(Path(path).read_bytes() if path else b"").digest())
            except OSError as error:
                raise HTRError(f"{path} cannot be read: {error.strerror or error}") from error
        return digest.hexdigest()

    def rows(self, paths: Iterable[Path]) -> dict[Path, Row]:
        """The rows of those images that were read before and have not changed since; what failed is tried again.

        Raises HTRError where they were read with another key.
        """
        try:
            lines = self.path.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise HTRError(f"{self.path} cannot be read: {error.strerror or error}") from error
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()  # torn
        if not lines:
            return {}
        self.end = sum(map(len, lines))
        try:
            whole = [json.loads(line) for line in lines]
            head, kept = whole[0], {name: row for name, row in whole[1:] if not row["ERROR"]}
            started, key = float(head["started"]), head["key"]
        except (KeyError, TypeError, ValueError) as error:
            raise HTRError(f"{self.path} was not written by this program: remove it") from error
        if key != self.key:
            raise HTRError(
                f"{self.path} is from a run with another checkpoint, lexicon, corpus or setting of --spelling,"
                " --language, --characters or --pattern, which --resume cannot continue: leave --resume out to read all"
                " images anew"
            )
        found = {}
        for path in paths:
            row = kept.get(file_name(path))
            if row is not None and _changed(path) < started:
                found[path] = row
        return found

    @contextlib.contextmanager
    def written(self, rows: Iterable[tuple[Path, Row, bool]]) -> Iterator[Iterator[Row]]:
        """Pass rows of (path, row, whether it is new) through and keep the new ones; removes the file at a good end."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab") as file:
                file.truncate(self.end)
                if not self.end:
                    file.write(json.dumps({"key": self.key, "started": time.time()}).encode() + b"\n")
                yield self._passed(rows, file)
            self.path.unlink()
        except OSError as error:
            raise HTRError(f"{self.path} cannot be written: {error.strerror or error}") from error

    @staticmethod
    def _passed(rows, file) -> Iterator[Row]:
        for path, row, new in rows:
            if new:
                file.write(json.dumps([file_name(path), row]).encode() + b"\n")
                file.flush()  # to the operating system: a killed process loses nothing
            yield row


def _changed(path: Path | Part) -> float:
    """When a file, or those of a line, were last changed or moved to their place; infinity where one is gone."""
    try:
        states = [os.stat(each) for each in (path.files if isinstance(path, Part) else [path])]
    except OSError:
        return float("inf")
    return max(max(state.st_mtime, state.st_ctime) for state in states)
