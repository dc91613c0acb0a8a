import argparse
import dataclasses
import re

import pytest
from conftest import ROOT

from config import Config, add_flags, flag_of, typed_settings


def test_every_setting_is_read_somewhere():
    sources = " ".join(path.read_text(encoding="utf-8") for path in ROOT.glob("*.py"))
    for field in dataclasses.fields(Config):
        assert re.search(rf"[cC]onfig(\(.*\))?\.{field.name}\b", sources), f"{field.name} is read nowhere"


def test_defaults_can_be_read_on_the_class():
    assert (Config.EPOCHS, Config.NUM_SAMPLES, Config.MINI_MODEL_PATH) == (10, 5000, "htr_crnn_mini.pth")
    assert Config.TEST_IMG_DIR == "test_v2/test"


@pytest.mark.parametrize(
    "wrong",
    [
        {"EPOCHS": 0},
        {"BATCH_SIZE": 0},
        {"LEARNING_RATE": float("nan")},
        {"DROPOUT": 1.5},
        {"CNN_CHANNELS": (8, 8)},
        {"CNN_CHANNELS": (8, 8, 8, 0, 8, 8)},
    ],
)
def test_values_out_of_range_are_refused_by_the_flags_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)).lower().replace("_", "-")):
        Config(**wrong)


def test_flags_come_from_the_settings():
    parser = argparse.ArgumentParser()
    add_flags(parser)
    text = " ".join(parser.format_help().split())
    for field in dataclasses.fields(Config):
        assert flag_of(field) in text
    assert text.count("(default: ") == len(dataclasses.fields(Config))
    typed = parser.parse_args("--epochs 3 --no-uppercase --cnn-channels 1 2 3 4 5 6 --model-path a.pth".split())
    assert typed_settings(typed) == {
        "EPOCHS": 3,
        "UPPERCASE": False,
        "CNN_CHANNELS": (1, 2, 3, 4, 5, 6),
        "MINI_MODEL_PATH": "a.pth",
    }


@pytest.mark.parametrize("name", ["train.py", "continue_train.py", "predict.py"])
@pytest.mark.parametrize(
    "flags", [["--no-such-flag"], ["--device", "abacus"], ["--model-pat", "x"], ["--workers", "-1"]]
)
def test_wrong_use_ends_with_2(tmp_path, script, name, flags):
    done = script(tmp_path, name, *flags, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "value"),
    [("EPOCHS", 1.5), ("EPOCHS", "1"), ("LEARNING_RATE", "x"), ("CNN_CHANNELS", 8), ("CNN_CHANNELS", ("8",) * 6),
     ("DATA_DIR", 5), ("LEARNING_RATE", float("inf")), ("LEARNING_RATE", float("nan")), ("IMG_HEIGHT", 10**9)],
)  # fmt: skip
def test_settings_of_another_type_or_size_are_refused(setting, value):
    with pytest.raises(ValueError, match=f"--{setting.lower().replace('_', '-')} "):
        Config(**{setting: value})
