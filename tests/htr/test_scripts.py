import signal
import subprocess
import sys

import pytest
from conftest import ROOT

from htr.scripts import printable


def run_main(body: str) -> subprocess.Popen:
    code = f"import time\nfrom htr.scripts import *\ndef main():\n    {body}\nrun(main)"
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ("return 0", 0, ""),
        ("return 1", 1, ""),
        ("raise HTRError('fix this')", 1, "error: fix this\n"),
        ("raise OSError(28, 'No space left', 'a')", 1, "error: [Errno 28] No space left: 'a'\n"),
        ("import nothing_like_it", 1, "error: nothing_like_it is not installed: pip install -r requirements.txt\n"),
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


def test_text_is_shown_on_one_line_whatever_it_holds():
    assert printable("Léa 名\n\t\x1b[31m\udce9") == r"Léa 名\n\t\x1b[31m\udce9"
    assert printable("x" * 50, most=10) == "x" * 7 + "..."
