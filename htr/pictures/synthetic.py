"""Draws hand-printed names on school forms, in the layout of the Kaggle dataset: data without a download.

    python -m htr.pictures.synthetic DIR     # what --demo does, into a folder of your choice

Each picture depends only on the seed and its own number.
"""

import argparse
import csv
import io
import math
import random
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from htr.system.files import whole_file
from htr.system.names import DRAWN
from htr.system.scripts import run

SIZES = {"train": 4000, "validation": 300, "test": 500}

FIRST_NAMES = """
ADAM ADRIEN AGATHE ALEXANDRE ALEXIS ALICE AMANDINE AMBRE AMELIE AMINE ANAIS ANDREA ANTHONY ANTOINE ARTHUR AUDREY AURELIE
AXEL BAPTISTE BASTIEN BENJAMIN BILAL BRYAN CAMILLE CARLA CELIA CHARLOTTE CHLOE CLARA CLEMENT COLINE CORALIE CYRIL DAMIEN
DAVID DIEGO DORIAN DYLAN ELIAS ELISE ELOISE EMMA ENZO ERWAN ESTELLE ETHAN EVA FABIEN FANNY FATIMA FLORIAN GABRIEL GAELLE
GAUTIER HELENE HUGO IBRAHIM ILYES INES IRIS ISAAC JADE JASON JEAN-PAUL JEANNE JEREMY JOHAN JONAS JORDAN JOSEPH JULES
JULIE JULIETTE JUSTINE KARIM KENZA KEVIN KILLIAN LANA LAURA LEA LEANE LENA LEO LEON LILOU LINA LISA LOLA LORENZO LOUIS
LOUISE LUCAS LUCIE LUDIVINE MAEL MAELLE MAEVA MANON MARGAUX MARGOT MARIE MARIE-LOU MARINE MARION MARTIN MATEO MATHILDE
MATHIS MAXENCE MAXIME MELISSA MEHDI MILA MOHAMED MORGANE NADIA NATHAN NICOLAS NINA NINON NOAH NOEMIE NOLAN NORA OCEANE
OLIVIER OSCAR OUMAR PABLO PAUL PAULINE PIERRE QUENTIN RACHEL RAPHAEL RAYAN REMI ROBIN ROMAIN ROMANE ROSE RUBEN SACHA
SALOME SAMUEL SARAH SIMON SOFIA SOLENE STEVEN TEO THEO THIBAULT THOMAS TIMEO TITOUAN TOM TRISTAN VALENTIN VICTOR VINCENT
WASSIM WILLIAM XAVIER YANIS YASMINE YOANN YOUSSEF ZOE
""".split()

SURNAMES = [name.replace("_", " ") for name in """
ADAM ALLARD ANDRE ARNAUD AUBERT BAILLY BARBIER BARON BENOIT BERGER BERNARD BERTIN BESSON BLANC BLANCHARD BONNET BOUCHER
BOULANGER BOURGEOIS BOUVIER BOYER BRETON BRUN BRUNET CARLIER CARON CARPENTIER CHARPENTIER CHEVALIER CLEMENT COHEN COLIN
COLLET COUSIN D'ALMEIDA DA_SILVA DANIEL DE_SOUSA DESCHAMPS DIALLO DIDIER DUBOIS DUFOUR DUMAS DUMONT DUPONT DUPUIS
DURAND DUVAL ETIENNE FABRE FAURE FERNANDEZ FERRY FLEURY FONTAINE FOURNIER FRANCOIS GAILLARD GARCIA GARNIER GAUTHIER
GERARD GIRARD GONZALEZ GRAND GUERIN GUILLOT HAMON HENRY HERVE HOARAU HUBERT HUET HUMBERT JACOB JACQUET JOLY JULIEN KLEIN
LACROIX LAMBERT LAMY LAURENT LE_GALL LE_ROUX LEBLANC LEBRUN LECLERC LECOMTE LEFEBVRE LEGRAND LEMAIRE LEROY LESAGE LEVY
LOPEZ LUCAS MAILLARD MALLET MARCHAND MARECHAL MARTEL MARTINEZ MARTY MASSON MATHIEU MENARD MERCIER MEUNIER MEYER MICHEL
MOREAU MOREL MORIN MOULIN MULLER N'DIAYE NICOLAS NOEL NGUYEN OLIVIER PARIS PASQUIER PAYET PELLETIER PEREZ PERRIN PETIT
PHILIPPE PICARD PIERRE POIRIER PONS POULAIN PREVOST RENARD RENAUD REY REYNAUD RICHARD RIVIERE ROBERT ROBIN ROCHE ROGER
ROLLAND ROUSSEAU ROUX ROY ROYER SANCHEZ SCHMITT SIMON TESSIER THOMAS TRAORE VASSEUR VIDAL VINCENT WAGNER WALTER WEBER
YILMAZ ZIMMERMANN
""".split()]  # fmt: skip

# A glyph is its strokes, a stroke its points on a grid 6 wide and 8 high, digit pairs "xy" from the top left; "~" draws
# a smooth curve through them. Several ways to write a letter are drawn with equal probability.
GLYPHS = {
    "A": ["08 30 68|15 55", "~08 12 30 52 68|05 65", "~08 13 30 53 68|14 55"],
    "B": ["00 08|~00 31 42 33 04|~04 44 56 47 08", "~08 00 41 43 14|~14 54 57 08"],
    "C": ["~61 40 12 04 17 48 67", "~51 20 03 06 28 57"],
    "D": ["00 08|~00 41 64 47 08", "08 00|~00 42 55 47 08"],
    "E": ["50 00 08 58|04 44", "60 00|00 08|08 58|03 53", "~51 20 02 34 06 28 57"],
    "F": ["60 00 08|04 44", "08 00|00 50|03 53"],
    "G": ["~61 30 03 05 38 67|67 64 34", "~51 20 04 28 57|57 54 24 54"],
    "H": ["00 08|60 68|04 64", "10 08|60 58|05 64"],
    "I": ["30 38", "33 38|30 31", "10 50|30 38|18 58"],
    "J": ["~50 55 47 28 06", "20 60|~50 55 47 28 07"],
    "K": ["00 08|50 04 58", "00 08|60 14 68"],
    "L": ["00 08 58", "10 08 68"],
    "M": ["08 00 34 60 68", "08 10 35 50 68", "~08 01 10 35 50 61 68"],
    "N": ["08 00 68 60", "08 10 58 60", "~08 03 10 37 58 60"],
    "O": ["~30 11 04 17 38 57 64 51 30", "~40 12 05 28 57 63 40 20"],
    "P": ["00 08|~00 41 52 44 04", "08 00|~01 30 62 45 05"],
    "Q": ["~30 11 04 17 38 57 64 51 30|45 68", "~30 03 06 38 65 62 30|~36 57 78"],
    "R": ["00 08|~00 41 42 34 04|14 58", "08 00|~01 30 52 34 04|24 68"],
    "S": ["~61 30 02 34 55 47 18 07", "~50 11 12 44 56 38 07"],
    "T": ["00 60|30 38", "01 60|30 28"],
    "U": ["~00 04 17 38 57 64 60", "00 05|~05 28 57 60|60 68"],
    "V": ["00 38 60", "~00 15 38 55 60"],
    "W": ["00 18 32 58 60", "~00 06 18 33 48 66 60"],
    "X": ["00 68|60 08", "10 58|60 08"],
    "Y": ["00 34 60|34 38", "00 34|60 08"],
    "Z": ["00 60 08 68", "00 60 08 68|14 54"],
    "-": ["05 45"],
    "'": ["30 22"],
}
PRINTED_ABOVE = ("CODE RNE / UAI : 0 8 3 0 5", "ETABLISSEMENT", "NUMERO : 2 1 9 0 6 5 4")
PRINTED_BELOW = ("DATE DE NAISSANCE  CLASSE", "PRENOM", "CLASSE : 6eme", "DATE DE NAISSANCE :")
ZOOM = 4  # drawn larger, then reduced, so that strokes are smooth


def _smooth(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points on the Catmull-Rom spline through `points`."""
    padded = [points[0], *points, points[-1]]
    curve = []
    for (x0, y0), (x1, y1), (x2, y2), (x3, y3) in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        for t in (0, 0.2, 0.4, 0.6, 0.8):
            a, b, c, d = -t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2
            curve.append(((a * x0 + b * x1 + c * x2 + d * x3) / 2, (a * y0 + b * y1 + c * y2 + d * y3) / 2))
    return [*curve, points[-1]]


def _write(draw: ImageDraw.ImageDraw, rng: random.Random, text: str, x: float, baseline: float, height: float) -> float:
    """Write `text` by hand from x on, in pixels of the picture; returns where it ends.

    Slant, spacing, pen width and steadiness are the writer's; each letter varies in size, angle and position.
    """
    slant = rng.gauss(0.05, 0.15)
    width = height * rng.uniform(0.5, 0.8)
    gap = height * rng.choice((rng.uniform(0.15, 0.4), rng.uniform(0.4, 1.0)))
    pen = rng.choice((rng.uniform(0.9, 1.6), rng.uniform(1.2, 2.4)))
    wobble = rng.uniform(0.01, 0.06)
    climb = rng.gauss(0, 0.015)
    habit = {letter: rng.choice(ways) for letter, ways in GLYPHS.items()}
    start = x
    for letter in text:
        if letter == " ":
            x += height * rng.uniform(0.7, 1.2)
            continue
        size = height * rng.gauss(1, 0.06)
        wide = width * (0.5 if letter in "I'" else 1.2 if letter in "MW" else 1) * rng.gauss(1, 0.08)
        turn = rng.gauss(0, 0.05)
        foot = baseline + climb * (x - start) + height * rng.gauss(0, 0.04)
        way = habit[letter] if rng.random() < 0.8 else rng.choice(GLYPHS[letter])
        for stroke in way.split("|"):
            points = []
            for pair in stroke.lstrip("~").split():
                u = int(pair[0]) / 6 - 0.5 + rng.gauss(0, wobble)
                v = 1 - int(pair[1]) / 8 + rng.gauss(0, wobble)
                px = u * wide * math.cos(turn) + v * size * (slant + math.sin(turn))
                py = v * size * math.cos(turn) - u * wide * math.sin(turn)
                points.append(((x + wide / 2 + px) * ZOOM, (foot - py) * ZOOM))
            if stroke[0] == "~":
                points = _smooth(points)
            draw.line(points, fill=0, width=round(pen * ZOOM), joint="curve")
            radius = pen * ZOOM / 2
            for px, py in (points[0], points[-1]):
                draw.ellipse((px - radius, py - radius, px + radius, py + radius), fill=0)
        x += wide + gap * rng.uniform(0.8, 1.2)
    return x


def draw_form(text: str, rng: random.Random) -> Image.Image:
    """A scan of `text` written on a form, mode RGB, about 280-390 x 24-72 pixels; an empty text leaves it blank."""
    letter = rng.uniform(11, 19)
    layout = rng.choice(("plain", "beside", "above", "between"))
    printed = rng.choice(("NOM", "PRENOM"))
    size, left, baseline = {
        "plain": ((324, 44), rng.uniform(6, 30), rng.uniform(28, 36)),
        "beside": ((388, rng.choice((24, 27, 30, 36))), rng.uniform(70, 100), 0.0),
        "above": ((284, rng.choice((31, 46, 50))), rng.uniform(10, 32), 0.0),
        "between": ((284, rng.choice((62, 68, 71))), rng.uniform(20, 40), rng.uniform(44, 52)),
    }[layout]
    width, height = size
    if not baseline:
        letter = min(letter, height - 12)
        baseline = height - rng.uniform(2, 6)
    canvas = Image.new("L", (width * ZOOM, height * ZOOM), 255)
    draw = ImageDraw.Draw(canvas)

    def printing(words: str, x: float, top: float, points: float, bold: float = 0) -> None:
        draw.text((x * ZOOM, top * ZOOM), words, 0, ImageFont.load_default(points * ZOOM), stroke_width=bold)

    if layout == "beside":
        printing(printed + " :", rng.uniform(2, 12), baseline - rng.uniform(9, 13), 11, 1)
        if height >= 30 and rng.random() < 0.6:  # the line above, cut by the scan's edge
            printing(rng.choice(PRINTED_ABOVE), rng.uniform(0, 20), rng.uniform(-10, -7), 11, 1)
        if rng.random() < 0.3:  # a time stamp, turned by 90 degrees
            stamp = Image.new("L", (60 * ZOOM, 12 * ZOOM), 255)
            ImageDraw.Draw(stamp).text((0, 0), f"{rng.randrange(24)}:{rng.randrange(60):02}", 0,
                                       ImageFont.load_default(10 * ZOOM))  # fmt: skip
            canvas.paste(stamp.rotate(90, expand=True), (-3 * ZOOM, rng.randint(-40, -20) * ZOOM))
    elif layout == "above":
        printing(printed, left + rng.uniform(-4, 4), baseline - letter - rng.uniform(11, 18), 10)
    elif layout == "between":
        printing(printed, left + rng.uniform(-4, 4), rng.uniform(0, 6), 10)
        printing(rng.choice(PRINTED_BELOW), left, height - rng.uniform(5, 10), 10)
    if layout != "plain" and rng.random() < 0.15:
        draw.line((2 * ZOOM, 0, 2 * ZOOM, height * ZOOM), 0, ZOOM)  # the form's frame

    # A name that runs out of the paper is written again, smaller.
    pen_state = rng.getstate()
    while _write(ImageDraw.Draw(Image.new("L", (1, 1))), rng, text, left, baseline, letter) > width - 4 and letter > 6:
        letter, left = letter * 0.9, max(left * 0.95, 72 if layout == "beside" else 4)
        rng.setstate(pen_state)
    rng.setstate(pen_state)
    _write(draw, rng, text, left, baseline, letter)

    # The scanner: noise, black or white at twice the resolution, then reduced; a faint pen leaves broken strokes.
    fine = canvas.reduce(ZOOM // 2)
    noise = Image.frombytes("L", fine.size, rng.randbytes(fine.width * fine.height))
    fine = Image.blend(fine, noise, rng.choice((0.1, 0.2, rng.uniform(0.2, 0.45))))
    threshold = rng.uniform(110, 150)
    return fine.point([255 if value > threshold else 0 for value in range(256)]).reduce(2).convert("RGB")


def draw_name(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.5:
        return rng.choice(FIRST_NAMES)
    return rng.choice(SURNAMES) if kind < 0.97 else f"{rng.choice(FIRST_NAMES)} {rng.choice(SURNAMES)}"


def draw_dataset(folder: str | Path, seed: int = 0, sizes: dict[str, int] = SIZES) -> None:
    """Draw a dataset in the Kaggle layout into `folder`, unless it is already there.

    One picture in a hundred is blank and labelled EMPTY, as on Kaggle.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / DRAWN).exists():
        (folder / DRAWN).touch()  # so that nobody's data has these among it
    for split, size in sizes.items():
        table = folder / "CSV" / f"written_name_{split}.csv"
        if table.exists():
            continue
        images = folder / f"{split}_v2" / split
        images.mkdir(parents=True, exist_ok=True)
        rows = []
        for number in range(1, size + 1):
            rng = random.Random(f"{seed}/{split}/{number}")
            name = "" if rng.random() < 0.01 else draw_name(rng)
            filename = f"{split.upper()}_{number:05}.jpg"
            jpeg = io.BytesIO()
            draw_form(name, rng).save(jpeg, "JPEG", quality=85)
            (images / filename).write_bytes(jpeg.getvalue())
            rows.append((filename, name or "EMPTY"))
        with whole_file(
            table, newline="", encoding="utf-8"
        ) as file:  # last, so that its presence means a complete split
            csv.writer(file).writerows([("FILENAME", "IDENTITY"), *rows])


def main() -> int:
    parser = argparse.ArgumentParser(description="Draw a dataset of names in the Kaggle layout.", allow_abbrev=False)
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other pictures (default: 0)")
    args = parser.parse_args()
    draw_dataset(args.folder, args.seed)
    return 0


if __name__ == "__main__":
    run(main)
