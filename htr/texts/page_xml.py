"""Pages with their lines, as ALTO (2 to 4) and PAGE XML (2010 to 2019) describe them.

Coordinates are in the file's own unit and of the picture's size that it says: `Page.scaled_to` turns them into pixels
of the picture that there is. Formats: the Library of Congress' ALTO schemas (github.com/altoxml/schema) and PRImA's
PAGE schemas (github.com/PRImA-Research-Lab/PAGE-XML); where tools differ from them, both are understood.
"""

import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from htr.system.scripts import HTRError, printable

MOST_BYTES = (
    50_000_000  # a larger file is refused before it is opened; a page of newsprint with all its glyphs has 20 MB
)
ROOTS = ("alto", "pcgts")  # elements, in lower case
MOST_DEEP = 200  # elements within elements; a page has a dozen
MOST_LINES = 5_000  # of a page; one of newsprint has 2,000
MOST_POINTS = 20_000  # of an outline or a baseline
UNITS = {"pixel": None, "mm10": 254, "inch1200": 1200}  # of an ALTO file, and how many of them make an inch
# What a file calls a line, or the region that it is in, when no hand wrote it.
PRINTED = re.compile(
    r"(?<![a-z])(print(ed)?(line|text|zone)?|typed|type-?writ(ten|ing)|typescript|imprim[ée]e?s?|gedruckt|dactylo\w*)(?![a-z])",
    re.IGNORECASE,
)
NO_TEXT = {"Illustration": "ImageRegion", "GraphicalElement": "GraphicRegion"}  # of ALTO, as PAGE calls them
# Readings of an insertion, a superscript or what is crossed out, in the transcripts of several projects.
MARKS = re.compile(r">[^<>]*<|[⟦⟧#^⋎]")
BASELINE_ABOVE = 0.25  # of a box or an outline without a baseline, the share of its height that lies under the writing
CUSTOM = re.compile(r"(\w+)\s*\{([^}]*)\}")  # Transkribus: readingOrder {index:3;} structure {type:heading;}


@dataclass
class Region:
    """A part of a page that holds lines.

    outline: (N, 2) float, or None where the file has none. kind: what the file calls it. upside_down: whether the file
    says that it is turned by 180 degrees.
    """

    id: str
    outline: np.ndarray | None = None
    kind: str = ""
    upside_down: bool = False


@dataclass
class Line:
    """A line of writing.

    baseline: (N, 2) float, from where the writing starts to where it ends; outline: (N, 2) float. At least one of them
    is there. text: None where the file has none. kind: what the file calls it. confidence: of the text, in [0, 1],
    where a program read it. region: the place of its region among the page's. place: of its element among those of
    the page in the file. words: where an ALTO file has several, (text, outline) of each.
    """

    id: str
    baseline: np.ndarray | None
    outline: np.ndarray | None
    text: str | None = None
    kind: str = ""
    confidence: float | None = None
    region: int = 0
    place: int = 0
    words: list[tuple[str, np.ndarray | None]] = field(default_factory=list)


@dataclass
class Page:
    """A page, with its regions and lines in reading order.

    path: the file. number: of the page within it, from 0. format: such as "ALTO 4". picture: the name of the picture
    as the file has it, "" where it names none. size: (width, height) of the picture in the file's unit, None where it
    does not say. per_inch: how many of that unit make an inch; None for pixels. unusable: lines that are not among
    `lines`, by the reason. without_text: regions of an ALTO file that hold no lines, such as illustrations.
    """

    path: Path
    number: int
    format: str
    picture: str
    size: tuple[float, float] | None
    per_inch: int | None = None
    regions: list[Region] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    unusable: list[tuple[str, str]] = field(default_factory=list)  # (id, reason)
    without_text: list[Region] = field(default_factory=list)

    def is_printed(self, line: Line) -> bool:
        """Whether the file says that no hand wrote a line."""
        return any(PRINTED.search(kind) for kind in (line.kind, self.regions[line.region].kind))

    def is_scaled_to(self, size: tuple[int, int]) -> bool:
        """Whether a picture of `size` has other pixels than those that the page counts."""
        return self.per_inch is None and self.size not in (None, size)

    def scaled_to(self, size: tuple[int, int], dots_per_inch: float | None = None) -> tuple[float, float]:
        """What to multiply x and y by to get pixels of a picture of `size` (width, height).

        Raises HTRError where the picture has another shape than the page, or nothing tells how large it is.
        """
        if self.size is None:
            if self.per_inch is None:
                return 1.0, 1.0
            if not dots_per_inch:
                raise HTRError(
                    f"{self.path} measures in parts of an inch, and nothing says how many pixels an inch has"
                )
            return (dots_per_inch / self.per_inch,) * 2
        scales = size[0] / self.size[0], size[1] / self.size[1]
        # A pixel or so is lost when a picture is scaled; more is another picture.
        if abs(scales[0] - scales[1]) > 0.02 * max(scales) + 2 / min(self.size):
            raise HTRError(
                f"{self.path} is of a picture of {self.size[0]:g} x {self.size[1]:g}, and its picture has"
                f" {size[0]} x {size[1]} pixels: give the picture that it was made of"
            )
        return scales


# ------------------------------------------------------------------------------------------------ reading


class _NoPage(Exception):
    """An XML file about something else."""


class _Builder(ET.TreeBuilder):
    """Builds a tree of elements whose names have no namespace; refuses what no page has."""

    def __init__(self):
        super().__init__()
        self.depth, self.namespace = 0, ""

    def doctype(self, name, pubid, system):
        """The only place where entities can be declared; ALTO and PAGE are defined by schemas and have none."""
        if name.rpartition(":")[2].lower() not in ROOTS:
            raise _NoPage
        raise HTRError("it declares a document type, which no ALTO or PAGE file does: remove the line <!DOCTYPE ...>")

    def start(self, tag, attributes):
        namespace, _, name = tag.rpartition("}")
        if not self.depth:
            self.namespace = namespace[1:]
            if name.lower() not in ROOTS:
                raise _NoPage
        self.depth += 1
        if self.depth > MOST_DEEP:
            raise HTRError(f"its elements are nested more than {MOST_DEEP} deep")
        return super().start(name, {key.rpartition("}")[2]: value for key, value in attributes.items()})

    def end(self, tag):
        self.depth -= 1
        return super().end(tag.rpartition("}")[2])


def read_pages(path: str | os.PathLike) -> list[Page]:
    """The pages that an ALTO or PAGE file describes; none where it is XML about something else, such as METS.

    Nothing that the file refers to is opened. Raises HTRError where it cannot be read, or is no XML.
    """
    path = Path(path)
    root, namespace = tree_of(path)
    if root is None:
        return []
    try:
        pages = _alto(path, root, namespace) if root.tag.lower() == "alto" else _page(path, root, namespace)
        if (most := max((len(page.lines) for page in pages), default=0)) > MOST_LINES:
            raise HTRError(f"it has a page of {most:,} lines, more than {MOST_LINES:,}")
        return pages
    except HTRError as error:
        raise HTRError(f"{path} cannot be read: {error}") from None


def tree_of(path: Path) -> tuple[ET.Element | None, str]:
    """The elements of an ALTO or PAGE file, without namespaces, and its own; None where it is about something else.

    Raises HTRError where it cannot be read, or is no XML.
    """
    try:
        if not path.is_file():  # opening a pipe would wait for its writer
            raise HTRError("it is no file")
        if (size := path.stat().st_size) > MOST_BYTES:
            raise HTRError(f"it has {size:,} bytes, more than {MOST_BYTES:,}")
        builder = _Builder()
        parser = ET.XMLParser(target=builder)
        with open(path, "rb") as file:
            while part := file.read(1 << 16):
                parser.feed(part)
        return parser.close(), builder.namespace
    except _NoPage:
        return None, ""
    except HTRError as error:
        raise HTRError(f"{path} cannot be read: {error}") from None
    except ET.ParseError as error:
        raise HTRError(f"{path} cannot be read: it is no XML ({error})") from error
    except (LookupError, ValueError) as error:  # an encoding that there is not
        raise HTRError(f"{path} cannot be read: {printable(str(error), 200)}") from error
    except OSError as error:
        raise HTRError(f"{path} cannot be read: {error.strerror or error}") from error


def points_of(text: str | None) -> np.ndarray | None:
    """Points "x,y x,y" or "x y x y" as (N, 2) float; None where there are none.

    Raises ValueError where they are no pairs of finite numbers, or too many.
    """
    numbers = re.split(r"[\s,;]+", (text or "").strip(" \t\r\n,;"))
    if numbers == [""]:
        return None
    if len(numbers) % 2 or len(numbers) > 2 * MOST_POINTS:
        raise ValueError(f"has {len(numbers)} coordinates")
    points = np.array([float(number) for number in numbers]).reshape(-1, 2)
    if not np.isfinite(points).all() or np.abs(points).max() > 1e7:
        raise ValueError("has coordinates that are no numbers of pixels")
    return points


def _number(text: str | None) -> float | None:
    """A finite number, or None."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if abs(number) < 1e9 else None


def _is_upside_down(degrees: str | None) -> bool:
    """Whether it is rather turned by 180 degrees than upright or on a side."""
    number = _number(degrees)
    return number is not None and abs((number + 180) % 360 - 180) > 135


def _size(element: ET.Element, width: str, height: str) -> tuple[float, float] | None:
    size = _number(element.get(width)), _number(element.get(height))
    return size if all(size) and min(size) > 0 else None


def _plain(texts: Iterable[str]) -> str:
    """Texts as one, with single blanks; a soft hyphen at the end of a line is one that is written."""
    return " ".join("".join(texts).replace("\u00ad", "-").split())


def _format(name: str, namespace: str) -> str:
    version = re.search(r"ns-v(\d)|(20\d\d)-\d\d-\d\d", namespace)
    return f"{name} {version[1] or version[2]}" if version else name


def _usable(baseline: np.ndarray | None, outline: np.ndarray | None) -> tuple[np.ndarray | None, np.ndarray | None]:
    """A baseline and an outline without what is none. Raises ValueError where nothing is left."""
    if baseline is not None:
        different = np.r_[True, (np.diff(baseline, axis=0) != 0).any(1)]
        baseline = baseline[different]
        if len(baseline) < 2:
            baseline = None
    if outline is not None and (np.ptp(outline, axis=0) < 1).any():
        outline = None
    if baseline is None and outline is None:
        raise ValueError("has neither a baseline nor an outline")
    return baseline, outline


def _in_order(page: Page, order: dict[str, int]) -> None:
    """Sort the regions of a page, and with them its lines; those that have no place stay where they are."""
    places = [order.get(region.id) for region in page.regions]
    rest = max((place for place in places if place is not None), default=-1) + 1
    ranks = [rest + n if place is None else place for n, place in enumerate(places)]
    sequence = sorted(range(len(ranks)), key=lambda n: ranks[n])
    if sequence == list(range(len(ranks))):
        return
    new = {old: n for n, old in enumerate(sequence)}
    page.regions = [page.regions[n] for n in sequence]
    for line in page.lines:
        line.region = new[line.region]
    page.lines.sort(key=lambda line: line.region)


def _name_lines(page: Page) -> None:
    """Give each line an id that no other has."""
    taken = {line.id for line in page.lines if line.id}
    seen: set[str] = set()
    for n, line in enumerate(page.lines, 1):
        if line.id and line.id not in seen:
            seen.add(line.id)
            continue
        name = line.id or "line"
        line.id = next(each for k in range(n, n + len(page.lines) + 2) if (each := f"{name}_{k}") not in taken)
        taken.add(line.id)
        seen.add(line.id)


# --------------------------------------------------------------------------------------------------- ALTO


def _alto(path: Path, root: ET.Element, namespace: str) -> list[Page]:
    unit = (root.findtext("Description/MeasurementUnit") or "pixel").strip().lower()
    if unit not in UNITS:
        raise HTRError(f"it measures in {unit[:40]!r}, which is none of {', '.join(UNITS)}")
    picture = (root.findtext("Description/sourceImageInformation/fileName") or "").strip()
    kinds = {tag.get("ID", ""): tag.get("LABEL", "") for tag in root.iterfind("Tags/*")}
    pages = []
    for number, element in enumerate(root.iterfind("Layout/Page")):
        page = Page(path, number, _format("ALTO", namespace), picture, None, UNITS[unit])
        page.size = _size(element, "WIDTH", "HEIGHT")
        blocks = list(element.iter("TextBlock"))
        for block in blocks:
            turned = _is_upside_down(block.get("ROTATION"))
            page.regions.append(Region(block.get("ID", ""), _alto_outline(block), _alto_kind(block, kinds), turned))
            for line in block.iterfind("TextLine"):
                _alto_line(page, line, kinds, len(page.regions) - 1)
        for tag, kind in NO_TEXT.items():
            others = (Region(block.get("ID", ""), _alto_outline(block), kind) for block in element.iter(tag))
            page.without_text += others
        _in_order(page, _alto_order(root, blocks))
        _name_lines(page)
        pages.append(page)
    return pages


def _alto_kind(element: ET.Element, kinds: dict[str, str]) -> str:
    """The labels of its tags, and its own type."""
    labels = [kinds.get(name, "") for name in element.get("TAGREFS", "").split()]
    return " ".join(filter(None, [*labels, element.get("TYPE", "")]))


def _alto_outline(element: ET.Element) -> np.ndarray | None:
    """A polygon, or the box; of something that is neither, None."""
    polygon = element.find("Shape/Polygon")
    if polygon is not None:
        try:
            outline = points_of(polygon.get("POINTS"))
        except ValueError:
            outline = None
        if outline is not None and len(outline) > 2:
            return outline
    box = [_number(element.get(name)) for name in ("HPOS", "VPOS", "WIDTH", "HEIGHT")]
    if None in box:
        return None
    left, top, width, height = box
    return np.array([[left, top], [left + width, top], [left + width, top + height], [left, top + height]])


def _alto_line(page: Page, element: ET.Element, kinds: dict[str, str], region: int) -> None:
    name = element.get("ID", "")
    try:
        given = element.get("BASELINE")
        outline = _alto_outline(element)
        if outline is None:
            boxes = [box for word in element.iterfind("String") if (box := _alto_outline(word)) is not None]
            outline = np.concatenate(boxes) if boxes else None
            if outline is not None:  # the box around its words
                (left, top), (right, bottom) = outline.min(0), outline.max(0)
                outline = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
        height = _number(given)
        if height is not None:  # up to ALTO 4.0 one number, the height at which it runs
            left, right = (None, None) if outline is None else (outline[:, 0].min(), outline[:, 0].max())
            baseline = None if left is None else np.array([[left, height], [right, height]])
        else:
            baseline = points_of(given)
        baseline, outline = _usable(baseline, outline)
    except ValueError as error:
        page.unusable.append((name, _reason(error)))
        return
    words = element.findall("String")
    text = _alto_text(element) if words or element.find("HYP") is not None else None
    sure = [value for word in words if (value := _number(word.get("WC"))) is not None]
    confidence = sum(sure) / len(sure) if sure else None
    line = Line(name, baseline, outline, text, _alto_kind(element, kinds), confidence, region)
    if len(words) > 1:
        line.words = [(word.get("CONTENT", ""), _alto_outline(word)) for word in words]
    page.lines.append(line)


def _alto_text(line: ET.Element) -> str:
    """Its words, with a blank where there is a space or, in a file without any, between any two."""
    spaced = line.find("SP") is not None
    parts: list[str] = []
    for part in line:
        if part.tag == "String":
            parts += ["" if spaced or not parts else " ", part.get("CONTENT", "")]
        elif part.tag == "SP":
            parts.append(" ")
        elif part.tag == "HYP":
            parts.append(part.get("CONTENT", "-"))
    return _plain(parts)


def _alto_order(root: ET.Element, blocks: Iterable[ET.Element]) -> dict[str, int]:
    """The places of blocks by ReadingOrder (ALTO 4.3), or by the attribute that names the next one (ALTO 2 and 3)."""
    names = [each.get("REF", "") for each in root.iterfind(".//ReadingOrder//ElementRef")]
    if names:
        return {name: n for n, name in enumerate(names)}
    following = {block.get("ID", ""): block.get("IDNEXT") or block.get("idnext") for block in blocks}
    order: dict[str, int] = {}
    followed = set(following.values()) - {None}
    for start in following if followed else ():
        name = start if start not in followed else None
        while name in following and name not in order:
            order[name] = len(order)
            name = following[name]
    return order


# --------------------------------------------------------------------------------------------------- PAGE


def _page(path: Path, root: ET.Element, namespace: str) -> list[Page]:
    pages = []
    for number, element in enumerate(root.iterfind("Page")):
        picture = element.get("imageFilename", "").strip()
        page = Page(path, number, _format("PAGE", namespace), picture, _size(element, "imageWidth", "imageHeight"))
        places = {id(line): place for place, line in enumerate(element.iter("TextLine"))}
        regions = list(element.iter("TextRegion"))
        page.regions = [
            Region(each.get("id", ""), _page_outline(each), _page_kind(each), _is_upside_down(each.get("orientation")))
            for each in regions
        ]
        for place, region in enumerate(regions):
            lines = region.findall("TextLine")
            indices = [_custom(line, "readingOrder", "index") for line in lines]
            if all(indices):
                lines = [lines[n] for n in sorted(range(len(lines)), key=lambda n: int(indices[n]))]
            for line in lines:
                _page_line(page, line, place, places[id(line)])
        _in_order(page, _page_order(element, regions))
        _name_lines(page)
        pages.append(page)
    return pages


def _custom(element: ET.Element, name: str, key: str) -> str:
    """What Transkribus keeps in the attribute `custom`; "" where it says nothing."""
    for what, values in CUSTOM.findall(element.get("custom", "")):
        if what == name:
            for value in values.split(";"):
                found, _, content = value.partition(":")
                if found.strip() == key and (key != "index" or content.strip().isdigit()):
                    return content.strip()[:100]
    return ""


def _page_kind(element: ET.Element) -> str:
    parts = [_custom(element, "structure", "type"), element.get("type", ""), element.get("production", "")]
    return " ".join(filter(None, parts))


def _page_coords(element: ET.Element | None) -> np.ndarray | None:
    """Points of an attribute or, up to PAGE 2010, of elements. Raises ValueError where these are no numbers."""
    if element is None:
        return None
    points = element.get("points")
    if points is None:
        points = " ".join(f"{point.get('x')},{point.get('y')}" for point in element.iterfind("Point"))
    return points_of(points)


def _page_outline(element: ET.Element) -> np.ndarray | None:
    try:
        return _page_coords(element.find("Coords"))
    except ValueError:
        return None


def _page_line(page: Page, element: ET.Element, region: int, place: int) -> None:
    name = element.get("id", "")
    try:
        outline = _page_coords(element.find("Coords"))
        baseline, outline = _usable(_page_coords(element.find("Baseline")), outline)
    except ValueError as error:
        page.unusable.append((name, _reason(error)))
        return
    text, confidence = _page_text(element)
    page.lines.append(Line(name, baseline, outline, text, _page_kind(element), confidence, region, place))


def _page_text(element: ET.Element) -> tuple[str | None, float | None]:
    """Its text and the confidence of that: the alternative of least index, or what its words or glyphs say."""
    given = element.findall("TextEquiv")
    if given:
        indices = [_number(each.get("index")) for each in given]
        ranks = [(index is not None, index or 0.0) for index in indices]
        best = given[ranks.index(min(ranks))]
        text = best.findtext("Unicode")
        text = best.findtext("PlainText") if text is None else text
        return _plain([text or ""]), _number(best.get("conf"))
    for tag, between in (("Word", " "), ("Glyph", "")):
        if parts := [_page_text(part)[0] or "" for part in element.findall(tag)]:
            return _plain([between.join(parts)]), None
    return None, None


def _page_order(page: ET.Element, regions: Iterable[ET.Element]) -> dict[str, int]:
    """The places of regions by ReadingOrder, groups in groups, where what has no index stays as it stands; where there
    is none, by what Transkribus keeps with each region."""

    def walk(group: ET.Element) -> Iterator[str]:
        parts = list(group)
        indices = [_number(part.get("index")) for part in parts]
        if None not in indices:
            parts = [parts[n] for n in sorted(range(len(parts)), key=lambda n: indices[n])]
        for part in parts:
            if name := part.get("regionRef"):
                yield name
            if len(part):
                yield from walk(part)

    order = page.find("ReadingOrder")
    names = dict.fromkeys(walk(order)) if order is not None else {}
    if not names:
        indices = {region.get("id", ""): _custom(region, "readingOrder", "index") for region in regions}
        names = sorted(filter(indices.get, indices), key=lambda name: int(indices[name]))
    return {name: n for n, name in enumerate(names)}


def _reason(error: ValueError) -> str:
    """Why a line is not usable; a number that is none is not quoted, as it may be anything."""
    return str(error) if str(error).startswith("has ") else "has coordinates that are no numbers of pixels"


def last_part(name: str) -> str:
    """The name of a file without its folders, whatever system or address it comes from."""
    return PurePosixPath(name.split("?", maxsplit=1)[0].replace("\\", "/")).name
