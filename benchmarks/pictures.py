"""The same lines in other pictures: grey paper, pencil, shadows, canvas, corners, ruled paper, formats.

    python benchmarks/pictures.py --data-dir DIR

Makes every variant of the first validation scans in a temporary folder, reads them with predict.py and the shipped
weights, and prints CER and exact match; with a copy of the weights that leaves the levels as they are, too.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from config import SHIPPED_WEIGHTS  # noqa: E402
from dataset import find_images, find_labels, label_rules  # noqa: E402
from htr.images import find_files  # noqa: E402
from htr.scores import Score, Truth  # noqa: E402
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
