"""How good CONFIDENCE is, and what spelling and a lexicon gain: fitted on half of labelled images, measured on others.

    python benchmarks/trust.py validation_v2/validation --labels written_name_validation.csv --lexicon names.csv

The halves are then swapped, so every image is measured once, by a fit that has not seen it. The table shows the means
of several such splits; the readings of the first are kept in --runs-dir as greedy.csv, spelling.csv and lexicon.csv.
Names are spelled as those of the lexicon are, which should be the training labels.
"""

import argparse
import csv
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from dataset import geometry, label_rules  # noqa: E402
from fitting import fit_choice, fit_confidence  # noqa: E402
from htr.decoding.confidence import Ngrams, auroc, coverage_curve, expected_calibration_error  # noqa: E402
from htr.decoding.language import Language  # noqa: E402
from htr.decoding.lexicon import TRIGRAMS, Lexicon, Prior, spelling_of  # noqa: E402
from htr.pictures.images import find_files, read_images  # noqa: E402
from htr.results.scores import Score, Truth  # noqa: E402
from reading import Reader  # noqa: E402


def figures(readings: Sequence[tuple[str, float]], truths: Sequence[str], lexicon: Lexicon) -> dict[str, float]:
    """What becomes of texts with their confidences."""
    score, known, unknown = Score(), Score(), Score()
    for (text, _), truth in zip(readings, truths, strict=True):
        score.add(truth, text)
        (known if truth in lexicon.counts else unknown).add(truth, text)
    right = [text == truth for (text, _), truth in zip(readings, truths, strict=True)]
    confidences = [confidence for _, confidence in readings]
    return {
        "CER": score.cer,
        "exact": score.exact,
        "exact, name in the lexicon": known.exact,
        "exact, name not in it": unknown.exact,
        "ECE": expected_calibration_error(confidences, right),
        "AUROC": auroc(confidences, right),
        "exact among the surest 90 %": coverage_curve(confidences, right)[round(0.9 * len(right)) - 1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--lexicon", type=Path, required=True)
    parser.add_argument("--model-path", type=Path, default=ROOT / "weights" / "htr_crnn_names.pth")
    parser.add_argument("--splits", type=int, default=5, help="into random halves (default: 5)")
    parser.add_argument("--runs-dir", type=Path, default=Path("benchmark-runs"), help="(default: benchmark-runs)")
    args = parser.parse_args()

    reader = Reader.load(args.model_path)
    rules = label_rules(reader.config)
    found, lexicon = find_files([args.images]), Lexicon.load(args.lexicon, rules)
    labels = Truth(args.labels, rules, found.files, found.folders).labels
    files = [(name, path) for name, path in found.files if name in labels]
    image_names, truths = [name for name, _ in files], [labels[name] for name, _ in files]
    trigrams = Ngrams.of(dict.fromkeys(lexicon.words, 1), TRIGRAMS)
    images = [image.pixels for image in read_images([path for _, path in files], geometry(reader.config), 2)]
    evidence, labelled = reader.read_all(images, reader.network.in_batch), {}
    spelling = spelling_of({reader.alphabet.pictured(text): count for text, count in lexicon.counts.items()})
    for way, ngrams, names in (("spelling", spelling, None), ("lexicon", trigrams, lexicon)):
        reader.prior = Prior(Language(ngrams, reader.alphabet.characters), names)
        labelled[way] = reader.prior, list(zip(reader.weigh(evidence), truths, strict=True))

    rows: dict[str, list[dict[str, float]]] = {"greedy": [], "spelling": [], "lexicon": []}
    args.runs_dir.mkdir(parents=True, exist_ok=True)
    for seed in range(args.splits):
        order = torch.randperm(len(files), generator=torch.Generator().manual_seed(seed)).tolist()
        halves = order[::2], order[1::2]
        readings = {way: [("", 0.0)] * len(files) for way in rows}
        for fitted_on, measured_on in (halves, halves[::-1]):
            for way in rows:
                prior, pairs = labelled.get(way, (None, labelled["lexicon"][1]))
                some = [pairs[i] for i in fitted_on]
                reader.prior, reader.calibration = None, fit_confidence(some, trigrams)
                if prior is not None:
                    reader.prior, reader.prior_calibration = fit_choice(some, trigrams, prior)
                for i in measured_on:
                    choice = reader.choose(pairs[i][0])
                    readings[way][i] = choice.text, choice.probability
        for way, values in readings.items():
            rows[way].append(figures(values, truths, lexicon))
            if seed == 0:
                with open(args.runs_dir / f"{way}.csv", "w", newline="", encoding="utf-8") as file:
                    writer = csv.writer(file)
                    writer.writerow(["FILENAME", "PREDICTION", "CONFIDENCE", "ERROR"])
                    writer.writerows([image, *value, ""] for image, value in zip(image_names, values, strict=True))
    print(f"| {len(files):,} images | {' | '.join(rows)} |\n" + "|---" * (len(rows) + 1) + "|")
    for name in rows["greedy"][0]:
        means = [statistics.mean(row[name] for row in several) for several in rows.values()]
        print(f"| {name} | " + " | ".join(f"{mean:.4f}" for mean in means) + " |")


if __name__ == "__main__":
    main()
