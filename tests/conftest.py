"""A small drawn dataset, a small network trained on it, and a way to run the scripts as a user does."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from forked import run_forked
from PIL import Image, ImageDraw

from htr.pictures.synthetic import draw_dataset
from htr.results.scores import Comparison

ROOT = Path(__file__).parent.parent
SMALL = (
    "--num-samples 40 --validation-samples 52 --batch-size 8 --cnn-channels 8 8 8 8 16 16 --lstm-hidden 16"
    " --augment-steps 5 --lr-cycle 3 --workers 2 --device cpu"
).split()


def pytest_configure():
    """No GPU, so that results are the same everywhere, and a core for each worker of pytest-xdist."""
    if os.name == "posix" and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)  # under nohup: what is started does not inherit that
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)


def run_script(folder: Path, name: str, *flags, check: bool = True, env=None) -> subprocess.CompletedProcess:
    """Run a script in a folder as a user does; returns the finished process. With `env`, in a Python of its own."""
    command = [str(ROOT / name), *map(str, flags)]
    if env is None and hasattr(os, "fork"):
        done = run_forked(command, folder)
    else:
        streams = {"capture_output": True, "text": True, "encoding": "utf-8", "errors": "replace"}
        command, env = [sys.executable, *command], os.environ | (env or {})
        done = subprocess.run(command, cwd=folder, env=env, check=False, **streams)
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def run_without_torch(folder: Path, code: str) -> subprocess.CompletedProcess:
    """Run code in a folder, in a Python in which importing torch fails."""
    code = f"import sys; sys.modules['torch'] = None; {code}"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="session")
def script():
    return run_script


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory):
    """shared_folder(name, make) is a folder that `make(folder)` fills once, for all workers of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def get(name: str, make) -> Path:
        folder, whole = base / name, base / f"{name}.whole"
        with FileLock(f"{folder}.lock"):
            if not whole.exists():
                folder.mkdir()
                make(folder)
                whole.touch()
        return folder

    return get


@pytest.fixture(scope="session")
def data_dir(shared_folder) -> Path:
    """A small drawn dataset; treat it as read-only."""
    sizes = {"train": 64, "validation": 60, "test": 10}
    return shared_folder("data", lambda folder: draw_dataset(folder, seed=1, sizes=sizes))


@pytest.fixture(scope="session")
def trained(shared_folder, data_dir) -> Path:
    """A folder in which `train.py --epochs 2` ran; treat it as read-only."""
    flags = ("--data-dir", data_dir, "--epochs", 2, *SMALL)
    return shared_folder("trained", lambda folder: run_script(folder, "train.py", *flags))


@pytest.fixture(scope="session")
def four_epochs(shared_folder, data_dir) -> Path:
    """A folder in which `train.py --epochs 4` ran; treat it as read-only."""
    flags = ("--data-dir", data_dir, "--epochs", 4, *SMALL)
    return shared_folder("four", lambda folder: run_script(folder, "train.py", *flags))


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium; without one, the test is skipped."""
    sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield browser
        browser.close()


def same(a, b) -> bool:
    """Bit for bit the same tensors and values, in nested dicts and lists."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def drawing(size=(120, 40), levels=True) -> Image.Image:
    """The reference: grey writing on white paper, mode L."""
    image = Image.new("L", size, 255)
    draw = ImageDraw.Draw(image)
    draw.line((20, 30, 60, 10, 90, 30), fill=0, width=3)
    if levels:
        draw.line((30, 34, 100, 34), fill=100, width=2)
        draw.line((100, 5, 100, 25), fill=180, width=2)
    return image


def compared() -> Comparison:
    """Four readings, three of them wrong."""
    comparison = Comparison()
    comparison.add("a.jpg", "LEA", 0.99, "LEA")
    comparison.add("b.jpg", "LEO", 0.95, "LEON")
    comparison.add("c.jpg", "MARC", 0.2, "NARC")
    comparison.add("d.jpg", "MARIE", 0.3, "NARIE")
    return comparison
