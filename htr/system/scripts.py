"""How a script ends, and what surrounds it: exit status, errors that fit on one line, streams, signals."""

import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any


class HTRError(Exception):
    """An error that the user can fix; its text is one sentence that says how."""


class WrongUse(HTRError, ValueError):
    """Options that contradict each other or are out of range."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or SIGHUP, raised after the state has been saved. `signum` is the signal's number."""

    def __init__(self, signum: int, message: str = ""):
        super().__init__(message)
        self.signum = signum


def printable(text: str, most: int = 2000) -> str:
    """`text` on one line, without terminal control characters, cut to `most` characters."""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: most + 1])
    return text if len(text) <= most else text[: most - 3] + "..."


def ends_asked_for() -> list[int]:
    """The signals by which a script is asked to end: SIGTERM, and SIGHUP of a terminal that is closed.

    Without SIGHUP where that is ignored, as under nohup.
    """
    hangup = getattr(signal, "SIGHUP", None)  # not on Windows
    return [signal.SIGTERM, *([hangup] if hangup and signal.getsignal(hangup) != signal.SIG_IGN else [])]


class Outlet:
    """A standard stream that may go away: what is written then is lost, but the work goes on.

    Takes the place of sys.stdout or sys.stderr. Whoever read it may be gone, as in `| head`; a terminal may be closed,
    a disk full. lost: why it could not be written, None where it could.
    """

    def __init__(self, stream: Any):
        self.stream, self.lost = stream, None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        self._try(self.stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def _try(self, do: Callable, *args: Any) -> None:
        try:
            do(*args)
        except (OSError, ValueError) as error:  # ValueError: it is closed
            self.lost = self.lost or error
            self._to_nowhere()

    def _to_nowhere(self) -> None:
        """Let what is still held back, here or by a library, go nowhere."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, self.stream.fileno())
        except (OSError, ValueError, AttributeError):  # no file
            self.stream = open(os.devnull, "w")  # noqa: SIM115
        finally:
            os.close(nowhere)


def open_streams() -> None:
    """Give a script that was started without standard streams, as by `>&-`, pythonw or a service, some to nowhere.

    Or the next file that it opens would take a stream's number, and get what libraries print.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w" if number else "r"))  # noqa: SIM115


def run(main: Callable[[], int]) -> None:
    """Run a script's `main` and exit with its status.

    0 done, 1 failed, 2 wrong usage, 129 / 130 / 143 after SIGHUP / Ctrl-C / SIGTERM. An error that the user can fix is
    printed as one line on stderr, without a traceback. A line appears when it is printed, also in a file or a pipe.
    """

    def terminate(signum, frame):
        if signum != signal.SIGTERM:  # a closed terminal says so more than once
            signal.signal(signum, signal.SIG_IGN)
        raise Interrupted(signum)

    open_streams()
    before = {signum: signal.signal(signum, terminate) for signum in ends_asked_for()}
    streams = sys.stdout, sys.stderr
    for stream in streams:
        if hasattr(stream, "reconfigure"):  # not a notebook's
            stream.reconfigure(errors="backslashreplace", line_buffering=True)  # file names may hold any bytes
    sys.stdout, sys.stderr = outlets = tuple(map(Outlet, streams))
    try:
        status = ended(main)
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)  # a notebook goes on
        for outlet in outlets:
            outlet.flush()
        sys.stdout, sys.stderr = streams
    sys.exit(status or unwritten(outlets))


def ended(main: Callable[[], int]) -> int:
    """The exit status of a script's `main`; prints why it failed."""
    try:
        status = main()
    except HTRError as error:
        print("error:", printable(" ".join(str(error).split())), file=sys.stderr)  # libraries' messages may have lines
        status = 1
    except ModuleNotFoundError as error:
        print(f"error: {error.name} is not installed: pip install -r requirements.txt", file=sys.stderr)
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
    return status


def unwritten(outlets: Sequence[Outlet]) -> int:
    """1 where something printed is lost, which is said; 0 where nothing is, or nobody was there to read it."""
    errors = [outlet.lost for outlet in outlets if outlet.lost]
    if all(getattr(error, "errno", errno.EPIPE) in (errno.EPIPE, errno.EIO) for error in errors):
        return 0
    print(f"the work is done, but what it printed is not all written: {errors[0]}", file=sys.stderr)
    return 1
