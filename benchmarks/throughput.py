"""Measure speed and memory of training and reading, and the network's share of training, for sets of several sizes.

Images are read with the shipped weights, by PyTorch and by ONNX Runtime in turn.

    python benchmarks/throughput.py --data-dir DIR --sizes 10000 331000
    python benchmarks/throughput.py --data-dir DIR --text-lines 1500    # of names side by side, up to 2,000 pixels wide

A set larger than the dataset is made of hard links to its images, in `--scratch-dir`. Each row is measured in processes
of its own; speeds are medians of alternating rounds. The figures of benchmarks/README.md come from here.
"""

import argparse
import csv
import itertools
import json
import os
import random
import re
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import training  # noqa: E402
from config import SHIPPED_WEIGHTS, Config  # noqa: E402
from dataset import Lines, batches_by_width, find_images, find_labels  # noqa: E402
from htr.texts.labels import read_labels  # noqa: E402
from utils import choose_device  # noqa: E402

IGNORED = Config.IGNORED_LABELS
ROUNDS, BATCHES = 5, 20  # each round trains on that many batches, with and without all but the network
MOST_REPEATED = 10_000  # images that are read several times
# A small process in between, as a new process counts the memory of the one that it was forked from.
LAUNCH = """import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"""


def repeat_dataset(data_dir: Path, size: int, folder: Path) -> Path:
    """A dataset of `size` training images, hard links to those of `data_dir`, with its validation set."""
    images = folder / "train_v2" / "train"
    if (folder / "CSV" / "written_name_train.csv").exists():
        return folder
    source, originals = find_images(data_dir, "train"), folder / "originals"
    for made in (images, originals, folder / "CSV"):
        made.mkdir(parents=True, exist_ok=True)
    rows = read_labels(find_labels(data_dir, "train")).labels()
    for name, _ in rows:
        shutil.copyfile(source / name, originals / name)
    shutil.copytree(find_images(data_dir, "validation"), folder / "validation_v2" / "validation", dirs_exist_ok=True)
    shutil.copyfile(find_labels(data_dir, "validation"), folder / "CSV" / "written_name_validation.csv")
    with open(folder / "CSV" / "unfinished", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["FILENAME", "IDENTITY"])
        for n in range(size):
            name, label = rows[n % len(rows)]
            os.link(originals / name, images / f"{n:07}.jpg")
            writer.writerow([f"{n:07}.jpg", label])
    (folder / "CSV" / "unfinished").rename(folder / "CSV" / "written_name_train.csv")
    return folder


def join_names(data_dir: Path, count: int, folder: Path) -> Path:
    """Text lines in a folder with labels.csv: the first names side by side, 1 to 14 of them, up to 2,000 pixels."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    source, rng, lines = find_images(data_dir, "train"), random.Random(0), []
    rows = (row for row in read_labels(find_labels(data_dir, "train")).labels() if row[1] not in ("", *IGNORED))
    for n in range(count):
        images, texts, width = [], [], 0
        for name, text in itertools.islice(rows, rng.randint(1, 14)):
            image = Image.open(source / name).convert("L")
            image = image.resize((max(1, image.width * 64 // image.height), 64))
            if width + image.width > 2000:
                break
            images, texts, width = [*images, image], [*texts, text], width + image.width
        line = Image.new("L", (max(width, 64), 64), 255)
        for place, image in zip(itertools.accumulate((i.width for i in images), initial=0), images, strict=False):
            line.paste(image, (place, 0))
        line.save(folder / f"{n:05}.png")
        lines.append((f"{n:05}.png", " ".join(texts)))
    with open(folder / "labels.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("FILENAME", "IDENTITY"), *lines])
    return folder


def measure_lines(data_dir: Path, count: int, scratch: Path) -> dict[str, float]:
    """Two epochs of train.py on text lines: its peak, and the speed of the second epoch."""
    folder = join_names(data_dir, count, scratch / "text-lines")
    flags = ("--data-dir", folder, "--num-samples", 0, "--epochs", 2, "--model-path", scratch / "text_lines.pth")
    command = [sys.executable, str(ROOT / "train.py"), *map(str, flags)]
    code = LAUNCH.replace("DEVNULL", "PIPE").replace("subprocess.run(", "done = subprocess.run(", 1)
    code += "\nprint(done.stdout.decode())"
    done = subprocess.run([sys.executable, "-c", code, *command], check=True, stdout=subprocess.PIPE, text=True)
    speed = re.search(r"epoch 2/2: train loss .* (\d+) images/s", done.stdout)[1]
    return {"text lines": count, "images/s of training": int(speed), "peak MiB": int(done.stdout.split()[0]) / 1024}


def multiply_adds(model: torch.nn.Module, width: int, height: int) -> int:
    """Multiply-adds of convolutions, LSTM and linear layers for one image of that width."""
    total = 0

    def count(module, inputs, output):
        nonlocal total
        if isinstance(module, torch.nn.Conv2d):
            total += output[0].numel() * module.weight[0].numel()
        elif isinstance(module, torch.nn.Linear):
            total += output.numel() * module.in_features
        elif isinstance(module, torch.nn.LSTM):
            total += inputs[0].shape[0] * (module.weight_ih_l0.numel() + module.weight_hh_l0.numel())

    hooks = [module.register_forward_hook(count) for module in model.modules()]
    with torch.no_grad():
        model(torch.zeros(1, 1, height, width), torch.tensor([width]))
    for hook in hooks:
        hook.remove()
    return total


def measure_training(data_dir: Path, size: int, rounds: int = ROUNDS) -> dict[str, float]:
    """Train on a few of a set's batches as train.py does, and on the same ones made beforehand, in turn."""
    started = time.perf_counter()
    config = Config(DATA_DIR=str(data_dir), NUM_SAMPLES=size, VALIDATION_SAMPLES=100, AUGMENT_STEPS=0)
    lines, _, alphabet = training.load_data(config)
    state = training.new_state(config, alphabet, choose_device(config.DEVICE))
    batches = batches_by_width(lines.images.widths, config.BATCH_SIZE, config.SEED, 1)
    ready, whole, pure = time.perf_counter() - started, [], []
    if not rounds:
        return {"seconds to first step": ready}

    def finish():
        if state.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    state.model.train()
    for n in range(rounds + 1):
        chosen = [batches[(n * BATCHES + k) % len(batches)] for k in range(BATCHES)]
        indices = [i for batch in chosen for i in batch]
        few = Lines([], lines.images, lines.texts, lines.counts)
        made = [training.make_batch(few, batch, state.device) for batch in chosen]
        training.batches_by_width = lambda *_, chosen=chosen: chosen  # the epoch of these batches alone
        state.batches_done = 0
        start = finish()
        training.train_epoch(state, few)
        middle = finish()
        for batch in made:
            training.train_batch(state, *batch)
        end = finish()
        if n:  # the first round warms up
            whole.append(len(indices) / (middle - start))
            pure.append(len(indices) / (end - middle))
    width = round(statistics.mean(lines.images.widths) / 16) * 16
    return {
        "images": len(lines),
        "seconds to first step": ready,
        "training images/s": statistics.median(whole),
        "pipeline share": statistics.median(a / b for a, b in zip(whole, pure, strict=True)),
        "peak MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "million multiply-adds": multiply_adds(state.average, width, config.IMG_HEIGHT) / 1e6,
    }


def measure_reading(images: Path, scratch: Path, suffix: str) -> dict[str, float]:
    """Run predict.py on a folder, with the shipped weights of that suffix."""
    command = [sys.executable, str(ROOT / "predict.py"), str(images), "--output-dir", str(scratch / "output")]
    command += ["--model-path", str(SHIPPED_WEIGHTS.with_suffix(suffix))]
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", LAUNCH, *command], check=True, stdout=subprocess.PIPE, cwd=scratch)
    return {"seconds": time.perf_counter() - started, "peak": int(done.stdout) / 1024}


def reading_row(images: Path, scratch: Path) -> dict[str, float]:
    """How fast each engine reads a folder, in alternating rounds."""
    count = sum(1 for _ in images.iterdir())
    found = {".pth": [], ".onnx": []}
    for _ in range(ROUNDS if count <= MOST_REPEATED else 1):
        for suffix, several in found.items():
            several.append(measure_reading(images, scratch, suffix))
    row: dict[str, float] = {"images read": count}
    for suffix, engine in ((".pth", "PyTorch"), (".onnx", "ONNX Runtime")):
        row[f"images/s with {engine}, start included"] = count / statistics.median(r["seconds"] for r in found[suffix])
        row[f"peak MiB of reading with {engine}"] = statistics.median(r["peak"] for r in found[suffix])
        few = [measure_reading(ROOT / "samples", scratch, suffix)["seconds"] for _ in range(ROUNDS)]
        row[f"seconds for the twelve samples with {engine}"] = statistics.median(few)
    pairs = zip(found[".pth"], found[".onnx"], strict=True)
    return row | {"ONNX Runtime / PyTorch": statistics.median(a["seconds"] / b["seconds"] for a, b in pairs)}


def in_a_process(*flags: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, *flags], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--sizes", type=int, nargs="+", default=[5000], help="training images (default: 5000)")
    parser.add_argument("--scratch-dir", type=Path, default=Path("benchmark-runs"), help="(default: benchmark-runs)")
    parser.add_argument("--reading-only", action="store_true", help="do not train")
    parser.add_argument("--text-lines", type=int, help="train on so many of these instead")
    parser.add_argument("--measure", choices=("start", "training"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.scratch_dir.mkdir(parents=True, exist_ok=True)
    data_dir, scratch = args.data_dir.resolve(), args.scratch_dir.resolve()
    os.chdir(scratch)  # where the cache of pictures goes
    if args.measure:
        print(json.dumps(measure_training(data_dir, args.sizes[0], 0 if args.measure == "start" else ROUNDS)))
        return
    if args.text_lines:
        for name, value in measure_lines(data_dir, args.text_lines, scratch).items():
            print(f"| {name} | {value:.4g} |")
        return
    available = len(read_labels(find_labels(data_dir, "train")).rows)
    rows = []
    for size in args.sizes:
        folder = data_dir if size <= available else repeat_dataset(data_dir, size, scratch / f"repeated-{size}")
        row: dict[str, float] = {}
        if not args.reading_only:
            flags = ("--data-dir", str(folder), "--scratch-dir", str(scratch), "--sizes", str(size))
            first = in_a_process(*flags, "--measure", "start")
            row = in_a_process(*flags, "--measure", "training")
            row = {"images": row.pop("images"), "seconds at the first start": first["seconds to first step"]} | row
        rows.append(row | reading_row(find_images(folder, "validation" if size <= available else "train"), scratch))
    for name in rows[0]:
        print(f"| {name} | " + " | ".join(f"{row[name]:.4g}" for row in rows) + " |")


if __name__ == "__main__":
    main()
