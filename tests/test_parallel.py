"""Two processes on the CPU, started by torchrun as a user starts them."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import ROOT, SMALL, environment

from tables import Journal
from utils import load_checkpoint


def torchrun(script, *flags) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return [*launcher, str(script), *map(str, flags)]


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """What one process and what two computed."""
    folder, worker = tmp_path_factory.mktemp("figures"), Path(__file__).parent / "two_processes.py"
    run(folder, sys.executable, str(worker), "one.pt")
    run(folder, *torchrun(worker, "two.pt"))
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


@pytest.fixture(scope="module")
def trained_by_two(tmp_path_factory, data_dir):
    folder = tmp_path_factory.mktemp("two")
    printed = run(folder, *torchrun(ROOT / "train.py", "--data-dir", data_dir, "--epochs", 2, *SMALL))
    assert printed.count("epoch 1/2") == 1  # the first process alone speaks
    assert "2 processes" in printed
    return folder


def test_two_processes_leave_what_one_leaves(trained_by_two):
    names = ("curves.png", "history.csv", "last.pth", "previous.pth", "pth")
    wanted = ["htr_cache", *(f"htr_crnn_mini.{name}" for name in names)]
    assert sorted(path.name for path in trained_by_two.iterdir()) == wanted
    last = load_checkpoint(trained_by_two / "htr_crnn_mini.last.pth")
    assert (last["epoch"], last["steps"]) == (2, 10)  # 40 images in batches of 8, whatever the processes


def test_one_process_goes_on_from_two(trained_by_two, script):
    done = script(trained_by_two, "continue_train.py", "--epochs", 1)
    assert "going on from htr_crnn_mini.last.pth with epoch 3" in done.stdout


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


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the processes in /proc")
def test_a_killed_process_ends_the_others(tmp_path, data_dir):
    command = torchrun(ROOT / "train.py", "--data-dir", data_dir, "--epochs", 1000, *SMALL)
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        try:
            for line in process.stdout:
                if line.startswith("epoch 1/"):
                    break
            workers = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if parent(pid) == process.pid]
            (victim,) = [pid for pid in workers if variable(pid, "RANK") == "1"]
            started = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode != 0
    assert time.monotonic() - started < 60
    assert "lost another one" in errors
    assert load_checkpoint(tmp_path / "htr_crnn_mini.last.pth")["epoch"] >= 1


def parent(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    return 0


def variable(pid: int, name: str) -> str | None:
    with contextlib.suppress(OSError):
        pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
        return dict(pair.split("=", 1) for pair in pairs if "=" in pair).get(name)
    return None
