"""Train a handwriting reader from scratch.

    python train.py --data-dir DIR     # the Kaggle dataset: 5,000 random samples, 10 epochs
    python train.py --demo             # drawn names, no download

Keeps the weights of lowest validation loss in htr_crnn_mini.pth and, beside it, the state that continue_train.py
continues from (.last.pth), a table with a row per epoch (.history.csv) and learning curves (.curves.png).
"""

import argparse
import contextlib
import dataclasses
import statistics
import tempfile
from pathlib import Path
from typing import Any

from config import DEMO, SHIPPED_LINES, SHIPPED_WEIGHTS, Config, add_flags, typed_settings
from htr.system.scripts import run


def main() -> int:
    parser = argparse.ArgumentParser(description="Train a handwriting reader from scratch.", allow_abbrev=False)
    parser.add_argument("--demo", action="store_true", help="draw a small dataset and train on it, all in demo/")
    parser.add_argument("--dry-run", action="store_true", help="check data and model, run one batch, write nothing")
    parser.add_argument("--pretrained", nargs="?", const=True, metavar="CHECKPOINT", help="start from the weights"
                        " of a checkpoint, by default the shipped ones: of names, or with --no-uppercase of lines;"
                        " characters of your labels that it lacks are added")  # fmt: skip
    add_flags(parser)
    args = parser.parse_args()
    given = (DEMO if args.demo else {}) | typed_settings(args)
    try:
        config = Config(**given)
    except ValueError as error:
        parser.error(str(error))

    from htr.system import parallel  # after parsing, so that --help answers at once

    with parallel.processes():
        return train(config, given, args)


def train(config: Config, given: dict[str, Any], args: argparse.Namespace) -> int:
    from htr.pictures.synthetic import draw_dataset
    from htr.system import parallel
    from training import (
        VIEW,
        check_start,
        choose_rate,
        choose_view,
        describe,
        dry_run,
        fit,
        judge_weights,
        keep_first,
        load_data,
        new_state,
        pretrained_settings,
        schedule,
        start_from,
    )
    from utils import choose_device, load_checkpoint, only_training

    device = choose_device(config.DEVICE)
    pretrained = args.pretrained
    if pretrained is True:
        pretrained = SHIPPED_WEIGHTS if config.UPPERCASE else SHIPPED_LINES
    if pretrained:
        check_start(pretrained, config.MINI_MODEL_PATH)
    with contextlib.ExitStack() as stack:
        if not args.dry_run:
            stack.enter_context(only_training(config.MINI_MODEL_PATH))
        if args.demo:
            if args.dry_run:
                config = dataclasses.replace(config, DATA_DIR=stack.enter_context(tempfile.TemporaryDirectory()))
            print(f"drawn names in {config.DATA_DIR}")
            with parallel.first_process_first():
                draw_dataset(config.DATA_DIR)
        known = None
        if pretrained:
            checkpoint = load_checkpoint(pretrained)
            config, known = pretrained_settings(checkpoint, config, given, pretrained)
        train_lines, validation_lines, alphabet = load_data(config, known, grow=True, keep=not args.dry_run)
        if pretrained and not given.keys() & set(VIEW):
            seen = choose_view(config, checkpoint, known, pretrained, train_lines, device)
            if seen != config:
                config = seen
                train_lines, validation_lines, alphabet = load_data(config, known, grow=True, keep=not args.dry_run)
        if pretrained:
            width = statistics.median(train_lines.images.widths) / config.IMG_HEIGHT
            chosen = {name: value for name, value in schedule(len(train_lines), width).items() if name not in given}
            config = dataclasses.replace(config, **chosen)
            print(f"{config.EPOCHS} epochs with settings for {len(train_lines):,} lines")
        state = new_state(config, alphabet, device)
        if pretrained:
            start_from(state, checkpoint, known, pretrained)
            if "LEARNING_RATE" not in given:
                choose_rate(state, train_lines, validation_lines)
        print(describe(state))
        if args.dry_run:
            dry_run(state, train_lines, validation_lines)
            return 0
        if Path(config.MINI_MODEL_PATH).exists():
            print(f"{config.MINI_MODEL_PATH} exists and will be replaced; to continue it, use continue_train.py")
        if pretrained:
            judge_weights(state, train_lines, validation_lines)
            keep_first(state)
        fit(state, train_lines, validation_lines, config.EPOCHS)
    return 0


if __name__ == "__main__":
    run(main)
