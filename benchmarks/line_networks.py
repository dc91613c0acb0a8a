"""Networks for lines of running handwriting: what each reads after the same minutes, and how fast.

    python benchmarks/line_networks.py --data-dir DIR --minutes 30
    python benchmarks/line_networks.py --data-dir DIR --minutes 30 --only "frames of 8 pixels" --seed 1

DIR is the folder with train.csv and validation.csv that shipped_weights.py makes, OUT/lines/lines. Each network is
trained on the same lines for the same minutes of processor time, its rate falling to 0 at their end, in one thread,
with the settings of the shipped weights but for those that its name says. It starts from the shipped weights of words
where their shapes fit, and from random ones elsewhere. Prints CER by collection, epochs, and lines read in a second of
processor time.
"""

import argparse
import dataclasses
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch
from shipped_weights import LINES, write_table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from config import SHIPPED_WORDS, Config  # noqa: E402
from dataset import Lines  # noqa: E402
from htr.pictures.packed import PackedImages  # noqa: E402
from htr.texts.labels import read_labels  # noqa: E402
from training import State, batches_of, grown_weights, load_data, new_state, train_share, validate  # noqa: E402
from utils import TorchNetwork, load_checkpoint, memory_kept, restore_settings  # noqa: E402

VARIANTS = {
    "as shipped": {},
    "frames of 8 pixels": {"FRAME_WIDTH": 8},
    "height 48": {"IMG_HEIGHT": 48},
    "height 80": {"IMG_HEIGHT": 80},
    "height 96": {"IMG_HEIGHT": 96},
    "128 LSTM units": {"LSTM_HIDDEN": 128},
    "256 LSTM units": {"LSTM_HIDDEN": 256},
    "four LSTM layers": {"LSTM_LAYERS": 4},
    "half as wide again": {"CNN_CHANNELS": (48, 72, 144, 168, 288, 288)},
    "batches of 8": {"BATCH_SIZE": 8},
    "batches of 32": {"BATCH_SIZE": 32},
    "dropout 0.1": {"DROPOUT": 0.1},
    "dropout 0.5": {"DROPOUT": 0.5},
    "less slant": {"SHEAR": 5.0},
    "neither warp nor strokes": {"WARP": 0.0, "STROKE": 0.0},
    "more warp and strokes": {"WARP": 0.08, "STROKE": 0.7},
}


def settings(flags: tuple) -> dict:
    """Flags of train.py, as the settings they are."""
    names = {field.name: type(field.default) for field in dataclasses.fields(Config)}
    pairs = zip(flags[::2], flags[1::2], strict=True)
    given = {flag.removeprefix("--").replace("-", "_").upper(): value for flag, value in pairs}
    return {name: names[name](value) for name, value in given.items()}


def write_tables(data_dir: Path, folder: Path, lines: int) -> None:
    """A folder with the lines of pages among those of `data_dir`, of the training ones a random sample."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "pages").is_symlink():
        (folder / "pages").symlink_to((data_dir / "pages").resolve())
    for name in ("train.csv", "validation.csv"):
        rows = [row for row in read_labels(data_dir / name).labels() if row[0].startswith("pages/")]
        if name == "train.csv":
            rows = random.Random(0).sample(rows, lines)
        write_table(folder / name, rows)


def start(state: State) -> None:
    """Give a run those weights of the shipped ones that have the same shapes."""
    checkpoint = load_checkpoint(SHIPPED_WORDS)
    _, known = restore_settings(checkpoint, SHIPPED_WORDS)
    alike = [known.like(character) for character in state.alphabet.characters[len(known) :]]
    weights = grown_weights(checkpoint, known, SHIPPED_WORDS, state.config, alike)
    for model in (state.model, state.average):
        shapes = {name: weight.shape for name, weight in model.state_dict().items()}
        fitting = {name: weight for name, weight in weights.items() if shapes.get(name) == weight.shape}
        model.load_state_dict(fitting, strict=False)


def train_for(state: State, lines: Lines, seconds: float, clock: Callable[[], float] = time.process_time) -> float:
    """Train for so many seconds, by default of processor time; returns the number of epochs that they were."""
    spent, seen = 0.0, 0
    state.model.train()
    with memory_kept():
        while True:
            for batch in batches_of(state, lines):
                pace = min(1.0, (1 - spent / seconds) / state.config.LR_COOLDOWN)
                if pace <= 0:
                    return seen / len(lines)
                started = clock()
                train_share(state, lines, batch, pace)
                spent += clock() - started
                seen += len(batch)
            state.epoch += 1


def collections_of(lines: Lines) -> dict[str, Lines]:
    """Lines by the collection that their names begin with."""
    members = defaultdict(list)
    for n, name in enumerate(lines.filenames):
        members[Path(name).parts[1]].append(n)
    return {
        collection: Lines([], PackedImages.of(lines.images[n] for n in chosen), [lines.texts[n] for n in chosen], {})
        for collection, chosen in sorted(members.items())
    }


def lines_a_second(state: State, lines: Lines) -> float:
    network = TorchNetwork(state.average.eval(), state.device)
    images = [lines.images[n] for n in range(min(400, len(lines)))]
    batches = network.batches([image.shape[1] for image in images], network.in_batch)
    started = time.process_time()
    for batch in batches:
        network([images[n] for n in batch])
    return len(images) / (time.process_time() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder of lines of shipped_weights.py")
    parser.add_argument("--minutes", type=float, default=30, help="of training, each (default: 30)")
    parser.add_argument("--lines", type=int, default=3000, help="to train on (default: 3000)")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs-dir", type=Path, default=Path("line_networks"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    write_tables(args.data_dir, args.runs_dir, args.lines)
    for n, name in enumerate(args.only):
        needed = {"DATA_DIR": str(args.runs_dir), "FOLLOW_LINKS": True, "UPPERCASE": False, "NUM_SAMPLES": 0}
        config = Config(**settings(LINES) | needed | {"VALIDATION_SAMPLES": 0, "SEED": args.seed} | VARIANTS[name])
        _, known = restore_settings(load_checkpoint(SHIPPED_WORDS), SHIPPED_WORDS)
        train_lines, validation_lines, alphabet = load_data(config, known, grow=True)
        state = new_state(config, alphabet, torch.device("cpu"))
        start(state)
        epochs = train_for(state, train_lines, 60 * args.minutes)
        groups = collections_of(validation_lines)
        if n == 0:
            print(f"| | epochs | {' | '.join(groups)} | lines/s |\n{'|---' * (len(groups) + 3)}|")
        scores = [validate(state.average, lines, alphabet, state.device, 16)[1].cer for lines in groups.values()]
        speed = lines_a_second(state, validation_lines)
        print(f"| {name} | {epochs:.1f} | {' | '.join(f'{cer:.3f}' for cer in scores)} | {speed:.0f} |", flush=True)


if __name__ == "__main__":
    main()
