import sys

import pytest

from htr.system import progress
from htr.system.progress import Progress, counted, on_terminal


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only when it is told to."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_long_work_says_how_far_it_is_a_few_times(clock, capsys):
    """An hour: after a minute, and at each quarter."""
    bar = Progress("epoch 2/10", 3600)
    with bar:
        for _ in range(3600):
            clock[0] += 1
            bar.update()
            if bar.due():
                bar.say("loss 1.5, ")
    assert capsys.readouterr().out.splitlines() == [
        "epoch 2/10: 60 of 3,600 images, loss 1.5, 1 images/s, 59:00 left",
        "epoch 2/10: 900 of 3,600 images, loss 1.5, 1 images/s, 45:00 left",
        "epoch 2/10: 1,800 of 3,600 images, loss 1.5, 1 images/s, 30:00 left",
        "epoch 2/10: 2,700 of 3,600 images, loss 1.5, 1 images/s, 15:00 left",
    ]


def test_what_was_done_before_does_not_count_as_speed(clock, capsys):
    with Progress("reading", 1000, done=400) as bar:
        clock[0] += 100
        bar.update(100)
        assert bar.due()
        bar.say()
    assert capsys.readouterr().out == "reading: 500 of 1,000 images, 1 images/s, 8:20 left\n"


def test_a_short_work_is_silent(clock, capsys):
    def items():
        for n in range(80):
            clock[0] += 1
            yield n

    assert list(counted(items(), Progress("reading", 80))) == list(range(80))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("stream", [None, "closed"])
def test_no_terminal_without_a_stream(monkeypatch, tmp_path, stream):
    if stream == "closed":
        with open(tmp_path / "a", "w") as stream:
            pass
    monkeypatch.setattr(sys, "stderr", stream)
    assert not on_terminal()
    assert list(counted([1], Progress("reading", 1))) == [1]
