"""What training and prediction share: the device, and checkpoints with the network and the settings in them.

Imports PyTorch where it is used, as reading an ONNX file needs none.
"""

import contextlib
import ctypes
import dataclasses
import hashlib
import io
import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from config import SHIPPED_FINDER, SHIPPED_LINES, SHIPPED_WEIGHTS, SHIPPED_WORDS, Config
from dataset import batches_in_order, collate
from htr.decoding import onnx
from htr.pictures import line_maps
from htr.system import parallel
from htr.system.files import only_writer, whole_file
from htr.system.scripts import HTRError
from htr.texts.direction import USUAL
from htr.texts.labels import Alphabet

if TYPE_CHECKING:
    import torch

    from finder import LineFinder
    from model import CRNN

FORMAT = "htr-crnn"
VERSION = 3  # of the checkpoints that this program writes; see `upgrade`
SUFFIXES = (".pth", ".onnx")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
# Settings that reading needs.
READING = ("UPPERCASE", "VISUAL_ORDER", "IGNORED_LABELS", "IMG_HEIGHT", "MAX_SCALE", "LEVELS", "MAX_WIDTH",
           "VIEW_WIDTH", "VIEW_SLANT", "FRAME_WIDTH", "CNN_CHANNELS", "LSTM_HIDDEN", "LSTM_LAYERS")  # fmt: skip
NEWER = ("VIEW_WIDTH", "VIEW_SLANT", "FRAME_WIDTH")  # settings that files have only where they are no defaults


# ------------------------------------------------------------------------------------------------ device


def choose_device(device: "str | torch.device | None") -> "torch.device":
    """The device that is meant by a name such as "cpu", "cuda" or "cuda:1".

    "auto" or None takes CUDA, then MPS, then the CPU. Raises HTRError where there is none of that name, and TypeError
    where it is no name.
    """
    import torch

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
    import torch

    kind, _, index = name.partition(":")
    counts = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    return int(index or 0) < counts.get(kind, 1)  # "auto" and the CPU are always there


def cpu_is_faster_in_bfloat16() -> bool:
    """With AMX, and with AVX-512's bfloat16 on AMD; Intel's alone is slower than float32 (benchmarks/README.md)."""
    import torch

    features = getattr(torch.cpu, "get_capabilities", dict)()
    intel = features.get("cpu_name", "").startswith("Intel")
    return bool(features.get("amx_bf16") or (features.get("avx512_bf16") and not intel))


def autocast(device: "torch.device") -> "torch.autocast":
    """Mixed precision: bfloat16 on CUDA and on a CPU that is faster in it; nothing elsewhere.

    The CTC loss and all probabilities are computed in float32 everywhere.
    """
    import torch

    enabled = device.type == "cuda" or (device.type == "cpu" and cpu_is_faster_in_bfloat16())
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


@contextlib.contextmanager
def memory_advice(batch_size: int) -> Iterator[None]:
    """Turn an out-of-memory error into an HTRError that says which batch size to try."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        of_torch = type(error).__name__ == "OutOfMemoryError"
        lacking = of_torch or isinstance(error, MemoryError) or "allocate memory" in str(error)
        if not lacking:
            raise
        raise HTRError(
            f"out of memory with batches of {batch_size} images: try --batch-size {max(1, batch_size // 2)}"
        ) from error


@contextlib.contextmanager
def memory_kept() -> Iterator[None]:
    """Keep the memory that a step frees for the next one, with glibc's malloc.

    That gives blocks of more than 32 MiB back at once, and the next step pays for new pages: a seventh of its time on a
    CPU (mallopt(3), where the defaults that are restored at the end stand, too).
    """
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    change = getattr(libc, "mallopt", None)
    if change is None:
        yield
        return
    change(M_MMAP_MAX, 0)
    change(M_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        change(M_MMAP_MAX, 65_536)
        change(M_TRIM_THRESHOLD, 128 * 1024)


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
    paths = (SHIPPED_WEIGHTS, SHIPPED_WORDS, SHIPPED_LINES, SHIPPED_FINDER)
    shipped = {path.resolve().with_suffix(suffix) for path in paths for suffix in SUFFIXES}
    return Path(model_path).resolve() in shipped


def is_onnx(model_path: str | Path) -> bool:
    """Whether it is read with ONNX Runtime and not with PyTorch."""
    return Path(model_path).suffix.lower() == ".onnx"


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
    import torch

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
    return upgrade(_load_file(path, FORMAT), path)


def _load_file(path: str | os.PathLike, kind: str) -> dict[str, Any]:
    """What `save_checkpoint` wrote, if its format is of that kind."""
    import torch

    if is_onnx(path):
        raise HTRError(f"{path} is an ONNX file, with which images are only read: name the checkpoint it came from")
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
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != kind:
        raise HTRError(f"{path} is not a checkpoint of this program")
    return checkpoint


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


def build_model(config: Config, alphabet: Alphabet) -> "CRNN":
    from model import CRNN

    return CRNN(sizes_of(config, alphabet), config.DROPOUT)


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


def weights_of(checkpoint: dict[str, Any]) -> "dict[str, torch.Tensor]":
    """The weights that a checkpoint is judged by: of a run's state the running average."""
    return checkpoint.get("average", checkpoint.get("model", {}))


def restore_weights(model: "CRNN | LineFinder", weights: "dict[str, torch.Tensor]", path: str | os.PathLike) -> None:
    """Load weights into `model`. Raises HTRError that names the first one that does not fit."""
    import torch

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


def restore_model(checkpoint: dict[str, Any], path: str | os.PathLike) -> "tuple[CRNN, Config, Alphabet]":
    """The network of a checkpoint, its settings and its alphabet. Raises HTRError where they do not fit."""
    config, alphabet = restore_settings(checkpoint, path)
    model = build_model(config, alphabet)
    restore_weights(model, weights_of(checkpoint), path)
    return model, config, alphabet


# ------------------------------------------------------------------------------------------------ networks


class Network(Protocol):
    """A trained network, ready to read. in_batch: lines in a batch that suits it."""

    in_batch: int

    def batches(self, widths: Sequence[int], most: int) -> list[list[int]]:
        """The indices of lines in batches that it takes, of at most so many lines.

        The widest come first: so threads end at about the same time, and memory runs out at once or not at all.
        """

    def threads(self) -> contextlib.AbstractContextManager[ThreadPoolExecutor]:
        """Where to call it from."""

    def __call__(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Grey uint8 lines (H, W_i) -> log_probs (T, N, C) float32 and lengths (N,) in frames."""


@contextlib.contextmanager
def torch_threads(at_once: int) -> Iterator[ThreadPoolExecutor]:
    """So many threads, in each of which PyTorch computes with one."""
    import torch

    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(at_once, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)


class TorchNetwork:
    """Reads with PyTorch. A CPU reads several batches at once, each in one thread: that wastes less than several
    threads on one batch. Its batches are small, so that they fit into its cache."""

    def __init__(self, model: "CRNN", device: "torch.device"):
        import torch

        self.model, self.device = model.to(device).fuse(), device
        self.at_once, self.in_batch = (torch.get_num_threads(), 8) if device.type == "cpu" else (1, 64)

    def batches(self, widths: Sequence[int], most: int) -> list[list[int]]:
        """Of similar width."""
        return batches_in_order(sorted(range(len(widths)), key=widths.__getitem__, reverse=True), widths, most)

    def threads(self) -> contextlib.AbstractContextManager[ThreadPoolExecutor]:
        return torch_threads(self.at_once)

    def __call__(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        import torch

        from model import log_probabilities

        batch, widths = collate(images)
        with torch.inference_mode(), autocast(self.device):
            logits, lengths = self.model(batch.to(self.device), widths)
            return log_probabilities(logits).cpu().numpy(), lengths.numpy()


def load_network(
    model_path: str | Path, device: "str | torch.device | None"
) -> tuple[Network, dict[str, Any], Config, Alphabet]:
    """The network of a checkpoint or an ONNX file, what the file says beside it, its settings and its alphabet.

    Raises HTRError where the file is missing, damaged or does not fit, the device is not there, or what it is read with
    is not installed.
    """
    if is_onnx(model_path):
        if device is not None and str(device) not in ("auto", "cpu", "cpu:0"):
            raise HTRError(f"{model_path} is read on the CPU: leave --device out, or read the checkpoint it came from")
        facts, network = onnx.load(model_path, lambda facts: sizes_of(*settings_of(facts, model_path)))
        return network, upgrade(facts, model_path), *settings_of(facts, model_path)
    try:
        checkpoint = load_checkpoint(model_path)
    except ModuleNotFoundError as error:
        raise HTRError(
            f"{model_path} is read with PyTorch: pip install -r requirements.txt, or, where that is installed, export"
            " it as an ONNX file with predict.py --export"
        ) from error
    model, config, alphabet = restore_model(checkpoint, model_path)
    return TorchNetwork(model, choose_device(device)), checkpoint, config, alphabet


# ------------------------------------------------------------------------------------------- finding lines


class Finder(Protocol):
    """A network that finds lines: ink uint8 (H, W) -> maps float32 (MAPS, H / SCALE, W / SCALE), probabilities."""

    def threads(self) -> contextlib.AbstractContextManager[ThreadPoolExecutor]:
        """Where to call it from."""

    def __call__(self, ink: np.ndarray) -> np.ndarray: ...


class TorchFinder:
    """Finds lines with PyTorch."""

    def __init__(self, model: "LineFinder", device: "torch.device"):
        import torch

        self.model, self.device = model.to(device).fuse(), device
        self.at_once = torch.get_num_threads() if device.type == "cpu" else 1

    def threads(self) -> contextlib.AbstractContextManager[ThreadPoolExecutor]:
        return torch_threads(self.at_once)

    def __call__(self, ink: np.ndarray) -> np.ndarray:
        import torch

        with torch.inference_mode():
            logits = self.model(torch.from_numpy(ink).to(self.device)[None, None].float() / 255)
            return logits[0].sigmoid().cpu().numpy()


def load_finder(model_path: str | Path, device: "str | torch.device | None") -> Finder:
    """The network that finds lines, run by what runs the network of `model_path`.

    Raises HTRError as `load_network` does.
    """
    if is_onnx(model_path):
        return line_maps.Session(SHIPPED_FINDER.with_suffix(".onnx"))
    return TorchFinder(restore_finder(SHIPPED_FINDER), choose_device(device))


def restore_finder(path: str | Path) -> "LineFinder":
    """The network of a checkpoint. Raises HTRError where it is not one that finds lines."""
    from finder import LineFinder

    model = LineFinder()
    restore_weights(model, _load_file(path, line_maps.FORMAT).get("model"), path)
    return model


# --------------------------------------------------------------------------------------------------- ONNX


def sizes_of(config: Config, alphabet: Alphabet) -> onnx.Sizes:
    return onnx.Sizes(
        config.IMG_HEIGHT,
        len(alphabet) + 1,
        config.CNN_CHANNELS,
        config.LSTM_HIDDEN,
        config.LSTM_LAYERS,
        config.FRAME_WIDTH,
    )


def settings_of(facts: dict[str, Any], path: str | Path) -> tuple[Config, Alphabet]:
    """The settings and the alphabet of an ONNX file. Raises HTRError where they make no sense."""
    if facts.get("format") != FORMAT:
        raise HTRError(f"{path} is not an ONNX file of this program")
    facts = upgrade(facts, path)
    config = facts.get("config")
    if isinstance(config, dict):  # JSON has lists alone
        config = {name: tuple(value) if isinstance(value, list) else value for name, value in config.items()}
    return restore_settings(facts | {"config": config}, path)


def export_onnx(model_path: str | Path, target: str | Path) -> None:
    """Write a checkpoint's network as an ONNX file with all that reading needs, once it is seen to read the same.

    Weights that the checkpoint holds in half precision are rounded to it once more, after BatchNorm was folded into
    them. Beside the file, NAME.json holds the alphabet and the settings, for programs that cannot see its metadata.
    Raises HTRError where the checkpoint cannot be used, ONNX Runtime is not installed, or a file cannot be written.
    """
    import torch

    from model import log_probabilities

    if not is_onnx(target):
        raise HTRError(f"{target} does not end in .onnx, as a file to read with ONNX Runtime does")
    if is_shipped(target):
        raise HTRError(f"{target} holds the shipped weights, which stay as they are: choose another path")
    described = Path(target).with_suffix(".json")
    if described.exists() and FORMAT not in described.read_text(encoding="utf-8", errors="replace")[:200]:
        raise HTRError(f"{described} is there and holds something else: choose another name for the ONNX file")
    checkpoint = load_checkpoint(model_path)
    model, config, alphabet = restore_model(checkpoint, model_path)
    facts = {"format": FORMAT, "version": VERSION, "graph": onnx.GRAPH, "alphabet": alphabet.characters}
    settings = {name: getattr(config, name) for name in READING}
    for name in NEWER:
        if settings[name] == getattr(Config, name):
            del settings[name]
    facts |= {"ways": alphabet.ways, "config": settings}
    facts |= {name: checkpoint[name] for name in ("calibration", "lexicon", "spelling") if name in checkpoint}
    model.fuse()
    half = any(weight.dtype == torch.float16 for weight in weights_of(checkpoint).values())
    if half:
        facts["half"] = True
        for parameter in model.parameters():
            parameter.data = parameter.data.half().float()
    text = json.dumps(facts, separators=(",", ":")).encode()
    data = onnx.encode(text, sizes_of(config, alphabet), model.exported(), half)
    network, generator = onnx.Session(data, config.FRAME_WIDTH), np.random.default_rng(0)
    for width in (1, 50, 333):
        lines = [generator.integers(0, 256, (config.IMG_HEIGHT, width), dtype=np.uint8) for _ in range(3)]
        with torch.inference_mode():
            expected = log_probabilities(model(*collate(lines))[0])
        found, lengths = network(lines)
        if not np.allclose(found, expected[: lengths[0]].numpy(), atol=1e-3):
            raise HTRError(f"{model_path} reads something else as an ONNX file, which is not written: report this")
    with whole_file(target, "wb") as file:
        file.write(data)
    with whole_file(described, encoding="utf-8") as file:
        about = {name: facts[name] for name in ("format", "version", "alphabet", "ways", "config")}
        file.write(json.dumps(about, ensure_ascii=False, indent=1) + "\n")
