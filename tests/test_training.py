import copy
import dataclasses
import itertools
import math
import os
import signal
import time
from collections import Counter

import pytest
import torch
from conftest import same

import training
from config import Config
from dataset import Lines, to_ink
from htr.pictures.packed import PackedImages
from htr.results.scores import Score
from htr.system.scripts import HTRError
from htr.texts.labels import Alphabet
from training import (
    MOST_SKIPPED,
    check_best,
    choose_rate,
    cooldown,
    fit,
    load_last,
    make_batch,
    new_state,
    restore_state,
    save_state,
    schedule,
    stop_requests,
    train_batch,
    train_epoch,
    update_average,
    validate,
)
from utils import last_path, load_checkpoint, previous_path, save_checkpoint

CPU = torch.device("cpu")
TINY = Config(CNN_CHANNELS=(4, 4, 4, 4, 8, 8), LSTM_HIDDEN=8, IMG_HEIGHT=16)


def lines(texts, width=80) -> Lines:
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (16, width + n), generator=generator).byte().numpy() for n in range(len(texts))]
    return Lines(
        [f"{n}.png" for n in range(len(texts))],
        PackedImages.of(images),
        list(texts),
        Counter(used=len(texts)),
    )


def test_a_batch_holds_the_pictures_as_they_are():
    data = lines(["A", "B", "C"])
    images, widths, texts = make_batch(data, [0, 2], CPU)
    assert texts == ["A", "C"]
    assert widths.tolist() == [80, 82]
    assert torch.equal(images[1, 0, :, :82], to_ink(torch.from_numpy(data.images[2])))
    assert (images[1, 0, :, 82:] == 0).all()


def test_validation_counts_each_image_once_and_unknown_characters_in_the_scores_only():
    state = new_state(TINY, Alphabet("AB"), CPU)
    known, unknown = ["AB", "BA", "A"], ["ÖÖ", "Ö"]
    loss, score = validate(state.average, lines(known), state.alphabet, state.device, batch_size=2)
    assert (score.images, score.characters) == (3, 5)
    mixed_loss, score = validate(state.average, lines(known + unknown), state.alphabet, state.device, batch_size=2)
    assert (score.images, score.characters) == (5, 8)
    assert mixed_loss == pytest.approx(loss, rel=1e-4)


def test_validation_does_not_depend_on_the_batch_size():
    state = new_state(TINY, Alphabet("AB"), CPU)
    data = lines(["AB", "BA", "A", "BB", "BABA"])
    losses = [validate(state.average, data, state.alphabet, state.device, size)[0] for size in (1, 2, 5)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) == pytest.approx(losses[2], rel=1e-5)


@pytest.fixture
def lossy(monkeypatch):
    """lossy(factor) multiplies what the CTC loss says from now on."""
    real = training.ctc_loss

    def multiply(factor):
        monkeypatch.setattr(training, "ctc_loss", lambda *args: real(*args) * factor)

    return multiply


def test_gradients_are_clipped():
    state = new_state(Config(CNN_CHANNELS=TINY.CNN_CHANNELS, LSTM_HIDDEN=8, IMG_HEIGHT=16, GRAD_CLIP=1e-3),
                      Alphabet("AB"), CPU)  # fmt: skip
    train_batch(state, *make_batch(lines(["AB", "BA"]), [0, 1], CPU))
    norm = torch.stack([p.grad.norm() for p in state.model.parameters()]).norm()
    assert float(norm) == pytest.approx(1e-3, rel=1e-2)


def test_a_step_decays_the_weights(lossy):
    state = new_state(dataclasses.replace(TINY, LEARNING_RATE=0.01, WEIGHT_DECAY=0.5), Alphabet("AB"), CPU)
    before = copy.deepcopy(list(state.model.parameters()))
    lossy(0)  # no gradient: the decay alone
    train_batch(state, *make_batch(lines(["AB", "BA"]), [0, 1], CPU))
    for old, new in zip(before, state.model.parameters(), strict=True):
        assert torch.allclose(new, 0.995 * old)


def test_the_rate_of_a_cycle():
    """Falling in the last half: whole up to the middle, half of it at three quarters, nearly none at the end; again."""
    rates = [cooldown(position, 10, 0.5) for position in (0, 3, 5, 6, 7.5, 9.5)]
    assert rates == pytest.approx([1, 1, 1, 0.8, 0.5, 0.1])
    assert [cooldown(position, 10, 0.5) for position in (10, 15, 17.5, 60)] == pytest.approx([1, 1, 0.5, 1])
    assert [cooldown(position, 10, 0.8) for position in (0, 2, 4, 8, 12)] == pytest.approx([1, 1, 0.75, 0.25, 1])
    assert [cooldown(position, 10, 1) for position in (0, 5, 9, 10)] == pytest.approx([1, 0.5, 0.1, 1])
    assert [cooldown(position, 0, 0.5) for position in (0, 9.5, 100)] == [1, 1, 1]


def test_the_pace_of_a_step_multiplies_its_rate_and_no_later_one():
    batch, weights = make_batch(lines(["AB", "BA"]), [0, 1], CPU), []
    for rate, pace in ((1e-3, 0.5), (5e-4, 1.0)):
        state = new_state(dataclasses.replace(TINY, LEARNING_RATE=rate, DROPOUT=0), Alphabet("AB"), CPU)
        train_batch(state, *batch, pace=pace)
        assert state.optimizer.param_groups[0]["lr"] == rate
        weights.append(state.model.state_dict())
    assert same(*weights)


def test_a_step_lowers_the_loss_of_its_batch():
    state = new_state(TINY, Alphabet("AB"), CPU)
    batch = make_batch(lines(["AB", "BA"]), [0, 1], CPU)
    losses = [float(train_batch(state, *batch).mean()) for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]
    assert state.steps == 30


@pytest.mark.parametrize(("weight", "learns"), [(0.0, False), (0.3, True)])
def test_training_learns_from_the_earlier_readings(weight, learns):
    """In the first step the feedback is silent: only its own loss can teach an earlier reading."""
    state = new_state(dataclasses.replace(TINY, INTERMEDIATE_LOSS=weight), Alphabet("AB"), CPU)
    train_batch(state, *make_batch(lines(["AB", "BA"]), [0, 1], CPU))
    *earlier, last = state.model.heads
    assert [bool(head.weight.grad.any()) for head in earlier] == [learns] * 2
    assert last.weight.grad.any()


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_step_without_a_finite_gradient_changes_nothing(lossy, factor):
    state = new_state(TINY, Alphabet("AB"), CPU)
    batch = make_batch(lines(["AB", "BA"]), [0, 1], CPU)
    train_batch(state, *batch)
    before = copy.deepcopy((state.model.state_dict(), state.optimizer.state_dict()))
    for number in (1, 2):
        lossy(factor)
        train_batch(state, *batch)
        assert (int(state.skipped), int(state.skipped_in_a_row), state.steps) == (number, number, 1 + number)
    weights, optimizer = state.model.state_dict(), state.optimizer.state_dict()
    changed = [name for name in weights if not same(weights[name], before[0][name])]
    assert all(name.endswith("num_batches_tracked") for name in changed)
    assert same(optimizer, before[1])
    assert all(torch.isfinite(value).all() for value in state.average.state_dict().values())
    lossy(1)
    train_batch(state, *batch)
    assert (int(state.skipped), int(state.skipped_in_a_row)) == (2, 0)
    assert not same(state.model.state_dict(), before[0])


def test_training_stops_where_the_gradient_stays_without_a_finite_value(lossy, tmp_path):
    config = dataclasses.replace(TINY, BATCH_SIZE=1, MINI_MODEL_PATH=str(tmp_path / "a.pth"))
    state = new_state(config, Alphabet("AB"), CPU)
    lossy(float("nan"))
    with pytest.raises(HTRError, match=f"last {MOST_SKIPPED} steps.*continue_train.py.*--learning-rate below 2.0e-03"):
        train_epoch(state, lines(["AB"] * 30))
    saved = load_last(config.MINI_MODEL_PATH)
    assert saved["batches_done"] == MOST_SKIPPED
    assert all(torch.isfinite(value).all() for value in saved["model"].values())


def test_skipped_steps_are_counted(lossy, tmp_path, monkeypatch, capsys):
    config = dataclasses.replace(TINY, BATCH_SIZE=2, MINI_MODEL_PATH=str(tmp_path / "a.pth"))
    monkeypatch.setattr(training, "validate", lambda *_: (1.0, Score(1, 2, 0, 1)))
    monkeypatch.setattr(training, "calibrate_on_validation", lambda *_: None)
    lossy(float("nan"))
    fit(new_state(config, Alphabet("AB"), CPU), lines(["AB", "BA", "A", "B", "BB"]), lines(["AB"]), 1)
    assert "epoch 1: 3 steps skipped because their gradient was not finite" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("validation_losses", "best"), [([3.0, float("nan")], 1), ([float("nan"), 3.0, 2.0], 3), ([float("nan")], None)]
)
def test_a_validation_loss_that_is_no_number_is_never_the_best(tmp_path, monkeypatch, validation_losses, best):
    config = dataclasses.replace(TINY, MINI_MODEL_PATH=str(tmp_path / "a.pth"))
    state, data, losses = new_state(config, Alphabet("AB"), CPU), lines(["AB", "BA"]), iter(validation_losses)
    monkeypatch.setattr(training, "validate", lambda *_: (next(losses), Score(1, 2, 0, 1)))
    monkeypatch.setattr(training, "calibrate_on_validation", lambda *_: None)
    if best is None:
        with pytest.raises(HTRError, match="no epoch had a finite validation loss"):
            fit(state, data, data, len(validation_losses))
        assert not (tmp_path / "a.pth").exists()
    else:
        fit(state, data, data, len(validation_losses))
        assert load_checkpoint(tmp_path / "a.pth")["epoch"] == best
        assert (tmp_path / "a.curves.png").exists()


@pytest.mark.parametrize(
    ("cycle", "validation_losses", "rates"),
    [
        (0, [3, 2, 2, 2, 2, 2, 1], [1, 1, 1, 1, 1 / 2, 1 / 2, 1 / 4]),
        (4, [2, 2, 2, 2, 2, 2, 2, 2], [1, 1, 1, 1 / 4, 1 / 2, 1 / 2, 1 / 2, 1 / 8]),  # half in a cycle's last epoch
        (4, [8, 7, 6, 5, 6, 6, 6, 4], [1, 1, 1, 1 / 2, 1, 1, 1 / 2, 1 / 4]),
    ],
)
def test_the_rate_falls_where_the_validation_loss_stalls(cycle, validation_losses, rates, tmp_path, monkeypatch):
    """ReduceLROnPlateau with patience 1: halved after two epochs that are no better, but only once in a cycle."""
    path = str(tmp_path / "a.pth")
    config = dataclasses.replace(TINY, LR_PATIENCE=1, LR_CYCLE=cycle, LEARNING_RATE=1e-3, MINI_MODEL_PATH=path)
    config = dataclasses.replace(config, LR_COOLDOWN=0.5)
    state, data, losses = new_state(config, Alphabet("AB"), CPU), lines(["AB", "BA"]), iter(validation_losses)
    monkeypatch.setattr(training, "validate", lambda *_: (float(next(losses)), Score(1, 2, 0, 1)))
    monkeypatch.setattr(training, "calibrate_on_validation", lambda *_: None)
    fit(state, data, data, len(validation_losses))
    assert [row["learning_rate"] for row in state.history] == pytest.approx([1e-3 * rate for rate in rates])


def test_too_little_memory_names_a_batch_size(tmp_path, monkeypatch):
    state = new_state(dataclasses.replace(TINY, MINI_MODEL_PATH=str(tmp_path / "a.pth")), Alphabet("AB"), CPU)

    def forward(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(state.network, "forward", forward)
    with pytest.raises(HTRError, match="--batch-size 8"):
        fit(state, lines(["AB", "BA"]), lines(["AB"]), 1)


def test_states_are_saved_within_an_epoch(tmp_path, monkeypatch):
    """As often as asked for; a run goes on from each of them to the same end."""
    kept = []
    monkeypatch.setattr(training, "save_state", lambda state: kept.append(copy.deepcopy(state.last_checkpoint())))
    config = dataclasses.replace(TINY, BATCH_SIZE=2, SAVE_EVERY=1e-9, MINI_MODEL_PATH=str(tmp_path / "a.pth"))
    data = lines(["AB", "BA", "A", "B", "BAB", "ABA", "BB"])
    state = new_state(config, Alphabet("AB"), CPU)
    assert train_epoch(state, data)
    assert [checkpoint["batches_done"] for checkpoint in kept] == [1, 2, 3, 4]
    for checkpoint in kept:
        resumed = restore_state(checkpoint, config, state.alphabet, CPU, "a.pth")
        assert train_epoch(resumed, data)
        assert same(resumed.last_checkpoint(), state.last_checkpoint())
    kept.clear()
    train_epoch(new_state(dataclasses.replace(config, SAVE_EVERY=0), Alphabet("AB"), CPU), data)
    assert kept == []


def test_a_damaged_state_is_replaced_by_the_one_before(tmp_path, capsys):
    path = tmp_path / "a.pth"
    state = new_state(dataclasses.replace(TINY, MINI_MODEL_PATH=str(path)), Alphabet("AB"), CPU)
    with pytest.raises(HTRError, match=r"no checkpoint .*a\.last\.pth"):
        load_last(path)
    for state.steps in (1, 2, 3):
        save_state(state)
    assert load_last(path)["steps"] == 3
    last_path(path).write_bytes(last_path(path).read_bytes()[:-1])
    assert load_last(path)["steps"] == 2
    assert "a.last.pth is damaged" in (said := capsys.readouterr().out)
    assert "continuing from the state before it" in said and "a.previous.pth" in said
    assert load_last(path)["steps"] == 2  # it has taken its place
    assert not previous_path(path).exists()
    os.replace(last_path(path), previous_path(path))  # killed between two renames
    assert load_last(path)["steps"] == 2
    last_path(path).write_bytes(b"")
    previous_path(path).write_bytes(b"")
    with pytest.raises(HTRError, match=r"a\.last\.pth is damaged"):
        load_last(path)


@pytest.mark.parametrize("part", ["average", "optimizer", "steps"])
def test_an_incomplete_state_is_refused(part):
    state = new_state(TINY, Alphabet("AB"), CPU)
    checkpoint = state.last_checkpoint()
    del checkpoint[part]
    with pytest.raises(HTRError, match=rf"a\.last\.pth holds no complete state to continue from: '{part}'"):
        restore_state(checkpoint, TINY, state.alphabet, CPU, "a.last.pth")


def test_best_weights_that_are_damaged_are_replaced_by_the_next(tmp_path, capsys):
    path = tmp_path / "a.pth"
    state = new_state(dataclasses.replace(TINY, MINI_MODEL_PATH=str(path)), Alphabet("AB"), CPU)
    state.best_loss = 1.5
    save_checkpoint(state.best_checkpoint(), path)
    check_best(state)
    assert state.best_loss == 1.5
    path.write_bytes(b"")
    check_best(state)
    assert state.best_loss == float("inf")
    assert "a.pth is damaged" in capsys.readouterr().out


def test_the_average_follows_weights_and_statistics():
    torch.manual_seed(0)
    average, model = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    torch.nn.init.constant_(average.weight, 1.0)
    torch.nn.init.constant_(model.weight, 3.0)
    model.running_mean.fill_(10.0)
    model.num_batches_tracked.fill_(7)
    update_average(average, model, 0.75)
    assert average.weight.tolist() == [1.5, 1.5]
    assert average.running_mean.tolist() == [2.5, 2.5]
    assert int(average.num_batches_tracked) == 7


@pytest.fixture
def default_sigint():
    """Python's own handler, also where pytest was started as a background job that ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_signals_are_collected_and_a_second_one_takes_its_usual_way(default_sigint):
    with stop_requests() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        assert stop == [signal.SIGINT]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_schedule_of_a_run_from_weights_follows_its_lines():
    """Settings that there are; a whole cycle; fewer epochs, and larger batches, the more lines there are."""
    schedules = [schedule(lines, 4) for lines in (1, 50, 200, 1000, 100_000)]
    for chosen in schedules:
        config = Config(**chosen)
        assert config.EPOCHS == config.LR_CYCLE
    for fewer, more in itertools.pairwise(schedules):
        assert fewer["EPOCHS"] >= more["EPOCHS"]
        assert fewer["BATCH_SIZE"] <= more["BATCH_SIZE"]
    assert schedules[0]["EPOCHS"] > schedules[-1]["EPOCHS"]


def test_rotation_raises_the_ends_of_no_line_far():
    """By an eighth of its height each: a longer line would be shrunk to stay in its frame."""
    assert schedule(100, 2)["ROTATION"] == 4
    for width in (5, 17, 40):
        assert 64 * width * math.sin(math.radians(schedule(100, width)["ROTATION"])) == pytest.approx(16, rel=0.01)


@pytest.mark.parametrize(("texts", "rate"), [(["A"] * 5, 1e-4), (["B"] * 5, 2e-3), (["A", "A", "B", "B", "B"], 2e-3)])
def test_weights_that_read_the_lines_already_are_changed_slowly(texts, rate):
    """Of a network that reads A in every picture."""
    state = new_state(TINY, Alphabet("AB"), CPU)
    with torch.no_grad():
        state.average.heads[-1].weight.zero_()
        state.average.heads[-1].bias.copy_(torch.tensor([0.0, 9.0, 0.0]))
        state.average.shortcut.weight.zero_()
        for layer in state.average.heads[:-1]:
            layer.weight.zero_()
    wrong = lines(["A" if texts[0] == "B" else "B"])  # too few to tell
    choose_rate(state, lines(texts), wrong)
    assert state.config.LEARNING_RATE == state.optimizer.param_groups[0]["lr"] == rate
