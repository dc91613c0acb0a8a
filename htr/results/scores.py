"""Scores of readings against true texts: CER, exact match, confusions, and labels that look wrong."""

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rapidfuzz.distance import Levenshtein

from htr.decoding.confidence import auroc, coverage_curve, expected_calibration_error
from htr.system.names import Pictures
from htr.system.scripts import HTRError
from htr.texts.direction import to_visual
from htr.texts.labels import ANY, Columns, LabelRules
from htr.texts.sources import labels_of

LABEL_COLUMNS = ("TRUTH", "RIGHT", "EDITS")
SURE = 0.9  # a reading of at least this confidence that differs from its label makes the label a suspect
SUREST = 0.9  # share of the readings, the surest, whose exact match is reported by itself
FEWEST = 50  # labelled images from which on the confidence can be measured, and calibrated


@dataclass
class Score:
    """CER (all edits / all reference characters), WER (the same of words) and exact match, over the pairs so far."""

    edits: int = 0
    characters: int = 0
    right: int = 0
    images: int = 0
    word_edits: int = 0
    words: int = 0

    def add(self, reference: str, reading: str) -> int:
        """Count one pair; returns its edit distance (Levenshtein).

        Texts from right to left are compared as they are pictured: those that look the same are the same.
        """
        true, read = to_visual(reference), to_visual(reading)
        edits = Levenshtein.distance(true, read)
        self.edits += edits
        self.word_edits += Levenshtein.distance(true.split(), read.split())
        self.words += len(true.split())
        self.characters += len(reference)
        self.right += edits == 0
        self.images += 1
        return edits

    @property
    def cer(self) -> float:
        return self.edits / max(1, self.characters)

    @property
    def wer(self) -> float:
        return self.word_edits / max(1, self.words)

    @property
    def has_spaces(self) -> bool:
        """Whether there are texts of several words: only then WER says more than exact match."""
        return self.words > self.images

    @property
    def exact(self) -> float:
        return self.right / max(1, self.images)

    def __str__(self) -> str:
        right = f"{self.right:,} of {self.images:,} labelled images"
        return f"CER {self.cer:.4f}, exact match {self.exact:.4f} ({right})"


class Comparison:
    """Readings compared with true texts, one by one: scores, confused characters, suspect labels."""

    def __init__(self):
        self.score = Score()
        self.confidences: list[float] = []
        self.right: list[bool] = []
        self.confusions: Counter[tuple[str, str]] = Counter()  # (true, read); "" where one was missed or added
        self.suspects: list[tuple[float, str, str, str]] = []  # (confidence, file, read, label)

    def add(self, filename: str, text: str, confidence: float, truth: str) -> int:
        """Count one reading; returns its edit distance."""
        edits = self.score.add(truth, text)
        self.confidences.append(confidence)
        self.right.append(edits == 0)
        true, read = to_visual(truth), to_visual(text)
        for kind, at, to in Levenshtein.editops(true, read):
            pair = ("" if kind == "insert" else true[at], "" if kind == "delete" else read[to])
            self.confusions[pair] += 1
        if edits and confidence >= SURE:
            self.suspects.append((confidence, filename, text, truth))
        return edits

    def lines(self, most: int = 8) -> list[str]:
        """What there is to report, a sentence a line, with the `most` frequent confusions."""
        said = [str(self.score)]
        if self.score.has_spaces:
            said.append(f"WER {self.score.wer:.4f} ({self.score.words:,} words)")
        if len(self.right) >= FEWEST:
            said.append(self.confidence_line())
        if self.confusions:
            names = {"": "nothing", " ": "a space"}
            pairs = [
                f"{names.get(true, true)} as {names.get(read, read)} ({count})"
                for (true, read), count in self.confusions.most_common(most)
            ]
            said.append(f"read wrong most often: {', '.join(pairs)}")
        if self.suspects:
            self.suspects.sort(key=lambda suspect: (-suspect[0], suspect[1]))
            some = [f"{name} reads {text}, labelled {truth}" for _, name, text, truth in self.suspects[:3]]
            said.append(
                f"{len(self.suspects):,} labels to check, of sure readings that are not as labelled: {'; '.join(some)}"
            )
        return said

    def confidence_line(self) -> str:
        surest = coverage_curve(self.confidences, self.right)[max(0, round(SUREST * len(self.right)) - 1)]
        area = auroc(self.confidences, self.right)
        parts = [f"ECE {expected_calibration_error(self.confidences, self.right):.4f}"]
        parts += [] if math.isnan(area) else [f"AUROC {area:.4f}"]
        return f"confidence: {', '.join(parts)}, exact among the surest {SUREST:.0%} {surest:.4f}"


class Truth:
    """The true texts of images: fills in LABEL_COLUMNS, and adds up `comparison`.

    labels: by the names of `files`. source: where they come from. notes: what did not fit, a sentence each. Labels are
    cleaned as in training; blank and ignored ones do not count. Names mean what they mean in training, see
    `htr.system.names.Pictures`; of several labels for a file the first counts. An image that could not be read counts
    as read with no text. Raises HTRError where `labels`, a table or a folder with labels, cannot be read or names none
    of the files.
    """

    def __init__(
        self,
        labels: str | os.PathLike,
        rules: LabelRules,
        files: Sequence[tuple[str, Path]],
        folders: Iterable[str | os.PathLike] = (),
        columns: Columns = ANY,
    ):
        self.source = source = labels_of(Path(labels), columns)
        rows = ((name, rules.clean(text)) for name, text in source.rows)
        rows = [(name, text) for name, text in rows if rules.hold_text(text)]
        matches = Pictures(files, ([source.base], folders, ("",))).match(name for name, _ in rows)
        names = [name for name, _ in files]
        self.labels: dict[str, str] = {}
        repeated = 0
        for place, (_, text) in zip(matches.places, rows, strict=True):
            if place is not None:
                repeated += names[place] in self.labels
                self.labels.setdefault(names[place], text)
        self.notes = [f"{source.name}: {note}" for note in source.notes] + matches.lines(names)
        if not self.labels:
            raise HTRError(f"{labels} does not fit: {'; '.join(matches.lines(names)) or 'it holds no text'}")
        if repeated:
            self.notes.append(f"labels for a file that had one already, passed over: {repeated:,}")
        self.comparison = Comparison()

    def lines(self) -> list[str]:
        """What there is to report, a sentence a line."""
        return self.comparison.lines()

    def compare(self, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Pass rows of readings through, with LABEL_COLUMNS added."""
        for row in rows:
            truth, values = self.labels.get(row["FILENAME"]), ("", "", "")
            if truth is not None:
                edits = self.comparison.add(row["FILENAME"], row["PREDICTION"], row["CONFIDENCE"] or 0.0, truth)
                values = (truth, "no" if edits else "yes", edits)
            yield row | dict(zip(LABEL_COLUMNS, values, strict=True))
