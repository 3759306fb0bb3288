"""A small sweep by the command line: killed and resumed, with more workers, it finds the same."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest

from plumbline.commands.recipe_book import find
from plumbline.errors import ConfigError
from plumbline.runs.artifacts import Artifact
from plumbline.runs.run import RunRecord
from recipes import sweep
from recipes.dpo_vs_ppo import DpoVsPpoConfig
from tests.warm_start import Command

SEARCH = """\
search:
  budget: {by: trials, limit: 2}
  seeds: [100]
  prompts: 8
  spaces:
    dpo: {beta: {low: 0.02, high: 0.5, scale: log}}
    ppo: {learning_rate: {low: 0.0001, high: 0.003, scale: log}}
"""


@pytest.fixture(scope="module")
def config(small_config, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("config") / "search.yaml"
    path.write_text(
        small_config.read_text().replace("# recipe: dpo_vs_ppo", "# recipe: sweep") + SEARCH
    )
    return path


@pytest.fixture
def start(config, warm_start):
    """Start the sweep in a folder; returns the process."""

    def go(folder: Path, *more: str) -> Command:
        files = ["--config", str(config), "--home", "home", "--name", "s"]
        return warm_start.start("run", "sweep", *files, *more, cwd=folder, one_stream=True)

    return go


def finish(process: Command) -> str:
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return output


def found(folder: Path) -> dict:
    """What the sweep found, without what the clock decides."""
    summary = json.loads((folder / "home" / "s" / "summary.json").read_text())
    for method in summary["methods"].values():
        method["spent"].pop("seconds")
        for trial in method["trials"]:
            trial.pop("seconds")
    return summary


@pytest.mark.slow
def test_a_sweep_killed_and_resumed_with_other_workers_finds_the_same(start, finished, tmp_path):
    one, many = tmp_path / "one", tmp_path / "many"
    # What the sweep shares with the comparison is there already, under the same ids.
    shutil.copytree(finished, one / "home", symlinks=True)
    finish(start(one))
    first = found(one)
    assert {m: len(f["trials"]) for m, f in first["methods"].items()} == {"dpo": 2, "ppo": 2}
    assert first["methods"]["dpo"]["trials"][0]["settings"] == {"beta": 0.1}  # as they stand

    # The winners are a config that the comparison takes as it is.
    tuned = one / "home" / "s" / "tuned.yaml"
    settings = find("dpo_vs_ppo").load(str(tuned), [])
    assert isinstance(settings, DpoVsPpoConfig)
    won = first["methods"]["dpo"]
    assert settings.dpo.beta == won["trials"][won["winner"]]["settings"]["beta"]
    assert settings.dpo.evaluations == 2  # looks in training are only left out in trials

    # The same shared stages; the trials anew, three at once, and killed on the way.
    shutil.copytree(one, many, symlinks=True)
    record = RunRecord(many / "home" / "s")
    made = record.artifacts
    for name, artifact in made.items():
        if "trial-" in name or name == "report":
            shutil.rmtree(artifact.path)
    process = start(many, "--set", "pool.workers=3")
    partial, deadline = many / "home" / "store" / ".partial", time.monotonic() + 240
    while not any(partial.glob("policy-*/checkpoints/step-*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not psutil.wait_procs(children, timeout=20)[1]
    assert not made["report"].path.exists()
    finish(start(many, "--set", "pool.workers=3"))
    assert found(many) == first
    assert (many / "home" / "s" / "tuned.yaml").read_text() == tuned.read_text()


def settings(**search) -> sweep.SweepConfig:
    values = sweep.SweepConfig().model_dump(mode="json")
    values["search"] |= search
    return sweep.SweepConfig.model_validate(values)


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({"spaces": {"grpo": {}}}, "the methods are"),
        ({"spaces": {"dpo": {"betta": {"low": 0.1, "high": 1.0}}}}, "betta"),
        ({"spaces": {"dpo": {"beta": {"low": -1.0, "high": 1.0}}}}, "greater than 0"),
        ({"seeds": [2, 100]}, "would look better"),
    ],
)
def test_a_search_that_cannot_be_is_refused_before_anything_runs(search, said):
    with pytest.raises(ValueError, match=said):
        settings(**search)


class Made(Artifact):
    """An artefact of which only the figures are known."""

    def __init__(self, **metrics):
        self._metrics = metrics

    @property
    def metrics(self):
        return self._metrics

    @property
    def manifest(self):
        return type("Manifest", (), {"seconds": 1.0})


def test_a_budget_that_not_even_the_first_trial_keeps_to_is_refused():
    made = (Made(tokens_seen=100.0, tokens_sampled=20.0), Made(gold=1.0, kl=1.0))
    shared = type("Shared", (), {"judge": "gold"})
    trials = [{"number": n, "settings": {}, "artifacts": [made]} for n in range(4)]
    config = settings(budget={"by": "tokens", "limit": 300})
    assert sweep.within_budget(config, shared, trials) == 2
    dear = settings(budget={"by": "tokens", "limit": 100})
    with pytest.raises(ConfigError, match="first trial took 120 tokens"):
        sweep.within_budget(dear, shared, trials[:1])
