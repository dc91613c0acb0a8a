"""train.py and continue_train.py, run as a user runs them."""

import errno
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch
from conftest import ROOT, SMALL, same
from drive import without_locks
from PIL import Image

from config import SHIPPED_LINES, SHIPPED_WEIGHTS
from htr.pictures.images import Geometry, to_line
from htr.pictures.synthetic import draw_dataset, draw_form
from htr.pictures.views import View
from utils import load_checkpoint, save_checkpoint


def test_train_leaves_what_it_promises(trained, data_dir):
    assert sorted(path.name for path in trained.iterdir()) == [
        "htr_crnn_mini.curves.png",
        "htr_crnn_mini.history.csv",
        "htr_crnn_mini.last.pth",
        "htr_crnn_mini.previous.pth",
        "htr_crnn_mini.pth",
    ]
    best, last = (load_checkpoint(trained / f"htr_crnn_mini{part}.pth") for part in ("", ".last"))
    assert last["epoch"] == 2
    assert last["config"]["DATA_DIR"] == str(data_dir)
    assert last["best_loss"] == min(row["val_loss"] for row in last["history"])
    assert best["epoch"] == min(last["history"], key=lambda row: row["val_loss"])["epoch"]
    assert str(data_dir) not in str(best) and str(trained) not in str(best)  # it can be passed on
    assert {"model", "average", "optimizer", "scheduler", "steps", "alphabet"} <= last.keys()


def test_train_says_what_it_did(tmp_path, script, data_dir):
    done = script(tmp_path, "train.py", "--data-dir", data_dir, "--epochs", 1, *SMALL)
    assert re.search(r"train: 64 rows = 40 used \+ \d+ not drawn", done.stdout)
    assert "validation: 60 rows = 52 used" in done.stdout
    (line,) = re.findall(r"^epoch .*", done.stdout, re.MULTILINE)
    assert re.fullmatch(
        r"epoch 1/1: train loss \d+\.\d{3}, validation loss \d+\.\d{3}, CER \d\.\d{4}, exact \d\.\d{4}, lr 2\.0e-03,"
        r" \d+ images/s, best so far",
        line,
    )
    assert done.stderr == ""


def test_dry_run_writes_nothing(tmp_path, script, data_dir):
    done = script(tmp_path, "train.py", "--data-dir", data_dir, "--dry-run", *SMALL)
    assert "dry run: a batch of 8 images" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_no_dataset_is_one_clear_line(tmp_path, script):
    done = script(tmp_path, "train.py", check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: no label file of the train set found")
    assert "written_name_train_v2.csv" in line
    assert "--demo" in line
    assert list(tmp_path.iterdir()) == []


def test_continue_without_a_checkpoint_never_starts_afresh(tmp_path, script, data_dir):
    done = script(tmp_path, "continue_train.py", "--data-dir", data_dir, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "htr_crnn_mini.last.pth" in line
    assert "train.py" in line
    assert list(tmp_path.iterdir()) == []


def checkpoints(folder):
    """Both checkpoints of a run."""
    return [torch.load(folder / f"htr_crnn_mini{part}.pth", weights_only=True) for part in ("", ".last")]


@pytest.mark.parametrize("workers", [0, 3])
def test_two_epochs_and_two_more_are_four_bit_for_bit(tmp_path, script, trained, four_epochs, workers):
    copy_run(trained, tmp_path)
    done = script(tmp_path, "continue_train.py", "--epochs", 2, "--workers", workers)
    assert "epoch 3/4" in done.stdout
    assert done.stdout.count("\nepoch ") == 2
    (best, last), (best_of_four, last_of_four) = checkpoints(tmp_path), checkpoints(four_epochs)
    assert last["config"].pop("WORKERS") == workers
    del last_of_four["config"]["WORKERS"]
    assert same(last, last_of_four)
    # The best file may be of the first two epochs; it then names another number of epochs to come.
    assert best["epoch"] == best_of_four["epoch"]
    for part in ("model", "calibration", "lexicon", "spelling"):
        assert same(best[part], best_of_four[part])


@pytest.mark.parametrize("lost", ["optimizer", "steps"])
def test_control_without_its_state_a_resumed_run_differs(tmp_path, script, trained, four_epochs, lost):
    copy_run(trained, tmp_path)
    path = tmp_path / "htr_crnn_mini.last.pth"
    checkpoint = torch.load(path, weights_only=True)
    if lost == "optimizer":
        checkpoint["optimizer"]["state"] = {}
    else:
        checkpoint["steps"] += 1  # what is drawn depends on it
    save_checkpoint(checkpoint, path)
    script(tmp_path, "continue_train.py", "--epochs", 2)
    assert not same(checkpoints(tmp_path)[1]["model"], checkpoints(four_epochs)[1]["model"])


def copy_run(source, target):
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())


def test_continue_keeps_samples_and_settings(tmp_path, script, trained):
    copy_run(trained, tmp_path)
    done = script(tmp_path, "continue_train.py", "--epochs", 1, "--learning-rate", 1e-4)
    assert "40 used" in done.stdout
    history = pd.read_csv(tmp_path / "htr_crnn_mini.history.csv")
    assert history["epoch"].tolist() == [1, 2, 3]
    # A cycle of 3 epochs, in whose last 80 % the rate falls.
    assert history["learning_rate"].tolist() == pytest.approx([2e-3, 2e-3 * (2 / 3) / 0.8, 1e-4 * (1 / 3) / 0.8])


def test_continue_stops_at_characters_it_does_not_know(tmp_path, script, trained, data_dir):
    copy_run(trained, tmp_path)
    path = tmp_path / "htr_crnn_mini.last.pth"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["alphabet"] = checkpoint["alphabet"].replace("A", "Ä")
    save_checkpoint(checkpoint, path)
    done = script(tmp_path, "continue_train.py", "--epochs", 1, check=False)
    assert done.returncode == 1
    assert "'A'" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_run_goes_on_as_if_it_never_was(tmp_path, script, data_dir, four_epochs, signum):
    flags = ["--data-dir", str(data_dir), "--epochs", "1000", *SMALL]
    process = started(tmp_path, "train.py", *flags)
    for line in process.stdout:
        if line.startswith("epoch 1/"):
            process.send_signal(signum)
            break
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signum
    assert errors.count("\n") == 1
    assert "continue with continue_train.py --finish" in errors
    done = checkpoints(tmp_path)[1]["epoch"]
    never_stopped, epochs = four_epochs, 4
    if done >= epochs:  # a busy machine: the signal came late
        never_stopped, epochs = tmp_path / "never-stopped", done + 1
        never_stopped.mkdir()
        script(never_stopped, "train.py", "--data-dir", data_dir, "--epochs", epochs, *SMALL)
    script(tmp_path, "continue_train.py", "--epochs", epochs - done)
    assert same(checkpoints(tmp_path)[1], checkpoints(never_stopped)[1])


def started(folder, name, *flags, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(ROOT / name), *map(str, flags)],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def test_a_run_that_is_killed_again_and_again_ends_as_if_it_never_was(tmp_path, script, data_dir, four_epochs):
    """SIGKILL a little after its first states; more of it, in many places, does benchmarks/faults.py."""
    delays, kills = random.Random(0), 0
    last = tmp_path / "htr_crnn_mini.last.pth"
    command = ("train.py", "--data-dir", data_dir, "--epochs", 4, "--save-every", 1e-5, *SMALL)
    while True:
        before = last.stat().st_mtime_ns if last.exists() else 0
        process = started(tmp_path, *command)
        while process.poll() is None and not (last.exists() and last.stat().st_mtime_ns > before):
            time.sleep(0.01)
        if kills < 4:
            time.sleep(delays.uniform(0, 0.3))
            process.kill()
        _, errors = process.communicate(timeout=120)
        if process.returncode != -signal.SIGKILL:
            break
        kills += 1
        command = ("continue_train.py", "--finish")
    assert process.returncode == 0, errors
    assert kills >= 2
    (best, last), (best_of_four, last_of_four) = checkpoints(tmp_path), checkpoints(four_epochs)
    for checkpoint in (best, last, best_of_four, last_of_four):
        del checkpoint["config"]  # it names how often to save
    assert same(last, last_of_four)
    assert same(best, best_of_four)
    assert (tmp_path / "htr_crnn_mini.history.csv").read_bytes() == (
        four_epochs / "htr_crnn_mini.history.csv"
    ).read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_a_second_run_on_one_model_is_refused(tmp_path, script, data_dir):
    first = started(tmp_path, "train.py", "--data-dir", data_dir, "--epochs", 1000, *SMALL)
    try:
        for line in first.stdout:
            if line.startswith("epoch 1/"):
                break
        first.send_signal(signal.SIGSTOP)  # it keeps what it holds, and leaves the processor to the others
        for command in (["train.py", "--data-dir", data_dir, *SMALL], ["continue_train.py"]):
            done = script(tmp_path, *command, check=False)
            assert done.returncode == 1
            assert "another process is writing htr_crnn_mini.pth" in done.stderr
        script(tmp_path, "train.py", "--data-dir", data_dir, "--epochs", 1, "--model-path", "other.pth", *SMALL)
    finally:
        first.kill()
        first.communicate()
    script(tmp_path, "continue_train.py", "--epochs", 1)  # the lock went with its holder


@pytest.mark.skipif(sys.platform == "win32", reason="limits are POSIX's")
def test_a_full_disk_leaves_what_there_was(tmp_path, script, trained):
    """A limit on the size of files takes the part of the disk."""
    import resource

    copy_run(trained, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    limit = len(before["htr_crnn_mini.last.pth"]) // 2
    process = started(
        tmp_path, "continue_train.py", "--epochs", 1,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors == "error: htr_crnn_mini.last.pth cannot be written: File too large\n"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    script(tmp_path, "continue_train.py", "--epochs", 1)


def test_a_damaged_state_does_not_end_a_run(tmp_path, script, trained, four_epochs):
    copy_run(trained, tmp_path)
    path = tmp_path / "htr_crnn_mini.last.pth"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)
    done = script(tmp_path, "continue_train.py", "--finish")
    assert "htr_crnn_mini.last.pth is damaged" in done.stdout
    assert "continuing from the state before it, htr_crnn_mini.previous.pth" in done.stdout
    assert same(checkpoints(tmp_path)[1]["model"], checkpoints(trained)[1]["model"])


def test_finish_and_epochs_contradict_each_other(tmp_path, script):
    done = script(tmp_path, "continue_train.py", "--finish", "--epochs", 3, check=False)
    assert done.returncode == 2
    assert "--finish" in done.stderr


def test_an_odd_environment_is_no_hindrance(tmp_path, script, data_dir):
    """No UTF-8, no home that could be written."""
    odd = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "HOME": "/nonexistent", "MPLCONFIGDIR": ""}
    script(tmp_path, "train.py", "--data-dir", data_dir, "--epochs", 1, *SMALL, env=odd)
    shutil.copytree(data_dir / "test_v2", tmp_path / "éà")
    done = script(tmp_path, "predict.py", "éà", "--html", "--labels", data_dir / "CSV/written_name_test.csv", env=odd)
    assert "read 10 of 10" in done.stdout


def test_demo_keeps_to_its_folder(tmp_path, script):
    """The data is drawn small here beforehand; the rest is as a user runs it."""
    draw_dataset(tmp_path / "demo", sizes={"train": 20, "validation": 5, "test": 5})
    small = [*SMALL, "--num-samples", 20, "--validation-samples", 5]
    script(tmp_path, "train.py", "--demo", "--epochs", 1, *small)
    script(tmp_path, "continue_train.py", "--demo", "--epochs", 1)
    done = script(tmp_path, "predict.py", "--demo")
    assert "exact match" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    assert {"htr_crnn_mini.pth", "output"} <= {path.name for path in (tmp_path / "demo").iterdir()}


def test_runs_of_any_names_keep_to_themselves(tmp_path, script, data_dir):
    """Of two runs whose names differ after a point, each goes on from its own state."""
    rates = {"lr0.001": 1e-3, "lr0.002": 2e-3}
    for name, rate in rates.items():
        flags = ("--model-path", name, "--learning-rate", rate, "--epochs", 1, "--lr-cycle", 0)
        script(tmp_path, "train.py", "--data-dir", data_dir, *SMALL, *flags)
    weights = [load_checkpoint(tmp_path / f"{name}.last.pth")["model"] for name in rates]
    assert not same(*weights)
    done = script(tmp_path, "continue_train.py", "--model-path", "lr0.001", "--epochs", 1)
    assert "continuing from lr0.001.last.pth with epoch 2" in done.stdout
    assert same(load_checkpoint(tmp_path / "lr0.002.last.pth")["model"], weights[1])
    history = pd.read_csv(tmp_path / "lr0.001.history.csv")
    assert history["learning_rate"].tolist() == [1e-3, 1e-3]
    assert load_checkpoint(tmp_path / "lr0.001")["epoch"] <= 2
    done = script(tmp_path, "continue_train.py", "--model-path", "lr0.001.last.pth", "--epochs", 1)  # the state's name
    assert "continuing from lr0.001.last.pth with epoch 3" in done.stdout
    done = script(tmp_path, "train.py", "--data-dir", data_dir, "--model-path", "lr0.001.last.pth", check=False)
    assert done.returncode == 1
    assert "error: lr0.001.last.pth is the name of a state of lr0.001: choose another --model-path" in done.stderr


def test_a_state_of_an_earlier_version_is_named(tmp_path, script, trained):
    """They called it after the name without its ending, whatever that was."""
    shutil.copy(trained / "htr_crnn_mini.last.pth", tmp_path / "a.last.pth")
    done = script(tmp_path, "continue_train.py", "--model-path", "a.pt", check=False)
    assert done.returncode == 1
    assert "no checkpoint a.pt.last.pth (earlier versions called it a.last.pth, which is there: rename" in done.stderr


def other_labels(data_dir, target):
    """The same pictures with other labels, in the same letters."""
    shutil.copytree(data_dir, target)
    for table in (target / "CSV").iterdir():
        text = table.read_text(encoding="utf-8")
        table.write_text(re.sub(",(.*)", lambda match: f",{match[1][::-1]}", text), encoding="utf-8")
        table.write_text(table.read_text(encoding="utf-8").replace("YTITNEDI", "IDENTITY"), encoding="utf-8")


@pytest.mark.parametrize("change", ["labels", "pictures", "none"])
def test_on_other_data_the_best_loss_starts_anew(tmp_path, script, trained, data_dir, change):
    """However good the run was on its own data; the same data elsewhere is no other."""
    copy_run(trained, tmp_path)
    path = tmp_path / "htr_crnn_mini.last.pth"
    checkpoint = load_checkpoint(path)
    checkpoint["scheduler"] |= {"best": 1e-3, "num_bad_epochs": 2}
    save_checkpoint(checkpoint | {"best_loss": 1e-3}, path)
    if change == "labels":
        other_labels(data_dir, tmp_path / "data")
    else:
        shutil.copytree(data_dir, tmp_path / "data", copy_function=shutil.copy)  # with other times
    if change == "pictures":
        for picture in (tmp_path / "data/train_v2/train").iterdir():
            picture.write_bytes((data_dir / "train_v2/train/TRAIN_00001.jpg").read_bytes())
    done = script(tmp_path, "continue_train.py", "--data-dir", "data", "--epochs", 1)
    said = "the labels or pictures are not those of the run so far: the best loss and the plateau rule start anew"
    assert (said in done.stdout) == (change != "none")
    assert ("best so far" in done.stdout) == (change != "none")
    best = load_checkpoint(tmp_path / "htr_crnn_mini.pth")
    assert (best["epoch"] == 3) == (change != "none")
    rate = load_checkpoint(path)["optimizer"]["param_groups"][0]["lr"]
    assert rate == (2e-3 if change != "none" else 1e-3)  # a third epoch that is no better halves it
    assert "the labels or" not in script(tmp_path, "continue_train.py", "--epochs", 1).stdout  # that was said


def test_data_that_changed_within_an_epoch_is_noticed(tmp_path, script, trained, data_dir):
    copy_run(trained, tmp_path)
    path = tmp_path / "htr_crnn_mini.last.pth"
    save_checkpoint(load_checkpoint(path) | {"batches_done": 4, "loss_sum": 100.0}, path)
    shutil.copytree(data_dir, tmp_path / "data")
    table = tmp_path / "data/CSV/written_name_train.csv"
    table.write_text("".join(table.read_text(encoding="utf-8").splitlines(keepends=True)[:20]), encoding="utf-8")
    done = script(tmp_path, "continue_train.py", "--data-dir", "data", "--epochs", 1)
    assert "the data changed in the middle of epoch 3, which starts anew" in done.stdout
    assert re.search(r"epoch 3/3: .* \d+ images/s", done.stdout)
    before = load_checkpoint(trained / "htr_crnn_mini.last.pth")["steps"]
    assert load_checkpoint(path)["steps"] == before + 3  # of 8, 8 and a few


def test_labels_that_cannot_be_written_are_no_validation(tmp_path, script, data_dir):
    shutil.copytree(data_dir, tmp_path / "data")
    table = tmp_path / "data/CSV/written_name_validation.csv"
    head, *rows = table.read_text(encoding="utf-8").splitlines()
    rows = [row.split(",")[0] + ",\u00d0\u00de" for row in rows]
    table.write_text("\n".join([head, *rows]), encoding="utf-8")
    done = script(tmp_path, "train.py", "--data-dir", "data", "--epochs", 1, *SMALL, check=False)
    assert done.returncode == 1
    assert "error: none of the 52 validation labels, such as '\u00d0\u00de', can be written" in done.stderr
    assert not list(tmp_path.glob("htr_*"))


def test_few_validation_lines_do_not_calibrate(tmp_path, script, data_dir):
    flags = [*SMALL, "--validation-samples", 12, "--epochs", 1]
    done = script(tmp_path, "train.py", "--data-dir", data_dir, *flags)
    assert "12 validation images are too few to calibrate the confidence on, which takes 50" in done.stdout
    assert not {"calibration", "lexicon", "spelling"} & load_checkpoint(tmp_path / "htr_crnn_mini.pth").keys()


def test_a_run_goes_on_where_its_device_is_not(tmp_path, script, trained):
    """Nobody typed --device: the advice is not to leave it out."""
    copy_run(trained, tmp_path)
    for name in ("htr_crnn_mini.pth", "htr_crnn_mini.last.pth"):
        checkpoint = load_checkpoint(tmp_path / name)
        save_checkpoint(checkpoint | {"config": checkpoint["config"] | {"DEVICE": "cuda"}}, tmp_path / name)
    done = script(tmp_path, "continue_train.py", "--epochs", 1)
    assert "the run was on cuda, which this machine does not have" in done.stdout
    assert "million weights, on cpu" in done.stdout
    done = script(tmp_path, "continue_train.py", "--epochs", 1, "--device", "cuda", check=False)
    assert done.returncode == 1
    assert "PyTorch finds no cuda device on this machine: leave --device out" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_dataset_of_links_is_read_where_that_is_meant(tmp_path, script, data_dir):
    shutil.copytree(data_dir, tmp_path / "blobs")
    (tmp_path / "data").mkdir()
    for path in (tmp_path / "blobs").rglob("*.*"):
        link = tmp_path / "data" / path.relative_to(tmp_path / "blobs")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    flags = ("--data-dir", "data", "--epochs", 1, *SMALL)
    done = script(tmp_path, "train.py", *flags, check=False)
    assert done.returncode == 1
    assert "files that are links out of it: 64, which --follow-links reads nevertheless" in done.stderr
    assert "64 rows = 40 used" in script(tmp_path, "train.py", *flags, "--follow-links").stdout
    assert "64 rows = 40 used" in script(tmp_path, "continue_train.py", "--epochs", 1).stdout  # as before
    assert "FOLLOW_LINKS" not in load_checkpoint(tmp_path / "htr_crnn_mini.pth")["config"]


@pytest.mark.skipif(sys.platform == "win32", reason="such drives are POSIX's")
def test_a_drive_without_locks_and_sync_is_no_hindrance(tmp_path, script, data_dir, four_epochs):
    """Training, continuing and predicting end as on any other, and each says once what is not promised there."""
    env = without_locks(tmp_path / "shim", errno.ENOLCK)
    said = (
        f"the drive of {tmp_path.resolve()} refuses to lock files and to write a folder through to the disk (No locks"
        " available): a second run on the same files would not be noticed and a power cut may take back what was saved"
        " last\n"
    )
    flags = ("--data-dir", data_dir, "--epochs", 2, *SMALL)
    for command in (("train.py", *flags), ("continue_train.py", "--epochs", 2)):
        assert script(tmp_path, *command, env=env).stdout.count(said) == 1
    (best, last), (best_of_four, last_of_four) = checkpoints(tmp_path), checkpoints(four_epochs)
    assert same(last, last_of_four)
    assert same(best["model"], best_of_four["model"])
    done = script(tmp_path, "predict.py", data_dir / "test_v2", "--output-dir", ".", "--html", env=env)
    assert done.stdout.count("the drive of") == 1
    assert "read 10 of 10 images" in done.stdout
    assert not list(tmp_path.glob(".*"))


def test_the_weights_alone_continue_with_a_new_optimizer(tmp_path, script, trained, data_dir):
    """As in the project's description. Worse weights never replace those it began with."""
    shutil.copy(trained / "htr_crnn_mini.pth", tmp_path)
    before = load_checkpoint(tmp_path / "htr_crnn_mini.pth")
    flags = ("--data-dir", data_dir, "--device", "cpu")
    done = script(tmp_path, "continue_train.py", "--epochs", 1, *flags)
    assert "there is no htr_crnn_mini.last.pth: continuing from the weights alone, with a new optimizer" in done.stdout
    loss = float(re.search(r"validation loss (\d+\.\d+), CER .* before the first epoch", done.stdout)[1])
    assert loss == pytest.approx(before["history"][-1]["val_loss"], abs=1e-3)
    assert f"epoch {before['epoch'] + 1}/{before['epoch'] + 1}: " in done.stdout
    after = load_checkpoint(tmp_path / "htr_crnn_mini.last.pth")
    assert after["history"][:-1] == before["history"]
    assert after["history"][-1]["learning_rate"] == pytest.approx(1e-3)
    assert "continuing from htr_crnn_mini.last.pth" in script(tmp_path, "continue_train.py", "--epochs", 1).stdout

    (tmp_path / "worse").mkdir()
    shutil.copy(trained / "htr_crnn_mini.pth", tmp_path / "worse")
    script(tmp_path / "worse", "continue_train.py", "--epochs", 1, *flags, "--learning-rate", 1)
    kept = load_checkpoint(tmp_path / "worse" / "htr_crnn_mini.pth")
    assert same(kept["model"], before["model"])


def test_settings_may_change_between_epochs(tmp_path, script, trained):
    copy_run(trained, tmp_path)
    flags = ("--batch-size", 16, "--weight-decay", 0.1, "--lr-cycle", 0, "--num-samples", 50, "--shear", 0)
    done = script(tmp_path, "continue_train.py", "--epochs", 1, *flags)
    assert "--batch-size 16 instead of 8" in done.stdout
    assert "--weight-decay 0.1 instead of 0.5" in done.stdout
    assert "the run is no longer what it would have been without a stop" in done.stdout
    assert "= 50 used" in done.stdout
    assert "the labels or pictures are not those" not in done.stdout  # more of the same, and as validated before
    before, after = (load_checkpoint(folder / "htr_crnn_mini.last.pth") for folder in (trained, tmp_path))
    assert after["steps"] == before["steps"] + 4  # batches of 16
    assert after["optimizer"]["param_groups"][0]["weight_decay"] == 0.1
    assert after["history"][-1]["learning_rate"] == 2e-3
    again = script(tmp_path, "continue_train.py", "--epochs", 1, "--batch-size", 16)
    assert "instead of" not in again.stdout


def test_a_batch_size_that_changes_within_an_epoch_starts_it_anew(tmp_path, script, trained):
    copy_run(trained, tmp_path)
    path = tmp_path / "htr_crnn_mini.last.pth"
    save_checkpoint(load_checkpoint(path) | {"batches_done": 3, "loss_sum": 10.0}, path)
    done = script(tmp_path, "continue_train.py", "--epochs", 1, "--batch-size", 20)
    assert "another batch size in the middle of epoch 3, which starts anew" in done.stdout
    assert load_checkpoint(path)["steps"] == load_checkpoint(trained / path.name)["steps"] + 2


@pytest.mark.parametrize("name", ["htr_crnn_mini.pth", "htr_crnn_mini.last.pth"])
def test_a_new_run_starts_from_weights(tmp_path, script, trained, data_dir, name):
    """On labels with letters that they do not know; the optimizer, the history and the best loss are new."""
    shutil.copytree(data_dir, tmp_path / "data")
    for table in (tmp_path / "data" / "CSV").iterdir():
        text = table.read_text(encoding="utf-8")
        text = re.sub(",(.)(.*)", lambda row: f",{row[1]}{row[2].lower().replace('e', 'é')}", text)
        table.write_text(text.replace("Idéntity", "IDENTITY"), encoding="utf-8")
    flags = ("--data-dir", "data", "--no-uppercase", "--num-samples", 40, "--device", "cpu", "--epochs", 1)
    done = script(tmp_path, "train.py", "--pretrained", trained / name, *flags)
    old, new = load_checkpoint(trained / name), load_checkpoint(tmp_path / "htr_crnn_mini.last.pth")
    assert f"starting from the weights of {trained / name}" in done.stdout
    added = new["alphabet"].removeprefix(old["alphabet"])
    assert new["alphabet"].startswith(old["alphabet"]) and "é" in added and "a" in added
    assert (
        f"new characters: {added!r}, {len(added)} of them begun from '{added.upper().replace('É', 'E')}'" in done.stdout
    )
    assert (new["epoch"], len(new["history"])) == (1, 1)
    for setting in ("CNN_CHANNELS", "LSTM_HIDDEN", "IMG_HEIGHT"):
        assert new["config"][setting] == old["config"][setting]
    assert "read 10 of 10" in script(tmp_path, "predict.py", "data/test_v2").stdout


def test_settings_of_the_network_are_those_of_the_weights(tmp_path, script, trained, data_dir):
    flags = ("--data-dir", data_dir, "--pretrained", trained / "htr_crnn_mini.pth", "--dry-run", "--num-samples", 40)
    done = script(tmp_path, "train.py", *flags, "--lstm-hidden", 99, check=False)
    assert done.returncode == 1
    assert "has --lstm-hidden 16, which cannot change: leave --lstm-hidden out" in done.stderr
    done = script(tmp_path, "train.py", *flags, "--lstm-hidden", 16)
    assert "dry run" in done.stdout
    narrow = ("--data-dir", data_dir, "--num-samples", 40, "--epochs", 1, "--frame-width", 4)
    narrow += ("--pretrained", trained / "htr_crnn_mini.pth", "--model-path", "narrow.pth")
    script(tmp_path, "train.py", *narrow)
    assert load_checkpoint(tmp_path / "narrow.pth")["config"]["FRAME_WIDTH"] == 4
    done = script(tmp_path, "train.py", *flags[:2], "--pretrained", "narrow.pth", "--frame-width", 8, check=False)
    assert "has --frame-width 4, which cannot change: leave --frame-width out" in done.stderr
    for case, weights in (("--uppercase", SHIPPED_WEIGHTS), ("--no-uppercase", SHIPPED_LINES)):
        done = script(
            tmp_path, "train.py", "--data-dir", data_dir, "--dry-run", "--pretrained", "--num-samples", 40, case
        )
        assert f"starting from the weights of {weights}" in done.stdout
    missing = script(tmp_path, "train.py", "--pretrained", "nowhere.pth", "--data-dir", data_dir, check=False)
    assert (missing.returncode, missing.stderr.count("\n")) == (1, 1)
    assert "there is no checkpoint nowhere.pth" in missing.stderr


def test_a_run_from_weights_shows_them_the_lines_as_they_read_them_best(tmp_path, script):
    """Names that lean far to the left are leaned to the right; the run goes on so."""
    rng, rows = random.Random(0), []
    (tmp_path / "leaning").mkdir()
    for name in ("MARTIN", "BERNARD", "DUPONT", "LECLERC", "MOREAU", "GIRARD", "FONTAINE", "CHEVALIER") * 3:
        rows.append((f"{len(rows)}.png", name))
        line = to_line(draw_form(name, rng), Geometry(64, 1.2, 2048))
        Image.fromarray(View(slant=-0.8).of(line)).save(tmp_path / "leaning" / rows[-1][0])
    pd.DataFrame(rows, columns=["FILENAME", "IDENTITY"]).to_csv(tmp_path / "leaning" / "labels.csv", index=False)
    flags = ("--data-dir", "leaning", "--pretrained", SHIPPED_WEIGHTS, "--device", "cpu", "--epochs", 1)
    done = script(tmp_path, "train.py", *flags)
    (slant,) = re.findall(r"^lines are shown \S+ times as wide, and leaned by (\S+) of", done.stdout, re.MULTILINE)
    assert float(slant) > 0
    script(tmp_path, "continue_train.py", "--epochs", 1)
    for name in ("htr_crnn_mini.pth", "htr_crnn_mini.last.pth"):
        assert load_checkpoint(tmp_path / name)["config"]["VIEW_SLANT"] == pytest.approx(float(slant))
    done = script(tmp_path, "train.py", *flags, "--dry-run", "--view-slant", 0.1)  # given is given
    assert "lines are shown" not in done.stdout


def test_the_weights_that_a_run_starts_from_are_kept_until_it_has_better_ones(tmp_path, script, trained, data_dir):
    """With a rate that ruins them, the best weights are those of the start, judged on these lines."""
    flags = ("--data-dir", data_dir, "--epochs", 2, *SMALL[:6], "--device", "cpu", "--model-path", "new.pth")
    start = trained / "htr_crnn_mini.pth"
    done = script(tmp_path, "train.py", "--pretrained", start, *flags, "--learning-rate", 1, "--weight-decay", 0)
    assert "no epoch was better than the weights that the run started from" in done.stdout
    assert "best so far" not in done.stdout
    first = float(re.search(r"validation loss ([\d.]+), CER .* before the first epoch", done.stdout)[1])
    assert f"best validation loss {first:.3f}, kept in new.pth" in done.stdout
    weights = [torch.load(path, weights_only=True)["model"] for path in (start, tmp_path / "new.pth")]
    assert same(*weights)


@pytest.mark.parametrize("start", ["htr_crnn_mini.pth", "htr_crnn_mini.last.pth"])
def test_a_run_never_replaces_the_file_that_it_starts_from(tmp_path, script, trained, data_dir, start):
    copy_run(trained, tmp_path)
    before = checkpoints(tmp_path)
    for path in ("htr_crnn_mini.pth", tmp_path / "htr_crnn_mini.pth"):
        flags = ("--data-dir", data_dir, "--model-path", path, "--pretrained", tmp_path / start, *SMALL[:6])
        done = script(tmp_path, "train.py", *flags, check=False)
        assert done.returncode == 1
        assert "is the file that the run would start from and replace: choose another --model-path" in done.stderr
    assert same(before, checkpoints(tmp_path))


def test_other_data_does_not_replace_better_weights(tmp_path, script, trained, data_dir):
    """The best weights are judged anew on the other data, and stay until an epoch is better there."""
    copy_run(trained, tmp_path)
    other = tmp_path / "other"
    shutil.copytree(data_dir, other)
    for path in (other / "validation_v2" / "validation").iterdir():
        path.write_bytes(path.read_bytes() + b"\0")
    best = checkpoints(tmp_path)[0]
    done = script(tmp_path, "continue_train.py", "--data-dir", other, "--epochs", 1, "--learning-rate", 1, check=False)
    assert "kept are those in htr_crnn_mini.pth until an epoch is better than their" in done.stdout, done.stderr
    assert same(best["model"], checkpoints(tmp_path)[0]["model"])


def test_training_goes_on_when_nobody_reads_its_log(tmp_path, data_dir):
    flags = ["--data-dir", str(data_dir), "--epochs", "2", *SMALL]
    process = started(tmp_path, "train.py", *flags)
    process.stdout.readline()
    process.stdout.close()  # as `| head -1` does
    assert process.wait(120) == 0
    assert checkpoints(tmp_path)[1]["epoch"] == 2
