import base64
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import compared, drawing
from PIL import Image, ImageChops, ImageOps

from htr.report import LeastSure, charts, segments, thumbnail, write_report
from htr.scores import Comparison

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


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
    Image.new("RGB", (900, 300), "red").save(tmp_path / "big.png")
    head, data = thumbnail(tmp_path / "big.png").split(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.height <= 48
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
        path = tmp_path / f"{text[:1].strip('<')}x.png"
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


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_page_in_a_browser(page):
    sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
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
        assert tab.locator("#cards li").nth(1).locator(".text mark").all_inner_texts() == ["N"]
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
        browser.close()
    assert errors == []
    assert set(requests) <= {"file", "data"}
