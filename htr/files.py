"""Files on disk: listed below a folder, replaced as a whole, and written by one process at a time."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from filelock import FileLock, Timeout

from htr.names import left_by_system
from htr.scripts import HTRError

STALE = 3600  # seconds without a change after which a temporary file is a killed process's


@contextlib.contextmanager
def whole_file(path: str | os.PathLike, mode: str = "w", previous: Path | None = None, **options: Any) -> Iterator[IO]:
    """Open a file for writing that replaces `path` once all of it is on disk.

    Until then the old file stays as it is; afterwards it is kept as `previous` where that is given. What a killed
    process left behind is removed after an hour, or at once by `only_writer`. Takes `open`'s options. Raises HTRError,
    which names the file, for any OSError.
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
            if os.name == "posix":  # the new name must survive a power cut, too
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
    """Remove the temporary files of `path` that killed processes left behind more than `age` seconds ago."""
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        with contextlib.suppress(OSError):  # another process may be faster
            if left.stat().st_mtime <= time.time() - age:
                left.unlink()


@contextlib.contextmanager
def only_writer(path: str | os.PathLike, *others: str | os.PathLike, wait: bool = False) -> Iterator[None]:
    """Be the only process that writes `path` and `others`, files in the same folder.

    Removes what killed processes left of them. The lock, on a file beside `path`, ends with the process, however that
    ends. Raises HTRError where another process holds it (unless `wait`) or the folder cannot be written.
    """
    first = Path(path)
    lock = FileLock(first.with_name(f".{first.name}.lock"), timeout=-1 if wait else 0)
    try:
        first.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise HTRError(f"another process is writing {path}: wait until it has ended, or choose another path") from error
    except OSError as error:
        raise HTRError(f"{first.parent} cannot be written: {error.strerror or error}") from error
    try:
        for each in (path, *others):
            remove_temporaries(Path(each), 0)
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(lock.lock_file)  # while it is held: whoever waits for this very file tries again
        lock.release()


class Listing(NamedTuple):
    """What lies below a folder, as sorted paths relative to it, with forward slashes."""

    files: list[str]  # without those that systems leave behind, such as hidden ones
    links: set[str]  # those of the files that are symbolic links
    linked_folders: list[str]  # not searched: they may lead anywhere, or in circles
    empty_folders: list[str]
    closed_folders: list[str]  # those that cannot be searched
    left_by_systems: int = 0  # files that are not listed, see `htr.names.left_by_system`


def list_files(folder: str | os.PathLike) -> Listing:
    """List all files below `folder`. Raises HTRError where `folder` itself cannot be searched."""
    files, links, linked_folders, empty_folders, closed_folders, systems = [], set(), [], [], [], 0
    waiting = [("", False)]  # folders still to be searched, each with a slash at the end; whether they are a system's
    while waiting:
        below, of_system = waiting.pop()
        try:
            with os.scandir(os.path.join(folder, below)) as entries:
                empty = True
                for entry in entries:
                    name, empty = below + entry.name, False
                    passed_over = of_system or left_by_system(entry.name)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((f"{name}/", passed_over))
                    elif passed_over:
                        systems += 1
                    elif entry.is_symlink() and os.path.isdir(entry.path):
                        linked_folders.append(name)
                    else:
                        files.append(name)
                        if entry.is_symlink():
                            links.add(name)
        except OSError as error:
            if not below:
                raise HTRError(f"{folder} cannot be searched: {error.strerror}") from error
            if not of_system:
                closed_folders.append(below[:-1])
        else:
            if empty and below and not of_system:
                empty_folders.append(below[:-1])
    for names in (files, linked_folders, empty_folders, closed_folders):
        names.sort()
    return Listing(files, links, linked_folders, empty_folders, closed_folders, systems)


def file_name(path: str | os.PathLike) -> str:
    """A path as text that can be written anywhere; bytes that are not UTF-8 become \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
