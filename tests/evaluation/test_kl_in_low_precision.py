"""KL where a model computes in bfloat16: the same pass for policy and reference."""

from __future__ import annotations

import pytest
import torch

from evaluation.config import EvaluationConfig
from evaluation.harness import Harness
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.policy import Policy
from plumbline.world.gold import GoldUtility


def harness_of(prompts, **sampling):
    config = EvaluationConfig(
        prompts=12,
        prompts_during_training=6,
        resamples=100,
        sampling=SamplingConfig(max_new_tokens=24, **sampling),
    )
    return Harness(config, prompts, [GoldUtility(0)], data_seed=0)


def loaded(folder, dtype=torch.float32, noise=0.0) -> Policy:
    policy = Policy.load(folder)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(noise * torch.randn(parameter.shape, generator=generator))
    policy.model.to(dtype)
    return policy


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_a_bfloat16_policy_has_a_kl_of_exactly_0_to_itself(prompts, base_folder, temperature):
    policy = loaded(base_folder, torch.bfloat16)
    twin = loaded(base_folder, torch.bfloat16)
    harness = harness_of(prompts, temperature=temperature)
    for reference in (policy, twin):
        rows = harness.evaluate(policy, reference)
        assert [row["logprob"] for row in rows] == [row["reference_logprob"] for row in rows]
        metrics = harness.metrics(rows)
        assert metrics["kl"] == 0
        assert metrics["kl_noise"] > 1e-4  # decoding rounds otherwise, and that is stated


def test_sampling_in_bfloat16_over_float32_weights_is_the_same(prompts, base_folder):
    policy, twin = loaded(base_folder), loaded(base_folder)
    rows = harness_of(prompts, precision="bfloat16").evaluate(policy, twin)
    assert [row["logprob"] for row in rows] == [row["reference_logprob"] for row in rows]


def test_the_kl_to_another_policy_is_that_of_the_scoring_pass(prompts, base_folder):
    policy, other = loaded(base_folder, torch.bfloat16), loaded(base_folder, torch.bfloat16, 0.03)
    harness = harness_of(prompts)
    rows = harness.evaluate(policy, other)
    assert harness.metrics(rows)["kl"] > 0.01
    again = harness.evaluate(loaded(base_folder), loaded(base_folder, noise=0.03))
    texts = [row["response"] for row in rows]
    same = [n for n, row in enumerate(again) if row["response"] == texts[n]]
    assert same  # most responses are the same, and their log-ratios are near each other
    for n in same:
        exact = again[n]["logprob"] - again[n]["reference_logprob"]
        assert rows[n]["logprob"] - rows[n]["reference_logprob"] == pytest.approx(exact, abs=0.3)


def test_in_float32_the_log_probabilities_of_sampling_serve(prompts, base_folder):
    policy, twin = loaded(base_folder), loaded(base_folder)
    harness = harness_of(prompts)
    rows = harness.evaluate(policy, twin)
    assert "sampling_logprob" not in rows[0]
    for row in rows:
        assert row["logprob"] == pytest.approx(row["reference_logprob"], abs=1e-5 * row["tokens"])
    assert harness.metrics(rows)["kl"] == pytest.approx(0, abs=1e-4)


def test_measuring_again_keeps_the_log_probability_of_sampling(prompts, base_folder):
    policy = loaded(base_folder, torch.bfloat16)
    harness = harness_of(prompts)
    rows = harness.evaluate(policy, policy)
    sampled = [row["sampling_logprob"] for row in rows]
    harness.measure(rows, policy, policy)
    assert [row["sampling_logprob"] for row in rows] == sampled
