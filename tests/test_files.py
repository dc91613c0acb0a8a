import os
import stat
import time

import pytest

import files
from config import HTRError
from files import whole_file


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
