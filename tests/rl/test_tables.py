"""Algorithms are rows of tables: every row runs and is documented, and a user's own is one more."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

from plumbline.config import Config, load
from plumbline.config.declare import condition_of
from plumbline.errors import ConfigError, ModelError
from plumbline.lm.engines.table import ENGINES
from rl.advantages import ADVANTAGE_ESTIMATORS, EstimatorSettings
from rl.config import PPOConfig
from rl.kl import KL_ESTIMATORS
from rl.losses import POLICY_LOSSES, REDUCTIONS, Clip
from rl.shaping import MISSING_EOS

TABLES = {
    "advantage.estimator": ADVANTAGE_ESTIMATORS,
    "loss.kind": POLICY_LOSSES,
    "loss.reduction": REDUCTIONS,
    "kl.estimator": KL_ESTIMATORS,
    "shaping.missing_eos": MISSING_EOS,
    "rollouts.engine": ENGINES,
}
PAGE = (Path(__file__).parents[2] / "docs/ppo.md").read_text("utf-8")


def tensors(seed=0):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    return [torch.randn(2, 3, generator=generator) for _ in range(3)], mask


@pytest.mark.parametrize("setting", TABLES)
def test_every_row_is_documented(setting):
    """In a table of docs/ppo.md whose first column is the setting's."""
    (section,) = re.findall(rf"\| `{re.escape(setting)}`.*?\n\n", PAGE, re.DOTALL)
    rows = set(re.findall(r"^\| (.*?) \|", section, re.MULTILINE))
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert set(TABLES[setting]) <= documented


@pytest.mark.parametrize("name", list(ADVANTAGE_ESTIMATORS))
def test_every_estimator_is_dispatched_to_itself(name):
    """Where two rows gave the same numbers, one of them would be another's name."""
    (rewards, values, _), mask = tensors()
    mine = EstimatorSettings(gamma=0.9, lam=0.8, group_size=2)
    result = ADVANTAGE_ESTIMATORS[name](rewards, values, mask, mine).advantages
    assert result.shape == mask.shape
    assert not result[~mask].any()
    same = {
        other
        for other in ADVANTAGE_ESTIMATORS
        if torch.equal(ADVANTAGE_ESTIMATORS[other](rewards, values, mask, mine).advantages, result)
    }
    twins = {"dr_grpo", "group_mean"}  # which differ in the reduction alone
    assert same == (twins if name in twins else {name})


@pytest.mark.parametrize("table", [POLICY_LOSSES, KL_ESTIMATORS, REDUCTIONS], ids=lambda t: t.what)
def test_every_other_row_has_numbers_of_its_own(table):
    (new, old, advantages), mask = tensors()
    results = {
        "policy loss": lambda row: row(new, old, advantages, mask, Clip(0.2, 0.3)).loss,
        "KL estimator": lambda row: row.function(new, old),
        "reduction": lambda row: row.weights(mask, 7),
    }
    numbers = {tuple(results[table.what](row)[mask].tolist()) for row in table.values()}
    assert len(numbers) == len(table)


@pytest.mark.parametrize("setting", TABLES)
def test_an_unknown_name_is_refused_before_anything_runs(setting):
    with pytest.raises(ConfigError, match=f"there is no {TABLES[setting].what} 'nothing'"):
        load(PPOConfig, None, [f"{setting}=nothing"])


# --- A user's own. ------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Write a module into the folder where the command is given."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def write(code):
        (tmp_path / "my_module.py").write_text(code)

    yield write
    sys.modules.pop("my_module", None)


def test_a_policy_loss_of_one_s_own(own):
    own(
        "from rl.losses import PolicyLoss\n"
        "def unclipped(logprobs, old_logprobs, advantages, mask, clip):\n"
        "    ratio = (logprobs - old_logprobs).exp()\n"
        "    return PolicyLoss(-ratio * advantages, ratio, ratio > 9)\n"
        "def mean(logprobs, old_logprobs, advantages, mask, clip):\n"
        "    return (logprobs - old_logprobs).mean()\n"
    )
    config = load(PPOConfig, None, ["loss.kind=my_module.unclipped"])
    assert config.reduction == "token_mean"
    (new, old, advantages), mask = tensors()
    result = POLICY_LOSSES[config.loss.kind](new, old, advantages, mask, config.loss.clip)
    torch.testing.assert_close(result.loss, -(new - old).exp() * advantages)
    assert config.identity()["loss"]["kind"]["function"] == "my_module.unclipped"
    with pytest.raises(ModelError, match=r"my_module\.mean, which returned Tensor"):
        POLICY_LOSSES["my_module.mean"](new, old, advantages, mask, config.loss.clip)


def test_an_estimator_of_one_s_own(own):
    own(
        "from rl.advantages import AdvantageEstimator, Advantages, broadcast_to_tokens\n"
        "def above_median(rewards, values, mask, settings):\n"
        "    grouped = rewards.sum(1).view(-1, settings.group_size)\n"
        "    better = (grouped - grouped.median(1, keepdim=True).values).flatten()\n"
        "    return Advantages(broadcast_to_tokens(better, mask), rewards * 0)\n"
        "in_groups = AdvantageEstimator(\n"
        "    'median', above_median, grouped=True, kl_applies_to='loss'\n"
        ")\n"
        "def wrong(rewards, values, mask, settings):\n"
        "    return rewards.sum(1)\n"
    )
    plain = load(PPOConfig, None, ["advantage.estimator=my_module.above_median"])
    assert (plain.has_values, plain.kl_in_loss) == (False, False)
    with pytest.raises(ConfigError, match="group_size is 1"):
        load(PPOConfig, None, ["advantage.estimator=my_module.in_groups"])
    config = load(PPOConfig, None, ["advantage.estimator=my_module.in_groups", "group_size=2"])
    assert config.kl_in_loss
    rewards = torch.tensor([[1.0, 0.0, 0.0], [2.0, 1.0, 0.0]])
    _, mask = tensors()
    result = config.estimator(rewards, rewards * 0, mask, config.estimator_settings)
    assert result.advantages.tolist() == [[0, 0, 0], [2, 2, 2]]  # the median of two is the lower
    with pytest.raises(ModelError, match=r"my_module\.wrong, which returned Tensor"):
        ADVANTAGE_ESTIMATORS["my_module.wrong"](rewards, rewards, mask, config.estimator_settings)


# --- Settings. ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("batch=8", "batch_size"),
        ("group=2", "group_size"),
        ("minibatch=8", "minibatch_size"),
        ("micro_batch=8", "micro_batch_size"),
        ("epochs=1", "ppo_epochs"),
        ("kl.place=loss", "kl.apply_to"),
        ("kl.budget=3.0", "kl.max_kl"),
        ("guards.update_kl=1.0", "guards.approx_kl"),
        ("shaping.unfinished=keep", "shaping.missing_eos"),
        ("shaping.penalty=2.0", "shaping.missing_eos_penalty"),
        ("rollouts.steps_behind=1", "rollouts.max_staleness"),
        ("loss.off_policy_cap=3.0", "rollouts.max_importance_weight"),
        ("loss.reduction=constant", "fixed_length"),
        ("rollouts.engine=own", "native"),
    ],
)
def test_an_old_name_is_refused_with_the_new_one(old, new):
    with pytest.raises(ConfigError, match=f"is now called '{new}'"):
        load(PPOConfig, None, [old])


#: Each setting that has an effect under a condition: a value with which it has none, and with it.
CONDITIONAL = {
    "advantage.gamma": (["advantage.gamma=0.9", "advantage.estimator=rloo", "group_size=4"],
                        ["advantage.gamma=0.9", "advantage.estimator=reinforce_pp"]),
    "advantage.lam": (["advantage.lam=0.9", "advantage.estimator=reinforce_pp"],
                      ["advantage.lam=0.9"]),
    "loss.dual_clip": (["loss.dual_clip=3.0", "loss.kind=cispo"], ["loss.dual_clip=3.0"]),
    "value.learning_rate": (["value.learning_rate=0.1", "advantage.estimator=rloo",
                             "group_size=4"], ["value.learning_rate=0.1"]),
    "value.clip": (["value.clip=0.1", "advantage.estimator=reinforce_pp"], ["value.clip=0.1"]),
    "value.start": (["value.start=reward", "value.trunk=shared"], ["value.start=reward"]),
    "value.head": (["value.head=normal", "value.start=reward"], ["value.head=normal"]),
    "value.coefficient": (["value.coefficient=0.5"],
                          ["value.coefficient=0.5", "value.trunk=shared"]),
    "value.warm_up": (["value.warm_up=2", "value.trunk=shared"], ["value.warm_up=2"]),
    "kl.apply_to": (["kl.apply_to=loss", "kl.coefficient=0"], ["kl.apply_to=loss"]),
    "kl.estimator": (["kl.estimator=k2", "kl.coefficient=0"], ["kl.estimator=k2"]),
    "kl.horizon": (["kl.horizon=100"], ["kl.horizon=100", "kl.target=1.0"]),
    "shaping.missing_eos_penalty": (
        ["shaping.missing_eos_penalty=2.0", "shaping.missing_eos=reject"],
        ["shaping.missing_eos_penalty=2.0", "shaping.missing_eos=replace"]),
    "rollouts.url": (["rollouts.url=http://a"], ["rollouts.url=http://a", "rollouts.engine=vllm"]),
    "rollouts.model": (["rollouts.model=a"],
                       ["rollouts.model=a", "rollouts.engine=vllm", "rollouts.url=http://a"]),
    "rollouts.adapters": (["rollouts.adapters=a"],
                          ["rollouts.adapters=a", "rollouts.engine=vllm", "rollouts.url=http://a"]),
    "rollouts.mode": (["rollouts.mode=colocate"],
                      ["rollouts.mode=colocate", "rollouts.engine=vllm"]),
    "rollouts.gpu_memory": (
        ["rollouts.gpu_memory=0.5", "rollouts.engine=vllm", "rollouts.url=http://a"],
        ["rollouts.gpu_memory=0.5", "rollouts.engine=vllm", "rollouts.mode=colocate"]),
    "rollouts.enforce_eager": (
        ["rollouts.enforce_eager=true", "rollouts.engine=vllm", "rollouts.url=http://a"],
        ["rollouts.enforce_eager=true", "rollouts.engine=vllm", "rollouts.mode=colocate"]),
    "rollouts.max_importance_weight": (
        ["rollouts.max_importance_weight=3.0", "rollouts.recompute_logprobs=false"],
        ["rollouts.max_importance_weight=3.0"]),
    "keep_checkpoints": (["keep_checkpoints=false", "evaluations=0"], ["keep_checkpoints=false"]),
}  # fmt: skip


@pytest.mark.parametrize("setting", CONDITIONAL)
def test_a_setting_without_effect_is_refused(setting):
    without, with_effect = CONDITIONAL[setting]
    with pytest.raises(ConfigError, match=rf"{re.escape(setting)} is .*has no effect here"):
        load(PPOConfig, None, without)
    load(PPOConfig, None, with_effect)


def test_every_condition_is_tested():
    declared = {key for key, info in fields(PPOConfig) if condition_of(info) is not None}
    assert declared - {"value"} == set(CONDITIONAL) - {"value.learning_rate", "value.clip"}


def fields(schema, prefix=""):
    """Yield each field of a config and of those in it, by its key."""
    for name, info in schema.model_fields.items():
        yield f"{prefix}{name}", info
        if isinstance(info.default, Config) and f"{prefix}{name}" not in ("tuning", "sampling"):
            yield from fields(type(info.default), f"{prefix}{name}.")
