"""Drawn lines of running text in handwriting fonts, for the weights of lines to begin with.

Needs fonttools and wordfreq (pip install fonttools wordfreq) beside the requirements, and a folder of fonts. Lines get
the place and size that they have in the band of a page, letters of many sizes, slants, widths, strokes and pressures,
and a baseline that is not straight.
"""

import itertools
import math
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import wordfreq
from fontTools.ttLib import TTFont, TTLibError
from PIL import Image, ImageDraw, ImageFilter, ImageFont

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from htr.pictures.cutting import DOWN, UP  # noqa: E402

HEIGHT = 96  # of a line, in pixels
UNIT = HEIGHT / (UP + DOWN)  # distance of lines
FINE = 2  # pixels to one of a line, while it is drawn
LANGUAGES = {"fr": 6, "de": 2, "en": 2}  # and their shares
COMMON = 30_000  # words of a language
LONGEST = 80  # characters
AROUND = {  # marks before and after a word, and their shares
    ("", ""): 80, ("", ","): 9, ("", "."): 5, ("", ";"): 1, ("", " :"): 1, ("", " !"): 1, ("", " ?"): 1, ("", "-"): 1,
    ("(", ")"): 2, ("« ", " »"): 1,
}  # fmt: skip
NEEDED = set("éèàç")  # characters, without which a font is left out


class Face:
    """A font: the characters that it has, and the heights of x and of tall letters at a size of 100."""

    def __init__(self, path: Path):
        self.path, self.characters = path, set(map(chr, TTFont(path).getBestCmap()))
        font = ImageFont.truetype(str(path), 100)
        self.low, self.tall = (-font.getbbox(letters, anchor="ls")[1] for letters in ("x", "ldhb"))


def faces_in(folder: Path) -> list[Face]:
    """The fonts of a folder that have French letters; says which are left out."""
    faces = []
    for path in sorted(folder.iterdir()):
        try:
            face = Face(path)
        except (TTLibError, OSError) as error:
            print(f"{path.name}: {error}")
            continue
        if face.characters >= NEEDED and face.low > 0:
            faces.append(face)
        else:
            print(f"{path.name}: lacks letters")
    return faces


def texts_of(transcripts: Sequence[str], rng: random.Random) -> Iterator[str]:
    """Endless texts: parts of the transcripts, and words as frequent as in the language, to the power of 0.6."""
    words = " ".join(transcripts).split(" ")
    common = {}
    for language in LANGUAGES:
        listed = wordfreq.top_n_list(language, COMMON)
        common[language] = listed, [wordfreq.word_frequency(word, language) ** 0.6 for word in listed]
    while True:
        if rng.random() < 0.5:
            count = rng.randint(1, 10)
            start = rng.randrange(len(words) - count)
            yield " ".join(words[start : start + count])
        else:
            (language,) = rng.choices(list(LANGUAGES), list(LANGUAGES.values()))
            chosen = rng.choices(*common[language], k=rng.randint(1, 9))
            yield " ".join(written(word, language, rng) for word in chosen)


def written(word: str, language: str, rng: random.Random) -> str:
    """A word as it may stand in a text: with a capital, a number in its place, marks around it."""
    if rng.random() < (0.35 if language == "de" else 0.12):
        word = word[:1].upper() + word[1:]
    elif rng.random() < 0.03:
        word = word.upper()
    if rng.random() < 0.05:
        word = str(rng.randint(0, rng.choice([9, 31, 99, 1999, 99999])))
    elif language == "fr" and rng.random() < 0.04:
        word = rng.choice("ldnsj") + rng.choice("'\N{RIGHT SINGLE QUOTATION MARK}") + word
    before, after = rng.choices(list(AROUND), list(AROUND.values()))[0]
    return f"{before}{word}{after}"


def draw(text: str, face: Face, rng: random.Random) -> Image.Image:
    """A line (mode L, HEIGHT pixels high), black on white, in somebody's hand."""
    low = UNIT * rng.uniform(0.17, 0.36)
    size = min(100 * low / face.low, 100 * UP * UNIT * rng.uniform(0.75, 1.1) / face.tall)
    font = ImageFont.truetype(str(face.path), max(12, round(FINE * size)))
    height, foot = FINE * HEIGHT, FINE * UP * UNIT
    gap, uneven = font.getlength("n") * rng.uniform(0.35, 1.2), FINE * UNIT * rng.choice([0, 0.02, 0.05])
    apart = rng.choice([0, 0, 0, rng.uniform(-0.02, 0.12)]) * FINE * low
    placed, x = [], 20.0 * FINE
    for word in text.split(" "):
        for part in word if apart else [word]:
            placed.append((x, foot + rng.uniform(-uneven, uneven) * (0.3 if apart else 1), part))
            x += font.getlength(part) + apart
        x += gap * rng.uniform(0.7, 1.3)
    image = Image.new("L", (int(x) + 30 * FINE, height), 0)
    on, thicker = ImageDraw.Draw(image), rng.choice([0, 0, 0, 0, 1, 1, 2])
    for x, y, part in placed:
        on.text((x, y), part, fill=255, font=font, anchor="ls", stroke_width=thicker)
    slant, wider = math.tan(math.radians(rng.uniform(-15, 25))), rng.uniform(0.75, 1.25)
    image = image.transform(
        (round(image.width * wider), height), Image.Transform.AFFINE, (1 / wider, slant, -slant * foot, 0, 1, 0),
        Image.Resampling.BILINEAR,
    )  # fmt: skip
    ink = waved(np.asarray(image, dtype=np.float32) / 255, rng)
    image = Image.fromarray((255 * (1 - ink)).astype(np.uint8))
    image = image.resize((image.width // FINE, HEIGHT), Image.Resampling.BOX)
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2))) if rng.random() < 0.5 else image


def waved(ink: np.ndarray, rng: random.Random) -> np.ndarray:
    """Ink (H, W) in [0, 1] on a baseline that is not straight, and under a pressure that changes."""
    height, width = ink.shape
    x, y = np.arange(width), np.arange(height)[:, None]

    def wave(shortest: float, longest: float) -> np.ndarray:
        return np.sin(2 * math.pi * x / rng.uniform(shortest, longest) + rng.uniform(0, 2 * math.pi))

    shift = height * rng.uniform(0, 0.025) * wave(200, 1500) + rng.uniform(-0.012, 0.012) * (x - width / 2)
    rows = y + np.clip(shift, -0.08 * height, 0.08 * height)
    upper = np.clip(np.floor(rows).astype(int), 0, height - 1)
    share = rows - np.floor(rows)
    ink = ink[upper, x] * (1 - share) + ink[np.minimum(upper + 1, height - 1), x] * share
    return ink * (1 - rng.uniform(0, 0.5) * (0.5 + 0.5 * wave(30, 400))) * rng.uniform(0.65, 1)


def draw_lines(transcripts: Sequence[str], fonts: Path, count: int) -> Iterator[tuple[Image.Image, str]]:
    """Lines and their texts, always the same ones. Only characters of the transcripts are used."""
    rng, faces = random.Random("drawn lines"), faces_in(fonts)
    known = set("".join(transcripts))
    print(f"{len(faces)} fonts: {', '.join(face.path.stem for face in faces)}")

    def all_lines() -> Iterator[tuple[Image.Image, str]]:
        for text in texts_of(transcripts, rng):
            face = rng.choice(faces)
            if text and len(text) <= LONGEST and set(text) - {" "} <= face.characters & known:
                yield draw(text, face, rng), text

    return itertools.islice(all_lines(), count)
