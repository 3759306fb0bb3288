"""How many tokens go through a model at once on a GPU: as many as its free memory holds.

What a pass keeps for its backward pass grows with the tokens in it. It is estimated from the
model's shape; where the estimate is too bold and memory runs out, the work is done again with half
as many tokens, once, with a message.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor

from plumbline.lm.gpu.checks import has_packed_pass

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Share of the free memory that a pass may fill.
_SHARE = 0.6
#: A pass has at least so many tokens, and at most so many where nothing is kept for a backward one.
_FEWEST, _MOST_UNLEARNT = 1024, 1 << 16
#: Gradient, and two moments, of a weight that trains.
_BYTES_PER_TRAINED = 12


def tokens_that_fit(
    model: Any,
    *,
    learns: bool,
    checkpointing: bool = False,
    trained: Iterable[Tensor] | None = None,
) -> int:
    """Return how many tokens can go through a model at once, a multiple of 1,024.

    ``learns``: a backward pass follows. Memory for gradients and optimiser states that are not
    there yet is left free: those of ``trained``, or of the model's own weights that train.
    """
    device = model.device
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if learns:
        weights = list(model.parameters() if trained is None else trained)
        new = [p for p in weights if p.requires_grad and p.grad is None]
        free -= _BYTES_PER_TRAINED * sum(p.numel() for p in new)
    fitting = int(_SHARE * max(free, 0) / bytes_per_token(model, learns, checkpointing))
    if not learns:
        fitting = min(fitting, _MOST_UNLEARNT)
    return max(_FEWEST, fitting - fitting % _FEWEST)


def bytes_per_token(model: Any, learns: bool, checkpointing: bool = False) -> int:
    """Return about how much memory a token takes in a pass.

    Of a model without packed passes, all logits are held, too. In a layer: the residual stream
    twice, what is normed twice, queries, keys, values and what attention mixes; gate, up and their
    product. 2 bytes each in 16 bits.
    """
    config = model.config.get_text_config()
    width, layers = config.hidden_size, config.num_hidden_layers
    inner = getattr(config, "intermediate_size", None) or 4 * width
    size = 2 if torch.is_autocast_enabled(model.device.type) else model.dtype.itemsize
    of_layer = int((9 * width + 3 * inner) * size)
    of_logits = 0 if has_packed_pass(model) else 10 * int(config.vocab_size)
    if not learns:
        return of_layer + of_logits
    kept = layers * width * size + 2 * of_layer if checkpointing else layers * of_layer
    return int(kept + of_logits)


def rows_by_tokens(lengths: Tensor, most: int) -> list[Tensor]:
    """Return the numbers of rows in parts of at most ``most`` tokens, similar lengths together.

    ``lengths`` [B]; a row that is longer has a part of its own. Parts are about equally large.
    """
    total = int(lengths.sum())
    parts = max(1, -(-total // most))
    target = -(-total // parts)
    order = lengths.argsort(stable=True)
    result: list[list[int]] = [[]]
    held = 0
    for row, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        full = held + length > most or (held >= target and len(result) < parts)
        if result[-1] and full:
            result.append([])
            held = 0
        result[-1].append(row)
        held += length
    return [torch.tensor(rows) for rows in result]


class Room:
    """How many tokens go through a model at once; halved when memory runs out."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def use(self, work: Callable[[int], T], undo: Callable[[], None] = lambda: None) -> T:
        """Return ``work(tokens)``; where memory runs out, undo what was done, halve and try again.

        A second failure is raised.
        """
        try:
            return work(self.tokens)
        except torch.OutOfMemoryError:
            pass  # outside of this block, since the error holds what the failed pass had in memory
        undo()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.tokens = max(1, self.tokens // 2)
        log.warning(
            "The GPU's memory ran out. From here on %s tokens go through the model at once, half "
            "as many as before. Set micro_batch_tokens to no more than that to avoid the attempt.",
            f"{self.tokens:,}",
        )
        return work(self.tokens)
