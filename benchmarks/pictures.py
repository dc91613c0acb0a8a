"""The same lines in other pictures: grey paper, pencil, shadows, canvas, tints, stamps, ruled paper, formats.

    python benchmarks/pictures.py --data-dir DIR

Makes every variant of the first validation scans in a temporary folder, reads them with predict.py and the shipped
weights, and prints CER and exact match; with a copy of the weights that leaves the levels as they are, too.
"""

import argparse
import csv
import io
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from config import SHIPPED_WEIGHTS  # noqa: E402
from dataset import find_images, find_labels, label_rules  # noqa: E402
from htr.pictures.images import find_files  # noqa: E402
from htr.results.scores import Score, Truth  # noqa: E402
from utils import load_checkpoint, restore_settings, save_checkpoint  # noqa: E402

Change = Callable[[Image.Image], Image.Image]
BICUBIC = Image.Resampling.BICUBIC


def levels(ink: int, paper: int) -> Change:
    """Greys from 0 to 255 become those from ink to paper."""
    return lambda image: image.point([round(ink + value * (paper - ink) / 255) for value in range(256)])


def pixels(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    """A change of the pixels (H, W) in [0, 255]."""
    return lambda image: Image.fromarray(np.clip(change(np.asarray(image, dtype=float)), 0, 255).astype(np.uint8))


def light(share: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Change:
    """Multiply by a share of the light at (x, y), both from 0 to 1."""

    def change(values: np.ndarray) -> np.ndarray:
        y, x = np.mgrid[: values.shape[0], : values.shape[1]]
        return values * share(x / values.shape[1], y / values.shape[0])

    return pixels(change)


def noise(deviation: float) -> Change:
    return pixels(lambda values: values + np.random.default_rng(0).normal(0, deviation, values.shape))


def canvas(grey: int, margin: int = 25) -> Change:
    def change(image: Image.Image) -> Image.Image:
        around = Image.new("L", (image.width + 3 * margin, image.height + 2 * margin), grey)
        around.paste(image, (margin, margin))
        return around

    return change


def turned(degrees: float, around: int, expand: bool = True) -> Change:
    return lambda image: image.rotate(degrees, BICUBIC, expand=expand, fillcolor=around)


def ruled(grey: int, squared: bool = False, step: int = 12) -> Change:
    def change(image: Image.Image) -> Image.Image:
        paper = ImageOps.expand(image, (0, 6), 255)
        values = np.array(paper)
        values[3::step] = np.minimum(values[3::step], grey)
        if squared:
            values[:, 5::step] = np.minimum(values[:, 5::step], grey)
        return Image.fromarray(values)

    return change


def dark_border(image: Image.Image) -> Image.Image:
    """As where a scanner's lid was open: dark to the left and below."""
    values = np.array(ImageOps.expand(image, (18, 2, 2, 8), 255))
    values[:, :14] = np.minimum(values[:, :14], np.linspace(20, 90, 14)[None])
    values[-5:] = 30
    return Image.fromarray(values)


def staple(image: Image.Image) -> Image.Image:
    ImageDraw.Draw(image).line((4, 4, 26, 9), fill=0, width=3)
    return image


def dead_pixels(image: Image.Image) -> Image.Image:
    for x, y, grey in ((3, 3, 0), (image.width - 4, 5, 255), (image.width // 2, 2, 0)):
        image.putpixel((x, y), grey)
    return image


def frame(image: Image.Image) -> Image.Image:
    image = ImageOps.expand(image, 12, image.getpixel((0, 0)))
    ImageDraw.Draw(image).rectangle((3, 3, image.width - 4, image.height - 4), outline=0, width=2)
    return image


def vignette(paper: int, ink: int, corners: float) -> Change:
    """`ink` on `paper`, and a share of the light missing that grows from 0 in the middle to `corners`."""
    fall = light(lambda x, y: 1 - corners * 2 * ((x - 0.5) ** 2 + (y - 0.5) ** 2))
    return lambda image: fall(levels(ink, paper)(image))


def coloured(change: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]) -> Change:
    """A change of the colours (H, W, 3) in [0, 1], given x and y in shares of the width and the height, as (H, W)."""

    def changed(image: Image.Image) -> Image.Image:
        values = np.asarray(image.convert("RGB"), dtype=float) / 255
        y, x = np.mgrid[: values.shape[0], : values.shape[1]]
        values = change(values, x / values.shape[1], y / values.shape[0])
        return Image.fromarray(np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8))

    return changed


def between(values: np.ndarray, low: float, high: float, soft: float = 1e-9) -> np.ndarray:
    """1 from low to high, 0 outside, and between them over a width of `soft`."""
    return np.clip((values - low) / soft + 0.5, 0, 1) * np.clip((high - values) / soft + 0.5, 0, 1)


ALL, STRIPE, BELOW = ((0.1, 0.9), (-1, 2)), ((-1, 2), (0.25, 0.75)), ((-1, 2), (0.55, 1.1))  # columns, rows


def marker(colour: tuple[int, int, int], area: tuple = ALL, soft: float = 1e-9) -> Change:
    """A highlighter over an area of the line: it takes the light of other colours."""

    def change(values: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        share = (between(x, *area[0], soft) * between(y, *area[1], soft))[:, :, None]
        return values * (1 - share + share * np.array(colour) / 255)

    return coloured(change)


def drawn(draw: Callable[[ImageDraw.ImageDraw, int, int], None], colour: tuple[int, int, int]) -> Change:
    """A shape of a coloured, translucent ink; `draw` gets the width and height."""

    def change(image: Image.Image) -> Image.Image:
        shape = Image.new("L", image.size, 0)
        draw(ImageDraw.Draw(shape), *image.size)
        share = np.asarray(shape, dtype=float)[:, :, None] / 255
        return coloured(lambda values, x, y: values * (1 - share + share * np.array(colour) / 255))(image)

    return change


def stamp(draw: ImageDraw.ImageDraw, width: int, height: int) -> None:
    size, centre = 0.42 * height, (0.6 * width, 0.55 * height)
    for scale in (1, 0.75):
        box = [centre[0] - scale * size, centre[1] - scale * size, centre[0] + scale * size, centre[1] + scale * size]
        draw.ellipse(box, outline=220, width=2)
    draw.text((centre[0] - 0.6 * size, centre[1] - 5), "REÇU", fill=220)


def stain(draw: ImageDraw.ImageDraw, width: int, height: int) -> None:
    """Of a cup: a ring, darker at its edge."""
    box = [0.2 * width, -0.6 * height, 0.2 * width + 2 * height, 1.4 * height]
    draw.ellipse(box, fill=110, outline=255, width=4)


def window(draw: ImageDraw.ImageDraw, width: int, height: int) -> None:
    draw.rectangle([0.35 * width, 0, 0.75 * width, height], fill=255)


def seen_through(share: float) -> Change:
    """The other side of the sheet, the same writing mirrored and blurred, with a share of the ink's strength."""

    def change(image: Image.Image) -> Image.Image:
        behind = ImageOps.mirror(image).filter(ImageFilter.GaussianBlur(1.2))
        return ImageChops.multiply(image, behind.point([round(255 - share * (255 - grey)) for grey in range(256)]))

    return change


def dotted(image: Image.Image) -> Image.Image:
    values = np.array(ImageOps.expand(image, (0, 6), 255))
    for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
        values[3 + y :: 12, 5 + x :: 12] = np.minimum(values[3 + y :: 12, 5 + x :: 12], 170)
    return Image.fromarray(values)


def fold(values: np.ndarray) -> np.ndarray:
    """A crease across the line: dark on one side of it, light on the other."""
    x = np.arange(values.shape[1]) - 0.45 * values.shape[1]
    shade = 0.25 * np.exp(-np.abs(x) / 6) * (x > 0) - 0.1 * np.exp(-np.abs(x) / 6) * (x <= 0)
    return values * (1 - shade) - 60 * (np.abs(x) < 1)


def crumpled(values: np.ndarray) -> np.ndarray:
    small = np.random.default_rng(0).uniform(0.82, 1, (4, max(4, values.shape[1] // 40)))
    shade = Image.fromarray((255 * small).astype(np.uint8)).resize(values.shape[::-1], BICUBIC)
    return values * np.asarray(shade, dtype=float) / 255


def blotted(image: Image.Image) -> Image.Image:
    """White fluid under a part of the writing, on grey paper."""
    paper = levels(30, 205)(image)
    values, fluid = np.array(paper, dtype=float), np.asarray(levels(30, 252)(image), dtype=float)
    left, right = int(0.4 * image.width), int(0.7 * image.width)
    values[:, left:right] = fluid[:, left:right]
    return Image.fromarray(values.astype(np.uint8))


def margin_line(draw: ImageDraw.ImageDraw, width: int, height: int) -> None:
    draw.line([0.12 * width, 0, 0.12 * width, height], fill=255, width=2)


def in_jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=40)
    return Image.open(buffer)


def in_16_bits(factor: int) -> Change:
    return lambda image: Image.fromarray(np.asarray(image).astype(np.uint16) * factor)


def in_alpha(image: Image.Image, ink: int) -> Image.Image:
    return Image.merge("LA", (Image.new("L", image.size, ink), ImageOps.invert(image)))


VARIANTS: dict[str, tuple[Change, ...]] = {
    "as scanned": (),
    "paper 215": (levels(0, 215),),
    "ink 70 on paper 190": (levels(70, 190),),
    "pencil: ink 170 on paper 235": (levels(170, 235),),
    "ink 200 on paper 225": (levels(200, 225),),
    "overexposed: ink 120 on paper 255": (levels(120, 255),),
    "underexposed: ink 0 on paper 110": (levels(0, 110),),
    "ink 60 on paper 225, noise of 5": (levels(60, 225), noise(5)),
    "ink 190 on paper 230, noise of 3": (levels(190, 230), noise(3)),
    "white on black": (ImageOps.invert,),
    "chalk 255 on a board of 60": (ImageOps.invert, levels(60, 255)),
    "chalk, the board darker to one side": (ImageOps.invert, levels(60, 255), light(lambda x, y: 1 - 0.4 * x)),
    "light falling from 255 to 200 along the line": (light(lambda x, y: 1 - 0.22 * x),),
    "shadow with an edge, 200 instead of 255": (light(lambda x, y: np.where(x < 0.5, 1, 0.78)),),
    "slanted shadow, 180 instead of 255": (light(lambda x, y: np.where(x + 0.2 * y < 0.55, 1, 0.7)),),
    "vignette on paper 190": (levels(60, 190), light(lambda x, y: 1 - 0.6 * ((x - 0.5) ** 2 + (y - 0.5) ** 2))),
    "black canvas around the paper": (canvas(0),),
    "much black canvas": (canvas(0, 120),),
    "grey canvas": (canvas(128),),
    "white canvas around paper 190": (levels(70, 190), canvas(255)),
    "faint ink 200 on paper 230, black canvas": (levels(200, 230), canvas(0)),
    "turned by 3 degrees, white corners": (turned(3, 255),),
    "turned by 3 degrees, black corners": (turned(3, 0),),
    "turned by -3 degrees, black corners": (turned(-3, 0),),
    "turned by 3 degrees, grey corners": (turned(3, 128),),
    "pencil 150 on 230, black corners": (levels(150, 230), turned(3, 0)),
    "chalk, white corners": (ImageOps.invert, levels(60, 235), turned(3, 255)),
    "turned by 3 degrees and cut to size, white corners": (turned(3, 255, expand=False),),
    "turned by 3 degrees and cut to size, black corners": (turned(3, 0, expand=False),),
    "dark border of a scanner": (dark_border,),
    "faint ruled lines (200), every 12 pixels": (ruled(200),),
    "the same on paper 200, ink 70": (ruled(200), levels(70, 200)),
    "faint ruled lines, turned by 0.5 degrees": (ruled(200), turned(0.5, 255)),
    "faint ruled lines, turned by 1 degree": (ruled(200), turned(1, 255)),
    "faint squares (200)": (ruled(200, squared=True),),
    "ruled lines of 140": (ruled(140),),
    "staple on pencil": (levels(150, 230), staple),
    "dead and hot pixels on pencil": (levels(150, 230), dead_pixels),
    "printed frame around pencil": (levels(150, 230), frame),
    "yellow marker on grey paper, black ink": (levels(20, 215), marker((255, 255, 0))),
    "the same with a soft edge": (levels(20, 215), marker((255, 255, 0), soft=0.2)),
    "yellow stripe along the line": (levels(20, 215), marker((255, 255, 0), STRIPE)),
    "yellow stripe under the line": (levels(20, 215), marker((255, 255, 0), BELOW)),
    "yellow stripe on a grey scan": (levels(20, 215), marker((190, 190, 190), STRIPE)),
    "orange marker": (levels(20, 235), marker((255, 165, 0))),
    "orange stripe": (levels(20, 235), marker((255, 165, 0), STRIPE)),
    "pink stripe": (levels(20, 235), marker((255, 105, 180), STRIPE)),
    "green stripe": (levels(20, 235), marker((90, 230, 80), STRIPE)),
    "blue stripe, blue ink": (
        coloured(lambda v, x, y: 0.15 + 0.75 * v + 0.25 * (1 - v) * (0, 0.2, 1)),
        marker((110, 190, 255), STRIPE),
    ),
    "paper of two colours": (levels(20, 235), drawn(window, (250, 205, 150))),
    "red stamp over black ink": (levels(20, 235), drawn(stamp, (215, 60, 70))),
    "a cup's stain": (levels(20, 235), drawn(stain, (190, 150, 95))),
    "red line of a margin": (levels(20, 235), drawn(margin_line, (230, 110, 120))),
    "vignette, 35 % in the corners, ink 40 on paper 235": (vignette(235, 40, 0.35),),
    "vignette, 50 % in the corners, ink 60 on paper 200": (vignette(200, 60, 0.5),),
    "the other side showing through, 20 % as strong": (seen_through(0.2),),
    "the other side showing through, 30 % as strong": (seen_through(0.3),),
    "dotted paper": (dotted,),
    "dotted paper of 220, ink 60": (dotted, levels(60, 220)),
    "a fold across the line": (levels(40, 235), pixels(fold)),
    "crumpled paper": (levels(40, 235), pixels(crumpled)),
    "white fluid under a part, grey paper": (blotted,),
    "light of a flash": (levels(40, 190), light(lambda x, y: 1 + 0.34 * np.exp(-((x - 0.5) ** 2) / 0.02))),
    "JPEG of quality 40, ink 70 on paper 190": (levels(70, 190), in_jpeg),
    "10 bits in 16": (in_16_bits(4),),
    "light ink on transparency": (lambda image: in_alpha(image, 230),),
    "unused alpha": (lambda image: Image.merge("LA", (image, Image.new("L", image.size, 0))),),
}


def write_variants(data_dir: Path, names: list[str], folder: Path) -> None:
    images = find_images(data_dir, "validation")
    for number, changes in enumerate(VARIANTS.values()):
        (folder / f"{number:02}").mkdir()
        for name in names:
            with Image.open(images / name) as scan:
                image = scan.convert("L")
            for change in changes:
                image = change(image)
            image.save(folder / f"{number:02}" / f"{Path(name).stem}.png")


def read(folder: Path, model_path: Path) -> dict[str, str]:
    """Read all variants; the texts by file name."""
    command = [sys.executable, ROOT / "predict.py", folder, "--model-path", model_path, "--output-dir", folder / "out"]
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, check=False)
    if done.returncode:
        sys.exit("predict.py failed")
    with open(folder / "out" / "predictions.csv", newline="", encoding="utf-8") as file:
        return {row["FILENAME"]: row["PREDICTION"] for row in csv.DictReader(file)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--images", type=int, default=160, help="scans (default: 160)")
    args = parser.parse_args()
    checkpoint = load_checkpoint(SHIPPED_WEIGHTS)
    settings, _ = restore_settings(checkpoint, SHIPPED_WEIGHTS)
    files = find_files([find_images(args.data_dir, "validation")]).files
    truth = Truth(find_labels(args.data_dir, "validation"), label_rules(settings), files)
    names = sorted(truth.labels)[: args.images]
    with tempfile.TemporaryDirectory() as place:
        (folder := Path(place, "variants")).mkdir()
        write_variants(args.data_dir, names, folder)
        plain = Path(place, "without_levels.pth")
        save_checkpoint(checkpoint | {"config": checkpoint["config"] | {"LEVELS": False}}, plain)
        readings = [read(folder, path) for path in (plain, SHIPPED_WEIGHTS)]
    print("| picture | greys as they are: CER | exact | levels: CER | exact |\n" + "|---" * 5 + "|")
    for number, variant in enumerate(VARIANTS):
        scores = [Score(), Score()]
        for name in names:
            for score, texts in zip(scores, readings, strict=True):
                score.add(truth.labels[name], texts[f"{number:02}/{Path(name).stem}.png"])
        print(f"| {variant} | " + " | ".join(f"{score.cer:.4f} | {score.exact:.3f}" for score in scores) + " |")


if __name__ == "__main__":
    main()
