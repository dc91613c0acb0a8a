"""Files that appear whole or not at all."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from config import HTRError

STALE = 3600  # seconds without a change after which a temporary file is what a killed process left


@contextlib.contextmanager
def whole_file(path: str | os.PathLike, mode: str = "w", **options: Any) -> Iterator[IO]:
    """Open a file for writing that replaces `path` only when all of it is on the disk.

    Whatever happens before, the old file stays as it is; what a killed process left is removed after an hour. Takes
    `open`'s options; OSErrors become HTRErrors that name the file.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for left in path.parent.glob(f".{path.name}.*.tmp"):
                with contextlib.suppress(OSError):  # another process may be faster
                    if left.stat().st_mtime < time.time() - STALE:
                        left.unlink()
            with open(temporary, mode, **options) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
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
