"""Cells of numbers, with and without what they may hold: `--characters` and `--pattern`.

    python benchmarks/fields.py --data-dir OUT/lines

OUT/lines is the folder of lines that shipped_weights.py makes. Read are the cells of registers (lectaurep) on which the
weights were not trained: those whose text is digits alone, and those of digits and signs of numbers and dates.
"""

import argparse
import re
import sys
from pathlib import Path

from shipped_weights import Rows

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from config import SHIPPED_LINES  # noqa: E402
from dataset import geometry, label_rules  # noqa: E402
from htr.decoding.patterns import Pattern, of_characters  # noqa: E402
from htr.pictures.images import read_images  # noqa: E402
from htr.results.scores import Score  # noqa: E402
from htr.texts.labels import read_labels  # noqa: E402
from reading import Reader, pixels_of  # noqa: E402

KINDS = {  # of cells: what --characters says of their texts, and --pattern, which all of them match
    "digits": ("0-9", "[0-9]+"),
    "digits and signs": ("0-9 .,/", "[0-9][0-9 .,/]*[0-9]"),
}


def show(reader: Reader, kind: str, rows: Rows, images: list) -> None:
    """A row of the table for each way of reading."""
    characters, expression = KINDS[kind]
    chosen = [n for n, (_, text) in enumerate(rows) if re.fullmatch(expression, text)]
    known = reader.alphabet.characters
    ways = {
        "greedy": None,
        f"`--characters {characters!r}`": Pattern(of_characters(characters), known),
        f"`--pattern {expression!r}`": Pattern(expression, known),
    }
    for way, pattern in ways.items():
        score, others = Score(), 0
        read = reader.read_all([images[n] for n in chosen], reader.network.in_batch, [pattern] * len(chosen))
        for n, evidence in zip(chosen, read, strict=True):
            text = reader.choose(evidence).text
            score.add(rows[n][1], text)
            others += not re.fullmatch(expression, text)
        print(f"| {kind} | {len(chosen)} | {way} | {score.cer:.4f} | {score.exact:.3f} | {others} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder of lines of shipped_weights.py")
    parser.add_argument("--model-path", type=Path, default=SHIPPED_LINES, help="(default: the shipped weights)")
    args = parser.parse_args()
    reader = Reader.load(args.model_path)
    rules, folder = label_rules(reader.config), args.data_dir / "lines"
    rows = [(name, rules.clean(text)) for name, text in read_labels(folder / "validation.csv").labels()]
    rows = [(name, text) for name, text in rows if name.startswith("pages/lectaurep/")]
    images = pixels_of(read_images([folder / name for name, _ in rows], geometry(reader.config), 2))
    print("| cells of | | read | CER | exact | texts of another kind |\n|---|---|---|---|---|---|")
    for kind in KINDS:
        show(reader, kind, rows, images)


if __name__ == "__main__":
    main()
