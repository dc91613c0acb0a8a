"""What test_parallel.py runs under torchrun, and in one process to compare: gradients and validation figures.

torchrun --nproc-per-node 2 two_processes.py out.pt
"""

import sys
from collections import Counter
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent.parent.parent))

import training
import utils
from config import Config
from dataset import Lines
from htr.pictures.packed import PackedImages
from htr.system import parallel
from htr.texts.labels import Alphabet

CPU = torch.device("cpu")


def lines(count: int) -> Lines:
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (32, 60 + n), generator=generator).byte().numpy() for n in range(count)]
    texts = ["ABBA", "CAB", "A", "BCBC", "ACC"]
    return Lines(
        [""] * count,
        PackedImages.of(images),
        [texts[n % 5] for n in range(count)],
        Counter(used=count),
    )


def main() -> None:
    utils.cpu_is_faster_in_bfloat16 = lambda: False  # to compare to more than three digits
    config = Config(CNN_CHANNELS=(4, 4, 8, 8, 8, 8), LSTM_HIDDEN=8, IMG_HEIGHT=32, GRAD_CLIP=1e9, AUGMENT_STEPS=10**9)
    out = {}
    for count in (8, 7, 3, 1):  # images in a batch
        state = training.new_state(config, Alphabet("ABC"), CPU)
        torch.nn.init.normal_(state.model.heads[-1].weight)
        state.model.eval()  # BatchNorm over a share of the batch would differ by its nature
        state.model.train = lambda: None
        training.batches_by_width = lambda *_, count=count: [list(range(count))]
        training.train_epoch(state, lines(count))
        out[f"gradients {count}"] = [p.grad.clone() for p in state.model.parameters()]
        out[f"loss {count}"] = state.loss_sum
    for count in (1, 7, 64, 65):
        state = training.new_state(config, Alphabet("ABC"), CPU)
        out[f"validation {count}"] = training.validate(state.average, lines(count), state.alphabet, CPU, 16)
    if parallel.rank() == 0:
        torch.save(out, sys.argv[1])


if __name__ == "__main__":
    with parallel.processes():
        main()
