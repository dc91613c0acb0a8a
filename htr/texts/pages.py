"""Pages of a folder that come with their lines: which picture each ALTO or PAGE file is of, and what its lines say."""

import contextlib
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import numpy as np

from htr.pictures.cutting import PagePicture, bands
from htr.pictures.documents import PDF, page_shape
from htr.pictures.images import ImageError
from htr.system.files import list_files
from htr.system.names import is_no_data, parts_of, without_suffix
from htr.system.scripts import HTRError, printable
from htr.texts.page_xml import MARKS, Page, last_part, read_pages

SUFFIX = ".xml"
FURTHER = re.compile(r"(.+)-([1-9]\d{0,3})")  # NAME-2 is the second page of NAME
# "will_0121-0" and "will_0121-1", "letter_12_1" and "letter_12_2" are pages of one document, "page_0001" a page.
OF_DOCUMENT = re.compile(r"(.*\w)[-_.]\d{1,2}")
MOST_BESIDE = 2000  # XML files, of more of which only those with a picture's name are looked into
MOST_OF_ONE = 0.5  # share of the pages that names put into one document, above which the names mean something else


@dataclass(frozen=True)
class PageRules:
    """Which lines of pages are learned beside the plain ones: those that a file calls printed, and those whose
    transcript has marks (`htr.texts.page_xml.MARKS`), as they stand. follow_links: whether links out of the folder are
    followed."""

    printed: bool = False
    marked: bool = False
    follow_links: bool = False


@dataclass
class Described:
    """A page, and the picture that it is of: the path of that, and which of its pages."""

    page: Page
    picture: Path
    number: int = 0


@dataclass
class Pages:
    """The pages of a folder.

    described: sorted by picture. others: XML files about something else. again: files that say of a picture what
    another one says. lost: files that are of no use, why, and how many lines they have.
    """

    described: list[Described] = field(default_factory=list)
    others: int = 0
    again: int = 0
    lost: list[tuple[Path, str, int]] = field(default_factory=list)

    def formats(self) -> str:
        """How many pages of which formats, as part of a sentence."""
        counts = Counter(each.page.format for each in self.described)
        return f"{len(self.described):,} page{'s' * (len(self.described) != 1)} of {' and '.join(sorted(counts))}"


def find_pages(files: Iterable[Path], pictures: Iterable[Path], nearest: bool = False) -> Pages:
    """What the ALTO and PAGE files among `files` say of `pictures`.

    A file means the picture that it names or, where there is none, the one of its own name: the nearest one, in the
    same folder, the one above, or one beside that. Folders that a file names count only among several. nearest: whether
    of files that are of the same picture the nearest ones count alone. Raises HTRError where two files say different
    things about a picture.
    """
    found = Pages()
    index = _Index(pictures)
    claims: dict[tuple[Path, int], list[Page]] = defaultdict(list)
    for path in sorted(files):
        try:
            pages = read_pages(path)
        except HTRError as error:
            if index.of_own_name(path):  # else it may be anything
                found.lost.append((path, str(error), 0))
            else:
                found.others += 1
            continue
        found.others += not pages
        for page in pages:
            fitting, number = index.fitting(page, len(pages) > 1)
            if len(fitting) == 1:
                claims[fitting[0], number].append(page)
            elif fitting:
                reason = f"{path} may be of {fitting[0]} or of {fitting[1]}: move one of them away"
                found.lost.append((path, reason, len(page.lines)))
            else:
                named = f"{printable(last_part(page.picture), 200)}, which it names" if page.picture else ""
                missing = " or ".join(filter(None, [named, f"one called {path.stem}"]))
                reason = f"{path} is of a picture that is not there: {missing}"
                found.lost.append((path, reason, len(page.lines)))
    _by_own_names(claims, index)
    for (picture, number), pages in sorted(claims.items()):
        near = pages
        if nearest:
            least = min(_distance(page.path.parent, picture.parent) for page in pages)
            near = [page for page in pages if _distance(page.path.parent, picture.parent) == least]
        page = _one_of(picture, near)
        found.again += len(near) - 1
        found.described.append(Described(page, picture, number))
    return found


class _Index:
    """Pictures by their names, with and without suffix, in whatever case and composition."""

    def __init__(self, pictures: Iterable[Path]):
        self.named: dict[str, list[Path]] = defaultdict(list)
        self.stems: dict[str, list[Path]] = defaultdict(list)
        for path in pictures:
            self.named[_plain(path.name)].append(path)
            self.stems[_plain(stem_of(path.name))].append(path)

    def fitting(self, page: Page, several: bool) -> tuple[list[Path], int]:
        """The pictures that a page may be of, and which of their pages."""
        named = last_part(page.picture)
        number = page.number if several else 0
        if named:
            fitting = self.named.get(_plain(named)) or self.stems.get(_plain(stem_of(named)), [])
            if fitting:
                further = FURTHER.fullmatch(page.path.stem)
                if further and not several and _plain(further[1]) == _plain(stem_of(named)):
                    number = int(further[2]) - 1
                return _nearest(page, fitting), max(number, 0)
        return _nearest(page, self.of_own_name(page.path)), number

    def of_own_name(self, path: Path) -> list[Path]:
        """The pictures that have the name of a file: X.png for X.xml, or for X.png.xml."""
        stem = _plain(path.stem)
        return self.stems.get(stem) or self.named.get(stem, [])


def stem_of(name: str) -> str:
    """The name of a page's picture without its suffix."""
    return name[: -len(PDF)] if name.lower().endswith(PDF) else without_suffix(name)


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _nearest(page: Page, pictures: Sequence[Path]) -> list[Path]:
    """Of several pictures of the right name those that lie nearest to the page's file, of these where it says."""
    if len(pictures) < 2:
        return list(pictures)
    distances = [_distance(page.path.parent, picture.parent) for picture in pictures]
    near = [picture for picture, each in zip(pictures, distances, strict=True) if each == min(distances)]
    folders = parts_of(page.picture)[-2:-1]
    return [each for each in near if [each.parent.name] == folders] or near


def _distance(folder: Path, other: Path) -> int:
    """How many steps up and down lead from one folder to the other."""
    paths = [PurePath(os.path.abspath(each)) for each in (folder, other)]
    common = PurePath(os.path.commonpath(paths))
    return sum(len(path.parts) - len(common.parts) for path in paths)


def _by_own_names(claims: dict[tuple[Path, int], list[Page]], index: _Index) -> None:
    """Files that all name the same picture ("default.jpg") mean those of their own names, where each has one."""
    for key, pages in list(claims.items()):
        if len(pages) < 2:
            continue
        own = [_nearest(page, index.of_own_name(page.path)) for page in pages]
        pictures = [each[0] for each in own if len(each) == 1]
        if len(set(pictures)) == len(pages):
            del claims[key]
            for page, picture in zip(pages, pictures, strict=True):
                claims[picture, key[1]].append(page)


def _one_of(picture: Path, pages: Sequence[Page]) -> Page:
    """Of files that describe the same page one that says most. Raises HTRError where they say different things."""

    def texts(page: Page) -> list[str]:
        return sorted(filter(None, (line.text for line in page.lines)))

    written = [page for page in pages if texts(page)] or list(pages)
    best = max(written, key=lambda page: (page.format.startswith("PAGE"), os.path.getmtime(page.path)))
    for other in written:
        if texts(other) != texts(best):
            first, second = sorted((best.path, other.path))
            raise HTRError(
                f"{first} and {second} are of the same picture, {picture.name}, and their texts differ: move one of"
                " them away"
            )
    return best


def picture_of(described: Described) -> PagePicture:
    """A page's picture, with the bands of its lines in pixels.

    Raises HTRError where it cannot be read, or has another shape than the page.
    """
    page = described.page
    try:
        shape = page_shape(described.picture, described.number)
    except ImageError as error:
        raise HTRError(f"{described.picture} {error}") from error
    as_stored = page.size == shape.stored != shape.size  # written by a program that knows no EXIF
    size = shape.stored if as_stored else shape.size
    scales = page.scaled_to(size, shape.dots_per_inch)

    def in_pixels(points: np.ndarray | None) -> np.ndarray | None:
        """What is far outside of the picture comes nearer: no line is larger than three pages."""
        return None if points is None else np.clip(points * scales, np.negative(size), np.multiply(size, 2))

    lines = bands(
        [in_pixels(line.baseline) for line in page.lines],
        [in_pixels(line.outline) for line in page.lines],
        [page.regions[line.region].upside_down for line in page.lines],
    )
    return PagePicture(described.picture, described.number, size, as_stored, lines, page.path)


def pages_beside(pictures: Iterable[Path], folders: Iterable[Path]) -> Pages:
    """The pages of pictures whose ALTO or PAGE files lie beside them, in folders beside, or below `folders`."""
    pictures = [Path(picture) for picture in pictures]
    files = dict.fromkeys(path for folder in folders for path in xml_files(folder))
    for folder in dict.fromkeys(picture.parent for picture in pictures):
        above = Path(os.path.abspath(folder)).parent if folder == Path() else folder.parent
        for near in (folder, above):
            files |= dict.fromkeys(_xml_in(near, folders=True))
    stems = {_plain(stem_of(picture.name)) for picture in pictures}
    named = [path for path in files if _plain(path.stem) in stems or FURTHER.fullmatch(path.stem)]
    files = files if len(files) <= MOST_BESIDE or len(named) < len(stems) else named
    return find_pages(files, pictures, nearest=True)


def _xml_in(folder: Path, folders: bool = False) -> list[Path]:
    """The XML files in a folder and, with `folders`, in those within it that are no links; none where it is closed."""
    found = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if is_no_data(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                found += _xml_in(folder / entry.name) if folders else []
            elif page_files([entry.name]) and entry.is_file(follow_symlinks=False):
                found.append(folder / entry.name)
    return found


# -------------------------------------------------------------------------------------------------- lines


@dataclass
class PageLines:
    """The lines of pages that are labels, and what is left out.

    rows: (name, text) of each. of: by its name, the place of its page among the described ones, and its own there.
    documents: by its name, what it must stay together with when a set is split. left_out: lines by reason.
    """

    rows: list[tuple[str, str]] = field(default_factory=list)
    of: dict[str, tuple[int, int]] = field(default_factory=dict)
    documents: dict[str, str] = field(default_factory=dict)
    left_out: Counter = field(default_factory=Counter)


def lines_of(pages: Pages, folder: Path, rules: PageRules) -> PageLines:
    """The lines of a folder's pages that `rules` let train."""
    found = PageLines()
    names = [name_of(each, folder) for each in pages.described]
    document = document_of(names)
    for place, (each, name) in enumerate(zip(pages.described, names, strict=True)):
        found.left_out.update(f"line that {reason}" for _, reason in each.page.unusable)
        for n, line in enumerate(each.page.lines):
            if line.text is None:
                found.left_out["without a text"] += 1
            elif line.text and not rules.printed and each.page.is_printed(line):
                found.left_out["printed"] += 1
            elif not rules.marked and MARKS.search(line.text):
                found.left_out["with marks of the transcript"] += 1
            else:
                row = f"{name}/{line.id}"
                found.rows.append((row, line.text))
                found.of[row] = place, n
                found.documents[row] = document(name)
    if lost := sum(lines for _, _, lines in pages.lost):
        found.left_out["of a page without its picture"] = lost
    return found


def name_of(described: Described, folder: Path) -> str:
    """What a page is called: the path of its picture below a folder, without suffix; with -2 for its second page."""
    name = stem_of(os.path.relpath(described.picture, folder).replace(os.sep, "/"))
    return name if described.number == 0 else f"{name}-{described.number + 1}"


def document_of(names: Sequence[str]) -> Callable[[str], str]:
    """What document each of some pages belongs to, as far as names say so; else each is one of its own."""
    documents = {name: match[1] if (match := OF_DOCUMENT.fullmatch(name)) else name for name in names}
    counts = Counter(documents.values())
    if counts and max(counts.values()) > max(1, MOST_OF_ONE * len(names)):  # "page_1" to "page_40"
        return lambda name: name
    return documents.__getitem__


def page_files(names: Iterable[str]) -> list[str]:
    """The names that an ALTO or PAGE file may have; METS files hold no lines."""
    return [name for name in names if name.lower().endswith(SUFFIX) and PurePath(name).stem.lower() != "mets"]


def xml_files(path: Path) -> list[Path]:
    """The files at or below a path that may be ALTO or PAGE."""
    if path.is_dir():
        return [path / name for name in page_files(list_files(path).files)]
    return [path] if page_files([path.name]) else []
