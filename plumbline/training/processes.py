"""One training in several processes (DDP): each computes gradients of its share of every batch."""

from __future__ import annotations

import os
from typing import Any

from plumbline.errors import ConfigError, ModelError


def number_of_processes() -> int:
    """Return how many processes share this training."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def share_of_batch(batch_size: int) -> int:
    """Return how many of a batch's examples each process reads."""
    processes = number_of_processes()
    if batch_size % processes:
        raise ConfigError(
            f"batch_size is {batch_size}, which {processes} processes cannot share evenly. Set it "
            f"to a multiple of {processes}."
        )
    return batch_size // processes


def use_one_gpu(arguments: Any) -> None:
    """Let a trainer of a single process use one GPU, where it sees several.

    transformers would copy the model to all of them in each step (`torch.nn.DataParallel`).
    """
    arguments._n_gpu = min(arguments.n_gpu, 1)


def check_processes(accelerator: Any) -> None:
    """Raise `ModelError` unless a trainer shares its work with the processes that were started.

    accelerate chooses by what it finds, and may choose to train a whole model in each process.
    """
    from accelerate.utils import DistributedType

    started, sharing = number_of_processes(), accelerator.num_processes
    kind = accelerator.distributed_type
    copies = (DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
    plain = kind in copies if started > 1 else kind == DistributedType.NO
    if started != sharing or not plain:
        raise ModelError(
            f"{started} processes were to share a training by DDP, and accelerate made it one "
            f"of {sharing} ({kind.value}). Nothing was trained. Start it with --launch ddp "
            "--processes N."
        )


def of_all_processes(value: Any) -> list[Any]:
    """Return a value of each process, in their order."""
    if number_of_processes() == 1:
        return [value]
    import torch

    values: list[Any] = [None] * number_of_processes()
    torch.distributed.all_gather_object(values, value)
    return values
