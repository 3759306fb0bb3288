"""Demonstrations under templates of every kind: what is learnt, what is left out, what ends."""

from __future__ import annotations

import json

import pytest
import torch

from plumbline.data.records import assistant, user, write_dataset
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.lm.chat import encode_prompt, encode_response
from plumbline.lm.context import LengthLimit, length_limit
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.load import load_config
from plumbline.lm.policy import Policy
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.artifacts import Artifact
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from plumbline.training.config import TrainingConfig
from sft.config import SFTConfig
from sft.tokenized import tokenize
from sft.train import train_sft


class Folder(Artifact):
    """A folder as an artefact without a manifest."""

    @property
    def id(self) -> str:
        return self.path.name


LONG = LengthLimit(999, "is too long")


def rows_of(*conversations):
    return [
        {"messages": messages, "origin": "file.jsonl", "row": number}
        for number, messages in enumerate(conversations, 1)
    ]


def learnt(tokenizer, example):
    return tokenizer.decode([token for token in example["labels"] if token != -100])


def test_a_row_that_the_template_refuses_is_left_out_with_its_words(model_of_kind):
    tokenizer = load_tokenizer(model_of_kind("strict"))
    fine = [user("One?"), assistant("Two.")]
    rows = rows_of(
        fine,
        [user("One?"), user("And?"), assistant("Two.")],
        [{"role": "system", "content": "Be short."}, *fine],
        fine,
    )
    dropped = Dropped()
    assert len(tokenize(rows, tokenizer, LONG, dropped)) == 2
    assert [(row["origin"], row["row"]) for row in dropped.rows] == [
        ("file.jsonl", 2),
        ("file.jsonl", 3),
    ]
    assert all("Roles must alternate" in row["reason"] for row in dropped.rows)
    with pytest.raises(DataError, match=r"None of 1 .*1 × the chat template refuses it.*rows 1"):
        tokenize(rows_of([user("a"), user("b"), assistant("c")]), tokenizer, LONG, Dropped())


def test_turns_of_a_template_that_drops_reasoning_are_learnt_one_by_one(model_of_kind):
    tokenizer = load_tokenizer(model_of_kind("think"))
    talk = [user("One?"), assistant("Two."), user("Three?"), assistant("Four.")]
    dropped = Dropped()
    examples = tokenize(rows_of(talk), tokenizer, LONG, dropped)
    assert not dropped.rows
    block = "<think>\n\n</think>\n\n"
    assert [learnt(tokenizer, example) for example in examples] == [
        f"{block}Two.<|im_end|>",
        f"{block}Four.<|im_end|>",
    ]
    # Each as the policy is asked: no block in the turns before.
    assert examples[1]["input_ids"][: len(encode_prompt(tokenizer, talk[:3]))] == encode_prompt(
        tokenizer, talk[:3]
    )


def test_a_response_that_begins_with_a_line_break_is_learnt(model_of_kind):
    tokenizer = load_tokenizer(model_of_kind("chatml"))
    dropped = Dropped()
    (example,) = tokenize(rows_of([user("a"), assistant("\nBlue.")]), tokenizer, LONG, dropped)
    assert learnt(tokenizer, example) == "\nBlue.<|im_end|>"
    assert not dropped.rows


def test_only_the_last_turn_is_learnt_where_dialogues_share_their_first(tokenizer):
    talk = [user("One?"), assistant("Two."), user("Three?"), assistant("Four.")]
    (example,) = tokenize(rows_of(talk), tokenizer, LONG, Dropped(), last_turn_only=True)
    assert learnt(tokenizer, example) == f"Four.{tokenizer.eos_token}"
    (whole,) = tokenize(rows_of(talk), tokenizer, LONG, Dropped())
    assert example["input_ids"] == whole["input_ids"]


@pytest.mark.parametrize(
    ("max_length", "decides"),
    [(512, "the model's own context (64 tokens, less than max_length, which is 512)"),
     (40, "max_length (40 tokens)")],
)  # fmt: skip
def test_what_is_longer_than_the_model_holds_is_left_out(model_of_kind, max_length, decides):
    folder = model_of_kind("short-context")
    limit = length_limit(max_length, load_config(folder))
    rows = rows_of([user("Hi"), assistant("Yes.")], [user("word " * 40), assistant("Yes.")])
    dropped = Dropped()
    assert len(tokenize(rows, load_tokenizer(folder), limit, dropped)) == 1
    assert [row["row"] for row in dropped.rows] == [2]
    assert dropped.rows[0]["reason"] == f"is longer than {decides}"


def train(stage_folder, base, rows, **changes):
    folder = stage_folder / "demonstrations"
    folder.mkdir(parents=True)
    write_dataset(folder, {"train": rows, "test": rows}, kind="messages", title="D", description="")
    stage = Stage(stage_folder, Reporter(quiet=True))
    training = {"learning_rate": 1e-2, "max_steps": 40, "batch_size": 4} | changes
    config = SFTConfig(
        tuning=TuningConfig(method=training.pop("method", "full")),
        training=TrainingConfig(**training),
        evaluations=0,
    )
    figures = train_sft(
        stage, config=config, base=Folder(base), demonstrations=Folder(folder), seed=0
    )
    return stage.folder, figures


@pytest.mark.parametrize("kind", ["base-chatml", "unmarked-end", "no-end"])
def test_what_is_trained_ends_its_responses(model_of_kind, tmp_path, kind):
    prompt = [user("Say yes.")]
    rows = rows_of(*([[*prompt, assistant("Yes")]] * 4))
    folder, figures = train(tmp_path, model_of_kind(kind), rows)
    assert figures["held_out_loss"] < 0.1
    policy = Policy.load(folder)
    sampling = SamplingConfig(max_new_tokens=12, temperature=0.1)
    drawn = policy.sample([policy.encode(prompt)] * 8, range(8), sampling)
    assert all(generation.finished for generation in drawn)
    assert {policy.decode(generation.ids) for generation in drawn} == {"Yes"}
    assert policy.end_ids >= set(
        json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
        if kind == "base-chatml"
        else [policy.tokenizer.eos_token_id]
    )


def test_the_held_out_loss_is_the_mean_over_tokens_whatever_the_batch(base_folder, tmp_path):
    rows = rows_of(*([user(f"Say {n}."), assistant("yes " * (1 + 3 * n**2))] for n in range(1, 7)))
    losses = {
        batch: train(
            tmp_path / str(batch), base_folder, rows, max_steps=1, batch_size=batch,
            learning_rate=1e-9,
        )[1]
        for batch in (1, 2, 6)
    }  # fmt: skip
    policy = Policy.load(base_folder)
    total, count = 0.0, 0
    for row in rows:
        prompt_ids, response_ids = encode_response(
            policy.tokenizer, row["messages"][:1], row["messages"][1]["content"]
        )
        with torch.no_grad():
            logits = policy.model(torch.tensor([[*prompt_ids, *response_ids]])).logits[0]
        logprobs = torch.log_softmax(logits[len(prompt_ids) - 1 : -1].double(), -1)
        total -= float(logprobs.gather(1, torch.tensor(response_ids)[:, None]).sum())
        count += len(response_ids)
    for figures in losses.values():
        assert figures["held_out_loss"] == pytest.approx(total / count, rel=1e-5)
    accuracies = [figures["held_out_token_accuracy"] for figures in losses.values()]
    assert accuracies == pytest.approx([accuracies[0]] * 3, abs=1e-6)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_an_adapter_as_the_base_trains_on(model_of_kind, tmp_path, method):
    rows = rows_of(*([[user("Say yes."), assistant("Yes")]] * 4))
    first, _ = train(tmp_path / "a", model_of_kind("chatml"), rows, method="lora", max_steps=2)
    _, figures = train(tmp_path / "b", first, rows, method=method, max_steps=2)
    assert figures["trainable_parameters"] > 0


def test_tools_and_weights_of_rows_reach_the_template(model_of_kind):
    tokenizer = load_tokenizer(model_of_kind("chatml"))
    talk = [user("One?"), assistant("Two.") | {"weight": 0}, user("Three?"), assistant("Four.")]
    rows = rows_of(talk, talk, [user("a"), assistant("b") | {"weight": 0}])
    rows[1]["tools"] = json.dumps([{"type": "function", "function": {"name": "weather"}}])
    dropped = Dropped()
    (example,) = tokenize(rows, tokenizer, LONG, dropped)
    assert learnt(tokenizer, example) == "Four.<|im_end|>"
    assert {row["row"]: row["reason"] for row in dropped.rows} == {
        2: "the chat template does not write the tools that may be called (weather)",
        3: "has the weight 0 in each turn of the assistant's, so there is nothing to learn",
    }
