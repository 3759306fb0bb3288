"""One stage in several processes: each works on its share of the rows, and all get the whole.

torch is imported where it is needed, since commands that compute nothing read this module, too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from plumbline.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

#: The variable that names how a training's processes share its weights.
SHARDING = "PLUMBLINE_SHARDING"
#: The variable that tells the process server where to import from; only the server ever has it.
PATH_OF_SERVER = "PLUMBLINE_PATH_OF_SERVER"


def number_of_processes() -> int:
    """Return how many processes share this stage."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def this_process() -> int:
    """Return which of the processes this is, counted from 0."""
    return int(os.environ.get("RANK", "0"))


def sharding() -> str | None:
    """Return how the processes of this stage share its weights; None: each has a whole copy."""
    return os.environ.get(SHARDING) if number_of_processes() > 1 else None


@cache
def mesh() -> Any:
    """Return the processes of this stage in one line, for tensors of which each holds a share."""
    import torch
    from torch.distributed.device_mesh import init_device_mesh

    join()
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    return init_device_mesh(kind, (number_of_processes(),))


@contextmanager
def in_turns() -> Iterator[None]:
    """Let the processes of a machine that share weights do something one after the other.

    So that no two hold a whole model there at once, while each loads one to keep its share. Inside,
    nothing may wait for another process.
    """
    if sharding() is None:
        yield
        return
    import torch

    mesh()
    turn, turns = (int(os.environ[name]) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    for _ in range(turn):
        torch.distributed.barrier()
    yield  # after an error nobody waits: all are stopped
    for _ in range(turn, turns):
        torch.distributed.barrier()


def check_processes(accelerator: Any) -> None:
    """Raise `ModelError` unless the work is shared with the processes that were started.

    ``accelerator``: accelerate's, or its state. accelerate chooses by what it finds, and may choose
    to train a whole model in each process.
    """
    from accelerate.utils import DistributedType

    started, sharing = number_of_processes(), accelerator.num_processes
    kind = accelerator.distributed_type
    copies = (DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
    plain = kind in copies if started > 1 else kind == DistributedType.NO
    if started != sharing or not plain:
        raise ModelError(
            f"{started} processes were to share a training, and accelerate made it one of "
            f"{sharing} ({kind.value}). Nothing was trained. Start it with --launch ddp "
            "--processes N."
        )


def join() -> None:
    """Meet the other processes of a stage that has no trainer to do it."""
    import torch

    if not torch.distributed.is_initialized():
        from accelerate import PartialState

        check_processes(PartialState(cpu=not torch.cuda.is_available()))


def of_all_processes(value: Any) -> list[Any]:
    """Return a value of each process, in their order."""
    if number_of_processes() == 1:
        return [value]
    import torch

    join()
    values: list[Any] = [None] * number_of_processes()
    torch.distributed.all_gather_object(values, value)
    return values


def share_of(count: int) -> slice:
    """Return which of ``count`` rows this process works on: a share in the order of the rows."""
    process, processes = this_process(), number_of_processes()
    return slice(count * process // processes, count * (process + 1) // processes)


def rows_of_all(rows: Sequence[T]) -> list[T]:
    """Return the rows that the processes worked out, each its `share_of` all, in their order."""
    return [row for part in of_all_processes(list(rows)) for row in part]


def spread(work: Callable[[slice], Sequence[T]], count: int) -> list[T]:
    """Return what ``work`` returns for ``count`` rows, of which each process works on its share.

    A process without a row does not work.
    """
    own = share_of(count)
    return rows_of_all(work(own) if own.start < own.stop or count == 0 else [])


def tensors_of_all(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors of which each process has its `share_of` the rows, with the rows of all.

    In their first dimension they may differ between processes, in the others not.
    """
    if number_of_processes() == 1:
        return list(tensors)
    import torch

    parts = of_all_processes([tensor.detach().cpu() for tensor in tensors])
    return [
        torch.cat([part[number] for part in parts]).to(tensor.device)
        for number, tensor in enumerate(tensors)
    ]


def sums_of_all(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the sum of each tensor over all processes; shapes are the same in all."""
    summed = [tensor.detach().clone() for tensor in tensors]
    if number_of_processes() > 1:
        import torch

        join()
        for tensor in summed:
            torch.distributed.all_reduce(tensor)
    return summed
