"""How a script ends: its exit status, and errors that fit on one line."""

import os
import signal
import sys
from collections.abc import Callable


class HTRError(Exception):
    """An error that the user can fix; its text is one sentence that says how."""


class WrongUse(HTRError, ValueError):
    """Options that contradict each other or are out of range."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, raised after the state has been saved. `signum` is the signal's number."""

    def __init__(self, signum: int, message: str = ""):
        super().__init__(message)
        self.signum = signum


def printable(text: str, most: int = 2000) -> str:
    """`text` on one line, without terminal control characters, cut to `most` characters."""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: most + 1])
    return text if len(text) <= most else text[: most - 3] + "..."


def run(main: Callable[[], int]) -> None:
    """Run a script's `main` and exit with its status.

    0 done, 1 failed, 2 wrong usage, 130 / 143 after Ctrl-C / SIGTERM. An error that the user can fix is printed as one
    line on stderr, without a traceback.
    """

    def terminate(signum, frame):
        raise Interrupted(signum)

    before = signal.signal(signal.SIGTERM, terminate)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not a notebook's
            stream.reconfigure(errors="backslashreplace")  # file names may hold any bytes
    try:
        status = main()
        sys.stdout.flush()
    except HTRError as error:
        print("error:", printable(" ".join(str(error).split())), file=sys.stderr)  # libraries' messages may have lines
        status = 1
    except ModuleNotFoundError as error:
        print(f"error: {error.name} is not installed: pip install -r requirements.txt", file=sys.stderr)
        status = 1
    except BrokenPipeError:  # whoever read our output is gone, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except OSError as error:  # the machine's fault, such as no room for temporary files
        print("error:", printable(str(error)), file=sys.stderr)
        status = 1
    except Interrupted as stop:
        print(str(stop) or "terminated", file=sys.stderr)
        status = 128 + stop.signum
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 128 + signal.SIGINT
    finally:
        signal.signal(signal.SIGTERM, before)  # a notebook goes on
    sys.exit(status)
