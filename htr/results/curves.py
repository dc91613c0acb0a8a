"""The history of a training run: a table with a row per epoch, and its learning curves."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from htr.system.files import whole_file

HISTORY_COLUMNS = ("epoch", "train_loss", "val_loss", "val_cer", "val_exact", "learning_rate", "val_wer")


def write_history(history: Sequence[dict[str, float]], path: Path) -> None:
    """Write one row per epoch; losses are in nats per image. What an earlier version did not measure stays empty."""
    with whole_file(path, newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, HISTORY_COLUMNS)
        writer.writeheader()
        writer.writerows(history)


def draw_curves(history: Sequence[dict[str, float]], path: Path) -> None:
    """Draw losses, CER and exact match, and learning rate by epoch, with the best epoch marked."""
    from matplotlib.figure import Figure  # slow to import, used once

    epochs = [row["epoch"] for row in history]
    best = min(history, key=lambda row: (math.isnan(row["val_loss"]), row["val_loss"]))["epoch"]
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    panels = figure.subplots(1, 3)
    for axes, title, columns in zip(
        panels,
        ("CTC loss (nats per image)", "validation", "learning rate"),
        (("train_loss", "val_loss"), ("val_cer", "val_exact"), ("learning_rate",)),
        strict=True,
    ):
        for column in columns:
            axes.plot(epochs, [row[column] for row in history], marker=".", label=column.replace("_", " "))
        axes.axvline(best, color="grey", linestyle=":", label=f"best epoch ({best})")
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    panels[0].set_ylim(bottom=0)
    panels[1].set_ylim(0, 1)
    panels[2].set_yscale("log")
    with whole_file(path, "wb") as file:
        figure.savefig(file, format="png", dpi=120)
