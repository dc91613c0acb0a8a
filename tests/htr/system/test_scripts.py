import signal
import subprocess
import sys

import pytest
from conftest import ROOT

from htr.system.scripts import printable


def run_main(body: str, *before: str) -> subprocess.Popen:
    code = f"import time\nfrom htr.system.scripts import *\ndef main():\n    {body}\nrun(main)"
    return subprocess.Popen(
        [*before, sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
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


def run_shell(tmp_path, command: str) -> subprocess.CompletedProcess:
    """A command line with {main}, a script that prints ten lines and then writes the file `done`."""
    body = "import sys\nfrom htr.system.scripts import *\ndef main():\n    for n in range(10): print('line', n)\n"
    body += "    print('warning', file=sys.stderr); open('done', 'w').write('x'); return 0\nrun(main)\n"
    (tmp_path / "main.py").write_text(body, encoding="utf-8")
    main = f"PYTHONPATH={ROOT} {sys.executable} main.py"
    shell = ["bash", "-c", f"set -o pipefail; {command.format(main=main)}"]
    return subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("command", "status", "errors"),
    [
        ("{main} >&-", 0, "warning\n"),
        ("{main} 2>&-", 0, ""),
        ("{main} <&- >&- 2>&-", 0, ""),
        ("{main} | head -2", 0, "warning\n"),
        ("{main} | true", 0, "warning\n"),
        ("{main} 2>&1 | head -1", 0, ""),
        ("{main} > /dev/full", 1, "warning\nthe work is done, but what it printed is not all written: [Errno 28]"),
        ("{main} 2> /dev/full", 1, ""),
    ],
)
def test_the_work_is_done_whoever_reads_what_it_prints(tmp_path, command, status, errors):
    done = run_shell(tmp_path, command)
    assert done.returncode == status
    assert (tmp_path / "done").read_text() == "x"
    assert done.stderr.startswith(errors)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


def test_a_closed_terminal_ends_like_sigterm():
    process = run_main("print('ready'); time.sleep(60)")  # a line appears when it is printed
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    assert process.wait(30) == 129


def test_nohup_is_respected():
    process = run_main("print('ready'); time.sleep(1); return 0", "nohup")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    assert process.wait(30) == 0
