"""Offline, iterative and online DPO, best of n and PPO in one report, at tiny size."""

from __future__ import annotations

import json
import re

import pytest

from plumbline.config import load
from plumbline.errors import ConfigError
from plumbline.runs.run import RunRecord
from recipes.preference_family import PreferenceFamilyConfig

MORE = """\
online:
  tuning: {rank: 4}
  prompts_per_round: 4
  responses: 4
  minibatch_size: 4
  checkpoint_every: 1
  evaluations: 2
  sampling: {max_new_tokens: 24}
methods:
  online-dpo: {}
  iterative-dpo: {prompts_per_round: 8, reference_every: 1}
  best-of-n: {loss: sft, prompts_per_round: 16, evaluations: 1}
"""


@pytest.fixture
def family(small_config):
    """The settings of the small chain, for this recipe."""
    text = small_config.read_text().replace("dpo_vs_ppo", "preference_family")
    return text.replace("seeds: [0, 1]", "seeds: [0]") + MORE


@pytest.mark.slow
def test_all_methods_stand_in_one_report(family, warm_start, tmp_path):
    (tmp_path / "family.yaml").write_text(family)
    files = ["--config", "family.yaml", "--home", "home", "--name", "family"]
    process = warm_start.run("run", "preference_family", *files, cwd=tmp_path, timeout=600)
    assert process.returncode == 0, process.stdout + process.stderr
    summary = json.loads((tmp_path / "home" / "family" / "summary.json").read_text())
    methods = summary["methods"]
    assert list(methods) == ["dpo", "online-dpo", "iterative-dpo", "best-of-n", "ppo"]
    for name, seeds in methods.items():
        assert seeds["0"]["gold_mean"] is not None, name
    made = RunRecord(tmp_path / "home" / "family").artifacts
    sampled = {name: made[f"{name}/seed-0"].metrics["tokens_sampled"] for name in [*methods][1:]}
    assert len(set(sampled.values())) == 1, sampled
    scored = [made[f"{name}/seed-0"].metrics["tokens_scored"] for name in sampled]
    assert min(scored) > sampled["ppo"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "best-of-n: {rounds: 1, prompts_per_round: 8}\nequal_tokens: false",
            r"'online-dpo' samples 960 responses.*ppo 64",
        ),
        ("best-of-n: {rounds: 3}", r"'best-of-n' has rounds 3, which has no effect"),
        ("best-of-n: {sampling: {temperature: 0.5}}", "in different ways"),
        ("ppo: {}", "would be called 'ppo'"),
        ("dpo: {}", "would be called 'dpo'"),
        ("best-of-n: {round: 1}", "method 'best-of-n'"),
        ("best-of-n: {}\noffline: {dpo: {betas: 1}}", "method 'dpo'"),
    ],
)
def test_methods_that_would_have_more_or_other_data_are_refused(family, tmp_path, line, message):
    path = tmp_path / "family.yaml"
    path.write_text(re.sub(r"  best-of-n: .*", f"  {line}", family))
    with pytest.raises(ConfigError, match=message):
        load(PreferenceFamilyConfig, path)
