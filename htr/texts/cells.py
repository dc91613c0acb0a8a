"""Tables from files, as rows of cells: CSV and its relatives, workbooks, JSON, and what annotation tools export.

A table of text is taken for what the programs of its shape write (see `_rows_of_text`); what a file means is never
guessed from its name alone.
"""

import codecs
import csv
import gzip
import io
import json
import os
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from htr.system.names import has_suffix
from htr.system.scripts import HTRError, printable

TABLE_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".xlsx", ".parquet")  # of files that may hold labels
MOST_BYTES = 500_000_000  # of an unpacked workbook
UTF8 = "utf-8-sig"  # with or without a byte order mark
# Files by their first bytes, which are no tables here, and what to do with them.
FOREIGN = {
    b"\xd0\xcf\x11\xe0": "a workbook of an old Excel: save it as CSV in UTF-8, or as .xlsx",
    b"%PDF": "a PDF: save the table as CSV in UTF-8",
    b"<": "XML or HTML: save the table as CSV in UTF-8",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
}
ESCAPED = re.compile(r'([^,"]+?)\s*,\s*"((?:[^"\\]|\\.)*)"\s*')  # ICDAR's word_1.png, "\"Haus\""
QUOTED = re.compile(r'"(?:[^"]|"")*"')  # a cell as a CSV has it
STUDIO_COLUMNS = {"annotation_id", "annotator", "lead_time", "annotations"}  # that tell Label Studio's exports


@dataclass
class Cells:
    """A table as it stands; cells have no white space around them.

    rows: of equal length, without blank ones and without columns at the right in which nothing is. lines: of the file
    where rows end, for messages. separator: of a table of text, "" where it is none. keyed: whether the first row is
    sure to name the columns. notes: what to say about how it was read. dropped: rows that are no labels, by reason.
    """

    rows: list[list[str]]
    lines: list[int]
    separator: str = ""
    keyed: bool = False
    notes: list[str] = field(default_factory=list)
    dropped: Counter = field(default_factory=Counter)


def read_cells(path: str | os.PathLike, starts_like: Iterable[str] = ()) -> Cells:
    """Read a table. starts_like: names of columns that the first cell may have, in lower case.

    Raises HTRError, naming the line where it can, where the file cannot be read or is no table.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise HTRError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if data.startswith(b"PK\x03\x04"):
        cells = _of_workbook(path, data)
    elif data.startswith(b"PAR1"):
        cells = _of_parquet(path, data)
    else:
        head = data[:1000].lstrip(b"\xef\xbb\xbf \t\r\n")
        for start, what in FOREIGN.items():
            if head.startswith(start):
                raise HTRError(f"{path} is no table of text but {what}")
        text, encoding = _decoded(path, data)
        names = tuple(starts_like)
        cells = _of_json(path, text, names) if re.match(r"\s*[\[{]", text) else None
        if cells is None:
            cells = _rows_of_text(path, text, encoding, names)
    return _trimmed(path, cells)


def _trimmed(path: Path, cells: Cells) -> Cells:
    """Without blank rows and empty columns at the right; short rows are filled up."""
    kept = [(row, line) for row, line in zip(cells.rows, cells.lines, strict=True) if any(row)]
    if not kept:
        raise HTRError(f"{path} cannot be read: it holds no cell")
    width = max(place + 1 for row, _ in kept for place, cell in enumerate(row) if cell)
    cells.rows = [(row + [""] * (width - len(row)))[:width] for row, _ in kept]
    cells.lines = [line for _, line in kept]
    return cells


# -------------------------------------------------------------------------------------------------- text


def _decoded(path: Path, data: bytes) -> tuple[str, str]:
    """A text and its encoding: UTF-8 or UTF-16, with or without a mark."""
    zeros = (data[:200:2].count(0), data[1:200:2].count(0))  # every other byte of western text in UTF-16
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif max(zeros) > len(data[:200]) / 8 and min(zeros) == 0:
        encoding = "utf-16-be" if zeros[0] else "utf-16-le"
    else:
        encoding = UTF8
    try:
        return data.decode(encoding).removeprefix("\ufeff"), encoding
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        where = f", line {line}" if encoding == UTF8 else ""
        raise HTRError(f"{path}{where}: this is not UTF-8; save the file as a CSV in UTF-8") from error


def _rows_of_text(path: Path, text: str, encoding: str, starts_like: Sequence[str]) -> Cells:
    """A table with commas, semicolons or tabs.

    With commas and semicolons, quotes are those of RFC 4180, as everything that writes CSV makes them; but where texts
    hold \\" they are those of ICDAR's lists of words. With tabs they belong to the text, as the field's lists (gt.txt)
    have it, unless they can only be a spreadsheet's: around a text in which quotes are doubled, or, in UTF-16, which
    Excel writes, one with a comma or a tab.
    """
    separator, skipped = _separator(text, starts_like)
    lines = text.splitlines(keepends=True)
    body = "".join(lines[skipped:])
    if separator == "\t":
        return _tab_separated(body, skipped, excel=encoding != UTF8)
    matches = [ESCAPED.fullmatch(line.rstrip("\r\n")) for line in lines[skipped:] if line.strip()]
    if separator == "," and '\\"' in body and all(matches):
        rows = [[match[1].strip(), re.sub(r"\\(.)", r"\1", match[2])] for match in matches]
        places = [place for place, line in enumerate(lines[skipped:], skipped + 1) if line.strip()]
        note = f'quotes around {len(rows):,} texts are taken off, and \\" in them is "'
        return Cells(rows, places, ",", notes=[note])
    return _quoted_rows(path, body, separator, skipped)


def _quoted_rows(path: Path, body: str, separator: str, skipped: int) -> Cells:
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(io.StringIO(body, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    cells, before = Cells([], [], separator), 0
    try:
        for row in reader:
            cells.rows.append([cell.strip() for cell in row])
            cells.lines.append(reader.line_num + skipped)
            before = reader.line_num
    except csv.Error as error:
        if "unexpected end" in str(error):
            reason = f"in line {before + 1 + skipped} a quote is opened and never closed"
        elif "expected after" in str(error) and reader.line_num > before + 1:
            reason = (
                f"in line {before + 1 + skipped} a quote is opened and closed only in a later row; remove or double it"
            )
        elif "expected after" in str(error):
            reason = (
                f"in line {reader.line_num + skipped} more text follows a quote that closes: put the whole text in"
                " quotes, and double those that belong to it"
            )
        else:
            reason = f"line {reader.line_num + skipped}: {error}"
        raise HTRError(f"{path} cannot be read as a CSV in UTF-8: {reason}") from error
    for row, line in zip(cells.rows, cells.lines, strict=True):
        for cell in row:
            if "\n" in cell and re.search(r"\n[^\n]*[,;\t]", cell):
                opened = line - cell.count("\n")
                raise HTRError(
                    f"{path}, line {opened}: a quote is opened before {printable(cell.splitlines()[0], 80)!r} and"
                    " closed only in a later row; remove it, or double it"
                )
    found = len(re.findall(rf'(?:^|{separator})[ \t]*"[^"{separator}\n]+"[ \t]*(?={separator}|\r?\n|\Z)', body, re.M))
    if found:
        cells.notes.append(f"quotes around {found:,} cells are those of a CSV and taken off")
    return cells


def _tab_separated(body: str, skipped: int, excel: bool) -> Cells:
    cells, taken = Cells([], [], "\t"), 0
    for number, line in enumerate(re.split(r"\r\n|\r|\n", body), skipped + 1):
        row = [cell.strip() for cell in line.split("\t")]
        for place, cell in enumerate(row):
            inner = cell[1:-1]
            if QUOTED.fullmatch(cell) and ('""' in inner or (excel and "," in inner)):
                row[place], taken = inner.replace('""', '"').strip(), taken + 1
        cells.rows.append(row)
        cells.lines.append(number)
    if taken:
        cells.notes.append(f"quotes around {taken:,} cells are those of a spreadsheet and taken off")
    return cells


def _separator(text: str, starts_like: Sequence[str]) -> tuple[str, int]:
    """What separates the cells, and the number of lines to skip: one of Excel's own, "sep=;"."""
    head = text[:1_000_000].splitlines()
    first = next((line for line in head if line.strip()), "")
    if said := re.fullmatch(r'"?sep=([,;|\t])"?', first.strip(" ")):
        return said[1], head.index(first) + 1

    def fits(separator: str) -> tuple[bool, int]:
        start, _, rest = first[:10_000].partition(separator)
        start = start.strip().strip('"').strip()
        known = bool(rest) and (has_suffix(start) or plain_name(start) in starts_like)
        return known, first.count(separator)

    return max(",;\t", key=fits), 0


def plain_name(column: str) -> str:
    """A column's name as it is compared."""
    return re.sub(r"[\s-]+", "_", column.strip().casefold())


# --------------------------------------------------------------------------------------- workbooks, parquet


def _of_workbook(path: Path, data: bytes) -> Cells:
    """The cells of an .xlsx file (ECMA-376), of its only sheet that has some."""
    try:
        import openpyxl
    except ModuleNotFoundError as error:
        raise HTRError(f"{path} is a workbook: pip install openpyxl, or save it as CSV in UTF-8") from error
    try:
        if sum(part.file_size for part in zipfile.ZipFile(io.BytesIO(data)).infolist()) > MOST_BYTES:
            raise HTRError(f"{path} unpacks to more than {MOST_BYTES:,} bytes: save the table as CSV in UTF-8")
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
        sheets = {name: [list(row) for row in book[name].iter_rows()] for name in book.sheetnames}
    except (AttributeError, KeyError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise HTRError(f"{path} is a ZIP archive, and no workbook that can be read: save it as CSV in UTF-8") from error
    filled = {name: rows for name, rows in sheets.items() if any(c.value is not None for row in rows for c in row)}
    if len(filled) > 1:
        raise HTRError(f"{path} has several sheets, {' and '.join(filled)}: keep one, or save it as CSV in UTF-8")
    rows = next(iter(filled.values()), [])
    texts = [[_cell_text(path, cell.value, cell) for cell in row] for row in rows]
    return Cells(texts, list(range(1, len(texts) + 1)))


def _cell_text(path: Path, value: Any, cell: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        raise HTRError(
            f"{path}, cell {cell.coordinate}: this is {'a logical value' if isinstance(value, bool) else 'a date'}, not"
            " a text: give the column the format Text, and type it again"
        )
    return str(value).strip()


def _of_parquet(path: Path, data: bytes) -> Cells:
    try:
        import pandas as pd

        table = pd.read_parquet(io.BytesIO(data))
    except ImportError as error:
        raise HTRError(f"{path} is a Parquet file: pip install pyarrow, or save it as CSV in UTF-8") from error
    except Exception as error:  # pyarrow raises nearly anything
        raise HTRError(f"{path} is no Parquet file that can be read: {error}") from error
    return _of_records(path, table.to_dict("records"))


# -------------------------------------------------------------------------------------------------- JSON


def _of_json(path: Path, text: str, columns: Sequence[str]) -> Cells | None:
    """A list of objects, a line of JSON for each, one object of names and texts, or what Label Studio exports.

    None where it is a table of text that only begins like JSON. columns: names that columns may have.
    """
    try:
        value = json.loads(text)
    except ValueError:
        try:
            value = [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError as error:
            if not path.name.endswith((".json", ".jsonl")):
                return None
            raise HTRError(f"{path} is damaged, or no JSON: {error}") from error
    if isinstance(value, dict) and value and all(map(has_suffix, value)):
        rows = [["FILENAME", "IDENTITY"], *([name, _as_text(path, name, each, False)] for name, each in value.items())]
        return Cells(rows, list(range(len(rows))), keyed=True)
    if isinstance(value, dict) and any(plain_name(name) in columns for name in value):
        value = [value]  # a single line
    if not isinstance(value, list) or not value or not all(isinstance(each, dict) for each in value):
        raise HTRError(
            f"{path} is JSON, but not of a kind that is understood: a list of objects with a picture and its text, an"
            " object a line (metadata.jsonl), or an export of Label Studio"
        )
    if all("data" in each and ("annotations" in each or "completions" in each) for each in value):
        return _of_studio(path, value)
    return _of_records(path, value)


def _of_records(path: Path, records: Sequence[dict[str, Any]]) -> Cells:
    columns = list(dict.fromkeys(name for record in records for name in record))
    studio = bool(STUDIO_COLUMNS & {plain_name(str(name)) for name in columns})
    rows = [list(map(str, columns))]
    for record in records:
        rows.append([_as_text(path, name, record.get(name), studio) for name in columns])
    return Cells(rows, list(range(len(rows))), keyed=True)


def _as_text(path: Path, name: str, value: Any, lists: bool) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, (bytes, bytearray)) or (isinstance(value, dict) and "bytes" in value):
        raise HTRError(f"{path} holds pictures, in its column {name}: write them as files, and a table of their names")
    if lists and isinstance(value, (list, tuple)) and len(value) == 1 and isinstance(value[0], str):
        return value[0].strip()
    return value.strip() if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _of_studio(path: Path, tasks: Sequence[dict[str, Any]]) -> Cells:
    """Tasks of Label Studio's JSON: a picture in `data`, texts in the results of its annotations."""
    cells = Cells([["image", "transcription"]], [0], keyed=True)
    for number, task in enumerate(tasks, 1):
        data = task["data"] if isinstance(task["data"], dict) else {}
        names = [str(each) for each in data.values() if isinstance(each, str)]
        pictures = [name for name in names if has_suffix(name.split("?d=")[-1])] or names
        if len(pictures) != 1:
            raise HTRError(f"{path}, task {number}: it names {len(pictures)} pictures: one a task is understood")
        written = [each for each in task.get("annotations") or task.get("completions") or [] if isinstance(each, dict)]
        written = [each for each in written if not each.get("was_cancelled")]
        texts = [_studio_texts(each.get("result") or []) for each in written]
        if not texts:
            cells.dropped["without an annotation"] += 1
        elif any(len(each) > 1 for each in texts):
            cells.dropped["with several texts for one picture"] += 1
        else:
            for each in texts:
                cells.rows.append([pictures[0], each[0] if each else ""])
                cells.lines.append(number)
    return cells


def _studio_texts(results: Sequence[Any]) -> list[str]:
    """All texts that an annotation holds."""
    found = []
    for result in results:
        value = result.get("value") if isinstance(result, dict) else None
        text = value.get("text") if isinstance(value, dict) else None
        if isinstance(text, str):
            found.append(text.strip())
        elif isinstance(text, list):
            found += [str(each).strip() for each in text]
    return found


def unpacked(cell: str) -> list[str] | None:
    """The texts of a cell in which Label Studio lists them, `["Haus"]`; None where it is no such list."""
    if cell.startswith("["):
        try:
            value = json.loads(cell)
        except ValueError:
            return None
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            return [each.strip() for each in value]
    return None
