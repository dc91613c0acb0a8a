"""Lines of running handwriting: kraken beside this project, from nothing, on the same lines for the same minutes.

    python benchmarks/line_peers.py --data-dir OUT/lines --minutes 60

OUT/lines is the folder of lines that shipped_weights.py makes. Each has two threads, one after the other: kraken with
the defaults of `ketos train -f path`, this project with the settings of the shipped weights of lines, its rate falling
to 0 at the end. Both see lines that were cut out of their pages already. How to set up kraken: benchmarks/peers.py.
"""

import argparse
import random
import shutil
import sys
import time
from pathlib import Path

import torch
from line_networks import settings, train_for
from peers import Kraken, Rows, score, write_peers_sets
from shipped_weights import LINES, write_table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from config import Config  # noqa: E402
from htr.results.scores import Score  # noqa: E402
from htr.texts.labels import read_labels  # noqa: E402
from predict import predict_batch  # noqa: E402
from training import load_data, new_state  # noqa: E402
from utils import save_checkpoint  # noqa: E402

THREADS = 2


def copied(table: Path, count: int, folder: Path) -> Rows:
    """Some lines of pages, drawn at random, copied into a folder under names that are their own, with a table."""
    rows = [row for row in read_labels(table).labels() if row[0].startswith("pages/")]
    chosen = random.Random(0).sample(rows, min(count, len(rows)))
    folder.mkdir(parents=True)
    pairs = []
    for n, (name, text) in enumerate(chosen):
        pairs.append((folder / f"{folder.name}{n:05}.png", text))
        shutil.copyfile(table.parent / name, pairs[-1][0])
    write_table(folder.with_suffix(".csv"), [(path.name, text) for path, text in pairs])
    return pairs


def ours(work: Path, validation: Rows, minutes: float) -> tuple[float, Score]:
    """Epochs, and the score on the validation lines."""
    torch.set_num_threads(THREADS)
    needed = {"DATA_DIR": str(work), "UPPERCASE": False, "NUM_SAMPLES": 0, "VALIDATION_SAMPLES": 0}
    train_lines, _, alphabet = load_data(Config(**settings(LINES) | needed))
    state = new_state(Config(**settings(LINES) | needed), alphabet, torch.device("cpu"))
    epochs = train_for(state, train_lines, 60 * minutes, time.monotonic)
    save_checkpoint(state.best_checkpoint(), work / "ours.pth")
    table = predict_batch(work / "ours.pth", work / "validation", output_dir=work / "output")
    texts = dict(zip(table.FILENAME.str.removesuffix(".png"), table.PREDICTION, strict=True))
    return epochs, score(validation, texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder of lines of shipped_weights.py")
    parser.add_argument("--minutes", type=float, default=60, help="of training, each (default: 60)")
    parser.add_argument("--lines", type=int, default=3000, help="to train on (default: 3000)")
    parser.add_argument("--read", type=int, default=400, help="validation lines (default: 400)")
    parser.add_argument("--runs-dir", type=Path, default=Path("benchmark-runs"), help="(default: benchmark-runs)")
    args = parser.parse_args()
    runs = args.runs_dir.resolve()
    work = runs / "line_peers"
    shutil.rmtree(work, ignore_errors=True)
    train = copied(args.data_dir / "lines" / "train.csv", args.lines, work / "train")
    validation = copied(args.data_dir / "lines" / "validation.csv", args.read, work / "validation")
    epochs, own = ours(work, validation, args.minutes)
    print(f"ours, {epochs:.1f} epochs: {own}", flush=True)
    write_peers_sets(train, validation, work)
    kraken = Kraken(runs, work, THREADS)
    kraken.train_for(args.minutes)
    kraken.read()
    print(f"kraken: {score(validation, kraken.texts())}")


if __name__ == "__main__":
    main()
