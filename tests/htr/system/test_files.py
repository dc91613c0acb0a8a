import errno
import os
import shutil
import stat
import subprocess
import sys
import time

import pytest
from conftest import ROOT

from htr.system import files
from htr.system.files import list_files, only_writer, whole_file
from htr.system.scripts import HTRError


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    path = tmp_path / "sub" / "a.txt"
    with whole_file(path) as file:
        file.write("old")
    with pytest.raises(RuntimeError, match="half way"), whole_file(path) as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "old"
        raise RuntimeError("half way")
    assert path.read_text() == "old"
    with whole_file(path) as file:
        file.write("new")
    assert path.read_text() == "new"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_file_modes_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        with whole_file(tmp_path / "a.txt"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(HTRError, match="cannot be written"), whole_file(tmp_path / "file" / "a.txt") as file:
        file.write("x")


def test_what_a_killed_process_left_is_removed_when_it_is_old(tmp_path):
    left, fresh, other = tmp_path / ".a.txt.1.tmp", tmp_path / ".a.txt.2.tmp", tmp_path / ".b.txt.1.tmp"
    for path in (left, fresh, other):
        path.touch()
    for path in (left, other):
        os.utime(path, (time.time() - files.STALE - 60,) * 2)
    with whole_file(tmp_path / "a.txt") as file:
        file.write("x")
    assert sorted(path.name for path in tmp_path.iterdir()) == [fresh.name, other.name, "a.txt"]


HOLD = """
import sys, time
from htr.system.files import only_writer
with only_writer(sys.argv[1]):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_second_writer_is_refused_and_a_dead_one_is_not_in_the_way(tmp_path):
    path = tmp_path / "new" / "a.pth"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, path], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "locked\n"
        (path.parent / ".a.pth.99.tmp").touch()
        with pytest.raises(HTRError, match=r"another process is writing .*a\.pth"), only_writer(path):
            pass
        assert (path.parent / ".a.pth.99.tmp").exists()
        with only_writer(tmp_path / "new" / "b.pth"):
            pass
    finally:
        holder.kill()
        holder.wait()
    with only_writer(path):
        assert not (path.parent / ".a.pth.99.tmp").exists()  # nobody writes it any more
    assert list(path.parent.iterdir()) == []


def test_a_writer_that_fails_lets_the_next_one_in(tmp_path):
    for _ in range(2):
        with pytest.raises(RuntimeError, match="failed"), only_writer(tmp_path / "a.txt"):
            raise RuntimeError("failed")


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(HTRError, match="file cannot be written"), only_writer(tmp_path / "file" / "a.txt"):
        pass


def test_a_folder_that_goes_while_a_file_is_written_is_named(tmp_path):
    folder = tmp_path / "gone"
    with (
        pytest.raises(HTRError, match=r"gone.a\.txt cannot be written: No such file"),
        whole_file(folder / "a.txt") as file,
    ):
        file.write("x")
        shutil.rmtree(folder)
    with whole_file(folder / "a.txt") as file:  # the next one makes it again
        file.write("x")
    assert (folder / "a.txt").read_text() == "x"


@pytest.fixture
def drive(monkeypatch):
    """drive(lock=..., sync=..., file=...) makes all drives answer with these error numbers from now on."""
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(files, "_told", set())

    def refuse(lock=None, sync=None, file=None):
        def fails(number):
            raise OSError(number, os.strerror(number))

        def fsync(descriptor, real=os.fsync):
            number = sync if stat.S_ISDIR(os.fstat(descriptor).st_mode) else file
            return fails(number) if number else real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        if lock:
            monkeypatch.setattr(fcntl, "flock", lambda *_: fails(lock))

    return refuse


NUMBERS = [errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO, errno.ENOSYS, errno.EPERM]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize(
    ("refused", "said"),
    [
        (("lock",), "lock files ({}): a second run on the same files would not be noticed"),
        (("sync",), "write a folder through to the disk ({}): a power cut may take back what was saved last"),
        (("lock", "sync"), "lock files and to write a folder through to the disk ({}): a second run on the same files"
         " would not be noticed and a power cut may take back what was saved last"),
    ],
)  # fmt: skip
def test_a_drive_that_cannot_lock_or_sync_is_written_and_said_once(tmp_path, drive, capsys, number, refused, said):
    drive(**dict.fromkeys(refused, number))
    for text in ("old", "new"):
        with only_writer(tmp_path / "a.txt"), whole_file(tmp_path / "a.txt") as file:
            file.write(text)
    assert (tmp_path / "a.txt").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert capsys.readouterr().out == f"the drive of {tmp_path} refuses to {said.format(os.strerror(number))}\n"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_drive_that_cannot_sync_files_is_written(tmp_path, drive, capsys, number):
    drive(file=number, sync=number)
    with whole_file(tmp_path / "a.txt") as file:
        file.write("new")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert capsys.readouterr().out.count("\n") == 1


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_file_that_is_not_on_the_disk_does_not_replace_the_old_one(tmp_path, drive, number):
    (tmp_path / "a.txt").write_text("old")
    drive(file=number)
    with pytest.raises(HTRError, match="cannot be written"), whole_file(tmp_path / "a.txt") as file:
        file.write("new")
    assert (tmp_path / "a.txt").read_text() == "old"


FILL = """
import resource, sys
from htr.system.files import whole_file
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
from htr.system.scripts import HTRError
try:
    with whole_file(sys.argv[1], "wb") as file:
        file.write(bytes(int(sys.argv[2])))
except HTRError as error:
    print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="limits are POSIX's")
@pytest.mark.parametrize("size", [2_000, 200_000])  # noticed at the end, and while writing
def test_where_no_more_can_be_written_the_old_file_stays(tmp_path, size):
    (tmp_path / "a.bin").write_bytes(b"old")
    command = [sys.executable, "-c", FILL, tmp_path / "a.bin", str(size)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"{tmp_path / 'a.bin'} cannot be written: File too large\n"
    assert (tmp_path / "a.bin").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_list_files_is_sorted_relative_and_recursive(tmp_path):
    for name in ("b.png", "sub/a.png", "a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list_files(tmp_path).files == ["a.txt", "b.png", "sub/a.png"]
    assert list_files(os.fspath(tmp_path)).files == ["a.txt", "b.png", "sub/a.png"]


@pytest.mark.skipif(os.name != "posix", reason="links need rights elsewhere")
def test_folders_that_are_not_searched_are_told(tmp_path):
    (tmp_path / "sub" / "deep.png").mkdir(parents=True)
    (tmp_path / "sub" / "round").symlink_to("..")
    (tmp_path / "a.png").symlink_to("nowhere")
    listing = list_files(tmp_path)
    assert listing == (["a.png"], {"a.png"}, ["sub/round"], ["sub/deep.png"], [], 0)


def test_what_systems_leave_in_folders_is_counted_and_not_listed(tmp_path):
    left = ["._a.png", ".DS_Store", "__MACOSX/._a.png", ".ipynb_checkpoints/a.png", "@eaDir/a.png/thumb.jpg",
            "Thumbs.db", "sub/.hidden/deep/a.png", "#recycle/a.png", "sub/desktop.ini"]  # fmt: skip
    for name in ["a.png", "sub/a.png", "sub/_a.png", "sub/@a.png", "dot.in.name/a.png", *left]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".empty.png").mkdir()
    listing = list_files(tmp_path)
    assert listing.files == ["a.png", "dot.in.name/a.png", "sub/@a.png", "sub/_a.png", "sub/a.png"]
    assert listing.passed_over == len(left)
    assert listing.empty_folders == []
    assert list_files(tmp_path / ".ipynb_checkpoints").files == ["a.png"]  # whoever names it means it
    with pytest.raises(HTRError, match="nowhere cannot be searched: No such file"):
        list_files(tmp_path / "nowhere")


def test_a_folder_that_cannot_be_searched_is_told(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    real = os.scandir

    def scandir(path):
        if str(path).rstrip("/").endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert list_files(tmp_path).closed_folders == ["closed"]


@pytest.mark.skipif(os.name != "posix", reason="links need rights elsewhere")
def test_linked_folders_are_searched_once_where_that_is_asked_for(tmp_path):
    for name in ("data/sub/a.png", "elsewhere/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "data/out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/out2").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/sub/round").symlink_to("..")
    assert list_files(tmp_path / "data").files == ["sub/a.png"]
    listing = list_files(tmp_path / "data", follow_links=True)
    assert len(listing.files) == 2
    assert [name.split("/")[-1] for name in listing.files] == ["b.png", "a.png"]
    assert listing.linked_folders == []
