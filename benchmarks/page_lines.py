"""Lines out of pages: what cutting them costs, and what it is worth to take the neighbours' ink away.

    python benchmarks/page_lines.py --data-dir DIR                       # a folder of pages with ALTO or PAGE files
    python benchmarks/page_lines.py --data-dir DIR --model-path lines.pth  # also reads the lines of its validation set

Prints seconds, on one core, to decode and level the pages as a whole, to cut all their lines, and to load them for
training a first and a second time; and, with weights that were trained on lines of the same folder, the CER of its
validation documents with and without their neighbours' ink, by the folder's first level.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import dataset  # noqa: E402
from config import Config  # noqa: E402
from htr.pictures import cutting  # noqa: E402
from htr.pictures.cutting import PageLine  # noqa: E402
from htr.pictures.images import ImageError, read_images, scaled_line  # noqa: E402
from htr.results.scores import Score  # noqa: E402
from htr.texts.pages import picture_of  # noqa: E402
from htr.texts.sources import whole_source  # noqa: E402
from reading import Reader  # noqa: E402


def seconds(do: Callable[[], object]) -> float:
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


def costs(folder: Path) -> Iterator[tuple[str, float]]:
    config = Config(DATA_DIR=str(folder), UPPERCASE=False, NUM_SAMPLES=0, VALIDATION_SAMPLES=0)
    described, lines = whole_source(folder).pages.described, []

    def describe() -> None:
        for each in described:
            whole = picture_of(each)
            lines.extend(PageLine(f"{len(lines)}", whole, place) for place in range(len(whole.bands)))

    def count(paths: list) -> int:
        return sum(not isinstance(image, ImageError) for image in read_images(paths, dataset.geometry(config), 0))

    yield f"find the lines of {len(described):,} pages", seconds(describe)
    yield "decode and level the pages as a whole", seconds(lambda: count([each.picture for each in described]))
    yield f"decode the pages and cut their {len(lines):,} lines", seconds(lambda: count(lines))
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        load = [
            lambda split=split: dataset.load_lines(config, split, 0, lambda *_: True)
            for split in ("train", "validation")
        ]
        for time_of_day in ("first", "second"):
            yield f"load all for training, the {time_of_day} time", sum(map(seconds, load))


def without_borders(page: Image.Image, bands: list, unit: float) -> list[np.ndarray]:
    return [cutting.cropped(np.asarray(cutting.level_strip(page, band)), band) for band in bands]


def worth(folder: Path, model_path: Path) -> Iterator[tuple[str, int, float, float]]:
    """Of each part of the folder its name, the validation lines, and the CER with and without borders."""
    source, reader = whole_source(folder), Reader.load(model_path, "cpu")
    rows = [dataset.Candidate(name, text, "") for name, text in source.rows if text.strip()]
    kept, _, _ = dataset.split_of(rows, "validation", 0, source)
    parts = defaultdict(lambda: defaultdict(list))
    for each in kept:
        page, line = source.lines.of[each.name]
        parts[each.name.split("/")[0]][page].append((line, each.text))
    for name, pages in sorted(parts.items()):
        scores, with_borders = [], cutting.cut_lines
        for way in (with_borders, without_borders):
            cutting.cut_lines = way
            scores.append(Score())
            for page, several in pages.items():
                strips = picture_of(source.pages.described[page]).strips([line for line, _ in several])
                lines = [
                    scaled_line(Image.fromarray(strip), dataset.geometry(reader.config), band=True) for strip in strips
                ]
                for evidence, (_, text) in zip(reader.read_all(lines, 8), several, strict=True):
                    scores[-1].add(" ".join(text.split()), evidence.text)
        cutting.cut_lines = with_borders
        yield name, scores[0].images, *(score.cer for score in scores)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--model-path", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder, model_path = args.data_dir.resolve(), args.model_path and args.model_path.resolve()
    print("| | seconds |\n|---|---|")
    for what, took in costs(folder):
        print(f"| {what} | {took:.1f} |", flush=True)
    if model_path:
        print("\n| validation documents of | lines | CER | with the neighbours' ink |\n|---|---|---|---|")
        for name, lines, *cers in worth(folder, model_path):
            print(f"| {name} | {lines:,} | {' | '.join(f'{cer:.4f}' for cer in cers)} |", flush=True)


if __name__ == "__main__":
    main()
