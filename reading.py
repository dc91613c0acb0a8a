"""Reads images with a trained network and writes the table of readings: what predict.py runs."""

import contextlib
import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import parallel
from config import Config, HTRError
from dataset import (
    IMAGE_SUFFIXES,
    Alphabet,
    ImageError,
    clean_label,
    collate,
    list_files,
    read_images,
    read_labels,
)
from files import whole_file
from model import CRNN, Reading, greedy_decode
from utils import (
    Score,
    autocast,
    build_model,
    choose_device,
    load_checkpoint,
    restore_settings,
    restore_weights,
)

COLUMNS = ("FILENAME", "PREDICTION", "CONFIDENCE", "ERROR", "CHARACTER_CONFIDENCES")
LABEL_COLUMNS = ("TRUTH", "EDITS")
WINDOW = 512  # images that are sorted by width together


@dataclass
class Reader:
    """A trained network with all that its checkpoint says about pictures and characters."""

    model: CRNN
    alphabet: Alphabet
    config: Config
    device: torch.device

    @classmethod
    def load(cls, model_path: str | Path, device: str = "auto") -> "Reader":
        """Raises HTRError where the checkpoint is missing, damaged or does not fit, or the device is not there."""
        checkpoint = load_checkpoint(model_path)
        config, alphabet = restore_settings(checkpoint, model_path)
        model = build_model(config, alphabet)
        restore_weights(model, checkpoint.get("model", {}), model_path)
        chosen = choose_device(device)
        return cls(model.to(chosen).fuse(), alphabet, config, chosen)

    @torch.inference_mode()
    def read(self, images: Sequence[Tensor]) -> list[Reading]:
        """Read grey uint8 lines (H, W_i) as one batch."""
        batch, widths = collate(images)
        with autocast(self.device):
            logits, lengths = self.model(batch.to(self.device), widths)
        return greedy_decode(logits, lengths)

    def rows(self, files: Sequence[tuple[str, Path]], batch_size: int, workers: int) -> Iterator[dict[str, Any]]:
        """Read (name, path) pairs; yields a row of COLUMNS for each, in the order given.

        Holds the pictures of a few thousand files at most, however many there are. With several processes each reads
        every so many windows of files, and the first alone yields the rows of all.
        """
        windows = [files[start : start + WINDOW] for start in range(0, len(files), WINDOW)]
        rank, world = parallel.rank(), parallel.world()
        paths = [path for window in windows[rank::world] for _, path in window]
        images = read_images(paths, self.config, workers)
        for first in range(0, len(windows), world):
            rows = []
            if first + rank < len(windows):
                names = [name for name, _ in windows[first + rank]]
                rows = self.window_rows(names, [next(images) for _ in names], batch_size)
            for part in parallel.gather(rows) or []:
                yield from part

    def window_rows(
        self, names: Sequence[str], images: Sequence[Tensor | ImageError], batch_size: int
    ) -> list[dict[str, Any]]:
        """A row of COLUMNS for each image, read in batches of similar width."""
        readable = [i for i, image in enumerate(images) if not isinstance(image, ImageError)]
        readable.sort(key=lambda i: images[i].shape[1])
        readings = {}
        for first in range(0, len(readable), batch_size):
            batch = readable[first : first + batch_size]
            readings |= zip(batch, self.read([images[i] for i in batch]), strict=True)
        rows = []
        for i, name in enumerate(names):
            if i in readings:
                reading = readings[i]
                characters = " ".join(f"{p:.4f}" for p in reading.label_confidences)
                text = self.alphabet.decode(reading.labels)
                values = (name, text, round(reading.confidence, 6), "", characters)
            else:
                values = (name, "", "", str(images[i]), "")
            rows.append(dict(zip(COLUMNS, values, strict=True)))
        return rows


def find_files(paths: Iterable[str | Path]) -> tuple[list[tuple[str, Path]], int]:
    """The images that `paths` name or hold, as (name, path) sorted by name, and how many other files were passed over.

    A name is the path relative to the folder given, or an image's path as it was given. Raises HTRError where a path
    does not exist or nothing is found.
    """
    found, others = [], 0
    for path in map(Path, paths):
        if path.is_dir():
            names = list_files(path)
            images = [name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]
            others += len(names) - len(images)
            found += [(name, path / name) for name in images]
        elif path.exists():
            found.append((path.as_posix(), path))
        else:
            raise HTRError(f"there is no image or folder {path}")
    if not found:
        raise HTRError(
            f"no images in {', '.join(map(str, paths))}; looked for {' '.join(sorted(IMAGE_SUFFIXES))} in it and below"
        )
    return sorted(found), others


class Truth:
    """Labels to compare readings with: fills in TRUTH and EDITS, and adds up the score.

    Labels are cleaned as in training; blank and ignored ones do not count. A row is matched by its FILENAME, or by the
    last part of it.
    """

    def __init__(self, labels_csv: str | Path, config: Config):
        table = read_labels(labels_csv)
        ignored = {"", *(clean_label(label, config.UPPERCASE) for label in config.IGNORED_LABELS)}
        texts = (clean_label(label, config.UPPERCASE) for label in table["IDENTITY"])
        self.labels = {name: text for name, text in zip(table["FILENAME"], texts, strict=True) if text not in ignored}
        self.score = Score()

    def compare(self, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for row in rows:
            name = row["FILENAME"]
            truth = self.labels.get(name, self.labels.get(name.rsplit("/", 1)[-1]))
            edits = "" if truth is None else self.score.add(truth, row["PREDICTION"])
            yield row | {"TRUTH": truth or "", "EDITS": edits}


def write_predictions(
    rows: Iterable[dict[str, Any]], output_dir: str | Path, columns: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Pass rows through while writing predictions.csv and predictions.txt, which appear after the last row."""
    output_dir = Path(output_dir)
    with contextlib.ExitStack() as stack:
        options = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}
        table = stack.enter_context(whole_file(output_dir / "predictions.csv", **options))
        text = stack.enter_context(whole_file(output_dir / "predictions.txt", **options))
        writer = csv.DictWriter(table, columns, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(row)
            text.write(f"{row['FILENAME']}\t{row['PREDICTION']}\t{row['CONFIDENCE']}\n")
            yield row
