"""Read images of handwriting with a trained checkpoint.

    python predict.py                      # the dataset's test images
    python predict.py scans/ letter.png    # folders and images of your own
    python predict.py --demo               # drawn names, with what `train.py --demo` learned
    python predict.py scans/ --resume      # after a run that was stopped: only what it had not read yet
    python predict.py scans/ --pages       # pages: their lines are found, or taken from ALTO or PAGE files beside them
    python predict.py --export names.onnx  # the network for ONNX Runtime: --model-path names.onnx reads without PyTorch

Writes output/predictions.csv and output/predictions.txt and prints a summary. In Python:

    from config import Config
    from predict import predict_batch, predict_single_image
    predict_batch(model_path=Config.MINI_MODEL_PATH, image_dir=Config.TEST_IMG_DIR, output_dir="output", save_csv=True)
    predict_single_image(model_path=Config.MINI_MODEL_PATH, image_path="path/to/your/image.png")

and predict_page(model_path, image_path) for a page.
"""

import argparse
import importlib.util
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from config import DEMO, SHIPPED_LINES, SHIPPED_WEIGHTS, Config, add_flags, flag_named, typed_settings
from htr.system.scripts import HTRError, run

if TYPE_CHECKING:  # imported in the functions, so that --help answers at once
    import pandas as pd

    from reading import Job, Outcome

READING_TIMEOUT = 600  # seconds in which a process has read its next few hundred images


def weights_to_use(
    model_path: str | Path, default: str | Path = Config.MINI_MODEL_PATH, shipped: Path = SHIPPED_WEIGHTS
) -> Path:
    """`model_path`, or the shipped weights if it is the default and does not exist; says so.

    Without PyTorch, these are the ones that ONNX Runtime reads with.
    """
    if Path(model_path) == Path(default) and not Path(model_path).exists() and shipped.exists():
        shipped = shipped if importlib.util.find_spec("torch") else shipped.with_suffix(".onnx")
        print(f"there is no {model_path} yet: reading with the weights shipped as weights/{shipped.name}")
        return shipped
    return Path(model_path)


def predict_batch(
    model_path: str | Path,
    image_dir: Any,
    output_dir: str | Path = "output",
    save_csv: bool = True,
    **options: Any,
) -> "pd.DataFrame":
    """Read all images in a folder and below it, as the command line does.

    `image_dir` is a folder, or a list of folders, paths of images, open Pillow images, arrays (grey (H, W) or RGB
    (H, W, 3)) and bytes of image files; what is in memory is called image_1 and so on, by its place in the list. With
    `save_csv`, writes predictions.csv and predictions.txt to `output_dir`. `options` are the other flags: labels,
    lexicon, spelling, corpus, language, characters, pattern, pages, find_lines, html, spreadsheet, resume, calibrate,
    device, batch_size, workers, picture_column, text_column (see `reading.Job`).

    Returns the table that it wrote, a row for each image, in sorted order: FILENAME, PREDICTION, CONFIDENCE (the
    probability that the whole text is right, in [0, 1]), ERROR (why it could not be read, or ""),
    CHARACTER_CONFIDENCES, WORD_CONFIDENCES; with a lexicon or spelling, GREEDY, RUNNER_UP and RUNNER_UP_CONFIDENCE;
    with labels, TRUTH, RIGHT and EDITS. Raises HTRError where the checkpoint, the folder, the labels or the lexicon
    cannot be used, and TypeError where an argument is nothing of these.
    """
    import pandas as pd

    from reading import Job

    several = isinstance(image_dir, (list, tuple, set, Iterator))
    paths = list(image_dir) if several and not isinstance(image_dir, io.IOBase) else [image_dir]
    default = Path(Config.TEST_IMG_DIR)
    if isinstance(image_dir, (str, os.PathLike)) and Path(image_dir) == default and not default.exists():
        paths = [default.parent]  # the dataset's flat layout
    rows: list[dict[str, Any]] = []
    shipped = SHIPPED_LINES if options.get("pages") else SHIPPED_WEIGHTS
    job = Job(weights_to_use(model_path, shipped=shipped), paths, output_dir if save_csv else None, **options)
    outcome = read_and_report(job, rows.append)
    return pd.DataFrame(rows, columns=outcome.columns)


def predict_single_image(model_path: str | Path, image_path: Any, device: Any = "auto") -> tuple[str, float]:
    """Read one image: a path, an open Pillow image, an array (grey (H, W) or RGB (H, W, 3)), or an image file's bytes.

    Returns its text and the probability that the whole text is right, in [0, 1]. `device` is a name such as "cpu" or
    "cuda:0", or a torch.device. Raises HTRError where the checkpoint or the image cannot be read, and TypeError where
    an argument is nothing of these.
    """
    from reading import Job, read

    if isinstance(image_path, (list, tuple)):
        raise TypeError("predict_single_image takes one image: read several with predict_batch")
    is_path = isinstance(image_path, (str, os.PathLike))
    if is_path and os.path.isdir(image_path):
        raise HTRError(f"{image_path} is a folder: read it with predict_batch")
    rows: list[dict[str, Any]] = []
    read(Job(weights_to_use(model_path), [image_path], None, device=device, workers=0), rows.append)
    (row,) = rows
    if row["ERROR"]:
        raise HTRError(f"{image_path if is_path else 'the image'} {row['ERROR']}")
    return row["PREDICTION"], row["CONFIDENCE"]


class LineReading(NamedTuple):
    """A line of a page that was read: its text, the probability that all of it is right, and its baseline, (x, y) in
    pixels of the page, from where the writing starts to where it ends."""

    text: str
    confidence: float
    baseline: list[tuple[float, float]]


def predict_page(model_path: str | Path, image_path: str | os.PathLike, **options: Any) -> list[LineReading]:
    """Read the lines of a page, in reading order; of a file with several pages, of all.

    Its lines are those of an ALTO or PAGE file beside it or in a folder beside it, or else they are found. `options`
    are flags: spelling, corpus, language, find_lines, device and so on (see `reading.Job`). Raises HTRError where the
    checkpoint or the page cannot be read.
    """
    from reading import Job, read

    rows: list[dict[str, Any]] = []
    model_path = weights_to_use(model_path, shipped=SHIPPED_LINES)
    outcome = read(Job(model_path, [image_path], None, pages=True, workers=0, **options), rows.append)
    if outcome.failed:
        raise HTRError(outcome.failed[0])
    lines = [line for page in outcome.pages for line in page.lines]
    return [
        LineReading(row["PREDICTION"], row["CONFIDENCE"], [(x, y) for x, y in line.band.baseline().tolist()])
        for row, line in zip(rows, lines, strict=True)
    ]


def read_and_report(job: "Job", keep: Callable[[dict[str, Any]], Any] = lambda row: None) -> "Outcome":
    """Do a job and print what came of it; calls `keep` with each row."""
    from reading import read

    if job.calibrate:
        from fitting import calibrate_on

        job = calibrate_on(job)
    outcome = read(job, keep)
    for line in outcome.examples() + outcome.summary():
        print(line)
    if job.html:
        print(f"written to {Path(job.output_dir, 'report.html')}: open it in a browser")
    if job.output_dir:
        others = "predictions.txt, predictions.xlsx" if job.spreadsheet else "predictions.txt"
        if job.pages:
            others += f", pages in {Path(job.output_dir, 'pages')} and their lines in {Path(job.output_dir, 'lines')}"
        print(f"written to {Path(job.output_dir, 'predictions.csv')} and {others}")
    if outcome.failed:
        count, first = len(outcome.failed), outcome.failed[0]
        print(f"{count:,} images could not be read, {first}; see column ERROR", file=sys.stderr)
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(description="Read images of handwriting.", allow_abbrev=False)
    parser.add_argument("paths", nargs="*", metavar="PATH", help="images, or folders to search for images"
                        f" (default: {Config.TEST_IMG_DIR} in the dataset)")  # fmt: skip
    parser.add_argument("--demo", action="store_true", help="read the drawn test images, all in demo/")
    parser.add_argument("--output-dir", metavar="PATH", help="folder for the predictions (default: output)")
    parser.add_argument("--labels", metavar="PATH", help="the true texts, a table or a folder that holds"
                        " them: adds them, scores, confusions and labels to check")  # fmt: skip
    parser.add_argument("--lexicon", metavar="CSV", help="known names, alone, with a COUNT, or as labels: weighed"
                        " against what the network sees")  # fmt: skip
    parser.add_argument("--spelling", action="store_true", help="weigh what the network sees against how the training"
                        " labels are spelled, or go on as running text; a lexicon does that, too")  # fmt: skip
    parser.add_argument("--corpus", metavar="PATH", help="a text file, or a folder of *.txt, in the language of the"
                        " writing: weighed together with the training labels")  # fmt: skip
    parser.add_argument("--language", metavar="CODE", help="a language whose common words are weighed together with the"
                        " training labels: fr, en, de, ... (pip install wordfreq)")  # fmt: skip
    parser.add_argument("--characters", metavar="SET", help="what a text may consist of, as in 0-9/.")
    parser.add_argument("--pattern", metavar="REGEX", help="what a text must look like, as in [0-9]{4}, or a CSV of"
                        " FILENAME,PATTERN for each image")  # fmt: skip
    parser.add_argument("--pages", action="store_true", help="each image is a page, whose lines are in an ALTO or PAGE"
                        " file or are found: also write its text and PAGE XML, and its lines as images")  # fmt: skip
    parser.add_argument("--find-lines", action="store_true", help="find the lines of pages also where an ALTO or PAGE"
                        " file has them")  # fmt: skip
    parser.add_argument("--html", action="store_true", help="write report.html, a page to look through the readings")
    parser.add_argument("--calibrate", action="store_true", help="fit CONFIDENCE on the images of --labels and keep it"
                        " in the checkpoint; with --lexicon also how that, and spelling, is weighed")  # fmt: skip
    parser.add_argument("--spreadsheet", action="store_true", help="also write predictions.xlsx, a workbook in which"
                        " every text stays as it is")  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="keep what a stopped run had read, and read the rest")
    parser.add_argument("--export", metavar="PATH", help="write the network as an ONNX file, and read nothing")
    names = ("DATA_DIR", "PICTURE_COLUMN", "TEXT_COLUMN", "MINI_MODEL_PATH", "BATCH_SIZE", "DEVICE", "WORKERS")
    add_flags(parser, names, BATCH_SIZE="8 on a CPU, 64 on a GPU")
    args = parser.parse_args()
    try:
        config = Config(**(DEMO if args.demo else {}) | typed_settings(args))
    except ValueError as error:
        parser.error(str(error))
    if args.find_lines and not args.pages:
        parser.error("--find-lines is for pages: add --pages")
    if args.characters and args.pattern:
        parser.error("--characters and --pattern both say what a text may consist of: give one of them")
    if args.lexicon and (args.corpus or args.language):
        parser.error("the names of --lexicon say how texts are spelled, not --corpus or --language: leave one out")
    if args.pages and args.demo:
        parser.error("--demo draws single names, not pages: leave --pages out")
    if args.calibrate and not (args.labels or args.demo):
        parser.error("--calibrate needs --labels CSV, the true texts of images that the network was not trained on")
    given = {name for name, value in vars(args).items() if value not in (None, False, [])}
    if args.export and (others := given - {"export", "demo", "MINI_MODEL_PATH"}):
        flags = [flag_named(name) if name.isupper() else f"--{name.replace('_', '-')}" for name in sorted(others)]
        flags = ["PATH" if flag == "--paths" else flag for flag in flags]
        parser.error(f"--export reads no images and means nothing with {', '.join(flags)}: leave one of them out")
    if args.export:
        return export(args, config)

    from htr.system import parallel  # after parsing, so that --help answers at once

    with parallel.processes(timeout=READING_TIMEOUT):
        outcome = read_and_report(job_of(args, config))
    return 1 if outcome.failed else 0


def export(args: argparse.Namespace, config: Config) -> int:
    """Write the network as an ONNX file."""
    from utils import export_onnx

    default = DEMO["MINI_MODEL_PATH"] if args.demo else Config.MINI_MODEL_PATH
    export_onnx(weights_to_use(config.MINI_MODEL_PATH, default), args.export)
    size = Path(args.export).stat().st_size / 1e6
    print(f"written to {args.export}, {size:.1f} MB: read with it without PyTorch, --model-path {args.export}")
    print(f"its alphabet and settings, for other programs, are in {Path(args.export).with_suffix('.json')}, too")
    return 0


def job_of(args: argparse.Namespace, config: Config) -> "Job":
    """What the flags ask for; draws the demo's dataset where there is none yet."""
    from dataset import find_images, find_labels
    from htr.system import parallel
    from reading import Job

    output_dir, labels, default_model_path = args.output_dir or "output", args.labels, Config.MINI_MODEL_PATH
    if args.demo:
        from htr.pictures.synthetic import draw_dataset

        with parallel.first_process_first():
            draw_dataset(config.DATA_DIR)
        default_model_path = DEMO["MINI_MODEL_PATH"]
        output_dir = args.output_dir or Path(config.DATA_DIR, "output")
        if not args.paths and not labels:
            labels = find_labels(config.DATA_DIR, "test")
    flags = ("spelling", "pages", "find_lines", "html", "spreadsheet", "resume", "calibrate")
    return Job(
        weights_to_use(config.MINI_MODEL_PATH, default_model_path, SHIPPED_LINES if args.pages else SHIPPED_WEIGHTS),
        args.paths or [find_images(config.DATA_DIR, "test")],
        output_dir,
        labels,
        args.lexicon,
        **{name: getattr(args, name) for name in flags},
        corpus=args.corpus,
        language=args.language or "",
        characters=args.characters or "",
        pattern=args.pattern or "",
        device=config.DEVICE,
        batch_size=getattr(args, "BATCH_SIZE", None),
        workers=config.WORKERS,
        picture_column=config.PICTURE_COLUMN,
        text_column=config.TEXT_COLUMN,
    )


if __name__ == "__main__":
    run(main)
