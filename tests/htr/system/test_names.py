import unicodedata

import pytest

from htr.system.names import Matches, Pictures, has_suffix, parts_of

FILES = ["Été 1.png", "b.v2.PNG", "deep/Ça.jpg", "deep/c.jpg", "deep/er/c.jpg"]


def pictures(tmp_path, files=FILES, folders=None) -> Pictures:
    folders = ([tmp_path],) if folders is None else folders
    return Pictures([(name, tmp_path / name) for name in files], folders)


def decomposed(text: str) -> str:
    return unicodedata.normalize("NFD", text)


@pytest.mark.parametrize(
    "spelling",
    [
        "{0}",
        " {0}  ",
        "./{0}",
        ".\\{0}",
        "\ufeff{0}",
        "//{0}",
        "{folder}/{0}",
        "{name}/{0}",
        "../{name}/{0}",
        "{name}\\{0}",
        ".\\{name}\\{0}",
        "/home/somebody/scans/{name}/{0}",
        "/home/somebody/{0}",
        "C:\\Users\\Somebody\\Scans\\{0}",
        "\\\\server\\share\\{name}\\{0}",
        "file:///home/somebody/{name}/{0}",
    ],
)
@pytest.mark.parametrize("how", [str, str.upper, str.lower, decomposed, lambda name: name.rsplit(".", 1)[0]])
@pytest.mark.parametrize("backslash", [False, True])
def test_a_name_means_its_file_however_it_is_written(tmp_path, spelling, how, backslash):
    names = [how(name).replace("/", "\\") if backslash else how(name) for name in FILES]
    names = [spelling.format(name, folder=tmp_path, name=tmp_path.name) for name in names]
    matches = pictures(tmp_path).match(names)
    assert matches.places == list(range(len(FILES)))
    assert not matches.unknown + matches.ambiguous


def test_names_of_other_files_mean_none(tmp_path):
    names = ["a.png", "ete 1.png", "other/b.v2.PNG", "er/b.v2.PNG", "b.v2.jpg", "b", "", " ", ".", "/", "xb.v2.PNG"]
    names += ["/home/somebody/c.jpg/", "/home/somebody/deep/er/x.jpg", "nul\0.png", "http://"]
    matches = pictures(tmp_path).match(names)
    assert matches.places == [None] * len(names)
    assert matches.unknown == names
    assert pictures(tmp_path, []).match(["a.png"]).unknown == ["a.png"]


def test_of_several_files_none_is_guessed(tmp_path):
    files = ["a/1.png", "b/1.png", "x.png", "X.png", "y.png", "y.jpg", "Y.JPG"]
    matches = pictures(tmp_path, files).match(["1.png", "X.png", "x.png", "y", "Y", "y.Jpg", "a/1"])
    assert matches.places == [None, 3, 2, None, None, None, 0]
    assert matches.ambiguous[0] == "'1.png': a/1.png or b/1.png"
    assert len(matches.ambiguous) == 4


def test_the_folder_of_the_table_comes_first(tmp_path):
    files = ["1.png", "a/1.png", "b/1.png"]
    for first, place in (("", 0), ("a", 1), ("b", 2)):
        for name in ("1.png", "1.PNG", "1"):
            folders = ([tmp_path / first], [tmp_path, tmp_path / "a", tmp_path / "b"])
            assert pictures(tmp_path, files, folders).match([name]).places == [place], (first, name)
    folders = ([tmp_path / "elsewhere"], [tmp_path / "a", tmp_path / "b"])
    assert pictures(tmp_path, files[1:], folders).match(["1.png"]).ambiguous == ["'1.png': a/1.png or b/1.png"]


def test_absolute_paths_of_a_moved_dataset_are_not_mixed_up(tmp_path):
    """Of two pages with pictures that are called alike, the labels of one never count for the other."""
    files, names = ["page1/1.png", "page1/2.png"], [f"/home/somebody/page{n}/{m}.png" for n in (1, 2) for m in (1, 2)]
    page = pictures(tmp_path, files, ([tmp_path], [tmp_path / "page1"]))
    assert page.match(names).places == [0, 1, None, None]
    assert page.match(["page2/1.png"]).places == [None]
    moved = Pictures([("1.png", tmp_path / "moved" / "1.png")], ([tmp_path / "moved"],))
    assert moved.match(["/home/somebody/page1/1.png"]).places == [0]
    both = moved.match(["/home/somebody/page1/1.png", "/home/somebody/page2/1.png"])
    assert both.places == [None, None]
    assert len(both.unknown) == 2
    assert moved.match(["1.png", "/home/somebody/page2/1.png"]).places == [0, None]


def test_turkish_letters_match_in_other_case(tmp_path):
    files = ["\u0130zmir.png", "ISPARTA.png"]
    assert pictures(tmp_path, files).match(["izmir.png", "\u0131sparta.PNG"]).places == [0, 1]


def test_parts_of_a_path():
    assert parts_of(" .\\a/../b//c.png ") == ["a", "b", "c.png"]
    assert parts_of("...") == ["..."]


def test_suffixes():
    assert all(map(has_suffix, ("a.png", "A.JPG", "b.v2.tif", "x.heic")))
    assert not any(map(has_suffix, ("a", "png", ".png", "a.txt", "a.png.gz", "")))


def test_many_files_of_one_name_are_told_apart_by_their_folders(tmp_path):
    files = [f"writer{n}/page/line.png" for n in range(2000)]
    names = [name.replace("/", "\\").upper() for name in files]
    assert pictures(tmp_path, files).match(names).places == list(range(2000))
    moved = [f"/home/somebody/{name}" for name in files]
    assert pictures(tmp_path, files).match(moved).places == list(range(2000))


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("/data/upload/1/3f2a9c01-a.png", "a.png"),
        ("3f2a9c01-a.png", "a.png"),
        ("/data/upload/3f2a9c01-L%C3%A9a%201.png", "Léa 1.png"),
        ("/data/local-files/?d=page%201/b.png", "page 1/b.png"),
        ("L%C3%A9a%201.png", "Léa 1.png"),
    ],
)
def test_addresses_of_label_studio(tmp_path, name, file):
    names = ["a.png", "Léa 1.png", "page 1/b.png"]
    pictures = Pictures([(each, tmp_path / each) for each in names], ([tmp_path],))
    assert pictures.match([name]).places == [names.index(file)]


def test_two_uploads_of_one_name_are_not_mixed_up(tmp_path):
    pictures = Pictures([("a.png", tmp_path / "a.png"), ("3f2a9c01-b.png", tmp_path / "3f2a9c01-b.png")], ([tmp_path],))
    found = pictures.match(["3f2a9c01-a.png", "4f2a9c01-a.png", "3f2a9c01-b.png"])
    assert found.places == [None, None, 1]
    assert found.unknown == ["3f2a9c01-a.png", "4f2a9c01-a.png"]
    assert pictures.match(["3f2a9c01-a.png", "a.png"]).places == [None, 0]


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("Müller\u20111.png", "U+2011 instead of U+002D"),
        ("\u041cüller-1.png", "U+041C instead of U+004D"),
        ("Müller-1\u200b.png", "U+200B instead of U+002E"),
        ("Mu\u0308ller\u2013\uff11.png", "U+0075 instead of U+00FC"),
    ],
)
def test_names_that_look_the_same_say_where_they_differ(name, codes):
    lines = Matches([], unknown=["other.png", name]).lines(["labels.csv", "a.png", "Müller-1.png"])
    assert lines == [
        f"labels that name none of the 2 images: 2, such as {name!r}, which looks like the image 'Müller-1.png' but has"
        f" {codes}"
    ]


def test_the_example_of_a_name_is_a_picture():
    (line,) = Matches([], unknown=["x.png"]).lines(["a.csv", "b.png", "c.png"])
    assert line == "labels that name none of the 2 images: 1, such as 'x.png'; the images are called 'b.png' and so on"
