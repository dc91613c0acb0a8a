"""Pages that were read, as text and PAGE XML: what was read, and all that was there before."""

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from pages import DIALECTS, LINES, REGIONS, SIZE, TEXTS, alto, draw_page, page, words, write_page

from htr.results.transcripts import NAMESPACE, POINTS, names_below, pages_to_read, points_text
from htr.results.transcripts import write_page as write
from htr.texts.page_xml import read_pages
from htr.texts.pages import pages_beside

READINGS = ["Première lïgne", "a & b < c", "fin d\x07e", ""]


def to_read(folder: Path, output: Path | None = None):
    files = [(path.name, path) for path in sorted(folder.iterdir()) if path.suffix not in (".xml", ".txt")]
    return pages_to_read(files, pages_beside([path for _, path in files], []), output)


def written(folder: Path, output: Path, texts=READINGS, errors=("", "", "", "")):
    """The page of a folder, written as read with these texts."""
    (read,) = to_read(folder, output)
    rows = [
        {"FILENAME": line.name, "PREDICTION": text, "CONFIDENCE": 0.25, "ERROR": error}
        for line, text, error in zip(read.lines, texts, errors, strict=True)
    ]
    write(read, rows, output)
    return output / "pages" / f"{read.name}.xml"


def texts_of(line) -> list[str]:
    return [each.findtext(f"{{{NAMESPACE}}}Unicode") for each in line.findall(f"{{{NAMESPACE}}}TextEquiv")]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_is_written_says_what_was_read(tmp_path, dialect):
    """Of any dialect: the same regions and lines at the same places, in reading order, with the readings."""
    folder = write_page(tmp_path / "in", xml=DIALECTS[dialect][0])
    path = written(folder, tmp_path / "out")
    (found,) = read_pages(path)
    assert found.format == "PAGE 2019"
    assert found.size == SIZE
    assert [line.id for line in found.lines] == [line[1] for line in LINES]
    assert [line.text for line in found.lines] == ["Première lïgne", "a & b < c", "fin d\ufffde", ""]
    assert [line.confidence for line in found.lines][:3] == [0.25] * 3
    for line, (region, _, baseline, outline, _) in zip(found.lines, LINES, strict=True):
        assert np.abs(line.baseline - baseline).max() <= 0.5
        assert np.abs(line.outline - outline).max() <= 0.5
        assert found.regions[line.region].id == region
        assert np.abs(found.regions[line.region].outline - REGIONS[region]).max() <= 0.5
    assert path.with_suffix(".txt").read_text(encoding="utf-8").splitlines()[:2] == ["Première lïgne", "a & b < c"]
    root = ET.parse(path).getroot()
    for line in root.iter(f"{{{NAMESPACE}}}TextLine"):
        assert len(texts_of(line)) == 1  # as programs differ in which of several they take
    for element in root.iter():
        assert POINTS.fullmatch(element.get("points", "0,0 0,0"))
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))


def test_what_a_file_held_stays(tmp_path):
    seal = '<pc:ImageRegion id="seal"><pc:Coords points="1,1 9,1 9,9"/></pc:ImageRegion>'
    held = page(prefix="pc").replace("</pc:Page>", f"{seal}</pc:Page>")
    held = held.replace("</pc:Metadata>", "<pc:Comments>by hand</pc:Comments></pc:Metadata>")
    path = written(write_page(tmp_path / "in", xml=held), tmp_path / "out", errors=("", "cannot be read", "", ""))
    root = ET.parse(path).getroot()
    assert root.findtext(f".//{{{NAMESPACE}}}Comments") == "by hand"
    assert root.find(f".//{{{NAMESPACE}}}ImageRegion").get("id") == "seal"
    first, second, third, _ = root.iter(f"{{{NAMESPACE}}}TextLine")
    equivs = [line.find(f"{{{NAMESPACE}}}TextEquiv") for line in (first, second, third)]
    assert equivs[0].get("comments") == "was: Première ligne"
    assert (texts_of(second), equivs[1].get("conf")) == ([TEXTS[1]], None)  # what could not be read
    assert equivs[2].get("comments") == "was: fin de la phrase"


def test_words_and_pictures_of_an_alto_file_stay(tmp_path):
    other = '<Illustration ID="seal" HPOS="1" VPOS="1" WIDTH="8" HEIGHT="8"/></PrintSpace>'
    xml = alto(line=words).replace("</PrintSpace>", other)
    root = ET.parse(written(write_page(tmp_path / "in", xml=xml), tmp_path / "out")).getroot()
    assert root.find(f".//{{{NAMESPACE}}}ImageRegion").get("id") == "seal"
    kept = [word.findtext(f".//{{{NAMESPACE}}}Unicode") for word in root.iter(f"{{{NAMESPACE}}}Word")]
    assert kept == " ".join(TEXTS[:3]).split(" ")


def test_ids_that_xml_does_not_allow(tmp_path):
    xml = alto().replace('ID="l1"', 'ID="1 é"').replace('ID="l2"', 'ID=""').replace('ID="main"', 'ID="l3"')
    root = ET.parse(written(write_page(tmp_path / "in", xml=xml), tmp_path / "out")).getroot()
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids)) == 7  # the order, two regions, four lines
    assert all(name.isascii() and (name[0].isalpha() or name[0] == "_") for name in ids)


def test_a_file_of_a_picture_of_another_size_keeps_its_own_measures(tmp_path):
    for xml, size in ((page(), SIZE), (alto(), (1280, 800))):
        folder = write_page(tmp_path / f"{size[0]}", xml=xml)
        draw_page().resize((1280, 800)).save(folder / "page.png")
        (found,) = read_pages(written(folder, tmp_path / f"{size[0]}-out"))
        assert found.size == size  # a PAGE file stays as it is; ALTO becomes a file of the picture that there is
        assert found.lines[1].baseline[0].tolist() == [160 * size[0] / 640, 140 * size[0] / 640]


def test_names_of_lines_are_their_places(tmp_path):
    folder = write_page(tmp_path / "in")
    (read,) = to_read(folder, tmp_path / "out")
    names = [line.name for line in read.lines]
    assert names == ["page/0080-0160.png", "page/0140-0160.png", "page/0205-0160.png", "page/0082-0020.png"]
    (folder / "page.xml").write_text(alto(LINES[3:] + LINES[1:3]))  # a line less, in another order
    (read,) = to_read(folder, tmp_path / "out")
    assert [line.name for line in read.lines] == [names[3], names[1], names[2]]
    (folder / "page.xml").write_text(alto([LINES[0], ("main", "again", *LINES[0][2:])]))
    (read,) = to_read(folder, tmp_path / "out")
    assert [line.name for line in read.lines] == [names[0], "page/0080-0160-2.png"]


def test_pages_without_lines_or_without_a_file(tmp_path):
    folder = write_page(tmp_path / "in")
    for name in ("other.png", "page.jpg", "torn.png"):
        draw_page().save(folder / name)
    (folder / "torn.png").write_bytes(b"x")
    (folder / "blank.png").write_bytes((folder / "other.png").read_bytes())
    (folder / "blank.xml").write_text(alto([], picture="blank.png"))
    (folder / "page.xml").write_text(alto(picture="page.png"))
    pages = {page.shown_as: page for page in to_read(folder)}
    assert {name: page.name for name, page in pages.items()} == {
        "blank.png": "blank", "other.png": "other", "page.jpg": "page.jpg", "page.png": "page.png", "torn.png": "torn",
    }  # fmt: skip
    assert [pages[name].error for name in ("blank.png", "page.png")] == ["", ""]
    assert (len(pages["blank.png"].lines), len(pages["page.png"].lines)) == (0, 4)
    assert pages["other.png"].error == "" and pages["other.png"].page is None  # its lines are to be found
    assert pages["torn.png"].error.startswith("cannot be read")


def test_points():
    assert points_text(np.array([[-3.2, 4.6], [10, 20.4]])) == "0,5 10,20"
    assert points_text(np.array([[1, 2]])) == "1,2 1,2"


@pytest.mark.parametrize(
    ("names", "below"),
    [
        (["a.png", "b/a.png"], ["a.png", "b/a.png"]),
        (["/x/y/a.png"], ["a.png"]),
        (["../a.png"], ["a.png"]),
        (["/x/y/a.png", "/x/z/a.png"], ["y/a.png", "z/a.png"]),
        (["/x/y/a.png", "/x/y/b/a.png"], ["a.png", "b/a.png"]),
        (["a.png", "/x/a.png"], ["a.png", "x/a.png"]),
        (["b/../../a.png", "b/a.png"], ["a.png", "b/a.png"]),
    ],
)
def test_pages_from_anywhere_are_put_below_a_folder(names, below):
    assert names_below(names) == below
