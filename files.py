"""Files that appear whole or not at all, and that one process alone writes."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from config import HTRError

STALE = 3600  # seconds without a change after which a temporary file is what a killed process left


@contextlib.contextmanager
def whole_file(path: str | os.PathLike, mode: str = "w", previous: Path | None = None, **options: Any) -> Iterator[IO]:
    """Open a file for writing that replaces `path` only when all of it is on the disk.

    Whatever happens before, the old file stays as it is; afterwards it is kept as `previous` where that is given. What
    a killed process left is removed after an hour, or by `only_writer` at once. Takes `open`'s options; OSErrors become
    HTRErrors that name the file.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_temporaries(path, STALE)
            with open(temporary, mode, **options) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if previous and path.exists():
                os.replace(path, previous)
            os.replace(temporary, path)
            if os.name == "posix":  # the new name, too, must survive a power cut
                folder = os.open(path.parent, os.O_RDONLY)
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise HTRError(f"{path} cannot be written: {error.strerror or error}") from error


def remove_temporaries(path: Path, age: float) -> None:
    """Remove what killed processes left of `path`: its temporary files of more than `age` seconds."""
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        with contextlib.suppress(OSError):  # another process may be faster
            if left.stat().st_mtime <= time.time() - age:
                left.unlink()


@contextlib.contextmanager
def only_writer(path: str | os.PathLike, *others: str | os.PathLike, wait: bool = False) -> Iterator[None]:
    """Be the only process that writes `path`, and other files in its folder.

    Removes what killed processes left of them. The lock, on a file beside `path`, ends with the process, whatever ends
    it. Raises HTRError where another process has it, unless it is to `wait`, or the folder cannot be written.
    """
    first = Path(path)
    lock = FileLock(first.with_name(f".{first.name}.lock"), timeout=-1 if wait else 0)
    try:
        first.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise HTRError(f"another process is writing {path}: wait until it has ended, or name another path") from error
    except OSError as error:
        raise HTRError(f"{first.parent} cannot be written: {error.strerror or error}") from error
    try:
        for each in (path, *others):
            remove_temporaries(Path(each), 0)
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(lock.lock_file)  # while it is held: who waits for this very file tries again
        lock.release()
