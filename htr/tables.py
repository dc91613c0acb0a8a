"""The tables of readings: written as a whole or not at all, and a journal from which an interrupted run resumes."""

import contextlib
import csv
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from htr.files import file_name, only_writer, whole_file
from htr.scripts import HTRError, printable

Row = dict[str, Any]


def only_reading(output_dir: str | Path) -> contextlib.AbstractContextManager[None]:
    """Be the only process that writes tables to a folder; see `only_writer`."""
    names = ("predictions.csv", "predictions.txt", "predictions.spreadsheet.csv", "report.html")
    return only_writer(*(Path(output_dir, name) for name in names))


def write_predictions(
    rows: Iterable[Row], output_dir: str | Path, columns: Sequence[str], spreadsheet: bool = False
) -> Iterator[Row]:
    """Pass rows through while writing predictions.csv and predictions.txt, which appear after the last row.
    Of a row only `columns` are written.

    With `spreadsheet`, also writes predictions.spreadsheet.csv, a copy in which a cell that a spreadsheet would take
    for a formula begins with an apostrophe. predictions.txt has one line per row, whatever the texts hold.
    """
    output_dir = Path(output_dir)
    options = {"newline": "", "encoding": "utf-8", "errors": "backslashreplace"}
    with contextlib.ExitStack() as stack:
        table = stack.enter_context(whole_file(output_dir / "predictions.csv", **options))
        text = stack.enter_context(whole_file(output_dir / "predictions.txt", **options))
        writers = [csv.DictWriter(table, columns, lineterminator="\n", extrasaction="ignore")]
        if spreadsheet:
            options["encoding"] = "utf-8-sig"  # without its mark, some take it for another encoding
            copy = stack.enter_context(whole_file(output_dir / "predictions.spreadsheet.csv", **options))
            writers.append(csv.DictWriter(copy, columns, lineterminator="\r\n", extrasaction="ignore"))
        for writer in writers:
            writer.writeheader()
        for row in rows:
            writers[0].writerow(row)
            if spreadsheet:
                writers[1].writerow({column: no_formula(cell) for column, cell in row.items()})
            name, reading = (printable(row[column], 100_000) for column in ("FILENAME", "PREDICTION"))
            text.write(f"{name}\t{reading}\t{row['CONFIDENCE']}\n")
            yield row


def no_formula(cell: Any) -> Any:
    """A cell with an apostrophe before anything that would start a formula (OWASP, "CSV Injection")."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else cell


class Journal:
    """The rows read so far, a line of JSON each, in predictions.partial.jsonl: what a killed run leaves to resume from.

    key: changes with everything that a row depends on besides its image.
    """

    def __init__(self, output_dir: str | Path, key: str):
        self.path = Path(output_dir, "predictions.partial.jsonl")
        self.key = key
        self.end = 0  # bytes that are whole lines

    @staticmethod
    def key_of(*files: str | Path | None) -> str:
        """A key that changes with the content of these files."""
        digest = hashlib.blake2b(digest_size=16)
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
                f"{self.path} is from a run with another checkpoint or lexicon, which --resume cannot continue: leave"
                " --resume out to read all images anew"
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


def _changed(path: Path) -> float:
    """When a file was last changed or moved to its place; infinity where it is gone."""
    try:
        status = os.stat(path)
    except OSError:
        return float("inf")
    return max(status.st_mtime, status.st_ctime)
