"""Draws a small dataset of printed Hebrew and Arabic words, alone and with Latin words and numbers."""

import random
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import matplotlib
from bidi import get_display
from PIL import Image, ImageDraw, ImageFont

FONT = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
HEBREW = "\u05d0\u05d1\u05d2\u05d3\u05d4\u05d5\u05dc\u05de\u05e8\u05e9\u05ea\u05dd"
ARABIC = "\u0627\u0628\u062a\u062f\u0631\u0633\u0644\u0645\u0646\u0648"  # of which alef, dal, ra and waw join one side
LATIN = "abdenorst"
FORMS = {}  # (letter, <form>): the character of that form
for code in range(0xFE80, 0xFEFD):
    form, *letters = unicodedata.decomposition(chr(code)).split()
    if len(letters) == 1:
        FORMS[chr(int(letters[0], 16)), form] = chr(code)


def joined(text: str) -> str:
    """Arabic letters in the forms that they have beside each other, in logical order."""
    shaped = []
    for n, letter in enumerate(text):
        before = n > 0 and (text[n - 1], "<initial>") in FORMS and (letter, "<final>") in FORMS
        after = (letter, "<initial>") in FORMS and n + 1 < len(text) and (text[n + 1], "<final>") in FORMS
        form = {(0, 0): "<isolated>", (1, 0): "<final>", (0, 1): "<initial>", (1, 1): "<medial>"}[before, after]
        shaped.append(FORMS.get((letter, form), letter))
    return "".join(shaped)


def texts(count: int, seed: int) -> Iterator[str]:
    """Words, and lines of words and numbers, in logical order."""
    rng = random.Random(seed)

    def word(letters: str) -> str:
        return "".join(rng.choices(letters, k=rng.randint(3, 5)))

    for n in range(count):
        letters = HEBREW if n % 2 else ARABIC
        number = str(rng.randint(10, 99))
        kinds = [[word(letters)], [word(letters), number], [word(letters), word(LATIN), word(letters)],
                 [word(HEBREW), number, word(LATIN)]]  # fmt: skip
        yield " ".join(kinds[n // 2 % 4])


def draw(text: str) -> Image.Image:
    font = ImageFont.truetype(FONT, 24, layout_engine=ImageFont.Layout.BASIC)
    pictured = get_display(joined(text))
    image = Image.new("L", (int(font.getlength(pictured)) + 16, 40), 255)
    ImageDraw.Draw(image).text((8, 4), pictured, 0, font)
    return image


def draw_dataset(folder: Path, sizes: dict[str, int]) -> None:
    """In the layout of the Kaggle dataset."""
    (folder / "CSV").mkdir(parents=True)
    for split, (name, count) in enumerate(sizes.items()):
        images = folder / f"{name}_v2" / name
        images.mkdir(parents=True)
        lines = list(texts(count, seed=split))
        for n, text in enumerate(lines):
            draw(text).save(images / f"{n:04}.png")
        rows = "".join(f"{n:04}.png,{text}\n" for n, text in enumerate(lines))
        (folder / "CSV" / f"written_name_{name}.csv").write_text(f"FILENAME,IDENTITY\n{rows}", encoding="utf-8")
