"""Pages that were read, as text and as PAGE XML: what other programs take over.

PAGE 2019-07-15, see https://github.com/PRImA-Research-Lab/PAGE-XML. Where the lines of a page came from a file, all
that it held is in there; texts that readings replace become comments.
"""

import contextlib
import datetime
import os
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count as count_from
from itertools import takewhile
from pathlib import Path

import numpy as np

from htr.pictures.cutting import PageLine, PagePicture, baseline_of
from htr.pictures.documents import page_shape
from htr.pictures.finding import FoundLines
from htr.pictures.images import Geometry, ImageError, Part
from htr.results.tables import Row
from htr.system.files import file_name, whole_file
from htr.system.names import READ
from htr.system.scripts import HTRError, printable
from htr.texts.page_xml import Line, Page, Region, points_of, tree_of
from htr.texts.pages import Described, Pages, picture_of, stem_of

PAGE_COLUMNS = ("PAGE", "LINE")
LINES, PAGES = "lines", "pages"  # folders of an output folder
NAMESPACE = "http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15"
CREATOR = "HTR-Handwritten_Text_Recognition"
POINTS = re.compile(r"(\d+,\d+ )+\d+,\d+")  # as the schema has them
NAME = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)
REPLACED = "was: "
BEFORE_TEXT = ("AlternativeImage", "Coords", "Baseline", "Word")  # children of a line that precede its texts


@dataclass
class ReadPage:
    """A page to read.

    name: of the files written of it, the path of its picture without suffix, with -2 for the second page of a file.
    picture, number: where it is. shown_as: what its picture is called in tables. page: its lines, as a file describes
    them or as they were found; None before that. whole: its picture with the bands of its lines. lines: these, in
    reading order. found: what was found of them, None where a file describes them. error: why it cannot be read, ""
    where it can.
    """

    name: str
    picture: Path
    number: int
    shown_as: str
    page: Page | None = None
    whole: PagePicture | None = None
    lines: list[PageLine] = field(default_factory=list)
    found: FoundLines | None = None
    error: str = ""

    def set_lines(self, described: Described, output_dir: Path | None) -> None:
        """Take the lines that a page has. Those that are read are kept as pictures in a folder of `output_dir`.

        Raises HTRError where the picture cannot be read, or has another shape than the page.
        """
        self.page, self.whole, self.lines = described.page, picture_of(described), []
        self.whole.keep = output_dir / LINES if output_dir else None
        taken: set[str] = set()
        for place, band in enumerate(self.whole.bands):
            x, y = band.baseline()[0]
            start = f"{self.name}/{round(max(y, 0)):04}-{round(max(x, 0)):04}"
            name = next(
                each for n in range(len(taken) + 1) if (each := start + (f"-{n + 1}" if n else "")) not in taken
            )
            taken.add(name)
            self.lines.append(PageLine(f"{name}.png", self.whole, place))

    def set_found(self, found: FoundLines, output_dir: Path | None) -> None:
        """Take lines that were found on the page."""
        page = Page(
            self.picture,
            self.number,
            "",
            self.picture.name,
            found.size,
            regions=[Region("region_1", upside_down=found.turned == 180)],
        )
        page.lines = [Line(f"line_{n}", baseline, None) for n, baseline in enumerate(found.lines, 1)]
        self.found = found
        self.set_lines(Described(page, self.picture, self.number), output_dir)

    def files(self) -> list[tuple[str, Part]]:
        """What has a row in the tables, (name, path): its lines or, where it cannot be read, the page."""
        if self.error:
            return [(self.shown_as, Part(self.shown_as, _NoPage(self.error), [self.picture]))]
        return [(line.name, line) for line in self.lines]

    def rows(self, rows: Iterator[Row]) -> Iterator[Row]:
        """The rows of its `files`, the next ones of `rows`, with PAGE_COLUMNS added."""
        names = [""] if self.error else [line.id for line in self.page.lines]
        for name, row in zip(names, rows, strict=False):
            yield row | dict(zip(PAGE_COLUMNS, (self.shown_as, name), strict=True))


class _NoPage:
    """In the place of a page's picture, where it cannot be read."""

    def __init__(self, reason: str):
        self.reason = reason

    def read(self, parts: Sequence[Part], geometry: Geometry) -> list[ImageError]:
        return [ImageError(self.reason)] * len(parts)


def pages_to_read(files: Iterable[tuple[str, Path]], pages: Pages, output_dir: Path | None) -> list[ReadPage]:
    """The pages of pictures (name, path), with their lines as far as files describe these (see `ReadPage.set_lines`).

    One whose file cannot be used has an error; others that no file describes have no `page` yet.
    """
    known = {(os.path.abspath(each.picture), each.number): each for each in pages.described}
    lost = {path.stem: reason for path, reason, _ in pages.lost}
    files = list(files)
    below = names_below([name for name, _ in files])
    stems = Counter(stem_of(name) for name in below)
    found = []
    for (shown_as, path), own in zip(files, below, strict=True):
        name = stem_of(own)
        name = name if stems[name] == 1 else own  # x.png and x.tif are two pages
        try:
            count = page_shape(path).pages
        except ImageError as error:
            found.append(ReadPage(name, path, 0, shown_as, error=str(error)))
            continue
        for number in range(count):
            read = ReadPage(name, path, number, shown_as)
            if number:
                read.shown_as += f", page {number + 1}"
                read.name = next(each for n in count_from(number + 1) if (each := f"{name}-{n}") not in stems)
                stems[read.name] += 1
            found.append(read)
            each = known.get((os.path.abspath(path), number))
            if each is None:
                read.error = lost.get(Path(read.name).name, "")
                continue
            try:
                read.set_lines(each, output_dir)
            except HTRError as error:
                read.error = str(error)
    return found


def names_below(names: Sequence[str]) -> list[str]:
    """Names of pictures, as paths that stay below the folder which they are put into.

    Of absolute names, and those that lead out of the working folder, is kept what tells them apart.
    """
    outside = {
        name: list(Path(os.path.abspath(name)).parts[1:])
        for name in names
        if Path(name).is_absolute() or ".." in Path(name).parts
    }
    levels = zip(*(parts[:-1] for parts in outside.values()), strict=False)
    shared = len(list(takewhile(lambda folders: len(set(folders)) == 1, levels)))
    below = {name: "/".join(outside[name][shared:]) if name in outside else name for name in names}
    counts = Counter(below.values())
    return ["/".join(outside[name]) if name in outside and counts[below[name]] > 1 else below[name] for name in names]


def mark_folders(output_dir: Path) -> None:
    """Make the folders in which lines and pages are kept, and say in them that they are nobody's data; not in folders
    that hold anything else. Raises HTRError where they cannot be written.
    """
    for name in (LINES, PAGES):
        folder = output_dir / name
        if folder.is_dir() and any(folder.iterdir()):
            continue
        with whole_file(output_dir / name / READ) as file:
            file.write("written by predict.py --pages: name this folder itself to use it as data\n")


def write_page(read: ReadPage, rows: Sequence[Row], output_dir: Path) -> None:
    """Write the text and the PAGE file of a page whose lines were read as `rows`, in the order of its lines.

    Raises HTRError where a file cannot be written.
    """
    path = output_dir / PAGES / read.name
    text = "".join(f"{printable(row['PREDICTION'], 100_000)}\n" for row in rows)
    with whole_file(Path(f"{path}.txt"), encoding="utf-8") as file:
        file.write(text)
    root, elements = _own_tree(read) if read.page.format.startswith("PAGE") else _new_tree(read)
    for element, row in zip(elements, rows, strict=True):
        if not row["ERROR"]:
            _add_reading(element, row["PREDICTION"], row["CONFIDENCE"])
    ET.indent(root)
    with whole_file(Path(f"{path}.xml"), "wb") as file:
        file.write(ET.tostring(root, encoding="UTF-8", xml_declaration=True))


def _add_reading(line: ET.Element, text: str, confidence: float) -> None:
    """Make a reading the text of a line; what other texts it had becomes a comment, as of several texts one program
    takes the first, one the last, and few the one of least index."""
    reading = ET.Element("TextEquiv", {"conf": f"{confidence:.4f}"})
    ET.SubElement(reading, "Unicode").text = _in_xml(text)
    given = line.findall("TextEquiv")
    before = [_in_xml(other.findtext("Unicode") or other.findtext("PlainText") or "") for other in given]
    if others := [other for other in dict.fromkeys(before) if other not in ("", text)]:
        reading.set("comments", f"{REPLACED}{' | '.join(others)}")
    for other in given:
        line.remove(other)
    line.insert(next((n for n, part in enumerate(line) if part.tag not in BEFORE_TEXT), len(line)), reading)


def _in_xml(text: str) -> str:
    """A text without the characters that XML cannot hold."""
    return re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _root() -> tuple[ET.Element, ET.Element]:
    """An empty document, and its metadata."""
    root = ET.Element("PcGts", {"xmlns": NAMESPACE})
    metadata = ET.SubElement(root, "Metadata")
    ET.SubElement(metadata, "Creator").text = CREATOR
    for name in ("Created", "LastChange"):
        ET.SubElement(metadata, name).text = _now()
    return root, metadata


# ----------------------------------------------------------------------------------------- from a PAGE file


def _own_tree(read: ReadPage) -> tuple[ET.Element, list[ET.Element]]:
    """A page's own file, brought up to PAGE 2019, with an id, an outline and a baseline for each of its lines; and the
    elements of these."""
    page = read.page
    root, _ = tree_of(page.path)
    pages = [] if root is None else root.findall("Page")
    if page.number >= len(pages):
        raise HTRError(f"{page.path} changed while it was read: run again")
    for n, other in enumerate(pages):
        if n != page.number:
            root.remove(other)
    root.attrib.pop("schemaLocation", None)
    root.set("xmlns", NAMESPACE)
    metadata = root.find("Metadata")
    if metadata is None:
        metadata = _root()[1]
        root.insert(0, metadata)
    for changed in metadata.iterfind("LastChange"):
        changed.text = _now()
    elements = list(pages[page.number].iter("TextLine"))
    scales = (1.0, 1.0) if page.size is None else np.divide(page.size, read.whole.size)
    for line, band in zip(page.lines, read.whole.bands, strict=True):
        element, tags = elements[line.place], [part.tag for part in elements[line.place]]
        element.set("id", line.id)
        if "Coords" not in tags:
            place = tags.index("Baseline") if "Baseline" in tags else tags.count("AlternativeImage")
            element.insert(place, ET.Element("Coords", {"points": points_text(band.outline() * scales)}))
        if "Baseline" not in tags:
            place = [part.tag for part in element].index("Coords") + 1
            element.insert(place, ET.Element("Baseline", {"points": points_text(baseline_of(line.outline))}))
    for element in root.iter():  # points as PAGE 2010 has them, and those that no schema allows
        points = element.findall("Point")
        if points:
            element.set("points", " ".join(f"{point.get('x')},{point.get('y')}" for point in points))
            for point in points:
                element.remove(point)
        given = element.get("points")
        if given is not None and not POINTS.fullmatch(given):
            with contextlib.suppress(ValueError):
                element.set("points", points_text(points_of(given)))
    return root, [elements[line.place] for line in page.lines]


def points_text(points: np.ndarray | None) -> str:
    """Points (N, 2) as PAGE writes them: whole numbers, none of them negative; two at least."""
    points = np.zeros((1, 2)) if points is None else np.rint(np.maximum(points, 0)).astype(int)
    points = np.concatenate([points, points]) if len(points) == 1 else points
    return " ".join(f"{x:.0f},{y:.0f}" for x, y in points)


# ----------------------------------------------------------------------------------------------- a new file


def _new_tree(read: ReadPage) -> tuple[ET.Element, list[ET.Element]]:
    """A PAGE file of a page described elsewhere, in pixels of its picture; and the elements of its lines."""
    page, whole = read.page, read.whole
    root, _ = _root()
    unique = _unique_names()
    width, height = whole.size
    top = {"imageFilename": file_name(read.picture.name), "imageWidth": str(width), "imageHeight": str(height)}
    element = ET.SubElement(root, "Page", top)
    scales = np.array([1.0, 1.0] if page.size is None else np.divide(whole.size, page.size))
    outlines = [
        band.outline() if line.outline is None else line.outline * scales
        for line, band in zip(page.lines, whole.bands, strict=True)
    ]

    def add(parent: ET.Element, tag: str, outline: np.ndarray, attributes: dict[str, str]) -> ET.Element:
        part = ET.SubElement(parent, tag, attributes)
        ET.SubElement(part, "Coords", {"points": points_text(np.minimum(outline, [width - 1, height - 1]))})
        return part

    names = [unique(region.id, "region") for region in page.regions]
    if names:
        order = ET.SubElement(ET.SubElement(element, "ReadingOrder"), "OrderedGroup", {"id": unique("", "order")})
        for index, name in enumerate(names):
            ET.SubElement(order, "RegionRefIndexed", {"index": str(index), "regionRef": name})
    for region in page.without_text:
        if region.outline is not None:
            add(element, region.kind, region.outline * scales, {"id": unique(region.id, "region")})
    lines: list[ET.Element] = []
    for place, (region, name) in enumerate(zip(page.regions, names, strict=True)):
        inside = [n for n, line in enumerate(page.lines) if line.region == place]
        around = np.concatenate([outlines[n] for n in inside]) if inside else np.zeros((2, 2))
        (left, upper), (right, lower) = around.min(0), around.max(0)
        box = np.array([[left, upper], [right, upper], [right, lower], [left, lower]])
        outline = box if region.outline is None else region.outline * scales
        turned = {"orientation": "180"} if region.upside_down else {}
        part = add(element, "TextRegion", outline, {"id": name} | turned | _kind(region.kind))
        for n in inside:
            line, band = page.lines[n], whole.bands[n]
            entry = add(part, "TextLine", outlines[n], {"id": unique(line.id, "line")} | _kind(line.kind))
            baseline = np.minimum(band.baseline(), [width - 1, height - 1])
            ET.SubElement(entry, "Baseline", {"points": points_text(baseline)})
            for text, box in line.words:
                shape = outlines[n] if box is None else box * scales
                word = add(entry, "Word", shape, {"id": unique("", "word")})
                ET.SubElement(ET.SubElement(word, "TextEquiv"), "Unicode").text = _in_xml(text)
            if line.text is not None:
                sure = {} if line.confidence is None else {"conf": f"{min(max(line.confidence, 0), 1):.4f}"}
                ET.SubElement(ET.SubElement(entry, "TextEquiv", sure), "Unicode").text = _in_xml(line.text)
            lines.append(entry)
    return root, lines


def _unique_names() -> Callable[[str, str], str]:
    """A function that gives ids, as XML allows them and no two alike, of those that there are and a word."""
    taken: set[str] = set()

    def unique(name: str, word: str) -> str:
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
        first = name if NAME.fullmatch(name) else f"{word}_{name or len(taken) + 1}"
        unused = (each for n in range(len(taken) + 1) if (each := first + (f"_{n + 1}" if n else "")) not in taken)
        taken.add(found := next(unused))
        return found

    return unique


def _kind(kind: str) -> dict[str, str]:
    """What a region or line is called, where Transkribus and eScriptorium keep it."""
    plain = re.sub(r"[{}:;]", " ", kind).strip()
    return {"custom": f"structure {{type:{_in_xml(plain)};}}"} if plain else {}
