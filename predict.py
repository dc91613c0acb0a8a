"""Read images of handwriting with a trained checkpoint.

    python predict.py                      # the dataset's test images
    python predict.py scans/ letter.png    # folders and images of your own
    python predict.py --demo               # drawn names, with what `train.py --demo` learned
    python predict.py scans/ --resume      # after a run that was stopped: only what it had not read yet

Writes output/predictions.csv and output/predictions.txt and prints a summary. In Python:

    from config import Config
    from predict import predict_batch, predict_single_image
    predict_batch(model_path=Config.MINI_MODEL_PATH, image_dir=Config.TEST_IMG_DIR, output_dir="output", save_csv=True)
    predict_single_image(model_path=Config.MINI_MODEL_PATH, image_path="path/to/your/image.png")
"""

import argparse
import signal
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from config import DEMO, Config, HTRError, Interrupted, add_flags, printable, run, typed_settings

if TYPE_CHECKING:  # imported in the functions, so that --help answers at once
    import pandas as pd

    from reading import Reader, Truth
    from report import LeastSure
    from tables import Row

SHIPPED_WEIGHTS = Path(__file__).parent / "weights" / "htr_crnn_names.pth"
BATCH_SIZE = 64  # more than in training: there are no gradients to keep
READING_TIMEOUT = 600  # seconds in which a process has read its next few hundred images
SHOWN = 12  # readings in the summary


def weights_to_use(model_path: str | Path, default: str | Path) -> Path:
    """`model_path`, or the shipped weights where it is the default and does not exist; says so."""
    if Path(model_path) == Path(default) and not Path(model_path).exists() and SHIPPED_WEIGHTS.exists():
        print(f"there is no {model_path} yet: reading with the weights shipped as weights/{SHIPPED_WEIGHTS.name}")
        return SHIPPED_WEIGHTS
    return Path(model_path)


def predict_batch(
    model_path: str | Path,
    image_dir: str | Path,
    output_dir: str | Path = "output",
    save_csv: bool = True,
    device: str = "auto",
    lexicon: str | Path | None = None,
) -> "pd.DataFrame":
    """Read all images in a folder and below it.

    Returns a table with a row for each image, in sorted order: FILENAME, PREDICTION, CONFIDENCE (the probability that
    the whole text is right, in [0, 1]), ERROR (why it could not be read, or ""), CHARACTER_CONFIDENCES, and with a
    `lexicon`, a CSV of known names, GREEDY, RUNNER_UP and RUNNER_UP_CONFIDENCE. With `save_csv`, also writes it to
    predictions.csv and predictions.txt in `output_dir`. Raises HTRError where the checkpoint, the folder or the lexicon
    cannot be used.
    """
    import pandas as pd

    from reading import Reader, find_files
    from tables import only_reading, write_predictions

    image_dir = Path(image_dir)
    if image_dir == Path(Config.TEST_IMG_DIR) and not image_dir.exists():
        image_dir = image_dir.parent  # the dataset's flat layout
    reader = Reader.load(weights_to_use(model_path, Config.MINI_MODEL_PATH), device, lexicon)
    rows = reader.rows(find_files([image_dir]).files, BATCH_SIZE, Config.WORKERS)
    if save_csv:
        with only_reading(output_dir):
            rows = list(write_predictions(rows, output_dir, reader.columns))
    return pd.DataFrame(rows, columns=reader.columns)


def predict_single_image(model_path: str | Path, image_path: str | Path, device: str = "auto") -> tuple[str, float]:
    """Read one image. Returns its text and the probability that the whole text is right, in [0, 1].

    Raises HTRError where the checkpoint or the image cannot be read.
    """
    from reading import Reader

    reader = Reader.load(weights_to_use(model_path, Config.MINI_MODEL_PATH), device)
    (row,) = reader.rows([(str(image_path), Path(image_path))], batch_size=1, workers=0)
    if row["ERROR"]:
        raise HTRError(f"{image_path} {row['ERROR']}")
    return row["PREDICTION"], row["CONFIDENCE"]


def main() -> int:
    parser = argparse.ArgumentParser(description="Read images of handwriting.", allow_abbrev=False)
    parser.add_argument("paths", nargs="*", metavar="PATH", help="images, or folders that are searched for images"
                        f" (default: {Config.TEST_IMG_DIR} in the dataset)")  # fmt: skip
    parser.add_argument("--demo", action="store_true", help="read the drawn test images, all in demo/")
    parser.add_argument("--output-dir", metavar="PATH", help="where the predictions go (default: output)")
    parser.add_argument("--labels", metavar="CSV", help="the true texts: adds them, scores, confusions and"
                        " labels to check")  # fmt: skip
    parser.add_argument("--lexicon", metavar="CSV", help="known names, by themselves, with a COUNT or as labels: they"
                        " are weighed against what the network sees")  # fmt: skip
    parser.add_argument("--html", action="store_true", help="write report.html, a page to look the readings through")
    parser.add_argument("--calibrate", action="store_true", help="fit CONFIDENCE on the images of --labels, for the"
                        " checkpoint; with --lexicon also how it is weighed")  # fmt: skip
    parser.add_argument("--spreadsheet", action="store_true", help="write predictions.spreadsheet.csv, too: a copy in"
                        " which no text can become a formula")  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="take over what a run that was stopped had read, and read"
                        " the rest")  # fmt: skip
    add_flags(parser, ("DATA_DIR", "MINI_MODEL_PATH", "BATCH_SIZE", "DEVICE", "WORKERS"), BATCH_SIZE=BATCH_SIZE)
    args = parser.parse_args()
    defaults = {"BATCH_SIZE": BATCH_SIZE} | (DEMO if args.demo else {})
    try:
        config = Config(**defaults | typed_settings(args))
    except ValueError as error:
        parser.error(str(error))
    if args.calibrate and not (args.labels or args.demo):
        parser.error("--calibrate needs --labels CSV, the true texts of images that the network was not trained on")

    import parallel  # after parsing, so that --help answers at once

    with parallel.processes(timeout=READING_TIMEOUT):
        return read_all(config, Config(**defaults).MINI_MODEL_PATH, args)


def read_all(config: Config, default_model_path: str, args: argparse.Namespace) -> int:
    from contextlib import ExitStack

    from tqdm import tqdm

    import parallel
    from dataset import find_images, find_labels
    from reading import Reader, Truth, find_files
    from report import LeastSure, write_report
    from tables import only_reading
    from utils import memory_advice

    if args.demo:
        from synthetic import draw_dataset

        with parallel.first_process_first():
            draw_dataset(config.DATA_DIR)
    output_dir = Path(args.output_dir or (Path(config.DATA_DIR, "output") if args.demo else "output"))
    labels = args.labels
    if args.demo and not args.paths and not labels:
        labels = find_labels(config.DATA_DIR, "test")
    found = find_files(args.paths or [find_images(config.DATA_DIR, "test")])
    model_path = weights_to_use(config.MINI_MODEL_PATH, default_model_path)
    if args.calibrate:
        calibrate_on(found.files, labels, args.lexicon, model_path, config)
    reader = Reader.load(model_path, config.DEVICE, args.lexicon)
    if reader.prior:
        print(reader.prior.lexicon.summary(reader.alphabet.knows))
    truth = Truth(labels, reader.config) if labels else None
    least_sure = LeastSure() if args.html else None

    with ExitStack() as stack:
        if parallel.rank() == 0:
            stack.enter_context(only_reading(output_dir))
        stack.enter_context(memory_advice(config.BATCH_SIZE))
        started = time.perf_counter()
        shown, failed, new = read_files(reader, found.files, model_path, output_dir, truth, least_sure, config, args)
        seconds = time.perf_counter() - started
        if parallel.rank():  # the first process tells for all
            return 0

        for row in shown:
            right = {"yes": "  right", "no": f"  not {printable(row.get('TRUTH', ''))}"}.get(row.get("RIGHT"), "")
            name, text = printable(row["FILENAME"]), printable(row["PREDICTION"])
            print(f"{name}  {text}  (confidence {row['CONFIDENCE']:.2f}){right}")
        if len(found.files) > len(shown) + len(failed):
            print("...")
        if model_path.is_relative_to(Path.cwd()):
            model_path = model_path.relative_to(Path.cwd())
        read = len(found.files) - len(failed)
        summary = [f"read {read:,} of {len(found.files):,} images with {model_path}, {new / seconds:.0f} images/s"]
        if new < len(found.files):
            summary.append(f"of these, read by the run before: {len(found.files) - new:,}")
        if found.others:
            summary.append(f"files passed over, as no images: {found.others:,}")
        if found.linked_folders:
            summary.append(f"linked folders not searched: {found.linked_folders:,}; to read them, too, name them")
        if truth:
            if truth.repeated:
                summary.append(f"labels for a file that had one already, passed over: {truth.repeated:,}")
            summary += truth.comparison.lines()
        print("\n".join(summary))
        if least_sure is not None:
            with tqdm(desc="report", total=len(least_sure), unit="img", leave=False, disable=None) as bar:
                write_report(
                    output_dir / "report.html", least_sure, summary, truth.comparison if truth else None, bar.update
                )
            print(f"written to {output_dir / 'report.html'}: open it in a browser")
        print(f"written to {output_dir / 'predictions.csv'} and predictions.txt")
    if failed:
        print(f"{len(failed):,} images could not be read, {failed[0]}; see column ERROR", file=sys.stderr)
        return 1
    return 0


def read_files(
    reader: "Reader",
    files: Sequence[tuple[str, Path]],
    model_path: Path,
    output_dir: Path,
    truth: "Truth | None",
    least_sure: "LeastSure | None",
    config: Config,
    args: argparse.Namespace,
) -> "tuple[list[Row], list[str], int]":
    """Read images and write the tables. Returns the first rows, what could not be read, and how many were read anew.

    Raises Interrupted after Ctrl-C or SIGTERM; what was read by then is kept for --resume.
    """
    from tqdm import tqdm

    import parallel
    from reading import LABEL_COLUMNS
    from tables import Journal, write_predictions

    journal = Journal(output_dir, Journal.key_of(model_path, args.lexicon))
    before = journal.rows([path for _, path in files]) if args.resume and parallel.rank() == 0 else {}
    todo = parallel.from_first([n for n, (_, path) in enumerate(files) if path not in before])
    fresh = reader.rows([files[n] for n in todo], config.BATCH_SIZE, config.WORKERS)
    if parallel.rank():  # the first process writes for all
        deque(fresh, maxlen=0)
        return [], [], len(todo)
    if not args.resume and journal.path.exists():
        print(f"{journal.path} of a run that was stopped is replaced; --resume would have gone on from it")

    shown, failed, done = [], [], 0
    merged = ((path, before.get(path) or next(fresh), path not in before) for _, path in files)
    try:
        with journal.written(merged) as passed:
            compared = truth.compare(passed) if truth else passed
            columns = reader.columns + (LABEL_COLUMNS if truth else ())
            rows = write_predictions(compared, output_dir, columns, args.spreadsheet)
            bar = tqdm(rows, "reading", len(files), unit="img", leave=False, disable=None)
            for (_, path), row in zip(files, bar, strict=True):
                done += 1
                if least_sure is not None:
                    least_sure.add(row, path)
                if row["ERROR"]:
                    failed.append(f"{printable(row['FILENAME'], 200)} {row['ERROR']}")
                elif len(shown) < SHOWN:
                    shown.append(row)
    except (KeyboardInterrupt, Interrupted) as stop:
        signum = stop.signum if isinstance(stop, Interrupted) else signal.SIGINT
        message = f"stopped after {done:,} of {len(files):,} images: the same command with --resume reads the rest"
        raise Interrupted(signum, message) from None
    return shown, failed, len(todo)


def calibrate_on(
    files: list[tuple[str, Path]], labels: str | Path, lexicon: str | None, model_path: Path, config: Config
) -> None:
    """Fit the confidence of a checkpoint on those of the images that have a label."""
    import parallel
    from dataset import read_images
    from lexicon import Lexicon
    from reading import Truth, calibrate
    from training import only_training
    from utils import load_checkpoint, restore_settings

    if parallel.world() > 1:
        raise HTRError("--calibrate is done by a single process: run it without torchrun")
    settings, _ = restore_settings(load_checkpoint(model_path), model_path)
    truth = Truth(labels, settings)
    labelled = [(path, truth.of(name)) for name, path in files if truth.of(name) is not None]
    with only_training(model_path):
        calibrate(
            model_path,
            list(read_images([path for path, _ in labelled], settings, config.WORKERS)),
            [text for _, text in labelled],
            Lexicon.load(lexicon, settings) if lexicon else None,
            config.DEVICE,
            config.BATCH_SIZE,
        )


if __name__ == "__main__":
    run(main)
