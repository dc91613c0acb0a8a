"""Accuracy of the default training over several seeds: the table that the README quotes.

    python benchmarks/accuracy.py --data-dir DIR                      # train.py, three seeds
    python benchmarks/accuracy.py --data-dir DIR --more-epochs 50     # and continue_train.py after each

Runs the scripts as a user does, one after the other, and scores the whole validation set with predict.py. The results
are kept in --runs-dir; a run that is already there is not trained again.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from dataset import find_images, find_labels  # noqa: E402


def run(folder: Path, script: str, *flags: str) -> str:
    """Run a script in `folder`; returns what it printed."""
    command = [sys.executable, str(ROOT / script), *flags]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{script} failed in {folder}")
    return done.stdout


def train_and_measure(folder: Path, script: str, data_dir: Path, *flags: str) -> dict[str, float]:
    """Train, then read the whole validation set: its scores, and the speed and minutes of training.

    Figures left by an earlier call are reused.
    """
    figures = folder / f"{script}.json"
    if not figures.exists():
        folder.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        log = run(folder, script, *flags)
        minutes = (time.perf_counter() - started) / 60
        (folder / f"{script}.log").write_text(log, encoding="utf-8")
        images, labels = find_images(data_dir, "validation"), find_labels(data_dir, "validation")
        printed = run(folder, "predict.py", str(images), "--labels", str(labels), "--output-dir", f"read-{script}")
        row = {
            "CER": float(re.search(r"^CER ([\d.]+)", printed, re.MULTILINE)[1]),
            "exact": float(re.search(r"exact match ([\d.]+)", printed)[1]),
            "images/s": statistics.median(float(speed) for speed in re.findall(r"(\d+) images/s", log)),
            "minutes": minutes,
        }
        figures.write_text(json.dumps(row), encoding="utf-8")
    return json.loads(figures.read_text(encoding="utf-8"))


def table(title: str, rows: dict[int, dict[str, float]]) -> str:
    """Markdown: a row a seed, then mean and standard deviation."""
    names = list(next(iter(rows.values())))
    lines = [f"{title}\n", f"| seed | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    lines += [f"| {seed} | " + " | ".join(f"{row[n]:.4g}" for n in names) + " |" for seed, row in rows.items()]
    columns = [[row[name] for row in rows.values()] for name in names]
    lines.append("| mean | " + " | ".join(f"{statistics.mean(column):.4g}" for column in columns) + " |")
    if len(rows) > 1:
        lines.append("| st. dev. | " + " | ".join(f"{statistics.stdev(column):.2g}" for column in columns) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--more-epochs", type=int, default=0, help="epochs of continue_train.py afterwards (default: 0)"
    )
    parser.add_argument("--runs-dir", type=Path, default=Path("benchmark-runs"), help="(default: benchmark-runs)")
    args = parser.parse_args()
    data_dir = args.data_dir.resolve()

    trained, continued = {}, {}
    for seed in args.seeds:
        folder = args.runs_dir.resolve() / f"seed-{seed}"
        flags = ["--data-dir", str(data_dir), "--seed", str(seed)]
        trained[seed] = train_and_measure(folder, "train.py", data_dir, *flags)
        if args.more_epochs:
            flags = ["--epochs", str(args.more_epochs)]
            continued[seed] = train_and_measure(folder, "continue_train.py", data_dir, *flags)
    print(table("train.py", trained))
    if continued:
        print(table(f"then continue_train.py --epochs {args.more_epochs}", continued))


if __name__ == "__main__":
    main()
