"""The page of corrections in a browser: what is shown is what is saved, and all that was known is saved."""

import csv
import io
import os
import random
import time
from pathlib import Path

import pytest
from conftest import drawing

from htr.results.known import known_labels
from htr.results.report import LeastSure, write_report
from htr.texts.labels import LabelRules
from htr.texts.sources import find_source

RULES = LabelRules(False, ("EMPTY", "UNREADABLE"))
LONG_AGO = 1_000_000_000  # seconds since 1970


class Page:
    """A folder of pictures with readings, its page, and a browser that keeps its store."""

    def __init__(self, browser, folder: Path, count: int = 3):
        self.folder, self.scans = folder, folder / "scans"
        self.scans.mkdir()
        self.names = [f"{n:03}.png" for n in range(count)]
        self.readings = {name: f"reading {name[:3]}" for name in self.names}
        for name in self.names:
            drawing().save(self.scans / name)
        self.context = browser.new_context(accept_downloads=True)
        self.tab = self.context.new_page()
        self.dialogs = []
        self.tab.on("dialog", lambda dialog: (self.dialogs.append(dialog.type), dialog.accept()))

    def write(self, labels=None, names=None) -> "Page":
        """What predict.py --html does."""
        kept = LeastSure()
        files = [(name, self.scans / name) for name in names or self.names]
        for n, (name, path) in enumerate(files):
            row = {"FILENAME": name, "PREDICTION": self.readings[name], "CONFIDENCE": n / 1000, "ERROR": ""}
            row |= {"RUNNER_UP": f"second {name[:3]}", "RUNNER_UP_CONFIDENCE": 0.25}
            kept.add(row, path)
        self.known = known_labels(files, [self.scans], RULES, labels)
        write_report(self.folder / "report.html", kept, [], None, lambda: None, self.known)
        return self

    def reload(self) -> None:
        self.tab.wait_for_timeout(200)  # a browser hands its store to another process a moment later
        self.tab.reload()

    def open(self) -> "Page":
        self.tab.wait_for_timeout(200)
        self.tab.goto((self.folder / "report.html").as_uri())
        return self

    def field(self, n: int, tab=None):
        return (tab or self.tab).locator("#cards li", has_text=self.names[n]).locator("input.text")

    def shown(self, n: int) -> str:
        return self.field(n).input_value().strip()

    def state(self, n: int) -> str:
        return self.tab.locator("#cards li", has_text=self.names[n]).locator(".state").text_content()

    def save(self, tab=None) -> list[list[str]]:
        tab = tab or self.tab
        with tab.expect_download() as download:
            tab.locator("#save").click()
        self.saved = self.folder / download.value.suggested_filename
        download.value.save_as(self.saved)
        text = self.saved.read_text(encoding="utf-8")
        separator = "\t" if self.known.table.separator == "\t" else self.known.table.separator
        return list(csv.reader(io.StringIO(text), delimiter=separator))

    def put(self) -> None:
        """Move what was saved to where the page says."""
        os.replace(self.saved, self.known.folder / self.known.name)


@pytest.fixture
def page(browser, tmp_path):
    page = Page(browser, tmp_path)
    yield page
    page.context.close()


HEAD = ["FILENAME", "IDENTITY"]
# What a person does on a page of three readings without labels; then what the first card shows, and what is saved.
ACTIONS = {
    "nothing": (lambda p: None, "reading 000", []),
    "looks at it and leaves": (lambda p: (p.field(0).focus(), p.tab.keyboard.press("Tab")), "reading 000", []),
    "types and presses Enter": (lambda p: (p.field(0).fill("A"), p.tab.keyboard.press("Enter")), "A", [["000.png", "A"]]),
    "types and presses Tab": (lambda p: (p.field(0).fill("A"), p.tab.keyboard.press("Tab")), "A", [["000.png", "A"]]),
    "types and clicks elsewhere": (lambda p: (p.field(0).fill("A"), p.tab.locator("h1").click()), "A", [["000.png", "A"]]),
    "types and saves": (lambda p: p.field(0).fill(" A, \"B\" "), 'A, "B"', [["000.png", 'A, "B"']]),
    "types and reloads": (lambda p: (p.field(0).fill("A"), p.reload()), "A", [["000.png", "A"]]),
    "types and takes it back by hand": (lambda p: (p.field(0).focus(), p.tab.keyboard.type("x"), p.field(0).fill("reading 000")), "reading 000", []),
    "confirms": (lambda p: (p.field(0).focus(), p.tab.keyboard.press("Enter")), "reading 000", [["000.png", "reading 000"]]),
    "confirms and takes back": (lambda p: (p.field(0).focus(), p.tab.keyboard.press("Enter"), p.field(0).focus(), p.tab.keyboard.press("Escape")), "reading 000", []),
    "types and takes back": (lambda p: (p.field(0).fill("A"), p.tab.keyboard.press("Escape")), "reading 000", []),
    "F8": (lambda p: (p.field(0).focus(), p.tab.keyboard.press("F8")), "EMPTY", [["000.png", "EMPTY"]]),
    "F9": (lambda p: (p.field(0).focus(), p.tab.keyboard.press("F9")), "UNREADABLE", [["000.png", "UNREADABLE"]]),
    "the button": (lambda p: (p.field(0).focus(), p.tab.get_by_role("button", name="empty").first.click()), "EMPTY", [["000.png", "EMPTY"]]),
    "second choice": (lambda p: (p.field(0).focus(), p.tab.keyboard.press("ArrowDown")), "second 000", [["000.png", "second 000"]]),
    "second choice and back": (lambda p: (p.field(0).focus(), p.tab.keyboard.press("ArrowDown"), p.tab.keyboard.press("ArrowDown")), "reading 000", []),
    "empties the field": (lambda p: (p.field(0).fill(""), p.tab.keyboard.press("Tab")), "", []),
    "empties the field and takes back": (lambda p: (p.field(0).fill(""), p.tab.keyboard.press("Escape")), "reading 000", []),
    "saves, then takes back": (lambda p: (p.field(0).fill("A"), p.save(), p.field(0).focus(), p.tab.keyboard.press("Escape")), "reading 000", []),
    "two cards": (lambda p: (p.field(0).fill("A"), p.field(2).fill("C")), "A", [["000.png", "A"], ["002.png", "C"]]),
}  # fmt: skip


@pytest.mark.parametrize("action", ACTIONS)
def test_what_is_shown_is_what_is_saved(page, action):
    do, shown, saved = ACTIONS[action]
    page.write().open()
    do(page)
    for _ in range(2):
        assert page.shown(0) == shown
        assert page.save() == [HEAD, *saved]
        page.reload()  # and again from the browser's store
    assert page.dialogs == (["beforeunload"] if "reloads" in action else [])


def test_what_is_not_saved_warns(page):
    page.write().open().field(0).fill("A")
    assert page.tab.locator("#unsaved").inner_text() == "not all saved"
    page.reload()
    assert page.dialogs == ["beforeunload"]
    page.save()
    assert page.tab.locator("#unsaved").inner_text() == ""
    page.reload()
    assert page.dialogs == ["beforeunload"]
    page.field(0).focus()
    page.tab.keyboard.press("Escape")  # what was saved is taken back
    assert page.tab.locator("#unsaved").inner_text() == "not all saved"
    page.reload()
    assert page.dialogs == ["beforeunload"] * 2
    assert page.shown(0) == "reading 000"


GIVEN = {
    # What labels the pictures already; what is saved after the second one is corrected to "B"
    "labels.csv": ("labels.csv", "FILENAME,IDENTITY\n002.png,z\n001.png,y\n", [HEAD, ["002.png", "z"], ["001.png", "B"]]),
    "other columns and rows": ("labels.csv", 'writer,Text,File\n3,"x, y",else.png\n4,y,001.png\n5,,\n',
        [["writer", "Text", "File"], ["3", "x, y", "else.png"], ["4", "B", "001.png"], ["5", "", ""]]),
    "another name": ("mine.csv", "image;text;note\n001;y;n\n", [["image", "text", "note"], ["001", "B", "n"]]),
    "no header": ("data.csv", "001.png,y\nelse.png,u\n", [["001.png", "B"], ["else.png", "u"]]),
    "tabs": ("gt.txt", '001.png\ty\nelse.png\t"u"\n', [["001.png", "B"], ["else.png", '"u"']]),
    "JSON": ("metadata.jsonl", '{"file_name": "001.png", "text": "y", "n": 1}\n', [["file_name", "text", "n"], ["001.png", "B", "1"]]),
    "pairs": ("001.gt.txt", "y\n", [HEAD, ["001.png", "B"]]),
    "a second download": ("labels (1).csv", "FILENAME,IDENTITY\n001.png,y\n", [HEAD, ["001.png", "B"]]),
    "the same picture twice": ("labels.csv", "FILENAME,IDENTITY\n001.png,\n001.png,y\n001.png,w\n",
        [HEAD, ["001.png", ""], ["001.png", "B"], ["001.png", "w"]]),
}  # fmt: skip


@pytest.mark.parametrize("by", ["folder", "labels"])
@pytest.mark.parametrize("shape", GIVEN)
def test_what_was_known_is_saved_with_what_is_decided(page, shape, by):
    name, content, saved = GIVEN[shape]
    (page.scans / name).write_text(content, encoding="utf-8")
    os.utime(page.scans / name, (LONG_AGO, LONG_AGO))
    labels = None if by == "folder" else page.scans if shape == "pairs" else page.scans / name
    page.write(labels).open()
    assert not page.field(1).is_visible()  # it is not asked for again
    page.tab.locator("#only-open").uncheck()
    assert (page.shown(1), page.state(1)) == ("y", "labelled before")
    page.field(1).focus()
    page.tab.keyboard.press("Escape")  # nothing to take back
    assert page.shown(1) == "y"
    page.field(1).fill("B")
    assert page.state(1) == "corrected, Esc takes back"
    if shape == "tabs":  # in which quotes are part of the text
        page.save()
        assert [line.split("\t") for line in page.saved.read_text(encoding="utf-8").splitlines()] == saved
    else:
        assert page.save() == saved
    assert page.known.name == (name if name.endswith((".csv", "gt.txt")) and shape != "pairs" else "labels.csv")
    if shape not in ("JSON", "pairs"):  # where another file is there still
        page.put()
        page.write(labels).open()
        assert page.tab.locator("#progress").inner_text().startswith("0 confirmed, 0 corrected")
        page.tab.locator("#only-open").uncheck()
        assert (page.shown(1), page.state(1)) == ("B", "labelled before")


def test_a_label_is_removed(page):
    (page.scans / "labels.csv").write_text("FILENAME,IDENTITY,writer\n000.png,x,1\n001.png,y,2\n", encoding="utf-8")
    os.utime(page.scans / "labels.csv", (LONG_AGO, LONG_AGO))
    page.write().open().tab.locator("#only-open").uncheck()
    page.field(0).focus()
    page.tab.locator("li:focus-within").get_by_role("button", name="no label").click()
    page.field(1).fill("")
    assert page.state(0) == page.state(1) == "no label, Esc takes back"
    page.field(1).focus()
    page.tab.keyboard.press("Escape")
    assert page.shown(1) == "y"
    assert page.save() == [[*HEAD, "writer"], ["000.png", "", "1"], ["001.png", "y", "2"]]
    page.put()
    page.write().open()
    assert page.shown(0) == "reading 000"  # it is asked for again
    assert page.field(0).is_visible()


def test_pictures_named_one_by_one_have_the_labels_of_their_folder(tmp_path, script):
    scans = tmp_path / "s"
    scans.mkdir()
    for n in range(3):
        drawing().save(scans / f"{n}.png")
    (scans / "labels.csv").write_text("FILENAME,IDENTITY\n1.png,y\n", encoding="utf-8")
    script(tmp_path, "predict.py", "s/0.png", "s/1.png", "--html", "--device", "cpu")
    text = (tmp_path / "output" / "report.html").read_text(encoding="utf-8")
    assert '"rows": [["1.png", "y"]]' in text
    assert '"of": {"s/1.png": [0]}' in text
    assert '"place": "in the place of s/labels.csv"' in text
    assert '"row": "0.png"' in text  # as the folder's table calls it


def test_a_correction_by_hand_is_not_turned_back(page):
    page.write().open().field(0).fill("A")
    page.field(1).fill("B")
    page.save()
    page.put()
    table = page.scans / "labels.csv"
    table.write_text("FILENAME,IDENTITY\n000.png,by hand\n001.png,B\n", encoding="utf-8")
    os.utime(table, (time.time() + 2, time.time() + 2))
    page.write().open()
    assert page.shown(0) == "by hand"
    assert page.field(0).is_visible()  # as both are shown
    assert not page.field(1).is_visible()
    offer = page.tab.locator(".offer:visible")
    assert "decided here before labels.csv was changed: A" in offer.inner_text()
    assert page.save() == [HEAD, ["000.png", "by hand"], ["001.png", "B"]]
    offer.click()
    assert page.shown(0) == "A"
    assert page.save() == [HEAD, ["000.png", "A"], ["001.png", "B"]]


def test_a_later_decision_counts_more_than_an_older_table(page):
    page.write().open().field(0).fill("A")
    (page.scans / "labels.csv").write_text("FILENAME,IDENTITY\n000.png,old\n", encoding="utf-8")
    os.utime(page.scans / "labels.csv", (LONG_AGO, LONG_AGO))
    page.write().open()
    assert page.shown(0) == "A"
    assert page.save() == [HEAD, ["000.png", "A"]]


def test_two_tabs_lose_nothing(page):
    page.write().open()
    other = page.context.new_page()
    other.goto((page.folder / "report.html").as_uri())
    page.field(0).fill("A")
    other.wait_for_function("document.querySelectorAll('input.text')[0].value === 'A'")
    page.field(1, other).fill("B")
    rows = [["000.png", "A"], ["001.png", "B"]]
    assert page.save(other) == [HEAD, *rows]
    page.tab.wait_for_function("document.getElementById('unsaved').textContent === ''")
    assert page.save() == [HEAD, *rows]
    page.field(0).focus()
    page.tab.keyboard.press("Escape")
    other.wait_for_function("document.querySelectorAll('input.text')[0].value === 'reading 000'")
    assert page.save(other) == [HEAD, rows[1]]


def test_what_was_decided_survives_another_reading(page):
    """Not saved, the page written anew with other readings and fewer pictures."""
    page.write().open().field(0).fill("A")
    page.readings["000.png"] = "better"
    page.write(names=page.names[:2]).open()
    assert page.shown(0) == "A"
    assert page.save() == [HEAD, ["000.png", "A"]]


def test_a_newer_text_beside_a_picture_counts(page):
    (page.scans / "labels.csv").write_text("FILENAME,IDENTITY\n000.png,a\n001.png,b\n", encoding="utf-8")
    os.utime(page.scans / "labels.csv", (LONG_AGO, LONG_AGO))
    for n, text in enumerate("xbz"):
        (page.scans / f"00{n}.gt.txt").write_text(text, encoding="utf-8")
    os.utime(page.scans / "001.gt.txt", (LONG_AGO - 1, LONG_AGO - 1))
    known = page.write().known
    assert known.table.rows == [["000.png", "x"], ["001.png", "b"], ["002.png", "z"]]
    assert len(known.notes) == 1 and "000.gt.txt is newer than the table" in known.notes[0]


def test_tables_of_two_sets_stay_two_sets(page):
    for name, n in (("train", 0), ("val", 1)):
        (page.scans / f"{name}.csv").write_text(f"image,text\n00{n}.png,{name}\n", encoding="utf-8")
        os.utime(page.scans / f"{name}.csv", (LONG_AGO + n, LONG_AGO + n))
    page.write().open().field(2).fill("C")
    rows = [["000.png", "train", "train"], ["001.png", "val", "validation"], ["002.png", "C", ""]]
    assert page.save() == [[*HEAD, "split"], *rows]
    for name in ("train", "val"):
        (page.scans / f"{name}.csv").unlink()  # as the page says
    page.put()
    assert [len(find_source(page.scans, split).rows) for split in ("train", "validation")] == [2, 1]


def test_tables_of_several_folders_are_joined(tmp_path):
    files = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for n in range(2):
            drawing().save(tmp_path / folder / f"{n}.png")
            files.append((f"{folder}/{n}.png", tmp_path / folder / f"{n}.png"))
        (tmp_path / folder / "labels.csv").write_text(
            f"image,text,writer\n0.png,{folder},{folder}1\n", encoding="utf-8"
        )
    known = known_labels(files, [tmp_path], RULES)
    assert known.folder == tmp_path
    assert known.table.columns == [*HEAD, "writer"]
    assert known.table.rows == [["a/0.png", "a", "a1"], ["b/0.png", "b", "b1"]]
    assert known.rows_of == {"a/0.png": [0], "b/0.png": [1]}


def test_a_long_session(page, browser, tmp_path):
    """100 pictures, 400 actions drawn with a seed: after each save the file holds what a model of the page says."""
    (tmp_path / "more").mkdir()
    page = Page(browser, tmp_path / "more", 100)
    table = (
        [[*HEAD, "writer"]] + [[name, f"label {name[:3]}", "w"] for name in page.names[::3]] + [["else.png", "e", "w"]]
    )
    (page.scans / "labels.csv").write_text("".join(",".join(row) + "\n" for row in table), encoding="utf-8")
    os.utime(page.scans / "labels.csv", (LONG_AGO, LONG_AGO))
    page.write().open()
    page.tab.locator("#only-open").uncheck()
    before = {row[0]: row[1] for row in table[1:]}
    decided: dict[str, str] = {}  # the model: texts, "" for no label
    rng, keys, saves = random.Random(7), page.tab.keyboard, 0

    def expected() -> list[list[str]]:
        rows = [[row[0], decided.get(row[0], row[1]), row[2]] for row in table[1:]]
        new = [name for name in page.names if name not in before and decided.get(name)]
        return [table[0], *rows, *([name, decided[name], ""] for name in new)]

    for step in range(400):
        n = rng.randrange(100)
        name, field = page.names[n], page.field(n)
        shown = decided.get(name, before.get(name, page.readings[name]))
        action = rng.choice(
            ["type", "type and leave", "enter", "escape", "F8", "F9", "down", "clear", "reload", "save"]
        )
        if action not in ("reload", "save"):
            field.focus()
            assert field.input_value() == shown, (step, action, name)
        if action.startswith("type"):
            field.fill(f"typed {step}")
            decided[name] = f"typed {step}"
            if action == "type and leave":
                rng.choice([lambda: keys.press("Tab"), lambda: page.tab.locator("h1").click()])()
        elif action == "enter":
            keys.press("Enter")
            decided[name] = shown
        elif action == "escape":
            keys.press("Escape")
            decided.pop(name, None)
        elif action in ("F8", "F9"):
            keys.press(action)
            decided[name] = {"F8": "EMPTY", "F9": "UNREADABLE"}[action]
        elif action == "down":
            keys.press("ArrowDown")
            second = f"second {name[:3]}"
            decided[name] = page.readings[name] if shown == second else second
        elif action == "clear" and shown:
            field.fill("")
            decided[name] = ""
        elif action == "reload" and rng.random() < 0.5:
            page.reload()
            page.tab.locator("#only-open").uncheck()
        elif action == "save" and rng.random() < 0.5:
            assert sorted(page.save()) == sorted(expected()), step
            saves += 1
    assert saves > 5
    found = page.save()
    assert found[: len(table)] == expected()[: len(table)]  # in the old order
    assert sorted(found) == sorted(expected())
    page.context.close()


def test_a_full_store_loses_nothing(page):
    """Once the browser takes no more, what it holds is older than what the page shows: it is not read back."""
    page.write().open()
    page.field(0).fill("first")
    page.tab.evaluate(
        """() => {
            let size = 1 << 22;
            for (let n = 0; size; n += 1) try { localStorage.setItem("other" + n, "x".repeat(size)); } catch { size >>= 1; }
        }"""
    )
    page.field(1).fill("second")
    page.field(2).fill("third")
    assert page.tab.locator("#no-store").is_visible()
    assert [page.shown(n) for n in range(3)] == ["first", "second", "third"]
    assert [row[1] for row in page.save()[1:]] == ["first", "second", "third"]
