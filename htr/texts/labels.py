"""Labels: the texts of images, read from tables, cleaned, and written as ids of an alphabet."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from htr.system.names import has_suffix
from htr.system.scripts import HTRError, printable
from htr.texts.cells import STUDIO_COLUMNS, plain_name, read_cells, unpacked
from htr.texts.direction import USUAL, to_logical, to_visual, usual_ways

# What other tools call the columns of a label table, in any case.
PICTURE_COLUMNS = ("filename", "file_name", "file", "image", "image_path", "path", "img")
TEXT_COLUMNS = ("identity", "text", "label", "transcription", "transcript", "ground_truth", "words")
SET_COLUMNS = ("split", "subset", "set", "partition", "fold")  # in which a row may say what it is for:
SETS = {"train": "train", "training": "train", "tr": "train", "val": "validation", "valid": "validation",
        "validation": "validation", "dev": "validation", "eval": "validation", "test": "test",
        "testing": "test"}  # fmt: skip

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
    which is that of the picture, see `htr.texts.direction`; empty where ids have the order of the texts.
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


class Columns(NamedTuple):
    """The columns of a label table that the user names; "" where the table's header is to tell."""

    picture: str = ""
    text: str = ""


ANY = Columns()


@dataclass
class LabelTable:
    """What labels pictures, with all else that its file holds.

    columns: their names, empty where there is no header. rows: their cells, as they stand. picture, text: the places
    of the two columns that matter. sets: of each row, "train", "validation", "test" or another name; None where there
    is no such column. separator: as in `htr.texts.cells.Cells`. notes: how it was understood, a sentence each.
    unusable: the places of rows that are no labels; dropped: these and others that are not among the rows, by reason.
    """

    columns: list[str]
    rows: list[list[str]]
    picture: int
    text: int
    sets: list[str] | None = None
    separator: str = ","
    notes: list[str] = field(default_factory=list)
    dropped: Counter = field(default_factory=Counter)
    unusable: set[int] = field(default_factory=set)

    def labels(self) -> list[tuple[str, str]]:
        """The (picture's name, text) of each row."""
        return [(row[self.picture], row[self.text]) for row in self.rows]

    def __str__(self) -> str:
        if not self.columns:
            return "no header"
        return f"columns {self.columns[self.picture]} and {self.columns[self.text]}"


def find_column(columns: Sequence[str], known: Sequence[str]) -> int | None:
    """The place of the first of the `known` columns that there is, in any case."""
    names = [plain_name(column) for column in columns]
    return next((names.index(name) for name in known if name in names), None)


def has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row of a label table names its columns; without a header these are picture and text."""
    first, second = rows[0], rows[1] if len(rows) > 1 else []
    if len(first) > 1 and has_suffix(first[0]):
        return False
    if any(find_column(first, names) is not None for names in (PICTURE_COLUMNS, TEXT_COLUMNS)):
        return True
    return len(first) != 2 or any(map(has_suffix, [*first, *second[:1]]))


def read_labels(path: str | os.PathLike, columns: Columns = ANY) -> LabelTable:
    """Read a label table, in any shape that `htr.texts.cells.read_cells` reads.

    Its columns have one of the names in PICTURE_COLUMNS and TEXT_COLUMNS, or those that `columns` names, or it has no
    header. Raises HTRError where the file cannot be read, has other columns or several that could be meant, or has
    cells that belong to no column.
    """
    cells = read_cells(path, PICTURE_COLUMNS + TEXT_COLUMNS)
    rows, table = cells.rows, LabelTable([], cells.rows, 0, 1, None, cells.separator, cells.notes, cells.dropped)
    if not (cells.keyed or any(columns) or has_header(rows)):
        if len(rows[0]) != 2:
            line = next(line for row, line in zip(rows, cells.lines, strict=True) if any(row[2:]) or len(row) < 2)
            raise HTRError(
                f"{path}, line {line}: without a header, a row is a picture and its text: put texts that hold a"
                f" {cells.separator!r} in quotes, or name the columns in a first row"
            )
        return table
    table.columns, table.rows, lines = rows[0], rows[1:], cells.lines[1:]
    named = max((place + 1 for place, name in enumerate(table.columns) if name), default=0)
    for row, line in zip(table.rows, lines, strict=True):
        if any(row[named:]):
            raise HTRError(
                f"{path}, line {line}: it has more cells than the first line names, such as"
                f" {printable(next(filter(None, row[named:])), 80)!r}: put texts that hold a {cells.separator or ','!r}"
                " in quotes"
            )
    table.picture = _chosen(path, table, "pictures", PICTURE_COLUMNS, columns.picture)
    table.text = _chosen(path, table, "texts", TEXT_COLUMNS, columns.text)
    _unpack_studio(table)
    _find_sets(table)
    return table


def _chosen(path: str | os.PathLike, table: LabelTable, what: str, known: Sequence[str], named: str) -> int:
    """The place of the column that holds `what`. Raises HTRError where there is none, or several that differ."""
    flag = f"--{what[:-1]}-column"
    has = f"it has {printable(', '.join(table.columns), 200)}"
    if named:
        exact = [place for place, name in enumerate(table.columns) if name == named]
        places = exact or [n for n, name in enumerate(table.columns) if plain_name(name) == plain_name(named)]
        if len(places) != 1:
            raise HTRError(f"{path} has {len(places) or 'no'} column{'s' * (len(places) > 1)} {named!r}: {has}")
        return places[0]
    places = [place for place, name in enumerate(table.columns) if plain_name(name) in known]
    contents = {place: tuple(row[place] for row in table.rows) for place in places}
    places = [place for place in places if any(contents[place])] or places[:1]
    if not places:
        raise HTRError(
            f"{path} has no column that is known to hold {what}: {has}; call it {known[0].upper()},"
            f" {', '.join(known[1:-1])} or {known[-1]}, or name it with {flag}"
        )
    if len({contents[place] for place in places}) > 1:
        examples = (next(filter(None, contents[place])) for place in places)
        choices = [f"{table.columns[n]} ({printable(text, 40)!r})" for n, text in zip(places, examples, strict=True)]
        raise HTRError(
            f"{path} has several columns that could hold the {what}, {' and '.join(choices)}: choose one with"
            f" {flag} {printable(table.columns[places[-1]], 40)}"
        )
    return places[0]


def _unpack_studio(table: LabelTable) -> None:
    """Texts of a table of Label Studio, which lists those of a picture: `["Haus"]`."""
    if not STUDIO_COLUMNS & set(map(plain_name, table.columns)):
        return
    for place, row in enumerate(table.rows):
        texts = unpacked(row[table.text])
        if texts is not None and len(texts) > 1:
            table.dropped["with several texts for one picture"] += 1
            table.unusable.add(place)
        elif texts is not None:
            row[table.text] = "".join(texts)


def _find_sets(table: LabelTable) -> None:
    """Which set each row belongs to, where a column says so."""
    for place, name in enumerate(table.columns):
        if plain_name(name) not in SET_COLUMNS or place in (table.picture, table.text):
            continue
        values = [row[place] for row in table.rows]
        sets = [SETS.get(value.casefold(), value) for value in values]
        if set(sets) & {"train", "validation", "test"}:
            table.sets = [each or "train" for each in sets]
            counts = Counter(value or "without one, which train" for value in values)
            table.notes.append(f"sets by column {name}: {', '.join(f'{n:,} {each}' for each, n in counts.items())}")
            return
        if any(values):
            some = ", ".join(list(dict.fromkeys(filter(None, values)))[:3])
            table.notes.append(f"column {name} names no train, validation or test set, but {some}: all rows are used")
