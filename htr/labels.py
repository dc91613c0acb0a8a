"""Labels: the texts of images, read from tables, cleaned, and written as ids of an alphabet."""

import codecs
import csv
import gzip
import os
import re
import unicodedata
import warnings
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from htr.direction import USUAL, to_logical, to_visual, usual_ways
from htr.names import has_suffix
from htr.scripts import HTRError, printable

if TYPE_CHECKING:  # imported where a table is read, as it is slow to import
    import pandas as pd

# What other tools call the columns of a label table, in any case; the first one there counts.
PICTURE_COLUMNS = ("filename", "file_name", "file", "image", "image_path", "path", "img")
TEXT_COLUMNS = ("identity", "text", "label", "transcription", "transcript", "ground_truth", "words")

UTF8 = "utf-8-sig"  # with or without a byte order mark

# What nobody can see: control characters, and Unicode's Default_Ignorable_Code_Point without the two joiners, which
# show between letters of Arabic and Indic scripts, and only there.
INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
    "|(?<![\u0600-\u1cff])[\u200c\u200d]|[\u200c\u200d](?![\u0600-\u1cff])"
)
# One sign in two codes: ligatures and forms of letters, which are letters; hyphens that break lines or do not.
SAME_SIGN = re.compile("[\ufb00-\ufdff\ufe70-\ufefc\u2010\u2011]")


class Alphabet:
    """The characters that a network knows; a character's id is its position, from 0.

    characters: a string of distinct ones. ways: how texts from right to left are found again in the order of their ids,
    which is that of the picture, see `htr.direction`; empty where ids have the order of the texts.
    """

    def __init__(self, characters: str, ways: Sequence[int] = USUAL):
        if len(set(characters)) != len(characters):
            raise ValueError("an alphabet names each character once")
        if not set(ways) <= set(USUAL):
            raise ValueError(f"{ways} are no ways to turn a text")
        self.characters, self.ways = characters, tuple(ways)
        self._ids = {character: i for i, character in enumerate(characters)}

    @classmethod
    def of(cls, texts: Iterable[str], visual_order: bool = True) -> "Alphabet":
        """The characters of these texts, which with `visual_order` are pictured from left to right."""
        texts = set(texts)
        pictured = map(to_visual, texts) if visual_order else texts
        return cls("".join(sorted(set().union(*pictured))), usual_ways(sorted(texts)) if visual_order else ())

    def grown(self, other: "Alphabet") -> "Alphabet":
        """With the characters of another one after its own, and the other's way of writing."""
        new = (character for character in other.characters if character not in self._ids)
        return Alphabet(self.characters + "".join(new), other.ways)

    def like(self, character: str) -> str | None:
        """A character that looks like one that may be missing: in the other case, or without its accent."""
        plain = unicodedata.normalize("NFD", character)[0]
        alike = (character, character.upper(), character.lower(), plain, plain.upper(), plain.lower())
        return next((each for each in alike if each in self._ids), None)

    def __len__(self) -> int:
        return len(self.characters)

    def pictured(self, text: str) -> str:
        """A text in the order of its ids."""
        return to_visual(text) if self.ways else text

    def knows(self, text: str) -> bool:
        return all(character in self._ids for character in self.pictured(text))

    def encode(self, text: str) -> list[int]:
        """Text to ids. Raises KeyError for a character that the alphabet lacks."""
        return [self._ids[character] for character in self.pictured(text)]

    def decode(self, ids: Iterable[int]) -> str:
        return self.decode_in_order(ids)[0]

    def decode_in_order(self, ids: Iterable[int]) -> tuple[str, list[int]]:
        """Ids to text, and the place among the ids of each of its characters."""
        text = "".join(self.characters[i] for i in ids)
        return to_logical(text, self.ways) if self.ways else (text, list(range(len(text))))


def clean_label(label: str, uppercase: bool) -> str:
    """A label as it is compared: texts that look the same are the same.

    NFC, without invisible characters, letters for their ligatures and forms, white space collapsed and stripped; in
    capitals if asked for, where both ß and its capital are SS.
    """
    if not label.isascii():
        label = INVISIBLE.sub("", unicodedata.normalize("NFC", label))
        label = SAME_SIGN.sub(_plain_sign, label)
    elif not label.isprintable():
        label = INVISIBLE.sub("", label)
    label = unicodedata.normalize("NFC", " ".join(label.split()))
    return unicodedata.normalize("NFC", label.upper().replace("\u1e9e", "SS")) if uppercase else label


def _plain_sign(match: re.Match) -> str:
    return "-" if match[0] in "\u2010\u2011" else unicodedata.normalize("NFKC", match[0])


class LabelRules:
    """How labels are cleaned, and which of them mean "no text here".

    ignored: the latter, cleaned.
    """

    def __init__(self, uppercase: bool, ignored: Iterable[str] = ()):
        self.uppercase = uppercase
        self.ignored = {clean_label(label, uppercase) for label in ignored}

    def clean(self, label: str) -> str:
        return clean_label(label, self.uppercase)

    def hold_text(self, cleaned: str) -> bool:
        """Whether a cleaned label is a text, neither blank nor ignored."""
        return bool(cleaned) and cleaned not in self.ignored


# ------------------------------------------------------------------------------------------------ tables


@dataclass
class Layout:
    """How a table is written.

    skipped: lines before it. first, second: the cells of its first two rows.
    """

    encoding: str
    separator: str
    skipped: int
    first: list[str]
    second: list[str]


def read_table(path: str | os.PathLike, layout: Layout, header: bool) -> "pd.DataFrame":
    """Read a table as it is laid out, see `layout_of`; all cells are text.

    header: whether its first row names the columns. Raises HTRError, naming the line where it can, where the file
    cannot be read.
    """
    import pandas as pd

    path = Path(path)
    options = {"dtype": str, "keep_default_na": False, "index_col": False, "skipinitialspace": True}
    options |= {"encoding": layout.encoding, "sep": layout.separator, "skiprows": layout.skipped}
    options |= {"header": 0 if header else None, "compression": "gzip" if path.suffix == ".gz" else None}
    try:
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):  # where it drops cells
            table = pd.read_csv(path, **options)
    except UnicodeError as error:
        line = f", line {_first_line_not_in_utf8(path)}" if layout.encoding == UTF8 else ""
        raise HTRError(f"{path}{line}: this is not UTF-8; save the file as a CSV in UTF-8") from error
    except (OSError, ValueError, EOFError, zlib.error, pd.errors.ParserWarning) as error:
        raise _unreadable(path, error) from error
    table.columns = table.columns.map(str).str.strip()
    return table.fillna("")  # a short row lacks cells whatever the options


def _unreadable(path: Path, error: Exception) -> HTRError:
    if isinstance(error, OSError):
        return HTRError(f"{path} cannot be read: {error.strerror or error}")
    reason = str(error).strip().removeprefix("Error tokenizing data. C error: ")
    if "EOF inside string starting at row" in reason:
        reason = f"in line {int(reason.split()[-1]) + 1} a quote is opened and never closed"
    if "loss of data" in reason:
        reason = "its rows have more cells than its first line"
    return HTRError(f"{path} cannot be read as a CSV in UTF-8: {reason}")


def _open_bytes(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.suffix == ".gz" else open(path, "rb")


def layout_of(path: Path) -> Layout:
    """How a table is written, from its first lines: in UTF-8 or UTF-16, with commas, semicolons or tabs.

    Raises HTRError where it cannot be read.
    """
    try:
        with _open_bytes(path) as file:
            head = file.read(1_000_000)
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error
    zeros = (head[:200:2].count(0), head[1:200:2].count(0))  # every other byte of western text in UTF-16
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif max(zeros) > len(head[:200]) / 8 and min(zeros) == 0:
        encoding = "utf-16-be" if zeros[0] else "utf-16-le"
    else:
        encoding = UTF8
    text = codecs.getincrementaldecoder(encoding)("replace").decode(head)
    lines = [line for line in text.splitlines() if line.strip()][:3]
    separators, skipped = ",;\t", 0
    if lines and (said := re.fullmatch(r'"?sep=([,;|\t])"?', lines[0].strip(" "))):  # a line of Excel's own
        separators, skipped = said[1], 1
        lines = lines[1:]
    first = lines[0] if lines else ""
    separator = max(separators, key=lambda each: (_starts_like_labels(first, each), first.count(each)))
    return Layout(encoding, separator, skipped, *(_cells(line, separator) for line in [*lines, "", ""][:2]))


def _cells(line: str, separator: str) -> list[str]:
    cells = next(csv.reader([line[:10_000]], delimiter=separator, skipinitialspace=True, strict=False), [])
    return [cell.strip() for cell in cells]


def _starts_like_labels(line: str, separator: str) -> bool:
    """Whether the first cell is that of a label table: a column's name or a picture's."""
    first, *others = _cells(line, separator) or [""]
    return bool(others) and (has_suffix(first) or _plain_name(first) in PICTURE_COLUMNS + TEXT_COLUMNS)


def _first_line_not_in_utf8(path: Path) -> int:
    with _open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    raise AssertionError("every line is UTF-8")


def _plain_name(column: str) -> str:
    return re.sub(r"[\s-]+", "_", column.strip().casefold())


def find_column(columns: Sequence[str], known: Sequence[str]) -> int | None:
    """The place of the first of the `known` columns that there is, in any case."""
    names = [_plain_name(column) for column in columns]
    return next((names.index(name) for name in known if name in names), None)


def has_header(layout: Layout) -> bool:
    """Whether the first row of a label table names its columns; without a header these are picture and text."""
    if len(layout.first) > 1 and has_suffix(layout.first[0]):
        return False
    if any(find_column(layout.first, names) is not None for names in (PICTURE_COLUMNS, TEXT_COLUMNS)):
        return True
    return len(layout.first) != 2 or any(map(has_suffix, [*layout.first, *layout.second[:1]]))


def label_columns(path: str | os.PathLike) -> str:
    """The names of the picture's and the text's column of a table that `read_labels` has read."""
    layout = layout_of(Path(path))
    if not has_header(layout):
        return "no header"
    places = (find_column(layout.first, names) for names in (PICTURE_COLUMNS, TEXT_COLUMNS))
    return "columns " + " and ".join(layout.first[place] for place in places)


def read_labels(path: str | os.PathLike) -> "pd.DataFrame":
    """Read a label table into one with the columns FILENAME and IDENTITY, all text as it stands.

    Its columns have one of the names in PICTURE_COLUMNS and TEXT_COLUMNS, or it has no header. Raises HTRError where
    the file cannot be read, has other columns, or has a cell that swallowed other rows.
    """
    path = Path(path)
    layout = layout_of(path)
    header = has_header(layout)
    table = read_table(path, layout, header)
    places = [find_column(table.columns, names) for names in (PICTURE_COLUMNS, TEXT_COLUMNS)] if header else [0, 1]
    if None in places:
        what, known = ("pictures", PICTURE_COLUMNS) if places[0] is None else ("texts", TEXT_COLUMNS)
        raise HTRError(
            f"{path} has no column that is known to hold {what}: it has {printable(', '.join(table.columns), 200)};"
            f" call it {known[0].upper()}, {', '.join(known[1:-1])} or {known[-1]}"
        )
    if not header and (table.iloc[:, 2:] == "").any(axis=None):
        line = (table.iloc[:, 2:] == "").any(axis=1).idxmax() + 1 + layout.skipped
        raise HTRError(
            f"{path}, line {line}: not all rows have the same number of cells; put texts that hold a"
            f" {layout.separator!r} in quotes, or name the columns in a first row"
        )
    table = table.iloc[:, places].set_axis(["FILENAME", "IDENTITY"], axis=1)
    for column in table:
        swallowed = table[column].str.contains("\n[^\n]*[,;\t]", regex=True)
        if swallowed.any():
            line = swallowed.idxmax() + 1 + header + layout.skipped
            cell = table[column][swallowed.idxmax()].split("\n")[0]
            raise HTRError(
                f"{path}, line {line}: a quote is opened before {printable(cell, 80)!r} and closed"
                " only in a later row; remove it, or double it"
            )
    return table
