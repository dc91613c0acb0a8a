"""How fast lines of running handwriting are read, beside names.

    python benchmarks/line_speed.py --names DIR --data-dir OUT/lines

DIR is the dataset of names, OUT/lines the folder of lines that shipped_weights.py makes. Names are 200 validation
scans, lines 200 of the validation set whose pictures, as the network gets them, are about five times as wide. Each is
read with its own weights, greedily, from decoded pictures, on one thread; both in turn, medians of five rounds.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from config import SHIPPED_LINES, SHIPPED_WEIGHTS  # noqa: E402
from dataset import find_images, geometry  # noqa: E402
from htr.pictures.images import find_files, read_images  # noqa: E402
from htr.texts.labels import read_labels  # noqa: E402
from reading import Reader, pixels_of  # noqa: E402

COUNT, WIDER, PLAY, ROUNDS = 200, 5, 0.1, 5


def pictures(reader: Reader, paths: Sequence[Path]) -> list[np.ndarray]:
    return pixels_of(read_images(paths, geometry(reader.config), 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", required=True, help="folder of the dataset of names")
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder of lines of shipped_weights.py")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    files = find_files([find_images(args.names, "validation")]).files[:COUNT]
    lines = [args.data_dir / "lines" / name for name, _ in read_labels(args.data_dir / "lines/validation.csv").labels()]
    print("| | | images | mean width | images/s | frames/s | ms an image |\n|---|---|---|---|---|---|---|")
    for title, suffix in (("PyTorch", ".pth"), ("ONNX Runtime", ".onnx")):
        of_names, of_lines = (Reader.load(path.with_suffix(suffix), "cpu") for path in (SHIPPED_WEIGHTS, SHIPPED_LINES))
        names = pictures(of_names, [path for _, path in files])
        width = statistics.mean(image.shape[1] for image in names)
        wide = [image for image in pictures(of_lines, lines) if abs(image.shape[1] / width / WIDER - 1) < PLAY][:COUNT]
        sets, seconds, frames = ((of_names, names), (of_lines, wide)), ([], []), [0, 0]
        for _ in range(ROUNDS):
            for place, (reader, images) in enumerate(sets):
                started = time.perf_counter()
                read = reader.read_all(images, reader.network.in_batch)
                seconds[place].append(time.perf_counter() - started)
                frames[place] = sum(len(each.log_probs) for each in read)
        each = []
        for place, what in enumerate(("names", "lines")):
            images, took = sets[place][1], statistics.median(seconds[place])
            mean = statistics.mean(image.shape[1] for image in images)
            each.append(1000 * took / len(images))
            row = (
                f"{len(images)} | {mean:.0f} | {len(images) / took:.0f} | {frames[place] / took:,.0f} | {each[-1]:.1f}"
            )
            print(f"| {title} | {what} | {row} |")
        print(f"| {title} | a line takes so many times as long | | | | | {each[1] / each[0]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
