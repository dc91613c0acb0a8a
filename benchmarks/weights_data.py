"""The dataset that the shipped weights are trained on: all training scans, and drawn pictures of real names.

    python benchmarks/weights_data.py --data-dir DIR --names CSV OUT

OUT gets the Kaggle layout: its training images are those of DIR and the drawn ones (htr/synthetic.py), its validation
images those of DIR. The names' CSV has the columns NAME and COUNT; gzip is fine.
"""

import argparse
import random
import shutil
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from dataset import find_images, find_labels  # noqa: E402
from htr.labels import clean_label, read_labels  # noqa: E402
from htr.synthetic import GLYPHS, draw_form  # noqa: E402

DRAWABLE = {*GLYPHS, " "}


def read_names(path: Path, longest: int = 24) -> tuple[list[str], list[float]]:
    """Names that can be drawn, and their weights: the square root of the count, so that rare names come too."""
    table = pd.read_csv(path, dtype={"NAME": str, "COUNT": int}, keep_default_na=False)
    counts = {clean_label(name, uppercase=True): count for name, count in zip(table.NAME, table.COUNT, strict=True)}
    counts = {name: count for name, count in counts.items() if 0 < len(name) <= longest and DRAWABLE.issuperset(name)}
    return list(counts), [count**0.5 for count in counts.values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--names", type=Path, required=True, help="CSV of names: NAME,COUNT")
    parser.add_argument("--drawn", type=int, default=1500, help="drawn pictures (default: 1500)")
    parser.add_argument("out", type=Path)
    args = parser.parse_args()

    tables = {}
    for split in ("train", "validation"):
        tables[split] = read_labels(find_labels(args.data_dir, split))
        shutil.copytree(find_images(args.data_dir, split), args.out / f"{split}_v2" / split)
    names, weights = read_names(args.names)
    images, rows = args.out / "train_v2" / "train", []

    rng = random.Random("shipped weights")
    for number, name in enumerate(rng.choices(names, weights, k=args.drawn), 1):
        rows.append((f"DRAWN_{number:05}.jpg", name))
        draw_form(name, rng).save(images / rows[-1][0], quality=85)
    tables["train"] = pd.concat([tables["train"], pd.DataFrame(rows, columns=["FILENAME", "IDENTITY"])])
    (args.out / "CSV").mkdir()
    for split, table in tables.items():
        table.to_csv(args.out / "CSV" / f"written_name_{split}.csv", index=False)


if __name__ == "__main__":
    main()
