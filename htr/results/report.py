"""One HTML page to look readings through, the least sure first."""

import base64
import contextlib
import hashlib
import heapq
import html
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from rapidfuzz.distance import Levenshtein

from htr.decoding.confidence import coverage_curve
from htr.pictures.cutting import DOWN, UP
from htr.pictures.images import ImageError, Part, open_image, to_grey
from htr.pictures.levels import normalise_levels
from htr.results.known import Known, nothing_known
from htr.results.scores import Comparison
from htr.results.transcripts import PAGES, ReadPage, points_text
from htr.system.files import whole_file

MOST_SHOWN = 1000  # images on the page
DOUBTFUL = 0.5  # probability of a word below which it is offered to be looked at
PAGE_SIZE = 1400  # pixels of the longer side of a whole page
THUMBNAIL = (1600, 160)  # pixels, at most: enough to read what one corrects


class LeastSure:
    """Keeps the rows of least confidence among any number; those that could not be read come first."""

    def __init__(self, most: int = MOST_SHOWN):
        self.most, self.count, self.heap = most, 0, []

    def add(self, row: dict[str, Any], path: Path) -> None:
        confidence = -1.0 if row["ERROR"] else row["CONFIDENCE"]
        item = (-confidence, -self.count, row, path)  # no two agree in the first two
        self.count += 1
        if len(self.heap) < self.most:
            heapq.heappush(self.heap, item)
        else:
            heapq.heappushpop(self.heap, item)

    def __len__(self) -> int:
        return len(self.heap)

    def rows(self) -> list[tuple[dict[str, Any], Path]]:
        return [(row, path) for _, _, row, path in sorted(self.heap, key=lambda item: item[:2], reverse=True)]

    def pages(self) -> list[ReadPage]:
        """Those that the rows are lines of: none."""
        return []


class LeastSurePages(LeastSure):
    """Keeps whole pages, with rows in reading order: all or, where they have too many lines, those of least
    confidence."""

    def __init__(self, pages: Iterable[ReadPage], most: int = MOST_SHOWN):
        super().__init__(most)
        self.all = [page for page in pages if not page.error]
        self.rows_of: dict[str, tuple[dict[str, Any], Path]] = {}

    def add(self, row: dict[str, Any], path: Path) -> None:
        self.count += 1
        self.rows_of[row["FILENAME"]] = row, path

    def pages(self) -> list[ReadPage]:
        def sureness(page: ReadPage) -> float:
            rows = [self.rows_of[line.name][0] for line in page.lines if line.name in self.rows_of]
            return sum(row["CONFIDENCE"] or 0.0 for row in rows) / max(1, len(rows))

        kept, lines = set(), 0
        for page in sorted(self.all, key=sureness):
            if kept and lines + len(page.lines) > self.most:
                break
            kept.add(page.name)
            lines += len(page.lines)
        return [page for page in self.all if page.name in kept]

    def rows(self) -> list[tuple[dict[str, Any], Path]]:
        return [self.rows_of[line.name] for page in self.pages() for line in page.lines if line.name in self.rows_of]

    def __len__(self) -> int:
        return sum(len(page.lines) for page in self.pages())


def thumbnail(path: Path) -> str:
    """A small grey JPEG as a data URL; "" where the image cannot be read."""
    try:
        small = to_grey(open_image(path, THUMBNAIL)[0])
    except ImageError:
        return ""
    small.thumbnail([8 * side for side in THUMBNAIL])  # so that a photo takes no time
    small = normalise_levels(small)
    small.thumbnail(THUMBNAIL)
    return data_url(small, 70)


def data_url(image: Image.Image, quality: int) -> str:
    """An image as a JPEG within an address."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def whole_page(page: ReadPage, output_dir: Path) -> dict[str, Any]:
    """What the HTML needs of a page beside its lines, as plain values."""
    width, height = page.whole.size
    item = {"name": page.shown_as, "width": width, "height": height, "image": "", "up": UP, "down": DOWN}
    with contextlib.suppress(ImageError):
        item["image"] = data_url(page.whole.shown(PAGE_SIZE), 60)
    described = output_dir / PAGES / f"{page.name}.xml"
    item["file"], item["xml"] = described.name, described.read_text(encoding="utf-8")
    return item


def segments(text: str, other: str) -> list[list]:
    """`text` split into [part, whether it differs from `other`]."""
    parts = []
    for tag, start, end, _, _ in Levenshtein.opcodes(text, other):
        if start < end:
            parts.append([text[start:end], tag != "equal"])
    return parts


def curve_chart(title: str, points: Sequence[tuple[float, float]], label: str, low: float, diagonal: bool) -> str:
    """An SVG of points (x, y) in [0, 1] x [low, 1], as a line."""

    def place(x: float, y: float) -> str:
        return f"{40 + 250 * x:.1f},{170 - 150 * (y - low) / (1 - low):.1f}"

    ticks = "".join(
        f'<text x="{40 + 250 * v:.0f}" y="186" text-anchor="middle">{v:.1f}</text>' for v in (0, 0.5, 1)
    ) + "".join(
        f'<text x="34" y="{174 - 150 * k:.0f}" text-anchor="end">{low + k * (1 - low):.2f}</text>' for k in (0, 0.5, 1)
    )
    line = f'<path class="faint" d="M{place(0, 0)}L{place(1, 1)}"/>' if diagonal else ""
    path = f'<path class="line" d="M{"L".join(place(x, y) for x, y in points)}"/>' if points else ""
    return (
        f'<figure><figcaption>{html.escape(title)}</figcaption><svg viewBox="0 0 310 205" role="img"'
        f' aria-label="{html.escape(title)}"><path class="axis" d="M40,20V170H290"/>{line}{path}{ticks}'
        f'<text x="165" y="202" text-anchor="middle">{html.escape(label)}</text></svg></figure>'
    )


def charts(comparison: Comparison, bins: int = 10) -> str:
    """The reliability diagram, and exact match by coverage."""
    sums = [[0.0, 0, 0] for _ in range(bins)]
    for confidence, right in zip(comparison.confidences, comparison.right, strict=True):
        total = sums[min(int(confidence * bins), bins - 1)]
        total[0], total[1], total[2] = total[0] + confidence, total[1] + right, total[2] + 1
    reliability = [(confidence / n, right / n) for confidence, right, n in sums if n]
    shares = coverage_curve(comparison.confidences, comparison.right)
    step = max(1, len(shares) // 200)
    coverage = [((n + 1) / len(shares), shares[n]) for n in range(step - 1, len(shares), step)]
    low = math.floor(10 * min((share for _, share in coverage), default=0)) / 10
    low = min(low, 0.9)
    return curve_chart("share right, by confidence", reliability, "confidence", 0.0, True) + curve_chart(
        "share right among the surest", coverage, "share of images, the surest first", low, False
    )


def identity(path: str | os.PathLike, picture: str) -> str:
    """What a picture is known by in the browser's store: it changes with its place and content.

    picture: its thumbnail, which tells pictures in memory.
    """
    try:
        status = os.stat(path.files[0] if isinstance(path, Part) else path)
        about = f"{os.path.abspath(path)} {status.st_size} {status.st_mtime_ns}"
    except OSError:
        about = f"{os.fspath(path)} {picture}"
    return hashlib.blake2b(about.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()


def card(row: dict[str, Any], image: Path) -> dict[str, Any]:
    """What the page shows of one reading, as plain values."""
    item = {"file": row["FILENAME"], "text": row["PREDICTION"], "image": thumbnail(image), "error": row["ERROR"]}
    item["id"] = identity(image, item["image"])
    item["confidence"] = None if row["ERROR"] else row["CONFIDENCE"]
    item["parts"] = [[row["PREDICTION"], False]] if row["PREDICTION"] else []
    if row.get("TRUTH"):
        item["right"] = row["PREDICTION"] == row["TRUTH"]
        item["parts"] = segments(row["PREDICTION"], row["TRUTH"])
        item["truth"] = segments(row["TRUTH"], row["PREDICTION"])
    else:
        item["doubtful"] = doubtful_words(row)
    if row.get("RUNNER_UP"):
        item["other"] = [row["RUNNER_UP"], row["RUNNER_UP_CONFIDENCE"]]
    return item


def doubtful_words(row: dict[str, Any]) -> list[str]:
    """The words of a reading that are rather wrong than right, if there are others."""
    confidences = [float(confidence) for confidence in row.get("WORD_CONFIDENCES", "").split()]
    words = row["PREDICTION"].split() if len(confidences) > 1 else []
    return [word for word, confidence in zip(words, confidences, strict=False) if confidence < DOUBTFUL]


def as_json(value: Any) -> str:
    """JSON in which no text can end the script that holds it."""
    return json.dumps(value, ensure_ascii=True).replace("<", "\\u003c")


def as_plain(known: Known) -> dict[str, Any]:
    """What the page needs to know of labels: times are in milliseconds."""
    table = known.table
    return {
        "name": known.name, "place": known.place, "separator": table.separator, "columns": table.columns,
        "rows": table.rows, "picture": table.picture, "text": table.text, "of": known.rows_of,
        "changed": {name: 1000 * seconds for name, seconds in known.changed.items()},
    }  # fmt: skip


def write_report(
    path: Path,
    least_sure: LeastSure,
    summary: Sequence[str],
    comparison: Comparison | None,
    tick: Callable[[], Any],
    known: Known | None = None,
) -> None:
    """Write the page: one file that opens offline, in which readings are confirmed and corrected.

    known: labels that there are already; the page does not ask for them again, and saves them with its own. `tick` is
    called after each of its images.
    """
    known = known or nothing_known(Path())
    items, pages = [], least_sure.pages()
    places = {line.name: (n, line) for n, page in enumerate(pages) for line in page.lines}
    described = {
        line.name: described for page in pages for line, described in zip(page.lines, page.page.lines, strict=True)
    }
    for row, image in least_sure.rows():
        item = card(row, image)
        item["row"] = known.name_in_table(row["FILENAME"], image)
        if row["FILENAME"] in places:
            item["page"], line = places[row["FILENAME"]]
            item["outline"] = points_text(line.band.outline())
            item |= {"baseline": points_text(line.band.baseline()), "unit": line.band.unit}
            item["line"] = described[line.name].id
            if described[line.name].text is not None and described[line.name].confidence is None:
                item["own"] = described[line.name].text  # which no program read
        items.append(item)
        tick()
    said = list(summary)
    if len(items) < least_sure.count:
        what = (
            f"lines of the {len(pages):,} least sure pages, of {least_sure.count:,}"
            if pages
            else (f"least sure of {least_sure.count:,} images")
        )
        said.append(f"this page holds the {len(items):,} {what}")
    page = (Path(__file__).parent / "report.html").read_text(encoding="utf-8")
    data = as_json(items)
    page = page.replace("<!--SUMMARY-->", "".join(f"<li>{html.escape(line)}</li>" for line in said))
    page = page.replace("<!--CHARTS-->", charts(comparison) if comparison and comparison.right else "")
    with whole_file(path, encoding="utf-8", errors="backslashreplace") as file:  # paths may hold any bytes
        page = page.replace('"KNOWN"', as_json(as_plain(known))).replace('"DATA"', data)
        file.write(page.replace('"PAGES"', as_json([whole_page(each, path.parent) for each in pages])))
