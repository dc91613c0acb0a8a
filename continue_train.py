"""Continue the training that train.py began, for 50 more epochs.

    python continue_train.py               # the same samples and settings
    python continue_train.py --epochs 5
    python continue_train.py --finish      # only the epochs that a stopped run still had to do

Training for 4 epochs, or for 2 and then for 2 more, gives the same weights, bit for bit on a CPU.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from config import CHANGEABLE, DEMO, MORE_EPOCHS, Config, add_flags, typed_settings
from htr.system.scripts import HTRError, run


def main() -> int:
    parser = argparse.ArgumentParser(description="Continue the training that train.py began.", allow_abbrev=False)
    parser.add_argument("--demo", action="store_true", help="continue what `train.py --demo` began in demo/")
    parser.add_argument(
        "--finish", action="store_true", help="train only the epochs that a stopped run still had to do"
    )
    data = ("DATA_DIR", "PICTURE_COLUMN", "TEXT_COLUMN", "FOLLOW_LINKS")
    as_before = (*data, *CHANGEABLE, "DEVICE", "WORKERS", "SAVE_EVERY")
    add_flags(
        parser,
        ("EPOCHS", *as_before, "MINI_MODEL_PATH"),
        EPOCHS=f"{MORE_EPOCHS} more",
        **dict.fromkeys(as_before, "as before"),
    )
    args = parser.parse_args()
    typed = typed_settings(args)
    try:
        model_path = Config(**(DEMO if args.demo else {}) | typed).MINI_MODEL_PATH
    except ValueError as error:
        parser.error(str(error))
    if args.finish and "EPOCHS" in typed:
        parser.error("--finish and --epochs exclude each other: --finish trains to the end of the stopped run")

    from htr.system import parallel  # after parsing, so that --help answers at once

    with parallel.processes():
        return continue_training(model_path, typed, args.finish)


def continue_training(model_path: str, typed: dict[str, Any], finish: bool) -> int:
    from training import (
        change_settings,
        check_best,
        check_data,
        describe,
        fit,
        judge_weights,
        load_data,
        load_last,
        restore_state,
        state_of_weights,
    )
    from utils import (
        choose_device,
        has_device,
        last_path,
        load_checkpoint,
        only_training,
        previous_path,
        restore_settings,
        run_of,
    )

    model_path = str(run_of(model_path))
    path = last_path(model_path)
    whole = path.exists() or previous_path(model_path).exists()
    if not whole and not Path(model_path).exists():
        earlier = Path(model_path).with_suffix(".last.pth")
        renamed = f" (earlier versions called it {earlier}, which is there: rename it)" if earlier.exists() else ""
        raise HTRError(f"there is no checkpoint {path}{renamed}, nor {model_path}; train one with train.py")
    with only_training(model_path):
        checkpoint = load_last(model_path) if whole else load_checkpoint(model_path)
        path = path if whole else Path(model_path)
        saved, alphabet = restore_settings(checkpoint, path)
        if not whole:
            saved = gentler(saved, typed.get("EPOCHS", MORE_EPOCHS))
        epochs = saved.EPOCHS if finish else checkpoint["epoch"] + typed.get("EPOCHS", MORE_EPOCHS)
        config = dataclasses.replace(saved, **typed | {"MINI_MODEL_PATH": model_path, "EPOCHS": epochs})
        if "DEVICE" not in typed and not has_device(config.DEVICE):
            print(f"the run was on {config.DEVICE}, which this machine does not have")
            config = dataclasses.replace(config, DEVICE="auto")
        device = choose_device(config.DEVICE)
        train_lines, validation_lines, alphabet = load_data(config, alphabet)
        if whole:
            state = restore_state(checkpoint, config, alphabet, device, path)
            change_settings(state, saved, typed)
            check_data(state, train_lines, validation_lines, more="NUM_SAMPLES" in typed)
            check_best(state)
        else:
            print(
                f"there is no {last_path(model_path)}: continuing from the weights alone, with a new optimizer and a"
                f" learning rate of {config.LEARNING_RATE}"
            )
            state = state_of_weights(checkpoint, config, alphabet, device, path)
        print(describe(state))
        if not whole:
            judge_weights(state, train_lines, validation_lines)
        print(f"continuing from {path} with epoch {state.epoch + 1}, best validation loss so far {state.best_loss:.3f}")
        fit(state, train_lines, validation_lines, config.EPOCHS)
    return 0


def gentler(saved: Config, epochs: int) -> Config:
    """Settings for that many epochs with an optimizer that has yet to learn how far to step.

    Half the learning rate, which falls to 0 by the last of the epochs at the latest.
    """
    cycle = min(saved.LR_CYCLE, epochs)
    return dataclasses.replace(saved, LEARNING_RATE=saved.LEARNING_RATE / 2, LR_CYCLE=cycle)


if __name__ == "__main__":
    run(main)
