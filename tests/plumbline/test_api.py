"""Plumbline from Python: what the functions take, and what they give."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from plumbline import api
from plumbline.errors import ArtifactError, ConfigError

SIZE = {"max_length": 120, "batch_size": 8, "lora_rank": 2, "quiet": True}


@pytest.fixture(scope="module")
def work(tmp_path_factory, base_folder):
    folder = tmp_path_factory.mktemp("api")
    rows = [{"instruction": f"What is thing {n}?", "output": f"It is {n % 5}."} for n in range(40)]
    (folder / "demonstrations.json").write_text(json.dumps(rows))
    pairs = [
        {"prompt": f"What is thing {n}?", "chosen": f"It is {n % 5}.", "rejected": "No idea."}
        for n in range(40)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    policy = api.train_sft(
        base_folder, folder / "demonstrations.json", home=folder / "home", lr=1e-3, **SIZE
    )
    return folder, policy


@pytest.fixture(scope="module")
def reward_model(work):
    folder, policy = work
    return api.train_reward_model(
        policy, folder / "pairs.jsonl", home=folder / "home", lr=8e-3, **SIZE
    )


def test_a_training_is_a_call(work):
    _, policy = work
    assert policy.artifact.kind == "policy" and 0 < policy.metrics["held_out_loss"] < 10
    assert (policy.path / "adapter_config.json").exists()
    assert policy.evaluation is None
    assert "held_out_loss" in policy._repr_html_() and policy.artifact.id in repr(policy)


def test_a_result_is_a_model_of_the_next_training(work, reward_model):
    _, policy = work
    assert reward_model.artifact.manifest.inputs["policy"] == policy.artifact.id


def test_a_scorer_prefers_what_it_was_trained_to_prefer(work, reward_model):
    folder, _ = work
    scorer = api.Scorer(reward_model, home=folder / "home")
    good, bad = scorer.score(["What is thing 3?"] * 2, ["It is 3.", "No idea."])
    assert good > bad
    as_messages = [{"role": "user", "content": "What is thing 3?"}]
    assert scorer.score([as_messages], ["It is 3."]) == pytest.approx([good], abs=1e-5)


def test_a_sampler_repeats_itself_with_a_seed(work):
    folder, policy = work
    sampler = api.Sampler(policy, home=folder / "home")
    first = sampler.respond(["What is thing 3?", "Who?"], max_new_tokens=8)
    assert first == sampler.respond(["What is thing 3?", "Who?"], max_new_tokens=8)
    assert first != sampler.respond(["What is thing 3?", "Who?"], max_new_tokens=8, seed=1)


def test_data_is_read_as_a_table(work):
    folder, _ = work
    frame = api.load_data(folder / "pairs.jsonl", "preferences")
    assert list(frame.columns) == ["chosen", "prompt", "rejected"] and len(frame) == 40
    assert frame["prompt"][3] == [{"role": "user", "content": "What is thing 3?"}]


def test_an_evaluation_gives_figures_and_responses(work):
    folder, policy = work
    evaluation = api.evaluate(
        policy,
        prompts=folder / "pairs.jsonl",
        count=4,
        settings={"evaluation": {"sampling": {"max_new_tokens": 6}, "resamples": 100}},
        home=folder / "home",
        quiet=True,
    )
    (by_model,) = evaluation.metrics.values()
    assert next(iter(by_model.values()))["prompts"] == 4
    assert len(evaluation.samples) == 4
    assert "<table>" in evaluation._repr_html_()


def test_samples_are_compared(tmp_path):
    lines = [
        {"prompt": f"p{n}", "response": f"{model} {n}", "model": model, "score": score + n % 3}
        for n in range(20)
        for model, score in (("mine", 2), ("theirs", 0))
    ]
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    comparison = api.compare(
        samples=tmp_path / "s.jsonl", baseline="theirs", budget="none", home=tmp_path
    )
    assert comparison.report.exists()
    assert comparison.summary["methods"]["mine"]
    assert "mine" in comparison._repr_html_()


def test_errors_are_raised_and_nothing_exits(work):
    folder, policy = work
    with pytest.raises(ConfigError, match="learning_rate"):
        api.train_sft(policy, folder / "demonstrations.json", lr=-1.0, home=folder / "home")
    with pytest.raises(ConfigError, match="no setting 'lerning_rate'"):
        api.train_sft(policy, folder / "demonstrations.json", lerning_rate=1, home=folder / "home")
    with pytest.raises(ArtifactError, match="There is no run 'none'"):
        api.load_run("none", home=folder / "home")


@pytest.mark.slow
def test_a_script_needs_no_guard(work, base_folder, tmp_path):
    folder, _ = work
    script = tmp_path / "script.py"
    script.write_text(
        "print('started')\nfrom plumbline.api import train_sft\n"
        f"made = train_sft({str(base_folder)!r}, {str(folder / 'demonstrations.json')!r},\n"
        "    lr=2e-3, max_length=120, batch_size=8, lora_rank=2, home='home')\n"
        "print('done', made.artifact.kind)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, script], check=False, cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("started") == 1 and "done policy" in done.stdout


def test_every_public_name_is_documented():
    for name in api.__all__:
        assert getattr(api, name).__doc__, name
