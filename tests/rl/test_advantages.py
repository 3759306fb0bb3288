"""Rewards and advantages: against hand-worked values, a plain loop, and their own properties."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.masked import masked_mean, masked_var, masked_whiten
from rl.advantages import generalised_advantages, token_rewards


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
    found = generalised_advantages(rewards, values, torch.ones(1, 3, dtype=torch.bool), 0.5, 0.5)
    torch.testing.assert_close(found.advantages, torch.tensor([[0.0, 0.0, 0.4]]))
    torch.testing.assert_close(found.returns, torch.tensor([[0.2, 0.4, 1.0]]))


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
    found = generalised_advantages(rewards, values, mask, gamma, lam)
    for row, length in enumerate(lengths):
        expected = reference(
            rewards[row, :length].tolist(), values[row, :length].tolist(), gamma, lam
        )
        assert found.advantages[row, :length].tolist() == pytest.approx(expected)
        assert not found.advantages[row, length:].any()
        assert not found.returns[row, length:].any()


def test_lambda_one_is_return_less_value_and_lambda_nought_is_one_step():
    rewards, values = torch.randn(3, 6), torch.randn(3, 6)
    mask = torch.ones(3, 6, dtype=torch.bool)
    to_go = rewards.flip(1).cumsum(1).flip(1)
    whole = generalised_advantages(rewards, values, mask, 1.0, 1.0)
    torch.testing.assert_close(whole.advantages, to_go - values)
    torch.testing.assert_close(whole.returns, to_go)
    one = generalised_advantages(rewards, values, mask, 1.0, 0.0)
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
