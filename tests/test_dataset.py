import gzip
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hostile
import pytest
import torch
from PIL import Image, ImageChops, ImageDraw, ImageOps

import dataset
from config import Config, HTRError
from dataset import (
    Alphabet,
    ImageError,
    batches_by_width,
    clean_label,
    collate,
    cut_margins,
    find_images,
    find_labels,
    load_image,
    load_lines,
    read_images,
    read_labels,
    to_grey,
    to_ink,
)
from model import CRNN, frames_needed

SETTINGS = Config(IMG_HEIGHT=48, MAX_SCALE=3)

# ---------------------------------------------------------------------------------------------- pictures


def drawing(size=(120, 40), levels=True) -> Image.Image:
    """The reference: grey writing on white paper, mode L."""
    image = Image.new("L", size, 255)
    draw = ImageDraw.Draw(image)
    draw.line((20, 30, 60, 10, 90, 30), fill=0, width=3)
    if levels:
        draw.line((30, 34, 100, 34), fill=100, width=2)
        draw.line((100, 5, 100, 25), fill=180, width=2)
    return image


def with_alpha(grey: Image.Image, mode: str) -> Image.Image:
    """Black ink whose darkness is all in the alpha channel: convert('L') would make it all black."""
    black = Image.new("LA" if mode == "LA" else "RGBA", grey.size)
    black.putalpha(ImageOps.invert(grey))
    return black


def palette_with_transparency(grey: Image.Image) -> Image.Image:
    image = ImageOps.invert(grey).convert("P")  # index 0 = paper
    image.putpalette([0] * 768)
    image.info["transparency"] = bytes(range(256))  # darkness is opacity
    return image


ENCODINGS = {
    "L": lambda g: g,
    "RGB": lambda g: g.convert("RGB"),
    "RGBA, opaque": lambda g: g.convert("RGBA"),
    "RGBA, ink in alpha": lambda g: with_alpha(g, "RGBA"),
    "LA, ink in alpha": lambda g: with_alpha(g, "LA"),
    "P": lambda g: g.convert("P"),
    "P, ink in transparency": palette_with_transparency,
    "CMYK": lambda g: g.convert("CMYK"),
    "YCbCr": lambda g: g.convert("YCbCr"),
    "HSV": lambda g: g.convert("RGB").convert("HSV"),
    "I;16": lambda g: Image.frombytes("I;16", g.size, b"".join((v * 257).to_bytes(2, "little") for v in g.tobytes())),
    "I": lambda g: g.convert("I").point(lambda v: v * 257 + 0),
    "F, 0 to 1": lambda g: g.convert("F").point(lambda v: v * (1 / 255) + 0),
    "F, 0 to 255": lambda g: g.convert("F"),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_mode_gives_the_same_grey(encoding):
    reference = drawing()
    grey = to_grey(ENCODINGS[encoding](reference))
    assert grey.mode == "L"
    assert ImageChops.difference(grey, reference).getextrema()[1] <= 1  # rounding


def test_one_bit():
    reference = drawing(levels=False)
    assert ImageChops.difference(to_grey(reference.convert("1")), reference).getbbox() is None


@pytest.mark.parametrize(
    ("suffix", "encoding"),
    [
        (".png", "L"),
        (".png", "RGB"),
        (".png", "P"),
        (".png", "LA, ink in alpha"),
        (".png", "RGBA, ink in alpha"),
        (".png", "P, ink in transparency"),
        (".png", "I;16"),
        (".tif", "L"),
        (".tif", "CMYK"),
        (".tif", "I;16"),
        (".tif", "F, 0 to 1"),
        (".bmp", "RGB"),
        (".gif", "P"),
        (".pgm", "L"),
        (".pgm", "I"),
        (".webp", "RGB"),
    ],
)
def test_every_file_gives_the_same_input(tmp_path, suffix, encoding):
    drawing().save(tmp_path / "reference.png")
    options = {"lossless": True} if suffix == ".webp" else {}
    ENCODINGS[encoding](drawing()).save(tmp_path / f"other{suffix}", **options)
    reference, other = (load_image(tmp_path / name, SETTINGS) for name in ("reference.png", f"other{suffix}"))
    assert reference.shape == other.shape
    assert (reference.int() - other.int()).abs().max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    """A camera stores the picture turned and says so; a viewer shows it upright."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,  # shown by turning 90 degrees clockwise
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = drawing().transpose(undo[orientation]) if orientation > 1 else drawing()
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned.png", exif=exif)
    drawing().save(tmp_path / "upright.png")
    assert torch.equal(load_image(tmp_path / "turned.png", SETTINGS), load_image(tmp_path / "upright.png", SETTINGS))


def test_margins_are_cut_to_two_pixels():
    image = Image.new("L", (300, 100), 255)
    ImageDraw.Draw(image).rectangle((100, 40, 159, 59), fill=30)
    cut = cut_margins(image)
    assert cut.size == (64, 24)
    assert cut.getpixel((2, 2)) == 30
    assert cut.getpixel((1, 1)) == 255


def test_light_on_dark_is_inverted():
    assert ImageChops.difference(cut_margins(ImageOps.invert(drawing())), cut_margins(drawing())).getbbox() is None


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_blank_picture_stays(value):
    assert cut_margins(Image.new("L", (50, 20), value)).size == (50, 20)


def test_height_is_fixed_and_the_aspect_ratio_kept(tmp_path):
    image = Image.new("L", (400, 100), 255)
    ImageDraw.Draw(image).rectangle((10, 10, 205, 55), fill=0)  # 196 x 46, with the margin 200 x 50
    image.save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png", Config(IMG_HEIGHT=48)).shape == (48, 192)
    assert load_image(tmp_path / "a.png", Config(IMG_HEIGHT=32)).shape == (32, 128)
    assert load_image(tmp_path / "a.png", Config(IMG_HEIGHT=100, MAX_SCALE=2)).shape == (100, 400)
    assert load_image(tmp_path / "a.png", Config(IMG_HEIGHT=48, MAX_WIDTH=100)).shape == (48, 100)


def test_a_small_picture_is_not_blown_up(tmp_path):
    """It keeps its letters' size and lies in the middle of the paper."""
    image = Image.new("L", (200, 40), 255)
    ImageDraw.Draw(image).rectangle((50, 10, 145, 25), fill=0)  # 96 x 16, with the margin 100 x 20
    image.save(tmp_path / "a.png")
    line = load_image(tmp_path / "a.png", Config(IMG_HEIGHT=64, MAX_SCALE=1))
    assert line.shape == (64, 100)
    assert (line[24:40, 2:98] == 0).all()
    assert line[:22].min() == line[42:].min() == 255


def test_a_whole_text_line_fits(tmp_path):
    """A line of eighty letters is not squeezed by the default width."""
    image = Image.new("L", (1600, 64), 255)
    ImageDraw.Draw(image).line((0, 0, 1599, 63), fill=0, width=3)
    image.save(tmp_path / "line.png")
    assert load_image(tmp_path / "line.png", Config()).shape == (64, 1600)


def test_unreadable_files_say_why(tmp_path, monkeypatch):
    drawing().convert("RGB").save(tmp_path / "good.jpg")
    whole = (tmp_path / "good.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    for name in ("cut.jpg", "empty.png", "text.png"):
        with pytest.raises(ImageError, match=r"cannot be read: ."):
            load_image(tmp_path / name, SETTINGS)
    with pytest.raises(ImageError, match="is a folder"):
        load_image(tmp_path / "folder.png", SETTINGS)
    with pytest.raises(ImageError, match="not found"):
        load_image(tmp_path / "none.png", SETTINGS)
    monkeypatch.setattr(dataset, "MAX_PIXELS", 4000)
    with pytest.raises(ImageError, match="120 x 40 pixels"):
        load_image(tmp_path / "good.jpg", SETTINGS)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_images_come_in_order_with_their_errors(tmp_path, workers):
    paths = []
    for n in range(25):
        image = Image.new("L", (100, 20), 255)
        ImageDraw.Draw(image).rectangle((5, 5, 15 + n, 14), fill=0)
        image.save(tmp_path / f"{n}.png")
        paths.append(tmp_path / f"{n}.png")
    paths[7].write_bytes(b"broken")
    images = list(read_images(paths, SETTINGS, workers, window=4))
    assert len(images) == 25
    for n, image in enumerate(images):
        if n == 7:
            assert isinstance(image, ImageError)
        else:
            assert torch.equal(image, load_image(paths[n], SETTINGS))


def test_reading_runs_two_windows_ahead_at_most(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(dataset, "load_image", lambda path, *_: started.append(path))
    images = read_images(list(range(100)), SETTINGS, workers=2, window=10)
    next(images)
    images.close()
    assert len(started) <= 20


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    return folder, hostile.write_bad(folder)


def test_hostile_files_are_refused_with_a_reason(bad):
    folder, reasons = bad
    assert len(reasons) > 45
    for name, reason in reasons.items():
        with pytest.raises(ImageError) as error:
            load_image(folder / name, SETTINGS)
        assert reason in str(error.value), name
        assert len(str(error.value)) < 300 and str(error.value).isprintable()


def test_odd_pictures_are_read(tmp_path):
    names = hostile.write_odd(tmp_path)
    files = dataset.list_files(tmp_path).files
    assert {dataset.file_name(name) for name in files} == names
    for name in files:
        line = load_image(tmp_path / name, SETTINGS)
        assert line.shape[0] == SETTINGS.IMG_HEIGHT and 1 <= line.shape[1] <= SETTINGS.MAX_WIDTH


@pytest.mark.filterwarnings("ignore:::PIL")
def test_whatever_bytes_a_file_has_it_is_read_or_refused(tmp_path):
    read = refused = 0
    for data in hostile.mutations(seed=0, count=400):
        (tmp_path / "a.png").write_bytes(data)
        try:
            line = load_image(tmp_path / "a.png", SETTINGS)
            assert line.dtype == torch.uint8 and line.shape[0] == SETTINGS.IMG_HEIGHT
            read += 1
        except ImageError:
            refused += 1
    assert read > 40 and refused > 40


# ------------------------------------------------------------------------------------------------ labels


def test_alphabet_round_trip():
    texts = ["MARIE-LOU", "N'DIAYE", "ÉLOÏSE", "李 明"]
    alphabet = Alphabet.of(texts)
    assert sorted(set("".join(texts))) == list(alphabet.characters)
    for text in texts:
        ids = alphabet.encode(text)
        assert alphabet.decode(ids) == text
        assert all(0 <= i < len(alphabet) for i in ids)
    assert not alphabet.knows("ZÜRICH")
    with pytest.raises(KeyError):
        alphabet.encode("Z")
    with pytest.raises(ValueError, match="once"):
        Alphabet("AA")


@pytest.mark.parametrize(
    ("label", "cleaned"),
    [
        ("  Léa ", "LÉA"),
        ("LE\u0301A", "LÉA"),  # a combining accent becomes one character
        ("le  gall", "LE GALL"),
        ("NULL", "NULL"),
        ("straße", "STRASSE"),
        (" \t", ""),
    ],
)
def test_labels_are_cleaned(label, cleaned):
    assert clean_label(label, uppercase=True) == cleaned


def test_case_can_be_kept():
    assert clean_label(" Léa", uppercase=False) == "Léa"


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_labels_are_text_whatever_they_look_like(tmp_path, newline, start):
    rows = ["FILENAME,IDENTITY", "1.jpg,NULL", "2.jpg,NA", "3.jpg,", "4.jpg,007", '5.jpg,"DUPONT, É"', "6.jpg"]
    (tmp_path / "a.csv").write_bytes(start + newline.join(rows).encode())
    table = read_labels(tmp_path / "a.csv")
    assert table["FILENAME"].tolist() == [f"{n}.jpg" for n in range(1, 7)]
    assert table["IDENTITY"].tolist() == ["NULL", "NA", "", "007", "DUPONT, É", ""]


ROWS = [["1.jpg", "DUPONT, É"], ["2.jpg", 'A "B"']]


@pytest.mark.parametrize(
    "content",
    [
        'FILENAME,IDENTITY\n1.jpg,"DUPONT, É"\n2.jpg,"A ""B"""\n',
        '\ufeffFILENAME;IDENTITY\r\n1.jpg;DUPONT, É\r\n2.jpg;"A ""B"""\r\n',
        'FILENAME\tIDENTITY\n1.jpg\tDUPONT, É\n2.jpg\tA "B"\n',
        ' FILENAME , IDENTITY,NOTE\n1.jpg,"DUPONT, É",x\n2.jpg,A "B",\n',
    ],
)
def test_the_separators_of_spreadsheets_are_known(tmp_path, content):
    (tmp_path / "a.csv").write_text(content, encoding="utf-8", newline="")
    assert read_labels(tmp_path / "a.csv").values.tolist() == ROWS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"FILE,IDENTITY\n1.jpg,A\n", "no column FILENAME"),
        (b"", "cannot be read"),
        (b"FILENAME,IDENTITY\n1.jpg,\xe9\n", "line 2: this is not UTF-8"),
        (b"FILENAME,IDENTITY\n1.jpg,A\n2.jpg,L\xe9a\n", "line 3: this is not UTF-8"),
        ("FILENAME,IDENTITY\n1.jpg,A\n".encode("utf-16"), "line 1: this is not UTF-8"),
        (b'FILENAME,IDENTITY\n1.jpg,A\n2.jpg,"B\n3.jpg,C\n', "in line 3 a quote is opened and never closed"),
        (b'FILENAME,IDENTITY\n1.jpg,"A\n2.jpg,B\n3.jpg,"C\n', "line 2: a quote is opened before 'A'"),
        (b"FILENAME,IDENTITY\n1.jpg,A\n2.jpg,B,C\n", "Expected 2 fields in line 3, saw 3"),
        (b"FILENAME,IDENTITY\n1.jpg,A,B\n2.jpg,B,C\n", "more cells than its first line"),
        (b"FILENAME,NAME\n1.jpg,A\n", "no column IDENTITY; it has FILENAME, NAME"),
        (b"\n\n", "No columns"),
    ],
)
def test_what_is_wrong_with_a_csv_is_said_with_its_line(tmp_path, content, message):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(HTRError, match=message) as error:
        read_labels(tmp_path / "a.csv")
    assert str(tmp_path / "a.csv") in str(error.value)


def test_a_compressed_table_is_read_or_refused(tmp_path):
    path, whole = tmp_path / "a.csv.gz", gzip.compress(b"FILENAME;IDENTITY\n1.jpg;A\n")
    path.write_bytes(whole)
    assert read_labels(path).values.tolist() == [["1.jpg", "A"]]
    path.write_bytes(gzip.compress(b"FILENAME,IDENTITY\n1.jpg,\xe9\n"))
    with pytest.raises(HTRError, match="line 2: this is not UTF-8"):
        read_labels(path)
    for broken in (whole[:-9], whole[:12] + b"\xff" * 9, b"FILENAME,IDENTITY\n1.jpg,A\n"):
        path.write_bytes(broken)
        with pytest.raises(HTRError, match=r"a\.csv\.gz cannot be read"):
            read_labels(path)


def test_a_folder_or_nothing_is_no_csv(tmp_path):
    for path in (tmp_path, tmp_path / "none.csv"):
        with pytest.raises(HTRError, match=r"cannot be read: (Is a|No such)"):
            read_labels(path)


def test_a_line_without_end_is_read(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"FILENAME,IDENTITY\n1.jpg," + b"A" * 10_000_000 + b"\n2.jpg,B\n")
    assert read_labels(tmp_path / "a.csv")["IDENTITY"].str.len().tolist() == [10_000_000, 1]


# ----------------------------------------------------------------------------------------------- dataset


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
    return frames_needed(text) <= CRNN.frames(width)


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
    real = dataset.load_image
    monkeypatch.setattr(dataset, "load_image", lambda path, *rest: opened.append(path) or real(path, *rest))
    lines = load_lines(config, "train", 0, fits)
    assert lines.texts.count("B") == 1
    assert (lines.counts["image missing"], lines.counts["link out of the dataset"]) == (3, 1)
    assert {path.resolve().parent for path in opened} == {images, tmp_path / "data"}
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
    real = dataset.load_image
    monkeypatch.setattr(dataset, "load_image", lambda path, *rest: decoded.append(path) or real(path, *rest))

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
        assert all(torch.equal(a, b) for a, b in zip(mapped.images, in_memory.images, strict=True))
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
    real = dataset.load_image
    monkeypatch.setattr(
        dataset, "load_image", lambda path, *rest: time.sleep(0.01) or decoded.append(path) or real(path, *rest)
    )
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda _: load_lines(config, "train", 0, fits, in_memory=10), range(2))
    assert len(decoded) == 40
    assert one.texts == two.texts
    assert all(torch.equal(a, b) for a, b in zip(one.images, two.images, strict=True))
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
    lines = [torch.full((32, 20), 255, dtype=torch.uint8), torch.zeros(32, 33, dtype=torch.uint8)]
    images, widths = collate(lines)
    assert images.shape == (2, 1, 32, 48)
    assert widths.tolist() == [20, 33]
    assert images[0].abs().max() == 0
    assert images[1, 0, :, :33].min() == 1
    assert images[1, 0, :, 33:].max() == 0


def test_grey_becomes_ink():
    assert to_ink(torch.tensor([255, 0, 51], dtype=torch.uint8)).tolist() == pytest.approx([0, 1, 0.8], abs=1e-6)


def test_list_files_is_sorted_relative_and_recursive(tmp_path):
    for name in ("b.png", "sub/a.png", "a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert dataset.list_files(tmp_path).files == ["a.txt", "b.png", "sub/a.png"]
    assert dataset.list_files(os.fspath(tmp_path)).files == ["a.txt", "b.png", "sub/a.png"]


@pytest.mark.skipif(os.name != "posix", reason="links need rights elsewhere")
def test_folders_that_are_not_searched_are_told(tmp_path):
    (tmp_path / "sub" / "deep.png").mkdir(parents=True)
    (tmp_path / "sub" / "round").symlink_to("..")
    (tmp_path / "a.png").symlink_to("nowhere")
    listing = dataset.list_files(tmp_path)
    assert listing == (["a.png"], {"a.png"}, ["sub/round"], ["sub/deep.png"])
    with pytest.raises(HTRError, match="nowhere cannot be searched: No such file"):
        dataset.list_files(tmp_path / "nowhere")


def test_a_folder_that_cannot_be_searched_is_told(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    real = os.scandir

    def scandir(path):
        if str(path).rstrip("/").endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert dataset.list_files(tmp_path).odd_folders == ["closed"]
