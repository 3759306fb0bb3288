"""The whole chain through the command line: what it makes, what it reuses, what it says."""

from __future__ import annotations

import json
import time

import pytest
from datasets import load_dataset
from peft import AutoPeftModelForCausalLM, AutoPeftModelForSequenceClassification

from plumbline.lm.generation import SamplingConfig
from plumbline.lm.policy import Policy
from plumbline.runs.metrics import read_metrics
from plumbline.runs.run import RunRecord

pytestmark = pytest.mark.slow

STAGES = [
    "demonstrations", "base", "sft", "samples/sft", "pairs", "labels", "preferences", "reward",
    "scores/sft", "evaluation/sft",
    *(
        f"{kind}{method}/seed-{seed}"
        for seed in (0, 1)
        for kind in ("", "samples/", "evaluation/")
        for method in ("dpo", "ppo")
    ),
    "report",
]  # fmt: skip


@pytest.fixture(scope="module")
def record(finished):
    return RunRecord(finished / "small")


def test_every_stage_made_an_artifact_that_verifies(record):
    assert record.status == "finished"
    assert sorted(record.artifacts) == sorted(STAGES)
    for name, artifact in record.artifacts.items():
        assert artifact.problems(hashes=True) == [], name
        assert artifact.manifest.seconds > 0
        assert artifact.manifest.peak_memory_bytes > 2**20


def test_nothing_half_made_is_left(finished):
    assert not list((finished / "store" / ".partial").iterdir())
    assert not [path for path in finished.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]


def test_lineage_goes_back_to_the_data(record):
    made = record.artifacts
    inputs = made["ppo/seed-0"].manifest.inputs.values()
    assert {made["sft"].id, made["reward"].id, made["scores/sft"].id} <= set(inputs)
    assert made["base"].manifest.inputs == {}
    assert made["dpo/seed-1"].manifest.seed == 1
    assert made["dpo/seed-1"].manifest.data_seed is None
    assert made["evaluation/sft"].manifest.data_seed == 0


def test_the_summary_has_every_figure_that_the_report_shows(finished):
    summary = json.loads((finished / "small" / "summary.json").read_text())
    for method in ("dpo", "ppo"):
        for seed in ("0", "1"):
            figures = summary["methods"][method][seed]
            low, high = figures["gold_win_rate_ci"]
            assert 0 <= low <= figures["gold_win_rate"] <= high <= 1
            assert figures["n_prompts"] == 24
            assert {"kl", "reward_mean"} <= set(figures)
    assert 0 <= summary["reward_model_accuracy"] <= 1
    assert 0.5 <= summary["reward_model_accuracy_best_possible"] <= 1
    assert set(STAGES) - {"report"} == set(summary["seconds"])


def test_sft_moves_towards_the_demonstrations(record):
    losses = [
        line["loss"]
        for line in read_metrics(record.artifacts["sft"].path / "metrics.jsonl")
        if "loss" in line
    ]
    assert losses[-1] < losses[0]


def test_both_methods_are_judged_by_the_same_looks(record):
    for name in ("dpo/seed-0", "ppo/seed-0"):
        path = record.artifacts[name].path
        looks = [line for line in read_metrics(path / "metrics.jsonl") if "eval/kl" in line]
        assert len(looks) == 3
        assert looks[0]["step"] == 0
        # Before training, the policy is its reference.
        assert looks[0]["eval/kl"] == pytest.approx(0, abs=1e-3)
        assert {"eval/gold", "eval/reward", "eval/words"} <= set(looks[0])
        assert len(list((path / "checkpoints").iterdir())) == 2
    first = [
        read_metrics(record.artifacts[f"{method}/seed-0"].path / "metrics.jsonl")[0]["eval/gold"]
        for method in ("dpo", "ppo")
    ]
    assert first[0] == first[1]


def test_artifacts_open_in_the_tools_people_use(record, tmp_path, monkeypatch):
    made = record.artifacts
    monkeypatch.chdir(made["ppo/seed-0"].path)  # from where PEFT looks for "../policy-…"
    model = AutoPeftModelForCausalLM.from_pretrained(".")
    assert model.peft_config["default"].r == 4
    head = AutoPeftModelForSequenceClassification.from_pretrained(made["reward"].path, num_labels=1)
    assert head.config.num_labels == 1
    for name, columns in (
        ("demonstrations", {"messages"}),
        ("preferences", {"prompt", "chosen", "rejected"}),
    ):
        loaded = load_dataset(str(made[name].path), cache_dir=str(tmp_path))
        assert columns <= set(loaded["train"].column_names)
    first = min((made["dpo/seed-1"].path / "checkpoints").iterdir())
    checkpoint = Policy.load(first)
    prompt = checkpoint.encode([{"role": "user", "content": "Hi"}])
    assert checkpoint.sample([prompt], [0], SamplingConfig(max_new_tokens=4))[0].ids


def test_the_same_command_reuses_every_stage(copied, start):
    before = (copied / "small" / "report.html").read_bytes()
    started = time.monotonic()
    process = start(copied.parent)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert output.count("made before") == len(STAGES)
    assert time.monotonic() - started < 60
    assert (copied / "small" / "report.html").read_bytes() == before


def test_a_changed_setting_remakes_what_depends_on_it_and_no_more(copied, start):
    process = start(copied.parent, "--set", "dpo.beta=0.2", "--set", "seeds=[0]", "--name", "two")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    made = [line.split()[1] for line in output.splitlines() if "✓" in line and "before" not in line]
    assert made == ["dpo/seed-0", "samples/dpo/seed-0", "evaluation/dpo/seed-0", "report"]


def test_what_people_watch(finished):
    output = (finished.parent / "output.txt").read_text()
    for name in STAGES:
        assert f"✓ {name}" in output
    for noise in ("Warning", "it/s", "kernels", "Traceback"):
        assert noise not in output
    assert "home/small/report.html" in output
