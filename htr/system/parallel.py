"""Several processes, as started by torchrun; with a single one, nothing here does anything.

    torchrun --nproc-per-node 4 train.py --data-dir DIR --num-samples 0 --batch-size 128

Each process trains on its share of every batch and reads its share of every set. Only the first one, rank 0, prints and
writes. PyTorch, which connects them, is imported where there are several.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from htr.system.scripts import HTRError

if TYPE_CHECKING:
    from torch import Tensor, nn

TIMEOUT = 30  # seconds without an answer after which training gives a process up
LOADING_TIMEOUT = timedelta(hours=6)  # while the first one decodes images for all


def rank() -> int:
    """Which of the processes this is, from 0."""
    return sys.modules["torch.distributed"].get_rank() if world() > 1 else 0


def world() -> int:
    """The number of processes: more than one only within `processes`."""
    dist = sys.modules.get("torch.distributed")
    return dist.get_world_size() if dist and dist.is_available() and dist.is_initialized() else 1


def local_rank() -> int:
    """Which of this machine's processes this is, and so which of its GPUs it uses."""
    return int(os.environ["LOCAL_RANK"]) if world() > 1 else 0


@contextlib.contextmanager
def processes(timeout: int = TIMEOUT) -> Iterator[None]:
    """Join the other processes, and silence all but the first.

    Raises HTRError where another process dies or does not answer for `timeout` seconds.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield
        return
    import torch
    from torch import distributed as dist

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
            f" {timeout} seconds; if it was training, continue with continue_train.py"
        ) from error
    finally:
        if sys.exception() is None and dist.is_initialized():
            dist.destroy_process_group()


def all_sum(values: "Tensor") -> "Tensor":
    """The sum of all processes' tensors, of one shape and on the CPU; computed in place."""
    if world() > 1:
        from torch import distributed as dist

        dist.all_reduce(values)
    return values


def any_process(*flags: bool) -> list[bool]:
    """For each flag whether it is set in any process; every process gets the same answers."""
    import torch

    return all_sum(torch.tensor(flags, dtype=torch.int64)).bool().tolist()


def gather(value: Any) -> list[Any] | None:
    """All processes' values, in the order of their ranks, for the first one; None for the others."""
    if world() == 1:
        return [value]
    from torch import distributed as dist

    values = [None] * world() if rank() == 0 else None
    dist.gather_object(value, values)
    return values


def from_first(value: Any) -> Any:
    """The first process's value, for all."""
    values = [value]
    if world() > 1:
        from torch import distributed as dist

        dist.broadcast_object_list(values, 0)
    return values[0]


@contextlib.contextmanager
def first_process_first() -> Iterator[None]:
    """Run the block in the first process, then in all others."""
    if world() == 1:
        yield
        return
    from torch import distributed as dist

    waiting = dist.new_group(timeout=LOADING_TIMEOUT, backend="gloo")
    if rank():
        dist.barrier(waiting)
    yield
    if rank() == 0:
        dist.barrier(waiting)


def take_weights(model: "nn.Module") -> None:
    """Give every process the first one's weights and statistics."""
    if world() > 1:
        from torch import distributed as dist

        for tensor in model.state_dict().values():
            dist.broadcast(tensor, 0)


def wrap(model: "nn.Module") -> "nn.Module":
    """The model with its gradients averaged over all processes (Li et al. 2020, arXiv:2006.15704)."""
    if world() == 1:
        return model
    from torch import nn

    device = next(model.parameters()).device
    return nn.parallel.DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)
