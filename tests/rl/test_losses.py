"""The losses: hand-worked values, properties, finite differences, and parity with TRL."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl.config import LossConfig
from rl.kl import k3
from rl.losses import (
    POLICY_LOSSES,
    REDUCTIONS,
    Clip,
    cispo_loss,
    clipped_policy_loss,
    clipped_value_loss,
    gspo_loss,
    token_mean,
    truncated_weights,
)

#: Numbers that other implementations gave; the file says which, of what version, and how.
REFERENCES = json.loads((Path(__file__).parent / "references.json").read_text("utf-8"))


EVERYWHERE = torch.tensor([[True]])


def at(*numbers: float) -> list[torch.Tensor]:
    return [torch.tensor([[number]]) for number in numbers]


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    [
        (1.0, 2.0, -2.0, False),
        (1.5, 2.0, -2.6, True),  # gains are capped at 1.3
        (0.5, 2.0, -1.0, False),  # losses are not
        (1.5, -2.0, 3.0, False),
        (0.5, -2.0, 1.6, True),  # below at 0.8
    ],
)
def test_policy_loss_by_hand(ratio, advantage, loss, clipped):
    tensors = at(math.log(ratio) - 1, -1.0, advantage)
    result = clipped_policy_loss(*tensors, EVERYWHERE, Clip(0.2, 0.3))
    assert result.loss.item() == pytest.approx(loss)
    assert result.ratio.item() == pytest.approx(ratio)
    assert result.clipped.item() is clipped


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    [
        (5.0, -2.0, 6.0, True),  # 3 times the advantage and no more, where it was 10
        (2.5, -2.0, 5.0, False),
        (5.0, 2.0, -2.4, True),  # positive advantages are clipped as ever
        (0.5, -2.0, 1.6, True),
    ],
)
def test_dual_clip_by_hand(ratio, advantage, loss, clipped):
    tensors = at(math.log(ratio), 0.0, advantage)
    result = clipped_policy_loss(*tensors, EVERYWHERE, Clip(0.2, 0.2, dual=3.0))
    assert result.loss.item() == pytest.approx(loss)
    assert result.clipped.item() is clipped


def test_cispo_by_hand_keeps_the_gradient_of_clipped_tokens():
    # Ratios 2 and 0.5, clipped to 1.3 and 0.8: weights times -A log p, log p = log 2 and log 0.5.
    new = torch.tensor([[math.log(2.0), math.log(0.5)]], requires_grad=True)
    old, advantages, mask = torch.zeros(1, 2), torch.tensor([[3.0, -1.0]]), EVERYWHERE.expand(1, 2)
    result = cispo_loss(new, old, advantages, mask, Clip(0.2, 0.3))
    expected = [[-1.3 * 3 * math.log(2), 0.8 * math.log(0.5)]]
    torch.testing.assert_close(result.loss, torch.tensor(expected))
    assert result.clipped.all()
    result.loss.sum().backward()
    torch.testing.assert_close(new.grad, torch.tensor([[-1.3 * 3, 0.8]]))
    clipped = new.detach().requires_grad_()
    other = clipped_policy_loss(clipped, old, advantages, mask, Clip(0.2, 0.3))
    other.loss.sum().backward()
    assert not clipped.grad.any()


def test_gspo_by_hand():
    # Log-ratios 0.3 and 0.1 (a third is padding): s = exp(0.2), cut to 1.1 where A > 0.
    new, old = torch.tensor([[0.3, 0.1, 9.0]] * 2), torch.zeros(2, 3)
    mask = torch.tensor([[True, True, False]] * 2)
    advantages = torch.tensor([[2.0] * 3, [-2.0] * 3])
    result = gspo_loss(new, old, advantages, mask, Clip(0.1, 0.1))
    torch.testing.assert_close(result.ratio, torch.full((2, 3), math.exp(0.2)))
    expected = torch.tensor([[-2.2] * 2, [2 * math.exp(0.2)] * 2])
    torch.testing.assert_close(result.loss[:, :2], expected)
    assert result.clipped[:, :2].tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize(
    ("value", "old", "target", "loss", "clipped"),
    [
        (1.0, 1.0, 2.0, 0.5, False),
        (1.5, 1.0, 2.0, 0.5 * 0.8**2, True),  # as if the value had moved to 1.2 only
        (0.5, 1.0, 2.0, 0.5 * 1.5**2, False),  # the larger error counts
        (2.5, 1.0, 2.0, 0.5 * 0.8**2, True),
    ],
)
def test_value_loss_by_hand(value, old, target, loss, clipped):
    result = clipped_value_loss(*at(value, old, target), clip=0.2)
    assert result.loss.item() == pytest.approx(loss)
    assert result.clipped.item() is clipped
    plain = clipped_value_loss(*at(value, old, target), clip=None)
    assert plain.loss.item() == pytest.approx(0.5 * (value - target) ** 2)
    assert not plain.clipped.item()


def test_token_weights_by_hand():
    # Two responses of 3 and 1 tokens, the first with a hole where an environment spoke.
    mask = torch.tensor([[True, False, True, True], [True, False, False, False]])
    by = {name: reduction.weights(mask, 8) for name, reduction in REDUCTIONS.items()}
    quarter, sixth, sixteenth = 1 / 4, 1 / 6, 1 / 16
    for how, (first, second) in {
        "token_mean": (quarter, quarter),
        "sequence_mean": (sixth, 1 / 2),
        "fixed_length": (sixteenth, sixteenth),
    }.items():
        torch.testing.assert_close(
            by[how], torch.tensor([[first, 0, first, first], [second, 0, 0, 0]])
        )


def test_a_response_without_tokens_weighs_nothing_and_breaks_nothing():
    mask = torch.tensor([[True, True], [False, False]])
    for reduction in REDUCTIONS.values():
        weights = reduction.weights(mask, 4)
        assert weights.isfinite().all()
        assert not weights[1].any()
    assert not token_mean(torch.zeros(2, 2, dtype=torch.bool)).any()


def test_truncated_weights_by_hand():
    now = torch.tensor([[math.log(1.5), math.log(5.0), math.log(0.25)]], requires_grad=True)
    result = truncated_weights(now, torch.zeros(1, 3), cap=2.0)
    torch.testing.assert_close(result, torch.tensor([[1.5, 2.0, 0.25]]))
    assert not result.requires_grad


KINDS = {
    "clip": LossConfig(),
    "clip-higher": LossConfig(clip_high=0.28),
    "dual": LossConfig(dual_clip=3.0),
    "cispo": LossConfig(kind="cispo"),
    "gspo": LossConfig(kind="gspo"),
}


def some(seed=0, rows=4, width=6, spread=0.4):
    generator = torch.Generator().manual_seed(seed)
    new, old, advantages = (
        torch.randn(rows, width, dtype=torch.float64, generator=generator) for _ in range(3)
    )
    mask = torch.rand(rows, width, generator=generator) < 0.6
    mask[:, 0] = True
    return old + spread * new, old, advantages, mask


def loss_of(kind, new, old, advantages, mask):
    config = KINDS[kind]
    return POLICY_LOSSES[config.kind](new, old, advantages, mask, config.clip).loss


@pytest.mark.parametrize("kind", KINDS)
def test_at_the_old_policy_the_gradient_is_the_policy_gradient(kind):
    _, old, advantages, mask = some()
    advantages = advantages[:, :1].expand_as(advantages)  # GSPO's are those of whole responses
    new = old.clone().requires_grad_()
    (loss_of(kind, new, old, advantages, mask) * mask).sum().backward()
    torch.testing.assert_close(new.grad, -advantages * mask)


@pytest.mark.parametrize("kind", ["clip", "clip-higher", "dual", "gspo"])
def test_gradients_equal_finite_differences(kind):
    new, old, advantages, mask = some(3)
    new.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: (loss_of(kind, x, old, advantages, mask) * mask).sum(), new
    )


def test_the_value_loss_s_gradient_equals_finite_differences():
    values, old, returns, _ = some(3)
    values.requires_grad_()
    for clip in (0.2, None):
        assert torch.autograd.gradcheck(
            lambda x, c=clip: clipped_value_loss(x, old, returns, c).loss, values
        )


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_alone_and_a_mask_as_a_slice_give_the_same_losses(kind):
    new, old, advantages, mask = some(5)
    whole = loss_of(kind, new, old, advantages, mask)
    for row in range(len(mask)):
        keep = mask[row]
        alone = loss_of(
            kind, *(x[row : row + 1, keep] for x in (new, old, advantages)), keep[keep].unsqueeze(0)
        )
        torch.testing.assert_close(alone[0], whole[row, keep])


@settings(deadline=None, max_examples=40)
@given(
    reduction=st.sampled_from(list(REDUCTIONS)),
    size=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_however_a_minibatch_is_cut_the_sum_is_the_same(reduction, size, seed):
    new, old, advantages, mask = some(seed, rows=5)
    weights = REDUCTIONS[reduction].weights(mask, 6)
    whole = (loss_of("clip", new, old, advantages, mask) * weights).sum()
    parts = sum(
        (loss_of("clip", *(x[r : r + size] for x in (new, old, advantages, mask)))
         * weights[r : r + size]).sum()
        for r in range(0, 5, size)
    )  # fmt: skip
    torch.testing.assert_close(parts, whole)


def test_the_environment_s_tokens_change_no_weight():
    mask = torch.tensor([[True, False, False, True], [True, True, False, False]])
    closed = torch.tensor([[True, True], [True, True]])
    for reduction in REDUCTIONS.values():
        torch.testing.assert_close(
            reduction.weights(mask, 5)[mask], reduction.weights(closed, 5)[closed]
        )


# Parity with other implementations.

GIVEN = {name: torch.tensor(value) for name, value in REFERENCES["inputs"].items()}
MASK = torch.arange(5) < GIVEN["lengths"].unsqueeze(1)
#: How each of TRL's losses is set here: what the loss is, and how much of k3 is added.
TRL = {
    "clip, sequence_mean, k3": (LossConfig(), "sequence_mean", 0.05),
    "clip, token_mean": (LossConfig(), "token_mean", 0.0),
    "clip-higher, token_mean": (LossConfig(clip_high=0.28), "token_mean", 0.0),
    "clip, fixed_length": (LossConfig(), "fixed_length", 0.0),
    # TRL has no lower clip here; a ratio is never below 0.
    "cispo, token_mean": (
        LossConfig(kind="cispo", clip_low=1.0, clip_high=0.28),
        "token_mean",
        0.0,
    ),
    "gspo, sequence_mean": (LossConfig(kind="gspo", clip_low=0.05), "sequence_mean", 0.0),
}


@pytest.mark.parametrize("name", TRL)
def test_losses_and_gradients_equal_trl_s(name):
    how, reduction, beta = TRL[name]
    new = GIVEN["new"].clone().requires_grad_()
    advantages = GIVEN["advantages"].unsqueeze(1).expand_as(new)
    per_token = POLICY_LOSSES[how.kind](new, GIVEN["old"], advantages, MASK, how.clip).loss
    per_token = per_token + beta * k3(new, GIVEN["reference"])
    weights = REDUCTIONS[reduction].weights(MASK, 8)
    loss = (per_token.masked_fill(~MASK, 0.0) * weights).sum()
    loss.backward()
    theirs = REFERENCES["trl_1_16"][name]
    assert loss.item() == pytest.approx(theirs["loss"], abs=1e-6)
    torch.testing.assert_close(new.grad, torch.tensor(theirs["gradient"]), atol=1e-6, rtol=1e-5)


def test_ppo_s_losses_equal_those_of_trl_s_ppo_trainer():
    theirs = REFERENCES["trl_0_12_ppo"]
    advantages = torch.zeros(4, 5)
    for row, values in enumerate(theirs["whitened"]):
        advantages[row, : len(values)] = torch.tensor(values)
    weights = token_mean(MASK)
    policy = clipped_policy_loss(GIVEN["new"], GIVEN["old"], advantages, MASK, Clip(0.2, 0.2))
    assert (policy.loss * weights).sum().item() == pytest.approx(theirs["policy_loss"], abs=1e-6)
    value = clipped_value_loss(GIVEN["new_values"], GIVEN["values"], GIVEN["rewards"], 0.2)
    assert (value.loss * weights).sum().item() == pytest.approx(theirs["value_loss"], abs=1e-6)
    clipped = (value.clipped * weights).sum().item()
    assert clipped == pytest.approx(theirs["value_clip_fraction"], abs=1e-6)
