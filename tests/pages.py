"""A page of writing, and ALTO and PAGE files of it in the dialects of the programs that write them."""

import random
import re
from itertools import pairwise
from pathlib import Path

from PIL import Image, ImageDraw

SIZE = (640, 400)
# Of each line: its region, id, baseline, outline, text. The margin comes last in reading order.
LINES = [
    ("main", "l1", [(160, 80), (400, 84), (600, 80)], [(155, 45), (605, 45), (605, 95), (155, 95)], "Première ligne"),
    ("main", "l2", [(160, 140), (600, 146)], [(155, 105), (605, 110), (605, 160), (155, 155)], "a & b < c"),
    ("main", "l3", [(160, 205), (500, 205)], [(155, 170), (505, 170), (505, 220), (155, 220)], "fin de la phrase"),
    ("margin", "m1", [(20, 82), (120, 82)], [(15, 50), (125, 50), (125, 95), (15, 95)], "nota"),
]
TEXTS = [line[4] for line in LINES]
REGIONS = {
    "main": [(150, 40), (610, 40), (610, 225), (150, 225)],
    "margin": [(10, 40), (130, 40), (130, 100), (10, 100)],
}
PRIMA = "http://schema.primaresearch.org/PAGE/gts/pagecontent/"
LOC = "http://www.loc.gov/standards/alto/"


def draw_page(size: tuple[int, int] = SIZE, lines=LINES, seed: int = 0) -> Image.Image:
    """Strokes above each baseline, on paper."""
    page, rng = Image.new("L", size, 235), random.Random(seed)
    draw = ImageDraw.Draw(page)
    for _, _, baseline, _, _ in lines:
        for (x0, y0), (x1, y1) in pairwise(baseline):
            for x in range(round(x0), round(x1) - 8, 12):
                y = y0 + (y1 - y0) * (x - x0) / (x1 - x0)
                draw.line([(x, y), (x + rng.randint(-2, 6), y - rng.choice((16, 16, 30)))], fill=40, width=3)
    return page


def escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def pairs(points, between: str = ",") -> str:
    return " ".join(f"{x}{between}{y}" for x, y in points)


def box(points) -> tuple[int, int, int, int]:
    """Left, top, width, height."""
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def place(points, scale: float = 1) -> str:
    names = ("HPOS", "VPOS", "WIDTH", "HEIGHT")
    return " ".join(f'{name}="{value * scale:g}"' for name, value in zip(names, box(points), strict=True))


# --------------------------------------------------------------------------------------------------- ALTO


def alto(
    lines=LINES, picture="page.png", size=SIZE, version=4, line=None, *, unit="pixel", scale=1.0, tags="", root="alto",
    order="",
) -> str:  # fmt: skip
    """An ALTO file; `line` writes what is in a line, and `scale` gives the unit in pixels."""
    write = line or (lambda points, text: f'<String CONTENT="{escaped(text)}" {place(points, scale)}/>')
    namespace = f' xmlns="{LOC}ns-v{version}#"' if version else ""
    blocks = []
    for region in dict.fromkeys(each[0] for each in lines):
        rows = []
        for own, name, baseline, outline, text in lines:
            if own == region:
                straight = f'BASELINE="{baseline[0][1] * scale:g}"' if version and version < 4 else ""
                points = " ".join(f"{x * scale:g} {y * scale:g}" for x, y in baseline)
                given = straight or f'BASELINE="{points}"'
                shape = pairs([(x * scale, y * scale) for x, y in outline], " ")
                inside = write(outline, text)
                rows.append(
                    f'<TextLine ID="{name}" {given} {place(outline, scale)}><Shape><Polygon POINTS="{shape}"/></Shape>'
                    f"{inside}</TextLine>"
                )
        blocks.append(f'<TextBlock ID="{region}" {place(REGIONS[region], scale)}>{"".join(rows)}</TextBlock>')
    width, height = size[0] * scale, size[1] * scale
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<{root}{namespace}><Description><MeasurementUnit>{unit}'
        f"</MeasurementUnit><sourceImageInformation><fileName>{picture}</fileName></sourceImageInformation>"
        f'</Description>{tags}{order}<Layout><Page WIDTH="{width:g}" HEIGHT="{height:g}" PHYSICAL_IMG_NR="1" ID="p">'
        f'<PrintSpace HPOS="0" VPOS="0" WIDTH="{width:g}" HEIGHT="{height:g}">{"".join(blocks)}</PrintSpace></Page>'
        f"</Layout></{root}>"
    )


def words(points, text: str) -> str:
    """Strings with spaces between them, as Tesseract, ABBYY and kraken write a line; a hyphen is an element."""
    parts = text.split(" ")
    strings = [f'<String CONTENT="{escaped(word)}" {place(points)} WC="0.5"/>' for word in parts]
    return '<SP WIDTH="5"/>'.join(strings)


def unspaced(points, text: str) -> str:
    return "".join(f'<String CONTENT="{escaped(word)}" {place(points)}/>' for word in text.split(" "))


def hyphenated(points, text: str) -> str:
    start, _, end = text.rpartition(" ")
    first = f'<String CONTENT="{escaped(start)}"/><SP/>' if start else ""
    return (
        f'{first}<String CONTENT="{escaped(end)}" SUBS_TYPE="HypPart1" SUBS_CONTENT="{end}x"/><HYP CONTENT="\u00ad"/>'
    )


def alternatives(points, text: str) -> str:
    return f'<String CONTENT="{escaped(text)}"><ALTERNATIVE PURPOSE="x">another</ALTERNATIVE></String>'


# --------------------------------------------------------------------------------------------------- PAGE


def page(
    lines=LINES, picture="page.png", size=SIZE, version="2019-07-15", text=None, *, prefix="", order=True, custom=False,
    swapped=False,
) -> str:  # fmt: skip
    """A PAGE file; `text` writes the texts of a line, `swapped` has the regions in the file the other way round."""
    p = f"{prefix}:" if prefix else ""
    write = text or (lambda line: f"<{p}TextEquiv><{p}Unicode>{escaped(line[4])}</{p}Unicode></{p}TextEquiv>")
    names = list(dict.fromkeys(each[0] for each in lines))
    regions = []
    for n, region in enumerate(names):
        rows = []
        for k, line in enumerate(each for each in lines if each[0] == region):
            _, name, baseline, outline, _ = line
            attribute = f' custom="readingOrder {{index:{k};}}"' if custom else ""
            rows.append(
                f'<{p}TextLine id="{name}"{attribute}>{coords(outline, p, version)}'
                f'<{p}Baseline points="{pairs(baseline)}"/>{write(line)}</{p}TextLine>'
            )
        rows = rows[::-1] if custom else rows
        attribute = f' custom="readingOrder {{index:{n};}} structure {{type:paragraph;}}"' if custom else ""
        inner = f"{coords(REGIONS[region], p, version)}{''.join(rows)}"
        regions.append(f'<{p}TextRegion id="{region}"{attribute}>{inner}</{p}TextRegion>')
    regions = regions[::-1] if swapped or custom else regions
    refs = "".join(f'<{p}RegionRefIndexed index="{n}" regionRef="{name}"/>' for n, name in enumerate(names))
    given = f'<{p}ReadingOrder><{p}OrderedGroup id="o">{refs}</{p}OrderedGroup></{p}ReadingOrder>' if order else ""
    declared = f'xmlns:{prefix}="{PRIMA}{version}"' if prefix else f'xmlns="{PRIMA}{version}"'
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<{p}PcGts {declared}><{p}Metadata><{p}Creator>x</{p}Creator>'
        f"<{p}Created>2020-01-01T00:00:00</{p}Created><{p}LastChange>2020-01-01T00:00:00</{p}LastChange></{p}Metadata>"
        f'<{p}Page imageFilename="{picture}" imageWidth="{size[0]}" imageHeight="{size[1]}">{given}{"".join(regions)}'
        f"</{p}Page></{p}PcGts>"
    )


def coords(points, p: str, version: str) -> str:
    if version < "2013":
        points = "".join(f'<{p}Point x="{x}" y="{y}"/>' for x, y in points)
        return f"<{p}Coords>{points}</{p}Coords>"
    return f'<{p}Coords points="{pairs(points)}"/>'


def page_words(line) -> str:
    """Words, and no text of the line."""
    word = '<Word id="{}"><Coords points="0,0 1,0 1,1"/><TextEquiv><Unicode>{}</Unicode></TextEquiv></Word>'
    return "".join(word.format(f"{line[1]}w{n}", escaped(part)) for n, part in enumerate(line[4].split(" ")))


def page_alternatives(line) -> str:
    return (
        f'<TextEquiv index="2"><Unicode>another</Unicode></TextEquiv><TextEquiv index="1" conf="0.75"><Unicode>'
        f"{escaped(line[4])}</Unicode></TextEquiv>"
    )


MM10 = 25.4 / 300 * 10  # tenths of a millimetre to a pixel at 300 dots per inch
ORDER = '<ReadingOrder><OrderedGroup ID="g"><ElementRef ID="e1" REF="main"/><ElementRef ID="e2" REF="margin"/>'
TURNED = LINES[3:] + LINES[:3]
DIALECTS = {
    "eScriptorium": (alto(), "ALTO 4"),
    "kraken": (alto(line=words), "ALTO 4"),
    "words without spaces": (alto(line=unspaced), "ALTO 4"),
    "alternatives": (alto(line=alternatives), "ALTO 4"),
    "ALTO 4.3, reading order": (alto(TURNED, order=f"{ORDER}</OrderedGroup></ReadingOrder>"), "ALTO 4"),
    "tenths of millimetres": (alto(unit="mm10", scale=MM10), "ALTO 4"),
    "parts of inches": (alto(unit="inch1200", scale=4), "ALTO 4"),
    "no namespace": (alto(version=0), "ALTO"),
    "a prefix": (alto().replace("<", "<a:").replace("<a:/", "</a:").replace("<a:?", "<?").replace("xmlns=", "xmlns:a="), "ALTO 4"),
    "OCR-D": (page(prefix="pc"), "PAGE 2019"),
    "Aletheia": (page(text=page_alternatives, swapped=True), "PAGE 2019"),
    "words alone": (page(text=page_words), "PAGE 2019"),
    "Transkribus": (page(version="2013-07-15", order=False, custom=True), "PAGE 2013"),
    "points as elements": (page(version="2010-03-19"), "PAGE 2010"),
}  # fmt: skip


def write_page(folder: Path, name: str = "page", xml: str | None = None, **options) -> Path:
    """A picture and its file; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    draw_page(**options).save(folder / f"{name}.png")
    (folder / f"{name}.xml").write_text(xml or alto(picture=f"{name}.png"), encoding="utf-8")
    return folder


# ------------------------------------------------------------------------------------------------- hostile


def hostile() -> dict[str, tuple[bytes, str]]:
    """Files that cannot be read as they are, and what is said of each; "" where it is only another kind of file."""
    whole = alto()
    laughs = "".join(f'<!ENTITY l{n} "' + f"&l{n - 1};" * 10 + '">' for n in range(1, 10))
    long, often = "a" * 9999, "&a;" * 99
    head = '<?xml version="1.0"?>'
    far, many = "9" * 400, "1 2 " * 30_000
    return {
        "billion laughs": (f'{head}<!DOCTYPE alto [<!ENTITY l0 "ha">{laughs}]><alto>&l9;</alto>'.encode(), "document type"),
        "quadratic": (f'{head}<!DOCTYPE alto [<!ENTITY a "{long}">]><alto>{often}</alto>'.encode(), "document type"),
        "a file of the system": (f'{head}<!DOCTYPE alto [<!ENTITY x SYSTEM "file:///etc/passwd">]><alto>&x;</alto>'.encode(), "document type"),
        "an address": (f'{head}<!DOCTYPE alto SYSTEM "http://localhost:9/x.dtd"><alto/>'.encode(), "document type"),
        "a parameter entity": (f'{head}<!DOCTYPE alto [<!ENTITY % x SYSTEM "file:///etc/passwd"> %x;]><alto/>'.encode(), "document type"),
        "unknown entity": (whole.replace("ligne", "&eacute;").encode(), "undefined entity"),
        "empty": (b"", "no element found"),
        "blank": (b"  \n ", "no element found"),
        "cut off": (whole[: len(whole) // 2].encode(), "it is no XML"),
        "text": (b"a text", "syntax error"),
        "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(99), "it is no XML"),
        "NUL": (whole.replace("ligne", "li\0gne").encode(), "not well-formed"),
        "not UTF-8": (whole.replace("è", "e").encode() .replace(b"ligne", b"li\xe8gne"), "not well-formed"),
        "unknown encoding": (whole.replace("UTF-8", "klingon").encode(), "encoding"),
        "two roots": (whole.encode() + b"<alto/>", "junk after document"),
        "no quotes": (whole.replace('ID="l1"', "ID=l1").encode(), "not well-formed"),
        "twice the same attribute": (whole.replace('ID="l1"', 'ID="l1" ID="l1"').encode(), "duplicate attribute"),
        "unbound prefix": (whole.replace("<TextBlock", "<q:TextBlock").encode(), "unbound prefix"),
        "deep": (b"<alto>" + b"<a>" * 5000, "nested more than"),
        "deeper": (b"<alto>" + b"<a>" * 300_000 + b"</a>" * 300_000 + b"</alto>", "nested more than"),
        "unit": (whole.replace(">pixel<", ">furlong<").encode(), "furlong"),
        "METS": (b'<mets xmlns="http://www.loc.gov/METS/"/>', ""),
        "TEI": (b'<TEI xmlns="http://www.tei-c.org/ns/1.0"><text/></TEI>', ""),
        "annotations of objects": (b"<annotation><filename>page.png</filename></annotation>", ""),
        "a property list": (b'<?xml version="1.0"?><!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://x/p.dtd"><plist/>', ""),
        "HTML": (b"<html><body><p>x</p></body></html>", ""),
        "no page": (b"<alto><Layout/></alto>", ""),
        "no numbers": (whole.replace('BASELINE="160 140 600 146"', 'BASELINE="a b c d"').encode(), "line"),
        "an odd number": (whole.replace('BASELINE="160 140 600 146"', 'BASELINE="160 140 600"').encode(), "line"),
        "NaN": (whole.replace('BASELINE="160 140 600 146"', 'BASELINE="nan 140 600 146"').encode(), "line"),
        "infinite": (whole.replace('BASELINE="160 140 600 146"', 'BASELINE="inf 140 600 146"').encode(), "line"),
        "too far": (whole.replace('BASELINE="160 140 600 146"', f'BASELINE="160 140 {far} 146"').encode(), "line"),
        "too many": (whole.replace('BASELINE="160 140 600 146"', f'BASELINE="{many}"').encode(), "line"),
    }  # fmt: skip


ODD = [
    "-1",
    "0",
    "1e99",
    "nan",
    "inf",
    "",
    " ",
    "9" * 30,
    "-5 -5",
    "1 1 1 1",
    "0,0 0,0",
    "é",
    "&#x1F600;",
    "x" * 5000,
    "../../../x",
]


def mutated(xml: str, rng: random.Random) -> bytes:
    """A file with a few of its values changed, or of its bytes changed, removed, doubled or swapped with others."""
    for _ in range(rng.randint(0, 4)):
        start, end = rng.choice([match.span(1) for match in re.finditer(r'="([^"]*)"', xml)])
        number = re.search(r"-?\d+", xml[start:end])
        if number and rng.random() < 0.5:
            start, end = start + number.start(), start + number.end()
        xml = xml[:start] + rng.choice(ODD) + xml[end:]
    data = bytearray(xml.encode())
    for _ in range(rng.choice((0, 0, 1, 3))):
        at, length, other = rng.randrange(len(data)), rng.choice((1, 1, 2, 8, 60)), rng.randrange(len(data))
        data[at : at + length] = rng.choice(
            (
                bytes([rng.randrange(256)]),
                b"",
                data[at : at + length] * 2,
                data[other : other + length],
                b"<a>",
                b"]]>",
                b"\0",
            )
        )
    return bytes(data)
