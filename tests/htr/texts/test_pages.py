"""Which picture each ALTO or PAGE file is of, and which lines of pages train."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from pages import LINES, SIZE, TEXTS, alto, draw_page, hostile, page, write_page
from PIL import Image

from htr.pictures.images import Geometry, ImageError, read_images
from htr.system.scripts import HTRError
from htr.texts.pages import PageRules, document_of, find_pages, lines_of, pages_beside, picture_of
from htr.texts.sources import find_source, whole_source

GEOMETRY = Geometry(64, 1.2, 2048)


def make(folder: Path, files: dict[str, str | None]) -> None:
    """Files with these texts; a picture where there is none."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            draw_page().save(path)
        else:
            path.write_text(text, encoding="utf-8")


def found_in(folder: Path):
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return find_pages(
        [path for path in files if path.suffix == ".xml"], [path for path in files if path.suffix != ".xml"]
    )


def matched(folder: Path) -> dict[str, str]:
    return {
        os.path.relpath(each.page.path, folder): os.path.relpath(each.picture, folder)
        for each in found_in(folder).described
    }


@pytest.mark.parametrize(
    ("files", "fit"),
    [
        ({"a.png": None, "a.xml": alto(picture="a.png")}, {"a.xml": "a.png"}),  # eScriptorium, kraken
        ({"jpg/a.jpg": None, "alto/a.xml": alto(picture="a.jpg")}, {"alto/a.xml": "jpg/a.jpg"}),  # a sister folder
        ({"a.png": None, "page/a.xml": page(picture="a.png")}, {"page/a.xml": "a.png"}),  # Transkribus
        ({"a.png": None, "a.xml": page(picture="other.tif")}, {"a.xml": "a.png"}),  # by its own name
        ({"a.png": None, "a.xml": page(picture="")}, {"a.xml": "a.png"}),
        ({"a.png": None, "a.png.xml": page(picture="")}, {"a.png.xml": "a.png"}),
        ({"a.jpg": None, "x.xml": alto(picture="a.tif")}, {"x.xml": "a.jpg"}),  # the scan was converted
        ({"a.png": None, "x.xml": alto(picture="A.PNG")}, {"x.xml": "a.png"}),
        ({"\u00e9.png": None, "x.xml": alto(picture="e\u0301.png")}, {"x.xml": "\u00e9.png"}),
        ({"a.png": None, "x.xml": alto(picture="C:\\scans\\a.png")}, {"x.xml": "a.png"}),
        ({"a.png": None, "x.xml": alto(picture="https://there/iiif/a.png?full=1")}, {"x.xml": "a.png"}),
        ({"IMG/a.png": None, "PAGE/p.xml": page(picture="IMG/a.png")}, {"PAGE/p.xml": "IMG/a.png"}),  # OCR-D
        (  # the nearest one
            {"1/a.png": None, "2/a.png": None, "1/a.xml": alto(picture="a.png"), "2/a.xml": alto(picture="a.png")},
            {"1/a.xml": "1/a.png", "2/a.xml": "2/a.png"},
        ),
        (  # the folder that it names
            {"x/a.png": None, "y/a.png": None, "z/a.xml": page(picture="y/a.png")},
            {"z/a.xml": "y/a.png"},
        ),
        (  # all are called alike
            {"a.png": None, "b.png": None, "a.xml": alto(picture="a.png"), "b.xml": alto(picture="a.png").replace("ligne", "")},
            {"a.xml": "a.png", "b.xml": "b.png"},
        ),
        ({"a.png": None, "a.xml": alto(picture="a.png"), "METS.xml": "<mets/>", "b.xml": "<x/>"}, {"a.xml": "a.png"}),
    ],
)  # fmt: skip
def test_the_picture_of_a_file(tmp_path, files, fit):
    make(tmp_path, files)
    assert matched(tmp_path) == fit


def test_files_without_a_picture_are_named_with_their_lines(tmp_path):
    make(tmp_path, {"b.png": None, "a.xml": alto(picture="a.png"), "b.xml": alto(picture="b.png")})
    make(tmp_path, {"c.png": None, "c.xml": "<alto>", "d.xml": "<alto>"})
    found = found_in(tmp_path)
    assert [each.page.path.name for each in found.described] == ["b.xml"]
    assert [(path.name, lines) for path, _, lines in found.lost] == [("a.xml", 4), ("c.xml", 0)]
    assert found.lost[0][1].endswith("a.xml is of a picture that is not there: a.png, which it names or one called a")
    assert "c.xml cannot be read: it is no XML" in found.lost[1][1]
    rows = lines_of(found, tmp_path, PageRules())
    assert (len(rows.rows), rows.left_out) == (4, {"of a page without its picture": 4})


def test_one_of_several_pictures_is_not_guessed(tmp_path):
    make(tmp_path, {"x/a.png": None, "y/a.png": None, "z/a.xml": page(picture="a.png")})
    found = found_in(tmp_path)
    assert not found.described
    assert f"may be of {tmp_path / 'x/a.png'} or of {tmp_path / 'y/a.png'}: move one of them away" in found.lost[0][1]


def test_a_page_described_twice_counts_once_if_both_say_the_same(tmp_path):
    make(tmp_path, {"a.png": None, "a.xml": alto(picture="a.png"), "page/a.xml": page(picture="a.png")})
    found = found_in(tmp_path)
    assert [each.page.format for each in found.described] == ["PAGE 2019"]
    assert found.again == 1
    empty = page(picture="a.png", text=lambda line: "")  # lines alone: the file with texts counts
    (tmp_path / "page/a.xml").write_text(empty, encoding="utf-8")
    assert [each.page.format for each in found_in(tmp_path).described] == ["ALTO 4"]
    make(tmp_path, {"a (1).xml": alto(picture="a.png").replace("nota", "nota bene")})
    with pytest.raises(
        HTRError, match=r"a \(1\).xml and .*a.xml are of the same picture, a.png, and their texts differ"
    ):
        found_in(tmp_path)


def test_nothing_outside_the_folder_is_read(tmp_path):
    inside, outside = tmp_path / "data", tmp_path / "secret"
    make(outside, {"s.png": None, "s.xml": alto(picture="s.png"), "t.png": None})
    names = ["../secret/s.png", str(outside / "s.png"), f"file://{outside}/s.png", "..\\secret\\s.png"]
    make(inside, {"good.png": None, "good.xml": alto(picture="good.png")})
    make(inside, {f"{n}.xml": alto(picture=name) for n, name in enumerate(names)})
    (inside / "t.png").symlink_to(outside / "t.png")
    (inside / "t.xml").write_text(alto(picture="t.png"))
    (inside / "u.png").write_bytes((inside / "good.png").read_bytes())
    (inside / "u.xml").symlink_to(outside / "s.xml")
    source = whole_source(inside)
    assert {name.split("/")[0] for name, _ in source.rows} == {"good"}
    assert len(source.pages.lost) == 5  # four names, and the linked picture
    assert "links out of the folder, not read: 2; --follow-links reads them" in source.notes
    linked = whole_source(inside, rules=PageRules(follow_links=True))
    assert {name.split("/")[0] for name, _ in linked.rows} == {"good", "t", "u"}


def test_pages_are_found_beside_single_pictures(tmp_path):
    make(
        tmp_path,
        {"jpg/a.jpg": None, "alto/a.xml": alto(picture="a.jpg"), "b.png": None, "page/b.xml": page(picture="b.png")},
    )
    make(tmp_path, {"elsewhere/deeper/c.xml": alto(picture="a.jpg")})  # neither beside nor in a folder beside
    described = pages_beside([tmp_path / "jpg/a.jpg", tmp_path / "b.png"], []).described
    assert [each.page.path for each in described] == [tmp_path / "page/b.xml", tmp_path / "alto/a.xml"]


def test_a_file_beside_a_picture_counts_before_those_of_a_copy(tmp_path):
    make(tmp_path, {"new/a.png": None, "new/a.xml": alto(picture="a.png").replace("nota", "corrected")})
    make(tmp_path, {"old/a.png": None, "old/a.xml": alto(picture="a.png"), "older/a.xml": page(picture="a.png")})
    described = pages_beside([tmp_path / "new/a.png"], [tmp_path / "new"]).described
    assert [each.page.path for each in described] == [tmp_path / "new/a.xml"]


def test_further_pages_of_a_picture(tmp_path):
    make(tmp_path, {"a.xml": alto(picture="a.tif"), "a-2.xml": alto(picture="a.tif")})
    draw_page().save(tmp_path / "a.tif", save_all=True, append_images=[draw_page(seed=1)])
    found = found_in(tmp_path)
    assert [(each.page.path.name, each.number) for each in found.described] == [("a.xml", 0), ("a-2.xml", 1)]
    assert [name for name, _ in lines_of(found, tmp_path, PageRules()).rows][::4] == ["a/l1", "a-2/l1"]
    first, second = (picture_of(each).strips([0])[0] for each in found.described)
    assert not np.array_equal(first, second)


def test_what_trains(tmp_path):
    marked = {"l1": "a >b< c", "l2": "x ⟦y⟧", "l3": "plain", "m1": ""}
    lines = [(*line[:4], marked[line[1]]) for line in LINES]
    xml = alto(lines, tags='<Tags><OtherTag ID="P" LABEL="printed"/></Tags>').replace('ID="l1"', 'ID="l1" TAGREFS="P"')
    write_page(tmp_path, xml=xml)

    def trained(**rules):
        found = lines_of(found_in(tmp_path), tmp_path, PageRules(**rules))
        return [text for _, text in found.rows], dict(found.left_out)

    assert trained() == (["plain", ""], {"printed": 1, "with marks of the transcript": 1})
    assert trained(printed=True) == (["plain", ""], {"with marks of the transcript": 2})
    assert trained(marked=True) == (["x ⟦y⟧", "plain", ""], {"printed": 1})
    assert trained(printed=True, marked=True) == (["a >b< c", "x ⟦y⟧", "plain", ""], {})


def test_documents_by_names():
    wills = document_of(["b/will_0121-0", "b/will_0121-1", "b/will_0122-0", "c/will_0121-0"])
    assert [wills(name) for name in ("b/will_0121-1", "c/will_0121-0")] == ["b/will_0121", "c/will_0121"]
    texts = document_of(["t_0001", "t_0002", "t_0002_1", "t_0003"])
    assert [texts(name) for name in ("t_0002", "t_0002_1", "t_0003")] == ["t_0002", "t_0002", "t_0003"]
    numbered = document_of([f"page_{n}" for n in range(40)])  # else all were one document
    assert numbered("page_7") == "page_7"


def test_tables_and_texts_beside_pages(tmp_path):
    write_page(tmp_path)
    (tmp_path / "characters.csv").write_text("char,name\nx,y\n")  # as HTR-United's repositories have one
    source = find_source(tmp_path, "train")
    assert [text for _, text in source.rows] == TEXTS
    assert source.notes == [
        f"{tmp_path / 'characters.csv'} is passed over, as the pages have texts of their own: name it to use it instead"
    ]
    (tmp_path / "labels.csv").write_text("FILENAME,IDENTITY\npage.png,x\n")
    with pytest.raises(
        HTRError, match=r"has 1 page of ALTO 4 and a table, labels.csv: name the table itself to use it"
    ):
        find_source(tmp_path, "train")
    (tmp_path / "labels.csv").unlink()
    (tmp_path / "page.gt.txt").write_text("x")
    with pytest.raises(HTRError, match="and texts beside pictures: name a folder of one kind"):
        find_source(tmp_path, "train")


def test_other_xml_beside_a_table_is_nothing_of_ours(tmp_path):
    draw_page().save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("FILENAME,IDENTITY\na.png,x\n")
    for n, (content, _) in enumerate(hostile().values()):
        (tmp_path / f"{n}.xml").write_bytes(content)
    (tmp_path / "a.xml").write_text("<annotation><object/>")
    assert [text for _, text in find_source(tmp_path, "train").rows] == ["x"]


def test_folders_of_sets(tmp_path):
    for name, folder in (("a", "train"), ("b", "train"), ("c", "val")):
        write_page(tmp_path / folder, name)
    train, validation = find_source(tmp_path, "train"), find_source(tmp_path, "validation")
    assert (len(train.rows), len(validation.rows), train.whole) == (8, 4, False)
    assert str(validation) == f"{tmp_path / 'val'} (1 page of ALTO 4), 4 lines"


def lines_read(folder: Path):
    """The lines of the only page of a folder, as the network gets them."""
    (each,) = found_in(folder).described
    whole = picture_of(each)
    return whole, whole.strips(range(len(LINES)))


def test_a_picture_of_another_size_gives_the_same_lines(tmp_path):
    write_page(tmp_path / "same")
    write_page(tmp_path / "large")
    draw_page().resize((2 * SIZE[0], 2 * SIZE[1]), Image.Resampling.LANCZOS).save(tmp_path / "large/page.png")
    (same, lines), (large, doubled) = lines_read(tmp_path / "same"), lines_read(tmp_path / "large")
    assert large.size == (1280, 800)
    for band, other in zip(same.bands, large.bands, strict=True):
        assert other.unit == pytest.approx(2 * band.unit, rel=0.05)
    small = [
        np.asarray(Image.fromarray(line).resize(other.shape[::-1])) for line, other in zip(doubled, lines, strict=True)
    ]
    assert all(np.mean(np.abs(a.astype(float) - b)) < 12 for a, b in zip(small, lines, strict=True))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_pictures(tmp_path, orientation):
    """A file that counts a picture as viewers show it, and one that counts it as it is stored."""
    back = {1: [], 2: [0], 3: [3], 4: [1], 5: [5], 6: [2], 7: [6], 8: [4]}  # Pillow's transpositions
    shown = draw_page()
    write_page(tmp_path / "plain")
    _, plain = lines_read(tmp_path / "plain")
    stored = shown
    for way in back[orientation]:
        stored = stored.transpose(Image.Transpose(way))
    exif = Image.Exif()
    exif[0x0112] = orientation
    write_page(tmp_path / "turned")
    stored.save(tmp_path / "turned/page.png", exif=exif)
    whole, turned = lines_read(tmp_path / "turned")
    assert not whole.as_stored
    assert all(np.array_equal(a, b) for a, b in zip(plain, turned, strict=True))
    if orientation < 5:
        return
    write_page(tmp_path / "stored")  # the tag is wrong: the file counts the pixels as they lie there
    shown.save(tmp_path / "stored/page.png", exif=exif)
    whole, untouched = lines_read(tmp_path / "stored")
    assert whole.as_stored
    assert all(np.array_equal(a, b) for a, b in zip(plain, untouched, strict=True))


def test_a_picture_that_changed_meanwhile(tmp_path):
    write_page(tmp_path)
    (each,) = found_in(tmp_path).described
    whole = picture_of(each)
    draw_page().crop((0, 0, 600, 400)).save(tmp_path / "page.png")
    assert str(whole.strips([0])[0]) == "has 600 x 400 pixels, and had 640 x 400"
    os.unlink(tmp_path / "page.png")
    assert isinstance(whole.strips([0, 1])[1], ImageError)
    shutil.copy(__file__, tmp_path / "page.png")
    with pytest.raises(HTRError, match=r"page.png cannot be read: not an image"):
        picture_of(each)


def test_places_far_away_take_no_memory(tmp_path):
    far = [
        ("main", "l1", [(-9_000_000, 80), (9_000_000, 84)], LINES[0][3], "x"),
        ("main", "l2", [(160, 9_999_999), (600, 9_999_999)], LINES[1][3], "y"),
    ]
    write_page(tmp_path, xml=alto([*far, LINES[2]]))
    (each,) = found_in(tmp_path).described
    strips = picture_of(each).strips(range(3))
    assert max(strip.size for strip in strips if not isinstance(strip, ImageError)) < 4_000_000


def test_a_page_is_decoded_once_for_all_its_lines(tmp_path, monkeypatch):
    from htr.pictures import cutting
    from htr.pictures.cutting import PageLine

    write_page(tmp_path)
    (each,) = found_in(tmp_path).described
    whole, opened, real = picture_of(each), [], cutting.open_page
    monkeypatch.setattr(cutting, "open_page", lambda *rest: opened.append(1) or real(*rest))
    lines = [PageLine(line[1], whole, n) for n, line in enumerate(LINES)]
    assert len(list(read_images(lines, GEOMETRY, 0))) == 4
    assert len(opened) == 1
    one_by_one = [whole.read([line], GEOMETRY)[0].pixels for line in lines]
    together = [decoded.pixels for decoded in read_images(lines, GEOMETRY, 2)]
    assert all(np.array_equal(a, b) for a, b in zip(one_by_one, together, strict=True))
