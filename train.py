"""Train a handwriting reader from scratch.

    python train.py --data-dir DIR     # the Kaggle dataset: 5,000 random samples, 10 epochs
    python train.py --demo             # drawn names, no download

Keeps the weights of lowest validation loss in htr_crnn_mini.pth and, beside it, the state that continue_train.py
continues from (.last.pth), a table with a row per epoch (.history.csv) and learning curves (.curves.png).
"""

import argparse
import contextlib
import dataclasses
import tempfile
from pathlib import Path

from config import DEMO, Config, add_flags, typed_settings
from htr.scripts import run


def main() -> int:
    parser = argparse.ArgumentParser(description="Train a handwriting reader from scratch.", allow_abbrev=False)
    parser.add_argument("--demo", action="store_true", help="draw a small dataset and train on it, all in demo/")
    parser.add_argument("--dry-run", action="store_true", help="check data and model, run one batch, write nothing")
    add_flags(parser)
    args = parser.parse_args()
    try:
        config = Config(**(DEMO if args.demo else {}) | typed_settings(args))
    except ValueError as error:
        parser.error(str(error))

    from htr import parallel  # after parsing, so that --help answers at once

    with parallel.processes():
        return train(config, args.demo, args.dry_run)


def train(config: Config, demo: bool, only_check: bool) -> int:
    from htr import parallel
    from htr.synthetic import draw_dataset
    from training import describe, dry_run, fit, load_data, new_state
    from utils import choose_device, only_training

    device = choose_device(config.DEVICE)
    with contextlib.ExitStack() as stack:
        if not only_check:
            stack.enter_context(only_training(config.MINI_MODEL_PATH))
        if demo:
            if only_check:
                config = dataclasses.replace(config, DATA_DIR=stack.enter_context(tempfile.TemporaryDirectory()))
            print(f"drawn names in {config.DATA_DIR}")
            with parallel.first_process_first():
                draw_dataset(config.DATA_DIR)
        train_lines, validation_lines, alphabet = load_data(config)
        state = new_state(config, alphabet, device)
        print(describe(state))
        if only_check:
            dry_run(state, train_lines, validation_lines)
            return 0
        if Path(config.MINI_MODEL_PATH).exists():
            print(f"{config.MINI_MODEL_PATH} exists and will be replaced; to continue it, use continue_train.py")
        fit(state, train_lines, validation_lines, config.EPOCHS)
    return 0


if __name__ == "__main__":
    run(main)
