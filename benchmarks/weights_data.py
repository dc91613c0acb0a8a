"""The dataset that the shipped weights are trained on: real scans, drawn names, and names spliced from real letters.

    python benchmarks/weights_data.py --data-dir DIR --names CSV OUT
    python benchmarks/weights_data.py --data-dir DIR --names CSV --spliced 10000 --model-path PTH OUT

OUT gets the Kaggle layout: training images are all those of DIR and the made ones; validation images are those of DIR.
The names' CSV has the columns NAME and COUNT; gzip is fine. Drawn pictures come from synthetic.py. For spliced ones a
network that is already trained finds the letters of the training images that it reads right; runs of one to four
letters are cut out between them, along columns with little ink, and put together to other names.
"""

import argparse
import random
import shutil
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import itertools

from dataset import clean_label, cut_margins, find_images, find_labels, read_images, read_labels, to_grey  # noqa: E402
from model import FRAME  # noqa: E402
from reading import Reader  # noqa: E402
from synthetic import GLYPHS, draw_form  # noqa: E402

DRAWABLE = {*GLYPHS, " "}
SURE = 0.4  # least confidence in a letter that is cut out
TALLEST = 36  # pixels; taller scans show more than one line


def read_names(path: Path, longest: int = 24) -> tuple[list[str], list[float]]:
    """Names that can be drawn, and their weights: the square root of the count, so that rare names come too."""
    table = pd.read_csv(path, dtype={"NAME": str, "COUNT": int}, keep_default_na=False)
    counts = {clean_label(name, uppercase=True): count for name, count in zip(table.NAME, table.COUNT, strict=True)}
    counts = {name: count for name, count in counts.items() if 0 < len(name) <= longest and DRAWABLE.issuperset(name)}
    return list(counts), [count**0.5 for count in counts.values()]


@dataclass
class Source:
    """A scan whose letters are known: letter i lies between columns cuts[i] and cuts[i + 1]."""

    picture: Image.Image
    text: str
    cuts: list[int]


def find_cuts(picture: Image.Image, centres: Sequence[float]) -> list[int]:
    """Columns between letters whose middles are `centres`, each where there is least ink, and the two ends."""
    ink = 255 - F.pil_to_tensor(picture)[0].float()
    columns = ink.sum(0)
    cuts = []
    for left, right in itertools.pairwise(centres):
        first, last = int(left + (right - left) / 4), int(right - (right - left) / 4) + 1
        places = torch.arange(first, last)
        off_middle = (places - (first + last - 1) / 2).abs()
        cuts.append(first + int((columns[first:last] + 8 * off_middle).argmin()))
    pitch = (centres[-1] - centres[0]) / (len(centres) - 1)
    return [max(0, int(centres[0] - 0.9 * pitch)), *cuts, min(picture.width, int(centres[-1] + 0.9 * pitch))]


def find_sources(reader: Reader, paths: Sequence[Path], texts: Sequence[str], batch_size: int = 64) -> list[Source]:
    """The scans of one line that `reader` reads right and surely, with their letters."""
    lines = list(read_images(paths, reader.config, workers=4))
    order = sorted(range(len(lines)), key=lambda i: lines[i].shape[1])
    sources = []
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        for i, reading in zip(batch, reader.read([lines[i] for i in batch]), strict=True):
            right = reader.alphabet.decode(reading.labels) == texts[i] and len(texts[i]) > 1
            if not right or min(reading.label_confidences) < SURE:
                continue
            with Image.open(paths[i]) as image:
                picture = cut_margins(to_grey(image))
            if picture.height > TALLEST:
                continue
            scale = picture.width / lines[i].shape[1]
            centres = [(frame + 0.5) * FRAME * scale for frame in reading.label_frames]
            sources.append(Source(picture, texts[i], find_cuts(picture, centres)))
    return sources


class Splicer:
    """Writes names with letters cut out of `sources`, in runs of one to four letters of one scan."""

    def __init__(self, sources: Sequence[Source]):
        self.places = defaultdict(list)  # run of letters -> where it is found
        for source in sources:
            for length in (1, 2, 3, 4):
                for first in range(len(source.text) - length + 1):
                    self.places[source.text[first : first + length]].append((source, first))

    def splice(self, name: str, rng: random.Random) -> Image.Image | None:
        """A picture of `name`, its pieces moved to one height; None where a letter is nowhere found."""
        pieces, start = [], 0
        while start < len(name):
            length = rng.choice((1, 2, 2, 3, 3, 4))
            while length > 1 and len(self.places.get(name[start : start + length], ())) < 3:
                length -= 1
            run = name[start : start + length]
            if run not in self.places:
                return None
            source, first = rng.choice(self.places[run])
            left, right = source.cuts[first], source.cuts[first + len(run)]
            pieces.append(source.picture.crop((left, 0, right, source.picture.height)))
            start += len(run)
        middles = [self.middle(piece) for piece in pieces]
        paper = Image.new("L", (sum(piece.width for piece in pieces), 2 * TALLEST), 255)
        x = 0
        for piece, middle in zip(pieces, middles, strict=True):
            paper.paste(piece, (x, round(TALLEST - middle + rng.gauss(0, 0.7))))
            x += piece.width
        return paper

    @staticmethod
    def middle(piece: Image.Image) -> float:
        """The mean row of its ink."""
        ink = (255 - F.pil_to_tensor(piece)[0].double()).sum(1)
        return float((ink * torch.arange(len(ink))).sum() / ink.sum()) if ink.sum() else piece.height / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--names", type=Path, required=True, help="CSV of names: NAME,COUNT")
    parser.add_argument("--drawn", type=int, default=3000, help="drawn pictures (default: 3000)")
    parser.add_argument("--spliced", type=int, default=0, help="spliced pictures (default: 0)")
    parser.add_argument("--model-path", type=Path, help="network that finds the letters to splice")
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    if args.spliced and not args.model_path:
        parser.error("--spliced needs --model-path")

    tables = {}
    for split in ("train", "validation"):
        tables[split] = read_labels(find_labels(args.data_dir, split))
        shutil.copytree(find_images(args.data_dir, split), args.out / f"{split}_v2" / split)
    names, weights = read_names(args.names)
    images, rows = args.out / "train_v2" / "train", []

    rng = random.Random("drawn")
    for number, name in enumerate(rng.choices(names, weights, k=args.drawn), 1):
        rows.append((f"DRAWN_{number:05}.jpg", name))
        draw_form(name, rng).save(images / rows[-1][0], quality=85)
    if args.spliced:
        table = tables["train"]
        texts = [clean_label(label, uppercase=True) for label in table.IDENTITY]
        sources = find_sources(Reader.load(args.model_path), [images / name for name in table.FILENAME], texts)
        print(f"letters of {len(sources):,} of {len(table):,} training images")
        splicer, rng = Splicer(sources), random.Random("spliced")
        for number, name in enumerate(rng.choices(names, weights, k=args.spliced), 1):
            picture = splicer.splice(name, rng)
            if picture is not None:
                rows.append((f"SPLICED_{number:05}.jpg", name))
                picture.save(images / rows[-1][0], quality=85)
    tables["train"] = pd.concat([tables["train"], pd.DataFrame(rows, columns=["FILENAME", "IDENTITY"])])
    (args.out / "CSV").mkdir()
    for split, table in tables.items():
        table.to_csv(args.out / "CSV" / f"written_name_{split}.csv", index=False)


if __name__ == "__main__":
    main()
