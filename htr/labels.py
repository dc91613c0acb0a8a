"""Labels: the texts of images, read from tables, cleaned, and written as ids of an alphabet."""

import gzip
import os
import unicodedata
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING

from htr.scripts import HTRError, printable

if TYPE_CHECKING:  # imported where a table is read, as it is slow to import
    import pandas as pd


class Alphabet:
    """The characters that a network knows; a character's id is its position, from 0.

    `characters` is a string of distinct characters.
    """

    def __init__(self, characters: str):
        if len(set(characters)) != len(characters):
            raise ValueError("an alphabet names each character once")
        self.characters = characters
        self._ids = {character: i for i, character in enumerate(characters)}

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Alphabet":
        return cls("".join(sorted(set().union(*texts))))

    def __len__(self) -> int:
        return len(self.characters)

    def knows(self, text: str) -> bool:
        return all(character in self._ids for character in text)

    def encode(self, text: str) -> list[int]:
        """Text to ids. Raises KeyError for a character that the alphabet lacks."""
        return [self._ids[character] for character in text]

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(self.characters[i] for i in ids)


def clean_label(label: str, uppercase: bool) -> str:
    """A label as it is compared: NFC, white space collapsed and stripped, in capitals if asked for."""
    label = " ".join(unicodedata.normalize("NFC", label).split())
    return unicodedata.normalize("NFC", label.upper()) if uppercase else label


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


def read_table(path: str | os.PathLike) -> "pd.DataFrame":
    """Read a CSV in UTF-8, separated by commas, semicolons or tabs as its first line is; all cells are text.

    Raises HTRError, naming the line where it can, where the file cannot be read.
    """
    import pandas as pd

    path = Path(path)
    options = {"dtype": str, "keep_default_na": False, "encoding": "utf-8-sig", "index_col": False}
    options["compression"] = "gzip" if path.suffix == ".gz" else None
    try:
        with _open_bytes(path) as file:
            head = file.readline(1_000_000).decode("latin-1")
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):  # where it drops cells
            table = pd.read_csv(path, sep=max(",;\t", key=head.count), **options)
    except UnicodeDecodeError as error:
        raise HTRError(
            f"{path}, line {_first_line_not_in_utf8(path)}: this is not UTF-8; save the file as a CSV in UTF-8"
        ) from error
    except OSError as error:
        raise HTRError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError, zlib.error, pd.errors.ParserWarning) as error:  # pandas' errors are ValueErrors
        reason = str(error).strip().removeprefix("Error tokenizing data. C error: ")
        if "EOF inside string starting at row" in reason:
            reason = f"in line {int(reason.split()[-1]) + 1} a quote is opened and never closed"
        if "loss of data" in reason:
            reason = "its rows have more cells than its first line"
        raise HTRError(f"{path} cannot be read as a CSV in UTF-8: {reason}") from error
    table.columns = table.columns.str.strip()
    return table.fillna("")  # a short row lacks cells whatever the options


def _open_bytes(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.suffix == ".gz" else open(path, "rb")


def _first_line_not_in_utf8(path: Path) -> int:
    with _open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    raise AssertionError("every line is UTF-8")


def read_labels(path: str | os.PathLike) -> "pd.DataFrame":
    """Read a label CSV into a table with the columns FILENAME and IDENTITY, all text as it stands.

    Raises HTRError where the file cannot be read, lacks a column, or has a cell that swallowed other rows.
    """
    table = read_table(path)
    for column in ("FILENAME", "IDENTITY"):
        if column not in table:
            raise HTRError(f"{path} has no column {column}; it has {printable(', '.join(table.columns), 200)}")
        swallowed = table[column].str.contains("\n[^\n]*[,;\t]", regex=True)
        if swallowed.any():
            cell = table[column][swallowed.idxmax()].split("\n")[0]
            raise HTRError(
                f"{path}, line {swallowed.idxmax() + 2}: a quote is opened before {printable(cell, 80)!r} and closed"
                " only in a later row; remove it, or double it"
            )
    return table[["FILENAME", "IDENTITY"]]
