"""A drive that can neither lock files nor write folders through to the disk, as a Python sees it."""

from pathlib import Path

SHIM = """
import errno, fcntl, os, stat

def refuse(*_):
    raise OSError({number}, os.strerror({number}))

def fsync(descriptor, real=os.fsync):
    return refuse() if stat.S_ISDIR(os.fstat(descriptor).st_mode) else real(descriptor)

fcntl.flock = fcntl.lockf = refuse
os.fsync = fsync
"""


def without_locks(folder: Path, number: int) -> dict[str, str]:
    """The environment of a Python in which all drives answer with this error number; writes to `folder`."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(SHIM.format(number=number))
    return {"PYTHONPATH": str(folder)}
