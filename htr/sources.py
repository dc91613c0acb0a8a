"""Labelled pictures in the shape in which people have them: which tables or texts belong to a folder.

In this order: the Kaggle dataset's tree; tables of a training and a validation set; one table, or pairs of a picture
and a text (x.png and x.gt.txt, as of kraken, OCRopus, Tesseract and Calamari), which are split later.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from htr.files import list_files
from htr.labels import label_columns, read_labels
from htr.names import has_suffix, without_suffix
from htr.scripts import HTRError, printable

WAY_OUT = (
    "the dataset is 'Handwriting Recognition' on Kaggle (landlord/handwriting-recognition): name its folder with"
    " --data-dir, or use --demo to draw a small dataset without a download"
)
TABLES = ("labels.csv", "metadata.csv", "data.csv", "gt.txt")  # the first names that a table is looked for by
TABLE_SUFFIXES = (".csv", ".tsv")
NO_LABELS = ("predictions.csv",)  # tables that this program writes
PAIRED = ".gt.txt"
BINARISED = (".bin", ".nrm")  # what OCRopus adds to a picture's name


@dataclass
class Source:
    """Labelled pictures, or those of one set.

    name: of the table or folder, for messages. rows: (picture's name, text) as they stand. base: the folder that names
    are relative to first. folder: all pictures are below it. columns: of the table, "" where it has no header. whole:
    whether the rows are all there are, without a split.
    """

    name: str
    rows: list[tuple[str, str]]
    base: Path
    folder: Path
    columns: str = ""
    whole: bool = False

    def __str__(self) -> str:
        return f"{self.name}{f' ({self.columns})' if self.columns else ''}, {len(self.rows):,} rows"


def kaggle_tables(data_dir: str | os.PathLike, split: str) -> list[Path]:
    """Where the Kaggle dataset has the label table of a split (train, validation, test), in any of its layouts."""
    names = (f"written_name_{split}.csv", f"written_name_{split}_v2.csv")
    return [folder / name for folder in (Path(data_dir, "CSV"), Path(data_dir)) for name in names]


def kaggle_folders(data_dir: str | os.PathLike, split: str) -> list[Path]:
    """Where the Kaggle dataset has the images of a split, nested or flat."""
    return [Path(data_dir, f"{split}_v2", split), Path(data_dir, f"{split}_v2")]


def first_existing(candidates: Sequence[Path], what: str) -> Path:
    """Raises HTRError, with all paths tried and a way out, where there is none."""
    for path in candidates:
        if path.exists():
            return path
    tried = ", ".join(str(path) for path in candidates)
    raise HTRError(f"no {what} found; tried {tried}; {WAY_OUT}")


def find_source(data_dir: str | os.PathLike, split: str) -> Source:
    """The labelled pictures of a split (train or validation), or all where there is no split.

    `data_dir` is a folder or the table itself. Raises HTRError where there are no labels, or several that could be
    meant.
    """
    folder = Path(data_dir)
    if folder.is_file():
        return table_source(folder, folder.parent, whole=True)
    kaggle = kaggle_tables(folder, split)
    if any(path.exists() for each in ("train", "validation") for path in kaggle_tables(folder, each)):
        table = first_existing(kaggle, f"label file of the {split} set")
        return table_source(table, first_existing(kaggle_folders(folder, split), f"image folder of the {split} set"))
    train, validation = _named(folder, ("train",)), _named(folder, ("validation", "val"))
    if train and validation:
        return table_source(_only_one(folder, train if split == "train" else validation), folder)
    source = whole_source(folder)
    if source is None:
        looked_for = [*(path.relative_to(folder).as_posix() for path in kaggle), "train.csv with validation.csv"]
        raise HTRError(
            f"no label file of the {split} set found in {folder}; looked for {', '.join([*looked_for, *TABLES])}, any"
            f" single table, and pairs x.png + x{PAIRED}; {WAY_OUT}"
        )
    return source


def whole_source(folder: Path) -> Source | None:
    """What labels the pictures below a folder without a split: one table, or pairs; None where nothing does.

    Raises HTRError where several could be meant.
    """
    tables = [folder / name for name in TABLES if (folder / name).is_file()] or _named(folder, ("train",))
    if not tables:
        others = sorted(path for path in _files(folder) if path.suffix.lower() in TABLE_SUFFIXES)
        tables = [path for path in others if path.name not in NO_LABELS]
    files = list_files(folder).files if folder.is_dir() else []
    texts = [name for name in files if name.endswith(PAIRED)]
    if tables and texts:
        raise HTRError(
            f"{folder} has a table, {tables[0].name}, and {len(texts):,} texts beside pictures, such as"
            f" {printable(texts[0], 200)}: name the table itself to use it, or move it away"
        )
    if tables:
        return table_source(_only_one(folder, tables), folder, whole=True)
    return pairs_source(folder, files, texts) if texts else None


def labels_of(path: Path) -> Source:
    """The labels that a table holds, or a folder without a split. Raises HTRError where there are none."""
    if not path.is_dir():
        return table_source(path, path.parent)
    source = whole_source(path)
    if source is None:
        raise HTRError(f"{path} holds no labels: neither one of {', '.join(TABLES)}, nor a single table, nor x{PAIRED}")
    return source


def _files(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    except OSError:
        return []


def _named(folder: Path, stems: Iterable[str]) -> list[Path]:
    paths = (folder / f"{stem}{suffix}" for stem in stems for suffix in TABLE_SUFFIXES)
    return [path for path in paths if path.is_file()]


def _only_one(folder: Path, tables: Sequence[Path]) -> Path:
    if len(tables) > 1:
        names = ", ".join(path.name for path in tables[:-1])
        raise HTRError(
            f"{folder} has several tables that could be meant, {names} and {tables[-1].name}: name one of them instead"
            " of the folder"
        )
    return tables[0]


def table_source(path: Path, folder: Path, whole: bool = False) -> Source:
    """What a label table says of the pictures below a folder. Raises HTRError where it cannot be read."""
    table = read_labels(path)
    rows = list(zip(table["FILENAME"], table["IDENTITY"], strict=True))
    return Source(str(path), rows, path.parent, folder, label_columns(path), whole)


def pairs_source(folder: Path, files: Sequence[str], texts: Sequence[str]) -> Source:
    """Pictures among the files below a folder, with `texts`, the files that hold theirs.

    Raises HTRError where one of these cannot be read.
    """
    pictures = defaultdict(list)
    for name in filter(has_suffix, files):
        stem = without_suffix(name)
        pictures[stem].append(name)
        for ending in BINARISED:
            if stem.endswith(ending):
                pictures[stem.removesuffix(ending)].append(name)
    rows = []
    for name in texts:
        try:
            text = (folder / name).read_text(encoding="utf-8-sig")
        except OSError as error:
            raise HTRError(f"{folder / name} cannot be read: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise HTRError(f"{folder / name}: this is not UTF-8; save it as UTF-8") from error
        stem = name.removesuffix(PAIRED)
        beside = [each for each in pictures[stem] if without_suffix(each) == stem] or pictures[stem]
        rows.append((beside[0] if len(beside) == 1 else stem, text))
    return Source(str(folder), rows, folder, folder, f"pictures with {PAIRED}", True)
