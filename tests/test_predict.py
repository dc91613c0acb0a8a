"""predict.py run as a user does, and the lines of its description in Python."""

import contextlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import hostile
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, run_without_torch
from PIL import Image

import reading
import utils
from benchmarks.pictures import VARIANTS
from config import SHIPPED_LINES, SHIPPED_WEIGHTS, SHIPPED_WORDS
from dataset import geometry
from htr.decoding import onnx
from htr.decoding.confidence import Ngrams
from htr.decoding.lexicon import NEUTRAL
from htr.decoding.onnx import weight_shapes
from htr.pictures.cutting import PageLine, PagePicture
from htr.pictures.images import Decoded, ImageError, find_files, to_line
from htr.pictures.synthetic import draw_form
from htr.pictures.views import View
from htr.results.scores import LABEL_COLUMNS, Score
from htr.results.tables import Journal
from htr.system.onnx_file import weights_at_the_end
from htr.system.scripts import HTRError
from predict import predict_batch, predict_single_image
from reading import CHOICE_COLUMNS, COLUMNS, Reader
from utils import load_checkpoint, save_checkpoint, settings_of, sizes_of

THE_DESCRIPTION = """
from config import Config
from predict import predict_batch, predict_single_image
predict_batch(model_path=Config.MINI_MODEL_PATH, image_dir=Config.TEST_IMG_DIR, output_dir="output", save_csv=True)
predict_single_image(model_path=Config.MINI_MODEL_PATH, image_path="path/to/your/image.png")
"""


TABLES = {"predictions.csv", "predictions.txt"}


def table(path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


HARD = {
    "ruled lines of 140",
    "faint ruled lines, turned by 1 degree",
    "turned by 3 degrees and cut to size, black corners",
}


@pytest.fixture(scope="module")
def shipped() -> Reader:
    return Reader.load(ROOT / "weights" / "htr_crnn_names.pth", "cpu")


@pytest.fixture
def folder(tmp_path, trained, data_dir):
    """An empty folder with nothing but a checkpoint and test images."""
    shutil.copy(trained / "htr_crnn_mini.pth", tmp_path)
    shutil.copytree(data_dir / "test_v2", tmp_path / "test_v2")
    return tmp_path


def test_the_descriptions_lines_run_as_they_stand(folder):
    (folder / "path" / "to" / "your").mkdir(parents=True)
    shutil.copy(folder / "test_v2" / "test" / "TEST_00001.jpg", folder / "path" / "to" / "your" / "image.png")
    done = subprocess.run(
        [sys.executable, "-c", THE_DESCRIPTION], cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(table(folder / "output" / "predictions.csv")) == 10


def test_the_description_stands_in_the_script():
    for line in THE_DESCRIPTION.strip().splitlines():
        assert f"    {line}\n" in (ROOT / "predict.py").read_text(encoding="utf-8")


def test_one_row_an_image_in_sorted_order(folder, script):
    done = script(folder, "predict.py")
    rows = table(folder / "output" / "predictions.csv")
    assert tuple(rows.columns) == COLUMNS
    assert rows["FILENAME"].tolist() == [f"TEST_{n:05}.jpg" for n in range(1, 11)]
    assert all(0 <= float(confidence) <= 1 for confidence in rows["CONFIDENCE"])
    assert [len(cell.split()) for cell in rows["CHARACTER_CONFIDENCES"]] == [len(text) for text in rows["PREDICTION"]]
    lines = (folder / "output" / "predictions.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split("\t") for line in lines] == rows[["FILENAME", "PREDICTION", "CONFIDENCE"]].values.tolist()
    assert "read 10 of 10 images with htr_crnn_mini.pth" in done.stdout
    assert done.stderr == ""


def test_flat_layout(folder, script, monkeypatch):
    for path in list((folder / "test_v2" / "test").iterdir()):
        path.rename(folder / "test_v2" / path.name)
    (folder / "test_v2" / "test").rmdir()
    script(folder, "predict.py")
    assert len(table(folder / "output" / "predictions.csv")) == 10
    monkeypatch.chdir(folder)
    assert len(predict_batch("htr_crnn_mini.pth", "test_v2/test", save_csv=False, device="cpu")) == 10


def test_what_cannot_be_read_has_its_row(folder, script):
    images = folder / "scans"
    (images / "sub").mkdir(parents=True)
    good = folder / "test_v2" / "test" / "TEST_00001.jpg"
    shutil.copy(good, images / "sub" / "good.jpg")
    (images / "broken.png").write_bytes(b"nothing")
    (images / "cut.jpg").write_bytes(good.read_bytes()[:500])
    (images / "notes.txt").write_text("no image")
    done = script(folder, "predict.py", "scans", "--output-dir", "out", check=False)
    assert done.returncode == 1
    rows = table(folder / "out" / "predictions.csv")
    assert rows["FILENAME"].tolist() == ["broken.png", "cut.jpg", "sub/good.jpg"]
    assert rows["ERROR"].astype(bool).tolist() == [True, True, False]
    assert rows["CONFIDENCE"].astype(bool).tolist() == [False, False, True]
    assert "read 1 of 3 images" in done.stdout
    assert "files passed over, as no images: 1" in done.stdout
    assert "2 images could not be read, broken.png cannot be read" in done.stderr


def test_one_image_prints_its_text_and_confidence(folder, script, monkeypatch):
    image = "test_v2/test/TEST_00003.jpg"
    done = script(folder, "predict.py", image)
    monkeypatch.chdir(folder)
    text, confidence = predict_single_image("htr_crnn_mini.pth", image, device="cpu")
    assert f"{image}  {text}  (confidence {confidence:.2f})" in done.stdout
    rows = predict_batch("htr_crnn_mini.pth", "test_v2", save_csv=False, device="cpu")
    assert rows["PREDICTION"][2] == text
    assert rows["CONFIDENCE"][2] == pytest.approx(confidence, rel=1e-3)
    (folder / "bad.png").write_bytes(b"bad")
    with pytest.raises(HTRError, match=r"bad\.png cannot be read"):
        predict_single_image("htr_crnn_mini.pth", "bad.png", device="cpu")
    with pytest.raises(HTRError, match="test_v2 is a folder"):
        predict_single_image("htr_crnn_mini.pth", "test_v2", device="cpu")


def test_the_function_does_what_the_command_line_does(folder, script, data_dir, monkeypatch, capsys):
    labels = data_dir / "CSV" / "written_name_test.csv"
    flags = ("--labels", labels, "--lexicon", labels, "--html", "--spreadsheet", "--device", "cpu")
    done = script(folder, "predict.py", "test_v2", "--output-dir", "by-flags", *flags)
    monkeypatch.chdir(folder)
    options = {"labels": labels, "lexicon": labels, "html": True, "spreadsheet": True, "device": "cpu"}
    rows = predict_batch("htr_crnn_mini.pth", "test_v2", "by-function", **options)
    printed = capsys.readouterr().out.replace("by-function", "by-flags")
    assert without_speed(printed) == without_speed(done.stdout)
    names = sorted(path.name for path in (folder / "by-flags").iterdir())
    assert names == ["predictions.csv", "predictions.txt", "predictions.xlsx", "report.html"]
    for name in names:
        by_flags, by_function = (folder / way / name for way in ("by-flags", "by-function"))
        if name.endswith(".xlsx"):
            pd.testing.assert_frame_equal(pd.read_excel(by_flags), pd.read_excel(by_function))
        else:
            assert without_speed(by_flags.read_text()) == without_speed(by_function.read_text())
    pd.testing.assert_frame_equal(rows.astype(str), table(folder / "by-function" / "predictions.csv"))


def without_speed(text: str) -> str:
    return re.sub(r"\d+ images/s", "", text)


def test_options_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="calibrate needs labels"):
        predict_batch("htr_crnn_mini.pth", "test_v2", calibrate=True)
    for option in ("html", "spreadsheet", "resume"):
        with pytest.raises(ValueError, match="need a folder"):
            predict_batch("htr_crnn_mini.pth", "test_v2", save_csv=False, **{option: True})


def test_labels_add_truth_and_scores(folder, script, data_dir):
    script(folder, "predict.py")
    readings = table(folder / "output" / "predictions.csv")["PREDICTION"].tolist()
    # Nine labels: five as read, four with one letter more; the last image has none.
    labels = [text + "É" * (n >= 5) for n, text in enumerate(readings[:9])]
    labels = [label or "X" for label in labels]
    names = [f"TEST_{n:05}.jpg" for n in range(1, 10)]
    pd.DataFrame({"FILENAME": names, "IDENTITY": labels}).to_csv(folder / "labels.csv", index=False)
    done = script(folder, "predict.py", "--labels", "labels.csv")
    rows = table(folder / "output" / "predictions.csv")
    assert rows["TRUTH"].tolist() == [*labels, ""]
    expected = [sum(a != b for a, b in [(label, text)]) for label, text in zip(labels, readings, strict=False)]
    assert rows["EDITS"].tolist() == [*map(str, expected), ""]
    cer, exact = sum(expected) / sum(map(len, labels)), expected.count(0) / 9
    assert f"CER {cer:.4f}, exact match {exact:.4f} ({expected.count(0)} of 9 labelled images)" in done.stdout


def test_a_missing_model_names_the_way_out(tmp_path, script, data_dir):
    done = script(tmp_path, "predict.py", "--data-dir", data_dir, "--model-path", "none.pth", check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert re.fullmatch(r"error: there is no checkpoint none\.pth; train one with train\.py", line)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["nowhere", "empty"])
def test_nothing_to_read_is_an_error(folder, script, path):
    (folder / "empty").mkdir()
    done = script(folder, "predict.py", path, check=False)
    assert done.returncode == 1
    assert path in done.stderr
    assert not (folder / "output").exists()


def test_results_do_not_depend_on_batch_size_or_workers(trained, data_dir):
    reader = Reader.load(trained / "htr_crnn_mini.pth", "cpu")
    files, _, others, links, _ = find_files([data_dir / "test_v2"])
    assert others == links == 0
    one = list(reader.rows(files, batch_size=1, workers=0))
    many = list(reader.rows(files, batch_size=7, workers=3))
    for a, b in zip(one, many, strict=True):
        assert (a["FILENAME"], a["PREDICTION"]) == (b["FILENAME"], b["PREDICTION"])
        assert a["CONFIDENCE"] == pytest.approx(b["CONFIDENCE"], rel=1e-3, abs=2e-6)


def test_folders_are_streamed(trained, data_dir, monkeypatch):
    """Rows come before all images are read, so memory does not grow with their number."""
    read = []
    monkeypatch.setattr(reading, "WINDOW", 2)
    monkeypatch.setattr(
        reading,
        "read_images",
        lambda paths, *_: (read.append(p) or Decoded(np.zeros((64, 40), dtype=np.uint8), 1) for p in paths),
    )
    reader = Reader.load(trained / "htr_crnn_mini.pth", "cpu")
    rows = reader.rows([(str(n), n) for n in range(100)], batch_size=2, workers=0)
    next(rows)
    assert len(read) == 2


def test_no_window_splits_a_page(monkeypatch):
    monkeypatch.setattr(reading, "WINDOW", 3)
    pages = [PagePicture(Path(name), 0, (10, 10), True, []) for name in "abc"]
    counts = zip(pages, (2, 5, 1), strict=True)
    files = [(f"{page.path} {n}", PageLine(f"{n}", page, n)) for page, lines in counts for n in range(lines)]
    files += [(f"picture {n}", Path(f"{n}.png")) for n in range(5)]
    windows = reading.windows_of(files)
    assert [file for window in windows for file in window] == files
    assert [len(window) for window in windows] == [7, 3, 3]
    assert reading.windows_of([]) == []


def test_lines_of_a_page_are_read_in_the_view_that_suits_them():
    """Names that lean far to the left: together they are seen to, and are read better than alone."""
    reader, rng = Reader.load(SHIPPED_WEIGHTS, "cpu"), random.Random(0)
    names = ["MARTIN", "BERNARD", "DUPONT", "LECLERC", "MOREAU", "GIRARD", "FONTAINE", "CHEVALIER"]
    lines = [to_line(draw_form(name, rng), geometry(reader.config)) for name in names]
    lines = [View(slant=-0.9).of(line) for line in lines]
    lines.append(ImageError("is none"))
    alone = reader.as_suits_pages(lines, [None] * len(lines))
    assert all(a is b for a, b in zip(alone, lines, strict=True))
    together = reader.as_suits_pages(lines, ["a page"] * len(lines))
    assert together[-1] is lines[-1]
    scores = [Score(), Score()]
    for score, images in zip(scores, (alone, together), strict=True):
        for name, evidence in zip(names, reader.read_all(images, 8)[:-1], strict=True):
            score.add(name, evidence.text)
    assert scores[1].edits < scores[0].edits


def test_an_interrupted_reading_leaves_the_old_table(folder, monkeypatch):
    monkeypatch.chdir(folder)
    predict_batch("htr_crnn_mini.pth", "test_v2", device="cpu")
    before = (folder / "output" / "predictions.csv").read_bytes()
    Image.new("L", (50, 20), 255).save(folder / "test_v2" / "a.png")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Reader, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict_batch("htr_crnn_mini.pth", "test_v2", device="cpu")
    assert (folder / "output" / "predictions.csv").read_bytes() == before
    assert {path.name for path in (folder / "output").iterdir()} == {*TABLES, "predictions.partial.jsonl"}
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    rows = predict_batch("htr_crnn_mini.pth", "test_v2", device="cpu", resume=True)
    assert len(rows) == len(table(folder / "output" / "predictions.csv")) == 11
    assert {path.name for path in (folder / "output").iterdir()} == TABLES


def test_hostile_and_odd_files_have_their_rows_among_the_good(folder, script):
    images = folder / "scans"
    images.mkdir()
    reasons, odd = hostile.write_bad(images), hostile.write_odd(images)
    good = {path.name for path in (folder / "test_v2" / "test").iterdir()}
    for name in good:
        shutil.copy(folder / "test_v2" / "test" / name, images)
    done = script(folder, "predict.py", "scans", "--html", "--spreadsheet", check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    rows = table(folder / "output" / "predictions.csv").set_index("FILENAME")
    assert set(rows.index) == odd | good | set(reasons)
    assert not rows.index.duplicated().any()
    for name, reason in reasons.items():
        assert reason in rows["ERROR"][name], name
        assert rows["ERROR"][name] and not rows["CONFIDENCE"][name]
    assert (rows["ERROR"][sorted(odd | good)] == "").all()
    script(folder, "predict.py", "test_v2/test", "--output-dir", "alone")
    alone = table(folder / "alone" / "predictions.csv").set_index("FILENAME")
    assert rows["PREDICTION"][sorted(good)].tolist() == alone["PREDICTION"].tolist()
    assert len((folder / "output" / "predictions.txt").read_text(encoding="utf-8").splitlines()) == len(rows)
    assert "\x1b" not in done.stdout
    assert f"{len(reasons)} images could not be read" in done.stderr


def test_pages_and_formats_that_are_not_read_are_reported(folder, script):
    (folder / "scans").mkdir()
    with Image.open(folder / "test_v2" / "test" / "TEST_00001.jpg") as image:
        image.save(folder / "scans" / "a.tif", save_all=True, append_images=[image, image])
        image.save(folder / "scans" / "b.gif", save_all=True, append_images=[image.rotate(180)])
        image.save(folder / "scans" / "c.png")
    script(folder, "predict.py", "test_v2")
    done = script(folder, "predict.py", "scans")
    assert "pages after the first of a file, not read: 3 (a.tif has some)" in done.stdout
    assert table(folder / "output" / "predictions.csv")["PREDICTION"].nunique() == 1
    (folder / "scans" / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    done = script(folder, "predict.py", "scans", check=False)
    assert done.returncode == 1
    assert "IMG_1.HEIC cannot be read: it is in HEIC; convert it to PNG or JPEG" in done.stderr
    assert table(folder / "output" / "predictions.csv")["FILENAME"].tolist() == [
        "IMG_1.HEIC",
        "a.tif",
        "b.gif",
        "c.png",
    ]


@pytest.mark.parametrize("variant", sorted(set(VARIANTS) - {"red stamp over black ink"}))  # which is not handled
def test_names_are_read_in_any_picture(variant, shipped):
    """The samples, changed as benchmarks/pictures.py changes scans; of twelve as they are, twelve are read right."""
    labels = pd.read_csv(ROOT / "samples" / "labels.csv")
    images = []
    for name in labels["FILENAME"]:
        with Image.open(ROOT / "samples" / name) as sample:
            image = sample.convert("L")
        for change in VARIANTS[variant]:
            image = change(image)
        images.append(to_line(image, geometry(shipped.config)))
    texts = [evidence.text for evidence in shipped.read_all(images, 12)]
    right = sum(text == label for text, label in zip(texts, labels["IDENTITY"], strict=True))
    assert right >= (7 if variant in HARD else 10)


def test_a_picture_that_vanishes_before_it_is_read(folder, trained):
    reader = Reader.load(trained / "htr_crnn_mini.pth", "cpu")
    files = find_files([folder / "test_v2"]).files
    files[3][1].unlink()
    rows = list(reader.rows(files, batch_size=4, workers=2))
    assert [row["ERROR"] for row in rows] == [""] * 3 + ["not found"] + [""] * 6


def test_linked_folders_are_told(folder, script):
    (folder / "test_v2" / "test" / "more").symlink_to("..")
    done = script(folder, "predict.py")
    assert "linked folders not searched: 1" in done.stdout
    assert len(table(folder / "output" / "predictions.csv")) == 10


KILLED = """
import os, signal, sys
import predict, reading
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever started the tests may ignore it
from htr.system.scripts import run
reading.WINDOW, real, calls = 2, reading.Reader.window_rows, []
def window_rows(*args):
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), {signal})
    return real(*args)
reading.Reader.window_rows = window_rows
sys.argv = ["predict.py", "--device", "cpu"]
run(predict.main)
"""


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_what_was_read_survives_a_kill(folder, script, signum):
    script(folder, "predict.py", "--output-dir", "never-killed")
    done = subprocess.run(
        [sys.executable, "-c", KILLED.format(signal=int(signum))], cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == (-signum if signum == signal.SIGKILL else 128 + signum), done.stderr
    if signum != signal.SIGKILL:
        assert done.stderr == "stopped after 4 of 10 images: the same command with --resume reads the rest\n"
    assert not (folder / "output" / "predictions.csv").exists()
    assert (folder / "output" / "predictions.partial.jsonl").exists()
    labels = folder / "labels.csv"
    labels.write_text("FILENAME,IDENTITY\nTEST_00001.jpg,A\nTEST_00001.jpg,B\n")
    done = script(folder, "predict.py", "--resume", "--labels", labels)
    assert "of these, read by the run before: 4" in done.stdout
    assert "labels for a file that had one already, passed over: 1" in done.stdout
    rows, wanted = (table(folder / name / "predictions.csv") for name in ("output", "never-killed"))
    assert rows["FILENAME"].tolist() == wanted["FILENAME"].tolist()
    assert rows["PREDICTION"].tolist() == wanted["PREDICTION"].tolist()
    assert rows["TRUTH"].tolist() == ["A"] + [""] * 9
    assert sorted(path.name for path in (folder / "output").iterdir()) == ["predictions.csv", "predictions.txt"]
    assert "read by the run before" not in script(folder, "predict.py", "--resume").stdout  # nothing was left


def test_a_run_that_was_stopped_is_not_forgotten_silently(folder, script):
    (folder / "output").mkdir()
    (folder / "output" / "predictions.partial.jsonl").write_text('{"key": "other", "started": 1.0}\n')
    done = script(folder, "predict.py", "--resume", check=False)
    assert done.returncode == 1
    assert "another checkpoint, lexicon, corpus or setting of --spelling" in done.stderr
    assert "--resume would have continued it" in script(folder, "predict.py").stdout


def test_the_shipped_weights_read_the_samples(tmp_path, script):
    """The README's first command, without the install, in a folder that has no checkpoint yet."""
    samples = ROOT / "samples"
    done = script(tmp_path, "predict.py", samples, "--labels", samples / "labels.csv", "--device", "cpu")
    assert "weights/htr_crnn_names.pth" in done.stdout.splitlines()[0]
    rows = table(tmp_path / "output" / "predictions.csv")
    assert len(rows) == 12
    assert (rows.EDITS == "0").sum() >= 10


@pytest.mark.parametrize("path", [SHIPPED_WEIGHTS, SHIPPED_WORDS, SHIPPED_LINES])
def test_the_shipped_weights_are_small_and_name_no_folder(path):
    assert path.stat().st_size < 12_000_000
    assert not {"DATA_DIR", "MINI_MODEL_PATH"} & load_checkpoint(path)["config"].keys()


@pytest.mark.parametrize(
    ("path", "letters"), [(SHIPPED_WEIGHTS, "AZ"), (SHIPPED_WORDS, "AZazäöüß"), (SHIPPED_LINES, "AZazàéçù09.,;")]
)
def test_the_shipped_weights_read_by_spelling(path, letters):
    reader = Reader.load(path, "cpu", spelling=True)
    assert reader.alphabet.knows(letters)
    (evidence,) = reader.read_all([to_line(Image.open(ROOT / "samples" / "name_02.png"), geometry(reader.config))], 1)
    choice = reader.choose(evidence)
    assert choice.text in evidence.candidates
    assert 0 <= choice.probability <= 1
    assert choice.text == "PAYET" or path != SHIPPED_WEIGHTS  # the others do not know such forms


def test_an_own_checkpoint_comes_before_the_shipped_weights(folder, script):
    done = script(folder, "predict.py", "test_v2/test")
    assert "shipped" not in done.stdout
    assert "with htr_crnn_mini.pth" in done.stdout


def test_training_calibrates_and_a_calibration_changes_no_text(folder, script, data_dir):
    checkpoint = load_checkpoint(folder / "htr_crnn_mini.pth")
    assert {"calibration", "lexicon", "spelling"} <= checkpoint.keys()
    script(folder, "predict.py")
    calibrated = table(folder / "output" / "predictions.csv")
    del checkpoint["calibration"]
    save_checkpoint(checkpoint, folder / "htr_crnn_mini.pth")
    script(folder, "predict.py")
    plain = table(folder / "output" / "predictions.csv")
    assert calibrated["PREDICTION"].tolist() == plain["PREDICTION"].tolist()
    assert calibrated["CONFIDENCE"].tolist() != plain["CONFIDENCE"].tolist()


def test_a_lexicon_is_weighed(folder, script, data_dir):
    labels = data_dir / "CSV" / "written_name_test.csv"
    done = script(folder, "predict.py", "--lexicon", labels, "--labels", labels)
    rows = table(folder / "output" / "predictions.csv")
    assert tuple(rows.columns) == COLUMNS + CHOICE_COLUMNS + LABEL_COLUMNS
    assert "labelled images" in done.stdout
    script(folder, "predict.py")
    assert rows["GREEDY"].tolist() == table(folder / "output" / "predictions.csv")["PREDICTION"].tolist()
    for confidence, runner_up in zip(rows["CONFIDENCE"], rows["RUNNER_UP_CONFIDENCE"], strict=True):
        assert float(runner_up) >= 0 and float(confidence) + float(runner_up) <= 1.00001


def test_spelling_is_weighed_without_a_list_of_names(folder, script, data_dir):
    labels = data_dir / "CSV" / "written_name_test.csv"
    script(folder, "predict.py")
    greedy = table(folder / "output" / "predictions.csv")["PREDICTION"].tolist()
    done = script(folder, "predict.py", "--spelling", "--labels", labels)
    rows = table(folder / "output" / "predictions.csv")
    assert tuple(rows.columns) == COLUMNS + CHOICE_COLUMNS + LABEL_COLUMNS
    assert "lexicon" not in done.stdout
    assert rows["GREEDY"].tolist() == greedy
    assert all(0 <= float(confidence) <= 1 for confidence in rows["CONFIDENCE"])
    assert all(rows["RUNNER_UP"] != rows["PREDICTION"])
    # What the weights say decides, not the network alone: names like the labels, and nothing but them.
    checkpoint = load_checkpoint(folder / "htr_crnn_mini.pth")
    checkpoint["spelling"]["weights"] = [0.0, 0.0, 0.0, 100.0, 0.0, 0.0, 0.0, 0.0]
    save_checkpoint(checkpoint, folder / "htr_crnn_mini.pth")
    script(folder, "predict.py", "--spelling")
    spelling = Ngrams.restore(checkpoint["spelling"]["ngrams"])
    read = table(folder / "output" / "predictions.csv")["PREDICTION"].tolist()
    assert read != greedy
    assert all(spelling.log_prob(text) >= spelling.log_prob(other) for text, other in zip(read, greedy, strict=True))


def test_a_checkpoint_is_calibrated_on_labelled_images(folder, script, data_dir):
    images = data_dir / "validation_v2" / "validation"
    flags = (images, "--labels", data_dir / "CSV" / "written_name_validation.csv", "--calibrate")
    before = load_checkpoint(folder / "htr_crnn_mini.pth")
    del before["calibration"], before["lexicon"], before["spelling"]
    save_checkpoint(before, folder / "htr_crnn_mini.pth")
    lexicon = ("--lexicon", data_dir / "CSV" / "written_name_train.csv")
    for way in (lexicon, ("--spelling",)):
        done = script(folder, "predict.py", *way, check=False)
        assert done.returncode == 1
        assert "was never fitted for reading" in done.stderr
        assert "--lexicon CSV --calibrate" in done.stderr
    assert "confidence calibrated on" in script(folder, "predict.py", *flags).stdout
    assert load_checkpoint(folder / "htr_crnn_mini.pth").keys() == before.keys() | {"calibration"}
    script(folder, "predict.py", *flags, *lexicon)
    after = load_checkpoint(folder / "htr_crnn_mini.pth")
    assert after.keys() == before.keys() | {"calibration", "lexicon", "spelling"}
    assert all(torch.equal(after["model"][name], weight) for name, weight in before["model"].items())


def test_running_text_is_read_by_its_language(folder, script, data_dir):
    """A checkpoint that was fitted with lines instead of names; a corpus moves it further."""
    images, labels = data_dir / "validation_v2" / "validation", data_dir / "CSV" / "written_name_validation.csv"
    names = [row for row in table(data_dir / "CSV" / "written_name_train.csv")["IDENTITY"] if row]
    lines = [" ".join(names[n : n + 4]) for n in range(0, len(names), 4)]
    pd.DataFrame({"NAME": lines}).to_csv(folder / "lines.csv", index=False)
    flags = (images, "--labels", labels, "--device", "cpu")
    checkpoint = load_checkpoint(folder / "htr_crnn_mini.pth")
    for name in ("calibration", "lexicon", "spelling"):
        del checkpoint[name]
    save_checkpoint(checkpoint, folder / "htr_crnn_mini.pth")
    script(folder, "predict.py", *flags, "--calibrate", "--lexicon", "lines.csv")
    checkpoint = load_checkpoint(folder / "htr_crnn_mini.pth")
    checkpoint["spelling"] |= {"weights": [1.0, 0.0, 0.0, 10.0, 10.0, 0.0, 0.0, -1e3], "calibration": [1.0, 0.0, 0.0]}
    save_checkpoint(checkpoint, folder / "htr_crnn_mini.pth")
    script(folder, "predict.py", *flags, "--spelling")
    by_labels = table(folder / "output" / "predictions.csv")
    assert tuple(by_labels.columns) == COLUMNS + CHOICE_COLUMNS + LABEL_COLUMNS
    (folder / "corpus.txt").write_text("ANNE ANNE ANNE\n" * 5000, encoding="utf-8")
    script(folder, "predict.py", *flags, "--corpus", "corpus.txt")
    by_corpus = table(folder / "output" / "predictions.csv")
    assert by_labels["GREEDY"].tolist() == by_corpus["GREEDY"].tolist()
    assert by_labels["CONFIDENCE"].tolist() != by_corpus["CONFIDENCE"].tolist()
    script(folder, "predict.py", *flags, "--language", "fr")
    by_language = table(folder / "output" / "predictions.csv")
    assert by_labels["CONFIDENCE"].tolist() != by_language["CONFIDENCE"].tolist()
    for rows in (by_labels, by_corpus, by_language):
        confidences = rows["CONFIDENCE"].astype(float) + rows["RUNNER_UP_CONFIDENCE"].astype(float)
        assert confidences.between(0, 1.00001).all()
    done = script(folder, "predict.py", *flags, "--corpus", "nowhere.txt", check=False)
    assert done.returncode == 1 and "nowhere.txt cannot be read" in done.stderr
    broken = load_checkpoint(folder / "htr_crnn_mini.pth")
    save_checkpoint(broken | {"spelling": {"ngrams": {"order": 6, "runs": "a"}}}, folder / "htr_crnn_mini.pth")
    assert "makes no sense" in script(folder, "predict.py", "--spelling", check=False).stderr


def test_texts_hold_no_other_characters(folder, script):
    script(folder, "predict.py")
    greedy = table(folder / "output" / "predictions.csv")
    assert any(set(text) - set("ABCDEFGHIJKLM") for text in greedy["PREDICTION"])
    script(folder, "predict.py", "--characters", "A-M")
    rows = table(folder / "output" / "predictions.csv")
    assert rows["GREEDY"].tolist() == greedy["PREDICTION"].tolist()
    assert all(set(text) <= set("ABCDEFGHIJKLM") for text in rows["PREDICTION"])
    assert rows["CONFIDENCE"].astype(float).between(0, 1).all()


def test_each_picture_may_have_a_pattern_of_its_own(folder, script):
    """All have the same, or a table names those that have one; the others are read as ever."""
    script(folder, "predict.py", "--pattern", "[A-C]{2}|[D-F]{3}")
    rows = table(folder / "output" / "predictions.csv")
    assert all(re.fullmatch("[A-C]{2}|[D-F]{3}", text) for text in rows["PREDICTION"])
    fields = "SCAN,FILENAME,PATTERN\nTEST_00001.jpg,1,X{2}\nTEST_00002.jpg,2,[YZ]+\nTEST_99999.jpg,3,A\n"
    (folder / "fields.csv").write_text(fields, encoding="utf-8")
    done = script(folder, "predict.py", "--pattern", "fields.csv", "--picture-column", "SCAN")
    rows = table(folder / "output" / "predictions.csv")
    assert f"fields.csv: labels that name none of the {len(rows)} images: 1, such as 'TEST_99999.jpg'" in done.stdout
    assert f"fields.csv has no pattern for {len(rows) - 2} images, which are read without one" in done.stdout
    assert rows["PREDICTION"][0] == "XX" and re.fullmatch("[YZ]+", rows["PREDICTION"][1])
    assert rows["PREDICTION"][2:].tolist() == rows["GREEDY"][2:].tolist()


@pytest.mark.parametrize(
    ("flags", "status", "said"),
    [
        (("--characters", "A", "--pattern", "A"), 2, "give one of them"),
        (("--pattern", "[A"), 1, "'[A' is no pattern"),
        (("--characters", "z-a"), 1, "is no pattern"),
        (("--pattern", "é+"), 1, "no text of the characters that the network knows"),
        (("--corpus", "text.txt", "--lexicon", "names.csv"), 2, "leave one out"),
        (("--language", "fr", "--lexicon", "names.csv"), 2, "leave one out"),
        (("--language", "Latin"), 1, "Latin is none of the languages there are: ar, bg, bn, ca, cs, da, de, el, en,"),
    ],
)
def test_patterns_that_cannot_be_followed(folder, script, flags, status, said):
    done = script(folder, "predict.py", *flags, check=False)
    assert (done.returncode, done.stderr.count("Traceback")) == (status, 0)
    assert said in done.stderr


@pytest.mark.parametrize("lexicon", [False, True])
def test_too_few_images_do_not_calibrate(folder, script, data_dir, lexicon):
    """On three labels, and wrong ones, there is nothing to learn; the checkpoint stays as it is."""
    labels = folder / "labels.csv"
    labels.write_text("FILENAME,IDENTITY\n" + "".join(f"TEST_0000{n}.jpg,WRONG\n" for n in (1, 2, 3)))
    before = (folder / "htr_crnn_mini.pth").read_bytes()
    flags = ["--lexicon", data_dir / "CSV" / "written_name_train.csv"] * lexicon
    done = script(folder, "predict.py", "--labels", labels, "--calibrate", *flags, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "error: there are 3 labelled images that can be read, too few to calibrate on: label at least 50\n"
    )
    assert (folder / "htr_crnn_mini.pth").read_bytes() == before


def test_the_shipped_weights_are_calibrated_in_a_copy(tmp_path, script, data_dir):
    before = SHIPPED_WEIGHTS.read_bytes()
    images = data_dir / "validation_v2" / "validation"
    flags = ("--labels", data_dir / "CSV" / "written_name_validation.csv")
    try:
        for typed in ([], ["--model-path", SHIPPED_WEIGHTS]):
            done = script(tmp_path, "predict.py", images, *flags, "--calibrate", *typed)
            assert "kept in htr_crnn_names.calibrated.pth" in done.stdout
            assert "from now on read with --model-path htr_crnn_names.calibrated.pth" in done.stdout
            assert "images with htr_crnn_names.calibrated.pth" in done.stdout
            assert SHIPPED_WEIGHTS.read_bytes() == before
    finally:
        SHIPPED_WEIGHTS.write_bytes(before)
    again = script(tmp_path, "predict.py", images, *flags, "--model-path", "htr_crnn_names.calibrated.pth")
    scores = [[line for line in each.stdout.splitlines() if line.startswith(("CER", "conf"))] for each in (done, again)]
    assert scores[1] == scores[0][-len(scores[1]) :]
    assert {path.name for path in tmp_path.iterdir()} == {"htr_crnn_names.calibrated.pth", "output"}


def test_the_state_of_a_run_is_read_with_the_average_that_it_is_judged_by(folder, script, trained):
    """In a checkpoint's own name, and as it was validated: the last epoch was the best one."""
    shutil.copy(trained / "htr_crnn_mini.last.pth", folder)
    last, best = (load_checkpoint(folder / f"htr_crnn_mini{part}.pth") for part in (".last", ""))
    script(folder, "predict.py", "--model-path", "htr_crnn_mini.last.pth")
    assert best["epoch"] == last["epoch"]
    read = table(folder / "output" / "predictions.csv")["PREDICTION"].tolist()
    script(folder, "predict.py")
    assert read == table(folder / "output" / "predictions.csv")["PREDICTION"].tolist()


def test_calibrating_needs_labels(folder, script):
    done = script(folder, "predict.py", "--calibrate", check=False)
    assert done.returncode == 2
    assert "--calibrate needs --labels" in done.stderr


@pytest.mark.parametrize(
    ("way", "broken"),
    [
        ("lexicon", {"calibration": {"weights": "x"}}),
        ("lexicon", {"lexicon": {"weights": [1.0], "calibration": [1.0, 0.0, 0.0]}}),
        ("spelling", {"spelling": {"ngrams": {}, "weights": [1.0], "calibration": [1.0, 0.0, 0.0]}}),
        ("spelling", {"spelling": {"ngrams": {"AB": 1, "A": 1}, "weights": NEUTRAL, "calibration": [1.0, 0.0, 0.0]}}),
        ("spelling", {"spelling": {"ngrams": {7: 1}, "weights": NEUTRAL, "calibration": [1.0, 0.0, 0.0]}}),
        ("spelling", {"spelling": {"ngrams": [1], "weights": NEUTRAL, "calibration": [1.0, 0.0, 0.0]}}),
        ("spelling", {"spelling": {}}),
        ("spelling", {"spelling": 5}),
    ],
)
def test_a_calibration_that_makes_no_sense(folder, script, data_dir, way, broken):
    save_checkpoint(load_checkpoint(folder / "htr_crnn_mini.pth") | broken, folder / "htr_crnn_mini.pth")
    lexicon = [data_dir / "CSV" / "written_name_train.csv"] * (way == "lexicon")
    done = script(folder, "predict.py", f"--{way}", *lexicon, check=False)
    assert done.returncode == 1
    assert "makes no sense" in done.stderr


def test_a_page_to_look_through(folder, script, data_dir):
    done = script(folder, "predict.py", "--html", "--labels", data_dir / "CSV" / "written_name_test.csv")
    page = (folder / "output" / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") == 10
    assert "report.html: open it in a browser" in done.stdout


@pytest.mark.parametrize("spelling", ["test_v2/test/{}.jpg", ".\\{}.JPG", "/home/somebody/test/{}.jpg", " {} "])
def test_labels_name_images_as_anybody_writes_them(folder, script, data_dir, spelling):
    table = data_dir / "CSV" / "written_name_test.csv"
    labels = table.read_text(encoding="utf-8")
    usual = script(folder, "predict.py", "--labels", table).stdout
    (folder / "labels.csv").write_text(
        "".join(
            "{},{}\n".format(spelling.format(name.removesuffix(".jpg")), text)
            for name, text in (line.split(",") for line in labels.splitlines()[1:])
        ),
        encoding="utf-16",
    )
    other = script(folder, "predict.py", "--labels", "labels.csv").stdout
    scores = [[line for line in out.splitlines() if line.startswith("CER")] for out in (usual, other)]
    assert scores[0] == scores[1]
    assert "of 9 labelled images" in scores[0][0]  # one is EMPTY


def test_labels_that_name_no_image_are_an_error(folder, script):
    (folder / "labels.csv").write_text("FILENAME,IDENTITY\nother/1.jpg,LEA\n", encoding="utf-8")
    done = script(folder, "predict.py", "--labels", "labels.csv", check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "error: labels.csv does not fit: labels that name none of the 10 images: 1, such as 'other/1.jpg'; the images"
        " are called 'TEST_00001.jpg' and so on\n"
    )
    assert not (folder / "output").exists()


def test_two_folders_are_two_pages(folder, script):
    """No two rows are called alike, and none is scored against the other's label. A picture is read once."""
    scans = sorted((folder / "test_v2" / "test").iterdir())[:4]
    for n, page in enumerate(("page1", "page2")):
        (folder / page).mkdir()
        for m in range(2):
            shutil.copy(scans[2 * n + m], folder / page / f"{m}.jpg")
    (folder / "labels.csv").write_text(
        "FILENAME,IDENTITY\n" + "".join(f"page{n}/{m}.jpg,P{n}L{m}\n" for n in (1, 2) for m in (0, 1)), encoding="utf-8"
    )
    done = script(folder, "predict.py", "page1", "page2", "./page1/", "page2/1.jpg", folder / "page1",
                  "--labels", "labels.csv")  # fmt: skip
    rows = table(folder / "output" / "predictions.csv")
    assert rows["FILENAME"].tolist() == ["page1/0.jpg", "page1/1.jpg", "page2/0.jpg", "page2/1.jpg"]
    assert rows["TRUTH"].tolist() == ["P1L0", "P1L1", "P2L0", "P2L1"]
    assert "images reached a second time, read once: 5" in done.stdout
    shutil.copy(folder / "labels.csv", folder / "page1" / "labels.csv")
    for table_text, truths in (
        ("0.jpg,A\n1.jpg,B\n", ["A", "B", "", ""]),  # names relative to the table's folder
        ("page2/0.jpg,C\n", ["", "", "C", ""]),
    ):
        (folder / "page1" / "labels.csv").write_text("FILENAME,IDENTITY\n" + table_text)
        script(folder, "predict.py", "page1", "page2", "--labels", "page1/labels.csv")
        assert table(folder / "output" / "predictions.csv")["TRUTH"].tolist() == truths
    alone = script(folder, "predict.py", "page2", "--labels", "labels.csv")
    rows = table(folder / "output" / "predictions.csv")
    assert rows["FILENAME"].tolist() == ["0.jpg", "1.jpg"]
    assert rows["TRUTH"].tolist() == ["P2L0", "P2L1"]
    assert "labels that name none of the 2 images: 2, such as 'page1/0.jpg'" in alone.stdout


def test_rows_of_a_stopped_run_are_called_as_in_this_one(folder, script):
    shutil.copytree(folder / "test_v2" / "test", folder / "page2")
    script(folder, "predict.py", "test_v2/test")
    rows = table(folder / "output" / "predictions.csv").astype({"CONFIDENCE": float})
    head = {"key": Journal.key_of(folder / "htr_crnn_mini.pth", None), "started": time.time() + 60}
    entries = [[f"test_v2/test/{row['FILENAME']}", row] for row in rows.to_dict("records")]
    lines = [json.dumps(entry) + "\n" for entry in [head, *entries]]
    (folder / "output" / "predictions.partial.jsonl").write_text("".join(lines))
    done = script(folder, "predict.py", "test_v2/test", "page2", "--resume")
    assert "of these, read by the run before: 10" in done.stdout
    names = table(folder / "output" / "predictions.csv")["FILENAME"].tolist()
    assert names == [f"{page}/TEST_{n:05}.jpg" for page in ("page2", "test_v2/test") for n in range(1, 11)]


def test_what_a_shell_adds_of_systems_is_no_image(folder, script):
    images = folder / "test_v2" / "test"
    (images / "@eaDir").mkdir()
    (images / "@eaDir" / "a.jpg").touch()
    (images / "Thumbs.db").touch()
    done = script(folder, "predict.py", *sorted(images.glob("*")))
    assert "read 10 of 10 images" in done.stdout
    assert "files passed over, as no images: 2" in done.stdout


def test_names_are_told_apart_whatever_is_given(tmp_path):
    for name in ("a/sub/1.png", "sub/1.png", "b/sub/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    os.symlink(tmp_path / "a", tmp_path / "link")
    with contextlib.chdir(tmp_path):
        assert [name for name, _ in find_files(["a", "sub/1.png"]).files] == ["a/sub/1.png", "sub/1.png"]
        assert [name for name, _ in find_files(["a", "b/sub/1.png"]).files] == ["b/sub/1.png", "sub/1.png"]
        assert [name for name, _ in find_files(["a", "link"]).files] == ["sub/1.png"]
        found = find_files(["a", "b", "."])
        assert [name for name, _ in found.files] == ["a/sub/1.png", "b/sub/1.png", "sub/1.png"]
        assert (found.again, found.linked_folders) == (2, 1)


def test_what_systems_leave_is_no_image(folder, script):
    images = folder / "test_v2" / "test"
    for name in (
        "._TEST_00001.jpg",
        "__MACOSX/._TEST_00001.jpg",
        ".ipynb_checkpoints/a-checkpoint.jpg",
        "@eaDir/a.jpg",
    ):
        (images / name).parent.mkdir(exist_ok=True)
        (images / name).write_bytes(b"\0\5\26\7")
    done = script(folder, "predict.py")
    assert "read 10 of 10 images" in done.stdout
    assert "files passed over, as no images: 4" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="not every system has such names")
def test_paths_that_are_not_utf_8(folder, script):
    odd = os.fsdecode(b"p\xe9re")
    for name in ("scans", "out"):
        (folder / odd / name).mkdir(parents=True)
    shutil.copytree(folder / "test_v2" / "test", folder / odd / "scans" / odd)
    shutil.copy(folder / "htr_crnn_mini.pth", folder / odd)
    (folder / odd / "labels.csv").write_text("TEST_00001.jpg,LEA\n")
    done = script(
        folder, "predict.py", f"{odd}/scans", f"{odd}/scans/{odd}/TEST_00001.jpg", "--html", "--output-dir",
        f"{odd}/out", "--model-path", f"{odd}/htr_crnn_mini.pth", "--labels", f"{odd}/labels.csv", "--spreadsheet",
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert r"p\\xe9re/TEST_00001.jpg" in (folder / odd / "out" / "report.html").read_text(encoding="utf-8")


def in_memory(path) -> dict:
    """One picture in every way in which a program may hold it; what is read from once is made anew."""
    grey = np.asarray(Image.open(path).convert("L"))
    return {
        "path": path,
        "text": str(path),
        "lazy": Image.open(path),
        "loaded": Image.open(path).convert("L"),
        "RGB": Image.open(path).convert("RGB"),
        "bytes": path.read_bytes(),
        "bytearray": bytearray(path.read_bytes()),
        "view": memoryview(path.read_bytes()),
        "file": io.BytesIO(path.read_bytes()),
        "grey": grey,
        "one channel": grey[:, :, None],
        "colours": np.repeat(grey[:, :, None], 3, 2),
        "with alpha": np.concatenate([np.repeat(grey[:, :, None], 3, 2), np.full((*grey.shape, 1), 255, np.uint8)], 2),
        "floats": grey / 255,
        "small floats": (grey / 255).astype(np.float32),
        "float colours": np.repeat(grey[:, :, None], 3, 2) / 255,
        "16 bits": grey.astype(np.uint16) * 257,
        "16 bits, colours": np.repeat(grey[:, :, None], 3, 2).astype(np.uint16) * 257,
        "integers": grey.astype(np.int64),
        "not contiguous": np.asfortranarray(grey),
        "tensor": torch.from_numpy(grey.copy()),
    }


def test_pictures_in_memory_are_read_like_files():
    path = ROOT / "samples" / "name_03.png"
    text, confidence = predict_single_image(SHIPPED_WEIGHTS, path, device="cpu")
    pictures = in_memory(path)
    for what, picture in pictures.items():
        read = predict_single_image(SHIPPED_WEIGHTS, picture, device="cpu")
        assert read == (text, pytest.approx(confidence, abs=0.02)), what
    rows = predict_batch(SHIPPED_WEIGHTS, list(in_memory(path).values()), save_csv=False, device="cpu")
    assert rows["PREDICTION"].tolist() == [text] * (len(pictures) - 1)  # the two paths are one file
    assert rows["FILENAME"].tolist()[1:] == [f"image_{n:02}" for n in range(3, len(pictures) + 1)]


def test_lists_are_read_in_their_order_and_written(folder, monkeypatch):
    monkeypatch.chdir(folder)
    paths = sorted((ROOT / "samples").glob("*.png"))
    images = [np.asarray(Image.open(path)) for path in paths]
    (folder / "labels.csv").write_text("FILENAME,IDENTITY\nimage_02,PAYET\n")
    options = {"html": True, "spreadsheet": True, "resume": True, "labels": "labels.csv", "device": "cpu"}
    rows = predict_batch(SHIPPED_WEIGHTS, images, "out", **options)
    expected = predict_batch(SHIPPED_WEIGHTS, paths, save_csv=False, device="cpu")
    assert rows["PREDICTION"].tolist() == expected["PREDICTION"].tolist()
    assert table(folder / "out" / "predictions.csv")["FILENAME"].tolist() == [f"image_{n:02}" for n in range(1, 13)]
    assert rows["RIGHT"].tolist() == ["", "yes"] + [""] * 10
    assert expected["FILENAME"].tolist() == [path.as_posix() for path in paths]
    again = predict_batch(SHIPPED_WEIGHTS, (ROOT / "samples").glob("*.png"), save_csv=False, device="cpu")
    pd.testing.assert_frame_equal(again, expected)
    assert "data:image/jpeg" in (folder / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("picture", "error", "message"),
    [
        (b"nothing", HTRError, "the image cannot be read: not an image in a known format"),
        (b"%PDF-1.4 and more than that", HTRError, "it is in PDF; convert it"),
        (np.zeros((0, 5), np.uint8), HTRError, "has 5 x 0 pixels"),
        (np.full((9, 9), np.nan), HTRError, "not finite"),
        (np.full((9, 9, 3), np.inf), HTRError, "not finite"),
        (np.zeros(9), TypeError, r"shape \(9,\).*grey \(H, W\) or RGB"),
        (np.zeros((3, 40, 90)), TypeError, "is no picture"),
        (np.zeros((9, 9), complex), TypeError, "complex128 is no picture"),
        (np.array([["a"]]), TypeError, "is no picture"),
        (None, TypeError, "None is no picture: give a path, a Pillow image, an array or bytes"),
        (5, TypeError, "5 is no picture"),
        (object, TypeError, "is no picture"),
        ([], TypeError, "takes one image"),
        ("", HTRError, "one of the paths is empty"),
        ("nowhere.png", HTRError, "there is no image or folder nowhere.png"),
        ("nul\0.png", HTRError, "there is no image or folder"),
    ],
)
def test_what_is_no_picture_is_said(picture, error, message):
    with pytest.raises(error, match=message):
        predict_single_image(SHIPPED_WEIGHTS, picture, device="cpu")
    if isinstance(picture, list):
        error, message = HTRError, "list of paths is empty"
    if isinstance(picture, (str, list)) or error is TypeError:
        with pytest.raises(error, match=message):
            predict_batch(SHIPPED_WEIGHTS, picture, save_csv=False, device="cpu")
    else:
        rows = predict_batch(SHIPPED_WEIGHTS, [picture], save_csv=False, device="cpu")
        assert re.search(message.removeprefix("the image "), rows["ERROR"][0])


@pytest.mark.parametrize("device", [None, "auto", "cpu", "cpu:0", torch.device("cpu"), torch.device("cpu", 0)])
def test_devices_from_code(device):
    path = ROOT / "samples" / "name_02.png"
    assert predict_single_image(SHIPPED_WEIGHTS, path, device=device)[0] == "PAYET"
    assert len(predict_batch(SHIPPED_WEIGHTS, [path], save_csv=False, device=device)) == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"device": "cuda:7"}, HTRError, "finds no cuda:7 device"),
        ({"device": "gpu"}, HTRError, "there is no device 'gpu'"),
        ({"device": 0}, TypeError, "a device is a name"),
        ({"batch_size": 0}, HTRError, "batch_size must be at least 1"),
        ({"workers": -1}, HTRError, "workers must be at least 0"),
        ({"workers": "two"}, TypeError, "workers is a whole number"),
        ({"lexikon": "a.csv"}, TypeError, "lexikon"),
        ({"labels": "nowhere.csv"}, HTRError, "nowhere.csv cannot be read"),
    ],
)
def test_wrong_options_from_code_are_said(options, error, message):
    threads = torch.get_num_threads()
    with pytest.raises(error, match=message):
        predict_batch(SHIPPED_WEIGHTS, ROOT / "samples", save_csv=False, **options)
    assert torch.get_num_threads() == threads


NOTEBOOK = [
    THE_DESCRIPTION.replace("path/to/your/image.png", "test_v2/test/TEST_00003.jpg"),
    f"%run {ROOT / 'predict.py'}",
    f"%run {ROOT / 'predict.py'} nowhere",
    """
import numpy, signal, torch
from PIL import Image
array = numpy.asarray(Image.open("test_v2/test/TEST_00003.jpg"))
assert predict_single_image(Config.MINI_MODEL_PATH, array, device=None) == _single
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
""",
    f"import sys; sys.path.insert(0, {str(ROOT)!r})\nimport predict, train, continue_train\n!ls output",
]


def test_a_notebook(folder):
    """The description's lines, %run and a picture as an array, in a real kernel of Jupyter."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    cells = [f"import sys; sys.path.insert(0, {str(ROOT)!r})", *NOTEBOOK]
    cells[1] = cells[1].replace("predict_single_image(model", "_single = predict_single_image(model")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = ["".join(out.get("text", "") for out in cell.outputs) for cell in notebook.cells]
    assert "read 10 of 10 images with htr_crnn_mini.pth" in outputs[1]
    assert "read 10 of 10 images with htr_crnn_mini.pth" in outputs[2]
    assert "error: there is no image or folder nowhere" in outputs[3]
    assert "Traceback" not in "".join(outputs)
    assert "predictions.csv" in outputs[5]


# ---------------------------------------------------------------------------------------- without PyTorch


@pytest.fixture(scope="session")
def without_torch(shared_folder, script, data_dir):
    """A folder with the shipped weights as names.onnx, and scans/ with drawn names and a file that is no image."""

    def make(folder):
        script(folder, "predict.py", "--model-path", SHIPPED_WEIGHTS, "--export", "names.onnx")
        shutil.copytree(data_dir / "validation_v2" / "validation", folder / "scans")
        (folder / "scans" / "broken.png").write_bytes(b"nothing")

    return shared_folder("without-torch", make)


def read_without_torch(folder, *flags) -> subprocess.CompletedProcess:
    """Run predict.py in a Python in which importing torch fails."""
    code = (
        f"import runpy; sys.argv = {['predict.py', *map(str, flags)]}; runpy.run_module('predict', run_name='__main__')"
    )
    return run_without_torch(folder, code)


@pytest.mark.parametrize("way", [(), ("spelling",), ("lexicon",)])
def test_an_onnx_file_reads_the_same_without_pytorch(without_torch, data_dir, tmp_path, monkeypatch, way):
    """The same texts, confidences within 1e-4, with labels, a page and a workbook."""
    labels = data_dir / "CSV" / "written_name_validation.csv"
    options = {name: labels if name == "lexicon" else True for name in way}
    flags = [part for name in way for part in ([f"--{name}", labels] if name == "lexicon" else [f"--{name}"])]
    flags += ["--labels", labels, "--html", "--spreadsheet", "--output-dir", tmp_path / "out"]
    done = read_without_torch(without_torch, "scans", "--model-path", "names.onnx", *flags)
    assert done.returncode == 1 and "1 images could not be read, broken.png" in done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*TABLES, "predictions.xlsx", "report.html"}
    monkeypatch.setattr(utils, "cpu_is_faster_in_bfloat16", lambda: False)
    expected = predict_batch(
        SHIPPED_WEIGHTS, without_torch / "scans", save_csv=False, labels=labels, device="cpu", **options
    )
    found = table(tmp_path / "out" / "predictions.csv")
    assert list(found.columns) == list(expected.columns)
    for column in found.columns:
        if column in ("CONFIDENCE", "RUNNER_UP_CONFIDENCE"):
            read = found[column] != ""
            assert read.sum() == 60
            assert found[column][read].astype(float).tolist() == pytest.approx(
                expected[column][read].tolist(), abs=1e-4
            )
        elif column == "CHARACTER_CONFIDENCES":
            for one, other in zip(found[column], expected[column], strict=True):
                assert [*map(float, one.split())] == pytest.approx([*map(float, other.split())], abs=2e-4)
        else:
            assert found[column].tolist() == expected[column].astype(str).tolist(), column
    assert (found["RIGHT"] == "yes").mean() > 0.5


def test_a_stopped_reading_resumes_without_pytorch(without_torch, tmp_path):
    flags = ("scans", "--model-path", "names.onnx", "--output-dir", tmp_path)
    read_without_torch(without_torch, *flags)
    whole = (tmp_path / "predictions.csv").read_text(encoding="utf-8")
    key = Journal.key_of(without_torch / "names.onnx", None)
    row = {"FILENAME": "TEST", "PREDICTION": "READ BEFORE", "CONFIDENCE": 1.0, "ERROR": ""}
    row |= {"CHARACTER_CONFIDENCES": "", "WORD_CONFIDENCES": ""}
    first = sorted((without_torch / "scans").glob("*.jpg"))[0]
    lines = [{"key": key, "started": time.time() + 1}, [f"scans/{first.name}", row]]
    (tmp_path / "predictions.partial.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = read_without_torch(without_torch, *flags, "--resume")
    assert "of these, read by the run before: 1" in done.stdout
    resumed = (tmp_path / "predictions.csv").read_text(encoding="utf-8")
    different = [pair for pair in zip(whole.splitlines(), resumed.splitlines(), strict=True) if pair[0] != pair[1]]
    assert len(different) == 1 and "READ BEFORE" in different[0][1]


def test_without_pytorch_the_shipped_onnx_file_is_the_default(tmp_path):
    done = read_without_torch(tmp_path, ROOT / "samples", "--labels", ROOT / "samples" / "labels.csv")
    assert done.returncode == 0, done.stderr
    assert "reading with the weights shipped as weights/htr_crnn_names.onnx" in done.stdout
    assert "exact match 1.0000 (12 of 12 labelled images)" in done.stdout


@pytest.mark.parametrize("path", [SHIPPED_WEIGHTS, SHIPPED_LINES])
def test_the_shipped_onnx_file_is_that_of_the_shipped_weights(tmp_path, path):
    """Exported again, it has the same bytes: nobody forgot to when the weights changed."""
    exported = tmp_path / "exported.onnx"
    utils.export_onnx(path, exported)
    shipped = path.with_suffix(".onnx")
    facts, again = (onnx.load(file, lambda facts: sizes_of(*settings_of(facts, "")))[0] for file in (shipped, exported))
    assert facts == again
    shapes, half = weight_shapes(sizes_of(*settings_of(facts, ""))), "half" in facts
    weights = [weights_at_the_end(file.read_bytes(), shapes, half) for file in (shipped, exported)]
    for name in weights[0]:
        assert np.allclose(weights[0][name], weights[1][name], rtol=1e-5, atol=1e-7), name


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--model-path", SHIPPED_WEIGHTS), "is read with PyTorch: pip install -r requirements.txt"),
        (("--model-path", "names.onnx", "--device", "cuda"), "names.onnx is read on the CPU: leave --device out"),
        (("--model-path", "none.onnx"), "there is no ONNX file none.onnx"),
        (
            ("--model-path", "names.onnx", "--labels", ROOT / "samples" / "labels.csv", "--calibrate"),
            "an ONNX file cannot be calibrated: calibrate its checkpoint",
        ),
        (("--model-path", "names.onnx", "--lexicon", "none.csv"), "none.csv"),
    ],
)
def test_what_cannot_be_done_without_pytorch_is_one_line(without_torch, tmp_path, flags, message):
    done = read_without_torch(without_torch, ROOT / "samples", "--output-dir", tmp_path / "out", *flags)
    assert done.returncode == 1
    assert message in done.stderr and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_from_python_an_onnx_file_is_a_model_path_like_another(without_torch, tmp_path):
    code = "from predict import *; print(predict_single_image('names.onnx', sys.argv[1]))"
    done = run_without_torch(without_torch, f"sys.argv = ['', {str(ROOT / 'samples' / 'name_01.png')!r}]; {code}")
    assert done.stdout.startswith("('BAPTISTE', 0.9"), done.stderr


def test_an_export_reads_nothing(folder, script):
    for flags in (
        ("PATH", "test_v2"), ("--labels", "a.csv"), ("--lexicon", "a.csv"), ("--output-dir", "out"), ("--html",),
        ("--spelling",), ("--resume",), ("--spreadsheet",), ("--device", "cpu"), ("--batch-size", 4), ("--workers", 1),
        ("--data-dir", "."), ("--text-column", "text"),
    ):  # fmt: skip
        typed = flags[1:] if flags[0] == "PATH" else flags
        done = script(folder, "predict.py", "--export", "small.onnx", *typed, check=False)
        assert done.returncode == 2
        assert f"--export reads no images and means nothing with {flags[0]}: leave one of them out" in done.stderr
    assert not (folder / "small.onnx").exists()
    (folder / "small.json").write_text('{"a.png": "somebody\'s labels"}', encoding="utf-8")
    done = script(folder, "predict.py", "--export", "small.onnx", check=False)
    assert done.returncode == 1 and "small.json is there and holds something else" in done.stderr
    (folder / "small.json").unlink()
    for _ in range(2):
        assert "written to small.onnx" in script(folder, "predict.py", "--export", "small.onnx").stdout
    about = json.loads((folder / "small.json").read_text(encoding="utf-8"))
    checkpoint = load_checkpoint(folder / "htr_crnn_mini.pth")
    assert about["alphabet"] == checkpoint["alphabet"]
    assert about["config"]["IMG_HEIGHT"] == checkpoint["config"]["IMG_HEIGHT"]
    done = script(folder, "predict.py", "test_v2", "--model-path", "small.onnx")
    assert "read 10 of 10 images with small.onnx" in done.stdout


@pytest.mark.parametrize("name", ["train.py", "continue_train.py"])
def test_training_does_not_start_from_an_onnx_file(without_torch, script, data_dir, name):
    start = ("--pretrained", "names.onnx") if name == "train.py" else ("--model-path", "names.onnx")
    done = script(without_torch, name, "--data-dir", data_dir, *start, check=False)
    assert done.returncode == 1
    assert "names.onnx is an ONNX file" in done.stderr and done.stderr.count("\n") == 1
