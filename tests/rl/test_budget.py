"""How far a policy is said to be from its reference, and what a KL budget makes of it."""

from __future__ import annotations

import pytest
import torch

from plumbline.lm.batches import collate
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.policy import Policy
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.metrics import read_metrics
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from rl.config import (
    GuardConfig,
    KLConfig,
    PPOConfig,
    RolloutConfig,
    ShapingConfig,
    ValueConfig,
)
from rl.ppo import train_ppo
from rl.sampler import RolloutSampler
from tests.rl.conftest import answers, distribution

pytestmark = pytest.mark.slow

MOST = 2
CONFIG = PPOConfig(
    tuning=TuningConfig(method="lora", rank=4),
    sampling=SamplingConfig(max_new_tokens=MOST),
    iterations=3,
    batch_size=144,  # each of the toy's prompts, four times
    group_size=4,
    minibatch_size=72,
    micro_batch_size=72,
    ppo_epochs=2,
    learning_rate=7e-3,
    schedule="constant",
    value=ValueConfig(learning_rate=1e-2),
    kl=KLConfig(coefficient=0.0),
    guards=GuardConfig(log_ratio=None, approx_kl=None),
    shaping=ShapingConfig(missing_eos="keep"),
    evaluations=0,
)
BEHIND = RolloutConfig(max_staleness=1)


class LikesTheLetterE:
    name = "e"

    def score(self, prompts, responses):
        return [4 * text.count("e") / max(1, len(text)) for text in responses]


@torch.no_grad()
def exact_kl(policy, reference, prompts) -> float:
    """The mean KL over all that can be answered, in nats a response."""
    result = answers(policy, MOST)
    asked = [policy.encode(prompt) for prompt in prompts for _ in result]
    batch = collate(asked, result * len(prompts), policy.pad_id)
    ours, theirs = (one.logprobs(batch).logprobs.sum(1) for one in (policy, reference))
    return float((ours.exp() * (ours - theirs)).sum()) / len(prompts)


@pytest.fixture
def train(toy, tmp_path):
    """Train; note the exact KL of the policy that each round begins with, and of the saved one."""

    def run(monkeypatch=None, name="a", hook=None, **update):
        config = CONFIG.model_copy(update=update)
        stage = Stage(tmp_path / name, Reporter(quiet=True))
        start, some, exact = Policy.load(toy.folder), toy.prompts, []
        if monkeypatch is not None:
            draw = RolloutSampler.next

            def noticed(self, iteration):
                exact.append(exact_kl(self._policy, start, some))
                return draw(self, iteration)

            monkeypatch.setattr(RolloutSampler, "next", noticed)
        figures = train_ppo(
            stage,
            config=config,
            policy=toy.artifact,
            prompts=toy.prompts,
            scorer=LikesTheLetterE(),
            hook=hook or (lambda *_: {}),
            seed=0,
        )
        exact.append(exact_kl(Policy.load(stage.folder), start, some))
        lines = read_metrics(stage.folder / "metrics.jsonl")
        return [line["kl"] for line in lines if "kl" in line], exact, figures

    return run


@pytest.mark.parametrize("behind", [0, 1])
def test_the_kl_of_a_round_is_that_of_the_policy_that_drew_it(train, monkeypatch, behind):
    said, exact, _ = train(monkeypatch, rollouts=RolloutConfig(max_staleness=behind))
    drew = exact[:3] if behind == 0 else [exact[0], *exact[:2]]
    assert drew[-1] > 0.8
    for one, other in zip(said, drew, strict=True):
        assert one == pytest.approx(other, abs=0.15 + 0.1 * other)


@pytest.mark.parametrize("rollouts", [RolloutConfig(), BEHIND], ids=["in step", "behind"])
def test_what_is_saved_is_the_last_policy_that_was_within(train, monkeypatch, rollouts):
    """Wherever the budget lies, and however late the first policy beyond it is noticed."""
    with monkeypatch.context() as patch:
        _, free, _ = train(patch, name="free", rollouts=rollouts)
    assert sorted(free) == free
    for last in range(3):
        budget = (free[last] + free[last + 1]) / 2
        kl = KLConfig(coefficient=0.0, max_kl=budget)
        _, exact, figures = train(name=str(last), rollouts=rollouts, kl=kl)
        assert exact[-1] <= budget
        # One step behind, round 2 judges the policy of round 1, and none that of round 2.
        known = min(last, 1) if rollouts.max_staleness else last
        assert exact[-1] == pytest.approx(free[known], abs=1e-5)
        assert figures["rounds"] == known
        assert figures["steps"] == 4 * known


def test_within_its_budget_the_last_policy_is_kept(train, monkeypatch):
    with monkeypatch.context() as patch:
        _, free, _ = train(patch, name="free", iterations=2)
    _, exact, figures = train(iterations=2, kl=KLConfig(coefficient=0.0, max_kl=free[-1] + 1))
    assert exact[-1] == pytest.approx(free[-1], abs=1e-6)
    assert figures["rounds"] == 2


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_hook_is_given_the_first_policy_and_not_a_reference_that_follows(
    train, toy, method, tmp_path
):
    prompt, start, seen = toy.prompts[0], Policy.load(toy.folder), []

    def hook(policy, reference, step, folder):
        seen.append(distribution(reference, prompt, MOST))
        return {}

    train(
        hook=hook,
        tuning=TuningConfig(method=method),
        iterations=2,
        evaluations=2,
        kl=KLConfig(coefficient=0.0, reference_decay=0.2),
    )
    assert len(seen) == 3
    for result in seen:
        torch.testing.assert_close(result, distribution(start, prompt, MOST), atol=1e-5, rtol=1e-3)
