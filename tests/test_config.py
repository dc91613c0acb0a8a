import argparse
import ast
import dataclasses
import re
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT

from config import Config, add_flags, flag_of, printable, typed_settings

MODULES = sorted(path.stem for path in ROOT.glob("*.py"))
SCRIPTS = {"train", "continue_train", "predict"}


def imports(module: str) -> set[str]:
    """Modules of this project that `module` imports anywhere, also within functions."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / f"{module}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module)
    return found & set(MODULES)


def test_imports_run_one_way():
    assert imports("config") == set()
    assert imports("model") <= {"config"}
    assert imports("dataset") <= {"config", "files", "pictures"}
    for module in MODULES:
        assert not imports(module) & SCRIPTS, f"{module} imports a script"
    seen = set()

    def visit(module, path):
        assert module not in path, f"circle: {[*path, module]}"
        if module not in seen:
            for other in imports(module):
                visit(other, [*path, module])
            seen.add(module)

    for module in MODULES:
        visit(module, [])


def test_every_setting_is_read_somewhere():
    sources = " ".join((ROOT / f"{module}.py").read_text(encoding="utf-8") for module in MODULES)
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


def run_main(body: str) -> subprocess.Popen:
    code = f"import time\nfrom config import *\ndef main():\n    {body}\nrun(main)"
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ("return 0", 0, ""),
        ("return 1", 1, ""),
        ("raise HTRError('mend this')", 1, "error: mend this\n"),
        ("raise OSError(28, 'No space left', 'a')", 1, "error: [Errno 28] No space left: 'a'\n"),
        ("raise KeyboardInterrupt", 130, "interrupted\n"),
        ("raise Interrupted(15, 'saved')", 143, "saved\n"),
    ],
)
def test_exit_status(body, status, message):
    process = run_main(body)
    assert process.communicate()[1] == message
    assert process.returncode == status


def test_sigterm_ends_with_143():
    process = run_main("print('ready', flush=True); time.sleep(60)")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143


@pytest.mark.parametrize("name", ["train.py", "continue_train.py", "predict.py"])
def test_help_needs_no_torch(name):
    code = f"import runpy, sys; sys.modules['torch'] = None; sys.argv = ['{name}', '--help']; runpy.run_path('{name}', run_name='__main__')"  # noqa: E501
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "(default: " in done.stdout
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("name", ["train.py", "continue_train.py", "predict.py"])
@pytest.mark.parametrize(
    "flags", [["--no-such-flag"], ["--device", "abacus"], ["--model-pat", "x"], ["--workers", "-1"]]
)
def test_wrong_use_ends_with_2(tmp_path, script, name, flags):
    done = script(tmp_path, name, *flags, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_text_is_shown_on_one_line_whatever_it_holds():
    assert printable("Léa 名\n\t\x1b[31m\udce9") == r"Léa 名\n\t\x1b[31m\udce9"
    assert printable("x" * 50, most=10) == "x" * 7 + "..."


@pytest.mark.parametrize(
    ("setting", "value"),
    [("EPOCHS", 1.5), ("EPOCHS", "1"), ("LEARNING_RATE", "x"), ("CNN_CHANNELS", 8), ("CNN_CHANNELS", ("8",) * 6),
     ("DATA_DIR", 5), ("LEARNING_RATE", float("inf")), ("LEARNING_RATE", float("nan")), ("IMG_HEIGHT", 10**9)],
)  # fmt: skip
def test_settings_of_another_type_or_size_are_refused(setting, value):
    with pytest.raises(ValueError, match=f"--{setting.lower().replace('_', '-')} "):
        Config(**{setting: value})
