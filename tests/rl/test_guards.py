"""Guards: what counts as a spike, and that its step is not taken."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import torch

from plumbline.errors import ModelError
from plumbline.lm.batches import collate
from plumbline.lm.policy import Policy
from rl.config import GuardConfig
from rl.guards import Guard, spike
from rl.rollouts import Rollout

MASK = torch.tensor([[True, True, False], [True, True, True]])
ROWS = torch.tensor([7, 4])
FINE = {"loss": 0.5, "policy gradient": 1.0}
CALM = torch.tensor([[0.1, -0.1, 0.0], [0.0, 0.2, 0.1]])


def test_small_changes_are_no_spike():
    assert spike(CALM, MASK, FINE, ROWS, GuardConfig()) is None


def test_a_log_ratio_beyond_its_limit_is_a_spike_and_its_row_comes_first():
    log_ratio = CALM.clone()
    log_ratio[1, 2] = -21.0
    result = spike(log_ratio, MASK, FINE, ROWS, GuardConfig())
    assert result is not None
    assert "moved by 21.0" in result.reason
    assert result.rows == [4, 7]
    assert spike(log_ratio, MASK, FINE, ROWS, GuardConfig(log_ratio=22, approx_kl=None)) is None
    assert spike(log_ratio, MASK, FINE, ROWS, GuardConfig(log_ratio=None, approx_kl=None)) is None


def test_what_lies_off_the_mask_is_no_spike():
    log_ratio = CALM.clone()
    log_ratio[0, 2] = math.nan
    assert spike(log_ratio, MASK, FINE, ROWS, GuardConfig()) is None


def test_the_distance_of_an_update_is_the_mean_of_k3():
    # exp(1) - 1 - 1 = 0.718 at each of five tokens.
    log_ratio = torch.ones(2, 3)
    assert spike(log_ratio, MASK, FINE, ROWS, GuardConfig(approx_kl=0.72)) is None
    result = spike(log_ratio, MASK, FINE, ROWS, GuardConfig(approx_kl=0.71))
    assert result is not None
    assert "0.72 nats" in result.reason


@pytest.mark.parametrize("number", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["loss", "policy gradient"])
def test_what_is_no_number_is_a_spike(name, number):
    result = spike(CALM, MASK, FINE | {name: number}, ROWS, GuardConfig())
    assert result is not None
    assert result.reason.startswith(f"the {name} is {number}")


def test_a_change_that_is_no_number_is_a_spike_whose_row_comes_first():
    log_ratio = CALM.clone()
    log_ratio[1, 0] = math.nan
    result = spike(log_ratio, MASK, FINE, ROWS, GuardConfig(log_ratio=None, approx_kl=None))
    assert result is not None
    assert result.rows == [4, 7]


def test_an_empty_minibatch_is_no_spike():
    assert spike(CALM, MASK & False, FINE, ROWS, GuardConfig()) is None


@pytest.fixture
def rollout(toy):
    policy = Policy.load(toy.folder)
    batch = collate([policy.encode(p) for p in toy.prompts[:2]], [[6, 7], [8, 9, 1]], policy.pad_id)
    width = torch.zeros(2, 3)
    return policy, Rollout(
        batch, batch.response_mask, width, width, width, width, width, width,
        torch.tensor([0.5, math.inf]), torch.tensor([1.0, 2.0]), torch.tensor([False, True]),
    )  # fmt: skip


def test_a_spike_leaves_a_trace_and_is_said(rollout, tmp_path):
    policy, rollout = rollout
    said = []
    guard = Guard(GuardConfig(), policy, tmp_path / "traces", said.append)
    rows = torch.tensor([1, 0])
    assert not guard.blocks_step(rollout, torch.zeros(2, 3), FINE, rows, 4)
    assert not (tmp_path / "traces").exists()
    log_ratio = torch.tensor([[0.0, 30.0, 0.0], [0.0, 0.0, 0.0]])  # of rows 1 and 0
    assert guard.blocks_step(rollout, log_ratio, FINE, rows, 4)
    (sentence,) = said
    assert "round 5" in sentence
    first, second = [
        json.loads(line) for line in (tmp_path / "traces/round-5.jsonl").read_text().splitlines()
    ]
    assert first["response"] == "cd<|eos|>"
    assert first["tokens"] == ["c", "d", "<|eos|>"]
    assert first["log_ratio"] == [0.0, 30.0, 0.0]
    assert first["kl"] == "inf"
    assert second["response"] == "ab"
    assert second["log_ratio"] == [0.0, 0.0]
    assert "aa" in second["prompt"]


def test_stop_ends_training_with_an_error_that_says_what_to_do(rollout, tmp_path):
    policy, rollout = rollout
    guard = Guard(GuardConfig(action="stop"), policy, tmp_path, lambda _: None)
    with pytest.raises(ModelError, match=r"guards\.action is stop.*learning rate"):
        guard.blocks_step(rollout, torch.full((2, 3), 50.0), FINE, torch.tensor([0, 1]), 0)


def test_traces_of_rounds_that_come_again_are_dropped(tmp_path):
    """Else a training that was killed and went on would have them twice."""
    for number in (2, 3, 10):
        (tmp_path / f"round-{number}.jsonl").write_text("{}\n")
    Guard(GuardConfig(), SimpleNamespace(), tmp_path, print).drop_traces_after(2)
    assert [file.name for file in tmp_path.iterdir()] == ["round-2.jsonl"]
