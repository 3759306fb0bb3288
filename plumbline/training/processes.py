"""One training in several processes: each computes the gradients of its share of every batch.

All weights are in each process (DDP), and stay the same in all, since all take the same steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from plumbline.data.records import Message
from plumbline.errors import ConfigError
from plumbline.hooks import Scorer
from plumbline.runs.processes import join, number_of_processes, spread

#: Numbers that are summed over the processes at once.
_BUCKET = 1 << 24


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


def scores_of(
    scorer: Scorer, prompts: Sequence[Sequence[Message]], responses: Sequence[str]
) -> list[float]:
    """Return the score of each response; each process scores its share of them."""
    return spread(lambda own: scorer.score(prompts[own], responses[own]), len(responses))


def sum_gradients(parameters: Iterable[Tensor], divisor: int = 1) -> None:
    """Give each process the sum of the gradients of all processes, over ``divisor``.

    Sums are in float32. All processes get the same numbers, so that their weights stay the same. A
    process without a gradient counts as 0.
    """
    if number_of_processes() == 1:
        return
    join()
    held = 0
    bucket: list[Tensor] = []
    for parameter in parameters:
        bucket.append(parameter)
        held += parameter.numel()
        if held >= _BUCKET:
            _sum_bucket(bucket, divisor)
            bucket, held = [], 0
    if bucket:
        _sum_bucket(bucket, divisor)


def _sum_bucket(parameters: Sequence[Tensor], divisor: int) -> None:
    gradients = [
        torch.zeros_like(p, dtype=torch.float32) if p.grad is None else p.grad.float()
        for p in parameters
    ]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(flat)
    if divisor > 1:
        flat /= divisor
    parts = torch.split(flat, [p.numel() for p in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        summed = part.view_as(parameter).to(parameter.dtype)
        if parameter.grad is None:
            parameter.grad = summed
        else:
            parameter.grad.copy_(summed)
