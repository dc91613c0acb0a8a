"""ALTO and PAGE files: each program's dialect says the same, and no file does harm."""

import random
import time

import numpy as np
import pytest
from pages import DIALECTS, LINES, REGIONS, SIZE, TEXTS, alto, hostile, hyphenated, mutated, page, place, words

from htr.system.scripts import HTRError
from htr.texts import page_xml
from htr.texts.page_xml import read_pages


def written(tmp_path, xml):
    path = tmp_path / "page.xml"
    path.write_bytes(xml if isinstance(xml, bytes) else xml.encode())
    return path


def only(tmp_path, xml):
    (found,) = read_pages(written(tmp_path, xml))
    return found


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_says_the_same(tmp_path, dialect):
    xml, name = DIALECTS[dialect]
    found = only(tmp_path, xml)
    assert (found.format, found.picture) == (name, "page.png")
    assert [line.id for line in found.lines] == [line[1] for line in LINES]
    assert [line.text for line in found.lines] == TEXTS
    assert [found.regions[line.region].id for line in found.lines] == [line[0] for line in LINES]
    scales = found.scaled_to(SIZE)
    for line, (region, _, baseline, outline, _) in zip(found.lines, LINES, strict=True):
        assert np.allclose(line.baseline * scales, baseline, atol=0.01)
        assert np.allclose(line.outline * scales, outline, atol=0.01)
        assert np.allclose(found.regions[line.region].outline * scales, REGIONS[region], atol=0.01)


def test_alto_2_and_3_give_a_baseline_as_one_number_or_none(tmp_path):
    found = only(tmp_path, alto(version=3))
    assert found.format == "ALTO 3"
    assert found.lines[2].baseline.tolist() == [[155, 205], [505, 205]]  # from side to side of its box
    boxes = alto(version=2).replace("<Shape>", "<!--").replace("</Shape>", "-->")
    line = only(tmp_path, boxes.replace('BASELINE="205"', "")).lines[2]
    assert line.baseline is None
    assert line.outline.tolist() == [[155, 170], [505, 170], [505, 220], [155, 220]]
    bare = boxes.replace(f'BASELINE="205" {place(LINES[2][3])}', "", 1)  # only its words have boxes
    assert only(tmp_path, bare).lines[2].outline.tolist() == line.outline.tolist()


def test_a_hyphen_at_the_end_is_written(tmp_path):
    assert [line.text for line in only(tmp_path, alto(line=hyphenated)).lines][2:] == ["fin de la phrase-", "nota-"]


def test_what_a_program_is_sure_of(tmp_path):
    assert only(tmp_path, alto(line=words)).lines[0].confidence == 0.5
    assert only(tmp_path, DIALECTS["Aletheia"][0]).lines[0].confidence == 0.75
    assert only(tmp_path, alto()).lines[0].confidence is None


def test_a_line_without_text_is_no_line_of_no_text(tmp_path):
    nothing = only(tmp_path, alto(line=lambda points, text: ""))
    assert [line.text for line in nothing.lines] == [None] * 4
    empty = only(tmp_path, alto(line=lambda points, text: '<String CONTENT=""/>'))
    assert [line.text for line in empty.lines] == [""] * 4
    assert [line.text for line in only(tmp_path, page(text=lambda line: "")).lines] == [None] * 4


@pytest.mark.parametrize(
    ("kind", "printed"),
    [
        ("printed", True), ("DefaultLine:Print", True), ("DefaultLine:Typewritten", True), ("typewritten", True),
        ("imprimé", True), ("PrintedLine", True), ("handwritten-printscript", False), ("DefaultLine", False),
        ("HeadingLine", False), ("PrintSpace", False), ("DefaultLine:Handwritten", False), ("blueprint", False),
    ],
)  # fmt: skip
def test_printed_lines_are_known_by_what_they_are_called(tmp_path, kind, printed):
    tags = f'<Tags><OtherTag ID="T1" LABEL="{kind}"/></Tags>'
    found = only(tmp_path, alto(tags=tags).replace('ID="l1"', 'ID="l1" TAGREFS="T1"'))
    assert [found.is_printed(line) for line in found.lines] == [printed, False, False, False]
    region = only(tmp_path, alto(tags=tags).replace('ID="main"', 'ID="main" TAGREFS="T1"'))
    assert [region.is_printed(line) for line in region.lines] == [printed] * 3 + [False]
    other = only(tmp_path, page().replace('id="l1"', f'id="l1" production="{kind}"'))
    assert other.is_printed(other.lines[0]) == printed


@pytest.mark.parametrize(
    ("degrees", "over"), [("180", True), ("-175.5", True), ("90", False), ("3", False), ("x", False)]
)
def test_regions_that_are_upside_down_are_known_by_their_orientation(tmp_path, degrees, over):
    for xml in (
        page().replace('<TextRegion id="main"', f'<TextRegion id="main" orientation="{degrees}"'),
        alto().replace('<TextBlock ID="main"', f'<TextBlock ID="main" ROTATION="{degrees}"'),
    ):
        found = only(tmp_path, xml)
        assert [region.upside_down for region in found.regions] == [over, False]


def test_ids_are_there_and_differ(tmp_path):
    for xml in (alto(), page()):
        found = only(tmp_path, xml.replace('="l2"', '="l1"').replace('="l3"', '=""'))
        assert len({line.id for line in found.lines} - {""}) == 4
        assert found.lines[0].id == "l1"


def test_blocks_name_the_next_one(tmp_path):
    xml = alto(LINES[3:] + LINES[:3], version=3).replace('ID="main"', 'ID="main" IDNEXT="margin"')
    assert [line.id for line in only(tmp_path, xml).lines] == ["l1", "l2", "l3", "m1"]
    circle = xml.replace('ID="margin"', 'ID="margin" IDNEXT="main"')
    assert [line.id for line in only(tmp_path, circle).lines] == ["m1", "l1", "l2", "l3"]


def test_a_file_may_have_several_pages(tmp_path):
    layout = alto().split("<Layout>")[1].split("</Layout>")[0]
    first, second = read_pages(written(tmp_path, alto().replace(layout, layout + layout.replace('"l1"', '"k1"'))))
    assert (first.number, second.number) == (0, 1)
    assert (first.lines[0].id, second.lines[0].id) == ("l1", "k1")


def test_a_picture_of_another_size_is_scaled_and_one_of_another_shape_refused(tmp_path):
    found = only(tmp_path, alto())
    assert found.scaled_to((1280, 800)) == (2, 2)
    assert found.scaled_to((213, 133)) == pytest.approx((1 / 3, 1 / 3), rel=0.01)  # rounded
    with pytest.raises(HTRError, match="is of a picture of 640 x 400, and its picture has 400 x 640 pixels"):
        found.scaled_to((400, 640))
    inches = only(tmp_path, alto(unit="inch1200", scale=4).replace("WIDTH=", "X=").replace("HEIGHT=", "Y="))
    assert inches.scaled_to(SIZE, 300) == (0.25, 0.25)
    with pytest.raises(HTRError, match="nothing says how many pixels an inch has"):
        inches.scaled_to(SIZE)


@pytest.mark.parametrize("kind", hostile())
def test_a_hostile_file_is_refused_in_one_sentence(tmp_path, kind):
    content, said = hostile()[kind]
    path, started = written(tmp_path, content), time.perf_counter()
    if said == "line":  # one line is of no use, the others are
        (found,) = read_pages(path)
        outline = next((line for line in found.lines if line.id == "l2"), None)
        assert outline is None
        assert [name for name, _ in found.unusable] == ["l2"]
        assert [line.id for line in found.lines] == ["l1", "l3", "m1"]
    elif said:
        with pytest.raises(HTRError) as caught:
            read_pages(path)
        assert said in str(caught.value)
        assert str(caught.value).startswith(f"{path} cannot be read: ")
        assert "\n" not in str(caught.value)
    else:
        assert read_pages(path) == []
    assert time.perf_counter() - started < 5


def test_more_lines_than_a_page_has(tmp_path, monkeypatch):
    monkeypatch.setattr(page_xml, "MOST_LINES", 3)
    with pytest.raises(HTRError, match="it has a page of 4 lines, more than 3"):
        read_pages(written(tmp_path, alto()))


def test_a_large_file_is_not_opened(tmp_path, monkeypatch):
    path = written(tmp_path, alto())
    with open(path, "r+b") as file:
        file.truncate(200_000_000)
    with pytest.raises(HTRError, match="it has 200,000,000 bytes, more than 50,000,000"):
        read_pages(path)
    with pytest.raises(HTRError, match="it is no file"):
        read_pages(tmp_path)
    with pytest.raises(HTRError, match="it is no file"):
        read_pages(tmp_path / "none.xml")


def test_mutated_files_are_read_or_refused(tmp_path):
    rng, read = random.Random(0), 0
    whole = [xml for xml, _ in DIALECTS.values()]
    for _ in range(400):
        path = written(tmp_path, mutated(rng.choice(whole), rng))
        try:
            for found in read_pages(path):
                read += 1
                for line in found.lines:
                    assert all(np.isfinite(part).all() for part in (line.baseline, line.outline) if part is not None)
                    assert line.baseline is not None or line.outline is not None
                    assert 0 <= line.region < len(found.regions)
        except HTRError as error:
            assert str(path) in str(error)
    assert read > 100


def test_marks_of_transcripts():
    marked = ["a >word< b", "x ⟦y⟧", "# z", "1^er", "a⋎b"]
    assert [bool(page_xml.MARKS.search(text)) for text in [*marked, "a > b", "2 < 3", "plain"]] == [True] * 5 + [
        False
    ] * 3
