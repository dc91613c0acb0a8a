"""The true texts of the lines of pages, from ALTO or PAGE files: which of their lines a line that was read is."""

import statistics
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from htr.pictures.cutting import Band, turned
from htr.results.scores import Comparison, Score, Truth
from htr.results.transcripts import ReadPage
from htr.system.scripts import HTRError
from htr.texts.labels import LabelRules
from htr.texts.pages import find_pages, picture_of, xml_files

NEAR = 0.4  # of the distance of neighbouring lines, within which two baselines are the same
ALONG = 0.5  # share of a true baseline along which a line must run to be that line
SAMPLES = 40  # places along it that are looked at


class PageTruth(Truth):
    """The texts that ALTO or PAGE files give the lines of pages, and scores of whole pages.

    A line is the one along whose baseline it runs, whatever it is called. Lines of the files that no line of the page
    runs along count as read with no text. Raises HTRError where `labels`, a file or a folder of them, is of none of the
    pages.
    """

    def __init__(self, labels: Path, rules: LabelRules, pages: Sequence[ReadPage]):
        self.labels, self.notes, self.comparison = {}, [], Comparison()
        self.page_of = {line.name: page.shown_as for page in pages for line in page.lines}
        self.scores: dict[str, Score] = {}
        pictures = dict.fromkeys(page.picture for page in pages)
        found = find_pages(xml_files(labels), pictures)
        described = {(each.picture, each.number): each for each in found.described}
        missed = 0
        for page in pages:
            if (each := described.get((page.picture, page.number))) is None:
                continue
            true = [(line, rules.clean(line.text or "")) for line in each.page.lines]
            bands = [] if page.whole is None else page.whole.bands
            places = matching(picture_of(each).bands, bands)
            for (_, text), place in zip(true, places, strict=True):
                if not rules.hold_text(text):
                    continue
                if place is not None:
                    self.labels[page.lines[place].name] = text
                    continue
                missed += 1
                self.comparison.add(page.shown_as, "", 0.0, text)
                self.scores.setdefault(page.shown_as, Score()).add(text, "")
        if missed:
            self.notes.append(f"lines of the labels that no line that was found runs along: {missed:,}")
        if not self.labels and not missed:
            lost = f": {found.lost[0][1]}" if found.lost else ""
            raise HTRError(f"{labels} holds no text of a line of these pages{lost}")

    def compare(self, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for row in super().compare(rows):
            if row["TRUTH"]:
                page = self.page_of[row["FILENAME"]]
                self.scores.setdefault(page, Score()).add(row["TRUTH"], row["PREDICTION"])
            yield row

    def lines(self) -> list[str]:
        """The scores of all lines, and how they differ from page to page."""
        said = self.comparison.lines()
        if len(self.scores) > 1:
            ranked = sorted(self.scores.items(), key=lambda page: page[1].cer)
            (best, least), (worst, most) = ranked[0], ranked[-1]
            middle = [statistics.median(values) for values in zip(*((s.cer, s.wer) for _, s in ranked), strict=True)]
            said.insert(
                1,
                f"by page: CER {middle[0]:.4f} in the median of {len(ranked):,}, from {least.cer:.4f} ({best}) to"
                f" {most.cer:.4f} ({worst}); WER {middle[1]:.4f} in the median",
            )
        return said


def matching(true: Sequence[Band], read: Sequence[Band]) -> list[int | None]:
    """For each true band the place of the one that runs along it, each at most once, the surest first."""
    shares = np.array([[along(one, other) for other in read] for one in true]).reshape(len(true), len(read))
    places: list[int | None] = [None] * len(true)
    taken: set[int] = set()
    for n, place in zip(*np.unravel_index(np.argsort(-shares, axis=None, kind="stable"), shares.shape), strict=True):
        if shares[n, place] < ALONG:
            break
        if places[n] is None and place not in taken:
            places[n] = int(place)
            taken.add(int(place))
    return places


def along(true: Band, read: Band) -> float:
    """The share of a true band's baseline that the baseline of another band runs along."""
    tolerance = NEAR * true.unit
    other = turned(read.baseline(), true.angle)
    other = other[np.argsort(other[:, 0], kind="stable")]
    x = np.linspace(true.x[0], true.x[-1], SAMPLES)
    apart = np.abs(np.interp(x, true.x, true.y) - np.interp(x, other[:, 0], other[:, 1]))
    within = (x >= other[0, 0] - tolerance) & (x <= other[-1, 0] + tolerance)
    return float((within & (apart <= tolerance)).mean())
