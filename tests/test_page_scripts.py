"""Pages through the scripts, as a user runs them: read, correct, train, read again."""

import csv
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT, SMALL, run_without_torch
from pages import LINES, TEXTS, alto, draw_page, page, write_page
from PIL import Image

from config import SHIPPED_WEIGHTS, Config
from dataset import load_lines
from htr.texts.page_xml import read_pages
from htr.texts.sources import find_source
from predict import predict_batch, predict_page

NAMES = ["0080-0160.png", "0140-0160.png", "0205-0160.png", "0082-0020.png"]


def table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


@pytest.fixture
def book(tmp_path) -> Path:
    """A folder with six pages of three documents, and one page without a file."""
    folder = tmp_path / "book"
    for n in range(6):
        write_page(folder / "part", f"letter_{n // 2}-{n % 2}", seed=n)
    draw_page().save(folder / "cover.png")
    return folder


# ------------------------------------------------------------------------------------------------ reading


def test_pages_are_read(tmp_path, script, book):
    done = script(tmp_path, "predict.py", "book", "--pages", "--model-path", SHIPPED_WEIGHTS, check=False)
    assert done.returncode == 1
    assert "1 images could not be read, cover.png has no ALTO or PAGE file with its lines" in done.stderr
    rows = table(tmp_path / "output" / "predictions.csv")
    assert rows.columns.tolist()[:4] == ["FILENAME", "PREDICTION", "CONFIDENCE", "ERROR"]
    assert rows["FILENAME"].tolist() == ["cover.png"] + [
        f"part/letter_{n // 2}-{n % 2}/{name}" for n in range(6) for name in NAMES
    ]
    assert rows["PAGE"].tolist()[:2] == ["cover.png", "part/letter_0-0.png"]
    assert rows["LINE"].tolist()[:6] == ["", "l1", "l2", "l3", "m1", "l1"]
    assert "read 24 of 25 lines of 6 pages" in done.stdout
    output = tmp_path / "output"
    assert {path.relative_to(output / "lines").as_posix() for path in (output / "lines").rglob("*.png")} == set(
        rows["FILENAME"][1:]
    )
    for n in range(6):
        name = f"part/letter_{n // 2}-{n % 2}"
        texts = rows["PREDICTION"][rows["PAGE"] == f"{name}.png"].tolist()
        assert (output / "pages" / f"{name}.txt").read_text(encoding="utf-8").split("\n")[:-1] == texts
        (found,) = read_pages(output / "pages" / f"{name}.xml")
        assert [line.text for line in found.lines] == [" ".join(text.split()) for text in texts]
    # The lines that were kept are read like those of the page.
    script(tmp_path, "predict.py", "output/lines", "--model-path", SHIPPED_WEIGHTS, "--output-dir", "again")
    again = table(tmp_path / "again" / "predictions.csv").set_index("FILENAME").loc[rows["FILENAME"][1:]]
    assert again["PREDICTION"].tolist() == rows["PREDICTION"].tolist()[1:]
    assert again["CONFIDENCE"].tolist() == rows["CONFIDENCE"].tolist()[1:]


def test_pages_are_scored_by_line_and_by_page(tmp_path, script, book):
    (book / "cover.png").unlink()
    flags = ("book", "--pages", "--model-path", SHIPPED_WEIGHTS)
    done = script(tmp_path, "predict.py", *flags, "--labels", "book")
    assert "(0 of 24 labelled images)" in done.stdout
    assert "by page: CER " in done.stdout
    rows = table(tmp_path / "output" / "predictions.csv")
    assert rows["TRUTH"].tolist() == [text.upper() for text in TEXTS] * 6
    labels = tmp_path / "output" / "lines" / "labels.csv"  # a table of lines labels them, too
    with open(labels, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["FILENAME", "IDENTITY"], *rows[["FILENAME", "PREDICTION"]].values.tolist()])
    done = script(tmp_path, "predict.py", *flags, "--labels", labels)
    assert "exact match 1.0000" in done.stdout


def test_a_stopped_reading_goes_on(tmp_path, script, book):
    """What was read of a page is not read again; the outputs are those of a run that was not stopped."""
    (book / "cover.png").unlink()
    flags = ("predict.py", "book", "--pages", "--model-path", SHIPPED_WEIGHTS)
    script(tmp_path, *flags, "--output-dir", "whole")
    whole = table(tmp_path / "whole" / "predictions.csv")
    script(tmp_path, *flags)
    output = tmp_path / "output"
    journal = output / "predictions.partial.jsonl"
    from htr.results.tables import Journal

    rows = whole.to_dict("records")[:10]
    lines = [json.dumps({"key": Journal.key_of(SHIPPED_WEIGHTS, None), "started": 1e12})]
    kept = [row | {"CONFIDENCE": float(row["CONFIDENCE"]), "PREDICTION": f"KEPT {n}"} for n, row in enumerate(rows)]
    lines += [json.dumps([f"output/lines/{row['FILENAME']}", row]) for row in kept]
    journal.write_text("".join(f"{line}\n" for line in lines))
    shutil.rmtree(output / "pages")
    done = script(tmp_path, *flags, "--resume")
    assert "of these, read by the run before: 10" in done.stdout
    read = table(output / "predictions.csv")
    assert read["PREDICTION"].tolist() == [f"KEPT {n}" for n in range(10)] + whole["PREDICTION"].tolist()[10:]
    assert (output / "pages/part/letter_0-0.txt").read_text() == "".join(f"KEPT {n}\n" for n in range(4))


def test_an_earlier_reading_is_no_data(tmp_path, script, book):
    """Neither the lines nor the pages that were written into the folder."""
    (book / "cover.png").unlink()
    flags = ("predict.py", ".", "--pages", "--model-path", SHIPPED_WEIGHTS)
    script(book, *flags)
    before = table(book / "output" / "predictions.csv")
    script(book, *flags)
    assert table(book / "output" / "predictions.csv").equals(before)
    write_page(book / "lines", "mine")  # a folder of one's own may be called like that
    script(book, *flags, "--output-dir", ".")
    assert len(table(book / "predictions.csv")) == 28
    assert len(find_source(book, "train").rows) == 28  # and is still one's own
    shutil.rmtree(book / "lines")
    assert len(find_source(book, "train").rows) == 24


def test_from_python(tmp_path):
    folder = write_page(tmp_path / "in")
    lines = predict_page(SHIPPED_WEIGHTS, folder / "page.png", device="cpu")
    rows = predict_batch(SHIPPED_WEIGHTS, folder, save_csv=False, pages=True, device="cpu")
    assert [line.text for line in lines] == rows["PREDICTION"].tolist()
    assert [line.confidence for line in lines] == rows["CONFIDENCE"].tolist()
    for line, (_, _, baseline, _, _) in zip(lines, LINES, strict=True):
        assert [round(value, 6) for point in line.baseline for value in point] == [
            value for point in baseline for value in point
        ]
    assert rows["LINE"].tolist() == [line[1] for line in LINES]
    (folder / "page.xml").unlink()
    with pytest.raises(Exception, match=r"page.png has no ALTO or PAGE file with its lines"):
        predict_page(SHIPPED_WEIGHTS, folder / "page.png", device="cpu")


def test_without_pytorch(tmp_path):
    write_page(tmp_path / "in")
    onnx = SHIPPED_WEIGHTS.with_suffix(".onnx")
    code = f"sys.argv = ['predict.py', 'in', '--pages', '--model-path', '{onnx}']; import runpy; runpy.run_path('{ROOT}/predict.py', run_name='__main__')"
    done = run_without_torch(tmp_path, code)
    assert done.returncode == 0, done.stderr
    read = (tmp_path / "output/pages/page.txt").read_text().split("\n")[:-1]
    assert read == [line.text for line in predict_page(SHIPPED_WEIGHTS, tmp_path / "in/page.png", device="cpu")]


def test_files_with_several_pages(tmp_path, script):
    folder = write_page(tmp_path / "in", xml=page(picture="x.tif"))
    (folder / "page.png").unlink()
    pages = [draw_page(seed=n) for n in range(3)]
    pages[0].save(folder / "x.tif", save_all=True, append_images=pages[1:])
    (folder / "page.xml").rename(folder / "x.xml")
    (folder / "x-3.xml").write_text(alto(LINES[:1], picture="x.tif"))
    done = script(tmp_path, "predict.py", "in", "--pages", "--model-path", SHIPPED_WEIGHTS, check=False)
    assert "x.tif, page 2 has no ALTO or PAGE file" in done.stderr
    rows = table(tmp_path / "output" / "predictions.csv")
    assert rows["PAGE"].tolist() == ["x.tif"] * 4 + ["x.tif, page 2", "x.tif, page 3"]
    assert {path.name for path in (tmp_path / "output/pages").iterdir()} == {
        ".read-pages",
        "x.txt",
        "x.xml",
        "x-3.txt",
        "x-3.xml",
    }


def test_pdf(tmp_path, script):
    pytest.importorskip("pypdfium2")
    folder = write_page(tmp_path / "in", xml=page(picture="x.pdf"))
    (folder / "page.png").unlink()
    draw_page().convert("RGB").save(
        folder / "x.pdf", resolution=150, save_all=True, append_images=[draw_page(seed=1).convert("RGB")]
    )
    (folder / "x-2.xml").write_text(page(picture="x.pdf"), encoding="utf-8")
    script(tmp_path, "predict.py", "in", "--pages", "--model-path", SHIPPED_WEIGHTS)
    rows = table(tmp_path / "output" / "predictions.csv")
    assert rows["PAGE"].tolist() == ["x.pdf"] * 4 + ["x.pdf, page 2"] * 4
    with Image.open(tmp_path / "output/lines/x" / NAMES[0]) as line:
        assert line.size[1] in range(60, 90)
    (folder / "torn.pdf").write_bytes((folder / "x.pdf").read_bytes()[:100])
    done = script(tmp_path, "predict.py", "in", "--pages", "--model-path", SHIPPED_WEIGHTS, check=False)
    assert "torn.pdf cannot be read: " in done.stderr


def test_flags_that_contradict(tmp_path, script):
    done = script(tmp_path, "predict.py", "--demo", "--pages", check=False)
    assert done.returncode == 2
    assert "--demo draws single names, not pages" in done.stderr


# ----------------------------------------------------------------------------------------------- training


def test_pages_train(tmp_path, script, book):
    flags = ("train.py", "--data-dir", "book", "--no-uppercase", *SMALL, "--epochs", 1)
    done = script(tmp_path, *flags, "--dry-run")
    assert not (tmp_path / "htr_cache").exists()
    assert "data: book (6 pages of ALTO 4), 24 lines, of which a tenth, in whole documents, validates" in done.stdout
    script(tmp_path, *flags)
    more = script(tmp_path, "continue_train.py", "--epochs", 1, "--data-dir", "book").stdout
    assert "continuing from htr_crnn_mini.last.pth with epoch 2" in more
    assert "the best loss so far" not in more  # the data is the same


def config(folder: Path, **settings) -> Config:
    return Config(DATA_DIR=str(folder), UPPERCASE=False, WORKERS=0, **settings)


def fits(text, width):
    return True


def test_documents_stay_together(book, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train, validation = (load_lines(config(book), split, 0, fits) for split in ("train", "validation"))
    documents = [{name.split("-")[0] for name in lines.filenames} for lines in (train, validation)]
    assert not documents[0] & documents[1]
    assert [len(each) for each in documents] == [2, 1]
    assert (len(train), len(validation)) == (16, 8)
    assert train.counts["kept for validation"] == 8
    assert sum(train.counts.values()) == 24


def test_a_single_page_is_split_by_lines(tmp_path):
    write_page(tmp_path)
    train, validation = (load_lines(config(tmp_path), split, 0, fits) for split in ("train", "validation"))
    assert (len(train), len(validation)) == (3, 1)


def test_lines_are_cut_once(book, tmp_path, monkeypatch):
    """A second run over the same pages takes what the first one kept; another page, text or place is cut anew."""
    from htr.pictures import cutting

    monkeypatch.chdir(tmp_path)
    opened, real = [], cutting.open_page
    monkeypatch.setattr(cutting, "open_page", lambda path, *rest: opened.append(path) or real(path, *rest))

    def load():
        opened.clear()
        lines = load_lines(config(book), "train", 0, fits, in_memory=10)
        return {name: lines.images[n].tobytes() for n, name in enumerate(lines.filenames)}, len(opened)

    first, pages = load()
    assert pages == 4  # of the two documents that train, each once
    assert load() == (first, 0)
    path = next(iter(sorted(book.rglob("*.xml"))))
    path = next(each for each in sorted(book.rglob("*.xml")) if any(each.stem in name for name in first))
    path.write_text(path.read_text(encoding="utf-8").replace("160 140 600 146", "160 144 600 150"), encoding="utf-8")
    moved, pages = load()
    assert pages == 4
    assert moved.keys() == first.keys()
    assert moved != first
    in_memory = load_lines(config(book), "train", 0, fits, in_memory=1_000_000)
    assert {name: in_memory.images[n].tobytes() for n, name in enumerate(in_memory.filenames)} == moved


def test_rare_characters(tmp_path, monkeypatch):
    """In many labels, those with a character that occurs once or twice are left out; in few they are all there is."""
    import dataset

    monkeypatch.chdir(tmp_path)
    for n in range(5):
        lines = [(*line[:4], f"word {'q' if n < 2 else 'yyy'}" if line[1] == "l1" else "word") for line in LINES]
        write_page(tmp_path / "in", f"page{n}", xml=alto(lines, picture=f"page{n}.png"), seed=n)
    assert load_lines(config(tmp_path / "in"), "train", 0, fits).rare == ""
    monkeypatch.setattr(dataset, "FEWEST_RARE", 10)
    settings = config(tmp_path / "in")
    train, validation = (load_lines(settings, split, 0, fits) for split in ("train", "validation"))
    assert train.rare == "q"
    assert not any("q" in text for text in train.texts)
    assert train.counts["with a rare character"] + sum("q" in text for text in validation.texts) == 2
    assert load_lines(settings, "train", 0, fits, known="q").rare == ""
    assert load_lines(config(tmp_path / "in", RARE_CHARACTERS=0), "train", 0, fits).rare == ""


def test_pages_of_no_use_are_counted_and_too_many_are_an_error(tmp_path, script):
    for n in range(40):
        write_page(tmp_path / "in", f"page{n}")
    (tmp_path / "in/page3.png").unlink()
    (tmp_path / "in/page4.png").write_bytes(b"x")
    flags = ("train.py", "--data-dir", "in", "--dry-run", *SMALL)
    done = script(tmp_path, *flags)
    assert "ALTO or PAGE files of no use: 1, such as in/page3.xml is of a picture that is not there" in done.stdout
    assert "pages that cannot be read: 1, such as in/page4.png cannot be read" in done.stdout
    assert "4 of a page without its picture" in done.stdout
    assert "4 of a page that cannot be read" in done.stdout
    (tmp_path / "in/page5.png").unlink()
    done = script(tmp_path, *flags, check=False)
    assert done.returncode == 1
    assert "error: 12 of the 160 lines in in are of no use: " in done.stderr


# ---------------------------------------------------------------------------------------------- correcting


def test_lines_are_corrected_on_their_page_and_train(browser, tmp_path, script, book):
    """The loop of the README: read, correct three lines in a browser, save, train a step, read again."""
    (book / "cover.png").unlink()
    script(tmp_path, "predict.py", "book", "--pages", "--html", "--model-path", SHIPPED_WEIGHTS)
    rows = table(tmp_path / "output" / "predictions.csv")
    context = browser.new_context(accept_downloads=True)
    tab, errors = context.new_page(), []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto((tmp_path / "output" / "report.html").as_uri())
    assert tab.title() == "Pages and the readings of their lines"
    assert tab.locator("section.page").count() == 6
    assert tab.locator("polygon").count() == 24
    labels = [field.get_attribute("aria-label") for field in tab.locator("input.text").all()]
    assert labels == [f"text of {name}" for name in rows["FILENAME"]]  # in reading order
    tab.locator("polygon").nth(5).click()  # a line's place leads to its text
    assert tab.evaluate("document.activeElement.getAttribute('aria-label')") == labels[5]
    assert tab.locator("polygon.here").count() == 1
    corrected = {}
    for n in range(3):
        tab.keyboard.press("F7")
        label = tab.evaluate("document.activeElement.getAttribute('aria-label')")
        corrected[label.removeprefix("text of ")] = text = "CORRECTED" + " LINE" * n
        tab.keyboard.type(text)
    sure = rows.set_index("FILENAME")["CONFIDENCE"].astype(float)
    assert sorted(sure[list(corrected)]) == sorted(sure)[:3]  # the least sure ones
    assert tab.locator("polygon.done").count() == 3
    with tab.expect_download() as download:
        tab.keyboard.press("Control+s")
    assert "into the folder of the pictures, output/lines" in tab.locator("#place").text_content()
    download.value.save_as(tmp_path / "output" / "lines" / download.value.suggested_filename)
    context.close()
    assert errors == []
    saved = table(tmp_path / "output" / "lines" / "labels.csv")
    assert dict(saved[["FILENAME", "IDENTITY"]].values.tolist()) == corrected
    done = script(tmp_path, "train.py", "--data-dir", "output/lines", "--epochs", 1, *SMALL)
    assert "3 rows = 2 used + 1 kept for validation" in done.stdout
    done = script(tmp_path, "predict.py", "book", "--pages", "--labels", "output/lines")
    assert "of 3 labelled images" in done.stdout
    script(tmp_path, "predict.py", "book", "--pages", "--html", "--model-path", SHIPPED_WEIGHTS)  # they are known now
    known = json.loads((tmp_path / "output" / "report.html").read_text().split('id="known">')[1].split("</script>")[0])
    assert sorted(known["of"]) == sorted(corrected)
