"""Supervised fine-tuning: LoRA, QLoRA and full; the loss on the assistant alone; exact resume."""

from __future__ import annotations

import copy

import pytest
import torch
from pydantic import ValidationError

from plumbline.data.records import assistant, read_dataset, user, write_dataset
from plumbline.dropped import Dropped
from plumbline.errors import ModelError
from plumbline.lm.batches import collate
from plumbline.lm.context import LengthLimit
from plumbline.lm.load import load_causal_lm
from plumbline.lm.logprobs import response_logprobs
from plumbline.lm.model_folder import source_of
from plumbline.lm.policy import Policy
from plumbline.lm.tuning import TuningConfig
from plumbline.lm.tuning_methods import TUNING_METHODS
from plumbline.runs.artifacts import Artifact
from plumbline.runs.metrics import read_metrics
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from plumbline.training.config import TrainingConfig
from plumbline.training.exact_resume import ExactResume
from plumbline.training.held_out import HeldOutConfig
from plumbline.world.data import demonstrations as world_demonstrations
from sft.config import SFTConfig
from sft.tokenized import tokenize
from sft.train import train_sft
from sft.trainer import SFTTrainer, weighted_loss

SAME = (".jsonl", ".safetensors")


class Folder(Artifact):
    """A folder as an artefact without a manifest."""

    @property
    def id(self) -> str:
        return self.path.name


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory):
    rows = world_demonstrations(0, 60)
    folder = tmp_path_factory.mktemp("demonstrations")
    splits = {"train": rows[:48], "test": rows[48:]}
    write_dataset(folder, splits, kind="messages", title="D", description="")
    return Folder(folder)


def config(method: str = "lora") -> SFTConfig:
    return SFTConfig(
        tuning=TuningConfig(method=method),
        training=TrainingConfig(
            learning_rate=5e-3, epochs=2, batch_size=8, log_every=2, checkpoint_every=4
        ),
    )


def train(folder, base_folder, demonstrations, method="lora", **more):
    stage = Stage(folder, Reporter(quiet=True))
    settings = config(method).model_copy(update=more)
    figures = train_sft(
        stage, config=settings, base=Folder(base_folder), demonstrations=demonstrations,
        seed=0,
    )  # fmt: skip
    return stage, figures


@pytest.mark.parametrize("method", list(TUNING_METHODS))
def test_each_tuning_learns_and_saves_what_loads(base_folder, demonstrations, tmp_path, method):
    if method == "qlora":
        pytest.importorskip("bitsandbytes")
    stage, figures = train(tmp_path / method, base_folder, demonstrations, method)
    losses = [line["loss"] for line in read_metrics(stage.folder / "metrics.jsonl") if
              "loss" in line]  # fmt: skip
    row = TUNING_METHODS[method]
    assert losses[-1] < losses[0] - (0.1 if row.weights in ("all", "layers") or row.low_rank else 0)
    assert figures["held_out_loss"] < losses[0]
    assert (source_of(stage.folder).adapter is None) == (not row.has_adapter)
    share = figures["trainable_parameters"] / figures["parameters"]
    assert (share == 1) == (method in ("full", "progressive")) and (
        share < 0.5 or not row.has_adapter
    )
    # What is saved is what was measured: the held-out loss again, by a pass of its own.
    policy = Policy.load(stage.folder, quantize=method == "qlora")
    again = held_out_loss(policy, demonstrations)
    assert again == pytest.approx(figures["held_out_loss"], rel=2e-3)


def held_out_loss(policy, demonstrations) -> float:
    """The mean negative log-probability of the assistant's tokens, one conversation at a time."""
    total, count = 0.0, 0
    rows = read_dataset(demonstrations.path, "test")
    for row in tokenize(rows, policy.tokenizer, LengthLimit(999, ""), Dropped()):
        ids, learnt = row["input_ids"], [label != -100 for label in row["labels"]]
        batch = collate([ids[:1]], [ids[1:]], policy.pad_id)
        logprobs = response_logprobs(policy.model, batch).logprobs[0].tolist()
        total -= sum(x for x, is_learnt in zip(logprobs, learnt[1:], strict=True) if is_learnt)
        count += sum(learnt[1:])
    return total / count


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("lora", {}),
        ("progressive", {"held_out": HeldOutConfig(every=3, keep="best")}),
        ("dora", {"neftune_alpha": 5.0}),
        ("p_tuning", {}),
    ],
)
def test_a_killed_training_goes_on_with_the_same_bytes(
    base_folder, demonstrations, tmp_path, monkeypatch, method, more
):
    whole, _ = train(tmp_path / "whole", base_folder, demonstrations, method, **more)
    save = ExactResume._save_checkpoint

    def save_and_die(self, model, trial):
        save(self, model, trial)
        raise KeyboardInterrupt

    monkeypatch.setattr(ExactResume, "_save_checkpoint", save_and_die)
    for attempt in (1, 2):  # killed after the first checkpoint, and after the second
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "cut", base_folder, demonstrations, method, **more)
        latest = Stage(tmp_path / "cut", Reporter(quiet=True)).checkpoints.latest
        assert latest.name == f"step-{4 * attempt}"
    monkeypatch.setattr(ExactResume, "_save_checkpoint", save)
    cut, _ = train(tmp_path / "cut", base_folder, demonstrations, method, **more)
    files = [f.relative_to(whole.folder) for f in whole.folder.rglob("*") if f.suffix in SAME]
    assert len(files) >= 2
    for name in files:
        assert (cut.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_a_loss_that_is_no_number_is_refused_before_the_step(
    base_folder, demonstrations, tmp_path, monkeypatch
):
    """By what all trainers of the house pass: the others' losses go the same way."""
    compute = SFTTrainer.compute_loss
    monkeypatch.setattr(SFTTrainer, "compute_loss", lambda *a, **k: compute(*a, **k) * torch.nan)
    with pytest.raises(ModelError, match="loss of step 1 is not a number"):
        train(tmp_path, base_folder, demonstrations)


def test_labels_are_where_the_assistant_speaks(tokenizer):
    rows = [{"messages": [user("One?"), assistant("Two."), user("Three?"), assistant("Four.")]}]
    (row,) = tokenize(rows, tokenizer, LengthLimit(99, ""), Dropped())
    labels = [
        token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100
    ]
    end = tokenizer.eos_token
    assert tokenizer.decode(labels) == f"Two.{end}Four.{end}"


def test_a_row_with_a_token_that_the_model_has_no_row_for_is_left_out(tokenizer):
    rows = [
        {"messages": [user("Hi"), assistant(text)], "origin": "a", "row": number}
        for number, text in enumerate(["One.", "Two <new>."], 1)
    ]
    limit, dropped = LengthLimit(99, "", rows=len(tokenizer)), Dropped()
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<new>"]})
    assert len(tokenize(rows, tokenizer, limit, dropped)) == 1
    (left,) = dropped.rows
    assert left["row"] == 2 and f"has the token '<new>' (id {limit.rows})" in left["reason"]


def test_the_loss_is_that_of_a_plain_model(base_folder, tokenizer):
    """Labels line up with what transformers shifts: the cross-entropy of the assistant's tokens."""
    rows = world_demonstrations(0, 4)
    data = tokenize(rows, tokenizer, LengthLimit(999, ""), Dropped())
    model = load_causal_lm(base_folder).eval()
    total, count = 0.0, 0
    for row in data:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])
        logprobs = torch.log_softmax(model(ids).logits[0], -1)
        for position in range(1, len(labels)):
            if labels[position] != -100:
                total -= logprobs[position - 1, labels[position]].item()
                count += 1
    batch = [torch.tensor([row["input_ids"]]) for row in data]
    losses = [
        model(ids, labels=torch.tensor([row["labels"]])).loss.item()
        for ids, row in zip(batch, data, strict=True)
    ]
    weights = [sum(label != -100 for label in row["labels"][1:]) for row in data]
    mean = sum(w * x for w, x in zip(weights, losses, strict=True)) / sum(weights)
    assert mean == pytest.approx(total / count, rel=1e-4)


def test_packed_rows_do_not_see_each_other(base_folder, demonstrations, tmp_path):
    """With a step too small to move anything, the loss of packed rows is that of the rows."""
    losses = {}
    for packing in (False, True):
        still = TrainingConfig(
            learning_rate=1e-12, epochs=1, batch_size=48, log_every=1, checkpoint_every=1
        )
        stage, _ = train(
            tmp_path / f"packing-{packing}", base_folder, demonstrations, "full",
            packing=packing, training=still,
        )  # fmt: skip
        (line,) = [x for x in read_metrics(stage.folder / "metrics.jsonl") if "loss" in x]
        losses[packing] = line["loss"]
    assert losses[True] == pytest.approx(losses[False], rel=1e-4)


def test_early_stopping_keeps_the_best_and_the_final_weights(base_folder, demonstrations, tmp_path):
    """At this learning rate a model of 48 rows soon predicts others worse."""
    wild = TrainingConfig(
        learning_rate=3e-2, epochs=30, batch_size=8, log_every=2, checkpoint_every=100
    )
    stage, figures = train(
        tmp_path / "early", base_folder, demonstrations, "full",
        training=wild, held_out=HeldOutConfig(every=4, keep="best", patience=2),
    )  # fmt: skip
    lines = read_metrics(stage.folder / "metrics.jsonl")
    held_out = {line["step"]: line["held_out_loss"] for line in lines if "held_out_loss" in line}
    last, best = max(held_out), min(held_out, key=held_out.get)
    assert last == best + 8 < 180  # two losses after the least one, long before the end
    assert figures["best_step"] == best
    assert figures["held_out_loss"] == pytest.approx(held_out[best], rel=1e-5)
    for folder, step in ((stage.folder, best), (stage.folder / "final", last)):
        loss = held_out_loss(Policy.load(folder), demonstrations)
        assert loss == pytest.approx(held_out[step], rel=2e-3)


def test_weights_of_rows_and_turns_are_those_of_the_tokens(tokenizer):
    talk = [user("One?"), assistant("Two."), user("Three?"), assistant("Four.") | {"weight": 0.5}]
    rows = [
        {"messages": talk, "weight": 2.0, "origin": "x", "row": 1},
        {"messages": talk[:2], "weight": 0.0, "origin": "x", "row": 2},
    ]
    dropped = Dropped()
    (row,) = tokenize(rows, tokenizer, LengthLimit(99, ""), dropped)
    (reason,) = dropped.reasons()
    assert reason == "has the weight 0"
    weights = [w for w in row["token_weights"] if w]
    assert sum(weights) / len(weights) == pytest.approx(1.0)
    assert max(weights) == pytest.approx(2 * min(weights))
    # A turn of weight 0 is shown and not learnt; weights that are all alike are left out.
    rows = [{"messages": [*talk[:3], talk[3] | {"weight": 0}], "origin": "x", "row": 1}]
    (row,) = tokenize(rows, tokenizer, LengthLimit(99, ""), Dropped())
    assert "token_weights" not in row
    learnt = [label for label in row["labels"] if label != -100]
    assert tokenizer.decode(learnt) == f"Two.{tokenizer.eos_token}"


def test_a_weighted_loss_is_worked_by_hand():
    logprobs = torch.tensor([[-1.0, 0.0, -3.0], [-2.0, -0.5, 0.0]])
    weights = torch.tensor([[0.0, 2.0, 0.0, 0.5], [0.0, 1.0, 0.4, 0.0]])
    assert float(weighted_loss(logprobs, weights)) == pytest.approx(2.0 + 1.5 + 2.0 + 0.2)
    # Virtual tokens stand in front and have no weight.
    in_front = torch.cat([torch.full((2, 5), -9.0), logprobs], dim=1)
    assert float(weighted_loss(in_front, weights)) == pytest.approx(5.7)


def test_a_row_of_weight_0_teaches_nothing_and_of_weight_3_three_times(
    base_folder, demonstrations, tmp_path
):
    """Three copies of a row are one row of weight 3."""
    rows = [row | {"origin": "x", "row": n} for n, row in enumerate(world_demonstrations(0, 8))]
    copies, weighted = rows[:4] * 3 + rows[4:6], [r | {"weight": 3.0} for r in rows[:4]]
    weighted += [r | {"weight": 1.0} for r in rows[4:6]]
    losses = []
    for name, train_rows in (("copies", copies), ("weighted", weighted)):
        folder = tmp_path / name
        splits = {"train": train_rows, "test": rows[6:]}
        write_dataset(folder, splits, kind="messages", title="D", description="")
        one_step = TrainingConfig(
            learning_rate=1e-12, epochs=1, batch_size=len(train_rows), log_every=1,
            checkpoint_every=1,
        )  # fmt: skip
        stage, _ = train(
            tmp_path / f"{name}-trained", base_folder, Folder(folder), training=one_step
        )
        (line,) = [x for x in read_metrics(stage.folder / "metrics.jsonl") if "loss" in x]
        losses.append(line["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValidationError, match="Set keep: best"):
        HeldOutConfig(every=5, patience=2)
    with pytest.raises(ValidationError, match="Leave packing out"):
        SFTConfig(tuning=TuningConfig(method="prompt"), packing=True)
    with pytest.raises(ValidationError, match="which checkpointing drops"):
        SFTConfig(
            tuning=TuningConfig(method="prefix"),
            training=TrainingConfig(activation_checkpointing=True),
        )
