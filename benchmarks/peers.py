"""Compare with kraken and PyLaia: the same images on the same machine, one after the other, each with its defaults.

    python3.10 -m venv benchmark-runs/pylaia && benchmark-runs/pylaia/bin/pip install pylaia==1.0.7 "numpy<2"
    python3.11 -m venv benchmark-runs/kraken && benchmark-runs/kraken/bin/pip install kraken==7.1.1
    python benchmarks/peers.py --data-dir DIR                   # speed of training and reading, in alternating rounds
    python benchmarks/peers.py --data-dir DIR --minutes 20      # how well each reads after as many minutes of training

Training speed is that of further epochs: the time of a longer run minus that of a run of one epoch. Reading goes from a
folder of validation images to text, including the start of the program; this project reads with PyTorch and with ONNX
Runtime. kraken uses one thread by default; give it more with --kraken-threads. This project needs neither of them.
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
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from dataset import find_images, find_labels  # noqa: E402
from htr.results.scores import Score  # noqa: E402
from htr.texts.labels import clean_label, read_labels  # noqa: E402

IMAGES = {"ours": 2000, "PyLaia": 100, "kraken": 100}  # of an epoch, for the speed: about half a minute each
READ_BY_KRAKEN = 200  # of the 1,000 validation images, for which it needs minutes
FEW = 16  # validation images that each program looks at while it trains
Rows = Sequence[tuple[Path, str]]  # pictures with their texts, no two of one name


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
    with (
        open(cwd / "printed.txt", "w") as printed,
        subprocess.Popen(list(map(str, command)), cwd=cwd, stdout=printed, stderr=subprocess.STDOUT) as job,
    ):
        for limit in (60 * minutes, 60):
            with contextlib.suppress(subprocess.TimeoutExpired):
                job.wait(limit)
                return
            job.send_signal(signal.SIGINT)
        job.kill()


# ------------------------------------------------------------------------------------------------ their forms


def write_peers_sets(train: Rows, validation: Rows, work: Path) -> None:
    """Pictures and texts as kraken and PyLaia take them.

    lines/ and few/ have texts beside the pictures (kraken), high64/ pictures 64 pixels high with tables (PyLaia). few
    is a part of the validation pictures; read/ has them all.
    """
    for part in ("lines", "few", "high64", "read"):
        (work / part).mkdir(parents=True, exist_ok=True)
    symbols = sorted({character for _, text in (*train, *validation) for character in text})
    for rows, table in ((train, "train"), (validation, "validation")):
        for n, (path, text) in enumerate(rows):
            with Image.open(path) as image:
                grey = on_white(image)
            grey.resize((max(1, round(grey.width * 64 / grey.height)), 64)).save(
                work / "high64" / f"{path.stem}.jpg", quality=95
            )
            if table == "validation":
                grey.save(work / "read" / f"{path.stem}.png")
            if table == "train" or n < FEW:
                part = work / ("lines" if table == "train" else "few")
                grey.save(part / f"{path.stem}.png")
                (part / f"{path.stem}.gt.txt").write_text(text, encoding="utf-8")
        write_pylaia_table(rows, work / f"{table}.txt")
    write_pylaia_table(validation[:FEW], work / "few.txt")
    (work / "few-paths.txt").write_text("".join(f"{path}\n" for path in (work / "few").glob("*.png")))
    (work / "validation-ids.txt").write_text("".join(f"{path.stem}\n" for path, _ in validation), encoding="utf-8")
    table = ["<ctc> 0", *(f"{pylaia_symbol(symbol)} {n}" for n, symbol in enumerate(symbols, 1))]
    (work / "syms.txt").write_text("\n".join(table) + "\n", encoding="utf-8")


def on_white(image: Image.Image) -> Image.Image:
    colours = image.convert("RGBA")
    white = Image.new("RGBA", colours.size, "white")
    return Image.alpha_composite(white, colours).convert("L")


def pylaia_symbol(character: str) -> str:
    return "<space>" if character == " " else character


def write_pylaia_table(rows: Rows, path: Path) -> None:
    lines = (f"{picture.stem} {' '.join(map(pylaia_symbol, text))}\n" for picture, text in rows)
    path.write_text("".join(lines), encoding="utf-8")


class PyLaia:
    """Its network with its defaults, trained on what `write_peers_sets` left in `work`."""

    def __init__(self, runs: Path, work: Path):
        self.programs, self.work = runs / "pylaia" / "bin", work
        self.training = (self.programs / "pylaia-htr-train-ctc", "syms.txt", "[high64]", "train.txt", "few.txt",
                         "--trainer.gpus", 0, "--common.train_path", "pylaia")  # fmt: skip

    def new(self) -> None:
        shutil.rmtree(self.work / "pylaia", ignore_errors=True)
        (self.work / "pylaia").mkdir()
        seconds(self.programs / "pylaia-htr-create-model", "syms.txt", "--fixed_input_height", 64,
                "--save_model", "true", "--common.train_path", "pylaia", cwd=self.work)  # fmt: skip

    def train(self, epochs: int) -> float:
        self.new()
        return seconds(*self.training, "--trainer.max_epochs", epochs, cwd=self.work)

    def train_for(self, minutes: float) -> None:
        self.new()
        lines = (self.work / "train.txt").read_text(encoding="utf-8").count("\n")
        often = ("--trainer.val_check_interval", 0.1) if lines > 1000 else ()  # the last epoch may not be finished
        run_for(minutes, *self.training, *often, cwd=self.work)

    def read(self) -> float:
        return seconds(self.programs / "pylaia-htr-decode-ctc", "syms.txt", "validation-ids.txt",
                       "--img_dirs", "[high64]", "--trainer.gpus", 0, "--common.train_path", "pylaia",
                       "--common.experiment_dirname", "experiment", cwd=self.work)  # fmt: skip

    def texts(self) -> dict[str, str]:
        """What `read` printed."""
        printed = [line.split() for line in (self.work / "printed.txt").read_text(encoding="utf-8").splitlines()]
        return {name: "".join(characters).replace("<space>", " ") for name, *characters in printed}


class Kraken:
    """Its recogniser with its defaults, trained on what `write_peers_sets` left in `work`, from nothing or a model."""

    def __init__(self, runs: Path, work: Path, threads: int, start: Path | None = None):
        self.programs, self.work, self.threads = runs / "kraken" / "bin", work, ("--threads", threads)
        loaded = ("--load", start, "--resize", "union") if start else ()
        self.training = (self.programs / "ketos", "-d", "cpu", *self.threads, "train", "-f", "path",
                         "-o", work / "kraken", "-e", "few-paths.txt", "-q", "fixed", *loaded)  # fmt: skip

    def train(self, epochs: int, lines: Iterable[Path]) -> float:
        shutil.rmtree(self.work / "kraken", ignore_errors=True)
        return seconds(*self.training, "-N", epochs, *lines, cwd=self.work)

    def train_for(self, minutes: float) -> None:
        shutil.rmtree(self.work / "kraken", ignore_errors=True)
        lines = sorted((self.work / "lines").glob("*.png"))
        often = ("-F", 0.1) if len(lines) > 1000 else ()
        run_for(minutes, *self.training, "-N", 1000, *often, *lines, cwd=self.work)

    def model(self) -> Path:
        """The newest one that training left."""
        models = [*(self.work / "kraken").rglob("*.safetensors"), *(self.work / "kraken").rglob("*.ckpt")]
        newest = max(models, key=lambda path: path.stat().st_mtime)
        if newest.suffix == ".safetensors":
            return newest
        converted = newest.with_suffix(".safetensors")  # it was interrupted
        seconds(self.programs / "ketos", "convert", "-o", converted, newest, cwd=self.work)
        return converted

    def read(self, most: int | None = None) -> float:
        model, pictures = self.model(), sorted((self.work / "read").glob("*.png"))[:most]
        pairs = [part for path in pictures for part in ("-i", path, f"{path.stem}.txt")]
        return seconds(self.programs / "kraken", *self.threads, *pairs, "ocr", "-m", model, "-s", cwd=self.work)

    def texts(self) -> dict[str, str]:
        """What `read` wrote."""
        names = [path.stem for path in (self.work / "read").glob("*.png")]
        return {name: (self.work / f"{name}.txt").read_text(encoding="utf-8").strip() for name in names}


def our_texts(work: Path) -> dict[str, str]:
    """What predict.py wrote in the folder that it ran in."""
    with open(work / "output" / "predictions.csv", newline="", encoding="utf-8") as file:
        return {Path(row["FILENAME"]).stem: row["PREDICTION"] for row in csv.DictReader(file)}


def score(truth: Rows, texts: dict[str, str]) -> Score:
    total = Score()
    for picture, text in truth:
        total.add(text, texts.get(picture.stem, ""))
    return total


# --------------------------------------------------------------------------------------------------- the dataset


def rows_of(data_dir: Path, split: str, most: int | None = None) -> Rows:
    """The first usable images of a split of the dataset, with their labels."""
    folder = find_images(data_dir, split)
    rows = [
        (folder / name, clean_label(label, True)) for name, label in read_labels(find_labels(data_dir, split)).labels()
    ]
    return [(path, text) for path, text in rows if text not in ("", "EMPTY", "UNREADABLE")][:most]


def write_own_set(rows: Rows, split: str, folder: Path) -> None:
    """A part of the dataset, for this project."""
    images, table = folder / f"{split}_v2" / split, folder / "CSV" / f"written_name_{split}.csv"
    for made in (images, table.parent):
        made.mkdir(parents=True, exist_ok=True)
    for path, _ in rows:
        shutil.copyfile(path, images / path.name)
    lines = "".join(f"{path.name},{text}\n" for path, text in rows)
    table.write_text(f"FILENAME,IDENTITY\n{lines}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--runs-dir", type=Path, default=Path("benchmark-runs"), help="(default: benchmark-runs)")
    parser.add_argument("--rounds", type=int, default=3, help="of the speed (default: 3)")
    parser.add_argument("--minutes", type=float, help="train each so long on --images and score what it reads")
    parser.add_argument("--images", type=int, default=5000, help="with --minutes (default: 5000)")
    parser.add_argument("--only", nargs="+", choices=IMAGES, default=list(IMAGES), help="(default: all)")
    parser.add_argument("--kraken-threads", type=int, default=1, help="(default: 1, as kraken's own)")
    args = parser.parse_args()
    runs = args.runs_dir.resolve()
    work = runs / ("peers-minutes" if args.minutes else "peers")
    shutil.rmtree(work, ignore_errors=True)
    train = rows_of(args.data_dir, "train", args.images if args.minutes else IMAGES["ours"])
    validation = rows_of(args.data_dir, "validation")
    write_own_set(train, "train", work / "data")
    write_own_set(validation, "validation", work / "data")
    write_peers_sets(train if args.minutes else train[: IMAGES["PyLaia"]], validation, work)
    ours = (sys.executable, ROOT / "train.py", "--data-dir", "data", "--num-samples", 0, "--device", "cpu")
    pylaia, kraken = PyLaia(runs, work), Kraken(runs, work, args.kraken_threads)

    def read_ours(model: str = "htr_crnn_mini.pth") -> float:
        flags = ("data/validation_v2/validation", "--device", "cpu", "--model-path", model)
        return seconds(sys.executable, ROOT / "predict.py", *flags, cwd=work)

    def read_with_onnx() -> float:
        if not (work / "ours.onnx").exists():
            seconds(sys.executable, ROOT / "predict.py", "--export", "ours.onnx", cwd=work)
        return read_ours("ours.onnx")

    if args.minutes:
        if "ours" in args.only:
            run_for(args.minutes, *ours, cwd=work)
            read_ours()
            print(f"ours: {score(validation, our_texts(work))}", flush=True)
        for name, peer in (("PyLaia", pylaia), ("kraken", kraken)):
            if name in args.only:
                peer.train_for(args.minutes)
                peer.read()
                print(f"{name}: {score(validation, peer.texts())}", flush=True)
        return

    few = sorted((work / "lines").glob("*.png"))[: IMAGES["kraken"]]
    trainings = {
        "ours": lambda epochs: seconds(*ours, "--validation-samples", FEW, "--epochs", epochs, cwd=work),
        "PyLaia": pylaia.train,
        "kraken": lambda epochs: kraken.train(epochs, few),
    }
    readings = {
        "ours": [read_ours, read_with_onnx],
        "PyLaia": [pylaia.read],
        "kraken": [lambda: kraken.read(READ_BY_KRAKEN)],
    }
    speeds = {(name, n): [] for name in args.only for n in range(1 + len(readings[name]))}
    for _ in range(args.rounds):
        for name in args.only:
            speeds[name, 0].append(IMAGES[name] / (trainings[name](2) - trainings[name](1)))
        for name in args.only:
            read = READ_BY_KRAKEN if name == "kraken" else len(validation)
            for n, run in enumerate(readings[name], 1):
                speeds[name, n].append(read / run())
        print({name: [round(speed, 1) for speed in several] for name, several in speeds.items()}, flush=True)
    medians = {name: statistics.median(several) for name, several in speeds.items()}
    peers = [name for name in args.only if name != "ours"]
    print("| images/s | " + " | ".join(["ours", *peers, *(f"ours / {name}" for name in peers)]) + " |")
    print("|---" * (2 + 2 * len(peers)) + "|")
    titles = ("training", "reading, start included", "reading with ONNX Runtime, start included")
    for n, title in enumerate(titles if "ours" in args.only else ()):
        own, others = medians["ours", n], [medians[name, min(n, 1)] for name in peers]
        cells = [f"{speed:.1f}" for speed in (own, *others, *(own / other for other in others))]
        print(f"| {title} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
