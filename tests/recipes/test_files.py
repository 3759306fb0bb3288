"""The chain on files given by path: no gold utility, and dirty rows reported by their numbers."""

from __future__ import annotations

import gzip
import json

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files in the formats of the field, a little dirty, as `recipes/configs/hh.yaml` reads."""
    folder = tmp_path_factory.mktemp("files")
    alpaca = [
        {"instruction": f"Say {n} in words.", "input": "", "output": f"The word is {n % 7}."}
        for n in range(80)
    ]
    alpaca.append({"instruction": "No answer.", "input": "", "output": ""})
    (folder / "llamafactory").mkdir()
    (folder / "llamafactory" / "alpaca_en_demo.json").write_text(json.dumps(alpaca))
    (folder / "hh-rlhf").mkdir()
    with gzip.open(folder / "hh-rlhf" / "test.jsonl.gz", "wt") as stream:
        for n in range(160):
            talk = f"\n\nHuman: Is {n} good?\n\nAssistant:"
            pair = {"chosen": f"{talk} Yes, it is.", "rejected": f"{talk} No {'no ' * (n % 5)}."}
            if n == 3:
                pair["chosen"] = talk
            if n == 5:
                pair["rejected"] = "\n\nHuman: Other?\n\nAssistant: No."
            stream.write(json.dumps(pair) + "\n")
    return folder


def test_the_hh_config_runs_on_files(folder, warm_start):
    small = {
        "files.folder": folder,
        "base.scratch.hidden_size": 32,
        "base.scratch.heads": 2,
        "base.scratch.layers": 2,
        "base.scratch.intermediate_size": 48,
        "base.scratch.vocab_size": 400,
        "base.scratch.block": 64,
        "base.scratch.training.max_steps": 20,
        "sft.training.max_steps": 4,
        "reward.training.max_steps": 4,
        "dpo.training.max_steps": 4,
        "evaluation.sampling.max_new_tokens": 8,
        "ppo.sampling.max_new_tokens": 8,
        "ppo.iterations": 2,
        "ppo.batch_size": 8,
        "ppo.minibatch_size": 8,
        "evaluation.prompts": 16,
        "evaluation.prompts_during_training": 8,
        "evaluation.resamples": 200,
        "dpo.evaluations": 1,
        "ppo.evaluations": 1,
    }
    settings = [part for key, value in small.items() for part in ("--set", f"{key}={value}")]
    files = ["--config", "hh", "--home", str(folder / "home"), "--name", "hh"]
    done = warm_start.run("run", "dpo_vs_ppo", *files, *settings, timeout=400)
    assert done.returncode == 0, done.stderr + done.stdout
    # Rows are those of the files, counted from 1.
    assert "left out 1: has an empty message 2 (assistant) (rows 81)" in done.stdout
    assert "(rows 4)" in done.stdout
    assert "left out 1: chosen and rejected answer different prompts (rows 6)" in done.stdout
    run = folder / "home" / "hh"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["judge"] == "reward"
    figures = summary["methods"]["ppo"]["0"]
    assert "gold_win_rate" not in figures
    assert 0 <= figures["reward_win_rate"] <= 1
    assert summary["reward_model_accuracy_best_possible"] is None
    report = (run / "report.md").read_text()
    assert "chosen and rejected answer different prompts | 1 | 6" in report
    assert "trained against this judge has an advantage" in (run / "report.html").read_text()
