import csv
import random

from PIL import Image

from htr.pictures.synthetic import FIRST_NAMES, GLYPHS, SURNAMES, draw_dataset, draw_form, draw_name
from htr.system.names import DRAWN


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_seed_decides_every_byte(tmp_path):
    sizes = {"train": 5, "test": 3}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        draw_dataset(tmp_path / name, seed, sizes)
    assert files(tmp_path / "a") == files(tmp_path / "b") != files(tmp_path / "c")


def test_kaggle_layout(tmp_path):
    draw_dataset(tmp_path, 0, {"train": 3, "validation": 2, "test": 1})
    assert sorted(files(tmp_path)) == [
        DRAWN,
        "CSV/written_name_test.csv",
        "CSV/written_name_train.csv",
        "CSV/written_name_validation.csv",
        "test_v2/test/TEST_00001.jpg",
        "train_v2/train/TRAIN_00001.jpg",
        "train_v2/train/TRAIN_00002.jpg",
        "train_v2/train/TRAIN_00003.jpg",
        "validation_v2/validation/VALIDATION_00001.jpg",
        "validation_v2/validation/VALIDATION_00002.jpg",
    ]
    with open(tmp_path / "CSV" / "written_name_train.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["FILENAME", "IDENTITY"]
    assert [row[0] for row in rows[1:]] == [f"TRAIN_0000{n}.jpg" for n in (1, 2, 3)]


def test_drawn_once(tmp_path):
    draw_dataset(tmp_path, 0, {"test": 2})
    picture = tmp_path / "test_v2" / "test" / "TEST_00001.jpg"
    picture.write_bytes(b"kept")
    draw_dataset(tmp_path, 0, {"test": 2})
    assert picture.read_bytes() == b"kept"


def test_an_unfinished_split_is_drawn_again(tmp_path):
    draw_dataset(tmp_path, 0, {"test": 2})
    whole = files(tmp_path)
    (tmp_path / "CSV" / "written_name_test.csv").unlink()
    (tmp_path / "test_v2" / "test" / "TEST_00002.jpg").unlink()
    draw_dataset(tmp_path, 0, {"test": 2})
    assert files(tmp_path) == whole


def test_every_name_can_be_written():
    assert set("".join(FIRST_NAMES + SURNAMES)) <= set(GLYPHS) | {" "}
    assert len(set(FIRST_NAMES)) == len(FIRST_NAMES)
    assert len(set(SURNAMES)) == len(SURNAMES)


def test_pictures_look_like_the_scans():
    """The sizes of the real scans; dark ink on white paper; a longer name leaves more ink."""
    ink = {}
    for n in range(60):
        rng = random.Random(n)
        image = draw_form(draw_name(rng), rng)
        assert image.mode == "RGB"
        assert 280 <= image.width <= 390
        assert 20 <= image.height <= 72
        histogram = image.convert("L").histogram()
        dark = sum(histogram[:100]) / (image.width * image.height)
        assert 0.002 < dark < 0.3
        assert histogram[255] > 0.5 * image.width * image.height
    for name in ("LEA", "MAXIMILIENNE"):
        ink[name] = sum(sum(draw_form(name, random.Random(n)).convert("L").histogram()[:100]) for n in range(30))
    assert ink["MAXIMILIENNE"] > 1.3 * ink["LEA"]


def test_an_empty_text_leaves_the_form_blank():
    for n in range(20):
        assert isinstance(draw_form("", random.Random(n)), Image.Image)
