"""Rounds by packed passes, as on a GPU: the numbers of the plain ones."""

from __future__ import annotations

import pytest
import torch

from plumbline.lm import logprobs
from plumbline.lm.gpu import status
from plumbline.lm.gpu.checks import has_packed_pass
from plumbline.lm.gpu.memory import Room, rows_by_tokens
from rl import roles as roles_module
from rl.config import PPOConfig, ValueConfig
from rl.metrics import RunningMeans, read_numbers
from tests.rl.conftest import build_rollout, make_ppo
from tests.rl.test_rollouts import Length, ready, sampled


@pytest.fixture(autouse=True)
def nothing_is_known():
    status.forget()
    yield
    status.forget()


def packed(monkeypatch):
    def here(model):
        return has_packed_pass(model, anywhere=True)

    monkeypatch.setattr(roles_module, "has_packed_pass", here)
    monkeypatch.setattr(logprobs, "has_packed_pass", here)


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("recompute", [True, False])
def test_a_rollout_has_the_same_numbers(base_folder, prompts, monkeypatch, method, recompute):
    config = PPOConfig(batch_size=8, minibatch_size=8, value=ValueConfig(head="normal"))
    roles = ready(base_folder, method, config)
    episodes = sampled(roles, prompts, config)
    expected = build_rollout(roles, Length(), episodes, config, 0.1, recompute=recompute)
    packed(monkeypatch)
    assert roles.share_base == (method == "lora")
    result = build_rollout(roles, Length(), episodes, config, 0.1, recompute=recompute)
    for name in ("logprobs", "reference_logprobs", "values", "advantages", "returns", "kl"):
        torch.testing.assert_close(
            getattr(result, name), getattr(expected, name), atol=2e-4, rtol=1e-3
        )


def test_numbers_are_read_in_their_order():
    assert read_numbers([1.0, torch.tensor(2.5), torch.tensor([3.0]).sum(), 4]) == [1, 2.5, 3, 4]
    assert read_numbers([0.5]) == [0.5]


def test_means_forget_what_was_cut():
    means = RunningMeans()
    means.add("loss", torch.tensor(2.0), 3.0)
    kept = len(means)
    means.add("loss", 100.0)
    means.cut(kept)
    means.add("loss", 4.0, torch.tensor(1.0))
    assert means.means() == {"loss": 2.5}


def test_a_round_that_runs_out_of_memory_learns_the_same():
    """The second attempt begins without gradients and without metrics of the first."""
    lengths = torch.tensor([3, 5, 4, 6])
    weight = torch.nn.Parameter(torch.ones(()))
    means, fails = RunningMeans(), [True]

    def work(tokens):
        for number, rows in enumerate(rows_by_tokens(lengths, tokens)):
            (weight * lengths[rows].sum()).backward()
            means.add("tokens", lengths[rows].sum())
            if number == 0 and fails:
                fails.pop()
                raise torch.OutOfMemoryError("no memory")
        return float(weight.grad)

    def undo():
        means.cut(0)
        weight.grad = None

    assert Room(10).use(work, undo) == 18.0
    assert sum(value for _, value, _ in means._entries) == 18


@pytest.mark.parametrize("trunk", ["own", "shared"])
def test_gradients_are_the_same_from_one_pass_or_two(base_folder, prompts, monkeypatch, trunk):
    config = PPOConfig(batch_size=8, minibatch_size=8, value=ValueConfig(trunk=trunk))
    roles = ready(base_folder, "lora", config)
    episodes = sampled(roles, prompts, config)
    ppo = make_ppo(roles, config)
    rollout = build_rollout(roles, Length(), episodes, config, 0.1)

    def gradients():
        metrics = RunningMeans()
        loss, log_ratio = ppo.accumulate_gradients(rollout, metrics)
        result = {
            name: parameter.grad.clone()
            for learner in ppo.learners.values()
            for name, parameter in learner.parameters.items()
            if parameter.grad is not None
        }
        for learner in ppo.learners.values():
            learner.zero_grad()
        return float(loss), log_ratio, result, metrics.means()

    expected = gradients()
    packed(monkeypatch)
    assert roles.reads_together == (trunk == "own")
    result = gradients()
    assert result[0] == pytest.approx(expected[0], abs=1e-4)
    torch.testing.assert_close(result[1], expected[1], atol=1e-4, rtol=1e-3)
    assert result[2].keys() == expected[2].keys()
    for name, gradient in expected[2].items():
        torch.testing.assert_close(result[2][name], gradient, atol=1e-4, rtol=2e-2)
    assert result[3] == pytest.approx(expected[3], abs=1e-3)
