import gzip

import pytest

from htr.system.scripts import HTRError
from htr.texts.labels import PICTURE_COLUMNS, TEXT_COLUMNS, Alphabet, clean_label, read_labels


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


def test_an_alphabet_grows_behind_what_it_has():
    alphabet = Alphabet("BA-").grown(Alphabet.of(["ABßé"]))
    assert alphabet.characters == "BA-ßé"
    assert alphabet.grown(Alphabet("A")).characters == "BA-ßé"


def test_characters_that_look_alike():
    alphabet = Alphabet("AESb'")
    likes = {c: alphabet.like(c) for c in "AaeéÉÄBsßx\u0160"}
    assert likes == {"A": "A", "a": "A", "e": "E", "é": "E", "É": "E", "Ä": "A", "B": "b", "s": "S", "ß": None,
                     "x": None, "\u0160": "S"}  # fmt: skip


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


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("STRA\u1e9eE", "straße"),  # the capital of ß
        ("\u1e9e", "ß"),
        ("i\u0307zmir", "\u0130ZM\u0130R".replace("M\u0130R", "MIR")),  # a dot on its own; Turkish capitals
        ("DI\u0307LEK", "D\u0130LEK"),
        ("LE\u200bA", "LEA"),  # zero-width space
        ("\ufeffLEA", "LEA"),
        ("LE\u00adA", "LEA"),  # soft hyphen
        ("L\u200dE\u200cA", "LEA"),  # joiners between letters that do not join
        ("\u200eLEA\u200f", "LEA"),
        ("\u202aLEA\u202c \u2068PAUL\u2069", "LEA PAUL"),
        ("LE\u0000A\u0007", "LEA"),
        ("LEA\u00a0\u2009PAUL", "LEA PAUL"),
        ("\ufb01n", "FIN"),
        ("A\u2011B", "A-B"),
        ("\ufefb", "\u0644\u0627"),  # an Arabic ligature; and forms of letters
        ("\ufe91\ufe92\ufe90", "\u0628\u0628\u0628"),
        ("\ufb4b", "\u05d5\u05b9"),
        ("E\ufe0f", "E"),
    ],
)
def test_texts_that_look_the_same_are_the_same(one, other):
    assert clean_label(one, uppercase=True) == clean_label(other, uppercase=True)
    for label in (one, other):
        cleaned = clean_label(label, uppercase=True)
        assert clean_label(cleaned, uppercase=True) == cleaned


def test_what_can_be_seen_stays():
    persian, devanagari = "\u0645\u06cc\u200c\u0634\u0648\u062f", "\u0915\u094d\u200d\u0937"
    for text in (persian, devanagari, "½ ² ™ …", "I \u0131 i \u0130", "ß \u1e9e"):  # joiners that show; other signs
        assert clean_label(text, uppercase=False) == text


def test_case_can_be_kept():
    assert clean_label(" Léa", uppercase=False) == "Léa"


def labels(path) -> list[list[str]]:
    return [list(label) for label in read_labels(path).labels()]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_labels_are_text_whatever_they_look_like(tmp_path, newline, start):
    rows = ["FILENAME,IDENTITY", "1.jpg,NULL", "2.jpg,NA", "3.jpg,", "4.jpg,007", '5.jpg,"DUPONT, É"', "6.jpg"]
    (tmp_path / "a.csv").write_bytes(start + newline.join(rows).encode())
    texts = ["NULL", "NA", "", "007", "DUPONT, É", ""]
    assert labels(tmp_path / "a.csv") == [[f"{n}.jpg", text] for n, text in enumerate(texts, 1)]


ROWS = [["1.jpg", "DUPONT, É"], ["2.jpg", 'A "B"']]


@pytest.mark.parametrize(
    "content",
    [
        'FILENAME,IDENTITY\n1.jpg,"DUPONT, É"\n2.jpg,"A ""B"""\n',
        '\ufeffFILENAME;IDENTITY\r\n1.jpg;DUPONT, É\r\n2.jpg;"A ""B"""\r\n',
        'FILENAME\tIDENTITY\n1.jpg\tDUPONT, É\n2.jpg\tA "B"\n',
        ' FILENAME , IDENTITY,NOTE\n1.jpg,"DUPONT, É",x\n2.jpg,A "B",\n',
        'FILENAME, IDENTITY\n1.jpg, "DUPONT, É"\n2.jpg,  "A ""B"""\n',  # blanks after commas
        '"FILENAME", "IDENTITY"\n"1.jpg", "DUPONT, É"\n"2.jpg", "A ""B"""\n',
        'sep=;\r\nFILENAME;IDENTITY\r\n1.jpg;DUPONT, É\r\n2.jpg;"A ""B"""\r\n',  # Excel's own
        '\n\nFILENAME;IDENTITY\n1.jpg;DUPONT, É\n2.jpg;"A ""B"""\n',
        '1.jpg,"DUPONT, É"\n2.jpg,A "B"\n',  # no header
        '1.jpg\tDUPONT, É\n2.jpg\tA "B"\n',
        'sep=\t\n1.jpg\tDUPONT, É\n2.jpg\tA "B"\n',
        'writer,Text,File Name\n3,"DUPONT, É",1.jpg\n4,"A ""B""",2.jpg\n',
        'label,image_path,text\n,1.jpg,"DUPONT, É"\n,2.jpg,"A ""B"""\n',  # an empty column is none
        'image,path,words\n1.jpg,1.jpg,"DUPONT, É"\n2.jpg,2.jpg,"A ""B"""\n',  # nor is it a choice
        'FILENAME,IDENTITY,,\n1.jpg,"DUPONT, É",,\n,,,\n2.jpg,"A ""B""",,\n,,,\n',  # a spreadsheet's empty cells
        '1.jpg,"DUPONT, É",,\n2.jpg,"A ""B""",,\n,,,\n',
        ',FILENAME,IDENTITY\n0,1.jpg,"DUPONT, É"\n1,2.jpg,"A ""B"""\n',  # pandas' row numbers
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be"])
def test_the_tables_of_other_programs_are_known(tmp_path, content, encoding):
    (tmp_path / "a.csv").write_text(content, encoding=encoding, newline="")
    assert labels(tmp_path / "a.csv") == ROWS


@pytest.mark.parametrize("picture", PICTURE_COLUMNS)
@pytest.mark.parametrize("text", TEXT_COLUMNS)
def test_columns_have_the_names_of_the_field(tmp_path, picture, text):
    (tmp_path / "a.csv").write_text(f"{text.upper()},{picture.title()}\nLÉA,1.jpg\n", encoding="utf-8")
    assert labels(tmp_path / "a.csv") == [["1.jpg", "LÉA"]]


def test_without_header_and_suffix_two_columns_are_picture_and_text(tmp_path):
    (tmp_path / "a.csv").write_text("scan 1,LEA\nscan 2,text\n", encoding="utf-8")
    assert labels(tmp_path / "a.csv") == [["scan 1", "LEA"], ["scan 2", "text"]]
    (tmp_path / "a.csv").write_text("1.jpg,text\n2.jpg,label\n", encoding="utf-8")  # words that columns are called by
    assert labels(tmp_path / "a.csv") == [["1.jpg", "text"], ["2.jpg", "label"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"SCAN,IDENTITY\n1.jpg,A\n",
            "no column that is known to hold pictures: it has SCAN, IDENTITY; call it FILENAME",
        ),
        (b"SCAN,READING\n1.jpg,A\n", "it has SCAN, READING"),
        (b"1.jpg,A, B\n2.jpg,C\n", "line 1: without a header, .* put texts that hold a ','"),
        (b"A,1.jpg\nB,2.jpg\n", "no column that is known to hold pictures"),
        (b"1,A,x\n2,B,y\n", "no column that is known to hold pictures: it has 1, A, x"),
        (b"", "cannot be read"),
        (b"FILENAME,IDENTITY\n1.jpg,\xe9\n", "line 2: this is not UTF-8"),
        (b"FILENAME,IDENTITY\n1.jpg,A\n2.jpg,L\xe9a\n", "line 3: this is not UTF-8"),
        ("FILENAME,IDENTITY\n1.jpg,A\n".encode("utf-16")[:-1], "this is not UTF-8"),
        (b'FILENAME,IDENTITY\n1.jpg,A\n2.jpg,"B\n3.jpg,C\n', "in line 3 a quote is opened and never closed"),
        (
            b'FILENAME,IDENTITY\n1.jpg,"A\n2.jpg,B\n3.jpg,"C\n',
            "in line 2 a quote is opened and closed only in a later row",
        ),
        (
            b"FILENAME,IDENTITY\n1.jpg,A\n2.jpg,B,C\n",
            "line 3: it has more cells than the first line names, such as 'C'",
        ),
        (
            b"FILENAME,IDENTITY\n1.jpg,A,B\n2.jpg,B,C\n",
            "line 2: it has more cells than the first line names, such as 'B'",
        ),
        (
            b"FILENAME,NAME\n1.jpg,A\n",
            "known to hold texts: it has FILENAME, NAME; call it IDENTITY, text, .* or words",
        ),
        (b"\n\n", "holds no cell"),
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
    assert labels(path) == [["1.jpg", "A"]]
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
    assert [len(text) for _, text in labels(tmp_path / "a.csv")] == [10_000_000, 1]
