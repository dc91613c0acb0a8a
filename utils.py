"""What training and prediction share: scores, the device, checkpoints."""

import contextlib
import dataclasses
import hashlib
import io
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rapidfuzz.distance import Levenshtein

import parallel
from config import Config, HTRError
from dataset import Alphabet
from files import whole_file
from model import CRNN

FORMAT = "htr-crnn"
VERSION = 1


@dataclass
class Score:
    """CER (all edits / all reference characters) and exact match, over the pairs added so far."""

    edits: int = 0
    characters: int = 0
    right: int = 0
    images: int = 0

    def add(self, reference: str, reading: str) -> int:
        """Count one pair; returns its edit distance (Levenshtein)."""
        edits = Levenshtein.distance(reference, reading)
        self.edits += edits
        self.characters += len(reference)
        self.right += edits == 0
        self.images += 1
        return edits

    @property
    def cer(self) -> float:
        return self.edits / max(1, self.characters)

    @property
    def exact(self) -> float:
        return self.right / max(1, self.images)

    def __str__(self) -> str:
        right = f"{self.right:,} of {self.images:,} labelled images"
        return f"CER {self.cer:.4f}, exact match {self.exact:.4f} ({right})"


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" takes CUDA, then MPS, then the CPU. Raises HTRError where it is not there."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, there in available.items() if there)
    if not available[name]:
        raise HTRError(f"this machine offers PyTorch no {name} device: leave --device out, or use --device cpu")
    return torch.device(name, parallel.local_rank()) if name == "cuda" else torch.device(name)


def cpu_is_faster_in_bfloat16() -> bool:
    """With AMX, and with AVX-512's bfloat16 on AMD; Intel's alone is slower than float32 (benchmarks/README.md)."""
    features = getattr(torch.cpu, "get_capabilities", dict)()
    intel = features.get("cpu_name", "").startswith("Intel")
    return bool(features.get("amx_bf16") or (features.get("avx512_bf16") and not intel))


def autocast(device: torch.device) -> torch.autocast:
    """Mixed precision: bfloat16 on CUDA and on a CPU that is faster in it; nothing elsewhere.

    The CTC loss and all probabilities are computed in float32 everywhere.
    """
    enabled = device.type == "cuda" or (device.type == "cpu" and cpu_is_faster_in_bfloat16())
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


@contextlib.contextmanager
def memory_advice(batch_size: int) -> Iterator[None]:
    """Turn a lack of memory into an HTRError that says which batch size to try."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        lacking = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "allocate memory" in str(error)
        if not lacking:
            raise
        raise HTRError(
            f"there is not memory enough for batches of {batch_size} images: train or read with --batch-size"
            f" {max(1, batch_size // 2)}"
        ) from error


# ------------------------------------------------------------------------------------------- checkpoints


def checksum(data: bytes) -> bytes:
    return b"blake2b " + hashlib.blake2b(data, digest_size=32).hexdigest().encode()


def save_checkpoint(checkpoint: dict[str, Any], path: str | os.PathLike, previous: Path | None = None) -> None:
    """Write a dict of tensors and plain values, whole or not at all.

    The file is what `torch.save` makes, a ZIP archive; its comment is the checksum of all that stands before. The file
    that it replaces is kept as `previous` where that is given.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "version": VERSION} | checkpoint, buffer)
    data = buffer.getvalue()[:-2]  # without the length of an empty comment
    comment = checksum(data)
    with whole_file(path, "wb", previous) as file:
        file.write(data + len(comment).to_bytes(2, "little") + comment)


def load_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, never running code from it.

    Raises HTRError, naming the file and the cause, where it is not one of ours or is damaged.
    """
    try:
        file = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise HTRError(f"there is no checkpoint {path}; train one with train.py") from error
    except OSError as error:
        raise HTRError(f"{path} cannot be read: {error.strerror or error}") from error
    comment = checksum(b"")
    end = len(file) - len(comment) - 2
    data, length, found = file[: max(end, 0)], file[max(end, 0) : -len(comment)], file[-len(comment) :]
    if length != len(comment).to_bytes(2, "little") or found != checksum(data):
        raise HTRError(f"{path} is damaged or no checkpoint of this program: its checksum is missing or wrong")
    try:
        with warnings.catch_warnings(action="ignore"):  # what is odd about the file is said below
            checkpoint = torch.load(io.BytesIO(file), map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises nearly anything
        raise HTRError(f"{path} is no checkpoint of this program ({type(error).__name__})") from error
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != FORMAT:
        raise HTRError(f"{path} is no checkpoint of this program")
    if checkpoint.get("version") != VERSION:
        raise HTRError(f"{path} has format {checkpoint.get('version')}, and this program reads format {VERSION}")
    return checkpoint


# ------------------------------------------------------------------------------ settings, alphabet, model


def build_model(config: Config, alphabet: Alphabet) -> CRNN:
    return CRNN(
        len(alphabet),
        config.IMG_HEIGHT,
        config.CNN_CHANNELS,
        config.LSTM_HIDDEN,
        config.LSTM_LAYERS,
        config.DROPOUT,
    )


def restore_settings(checkpoint: dict[str, Any], path: str | os.PathLike) -> tuple[Config, Alphabet]:
    """The settings and the alphabet of a checkpoint; what it does not say is as by default.

    Raises HTRError where this program does not know them.
    """
    saved = checkpoint.get("config")
    known = {field.name for field in dataclasses.fields(Config)}
    if not isinstance(saved, dict) or not known.issuperset(saved):
        unknown = sorted(set(saved) - known) if isinstance(saved, dict) else ["config"]
        raise HTRError(f"{path} is of another version of this program: it has the settings {', '.join(unknown)}")
    try:
        if not isinstance(checkpoint["alphabet"], str):
            raise TypeError("the alphabet is no text")
        return Config(**saved), Alphabet(checkpoint["alphabet"])
    except (KeyError, TypeError, ValueError) as error:
        raise HTRError(f"{path} holds settings that make no sense: {error}") from error


def restore_weights(model: CRNN, weights: dict[str, torch.Tensor], path: str | os.PathLike) -> None:
    """Load weights into `model`. Raises HTRError that names the first one that does not fit."""
    expected = model.state_dict()
    if not isinstance(weights, dict) or not all(isinstance(weight, torch.Tensor) for weight in weights.values()):
        raise HTRError(f"{path} holds no weights")
    for name in expected.keys() | weights.keys():
        if name not in expected or name not in weights:
            what = "missing" if name in expected else "not known"
            raise HTRError(f"{path} does not fit its settings: the weight {name} is {what}")
        if expected[name].shape != weights[name].shape:
            shapes = f"{tuple(weights[name].shape)} instead of {tuple(expected[name].shape)}"
            raise HTRError(f"{path} does not fit its alphabet and settings: {name} has shape {shapes}")
        if not weights[name].isfinite().all():
            raise HTRError(f"{path} is of no use: its weight {name} is not finite")
    model.load_state_dict(weights)
