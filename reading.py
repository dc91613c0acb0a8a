"""Reads images with a trained network: what predict.py runs."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import parallel
from confidence import FLOOR, Calibration, Trigrams
from config import Config, HTRError
from dataset import (
    IMAGE_SUFFIXES,
    Alphabet,
    ImageError,
    clean_label,
    collate,
    file_name,
    list_files,
    read_images,
    read_labels,
)
from lexicon import Choice, Lexicon, Prior, fit_prior
from model import CRNN, Reading, candidate_log_probs, greedy_decode, log_probabilities, similar_labels
from report import Comparison
from utils import (
    autocast,
    build_model,
    choose_device,
    load_checkpoint,
    restore_settings,
    restore_weights,
    save_checkpoint,
)

COLUMNS = ("FILENAME", "PREDICTION", "CONFIDENCE", "ERROR", "CHARACTER_CONFIDENCES")
LEXICON_COLUMNS = ("GREEDY", "RUNNER_UP", "RUNNER_UP_CONFIDENCE")
LABEL_COLUMNS = ("TRUTH", "RIGHT", "EDITS")
WINDOW = 512  # images that are sorted by width together
SIMILAR = 12  # unknown texts that a lexicon's names are weighed against, for each image


@dataclass
class Evidence:
    """What is known of one image: the greedy reading and, with a lexicon, all candidates, the greedy text first.

    features: (len(candidates) + 1, lexicon.FEATURES).
    """

    text: str
    reading: Reading
    candidates: list[str]
    features: Tensor | None


@dataclass
class Reader:
    """A trained network with all that its checkpoint says about pictures, characters and confidence.

    prior and prior_calibration are there where it reads with a lexicon.
    """

    model: CRNN
    alphabet: Alphabet
    config: Config
    device: torch.device
    calibration: Calibration | None = None
    prior: Prior | None = None
    prior_calibration: Calibration | None = None

    @classmethod
    def load(cls, model_path: str | Path, device: str = "auto", lexicon: str | Path | None = None) -> "Reader":
        """Raises HTRError where the checkpoint is missing, damaged or does not fit, the device is not there, the
        lexicon cannot be read, or nothing was fitted for one."""
        checkpoint = load_checkpoint(model_path)
        config, alphabet = restore_settings(checkpoint, model_path)
        model = build_model(config, alphabet)
        restore_weights(model, checkpoint.get("model", {}), model_path)
        chosen = choose_device(device)
        fitted = checkpoint.get("lexicon")
        if lexicon is not None and fitted is None:
            raise HTRError(
                f"{model_path} was never fitted to weigh a lexicon against what it sees: do so on labelled images, with"
                " predict.py PATH --labels CSV --lexicon CSV --calibrate"
            )
        try:
            reader = cls(model.to(chosen).fuse(), alphabet, config, chosen)
            if "calibration" in checkpoint or lexicon is not None:
                reader.calibration = Calibration.restore(checkpoint["calibration"])
            if lexicon is not None:
                trigrams = reader.calibration.trigrams
                reader.prior = Prior(Lexicon.load(lexicon, config), trigrams, fitted["weights"])
                reader.prior_calibration = Calibration(trigrams, fitted["calibration"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise HTRError(f"{model_path} holds a calibration that makes no sense: {error}") from error
        return reader

    @torch.inference_mode()
    def read(self, images: Sequence[Tensor]) -> list[Evidence]:
        """Read grey uint8 lines (H, W_i) as one batch."""
        batch, widths = collate(images)
        with autocast(self.device):
            logits, lengths = self.model(batch.to(self.device), widths)
        readings = greedy_decode(logits, lengths)
        texts = [self.alphabet.decode(reading.labels) for reading in readings]
        if self.prior is None:
            return [Evidence(text, reading, [text], None) for text, reading in zip(texts, readings, strict=True)]

        log_probs = log_probabilities(logits).cpu()
        candidates = []
        for n, near in enumerate(self.prior.lexicon.near(texts)):
            similar = similar_labels(log_probs[: lengths[n], n], SIMILAR)
            known = [word for word in near if self.alphabet.knows(word)]
            candidates.append(list(dict.fromkeys([texts[n], *map(self.alphabet.decode, similar), *known])))
        labels = [[self.alphabet.encode(text) for text in several] for several in candidates]
        found = []
        for n, values in enumerate(candidate_log_probs(log_probs, lengths, labels)):
            possible = [place for place, value in enumerate(values) if value > -torch.inf]
            several = [candidates[n][place] for place in possible]
            features = self.prior.features(several, [values[place] for place in possible])
            found.append(Evidence(texts[n], readings[n], several, features))
        return found

    def choose(self, evidence: Evidence) -> Choice:
        """The text to take, and its calibrated probability."""
        if self.prior is None:
            probability = evidence.reading.confidence
            if self.calibration:
                probability = self.calibration(evidence.text, probability)
            return Choice(evidence.text, probability, "", 0.0)
        choice = self.prior.choose(evidence.candidates, evidence.features)
        probability = self.prior_calibration(choice.text, choice.probability)
        others = (1 - probability) / max(1 - choice.probability, FLOOR)  # what is left is left to the others
        return Choice(choice.text, probability, choice.runner_up, min(choice.runner_up_probability * others, 1.0))

    def rows(self, files: Sequence[tuple[str, Path]], batch_size: int, workers: int) -> Iterator[dict[str, Any]]:
        """Read (name, path) pairs; yields a row of `columns` for each, in the order given.

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
        """A row of `columns` for each image, read in batches of similar width."""
        rows = []
        for name, image, evidence in zip(names, images, self.read_all(images, batch_size), strict=True):
            if evidence is None:
                values = (name, "", "", str(image), "", "", "", "")
            else:
                choice = self.choose(evidence)
                characters = " ".join(f"{p:.4f}" for p in evidence.reading.label_confidences)
                values = (name, choice.text, round(choice.probability, 6), "", characters)
                values += (evidence.text, choice.runner_up, round(choice.runner_up_probability, 6))
            rows.append(dict(zip(self.columns, values, strict=False)))
        return rows

    @property
    def columns(self) -> tuple[str, ...]:
        return COLUMNS + LEXICON_COLUMNS if self.prior else COLUMNS

    def read_all(self, images: Sequence[Tensor | ImageError], batch_size: int) -> list[Evidence | None]:
        """Read images in batches of similar width; None for those that could not be read.

        A CPU reads several batches at once, each in one thread: that wastes less than several threads on one batch.
        """
        readable = [i for i, image in enumerate(images) if not isinstance(image, ImageError)]
        readable.sort(key=lambda i: images[i].shape[1])
        batches = [readable[first : first + batch_size] for first in range(0, len(readable), batch_size)]
        found: list[Evidence | None] = [None] * len(images)
        threads = torch.get_num_threads()
        at_once = threads if self.device.type == "cpu" else 1
        with ThreadPoolExecutor(at_once, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            readings = pool.map(lambda batch: self.read([images[i] for i in batch]), batches)
            for batch, several in zip(batches, readings, strict=True):
                for i, evidence in zip(batch, several, strict=True):
                    found[i] = evidence
        torch.set_num_threads(threads)
        return found


def fit_confidence(
    evidence: Sequence[Evidence], truths: Sequence[str], trigrams: Trigrams, lexicon: Lexicon | None
) -> tuple[Calibration, Prior | None, Calibration | None]:
    """What a Reader takes as calibration, prior and prior_calibration, fitted on labelled images.

    The network must not have been trained on these images. `evidence` was read with a prior where there is a lexicon.
    """
    texts = [found.text for found in evidence]
    right = [text == truth for text, truth in zip(texts, truths, strict=True)]
    calibration = Calibration.fit(trigrams, texts, [found.reading.confidence for found in evidence], right)
    if lexicon is None:
        return calibration, None, None
    places = [
        found.candidates.index(truth) if truth in found.candidates else len(found.candidates)
        for found, truth in zip(evidence, truths, strict=True)
    ]
    prior = Prior(lexicon, trigrams, fit_prior([found.features for found in evidence], places))
    choices = [prior.choose(found.candidates, found.features) for found in evidence]
    right = [choice.text == truth for choice, truth in zip(choices, truths, strict=True)]
    texts, probabilities = [choice.text for choice in choices], [choice.probability for choice in choices]
    return calibration, prior, Calibration.fit(trigrams, texts, probabilities, right)


def calibrate(
    model_path: str | Path,
    images: Sequence[Tensor | ImageError],
    truths: Sequence[str],
    lexicon: Lexicon | None,
    device: str,
    batch_size: int,
) -> None:
    """Fit how a checkpoint's confidence is computed, on labelled images, and write it into the checkpoint.

    images: grey uint8 (H, W_i). With a lexicon, also fits how it is weighed against what the network sees, and learns
    from it what names look like. Raises HTRError where no image can be read.
    """
    reader = Reader.load(model_path, device)
    trigrams = reader.calibration.trigrams if reader.calibration else Trigrams({})
    if lexicon is not None:
        trigrams = Trigrams.of(lexicon.words)
        reader.prior = Prior(lexicon, trigrams)
    pairs = zip(reader.read_all(images, batch_size), truths, strict=True)
    pairs = [(evidence, truth) for evidence, truth in pairs if evidence is not None]
    if not pairs:
        raise HTRError("a calibration needs labelled images that can be read, and there is none")
    calibration, prior, prior_calibration = fit_confidence(*zip(*pairs, strict=True), trigrams, lexicon)
    checkpoint = load_checkpoint(model_path) | {"calibration": calibration.state()}
    if prior is not None:
        checkpoint["lexicon"] = {"weights": prior.weights, "calibration": prior_calibration.weights}
    save_checkpoint(checkpoint, model_path)
    print(f"confidence calibrated on {len(pairs):,} labelled images, kept in {model_path}")


class Found(NamedTuple):
    """The images to read."""

    files: list[tuple[str, Path]]  # (name, path) sorted by name
    others: int  # files passed over, as their names are not those of images
    linked_folders: int  # folders passed over, as they are links


def find_files(paths: Iterable[str | Path]) -> Found:
    """The images that `paths` name or hold.

    A name is the path relative to the folder given, or an image's path as it was given. Folders that cannot be searched
    are among the images, so that they have their row. Raises HTRError where a path does not exist or nothing is found.
    """
    found, others, linked = [], 0, 0
    for path in map(Path, paths):
        if path.is_dir():
            listing = list_files(path)
            images = [name for name in listing.files if Path(name).suffix.lower() in IMAGE_SUFFIXES]
            others += len(listing.files) - len(images)
            linked += len(listing.linked_folders)
            found += [(file_name(name), path / name) for name in images + listing.odd_folders]
        elif path.exists():
            found.append((file_name(path.as_posix()), path))
        else:
            raise HTRError(f"there is no image or folder {path}")
    if not found:
        raise HTRError(
            f"no images in {', '.join(map(str, paths))}; looked for {' '.join(sorted(IMAGE_SUFFIXES))} in it and below"
        )
    return Found(sorted(found), others, linked)


class Truth:
    """Labels to compare readings with: fills in LABEL_COLUMNS, and adds up what `comparison` tells.

    Labels are cleaned as in training; blank and ignored ones do not count. A row is matched by its FILENAME, or by the
    last part of it; of several labels for a file the first counts. An image that could not be read counts as read with
    no text.
    """

    def __init__(self, labels_csv: str | Path, config: Config):
        table = read_labels(labels_csv)
        ignored = {"", *(clean_label(label, config.UPPERCASE) for label in config.IGNORED_LABELS)}
        texts = (clean_label(label, config.UPPERCASE) for label in table["IDENTITY"])
        self.labels: dict[str, str] = {}
        self.repeated = 0  # rows that name a file again
        for name, text in zip(table["FILENAME"], texts, strict=True):
            if text not in ignored:
                self.repeated += name in self.labels
                self.labels.setdefault(name, text)
        self.comparison = Comparison()

    def of(self, name: str) -> str | None:
        """The true text of the image called `name`, where there is one."""
        return self.labels.get(name, self.labels.get(name.rsplit("/", 1)[-1]))

    def compare(self, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for row in rows:
            truth, values = self.of(row["FILENAME"]), ("", "", "")
            if truth is not None:
                edits = self.comparison.add(row["FILENAME"], row["PREDICTION"], row["CONFIDENCE"] or 0.0, truth)
                values = (truth, "no" if edits else "yes", edits)
            yield row | dict(zip(LABEL_COLUMNS, values, strict=True))
