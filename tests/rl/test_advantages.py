"""Rewards and advantages: by hand, by a plain loop, by their properties, and as others do it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.masked import last_position, masked_mean, masked_var, masked_whiten
from rl.advantages import (
    ADVANTAGE_ESTIMATORS,
    EstimatorSettings,
    broadcast_to_tokens,
    generalized_advantages,
    group_centered,
    group_standardized,
    leave_one_out,
    returns_to_go,
    token_rewards,
)

#: Numbers that other implementations gave; the file says which, of what version, and how.
REFERENCES = json.loads((Path(__file__).parent / "references.json").read_text("utf-8"))
GIVEN = {name: torch.tensor(value) for name, value in REFERENCES["inputs"].items()}


def test_token_rewards_by_hand():
    # kl penalties -0.1 * kl at each real token; the score is added at each row's last one.
    kl = torch.tensor([[1.0, 2.0, 9.0], [3.0, -1.0, 0.5]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    rewards = token_rewards(torch.tensor([10.0, -4.0]), kl, mask, coefficient=0.1)
    expected = torch.tensor([[-0.1, -0.2 + 10, 0.0], [-0.3, 0.1, -0.05 - 4]])
    torch.testing.assert_close(rewards, expected)


def test_a_response_s_rewards_sum_to_its_score_less_the_penalty():
    kl, mask = torch.randn(5, 7), torch.arange(7) < torch.tensor([[1], [3], [7], [4], [2]])
    scores = torch.randn(5)
    total = token_rewards(scores, kl, mask, 0.3).sum(1)
    torch.testing.assert_close(total, scores - 0.3 * (kl * mask).sum(1))


def test_advantages_by_hand():
    # gamma 0.5, lambda 0.5; rewards 0, 0, 1; values 0.2, 0.4, 0.6.
    # delta_3 = 1 - 0.6 = 0.4;                 A_3 = 0.4
    # delta_2 = 0.5 * 0.6 - 0.4 = -0.1;        A_2 = -0.1 + 0.25 * 0.4 = 0
    # delta_1 = 0.5 * 0.4 - 0.2 = 0;           A_1 = 0
    rewards, values = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.2, 0.4, 0.6]])
    result = generalized_advantages(rewards, values, torch.ones(1, 3, dtype=torch.bool), 0.5, 0.5)
    torch.testing.assert_close(result.advantages, torch.tensor([[0.0, 0.0, 0.4]]))
    torch.testing.assert_close(result.returns, torch.tensor([[0.2, 0.4, 1.0]]))


def reference(rewards, values, gamma, lam):
    """The definition as a sum (Schulman et al., 2016, eq. 14 and 16), one row, no padding."""
    steps = len(rewards)
    following = [*values[1:], 0.0]
    deltas = [rewards[t] + gamma * following[t] - values[t] for t in range(steps)]
    return [
        sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, steps)) for t in range(steps)
    ]


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    gamma=st.floats(0.1, 1.0),
    lam=st.floats(0.0, 1.0),
    seed=st.integers(0, 1000),
)
def test_advantages_equal_the_definition_whatever_the_padding(lengths, gamma, lam, seed):
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths) + 2)
    rewards = torch.randn(shape, generator=generator, dtype=torch.float64)
    values = torch.randn(shape, generator=generator, dtype=torch.float64)
    mask = torch.arange(shape[1]) < torch.tensor(lengths).unsqueeze(1)
    result = generalized_advantages(rewards, values, mask, gamma, lam)
    for row, length in enumerate(lengths):
        expected = reference(
            rewards[row, :length].tolist(), values[row, :length].tolist(), gamma, lam
        )
        assert result.advantages[row, :length].tolist() == pytest.approx(expected)
        assert not result.advantages[row, length:].any()
        assert not result.returns[row, length:].any()


def test_lambda_one_is_return_less_value_and_lambda_zero_is_one_step():
    rewards, values = torch.randn(3, 6), torch.randn(3, 6)
    mask = torch.ones(3, 6, dtype=torch.bool)
    to_go = rewards.flip(1).cumsum(1).flip(1)
    whole = generalized_advantages(rewards, values, mask, 1.0, 1.0)
    torch.testing.assert_close(whole.advantages, to_go - values)
    torch.testing.assert_close(whole.returns, to_go)
    one = generalized_advantages(rewards, values, mask, 1.0, 0.0)
    following = torch.cat([values[:, 1:], torch.zeros(3, 1)], 1)
    torch.testing.assert_close(one.advantages, rewards + following - values)


def test_masked_statistics_equal_those_of_the_slice():
    values, mask = torch.randn(4, 9), torch.rand(4, 9) < 0.6
    real = values[mask]
    torch.testing.assert_close(masked_mean(values, mask), real.mean())
    torch.testing.assert_close(masked_var(values, mask), real.var())
    torch.testing.assert_close(
        masked_mean(values, mask, dim=1)[0], values[0][mask[0]].mean().nan_to_num()
    )
    whitened = masked_whiten(values, mask)[mask]
    assert whitened.mean().item() == pytest.approx(0, abs=1e-6)
    assert whitened.var().item() == pytest.approx(1, abs=1e-4)
    shifted = masked_whiten(values, mask, subtract_mean=False)[mask]
    torch.testing.assert_close(shifted.mean(), real.mean())


def test_a_variance_of_one_value_is_refused():
    with pytest.raises(ValueError, match="needs two values"):
        masked_var(torch.ones(1, 3), torch.tensor([[True, False, False]]))


# Holes in the mask, where an environment spoke.

HOLES = torch.tensor(
    [[True, True, False, False, True, True], [True, False, True, False, False, False]]
)


def test_the_score_is_paid_at_the_policy_s_last_token_whatever_follows():
    kl = torch.ones(2, 6)
    rewards = token_rewards(torch.tensor([10.0, 20.0]), kl, HOLES, 0.1)
    expected = [[-0.1, -0.1, 0, 0, -0.1, 9.9], [-0.1, 0, 19.9, 0, 0, 0]]
    torch.testing.assert_close(rewards, torch.tensor(expected))
    assert last_position(HOLES).tolist() == [5, 2]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5)])
def test_holes_are_as_if_the_environment_s_tokens_were_not_there(gamma, lam):
    rewards, values = torch.randn(2, 6), torch.randn(2, 6)
    result = generalized_advantages(rewards, values, HOLES, gamma, lam)
    to_go = returns_to_go(rewards, HOLES, gamma)
    for row, ours in enumerate(HOLES):
        count = int(ours.sum())
        closed = torch.ones(1, count, dtype=torch.bool)
        alone = generalized_advantages(
            rewards[row : row + 1, ours], values[row : row + 1, ours], closed, gamma, lam
        )
        torch.testing.assert_close(result.advantages[row, ours], alone.advantages[0])
        torch.testing.assert_close(result.returns[row, ours], alone.returns[0])
        torch.testing.assert_close(
            to_go[row, ours], returns_to_go(rewards[row : row + 1, ours], closed, gamma)[0]
        )
    assert not result.advantages[~HOLES].any()
    assert not result.returns[~HOLES].any()


def test_what_stands_at_the_environment_s_tokens_does_not_matter():
    rewards, values = torch.randn(2, 6), torch.randn(2, 6)
    other = [torch.where(HOLES, tensor, torch.nan) for tensor in (rewards, values)]
    for one, two in zip(
        generalized_advantages(rewards, values, HOLES, 0.9, 0.8),
        generalized_advantages(*other, HOLES, 0.9, 0.8),
        strict=True,
    ):
        torch.testing.assert_close(one, two)


# Without a value model.

REWARDS = torch.tensor([1.0, 2.0, 6.0, 4.0, 4.0, 4.0])  # two groups of three


def test_leave_one_out_by_hand():
    # 1 - (2 + 6) / 2 = -3; 2 - 7 / 2 = -1.5; 6 - 3 / 2 = 4.5.
    assert leave_one_out(REWARDS, 3).tolist() == [-3.0, -1.5, 4.5, 0.0, 0.0, 0.0]


def test_group_centered_by_hand():
    assert group_centered(REWARDS, 3).tolist() == [-2.0, -1.0, 3.0, 0.0, 0.0, 0.0]


def test_group_standardized_by_hand():
    # Variance (4 + 1 + 9) / 2 = 7.
    result = group_standardized(REWARDS, 3, epsilon=0.0)[:3]
    torch.testing.assert_close(result, torch.tensor([-2.0, -1.0, 3.0]) / 7**0.5)
    assert group_standardized(REWARDS, 3)[3:].tolist() == [0.0, 0.0, 0.0]


def test_returns_to_go_by_hand():
    rewards = torch.tensor([[1.0, 2.0, 4.0, 9.0]])
    mask = torch.tensor([[True, True, True, False]])
    # 1 + 0.5 (2 + 0.5 * 4) = 3; 2 + 0.5 * 4 = 4; 4.
    assert returns_to_go(rewards, mask, 0.5).tolist() == [[3.0, 4.0, 4.0, 0.0]]


def test_each_token_gets_its_response_s_value():
    assert broadcast_to_tokens(torch.tensor([2.0, 3.0]), HOLES).tolist() == [
        [2, 2, 0, 0, 2, 2],
        [3, 0, 3, 0, 0, 0],
    ]


@pytest.mark.parametrize("estimate", [leave_one_out, group_centered, group_standardized])
def test_groups_know_nothing_of_each_other(estimate):
    rewards = torch.randn(12)
    whole = estimate(rewards, 4)
    parts = torch.cat([estimate(rewards[n : n + 4], 4) for n in (0, 4, 8)])
    torch.testing.assert_close(whole, parts)
    torch.testing.assert_close(whole.view(3, 4).sum(1), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(estimate(rewards + 7, 4), whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        ("rloo", [[-1.0, 0.0], [1.0, 1.0]]),
        ("dr_grpo", [[-0.5, 0.0], [0.5, 0.5]]),
        ("group_mean", [[-0.5, 0.0], [0.5, 0.5]]),
        ("grpo", [[-(0.5**0.5), 0.0], [0.5**0.5, 0.5**0.5]]),
        ("reinforce_pp", [[1.0, 0.0], [2.0, 1.5]]),
        ("gae", [[1.0, 0.0], [2.0, 1.5]]),  # values are 0
    ],
)
def test_each_estimator_by_hand(estimator, expected):
    # Responses worth 1 and 0.5 + 1.5 = 2; gamma and lambda 1.
    rewards = torch.tensor([[1.0, 0.0], [0.5, 1.5]])
    mask = torch.tensor([[True, False], [True, True]])
    settings = EstimatorSettings(gamma=1.0, lam=1.0, group_size=2)
    result = ADVANTAGE_ESTIMATORS[estimator](rewards, torch.zeros(2, 2), mask, settings)
    torch.testing.assert_close(result.advantages, torch.tensor(expected), atol=2e-4, rtol=0)


# Parity with other implementations.


@pytest.mark.parametrize("case", range(2))
def test_advantages_equal_stable_baselines3_s(case):
    theirs = REFERENCES["sb3_gae"][case]
    mask = torch.arange(5) < GIVEN["lengths"].unsqueeze(1)
    result = generalized_advantages(
        GIVEN["rewards"], GIVEN["values"], mask, theirs["gamma"], theirs["lam"]
    )
    for row, length in enumerate(GIVEN["lengths"]):
        for ours, name in ((result.advantages, "advantages"), (result.returns, "returns")):
            assert ours[row, :length].tolist() == pytest.approx(theirs[name][row], abs=1e-5)


def test_advantages_equal_those_of_trl_s_ppo_trainer():
    theirs = REFERENCES["trl_0_12_gae"]
    full = torch.ones(4, 5, dtype=torch.bool)
    result = generalized_advantages(
        GIVEN["rewards"], GIVEN["values"], full, theirs["gamma"], theirs["lam"]
    )
    torch.testing.assert_close(result.advantages, torch.tensor(theirs["advantages"]))
    torch.testing.assert_close(result.returns, torch.tensor(theirs["returns"]))


@pytest.mark.parametrize(("name", "subtract_mean"), [("whitened", True), ("unshifted", False)])
def test_whitening_equals_trl_s(name, subtract_mean):
    mask = torch.arange(5) < GIVEN["lengths"].unsqueeze(1)
    result = masked_whiten(GIVEN["token_advantages"], mask, subtract_mean=subtract_mean)
    for row, expected in enumerate(REFERENCES["trl_0_12_ppo"][name]):
        assert result[row, : len(expected)].tolist() == pytest.approx(expected, abs=1e-5)


def test_group_advantages_equal_trl_s():
    for name, estimate in (("rloo", leave_one_out), ("grpo", group_standardized)):
        theirs = REFERENCES[f"trl_1_16_{name}"]
        result = estimate(GIVEN["scores"], theirs["group"])
        assert result.tolist() == pytest.approx(theirs["advantages"], abs=1e-5)
