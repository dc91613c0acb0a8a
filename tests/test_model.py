import copy

import pytest
import torch

from config import Config
from dataset import collate, geometry
from htr.decoding.ctc import greedy_decode
from htr.decoding.onnx import Sizes
from htr.pictures.images import load_image
from model import CRNN, Columns, ctc_loss, grow_labels, log_probabilities, split_frames


def small_model(num_labels=5, seed=0, frame=8) -> CRNN:
    """A network whose every part matters: random heads and feedback, BatchNorm statistics of real pictures."""
    torch.manual_seed(seed)
    model = CRNN(Sizes(32, num_labels + 1, (8, 8, 16, 16, 16, 16), 16, 3, frame), 0.2)
    for linear in (*model.heads, *model.feedback):
        torch.nn.init.normal_(linear.weight)
    for _ in range(10):
        model(torch.rand(4, 1, 32, 64), torch.full((4,), 64))
    return model.eval()


def test_shapes():
    model = small_model(num_labels=5)
    images, widths = torch.rand(3, 1, 32, 64), torch.tensor([64, 50, 3])
    logits, lengths = model(images, widths)
    assert logits.shape == (8, 3, 6)
    assert lengths.tolist() == [8, 7, 1]


@torch.no_grad()
def test_the_last_of_all_readings_is_the_one_that_counts():
    model, images, widths = small_model(), torch.rand(3, 1, 32, 64), torch.tensor([64, 50, 3])
    readings, lengths = model(images, widths, all_readings=True)
    assert [reading.shape for reading in readings] == [(8, 3, 6)] * 4  # the CNN's, and one after each LSTM layer
    last, same_lengths = model(images, widths)
    assert torch.equal(readings[-1], last) and torch.equal(lengths, same_lengths)


@torch.no_grad()
def test_each_layer_knows_what_was_read_before_it():
    """Where nothing but a reading changes, all later ones change, and none before it."""
    model, images, widths = small_model(), torch.rand(1, 1, 32, 64), torch.tensor([64])
    before, _ = model(images, widths, all_readings=True)
    for layer in range(2):
        changed = copy.deepcopy(model)
        changed.heads[layer].bias += torch.tensor([3.0, 0, 0, 0, 0, 0])
        after, _ = changed(images, widths, all_readings=True)
        same = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
        assert same == [n <= layer for n in range(4)]


def test_a_new_network_reads_what_its_columns_say():
    """At the start of training the LSTM is silent, so that the CNN learns first."""
    torch.manual_seed(0)
    model = CRNN(Sizes(32, 6, (8, 8, 16, 16, 16, 16), 16, 3), 0.2)
    first, *later = model(torch.rand(2, 1, 32, 64), torch.tensor([64, 64]), all_readings=True)[0]
    assert all(torch.equal(first, reading) for reading in later)


def test_three_bidirectional_layers_and_batchnorm():
    model = small_model()
    assert sum(isinstance(m, torch.nn.LSTM) for m in model.lstm.modules()) == 2 * len(model.lstm) == 6
    assert sum(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules()) == 7


@torch.no_grad()
@pytest.mark.parametrize("frame", [8, 4])
def test_a_reading_does_not_depend_on_the_batch(frame):
    model = small_model(frame=frame)
    generator = torch.Generator().manual_seed(3)
    widths = torch.tensor([17, 200, 64, 90, 33, 4, 1])
    images = torch.zeros(len(widths), 1, 32, 208)
    for image, width in zip(images, widths, strict=True):
        image[..., :width] = torch.rand(32, width, generator=generator)
    together, lengths = model(images, widths)
    for n, width in enumerate(widths):
        alone, (length,) = model(images[n : n + 1, ..., : frame * model.frames(width)], widths[n : n + 1])
        difference = (together[: lengths[n], n].log_softmax(1) - alone[:length, 0].log_softmax(1)).abs().max()
        assert length == lengths[n]
        assert difference < 1e-4


@torch.no_grad()
def test_both_directions_reach_every_frame():
    """The first frame hears of the last column and the other way round, farther than the convolutions see.

    In double precision: little of so small a random network's signal is left after 16 frames.
    """
    model = small_model().double()
    ink, widths = torch.rand(1, 1, 32, 128, dtype=torch.double), torch.tensor([128])
    before = model(ink, widths)[0]
    for column, frame in ((127, 0), (0, 15)):
        changed = ink.clone()
        changed[..., column] = 1 - changed[..., column]
        assert (model(changed, widths)[0][frame] - before[frame]).abs().max() > 1e-7


@torch.no_grad()
def test_a_fused_model_reads_the_same_without_batchnorm():
    model, images, widths = small_model(), torch.rand(3, 1, 32, 64), torch.tensor([64, 30, 5])
    before = model(images, widths)[0]
    after = model.fuse()(images, widths)[0]
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    assert torch.allclose(before, after, atol=1e-4)


@torch.no_grad()
def test_columns_know_the_height_and_their_maximum():
    """Without its convolution a column is the maximum of its rows; with it, the same rows in another order differ."""
    torch.manual_seed(0)
    columns, x = Columns(8, rows=4).eval(), torch.rand(2, 8, 4, 10)
    mask = torch.ones(2, 1, 1, 10, dtype=torch.bool)
    mask[1, ..., 6:] = False
    upside_down = x.flip(2)
    assert not torch.allclose(columns(x, mask), columns(upside_down, mask))
    assert (columns(x, mask)[1, :, 6:] == 0).all()
    columns.conv.weight.zero_()
    assert torch.equal(columns(x, mask)[0], x[0].amax(1))
    assert torch.equal(columns(x, mask), columns(upside_down, mask))


def test_loss_is_float32_under_half_precision():
    torch.manual_seed(0)
    logits = torch.randn(20, 2, 6).bfloat16()
    losses = ctc_loss(logits, torch.tensor([20, 20]), [[0, 1, 2], [4]])
    assert losses.dtype == torch.float32
    assert torch.equal(losses, ctc_loss(logits.float(), torch.tensor([20, 20]), [[0, 1, 2], [4]]))


def test_loss_is_infinite_exactly_where_frames_are_missing():
    logits = torch.randn(3, 1, 4)
    assert torch.isfinite(ctc_loss(logits, torch.tensor([3]), [[1, 1]]))
    assert torch.isinf(ctc_loss(logits, torch.tensor([2]), [[1, 1]]))


def test_frames_of_a_width():
    model = small_model()
    assert [model.frames(width) for width in (1, 8, 9, 16, 17)] == [1, 1, 2, 2, 3]
    assert model.frames(torch.tensor([1, 9])).tolist() == [1, 2]


def test_frames_of_four_pixels_are_twice_as_many():
    model = small_model(frame=4)
    logits, lengths = model(torch.rand(2, 1, 32, 64), torch.tensor([64, 9]))
    assert logits.shape == (16, 2, 6) and lengths.tolist() == [16, 4]  # two of each column of 8 pixels


@torch.no_grad()
def test_split_frames_read_what_the_whole_ones_read():
    torch.manual_seed(0)
    channels, images, widths = (4, 4, 4, 4, 8, 8), torch.rand(2, 1, 32, 64), torch.tensor([64, 40])
    model = CRNN(Sizes(32, 4, channels, 8, 2), 0.0).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    split, grown = (CRNN(Sizes(32, classes, channels, 8, 2, frame=4), 0.0).eval() for classes in (4, 6))
    split.load_state_dict(split_frames(model.state_dict()))
    logits, lengths = model(images, widths)
    twice, more = split(images, widths)
    assert torch.allclose(twice[::2], logits, atol=1e-6) and torch.equal(twice[::2], twice[1::2])
    assert more.tolist() == [2 * length for length in lengths]
    grown.load_state_dict(grow_labels(split.state_dict(), [1, None], split=2))
    found = grown(images, widths, all_readings=True)[0][0]
    expected = model(images, widths, all_readings=True)[0][0].repeat_interleave(2, 0)
    assert torch.allclose(found[..., :4], expected, atol=1e-6)
    assert torch.allclose(found[..., 4], expected[..., 2], atol=1e-6)


def test_overfits_one_batch(data_dir):
    """The whole network memorises eight images."""
    torch.manual_seed(0)
    files = sorted((data_dir / "train_v2" / "train").iterdir())[:8]
    images, widths = collate([load_image(file, geometry(Config(IMG_HEIGHT=32))).pixels for file in files])
    labels = [[n % 4, n // 4, n % 4, 3 - n % 4] for n in range(8)]
    model = CRNN(Sizes(32, 5, (8, 16, 16, 16, 32, 32), 32, 3), 0.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        readings, lengths = model(images, widths, all_readings=True)
        *earlier, loss = [ctc_loss(logits, lengths, labels).mean() for logits in readings]
        loss += 0.3 * sum(earlier)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.5
    found = greedy_decode(log_probabilities(readings[-1].detach()).numpy(), lengths.numpy())
    assert [reading.labels for reading in found] == labels


def test_grown_labels_leave_the_others_as_they_were():
    """A label begun like another one has its logit; one that is like none has the lowest constant and no more."""
    torch.manual_seed(0)
    model = CRNN(Sizes(32, 4, (4, 4, 4, 4, 8, 8), 8, 2), 0.0).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    grown = CRNN(Sizes(32, 6, (4, 4, 4, 4, 8, 8), 8, 2), 0.0).eval()
    grown.load_state_dict(grow_labels(model.state_dict(), [1, None]))
    images, widths = torch.rand(2, 1, 32, 64), torch.tensor([64, 40])
    (first, *_), _ = model(images, widths, all_readings=True)
    (first_grown, *_), _ = grown(images, widths, all_readings=True)
    assert torch.allclose(first_grown[..., :4], first, atol=1e-6)
    assert torch.allclose(first_grown[..., 4], first[..., 2], atol=1e-6)  # the blank is class 0
    assert (first_grown[..., 5] == model.shortcut.bias.min()).all()
    assert same_shapes(grown.state_dict(), grow_labels(model.state_dict(), [None, None]))
    with pytest.raises(ValueError, match="is not of"):
        grow_labels(model.state_dict() | {"shortcut.bias": torch.zeros(9)}, [])


def same_shapes(a, b) -> bool:
    return {name: value.shape for name, value in a.items()} == {name: value.shape for name, value in b.items()}
