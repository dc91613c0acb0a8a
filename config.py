"""Settings, the flags made from them, and how a script ends.

`Config` declares every setting once: its default, its type and its help. The flags of the three
scripts come from it. This module needs the standard library only, so `--help` answers at once.
"""

import argparse
import dataclasses
import os
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

MORE_EPOCHS = 50  # what continue_train.py adds where --epochs is not given


def printable(text: str, most: int = 2000) -> str:
    """`text` on one line, without what could steer a terminal, and cut where it is longer than `most`."""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: most + 1])
    return text if len(text) <= most else text[: most - 3] + "..."


class HTRError(Exception):
    """Something that the user can mend; its text is one sentence that says how."""


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
    """All settings. Read a default on the class (`Config.EPOCHS`), a run's own on an instance.

    Raises ValueError where a value is out of its range or of another type.
    """

    TEST_IMG_DIR: ClassVar[str] = "test_v2/test"  # under DATA_DIR

    # data
    DATA_DIR: str = _setting(".", "folder of the dataset: CSV/, train_v2/, validation_v2/, test_v2/")
    NUM_SAMPLES: int = _setting(5000, "training images, drawn at random; 0 = all", least=0)
    VALIDATION_SAMPLES: int = _setting(1000, "validation images, drawn at random; 0 = all", least=0)
    UPPERCASE: bool = _setting(True, "turn labels into capitals")
    IGNORED_LABELS: tuple[str, ...] = _setting(
        ("EMPTY", "UNREADABLE"), "labels that mean 'no text here'; their rows are left out"
    )

    # from a picture to the network's input
    IMG_HEIGHT: int = _setting(64, "height in pixels that every picture is scaled to", least=16, most=512)
    MAX_SCALE: float = _setting(
        1.2,
        "enlarge a picture at most by this; the rest of the height is paper, and letters keep their size",
        least=0.1,
        most=10,
    )
    MAX_WIDTH: int = _setting(2048, "width in pixels after scaling; wider pictures are squeezed", least=64, most=32768)

    # network
    CNN_CHANNELS: tuple[int, ...] = _setting(
        (32, 48, 96, 112, 192, 192), "output channels of the six convolutions", least=1, most=1024
    )
    LSTM_HIDDEN: int = _setting(128, "LSTM units in each direction", least=1, most=2048)
    LSTM_LAYERS: int = _setting(3, "bidirectional LSTM layers", least=1, most=10)
    DROPOUT: float = _setting(0.2, "dropout before and between the LSTM layers", least=0, most=0.9)

    # training
    EPOCHS: int = _setting(10, "passes over the training images", least=1)
    BATCH_SIZE: int = _setting(16, "images in a batch", least=1)
    LEARNING_RATE: float = _setting(2e-3, "Adam's learning rate at the start", least=0, most=1)
    LR_FACTOR: float = _setting(0.5, "ReduceLROnPlateau: what the rate is multiplied by", least=0.01, most=0.99)
    LR_PATIENCE: int = _setting(2, "ReduceLROnPlateau: epochs without improvement that it waits", least=0)
    LR_CYCLE: int = _setting(
        10, "epochs of a cycle: at its end the rate has fallen to 0, then it starts again; 0 = constant", least=0
    )
    LR_COOLDOWN: float = _setting(
        0.8, "share of a cycle, its last part, in which the rate falls to 0", least=0.01, most=1
    )
    WEIGHT_DECAY: float = _setting(0.5, "what a step takes off the weights, times the learning rate", least=0, most=10)
    GRAD_CLIP: float = _setting(5.0, "largest norm of the gradient", least=1e-6)
    INTERMEDIATE_LOSS: float = _setting(
        0.3,
        "weight of the CTC loss on each earlier reading: the CNN's and those after all LSTM layers but the last",
        least=0,
    )
    EMA_DECAY: float = _setting(
        0.998, "running average of the weights: what a step keeps of it; 0 = off", least=0, most=0.99999
    )
    AUGMENT_STEPS: int = _setting(
        1500,
        "steps over which the share of augmented images grows to all; it falls again at the end of a cycle",
        least=0,
    )
    ROTATION: float = _setting(2.0, "augmentation: largest rotation in degrees", least=0, most=45)
    SHEAR: float = _setting(12.0, "augmentation: largest slant in degrees", least=0, most=45)
    SHRINK: float = _setting(0.8, "augmentation: smallest scale; pictures never grow", least=0.1, most=1)
    NEIGHBOURS: float = _setting(
        0.25, "augmentation: share of pictures that get a strip of another line above or below", least=0, most=1
    )
    BRIGHTNESS: float = _setting(0.3, "augmentation: largest relative change of the ink", least=0, most=1)
    CONTRAST: float = _setting(0.3, "augmentation: largest relative change of the contrast", least=0, most=1)

    # running
    SAVE_EVERY: float = _setting(
        5.0, "minutes between saved states within an epoch; 0 = only after each epoch", least=0
    )
    SEED: int = _setting(0, "of the sample, the weights, the order and the augmentation", least=0, most=2**31)
    DEVICE: str = _setting("auto", "where to compute", choices=("auto", "cpu", "cuda", "mps"))
    WORKERS: int = _setting(4, "threads that read pictures; 0 = none beside the main one", least=0)
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
        if len(self.CNN_CHANNELS) != 6:
            raise ValueError(f"--cnn-channels takes six numbers, not {len(self.CNN_CHANNELS)}")


# What `--demo` changes: it trains in minutes, on drawn names, beside any real run.
DEMO = {
    "DATA_DIR": "demo",
    "MINI_MODEL_PATH": f"demo/{Config.MINI_MODEL_PATH}",
    "NUM_SAMPLES": 0,
    "EPOCHS": 4,
    "LR_CYCLE": 4,
}


def flag_of(field: dataclasses.Field) -> str:
    return field.metadata["flag"] or "--" + field.name.lower().replace("_", "-")


def add_flags(parser: argparse.ArgumentParser, names: Iterable[str] | None = None, **shown: Any) -> None:
    """Add a flag for each setting in `names` (default: every one), its default in the help.

    `shown` are the defaults that differ in this script; the caller applies them. The parsed namespace holds a setting
    only where the user typed its flag.
    """
    for field in dataclasses.fields(Config):
        if names is not None and field.name not in names:
            continue
        default = shown.get(field.name, field.default)
        default = " ".join(map(str, default)) if isinstance(default, tuple) else default
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
            options["metavar"] = {int: "N", float: "X", str: "LABEL" if several else "PATH"}[options["type"]]
            options["nargs"] = "+" if several else None
        parser.add_argument(flag_of(field), **options)


def typed_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings among the parsed arguments: only what the user typed."""
    names = {field.name for field in dataclasses.fields(Config)}
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in vars(args).items() if name in names
    }


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM, after the state was saved. `signum` is the signal's number."""

    def __init__(self, signum: int, message: str = ""):
        super().__init__(message)
        self.signum = signum


def run(main: Callable[[], int]) -> None:
    """Run a script's `main` and end the process with its status.

    0 done, 1 failed, 2 wrong use, 130 / 143 after Ctrl-C / SIGTERM. What the user can mend is one line on
    stderr, without a traceback.
    """

    def terminate(signum, frame):
        raise Interrupted(signum)

    signal.signal(signal.SIGTERM, terminate)
    sys.stdout.reconfigure(errors="backslashreplace")  # names of files may hold anything
    sys.stderr.reconfigure(errors="backslashreplace")
    try:
        status = main()
        sys.stdout.flush()
    except HTRError as error:
        print("error:", printable(" ".join(str(error).split())), file=sys.stderr)  # whatever a library put into it
        status = 1
    except BrokenPipeError:  # the reader of our output went away, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except OSError as error:  # the machine's, as where no folder for temporary files is left
        print("error:", printable(str(error)), file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 128 + signal.SIGINT
    except Interrupted as stop:
        print(str(stop) or "terminated", file=sys.stderr)
        status = 128 + stop.signum
    sys.exit(status)
