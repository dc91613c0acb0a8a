"""What is known of pictures before their page of corrections is opened, and the table in which that page saves it all.

Labels are hours of a person's work: what a page saves holds everything that was known, in its old order, with the
columns and the rows that it does not show.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from htr.system.names import Pictures, has_suffix, without_suffix
from htr.system.scripts import HTRError
from htr.texts.labels import ANY, SETS, Columns, LabelRules, LabelTable
from htr.texts.sources import BINARISED, PAIRED, TABLES, Source, folder_table, paired_text, split_tables, table_source

SAVED = "labels.csv"  # what a page saves, unless there was a table
REWRITTEN = (".csv", ".tsv", ".txt")  # tables that a page can save under their own name


@dataclass
class Known:
    """The labels of pictures, and the table that is to hold them.

    name: of the file that is saved. place: where it belongs, for messages. folder: of that place. table: what it holds
    so far. rows_of: for each picture's name, its rows in it, first the one that counts. changed: for each of these
    pictures, when the file that labels it was changed last, in seconds since 1970; for all others, what "" has.
    notes: what there is to say, a sentence each.
    """

    name: str
    place: str
    folder: Path
    table: LabelTable
    rows_of: dict[str, list[int]] = field(default_factory=dict)
    changed: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def name_in_table(self, name: str, path: str | os.PathLike) -> str:
        """What a new row calls a picture: its path from the table's folder, if it lies below that."""
        try:
            return Path(os.path.abspath(path)).relative_to(os.path.abspath(self.folder)).as_posix()
        except ValueError:
            return name


def nothing_known(folder: Path) -> Known:
    """Where pictures of a folder have no labels yet."""
    table = LabelTable(["FILENAME", "IDENTITY"], [], 0, 1)
    return Known(SAVED, f"into the folder of the pictures, {folder}", folder, table)


def known_labels(
    files: Sequence[tuple[str, Path]],
    folders: Sequence[Path],
    rules: LabelRules,
    labels: str | os.PathLike | None = None,
    columns: Columns = ANY,
) -> Known:
    """What is known of pictures (name, path): by `labels`, or by the tables and the texts in their folders.

    Raises HTRError where a table cannot be read, or several could be meant: what a page saved beside it would not be
    the whole.
    """
    if labels is not None and Path(labels).is_file():
        return _of_tables([table_source(Path(labels), Path(labels).parent, columns)], files, folders, rules)
    searched = {os.path.realpath(each): Path(each) for each in (folders if labels is None else [labels])}
    for _, path in files if labels is None else ():
        if os.path.exists(path):
            searched.setdefault(os.path.dirname(os.path.realpath(path)), Path(path).parent)
    sources, notes = [], []
    for folder in searched.values():
        try:
            paths, said = split_tables(folder), []
            if not paths:
                path, said = folder_table(folder)
                paths = [path] if path else []
            sources += [table_source(path, folder, columns) for path in paths]
            notes += said
        except HTRError as error:
            if any((folder / name).is_file() for name in TABLES):
                raise
            notes.append(f"{error}; it is left as it is")
    known = _of_tables(sources, files, folders, rules)
    known.notes = notes + known.notes
    _add_pairs(known, files)
    return known


def _of_tables(
    sources: Sequence[Source], files: Sequence[tuple[str, Path]], folders: Sequence[Path], rules: LabelRules
) -> Known:
    """What tables know of pictures. Several are joined in one; where they differ, the newest counts."""
    if not sources:
        return nothing_known(_common([path for _, path in files], folders))
    sources = sorted(sources, key=lambda source: os.path.getmtime(source.name))
    if len(sources) == 1:
        (source,) = sources
        path, table = Path(source.name), source.table
        if path.suffix.lower() in REWRITTEN and table.separator:
            known = Known(path.name, f"in the place of {path}", path.parent, table)
        else:
            table.separator = ","
            known = Known(SAVED, f"into {path.parent}, and move {path.name} away", path.parent, table)
    else:
        folder = Path(os.path.commonpath([os.path.abspath(source.base) for source in sources]))
        known = Known(SAVED, f"into {folder}, and move the other tables away", folder, _joined(sources, folder))
    if not known.table.columns and not all(has_suffix(name) for name, _ in known.table.labels()):
        known.table.columns = ["FILENAME", "IDENTITY"]  # or a text might be taken for a header's
    start = 0
    for source in sources:
        matches = Pictures(files, ([source.base], folders, ("",))).match(name for name, _ in source.table.labels())
        changed = os.path.getmtime(source.name)
        known.changed[""] = max(changed, known.changed.get("", 0))
        for number, place in enumerate(matches.places, start):
            if place is not None and number - start not in source.table.unusable:
                known.rows_of.setdefault(files[place][0], []).append(number)
                known.changed[files[place][0]] = changed
        start += len(matches.places)
        known.notes += [f"{source.name}: {note}" for note in source.notes]
    for rows in known.rows_of.values():
        newest = rows if len(sources) == 1 else rows[::-1]
        texts = {row: rules.clean(known.table.rows[row][known.table.text]) for row in rows}
        rows[:] = sorted(newest, key=lambda row: (not rules.hold_text(texts[row]), not texts[row]))
    return known


def _joined(sources: Sequence[Source], folder: Path) -> LabelTable:
    """The tables of several folders as one, whose names are relative to `folder`."""
    others = dict.fromkeys(
        name
        for source in sources
        for place, name in enumerate(source.table.columns)
        if name and place not in (source.table.picture, source.table.text)
    )
    others = [name for name in others if name not in ("FILENAME", "IDENTITY")]
    stems = {source.name: Path(source.name).stem for source in sources}
    sets = {name: SETS[stem] for name, stem in stems.items() if stem in ("train", "validation", "val")}
    if sets:  # what the names of two tables say, a column does
        others = [*(name for name in others if name != "split"), "split"]
    rows = []
    for source in sources:
        columns, below = source.table.columns, Path(os.path.relpath(source.base, folder))
        for (name, text), row in zip(source.table.labels(), source.table.rows, strict=True):
            joined = (below / name).as_posix() if (source.base / name).exists() else name
            cells = dict(zip(columns, row, strict=True)) if columns else {}
            cells |= {"split": sets[source.name]} if source.name in sets else {}
            rows.append([joined, text, *(cells.get(column, "") for column in others)])
    return LabelTable(["FILENAME", "IDENTITY", *others], rows, 0, 1)


def _add_pairs(known: Known, files: Sequence[tuple[str, Path]]) -> None:
    """What texts beside pictures say (x.png and x.gt.txt), where no table says it later."""
    table = known.table
    for name, path in files:
        stem = without_suffix(os.fspath(path))
        stems = (stem, *(stem.removesuffix(ending) for ending in BINARISED if stem.endswith(ending)))
        beside = next((each for stem in stems if (each := Path(stem + PAIRED)).is_file()), None)
        if beside is None:
            continue
        text, changed = " ".join(paired_text(beside).split()), os.path.getmtime(beside)
        rows = known.rows_of.get(name)
        if rows is None:
            row = [""] * max(2, len(table.columns))
            row[table.picture], row[table.text] = known.name_in_table(name, path), text
            known.rows_of[name], known.changed[name] = [len(table.rows)], changed
            table.rows.append(row)
        elif changed > known.changed[name] and table.rows[rows[0]][table.text] != text:
            known.notes.append(f"{beside} is newer than the table that labels {name} otherwise, and is taken")
            table.rows[rows[0]][table.text], known.changed[name] = text, changed


def _common(paths: Sequence[Path], folders: Sequence[Path]) -> Path:
    """The folder of pictures."""
    if len(folders) == 1:
        return folders[0]
    parents = [os.path.dirname(os.path.abspath(path)) for path in paths if os.path.exists(path)]
    common = Path(os.path.commonpath(parents)) if parents else Path.cwd()
    return common.relative_to(Path.cwd()) if common.is_relative_to(Path.cwd()) else common
