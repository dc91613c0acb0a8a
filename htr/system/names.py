"""Names of pictures: which files are pictures, and which file a label table means by a name."""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from urllib.parse import unquote

SUFFIXES = set(".apng .bmp .dib .gif .jfif .jpe .jpeg .jpg .mpo .pbm .pfm .pgm .png .pnm .ppm .tif .tiff .webp".split())
NOT_READ = {  # pictures by their names, which nothing here decodes
    ".avif": "AVIF", ".heic": "HEIC", ".heif": "HEIF", ".hif": "HEIF", ".j2k": "JPEG 2000", ".jp2": "JPEG 2000",
    ".jpf": "JPEG 2000", ".jpx": "JPEG 2000", ".jxl": "JPEG XL",
}  # fmt: skip
# What systems and programs leave in folders, beside whatever is hidden: macOS' archives, thumbnails of network drives,
# recycle bins. In lower case.
LEFT_BY_SYSTEMS = {
    "__macosx", "@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin", "recycler",
    "system volume information", "lost+found", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r",
}  # fmt: skip
# What this program writes itself, beside a checkpoint, into an output folder or the current one.
OWN_FILES = {
    "predictions.csv", "predictions.txt", "predictions.xlsx", "predictions.partial.jsonl", "report.html", "htr_cache",
}  # fmt: skip
OWN_ENDINGS = (".history.csv", ".curves.png", ".last.pth", ".previous.pth", ".calibrated.pth", ".onnx.json")
DRAWN = ".drawn-names"  # a file in the folder of a drawn dataset,
READ = ".read-pages"  # and one in the folders in which an earlier reading left lines and pages
SURE = float("inf")
UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # what Label Studio puts before the name of an upload
ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:|[A-Za-z][A-Za-z0-9+.-]*://")


def has_suffix(name: str) -> bool:
    """Whether a file of that name should be a picture."""
    return Path(name).suffix.lower() in SUFFIXES | NOT_READ.keys()


def left_behind(name: str) -> bool:
    """Whether a system or this program leaves files or folders of that name: thumbnails, learning curves, ..."""
    return name.lower() in LEFT_BY_SYSTEMS or name in OWN_FILES or name.endswith(OWN_ENDINGS)


def is_no_data(name: str) -> bool:
    """Whether a file or folder of that name was not made by a person, or is hidden."""
    return name.startswith(".") or left_behind(name)


# ------------------------------------------------------------------------------------- names in label tables


def _composed(part: str) -> str:
    return unicodedata.normalize("NFC", part)


def _caseless(part: str) -> str:
    # Turkish has two letters i, and which of them a capital belongs to depends on the language.
    return _composed(_composed(part).casefold().replace("i\u0307", "i").replace("\u0131", "i"))


def _as_it_is(part: str) -> str:
    return part


# Ways to compare a part of a path, the strictest first; and whether the file's suffix counts.
COMPARED: tuple[tuple[Callable[[str], str], bool], ...] = (
    (_as_it_is, True),
    (_composed, True),
    (_caseless, True),
    (_caseless, False),
)


def parts_of(name: str) -> list[str]:
    """A path as anybody writes it, in parts: with / or \\, blanks around it, "." and ".." or a drive before it."""
    name = name.strip(" \t\r\n\ufeff\u200b").replace("\\", "/")
    return [part for part in name.split("/") if part not in ("", ".", "..")]


@dataclass
class Matches:
    """Which files names mean.

    places: for each name the position of its file, or None. unknown: names that fit no file. ambiguous: names that fit
    several, each with two of these.
    """

    places: list[int | None]
    unknown: list[str] = field(default_factory=list)
    ambiguous: list[str] = field(default_factory=list)

    def lines(self, there: Sequence[str], what: str = "labels") -> list[str]:
        """A sentence for each kind of name that means no file; `there` are the names of files."""
        said = []
        if self.unknown:
            pictures = [name for name in there if has_suffix(name)] or there
            twins = {_looks(name): name for name in pictures}
            example = next((name for name in self.unknown[:1000] if _looks(name) in twins), self.unknown[0])
            called = f"; the images are called {_quoted(pictures[0])} and so on" if pictures else ""
            if twin := twins.get(_looks(example)):
                called = f", which looks like the image {_quoted(twin)} but has {_difference(example, twin)}"
            said.append(
                f"{what} that name none of the {len(pictures):,} images: {len(self.unknown):,}, such as"
                f" {_quoted(example)}{called}"
            )
        if self.ambiguous:
            said.append(f"{what} that fit several images: {len(self.ambiguous):,}, such as {self.ambiguous[0]}")
        return said


def _quoted(name: str) -> str:
    return repr(name) if len(name) <= 200 else repr(name[:197]) + "..."


# Letters of other scripts that look like Latin ones, and signs that look alike.
TWINS = str.maketrans(
    "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0423\u0425\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458"
    "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7\u03bf"
    "\u2010\u2011\u2012\u2013\u2014\u2212\u2018\u2019\u02bc\u00a0\u2009\u202f",
    "ABEKMHOPCTYXaeopcyxijABEZHIKMNOPTYXo------'''   ",
)


def _looks(name: str) -> str:
    """What a name looks like: names that differ only in their codes have the same."""
    text = unicodedata.normalize("NFKC", name.translate(TWINS)).translate(TWINS)
    return "".join(c for c in " ".join(text.split()) if c.isprintable()).casefold()


def _difference(name: str, other: str) -> str:
    """The first place in which two names differ, in codes."""
    here, there = next(pair for pair in zip_longest(name, other, fillvalue="") if pair[0] != pair[1])
    codes = ["nothing" if not c else f"U+{ord(c):04X}" for c in (here, there)]
    return f"{codes[0]} instead of {codes[1]}"


def _addressed(name: str) -> list[str]:
    """What an address says of a file: with escapes read, and without what Label Studio puts before an upload's name.

    /data/upload/1/3f2a9c01-L%C3%A9a.png, /data/local-files/?d=page1/L%C3%A9a.png
    """
    local = name.rsplit("?d=", maxsplit=1)[-1] if "?d=" in name else re.sub(r"^/data/upload/(\d+/)?", "", name.strip())
    plain = unquote(local)
    folder, _, last = plain.rpartition("/")
    upload = UPLOADED.sub("", last)
    others = dict.fromkeys([plain, f"{folder}/{upload}" if folder else upload])
    return [each for each in others if each and each != name]


class Pictures:
    """Files that label tables name.

    files: (name, path) of each, where the name is what results are called by. folders: what a name in a table may be
    relative to, in groups of falling rank; the table's own folder should come first.

    A name means the file that it is the path of, from one of the folders or from any folder above the file, written
    with / or \\, with ./ before it, with blanks around it, in NFC or NFD, in other case or without the file's suffix,
    as long as exactly one file fits; what is written exactly goes before. An absolute path also means a file whose
    path below one of the folders it ends with, as datasets move. A name that fits nothing may be an address, see
    `_addressed`.
    """

    def __init__(self, files: Sequence[tuple[str, str | os.PathLike]], folders: Iterable[Iterable[str | os.PathLike]]):
        self.names = [name for name, _ in files]
        self.paths = [os.path.abspath(os.fspath(path)) for _, path in files]
        self.folders = [[os.path.join(os.path.abspath(folder), "") for folder in group] for group in folders]
        self.by_path = {path: place for place, path in enumerate(self.paths)}
        self.parts: list[list[str]] = []  # of the paths; filled in when first needed
        # For each way to compare: files by the last so many parts of their paths, or by all below a folder (0).
        self.indices: dict[tuple[int, int], dict[tuple[str, ...], list[int]]] = {}

    def match(self, names: Iterable[str]) -> Matches:
        """Which files the names in a table mean."""
        found, names = Matches([]), list(names)
        claims: dict[int, dict[str, float]] = defaultdict(dict)  # for each file, how surely names mean it
        for name in names:
            places, sureness = self._fitting(name)
            found.places.append(places[0] if len(places) == 1 else None)
            if len(places) > 1:
                found.ambiguous.append(f"{_quoted(name)}: {' or '.join(self.names[place] for place in places[:2])}")
            elif not places:
                found.unknown.append(name)
            else:
                claims[places[0]][name] = sureness
        for n, name in enumerate(names):
            others = claims.get(found.places[n], {})
            sureness = others.get(name, SURE)
            if sureness < SURE and any(each >= sureness for other, each in others.items() if other != name):
                found.places[n] = None
                found.unknown.append(name)
        return found

    def _fitting(self, name: str, as_address: bool = True) -> tuple[list[int], float]:
        """The files that a name fits, and how sure that is: SURE, or how many folders agree."""
        for group in self.folders:
            fitting = {self.by_path[folder + name] for folder in group if folder + name in self.by_path}
            if fitting:
                return sorted(fitting), SURE
        parts = parts_of(name)
        for way in range(len(COMPARED)) if parts else ():
            if fitting := self._same(parts, len(parts), way):
                return self._nearest(fitting, len(parts)), SURE
        for way in range(len(COMPARED)) if parts and ABSOLUTE.match(name.strip()) else ():
            if fitting := self._moved(parts, way):
                return fitting, self._run(fitting[0], parts, way)
        for other in _addressed(name) if as_address else ():
            if fitting := self._fitting(other, as_address=False)[0]:
                return fitting, -1
        return [], SURE

    def _same(self, parts: Sequence[str], length: int, way: int) -> list[int]:
        """The files whose paths end with these `length` parts; with length 0 those that they are below a folder."""
        normal, with_suffix = COMPARED[way]
        if (way, length) not in self.indices:
            self.parts = self.parts or [path.split(os.sep) for path in self.paths]
            index = self.indices[way, length] = defaultdict(list)
            for place, path in enumerate(self.parts):
                for count in [length] if length else sorted(self._depths(place)):
                    *folders, last = path[-count:]
                    end = (*map(normal, folders), normal(last if with_suffix else without_suffix(last)))
                    index[end].append(place)
        return self.indices[way, length].get(tuple(map(normal, parts)), [])

    def _depths(self, place: int) -> set[int]:
        """How many parts of the file's path are below the folders that it is in."""
        folders = (folder for group in self.folders for folder in group if self.paths[place].startswith(folder))
        return {len(self.parts[place]) - folder.count(os.sep) for folder in folders}

    def _run(self, place: int, parts: Sequence[str], way: int) -> int:
        """How many parts before the last one agree with those of the file's path, from the end."""
        normal, run = COMPARED[way][0], 0
        for part, other in zip(parts[-2::-1], self.parts[place][-2::-1], strict=False):
            if part != other and normal(part) != normal(other):
                break
            run += 1
        return run

    def _nearest(self, places: list[int], depth: int) -> list[int]:
        """Of several files those that are `depth` parts below a folder of the highest rank possible."""
        for group in self.folders if len(places) > 1 else ():
            below = {folder: folder.count(os.sep) + depth for folder in group}
            near = [n for n in places if any(
                self.paths[n].startswith(folder) and len(self.parts[n]) == count for folder, count in below.items()
            )]  # fmt: skip
            if near:
                return near
        return places

    def _moved(self, parts: Sequence[str], way: int) -> list[int]:
        """The files whose path below one of the folders is the end of `parts`, of these the most alike."""
        for length in range(len(parts), 0, -1):
            if places := self._same(parts[-length:], 0, way):
                runs = [self._run(n, parts, way) for n in places]
                return [n for n, run in zip(places, runs, strict=True) if run == max(runs)]
        return []


def without_suffix(name: str) -> str:
    """A name without the suffix of a picture, if it has one."""
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in SUFFIXES | NOT_READ.keys() else name
