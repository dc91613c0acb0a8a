"""Draw samples/ (twelve names and their labels.csv) and docs/samples.png (what the shipped weights read in them).

python docs/draw_samples.py
"""

import random
import sys
from pathlib import Path

import pandas as pd
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from config import SHIPPED_WEIGHTS  # noqa: E402
from htr.pictures.synthetic import draw_form, draw_name  # noqa: E402
from predict import predict_batch  # noqa: E402

COLUMNS, ROWS, CELL = 3, 4, (400, 96)
RIGHT, WRONG = "#1a7f37", "#cf222e"


def main() -> None:
    folder, rng = ROOT / "samples", random.Random("samples")
    folder.mkdir(exist_ok=True)
    names = {f"name_{number:02}.png": draw_name(rng) for number in range(1, COLUMNS * ROWS + 1)}
    for filename, name in names.items():
        draw_form(name, rng).convert("L").save(folder / filename, optimize=True)
    pd.DataFrame(names.items(), columns=["FILENAME", "IDENTITY"]).to_csv(folder / "labels.csv", index=False)

    sheet = Image.new("RGB", (COLUMNS * CELL[0], ROWS * CELL[1]), "#f6f8fa")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for n, row in predict_batch(SHIPPED_WEIGHTS, folder, save_csv=False).iterrows():
        x, y = n % COLUMNS * CELL[0] + 6, n // COLUMNS * CELL[1] + 4
        with Image.open(folder / row["FILENAME"]) as scan:
            sheet.paste(scan, (x, y))
            y += scan.height + 2
        right = row["PREDICTION"] == names[row["FILENAME"]]
        draw.text((x, y), f"{row['PREDICTION']}   {row['CONFIDENCE']:.2f}", RIGHT if right else WRONG, font)
    sheet.save(Path(__file__).with_name("samples.png"), optimize=True)


if __name__ == "__main__":
    main()
