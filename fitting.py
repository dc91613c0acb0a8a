"""Fits a checkpoint's confidence on labelled images, and how it weighs names and spelling: `predict.py --calibrate`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset import geometry, label_rules
from htr.decoding.confidence import Calibration, Ngrams
from htr.decoding.language import Language
from htr.decoding.lexicon import TRIGRAMS, Lexicon, Prior, fit_prior, spelling_of
from htr.pictures.images import ImageError, read_images
from htr.results.scores import FEWEST
from htr.system import parallel
from htr.system.scripts import HTRError
from reading import Evidence, Job, MaybeImage, Reader, found_of, pixels_of, truth_of
from utils import is_shipped, load_checkpoint, only_training, restore_settings, save_checkpoint

if TYPE_CHECKING:
    import torch

Labelled = Sequence[tuple[Evidence, str]]  # what was read of images, and their true texts


def fit_confidence(labelled: Labelled, trigrams: Ngrams) -> Calibration:
    """What a Reader takes as calibration, fitted on labelled images that the network was not trained on."""
    texts = [evidence.text for evidence, _ in labelled]
    right = [evidence.text == truth for evidence, truth in labelled]
    return Calibration.fit(trigrams, texts, [evidence.reading.confidence for evidence, _ in labelled], right)


def fit_choice(labelled: Labelled, trigrams: Ngrams, prior: Prior) -> tuple[Prior, Calibration]:
    """What a Reader takes as prior and prior_calibration, fitted on labelled images that it read with `prior`.

    The network must not have been trained on these images.
    """
    read, truths = zip(*labelled, strict=True)
    weights = fit_prior([each.features for each in read], [each.candidates for each in read], truths)
    prior = dataclasses.replace(prior, weights=weights)
    choices = [prior.choose(evidence.candidates, evidence.features) for evidence, _ in labelled]
    right = [choice.text == truth for choice, (_, truth) in zip(choices, labelled, strict=True)]
    texts, probabilities = [choice.text for choice in choices], [choice.probability for choice in choices]
    return prior, Calibration.fit(trigrams, texts, probabilities, right)


def fitted_on(
    model_path: str | Path,
    images: Sequence[MaybeImage],
    truths: Sequence[str],
    lexicon: Lexicon | None,
    device: "str | torch.device | None",
    batch_size: int | None,
) -> dict[str, Any]:
    """What a checkpoint should hold so that its confidence is calibrated on these labelled images.

    With a lexicon, also how it is weighed against what the network sees, and how its names are spelled. Raises HTRError
    where fewer than FEWEST images can be read: on fewer, a calibration does more harm than good.
    """
    reader = Reader.load(model_path, device)
    read = zip(reader.read_all(images, batch_size or reader.network.in_batch), truths, strict=True)
    labelled = [(evidence, reader.as_read(truth)) for evidence, truth in read if evidence is not None]
    if len(labelled) < FEWEST:
        raise HTRError(
            f"there are {len(labelled)} labelled images that can be read, too few to calibrate on: label at least"
            f" {FEWEST}"
        )

    def weighed(prior: Prior) -> Labelled:
        evidence, texts = zip(*labelled, strict=True)
        return list(zip(dataclasses.replace(reader, prior=prior).weigh(evidence), texts, strict=True))

    trigrams = reader.calibration.trigrams if reader.calibration else Ngrams({})
    if lexicon is not None:
        trigrams = Ngrams.of(dict.fromkeys(lexicon.words, 1), TRIGRAMS)
    fitted: dict[str, Any] = {"calibration": fit_confidence(labelled, trigrams).state()}
    if lexicon is not None:
        counts = {reader.alphabet.pictured(text): count for text, count in lexicon.counts.items()}
        ngrams = Ngrams.of(dict.fromkeys(counts, 1), TRIGRAMS)
        prior = Prior(Language(ngrams, reader.alphabet.characters), lexicon)
        prior, calibration = fit_choice(weighed(prior), trigrams, prior)
        fitted["lexicon"] = {"weights": prior.weights, "calibration": calibration.weights}
        if ngrams.counts != trigrams.counts:  # names from right to left, which are read as they are pictured
            fitted["lexicon"]["ngrams"] = ngrams.state()
        ngrams = spelling_of(counts)
        prior = Prior(Language(ngrams, reader.alphabet.characters))
        prior, calibration = fit_choice(weighed(prior), trigrams, prior)
        fitted["spelling"] = {
            "ngrams": ngrams.state(), "weights": prior.weights, "calibration": calibration.weights
        }  # fmt: skip
    return fitted


def keep_fitted(fitted: dict[str, Any], model_path: str | Path, target: str | Path, images: int) -> None:
    """Write a checkpoint with what `fitted_on` returned of so many images."""
    save_checkpoint(load_checkpoint(model_path) | fitted, target)
    print(f"confidence calibrated on {images:,} labelled images, kept in {target}")


def calibrate_on(job: Job) -> Job:
    """Calibrate a job's checkpoint on those of its images that have a label.

    Returns the job with the calibrated checkpoint: of the shipped weights that is a copy in the current folder.
    """
    if parallel.world() > 1:
        raise HTRError("--calibrate needs a single process: run it without torchrun")
    found, pages = found_of(job)
    settings, _ = restore_settings(load_checkpoint(job.model_path), job.model_path)
    labels = truth_of(job, found, pages, settings).labels
    labelled = [(path, labels[name]) for name, path in found.files if name in labels]
    images = pixels_of(read_images([path for path, _ in labelled], geometry(settings), job.workers))
    lexicon = Lexicon.load(job.lexicon, label_rules(settings)) if job.lexicon else None
    texts = [text for _, text in labelled]
    target = Path(job.model_path)
    if is_shipped(target):
        target = Path(f"{target.stem}.calibrated.pth")
    with only_training(target):
        fitted = fitted_on(job.model_path, images, texts, lexicon, job.device, job.batch_size)
        keep_fitted(fitted, job.model_path, target, sum(not isinstance(image, ImageError) for image in images))
    if target != Path(job.model_path):
        print(f"the shipped weights stay as they are: from now on read with --model-path {target}")
    return dataclasses.replace(job, model_path=target)
