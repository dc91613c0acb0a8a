import os
import time
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import drawing

import dataset
from config import Config
from dataset import batches_by_width, collate, find_images, find_labels, load_lines, to_ink
from htr.decoding.ctc import frames, frames_needed
from htr.pictures import images as htr_images
from htr.system.scripts import HTRError


@pytest.mark.parametrize(
    "csv", ["CSV/written_name_test.csv", "written_name_test_v2.csv", "CSV/written_name_test_v2.csv"]
)
@pytest.mark.parametrize("images", ["test_v2/test", "test_v2"])
def test_every_layout_in_circulation(tmp_path, csv, images):
    (tmp_path / csv).parent.mkdir(exist_ok=True)
    (tmp_path / csv).touch()
    (tmp_path / images).mkdir(parents=True)
    assert find_labels(tmp_path, "test") == tmp_path / csv
    assert find_images(tmp_path, "test") == tmp_path / images


def test_what_is_missing_is_named_with_a_way_out(tmp_path):
    with pytest.raises(HTRError) as error:
        find_labels(tmp_path, "train")
    message = str(error.value)
    for tried in ("CSV/written_name_train.csv", "CSV/written_name_train_v2.csv", "written_name_train_v2.csv"):
        assert str(tmp_path / tried) in message
    assert "Kaggle" in message
    assert "--demo" in message
    with pytest.raises(HTRError, match=r"train_v2/train.*train_v2.*--demo"):
        find_images(tmp_path, "train")


def fits(text, width):
    return frames_needed(text) <= frames(width, 8)


def make_set(folder: Path, rows: list[tuple[str, str]], size=(120, 40)) -> Config:
    """A training set with a picture for each row whose file name does not start with 'missing'."""
    images = folder / "train_v2" / "train"
    images.mkdir(parents=True)
    (folder / "CSV").mkdir()
    lines = "\n".join(f"{name},{label}" for name, label in rows)
    (folder / "CSV" / "written_name_train.csv").write_text(f"FILENAME,IDENTITY\n{lines}\n", encoding="utf-8")
    for name, _ in rows:
        if name.startswith("broken"):
            (images / name).write_bytes(b"nothing")
        elif not name.startswith("missing"):
            drawing(size).save(images / name)
    return Config(DATA_DIR=str(folder), WORKERS=2)


def test_every_row_is_accounted_for(tmp_path):
    good = [(f"good{n:02}.png", f" Name{n:02}") for n in range(60)]
    bad = [
        ("blank.png", ""),
        ("spaces.png", "  "),
        ("empty.png", "empty"),
        ("unreadable.png", "UNREADABLE "),
        ("missing.png", "GONE"),
        ("broken.png", "BROKEN"),
        ("long.png", "A" * 60),  # 60 letters and 59 blanks in fewer than 60 frames
    ]
    lines = load_lines(make_set(tmp_path, good + bad), "train", 0, fits)
    assert lines.counts == {
        "used": 60,
        "not drawn": 0,
        "blank": 2,
        "EMPTY/UNREADABLE": 2,
        "image missing": 1,
        "link out of the dataset": 0,
        "image unreadable": 1,
        "label too long for its image": 1,
    }
    assert sum(lines.counts.values()) == len(good + bad)
    assert sorted(lines.texts) == [f"NAME{n:02}" for n in range(60)]
    assert lines.summary() == (
        "67 rows = 60 used + 2 blank + 2 EMPTY/UNREADABLE + 1 image missing + 1 image unreadable"
        " + 1 label too long for its image"
    )


def test_pages_that_are_not_read_are_counted(tmp_path, capsys):
    config = make_set(tmp_path, [(f"{n}.tif", "A") for n in range(30)])
    for n in (3, 4):
        path = tmp_path / "train_v2" / "train" / f"{n}.tif"
        drawing().save(path, save_all=True, append_images=[drawing()] * n)
    assert len(load_lines(config, "train", 0, fits)) == 30
    assert "train: 7 pages after the first of a file, not read" in capsys.readouterr().out


def test_the_sample_is_drawn_from_the_usable_rows_with_the_seed(tmp_path):
    rows = [(f"good{n:02}.png", f"NAME{n:02}") for n in range(60)] + [("broken.png", "X"), ("empty.png", "EMPTY")]
    config = make_set(tmp_path, rows)
    lines = load_lines(config, "train", 59, fits)
    again = load_lines(config, "train", 59, fits)
    other = load_lines(Config(DATA_DIR=str(tmp_path), SEED=1), "train", 59, fits)
    assert len(lines) == 59
    assert lines.filenames == again.filenames != other.filenames
    assert sum(lines.counts.values()) == len(rows)
    assert lines.counts["not drawn"] + lines.counts["image unreadable"] == 2
    assert all(
        text == filename[4:6].join(["NAME", ""]) for filename, text in zip(lines.filenames, lines.texts, strict=True)
    )


@pytest.mark.parametrize(("kind", "word"), [("missing", "not in"), ("broken", "unreadable")])
def test_more_than_five_percent_lost_stops(tmp_path, kind, word):
    rows = [(f"good{n:02}.png", "A") for n in range(38)] + [(f"{kind}.png", "A"), (f"{kind}2.png", "A")]
    assert len(load_lines(make_set(tmp_path / "just", rows), "train", 0, fits)) == 38
    with pytest.raises(HTRError, match=word) as error:
        load_lines(make_set(tmp_path / "over", rows[1:]), "train", 0, fits)
    assert f"{kind}" in str(error.value)


@pytest.mark.skipif(os.name != "posix", reason="links need rights elsewhere")
def test_no_file_outside_the_dataset_is_opened(tmp_path, monkeypatch):
    """Neither through a name nor through a link; a link within the dataset is followed."""
    rows = [(f"good{n:03}.png", "A") for n in range(100)]
    config = make_set(tmp_path / "data", rows)
    images, secret = tmp_path / "data/train_v2/train", tmp_path / "secret.png"
    drawing().save(secret)
    drawing().save(tmp_path / "data" / "shared.png")
    (images / "out.png").symlink_to(secret)
    (images / "in.png").symlink_to("../../shared.png")
    odd = ["out.png", "../../../secret.png", str(secret), "in.png", "nul\0.png"]
    with open(tmp_path / "data/CSV/written_name_train.csv", "a", encoding="utf-8") as file:
        file.writelines(f"{name},B\n" for name in odd)
    opened = []
    real = htr_images.load_image
    monkeypatch.setattr(htr_images, "load_image", lambda path, *rest: opened.append(path) or real(path, *rest))
    lines = load_lines(config, "train", 0, fits)
    assert lines.texts.count("B") == 1
    assert (lines.counts["image missing"], lines.counts["link out of the dataset"]) == (3, 1)
    assert {Path(path).resolve().parent for path in opened} == {images, tmp_path / "data"}
    linked = Config(DATA_DIR=str(tmp_path / "linked"), WORKERS=0)  # as a whole it may lie anywhere
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "CSV").symlink_to(tmp_path / "data" / "CSV")
    (tmp_path / "linked" / "train_v2").symlink_to(tmp_path / "data" / "train_v2")
    assert len(load_lines(linked, "train", 0, fits)) >= 100


@pytest.mark.skipif(os.name != "posix", reason="links need rights elsewhere")
def test_a_link_to_itself_is_one_unreadable_image(tmp_path):
    config = make_set(tmp_path, [(f"good{n:02}.png", "A") for n in range(40)] + [("missing.png", "B")])
    (tmp_path / "train_v2/train/missing.png").symlink_to("missing.png")
    lines = load_lines(config, "train", 0, fits)
    assert (len(lines), lines.counts["image unreadable"]) == (40, 1)


def test_a_file_that_is_named_again_counts_once(tmp_path):
    config = make_set(tmp_path, [("a.png", "A"), ("b.png", "B"), ("a.png", "C")])
    lines = load_lines(config, "train", 0, fits)
    assert sorted(zip(lines.filenames, lines.texts, strict=True)) == [("a.png", "A"), ("b.png", "B")]
    assert lines.counts["named before"] == 1
    assert sum(lines.counts.values()) == 3


def test_nothing_usable_stops(tmp_path):
    with pytest.raises(HTRError, match="no usable row: 2 rows = 1 blank"):
        load_lines(make_set(tmp_path, [("a.png", ""), ("b.png", "EMPTY")]), "train", 0, fits)


def test_a_large_set_is_decoded_once_and_then_mapped(tmp_path, monkeypatch, capsys):
    """From the file come the same lines as from memory; a changed picture, text or setting makes it anew."""
    rows = [(f"good{n:02}.png", f"NAME{n:02}") for n in range(40)] + [("broken.png", "X"), ("long.png", "A" * 60)]
    config = make_set(tmp_path / "data", rows)
    monkeypatch.chdir(tmp_path)
    in_memory = load_lines(config, "train", 0, fits)
    assert not Path(dataset.CACHE_DIR).exists()
    decoded = []
    real = htr_images.load_image
    monkeypatch.setattr(htr_images, "load_image", lambda path, *rest: decoded.append(path) or real(path, *rest))

    def load(num_samples=0, decodes=True, config=config):
        decoded.clear()
        lines = load_lines(config, "train", num_samples, fits, in_memory=10)
        assert bool(decoded) == decodes
        return lines

    for decodes in (True, False):
        mapped = load(decodes=decodes)
        assert (mapped.filenames, mapped.texts, mapped.counts) == (
            in_memory.filenames,
            in_memory.texts,
            in_memory.counts,
        )
        assert all(np.array_equal(a, b) for a, b in zip(mapped.images, in_memory.images, strict=True))
    assert "40 pictures in htr_cache/train.pictures" in capsys.readouterr().out
    load(num_samples=20)
    assert len(load(num_samples=20, decodes=False)) == 20
    load(config=Config(DATA_DIR=config.DATA_DIR, IMG_HEIGHT=32))
    load()
    drawing((90, 40)).save(tmp_path / "data/train_v2/train/good00.png")
    changed = load()
    assert sorted(changed.images.widths) != sorted(in_memory.images.widths)
    labels = tmp_path / "data/CSV/written_name_train.csv"
    labels.write_text(labels.read_text().replace("NAME01", "OTHER"))
    assert "OTHER" in load().texts
    assert sorted(os.listdir(dataset.CACHE_DIR)) == ["train.pictures"]


def test_two_runs_decode_a_large_set_once(tmp_path, monkeypatch):
    """The second waits for the first; what a killed one left is removed at once."""
    config = make_set(tmp_path / "data", [(f"good{n:02}.png", f"NAME{n:02}") for n in range(40)])
    monkeypatch.chdir(tmp_path)
    (tmp_path / dataset.CACHE_DIR).mkdir()
    (tmp_path / dataset.CACHE_DIR / ".train.pictures.1.tmp").touch()
    decoded = []
    real = htr_images.load_image
    monkeypatch.setattr(
        htr_images, "load_image", lambda path, *rest: time.sleep(0.01) or decoded.append(path) or real(path, *rest)
    )
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda _: load_lines(config, "train", 0, fits, in_memory=10), range(2))
    assert len(decoded) == 40
    assert one.texts == two.texts
    assert all(np.array_equal(a, b) for a, b in zip(one.images, two.images, strict=True))
    assert os.listdir(dataset.CACHE_DIR) == ["train.pictures"]


# ----------------------------------------------------------------------------------------------- batches


def test_batches_hold_every_image_once_and_similar_widths():
    widths = torch.randint(40, 500, (1003,), generator=torch.Generator().manual_seed(0)).tolist()
    batches = batches_by_width(widths, 16, seed=0, epoch=1)
    assert sorted(i for batch in batches for i in batch) == list(range(1003))
    padded = sum(len(batch) * max(widths[i] for i in batch) for batch in batches)
    assert padded < 1.06 * sum(widths)
    assert batches == batches_by_width(widths, 16, seed=0, epoch=1)
    assert batches != batches_by_width(widths, 16, seed=0, epoch=2)
    assert batches != batches_by_width(widths, 16, seed=1, epoch=1)


def test_a_batch_is_ink_padded_with_paper():
    lines = [np.full((32, 20), 255, dtype=np.uint8), np.zeros((32, 33), dtype=np.uint8)]
    images, widths = collate(lines)
    assert images.shape == (2, 1, 32, 48)
    assert widths.tolist() == [20, 33]
    assert images[0].abs().max() == 0
    assert images[1, 0, :, :33].min() == 1
    assert images[1, 0, :, 33:].max() == 0


def test_grey_becomes_ink():
    assert to_ink(torch.tensor([255, 0, 51], dtype=torch.uint8)).tolist() == pytest.approx([0, 1, 0.8], abs=1e-6)


@pytest.mark.parametrize(
    "spelling",
    [
        "{}", " {} ", "./{}", ".\\{}", "train_v2/train/{}", "train\\{}", "/home/somebody/train/{}",
        "../train_v2/train/{}", "C:\\train\\{}",
    ],
)  # fmt: skip
def test_names_in_the_table_may_be_written_as_anybody_does(tmp_path, spelling):
    rows = [(f"Été {n:02}.png", f"NAME{n:02}") for n in range(12)]
    config = make_set(tmp_path, rows)
    usual = load_lines(config, "train", 0, fits)
    hows = (str, str.upper, lambda name: unicodedata.normalize("NFD", name), lambda name: name.removesuffix(".png"))
    lines = "".join(f"{spelling.format(hows[n % 4](name))},{text}\n" for n, (name, text) in enumerate(rows))
    (tmp_path / "CSV/written_name_train.csv").write_text("FILENAME,IDENTITY\n" + lines, encoding="utf-8")
    other = load_lines(config, "train", 0, fits)
    assert (other.filenames, other.texts, other.counts) == (usual.filenames, usual.texts, usual.counts)


def test_names_that_fit_several_images_are_counted_or_stop(tmp_path, capsys):
    config = make_set(tmp_path, [(f"{n:02}.png", "A") for n in range(60)])
    images, table = tmp_path / "train_v2/train", tmp_path / "CSV/written_name_train.csv"
    for part in "ab":
        (images / part).mkdir()
        for n in range(60, 120):
            drawing().save(images / part / f"{n}.png")
    whole = table.read_text()
    table.write_text(whole + "60.png,B\n")
    lines = load_lines(config, "train", 0, fits)
    assert (len(lines), lines.counts["name that fits several images"]) == (60, 1)
    assert "rows that fit several images: 1, such as '60.png': a/60.png or b/60.png" in capsys.readouterr().out
    table.write_text(whole + "".join(f"{n}.png,B\n" for n in range(60, 120)))
    with pytest.raises(HTRError, match=r"60 of the 120 .* fit several images: 60, such as '60.png': a/60.png or"):
        load_lines(config, "train", 0, fits)
