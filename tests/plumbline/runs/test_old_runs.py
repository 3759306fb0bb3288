"""Runs that commit 5b3c0e6 made are listed, shown, compared and evaluated.

The fixture is a home folder that this commit wrote: a small run of ``dpo_vs_ppo`` with two seeds,
and ``evaluate small:dpo/seed-0 --reference small:sft --reward small:reward --count 8``.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from plumbline.errors import ArtifactError
from plumbline.runs.artifacts import Artifact, Store
from plumbline.runs.calls import function_of, rebuild
from plumbline.runs.old_runs import current_name
from plumbline.runs.run import RunRecord, all_runs

FIXTURES = Path(__file__).parent / "fixtures"

#: Every stage of that commit, and every function whose call a manifest of it may describe.
FUNCTIONS = (FIXTURES / "functions_of_5b3c0e6.txt").read_text().splitlines()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(FIXTURES / "runs_of_5b3c0e6.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "home"


@pytest.fixture(scope="module")
def command(home, warm_start):
    def go(*arguments: str) -> str:
        done = warm_start.run(*arguments, "--home", str(home), COLUMNS="160")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return go


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_that_a_manifest_names_is_found(name):
    assert callable(function_of(current_name(name)))


def test_a_function_that_moved_since_version_2_is_found():
    name = "plumbline.data.records.dataset_prompts"
    assert function_of(name).__module__ == "plumbline.training.prompt_rounds"
    with pytest.raises(ArtifactError, match="does not have"):
        function_of("plumbline.data.records.never_there")


def test_an_old_run_is_listed_with_its_artifacts(home):
    assert {(run.folder.name, run.status) for run in all_runs(home)[0]} == {
        ("small", "finished"),
        ("evaluate-ee214c34", "finished"),
    }
    stages = RunRecord(home / "small").artifacts
    assert len(stages) == 23
    assert all(artifact.problems(hashes=True) == [] for artifact in stages.values())
    assert stages["ppo/seed-1"].manifest.arguments["arguments"]["policy"] == {
        "artifact": stages["sft"].id
    }


def test_an_old_judge_is_built_again(home):
    stages = RunRecord(home / "small").artifacts
    arguments = stages["evaluation/dpo/seed-0"].manifest.arguments["arguments"]
    gold, reward = rebuild(arguments["harness"]["arguments"]["scorers"], Store(home / "store"))
    assert (gold.name, reward.name) == ("gold", "reward")
    assert reward.folder == stages["reward"].path


def test_an_old_run_is_shown(command):
    shown = command("show", "small")
    assert "dpo_vs_ppo, finished" in shown
    assert "samples/ppo/seed-1" in shown
    assert "files are as they were made" in command("show", "report", "--verify")
    assert "small" in command("runs")


@pytest.mark.slow
def test_an_old_run_compared_again_says_what_it_said(command, home):
    command("compare", "small", "--out", str(home / "again"))
    before, after = (
        json.loads((home / folder / "summary.json").read_text()) for folder in ("small", "again")
    )
    names = ("n_prompts", "gold_mean", "gold_win_rate", "reward_mean", "reward_win_rate", "kl")
    for method in ("dpo", "ppo"):
        for seed in ("0", "1"):
            old, new = (summary["methods"][method][seed] for summary in (before, after))
            assert [new[name] for name in names] == [old[name] for name in names]


@pytest.mark.slow
def test_an_old_policy_is_evaluated_with_the_figures_it_had(command, home):
    command(
        "evaluate", "small:dpo/seed-0", "--reference", "small:sft", "--reward", "small:reward",
        "--count", "8", "--set", "evaluation.sampling.max_new_tokens=16",
        "--out", str(home / "new"),
    )  # fmt: skip
    before, after = (
        json.loads((home / file).read_text())["tasks"]["world"]
        for file in ("evaluate-ee214c34/figures.json", "new/metrics.json")
    )
    names = ("gold", "gold_win_rate", "reward", "kl", "words", "tokens", "bleu", "perplexity")
    for model, old in before.items():
        wanted = {name: old[name] for name in names if name in old}
        assert {name: after[model][name] for name in wanted} == pytest.approx(wanted, abs=1e-4)


def test_what_a_newer_version_made_is_refused_with_what_to_do(home, tmp_path):
    path = next((home / "store").glob("labels-*")) / "manifest.json"
    manifest = json.loads(path.read_text()) | {"manifest_version": 99}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=r"version 99.*A newer one made it"):
        Artifact(tmp_path).manifest  # noqa: B018


def test_a_function_that_is_gone_is_said_and_a_stranger_is_never_called(home):
    store = Store(home / "store")
    with pytest.raises(ArtifactError, match="does not have"):
        rebuild({"function": "reward.scorer.Gone", "arguments": {}}, store)
    with pytest.raises(ArtifactError, match="is not part of Plumbline"):
        rebuild({"function": "os.getcwd", "arguments": {}}, store)
