"""Training on labels without pairs, as a stage."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from plumbline.data.records import assistant, user, write_dataset
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.lm.context import LengthLimit
from plumbline.lm.load import load_causal_lm
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.artifacts import Artifact
from plumbline.runs.metrics import read_metrics
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from plumbline.training.config import TrainingConfig
from preference.config import KTOConfig
from preference.kto import train_kto
from preference.labels import encode_labeled, unpaired_rows
from preference.unpaired_losses import UNPAIRED_LOSSES

ROWS = [
    {
        "prompt": [user(f"How much are {n} saws?")],
        "chosen": [assistant(f"That is ${7 * n}. Thank you!")],
        "rejected": [assistant("No idea." if n % 3 else "Ask someone else, I am busy.")],
    }
    for n in range(1, 13)
]


class Folder(Artifact):
    """A folder as an artefact without a manifest."""

    @property
    def id(self) -> str:
        return self.path.name


@pytest.fixture(scope="module")
def preferences(tmp_path_factory):
    folder = tmp_path_factory.mktemp("preferences")
    splits = {"train": ROWS, "test": ROWS[:2]}
    write_dataset(folder, splits, kind="preference", title="P", description="")
    return Folder(folder)


class KilledError(Exception):
    pass


def train(folder, base_folder, preferences, *, hook=lambda *_: {}, **changes):
    stage = Stage(folder / "stage", Reporter(quiet=True))
    settings = {
        "tuning": TuningConfig(rank=4),
        "training": TrainingConfig(
            learning_rate=5e-3, epochs=2, batch_size=8, log_every=1, checkpoint_every=2
        ),
        "evaluations": 0,
    }
    figures = train_kto(
        stage, config=KTOConfig(**settings | changes), policy=Folder(base_folder),
        preferences=preferences, hook=hook, seed=0,
    )  # fmt: skip
    return stage.folder, figures


@pytest.mark.parametrize("loss", list(UNPAIRED_LOSSES))
def test_each_loss_learns_which_responses_were_liked(base_folder, preferences, tmp_path, loss):
    folder, figures = train(tmp_path, base_folder, preferences, loss=loss)
    first, *_, last = read_metrics(folder / "metrics.jsonl")
    assert first["loss"] == pytest.approx(0.6931 if loss == "bco" else 0.5, abs=1e-3)
    assert last["rewards/chosen"] > last["rewards/rejected"] + 0.1
    assert (figures["labels"], figures["steps"]) == (24, 6)
    load_causal_lm(folder)


def test_kto_compares_with_the_kl_of_responses_to_other_prompts(base_folder, tokenizer):
    """By hand: the policy's log-ratios of the shifted responses, their mean, at least 0."""
    from preference.label_trainer import LabelTrainer, collate_labeled
    from preference.reference import PolicyAndReference

    roles = PolicyAndReference(base_folder, TuningConfig(rank=4), tokenizer)
    with torch.no_grad():
        for name, parameter in roles.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.2, generator=torch.Generator().manual_seed(len(name)))
    examples = encode_labeled(unpaired_rows(ROWS), tokenizer, LengthLimit(99, ""), Dropped())[:5]
    batch = collate_labeled(examples)["labelled"]
    trainer = LabelTrainer.__new__(LabelTrainer)
    trainer.roles = roles
    with torch.no_grad():
        found = LabelTrainer._shift(trainer, "kl", batch, torch.zeros(5))
        prompts = [example.prompt_ids for example in examples]
        others = [example.response_ids for example in [*examples[1:], examples[0]]]
        ratios = roles.policy.logprobs_of(prompts, others).sum(1)
        with roles.model.disable_adapter():
            start = type(roles.policy)(roles.model, tokenizer, None)
            ratios = ratios - start.logprobs_of(prompts, others).sum(1)
    expected = ratios.mean().clamp(min=0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("loss", ["kto", "bco"])
def test_a_training_that_was_killed_ends_with_the_same_bytes(
    base_folder, preferences, tmp_path, loss
):
    killed = [False]

    def kills_once(policy, reference, step, folder):
        if step == 3 and not killed[0]:
            killed[0] = True
            raise KilledError
        return {}

    how = {"loss": loss, "evaluations": 6, "keep_checkpoints": False}
    whole, _ = train(tmp_path / "whole", base_folder, preferences, **how)
    with pytest.raises(KilledError):
        train(tmp_path / "cut", base_folder, preferences, hook=kills_once, **how)
    cut, _ = train(tmp_path / "cut", base_folder, preferences, hook=kills_once, **how)
    for name in ("adapter_model.safetensors", "metrics.jsonl"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name


def test_what_cannot_be_learnt_from_is_counted_or_refused(tokenizer):
    rows, dropped = unpaired_rows(ROWS[:1]), Dropped()
    with pytest.raises(DataError, match="0 of 0 responses"):
        encode_labeled(rows, tokenizer, LengthLimit(3, "is too long"), dropped)
    assert dropped.reasons() == {"is too long": 2}
    with pytest.raises(DataError, match="1 of 1 responses"):
        encode_labeled(rows[:1], tokenizer, LengthLimit(99, ""), Dropped())
    with pytest.raises(ValidationError, match="batch_size is 1"):
        KTOConfig(training=TrainingConfig(batch_size=1))
