import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import compared, drawing
from PIL import Image, ImageChops, ImageOps
from right_to_left import draw

from htr.results.report import LeastSure, charts, doubtful_words, segments, thumbnail, write_report
from htr.results.scores import Comparison
from htr.texts.labels import read_labels


def row(name, text, confidence, error="", **more):
    return {"FILENAME": name, "PREDICTION": text, "CONFIDENCE": "" if error else confidence, "ERROR": error} | more


def test_the_least_sure_are_kept_in_order():
    kept = LeastSure(most=3)
    for n, confidence in enumerate([0.5, 0.9, 0.1, 0.5, 0.7]):
        kept.add(row(f"{n}.jpg", "A", confidence), Path(f"{n}.jpg"))
    kept.add(row("bad.jpg", "", "", error="is empty"), Path("bad.jpg"))
    assert kept.count == 6
    assert [found["FILENAME"] for found, _ in kept.rows()] == ["bad.jpg", "2.jpg", "0.jpg"]


@pytest.mark.parametrize(
    ("text", "other", "parts"),
    [
        ("LEON", "LEON", [["LEON", False]]),
        ("LEO", "LEON", [["LEO", False]]),
        ("LEON", "LEO", [["LEO", False], ["N", True]]),
        ("", "A", []),
    ],
)
def test_differing_letters(text, other, parts):
    assert segments(text, other) == parts


def test_a_thumbnail_is_a_small_picture(tmp_path):
    Image.new("RGB", (3000, 1000), "red").save(tmp_path / "big.png")
    head, data = thumbnail(tmp_path / "big.png").split(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.height <= 160
        assert image.width == pytest.approx(3 * image.height, abs=3)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    assert thumbnail(tmp_path / "bad.png") == ""


@pytest.mark.parametrize("kind", ["turned", "transparent", "16 bits", "float", "pencil", "light on dark", "large"])
def test_a_thumbnail_shows_what_was_read(tmp_path, kind):
    grey = drawing(levels=False)
    grey.save(tmp_path / "plain.png")
    options = {}
    if kind == "turned":
        image, options = grey.transpose(Image.Transpose.ROTATE_90), {"tiffinfo": {274: 6}}
    elif kind == "transparent":
        image = Image.merge("LA", (Image.new("L", grey.size, 255), ImageOps.invert(grey)))
    elif kind in ("16 bits", "float"):
        image = Image.fromarray(np.asarray(grey).astype(np.uint16 if kind == "16 bits" else np.float32) * 16)
    elif kind == "large":
        image = grey.resize((4800, 1600))
    else:
        image = grey.point([170 + v // 4 for v in range(256)]) if kind == "pencil" else ImageOps.invert(grey)
    suffix = "png" if kind in ("transparent", "large") else "tif"
    image.save(tmp_path / f"a.{suffix}", **options)

    def shown(path):
        with Image.open(io.BytesIO(base64.b64decode(thumbnail(path).split(",")[1]))) as small:
            return small.resize((120, 40))

    difference = ImageChops.difference(shown(tmp_path / f"a.{suffix}"), shown(tmp_path / "plain.png"))
    assert np.asarray(difference).mean() < 12


def test_curves_need_no_minimum_of_images():
    for count in (0, 1, 4):
        comparison = Comparison()
        for n in range(count):
            comparison.add(f"{n}", "A", 1.0, "A")
        assert charts(comparison).count("<svg") == 2


EVIL = '<script>document.title="run"</script>.png'


@pytest.fixture
def page(tmp_path) -> Path:
    """A report of five images, one with a name that is HTML."""
    kept = LeastSure(most=5)
    for name, text, confidence, truth in (
        ("one.png", "LEA", 0.99, "LEA"),
        ("two.png", "LEON", 0.4, "LEO"),
        (EVIL, "</script><b>", 0.6, "MARC"),
        ("four.png", "ZOE", 0.8, "ZOE"),
        ("five.png", "TOM", 1.0, "TOM"),
    ):
        path = tmp_path / f"{truth}.png"
        Image.new("L", (80, 20), 200).save(path)
        kept.add(row(name, text, confidence, TRUTH=truth), path)
    kept.add(row("bad.png", "", "", error="is empty"), tmp_path / "bad.png")
    write_report(tmp_path / "report.html", kept, ["read <6> images"], compared(), lambda: None)
    return tmp_path / "report.html"


def test_the_page_holds_its_data_and_nothing_else(page):
    text = page.read_text(encoding="utf-8")
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])
    assert [item["file"] for item in data] == ["bad.png", "two.png", EVIL, "four.png", "one.png"]
    assert "read &lt;6&gt; images" in text
    assert "the 5 least sure of 6 images" in text
    assert EVIL not in text
    assert not re.search(r"https?://", text)


@pytest.mark.parametrize(
    ("text", "confidences", "doubtful"),
    [
        ("a cat sat there", "0.9000 0.4999 0.5000 0.0100", ["cat", "there"]),
        ("cat", "0.1000", []),  # what is doubtful is the whole text
        ("a cat", "", []),
        ("", "", []),
    ],
)
def test_doubtful_words(text, confidences, doubtful):
    assert doubtful_words(row("a.png", text, 0.1, WORD_CONFIDENCES=confidences)) == doubtful


def test_a_doubtful_word_is_selected(tmp_path, browser):
    Image.new("L", (80, 20), 200).save(tmp_path / "a.png")
    kept = LeastSure()
    kept.add(row("a.png", "a cat at a", 0.1, WORD_CONFIDENCES="0.9 0.8 0.2 0.9"), tmp_path / "a.png")
    write_report(tmp_path / "report.html", kept, [], None, lambda: None)
    tab = browser.new_page()
    tab.goto((tmp_path / "report.html").as_uri())
    assert tab.locator("button.doubtful").all_inner_texts() == ["at"]
    tab.locator("button.doubtful").click()
    tab.keyboard.type("on")
    assert tab.locator("input.text").input_value() == "a cat on a"
    tab.context.close()


def test_the_page_in_a_browser(page, browser):
    tab = browser.new_page(viewport={"width": 390, "height": 800})  # a phone
    errors, requests = [], []
    tab.on("console", lambda message: errors.append(message.text))
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url.split(":")[0]))
    tab.goto(page.as_uri())

    def shown() -> list[str]:
        cards = tab.locator("#cards li:visible").all()
        return [card.locator("small").last.inner_text() for card in cards]

    assert shown() == ["bad.png", "two.png", EVIL, "four.png", "one.png"]
    assert tab.title() != "run"
    assert tab.locator("b").count() == 0
    assert tab.locator("#cards li").nth(1).locator(".read mark").all_inner_texts() == ["N"]
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")  # nothing to scroll sideways

    tab.keyboard.press("/")
    tab.keyboard.type("leo")
    assert shown() == ["two.png"]
    tab.keyboard.press("Escape")
    assert len(shown()) == 5
    tab.locator("#most").fill("0.7")
    assert shown() == ["bad.png", "two.png", EVIL]
    tab.locator("#only-wrong").check()
    assert shown() == ["two.png", EVIL]
    tab.keyboard.press("j")
    tab.keyboard.press("j")
    assert "MARC" in tab.locator(":focus").inner_text()
    tab.context.close()
    assert errors == []
    assert set(requests) <= {"file", "data"}


@pytest.fixture
def tab(page, browser):
    """The page in a browser that keeps its store, and a way to load it again."""
    tab = browser.new_context(accept_downloads=True).new_page()
    tab.goto(page.as_uri())
    yield tab
    tab.context.close()


def saved(tab, tmp_path, press) -> str:
    with tab.expect_download() as download:
        press()
    assert download.value.suggested_filename == "labels.csv"
    download.value.save_as(tmp_path / "labels.csv")
    return (tmp_path / "labels.csv").read_text(encoding="utf-8")


def progress(tab) -> str:
    return tab.locator("#progress").inner_text()


def test_readings_are_confirmed_and_corrected_by_keyboard(tab, tmp_path):
    """The least sure first: corrected, taken back, confirmed, marked; then saved as a table that training takes."""
    assert progress(tab) == "0 confirmed, 0 corrected, 4 left"
    keys = tab.keyboard
    keys.press("j")
    keys.press("j")
    keys.press("Enter")  # from the card into its field
    keys.press("Control+A")
    keys.type('=É, "ש"')
    keys.press("Enter")
    assert progress(tab) == "0 confirmed, 1 corrected, 3 left"
    assert tab.locator(":focus").input_value() == "</script><b>"  # the next one
    keys.press("F8")
    keys.press("Enter")  # ZOE is right
    assert progress(tab) == "1 confirmed, 2 corrected, 1 left"
    keys.press("F9")
    assert progress(tab) == "1 confirmed, 3 corrected, 0 left"
    tab.locator("input.text").last.focus()
    keys.press("Escape")
    assert tab.locator("input.text").last.input_value() == "LEA"
    assert progress(tab) == "1 confirmed, 2 corrected, 1 left"
    text = saved(tab, tmp_path, lambda: keys.press("Control+S"))
    quoted = EVIL.replace('"', '""')
    assert text.splitlines() == ["FILENAME,IDENTITY", 'two.png,"=É, ""ש"""', f'"{quoted}",EMPTY', "four.png,ZOE"]
    labels = read_labels(tmp_path / "labels.csv").labels()
    assert labels == [("two.png", '=É, "ש"'), (EVIL, "EMPTY"), ("four.png", "ZOE")]


def test_what_was_decided_survives_a_reload_and_leaving_warns(tab, tmp_path):
    dialogs = []
    tab.on("dialog", lambda dialog: (dialogs.append(dialog.type), dialog.accept()))
    tab.locator("input.text").first.fill("LEO")
    tab.keyboard.press("Enter")
    tab.reload()
    assert dialogs == ["beforeunload"]
    assert progress(tab) == "0 confirmed, 1 corrected, 3 left"
    assert tab.locator("input.text").first.input_value() == "LEO"
    assert "two.png,LEO" in saved(tab, tmp_path, lambda: tab.locator("#save").click())
    tab.reload()
    assert dialogs == ["beforeunload"]  # nothing is unsaved
    assert progress(tab) == "0 confirmed, 1 corrected, 3 left"


def test_the_loop_of_reading_correcting_and_training(tmp_path, script, browser):
    """In small, with letters that the shipped weights do not know: a page, corrections, a new run, another page."""
    words = ["řeka", "maçon", "forêt", "naïf", "où", "noël"]
    scans = tmp_path / "scans"
    scans.mkdir()
    for n, word in enumerate(words):
        draw(word).save(scans / f"{n}.png")
    script(tmp_path, "predict.py", "scans", "--html", "--device", "cpu")
    tab = browser.new_context(accept_downloads=True).new_page()
    tab.goto((tmp_path / "output" / "report.html").as_uri())
    for n in range(3):
        card = tab.locator("#cards li", has_text=f"{n}.png")
        card.locator("input.text").fill(words[n])
        tab.keyboard.press("Enter")
    assert progress(tab) == "0 confirmed, 3 corrected, 3 left"
    saved(tab, scans, lambda: tab.locator("#save").click())
    tab.context.close()
    done = script(
        tmp_path, "train.py", "--pretrained", "--data-dir", "scans", "--no-uppercase", "--epochs", 2, "--device", "cpu"
    )
    assert "data: scans/labels.csv (columns FILENAME and IDENTITY), 3 rows, of which a tenth validates" in done.stdout
    assert "train: 3 rows = 2 used + 1 kept for validation" in done.stdout
    assert "begun from" in done.stdout
    script(tmp_path, "predict.py", "scans", "--html", "--device", "cpu")
    page = (tmp_path / "output" / "report.html").read_text(encoding="utf-8")
    known = json.loads(re.search(r'id="known">(.*?)</script>', page)[1])
    assert known["rows"] == [[f"{n}.png", words[n]] for n in range(3)]
    assert known["of"] == {f"{n}.png": [n] for n in range(3)}
    done = script(tmp_path, "predict.py", "scans", "--labels", "scans", "--device", "cpu")
    assert "of 3 labelled images" in done.stdout
