"""What training and prediction share: the device, and checkpoints with the network and the settings in them."""

import contextlib
import dataclasses
import hashlib
import io
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from config import SHIPPED_WEIGHTS, SHIPPED_WORDS, Config
from htr import parallel
from htr.direction import USUAL
from htr.files import only_writer, whole_file
from htr.labels import Alphabet
from htr.scripts import HTRError
from model import CRNN

FORMAT = "htr-crnn"
VERSION = 3  # of the checkpoints that this program writes; see `upgrade`


# ------------------------------------------------------------------------------------------------ device


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device that is meant by a name such as "cpu", "cuda" or "cuda:1".

    "auto" or None takes CUDA, then MPS, then the CPU. Raises HTRError where there is none of that name, and TypeError
    where it is no name.
    """
    if not isinstance(device, (str, torch.device, type(None))):
        raise TypeError(f"a device is a name such as 'cpu' or 'cuda:0', or a torch.device, not {device!r:.80}")
    name = str(device or "auto")
    if name == "auto":
        name = next(kind for kind in ("cuda", "mps", "cpu") if has_device(kind))
    kind, _, index = name.partition(":")
    if kind not in ("cuda", "mps", "cpu") or name.endswith(":") or not (index or "0").isdecimal():
        raise HTRError(f"there is no device {name!r}: use auto, cpu, cuda or mps")
    if not has_device(name):
        raise HTRError(f"PyTorch finds no {name} device on this machine: leave --device out, or use --device cpu")
    if kind == "cuda":
        return torch.device(kind, int(index) if index else parallel.local_rank())
    return torch.device(kind)


def has_device(name: str) -> bool:
    """Whether this machine has the device called `name`."""
    kind, _, index = name.partition(":")
    counts = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    return int(index or 0) < counts.get(kind, 1)  # "auto" and the CPU are always there


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
    """Turn an out-of-memory error into an HTRError that says which batch size to try."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        lacking = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "allocate memory" in str(error)
        if not lacking:
            raise
        raise HTRError(
            f"out of memory with batches of {batch_size} images: try --batch-size {max(1, batch_size // 2)}"
        ) from error


# ------------------------------------------------------------------------------------------- checkpoints


def beside(model_path: str | Path, name: str) -> Path:
    """A file of a run beside its checkpoint: htr_crnn_mini.pth -> htr_crnn_mini.{name}, lr0.001 -> lr0.001.{name}."""
    path = Path(model_path)
    return path.with_name(f"{path.name.removesuffix('.pth')}.{name}")


def last_path(model_path: str | Path) -> Path:
    """Where the state to continue from is kept: htr_crnn_mini.pth -> htr_crnn_mini.last.pth."""
    return beside(model_path, "last.pth")


def previous_path(model_path: str | Path) -> Path:
    """Where the state before the last one is kept: htr_crnn_mini.pth -> htr_crnn_mini.previous.pth."""
    return beside(model_path, "previous.pth")


def run_of(model_path: str | Path) -> Path:
    """The checkpoint of the run that a state belongs to: X.last.pth -> X.pth, or X where only that exists."""
    path = Path(model_path)
    for ending in (".last.pth", ".previous.pth"):
        if path.name.endswith(ending):
            bare = path.with_name(path.name.removesuffix(ending))
            return bare if bare.is_file() else path.with_name(f"{bare.name}.pth")
    return path


def is_shipped(model_path: str | Path) -> bool:
    """Whether it is one of the files in weights/, which stay as they are."""
    return Path(model_path).resolve() in (SHIPPED_WEIGHTS.resolve(), SHIPPED_WORDS.resolve())


def check_model_path(model_path: str | Path) -> None:
    """Raise HTRError where a run would write to another's files, to the shipped weights, or to a folder."""
    path = Path(model_path)
    if path.is_dir():
        raise HTRError(f"{path} is a folder: name a file in it with --model-path")
    if is_shipped(path):
        raise HTRError(f"{path} holds the shipped weights, which stay as they are: choose another --model-path")
    if run_of(path) != path:
        raise HTRError(f"{path} is the name of a state of {run_of(path)}: choose another --model-path")
    twin = beside(path, "pth") if path.suffix != ".pth" else path.with_suffix("")
    if twin.is_file():
        raise HTRError(f"{path} and {twin} would share their training state: choose another --model-path")


def only_training(model_path: str | Path) -> contextlib.AbstractContextManager[None]:
    """Be the only run that writes `model_path`; see `only_writer` and `check_model_path`.

    Of several processes the first locks for all.
    """
    check_model_path(model_path)
    if parallel.rank():
        return contextlib.nullcontext()
    names = ("last.pth", "previous.pth", "history.csv", "curves.png")
    return only_writer(model_path, *(beside(model_path, name) for name in names))


def checksum(data: bytes) -> bytes:
    return b"blake2b " + hashlib.blake2b(data, digest_size=32).hexdigest().encode()


def save_checkpoint(checkpoint: dict[str, Any], path: str | os.PathLike, previous: Path | None = None) -> None:
    """Write a dict of tensors and plain values, as a whole or not at all.

    The file is what `torch.save` makes, a ZIP archive; its comment is the checksum of everything before it. The file
    that it replaces is kept as `previous` where that is given.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "version": VERSION} | checkpoint, buffer)
    data = buffer.getvalue()[:-2]  # without the length of an empty comment
    comment = checksum(data)
    with whole_file(path, "wb", previous) as file:
        file.write(data + len(comment).to_bytes(2, "little") + comment)


def load_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """Load a checkpoint onto the CPU, without ever running code from it, and bring it up to date.

    Raises HTRError, naming the file and the cause, where it is not one of ours, is damaged, or is newer than this
    program.
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
        raise HTRError(f"{path} is damaged or not a checkpoint of this program: its checksum is missing or wrong")
    try:
        with warnings.catch_warnings(action="ignore"):  # what is odd about the file is reported below
            checkpoint = torch.load(io.BytesIO(file), map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises nearly anything
        raise HTRError(f"{path} is not a checkpoint of this program ({type(error).__name__})") from error
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != FORMAT:
        raise HTRError(f"{path} is not a checkpoint of this program")
    return upgrade(checkpoint, path)


def without_levels(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Version 1 -> 2. The networks of version 1 were trained on greys as they were: paper was not made white."""
    config = checkpoint.get("config")
    return checkpoint | {"config": config | {"LEVELS": False}} if isinstance(config, dict) else checkpoint


def in_logical_order(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Version 2 -> 3. Labels from right to left were learned in the order in which the table holds them."""
    config = checkpoint.get("config")
    return checkpoint | {"config": config | {"VISUAL_ORDER": False}} if isinstance(config, dict) else checkpoint


# What turns a checkpoint of each version into one of the next. A new setting needs no version of its own as long as its
# default computes what the program did before; one that is renamed or removed, or whose default computes something
# else, does: raise VERSION, and say here what older checkpoints have in its place.
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: without_levels, 2: in_logical_order}


def upgrade(checkpoint: dict[str, Any], path: str | os.PathLike) -> dict[str, Any]:
    """Bring a checkpoint of an earlier version up to date, version by version.

    Raises HTRError where it is of a later version than this program, or of none.
    """
    version = checkpoint.get("version")
    if not isinstance(version, int) or version < 1:
        raise HTRError(f"{path} is not a checkpoint of this program: it has no version")
    if version > VERSION:
        raise HTRError(
            f"{path} was written by a newer version of this program (format {version}; this one reads up to {VERSION}):"
            " update the program"
        )
    for number in range(version, VERSION):
        checkpoint = UPGRADES[number](checkpoint)
    return checkpoint | {"version": VERSION}


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
    """The settings and the alphabet of a checkpoint; settings that it lacks have their defaults.

    Raises HTRError where a setting is unknown or has an impossible value.
    """
    saved = checkpoint.get("config")
    known = {field.name for field in dataclasses.fields(Config)}
    if not isinstance(saved, dict) or not known.issuperset(saved):
        unknown = sorted(set(saved) - known) if isinstance(saved, dict) else ["config"]
        raise HTRError(f"{path} has settings that this program does not know: {', '.join(unknown)}")
    try:
        if not isinstance(checkpoint["alphabet"], str):
            raise TypeError("the alphabet is not text")
        config = Config(**saved)
        ways = checkpoint.get("ways", USUAL) if config.VISUAL_ORDER else ()
        return config, Alphabet(checkpoint["alphabet"], ways)
    except (KeyError, TypeError, ValueError) as error:
        raise HTRError(f"{path} has settings that make no sense: {error}") from error


def weights_of(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The weights that a checkpoint is judged by: of a run's state the running average."""
    return checkpoint.get("average", checkpoint.get("model", {}))


def restore_weights(model: CRNN, weights: dict[str, torch.Tensor], path: str | os.PathLike) -> None:
    """Load weights into `model`. Raises HTRError that names the first one that does not fit."""
    expected = model.state_dict()
    if not isinstance(weights, dict) or not all(isinstance(weight, torch.Tensor) for weight in weights.values()):
        raise HTRError(f"{path} holds no weights")
    for name in expected.keys() | weights.keys():
        if name not in expected or name not in weights:
            what = "missing" if name in expected else "unknown"
            raise HTRError(f"{path} does not fit its settings: the weight {name} is {what}")
        if expected[name].shape != weights[name].shape:
            shapes = f"{tuple(weights[name].shape)} instead of {tuple(expected[name].shape)}"
            raise HTRError(f"{path} does not fit its alphabet and settings: {name} has shape {shapes}")
        if not weights[name].isfinite().all():
            raise HTRError(f"{path} is unusable: its weight {name} is not finite")
    model.load_state_dict(weights)
