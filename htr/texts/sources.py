"""Labelled pictures in the shape in which people have them: which tables or texts belong to a folder.

In this order: the Kaggle dataset's tree; tables of a training and a validation set; one table, pairs of a picture and a
text (x.png and x.gt.txt, as of kraken, OCRopus, Tesseract and Calamari), or pages with ALTO or PAGE XML, which are
split later.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from htr.system.files import Listing, links_out, list_files
from htr.system.names import has_suffix, is_no_data, without_suffix
from htr.system.scripts import HTRError, printable
from htr.texts.cells import TABLE_SUFFIXES
from htr.texts.labels import ANY, Columns, LabelTable, read_labels
from htr.texts.pages import PageLines, PageRules, Pages, find_pages, lines_of, page_files

WAY_OUT = (
    "the dataset is 'Handwriting Recognition' on Kaggle (landlord/handwriting-recognition): name its folder with"
    " --data-dir, or use --demo to draw a small dataset without a download"
)
TABLES = ("labels.csv", "metadata.csv", "metadata.jsonl", "data.csv", "gt.txt")  # that are looked for first
# A further download, by any browser: "labels (1).csv", "labels(1).csv"; of labels also "labels-1.csv", "labels 2.csv".
DOWNLOAD = re.compile(r"(?:(.+?) ?\(\d+\)|(labels)[ -]\d+)(\.\w+)")
SET_REASONS = {"train": "for training", "validation": "for validation", "test": "for testing"}
PAIRED = ".gt.txt"
PLAIN = PageRules()
BINARISED = (".bin", ".nrm")  # what OCRopus adds to a picture's name


@dataclass
class Source:
    """Labelled pictures, or those of one set.

    name: of the table or folder, for messages. rows: (picture's name, text) as they stand. base: the folder that names
    are relative to first. folder: all pictures are below it. understood: which columns of a table count. whole: whether
    the rows are all there are, without a split. left_out: rows that are no labels or of another set, by reason. notes:
    what there is to say, a sentence each. table: where the rows come from, None where each has a file of its own.
    pages, lines: what the rows are the texts of, where they come from ALTO or PAGE files.
    """

    name: str
    rows: list[tuple[str, str]]
    base: Path
    folder: Path
    understood: str = ""
    whole: bool = False
    left_out: Counter = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    table: LabelTable | None = None
    pages: Pages | None = None
    lines: PageLines | None = None

    @property
    def unit(self) -> str:
        """What its rows are."""
        return "lines" if self.pages else "rows"

    def __str__(self) -> str:
        count = len(self.rows) + sum(self.left_out.values())
        return f"{self.name}{f' ({self.understood})' if self.understood else ''}, {count:,} {self.unit}"


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


def find_source(data_dir: str | os.PathLike, split: str, columns: Columns = ANY, rules: PageRules = PLAIN) -> Source:
    """The labelled pictures of a split (train or validation), or all where there is no split.

    `data_dir` is a folder or the table itself. Raises HTRError where there are no labels, or several that could be
    meant.
    """
    folder = Path(data_dir)
    if folder.is_file():
        return table_source(folder, folder.parent, columns, split, whole=True)
    kaggle = kaggle_tables(folder, split)
    if any(path.exists() for each in ("train", "validation") for path in kaggle_tables(folder, each)):
        table = first_existing(kaggle, f"label file of the {split} set")
        images = first_existing(kaggle_folders(folder, split), f"image folder of the {split} set")
        return table_source(table, images, columns, split)
    if tables := split_tables(folder):
        return table_source(tables[split != "train"], folder, columns, split)
    source = _folders_source(folder, split, columns, rules) or whole_source(folder, columns, split, rules)
    if source is None:
        looked_for = [*(path.relative_to(folder).as_posix() for path in kaggle), "train.csv with validation.csv"]
        raise HTRError(
            f"no label file of the {split} set found in {folder}; looked for {', '.join([*looked_for, *TABLES])}, any"
            f" single table, pairs x.png + x{PAIRED}, and pages with ALTO or PAGE XML; {WAY_OUT}"
        )
    return source


def split_tables(folder: Path) -> list[Path]:
    """The tables of the training and the validation set, where a folder has both.

    Raises HTRError where several could be meant.
    """
    train, validation = _named(folder, ("train",)), _named(folder, ("validation", "val"))
    if not (train and validation):
        return []
    if saved := [
        path for path in _files(folder) if path.name == TABLES[0] or _download_of(path, ()) == folder / TABLES[0]
    ]:
        _only_one(folder, [*train, *validation, *saved])  # a page's labels are never passed over
    return [_only_one(folder, train), _only_one(folder, validation)]


def _folders_source(folder: Path, split: str, columns: Columns, rules: PageRules) -> Source | None:
    """The labelled pictures of a split where folders called train, validation (or val) and test hold the sets, as
    Hugging Face has them; None where they do not."""
    there = {each: folder / each for each in ("train", "validation", "val", "test") if (folder / each).is_dir()}
    if "train" not in there or len(there) == 1 or _tables(folder):
        return None
    sources = {name: whole_source(path, columns, split, rules) for name, path in there.items()}
    sources = {name: source for name, source in sources.items() if source is not None}
    if "train" not in sources or len(sources) == 1:
        return None
    validating = [name for name in ("validation", "val") if name in sources]
    if len(validating) > 1:
        raise HTRError(f"{folder} has folders validation and val, both with labels: name one of them otherwise")
    source = sources["train" if split == "train" or not validating else validating[0]]
    source.whole &= not validating
    if "test" in sources and split == "train":
        source.notes.append(f"{folder / 'test'} is left out, with {len(sources['test'].rows):,} labels")
    return source


def whole_source(folder: Path, columns: Columns = ANY, split: str = "", rules: PageRules = PLAIN) -> Source | None:
    """What labels the pictures below a folder without a split: one table, pairs, or pages; None where nothing does.

    A column may say which rows are of the `split`. Raises HTRError where several could be meant.
    """
    listing = list_files(folder) if folder.is_dir() else None
    files = listing.files if listing else []
    texts = [name for name in files if name.endswith(PAIRED)]
    pages, said = folder_pages(folder, listing, rules.follow_links) if listing else (Pages(), [])
    path, notes = folder_table(folder, bool(texts or pages.described))
    if pages.described and path and path.name not in TABLES:
        notes.append(f"{path} is passed over, as the pages have texts of their own: name it to use it instead")
        path = None
    if pages.described and (path or texts):
        raise HTRError(
            f"{folder} has {pages.formats()} and {'a table, ' + path.name if path else 'texts beside pictures'}: name"
            f" {'the table itself to use it' if path else 'a folder of one kind'}, or move the others away"
        )
    if pages.described or (pages.lost and not path and not texts):
        source = pages_source(folder, pages, rules)
        source.notes += notes + said
        return source
    if path is None:
        return pairs_source(folder, files, texts) if texts else None
    source = table_source(path, folder, columns, split, whole=True)
    if texts:
        check_covered(source, folder, texts)
        notes.append(f"{source.name} also labels the {len(texts):,} pictures that have texts beside them, and is taken")
    source.notes += notes
    return source


def folder_pages(folder: Path, listing: Listing, follow_links: bool = False) -> tuple[Pages, list[str]]:
    """The pages with ALTO or PAGE files in a folder and below it, and what there is to say of links."""
    listing = list_files(folder, follow_links) if follow_links else listing
    files, pictures = page_files(listing.files), list(filter(has_suffix, listing.files))
    if not files:
        return Pages(), []
    out = set() if follow_links else links_out(listing, folder).intersection(files + pictures)
    inside = [[folder / name for name in names if name not in out] for names in (files, pictures)]
    said = [f"links out of the folder, not read: {len(out):,}; --follow-links reads them"] if out else []
    return find_pages(*inside), said


def pages_source(folder: Path, pages: Pages, rules: PageRules) -> Source:
    """The lines of pages. Raises HTRError where no page has its picture."""
    lines = lines_of(pages, folder, rules)
    if not pages.described:
        raise HTRError(f"{folder} holds {len(pages.lost):,} ALTO or PAGE files of no use: {pages.lost[0][1]}")
    source = Source(str(folder), lines.rows, folder, folder, pages.formats(), True, lines.left_out)
    source.pages, source.lines = pages, lines
    if pages.again:
        source.notes.append(f"files of a page that another file describes alike, passed over: {pages.again:,}")
    if pages.lost:
        source.notes.append(f"ALTO or PAGE files of no use: {len(pages.lost):,}, such as {pages.lost[0][1]}")
    if read := sum(line.confidence is not None for each in pages.described for line in each.page.lines):
        source.notes.append(f"lines whose file gives a confidence, as of texts that a program read: {read:,}")
    return source


def folder_table(folder: Path, texts: bool = False) -> tuple[Path | None, list[str]]:
    """The table that labels the pictures of a folder, if there is one, and what is to be said of the choice.

    texts: whether there are texts beside pictures: then JSON and the like may be about anything. Raises HTRError where
    several could be meant.
    """
    tables, notes = _newest(_tables(folder))
    if texts:
        tables = [path for path in tables if path.name in TABLES or path.suffix.lower() in (".csv", ".tsv")]
    return (_only_one(folder, tables), notes) if tables else (None, [])


def check_covered(source: Source, folder: Path, texts: Sequence[str]) -> None:
    """Raises HTRError unless a table labels all pictures that have texts beside them, none of which was changed since.

    So it is with what the page of corrections saves.
    """
    labels, changed = {without_suffix(name): text for name, text in source.rows}, os.path.getmtime(source.name)
    for name in texts:
        stem = name.removesuffix(PAIRED)
        newer = stem in labels and os.path.getmtime(folder / name) > changed
        if stem not in labels or (newer and paired_text(folder / name).strip() != labels[stem]):
            raise HTRError(
                f"{folder} has a table, {Path(source.name).name}, and {len(texts):,} texts beside pictures, such as"
                f" {printable(name, 200)}, which {'is newer and differs' if newer else 'it does not label'}: name the"
                " table itself to use it, or move it away"
            )


def labels_of(path: Path, columns: Columns = ANY) -> Source:
    """The labels that a table holds, or a folder without a split. Raises HTRError where there are none."""
    if not path.is_dir():
        return table_source(path, path.parent, columns)
    source = whole_source(path, columns)
    if source is None:
        raise HTRError(f"{path} holds no labels: neither one of {', '.join(TABLES)}, nor a single table, nor x{PAIRED}")
    return source


def _tables(folder: Path) -> list[Path]:
    """The tables of a folder that could be meant: those with names of their own, or all."""
    files = sorted(_files(folder))
    named = [folder / name for name in TABLES if folder / name in files]
    named += [path for path in files if _download_of(path, files)]
    others = [path for path in files if path.suffix.lower() in TABLE_SUFFIXES]
    return named or _named(folder, ("train",)) or [path for path in others if path.suffix in (".csv", ".tsv")] or others


def _download_of(path: Path, files: Sequence[Path]) -> Path | None:
    """The table that a file is a further download of, as browsers name them: "labels (1).csv"."""
    if match := DOWNLOAD.fullmatch(path.name):
        first = path.with_name((match[1] or match[2]) + match[3])
        if first.name in TABLES or first in files:
            return first
    return None


def _newest(tables: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Of a table and its further downloads the newest one, if that is sure; and what is to be said of it."""
    alike = defaultdict(list)
    for path in tables:
        alike[_download_of(path, tables) or path].append(path)
    kept, notes = [], []
    for paths in alike.values():
        paths.sort(key=os.path.getmtime, reverse=True)
        if len(paths) > 1 and os.path.getmtime(paths[0]) == os.path.getmtime(paths[1]):
            kept += paths
            continue
        kept.append(paths[0])
        if len(paths) > 1:
            older = " and ".join(path.name for path in paths[1:])
            notes.append(f"{paths[0].name} is newer than {older}, and is taken: remove what you do not need")
    return kept, notes


def _files(folder: Path) -> list[Path]:
    try:
        files = [path for path in folder.iterdir() if path.is_file() and not is_no_data(path.name)]
    except OSError:
        return []
    exported = {path.with_suffix(".json") for path in files if path.suffix == ".onnx"}
    return [path for path in files if path not in exported]


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


def table_source(path: Path, folder: Path, columns: Columns = ANY, split: str = "", whole: bool = False) -> Source:
    """What a label table says of the pictures below a folder, or of those of a split where a column tells the sets.

    Raises HTRError where it cannot be read.
    """
    table = read_labels(path, columns)
    rows, left_out = table.labels(), table.dropped.copy()
    kept = [place for place in range(len(rows)) if place not in table.unusable]
    if table.sets and split:
        both = "validation" in table.sets or not whole
        wanted, whole = split if both else "train", not both
        others = [place for place in kept if table.sets[place] != wanted]
        left_out.update(SET_REASONS.get(each := table.sets[place], f"of set {each}") for place in others)
        kept = [place for place in kept if table.sets[place] == wanted]
    rows = [rows[place] for place in kept]
    return Source(str(path), rows, path.parent, folder, str(table), whole, left_out, list(table.notes), table)


def paired_text(path: Path) -> str:
    """Raises HTRError where the file cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise HTRError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise HTRError(f"{path}: this is not UTF-8; save it as UTF-8") from error


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
        text = paired_text(folder / name)
        stem = name.removesuffix(PAIRED)
        beside = [each for each in pictures[stem] if without_suffix(each) == stem] or pictures[stem]
        rows.append((beside[0] if len(beside) == 1 else stem, text))
    return Source(str(folder), rows, folder, folder, f"pictures with {PAIRED}", True)
