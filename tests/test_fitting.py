"""What is fitted for a network whose letters run from right to left is what is fitted for its mirror image."""

import random
import unicodedata

import pytest
from conftest import ROOT

from config import SHIPPED_WEIGHTS, Config
from dataset import geometry
from fitting import fitted_on
from htr.decoding.lexicon import Lexicon
from htr.pictures.images import read_images
from htr.pictures.synthetic import draw_form
from predict import predict_batch
from reading import pixels_of
from utils import load_checkpoint, save_checkpoint

FROM_THE_RIGHT = [chr(code) for code in range(0x5D0, 0x11000) if unicodedata.bidirectional(chr(code)) == "R"]
NAMES = ["MARTIN", "BERNARD", "DUBOIS", "THOMAS", "ROBERT", "RICHARD", "PETIT", "DURAND", "LEROY", "MOREAU", "SIMON"]


def test_names_from_right_to_left_are_weighed_as_they_are_pictured(tmp_path):
    checkpoint = load_checkpoint(SHIPPED_WEIGHTS)
    letters = filter(str.isalpha, checkpoint["alphabet"])
    other = str.maketrans(dict(zip(letters, FROM_THE_RIGHT, strict=False)))
    config = checkpoint["config"] | {"VISUAL_ORDER": True}
    mirrored = checkpoint | {"alphabet": checkpoint["alphabet"].translate(other), "config": config}
    rng = random.Random(0)
    texts, paths = rng.choices(NAMES, k=60), []
    for n, text in enumerate(texts):
        paths.append(tmp_path / f"{n}.png")
        draw_form(text, rng).save(paths[-1])
    images = pixels_of(read_images(paths, geometry(Config()), 0))

    fitted, tables = [], []
    for name, state in (("left", checkpoint), ("right", mirrored)):
        turned = {text: text.translate(other)[::-1] if name == "right" else text for text in NAMES}
        path, names = tmp_path / f"{name}.pth", tmp_path / f"{name}.csv"
        save_checkpoint(state, path)
        names.write_text("NAME\n" + "".join(f"{text}\n" for text in turned.values()), encoding="utf-8")
        lexicon = Lexicon(dict.fromkeys(turned.values(), 1))
        fitted.append(fitted_on(path, images, [turned[text] for text in texts], lexicon, "cpu", None))
        save_checkpoint(state | fitted[-1], path)
        table = predict_batch(path, ROOT / "samples", save_csv=False, lexicon=names, device="cpu")
        tables.append(table["PREDICTION"].tolist())
    for way in ("lexicon", "spelling"):
        left, right = (each[way]["weights"] for each in fitted)
        assert right == pytest.approx(left, abs=1e-6)
    assert "ngrams" not in fitted[0]["lexicon"]
    assert tables[1] == [text.translate(other)[::-1] for text in tables[0]]
