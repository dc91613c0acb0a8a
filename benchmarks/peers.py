"""Compare speed with kraken and PyLaia: the same images, the same machine, alternating runs, each with its defaults.

    python3.10 -m venv benchmark-runs/pylaia && benchmark-runs/pylaia/bin/pip install pylaia==1.0.7 "numpy<2"
    python3.11 -m venv benchmark-runs/kraken && benchmark-runs/kraken/bin/pip install kraken==7.1.1
    python benchmarks/peers.py --data-dir DIR

Training speed is that of further epochs: the time of a longer run less that of a run of one epoch. Reading goes from a
folder of the validation images to text, start of the program included. Neither peer is needed by this project.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from dataset import clean_label, find_images, find_labels, read_labels  # noqa: E402

MORE_EPOCHS = {"ours": 10, "PyLaia": 1, "kraken": 1}  # of the longer run: where an epoch is short, it needs more


def seconds(*command: str | Path, cwd: Path) -> float:
    """How long a command takes; ends the benchmark where it fails."""
    started = time.perf_counter()
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))[:300]}\nfailed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.perf_counter() - started


def write_sets(data_dir: Path, folder: Path, count: int) -> tuple[list[str], list[str]]:
    """The first `count` usable training images and all validation images in each program's form.

    data/ is a dataset for this project, lines/ has texts beside the images (kraken), high64/ images 64 pixels high
    with tables (PyLaia). Returns the names of the training and the validation images.
    """
    names, symbols = {}, set()
    for part in ("lines", "high64", "data/CSV"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for split in ("train", "validation"):
        table = read_labels(find_labels(data_dir, split))
        rows = [
            (name, clean_label(label, True)) for name, label in zip(table["FILENAME"], table["IDENTITY"], strict=True)
        ]
        rows = [(name, text) for name, text in rows if text not in ("", "EMPTY", "UNREADABLE")]
        rows = rows[:count] if split == "train" else rows
        source, own = find_images(data_dir, split), folder / "data" / f"{split}_v2" / split
        own.mkdir(parents=True, exist_ok=True)
        names[split] = [Path(name).stem for name, _ in rows]
        tables = {"text": [], "ids": []}
        for name, text in rows:
            shutil.copyfile(source / name, own / name)
            if split == "train":
                shutil.copyfile(source / name, folder / "lines" / name)
                (folder / "lines" / name).with_suffix(".gt.txt").write_text(text, encoding="utf-8")
            with Image.open(source / name) as image:
                image.convert("L").resize((max(1, round(image.width * 64 / image.height)), 64)).save(
                    folder / "high64" / f"{Path(name).stem}.jpg", quality=95
                )
            characters = ["<space>" if character == " " else character for character in text]
            symbols.update(characters)
            tables["text"].append(f"{Path(name).stem} {' '.join(characters)}")
            tables["ids"].append(Path(name).stem)
        (folder / f"{split}.txt").write_text("\n".join(tables["text"]) + "\n", encoding="utf-8")
        (folder / f"{split}-ids.txt").write_text("\n".join(tables["ids"]) + "\n", encoding="utf-8")
        lines = "".join(f"{name},{text}\n" for name, text in rows)
        csv = folder / "data" / "CSV" / f"written_name_{split}.csv"
        csv.write_text(f"FILENAME,IDENTITY\n{lines}", encoding="utf-8")
    table = ["<ctc> 0", *(f"{symbol} {n}" for n, symbol in enumerate(sorted(symbols), 1))]
    (folder / "syms.txt").write_text("\n".join(table) + "\n", encoding="utf-8")
    few = (folder / "validation.txt").read_text(encoding="utf-8").splitlines()[:8]  # little validation while training
    (folder / "few.txt").write_text("\n".join(few) + "\n", encoding="utf-8")
    return names["train"], names["validation"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--runs-dir", type=Path, default=Path("benchmark-runs"), help="(default: benchmark-runs)")
    parser.add_argument("--images", type=int, default=200, help="training images (default: 200)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    args = parser.parse_args()
    runs = args.runs_dir.resolve()
    work = runs / "peers"
    shutil.rmtree(work, ignore_errors=True)
    train, validation = write_sets(args.data_dir, work, args.images)

    def train_ours(epochs: int) -> float:
        flags = ("--data-dir", "data", "--num-samples", "0", "--validation-samples", "8", "--device", "cpu")
        return seconds(sys.executable, ROOT / "train.py", *flags, "--epochs", epochs, cwd=work)

    def train_pylaia(epochs: int) -> float:
        shutil.rmtree(work / "pylaia", ignore_errors=True)
        (work / "pylaia").mkdir()
        common = ("--common.train_path", "pylaia")
        seconds(runs / "pylaia/bin/pylaia-htr-create-model", "syms.txt", "--fixed_input_height", 64,
                "--save_model", "true", *common, cwd=work)  # fmt: skip
        return seconds(runs / "pylaia/bin/pylaia-htr-train-ctc", "syms.txt", "[high64]", "train.txt", "few.txt",
                       "--trainer.gpus", 0, "--trainer.max_epochs", epochs, "--data.batch_size", 8,
                       "--optimizer.name", "Adam", "--optimizer.learning_rate", 0.0005, *common, cwd=work)  # fmt: skip

    def train_kraken(epochs: int) -> float:
        return seconds(runs / "kraken/bin/ketos", "-d", "cpu", "--workers", 0, "--threads", 2, "train", "-f", "path",
                       "-o", work / "kraken", "-q", "fixed", "-N", epochs, "-B", 8,
                       *(work / "lines").glob("*.jpg"), cwd=work)  # fmt: skip

    def read_ours() -> float:
        return seconds(
            sys.executable, ROOT / "predict.py", "data/validation_v2/validation", "--device", "cpu", cwd=work
        )

    def read_pylaia() -> float:
        return seconds(runs / "pylaia/bin/pylaia-htr-decode-ctc", "syms.txt", "[high64]", "validation-ids.txt",
                       "--trainer.gpus", 0, "--data.batch_size", 8, "--common.train_path", "pylaia",
                       "--common.experiment_dirname", "experiment", cwd=work)  # fmt: skip

    def read_kraken() -> float:
        model = sorted((work / "kraken").parent.glob("kraken*/*.*"))[-1]
        pairs = [
            part for name in validation for part in ("-i", f"data/validation_v2/validation/{name}.jpg", f"{name}.txt")
        ]
        return seconds(runs / "kraken/bin/kraken", *pairs, "ocr", "-m", model, "-s", cwd=work)

    trainings: dict[str, Callable[[int], float]] = {"ours": train_ours, "PyLaia": train_pylaia, "kraken": train_kraken}
    readings: dict[str, Callable[[], float]] = {"ours": read_ours, "PyLaia": read_pylaia, "kraken": read_kraken}
    trained, read = {name: [] for name in trainings}, {name: [] for name in readings}
    for _ in range(args.rounds):
        for name, run in trainings.items():
            more = MORE_EPOCHS[name]
            took = -run(1) + run(1 + more)
            trained[name].append(more * len(train) / took)
        for name, run in readings.items():
            read[name].append(len(validation) / run())
        print({name: [round(speed, 1) for speed in trained[name] + read[name]] for name in trained}, flush=True)
    print("| images/s | " + " | ".join(trained) + " | ours / PyLaia | ours / kraken |\n" + "|---" * 6 + "|")
    for title, speeds in (("training", trained), ("reading, start included", read)):
        medians = {name: statistics.median(values) for name, values in speeds.items()}
        cells = [f"{medians[name]:.1f}" for name in trained]
        cells += [f"{medians['ours'] / medians[name]:.1f}" for name in ("PyLaia", "kraken")]
        print(f"| {title} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
