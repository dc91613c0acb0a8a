"""Label tables in the shapes in which programs write them: each is read right, or refused with a sentence that helps."""

import json
import os
import re
from pathlib import Path

import openpyxl
import pytest
from conftest import SMALL, drawing

from htr.system.scripts import HTRError
from htr.texts.labels import Columns, read_labels
from htr.texts.sources import find_source, labels_of, whole_source

WORDS = [["w_00.png", "Meier, Hans"], ["w_01.png", '"Haus"'], ["w_02.png", "Chüttlitz"]]
PLAIN = [["w_00.png", "Meier"], ["w_01.png", "Haus"], ["w_02.png", "Chüttlitz"]]


def studio_task(picture: str, *texts: str, **more) -> dict:
    value = {"text": list(texts), "start": 0}
    results = [{"type": "textarea", "from_name": "transcription", "value": value}] if texts else []
    return {"id": 1, "data": {"image": picture}, "annotations": [{"result": results} | more], "file_upload": picture}


def lines(*rows: str) -> bytes:
    return "".join(row + "\n" for row in rows).encode()


UPLOADED = [f"/data/upload/1/3f2a9c0{n}-{name}" for n, (name, _) in enumerate(PLAIN)]
RIGHT = {
    # name of the file: content, labels, what is said
    "CSV of a spreadsheet": (
        "a.csv",
        b'FILENAME,IDENTITY\nw_00.png,"Meier, Hans"\nw_01.png,"""Haus"""\nw_02.png,Ch\xc3\xbcttlitz\n',
        WORDS,
        "",
    ),
    "all cells in quotes": (
        "a.csv",
        lines('"image","text"', *(f'"{a}","{b}"' for a, b in PLAIN)),
        PLAIN,
        "quotes around",
    ),
    "semicolons": (
        "a.csv",
        lines("image;text", "w_00.png;Meier, Hans", 'w_01.png;"""Haus"""', "w_02.png;Chüttlitz"),
        WORDS,
        "",
    ),
    "tabs, no header, literal quotes": (
        "gt.txt",
        lines("w_00.png\tMeier, Hans", 'w_01.png\t"Haus"', "w_02.png\tChüttlitz"),
        WORDS,
        "",
    ),
    "tabs, a header, literal quotes": (
        "a.tsv",
        lines("image\ttext", "w_00.png\tMeier, Hans", 'w_01.png\t"Haus"', "w_02.png\tChüttlitz"),
        WORDS,
        "",
    ),
    "tabs, a quote that opens nothing": (
        "gt.txt",
        lines('w_00.png\t"Meier', 'w_01.png\tHaus"', 'w_02.png\t""'),
        [["w_00.png", '"Meier'], ["w_01.png", 'Haus"'], ["w_02.png", '""']],
        "",
    ),
    "tabs, pandas": (
        "a.tsv",
        lines("image\ttext", "w_00.png\tMeier, Hans", 'w_01.png\t"""Haus"""', "w_02.png\tChüttlitz"),
        WORDS,
        "quotes around 1 cells are those of a spreadsheet",
    ),
    "tabs, Excel's UTF-16": (
        "a.txt",
        'image\ttext\r\nw_00.png\t"Meier, Hans"\r\nw_01.png\t"""Haus"""\r\nw_02.png\tChüttlitz\r\n'.encode("utf-16"),
        WORDS,
        "of a spreadsheet",
    ),
    "ICDAR": (
        "gt.txt",
        lines('w_00.png, "Meier, Hans"', r'w_01.png, "\"Haus\""', 'w_02.png, "Chüttlitz"'),
        WORDS,
        'quotes around 3 texts are taken off, and \\" in them is "',
    ),
    "ICDAR without escapes": (
        "gt.txt",
        lines('w_00.png, "Meier"', 'w_01.png, "Haus"', 'w_02.png, "Chüttlitz"'),
        PLAIN,
        "quotes around 3 cells are those of a CSV",
    ),
    "empty columns and rows at the end": (
        "a.csv",
        lines("image,text,,,", *(f"{a},{b},,," for a, b in PLAIN), ",,,,", ",,,,"),
        PLAIN,
        "",
    ),
    "empty columns, no header": ("a.csv", lines(*(f"{a},{b},,," for a, b in PLAIN), ",,,,"), PLAIN, ""),
    "an empty column that could be the text": (
        "a.csv",
        lines("image,label,text", *(f"{a},,{b}" for a, b in PLAIN)),
        PLAIN,
        "",
    ),
    "two columns alike": ("a.csv", lines("image,label,text", *(f"{a},{b},{b}" for a, b in PLAIN)), PLAIN, ""),
    "Hugging Face": ("metadata.jsonl", lines(*(json.dumps({"file_name": a, "text": b}) for a, b in WORDS)), WORDS, ""),
    "a list of objects": (
        "a.json",
        json.dumps([{"path": a, "transcript": b, "n": 3} for a, b in WORDS]).encode(),
        WORDS,
        "",
    ),
    "numbers in JSON": ("a.json", json.dumps([{"path": "w.png", "text": 1915}]).encode(), [["w.png", "1915"]], ""),
    "names and texts in JSON": ("labels.json", json.dumps(dict(WORDS)).encode(), WORDS, ""),
    "JSON in a file called CSV": (
        "labels.csv",
        json.dumps([{"path": a, "text": b} for a, b in WORDS]).encode(),
        WORDS,
        "",
    ),
    "a CSV that begins like JSON": (
        "a.csv",
        lines("[1].png,Meier", "[2].png,Haus"),
        [["[1].png", "Meier"], ["[2].png", "Haus"]],
        "",
    ),
    "Label Studio, JSON": (
        "export.json",
        json.dumps([studio_task(a, b) for a, (_, b) in zip(UPLOADED, WORDS, strict=False)]).encode(),
        [[a, b] for a, (_, b) in zip(UPLOADED, WORDS, strict=False)],
        "",
    ),
    "Label Studio, JSON-MIN": (
        "export.json",
        json.dumps(
            [
                {"image": a, "transcription": [b] if n else b, "annotator": 1}
                for n, (a, (_, b)) in enumerate(zip(UPLOADED, WORDS, strict=False))
            ]
        ).encode(),
        [[a, b] for a, (_, b) in zip(UPLOADED, WORDS, strict=False)],
        "",
    ),
    "Label Studio, CSV": (
        "export.csv",
        lines(
            "image,id,transcription,annotator,annotation_id",
            *(f'{a},{n},"[""{b}""]",1,{n}' for n, (a, (_, b)) in enumerate(zip(UPLOADED, PLAIN, strict=False))),
        ),
        [[a, b] for a, (_, b) in zip(UPLOADED, PLAIN, strict=False)],
        "",
    ),
    "a set for each row": (
        "a.csv",
        lines(
            "image,text,Split", *(f"{a},{b},{s}" for (a, b), s in zip(PLAIN, ("train", "val", "test"), strict=False))
        ),
        PLAIN,
        "sets by column Split: 1 train, 1 val, 1 test",
    ),
    "folds that are no sets": (
        "a.csv",
        lines("image,text,fold", *(f"{a},{b},{n}" for n, (a, b) in enumerate(PLAIN))),
        PLAIN,
        "column fold names no train, validation or test set, but 0, 1, 2",
    ),
    "UTF-16 without a mark": ("a.csv", "image,text\nw_00.png,Meier\n".encode("utf-16-le"), [["w_00.png", "Meier"]], ""),
}


@pytest.mark.parametrize("shape", RIGHT)
def test_tables_of_the_field_are_read_right(tmp_path, shape):
    name, content, labels, said = RIGHT[shape]
    (tmp_path / name).write_bytes(content)
    table = read_labels(tmp_path / name)
    assert [list(label) for label in table.labels()] == labels
    assert said in "; ".join(table.notes)
    assert bool(table.notes) == bool(said)


REFUSED = {
    "several texts": (
        "a.csv",
        lines("image,label,transcription", *(f"{a},Handwriting,{b}" for a, b in PLAIN)),
        r"several columns that could hold the texts, label \('Handwriting'\) and transcription \('Meier'\): choose one with --text-column transcription",
    ),
    "several pictures": (
        "a.csv",
        lines("file,path,text", *(f"page 1,{a},{b}" for a, b in PLAIN)),
        r"several columns that could hold the pictures, file \('page 1'\) and path \('w_00.png'\): .*--picture-column path",
    ),
    "commas in texts, no header": (
        "a.csv",
        lines("w_00.png,Meier, Hans", "w_01.png,Haus, am See"),
        "line 1: without a header, a row is a picture and its text: put texts that hold a ',' in quotes, or name the columns",
    ),
    "one comma in a text, no header": (
        "a.csv",
        lines("w_01.png,Haus", "w_00.png,Meier, Hans"),
        "line 2: without a header",
    ),
    "commas in texts, a header": (
        "a.csv",
        lines("image,text", "w_01.png,Haus", "w_00.png,Meier, Hans"),
        "line 3: it has more cells than the first line names, such as 'Hans'",
    ),
    "commas under an empty column": (
        "a.csv",
        lines("image,text,", "w_00.png,Meier, Hans"),
        "line 2: it has more cells",
    ),
    "a quote within": (
        "a.csv",
        lines("image,text", 'w_00.png,"Haus" am See'),
        "in line 2 more text follows a quote that closes: put the whole text in quotes, and double those",
    ),
    "other columns": (
        "a.csv",
        lines("scan,reading", "w_00.png,Haus"),
        "call it FILENAME, .*or name it with --picture-column",
    ),
    "other JSON": (
        "a.json",
        b'{"images": [], "annotations": []}',
        "is JSON, but not of a kind that is understood: a list of objects",
    ),
    "broken JSON": ("a.json", b'[{"image": "a.png"', "is damaged, or no JSON"),
    "a workbook of 1997": (
        "a.csv",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        "is no table of text but a workbook of an old Excel: save it as CSV",
    ),
    "XML": ("a.csv", b"<?xml version='1.0'?><alto/>", "is no table of text but XML or HTML"),
    "a PDF": ("labels.csv", b"%PDF-1.7", "but a PDF"),
    "a ZIP": ("labels.xlsx", b"PK\x03\x04rest", "is a ZIP archive, and no workbook"),
    "a damaged Parquet": ("a.parquet", b"PAR1rest", "is a Parquet file: pip install pyarrow|is no Parquet file"),
    "pictures in JSON": (
        "a.json",
        b'[{"image": {"bytes": "x"}, "text": "a"}]',
        "holds pictures, in its column image: write them as files",
    ),
    "several pictures a task": (
        "a.json",
        json.dumps([{"data": {"a": "1.png", "b": "2.png"}, "annotations": []}]).encode(),
        "task 1: it names 2 pictures",
    ),
    "nothing": ("a.csv", b"\n,,\n", "holds no cell"),
}


@pytest.mark.parametrize("shape", REFUSED)
def test_what_is_not_certain_is_asked(tmp_path, shape):
    name, content, message = REFUSED[shape]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(HTRError, match=message) as error:
        read_labels(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)


def workbook(path: Path, *rows, sheets: int = 1) -> None:
    book = openpyxl.Workbook()
    for number in range(sheets):
        sheet = book.active if not number else book.create_sheet()
        for row in rows:
            sheet.append(row)
    book.create_sheet("empty")
    book.save(path)


def test_a_workbook_is_read(tmp_path):
    import datetime

    workbook(tmp_path / "a.xlsx", ["image", "text", None], [None, None], *WORDS, ["w_03.png", 7], ["w_04.png", "007"])
    assert read_labels(tmp_path / "a.xlsx").labels()[:3] == list(map(tuple, WORDS))
    assert [text for _, text in read_labels(tmp_path / "a.xlsx").labels()[3:]] == ["7", "007"]
    workbook(tmp_path / "b.xlsx", ["image", "text"], ["w.png", datetime.date(2026, 4, 3)])
    with pytest.raises(HTRError, match=r"cell B2: this is a date, not a text: give the column the format Text"):
        read_labels(tmp_path / "b.xlsx")
    workbook(tmp_path / "c.xlsx", ["image", "text"], ["w.png", "a"], sheets=2)
    with pytest.raises(HTRError, match="has several sheets, Sheet and Sheet1: keep one"):
        read_labels(tmp_path / "c.xlsx")


def test_the_user_names_the_columns(tmp_path):
    (tmp_path / "a.csv").write_text("image,label,Reading,label\nw.png,kind,Haus,\n", encoding="utf-8")
    assert read_labels(tmp_path / "a.csv", Columns(text="reading")).labels() == [("w.png", "Haus")]
    for columns, message in (
        (Columns(text="words"), "has no column 'words': it has image"),
        (Columns(text="label"), "2 columns 'label'"),
    ):
        with pytest.raises(HTRError, match=message):
            read_labels(tmp_path / "a.csv", columns)


def test_texts_of_several_places_are_counted(tmp_path):
    tasks = [studio_task("a.png", "x", "y"), studio_task("b.png", "z"), studio_task("c.png", "u", was_cancelled=True)]
    (tmp_path / "labels.json").write_text(json.dumps(tasks), encoding="utf-8")
    source = labels_of(tmp_path)
    assert source.rows == [("b.png", "z")]
    assert source.left_out == {"with several texts for one picture": 1, "without an annotation": 1}
    (tmp_path / "labels.json").unlink()
    rows = 'image,transcription,annotator\na.png,"[""x"",""y""]",1\nb.png,"[""z""]",1\n'
    (tmp_path / "labels.csv").write_text(rows, encoding="utf-8")
    source = labels_of(tmp_path)
    assert (source.rows, source.left_out) == ([("b.png", "z")], {"with several texts for one picture": 1})
    assert len(source.table.rows) == 2  # what is left out is not lost


def pictures(folder: Path, count: int = 24) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(count):
        drawing().save(folder / f"w_{n:02}.png")


def test_sets_of_a_column_are_honoured(tmp_path, script):
    pictures(tmp_path / "data")
    sets = ["train"] * 14 + ["Valid"] * 4 + ["test"] * 3 + ["holdout"] * 2 + [""]
    rows = [f"w_{n:02}.png,Name {n},{each}\n" for n, each in enumerate(sets)]
    (tmp_path / "data" / "labels.csv").write_text("image,text,split\n" + "".join(rows), encoding="utf-8")
    done = script(tmp_path, "train.py", "--data-dir", "data", "--dry-run", *SMALL)
    assert "train: 24 rows = 15 used + 4 for validation + 3 for testing + 2 of set holdout" in done.stdout
    assert "validation: 24 rows = 4 used + 15 for training + 3 for testing" in done.stdout
    assert "sets by column split: 14 train, 4 Valid, 3 test, 2 holdout, 1 without one, which train" in done.stdout
    (tmp_path / "data" / "labels.csv").write_text(
        "image,text,split\n" + "".join(rows[:14] + rows[18:21]), encoding="utf-8"
    )
    done = script(tmp_path, "train.py", "--data-dir", "data", "--dry-run", *SMALL)
    assert "train: 17 rows = 13 used + 3 for testing + 1 kept for validation" in done.stdout


def test_the_flag_answers_what_was_asked(tmp_path, script):
    pictures(tmp_path / "data")
    rows = [f"w_{n:02}.png,kind,Name {n}\n" for n in range(24)]
    (tmp_path / "data" / "labels.csv").write_text("image,label,transcription\n" + "".join(rows), encoding="utf-8")
    flags = ("--data-dir", "data", "--dry-run", *SMALL)
    done = script(tmp_path, "train.py", *flags, check=False)
    assert done.returncode == 1
    answer = re.search(r"--text-column \w+", done.stderr)[0].split()
    assert "columns image and transcription" in script(tmp_path, "train.py", *flags, *answer).stdout
    assert script(tmp_path, "predict.py", "data", "--labels", "data", "--device", "cpu", check=False).returncode == 1
    assert "24 labelled images" in script(tmp_path, "predict.py", "data", "--labels", "data", *answer).stdout


def test_folders_of_sets_are_sets(tmp_path):
    for name, count in (("train", 5), ("validation", 3), ("test", 2)):
        pictures(tmp_path / name, count)
        rows = [json.dumps({"file_name": f"w_{n:02}.png", "text": f"Name {n}"}) for n in range(count)]
        (tmp_path / name / "metadata.jsonl").write_text("\n".join(rows), encoding="utf-8")
    train, validation = (find_source(tmp_path, split) for split in ("train", "validation"))
    assert (len(train.rows), len(validation.rows), train.whole) == (5, 3, False)
    assert train.notes == [f"{tmp_path / 'test'} is left out, with 2 labels"]
    (tmp_path / "validation" / "metadata.jsonl").unlink()
    assert find_source(tmp_path, "train").whole
    assert len(find_source(tmp_path, "validation").rows) == 5  # of which a tenth


def test_a_second_download_is_the_newer_one_or_asked_for(tmp_path):
    pictures(tmp_path, 2)
    for n, name in enumerate(("labels.csv", "labels (1).csv", "labels-2.csv")):
        (tmp_path / name).write_text(f"FILENAME,IDENTITY\nw_00.png,text {n}\n", encoding="utf-8")
        os.utime(tmp_path / name, (1000 + n, 1000 + n))
    source = whole_source(tmp_path)
    assert source.rows == [("w_00.png", "text 2")]
    assert source.notes == [
        "labels-2.csv is newer than labels (1).csv and labels.csv, and is taken: remove what you do not need"
    ]
    os.utime(tmp_path / "labels.csv", (3000, 3000))  # corrected by hand
    assert whole_source(tmp_path).rows == [("w_00.png", "text 0")]
    os.utime(tmp_path / "labels (1).csv", (3000, 3000))
    with pytest.raises(HTRError, match="several tables that could be meant"):
        whole_source(tmp_path)
    (tmp_path / "labels.csv").unlink()
    (tmp_path / "labels-2.csv").unlink()
    assert whole_source(tmp_path).rows == [("w_00.png", "text 1")]


def test_what_the_program_writes_is_no_data(tmp_path, script):
    """Training twice in the folder of the data, with a page, an export and readings there, too."""
    pictures(tmp_path)
    for n in range(24):
        (tmp_path / f"w_{n:02}.gt.txt").write_text(f"Name {n}", encoding="utf-8")
    script(tmp_path, "train.py", *SMALL, "--epochs", 1, "--num-samples", 0)
    script(tmp_path, "predict.py", "w_00.png", "w_01.png", "--html", "--spreadsheet", "--output-dir", ".")
    script(tmp_path, "predict.py", "--export", "names.onnx")
    done = script(tmp_path, "train.py", *SMALL, "--epochs", 1, "--num-samples", 0)
    assert "train: 24 rows = 22 used + 2 kept for validation" in done.stdout
    done = script(tmp_path, "predict.py", ".", "--labels", ".")
    assert "read 24 of 24 images" in done.stdout
    assert "24 labelled images" in done.stdout
