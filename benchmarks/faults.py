"""Inject faults and count what is lost: killed runs, full disks, damaged checkpoints, hostile files and CSVs.

    python benchmarks/faults.py                  # all, half an hour on two cores; needs no dataset
    python benchmarks/faults.py --only hostile   # one of them

Prints a row for each fault: how often it was injected, and how often the promise of the README held. Runs the scripts
as a user does, on drawn names in a temporary folder.
"""

import argparse
import csv
import errno
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import hostile  # noqa: E402
import pages  # noqa: E402
from conftest import same  # noqa: E402
from drive import without_locks  # noqa: E402
from hostile import picture  # noqa: E402

from config import SHIPPED_WEIGHTS  # noqa: E402
from htr.pictures.images import ImageError  # noqa: E402
from htr.pictures.synthetic import draw_dataset  # noqa: E402
from htr.results.transcripts import pages_to_read, write_page  # noqa: E402
from htr.system.scripts import HTRError  # noqa: E402
from htr.texts.page_xml import read_pages  # noqa: E402
from htr.texts.pages import pages_beside  # noqa: E402
from utils import checksum, load_checkpoint, load_network  # noqa: E402

NETWORK = (
    "--validation-samples 40 --batch-size 8 --cnn-channels 8 8 8 8 16 16 --lstm-hidden 16 --augment-steps 5 --workers 2"
    " --device cpu"
).split()
SMALL = [*"--data-dir data --num-samples 160 --epochs 12 --save-every 0.00001".split(), *NETWORK]
KILLS = 20
FLIPS = 500
GOOD = 10_000
FUZZED = 20_000
MUTATED = 5_000
Row = tuple[str, int, int]  # fault, tries, survived
SPELLINGS: dict[str, Callable[[str], str]] = {  # of a picture's name
    "with a folder": "train/{}".format,
    "with folders": "train_v2/train/{}".format,
    "with backslashes": "train_v2\\train\\{}".format,
    "with ./": "./{}".format,
    "with ../": "../train_v2/train/{}".format,
    "with blanks": " {} ".format,
    "with another machine's path": "/home/somebody/scans/train/{}".format,
    "with a drive": "C:\\scans\\{}".format,
    "in lower case": str.lower,
    "without suffix": lambda name: name.removesuffix(".jpg"),
}


def start(folder: Path, script: str, *flags: str, **options) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / script), *flags]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=folder, text=True, errors="replace", **pipes, **options)


def run(folder: Path, script: str, *flags: str, **options) -> tuple[int, str, str]:
    """Exit status, standard output, standard error."""
    process = start(folder, script, *flags, **options)
    out, err = process.communicate()
    return process.returncode, out, err


def must(folder: Path, script: str, *flags: str) -> str:
    status, out, err = run(folder, script, *flags)
    if status:
        sys.exit(f"{script} failed: {err}")
    return out


def clean(error: str) -> bool:
    """One line that a user can read."""
    return error.startswith("error: ") and error.count("\n") == 1 and "Traceback" not in error


def trained(folder: Path) -> Path:
    """A run that was never disturbed, in a folder of its own."""
    if not (folder / "whole").exists():
        draw_dataset(folder / "data", seed=1, sizes={"train": 200, "validation": 50, "test": 50})
        (folder / "whole").mkdir()
        (folder / "whole" / "data").symlink_to(folder / "data")
        must(folder / "whole", "train.py", *SMALL)
    return folder / "whole"


def run_of(folder: Path, name: str, copy: bool = False) -> Path:
    """A folder for another run, with or without the files that the undisturbed one left."""
    whole, other = trained(folder), folder / name
    other.mkdir()
    (other / "data").symlink_to(folder / "data")
    for path in whole.glob("htr_crnn_mini.*") if copy else ():
        (other / path.name).write_bytes(path.read_bytes())
    return other


def same_end(a: Path, b: Path) -> bool:
    """Whether two runs left the same weights, states and history, bit for bit."""
    history = "htr_crnn_mini.history.csv"
    return (a / history).read_bytes() == (b / history).read_bytes() and all(
        same(load_checkpoint(a / name), load_checkpoint(b / name))
        for name in ("htr_crnn_mini.pth", "htr_crnn_mini.last.pth")
    )


def kills(folder: Path) -> Iterator[Row]:
    """SIGKILL at random moments of one run: some anywhere from its start on, some soon after it saved a state."""
    whole, other, rng = trained(folder), run_of(folder, "killed"), random.Random(0)
    last, done, status = other / "htr_crnn_mini.last.pth", 0, None
    while status != 0:
        command = ("continue_train.py", "--finish") if last.exists() else ("train.py", *SMALL)
        before = last.stat().st_mtime_ns if last.exists() else 0
        process = start(other, *command)
        if done < KILLS:
            if done % 4:
                while process.poll() is None and not (last.exists() and last.stat().st_mtime_ns > before):
                    time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.6 if done % 4 else 8))
            process.kill()
        _, errors = process.communicate()
        status = process.returncode
        if status not in (0, -signal.SIGKILL):
            sys.exit(f"after {done} kills: {errors}")
        done += status == -signal.SIGKILL
    yield (
        f"SIGKILL, {done} times in one training: it ends bit for bit as if never killed",
        done,
        done * same_end(whole, other),
    )
    left = [path.name for path in other.iterdir() if path.name.startswith(".")]
    yield "temporary files and locks of the killed, gone at the end", done, done - len(left)


def signals(folder: Path) -> Iterator[Row]:
    """SIGINT and SIGTERM: status, one line, and the same end."""
    good, tries, rng = 0, 6, random.Random(1)
    for number in range(tries):
        other, signum = run_of(folder, f"signal-{number}"), (signal.SIGINT, signal.SIGTERM)[number % 2]
        process = start(other, "train.py", *SMALL)
        for line in process.stdout:
            if line.startswith("epoch 2/"):
                break
        time.sleep(rng.uniform(0, 1))
        process.send_signal(signum)
        errors = process.communicate()[1]
        stopped = process.returncode == 128 + signum and errors.count("\n") == 1 and "--finish" in errors
        must(other, "continue_train.py", "--finish")
        good += stopped and same_end(trained(folder), other)
    yield "SIGINT, SIGTERM: state saved, status 130 or 143, the same end", tries, good


def disk(folder: Path) -> Iterator[Row]:
    """Too little space for the next state, from none to nearly enough: a limit and, if it can be mounted, a tmpfs."""
    other = run_of(folder, "full", copy=True)
    before = {path.name: path.read_bytes() for path in other.glob("htr_crnn_mini.*")}
    size, good, tries = len(before["htr_crnn_mini.last.pth"]), 0, 8
    for number in range(tries):
        limit = size * number // tries
        status, _, errors = run(
            other, "continue_train.py", "--epochs", "1",
            preexec_fn=lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        )  # fmt: skip
        after = {path.name: path.read_bytes() for path in other.iterdir() if path.is_file()}
        good += status == 1 and clean(errors) and after == before
    yield "limit on the size of files while saving: old state whole, one line", tries, good

    mount = folder / "mounted"
    mount.mkdir()
    total = sum(map(len, before.values()))
    options = f"size={total + size // 2}"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(mount)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        return
    try:
        for name, content in before.items():
            (mount / name).write_bytes(content)
        (mount / "data").symlink_to(folder / "data")
        status, _, errors = run(mount, "continue_train.py", "--epochs", "1")
        after = {path.name: path.read_bytes() for path in mount.iterdir() if path.is_file()}
        full = status == 1 and clean(errors) and "No space left" in errors and after == before
        yield "full disk (tmpfs): old state whole, one line", 1, full
        subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
        status, _, errors = run(mount, "continue_train.py", "--epochs", "1")
        after = {path.name: path.read_bytes() for path in mount.iterdir() if path.is_file()}
        yield "read-only folder: old state whole, one line", 1, status == 1 and clean(errors) and after == before
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def refusal(load: Callable[[Path], object], path: Path) -> Callable[[bytes], bool]:
    """Whether a file that holds these bytes is refused with an error that names it."""

    def refused(data: bytes) -> bool:
        path.write_bytes(data)
        try:
            load(path)
        except HTRError as error:
            return str(path) in str(error)
        return False

    return refused


def flips_and_cuts(kind: str, whole: bytes, refused: Callable[[bytes], bool], rng: random.Random) -> Iterator[Row]:
    """One bit of a file flipped, and its end cut off, anywhere."""
    good = 0
    for _ in range(FLIPS):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        good += refused(bytes(data))
    yield f"{kind} with one bit flipped: refused", FLIPS, good
    yield f"{kind} cut short: refused", 100, sum(refused(whole[: rng.randrange(len(whole))]) for _ in range(100))


def damage(folder: Path) -> Iterator[Row]:
    """Damaged checkpoints, by the shipped weights; and a state that is damaged on the disk."""
    path, rng = folder / "damaged.pth", random.Random(2)
    refused = refusal(load_checkpoint, path)
    yield from flips_and_cuts("checkpoint", SHIPPED_WEIGHTS.read_bytes(), refused, rng)

    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(folder / "attacked"),)

    def signed(value: object) -> bytes:
        torch.save(value, path)
        data = path.read_bytes()[:-2]
        return data + len(checksum(data)).to_bytes(2, "little") + checksum(data)

    ours = load_checkpoint(SHIPPED_WEIGHTS)
    foreign = [b"", b"text", bytes(1000), signed([1]), signed({"state_dict": {}}), signed(ours | {"version": 9})]
    foreign += [signed(ours | {"model": Attack()}), signed(Attack())]
    good = sum(map(refused, foreign)) if not (folder / "attacked").exists() else 0
    yield "empty, another program's, or one that would run code: refused", len(foreign), good
    misfits = [ours | {"alphabet": "ABC"}, ours | {"alphabet": 5}, ours | {"model": {}}, ours | {"config": {"X": 1}}]
    misfits += [ours | {"config": ours["config"] | change}
                for change in ({"LSTM_HIDDEN": 64}, {"LSTM_HIDDEN": 10**9}, {"IMG_HEIGHT": "64"})]  # fmt: skip
    good = 0
    for misfit in misfits:
        path.write_bytes(signed(misfit))
        status, _, errors = run(folder, "predict.py", str(ROOT / "samples"), "--model-path", str(path))
        good += status == 1 and clean(errors)
    yield "checkpoint with another alphabet, shape or setting: refused", len(misfits), good

    good, tries = 0, 3
    for number in range(tries):
        other = run_of(folder, f"fallback-{number}", copy=True)
        last = other / "htr_crnn_mini.last.pth"
        data = bytearray(last.read_bytes())
        data[rng.randrange(len(data))] ^= 1
        last.write_bytes(data)
        out = must(other, "continue_train.py", "--finish")
        good += "continuing from the state before it" in out and same_end(trained(folder), other)
    yield "last state damaged: continues from the one before, the same end", tries, good


def onnx_files(folder: Path) -> Iterator[Row]:
    """Damaged ONNX files, by the shipped one, and some that hold another graph, with the right checksum."""
    whole = SHIPPED_WEIGHTS.with_suffix(".onnx").read_bytes()
    refused = refusal(lambda path: load_network(path, "cpu"), folder / "damaged.onnx")
    yield from flips_and_cuts("ONNX file", whole, refused, random.Random(5))
    operators = [b"\x04Relu", b"\x04Conv", b"\x04LSTM", b"\x07MaxPool", b"\x07Softmax", b"\x07Squeeze", b"\x07Reshape"]
    foreign = [whole.replace(b"\x22" + name, b"\x22" + name[:1] + b"L" * name[0]) for name in operators]
    foreign += [b"", b"text", bytes(1000), whole + b"\0", whole + whole]
    yield (
        "ONNX file that is empty, another program's, or with another graph: refused",
        len(foreign),
        sum(map(refused, foreign)),
    )


def locks(folder: Path) -> Iterator[Row]:
    """A second run on the same files, while the first lives and after it died."""
    other = run_of(folder, "locked")
    first = start(other, "train.py", *SMALL)
    for line in first.stdout:
        if line.startswith("epoch 1/"):
            break
    first.send_signal(signal.SIGSTOP)
    seconds = [run(other, "train.py", *SMALL), run(other, "continue_train.py")]
    refused = sum(status == 1 and clean(errors) for status, _, errors in seconds)
    first.kill()
    first.communicate()
    alive = run(other, "continue_train.py", "--finish")[0] == 0
    yield "second run on one --model-path: refused; the lock of a dead one: no obstacle", 3, refused + alive


def table(path: Path) -> dict[str, dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return {row["FILENAME"]: row for row in csv.DictReader(file)}


def bad_files(folder: Path) -> Iterator[Row]:
    """Hostile and odd files among 10,000 good ones, and the memory that reading takes with and without them."""
    images, memory = folder / "images", []
    images.mkdir()
    for number in range(100):
        picture((120 + number, 40), number).save(images / f"good-0-{number:02}.png")
        for link in range(1, GOOD // 100):
            os.link(images / f"good-0-{number:02}.png", images / f"good-{link}-{number:02}.png")
    reasons: dict[str, str] = {}
    odd: set[str] = set()
    for with_bad in (False, True):
        if with_bad:
            reasons, odd = hostile.write_bad(images), hostile.write_odd(images)
        process = start(folder, "predict.py", "images", "--device", "cpu")
        status, peak = 0, 0
        while process.poll() is None:
            try:
                peak = max(peak, int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())[1]))
            except (OSError, TypeError):
                break
            time.sleep(0.2)
        status = process.wait()
        memory.append(peak / 1024)
    rows = table(folder / "output" / "predictions.csv")
    complete = set(rows) == {path.name for path in images.glob("good-*")} | odd | set(reasons) and status == 1
    good = sum(not row["ERROR"] for name, row in rows.items() if name.startswith("good-"))
    yield "good files among them: read", GOOD, good * complete
    yield "kinds of odd pictures: read", len(odd), sum(not rows[name]["ERROR"] for name in odd)
    told = sum(reason in rows[name]["ERROR"] != "" for name, reason in reasons.items())
    yield "kinds of hostile files: a row with the reason", len(reasons), told
    print(
        f"peak memory of reading: {memory[0]:.0f} MiB without the hostile and odd files, {memory[1]:.0f} MiB with them"
    )


def fuzz(folder: Path) -> Iterator[Row]:
    """Pictures with changed bytes, read by predict.py."""
    good = read = 0
    for part in range(4):
        images = folder / f"fuzz-{part}"
        images.mkdir()
        for number, data in enumerate(hostile.mutations(seed=part, count=FUZZED // 4)):
            (images / f"{number:05}.png").write_bytes(data)
        status, _, errors = run(folder, "predict.py", images.name, "--device", "cpu")
        rows = table(folder / "output" / "predictions.csv")
        if status == 1 and "Traceback" not in errors:
            good += sum(bool(row["ERROR"]) != bool(row["CONFIDENCE"]) for row in rows.values())
        read += sum(not row["ERROR"] for row in rows.values())
    yield f"pictures with changed bytes ({read:,} of them still readable): a row for each", FUZZED, good


def tables(folder: Path) -> Iterator[Row]:
    """Label CSVs that are wrong or odd: a clear sentence, or the right rows; never a file outside opened."""
    trained(folder)
    whole = (folder / "data/CSV/written_name_train.csv").read_text(encoding="utf-8")
    rows = whole.splitlines()
    last = rows[-1].split(",")[0]
    secret = folder / "secret.jpg"
    secret.write_bytes((folder / "data/train_v2/train" / last).read_bytes())
    escapes = f"../../../secret.jpg,A\n{secret},A\nnul\0.jpg,A\n"
    odd = (
        {  # read like any other
            "byte order mark": "\ufeff" + whole,
            "semicolons": whole.replace(",", ";"),
            "tabs": whole.replace(",", "\t"),
            "Windows' line ends": whole.replace("\n", "\r\n"),
            "names that lead outside": whole + escapes,
            "a name again": whole + f"{last},OTHER\n",
            "a line of 100 MB": whole + "x.jpg," + "A" * 100_000_000 + "\n",
            "short rows": whole + "\n".join(row.split(",")[0] for row in rows[1:4]) + "\n",
            "more columns": "\n".join(f"{row},x" for row in rows) + "\n",
            "blanks after commas": whole.replace(",", ", "),
            "UTF-16": whole.encode("utf-16"),
            "UTF-16 without a mark": whole.encode("utf-16-le"),
            "Excel's sep=": "sep=,\n" + whole,
            "no header": "\n".join(rows[1:]),
            "a spreadsheet's empty cells": whole.replace("\n", ",,\n") + ",,,\n" * 3,
            "JSON": json.dumps([dict(zip(rows[0].split(","), row.split(","), strict=True)) for row in rows[1:]]),
            "other columns": whole.replace("FILENAME,IDENTITY", "Image Path,Ground-Truth"),
        }
        | {
            f"names {what}": "\n".join(
                [rows[0], *(",".join([write(row.split(",")[0]), *row.split(",")[1:]]) for row in rows[1:])]
            )
            for what, write in SPELLINGS.items()
        }
    )
    bad = {  # refused, with the file's name
        "Latin-1": (whole + f"{last},").encode() + b"L\xe9A\n",
        "UTF-16 cut short": whole.encode("utf-16")[:-1],
        "open quote": (whole + f'{last},"A\n').encode(),
        "quote over rows": (rows[0] + f'\n{last},"A\n' + "\n".join(rows[1:]) + '\nz.jpg,"B\n').encode(),
        "several texts": "\n".join([f"{rows[0]},TEXT", *(f"{row},x" for row in rows[1:])]).encode(),
        "no header, commas in texts": "\n".join(f"{row}, x" for row in rows[1:]).encode(),
        "other JSON": b'{"images": []}',
        "an old workbook": b"\xd0\xcf\x11\xe0" * 99,
        "no IDENTITY": whole.replace("IDENTITY", "NAME").encode(),
        "unknown columns": whole.replace("FILENAME,IDENTITY", "SCAN,READING").encode(),
        "names of no picture": re.sub("TRAIN_", "OTHER_", whole).encode(),
        "a cell too many": (whole + f"{last},A,B\n").encode(),
        "empty": b"",
        "bytes": bytes(range(256)) * 10,
        "a folder": None,
    }

    def check(data: Path) -> tuple[int, str, str]:
        return run(folder, "train.py", "--data-dir", str(data), "--dry-run", "--num-samples", "0", *NETWORK)

    def used(out: str) -> str:
        return re.search(r"train: .* = ([\d,]+) used", out)[1]

    good, usable = 0, used(check(folder / "data")[1])
    for number, content in enumerate([*odd.values(), *bad.values()]):
        data = folder / f"tables-{number}"
        data.mkdir()
        for path in (folder / "data").iterdir():
            if path.name != "CSV":
                (data / path.name).symlink_to(path)
        (data / "CSV").mkdir()
        valid = (folder / "data/CSV/written_name_validation.csv").read_bytes()
        (data / "CSV" / "written_name_validation.csv").write_bytes(valid)
        target = data / "CSV" / "written_name_train.csv"
        if content is None:
            target.mkdir()
        else:
            target.write_bytes(content.encode() if isinstance(content, str) else content)
        status, out, errors = check(data)
        if number < len(odd):
            good += status == 0 and used(out) == usable
        else:
            good += status == 1 and clean(errors) and "written_name_train.csv" in errors
    yield "kinds of odd label CSVs read alike, of bad ones refused by name", len(odd) + len(bad), good


def readings(folder: Path) -> Iterator[Row]:
    """A reading that is killed again and again, and continued with --resume."""
    images, rng, done = folder / "to-read", random.Random(3), 0
    images.mkdir()
    for number in range(4000):
        picture((150 + number % 100, 40), number).save(images / f"{number:04}.png")
    must(folder, "predict.py", "to-read", "--device", "cpu", "--output-dir", "undisturbed")
    before = 0
    while True:
        process = start(folder, "predict.py", "to-read", "--device", "cpu", "--output-dir", "disturbed", "--resume")
        journal = folder / "disturbed" / "predictions.partial.jsonl"
        if done < 5:
            while process.poll() is None and not (journal.exists() and journal.stat().st_size > before):
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.5))
            process.kill()
            before = journal.stat().st_size if journal.exists() else 0
        process.communicate()
        if process.returncode == 0:
            break
        done += 1
    texts = [
        {name: row["PREDICTION"] for name, row in table(folder / name / "predictions.csv").items()}
        for name in ("undisturbed", "disturbed")
    ]
    yield f"SIGKILL, {done} times in one reading with --resume: the same texts", done, done * (texts[0] == texts[1])


def names(folder: Path) -> Iterator[Row]:
    """The labels of predict.py with names as people write them; folders with what systems leave there."""
    whole, data = trained(folder), folder / "data"
    rows = (data / "CSV/written_name_test.csv").read_text(encoding="utf-8").splitlines()[1:]
    labels, good = folder / "labels.csv", 0

    def score(*flags: str) -> str:
        out = must(whole, "predict.py", "data/test_v2/test", "--labels", str(labels), "--device", "cpu", *flags)
        return re.search("CER .*", out)[0]

    scores = []
    for write in (str, *SPELLINGS.values()):
        cells = [row.split(",") for row in rows]
        text = "".join(f"{write(name).replace('train', 'test')},{text}\n" for name, text in cells)
        labels.write_text("FILENAME,IDENTITY\n" + text, encoding="utf-8")
        scores.append(score())
    good = sum(each == scores[0] for each in scores[1:])
    yield "spellings of names in --labels: the same score", len(SPELLINGS), good
    labels.write_text("FILENAME,IDENTITY\nelsewhere/1.jpg,LEA\n")
    status, _, errors = run(whole, "predict.py", "data/test_v2/test", "--labels", str(labels))
    yield "labels that name no picture: one line", 1, status == 1 and clean(errors)

    left = ("._a.jpg", "__MACOSX/a.jpg", ".ipynb_checkpoints/a.jpg", "@eaDir/a.jpg", ".hidden/a.jpg", "#recycle/a.jpg")
    scans = folder / "pages"
    for page in ("1", "2"):
        shutil.copytree(data / "test_v2/test", scans / page)
        for name in left:
            (scans / page / name).parent.mkdir(exist_ok=True)
            (scans / page / name).write_bytes(b"\0\5\26\7")
    must(folder, "predict.py", "pages/1", "pages/2", "./pages/1", "--model-path", "whole/htr_crnn_mini.pth")
    found = [name for name, row in table(folder / "output/predictions.csv").items() if not row["ERROR"]]
    yield "files that systems leave in folders: passed over", 2 * len(left), 2 * len(left) * (len(found) == 100)


def drives(folder: Path) -> Iterator[Row]:
    """Training, continuing and reading where files cannot be locked and folders not be synced."""
    numbers = (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO, errno.ENOSYS)
    good = 0
    for number in numbers:
        other, env = run_of(folder, f"drive-{number}"), os.environ | without_locks(folder / "shim", number)
        commands = [("train.py", *SMALL, "--epochs", "5"), ("continue_train.py", "--epochs", "7"),
                    ("predict.py", "data/test_v2", "--device", "cpu")]  # fmt: skip
        done = [run(other, *command, env=env) for command in commands]
        said = all(status == 0 and out.count("the drive of") == 1 for status, out, _ in done)
        weights = [load_checkpoint(each / "htr_crnn_mini.last.pth")["model"] for each in (trained(folder), other)]
        good += said and same(*weights)
    yield "drives without locks and sync: the same end, said once", len(numbers), good


def runs(folder: Path) -> Iterator[Row]:
    """Runs of names that are alike, other data, and too few labels to calibrate on."""
    other, alike = run_of(folder, "alike"), ["lr0.001", "lr0.002", "a.pth", "a.pt", "v1.2/names.v1", "v1.2/names.v2"]
    for name in alike:
        must(other, "train.py", *SMALL, "--epochs", "1", "--model-path", name, "--seed", str(alike.index(name)))
    for name in alike:
        must(other, "continue_train.py", "--epochs", "1", "--model-path", name)
    states = [load_checkpoint(other / f"{name.removesuffix('.pth')}.last.pth") for name in alike]
    good = sum(state["config"]["SEED"] == n and state["epoch"] == 2 for n, state in enumerate(states))
    yield "runs whose names differ after a point: each its own state", len(alike), good

    other = run_of(folder, "other-data", copy=True)
    draw_dataset(other / "new", seed=9, sizes={"train": 200, "validation": 50, "test": 5})
    out = must(other, "continue_train.py", "--epochs", "1", "--data-dir", "new")
    kept = load_checkpoint(other / "htr_crnn_mini.pth")["epoch"] == 13 and "start anew" in out
    yield "a run that continues on other data: its weights are kept", 1, kept

    before = SHIPPED_WEIGHTS.read_bytes()
    (other / "labels.csv").write_text("".join(f"TEST_0000{n}.jpg,WRONG\n" for n in range(1, 4)))
    flags = ("predict.py", "data/test_v2/test", "--labels", "labels.csv", "--calibrate", "--model-path")
    done = [run(other, *flags, path) for path in ("htr_crnn_mini.pth", str(SHIPPED_WEIGHTS))]
    refused = sum(status == 1 and clean(errors) and "at least 50" in errors for status, _, errors in done)
    yield (
        "calibration on three labels: refused, the shipped weights as they were",
        2,
        refused * (SHIPPED_WEIGHTS.read_bytes() == before),
    )


def page_files(folder: Path) -> Iterator[Row]:
    """Hostile ALTO and PAGE files among good ones, and mutated ones: opened, cut and written as far as they go."""
    book, kinds, good = folder / "book", pages.hostile(), 0
    for n in range(60):
        pages.write_page(book, f"good{n}", seed=n)
    pages.write_page(book, "bad")
    for content, said in kinds.values():
        (book / "bad.xml").write_bytes(content)
        status, out, errors = run(folder, "train.py", "--data-dir", "book", "--dry-run", *NETWORK)
        usable = 240 + 3 * (said == "line")
        held = status == 0 and not errors and f"train: {usable + (said == 'line'):,} lines = " in out
        status, _, errors = run(folder, "predict.py", "book/bad.png", "--pages", "--device", "cpu")
        (row,) = list(table(folder / "output/predictions.csv").values())[:1]
        reason = "" if said == "line" else said or "has no ALTO or PAGE file"
        good += held and status == bool(reason) and reason in row["ERROR"] and "Traceback" not in errors
    yield "kinds of hostile or odd XML among good pages: counted by train.py, a row of predict.py", len(kinds), good

    opened: list[str] = []
    sys.addaudithook(lambda event, rest: opened.append(str(rest[0])) if event == "open" else None)
    rng, whole, outside, good, cut = random.Random(4), [xml for xml, _ in pages.DIALECTS.values()], set(), 0, 0
    one = pages.write_page(folder / "alone" / "one")
    for _ in range(MUTATED):
        (one / "page.xml").write_bytes(pages.mutated(rng.choice(whole), rng))
        opened.clear()
        try:
            found = pages_beside([one / "page.png"], [one])
            for read in pages_to_read([("page.png", one / "page.png")], found, one / "out"):
                if read.error:
                    continue
                strips = read.whole.strips(range(len(read.lines)))
                cut += sum(not isinstance(strip, ImageError) for strip in strips)
                rows = [{"PREDICTION": "x", "CONFIDENCE": 0.5, "ERROR": ""} for _ in read.lines]
                write_page(read, rows, one / "out")
                again = read_pages(one / "out" / "pages" / "page.xml")
                good -= [line.text for line in again[0].lines] != ["x"] * len(read.lines)
            good += 1
        except HTRError as error:
            good += "\n" not in str(error)
        outside |= {path for path in opened if not path.startswith((str(one), sys.prefix, str(ROOT), "/dev/null"))}
    print(f"<!-- {cut:,} lines were cut from mutated files; opened elsewhere: {sorted(outside) or 'nothing'} -->")
    yield (
        "mutated ALTO and PAGE files: read and written, or refused in a sentence; nothing else opened",
        MUTATED,
        (good * (not outside)),
    )


FAULTS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "kills": kills, "signals": signals, "disk": disk, "damage": damage, "onnx": onnx_files, "locks": locks,
    "hostile": bad_files, "fuzz": fuzz, "tables": tables, "readings": readings,
    "names": names, "drives": drives, "runs": runs, "pages": page_files,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=FAULTS, default=list(FAULTS), help="(default: all)")
    args = parser.parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # bit for bit the same is promised on a CPU
    lost = 0
    print("| fault | tries | survived | lost |\n|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in args.only:
            for fault, tries, survived in FAULTS[name](Path(folder)):
                print(f"| {fault} | {tries:,} | {int(survived):,} | {tries - int(survived):,} |", flush=True)
                lost += tries - survived
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
