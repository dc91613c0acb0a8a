"""Runs the scripts in processes forked from one that has imported PyTorch already: seconds less for each of them."""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

PRELOADED = ("torch", "torchvision.transforms", "torch.optim.swa_utils", "pandas", "matplotlib.figure", "rapidfuzz")


def run_forked(command: list[str], folder: Path) -> subprocess.CompletedProcess:
    """Run a script, `command[0]`, with its arguments in a folder, and wait for its end."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    with tempfile.TemporaryDirectory() as streams:
        paths = [Path(streams, "stdout"), Path(streams, "stderr")]
        process = context.Process(target=_script, args=(command, folder, paths))
        process.start()
        process.join()
        texts = [path.read_text(encoding="utf-8", errors="replace") for path in paths]
        return subprocess.CompletedProcess(command, process.exitcode, *texts)


def _script(command: list[str], folder: Path, streams: list[Path]) -> None:
    os.chdir(folder)
    for number, path in enumerate(streams, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    sys.argv, sys.path[0] = command, str(Path(command[0]).parent)
    runpy.run_path(command[0], run_name="__main__")
