import csv

from PIL import Image

from htr.results.curves import draw_curves


def test_curves_are_a_picture(tmp_path):
    row = {"train_loss": 2.0, "val_loss": 1.0, "val_cer": 0.5, "val_exact": 0.2, "learning_rate": 1e-3}
    draw_curves([{"epoch": 1} | row, {"epoch": 2} | row], tmp_path / "a.curves.png")
    with Image.open(tmp_path / "a.curves.png") as image:
        assert image.width > 800
        assert len(image.convert("RGB").getcolors(1_000_000)) > 50


def test_history_columns(trained):
    with open(trained / "htr_crnn_mini.history.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(float(row[name]) > 0 for row in rows for name in ("train_loss", "val_loss", "val_cer", "learning_rate"))
