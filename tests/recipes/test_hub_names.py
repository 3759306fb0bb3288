"""Models and data by their names on the hub, for every option that takes one.

The hub is a local stand-in, from which the hub's own client downloads.
"""

from __future__ import annotations

import json
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from evaluation.sample_files import read_samples
from plumbline.commands.app import app
from plumbline.data.records import read_dataset
from plumbline.errors import DataError, ModelError
from plumbline.lm.model_folder import Reference
from plumbline.runs.run import RunRecord
from tests.plumbline.commands.hub_stand_in import Hub
from tests.warm_start import WarmStart

SMALL = (
    "--max-length", "120", "--batch-size", "8", "--lora-rank", "2", "--dpo.evaluations", "0",
    "--evaluation.prompts", "4", "--evaluation.prompts_during_training", "2",
    "--evaluation.sampling.max_new_tokens", "8", "--evaluation.resamples", "100",
)  # fmt: skip
FEW_ROUNDS = (
    "--rounds", "1", "--batch-size", "8", "--max-length", "8", "--lora-rank", "2",
    "--ppo.minibatch_size", "4", "--ppo.evaluations", "0", *SMALL[8:],
)  # fmt: skip
NAMES = ("--model", "org/tiny", "--reference", "org/other", "--reward", "org/reward")


@pytest.fixture(scope="module")
def hub(tmp_path_factory, base_folder):
    """A hub with two policies, a reward model, and three datasets."""
    import torch
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
    )

    folder, hub = tmp_path_factory.mktemp("hub"), Hub("secret")
    tiny, other, reward = folder / "tiny", folder / "other", folder / "reward"
    shutil.copytree(base_folder, tiny, ignore=shutil.ignore_patterns("manifest.json"))
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoModelForCausalLM.from_pretrained(tiny).config)
    model.save_pretrained(other)
    classifier = AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=1)
    classifier.config.pad_token_id = AutoTokenizer.from_pretrained(tiny).pad_token_id
    classifier.save_pretrained(reward)
    for name in (tiny, other, reward):
        AutoTokenizer.from_pretrained(tiny).save_pretrained(name)
        hub.keep(f"org/{name.name}", name)
    for name, numbers in (("pairs", range(24)), ("held-out", range(24, 30))):
        rows = [
            {"prompt": f"What is thing {n}?", "chosen": f"It is {n}.", "rejected": "No idea."}
            for n in numbers
        ]
        (folder / name).mkdir()
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / name / "train.jsonl").write_text(lines)
        hub.keep(f"datasets/org/{name}", folder / name)
    return hub


@contextmanager
def network(hub: Hub, cache: Path):
    """What starts commands that reach the hub, and keep what they download in ``cache``."""
    started = WarmStart(
        HF_ENDPOINT=hub.url, HF_HOME=str(cache), HF_HUB_OFFLINE="0", HF_HUB_DISABLE_XET="1",
        HF_HUB_DISABLE_TELEMETRY="1",
    )  # fmt: skip
    try:
        yield started
    finally:
        started.close()


def plumbline(start: WarmStart, folder: Path, *words: object) -> None:
    done = start.run(*map(str, words), "--home", str(folder / "home"), cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_option_takes_a_name_of_the_hub(hub, warm_start, hub_cache, tmp_path):
    dpo = ("train", "dpo", *NAMES, "--data", "org/pairs", "--eval-data", "org/held-out", *SMALL)
    with network(hub, hub_cache) as online:
        plumbline(online, tmp_path, *dpo, "--name", "dpo")
    made = RunRecord(tmp_path / "home" / "dpo").artifacts
    for role, name in (("model", "tiny"), ("reference", "other"), ("reward", "reward")):
        linked = made[f"{role}/org/{name}"]
        assert Reference.read(linked.path).name_or_path == f"org/{name}"
    inputs = made["dpo/seed-0"].manifest.inputs
    assert inputs["reference"] == made["reference/org/other"].id
    assert inputs["policy"] == made["model/org/tiny"].id
    asked = [row["prompt"][-1]["content"] for row in read_dataset(made["preferences"].path, "test")]
    assert sorted(asked) == [f"What is thing {n}?" for n in range(24, 30)]
    scored = read_samples(made["evaluation/dpo/seed-0"])
    assert len(scored) == 4 and all(isinstance(row["reward"], float) for row in scored)

    # The network is gone, and what was downloaded is still there.
    ppo = ("train", "ppo", *NAMES, "--data", "org/pairs", "--eval-data", "org/held-out")
    plumbline(warm_start, tmp_path, *ppo, *FEW_ROUNDS, "--name", "ppo")
    made = RunRecord(tmp_path / "home" / "ppo").artifacts
    assert made["ppo/seed-0"].metrics["rounds"] == 1
    assert made["ppo/seed-0"].manifest.inputs["reference"] == made["reference/org/other"].id
    assert len(read_samples(made["evaluation/ppo/seed-0"])) == 4


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        (("--model", "org/none"), ModelError, "'org/none'.*needs the network.*HF_HUB_OFFLINE"),
        (("--reference", "org/none"), ModelError, "'org/none'.*needs the network"),
        (("--reward", "org/none"), ModelError, "'org/none'.*needs the network"),
        (("--eval-data", "org/none"), DataError, "'org/none'.*there is a network"),
        (("--data", "org/none"), DataError, "'org/none'.*there is a network"),
        (("--reference", "nobody:sft"), ModelError, "no model 'nobody:sft'.*run:stage"),
        (("--reward", "./none"), ModelError, "no model './none'.*a hub name"),
        (("--eval-data", "none.jsonl"), DataError, r"no file .*none\.jsonl"),
    ],
)
def test_a_name_that_cannot_be_had_is_said_with_what_to_do(
    words, error, said, tmp_path, base_folder
):
    rows = [{"prompt": f"Thing {n}?", "chosen": f"{n}.", "rejected": "No."} for n in range(24)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"--model": base_folder, "--data": tmp_path / "pairs.jsonl"} | {words[0]: words[1]}
    asked = ["train", "dpo", "--home", tmp_path / "home", "--name", "none", *SMALL]
    for option, value in options.items():
        asked += [option, value]
    result = CliRunner().invoke(app, [str(word) for word in asked])
    assert isinstance(result.exception, error), result.output
    assert re.search(said, str(result.exception), re.DOTALL), str(result.exception)
