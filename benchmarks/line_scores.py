"""How weights of lines read each collection, by writers and documents on which they were not trained.

    python benchmarks/line_scores.py --data-dir OUT/lines
    python benchmarks/line_scores.py --data-dir OUT/lines --model-path CHECKPOINT --spelling

OUT/lines is the folder of lines that shipped_weights.py makes. Greedy decoding, no dictionary, unless --spelling or
--corpus or --language asks for one. ECE is that of CONFIDENCE; some of these lines fitted it. Most writers of Copiste
copied the same consent before their text: a row leaves these lines out. Words are those of texts of several.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePath

from rapidfuzz import fuzz
from rapidfuzz.distance import Levenshtein

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from config import SHIPPED_LINES  # noqa: E402
from dataset import geometry, label_rules  # noqa: E402
from htr.decoding.confidence import auroc, expected_calibration_error  # noqa: E402
from htr.decoding.lexicon import Choice  # noqa: E402
from htr.pictures.images import read_images  # noqa: E402
from htr.results.scores import Comparison  # noqa: E402
from htr.texts.labels import read_labels  # noqa: E402
from reading import Reader, pages_of, pixels_of  # noqa: E402

CONSENT = (
    "J'ai lu les conditions de participation et j'y consens. Je comprends que mon manuscrit sera anonymisé et"
    " utilisé par BAnQ pour des activités de recherche et développement et qu'il pourra aussi être publié et"
    " partagé sous licence CC-BY pour être utilisé librement à des fins non commerciales."
)
LIKE = 85  # of 100, from which on a line is a part of it


def groups_of(name: str, text: str) -> list[str]:
    """The rows of the table that a line counts in."""
    folder, collection = PurePath(name).parts[:2]
    if folder != "pages":
        return ["words of DHSD"]
    if collection == "copiste" and fuzz.partial_ratio(text, CONSENT) < LIKE and "wikitexte" not in text:
        return [collection, "copiste without consents"]
    return [collection]


def choices_of(reader: Reader, paths: Sequence[Path], alone: bool = False) -> list[tuple[Choice, list[float]]]:
    """What is read of pictures, and how sure each of its words is.

    Lines of one page, kept in one folder, are read as such, unless they are read `alone`.
    """
    images = pixels_of(read_images(paths, geometry(reader.config), 2))
    if not alone:
        images = reader.as_suits_pages(images, pages_of([(path.name, path) for path in paths]))
    read = reader.read_all(images, reader.network.in_batch)
    return [(choice := reader.choose(evidence), reader.words(evidence, choice)) for evidence in read]


def right_words(text: str, truth: str) -> list[bool]:
    """Whether each word of a reading is one of the truth's, which are aligned by the fewest edits."""
    words = text.split()
    wrong = {place for kind, place, _ in Levenshtein.editops(words, truth.split()) if kind != "insert"}
    return [place not in wrong for place in range(len(words))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder of lines of shipped_weights.py")
    parser.add_argument("--model-path", type=Path, default=SHIPPED_LINES, help="(default: the shipped weights)")
    parser.add_argument("--alone", action="store_true", help="read each line alone, not as one of its page")
    parser.add_argument("--spelling", action="store_true", help="read by the language of the training labels")
    parser.add_argument("--corpus", type=Path, help="and by that of a text")
    parser.add_argument("--language", default="", help="and by the common words of a language: fr, en, ...")
    args = parser.parse_args()
    reader = Reader.load(args.model_path, spelling=args.spelling, corpus=args.corpus, language=args.language)
    rules, scores = label_rules(reader.config), defaultdict(Comparison)
    of_words = defaultdict(lambda: ([], []))  # probabilities, and whether they are right
    for table in ("lines/validation.csv", "apart/labels.csv"):
        folder = (args.data_dir / table).parent
        rows = [(name, rules.clean(text)) for name, text in read_labels(args.data_dir / table).labels()]
        read = choices_of(reader, [folder / name for name, _ in rows], args.alone)
        for (name, text), (choice, words) in zip(rows, read, strict=True):
            for group in [*groups_of(name, text), "all"]:
                scores[group].add(name, choice.text, choice.probability, text)
                if len(words) > 1:
                    of_words[group][0].extend(words)
                    of_words[group][1].extend(right_words(choice.text, text))
    print("| collection | lines | CER | exact | ECE | words right | ECE of words | AUROC of words |")
    print("|---|---|---|---|---|---|---|---|")
    for group, all_of in sorted(scores.items()):
        score, ece = all_of.score, expected_calibration_error(all_of.confidences, all_of.right)
        row = f"| {group} | {score.images:,} | {score.cer:.4f} | {score.exact:.3f} | {ece:.3f}"
        if right := (words := of_words[group])[1]:
            row += f" | {sum(right) / len(right):.3f} | {expected_calibration_error(*words):.3f} | {auroc(*words):.3f}"
        else:
            row += " | | |"
        print(f"{row} |")


if __name__ == "__main__":
    main()
