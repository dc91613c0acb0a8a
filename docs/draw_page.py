"""Draw docs/page.jpg, a page as if photographed by hand, and docs/page_read.jpg, beside it what is read of it.

    python docs/draw_page.py FONT

FONT is a handwriting font; that of the picture is DancingScript-Regular.otf, of Debian's fonts-dancingscript. The page
is read as by predict.py docs/page.jpg --pages --spelling.
"""

import random
import sys
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from config import SHIPPED_LINES  # noqa: E402
from predict import predict_page  # noqa: E402

TEXT = """Lyon, le 14 mai 1921
Ma chère Louise,
Nous sommes bien arrivés hier soir, après
huit heures de route. La maison est froide
mais le jardin est plein de fleurs et les
enfants courent partout. Demain nous irons
au marché avec ta tante, puis chez le
docteur, qui demande de tes nouvelles.
Écris-nous bientôt et embrasse ton père.
Ton frère qui pense à toi,
Antoine"""
RIGHT = ("Lyon,", "Antoine")  # begins of lines that stand at the right
WIDTH, HEIGHT, DISTANCE, TOP, LEFT = 1240, 1500, 112, 150, 120  # pixels
PAPER, RULE, INK = (243, 238, 224), (196, 208, 222), (38, 44, 92)


def written(path: str, rng: random.Random) -> tuple[Image.Image, list[np.ndarray]]:
    """The sheet: words on ruled lines, each a little off its line, larger or smaller; and the lines' baselines."""
    font = ImageFont.truetype(path, 60)
    longest = max(map(font.getlength, TEXT.splitlines()))
    font = font.font_variant(size=56 * (WIDTH - 2 * LEFT) / longest)
    sheet = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    draw = ImageDraw.Draw(sheet)
    lines, baselines = TEXT.splitlines(), []
    for number in range(len(lines)):
        y = TOP + number * DISTANCE
        draw.line([(0, y + 6), (WIDTH, y + 6)], RULE, 2)
    for number, line in enumerate(lines):
        x = LEFT + rng.uniform(-8, 8) if not line.startswith(RIGHT) else WIDTH - LEFT - font.getlength(line)
        drift, points = rng.uniform(-0.004, 0.004), []
        for word in line.split():
            size = font.size * rng.uniform(0.97, 1.03)
            own = font.font_variant(size=size)
            y = TOP + number * DISTANCE + drift * x + rng.uniform(-3, 3)
            draw.text((x, y), word, INK, own, anchor="ls")
            points += [(x, y), (x + own.getlength(word), y)]
            x += own.getlength(word) + font.getlength(" ") * rng.uniform(1.0, 1.4)
        baselines.append(np.array(points))
    return sheet, baselines


def photographed(sheet: Image.Image, rng: random.Random) -> Image.Image:
    """On a dark table, turned, seen a little from the side, with a shadow and noise."""
    table = Image.new("RGB", (WIDTH + 160, HEIGHT + 160), (74, 58, 46))
    table.paste(sheet, (80, 80))
    table = table.rotate(1.6, Image.Resampling.BICUBIC, fillcolor=(74, 58, 46))
    width, height = table.size
    corners = (18, 10, 0, height, width, height - 14, width - 26, 30)  # what becomes the corners of the photo
    photo = table.transform((width, height), Image.Transform.QUAD, corners, Image.Resampling.BICUBIC)
    pixels = np.asarray(photo.filter(ImageFilter.GaussianBlur(0.8)), np.float32)
    y, x = np.mgrid[0:height, 0:width]
    light = 0.72 + 0.28 / (1 + np.exp(-(x + 0.6 * y - 500) / 160))  # a shadow at the upper left
    noise = np.random.default_rng(rng.randrange(2**31)).normal(0, 4, (height, width, 1))
    return Image.fromarray((pixels * light[..., None] + noise).clip(0, 255).astype(np.uint8))


def beside(photo: Image.Image, path: Path) -> Image.Image:
    """The photo with the lines that were found, and their texts beside them."""
    lines = predict_page(SHIPPED_LINES, path, spelling=True)
    shown = Image.new("RGB", (photo.width + 1010, photo.height), "white")
    shown.paste(photo, (0, 0))
    draw = ImageDraw.Draw(shown)
    font = ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), 40)
    for line in lines:
        baseline = [tuple(point) for point in line.baseline]
        draw.line(baseline, (214, 72, 30), 4)
        y = sum(point[1] for point in baseline) / len(baseline)
        draw.text((photo.width + 40, y), line.text, "black", font, anchor="ls")
        print(f"{line.confidence:.2f} {line.text}")
    return shown


def main() -> None:
    rng = random.Random(0)
    sheet, _ = written(sys.argv[1], rng)
    photo = photographed(sheet, rng)
    path = ROOT / "docs" / "page.jpg"
    photo.save(path, quality=80)
    beside(photo, path).resize((1205, 830), Image.Resampling.LANCZOS).save(ROOT / "docs" / "page_read.jpg", quality=80)


if __name__ == "__main__":
    main()
