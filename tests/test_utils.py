import ctypes
import dataclasses
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT

import utils
from config import SHIPPED_LINES, SHIPPED_WEIGHTS, SHIPPED_WORDS, Config
from htr.decoding import onnx
from htr.system.scripts import HTRError
from htr.texts.labels import Alphabet
from model import CRNN
from predict import predict_batch
from reading import Reader
from utils import (
    beside,
    build_model,
    check_model_path,
    choose_device,
    last_path,
    load_checkpoint,
    memory_advice,
    only_training,
    previous_path,
    restore_settings,
    restore_weights,
    run_of,
    save_checkpoint,
)


def test_a_device_that_is_not_there_is_refused():
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    missing = "mps" if not torch.backends.mps.is_available() else "cuda"
    with pytest.raises(HTRError, match=f"no {missing} device.*--device cpu"):
        choose_device(missing)


def test_a_device_may_be_named_as_pytorch_does(monkeypatch):
    for cpu in ("cpu", "cpu:0", torch.device("cpu"), torch.device("cpu", 0)):
        assert choose_device(cpu) == torch.device("cpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device(None) == choose_device("auto")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for cuda, number in (("cuda", 0), ("cuda:1", 1), (torch.device("cuda", 1), 1), (None, 0), ("auto", 0)):
        assert choose_device(cuda) == torch.device("cuda", number)
    for missing in ("cuda:2", "cpu:1", "mps", "mps:1"):
        with pytest.raises(HTRError, match=f"finds no {missing} device"):
            choose_device(missing)
    for nonsense in ("gpu", "cuda:", "cuda:x", "cuda:-1", "meta", "cpu:0:1"):
        with pytest.raises(HTRError, match=r"there is no device '.*': use auto, cpu, cuda or mps"):
            choose_device(nonsense)
    for nonsense in (0, 1.5, ["cpu"], object()):
        with pytest.raises(TypeError, match="a device is a name"):
            choose_device(nonsense)


@pytest.mark.parametrize(
    ("features", "faster"),
    [
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True, "amx_bf16": False}, True),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}, False),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, True),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": False}, False),
        ({}, False),
    ],
)
def test_bfloat16_only_where_it_is_faster(monkeypatch, features, faster):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features, raising=False)
    with utils.autocast(torch.device("cpu")):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if faster else torch.float32)


# ------------------------------------------------------------------------------------------- checkpoints


def test_last_path():
    assert str(last_path("a/htr_crnn_mini.pth")) == os.path.join("a", "htr_crnn_mini.last.pth")


RUNS = ["lr0.001", "lr0.002", "names.v1", "names.v2", "2026.11.25", "2026.11.26", "a.pth", "a.pt", "a.b.pth", "a.c",
        "b.ckpt", ".hidden", "v1.0/a.pth", "v2.0/a.pth", "a.last", "A.PTH", "c."]  # fmt: skip


def test_no_two_runs_share_a_file():
    files = [{path, *(beside(path, name) for name in ("last.pth", "previous.pth", "history.csv", "curves.png"))}
             for path in map(Path, RUNS)]  # fmt: skip
    assert len(set().union(*files)) == 5 * len(RUNS)


@pytest.mark.parametrize("name", RUNS)
def test_the_run_of_a_state_is_known_by_its_name(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    assert run_of(last_path(path)) == run_of(previous_path(path)) == run_of(path) == path
    check_model_path(path)
    check_model_path(SHIPPED_WEIGHTS.parent / name)


def test_a_run_does_not_take_the_files_of_another(tmp_path):
    (tmp_path / "a.pth").touch()
    (tmp_path / "b").touch()
    (tmp_path / "folder").mkdir()
    for path, reason in (
        (tmp_path / "a", r"a and .*a\.pth would share their training state"),
        (tmp_path / "b.pth", r"b\.pth and .*b would share"),
        (tmp_path / "a.last.pth", r"is the name of a state of .*a\.pth"),
        (tmp_path / "new.previous.pth", "is the name of a state of"),
        (tmp_path / "folder", "is a folder"),
        ("", "is a folder"),
        (SHIPPED_WEIGHTS, "shipped weights, which stay as they are"),
        (SHIPPED_WORDS, "shipped weights, which stay as they are"),
        (SHIPPED_LINES, "shipped weights, which stay as they are"),
    ):
        with pytest.raises(HTRError, match=f"{reason}.*--model-path"), only_training(path):
            pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pth", "b", "folder"]


def test_a_failed_save_leaves_the_last_checkpoint(tmp_path):
    save_checkpoint({"a": torch.ones(3)}, tmp_path / "a.pth")
    with pytest.raises((AttributeError, pickle.PicklingError)):
        save_checkpoint({"a": lambda: None}, tmp_path / "a.pth")
    assert torch.equal(load_checkpoint(tmp_path / "a.pth")["a"], torch.ones(3))
    assert [p.name for p in tmp_path.iterdir()] == ["a.pth"]


class Attack:
    def __reduce__(self):
        return os.mkdir, ("attacked",)


def signed(path, data: bytes):
    """Any bytes as a file with the right checksum, as somebody who knows the format can make it."""
    comment = utils.checksum(data[:-2])
    path.write_bytes(data[:-2] + len(comment).to_bytes(2, "little") + comment)


def saved(value) -> bytes:
    torch.save(value, buffer := io.BytesIO())
    return buffer.getvalue()


CHECKPOINT = {"format": "htr-crnn", "version": utils.VERSION}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no checkpoint.*train.py"),
        (lambda path: path.touch(), "checksum is missing"),
        (lambda path: path.write_text("text"), "checksum is missing"),
        (lambda path: path.mkdir(), "cannot be read: Is a directory"),
        (lambda path: path.write_bytes(saved(CHECKPOINT)), "checksum is missing"),
        (lambda path: path.write_bytes(pickle.dumps(Attack())), "checksum is missing"),
        (lambda path: signed(path, b"anything but a ZIP archive"), "not a checkpoint of this program"),
        (lambda path: signed(path, saved(CHECKPOINT | {"a": Attack()})), "not a checkpoint of this program"),
        (lambda path: signed(path, pickle.dumps(Attack()) + b"  "), "not a checkpoint of this program"),
        (lambda path: signed(path, saved({"state_dict": {}})), "not a checkpoint of this program"),
        (lambda path: signed(path, saved([1, 2])), "not a checkpoint of this program"),
        (
            lambda path: signed(path, saved(CHECKPOINT | {"version": 99})),
            "newer version.*format 99.*up to 3.*update",
        ),
    ],
)
def test_bad_checkpoints_are_refused_by_name(tmp_path, monkeypatch, make, message):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "bad.pth")
    with pytest.raises(HTRError, match=message) as error:
        load_checkpoint(tmp_path / "bad.pth")
    assert "bad.pth" in str(error.value)
    assert not (tmp_path / "attacked").exists()


def test_control_the_attack_works_where_pickles_are_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.load(io.BytesIO(saved(CHECKPOINT | {"a": Attack()})), weights_only=False)
    assert (tmp_path / "attacked").exists()


def test_a_flipped_bit_or_a_lost_end_is_noticed_anywhere(tmp_path):
    path = tmp_path / "a.pth"
    save_checkpoint({"a": torch.arange(50.0), "b": "text"}, path)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(HTRError, match="damaged"):
            load_checkpoint(path)
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(HTRError, match="damaged"):
            load_checkpoint(path)
    path.write_bytes(whole)
    assert load_checkpoint(path)["b"] == "text"


def test_a_checkpoint_is_what_torch_loads(tmp_path):
    save_checkpoint({"a": torch.ones(3)}, tmp_path / "a.pth")
    assert torch.load(tmp_path / "a.pth", weights_only=True)["a"].tolist() == [1, 1, 1]
    assert zipfile.ZipFile(tmp_path / "a.pth").testzip() is None


def test_the_file_before_is_kept(tmp_path):
    for number in (1, 2, 3):
        save_checkpoint({"number": number}, tmp_path / "a.pth", previous=tmp_path / "b.pth")
    assert load_checkpoint(tmp_path / "a.pth")["number"] == 3
    assert load_checkpoint(tmp_path / "b.pth")["number"] == 2


VERSION_1 = ROOT / "tests" / "checkpoints" / "version1"


def test_a_checkpoint_of_an_earlier_version_reads_what_it_read(monkeypatch):
    monkeypatch.setattr(utils, "cpu_is_faster_in_bfloat16", lambda: False)
    expected = pd.read_csv(VERSION_1 / "readings.csv")
    found = predict_batch(VERSION_1 / "htr_crnn_tiny.pth", ROOT / "samples", save_csv=False, device="cpu")
    assert len(expected) == 12
    assert found["FILENAME"].tolist() == expected["FILENAME"].tolist()
    assert found["PREDICTION"].tolist() == expected["PREDICTION"].tolist()
    assert found["CONFIDENCE"].tolist() == pytest.approx(expected["CONFIDENCE"].tolist(), rel=1e-2)


def test_a_checkpoint_of_an_earlier_version_continues(tmp_path, script, data_dir):
    for name in ("htr_crnn_tiny.pth", "htr_crnn_tiny.last.pth"):
        shutil.copy(VERSION_1 / name, tmp_path)
    before = load_checkpoint(tmp_path / "htr_crnn_tiny.last.pth")
    flags = ("--model-path", "htr_crnn_tiny.pth", "--data-dir", data_dir, "--epochs", 1)
    assert "epoch 7/7" in script(tmp_path, "continue_train.py", *flags).stdout
    after = load_checkpoint(tmp_path / "htr_crnn_tiny.last.pth")
    assert (before["epoch"], after["epoch"], after["version"]) == (6, 7, utils.VERSION)
    assert after["history"][:6] == before["history"]
    assert after["steps"] == before["steps"] + 4  # 64 images in batches of 16
    assert after["history"][6]["val_cer"] < 0.1  # it knows what it had learned


def test_networks_of_version_2_read_from_left_to_right_whatever_the_script(tmp_path):
    for version, text in ((2, "אב"), (3, "בא")):
        checkpoint = {"version": version, "config": {}, "alphabet": "אב"}
        save_checkpoint(checkpoint, tmp_path / "a.pth")
        _, alphabet = restore_settings(load_checkpoint(tmp_path / "a.pth"), "a.pth")
        assert (alphabet.encode(text), alphabet.decode([0, 1])) == ([0, 1], text)


def test_networks_of_version_1_read_greys_as_they_were_trained_on():
    old, _ = restore_settings(load_checkpoint(VERSION_1 / "htr_crnn_tiny.pth"), "a.pth")
    new, _ = restore_settings(load_checkpoint(ROOT / "weights" / "htr_crnn_names.pth"), "a.pth")
    assert (old.LEVELS, new.LEVELS) == (False, True)


def renamed(checkpoint):
    """As if LSTM_UNITS of version 3 were called LSTM_HIDDEN since."""
    config = dict(checkpoint["config"])
    config["LSTM_HIDDEN"] = config.pop("LSTM_UNITS")
    return checkpoint | {"config": config}


def removed(checkpoint):
    """As if version 5 no longer had WARMUP."""
    return checkpoint | {"config": {name: v for name, v in checkpoint["config"].items() if name != "WARMUP"}}


@pytest.mark.parametrize("version", [3, 4, 5])
def test_a_checkpoint_is_brought_up_to_date_version_by_version(tmp_path, monkeypatch, version):
    """With two versions to come, in which a setting is renamed and another one removed."""
    configs = [{"LSTM_UNITS": 32, "WARMUP": 9}, {"LSTM_HIDDEN": 32, "WARMUP": 9}, {"LSTM_HIDDEN": 32}]
    saved = {"version": version, "config": configs[version - 3], "alphabet": "ABC"}
    save_checkpoint(saved, tmp_path / "a.pth")
    monkeypatch.setattr(utils, "VERSION", 5)
    monkeypatch.setattr(utils, "UPGRADES", utils.UPGRADES | {3: renamed, 4: removed})
    checkpoint = load_checkpoint(tmp_path / "a.pth")
    assert checkpoint["version"] == 5
    assert restore_settings(checkpoint, "a.pth")[0] == Config(LSTM_HIDDEN=32)


def test_every_earlier_version_can_be_brought_up_to_date():
    assert sorted(utils.UPGRADES) == list(range(1, utils.VERSION))


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("can't allocate memory: 8 TB")],
)
def test_too_little_memory_names_a_batch_size(error):
    with pytest.raises(HTRError, match="--batch-size 8"), memory_advice(16):
        raise error


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another malloc than glibc's")
def test_freed_memory_is_kept_for_the_next_step():
    """The pages of a large block are there already when it is taken again; they are not once it was given back.

    In a process of its own, whose heap has no other past.
    """
    code = """
import resource, torch
from utils import memory_kept

def new_pages():  # of a block, the least of several, one after the other: a small one may lie in the way
    counts = []
    for _ in range(12):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.zeros(16 * 2**20)  # 64 MiB
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return min(counts)

before = new_pages()
with memory_kept():
    print(before, new_pages())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    before, kept = map(int, done.stdout.split())
    assert kept < before / 2


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    with pytest.raises(RuntimeError, match="shape"), memory_advice(16):
        raise RuntimeError("shape")


SMALL = Config(CNN_CHANNELS=(4, 4, 4, 4, 4, 4), LSTM_HIDDEN=4)


def test_settings_and_alphabet_come_back(trained):
    checkpoint = load_checkpoint(trained / "htr_crnn_mini.pth")
    config, alphabet = restore_settings(checkpoint, "a.pth")
    assert config.BATCH_SIZE == 8
    assert config.CNN_CHANNELS == (8, 8, 8, 8, 16, 16)
    assert alphabet.knows("MARTIN")


def test_what_a_checkpoint_does_not_say_is_as_by_default(trained):
    checkpoint = load_checkpoint(trained / "htr_crnn_mini.pth")
    config, _ = restore_settings(checkpoint | {"config": {"BATCH_SIZE": 8}}, "a.pth")
    assert config == Config(BATCH_SIZE=8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": None}, "does not know: config"),
        ({"config": {"EPOCHS": 1, "LSTM_CELLS": 9}}, "does not know: LSTM_CELLS"),
        ({"alphabet": None}, "make no sense"),
        ({"alphabet": "AA"}, "make no sense"),
        ({"alphabet": ["A", "B"]}, "make no sense"),
        ({"config": {"LSTM_HIDDEN": 10**9}}, "make no sense: --lstm-hidden"),
        ({"config": {"LSTM_HIDDEN": "128"}}, "make no sense: --lstm-hidden"),
        ({"config": {"CNN_CHANNELS": 8}}, "make no sense: --cnn-channels"),
        ({"config": {"DROPOUT": float("nan")}}, "make no sense: --dropout"),
    ],
)
def test_settings_that_do_not_fit_are_named(trained, change, message):
    checkpoint = load_checkpoint(trained / "htr_crnn_mini.pth") | change
    with pytest.raises(HTRError, match=message):
        restore_settings(checkpoint, "a.pth")


def test_weights_that_do_not_fit_are_named():
    model = build_model(SMALL, Alphabet("ABC"))
    other_alphabet = build_model(SMALL, Alphabet("ABCD")).state_dict()
    with pytest.raises(
        HTRError, match=r"a\.pth does not fit its alphabet and settings: (feedback|heads|shortcut)\..* has shape"
    ):
        restore_weights(model, other_alphabet, "a.pth")
    partial = model.state_dict()
    del partial["heads.0.bias"]
    with pytest.raises(HTRError, match=r"heads\.0\.bias is missing"):
        restore_weights(model, partial, "a.pth")
    with pytest.raises(HTRError, match=r"tail\.bias is unknown"):
        restore_weights(model, model.state_dict() | {"tail.bias": torch.ones(1)}, "a.pth")
    with pytest.raises(HTRError, match=r"heads\.0\.bias is not finite"):
        restore_weights(model, model.state_dict() | {"heads.0.bias": torch.full((4,), float("nan"))}, "a.pth")
    for none in (5, {"heads.0.bias": "x"}):
        with pytest.raises(HTRError, match="holds no weights"):
            restore_weights(model, none, "a.pth")


# --------------------------------------------------------------------------------------------------- ONNX


def test_an_onnx_file_holds_what_reading_needs_and_nothing_of_the_machine(trained, tmp_path):
    for state in (trained / "htr_crnn_mini.pth", last_path(trained / "htr_crnn_mini.pth")):
        utils.export_onnx(state, tmp_path / "small.onnx")
        _, facts, config, alphabet = utils.load_network(tmp_path / "small.onnx", "auto")
        checkpoint = load_checkpoint(state)
        whole, characters = restore_settings(checkpoint, state)
        assert all(getattr(config, name) == getattr(whole, name) for name in utils.READING)
        assert facts["config"].keys() == set(utils.READING) - {"FRAME_WIDTH", "VIEW_WIDTH", "VIEW_SLANT"}
        assert (alphabet.characters, alphabet.ways) == (characters.characters, characters.ways)
        for name in ("calibration", "lexicon", "spelling"):
            assert facts.get(name) == checkpoint.get(name)
        for name in ("small.onnx", "small.json"):
            assert str(trained).encode() not in (tmp_path / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.json", "small.onnx"]


def test_half_precision_stays_half_precision(trained, tmp_path):
    """Of a checkpoint whose weights are rounded to it: its ONNX file is as small, and reads as it does."""
    checkpoint, whole, half = load_checkpoint(trained / "htr_crnn_mini.pth"), tmp_path / "whole", tmp_path / "half"
    rounded = {name: weight.half() if weight.dim() > 1 else weight for name, weight in checkpoint["model"].items()}
    for stem, weights in ((whole, checkpoint["model"]), (half, rounded)):
        save_checkpoint(checkpoint | {"model": weights}, stem.with_suffix(".pth"))
        utils.export_onnx(stem.with_suffix(".pth"), stem.with_suffix(".onnx"))
    for suffix in utils.SUFFIXES:
        assert half.with_suffix(suffix).stat().st_size < 0.7 * whole.with_suffix(suffix).stat().st_size
    lines = [np.random.default_rng(0).integers(0, 256, (64, 80), dtype=np.uint8)]
    with_torch, with_onnx = (utils.load_network(half.with_suffix(each), "cpu")[0](lines)[0] for each in utils.SUFFIXES)
    assert np.abs(np.exp(with_torch) - np.exp(with_onnx)).max() < 0.01


def test_an_onnx_file_knows_the_width_of_its_frames(tmp_path):
    config, alphabet = Config(FRAME_WIDTH=4, IMG_HEIGHT=32, CNN_CHANNELS=(4,) * 6, LSTM_HIDDEN=4), Alphabet("AB")
    weights = build_model(config, alphabet).state_dict()
    state = {"config": dataclasses.asdict(config), "alphabet": "AB", "model": weights}
    save_checkpoint(state, tmp_path / "small.pth")
    utils.export_onnx(tmp_path / "small.pth", tmp_path / "small.onnx")
    for suffix in utils.SUFFIXES:
        network, _, restored, _ = utils.load_network(tmp_path / f"small{suffix}", "cpu")
        assert restored.FRAME_WIDTH == 4
        assert network([np.full((32, 41), 255, np.uint8)])[1].tolist() == [12]


def test_an_onnx_file_that_reads_something_else_is_not_left(trained, tmp_path, monkeypatch):
    exported = CRNN.exported
    monkeypatch.setattr(CRNN, "exported", lambda model: exported(model) | {"conv0.bias": np.ones(8, np.float32)})
    with pytest.raises(HTRError, match="reads something else"):
        utils.export_onnx(trained / "htr_crnn_mini.pth", tmp_path / "small.onnx")
    assert not list(tmp_path.iterdir())


def test_where_an_onnx_file_may_not_be_written(trained, tmp_path):
    for name, message in (("small.pth", r"does not end in \.onnx"), ("none.txt", "does not end")):
        with pytest.raises(HTRError, match=message):
            utils.export_onnx(trained / "htr_crnn_mini.pth", tmp_path / name)
    for shipped in (SHIPPED_WEIGHTS, SHIPPED_WORDS, SHIPPED_LINES):
        with pytest.raises(HTRError, match="holds the shipped weights"):
            utils.export_onnx(trained / "htr_crnn_mini.pth", shipped.with_suffix(".onnx"))
    (tmp_path / "file").write_text("")
    with pytest.raises(HTRError, match="cannot be written"):
        utils.export_onnx(trained / "htr_crnn_mini.pth", tmp_path / "file" / "small.onnx")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "is not an ONNX file of this program"),
        ({"version": 99}, "newer version of this program"),
        ({"version": "3"}, "it has no version"),
        ({"config": []}, "settings that this program does not know"),
        ({"config": {"LSTM_HIDDEN": 10**9}}, "settings that make no sense"),
        ({"config": {"IMG_HEIGHT": 1e999}}, "settings that make no sense"),
        ({"config": {"UNKNOWN": 1}}, "does not know: UNKNOWN"),
        ({"config": {"LSTM_HIDDEN": 2048, "LSTM_LAYERS": 10}}, "damaged or not an ONNX file"),
        ({"alphabet": 3}, "settings that make no sense"),
        ({"alphabet": "A" * 9}, "settings that make no sense"),
        ({"ways": [9]}, "settings that make no sense"),
    ],
)
def test_an_onnx_file_with_facts_of_another_network_is_refused(trained, tmp_path, monkeypatch, change, message):
    monkeypatch.setattr(onnx.Session, "__init__", lambda *_: pytest.fail("it ran"))
    checkpoint = load_checkpoint(trained / "htr_crnn_mini.pth")
    config, alphabet = restore_settings(checkpoint, "")
    model = build_model(config, alphabet)
    restore_weights(model, checkpoint["model"], "")
    facts = {"format": utils.FORMAT, "version": utils.VERSION, "graph": onnx.GRAPH, "alphabet": alphabet.characters}
    facts |= {"config": {name: getattr(config, name) for name in utils.READING}} | change
    path = tmp_path / "small.onnx"
    path.write_bytes(onnx.encode(json.dumps(facts).encode(), utils.sizes_of(config, alphabet), model.fuse().exported()))
    with pytest.raises(HTRError, match=message):
        utils.load_network(path, "auto")


@pytest.mark.parametrize(
    "change",
    [
        {"calibration": {}},
        {"calibration": {"weights": [1, 0], "trigrams": {}}},
        {"calibration": {"weights": [float("nan"), 0, 0], "trigrams": {}}},
        {"calibration": {"weights": [1, 0, 0], "trigrams": {"AB": 1, "ABC": 1}}},
        {"calibration": 3},
    ],
)
def test_a_calibration_that_makes_no_sense_is_refused(trained, tmp_path, change):
    save_checkpoint(load_checkpoint(trained / "htr_crnn_mini.pth") | change, tmp_path / "small.pth")
    utils.export_onnx(tmp_path / "small.pth", tmp_path / "small.onnx")
    for name in ("small.pth", "small.onnx"):
        with pytest.raises(HTRError, match=f"{name} has a calibration that makes no sense"):
            Reader.load(tmp_path / name)
