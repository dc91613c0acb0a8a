"""Go on from what train.py left, for 50 more epochs.

    python continue_train.py               # the same samples, settings and random state
    python continue_train.py --epochs 5
    python continue_train.py --finish      # only the epochs that a run which was stopped had still to do

Training 4 epochs at once, or 2 and then 2 more, gives the same weights, bit for bit on a CPU.
"""

import argparse
import dataclasses
from typing import Any

from config import DEMO, MORE_EPOCHS, Config, HTRError, add_flags, run, typed_settings


def main() -> int:
    parser = argparse.ArgumentParser(description="Go on training from what train.py left.", allow_abbrev=False)
    parser.add_argument("--demo", action="store_true", help="go on from what `train.py --demo` left in demo/")
    parser.add_argument(
        "--finish", action="store_true", help="train only the epochs that a stopped run had still to do"
    )
    add_flags(
        parser,
        ("DATA_DIR", "EPOCHS", "LEARNING_RATE", "GRAD_CLIP", "DEVICE", "WORKERS", "SAVE_EVERY", "MINI_MODEL_PATH"),
        EPOCHS=f"{MORE_EPOCHS} more",
        DATA_DIR="as before",
        LEARNING_RATE="as it stood",
        GRAD_CLIP="as before",
        DEVICE="as before",
        WORKERS="as before",
        SAVE_EVERY="as before",
    )
    args = parser.parse_args()
    typed = typed_settings(args)
    try:
        model_path = Config(**(DEMO if args.demo else {}) | typed).MINI_MODEL_PATH
    except ValueError as error:
        parser.error(str(error))
    if args.finish and "EPOCHS" in typed:
        parser.error("--finish and --epochs contradict each other: --finish takes the number of the stopped run")

    import parallel  # after parsing, so that --help answers at once

    with parallel.processes():
        from training import last_path, only_training, previous_path

        if not (last_path(model_path).exists() or previous_path(model_path).exists()):
            raise HTRError(f"there is no checkpoint {last_path(model_path)}; train one with train.py")
        with only_training(model_path):
            return go_on(model_path, typed, args.finish)


def go_on(model_path: str, typed: dict[str, Any], finish: bool) -> int:
    from training import check_best, describe, fit, last_path, load_data, load_last, restore_state
    from utils import choose_device, restore_settings

    path, checkpoint = last_path(model_path), load_last(model_path)
    saved, alphabet = restore_settings(checkpoint, path)
    epochs = saved.EPOCHS if finish else checkpoint["epoch"] + typed.get("EPOCHS", MORE_EPOCHS)
    config = dataclasses.replace(saved, **typed | {"MINI_MODEL_PATH": model_path, "EPOCHS": epochs})
    device = choose_device(config.DEVICE)
    train_lines, validation_lines, alphabet = load_data(config, alphabet)
    state = restore_state(checkpoint, config, alphabet, device, path)
    if "LEARNING_RATE" in typed:  # the optimizer's state brought the old one back
        for group in state.optimizer.param_groups:
            group["lr"] = config.LEARNING_RATE
    print(describe(state))
    check_best(state)
    print(f"going on from {path} with epoch {state.epoch + 1}, best validation loss so far {state.best_loss:.3f}")
    fit(state, train_lines, validation_lines, config.EPOCHS)
    return 0


if __name__ == "__main__":
    run(main)
