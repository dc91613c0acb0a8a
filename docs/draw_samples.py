"""Draw docs/samples.png: drawn names with what was read in them.

python train.py --demo && python predict.py --demo && python docs/draw_samples.py
"""

import csv
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

COLUMNS, ROWS, CELL = 3, 6, (400, 96)
RIGHT, WRONG = "#1a7f37", "#cf222e"


def main() -> None:
    with open("demo/output/predictions.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[: COLUMNS * ROWS]
    sheet = Image.new("RGB", (COLUMNS * CELL[0], ROWS * CELL[1]), "#f6f8fa")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for n, row in enumerate(rows):
        x, y = n % COLUMNS * CELL[0] + 6, n // COLUMNS * CELL[1] + 4
        with Image.open(Path("demo/test_v2/test", row["FILENAME"])) as scan:
            sheet.paste(scan, (x, y))
            y += scan.height + 2
        text = f"{row['PREDICTION']}   {float(row['CONFIDENCE']):.2f}"
        draw.text((x, y), text, RIGHT if row["EDITS"] == "0" else WRONG, font)
    sheet.save(Path(__file__).with_name("samples.png"), optimize=True)


if __name__ == "__main__":
    main()
