"""Compare with kraken and PyLaia: the same images on the same machine, one after the other, each with its defaults.

    python3.10 -m venv benchmark-runs/pylaia && benchmark-runs/pylaia/bin/pip install pylaia==1.0.7 "numpy<2"
    python3.11 -m venv benchmark-runs/kraken && benchmark-runs/kraken/bin/pip install kraken==7.1.1
    python benchmarks/peers.py --data-dir DIR                   # speed of training and reading, in alternating rounds
    python benchmarks/peers.py --data-dir DIR --minutes 20      # how well each reads after as many minutes of training

Training speed is that of further epochs: the time of a longer run minus that of a run of one epoch. Reading goes from a
folder of validation images to text, including the start of the program. kraken uses one thread by default; give it more
with --kraken-threads. This project needs neither of them.
"""

import argparse
import contextlib
import csv
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from dataset import find_images, find_labels  # noqa: E402
from htr.labels import clean_label, read_labels  # noqa: E402
from htr.scores import Score  # noqa: E402

IMAGES = {"ours": 2000, "PyLaia": 100, "kraken": 100}  # of an epoch, for the speed: about half a minute each
READ = {"ours": None, "PyLaia": None, "kraken": 200}  # of the 1,000 validation images; kraken needs minutes for these
FEW = 16  # validation images that each program looks at while it trains


def seconds(*command: str | Path, cwd: Path) -> float:
    """How long a command takes; ends the benchmark if it fails."""
    started = time.perf_counter()
    with open(cwd / "printed.txt", "w") as printed:
        done = subprocess.run(
            list(map(str, command)), cwd=cwd, stdout=printed, stderr=subprocess.PIPE, text=True, check=False
        )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))[:300]}\nfailed: {done.stderr[-2000:]}")
    return time.perf_counter() - started


def run_for(minutes: float, *command: str | Path, cwd: Path) -> None:
    """Run a command, and interrupt it after some minutes."""
    with subprocess.Popen(
        list(map(str, command)), cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as job:
        for limit in (60 * minutes, 60):
            with contextlib.suppress(subprocess.TimeoutExpired):
                job.wait(limit)
                return
            job.send_signal(signal.SIGINT)
        job.kill()


def write_sets(data_dir: Path, folder: Path, count: int) -> tuple[list[str], dict[str, str]]:
    """The first `count` usable training images and all validation images in each program's form.

    data/ is a dataset for this project, lines/ and few/ have texts beside the images (kraken), high64/ images 64 pixels
    high with tables (PyLaia). few is a part of the validation images. Returns the names of the training images and the
    texts of the validation images.
    """
    texts, symbols = {}, set()
    for part in ("lines", "few", "high64", "data/CSV"):
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
        texts[split] = {Path(name).stem: text for name, text in rows}
        tables = {"text": [], "ids": []}
        for n, (name, text) in enumerate(rows):
            shutil.copyfile(source / name, own / name)
            if split == "train" or n < FEW:
                part = folder / ("lines" if split == "train" else "few")
                shutil.copyfile(source / name, part / name)
                (part / name).with_suffix(".gt.txt").write_text(text, encoding="utf-8")
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
    few = (folder / "validation.txt").read_text(encoding="utf-8").splitlines()[:FEW]
    (folder / "few.txt").write_text("\n".join(few) + "\n", encoding="utf-8")
    (folder / "few-paths.txt").write_text("".join(f"{path}\n" for path in (folder / "few").glob("*.jpg")))
    return list(texts["train"]), texts["validation"]


def print_score(name: str, truth: dict[str, str], readings: dict[str, str]) -> None:
    score = Score()
    for image, text in truth.items():
        score.add(text, readings.get(image, ""))
    print(f"{name}: {score}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--runs-dir", type=Path, default=Path("benchmark-runs"), help="(default: benchmark-runs)")
    parser.add_argument("--rounds", type=int, default=3, help="of the speed (default: 3)")
    parser.add_argument("--minutes", type=float, help="train each so long on 5,000 images and score what it reads")
    parser.add_argument("--only", nargs="+", choices=IMAGES, default=list(IMAGES), help="with --minutes (default: all)")
    parser.add_argument("--kraken-threads", type=int, default=1, help="(default: 1, as kraken's own)")
    args = parser.parse_args()
    runs = args.runs_dir.resolve()
    work = runs / ("peers-minutes" if args.minutes else "peers")
    shutil.rmtree(work, ignore_errors=True)
    train, truth = write_sets(args.data_dir, work, 5000 if args.minutes else max(IMAGES.values()))

    lines = [work / "lines" / f"{name}.jpg" for name in train]
    if not args.minutes:  # they are slower: a part of the images will do
        first = (work / "train.txt").read_text(encoding="utf-8").splitlines()[: IMAGES["PyLaia"]]
        (work / "train.txt").write_text("\n".join(first) + "\n", encoding="utf-8")
        lines = lines[: IMAGES["kraken"]]
    ours = (sys.executable, ROOT / "train.py", "--data-dir", "data", "--num-samples", 0, "--device", "cpu")
    pylaia = (runs / "pylaia/bin/pylaia-htr-train-ctc", "syms.txt", "[high64]", "train.txt", "few.txt",
              "--trainer.gpus", 0, "--common.train_path", "pylaia")  # fmt: skip
    threads = ("--threads", args.kraken_threads)
    kraken = (runs / "kraken/bin/ketos", "-d", "cpu", *threads, "train", "-f", "path", "-o", work / "kraken",
              "-e", "few-paths.txt", "-q", "fixed")  # fmt: skip

    def new_pylaia() -> None:
        shutil.rmtree(work / "pylaia", ignore_errors=True)
        (work / "pylaia").mkdir()
        seconds(runs / "pylaia/bin/pylaia-htr-create-model", "syms.txt", "--fixed_input_height", 64,
                "--save_model", "true", "--common.train_path", "pylaia", cwd=work)  # fmt: skip

    def train_ours(epochs: int) -> float:
        return seconds(*ours, "--validation-samples", FEW, "--epochs", epochs, cwd=work)

    def train_pylaia(epochs: int) -> float:
        new_pylaia()
        return seconds(*pylaia, "--trainer.max_epochs", epochs, cwd=work)

    def train_kraken(epochs: int) -> float:
        shutil.rmtree(work / "kraken", ignore_errors=True)
        return seconds(*kraken, "-N", epochs, *lines, cwd=work)

    def read_ours() -> float:
        return seconds(
            sys.executable, ROOT / "predict.py", "data/validation_v2/validation", "--device", "cpu", cwd=work
        )

    def read_pylaia() -> float:
        return seconds(runs / "pylaia/bin/pylaia-htr-decode-ctc", "syms.txt", "validation-ids.txt",
                       "--img_dirs", "[high64]", "--trainer.gpus", 0, "--common.train_path", "pylaia",
                       "--common.experiment_dirname", "experiment", cwd=work)  # fmt: skip

    def read_kraken() -> float:
        models = [*(work / "kraken").rglob("*.safetensors"), *(work / "kraken").rglob("*.ckpt")]
        newest = max(models, key=lambda path: path.stat().st_mtime)
        model = newest
        if newest.suffix == ".ckpt":  # interrupted
            model = newest.with_suffix(".safetensors")
            seconds(runs / "kraken/bin/ketos", "convert", "-o", model, newest, cwd=work)
        names = list(truth)[: None if args.minutes else READ["kraken"]]
        pairs = [part for name in names for part in ("-i", f"data/validation_v2/validation/{name}.jpg", f"{name}.txt")]
        return seconds(runs / "kraken/bin/kraken", *threads, *pairs, "ocr", "-m", model, "-s", cwd=work)

    if args.minutes:
        texts: dict[str, str] = {}
        if "ours" in args.only:
            run_for(args.minutes, *ours, cwd=work)
            read_ours()
            with open(work / "output" / "predictions.csv", newline="", encoding="utf-8") as file:
                texts = {Path(row["FILENAME"]).stem: row["PREDICTION"] for row in csv.DictReader(file)}
            print_score("ours", truth, texts)
        if "PyLaia" in args.only:
            new_pylaia()
            run_for(args.minutes, *pylaia, "--trainer.val_check_interval", 0.1, cwd=work)
            read_pylaia()
            printed = [line.split() for line in (work / "printed.txt").read_text(encoding="utf-8").splitlines()]
            texts = {name: "".join(characters).replace("<space>", " ") for name, *characters in printed}
            print_score("PyLaia", truth, texts)
        if "kraken" in args.only:
            run_for(args.minutes, *kraken, "-F", 0.1, *lines, cwd=work)
            read_kraken()
            texts = {name: (work / f"{name}.txt").read_text(encoding="utf-8").strip() for name in truth}
            print_score("kraken", truth, texts)
        return

    trainings: dict[str, Callable[[int], float]] = {"ours": train_ours, "PyLaia": train_pylaia, "kraken": train_kraken}
    readings: dict[str, Callable[[], float]] = {"ours": read_ours, "PyLaia": read_pylaia, "kraken": read_kraken}
    trained, read = {name: [] for name in trainings}, {name: [] for name in readings}
    for _ in range(args.rounds):
        for name, run in trainings.items():
            trained[name].append(IMAGES[name] / (run(2) - run(1)))
        for name, run in readings.items():
            read[name].append((READ[name] or len(truth)) / run())
        print({name: [round(speed, 1) for speed in trained[name] + read[name]] for name in trained}, flush=True)
    print("| images/s | " + " | ".join(trained) + " | ours / PyLaia | ours / kraken |\n" + "|---" * 6 + "|")
    for title, speeds in (("training", trained), ("reading, start included", read)):
        medians = {name: statistics.median(values) for name, values in speeds.items()}
        cells = [f"{medians[name]:.1f}" for name in trained]
        cells += [f"{medians['ours'] / medians[name]:.1f}" for name in ("PyLaia", "kraken")]
        print(f"| {title} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
