"""Pages through the scripts, as a user runs them: read, correct, train, read again."""

import csv
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, SMALL, run_without_torch
from pages import LINES, TEXTS, alto, draw_page, page, write_page
from PIL import Image

from config import SHIPPED_WEIGHTS, Config
from dataset import load_lines
from htr.system.scripts import HTRError
from htr.texts.page_xml import read_pages
from htr.texts.sources import find_source
from predict import predict_batch, predict_page

NAMES = ["0080-0160.png", "0140-0160.png", "0205-0160.png", "0082-0020.png"]


def table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


@pytest.fixture
def book(tmp_path) -> Path:
    """A folder with six pages of three documents, and a blank page without a file."""
    folder = tmp_path / "book"
    for n in range(6):
        write_page(folder / "part", f"letter_{n // 2}-{n % 2}", seed=n)
    Image.new("L", (640, 400), 235).save(folder / "cover.png")
    return folder


# ------------------------------------------------------------------------------------------------ reading


def test_pages_are_read(tmp_path, script, book):
    done = script(tmp_path, "predict.py", "book", "--pages", "--model-path", SHIPPED_WEIGHTS)
    rows = table(tmp_path / "output" / "predictions.csv")
    assert rows.columns.tolist()[:4] == ["FILENAME", "PREDICTION", "CONFIDENCE", "ERROR"]
    assert rows["FILENAME"].tolist() == [f"part/letter_{n // 2}-{n % 2}/{name}" for n in range(6) for name in NAMES]
    assert rows["PAGE"].tolist()[:5] == ["part/letter_0-0.png"] * 4 + ["part/letter_0-1.png"]
    assert rows["LINE"].tolist()[:5] == ["l1", "l2", "l3", "m1", "l1"]
    assert "read 24 of 24 lines of 7 pages" in done.stdout
    assert "pages on which no lines were found: 1" in done.stdout
    output = tmp_path / "output"
    assert {path.relative_to(output / "lines").as_posix() for path in (output / "lines").rglob("*.png")} == set(
        rows["FILENAME"]
    )
    for n in range(6):
        name = f"part/letter_{n // 2}-{n % 2}"
        texts = rows["PREDICTION"][rows["PAGE"] == f"{name}.png"].tolist()
        assert (output / "pages" / f"{name}.txt").read_text(encoding="utf-8").split("\n")[:-1] == texts
        (found,) = read_pages(output / "pages" / f"{name}.xml")
        assert [line.text for line in found.lines] == [" ".join(text.split()) for text in texts]
    # The lines that were kept are read like those of the page.
    script(tmp_path, "predict.py", "output/lines", "--model-path", SHIPPED_WEIGHTS, "--output-dir", "again")
    again = table(tmp_path / "again" / "predictions.csv").set_index("FILENAME").loc[rows["FILENAME"]]
    assert again["PREDICTION"].tolist() == rows["PREDICTION"].tolist()
    assert again["CONFIDENCE"].tolist() == rows["CONFIDENCE"].tolist()


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
    """Pages that were read are not read again, one that was begun is; the outputs are those of a run not stopped."""
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
    assert "of these, read by the run before: 8" in done.stdout
    read = table(output / "predictions.csv")
    assert read["PREDICTION"].tolist() == [f"KEPT {n}" for n in range(8)] + whole["PREDICTION"].tolist()[8:]
    assert (output / "pages/part/letter_0-0.txt").read_text() == "".join(f"KEPT {n}\n" for n in range(4))


def test_nothing_is_written_beside_a_picture_that_lies_elsewhere(tmp_path, script):
    """By its absolute path or one that leads out of the working folder: the transcript beside it stays as it is."""
    for number, place in enumerate(("absolute", "relative")):
        mine, work = write_page(tmp_path / place / "mine"), tmp_path / place / "work"
        work.mkdir()
        before = {path.name: path.read_bytes() for path in mine.iterdir()}
        given = (mine / "page.png", "../mine/page.png")[number]
        done = script(work, "predict.py", given, "--pages", "--model-path", SHIPPED_WEIGHTS)
        assert "read 4 of 4 lines of 1 pages" in done.stdout
        assert {path.name: path.read_bytes() for path in mine.iterdir()} == before
        assert (work / "output" / "pages" / "page.xml").exists()
        names = table(work / "output" / "predictions.csv")["FILENAME"].tolist()
        assert all((work / "output" / "lines" / name).exists() for name in names)


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
    (folder / "page.png").write_bytes(b"x")
    with pytest.raises(HTRError, match=r"page.png cannot be read"):
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
    done = script(tmp_path, "predict.py", "in", "--pages", "--model-path", SHIPPED_WEIGHTS)
    assert "pages whose lines were found, as no ALTO or PAGE file has them: 1\n" in done.stdout
    rows = table(tmp_path / "output" / "predictions.csv")
    pages = rows["PAGE"].tolist()
    assert pages[:4] == ["x.tif"] * 4 and set(pages[4:-1]) == {"x.tif, page 2"} and pages[-1] == "x.tif, page 3"
    assert {path.name for path in (tmp_path / "output/pages").iterdir()} == {
        ".read-pages",
        "x.txt",
        "x.xml",
        "x-2.txt",
        "x-2.xml",
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


# ---------------------------------------------------------------------------------------------- finding lines

BODY = LINES[:3]  # without the margin


def assert_runs_along(line, baseline, within=12) -> None:
    """Whether a line (K, 2) that was found is the one of a baseline: as high, and about as long."""
    line, baseline = np.array(line), np.array(baseline, dtype=float)
    assert np.abs(line[[0, -1], 0] - baseline[[0, -1], 0]).max() < 3 * within
    assert np.abs(np.interp(line[:, 0], *baseline.T) - line[:, 1]).max() < within


@pytest.mark.parametrize("suffix", [".pth", ".onnx"])
def test_lines_are_found(tmp_path, suffix):
    """Of a page in a file, and of one in memory, with both engines."""
    picture = tmp_path / "in" / "page.png"
    picture.parent.mkdir()
    draw_page(lines=BODY).save(picture)
    weights = SHIPPED_WEIGHTS.with_suffix(suffix)
    found = predict_page(weights, picture, device="cpu")
    assert len(found) == len(BODY)
    for line, (_, _, baseline, _, _) in zip(found, BODY, strict=True):
        assert_runs_along(line.baseline, baseline)
    rows = predict_batch(weights, [draw_page(lines=BODY)], save_csv=False, pages=True, device="cpu")
    assert rows["PREDICTION"].tolist() == [line.text for line in found]
    assert rows["LINE"].tolist() == ["line_1", "line_2", "line_3"]


def test_found_lines_become_a_page_that_is_read_again(tmp_path, script):
    """The file that is written describes the page as it was read: its lines, texts and names are the same again."""
    (tmp_path / "in").mkdir()
    draw_page(lines=BODY).save(tmp_path / "in" / "page.png")
    flags = ("predict.py", "in", "--pages", "--model-path", SHIPPED_WEIGHTS)
    done = script(tmp_path, *flags)
    assert "pages whose lines were found, as no ALTO or PAGE file has them: 1" in done.stdout
    rows = table(tmp_path / "output" / "predictions.csv")
    shutil.copy(tmp_path / "output" / "pages" / "page.xml", tmp_path / "in")
    done = script(tmp_path, *flags, "--output-dir", "again")
    assert "were found" not in done.stdout
    again = table(tmp_path / "again" / "predictions.csv")
    assert again["LINE"].tolist() == rows["LINE"].tolist()
    assert len(again) == 3
    done = script(tmp_path, *flags, "--output-dir", "found", "--find-lines")
    assert table(tmp_path / "found" / "predictions.csv").equals(rows)


def test_find_lines_is_preferred_to_a_file(tmp_path, script):
    write_page(tmp_path / "in", xml=page(lines=LINES[:1]))
    flags = ("predict.py", "in", "--pages", "--model-path", SHIPPED_WEIGHTS)
    script(tmp_path, *flags)
    assert len(table(tmp_path / "output" / "predictions.csv")) == 1
    script(tmp_path, *flags, "--find-lines")
    assert len(table(tmp_path / "output" / "predictions.csv")) >= 3
    done = script(tmp_path, "predict.py", "in", "--find-lines", check=False)
    assert done.returncode == 2 and "--find-lines is for pages: add --pages" in done.stderr


def test_a_page_on_its_side_is_read_upright(tmp_path, script):
    (tmp_path / "in").mkdir()
    draw_page(lines=BODY).rotate(90, expand=True, fillcolor=235).save(tmp_path / "in" / "page.png")
    done = script(tmp_path, "predict.py", "in", "--pages", "--model-path", SHIPPED_WEIGHTS)
    assert re.search(r"pages turned by (90|270) degrees, read upright: 1", done.stdout)
    (found,) = read_pages(tmp_path / "output" / "pages" / "page.xml")
    assert len(found.lines) == 3
    assert all(np.ptp(line.baseline[:, 1]) > 10 * np.ptp(line.baseline[:, 0]) for line in found.lines)


def test_which_way_up_is_seen_by_reading(tmp_path, monkeypatch):
    """Lines that are read with more confidence the other way up are taken that way."""
    import reading
    from htr.pictures.finding import FoundLines
    from htr.results.transcripts import ReadPage

    picture = tmp_path / "page.png"
    draw_page(lines=BODY).rotate(180, fillcolor=235).save(picture)
    lines = [np.array(baseline, dtype=float) for _, _, baseline, _, _ in BODY]
    over = [np.array([640, 400]) - line for line in lines]

    def find_lines(path, number, network, turned=None):
        return FoundLines(over if turned == 180 else lines, (640, 400), turned or 0)

    class Reader:
        config = Config()

        def read(self, images):
            """Sure of what stands on its baseline: of most ink in the middle, not below."""
            (image,) = images
            ink = (255 - image).sum(1)
            sure = 0.9 if ink[: len(ink) * 2 // 3].sum() > 5 * ink[len(ink) * 3 // 4 :].sum() else 0.5
            return [SimpleNamespace(reading=SimpleNamespace(label_confidences=[sure] * 5))]

    monkeypatch.setattr(reading, "find_lines", find_lines)
    found = reading.found_lines(ReadPage("page", picture, 0, "page.png"), None, Reader())
    assert found.turned == 180
    draw_page(lines=BODY).save(picture)
    assert reading.found_lines(ReadPage("page", picture, 0, "page.png"), None, Reader()).turned == 0


def test_lines_are_corrected_in_a_browser(browser, tmp_path, script):
    """The loop of a photographed page, in small: read, delete a line, draw one, correct texts, save, train, read again."""
    folder = tmp_path / "in"
    folder.mkdir()
    draw_page(lines=BODY).save(folder / "page.png")
    flags = ("predict.py", "in", "--pages", "--html", "--model-path", SHIPPED_WEIGHTS)
    script(tmp_path, *flags)
    context = browser.new_context(accept_downloads=True)
    tab, errors = context.new_page(), []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto((tmp_path / "output" / "report.html").as_uri())
    fields = tab.locator("section.page input.text")
    assert fields.count() == 3
    fields.nth(1).fill("to be deleted")
    tab.locator("section.page li").nth(1).get_by_role("button", name="delete line").click()
    assert fields.count() == 2 and tab.locator("polygon").count() == 2
    fields.nth(0).fill("noise in one")
    tab.evaluate("document.activeElement.setSelectionRange(5, 5)")
    tab.locator("section.page li").nth(0).get_by_role("button", name="split here").click()
    assert [field.input_value() for field in fields.all()][:2] == ["noise", "in one"]
    tab.get_by_role("button", name="draw a line").click()
    box = tab.locator("section.page svg").bounding_box()
    scale = box["width"] / 640
    tab.mouse.move(box["x"] + 100 * scale, box["y"] + 300 * scale)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 500 * scale, box["y"] + 310 * scale)
    tab.mouse.up()
    tab.keyboard.type("nose")
    fields.nth(2).fill("is on")
    with tab.expect_download() as download:
        tab.get_by_role("button", name="save the page").click()
    assert download.value.suggested_filename == "page.xml"
    download.value.save_as(folder / "page.xml")
    assert tab.locator("#unsaved").inner_text() == ""
    context.close()
    assert errors == []
    (saved,) = read_pages(folder / "page.xml")
    assert [line.text for line in saved.lines] == ["noise", "in one", "is on", "nose"]
    drawn, half = saved.lines[3].baseline, saved.lines[0].baseline
    assert np.abs(drawn - [(100, 300), (500, 310)]).max() < 4
    assert (
        half[-1, 0] == pytest.approx(160 + 440 * 5 / 12, abs=20)
        and half[-1].tolist() == saved.lines[1].baseline[0].tolist()
    )
    done = script(tmp_path, "train.py", "--data-dir", "in", "--no-uppercase", "--epochs", 1, *SMALL)
    assert "1 page of PAGE 2019), 4 lines" in done.stdout
    script(tmp_path, *flags)
    rows = table(tmp_path / "output" / "predictions.csv")
    assert len(rows) == 4
    assert "were found" not in done.stdout


def test_texts_that_nobody_confirmed_are_no_labels(browser, tmp_path, script):
    """A page of a file is saved with the texts of the file, and without readings; joined lines are one."""
    folder = write_page(
        tmp_path / "in", xml=page().replace("<TextEquiv><Unicode>fin de la phrase</Unicode></TextEquiv>", "")
    )
    script(tmp_path, "predict.py", "in", "--pages", "--html", "--model-path", SHIPPED_WEIGHTS)
    context = browser.new_context(accept_downloads=True)
    tab = context.new_page()
    tab.goto((tmp_path / "output" / "report.html").as_uri())
    cards = tab.locator("section.page li")
    cards.nth(1).locator("input.text").focus()
    cards.nth(1).get_by_role("button", name="join with next").click()
    tab.get_by_role("button", name="take back").click()
    assert cards.count() == 4
    with tab.expect_download() as download:
        tab.get_by_role("button", name="save the page").click()
    download.value.save_as(tmp_path / "again.xml")
    context.close()
    (before,), (after,) = read_pages(folder / "page.xml"), read_pages(tmp_path / "again.xml")
    assert [line.text for line in after.lines].count(None) == 1
    assert [(line.id, line.text) for line in after.lines] == [(line.id, line.text) for line in before.lines]
    for old, new in zip(before.lines, after.lines, strict=True):
        assert np.array_equal(old.baseline, new.baseline)


def test_a_page_that_is_read_as_a_line_is_noticed(tmp_path, script):
    (tmp_path / "in").mkdir()
    draw_page((640, 500), lines=[*BODY, ("main", "l4", [(160, 265), (600, 262)], [], "")]).save(
        tmp_path / "in" / "page.png"
    )
    (tmp_path / "line").mkdir()
    Image.open(tmp_path / "in" / "page.png").crop((150, 40, 610, 95)).save(tmp_path / "line" / "line.png")
    done = script(tmp_path, "predict.py", "in", "line", "--model-path", SHIPPED_WEIGHTS)
    assert "in/page.png looks like a page of several lines: --pages reads such pictures" in done.stdout
    done = script(tmp_path, "predict.py", "line", "--model-path", SHIPPED_WEIGHTS)
    assert "looks like a page" not in done.stdout
    done = script(tmp_path, "predict.py", "line", "--model-path", SHIPPED_WEIGHTS, "--pages")
    assert "read 1 of 1 lines of 1 pages" in done.stdout
