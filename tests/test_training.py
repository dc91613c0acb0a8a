import csv
import os
import signal
import time
from collections import Counter

import pytest
import torch
from PIL import Image

from config import Config
from dataset import Alphabet, Lines, to_ink
from pictures import Pictures
from training import (
    draw_curves,
    last_path,
    make_batch,
    new_state,
    stop_requests,
    train_batch,
    update_average,
    validate,
)

CPU = torch.device("cpu")
TINY = Config(CNN_CHANNELS=(4, 4, 4, 4, 8, 8), LSTM_HIDDEN=8, IMG_HEIGHT=16)


def lines(texts, width=80) -> Lines:
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (16, width + n), dtype=torch.uint8, generator=generator) for n in range(len(texts))]
    return Lines([f"{n}.png" for n in range(len(texts))], Pictures.of(images), list(texts), Counter(used=len(texts)))


def test_last_path():
    assert str(last_path("a/htr_crnn_mini.pth")) == os.path.join("a", "htr_crnn_mini.last.pth")


def test_a_batch_holds_the_pictures_as_they_are():
    data = lines(["A", "B", "C"])
    images, widths, texts = make_batch(data, [0, 2], CPU)
    assert texts == ["A", "C"]
    assert widths.tolist() == [80, 82]
    assert torch.equal(images[1, 0, :, :82], to_ink(data.images[2]))
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


def test_gradients_are_clipped():
    state = new_state(Config(CNN_CHANNELS=TINY.CNN_CHANNELS, LSTM_HIDDEN=8, IMG_HEIGHT=16, GRAD_CLIP=1e-3),
                      Alphabet("AB"), CPU)  # fmt: skip
    train_batch(state, *make_batch(lines(["AB", "BA"]), [0, 1], CPU))
    norm = torch.stack([p.grad.norm() for p in state.model.parameters()]).norm()
    assert float(norm) == pytest.approx(1e-3, rel=1e-2)


def test_a_step_lowers_the_loss_of_its_batch():
    state = new_state(TINY, Alphabet("AB"), CPU)
    batch = make_batch(lines(["AB", "BA"]), [0, 1], CPU)
    losses = [float(train_batch(state, *batch).mean()) for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]
    assert state.steps == 30


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


def test_curves_are_a_picture(tmp_path):
    row = {"train_loss": 2.0, "val_loss": 1.0, "val_cer": 0.5, "val_exact": 0.2, "learning_rate": 1e-3}
    draw_curves([{"epoch": 1} | row, {"epoch": 2} | row], tmp_path / "a.curves.png")
    with Image.open(tmp_path / "a.curves.png") as image:
        assert image.width > 800
        assert len(image.convert("RGB").getcolors(1_000_000)) > 50


def test_history_columns(trained):
    with open(trained / "htr_crnn_mini.history.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(float(row[name]) > 0 for row in rows for name in ("train_loss", "val_loss", "val_cer", "learning_rate"))
