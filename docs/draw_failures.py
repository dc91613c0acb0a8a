"""Draw weights/failures.png: kinds of images that the shipped weights read badly, each with what they read.

python docs/draw_failures.py
"""

import math
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from config import SHIPPED_WEIGHTS  # noqa: E402
from htr.pictures.images import cut_margins  # noqa: E402
from htr.pictures.synthetic import FIRST_NAMES, draw_form  # noqa: E402
from predict import predict_batch  # noqa: E402

EACH, CELL, LEFT = 5, (240, 84), 170
RIGHT, WRONG = "#1a7f37", "#cf222e"


def line(text: str, rng: random.Random) -> Image.Image:
    """A small picture of the writing, its margins cut away."""
    while True:
        grey = cut_margins(draw_form(text, rng).convert("L"))
        if grey.height <= 26 and grey.width <= 130:
            return grey


def plain(picture: Image.Image, rng: random.Random) -> Image.Image:
    return picture


def cut_below(picture: Image.Image, rng: random.Random) -> Image.Image:
    return picture.crop((0, 0, picture.width, round(picture.height * rng.uniform(0.5, 0.6))))


def neighbours(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Half a line of another name above and below."""
    above, below = line(rng.choice(FIRST_NAMES), rng), line(rng.choice(FIRST_NAMES), rng)
    cut = above.crop((0, above.height // 3, above.width, above.height))
    paper = Image.new("L", (max(picture.width, above.width, below.width) + 8, cut.height + picture.height + 20), 255)
    paper.paste(cut, (rng.randrange(8), 0))
    paper.paste(picture, (rng.randrange(8), cut.height + 3))
    paper.paste(below.crop((0, 0, below.width, 14)), (rng.randrange(8), cut.height + picture.height + 6))
    return paper


def faint(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Most of the ink was lost when the scan was made black and white."""
    patches = Image.frombytes("L", (picture.width // 3 + 1, picture.height // 3 + 1),
                              rng.randbytes((picture.width // 3 + 1) * (picture.height // 3 + 1)))  # fmt: skip
    lost = patches.resize(picture.size, Image.Resampling.BILINEAR).point([255 if v > 110 else 0 for v in range(256)])
    return Image.composite(Image.new("L", picture.size, 255), picture, lost)


def struck_out(picture: Image.Image, rng: random.Random) -> Image.Image:
    """A letter written over."""
    draw = ImageDraw.Draw(picture)
    x = picture.width * rng.uniform(0.3, 0.7)
    points = [(x + rng.uniform(-10, 10), rng.uniform(2, picture.height - 2)) for _ in range(6)]
    draw.line(points, 0, 2)
    return picture


def slanted(picture: Image.Image, rng: random.Random) -> Image.Image:
    slant = math.tan(math.radians(45))
    size = (round(picture.width + slant * picture.height), picture.height)
    shear = (1, slant, -slant * picture.height, 0, 1, 0)
    return picture.transform(size, Image.Transform.AFFINE, shear, Image.Resampling.BILINEAR, fillcolor=255)


KINDS: dict[str, Callable] = {
    "for comparison": plain,
    "letters cut off": cut_below,
    "neighbouring lines": neighbours,
    "faint": faint,
    "written over": struck_out,
    "slanted by 45 degrees": slanted,
}


def main() -> None:
    rng = random.Random("failures")
    sheet = Image.new("RGB", (LEFT + EACH * CELL[0], len(KINDS) * CELL[1]), "#f6f8fa")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    with tempfile.TemporaryDirectory() as folder:
        names = {}
        for row, (kind, spoil) in enumerate(KINDS.items()):
            draw.text((8, row * CELL[1] + 20), kind, "black", font)
            for column in range(EACH):
                name = rng.choice(FIRST_NAMES)
                names[f"{row}{column}.png"] = name
                spoil(line(name, rng), rng).save(Path(folder, f"{row}{column}.png"))
        for _, read in predict_batch(SHIPPED_WEIGHTS, folder, save_csv=False).iterrows():
            filename = read["FILENAME"]
            row, column = map(int, filename[:2])
            x, y = LEFT + column * CELL[0], row * CELL[1] + 6
            with Image.open(Path(folder, filename)) as picture:
                sheet.paste(picture, (x, y))
                y += picture.height + 2
            right = read["PREDICTION"] == names[filename]
            text = f"{read['PREDICTION']}   {read['CONFIDENCE']:.2f}" + ("" if right else f"   not {names[filename]}")
            draw.text((x, y), text, RIGHT if right else WRONG, font)
    sheet.save(ROOT / "weights" / "failures.png", optimize=True)


if __name__ == "__main__":
    main()
