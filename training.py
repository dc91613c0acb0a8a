"""The training loop and validation: what train.py and continue_train.py share."""

import contextlib
import copy
import dataclasses
import functools
import math
import os
import signal
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.optim.swa_utils import get_ema_multi_avg_fn

from config import CHANGEABLE, Config, flag_named
from dataset import (
    IN_MEMORY,
    LINE_COST,
    Lines,
    batches_by_width,
    batches_in_order,
    load_lines,
    padded_width,
    to_ink,
)
from fitting import fitted_on, keep_fitted
from htr.decoding.ctc import frames, frames_needed, greedy_decode
from htr.decoding.lexicon import Lexicon
from htr.pictures.augmentation import Strengths, augment, augmented_share
from htr.pictures.packed import PackedImages
from htr.pictures.views import View, climb
from htr.results.curves import HISTORY_COLUMNS, draw_curves, write_history
from htr.results.scores import FEWEST, Score
from htr.system import parallel
from htr.system.progress import Progress
from htr.system.scripts import HTRError, Interrupted, ends_asked_for, printable
from htr.texts.direction import to_visual
from htr.texts.labels import Alphabet
from model import CRNN, ctc_loss, grow_labels, log_probabilities, split_frames
from utils import (
    autocast,
    beside,
    build_model,
    last_path,
    load_checkpoint,
    memory_advice,
    memory_kept,
    previous_path,
    restore_model,
    restore_settings,
    restore_weights,
    save_checkpoint,
    sizes_of,
    weights_of,
)

# Settings that mean nothing on another machine.
MACHINE = ("DATA_DIR", "PICTURE_COLUMN", "TEXT_COLUMN", "FOLLOW_LINKS", "DEVICE", "WORKERS", "MINI_MODEL_PATH")
# Settings that weights are bound to.
NETWORK = ("IMG_HEIGHT", "MAX_SCALE", "LEVELS", "MAX_WIDTH", "FRAME_WIDTH", "CNN_CHANNELS", "LSTM_HIDDEN",
           "LSTM_LAYERS")  # fmt: skip
VIEW = ("VIEW_WIDTH", "VIEW_SLANT")
VIEWED = 64  # lines by which the view is chosen
LEAST_GAIN = 1.0  # nats a line, by which another view is better
RAISED = 0.25  # of a line's height, by which its ends are raised or lowered by rotation at most
READ_ALREADY = 0.4  # CER below which the weights that a run starts from know its handwriting
LOW_RATE = 1e-4  # the learning rate of such a run
MOST_SKIPPED = 10  # steps in a row without a finite gradient, after which training stops
LOOK_EVERY = 16  # batches after which a GPU, or several processes, are asked how they are doing


# ------------------------------------------------------------------------------------------------- state


@dataclass
class State:
    """All that a run needs to continue where it stopped, bit for bit.

    `network` computes with the weights of `model`, in step with other processes; `average` is their running average.
    No random state is kept: the random numbers of a step depend only on the seed, the step and the process.
    """

    config: Config
    alphabet: Alphabet
    device: torch.device
    model: CRNN
    network: nn.Module
    average: CRNN
    optimizer: torch.optim.Optimizer
    scheduler: ReduceLROnPlateau
    scaler: torch.amp.GradScaler  # scales by 1; skips the steps whose gradient is not finite
    skipped: Tensor  # (), the number of such steps in this epoch, counted on the device
    skipped_in_a_row: Tensor  # (), the number of such steps since the last good one
    epoch: int = 0  # finished epochs
    steps: int = 0  # finished optimizer steps, of all epochs
    batches_done: int = 0  # of the epoch in progress
    loss_sum: float = 0.0  # over the images of those batches
    best_loss: float = float("inf")
    history: list[dict[str, float]] = field(default_factory=list)
    data: str = ""  # changes with the labels and pictures; "" where it is not known

    def best_checkpoint(self) -> dict[str, Any]:
        """What prediction needs; it can be shared, and says nothing about the machine it was trained on."""
        config = {name: value for name, value in dataclasses.asdict(self.config).items() if name not in MACHINE}
        return {
            "config": config,
            "alphabet": self.alphabet.characters,
            "ways": list(self.alphabet.ways),
            "model": self.average.state_dict(),
            "epoch": self.epoch,
            "history": self.history,
        }

    def last_checkpoint(self) -> dict[str, Any]:
        """What `restore_state` needs."""
        return {
            "config": dataclasses.asdict(self.config),
            "alphabet": self.alphabet.characters,
            "ways": list(self.alphabet.ways),
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "epoch": self.epoch,
            "steps": self.steps,
            "batches_done": self.batches_done,
            "loss_sum": self.loss_sum,
            "best_loss": self.best_loss,
            "history": self.history,
            "data": self.data,
        }


def new_state(config: Config, alphabet: Alphabet, device: torch.device) -> State:
    """A run at its start. Seeds torch's random state."""
    torch.manual_seed(config.SEED)
    model = build_model(config, alphabet).to(device)
    average = copy.deepcopy(model)
    optimizer = torch.optim.Adam(
        model.parameters(),
        lr=config.LEARNING_RATE,
        weight_decay=config.WEIGHT_DECAY,
        decoupled_weight_decay=True,  # Loshchilov and Hutter 2019, arXiv:1711.05101
        fused=device.type != "mps",
    )
    scheduler = plateau_rule(config, optimizer)
    scaler = torch.amp.GradScaler(device.type, init_scale=1.0)
    network, none = parallel.wrap(model), torch.zeros((), dtype=torch.int64, device=device)
    return State(config, alphabet, device, model, network, average, optimizer, scheduler, scaler, none, none)


def pretrained_settings(
    checkpoint: dict[str, Any], config: Config, given: Collection[str], path: str | Path
) -> tuple[Config, Alphabet]:
    """The settings for a new run that starts from a checkpoint's weights, whose network they describe; its alphabet.

    Frames may become narrower, and the view of lines another one. Raises HTRError where one of the other settings is
    `given` and differs.
    """
    saved, alphabet = restore_settings(checkpoint, path)
    if "FRAME_WIDTH" in given:
        saved = dataclasses.replace(saved, FRAME_WIDTH=min(saved.FRAME_WIDTH, config.FRAME_WIDTH))
    for name in NETWORK:
        if name in given and getattr(config, name) != getattr(saved, name):
            flag = flag_named(name)
            raise HTRError(f"{path} has {flag} {getattr(saved, name)}, which cannot change: leave {flag} out")
    kept = (*NETWORK, *(name for name in VIEW if name not in given))
    return dataclasses.replace(config, **{name: getattr(saved, name) for name in kept}), alphabet


def choose_view(
    config: Config, checkpoint: dict[str, Any], known: Alphabet, path: str | Path, lines: Lines, device: torch.device
) -> Config:
    """The settings with the view in which a checkpoint's weights read some new lines with the least loss; says which.

    lines: as they are shown by the settings. Weights that know many hands read one person's lines better where these
    look like most of theirs. Weights that do not read such lines yet say nothing.
    """
    model = restore_model(checkpoint, path)[0].to(device)
    places = np.linspace(0, len(lines) - 1, min(VIEWED, len(lines))).astype(int).tolist()
    images, texts = [lines.images[n] for n in places], [lines.texts[n] for n in places]

    @functools.cache
    def judged(view: View) -> tuple[float, Score]:
        seen = Lines([], PackedImages.of(view.of(image) for image in images), texts, Counter())
        return validate(model, seen, known, device, Config.BATCH_SIZE)

    loss, score = judged(View())
    if not (math.isfinite(loss) and score.cer < READ_ALREADY):
        return config
    found = climb(lambda view, other: judged(view)[0] < judged(other)[0] - LEAST_GAIN)
    if found == View():
        return config
    width, slant = View(config.VIEW_WIDTH, config.VIEW_SLANT).then(found)
    config = dataclasses.replace(config, VIEW_WIDTH=min(max(width, 0.25), 4.0), VIEW_SLANT=min(max(slant, -1.0), 1.0))
    print(
        f"lines are shown {config.VIEW_WIDTH:.2f} times as wide, and leaned by {config.VIEW_SLANT:+.2f} of their"
        f" height, as the weights read them best: a loss of {judged(found)[0]:.1f} instead of {loss:.1f}"
    )
    return config


def schedule(lines: int, width: float) -> dict[str, Any]:
    """Settings for a run that starts from trained weights, by the number of its lines and their usual width in heights.

    One cycle, of fewer epochs the more lines there are, in small batches, with much augmentation. The average remembers
    the steps of two epochs, 50 at least and 500 at most. With few lines the rate falls from the start: else the loss is
    lowest long before the errors are fewest. Found with benchmarks/own_hand.py. A long line is turned by less: it
    would have to be shrunk to stay in its frame.
    """
    epochs = min(40, max(25 if lines <= 10_000 else 15, round(425 / lines**0.5)))
    batch_size, cooldown = (4, 1.0) if lines < 500 else (8, 0.8)
    return {
        "EPOCHS": epochs, "LR_CYCLE": epochs, "LR_PATIENCE": epochs, "LR_COOLDOWN": cooldown, "LEARNING_RATE": 1e-3,
        "BATCH_SIZE": batch_size, "EMA_DECAY": 1 - 1 / min(500, max(50, 2 * lines / batch_size)),
        "DROPOUT": 0.4, "AUGMENT_STEPS": 100, "ROTATION": min(4.0, math.degrees(math.atan(RAISED / width))),
        "SHEAR": 25.0, "SHRINK": 0.6, "WARP": 0.08, "STROKE": 0.7,
    }  # fmt: skip


def grown_weights(
    checkpoint: dict[str, Any], known: Alphabet, path: str | Path, config: Config, alike: Sequence[str | None]
) -> dict[str, Tensor]:
    """The weights of a checkpoint for a network with frames as in `config`, and further characters.

    known: its alphabet. alike: of each further character the one of `known` that it begins as, if any. Raises HTRError
    where they are not those of the network that the checkpoint describes.
    """
    weights, (own, _) = weights_of(checkpoint), restore_settings(checkpoint, path)
    restore_weights(build_model(own, known), weights, path)  # which checks them
    if own.FRAME_WIDTH > config.FRAME_WIDTH:
        weights = split_frames(weights)
    begin = [None if like is None else known.characters.index(like) for like in alike]
    return grow_labels(weights, begin, sizes_of(config, known).split)


def start_from(state: State, checkpoint: dict[str, Any], known: Alphabet, path: str | Path) -> None:
    """Give a run the weights of a checkpoint, whose alphabet its own begins with; says what is new.

    Raises HTRError where they do not fit.
    """
    new = state.alphabet.characters[len(known) :]
    alike = [known.like(character) for character in new]
    weights = grown_weights(checkpoint, known, path, state.config, alike)
    for model in (state.model, state.average):
        model.load_state_dict(weights)
    print(f"starting from the weights of {path}")
    if new:
        begun = "".join(like for like in alike if like is not None)
        print(f"new characters: {new!r}, {len(begun)} of them begun from {begun!r}")


def choose_rate(state: State, train_lines: Lines, validation_lines: Lines) -> None:
    """Lower the rate of a run whose first weights read such lines already, so that they keep what they know; says so.

    One person's lines, read by weights that know many hands, would otherwise be read worse after training than before.
    Of few validation lines one wrong label would decide: then the training lines are asked.
    """
    lines = validation_lines if len(validation_lines) >= FEWEST else train_lines
    _, score = validate(state.average, lines, state.alphabet, state.device, state.config.BATCH_SIZE)
    if score.cer < READ_ALREADY:
        state.config = dataclasses.replace(state.config, LEARNING_RATE=LOW_RATE)
        for group in state.optimizer.param_groups:
            group["lr"] = LOW_RATE
        print(f"CER {score.cer:.4f} before training: learning rate {LOW_RATE}, as the weights read these lines already")


def plateau_rule(config: Config, optimizer: torch.optim.Optimizer) -> ReduceLROnPlateau:
    """At its start, with the rate that the optimizer has."""
    options = {"factor": config.LR_FACTOR, "patience": config.LR_PATIENCE, "cooldown": rest_of(config)}
    return ReduceLROnPlateau(optimizer, **options)


def rest_of(config: Config) -> int:
    """Epochs that the plateau rule waits after it reduced the rate.

    Once per cycle at most: a new cycle is worse than the end of the one before, until its rate falls.
    """
    return max(0, config.LR_CYCLE - config.LR_PATIENCE - 1)


def restore_state(
    checkpoint: dict[str, Any], config: Config, alphabet: Alphabet, device: torch.device, path: str | Path
) -> State:
    """The run that `checkpoint` was saved from. Raises HTRError where parts of it are missing or do not fit."""
    state = new_state(config, alphabet, device)
    try:
        restore_weights(state.model, checkpoint["model"], path)
        restore_weights(state.average, checkpoint["average"], path)
        state.optimizer.load_state_dict(checkpoint["optimizer"])
        state.scheduler.load_state_dict(checkpoint["scheduler"])
        for name in ("epoch", "steps", "batches_done", "loss_sum", "best_loss", "history"):
            setattr(state, name, checkpoint[name])
        state.data = checkpoint.get("data", "")  # earlier versions did not keep it
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise HTRError(f"{path} holds no complete state to continue from: {error}") from error
    return state


def state_of_weights(
    checkpoint: dict[str, Any], config: Config, alphabet: Alphabet, device: torch.device, path: str | Path
) -> State:
    """A run that goes on from the weights of a best checkpoint alone, with a new optimizer and plateau rule.

    Raises HTRError where they do not fit.
    """
    state = new_state(config, alphabet, device)
    for model in (state.model, state.average):
        restore_weights(model, weights_of(checkpoint), path)
    try:
        state.epoch, state.history = int(checkpoint["epoch"]), list(checkpoint["history"])
    except (KeyError, TypeError, ValueError) as error:
        raise HTRError(f"{path} does not say how long it was trained: {error}") from error
    return state


def judge_weights(state: State, train_lines: Lines, validation_lines: Lines) -> None:
    """Take the validation loss of a run's first weights for the best so far, so that worse ones never replace them."""
    state.steps = state.epoch * len(batches_of(state, train_lines))  # about as many as there were
    args = (validation_lines, state.alphabet, state.device, state.config.BATCH_SIZE)
    loss, score = validate(state.average, *args)
    if math.isfinite(loss):
        state.best_loss = state.scheduler.best = loss
    print(f"validation loss {loss:.3f}, CER {score.cer:.4f} before the first epoch")


def keep_first(state: State) -> None:
    """Keep a new run's first weights, which `judge_weights` has judged, until an epoch has better ones."""
    if parallel.rank() == 0 and math.isfinite(state.best_loss):
        save_checkpoint(state.best_checkpoint(), state.config.MINI_MODEL_PATH)


def check_start(pretrained: str | Path, model_path: str | Path) -> None:
    """Raises HTRError where a run would replace the file that it starts from."""
    written = [Path(model_path), last_path(model_path), previous_path(model_path)]
    if any(path.exists() and Path(pretrained).exists() and path.samefile(pretrained) for path in written):
        raise HTRError(
            f"{pretrained} is the file that the run would start from and replace: choose another --model-path, or go on"
            " from it with continue_train.py"
        )


def change_settings(state: State, saved: Config, names: Collection[str]) -> None:
    """Apply the settings that are others than those of the run so far; says which, and what that means."""
    config = state.config
    for group in state.optimizer.param_groups:  # whose state restored the old ones
        group["lr"] = config.LEARNING_RATE if "LEARNING_RATE" in names else group["lr"]
        group["weight_decay"] = config.WEIGHT_DECAY
    state.scheduler.factor, state.scheduler.patience = config.LR_FACTOR, config.LR_PATIENCE
    state.scheduler.cooldown = rest_of(config)
    if config.BATCH_SIZE != saved.BATCH_SIZE and state.batches_done:
        print(f"another batch size in the middle of epoch {state.epoch + 1}, which starts anew")
        state.batches_done, state.loss_sum = 0, 0.0
    changed = [name for name in names if name in CHANGEABLE and getattr(config, name) != getattr(saved, name)]
    if not changed:
        return
    values = (f"{flag_named(name)} {getattr(config, name)} instead of {getattr(saved, name)}" for name in changed)
    print(f"from here on with {', '.join(values)}: the run is no longer what it would have been without a stop")


def data_of(train_lines: Lines, validation_lines: Lines) -> str:
    """Changes with the labels and the pictures of both sets."""
    return f"{train_lines.key} {validation_lines.key}"


def check_data(state: State, train_lines: Lines, validation_lines: Lines, more: bool = False) -> None:
    """Where the labels or pictures are not those of the run so far, start anew what was measured on them; says so.

    more: whether another number of training lines was asked for, which alone makes no other data.
    """
    batches = len(batches_of(state, train_lines))
    other = state.data not in ("", data_of(train_lines, validation_lines))
    same_validation = state.data.split(" ")[-1] == validation_lines.key
    if state.batches_done and (other or state.batches_done > batches):
        print(f"the data changed in the middle of epoch {state.epoch + 1}, which starts anew")
        state.batches_done, state.loss_sum = 0, 0.0
    if other and not (more and same_validation):
        state.best_loss = loss_of_best(state, validation_lines)
        kept = f"those in {state.config.MINI_MODEL_PATH} until an epoch is better than their {state.best_loss:.3f}"
        print(
            "the labels or pictures are not those of the run so far: the best loss and the plateau rule start anew;"
            f" kept are {kept if state.best_loss < float('inf') else 'the weights of the next epoch'}"
        )
        state.scheduler = plateau_rule(state.config, state.optimizer)


def loss_of_best(state: State, lines: Lines) -> float:
    """The validation loss of the best weights so far on these lines; infinity where there are none of this alphabet."""
    try:
        model, _, alphabet = restore_model(load_checkpoint(path := state.config.MINI_MODEL_PATH), path)
    except HTRError:
        return float("inf")  # `check_best` says why
    if alphabet.characters != state.alphabet.characters:
        return float("inf")
    loss, _ = validate(model.to(state.device), lines, alphabet, state.device, state.config.BATCH_SIZE)
    return loss if math.isfinite(loss) else float("inf")


def load_last(model_path: str | Path) -> dict[str, Any]:
    """The checkpoint to continue from: the last one or, if that is damaged, the one before, which then replaces it.

    Raises HTRError where there is neither.
    """
    path, previous = last_path(model_path), previous_path(model_path)
    with parallel.first_process_first():
        try:
            return load_checkpoint(path)
        except HTRError as error:
            try:
                checkpoint = load_checkpoint(previous)
            except HTRError:
                raise error from None
            print(f"{error}; continuing from the state before it, {previous}")
            os.replace(previous, path)
            return checkpoint


def save_state(state: State) -> None:
    """Keep the state to continue from, and the one before it. The first process does it for all."""
    if parallel.rank() == 0:
        model_path = state.config.MINI_MODEL_PATH
        save_checkpoint(state.last_checkpoint(), last_path(model_path), previous_path(model_path))


# -------------------------------------------------------------------------------------------------- data


def load_data(
    config: Config, alphabet: Alphabet | None = None, grow: bool = False, keep: bool = True
) -> tuple[Lines, Lines, Alphabet]:
    """Training lines, validation lines and the alphabet, by default that of the training texts; says what is left out.

    With `grow`, a given alphabet gets the characters that it lacks; otherwise raises HTRError where there are such.
    keep: whether lines that were cut out of pages are kept for the next run.
    """

    def fits(text: str, width: int) -> bool:
        return frames_needed(to_visual(text) if config.VISUAL_ORDER else text) <= frames(width, config.FRAME_WIDTH)

    in_memory = IN_MEMORY * (1 if keep else LINE_COST) if parallel.world() == 1 else 0  # processes share a file
    with parallel.first_process_first():
        known = alphabet.characters if alphabet else ""
        train_lines = load_lines(config, "train", config.NUM_SAMPLES, fits, in_memory, known)
        validation_lines = load_lines(config, "validation", config.VALIDATION_SAMPLES, fits, in_memory, known)
        print(f"data: {printable(train_lines.origin(validation_lines, config.SEED))}")
        sources = (lines.source for lines in (train_lines, validation_lines))
        for note in dict.fromkeys(f"{Path(each.name).name}: {note}" for each in sources for note in each.notes):
            print(printable(note))
        print(f"train: {train_lines.summary()}")
        print(f"validation: {validation_lines.summary()}")
        if train_lines.rare:
            print(f"rare characters, which are not learned: {printable(train_lines.rare)!r}")
    # Characters that only validation has may look like known ones, and count in the loss then.
    texts = train_lines.texts + validation_lines.texts * (grow and alphabet is not None)
    rare = str.maketrans("", "", train_lines.rare)
    used = Alphabet.of([text.translate(rare) for text in texts] if rare else texts, config.VISUAL_ORDER)
    alphabet = alphabet.grown(used) if alphabet and grow else alphabet or used
    if unknown := "".join(sorted(set(used.characters) - set(alphabet.characters))):
        raise HTRError(
            f"the training labels hold characters that the checkpoint's alphabet lacks, {unknown!r}: start a new run"
            " from its weights with train.py --pretrained, or name the data that it was trained on with --data-dir"
        )
    print(f"alphabet: {len(alphabet)} characters {alphabet.characters!r}")
    unwritable = [text for text in validation_lines.texts if not alphabet.knows(text)]
    if len(unwritable) == len(validation_lines):
        raise HTRError(
            f"none of the {len(unwritable):,} validation labels, such as {unwritable[0]!r}, can be written with the"
            " characters of the training labels: give both sets labels of the same kind"
        )
    if unwritable:
        print(
            f"validation: {len(unwritable)} labels hold characters that no training label has ({unwritable[0]!r}): they"
            " count in CER and exact match, but not in the loss"
        )
    return train_lines, validation_lines, alphabet


def make_batch(lines: Lines, indices: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor, list[str]]:
    """Returns images (N, 1, H, W) of ink on the device, widths (N,) in pixels on the CPU, and texts."""
    widths = [lines.images.widths[i] for i in indices]
    images = lines.images.batch(indices, padded_width(widths))
    if device.type == "cuda" and not images.is_cuda:
        images = images.pin_memory()  # or the copy would not be asynchronous
    return to_ink(images.to(device, non_blocking=True)), torch.tensor(widths), [lines.texts[i] for i in indices]


# ------------------------------------------------------------------------------------- training, validation


@torch.no_grad()
def validate(
    model: CRNN, lines: Lines, alphabet: Alphabet, device: torch.device, batch_size: int
) -> tuple[float, Score]:
    """The mean CTC loss of the images whose text the alphabet can write, in nats per image, and the scores of all.

    The loss is NaN where there is no such image.
    """
    model.eval()
    order = sorted(range(len(lines)), key=lines.images.widths.__getitem__)
    batches = batches_in_order(order, lines.images.widths, batch_size)
    columns = 2 + len(dataclasses.fields(Score))
    sums = torch.zeros(len(batches), columns, dtype=torch.float64)  # a row a batch: any number of processes sums alike
    for n in range(parallel.rank(), len(batches), parallel.world()):
        images, widths, texts = make_batch(lines, batches[n], device)
        with autocast(device):
            logits, lengths = model(images, widths)
        score, loss = Score(), 0.0
        readings = greedy_decode(log_probabilities(logits).cpu().numpy(), lengths.numpy())
        for text, reading in zip(texts, readings, strict=True):
            score.add(text, alphabet.decode(reading.labels))
        rows = [row for row, text in enumerate(texts) if alphabet.knows(text)]
        if rows:
            labels = [alphabet.encode(texts[row]) for row in rows]
            loss = float(ctc_loss(logits[:, rows], lengths[rows], labels).sum())
        sums[n] = torch.tensor([loss, len(rows), *dataclasses.astuple(score)])
    loss_sum, known, *counts = parallel.all_sum(sums).sum(0).tolist()
    return loss_sum / known if known else math.nan, Score(*map(int, counts))


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """average = decay * average + (1 - decay) * model, for weights and BatchNorm statistics (Polyak averaging)."""
    pairs = list(zip(average.state_dict().values(), model.state_dict().values(), strict=True))
    kept, new = zip(*[pair for pair in pairs if pair[0].is_floating_point()], strict=True)
    get_ema_multi_avg_fn(decay)(kept, new, 0)
    for kept, new in pairs:
        if not kept.is_floating_point():
            kept.copy_(new)


@contextlib.contextmanager
def stop_requests() -> Iterator[list[int]]:
    """Collect SIGINT, SIGTERM and SIGHUP instead of ending on them; a second signal ends the process at once.

    But for SIGHUP: a terminal that is closed sends it more than once.
    """
    received: list[int] = []

    def note(signum, frame):
        received.append(signum)
        for number, handler in previous.items():
            if number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, handler)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, *ends_asked_for())}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def cooldown(position: float, cycle: int, share: float) -> float:
    """The factor of the learning rate `position` epochs after the start, in cycles of `cycle` epochs.

    It is constant at first, falls linearly to 0 over the last `share` of a cycle (Hägele et al. 2024,
    arXiv:2405.18392), and starts again (Loshchilov and Hutter 2017, arXiv:1608.03983). It depends on the position
    alone, not on the number of epochs planned, so that a run can be trained in parts. With `cycle` 0 it is constant.
    """
    return min(1.0, (1 - (position % cycle) / cycle) / share) if cycle else 1.0


def train_batch(
    state: State, images: Tensor, widths: Tensor, texts: Sequence[str], weight: float = 1.0, pace: float = 1.0
) -> Tensor:
    """One optimizer step on a batch (N, 1, H, W), at `pace` times the learning rate.

    Returns the CTC losses (N,) of its images, in nats.

    With several processes each has a share of the batch, and `weight` is that share times their number, so that the
    mean of their gradients is that of the whole batch. Where the gradient is not finite, weights and statistics stay as
    they are; this is decided on the device, so that the CPU does not wait for a GPU.
    """
    config = state.config
    statistics = [buffer for buffer in state.model.buffers() if buffer.is_floating_point()]
    before = [buffer.clone() for buffer in statistics]
    labels = [state.alphabet.encode(text) for text in texts]
    with autocast(state.device):
        readings, lengths = state.network(images, widths, all_readings=True)
    *earlier, losses = [ctc_loss(logits, lengths, labels) for logits in readings]  # (N,) each
    loss = losses.mean() + config.INTERMEDIATE_LOSS * sum(other.mean() for other in earlier)
    state.optimizer.zero_grad()
    state.scaler.scale(weight * loss).backward()
    state.scaler.unscale_(state.optimizer)
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), config.GRAD_CLIP)
    group = state.optimizer.param_groups[0]
    rate = group["lr"]
    group["lr"] = pace * rate
    state.scaler.step(state.optimizer)
    group["lr"] = rate  # the one that ReduceLROnPlateau knows
    state.scaler.update(1.0)
    finite = norm.isfinite()
    for buffer, old in zip(statistics, before, strict=True):
        buffer.copy_(torch.where(finite, buffer, old))
    state.skipped_in_a_row = torch.where(finite, 0, state.skipped_in_a_row + 1)
    state.skipped = state.skipped + ~finite
    # A short memory at first, so that the average forgets the random initialisation.
    update_average(state.average, state.model, min(config.EMA_DECAY, (1 + state.steps) / (10 + state.steps)))
    state.steps += 1
    return losses.detach()


def seed_step(state: State) -> None:
    """Make the random numbers of the next step depend on the seed, the step and the process alone."""
    torch.manual_seed((state.config.SEED * 1_000_003 + state.steps) * 4096 + parallel.rank())


def strengths(config: Config) -> Strengths:
    """How strongly to augment."""
    return Strengths(
        config.ROTATION,
        config.SHEAR,
        config.SHRINK,
        config.NEIGHBOURS,
        config.BRIGHTNESS,
        config.CONTRAST,
        config.WARP,
        config.STROKE,
        config.STRETCH,
    )


def train_share(state: State, lines: Lines, batch: Sequence[int], pace: float) -> Tensor:
    """One optimizer step on this process's share of a batch, augmented. Returns the CTC losses of the share, in nats.

    Every process takes part in every step: one without a share runs an image whose weight is 0.
    """
    seed_step(state)
    share, world = batch[parallel.rank() :: parallel.world()], parallel.world()
    images, widths, texts = make_batch(lines, share or batch[:1], state.device)
    augmented = augmented_share(state.steps, pace, state.config.AUGMENT_STEPS)
    images = augment(images, widths, strengths(state.config), augmented)
    return train_batch(state, images, widths, texts, len(share) * world / len(batch), pace)[: len(share)]


class LossSum:
    """The sum of the losses of an epoch's images, over all processes.

    It is added up where the losses are computed: looking at them would make the CPU wait for a GPU.
    """

    def __init__(self, state: State):
        device = "cpu" if state.device.type == "mps" else state.device  # MPS has no float64
        self.sum = torch.tensor(0.0 if parallel.rank() else state.loss_sum, dtype=torch.float64, device=device)

    def add(self, losses: Tensor) -> None:
        self.sum += losses.nan_to_num(0, 0, 0).sum().to(self.sum.device)

    def total(self) -> float:
        return float(parallel.all_sum(self.sum.to("cpu", copy=True)))


def stop_if_diverged(state: State, losses: LossSum) -> None:
    """Raise HTRError, with the state saved, after too many steps in a row without a finite gradient."""
    if int(state.skipped_in_a_row) >= MOST_SKIPPED:
        state.loss_sum = losses.total()
        save_state(state)
        raise HTRError(
            f"the last {MOST_SKIPPED} steps had no finite gradient and were skipped: continue from the saved state with"
            f" continue_train.py and a --learning-rate below {state.optimizer.param_groups[0]['lr']:.1e}, or a smaller"
            " --grad-clip"
        )


def batches_of(state: State, lines: Lines) -> list[list[int]]:
    """The batches of the epoch in progress."""
    return batches_by_width(lines.images.widths, state.config.BATCH_SIZE, state.config.SEED, state.epoch + 1)


def epoch_progress(state: State, lines: Lines, batches: Sequence[Sequence[int]]) -> Progress:
    """Counts the images of an epoch, from the first batch that is still to do."""
    done = sum(map(len, batches[: state.batches_done]))
    return Progress(f"epoch {state.epoch + 1}/{state.config.EPOCHS}", len(lines), done)


def show_figures(progress: Progress, state: State, losses: Tensor, pace: float) -> None:
    """Show the loss of a batch: with the last CER and the learning rate beside a bar, or in a line now and then."""
    if not progress.bar.disable and state.batches_done % 20 == 0:
        cer = f"{state.history[-1]['val_cer']:.4f}" if state.history else "-"
        rate = pace * state.optimizer.param_groups[0]["lr"]
        progress.bar.set_postfix(loss=f"{float(losses.mean()):.3f}", CER=cer, lr=f"{rate:.1e}", refresh=False)
    if progress.due():
        progress.say(f"loss {float(losses.mean()):.3f}, ")


def train_epoch(state: State, lines: Lines, stop: Sequence[int] = ()) -> bool:
    """Train on the remaining batches of the epoch in progress.

    Counts them in `state`, and saves it every SAVE_EVERY minutes. Returns False if it ended early because `stop` was
    filled, here or in another process. Raises HTRError where no gradient is finite any more.
    """
    config = state.config
    batches = batches_of(state, lines)
    loss_sum, save_every = LossSum(state), 60 * config.SAVE_EVERY or float("inf")
    stopped, saved = False, time.monotonic()
    state.model.train()
    with epoch_progress(state, lines, batches) as progress:
        for batch in batches[state.batches_done :]:
            position = state.epoch + state.batches_done / len(batches)
            pace = cooldown(position, config.LR_CYCLE, config.LR_COOLDOWN)
            losses = train_share(state, lines, batch, pace)
            loss_sum.add(losses)
            state.batches_done += 1
            progress.update(len(batch))
            show_figures(progress, state, losses, pace)
            regularly = state.batches_done % LOOK_EVERY == 0
            if regularly or state.device.type == "cpu":
                stop_if_diverged(state, loss_sum)
            if regularly or parallel.world() == 1:
                due = parallel.rank() == 0 and time.monotonic() - saved > save_every
                stopped, due = parallel.any_process(bool(stop), due)
                if stopped:
                    break
                if due:
                    state.loss_sum = loss_sum.total()
                    save_state(state)
                    saved = time.monotonic()
    state.loss_sum = loss_sum.total()
    return not any(parallel.any_process(stopped, bool(stop)))


def dry_run(state: State, train_lines: Lines, validation_lines: Lines) -> None:
    """Run one batch through training and validation; prints the losses and writes nothing."""
    size = min(state.config.BATCH_SIZE, len(train_lines))
    losses = train_batch(state, *make_batch(train_lines, range(size), state.device))
    few = Lines(
        validation_lines.filenames[:size],
        PackedImages.of(validation_lines.images[i] for i in range(min(size, len(validation_lines)))),
        validation_lines.texts[:size],
        validation_lines.counts,
    )
    loss, _ = validate(state.average, few, state.alphabet, state.device, size)
    print(
        f"dry run: a batch of {size} images, training loss {float(losses.mean()):.1f}, validation loss {loss:.1f};"
        " nothing written"
    )


def describe(state: State) -> str:
    weights = sum(parameter.numel() for parameter in state.model.parameters())
    processes = f", {parallel.world()} processes" if parallel.world() > 1 else ""
    return f"network: {weights / 1e6:.2f} million weights, on {state.device.type}{processes}"


def fit(state: State, train_lines: Lines, validation_lines: Lines, epochs: int) -> None:
    """Train until `epochs` epochs are finished, keeping after each the last state and the best weights.

    Writes the checkpoint of lowest validation loss, the last state, history.csv and curves.png beside
    `config.MINI_MODEL_PATH`. Raises Interrupted, after saving, on SIGINT, SIGTERM or SIGHUP, and HTRError where the
    losses are not finite or memory runs out.
    """
    config, best_path = state.config, Path(state.config.MINI_MODEL_PATH)
    state.data = data_of(train_lines, validation_lines)
    keep_on_gpu(train_lines, state.device)
    save_progress(state)  # so that a run can be continued from its first step on
    with stop_requests() as stop, memory_advice(config.BATCH_SIZE), memory_kept():
        while not (stopped := any(parallel.any_process(bool(stop)))) and state.epoch < epochs:
            images_before = sum(map(len, batches_of(state, train_lines)[: state.batches_done]))
            started = time.perf_counter()
            if not train_epoch(state, train_lines, stop):
                save_state(state)
                stopped = True
                break
            speed = (len(train_lines) - images_before) / (time.perf_counter() - started)
            best = end_epoch(state, len(train_lines), validation_lines)
            several = any(" " in text for text in validation_lines.texts)
            print(f"epoch {state.epoch}/{epochs}: {epoch_line(state.history[-1], speed, best, several)}", flush=True)
            if int(state.skipped):
                print(f"epoch {state.epoch}: {int(state.skipped)} steps skipped because their gradient was not finite")
            state.skipped = torch.zeros_like(state.skipped)
    if stopped:
        batches = f" and {state.batches_done} batches" if state.batches_done else ""
        raise Interrupted(
            stop[0] if stop else signal.SIGTERM,  # where another process got it
            f"stopped after {state.epoch} of {epochs} epochs{batches}; the state is saved: continue with"
            " continue_train.py --finish, or without --finish for more epochs",
        )
    if state.best_loss == float("inf"):
        raise HTRError("no epoch had a finite validation loss, so no weights were kept: use a lower --learning-rate")
    if parallel.rank() == 0:
        draw_curves(state.history, beside(best_path, "curves.png"))
        calibrate_on_validation(config, validation_lines, train_lines.labels)
    if not any(row["val_loss"] <= state.best_loss for row in state.history):
        print("no epoch was better than the weights that the run started from")
    print(f"best validation loss {state.best_loss:.3f}, kept in {best_path}")


def keep_on_gpu(lines: Lines, device: torch.device) -> None:
    """Move the images to the memory of a GPU where they take less than a quarter of what is free."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if lines.images.data.numel() < free / 4:
            lines.images = lines.images.to(device)


def save_progress(state: State) -> None:
    """Save the state and write the history. The first process does it for all."""
    save_state(state)
    if parallel.rank() == 0:
        write_history(state.history, beside(state.config.MINI_MODEL_PATH, "history.csv"))


def end_epoch(state: State, images: int, validation_lines: Lines) -> bool:
    """Validate after an epoch of that many training images, and save what came of it.

    Returns whether its validation loss is the lowest so far; these weights are kept.
    """
    config = state.config
    parallel.take_weights(state.average)  # each process has its own BatchNorm statistics
    loss, score = validate(state.average, validation_lines, state.alphabet, state.device, config.BATCH_SIZE)
    pace = cooldown(state.epoch, config.LR_CYCLE, config.LR_COOLDOWN)  # at the start of the epoch
    learning_rate = pace * state.optimizer.param_groups[0]["lr"]
    state.epoch += 1
    values = (state.epoch, state.loss_sum / images, loss, score.cer, score.exact, learning_rate, score.wer)
    state.history.append(dict(zip(HISTORY_COLUMNS, values, strict=True)))
    state.batches_done, state.loss_sum = 0, 0.0
    state.scheduler.step(loss)
    best = loss < state.best_loss
    if best:
        state.best_loss = loss
        if parallel.rank() == 0:
            save_checkpoint(state.best_checkpoint(), config.MINI_MODEL_PATH)
    save_progress(state)
    return best


def epoch_line(row: dict[str, float], speed: float, best: bool, words: bool = False) -> str:
    """What to print of an epoch; with `words`, WER too."""
    wer = f" WER {row['val_wer']:.4f}," if words else ""
    return (
        f"train loss {row['train_loss']:.3f}, validation loss {row['val_loss']:.3f}, CER {row['val_cer']:.4f},{wer}"
        f" exact {row['val_exact']:.4f}, lr {row['learning_rate']:.1e}, {speed:.0f} images/s"
        + (", best so far" if best else "")
    )


def check_best(state: State) -> None:
    """If the best weights so far cannot be loaded, say so, and let those of the next epoch replace them."""
    if state.best_loss < float("inf"):
        try:
            load_checkpoint(state.config.MINI_MODEL_PATH)
        except HTRError as error:
            print(f"{error}; the weights of the next epoch will replace the best so far")
            state.best_loss = float("inf")


def calibrate_on_validation(config: Config, lines: Lines, labels: Counter) -> None:
    """Calibrate the confidence of the best weights on the validation lines, and the weighing of spelling and of a
    lexicon, for which all training labels stand in. Of too few lines nothing can be learned, which is said."""
    if len(lines) < FEWEST:
        print(
            f"{len(lines)} validation images are too few to calibrate the confidence on, which takes {FEWEST}:"
            " CONFIDENCE is the network's own probability"
        )
        return
    path = config.MINI_MODEL_PATH
    fitted = fitted_on(path, lines.images, lines.texts, Lexicon(labels), config.DEVICE, config.BATCH_SIZE)
    keep_fitted(fitted, path, path, len(lines))
