"""Log-probabilities straight from hidden states: the logits are never held all at once.

The head's product and the log-softmax are computed for some tokens at a time, forward and, by
computing the logits again, backward. What is kept between the two is a few numbers per token.

Shapes: ``M`` tokens, ``D`` width, ``V`` vocabulary, ``C`` tokens of a part.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from plumbline.lm.gpu.regions import free_rows, region

#: Most bytes of logits in the number format of the states that are held at once, on a GPU and on a
#: CPU, and the share of a GPU's free memory that they may take.
_GPU_BYTES, _CPU_BYTES, _SHARE_OF_FREE = 3 << 29, 1 << 24, 1 / 32
#: A part has at least so many tokens: products of fewer waste the processor.
_FEWEST = 64


def head_logprobs(
    states: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ids: Tensor,
    temperature: float = 1.0,
    *,
    entropy_gradient: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return log-probability and entropy [M] of ``ids`` [M] under a head on ``states`` [M, D].

    With z = (states W^T + b) / temperature: log p(i) = z_i - logsumexp(z), and
    H = logsumexp(z) - sum_i p_i z_i. Products are in the states' number format, all else is in
    float32. ``weight`` [V, D] and ``bias`` [V] may be held in another format, in which they get
    their gradients. The entropy has a gradient only where ``entropy_gradient`` asks for one.
    """
    logprobs, entropy = _HeadLogprobs.apply(  # type: ignore[no-untyped-call]
        states, weight, bias, ids, temperature, entropy_gradient
    )
    return logprobs, entropy if entropy_gradient else entropy.detach()


class _HeadLogprobs(torch.autograd.Function):
    """See `head_logprobs`."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        ids: Tensor,
        temperature: float,
        entropy_gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        matrix, offset = _cast(weight, states), _cast(bias, states)
        size = part_size(states, len(weight))
        parts = []
        for start in range(0, len(states), size):
            x, wanted = states[start : start + size], ids[start : start + size]
            free_rows(x, wanted)
            parts.append(_look(x, matrix, offset, wanted, temperature))
        columns = zip(*parts, strict=True) if parts else [[states.new_zeros(0).float()]] * 4
        logprobs, entropy, top, rest = (torch.cat(list(column)) for column in columns)
        ctx.save_for_backward(states, weight, bias, ids, top, rest, entropy)
        ctx.temperature, ctx.size, ctx.entropy_gradient = temperature, size, entropy_gradient
        return logprobs, entropy

    @staticmethod
    def backward(
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None, None]:
        states, weight, bias, ids, top, rest, entropy = ctx.saved_tensors
        matrix, offset = _cast(weight, states), _cast(bias, states)
        wants_states, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        of_states = torch.empty_like(states) if wants_states else None
        # Summed in float32 over the parts; of a single part there is nothing to sum.
        of_weight = torch.zeros_like(weight, dtype=torch.float32) if wants_weight else None
        of_bias = torch.zeros_like(bias, dtype=torch.float32) if wants_bias else None
        slope = _slope_with_entropy if ctx.entropy_gradient else _slope
        for start in range(0, len(states), ctx.size):
            part = slice(start, start + ctx.size)
            x, wanted = states[part], ids[part]
            kept = (top[part], rest[part], entropy[part])
            wants = (gradients[0][part], gradients[1][part])
            free_rows(x, wanted, *kept, *wants)
            slopes = slope(x, matrix, offset, wanted, kept, wants, ctx.temperature)  # [C, V]
            if of_states is not None:
                torch.mm(slopes, matrix, out=of_states[part])
            if of_weight is not None:
                of_weight += slopes.t() @ x
            if of_bias is not None:
                of_bias += slopes.sum(0, dtype=torch.float32)
        return (
            of_states,
            None if of_weight is None else of_weight.to(weight.dtype),
            None if of_bias is None else of_bias.to(bias.dtype),
            None,
            None,
            None,
        )


def part_size(states: Tensor, vocabulary: int) -> int:
    """Return how many tokens' logits are held at once."""
    row = vocabulary * states.element_size()
    room = _CPU_BYTES
    if states.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(states.device)
        room = min(_GPU_BYTES, int(free * _SHARE_OF_FREE))
    fitting = room // row
    return max(_FEWEST, fitting - fitting % _FEWEST)


def _cast(tensor: Tensor | None, like: Tensor) -> Any:
    return None if tensor is None else tensor.detach().to(like.dtype)


def _logits(x: Tensor, matrix: Tensor, offset: Tensor | None, temperature: float) -> Tensor:
    return F.linear(x, matrix, offset).float() / temperature


@region
def _look(
    x: Tensor, matrix: Tensor, offset: Tensor | None, ids: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return log-probability, entropy, and the logsumexp in two summands, each [C].

    The second summand may be too small to add to the first.
    """
    z = _logits(x, matrix, offset, temperature)
    top = z.amax(1)
    below = z - top.unsqueeze(1)
    shares = below.exp()
    total = shares.sum(1)
    rest = total.log()
    entropy = rest - (shares * below).sum(1) / total
    return below.gather(1, ids.unsqueeze(1)).squeeze(1) - rest, entropy, top, rest


@region
def _slope(
    x: Tensor,
    matrix: Tensor,
    offset: Tensor | None,
    ids: Tensor,
    kept: tuple[Tensor, Tensor, Tensor],
    wants: tuple[Tensor, Tensor],
    temperature: float,
) -> Tensor:
    """Return the gradient of the logits, [C, V]: d log p(i) / dz = onehot(i) - p.

    ``kept`` are the summands of the logsumexp and the entropy, [C] each; ``wants`` the gradients
    of log-probabilities and entropies.
    """
    top, rest, _ = kept
    normed, is_drawn = _normed(_logits(x, matrix, offset, temperature), ids, top, rest)
    slopes = (is_drawn - normed.exp()) * wants[0].unsqueeze(1)
    return (slopes / temperature).to(x.dtype)


@region
def _slope_with_entropy(
    x: Tensor,
    matrix: Tensor,
    offset: Tensor | None,
    ids: Tensor,
    kept: tuple[Tensor, Tensor, Tensor],
    wants: tuple[Tensor, Tensor],
    temperature: float,
) -> Tensor:
    """Do the same with dH / dz = -p (log p + H) added."""
    top, rest, entropy = kept
    normed, is_drawn = _normed(_logits(x, matrix, offset, temperature), ids, top, rest)
    share = normed.exp()
    slopes = (is_drawn - share) * wants[0].unsqueeze(1)
    slopes = slopes - share * (normed + entropy.unsqueeze(1)) * wants[1].unsqueeze(1)
    return (slopes / temperature).to(x.dtype)


def _normed(z: Tensor, ids: Tensor, top: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
    """Return log-probabilities [C, V], and 1 at the drawn tokens."""
    is_drawn = torch.arange(z.shape[1], device=z.device) == ids.unsqueeze(1)
    return z - top.unsqueeze(1) - rest.unsqueeze(1), is_drawn.float()
