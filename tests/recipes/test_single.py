"""Each stage alone, from anyone's model on anyone's data, by one command."""

from __future__ import annotations

import csv
import json
import math
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from evaluation.sample_files import read_samples
from plumbline.commands.app import app
from plumbline.commands.recipe_book import all_recipes, find, from_short_names
from plumbline.config import declared
from plumbline.data.records import read_dataset
from plumbline.errors import ConfigError, DataError
from plumbline.runs.metrics import read_metrics
from plumbline.runs.run import RunRecord
from preference.pairs_config import PreferenceFileConfig
from recipes._data import _refuse_ineffective

COLORS = ("red", "green", "blue", "white", "black", "brown")
QUESTIONS = [f"What is the color of thing {n}?" for n in range(48)]
#: The model of the tests holds 256 tokens.
SMALL = ("--max-length", "120", "--batch-size", "8", "--lora-rank", "2")
EVALUATION = (
    "--evaluation.prompts", "4", "--evaluation.prompts_during_training", "2",
    "--evaluation.sampling.max_new_tokens", "8", "--evaluation.resamples", "100",
)  # fmt: skip


def plumbline(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def work(tmp_path_factory, base_folder):
    """Demonstrations, preferences as people save them, prompts, and trained models."""
    folder = tmp_path_factory.mktemp("single")
    answers = [f"It is {COLORS[n % 6]}." for n in range(48)]
    rows = list(zip(QUESTIONS, answers, strict=True))
    demonstrations = [{"instruction": q, "output": a} for q, a in rows]
    (folder / "demonstrations.json").write_text(json.dumps(demonstrations))
    with (folder / "preferences.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["question", "better", "worse"])
        table.writerows([q, a, "No idea, sorry."] for q, a in rows)
    (folder / "prompts.jsonl").write_text(
        "".join(json.dumps({"prompt": q}) + "\n" for q, _ in rows)
    )
    shared = ("--home", folder / "home")
    columns = ("--columns", "prompt=question,chosen=better,rejected=worse")
    plumbline(
        "train", "sft", "--model", base_folder, "--data", folder / "demonstrations.json",
        "--lr", "1e-3", "--epochs", "1", *SMALL, "--name", "my-sft", *shared,
        "--report-to", "tensorboard",
    )  # fmt: skip
    plumbline(
        "train", "reward", "--model", "my-sft:sft", "--data", folder / "preferences.csv", *columns,
        "--lr", "8e-3", *SMALL, "--name", "my-reward", *shared, "--report-to", "tensorboard",
        "--reward.training.log_every", "2",
    )  # fmt: skip
    return folder, shared, columns


def record(work, name: str) -> RunRecord:
    return RunRecord(work[0] / "home" / name)


def tracked(work, name: str, stage: str) -> set[str]:
    """Return the figures of a stage, all of which tensorboard must have been given."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = work[0] / "home" / name
    lines = read_metrics(run / "stages" / stage / "metrics.jsonl")
    figures = {
        key for line in lines for key, value in line.items() if isinstance(value, int | float)
    } - {"step"}
    events = EventAccumulator(str(run / "trackers" / stage)).Reload()
    sent = {tag.removeprefix("train/") for tag in events.Tags()["scalars"]}
    assert figures and figures <= sent
    return figures


def test_a_policy_and_a_reward_model_are_trained_alone(work):
    sft = record(work, "my-sft").artifacts["sft"]
    assert "held_out_loss" in tracked(work, "my-sft", "sft")
    assert "loss" in tracked(work, "my-reward", "reward")
    tuning = sft.manifest.arguments["arguments"]["config"]["values"]["tuning"]
    assert (tuning["rank"], tuning["alpha"]) == (2, 4)
    assert 0 < sft.metrics["held_out_loss"] < 10
    reward = record(work, "my-reward").artifacts["reward"]
    assert reward.metrics["accuracy"] > 0.6
    assert reward.manifest.inputs["policy"] == sft.id


@pytest.mark.slow
def test_dpo_alone_starts_from_a_stage_and_is_judged_by_a_reward_model(work, base_folder):
    folder, shared, columns = work
    said = plumbline(
        "train", "dpo", "--model", "my-sft:sft", "--data", folder / "preferences.csv", *columns,
        "--reward", "my-reward:reward", "--beta", "0.2", "--lr", "1e-3", *SMALL, *EVALUATION,
        "--dpo.evaluations", "1", "--name", "my-dpo", "--seed", "3", *shared,
        "--report-to", "tensorboard", "--reference", base_folder,
        "--eval-data", "my-reward:preferences",
    )  # fmt: skip
    made = record(work, "my-dpo").artifacts
    assert made["dpo/seed-3"].manifest.arguments["arguments"]["config"]["values"]["beta"] == 0.2
    assert 0 <= made["evaluation/dpo/seed-3"].metrics["reward_win_rate"] <= 1
    assert "stages/dpo-seed-3" in said
    assert "eval/reward" in tracked(work, "my-dpo", "dpo-seed-3")
    # The reference is the base, and the held-out pairs are those of the reward model.
    inputs = made["dpo/seed-3"].manifest.inputs
    assert inputs["reference"] == made[f"reference/{base_folder.name}"].id != inputs["policy"]
    assert abs(made["evaluation/sft"].metrics["kl"]) > 1e-3  # of few samples, so of either sign
    held_out = record(work, "my-reward").artifacts["preferences"].path
    asked = [row["prompt"] for row in read_dataset(held_out, "test")]
    assert [row["prompt"] for row in read_dataset(made["preferences"].path, "test")] == asked


@pytest.mark.slow
def test_ppo_alone_takes_prompts_and_the_reward_of_a_folder(work):
    folder, shared, _ = work
    reward = record(work, "my-reward").artifacts["reward"].path
    plumbline(
        "train", "ppo", "--model", "my-sft:sft", "--data", folder / "prompts.jsonl",
        "--reward", reward, "--rounds", "2", "--batch-size", "8", "--ppo.minibatch_size", "4",
        "--max-length", "8", "--kl", "0.1", "--ppo.evaluations", "1", *EVALUATION,
        "--report-to", "tensorboard", "--eval-data", "my-sft:demonstrations",
        "--reference", "my-dpo:dpo/seed-3", "--name", "my-ppo", *shared,
    )  # fmt: skip
    made = record(work, "my-ppo").artifacts
    other = record(work, "my-dpo").artifacts["dpo/seed-3"]
    assert made["ppo/seed-0"].manifest.inputs["reference"] == other.id
    assert {"kl", "score"} <= tracked(work, "my-ppo", "ppo-seed-0")
    assert made["ppo/seed-0"].metrics["rounds"] == 2
    assert made["ppo/seed-0"].metrics["responses"] == 16
    assert "reward_win_rate" in made["evaluation/ppo/seed-0"].metrics


@pytest.fixture
def sentiment(tmp_path):
    """A classifier of another tool: BERT, two labels, a tokenizer without a template."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    words = "[PAD] [UNK] [CLS] [SEP] [MASK] it is red green blue white . what the color of thing ?"
    folder = tmp_path / "sentiment"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words.split()) + "\n")
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=64)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=64,
        id2label={0: "NEGATIVE", 1: "POSITIVE"},
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_ppo_alone_takes_the_classifier_of_another_tool(work, sentiment):
    from transformers import pipeline

    folder, shared, _ = work
    plumbline(
        "train", "ppo", "--model", "my-sft:sft", "--data", folder / "prompts.jsonl",
        "--reward", sentiment, "--reward-label", "negative", "--rounds", "1", "--batch-size", "8",
        "--ppo.minibatch_size", "4", "--max-length", "8", "--ppo.evaluations", "0", *EVALUATION,
        "--name", "sentiment", *shared,
    )  # fmt: skip
    made = record(work, "sentiment").artifacts
    assert made["ppo/seed-0"].metrics["rounds"] == 1
    classify = pipeline("text-classification", str(sentiment), top_k=None, device="cpu")
    for row in read_samples(made["evaluation/ppo/seed-0"]):
        pair = {"text": row["prompt"][-1]["content"], "text_pair": row["response"]}
        shares = {entry["label"]: entry["score"] for entry in classify(pair)}
        odds = shares["NEGATIVE"] / shares["POSITIVE"]
        assert row["reward"] == pytest.approx(math.log(odds), abs=1e-4)


@pytest.mark.slow
def test_what_was_trained_alone_is_compared(work):
    folder, shared, _ = work
    assert "my-dpo" not in plumbline(
        "compare", "my-dpo", "--judge", "reward", "--budget", "none", "--out", folder / "page",
        *shared,
    ).partition("report")[0]  # fmt: skip
    assert (folder / "page" / "summary.json").exists()


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        (
            "classifier",
            [{"text": question, "label": COLORS[n % 2]} for n, question in enumerate(QUESTIONS)],
        ),
        (
            "embeddings",
            [{"query": asked, "positive": f"Sheet {n}."} for n, asked in enumerate(QUESTIONS)],
        ),
    ],
)
def test_a_classifier_and_an_embedding_model_are_trained_alone(work, base_folder, kind, rows):
    folder, shared, _ = work
    (folder / f"{kind}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = plumbline(
        "train", kind, "--model", base_folder, "--data", folder / f"{kind}.jsonl", "--epochs", "1",
        "--batch-size", "8", "--max-length", "64", "--lora-rank", "2", "--name", f"my-{kind}",
        "--report-to", "tensorboard", *shared,
    )  # fmt: skip
    assert f"stages/{kind}" in said.replace("\n", "")
    at_the_end = {"classifier": "f1", "embeddings": "recall_at_1"}[kind]
    assert at_the_end in tracked(work, f"my-{kind}", kind)


def test_pairs_are_sampled_alone(work):
    folder, shared, _ = work
    plumbline(
        "pairs", "--model", "my-sft:sft", "--data", folder / "prompts.jsonl", "--prompts", "6",
        "--responses", "2", "--pairs.pairs_per_prompt", "1", "--max-length", "8",
        "--name", "my-pairs", *shared,
    )  # fmt: skip
    rows = read_dataset(record(work, "my-pairs").artifacts["pairs"].path, "train")
    assert 1 <= len(rows) <= 6 and {"pair_id", "prompt", "a", "b"} <= set(rows[0])


@pytest.mark.slow
def test_pairs_are_ranked_by_a_reward_model_and_trained_on(work):
    folder, shared, _ = work
    plumbline(
        "pairs", "--model", "my-sft:sft", "--data", folder / "prompts.jsonl", "--prompts", "24",
        "--reward", "my-reward:reward", "--responses", "3", "--max-length", "8",
        "--pairing", "best_worst", "--pairs.temperatures", "[0.7, 1.3]",
        "--refine.negatives", "0.5", "--ranking.held_out_share", "0.3",
        "--name", "my-ranked", *shared,
    )  # fmt: skip
    made = record(work, "my-ranked").artifacts
    rows = read_dataset(made["preferences"].path, "train")
    assert {row["label_source"] for row in rows} == {"model", "fault"}
    assert made["ranked"].metrics["on_policy_share"] == 1.0
    plumbline(
        "train", "dpo", "--model", "my-sft:sft", "--data", "my-ranked:preferences", *SMALL,
        *EVALUATION, "--dpo.evaluations", "0", "--name", "my-ranked-dpo", *shared,
    )  # fmt: skip
    assert record(work, "my-ranked-dpo").artifacts["dpo/seed-0"].metrics["pairs"] == len(rows)


@pytest.mark.slow
def test_kto_alone_takes_thumbs_and_dpo_makes_pairs_of_them(work):
    folder, shared, _ = work
    thumbs = [
        {"prompt": question, "completion": answer, "label": label}
        for n, question in enumerate(QUESTIONS)
        for answer, label in ((f"It is {COLORS[n % 6]}.", "up"), ("No idea.", "down"))
    ]
    (folder / "thumbs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in thumbs))
    plumbline(
        "train", "kto", "--model", "my-sft:sft", "--data", folder / "thumbs.jsonl", "--lr", "1e-3",
        *SMALL, *EVALUATION, "--kto.evaluations", "1", "--name", "my-kto", *shared,
    )  # fmt: skip
    made = record(work, "my-kto").artifacts
    assert made["kto/seed-0"].metrics["liked_share"] == 0.5
    assert made["kto/seed-0"].metrics["labels"] == made["labels"].metrics["train_rows"]
    plumbline(
        "train", "dpo", "--model", "my-sft:sft", "--data", "my-kto:labels", *SMALL, *EVALUATION,
        "--dpo.evaluations", "0", "--name", "my-thumbs-dpo", *shared,
    )  # fmt: skip
    pairs = record(work, "my-thumbs-dpo").artifacts["preferences"]
    assert pairs.metrics["train_rows"] == made["labels"].metrics["train_rows"] / 2


def test_held_out_data_of_one_s_own_is_never_trained_on(work, base_folder):
    folder, shared, _ = work
    held_out = [{"instruction": QUESTIONS[n], "output": "It is red."} for n in (0, 5, 7)]
    (folder / "held_out.json").write_text(json.dumps(held_out))
    plumbline(
        "train", "sft", "--model", base_folder, "--data", folder / "demonstrations.json",
        "--eval-data", folder / "held_out.json", "--epochs", "1", *SMALL,
        "--name", "held-out", *shared,
    )  # fmt: skip
    made = record(work, "held-out").artifacts["demonstrations"]
    asked = [row["messages"][0]["content"] for row in read_dataset(made.path, "train")]
    assert len(asked) == 45 and not {QUESTIONS[n] for n in (0, 5, 7)} & set(asked)
    assert len(read_dataset(made.path, "test")) == 3
    plumbline(
        "train", "sft", "--model", base_folder, "--data", folder / "demonstrations.json",
        "--eval-data", "held-out:demonstrations", "--epochs", "1", *SMALL,
        "--name", "again-held-out", *shared,
    )  # fmt: skip
    again = record(work, "again-held-out").artifacts["demonstrations"]
    assert len(read_dataset(again.path, "train")) == 45
    assert len(read_dataset(again.path, "test")) == 3


def test_the_same_command_makes_nothing_again(work, base_folder):
    folder, shared, _ = work
    said = plumbline(
        "train", "sft", "--model", base_folder, "--data", folder / "demonstrations.json",
        "--lr", "1e-3", "--epochs", "1", *SMALL, "--name", "again", *shared,
    )  # fmt: skip
    assert said.count("made before") == 3


@pytest.mark.parametrize(
    ("values", "overrides"),
    [
        ({"lr": 1e-4}, ['sft.training.learning_rate=0.0001']),
        (
            {"lora_rank": 8},
            ['sft.tuning.method="lora"', "sft.tuning.alpha=16", "sft.tuning.rank=8"],
        ),
        (
            {"lora_rank": 8, "lora_alpha": 8},
            ['sft.tuning.method="lora"', "sft.tuning.alpha=8", "sft.tuning.rank=8"],
        ),
        (
            {"lora_rank": 8, "tuning": "qlora"},
            ['sft.tuning.method="qlora"', "sft.tuning.alpha=16", "sft.tuning.rank=8"],
        ),
        ({"columns": "prompt=a, response=b"},
         ['demonstrations.columns={"prompt": "a", "response": "b"}']),
        ({"report_to": "wandb,tensorboard"},
         ['sft.training.report_to=["wandb", "tensorboard"]']),
        ({"model": "run:stage"}, ['model="run:stage"']),
    ],
)  # fmt: skip
def test_a_short_name_is_a_setting(values, overrides):
    assert from_short_names(find("train_sft"), values) == overrides


def test_columns_that_do_not_read_are_refused():
    with pytest.raises(ConfigError, match="does not read part=column"):
        from_short_names(find("train_sft"), {"columns": "prompt,response"})


@pytest.mark.parametrize("recipe", all_recipes(), ids=lambda recipe: recipe.name)
def test_short_and_essential_names_are_settings(recipe):
    keys = {setting.key for setting in declared(recipe.schema())}
    assert set(recipe.short_names().values()) <= keys
    assert set(recipe.essential) <= keys and 5 < len(recipe.essential) <= 15
    if "lora_rank" in recipe.short_names():  # it sets the method and alpha, too
        made = from_short_names(recipe, {"lora_rank": 8})
        assert {override.partition("=")[0] for override in made} <= keys


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["model=m", "data=d", "eval_data=e", "demonstrations.held_out_share=0.3"],
            "no effect here",
        ),
        (["data=d"], "'model' must be set"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(overrides, said):
    with pytest.raises(ConfigError, match=said):
        find("train_sft").load(None, overrides)


def test_ppo_s_prompts_are_counted_before_any_work(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"Question {n}?"}) + "\n" for n in range(40)))
    given = ["model=m", f"data={file}", "reward=r"]
    (check,) = find("train_ppo").load(None, given).checks_before_work()
    with pytest.raises(DataError, match=r"train on: 3\d; .*64 different.*lower ppo.batch_size\.$"):
        check()
    for enough in (["ppo.batch_size=32"], ["ppo.group_size=4"]):
        (check,) = find("train_ppo").load(None, [*given, *enough]).checks_before_work()
        check()
    assert find("train_ppo").load(None, ["model=m", "data=run:stage", "reward=r"]
                                  ).checks_before_work() == ()  # fmt: skip


def test_settings_of_reading_are_refused_where_nothing_is_read():
    made = SimpleNamespace(id="preferences-12")
    _refuse_ineffective(PreferenceFileConfig(), "run:preferences", made)
    with pytest.raises(ConfigError, match="max_rows has no effect here: 'run:preferences'"):
        _refuse_ineffective(PreferenceFileConfig(max_rows=3), "run:preferences", made)
