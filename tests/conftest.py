"""A small drawn dataset, a small network trained on it, and a way to run the scripts as a user does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from synthetic import draw_dataset

ROOT = Path(__file__).parent.parent
SMALL = (
    "--num-samples 40 --validation-samples 12 --batch-size 8 --cnn-channels 8 8 8 8 16 16 --lstm-hidden 16"
    " --augment-steps 5 --lr-cycle 3 --workers 2 --device cpu"
).split()


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    draw_dataset(folder, seed=1, sizes={"train": 64, "validation": 16, "test": 10})
    return folder


@pytest.fixture(scope="session")
def script(data_dir):
    """script(folder, "train.py", *flags) runs a script in a folder; returns the finished process."""

    def run(folder: Path, name: str, *flags, check: bool = True, env=None) -> subprocess.CompletedProcess:
        command = [sys.executable, str(ROOT / name), *map(str, flags)]
        env = environment() | (env or {})
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=env,
            check=False,
        )
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done

    return run


def environment() -> dict[str, str]:
    """Without a GPU, so that results are the same everywhere."""
    return os.environ | {"CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="session")
def trained(tmp_path_factory, script, data_dir) -> Path:
    """A folder in which `train.py --epochs 2` ran; treat it as read-only."""
    folder = tmp_path_factory.mktemp("trained")
    script(folder, "train.py", "--data-dir", data_dir, "--epochs", 2, *SMALL)
    return folder


def same(a, b) -> bool:
    """Bit for bit the same tensors and values, in nested dicts and lists."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b
