"""Two processes on the CPU, started by torchrun as a user starts them."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import ROOT, SMALL
from pages import LINES, draw_page

from config import SHIPPED_WEIGHTS
from htr.results.tables import Journal
from utils import load_checkpoint


def torchrun(script, *flags) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return [*launcher, str(script), *map(str, flags)]


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def figures(shared_folder):
    """What one process and what two computed."""

    def make(folder: Path) -> None:
        worker = Path(__file__).parent / "two_processes.py"
        run(folder, sys.executable, str(worker), "one.pt")
        run(folder, *torchrun(worker, "two.pt"))

    folder = shared_folder("figures", make)
    return [torch.load(folder / name, weights_only=False) for name in ("one.pt", "two.pt")]


@pytest.mark.parametrize("size", [8, 7, 3, 1])
def test_gradients_are_those_of_one_process(figures, size):
    """For even, uneven and empty shares of a batch."""
    one, two = figures
    norm = torch.stack([g.norm() for g in one[f"gradients {size}"]]).norm()
    for a, b in zip(one[f"gradients {size}"], two[f"gradients {size}"], strict=True):
        assert float((a - b).norm() / norm) < 1e-5
    assert two[f"loss {size}"] == pytest.approx(one[f"loss {size}"], rel=1e-6)


@pytest.mark.parametrize("size", [1, 7, 64, 65])
def test_validation_figures_are_exactly_those_of_one_process(figures, size):
    one, two = figures
    assert one[f"validation {size}"] == two[f"validation {size}"]
    assert one[f"validation {size}"][1].images == size


@pytest.fixture(scope="session")
def trained_by_two(shared_folder, data_dir):
    """A folder in which two processes trained; treat it as read-only."""

    def make(folder: Path) -> None:
        printed = run(folder, *torchrun(ROOT / "train.py", "--data-dir", data_dir, "--epochs", 2, *SMALL))
        assert printed.count("epoch 1/2") == 1  # the first process alone speaks
        assert "2 processes" in printed

    return shared_folder("trained-by-two", make)


def test_two_processes_leave_what_one_leaves(trained_by_two):
    names = ("curves.png", "history.csv", "last.pth", "previous.pth", "pth")
    wanted = ["htr_cache", *(f"htr_crnn_mini.{name}" for name in names)]
    assert sorted(path.name for path in trained_by_two.iterdir()) == wanted
    last = load_checkpoint(trained_by_two / "htr_crnn_mini.last.pth")
    assert (last["epoch"], last["steps"]) == (2, 10)  # 40 images in batches of 8, whatever the processes


def test_one_process_continues_from_two(tmp_path, trained_by_two, script):
    shutil.copytree(trained_by_two, tmp_path, dirs_exist_ok=True)
    done = script(tmp_path, "continue_train.py", "--epochs", 1)
    assert "continuing from htr_crnn_mini.last.pth with epoch 3" in done.stdout


def test_two_processes_find_the_lines_of_one(tmp_path, script):
    """Of three pages, one of which each process finds the lines of, and one that cannot be read."""
    pages = tmp_path / "pages"
    pages.mkdir()
    for n in range(3):
        draw_page(lines=LINES[:3], seed=n).save(pages / f"{n}.png")
    (pages / "torn.png").write_bytes(b"x")
    flags = [pages, "--pages", "--model-path", SHIPPED_WEIGHTS]
    script(tmp_path, "predict.py", *flags, check=False)
    (tmp_path / "two").mkdir()
    command = torchrun(ROOT / "predict.py", *flags)
    done = subprocess.run(command, cwd=tmp_path / "two", capture_output=True, text=True, check=False)
    assert done.stdout.count("pages whose lines were found") == 1, done.stderr
    for name in ("predictions.csv", "pages/1.txt"):
        assert (tmp_path / "two" / "output" / name).read_bytes() == (tmp_path / "output" / name).read_bytes()
    assert len(pd.read_csv(tmp_path / "output" / "predictions.csv")) == 10


def test_two_processes_write_the_table_of_one(tmp_path, data_dir, trained, script, monkeypatch):
    model, images = trained / "htr_crnn_mini.pth", data_dir / "train_v2" / "train"
    flags = [images, "--model-path", model, "--device", "cpu"]
    script(tmp_path, "predict.py", *flags)
    (tmp_path / "two").mkdir()
    printed = run(tmp_path / "two", *torchrun(ROOT / "predict.py", *flags))
    assert printed.count("read 64 of 64 images") == 1
    for name in ("predictions.csv", "predictions.txt"):
        assert (tmp_path / "two" / "output" / name).read_bytes() == (tmp_path / "output" / name).read_bytes()

    whole = pd.read_csv(tmp_path / "output" / "predictions.csv", keep_default_na=False)
    journal = Journal(tmp_path / "two" / "output", Journal.key_of(model, None))
    rows = whole.head(5).to_dict("records")
    with (
        pytest.raises(KeyboardInterrupt),
        journal.written((images / row["FILENAME"], row, True) for row in rows) as passed,
    ):
        list(passed)
        raise KeyboardInterrupt
    printed = run(tmp_path / "two", *torchrun(ROOT / "predict.py", *flags, "--resume"))
    assert "of these, read by the run before: 5" in printed
    again = pd.read_csv(tmp_path / "two" / "output" / "predictions.csv", keep_default_na=False)
    assert again[["FILENAME", "PREDICTION"]].equals(whole[["FILENAME", "PREDICTION"]])


def test_a_killed_process_ends_the_others(tmp_path, data_dir):
    """Two processes without torchrun, which would end the second one itself."""
    command = [sys.executable, str(ROOT / "train.py"), "--data-dir", str(data_dir), "--epochs", "1000", *SMALL]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    survivor, victim = (
        subprocess.Popen(command, cwd=tmp_path, env=shared | {"RANK": rank, "LOCAL_RANK": rank}, **streams)
        for rank in "01"
    )
    try:
        for line in survivor.stdout:
            if line.startswith("epoch 1/"):
                break
        victim.kill()
        started = time.monotonic()
        _, errors = survivor.communicate(timeout=60)
    finally:
        for process in (survivor, victim):
            process.kill()
            process.communicate()
    assert survivor.returncode == 1
    assert time.monotonic() - started < 60
    assert re.search("^error: process 0 of 2 lost another one", errors, re.MULTILINE)
    assert load_checkpoint(tmp_path / "htr_crnn_mini.last.pth")["epoch"] >= 1
