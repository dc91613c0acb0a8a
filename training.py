"""The training loop, validation and learning curves: what train.py and continue_train.py share."""

import contextlib
import copy
import csv
import dataclasses
import math
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

import parallel
from augmentation import augment, augmented_share
from config import Config, HTRError, Interrupted
from dataset import (
    IN_MEMORY,
    Alphabet,
    Lines,
    batches_by_width,
    find_labels,
    load_lines,
    padded_width,
    to_ink,
)
from files import only_writer, whole_file
from lexicon import Lexicon
from model import CRNN, ctc_loss, frames_needed, greedy_decode
from pictures import Pictures
from reading import calibrate
from utils import Score, autocast, build_model, load_checkpoint, memory_advice, restore_weights, save_checkpoint

MACHINE = ("DATA_DIR", "DEVICE", "WORKERS", "MINI_MODEL_PATH")  # settings that are of no use elsewhere
HISTORY_COLUMNS = ("epoch", "train_loss", "val_loss", "val_cer", "val_exact", "learning_rate")


MOST_SKIPPED = 10  # steps in a row whose gradient is not finite, after which training stops


def last_path(model_path: str | Path) -> Path:
    """Where the state to go on from is kept: htr_crnn_mini.pth -> htr_crnn_mini.last.pth."""
    return Path(model_path).with_suffix(".last.pth")


def previous_path(model_path: str | Path) -> Path:
    """Where the state before the last one is kept: htr_crnn_mini.pth -> htr_crnn_mini.previous.pth."""
    return Path(model_path).with_suffix(".previous.pth")


def only_training(model_path: str | Path) -> contextlib.AbstractContextManager[None]:
    """Be the only run that trains `model_path`; see `only_writer`. Of several processes the first one locks for all."""
    if parallel.rank():
        return contextlib.nullcontext()
    suffixes = (".last.pth", ".previous.pth", ".history.csv", ".curves.png")
    return only_writer(model_path, *(Path(model_path).with_suffix(suffix) for suffix in suffixes))


# ------------------------------------------------------------------------------------------------- state


@dataclass
class State:
    """All that a run needs to go on bit for bit where it stopped.

    `network` computes with the weights of `model`, in step with other processes; `average` is their running average.
    No random state is kept: what a step draws depends on the seed, the step and the process alone.
    """

    config: Config
    alphabet: Alphabet
    device: torch.device
    model: CRNN
    network: nn.Module
    average: CRNN
    optimizer: torch.optim.Optimizer
    scheduler: ReduceLROnPlateau
    scaler: torch.amp.GradScaler  # scales by 1; leaves out the steps whose gradient is not finite
    skipped: Tensor  # (), how many such steps there were in this epoch, counted on the device
    skipped_in_a_row: Tensor  # (), how many such steps came last
    epoch: int = 0  # finished epochs
    steps: int = 0  # finished optimizer steps, of all epochs
    batches_done: int = 0  # of the epoch under way
    loss_sum: float = 0.0  # over the images of those batches
    best_loss: float = float("inf")
    history: list[dict[str, float]] = field(default_factory=list)

    def best_checkpoint(self) -> dict[str, Any]:
        """What prediction needs; it can be passed on, and tells nothing of the machine it was trained on."""
        config = {name: value for name, value in dataclasses.asdict(self.config).items() if name not in MACHINE}
        return {
            "config": config,
            "alphabet": self.alphabet.characters,
            "model": self.average.state_dict(),
            "epoch": self.epoch,
            "history": self.history,
        }

    def last_checkpoint(self) -> dict[str, Any]:
        return {
            "config": dataclasses.asdict(self.config),
            "alphabet": self.alphabet.characters,
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
        }


def new_state(config: Config, alphabet: Alphabet, device: torch.device) -> State:
    """A run at its start; seeds torch's random state."""
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
    # Once a cycle at most: a cycle that starts again is worse than the end of the one before, until its rate falls.
    rest = max(0, config.LR_CYCLE - config.LR_PATIENCE - 1)
    scheduler = ReduceLROnPlateau(optimizer, factor=config.LR_FACTOR, patience=config.LR_PATIENCE, cooldown=rest)
    scaler = torch.amp.GradScaler(device.type, init_scale=1.0)
    network, none = parallel.wrap(model), torch.zeros((), dtype=torch.int64, device=device)
    return State(config, alphabet, device, model, network, average, optimizer, scheduler, scaler, none, none)


def restore_state(
    checkpoint: dict[str, Any], config: Config, alphabet: Alphabet, device: torch.device, path: str | Path
) -> State:
    """The run that `checkpoint` was saved from. Raises HTRError where parts are missing or do not fit."""
    state = new_state(config, alphabet, device)
    try:
        restore_weights(state.model, checkpoint["model"], path)
        restore_weights(state.average, checkpoint["average"], path)
        state.optimizer.load_state_dict(checkpoint["optimizer"])
        state.scheduler.load_state_dict(checkpoint["scheduler"])
        for name in ("epoch", "steps", "batches_done", "loss_sum", "best_loss", "history"):
            setattr(state, name, checkpoint[name])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise HTRError(f"{path} holds no complete state to go on from: {error}") from error
    return state


def load_last(model_path: str | Path) -> dict[str, Any]:
    """The checkpoint to go on from: the last one or, where that is damaged, the one before, which then takes its place.

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
            print(f"{error}; going on from the state before it, {previous}")
            os.replace(previous, path)
            return checkpoint


def save_state(state: State) -> None:
    """Keep the state to go on from, and the one before it. The first process does it for all."""
    if parallel.rank() == 0:
        model_path = state.config.MINI_MODEL_PATH
        save_checkpoint(state.last_checkpoint(), last_path(model_path), previous_path(model_path))


# -------------------------------------------------------------------------------------------------- data


def load_data(config: Config, alphabet: Alphabet | None = None) -> tuple[Lines, Lines, Alphabet]:
    """Training lines, validation lines and the alphabet, by default that of the training texts; says what is left out.

    Raises HTRError where a training text has characters that a given alphabet lacks.
    """

    def fits(text: str, width: int) -> bool:
        return frames_needed(text) <= CRNN.frames(width)

    in_memory = IN_MEMORY if parallel.world() == 1 else 0  # processes share a file
    with parallel.first_process_first():
        train_lines = load_lines(config, "train", config.NUM_SAMPLES, fits, in_memory)
        print(f"train: {train_lines.summary()}")
        validation_lines = load_lines(config, "validation", config.VALIDATION_SAMPLES, fits, in_memory)
        print(f"validation: {validation_lines.summary()}")
    used = Alphabet.of(train_lines.texts)
    alphabet = alphabet or used
    if not alphabet.knows(used.characters):
        unknown = "".join(c for c in used.characters if not alphabet.knows(c))
        raise HTRError(
            f"the training labels hold characters that the checkpoint's alphabet lacks, {unknown!r}: train from scratch"
            " with train.py, or name the data that the checkpoint was trained on with --data-dir"
        )
    print(f"alphabet: {len(alphabet)} characters {alphabet.characters!r}")
    unwritable = [text for text in validation_lines.texts if not alphabet.knows(text)]
    if unwritable:
        print(
            f"validation: {len(unwritable)} labels hold characters that no training label has ({unwritable[0]!r}): they"
            " count in CER and exact match, not in the loss"
        )
    return train_lines, validation_lines, alphabet


def make_batch(lines: Lines, indices: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor, list[str]]:
    """images (N, 1, H, W) of ink on the device, widths (N,) in pixels, texts."""
    widths = [lines.images.widths[i] for i in indices]
    images = lines.images.batch(indices, padded_width(widths))
    if device.type == "cuda" and not images.is_cuda:
        images = images.pin_memory()  # only then the copy does not wait
    return to_ink(images.to(device, non_blocking=True)), torch.tensor(widths), [lines.texts[i] for i in indices]


# ------------------------------------------------------------------------------------- training, validation


@torch.no_grad()
def validate(
    model: CRNN, lines: Lines, alphabet: Alphabet, device: torch.device, batch_size: int
) -> tuple[float, Score]:
    """Mean CTC loss of the images whose text the alphabet can write, in nats an image, and the scores of all."""
    model.eval()
    order = sorted(range(len(lines)), key=lines.images.widths.__getitem__)
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    sums = torch.zeros(
        len(batches), 6, dtype=torch.float64
    )  # a row a batch, so that any number of processes adds alike
    for n in range(parallel.rank(), len(batches), parallel.world()):
        images, widths, texts = make_batch(lines, batches[n], device)
        with autocast(device):
            logits, lengths = model(images, widths)
        score, loss = Score(), 0.0
        for text, reading in zip(texts, greedy_decode(logits, lengths), strict=True):
            score.add(text, alphabet.decode(reading.labels))
        rows = [row for row, text in enumerate(texts) if alphabet.knows(text)]
        if rows:
            labels = [alphabet.encode(texts[row]) for row in rows]
            loss = float(ctc_loss(logits[:, rows], lengths[rows], labels).sum())
        sums[n] = torch.tensor([loss, len(rows), *dataclasses.astuple(score)])
    loss_sum, known, *counts = parallel.all_sum(sums).sum(0).tolist()
    return loss_sum / max(1, known), Score(*map(int, counts))


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
    """Collects SIGINT and SIGTERM instead of dying of them; a second signal ends the process at once."""
    received: list[int] = []

    def note(signum, frame):
        received.append(signum)
        for number, handler in previous.items():
            signal.signal(number, handler)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def cooldown(position: float, cycle: int, share: float) -> float:
    """What the learning rate is multiplied by `position` epochs after the start, in cycles of `cycle` epochs.

    It stays at first, falls linearly to 0 in the last `share` of a cycle (Hägele et al. 2024, arXiv:2405.18392), and
    starts again (Loshchilov and Hutter 2017, arXiv:1608.03983). It depends on the position alone, not on how many
    epochs are planned, so that a run can be trained in parts. With `cycle` 0 it stays.
    """
    return min(1.0, (1 - (position % cycle) / cycle) / share) if cycle else 1.0


def train_batch(
    state: State, images: Tensor, widths: Tensor, texts: Sequence[str], weight: float = 1.0, pace: float = 1.0
) -> Tensor:
    """One optimizer step on a batch (N, 1, H, W), at `pace` times the learning rate.

    Returns the CTC losses (N,) of its images, in nats.

    With several processes each has its share of the batch, and `weight` is that share times their number: the mean of
    their gradients is then that of the whole batch. Where the gradient is not finite, weights and statistics stay as
    they are; that is found out where the gradient is, so that the CPU does not wait for a GPU.
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
    # A short memory at first, so that the average does not remember the random start.
    update_average(state.average, state.model, min(config.EMA_DECAY, (1 + state.steps) / (10 + state.steps)))
    state.steps += 1
    return losses.detach()


def seed_step(state: State) -> None:
    """Make what the next step draws depend on the seed, the step and the process alone."""
    torch.manual_seed((state.config.SEED * 1_000_003 + state.steps) * 4096 + parallel.rank())


def train_epoch(state: State, lines: Lines, stop: Sequence[int] = ()) -> bool:
    """Train on the batches of the epoch under way that are still to do.

    Counts in `state`, and saves it every so many minutes. Returns False where it ended early because `stop` was filled,
    here or in another process. Raises HTRError where the gradient stays without a finite value.
    """
    config, rank, world = state.config, parallel.rank(), parallel.world()
    batches = batches_by_width(lines.images.widths, config.BATCH_SIZE, config.SEED, state.epoch + 1)
    cer = f"{state.history[-1]['val_cer']:.4f}" if state.history else "-"
    rate = state.optimizer.param_groups[0]["lr"]
    # Added up where it is computed: to look at it would make the CPU wait for the GPU.
    loss_sum = torch.tensor(0.0 if rank else state.loss_sum, dtype=torch.float64)
    loss_sum = loss_sum.to("cpu" if state.device.type == "mps" else state.device)

    def count_losses() -> None:
        state.loss_sum = float(parallel.all_sum(loss_sum.to("cpu", copy=True)))

    save_every = 60 * config.SAVE_EVERY or float("inf")
    stopped, saved = False, time.monotonic()
    state.model.train()
    with tqdm(total=len(lines), unit="img", leave=False, disable=parallel.no_bar()) as bar:
        bar.set_description(f"epoch {state.epoch + 1}")
        bar.update(sum(map(len, batches[: state.batches_done])))
        for batch in batches[state.batches_done :]:
            seed_step(state)
            mine = batch[rank::world]
            # Every process takes part in every step.
            images, widths, texts = make_batch(lines, mine or batch[:1], state.device)
            position = state.epoch + state.batches_done / len(batches)
            pace = cooldown(position, config.LR_CYCLE, config.LR_COOLDOWN)
            images = augment(images, widths, config, augmented_share(state.steps, pace, config))
            losses = train_batch(state, images, widths, texts, len(mine) * world / len(batch), pace)
            if mine:
                loss_sum += losses.nan_to_num(0, 0, 0).sum().to(loss_sum.device)
            state.batches_done += 1
            bar.update(len(batch))
            if not bar.disable and state.batches_done % 20 == 0:
                bar.set_postfix(loss=f"{float(losses.mean()):.3f}", CER=cer, lr=f"{pace * rate:.1e}", refresh=False)
            sometimes = state.batches_done % 16 == 0
            if (sometimes or state.device.type == "cpu") and int(state.skipped_in_a_row) >= MOST_SKIPPED:
                count_losses()
                save_state(state)
                raise HTRError(
                    f"the last {MOST_SKIPPED} steps had no finite gradient and were left out: go on from the saved"
                    f" state with continue_train.py and a --learning-rate below {rate:.1e}, or a smaller --grad-clip"
                )
            if sometimes or world == 1:
                due = rank == 0 and time.monotonic() - saved > save_every
                stopped, due = parallel.all_sum(torch.tensor([bool(stop), due], dtype=torch.int64)).bool().tolist()
                if stopped:
                    break
                if due:
                    count_losses()
                    save_state(state)
                    saved = time.monotonic()
    count_losses()
    return not (stopped or parallel.all_agree(bool(stop)))


def dry_run(state: State, train_lines: Lines, validation_lines: Lines) -> None:
    """One batch through training and validation; says what came out and writes nothing."""
    size = min(state.config.BATCH_SIZE, len(train_lines))
    losses = train_batch(state, *make_batch(train_lines, range(size), state.device))
    few = Lines(
        validation_lines.filenames[:size],
        Pictures.of(validation_lines.images[i] for i in range(min(size, len(validation_lines)))),
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
    `config.MINI_MODEL_PATH`. Raises Interrupted, after saving, where SIGINT or SIGTERM came, and HTRError where the
    losses are not finite or the memory is too small.
    """
    config = state.config
    best_path = Path(config.MINI_MODEL_PATH)
    if state.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(state.device)
        if train_lines.images.data.numel() < free / 4:
            train_lines.images = train_lines.images.to(state.device)
    if parallel.rank() == 0:  # a run can go on from its first step
        save_state(state)
        write_history(state.history, best_path.with_suffix(".history.csv"))
    with stop_requests() as stop, memory_advice(config.BATCH_SIZE):
        while not (stopped := parallel.all_agree(bool(stop))) and state.epoch < epochs:
            started, images_before = time.perf_counter(), state.batches_done * config.BATCH_SIZE
            if not train_epoch(state, train_lines, stop):
                save_state(state)
                stopped = True
                break
            speed = (len(train_lines) - images_before) / (time.perf_counter() - started)
            parallel.take_weights(state.average)  # statistics of BatchNorm are each process's own
            loss, score = validate(state.average, validation_lines, state.alphabet, state.device, config.BATCH_SIZE)

            pace = cooldown(state.epoch, config.LR_CYCLE, config.LR_COOLDOWN)
            learning_rate = pace * state.optimizer.param_groups[0]["lr"]
            state.epoch += 1
            values = (state.epoch, state.loss_sum / len(train_lines), loss, score.cer, score.exact, learning_rate)
            state.history.append(dict(zip(HISTORY_COLUMNS, values, strict=True)))
            state.batches_done, state.loss_sum = 0, 0.0
            state.scheduler.step(loss)
            best = loss < state.best_loss
            if best:
                state.best_loss = loss
            if parallel.rank() == 0:
                if best:
                    save_checkpoint(state.best_checkpoint(), best_path)
                save_state(state)
                write_history(state.history, best_path.with_suffix(".history.csv"))
            print(
                f"epoch {state.epoch}/{epochs}: train loss {values[1]:.3f}, validation loss {loss:.3f},"
                f" CER {score.cer:.4f}, exact {score.exact:.4f}, lr {learning_rate:.1e},"
                f" {speed:.0f} images/s{', best so far' if best else ''}",
                flush=True,
            )
            if int(state.skipped):
                print(f"epoch {state.epoch}: {int(state.skipped)} steps left out, as their gradient was not finite")
            state.skipped = torch.zeros_like(state.skipped)
    if stopped:
        batches = f" and {state.batches_done} batches" if state.batches_done else ""
        raise Interrupted(
            stop[0] if stop else signal.SIGTERM,  # where another process got it
            f"stopped after {state.epoch} of {epochs} epochs{batches}; the state is saved: go on with continue_train.py"
            " --finish, or without it for more epochs",
        )
    if state.best_loss == float("inf"):
        raise HTRError("no epoch had a finite validation loss, so no weights were kept: use a lower --learning-rate")
    if parallel.rank() == 0:
        draw_curves(state.history, best_path.with_suffix(".curves.png"))
        calibrate_on_validation(config, validation_lines)
    print(f"best validation loss {state.best_loss:.3f}, kept in {best_path}")


def check_best(state: State) -> None:
    """Where the best weights so far cannot be loaded, say so, and let those of the next epoch take their place."""
    if state.best_loss < float("inf"):
        try:
            load_checkpoint(state.config.MINI_MODEL_PATH)
        except HTRError as error:
            print(f"{error}; the weights of the next epoch will take the place of the best so far")
            state.best_loss = float("inf")


def calibrate_on_validation(config: Config, lines: Lines) -> None:
    """Fit the confidence of the best weights on the validation lines, and how a lexicon is weighed: all training labels
    of the dataset take the part of one."""
    known = Lexicon.load(find_labels(config.DATA_DIR, "train"), config)
    calibrate(config.MINI_MODEL_PATH, lines.images, lines.texts, known, config.DEVICE, config.BATCH_SIZE)


# ----------------------------------------------------------------------------------------------- history


def write_history(history: Sequence[dict[str, float]], path: Path) -> None:
    """One row an epoch; losses in nats an image."""
    with whole_file(path, newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, HISTORY_COLUMNS)
        writer.writeheader()
        writer.writerows(history)


def draw_curves(history: Sequence[dict[str, float]], path: Path) -> None:
    """Losses, CER and exact match, and learning rate by epoch, the best epoch marked."""
    from matplotlib.figure import Figure  # slow to import, used once

    epochs = [row["epoch"] for row in history]
    best = min(history, key=lambda row: (math.isnan(row["val_loss"]), row["val_loss"]))["epoch"]
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    panels = figure.subplots(1, 3)
    for axes, title, columns in zip(
        panels,
        ("CTC loss (nats an image)", "validation", "learning rate"),
        (("train_loss", "val_loss"), ("val_cer", "val_exact"), ("learning_rate",)),
        strict=True,
    ):
        for column in columns:
            axes.plot(epochs, [row[column] for row in history], marker=".", label=column.replace("_", " "))
        axes.axvline(best, color="grey", linestyle=":", label=f"best epoch ({best})")
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    panels[0].set_ylim(bottom=0)
    panels[1].set_ylim(0, 1)
    panels[2].set_yscale("log")
    with whole_file(path, "wb") as file:
        figure.savefig(file, format="png", dpi=120)
