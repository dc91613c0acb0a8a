"""Make the shipped weights from the data: of names, of words, and of lines of running handwriting.

    python benchmarks/shipped_weights.py --data-dir DIR --names CSV --words DHSD OUT
    python benchmarks/shipped_weights.py --pages PAGES --words DHSD OUT

DIR is the Kaggle dataset, the names' CSV has the columns NAME and COUNT (gzip is fine), and DHSD is the Deutscher
Handschriften-Datensatz (doi 10.5281/zenodo.18743313, CC BY 4.0): a table data.csv with the columns file_name, text and
writer_id. Nothing is trained on the words of the four writers that own_hand.py reads as strangers. PAGES has a folder
for each of the collections that weights/README.md names.

OUT/names gets the Kaggle layout: its training images are those of DIR, the drawn ones (htr/pictures/synthetic.py) and
the words, in capitals; its validation images are those of DIR. Two cycles of training make OUT/htr_crnn_names.pth. From
these weights, the words as they are written make OUT/htr_crnn_words.pth; OUT/words has their tables.

OUT/lines gets the lines of the pages, and the words. From the weights of words that are shipped, or were just made, two
cycles make OUT/htr_crnn_lines.pth. Writers and documents that validate, and two collections of one hand each, are not
trained on. Run again, the script goes on where it was stopped.
"""

import argparse
import hashlib
import random
import re
import shutil
import subprocess
import sys
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path, PurePath

import pandas as pd
from own_hand import APART, PICTURES, WATCHED, lines_of, read_writers, write_set

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from config import SHIPPED_WORDS, Config  # noqa: E402
from dataset import (  # noqa: E402
    columns_named,
    find_images,
    find_labels,
    geometry,
    label_rules,
    page_lines,
    rare_characters,
)
from fitting import fitted_on, keep_fitted  # noqa: E402
from htr.decoding.lexicon import Lexicon  # noqa: E402
from htr.pictures.cutting import PageLine  # noqa: E402
from htr.pictures.images import ImageError, read_images  # noqa: E402
from htr.pictures.synthetic import GLYPHS, draw_form  # noqa: E402
from htr.system.progress import Progress, counted  # noqa: E402
from htr.texts.labels import clean_label, read_labels  # noqa: E402
from htr.texts.page_xml import MARKS  # noqa: E402
from htr.texts.pages import PageRules  # noqa: E402
from htr.texts.sources import find_source  # noqa: E402
from reading import pixels_of  # noqa: E402
from training import schedule  # noqa: E402
from utils import last_path, load_checkpoint, restore_settings, save_checkpoint  # noqa: E402

DRAWABLE = {*GLYPHS, " "}
DRAWN = 1500  # pictures of names
EPOCHS = 12  # of each cycle
FIRST = ("--batch-size", 32, "--learning-rate", 0.003, "--ema-decay", 0.997, "--augment-steps", 1000)
SECOND = ("--batch-size", 16, "--learning-rate", 0.001, "--ema-decay", 0.998)
LINE_CYCLES = ((6, 0.15), (5, 0.2))  # epochs, dropout; each cycle starts from the weights of the one before
LINES = ("--view-width", 1.0, "--frame-width", 4, "--batch-size", 16, "--learning-rate", 0.0015, "--lr-cooldown", 0.75,
         "--ema-decay", 0.998, "--rotation", 0.5, "--shear", 12, "--shrink", 0.75, "--stretch", 0.2,
         "--neighbours", 0.15, "--warp", 0.04, "--stroke", 0.3, "--augment-steps", 300)  # fmt: skip
LEFT_OUT = re.compile(f"{MARKS.pattern}|[<>]")  # marks of the transcript, "<>" for a word that was crossed out
OF_ANOTHER_LINE = {
    "copiste/jpg/wikitexte_0007/eSc_line_753212b1"
}  # labels, as is seen where weights are sure of others
Rows = list[tuple[str, str]]  # file name, text


def read_names(path: Path, longest: int = 24) -> tuple[list[str], list[float]]:
    """Names that can be drawn, and their weights: the square root of the count, so that rare names come too."""
    table = pd.read_csv(path, dtype={"NAME": str, "COUNT": int}, keep_default_na=False)
    counts = {clean_label(name, uppercase=True): count for name, count in zip(table.NAME, table.COUNT, strict=True)}
    counts = {name: count for name, count in counts.items() if 0 < len(name) <= longest and DRAWABLE.issuperset(name)}
    return list(counts), [count**0.5 for count in counts.values()]


def draw_names(names: Path, folder: Path) -> Rows:
    """Draw pictures of names into a folder."""
    names, weights = read_names(names)
    rng, rows = random.Random("shipped weights"), []
    for number, name in enumerate(rng.choices(names, weights, k=DRAWN), 1):
        rows.append((f"DRAWN_{number:05}.jpg", name))
        draw_form(name, rng).save(folder / rows[-1][0], quality=85)
    return rows


def in_plain_capitals(text: str) -> str:
    """As the names of the scans are written: in capitals without accents, ß as SS."""
    return "".join(c for c in unicodedata.normalize("NFKD", clean_label(text, uppercase=True)) if c.isascii())


def copy_words(words: Path, folder: Path, known: set[str]) -> Rows:
    """Copy the words' pictures into a folder; those whose text holds other characters than `known` are left out."""
    rows, left_out = [], 0
    for path, written in lines_of(read_writers(words)):
        text = in_plain_capitals(written)
        if not known.issuperset(text):
            left_out += 1
            continue
        rows.append((f"WORD_{path.name}", text))
        shutil.copyfile(path, folder / rows[-1][0])
    print(f"{len(rows):,} words, {left_out} more left out, whose text holds characters that no name has")
    return rows


def make_data(data_dir: Path, names: Path, words: Path, out: Path) -> None:
    """The dataset that the shipped weights are trained on, in the Kaggle layout."""
    tables = {}
    for split in ("train", "validation"):
        tables[split] = read_labels(find_labels(data_dir, split)).labels()
        shutil.copytree(find_images(data_dir, split), out / f"{split}_v2" / split)
    folder = out / "train_v2" / "train"
    folder.chmod(0o755)  # of a read-only dataset
    known = {*"".join(clean_label(text, uppercase=True) for _, text in tables["train"])}
    rows = draw_names(names, folder) + copy_words(words, folder, known)
    tables["train"] += rows
    (out / "CSV").mkdir()
    for split, table in tables.items():
        write_table(out / "CSV" / f"written_name_{split}.csv", table)


def run(script: str, *args: str | Path | float) -> None:
    """Run a script of the repository; its failure ends this one."""
    if status := subprocess.run([sys.executable, ROOT / script, *map(str, args)], check=False).returncode:
        sys.exit(status)


def train(epochs: int, model: Path, data: Path, *flags: str | Path | float) -> None:
    """Train so many epochs with train.py and its flags, or those that a stopped run still had to do."""
    if not last_path(model).exists():
        run("train.py", "--model-path", model, "--data-dir", data, *flags)
    elif load_checkpoint(last_path(model))["epoch"] < epochs:
        run("continue_train.py", "--model-path", model, "--data-dir", data, "--finish")


def train_names(args: argparse.Namespace, model: Path) -> None:
    data = args.out / "names"
    labels = data / "CSV" / "written_name_validation.csv"
    if not labels.exists():
        shutil.rmtree(data, ignore_errors=True)
        make_data(args.data_dir, args.names, args.words, data)
    everything = ("--num-samples", 0, "--validation-samples", 0)
    cycle = ("--epochs", EPOCHS, "--lr-cycle", EPOCHS, "--lr-patience", EPOCHS)
    train(EPOCHS, model, data, *everything, *cycle, *FIRST)
    if load_checkpoint(last_path(model))["epoch"] == EPOCHS:
        run("continue_train.py", "--model-path", model, "--data-dir", data, "--epochs", EPOCHS, *SECOND)
    train(2 * EPOCHS, model, data)
    run("predict.py", data / "validation_v2" / "validation", "--model-path", model, "--labels", labels,
        "--lexicon", args.names, "--calibrate", "--output-dir", args.out / "output")  # fmt: skip
    run("predict.py", "--model-path", model, "--export", model.with_suffix(".onnx"))


def train_words(args: argparse.Namespace, names: Path, model: Path) -> None:
    writers, data = read_writers(args.words), args.out / "words"
    trained = lines_of(writers)
    write_set(data, args.words, {"train.csv": trained, "validation.csv": lines_of(writers, *WATCHED)})
    train(schedule(len(trained), 1)["EPOCHS"], model, data, "--follow-links", "--no-uppercase", "--num-samples", 0,
          "--pretrained", names)  # fmt: skip


# ---------------------------------------------------------------------------------------------------- lines


def writer_of(name: str) -> str:
    """Whose hand a line of the pages is in, as far as its name says: what must not both train and validate."""
    collection, *folders, page, _ = PurePath(name).parts
    if collection == "copiste":  # the same text, by the same writer, is there under several names
        return f"{collection} {re.search('[0-9]+', page)[0]}"
    if collection == "testaments":
        return f"{collection} {page.rpartition('-')[0]}"
    if collection in ("peraire", "doniau"):
        return collection
    return " ".join([collection, *folders])  # a folder each


def kept_apart(writers: dict[str, int]) -> set[str]:
    """Of each collection the writers that validate: an eighth of its lines or a little more, drawn by their names.

    writers: and how many lines each has. Collections of one writer are not trained on at all.
    """
    kept = set()
    for collection in sorted({writer.split(" ")[0] for writer in writers}):
        members = [writer for writer in writers if writer.split(" ")[0] == collection]
        members.sort(key=lambda writer: hashlib.blake2b(writer.encode()).digest())
        enough = sum(writers[writer] for writer in members) / 8
        while enough > 0:
            kept.add(member := members.pop(0))
            enough -= writers[member]
    return kept


def as_in_ink(name: str, text: str) -> str:
    """A transcript without the mark of superscripts, as in "7^bre"; in Copiste it is one of formulas."""
    return text if name.startswith("copiste/") else re.sub(r"\^(?=\w)", "", text)


def cut_pages(pages: Path, folder: Path) -> dict[str, Rows]:
    """Cut the lines of pages into a folder, each as a picture; returns them by writer."""
    config = Config(DATA_DIR=pages, UPPERCASE=False, NUM_SAMPLES=0)
    rules = label_rules(config)
    source = find_source(pages, "train", columns_named(config), PageRules(marked=True))
    rows = [(name, rules.clean(as_in_ink(name, label))) for name, label in source.rows]
    rows = [
        (name, text)
        for name, text in rows
        if rules.hold_text(text) and not LEFT_OUT.search(text) and name not in OF_ANOTHER_LINE
    ]
    candidates = page_lines(config, source, rows, Counter())
    parts = []
    for each in candidates:
        each.path.whole.keep = folder
        parts.append(PageLine(f"{each.name}.png", each.path.whole, each.path.place))
    images = read_images(parts, geometry(config), config.WORKERS)
    images = counted(images, Progress("cutting lines", len(parts)))
    writers = defaultdict(list)
    for each, part, image in zip(candidates, parts, images, strict=True):
        if not isinstance(image, ImageError):
            writers[writer_of(each.name)].append((f"pages/{part.name}", each.text))
    return writers


def write_table(path: Path, rows: Rows) -> None:
    pd.DataFrame(rows, columns=["FILENAME", "IDENTITY"]).to_csv(path, index=False)


def make_lines(pages: Path, words: Path, out: Path) -> None:
    """The datasets of lines: `lines` to train and validate, and `apart`.

    Their lines are those of pages, and the words. `apart` has the lines of the collections that are of one writer,
    which are not trained on, nor looked at while training.
    """
    by_writer = cut_pages(pages, out / "pages")
    kept = kept_apart({writer: len(rows) for writer, rows in by_writer.items()})
    rare = set(rare_characters((text for rows in by_writer.values() for _, text in rows), Config.RARE_CHARACTERS, ""))
    train, validation, apart = [], [], []
    for writer, rows in by_writer.items():
        if writer not in kept:
            train += [(name, text) for name, text in rows if not rare & set(text)]
        else:
            (validation if " " in writer else apart).extend(rows)
    for table, chosen in ((train, ()), (validation, WATCHED), (apart, APART)):
        rows = lines_of(read_writers(words), *chosen)
        table += [(f"{PICTURES}/{path.relative_to(words)}", text) for path, text in rows]
    for folder, tables in {
        "lines": {"train.csv": train, "validation.csv": validation},
        "apart": {"labels.csv": apart},
    }.items():
        (out / folder).mkdir(exist_ok=True)
        for name, target in (("pages", out / "pages"), (PICTURES, words)):
            (out / folder / name).unlink(missing_ok=True)
            (out / folder / name).symlink_to(target.resolve())
        for name, rows in tables.items():
            write_table(out / folder / name, rows)


def train_lines(args: argparse.Namespace, words: Path, model: Path) -> None:
    folder = args.out / "lines"
    if not (folder / "apart" / "labels.csv").exists():  # which is written last
        make_lines(args.pages, args.words, folder)
    everything = ("--no-uppercase", "--follow-links", "--num-samples", 0, "--validation-samples", 1000)
    before = words
    for number, (epochs, dropout) in enumerate(LINE_CYCLES, 1):
        made = args.out / f"lines_{number}.pth"
        cycle = ("--epochs", epochs, "--lr-cycle", epochs, "--lr-patience", epochs, "--dropout", dropout)
        train(epochs, made, folder / "lines", "--pretrained", before, *everything, *LINES, *cycle)
        before = made
    halve(before, model)
    fit_on_lines(model, folder / "lines")
    run("predict.py", "--model-path", model, "--export", model.with_suffix(".onnx"))


def fit_on_lines(model: Path, data: Path) -> None:
    """Calibrate weights, and fit how they weigh the language of the training labels, on all validation lines."""
    config, _ = restore_settings(load_checkpoint(model), model)
    rules = label_rules(config)
    labels, rows = (
        [(name, rules.clean(text)) for name, text in read_labels(data / table).labels()]
        for table in ("train.csv", "validation.csv")
    )
    images = pixels_of(read_images([data / name for name, _ in rows], geometry(config), config.WORKERS))
    lexicon = Lexicon(Counter(text for _, text in labels))
    fitted = fitted_on(model, images, [text for _, text in rows], lexicon, "cpu", None)
    keep_fitted(fitted, model, model, len(rows))


def halve(model: Path, target: Path) -> None:
    """Write a checkpoint with weights in half precision, but for the few that are no matrices."""
    checkpoint = load_checkpoint(model)
    weights = {name: weight.half() if weight.dim() > 1 else weight for name, weight in checkpoint["model"].items()}
    save_checkpoint(checkpoint | {"model": weights}, target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder of the dataset of names")
    parser.add_argument("--names", type=Path, help="CSV of names: NAME,COUNT")
    parser.add_argument("--pages", type=Path, help="folder of the collections of pages")
    parser.add_argument("--words", type=Path, required=True, help="folder of the Deutscher Handschriften-Datensatz")
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    if bool(args.data_dir) != bool(args.names) or not (args.data_dir or args.pages):
        parser.error("give --data-dir and --names, or --pages, or all of them")
    args.words = args.words.resolve()
    words = SHIPPED_WORDS
    if args.data_dir:
        names, words = args.out / "htr_crnn_names.pth", args.out / "htr_crnn_words.pth"
        train_names(args, names)
        train_words(args, names, words)
    if args.pages:
        train_lines(args, words, args.out / "htr_crnn_lines.pth")


if __name__ == "__main__":
    main()
