"""Your own handwriting, line by line: how well it is read after training on how many lines of it.

    python benchmarks/own_lines.py --data-dir OUT/lines

OUT/lines is the folder of lines that shipped_weights.py makes. One person, Peraire, on whose lines the shipped weights
were not trained: lines of his other pages, read on the last eight ones. And writers of Copiste d'un jour that they were
not trained on either: the first page of each, read on the second. Runs train.py as a user does, with its defaults.
Results are kept in --runs-dir; what is there is not trained again.
"""

import argparse
import json
import random
import re
import sys
from collections import defaultdict
from pathlib import Path, PurePath

from line_scores import choices_of
from own_hand import both
from peers import seconds
from shipped_weights import write_table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from config import SHIPPED_LINES  # noqa: E402
from htr.results.scores import Score  # noqa: E402
from htr.texts.labels import clean_label, read_labels  # noqa: E402
from reading import Reader  # noqa: E402

SIZES = (25, 50, 100, 200, 400, 0)  # lines; 0 = all
LEFT_OUT = 8  # of Peraire's pages, the last ones
Labels = dict[str, str]  # texts by name


def pages_of(table: Path, collection: str) -> dict[str, Labels]:
    """The lines of a collection by page, in order."""
    pages = defaultdict(dict)
    for name, text in read_labels(table).labels():
        if name.startswith(f"pages/{collection}/"):
            pages[PurePath(name).parent.as_posix()][name] = clean_label(text, uppercase=False)
    return dict(sorted(pages.items()))


def write_labels(folder: Path, data_dir: Path, labels: Labels) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "pages").is_symlink():
        (folder / "pages").symlink_to((data_dir / "pages").resolve())
    write_table(folder / "labels.csv", list(labels.items()))


def read(model: Path, data_dir: Path, pages: dict[str, Labels]) -> Score:
    """The score of a checkpoint on the lines of some pages."""
    total, rows = Score(), [row for labels in pages.values() for row in labels.items()]
    choices = choices_of(Reader.load(model), [data_dir / name for name, _ in rows])
    for (_, text), (choice, _) in zip(rows, choices, strict=True):
        total.add(text, choice.text)
    return total


def train(folder: Path, data_dir: Path, labels: Labels, start: Path) -> tuple[Path, float]:
    """Train on some lines, from some weights; the checkpoint, and how many minutes it took."""
    model, took = folder / "htr_crnn_mini.pth", folder / "minutes.json"
    if not took.exists():
        write_labels(folder, data_dir, labels)
        flags = ("--data-dir", ".", "--follow-links", "--no-uppercase", "--num-samples", 0, "--pretrained", start)
        took.write_text(json.dumps(seconds(sys.executable, ROOT / "train.py", *flags, cwd=folder) / 60))
    return model, json.loads(took.read_text())


def person(runs: Path, data_dir: Path, start: Path, sizes: list[int]) -> None:
    """More and more lines of one person, read on other pages of that person."""
    pages = pages_of(data_dir / "apart" / "labels.csv", "peraire")
    names = list(pages)
    others = {name: pages[name] for name in names[-LEFT_OUT:]}
    shuffled = random.Random(0).sample(names[:-LEFT_OUT], len(names) - LEFT_OUT)
    lines = [line for name in shuffled for line in pages[name].items()]
    print(f"| lines of Peraire | minutes | CER / exact on {sum(map(len, others.values()))} lines |\n|---|---|---|")
    print(f"| 0 | | {cell(read(start, data_dir / 'apart', others))} |", flush=True)
    for size in sizes:
        chosen = dict(lines[: size or None])
        model, minutes = train(runs / f"peraire-{len(chosen)}", data_dir / "apart", chosen, start)
        score = read(model, data_dir / "apart", others)
        print(f"| {len(chosen):,} | {minutes:.1f} | {cell(score)} |", flush=True)


def second_pages(runs: Path, data_dir: Path, start: Path) -> None:
    """The first page of some writers, read on their second."""
    pages = pages_of(data_dir / "lines" / "validation.csv", "copiste")
    print("| writer of Copiste | lines, and read | minutes | before | after |\n|---|---|---|---|---|")
    sums = [Score(), Score()]
    for first in pages:
        second = re.sub("_1$", "_2", first)
        if second not in pages or second == first:
            continue
        model, minutes = train(runs / first.rpartition("/")[2], data_dir / "lines", pages[first], start)
        scores = [read(each, data_dir / "lines", {second: pages[second]}) for each in (start, model)]
        sums = [both(*pair) for pair in zip(sums, scores, strict=True)]
        count = f"{len(pages[first])}, {len(pages[second])}"
        print(f"| {PurePath(first).name} | {count} | {minutes:.1f} | {' | '.join(map(cell, scores))} |", flush=True)
    print(f"| all | | | {' | '.join(map(cell, sums))} |")


def cell(score: Score) -> str:
    return f"{score.cer:.4f} / {score.exact:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder of lines of shipped_weights.py")
    parser.add_argument("--start", type=Path, default=SHIPPED_LINES, help="weights to start from (default: shipped)")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="lines; 0 = all (default: %(default)s)")
    parser.add_argument("--runs-dir", type=Path, default=Path("benchmark-runs"), help="(default: benchmark-runs)")
    args = parser.parse_args()
    runs, data_dir, start = args.runs_dir.resolve() / "own_lines", args.data_dir.resolve(), args.start.resolve()
    person(runs, data_dir, start, args.sizes)
    second_pages(runs, data_dir, start)


if __name__ == "__main__":
    main()
