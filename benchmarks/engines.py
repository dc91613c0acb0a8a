"""Compare reading with PyTorch and with ONNX Runtime: whether both read the same, and where the time goes.

    python benchmarks/engines.py --data-dir DIR --lexicon NAMES.csv

Reads the validation images with the shipped weights in this process, on one thread, greedily, by spelling and with the
lexicon. PyTorch computes in float32 here, as ONNX Runtime does; where it would use bfloat16, its confidences differ by
more. How fast each reads on several cores, start included, is what throughput.py measures.
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import reading  # noqa: E402
import utils  # noqa: E402
from config import SHIPPED_WEIGHTS  # noqa: E402
from dataset import find_images, geometry  # noqa: E402
from htr.decoding.lexicon import Lexicon, Prior  # noqa: E402
from htr.pictures.images import find_files, load_image  # noqa: E402

ROUNDS = 3
PARTS = ("greedy_decode", "beam_search", "candidate_log_probs")  # of reading, by their names there


def timed(function: Callable, spent: Counter, name: str) -> Callable:
    """The function, adding the seconds that it takes to `spent`."""

    def call(*args):
        started = time.perf_counter()
        try:
            return function(*args)
        finally:
            spent[name] += time.perf_counter() - started

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="folder of the dataset")
    parser.add_argument("--lexicon", required=True, metavar="CSV", help="known names")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    utils.cpu_is_faster_in_bfloat16 = lambda: False
    files = find_files([find_images(args.data_dir, "validation")]).files
    lines, spent = [], Counter()
    for name in PARTS:
        setattr(reading, name, timed(getattr(reading, name), spent, name))
    Lexicon.near = timed(Lexicon.near, spent, "near names")
    Prior.features = timed(Prior.features, spent, "features")
    print("| | images/s, PyTorch | ONNX Runtime | texts alike | largest difference of confidences | decoding, share |")
    print("|---|---|---|---|---|---|")
    for title, options in (("greedy", {}), ("spelling", {"spelling": True}), ("lexicon", {"lexicon": args.lexicon})):
        choices, seconds, decoding = [], [], 0.0
        for suffix in (".pth", ".onnx"):
            reader = reading.Reader.load(SHIPPED_WEIGHTS.with_suffix(suffix), "cpu", **options)
            lines = lines or [load_image(path, geometry(reader.config)).pixels for _, path in files]
            chosen, best = [], float("inf")
            for _ in range(ROUNDS):
                spent.clear()
                started = time.perf_counter()
                chosen = list(map(reader.choose, reader.read_all(lines, reader.network.in_batch)))
                took = time.perf_counter() - started
                if took < best:
                    best, decoding = took, sum(spent.values()) / took
            choices.append(chosen)
            seconds.append(best)
        alike = sum(a.text == b.text for a, b in zip(*choices, strict=True))
        apart = max(abs(a.probability - b.probability) for a, b in zip(*choices, strict=True))
        speeds = " | ".join(f"{len(lines) / each:.0f}" for each in seconds)
        print(f"| {title} | {speeds} | {alike:,} of {len(lines):,} | {apart:.1e} | {decoding:.1%} |", flush=True)


if __name__ == "__main__":
    main()
