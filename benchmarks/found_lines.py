"""How well the lines of pages are found, beside kraken's own segmenter, and on pages photographed in many ways.

    python benchmarks/found_lines.py --pages PAGES
    python benchmarks/found_lines.py --pages PAGES --photos
    python benchmarks/found_lines.py --pages PAGES --runs-dir RUNS --kraken 20
    python benchmarks/found_lines.py --others DIR ...

PAGES has a folder for each of the collections that weights/README.md names. Looked at are pages of writers and
documents that the shipped finder was not trained on. A line of the transcript is found where one line runs along three
quarters of its baseline, within 0.4 of the distance of lines; what is found is of use where it runs along a third of
one. Order is the share of lines that follow each other in the transcript and as they were found. Seconds are of the
processor, start included for kraken. --photos takes six of the pages, and with --font one drawn in that handwriting
font, and reports them as they are and changed.
--others takes pictures that are no pages, of each folder the first 25, and drawn ones. How to set up RUNS/kraken:
benchmarks/peers.py.
"""

import argparse
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from finder_weights import applied, split_pages
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

from draw_page import written  # noqa: E402

from config import SHIPPED_FINDER  # noqa: E402
from htr.pictures.cutting import PagePicture  # noqa: E402
from htr.pictures.finding import find_lines  # noqa: E402
from htr.pictures.images import Held, find_files, to_grey  # noqa: E402
from htr.texts.page_xml import read_pages  # noqa: E402
from htr.texts.pages import name_of, picture_of  # noqa: E402
from utils import Finder, load_finder  # noqa: E402

ALONG, OF_USE, NEAR = 0.75, 1 / 3, 0.4
PLACES = 41  # along a baseline that are looked at
Lines = list[np.ndarray]  # baselines (K, 2) in pixels of the picture


@dataclass
class TruePage:
    """A page, its picture, and the baselines of those of its lines that have a text."""

    name: str
    whole: PagePicture
    lines: Lines

    @property
    def picture(self) -> Path:
        return self.whole.path

    def grey(self) -> Image.Image:
        return to_grey(self.whole.picture())


def unseen_pages(folder: Path) -> list[TruePage]:
    """Those that the finder was not trained on."""
    pages = []
    for each, apart in split_pages(folder):
        if apart:
            whole = picture_of(each)
            lines = [band.baseline() for band, line in zip(whole.bands, each.page.lines, strict=True) if line.text]
            if lines:
                pages.append(TruePage(name_of(each, folder), whole, lines))
    return pages


# ------------------------------------------------------------------------------------------------ measures


def along(line: np.ndarray, other: np.ndarray, within: float) -> float:
    """The share of a baseline that another one runs along."""
    line, other = (each[np.argsort(each[:, 0], kind="stable")] for each in (line, other))
    places = np.linspace(line[0, 0], line[-1, 0], PLACES)
    near = np.abs(np.interp(places, *line.T) - np.interp(places, *other.T)) <= within
    return float((near & (places >= other[0, 0] - within) & (places <= other[-1, 0] + within)).mean())


def tolerance(lines: Lines) -> float:
    heights = np.sort([line[:, 1].mean() for line in lines])
    gaps = np.diff(heights)
    gaps = gaps[gaps > 8]
    return max(6.0, NEAR * float(np.median(gaps)) if len(gaps) > 1 else 20.0)


@dataclass
class Count:
    """Lines of transcripts, those found, all that was found, what of it is of use, pairs of lines, those in order."""

    lines: int = 0
    found: int = 0
    all: int = 0
    used: int = 0
    pairs: int = 0
    ordered: int = 0

    def add(self, true: Lines, found: Lines) -> None:
        within = tolerance(true)
        shares = np.array([[along(line, other, within) for other in found] for line in true]).reshape(len(true), -1)
        match: dict[int, int] = {}
        for share, j, i in sorted(((shares[i, j], j, i) for i, j in np.ndindex(shares.shape)), reverse=True):
            if share >= ALONG and i not in match and j not in match.values():
                match[i] = j
        best = shares.max(0, initial=0)
        self.lines, self.found, self.all = self.lines + len(true), self.found + len(match), self.all + len(found)
        self.used += sum(best[j] > OF_USE or j in match.values() for j in range(len(found)))
        follow = [(match[i], match[i + 1]) for i in match if i + 1 in match]
        self.pairs, self.ordered = self.pairs + len(follow), self.ordered + sum(a < b for a, b in follow)

    def __str__(self) -> str:
        shares = (self.found / self.lines, self.used / max(1, self.all), self.ordered / max(1, self.pairs))
        return f"{self.lines:,} | " + " | ".join(f"{share:.4f}" for share in shares)


# ------------------------------------------------------------------------------------------------- photos


def changed(
    grey: Image.Image, own: Lines, matrix: np.ndarray, size: tuple[int, int], bend: float = 0.0
) -> tuple[Image.Image, Lines]:
    """A page as it is seen after a homography of its places, bent by waves of so many pixels; and its lines there."""
    inverse = np.linalg.inv(matrix)
    x, y = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    wave = 2 * np.pi / (0.4 * size[1])
    places = applied(inverse, np.stack([x, y + bend * np.sin(wave * x + wave / 3 * y)], 2))
    left, top = (np.floor(places[..., axis]).astype(np.int32) for axis in (0, 1))
    inside = (left >= 0) & (top >= 0) & (left < grey.width) & (top < grey.height)
    pixels = np.asarray(grey)[np.clip(top, 0, grey.height - 1), np.clip(left, 0, grey.width - 1)]
    lines = []
    for line in own:
        flat = seen = applied(matrix, line)
        for _ in range(3):
            seen = flat - [0, 1] * (bend * np.sin(wave * seen[:, :1] + wave / 3 * seen[:, 1:]))
        lines.append(seen)
    rng = np.random.default_rng(0)
    wood = 60 + 12 * np.sin(x / 9 + 3 * np.sin(y / 80)) + rng.normal(0, 6, x.shape)
    return Image.fromarray(np.where(inside, pixels, np.clip(wood, 0, 255)).astype(np.uint8)), lines


def photos(grey: Image.Image, lines: Lines) -> Iterator[tuple[str, Image.Image, Lines]]:
    """A page in many ways: name, picture, and where its lines are in it."""
    width, height = grey.size
    yield "as scanned", grey, lines
    for degrees in (2, 5, 10):
        angle, big = np.radians(degrees), (round(1.2 * width), round(1.2 * height))
        cos, sin = np.cos(angle), np.sin(angle)
        turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        shift = np.eye(3)
        shift[:2, 2] = np.array(big) / 2 - turn[:2, :2] @ [width / 2, height / 2]
        yield f"turned by {degrees} degrees, on dark wood", *changed(grey, lines, shift @ turn, big)
    tilt = np.array([[1, 0.05, 0.06 * width], [0.02, 1, 0.03 * height], [0.08 / width, 0.12 / height, 1]])
    yield "in perspective, on dark wood", *changed(grey, lines, tilt, (round(1.1 * width), round(1.1 * height)))
    yield "crumpled", *changed(grey, lines, np.eye(3), (width, height), height / 150)
    shade = np.linspace(1, 0.35, width) * np.where(np.arange(height)[:, None] > 0.6 * height, 0.6, 1)
    yield "shadowed", Image.fromarray((np.asarray(grey) * shade).astype(np.uint8)), lines
    for dots in (75, 150, 600):
        scale = dots / 200  # of lines about 66 pixels high, which is 8 mm at 200 dpi
        size = round(width * scale), round(height * scale)
        yield f"at {dots} dpi", grey.resize(size, Image.Resampling.LANCZOS), [line * scale for line in lines]


# ------------------------------------------------------------------------------------------------- kraken


def kraken_lines(programs: Path, pictures: Sequence[Path], work: Path) -> dict[Path, Lines]:
    """What kraken's own segmenter finds."""
    pairs = [part for n, path in enumerate(pictures) for part in ("-i", path, f"{n}.xml")]
    command = [programs / "kraken", "-d", "cpu", "--threads", "1", "-x", *pairs, "segment", "-bl"]
    subprocess.run([str(part) for part in command], cwd=work, check=True, stdout=subprocess.DEVNULL)
    found = {}
    for n, path in enumerate(pictures):
        (page,) = read_pages(work / f"{n}.xml")
        found[path] = [line.baseline for line in page.lines if line.baseline is not None]
    return found


# ------------------------------------------------------------------------------------------------- others


def drawn_others() -> Iterator[tuple[str, Image.Image]]:
    """Pictures without a line."""
    rng = np.random.default_rng(0)
    for width, height in ((1, 1), (30_000, 40), (40, 30_000), (5000, 7000)):
        yield f"blank, {width} x {height}", Image.new("L", (width, height), 240)
    yield "black", Image.new("L", (800, 900))
    for name, pixels in (
        ("noise", rng.integers(0, 256, (1400, 1000))),
        ("grain", np.clip(rng.normal(200, 20, (1400, 1000)), 0, 255)),
        ("ramp", np.tile(np.linspace(0, 255, 1000), (1400, 1))),
        ("squares", np.where((np.indices((1400, 1000)) % 50 < 2).any(0), 150, 240)),
        ("rulings", np.where(np.indices((1400, 1000))[0] % 45 < 2, 120, 240)),
        ("waves", 128 + 100 * np.sin(np.hypot(*np.indices((1400, 1000))) / 20)),
    ):
        yield name, Image.fromarray(pixels.astype(np.uint8))
    for n in range(10):  # like photographs: soft shapes of all sizes
        shapes = sum(
            np.asarray(Image.fromarray(rng.normal(0, 255 / k, (k, k)).astype(np.float32)).resize((1000, 800)))
            for k in (3, 6, 12, 40)
        )
        yield f"soft shapes {n}", Image.fromarray(np.clip(128 + shapes, 0, 255).astype(np.uint8))


def show_others(folders: Sequence[Path]) -> None:
    finder = load_finder(SHIPPED_FINDER, "cpu")
    groups = {folder.name: [(name, path) for name, path in find_files([folder]).files[:25]] for folder in folders}
    groups |= {name: [(name, Held(name, image))] for name, image in drawn_others()}
    print("| pictures | lines found in each | most seconds |\n|---|---|---|")
    for group, pictures in groups.items():
        counts, longest = Counter(), 0.0
        for _, picture in pictures:
            started = time.process_time()
            counts[len(find_lines(picture, 0, finder).lines)] += 1
            longest = max(longest, time.process_time() - started)
        lines = ", ".join(f"{n} in {count}" for n, count in sorted(counts.items()))
        print(f"| {group} | {lines} | {longest:.2f} |")
    print(f"\nmost memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB, start included")


def used_seconds(of_children: bool = False) -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN if of_children else resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def show_collections(pages: Sequence[TruePage], finder: Finder) -> None:
    counts, times = defaultdict(Count), []
    for page in pages:
        started = time.process_time()
        found = find_lines(page.picture, 0, finder).lines
        times.append(time.process_time() - started)
        counts[page.name.partition("/")[0]].add(page.lines, found)
    print("| collection | lines | recall | precision | order |\n|---|---|---|---|---|")
    for name, count in sorted(counts.items()):
        print(f"| {name} | {count} |")
    print(f"\n{len(pages)} pages, median {statistics.median(times):.2f} s of the processor each")


def show_photos(pages: Sequence[TruePage], finder: Finder, font: str) -> None:
    chosen = [each for each in pages if each.name.startswith(("copiste", "testaments"))][::9][:6]
    shown, counts = [(page.grey(), page.lines) for page in chosen], defaultdict(Count)
    if font:
        sheet, baselines = written(font, random.Random(0))
        shown.append((to_grey(sheet), baselines))
    for grey, own in shown:
        for name, picture, lines in photos(grey, own):
            counts[name].add(lines, find_lines(Held("page", picture), 0, finder).lines)
    print("| picture | lines | recall | precision | order |\n|---|---|---|---|---|")
    for name, count in counts.items():
        print(f"| {name} | {count} |")


def show_beside_kraken(pages: Sequence[TruePage], finder: Finder, programs: Path) -> None:
    ours, theirs = Count(), Count()
    started = used_seconds()
    for page in pages:
        ours.add(page.lines, find_lines(page.picture, 0, finder).lines)
    seconds = used_seconds() - started
    with tempfile.TemporaryDirectory() as work:
        found = kraken_lines(programs, [page.picture.resolve() for page in pages], Path(work))
    for page in pages:
        theirs.add(page.lines, found[page.picture.resolve()])
    print("| | lines | recall | precision | order | s a page |\n|---|---|---|---|---|---|")
    print(f"| ours | {ours} | {seconds / len(pages):.2f} |")
    print(f"| kraken | {theirs} | {used_seconds(of_children=True) / len(pages):.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=Path, help="folder of the collections of pages")
    parser.add_argument("--others", type=Path, nargs="*", metavar="DIR", help="pictures that are no pages")
    parser.add_argument("--photos", action="store_true", help="pages photographed in many ways")
    parser.add_argument("--font", default="", help="a handwriting font, of which docs/draw_page.py draws one more page")
    parser.add_argument("--kraken", type=int, metavar="N", help="kraken beside this project, on N pages of Copiste")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), help="where kraken is")
    args = parser.parse_args()
    if args.others is not None:
        show_others(args.others)
        return
    if not args.pages:
        parser.error("give --pages or --others")
    pages = unseen_pages(args.pages)
    finder = load_finder(SHIPPED_FINDER, "cpu")
    if args.photos:
        show_photos(pages, finder, args.font)
    elif args.kraken:
        chosen = [page for page in pages if page.name.startswith("copiste")][: args.kraken]
        show_beside_kraken(chosen, finder, args.runs_dir / "kraken" / "bin")
    else:
        show_collections(pages, finder)


if __name__ == "__main__":
    main()
