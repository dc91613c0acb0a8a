"""Several processes, as torchrun starts them; with a single one, everything here does nothing.

    torchrun --nproc-per-node 4 train.py --data-dir DIR --num-samples 0 --batch-size 128

Each process trains on its share of every batch and reads its share of every set. The first one, rank 0, alone prints
and writes.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from config import HTRError

TIMEOUT = 30  # seconds after which a process that does not answer is given up in training
LOADING_TIMEOUT = timedelta(hours=6)  # while the first one decodes pictures for all


def rank() -> int:
    """Which of the processes this is, from 0."""
    return dist.get_rank() if world() > 1 else 0


def world() -> int:
    """How many processes there are: more than one only within `processes`."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def local_rank() -> int:
    """Which of this machine's processes this is, and so which of its GPUs it takes."""
    return int(os.environ["LOCAL_RANK"]) if world() > 1 else 0


@contextlib.contextmanager
def processes(timeout: int = TIMEOUT) -> Iterator[None]:
    """Join the other processes, and silence all but the first.

    Raises HTRError where another one dies or does not answer for `timeout` seconds.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout))
        with contextlib.ExitStack() as stack:
            if rank():
                stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
            yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not any(word in str(error) for word in ("gloo", "NCCL", "peer")):
            raise
        raise HTRError(
            f"process {os.environ['RANK']} of {count} lost another one, which died or did not answer for"
            f" {timeout} seconds; where training was under way, go on with continue_train.py"
        ) from error
    finally:
        if sys.exception() is None and dist.is_initialized():
            dist.destroy_process_group()


def no_bar() -> bool | None:
    """tqdm's `disable`: a bar on a terminal, and in the first process only."""
    return None if rank() == 0 else True


def all_sum(values: Tensor) -> Tensor:
    """The sum of all processes' tensors, which have one shape and lie on the CPU; takes the place of `values`."""
    if world() > 1:
        dist.all_reduce(values)
    return values


def all_agree(flag: bool) -> bool:
    """Whether any process says yes; every process gets the same answer."""
    return bool(all_sum(torch.tensor(int(flag))))


def gather(value: Any) -> list[Any] | None:
    """The processes' values, in the order of their ranks, for the first one; None for the others."""
    if world() == 1:
        return [value]
    values = [None] * world() if rank() == 0 else None
    dist.gather_object(value, values)
    return values


def from_first(value: Any) -> Any:
    """The first process's value, for all."""
    values = [value]
    if world() > 1:
        dist.broadcast_object_list(values, 0)
    return values[0]


@contextlib.contextmanager
def first_process_first() -> Iterator[None]:
    """What is inside is done by the first process, then by all others."""
    if world() == 1:
        yield
        return
    waiting = dist.new_group(timeout=LOADING_TIMEOUT, backend="gloo")
    if rank():
        dist.barrier(waiting)
    yield
    if rank() == 0:
        dist.barrier(waiting)


def take_weights(model: nn.Module) -> None:
    """Give every process the first one's weights and statistics."""
    if world() > 1:
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, 0)


def wrap(model: nn.Module) -> nn.Module:
    """The model with gradients averaged over all processes (Li et al. 2020, arXiv:2006.15704)."""
    if world() == 1:
        return model
    device = next(model.parameters()).device
    return nn.parallel.DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)
