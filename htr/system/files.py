"""Files on disk: listed below a folder, replaced as a whole, and written by one process at a time."""

import contextlib
import errno
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from filelock import FileLock, Timeout

from htr.system.names import DRAWN, READ, is_no_data
from htr.system.scripts import HTRError

STALE = 3600  # seconds without a change after which a temporary file is a killed process's


# What drives answer that cannot lock or sync, such as network drives, shared folders and FUSE.
UNSUPPORTED = (errno.ENOLCK, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
NO_SYNC = "to write a folder through to the disk"
NO_LOCK = "to lock files"
NOT_PROMISED = {
    NO_LOCK: "a second run on the same files would not be noticed",
    NO_SYNC: "a power cut may take back what was saved last",
}
_told: set[str] = set()  # which of these this process has mentioned


def _tell(folder: Path, refused: dict[str, OSError]) -> None:
    """Say once what cannot be promised in a folder."""
    new = [what for what in refused if what not in _told]
    if new:
        _told.update(new)
        reason = refused[new[0]].strerror or refused[new[0]]
        consequence = " and ".join(NOT_PROMISED[what] for what in new)
        print(f"the drive of {folder.absolute()} refuses {' and '.join(new)} ({reason}): {consequence}")


def _sync_folder(folder: Path) -> OSError | None:
    """Write a folder's entries through to the disk; returns why that is not possible."""
    if os.name != "posix":
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        return error
    return None


def _lock_refused(folder: Path) -> OSError | None:
    """Why no file in a folder can be locked; None where it can."""
    try:
        import fcntl
    except ImportError:  # not POSIX
        return None
    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error
    return None


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
                try:
                    os.fsync(file.fileno())
                except OSError as error:
                    if error.errno not in UNSUPPORTED:
                        raise
                    _tell(path.parent, {NO_SYNC: error})
            if previous and path.exists():
                os.replace(path, previous)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise HTRError(f"{path} cannot be written: {error.strerror or error}") from error
    if error := _sync_folder(path.parent):  # the new name should survive a power cut, too; it is there in any case
        _tell(path.parent, {NO_SYNC: error})


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
    ends. A drive that cannot lock files is written without, which is said once. Raises HTRError where another process
    holds the lock (unless `wait`) or the folder cannot be written.
    """
    first = Path(path)
    with contextlib.ExitStack() as stack:
        try:
            first.parent.mkdir(parents=True, exist_ok=True)
            refused = _lock_refused(first.parent)
            if refused is None:
                stack.enter_context(_locked(first.with_name(f".{first.name}.lock"), wait))
        except Timeout as error:
            raise HTRError(
                f"another process is writing {path}: wait until it has ended, or choose another path"
            ) from error
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise HTRError(f"{first.parent} cannot be written: {error.strerror or error}") from error
            refused = error
        if refused:
            no_sync = _sync_folder(first.parent)
            _tell(first.parent, {NO_LOCK: refused} | ({NO_SYNC: no_sync} if no_sync else {}))
        for each in (path, *others):
            remove_temporaries(Path(each), 0)
        yield


@contextlib.contextmanager
def _locked(path: Path, wait: bool) -> Iterator[None]:
    lock = FileLock(path, timeout=-1 if wait else 0)
    lock.acquire()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)  # while it is held: whoever waits for this very file tries again
        lock.release()


class Listing(NamedTuple):
    """What lies below a folder, as sorted paths relative to it, with forward slashes."""

    files: list[str]  # without those that are no data, such as hidden ones
    links: set[str]  # those of the files that are symbolic links
    linked_folders: list[str]  # not searched: they may lead anywhere, or in circles
    empty_folders: list[str]
    closed_folders: list[str]  # those that cannot be searched
    passed_over: int = 0  # files that are no data, see `htr.system.names.is_no_data`


def list_files(folder: str | os.PathLike, follow_links: bool = False) -> Listing:
    """List all files below `folder`; with `follow_links` also those below linked folders, each folder once.

    A drawn dataset in a folder below it is passed over, as nobody's handwriting, and so is what an earlier reading of
    pages left there.

    Raises HTRError where `folder` itself cannot be searched.
    """
    searched = {os.path.realpath(folder)} if follow_links else set()  # folders that links may lead to again
    files, links, linked_folders, empty_folders, closed_folders, passed_over = [], set(), [], [], [], 0
    waiting = [("", False)]  # folders still to be searched, each with a slash at the end; whether they are no data
    while waiting:
        below, no_data = waiting.pop()
        try:
            with os.scandir(os.path.join(folder, below)) as entries:
                empty = True
                marks = (os.path.join(folder, below, mark) for mark in (DRAWN, READ))
                no_data |= bool(below) and any(map(os.path.exists, marks))
                for entry in entries:
                    name, empty = below + entry.name, False
                    passed = no_data or is_no_data(entry.name)
                    if entry.is_dir(follow_symlinks=follow_links):
                        target = os.path.realpath(entry.path) if follow_links else ""
                        if target not in searched:
                            waiting.append((f"{name}/", passed))
                            searched |= {target} if follow_links else set()
                    elif passed:
                        passed_over += 1
                    elif entry.is_symlink() and os.path.isdir(entry.path):
                        linked_folders.append(name)
                    else:
                        files.append(name)
                        if entry.is_symlink():
                            links.add(name)
        except OSError as error:
            if not below:
                raise HTRError(f"{folder} cannot be searched: {error.strerror}") from error
            if not no_data:
                closed_folders.append(below[:-1])
        else:
            if empty and below and not no_data:
                empty_folders.append(below[:-1])
    for names in (files, linked_folders, empty_folders, closed_folders):
        names.sort()
    return Listing(files, links, linked_folders, empty_folders, closed_folders, passed_over)


def links_out(listing: Listing, folder: Path, *others: str | os.PathLike) -> set[str]:
    """Which files of a listing of `folder` are links to somewhere outside of it, and of `others`."""
    roots = [os.path.realpath(root) for root in (folder, *others)]
    targets = ((path, Path(os.path.realpath(folder / path))) for path in listing.links)  # also of a link to itself
    return {path for path, target in targets if not any(map(target.is_relative_to, roots))}


def file_name(path: str | os.PathLike) -> str:
    """A path as text that can be written anywhere; bytes that are not UTF-8 become \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
