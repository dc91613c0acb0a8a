"""Settings, and the flags made from them.

`Config` declares every setting once: its default, its type and its help. The flags of the three scripts come from it.
This module needs only the standard library, so that `--help` answers at once.
"""

import argparse
import dataclasses
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

SHIPPED_WEIGHTS = Path(__file__).parent / "weights" / "htr_crnn_names.pth"  # of names, in capitals
SHIPPED_WORDS = SHIPPED_WEIGHTS.with_name("htr_crnn_words.pth")  # of single words as they are written
SHIPPED_LINES = SHIPPED_WEIGHTS.with_name("htr_crnn_lines.pth")  # of running handwriting, also to start from
SHIPPED_FINDER = SHIPPED_WEIGHTS.with_name("htr_line_finder.pth")  # what finds the lines of pages
MORE_EPOCHS = 50  # of continue_train.py, unless --epochs is given

# Settings that a run may change between epochs.
CHANGEABLE = ("NUM_SAMPLES", "VALIDATION_SAMPLES", "BATCH_SIZE", "LEARNING_RATE", "LR_FACTOR", "LR_PATIENCE",
              "LR_CYCLE", "LR_COOLDOWN", "WEIGHT_DECAY", "GRAD_CLIP", "INTERMEDIATE_LOSS", "EMA_DECAY", "DROPOUT",
              "AUGMENT_STEPS", "ROTATION", "SHEAR", "SHRINK", "NEIGHBOURS", "BRIGHTNESS", "CONTRAST", "WARP",
              "STROKE", "STRETCH")  # fmt: skip


def _setting(
    default: Any,
    help: str,
    *,
    least: float | None = None,
    most: float | None = None,
    choices: tuple[str, ...] | None = None,
    flag: str | None = None,
) -> Any:
    metadata = {"help": help, "least": least, "most": most, "choices": choices, "flag": flag}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Config:
    """All settings. Read a default on the class (`Config.EPOCHS`), the value of a run on an instance.

    Raises ValueError where a value is out of range or of the wrong type.
    """

    TEST_IMG_DIR: ClassVar[str] = "test_v2/test"  # under DATA_DIR

    # data
    DATA_DIR: str = _setting(".", "folder of the dataset, in the Kaggle layout or any other, or its label table")
    FOLLOW_LINKS: bool = _setting(False, "also read images that are links to files or folders outside of the dataset")
    NUM_SAMPLES: int = _setting(5000, "training images, drawn at random; 0 = all", least=0)
    VALIDATION_SAMPLES: int = _setting(1000, "validation images, drawn at random; 0 = all", least=0)
    UPPERCASE: bool = _setting(True, "turn labels into capitals")
    PICTURE_COLUMN: str = _setting("", "column of the label table that names the pictures, where several could")
    TEXT_COLUMN: str = _setting("", "column of the label table that holds the texts, where several could")
    PRINTED: bool = _setting(False, "also learn the lines of pages that their ALTO or PAGE file calls printed")
    MARKED: bool = _setting(
        False, "also learn the lines of pages whose transcript has marks (>word<, ⟦⟧, #, ^, ⋎), as they stand"
    )
    RARE_CHARACTERS: int = _setting(
        2,
        "leave out lines of pages with a character that occurs that often or less in all of 1,000 or more; 0 = none",
        least=0,
    )
    VISUAL_ORDER: bool = _setting(
        True, "learn labels from right to left (Hebrew, Arabic, ...) as they are pictured, from left to right"
    )
    IGNORED_LABELS: tuple[str, ...] = _setting(
        ("EMPTY", "UNREADABLE"), "labels that mean 'no text here'; their rows are left out"
    )

    # from an image to the network's input
    IMG_HEIGHT: int = _setting(64, "height in pixels that every image is scaled to", least=16, most=512)
    MAX_SCALE: float = _setting(
        1.2,
        "enlarge an image by this factor at most; the rest of the height is paper, so that letters keep their size",
        least=0.1,
        most=10,
    )
    LEVELS: bool = _setting(True, "make paper white and ink black, whatever the paper, the ink and the light")
    MAX_WIDTH: int = _setting(
        2048, "largest width in pixels after scaling; wider images are squeezed", least=64, most=32768
    )
    VIEW_WIDTH: float = _setting(
        1.0, "show lines so many times as wide, once they are scaled; --pretrained chooses it", least=0.25, most=4
    )
    VIEW_SLANT: float = _setting(
        0.0,
        "lean lines to the right by so many times their height, or with a negative value to the left; --pretrained"
        " chooses it",
        least=-1,
        most=1,
    )

    # network
    FRAME_WIDTH: int = _setting(
        8, "pixels to a frame, of which a character needs one at least: 8, or 4 for narrow letters", least=4, most=8
    )
    CNN_CHANNELS: tuple[int, ...] = _setting(
        (32, 48, 96, 112, 192, 192), "output channels of the six convolutions", least=1, most=1024
    )
    LSTM_HIDDEN: int = _setting(128, "LSTM units in each direction", least=1, most=2048)
    LSTM_LAYERS: int = _setting(3, "bidirectional LSTM layers", least=1, most=10)
    DROPOUT: float = _setting(0.2, "dropout before and between the LSTM layers", least=0, most=0.9)

    # training
    EPOCHS: int = _setting(10, "passes over the training images", least=1)
    BATCH_SIZE: int = _setting(16, "images per batch", least=1)
    LEARNING_RATE: float = _setting(2e-3, "Adam's learning rate at the start", least=0, most=1)
    LR_FACTOR: float = _setting(0.5, "ReduceLROnPlateau: factor by which the rate is reduced", least=0.01, most=0.99)
    LR_PATIENCE: int = _setting(2, "ReduceLROnPlateau: epochs without improvement that it tolerates", least=0)
    LR_CYCLE: int = _setting(
        10, "epochs per cycle, at the end of which the rate has fallen to 0 and starts again; 0 = constant", least=0
    )
    LR_COOLDOWN: float = _setting(0.8, "final share of a cycle, over which the rate falls to 0", least=0.01, most=1)
    WEIGHT_DECAY: float = _setting(
        0.5, "decoupled weight decay; each step takes this times the learning rate off the weights", least=0, most=10
    )
    GRAD_CLIP: float = _setting(5.0, "largest gradient norm; larger ones are clipped to it", least=1e-6)
    INTERMEDIATE_LOSS: float = _setting(
        0.3,
        "weight of the CTC loss on each intermediate reading: the CNN's and those after all LSTM layers but the last",
        least=0,
    )
    EMA_DECAY: float = _setting(
        0.998, "decay of the running average of the weights, per step; 0 = off", least=0, most=0.99999
    )
    AUGMENT_STEPS: int = _setting(
        1500,
        "steps over which the share of augmented images grows to all; it falls again at the end of a cycle",
        least=0,
    )
    ROTATION: float = _setting(2.0, "augmentation: largest rotation in degrees", least=0, most=45)
    SHEAR: float = _setting(12.0, "augmentation: largest slant in degrees", least=0, most=45)
    SHRINK: float = _setting(0.8, "augmentation: smallest scale; images are never enlarged", least=0.1, most=1)
    NEIGHBOURS: float = _setting(
        0.25, "augmentation: share of images that get a strip of another line above or below", least=0, most=1
    )
    BRIGHTNESS: float = _setting(0.3, "augmentation: largest relative change of the ink", least=0, most=1)
    CONTRAST: float = _setting(0.3, "augmentation: largest relative change of the contrast", least=0, most=1)
    WARP: float = _setting(
        0.0, "augmentation: largest shift of a part of the line, as a share of its height", least=0, most=0.3
    )
    STROKE: float = _setting(
        0.0, "augmentation: share of images whose strokes become thicker or thinner", least=0, most=1
    )
    STRETCH: float = _setting(
        0.0, "augmentation: largest relative change of the width of letters to their height", least=0, most=1
    )

    # running
    SAVE_EVERY: float = _setting(
        5.0, "minutes between saved states within an epoch; 0 = only after each epoch", least=0
    )
    SEED: int = _setting(
        0, "random seed of the sample, the weights, the order and the augmentation", least=0, most=2**31
    )
    DEVICE: str = _setting("auto", "device to run on", choices=("auto", "cpu", "cuda", "mps"))
    WORKERS: int = _setting(4, "threads that decode images; 0 = only the main one", least=0)
    MINI_MODEL_PATH: str = _setting("htr_crnn_mini.pth", "checkpoint of lowest validation loss", flag="--model-path")

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, limits = getattr(self, field.name), field.metadata
            several = isinstance(field.default, tuple)
            kind = type(field.default[0] if several else field.default)
            kinds = {float: (float, int), str: (str, os.PathLike)}.get(kind, kind)
            if several != isinstance(value, tuple) or not all(
                isinstance(v, kinds) for v in (value if several else [value])
            ):
                raise ValueError(f"{flag_of(field)} takes {kind.__name__}{' values' * several}, not {value!r:.80}")
            for number in value if several else (value,):
                if limits["least"] is not None and not number >= limits["least"]:
                    raise ValueError(f"{flag_of(field)} must be at least {limits['least']}, not {number}")
                if limits["most"] is not None and not number <= limits["most"]:
                    raise ValueError(f"{flag_of(field)} must be at most {limits['most']}, not {number}")
        if self.FRAME_WIDTH not in (4, 8):
            raise ValueError(f"--frame-width takes 4 or 8, not {self.FRAME_WIDTH}")
        if len(self.CNN_CHANNELS) != 6:
            raise ValueError(f"--cnn-channels takes six numbers, not {len(self.CNN_CHANNELS)}")


# What `--demo` changes: it trains in minutes, on drawn names, without touching a real run.
DEMO = {
    "DATA_DIR": "demo",
    "MINI_MODEL_PATH": f"demo/{Config.MINI_MODEL_PATH}",
    "NUM_SAMPLES": 0,
    "EPOCHS": 4,
    "LR_CYCLE": 4,
}


def flag_of(field: dataclasses.Field) -> str:
    return field.metadata["flag"] or "--" + field.name.lower().replace("_", "-")


def flag_named(name: str) -> str:
    """The flag of the setting called `name`."""
    return flag_of(Config.__dataclass_fields__[name])


def add_flags(parser: argparse.ArgumentParser, names: Iterable[str] | None = None, **shown: Any) -> None:
    """Add a flag for each setting in `names` (default: all), with its default in the help.

    `shown` are the defaults that differ in this script; the caller applies them. The parsed namespace holds a setting
    only if the user typed its flag.
    """
    for field in dataclasses.fields(Config):
        if names is not None and field.name not in names:
            continue
        default = shown.get(field.name, field.default)
        default = " ".join(map(str, default)) if isinstance(default, tuple) else default
        default = "by its name" if default == "" else default
        options: dict[str, Any] = {
            "dest": field.name,
            "default": argparse.SUPPRESS,
            "help": f"{field.metadata['help']} (default: {default})".replace("%", "%%"),
        }
        if isinstance(field.default, bool):
            options["action"] = argparse.BooleanOptionalAction
        elif field.metadata["choices"]:
            options["choices"] = field.metadata["choices"]
        else:
            several = isinstance(field.default, tuple)
            options["type"] = type(field.default[0] if several else field.default)
            text = "LABEL" if several else "NAME" if field.name.endswith("_COLUMN") else "PATH"
            options["metavar"] = {int: "N", float: "X", str: text}[options["type"]]
            options["nargs"] = "+" if several else None
        parser.add_argument(flag_of(field), **options)


def typed_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings among the parsed arguments: only those that the user typed."""
    names = {field.name for field in dataclasses.fields(Config)}
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in vars(args).items() if name in names
    }
