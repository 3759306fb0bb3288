"""A gate over aspects: how much each counts depends on the prompt.

Wang et al. (2024), "Interpretable Preferences via Multi-Objective Reward Modeling and
Mixture-of-Experts" (ArmoRM), section 2.2: a small network reads the prompt's last hidden state and
gives a share to each aspect. It learns from pairs that the heads have not seen, and the heads stay
as they are. Ours starts as the stated weights, and stays there where no better gate is found.

Shapes: ``N`` pairs, ``H`` width of the model, ``K`` aspects.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plumbline.errors import DataError
from plumbline.seeds import derive

GATE = "gate.safetensors"
_STEPS, _LEARNING_RATE, _WEIGHT_DECAY = 200, 3e-3, 1e-2
#: Of the pairs that a gate learns from, every so many-th decides when it is best.
_EVERY = 5


class Gate(nn.Module):
    """Maps the last hidden state of a prompt to the weight of each aspect."""

    mean: Tensor
    std: Tensor
    sign: Tensor

    def __init__(self, width: int, aspects: int, hidden: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, hidden), nn.Linear(hidden, aspects)
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self.register_buffer("sign", torch.ones(aspects))

    def forward(self, states: Tensor) -> Tensor:
        """Return the weights [N, K] for the states [N, H] of prompts.

        Their sizes are shares of one scale; an aspect that was stated to count against a response
        does so for every prompt.
        """
        inner = F.silu(self.first((states - self.mean) / self.std))
        shares: Tensor = torch.softmax(self.second(inner), dim=-1)
        return shares * self.sign * self.log_scale.exp()

    @classmethod
    def stated(cls, states: Tensor, weights: Sequence[float], hidden: int) -> Gate:
        """Return a gate that gives every prompt the stated weights; states [N, H] set its scale."""
        gate = cls(states.shape[1], len(weights), hidden)
        stated = torch.tensor(weights, dtype=torch.float32)
        sizes = stated.abs().clamp(min=1e-3)  # an aspect that does not count may come to
        with torch.no_grad():
            gate.mean.copy_(states.mean(0))
            gate.std.copy_(states.std(0).clamp(min=1e-6))
            gate.sign.copy_(torch.where(stated < 0, -1.0, 1.0))
            gate.second.weight.zero_()
            gate.second.bias.copy_((sizes / sizes.sum()).log())
            gate.log_scale.copy_(sizes.sum().log())
        return gate

    def write(self, folder: Path) -> None:
        """Write ``gate.safetensors`` beside the model."""
        from safetensors.torch import save_file

        save_file({name: x.contiguous() for name, x in self.state_dict().items()}, folder / GATE)

    @classmethod
    def read(cls, folder: Path) -> Gate | None:
        """Read a reward model's gate; None where it has none."""
        from safetensors.torch import load_file

        if not (folder / GATE).exists():
            return None
        weights = load_file(folder / GATE)
        hidden, width = weights["first.weight"].shape
        gate = cls(width, len(weights["sign"]), hidden)
        gate.load_state_dict(weights)
        return gate.requires_grad_(False)


class GatePairs(NamedTuple):
    """What a gate learns from."""

    states: Tensor
    """[N, H] the last hidden states of the prompts."""
    chosen: Tensor
    """[N, K] the outputs of the heads for the chosen responses."""
    rejected: Tensor
    """[N, K]."""

    def loss(self, gate: Gate) -> Tensor:
        """Return the mean Bradley-Terry loss of the gated rewards, in nats."""
        margins = (gate(self.states) * (self.chosen - self.rejected)).sum(1)
        return -F.logsigmoid(margins).mean()

    def rows(self, which: Tensor) -> GatePairs:
        """Return some of the pairs."""
        return GatePairs(*(part[which] for part in self))


def fit_gate(pairs: GatePairs, weights: Sequence[float], hidden: int, seed: int) -> Gate:
    """Return the gate with the least loss on a fifth of the pairs; it learns from the others.

    The first that is tried gives every prompt the stated ``weights`` [K]. Raises `DataError` where
    there are fewer than ten pairs.
    """
    count = len(pairs.states)
    if count < 2 * _EVERY:
        raise DataError(
            f"A gate over aspects has {count} pairs to learn from, and needs {2 * _EVERY} at "
            "least. Raise gate.held_out_share, or leave the gate out."
        )
    decides = torch.arange(count) % _EVERY == 0
    held_out, train = pairs.rows(decides), pairs.rows(~decides)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "gate") % 2**32)
        gate = Gate.stated(train.states, weights, hidden)
    optimizer = torch.optim.AdamW(gate.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    least, best = float("inf"), gate.state_dict()
    for _ in range(_STEPS + 1):
        with torch.no_grad():
            loss = float(held_out.loss(gate))
        if loss < least:
            least, best = loss, {name: x.clone() for name, x in gate.state_dict().items()}
        optimizer.zero_grad()
        with torch.enable_grad():
            torch.autograd.backward(train.loss(gate))
        optimizer.step()
    gate.load_state_dict(best)
    return gate.requires_grad_(False)
