"""KL in bfloat16: by one pass for both, a policy's KL to itself is 0; else its noise is said."""

from __future__ import annotations

import pytest
import torch

from plumbline.lm.engines.native import NativeEngine
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.load import load_causal_lm
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.metrics import read_metrics
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from rl.config import PPOConfig, RolloutConfig, ValueConfig
from rl.ppo import train_ppo
from rl.roles import make_roles
from rl.sampler import RolloutSampler
from tests.rl.conftest import Folder, make_model, make_ppo, make_tokenizer

CONFIG = PPOConfig(
    sampling=SamplingConfig(max_new_tokens=8, temperature=0.8),
    batch_size=32,
    minibatch_size=16,
    iterations=2,
    learning_rate=1e-2,
    evaluations=0,
)


class Length:
    name = "length"

    def score(self, prompts, responses):
        return [float(len(text)) for text in responses]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One model twice: stored in float32 and in bfloat16."""
    root = tmp_path_factory.mktemp("models")
    make_model(root / "float32", make_tokenizer(), spread=0.5)
    load_causal_lm(root / "float32").bfloat16().save_pretrained(root / "bfloat16")
    load_tokenizer(root / "float32").save_pretrained(root / "bfloat16")
    return root


def first_rollout(folder, toy, config):
    torch.manual_seed(0)
    roles, scorer = make_roles(Folder(folder), config, Length())
    ppo = make_ppo(roles, config)
    sampler = RolloutSampler(NativeEngine(config.sampling), roles.policy, toy.prompts, config, 0)
    if roles.shares_trunk:
        sampler.note_values(roles.value_of)
    rollout = ppo.build_rollout(sampler.next(0), scorer, recompute=sampler.recomputes_logprobs)
    return ppo, sampler, rollout


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("trunk", ["own", "shared"])
@pytest.mark.parametrize("learning", ["model", "bfloat16"])
@pytest.mark.parametrize("decoding", ["model", "bfloat16"])
def test_a_policy_s_kl_to_itself_is_0(folders, toy, stored, method, trunk, learning, decoding):
    config = CONFIG.model_copy(
        update={
            "tuning": TuningConfig(method=method),
            "precision": learning,
            "sampling": CONFIG.sampling.model_copy(update={"precision": decoding}),
            "value": ValueConfig(trunk=trunk),
        }
    )
    ppo, sampler, rollout = first_rollout(folders / stored, toy, config)
    assert not sampler.kl_is_noisy
    # By one pass it is 0 to the last bit; in float32, sampling and training differ by rounding.
    limit = 0.0 if sampler.recomputes_logprobs else 2e-5
    assert float(rollout.kl.abs().max()) <= limit
    # And so is the change since the responses were drawn, before the first step.
    ppo.config = config.model_copy(update={"ppo_epochs": 1, "minibatch_size": 32})
    metrics = ppo.update(rollout)
    assert abs(metrics["approx_kl"]) < 1e-6
    assert metrics["ratio"] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("rollouts", "noisy"),
    [
        (RolloutConfig(), False),
        (RolloutConfig(recompute_logprobs=False), True),
        (RolloutConfig(max_staleness=1), True),
    ],
)
def test_where_kl_is_by_two_passes_its_noise_is_said(folders, toy, tmp_path, rollouts, noisy):
    lines = []

    class Noting(Reporter):
        def say(self, text):
            lines.append(text)

    config = CONFIG.model_copy(update={"rollouts": rollouts, "precision": "bfloat16"})
    stage = Stage(tmp_path, Noting(quiet=True))
    train_ppo(
        stage,
        config=config,
        policy=Folder(folders / "bfloat16"),
        prompts=toy.prompts,
        scorer=Length(),
        hook=lambda *_: {},
        seed=0,
    )
    first = read_metrics(stage.folder / "metrics.jsonl")[0]["kl"]
    said = [line for line in lines if "of the policy to itself" in line]
    assert len(said) == noisy
    if noisy:
        assert f"it is {first:.4f} nats per response" in said[0]
    assert (first != 0) == noisy
