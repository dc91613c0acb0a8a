import re
import shutil
from pathlib import Path

import pytest
from conftest import SMALL, drawing

from htr.system.scripts import HTRError
from htr.texts.sources import find_source, labels_of

TEXTS = {f"{n:02}": f"Name {n}" for n in range(24)}


def pictures(folder: Path, suffix: str = ".png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in TEXTS:
        drawing().save(folder / f"{name}{suffix}")


def rows(template: str = "{}.png,{}\n", names=TEXTS) -> str:
    return "".join(template.format(name, TEXTS[name]) for name in names)


def write(path: Path, text: str, encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding=encoding)


FIRST, LAST = list(TEXTS)[:20], list(TEXTS)[20:]


def kaggle(folder: Path, tables: str = "CSV/written_name_{}.csv", nested: bool = True) -> None:
    for split, names in (("train", FIRST), ("validation", LAST)):
        images = folder / f"{split}_v2" / (split if nested else "")
        images.mkdir(parents=True, exist_ok=True)
        for name in names:
            drawing().save(images / f"{name}.png")
        write(folder / tables.format(split), "FILENAME,IDENTITY\n" + rows(names=names))


def flat(name: str, text: str, encoding: str = "utf-8"):
    def make(folder: Path) -> None:
        pictures(folder)
        write(folder / name, text, encoding)

    return make


def splits(train: str, validation: str):
    def make(folder: Path) -> None:
        pictures(folder / "images")
        write(folder / train, "file_name,text\n" + rows("images/{}.png,{}\n", FIRST))
        write(folder / validation, "file_name,text\n" + rows("images/{}.png,{}\n", LAST))

    return make


def pairs(suffix: str = ".png", below: str = ""):
    def make(folder: Path) -> None:
        pictures(folder / below, suffix)
        for name, text in TEXTS.items():
            write(folder / below / f"{name}.gt.txt", text + "\n")

    return make


def subfolders(folder: Path) -> None:
    for name, text in TEXTS.items():
        images = folder / "scans" / f"writer{name}"
        images.mkdir(parents=True)
        drawing().save(images / "line.png")
        with open(folder / "data.csv", "a", encoding="utf-8") as file:
            file.write(f"scans/writer{name}/line.png,{text}\n")


SHAPES = {
    "kaggle": kaggle,
    "kaggle, flat": lambda folder: kaggle(folder, "written_name_{}_v2.csv", nested=False),
    "train and validation": splits("train.csv", "validation.csv"),
    "train and val": splits("train.csv", "val.csv"),
    "tab-separated train and val": splits("train.tsv", "val.tsv"),
    "labels.csv": flat("labels.csv", "FILENAME,IDENTITY\n" + rows()),
    "metadata.csv": flat("metadata.csv", "file_name,text\n" + rows()),
    "data.csv, semicolons": flat("data.csv", "image;transcription;writer\n" + rows("{}.png;{};3\n")),
    "gt.txt, tabs, no header": flat("gt.txt", rows("{}.png\t{}\n")),
    "the only table": flat("mine.csv", "label,path\n" + rows("{1},{0}.png\n")),
    "the only table, no suffixes": flat("transcripts.tsv", "img\twords\n" + rows("{}\t{}\n")),
    "UTF-16 of Excel": flat("labels.csv", "FILENAME\tIDENTITY\n" + rows("{}.png\t{}\n"), "utf-16"),
    "train alone": flat("train.csv", "file_name,text\n" + rows()),
    "in sub-folders": subfolders,
    "pairs": pairs(),
    "pairs of TIFF, in a folder": pairs(".tif", "page 1"),
    "pairs of OCRopus": pairs(".bin.png"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_data_in_any_shape_is_trained_on(tmp_path, script, shape):
    SHAPES[shape](tmp_path / "data")
    done = script(tmp_path, "train.py", "--data-dir", "data", "--dry-run", *SMALL, "--num-samples", 0)
    used = [int(line.split(" = ")[1].split()[0]) for line in done.stdout.splitlines() if " used" in line]
    assert used in ([20, 4], [22, 2])
    assert sum(line.startswith("data: ") for line in done.stdout.splitlines()) == 1
    assert "dry run: a batch of 8 images" in done.stdout


def test_how_the_data_was_understood_is_said(tmp_path, script):
    SHAPES["data.csv, semicolons"](tmp_path / "data")
    for path in ("data", "data/data.csv"):
        done = script(tmp_path, "train.py", "--data-dir", path, "--dry-run", "--seed", 3, *SMALL)
        assert (
            "data: data/data.csv (columns image and transcription), 24 rows, of which a tenth validates" in done.stdout
        )
        assert "drawn with seed 3\n" in done.stdout
        assert "train: 24 rows = 22 used + 2 kept for validation\n" in done.stdout
        assert "validation: 24 rows = 2 used + 22 for training\n" in done.stdout


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if not shape.startswith(("kaggle", "train and", "tab-"))])
def test_labels_take_the_same_shapes(tmp_path, shape):
    SHAPES[shape](tmp_path)
    assert sorted(text.strip() for _, text in labels_of(tmp_path).rows) == sorted(TEXTS.values())


BAD = {
    "nothing": (lambda folder: None, r"no label file of the train set found .*labels\.csv.*gt\.txt.*Kaggle.*--demo"),
    "no picture column": (flat("labels.csv", "SCAN,TEXT\n" + rows()), "no column that is known to hold pictures"),
    "two tables": (
        lambda folder: [flat(name, rows())(folder) for name in ("a.csv", "b.csv")],
        "several tables that could be meant, a.csv and b.csv: name one of them",
    ),
    "two known tables": (
        lambda folder: [flat(name, rows())(folder) for name in ("labels.csv", "gt.txt")],
        r"several tables that could be meant, labels.csv and gt\.txt",
    ),
    "sets and labels.csv": (
        lambda folder: [splits("train.csv", "val.csv")(folder), write(folder / "labels.csv", rows())],
        r"several tables that could be meant, train.csv, val.csv and labels.csv",
    ),
    "a table and pairs": (
        lambda folder: [pairs()(folder), write(folder / "labels.csv", rows(names=FIRST))],
        "has a table, labels.csv, and 24 texts beside pictures, such as 20.gt.txt, which it does not label",
    ),
    "no name fits": (flat("labels.csv", rows("x{}.png,{}\n")), "such as 'x00.png'; the images are called '00.png'"),
    "one line in all": (flat("labels.csv", rows(names=["00"])), "there are 1 labelled images.*label at least 2"),
    "no picture": (lambda folder: write(folder / "labels.csv", rows()), "24 of the 24 images"),
    "a text in Latin-1": (
        lambda folder: [pairs()(folder), write(folder / "00.gt.txt", "é", "latin-1")],
        r"00\.gt\.txt: this is not UTF-8",
    ),
    "validation alone": (kaggle, "no label file of the train set"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_wrong_is_one_sentence(tmp_path, script, kind):
    make, message = BAD[kind]
    (tmp_path / "data").mkdir()
    make(tmp_path / "data")
    if kind == "validation alone":
        (tmp_path / "data/CSV/written_name_train.csv").unlink()
    done = script(tmp_path, "train.py", "--data-dir", "data", "--dry-run", *SMALL, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert re.search(message, done.stderr), done.stderr


def test_our_own_tables_and_hidden_ones_are_no_labels(tmp_path):
    pairs()(tmp_path)
    write(tmp_path / "predictions.csv", "FILENAME,PREDICTION\n")
    write(tmp_path / "._labels.csv", "x")
    write(tmp_path / "._00.gt.txt", "x")
    assert len(find_source(tmp_path, "train").rows) == 24
    shutil.rmtree(tmp_path)
    with pytest.raises(HTRError, match="holds no labels"):
        tmp_path.mkdir()
        labels_of(tmp_path)
