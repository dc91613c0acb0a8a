import os
import pickle

import pytest
import torch

from config import Config, HTRError
from dataset import Alphabet
from utils import (
    Score,
    build_model,
    choose_device,
    load_checkpoint,
    restore_settings,
    restore_weights,
    save_checkpoint,
)


@pytest.mark.parametrize(
    ("pairs", "cer", "exact"),
    [
        ([("MARTIN", "MARTIN")], 0, 1),
        ([("MARTIN", "MARTN")], 1 / 6, 0),  # one deletion
        ([("MARTIN", "MARRTIN")], 1 / 6, 0),  # one insertion
        ([("MARTIN", "NARTIM")], 2 / 6, 0),  # two substitutions
        ([("KITTEN", "SITTING")], 3 / 6, 0),
        ([("A", ""), ("ABCDEFGHI", "ABCDEFGHI")], 1 / 10, 1 / 2),  # not the mean of 1 and 0
        ([("AB", "XYZUV")], 5 / 2, 0),  # may exceed 1
        ([("ABC", "BCA")], 2 / 3, 0),  # by edits, not by position
    ],
)
def test_cer_and_exact_match(pairs, cer, exact):
    score = Score()
    for reference, reading in pairs:
        score.add(reference, reading)
    assert score.cer == pytest.approx(cer)
    assert score.exact == pytest.approx(exact)


def test_a_score_of_nothing_is_zero():
    assert (Score().cer, Score().exact) == (0, 0)


def test_a_device_that_is_not_there_is_refused():
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    missing = "mps" if not torch.backends.mps.is_available() else "cuda"
    with pytest.raises(HTRError, match=f"no {missing} device.*--device cpu"):
        choose_device(missing)


# ------------------------------------------------------------------------------------------- checkpoints


def test_a_failed_save_leaves_the_last_checkpoint(tmp_path):
    save_checkpoint({"a": torch.ones(3)}, tmp_path / "a.pth")
    with pytest.raises((AttributeError, pickle.PicklingError)):
        save_checkpoint({"a": lambda: None}, tmp_path / "a.pth")
    assert torch.equal(load_checkpoint(tmp_path / "a.pth")["a"], torch.ones(3))
    assert [p.name for p in tmp_path.iterdir()] == ["a.pth"]


class Attack:
    def __reduce__(self):
        return os.mkdir, ("attacked",)


def other_program(path):
    torch.save({"state_dict": {}}, path)


def other_version(path):
    torch.save({"format": "htr-crnn", "version": 99}, path)


def truncated(path):
    save_checkpoint({"a": torch.ones(1000)}, path)
    path.write_bytes(path.read_bytes()[:-200])


def running_code(path):
    torch.save({"format": "htr-crnn", "version": 1, "a": Attack()}, path)


def plain_pickle(path):
    path.write_bytes(pickle.dumps(Attack()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no checkpoint.*train.py"),
        (lambda path: path.touch(), "damaged or no checkpoint"),
        (lambda path: path.write_text("text"), "damaged or no checkpoint"),
        (lambda path: path.mkdir(), "damaged or no checkpoint"),
        (truncated, "damaged or no checkpoint"),
        (running_code, "damaged or no checkpoint"),
        (plain_pickle, "damaged or no checkpoint"),
        (other_program, "no checkpoint of this program"),
        (other_version, "format 99.*reads format 1"),
    ],
)
def test_bad_checkpoints_are_refused_by_name(tmp_path, monkeypatch, make, message):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "bad.pth")
    with pytest.raises(HTRError, match=message) as error:
        load_checkpoint(tmp_path / "bad.pth")
    assert "bad.pth" in str(error.value)
    assert not (tmp_path / "attacked").exists()


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
        ({"config": None}, "another version"),
        ({"config": {"EPOCHS": 1, "LSTM_CELLS": 9}}, "another version.*LSTM_CELLS"),
        ({"alphabet": None}, "make no sense"),
        ({"alphabet": "AA"}, "make no sense"),
    ],
)
def test_settings_that_do_not_fit_are_named(trained, change, message):
    checkpoint = load_checkpoint(trained / "htr_crnn_mini.pth") | change
    with pytest.raises(HTRError, match=message):
        restore_settings(checkpoint, "a.pth")


def test_weights_that_do_not_fit_are_named():
    model = build_model(SMALL, Alphabet("ABC"))
    other_alphabet = build_model(SMALL, Alphabet("ABCD")).state_dict()
    with pytest.raises(HTRError, match=r"a\.pth does not fit its alphabet and settings: (head|shortcut)\..* has shape"):
        restore_weights(model, other_alphabet, "a.pth")
    partial = model.state_dict()
    del partial["head.bias"]
    with pytest.raises(HTRError, match=r"head\.bias is missing"):
        restore_weights(model, partial, "a.pth")
    with pytest.raises(HTRError, match=r"tail\.bias is not known"):
        restore_weights(model, model.state_dict() | {"tail.bias": torch.ones(1)}, "a.pth")
