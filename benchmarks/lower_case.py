"""How well lower-case writing is read: some of the dataset's validation scans, beside all others.

    python benchmarks/lower_case.py --data-dir DIR --model-path FIRST.pth SECOND.pth
    python benchmarks/lower_case.py --data-dir DIR --words DHSD   # and words of strangers, also by spelling

The scans were picked by eye, before they were read with any weights: those in which at least two letters have a shape
of their own in lower case. Many of their labels are wrong, so CER and exact match are also given against what stands
there, as far as one can tell. DHSD: see own_hand.py; its words are compared in capitals without accents.
"""

import argparse
import sys
from pathlib import Path

from own_hand import APART, WATCHED, lines_of, read_writers
from shipped_weights import in_plain_capitals

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from config import SHIPPED_WEIGHTS  # noqa: E402
from dataset import find_images, find_labels  # noqa: E402
from htr.results.scores import Score  # noqa: E402
from predict import predict_batch  # noqa: E402

# By the number of VALIDATION_*.jpg, what stands there where the label says something else.
LOWER_CASE = {
    50: "", 55: "", 80: "DYLAN", 115: "CASSANDRA", 116: "THEO", 129: "", 170: "", 251: "", 322: "", 336: "", 396: "",
    400: "", 414: "LEFORMAL", 452: "", 470: "", 486: "", 487: "", 663: "HAOLAN", 696: "", 724: "FERCHICHI",
    763: "LECHEVILLIER", 798: "LOUBNA", 874: "", 877: "", 905: "PENCREAC'H", 960: "LOU",
}  # fmt: skip


def scores(rows: list[dict[str, str]]) -> dict[str, Score]:
    """Of the lower-case scans, by label and by eye, and of all others."""
    groups = {"lower case": Score(), "by eye": Score(), "others": Score()}
    for row in rows:
        number = int(Path(row["FILENAME"]).stem.split("_")[1])
        if row["TRUTH"] and number in LOWER_CASE:
            groups["lower case"].add(row["TRUTH"], row["PREDICTION"])
            groups["by eye"].add(LOWER_CASE[number] or row["TRUTH"], row["PREDICTION"])
        elif row["TRUTH"]:
            groups["others"].add(row["TRUTH"], row["PREDICTION"])
    return groups


def words_of_strangers(words: Path, model: Path, spelling: bool) -> Score:
    """Of the words of writers on which nothing is trained."""
    score, rows = Score(), lines_of(read_writers(words), *WATCHED, *APART)
    texts, folders = {path.name: text for path, text in rows}, sorted({path.parent for path, _ in rows})
    for _, row in predict_batch(model, folders, save_csv=False, spelling=spelling).iterrows():
        score.add(in_plain_capitals(texts[Path(row.FILENAME).name]), in_plain_capitals(row.PREDICTION))
    return score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of the dataset of names")
    parser.add_argument("--words", type=Path, help="folder of DHSD; the weights must have been fitted for spelling")
    parser.add_argument("--model-path", type=Path, nargs="+", default=[SHIPPED_WEIGHTS])
    args = parser.parse_args()

    images, labels = find_images(args.data_dir, "validation"), find_labels(args.data_dir, "validation")
    tables = []
    for path in args.model_path:
        found = scores(predict_batch(path, images, save_csv=False, labels=labels).to_dict("records"))
        for name, spelling in (("words", False), ("words by spelling", True)) if args.words else ():
            found[name] = words_of_strangers(args.words, path, spelling)
        tables.append((path, found))
    groups = {name: group.images for name, group in tables[0][1].items()}
    print("| weights |" + "".join(f" {name} ({images}) |" for name, images in groups.items()))
    print("|---" * (len(groups) + 1) + "|")
    for path, found in tables:
        print(f"| {path.name} |" + "".join(f" {score.cer:.4f} / {score.exact:.3f} |" for score in found.values()))


if __name__ == "__main__":
    main()
