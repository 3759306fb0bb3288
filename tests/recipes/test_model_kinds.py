"""The whole chain on a tiny model of each kind of tokenizer and template, full and LoRA."""

from __future__ import annotations

import json
import os

import pytest

from plumbline.data.records import assistant, user

pytestmark = pytest.mark.slow

KINDS = ("chatml", "base-chatml", "unmarked-end", "strict", "think", "plain", "short-context")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Demonstrations and preferences, with a row in each that some template or model refuses."""
    folder = tmp_path_factory.mktemp("files")
    talks = [[user(f"Item {n}?"), assistant(f"Red {n}.")] for n in range(120)]
    talks.insert(3, [user("Item?"), user("Price?"), assistant("Red.")])
    talks.insert(5, [user("word " * 300), assistant("Red.")])
    talks.insert(7, [user("Item?"), assistant("\nRed.")])
    talks.insert(9, [*talks[0], user("Price?"), assistant("Ten.")])
    pairs = [
        {"prompt": f"Item {n}?", "chosen": f"\nRed {n}." if n % 9 == 0 else f"Red {n}.",
         "rejected": "No."}
        for n in range(200)
    ]  # fmt: skip
    pairs.append({"prompt": "word " * 300, "chosen": "Red.", "rejected": "No."})
    for name, rows in (("demos", [{"messages": talk} for talk in talks]), ("pairs", pairs)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text)
    return folder


CHAINS = [(kind, method) for kind in KINDS for method in ("full", "lora")]


@pytest.mark.parametrize(("kind", "method"), CHAINS)
def test_the_chain_runs_to_a_report(model_of_kind, files, warm_start, tmp_path, kind, method):
    if (kind, method) != ("base-chatml", "lora") and os.environ.get("PLUMBLINE_TEST_KINDS") != "1":
        pytest.skip("all kinds of models are tried where PLUMBLINE_TEST_KINDS=1 is set")
    settings = {
        "files.folder": files,
        "files.demonstrations": "demos.jsonl",
        "files.preferences": "pairs.jsonl",
        "base.name_or_path": model_of_kind(kind),
        "sft.tuning.method": method,
        "sft.training.max_steps": 4,
        "sft.evaluations": 0,
        "reward.tuning.method": method,
        "reward.training.max_steps": 4,
        "reward.evaluations": 0,
        "dpo.tuning.method": method,
        "dpo.training.max_steps": 4,
        "dpo.evaluations": 1,
        "ppo.tuning.method": method,
        "ppo.iterations": 2,
        "ppo.evaluations": 1,
        "ppo.sampling.max_new_tokens": 8,
        "evaluation.prompts": 12,
        "evaluation.prompts_during_training": 8,
        "evaluation.sampling.max_new_tokens": 8,
    }
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    files = ["--config", "hh", "--home", "home", "--name", "kind"]
    run = warm_start.run("run", "dpo_vs_ppo", *files, *options, cwd=tmp_path)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    assert (tmp_path / "home/kind/summary.json").exists()
    # Rows that the template or the model refuses are counted, with their numbers.
    assert "left out" in run.stdout
    assert ("Roles must alternate" in run.stdout) == (kind == "strict")
    assert ("own context (64 tokens" in run.stdout) == (kind == "short-context")
