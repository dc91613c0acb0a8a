"""How far the work is: a bar on a terminal; in a file or a pipe a line now and then."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

from htr.system import parallel

T = TypeVar("T")
MARKS = (0.25, 0.5, 0.75)  # shares of the work after which a line is due,
PAUSE = 60.0  # seconds between two of them at least; the first one is due after so many


def on_terminal() -> bool:
    """Whether there is somebody to look at a bar."""
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # there is no stream, or it is closed
        return False


class Progress:
    """Counts images, of `total`, the first `done` of which were done before. Use it as a context.

    Only the first of several processes shows anything. lines: whether lines are printed where there is no terminal.
    """

    def __init__(self, what: str, total: int, done: int = 0, lines: bool = True):
        first, terminal = parallel.rank() == 0, on_terminal()
        self.what, self.total, self.done, self.before = what, total, done, done
        self.bar = tqdm(desc=what, total=total, unit="img", leave=False, disable=not (first and terminal))
        self.bar.update(done)
        self.lines = lines and first and not terminal
        self.started = self.said = time.monotonic()
        self.marks = [0.0, *MARKS]

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: Any) -> None:
        self.bar.close()

    def update(self, count: int = 1) -> None:
        self.done += count
        self.bar.update(count)

    def due(self) -> bool:
        """Whether `say` would print a line now. Never within a minute of the last one, nor near the end."""
        if not self.lines or time.monotonic() - self.said < PAUSE:
            return False
        share, left = self.done / max(1, self.total), self.seconds_left()
        return any(mark <= share for mark in self.marks) and left > PAUSE / 2

    def seconds_left(self) -> float:
        speed = (self.done - self.before) / max(1e-9, time.monotonic() - self.started)
        return (self.total - self.done) / max(1e-9, speed)

    def say(self, figures: str = "") -> None:
        """Print how far the work is, with `figures` in between."""
        share = self.done / max(1, self.total)
        self.said, self.marks = time.monotonic(), [mark for mark in self.marks if mark > share]
        speed = (self.done - self.before) / max(1e-9, self.said - self.started)
        minutes, seconds = divmod(round(self.seconds_left()), 60)
        print(
            f"{self.what}: {self.done:,} of {self.total:,} images, {figures}{speed:.0f} images/s,"
            f" {minutes}:{seconds:02} left"
        )


def counted(items: Iterable[T], progress: Progress) -> Iterator[T]:
    """Pass items through and count each."""
    with progress:
        for item in items:
            yield item
            progress.update()
            if progress.due():
                progress.say()
