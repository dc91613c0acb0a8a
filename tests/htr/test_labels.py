import gzip

import pytest

from htr.labels import Alphabet, clean_label, read_labels
from htr.scripts import HTRError


def test_alphabet_round_trip():
    texts = ["MARIE-LOU", "N'DIAYE", "ÉLOÏSE", "李 明"]
    alphabet = Alphabet.of(texts)
    assert sorted(set("".join(texts))) == list(alphabet.characters)
    for text in texts:
        ids = alphabet.encode(text)
        assert alphabet.decode(ids) == text
        assert all(0 <= i < len(alphabet) for i in ids)
    assert not alphabet.knows("ZÜRICH")
    with pytest.raises(KeyError):
        alphabet.encode("Z")
    with pytest.raises(ValueError, match="once"):
        Alphabet("AA")


@pytest.mark.parametrize(
    ("label", "cleaned"),
    [
        ("  Léa ", "LÉA"),
        ("LE\u0301A", "LÉA"),  # a combining accent becomes one character
        ("le  gall", "LE GALL"),
        ("NULL", "NULL"),
        ("straße", "STRASSE"),
        (" \t", ""),
    ],
)
def test_labels_are_cleaned(label, cleaned):
    assert clean_label(label, uppercase=True) == cleaned


def test_case_can_be_kept():
    assert clean_label(" Léa", uppercase=False) == "Léa"


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_labels_are_text_whatever_they_look_like(tmp_path, newline, start):
    rows = ["FILENAME,IDENTITY", "1.jpg,NULL", "2.jpg,NA", "3.jpg,", "4.jpg,007", '5.jpg,"DUPONT, É"', "6.jpg"]
    (tmp_path / "a.csv").write_bytes(start + newline.join(rows).encode())
    table = read_labels(tmp_path / "a.csv")
    assert table["FILENAME"].tolist() == [f"{n}.jpg" for n in range(1, 7)]
    assert table["IDENTITY"].tolist() == ["NULL", "NA", "", "007", "DUPONT, É", ""]


ROWS = [["1.jpg", "DUPONT, É"], ["2.jpg", 'A "B"']]


@pytest.mark.parametrize(
    "content",
    [
        'FILENAME,IDENTITY\n1.jpg,"DUPONT, É"\n2.jpg,"A ""B"""\n',
        '\ufeffFILENAME;IDENTITY\r\n1.jpg;DUPONT, É\r\n2.jpg;"A ""B"""\r\n',
        'FILENAME\tIDENTITY\n1.jpg\tDUPONT, É\n2.jpg\tA "B"\n',
        ' FILENAME , IDENTITY,NOTE\n1.jpg,"DUPONT, É",x\n2.jpg,A "B",\n',
    ],
)
def test_the_separators_of_spreadsheets_are_known(tmp_path, content):
    (tmp_path / "a.csv").write_text(content, encoding="utf-8", newline="")
    assert read_labels(tmp_path / "a.csv").values.tolist() == ROWS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"FILE,IDENTITY\n1.jpg,A\n", "no column FILENAME"),
        (b"", "cannot be read"),
        (b"FILENAME,IDENTITY\n1.jpg,\xe9\n", "line 2: this is not UTF-8"),
        (b"FILENAME,IDENTITY\n1.jpg,A\n2.jpg,L\xe9a\n", "line 3: this is not UTF-8"),
        ("FILENAME,IDENTITY\n1.jpg,A\n".encode("utf-16"), "line 1: this is not UTF-8"),
        (b'FILENAME,IDENTITY\n1.jpg,A\n2.jpg,"B\n3.jpg,C\n', "in line 3 a quote is opened and never closed"),
        (b'FILENAME,IDENTITY\n1.jpg,"A\n2.jpg,B\n3.jpg,"C\n', "line 2: a quote is opened before 'A'"),
        (b"FILENAME,IDENTITY\n1.jpg,A\n2.jpg,B,C\n", "Expected 2 fields in line 3, saw 3"),
        (b"FILENAME,IDENTITY\n1.jpg,A,B\n2.jpg,B,C\n", "more cells than its first line"),
        (b"FILENAME,NAME\n1.jpg,A\n", "no column IDENTITY; it has FILENAME, NAME"),
        (b"\n\n", "No columns"),
    ],
)
def test_what_is_wrong_with_a_csv_is_said_with_its_line(tmp_path, content, message):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(HTRError, match=message) as error:
        read_labels(tmp_path / "a.csv")
    assert str(tmp_path / "a.csv") in str(error.value)


def test_a_compressed_table_is_read_or_refused(tmp_path):
    path, whole = tmp_path / "a.csv.gz", gzip.compress(b"FILENAME;IDENTITY\n1.jpg;A\n")
    path.write_bytes(whole)
    assert read_labels(path).values.tolist() == [["1.jpg", "A"]]
    path.write_bytes(gzip.compress(b"FILENAME,IDENTITY\n1.jpg,\xe9\n"))
    with pytest.raises(HTRError, match="line 2: this is not UTF-8"):
        read_labels(path)
    for broken in (whole[:-9], whole[:12] + b"\xff" * 9, b"FILENAME,IDENTITY\n1.jpg,A\n"):
        path.write_bytes(broken)
        with pytest.raises(HTRError, match=r"a\.csv\.gz cannot be read"):
            read_labels(path)


def test_a_folder_or_nothing_is_no_csv(tmp_path):
    for path in (tmp_path, tmp_path / "none.csv"):
        with pytest.raises(HTRError, match=r"cannot be read: (Is a|No such)"):
            read_labels(path)


def test_a_line_without_end_is_read(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"FILENAME,IDENTITY\n1.jpg," + b"A" * 10_000_000 + b"\n2.jpg,B\n")
    assert read_labels(tmp_path / "a.csv")["IDENTITY"].str.len().tolist() == [10_000_000, 1]
