"""Your own handwriting: how well it is read after training on how many lines of it.

    python benchmarks/own_hand.py --data-dir DHSD               # lines of 29 writers, read those of four others
    python benchmarks/own_hand.py --data-dir DHSD --person      # then lines of each of the four
    python benchmarks/own_hand.py --data-dir DHSD --person --start CHECKPOINT   # from other weights than those
    python benchmarks/own_hand.py --data-dir DHSD --peers 200   # kraken and PyLaia, with the same lines and minutes
    python benchmarks/own_hand.py --data-dir DHSD --peers 200 --names DIR   # kraken, too, from a model of names

DHSD is the Deutscher Handschriften-Datensatz (doi 10.5281/zenodo.18743313), or another folder with a table data.csv of
the columns file_name, text and writer_id. The writers of WATCHED validate, those of APART are only read. Runs train.py
and predict.py as a user does, with their defaults. Results are kept in --runs-dir; what is there is not trained again.
How to set up kraken and PyLaia: benchmarks/peers.py.
"""

import argparse
import csv
import dataclasses
import json
import random
import shutil
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from peers import Kraken, PyLaia, Rows, our_texts, rows_of, score, seconds, write_peers_sets

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from config import SHIPPED_WEIGHTS, flag_named  # noqa: E402
from htr.results.scores import Score  # noqa: E402
from htr.texts.labels import clean_label  # noqa: E402
from training import schedule  # noqa: E402

WATCHED, APART = (30, 31), (32, 33)  # writers whose lines are never trained on, but for their own in --person
SIZES = (50, 100, 200, 500, 1000, 0)  # lines; 0 = all
OF_A_PERSON = (20, 40, 80)
PICTURES = "pictures"  # a link to the folder of the data


def read_writers(data_dir: Path) -> dict[int, Rows]:
    """Pictures and texts of each writer, each in a random order that is always the same."""
    writers = defaultdict(list)
    with open(data_dir / "data.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            writers[int(row["writer_id"])].append((data_dir / row["file_name"], clean_label(row["text"], False)))
    for writer, rows in writers.items():
        random.Random(writer).shuffle(rows)
    return writers


def lines_of(writers: dict[int, Rows], *chosen: int) -> Rows:
    """The lines of some writers; where none is named, of all that may be trained on."""
    chosen = chosen or [writer for writer in sorted(writers) if writer not in WATCHED + APART]
    return [row for writer in chosen for row in writers[writer]]


def write_set(folder: Path, data_dir: Path, tables: dict[str, Rows]) -> None:
    """A folder that train.py takes, with tables of these names and a link to the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / PICTURES).is_symlink():
        (folder / PICTURES).symlink_to(data_dir)
    for name, rows in tables.items():
        with open(folder / name, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["FILENAME", "IDENTITY"])
            writer.writerows([PICTURES / path.relative_to(data_dir), text] for path, text in rows)


def read(folder: Path, model: Path, groups: dict[str, Rows]) -> dict[str, Score]:
    """Read the folders of some pictures; the score of each group of them."""
    folders = sorted({path.parent for rows in groups.values() for path, _ in rows})
    seconds(sys.executable, ROOT / "predict.py", *folders, "--model-path", model, cwd=folder)
    texts = our_texts(folder)
    return {name: score(rows, texts) for name, rows in groups.items()}


def train_and_read(folder: Path, flags: Sequence[str | Path | int], groups: dict[str, Rows]) -> tuple[float, dict]:
    """Train in a folder with its tables, and read; the minutes of training, and the score of each group."""
    results = folder / "results.json"
    if not results.exists():
        needed = ("--data-dir", ".", "--follow-links", "--no-uppercase", "--num-samples", 0)
        minutes = seconds(sys.executable, ROOT / "train.py", *needed, *flags, cwd=folder) / 60
        scores = read(folder, Path("htr_crnn_mini.pth"), groups)
        kept = {"minutes": minutes, "scores": {name: dataclasses.asdict(value) for name, value in scores.items()}}
        results.write_text(json.dumps(kept), encoding="utf-8")
    kept = json.loads(results.read_text(encoding="utf-8"))
    return kept["minutes"], {name: Score(**value) for name, value in kept["scores"].items()}


def both(*scores: Score) -> Score:
    return Score(*map(sum, zip(*map(dataclasses.astuple, scores), strict=True)))


def cells(*scores: Score) -> str:
    return " | ".join(f"{one.cer:.3f} / {one.right / one.images:.3f}" for one in scores)


def curve(runs: Path, data_dir: Path, writers: dict[int, Rows], sizes: Sequence[int], start: Path) -> dict[str, list]:
    """Train on more and more lines of many writers, from some weights and from nothing.

    From nothing, train.py gets as many epochs of as many batches, and its own settings for the rest. Returns, for each
    start, (lines, CER of all four writers).
    """
    groups = {f"{part[0]}-{part[-1]}": lines_of(writers, *part) for part in (WATCHED, APART)}
    trained = lines_of(writers)
    random.Random(0).shuffle(trained)
    starts = {name_of(start): ("--pretrained", start), "nothing": ()}
    points = {name: [] for name in starts}
    print(f"| lines | from | minutes | writers {' | '.join(groups)} | all four |\n" + "|---" * 6 + "|")
    for size in sizes:
        rows = trained[: size or None]
        for name, flags in starts.items():
            folder = runs / f"{name}-{len(rows)}"
            write_set(folder, data_dir, {"train.csv": rows, "validation.csv": groups[f"{WATCHED[0]}-{WATCHED[-1]}"]})
            minutes, scores = train_and_read(folder, flags or same_length(len(rows)), groups)
            whole = both(*scores.values())
            points[name].append((len(rows), whole.cer))
            print(f"| {len(rows):,} | {name} | {minutes:.1f} | {cells(*scores.values(), whole)} |", flush=True)
    return points


def name_of(start: Path) -> str:
    return "shipped" if start == SHIPPED_WEIGHTS else start.stem


def same_length(lines: int) -> list[str]:
    """Flags for as many epochs of as many batches as --pretrained trains."""
    names = ("EPOCHS", "LR_CYCLE", "LR_PATIENCE", "BATCH_SIZE")
    return [part for name in names for part in (flag_named(name), str(schedule(lines, 1)[name]))]


def person(runs: Path, data_dir: Path, writers: dict[int, Rows], start: Path | None) -> None:
    """Train on lines of one person more, by default from weights that know many others but not this one."""
    base = start or runs / f"shipped-{len(lines_of(writers))}" / "htr_crnn_mini.pth"
    if not base.exists():
        sys.exit(f"there is no {base}: run this script without --person before")
    runs = runs / name_of(start) if start else runs
    table, minutes = defaultdict(dict), defaultdict(list)
    for writer in WATCHED + APART:
        others = {"others": writers[writer][max(OF_A_PERSON) :]}
        folder = runs / f"writer-{writer}"
        folder.mkdir(parents=True, exist_ok=True)
        table[0][writer] = read(folder, base, others)["others"]
        for lines in OF_A_PERSON:
            folder = runs / f"writer-{writer}-{lines}"
            write_set(folder, data_dir, {"labels.csv": writers[writer][:lines]})
            needed, scores = train_and_read(folder, ("--pretrained", base), others)
            table[lines][writer] = scores["others"]
            minutes[lines].append(needed)
    print(f"| lines | minutes | writer {' | '.join(map(str, WATCHED + APART))} | mean CER |\n" + "|---" * 7 + "|")
    for lines, scores in table.items():
        needed = f"{statistics.mean(minutes[lines]):.1f}" if lines else ""
        mean = statistics.mean(one.cer for one in scores.values())
        print(f"| {lines} | {needed} | {cells(*scores.values())} | {mean:.3f} |")


def peers(runs: Path, writers: dict[int, Rows], lines: int, names: Path | None, programs: Path) -> None:
    """Train kraken and PyLaia on the same lines for as many minutes as ours took."""
    ours = runs / f"shipped-{lines}"
    if not (ours / "results.json").exists():
        sys.exit(f"there is no {ours / 'results.json'}: run this script without --peers before")
    with open(ours / "train.csv", newline="", encoding="utf-8") as file:
        chosen = [(ours / row["FILENAME"], row["IDENTITY"]) for row in csv.DictReader(file)]
    minutes = json.loads((ours / "results.json").read_text(encoding="utf-8"))["minutes"]
    validation = lines_of(writers, *WATCHED, *APART)
    work = runs / f"peers-{lines}"
    shutil.rmtree(work, ignore_errors=True)
    write_peers_sets(chosen, validation, work)
    trained = {"PyLaia": PyLaia(programs, work), "kraken": Kraken(programs, work, 1)}
    if names:
        trained["kraken, from names"] = Kraken(programs, work, 1, kraken_of_names(runs, names, programs))
    print(f"{lines} lines, {minutes:.1f} minutes each")
    for name, program in trained.items():
        program.train_for(minutes)
        program.read()
        print(f"{name}: {score(validation, program.texts())}", flush=True)


def kraken_of_names(runs: Path, names: Path, programs: Path) -> Path:
    """A model of kraken's of the dataset that the shipped weights were trained on, and for as long."""
    work = runs / "peers-names"
    kraken = Kraken(programs, work, 1)
    if not (work / "kraken").exists():
        write_peers_sets(rows_of(names, "train"), rows_of(names, "validation"), work)
        kraken.train_for(42)
    return kraken.model()


def draw(points: dict[str, list[tuple[int, float]]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for start, pairs in points.items():
        axes.plot(*zip(*pairs, strict=True), marker="o", label=f"from {start}")
    axes.set(xscale="log", xlabel="lines to learn from", ylabel="CER of strangers' words", ylim=(0, 1))
    axes.set_xticks([lines for lines, _ in pairs], [f"{lines:,}" for lines, _ in pairs], minor=False)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of DHSD")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=SIZES, help="lines to train on; 0 = all (default: %(default)s)"
    )
    parser.add_argument("--person", action="store_true", help="train on lines of one person")
    parser.add_argument("--start", type=Path, metavar="CHECKPOINT", help="weights to start from (default: the shipped"
                        " ones; with --person those of all lines of the others)")  # fmt: skip
    parser.add_argument("--peers", type=int, metavar="LINES", help="train kraken and PyLaia on so many lines")
    parser.add_argument(
        "--names", type=Path, help="with --peers: folder of the Kaggle dataset, for kraken to start from"
    )
    parser.add_argument("--picture", type=Path, help="draw the curve")
    parser.add_argument("--runs-dir", type=Path, default=Path("benchmark-runs"), help="(default: benchmark-runs)")
    args = parser.parse_args()
    data_dir, programs = args.data_dir.resolve(), args.runs_dir.resolve()
    runs, writers = programs / "own_hand", read_writers(data_dir)
    start = args.start and args.start.resolve()
    if args.person:
        person(runs, data_dir, writers, start)
    elif args.peers:
        peers(runs, writers, args.peers, args.names, programs)
    else:
        points = curve(runs, data_dir, writers, args.sizes, start or SHIPPED_WEIGHTS)
        if args.picture:
            draw(points, args.picture)


if __name__ == "__main__":
    main()
