"""Training on labels without pairs, as a stage."""

from __future__ import annotations

import pytest
import torch

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
from preference.labels import encode_labeled, paired_rows, unpaired_rows, with_mismatches
from preference.unpaired_losses import UNPAIRED_LOSSES

ROWS = [
    {
        "prompt": [user(f"How much are {n} saws?")],
        "chosen": [assistant(f"That is ${7 * n}. Thank you!")],
        "rejected": [assistant("No idea." if n % 3 else "Ask someone else, I am busy.")],
    }
    for n in range(1, 13)
]


LIMIT = LengthLimit(99, "")


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
        labels=preferences, hook=hook, seed=0,
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
    """By hand: the policy's log-ratios of other prompts' responses, their mean, at least 0."""
    from preference.label_trainer import LabelTrainer, collate_labeled
    from preference.reference import PolicyAndReference

    roles = PolicyAndReference(base_folder, TuningConfig(rank=4), tokenizer)
    with torch.no_grad():
        for name, parameter in roles.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.2, generator=torch.Generator().manual_seed(len(name)))
    examples = with_mismatches(
        encode_labeled(unpaired_rows(ROWS), tokenizer, LIMIT, Dropped()), LIMIT
    )[:5]
    batch = collate_labeled(examples)["labelled"]
    trainer = LabelTrainer.__new__(LabelTrainer)
    trainer.roles = roles
    with torch.no_grad():
        reference = LabelTrainer._reference(trainer, batch)
        found = LabelTrainer._shift(trainer, "kl", batch, torch.zeros(5), reference)
        prompts = [example.prompt_ids for example in examples]
        # Rows 0 and 1 are of the first prompt, so that its next other response is that of row 2.
        all_ids = encode_labeled(unpaired_rows(ROWS), tokenizer, LIMIT, Dropped())
        others = [all_ids[n].response_ids for n in (2, 2, 4, 4, 6)]
        ratios = roles.policy.logprobs_of(prompts, others).sum(1)
        with roles.model.disable_adapter():
            start = type(roles.policy)(roles.model, tokenizer, None)
            ratios = ratios - start.logprobs_of(prompts, others).sum(1)
            own = start.logprobs_of(prompts, [x.response_ids for x in examples]).sum(1)
    expected = ratios.mean().clamp(min=0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(reference[:, 0], own, rtol=1e-4, atol=1e-4)


def test_a_mismatched_response_fits_and_is_to_another_prompt(tokenizer):
    examples = encode_labeled(unpaired_rows(ROWS), tokenizer, LIMIT, Dropped())
    by_response = {}
    for example in examples:
        by_response.setdefault(tuple(example.response_ids), set()).add(tuple(example.prompt_ids))
    for before, after in zip(examples, with_mismatches(examples, LIMIT), strict=True):
        assert after[:3] == before[:3]
        assert by_response[tuple(after.mismatched_ids)] - {tuple(before.prompt_ids)}
    narrow = LengthLimit(len(examples[0].prompt_ids) + 3, "")
    assert all(1 <= len(x.mismatched_ids) <= 3 for x in with_mismatches(examples, narrow))
    with pytest.raises(DataError, match="belong to one prompt"):
        with_mismatches(examples[:2], LIMIT)


# References.


@pytest.mark.parametrize("loss", list(UNPAIRED_LOSSES))
def test_a_reference_that_is_computed_is_the_one_that_is_cached(
    base_folder, preferences, tmp_path, loss
):
    cached, computed = (
        [
            line["loss"]
            for line in read_metrics(
                train(
                    tmp_path / kind, base_folder, preferences, loss=loss, reference={"kind": kind}
                )[0]
                / "metrics.jsonl"
            )
        ]
        for kind in ("cached", "computed")
    )
    assert cached == pytest.approx(computed, abs=1e-4)


def test_a_reference_that_follows_at_once_leaves_no_reward(base_folder, preferences, tmp_path):
    follows = {"kind": "moving", "mixing": 1.0, "every": 1}
    folder, _ = train(tmp_path, base_folder, preferences, reference=follows)
    losses = [line["loss"] for line in read_metrics(folder / "metrics.jsonl")]
    assert losses == pytest.approx([0.5] * len(losses), abs=1e-5)


def test_only_the_labels_that_the_training_reads_are_read_by_the_reference(
    base_folder, preferences, tmp_path, monkeypatch
):
    from preference.reference import PolicyAndReference

    read = []
    compute = PolicyAndReference.sums
    monkeypatch.setattr(
        PolicyAndReference,
        "sums",
        lambda roles, branches, tokens, ld_alpha: (
            read.append(tuple(tokens.shape)) or compute(roles, branches, tokens, ld_alpha)
        ),
    )
    training = TrainingConfig(max_steps=2, batch_size=4, log_every=1, checkpoint_every=1)
    train(tmp_path, base_folder, preferences, training=training)
    assert sum(rows for rows, _ in read) == 8
    assert {columns for _, columns in read} == {2}  # the own response, and the mismatched one


# Signs of trouble.


def test_figures_of_labels_by_hand():
    from preference.signs_of_trouble import label_figures
    from preference.unpaired_losses import LabeledLogprobs

    logprobs = LabeledLogprobs(
        policy=torch.tensor([-10.0, -30.0, -90.0, -20.0]),
        reference=torch.tensor([-20.0, -20.0, -20.0, -20.0]),
        desirable=torch.tensor([True, True, False, False]),
        shift=torch.tensor(5.0),
    )
    groups = label_figures(logprobs, 0.1, torch.tensor(0.5))
    assert [rows for _, rows in groups] == [4, 2, 2]
    found = {name: float(value) for means, _ in groups for name, value in means.items()}
    # Rewards are 1, -1, -7 and 0; the threshold is 0.5.
    assert found == pytest.approx(
        {
            "shift": 5.0,
            "rewards/chosen": 0.0,
            "rewards/rejected": -3.5,
            "rewards/accuracies": 0.75,
            "logps/chosen": -20.0,
            "logps/rejected": -55.0,
            "chosen_log_ratio": 0.0,
            "displaced_share": 0.5,
            "saturated_share": 0.25,
        }
    )
    disliked = logprobs._replace(desirable=torch.tensor([False] * 4))
    groups = label_figures(disliked, 0.1, torch.tensor(0.5))
    assert [rows for _, rows in groups] == [4, 4]
    assert not {"rewards/chosen", "displaced_share"} & {
        name for means, _ in groups for name in means
    }


def test_a_training_says_once_that_liked_responses_become_less_likely(
    base_folder, preferences, tmp_path, monkeypatch
):
    said = []
    monkeypatch.setattr(Stage, "say", lambda stage, text: said.append(text))
    train(
        tmp_path, base_folder, preferences, undesirable_weight=20.0, desirable_weight=1e-3,
        watch={"displaced_share": 0.01},
    )  # fmt: skip
    (text,) = [text for text in said if "watch.displaced_share" in text]
    assert "desirable_weight" in text


# Rows.


def test_pairs_become_labels_and_labels_pairs():
    labels = list(unpaired_rows(ROWS[:2]))
    assert [row["label"] for row in labels] == [True, False, True, False]
    back = paired_rows(labels, 1, 0, Dropped())
    assert [(row["prompt"], row["chosen"], row["rejected"]) for row in back] == [
        (row["prompt"], row["chosen"], row["rejected"]) for row in ROWS[:2]
    ]


def test_at_most_so_many_pairs_are_made_of_a_prompt_s_labels_and_others_are_counted():
    def label(n, text, liked):
        return {
            "prompt": [user(f"q{n}")], "completion": [assistant(text)], "label": liked,
            "origin": "file", "row": n,
        }  # fmt: skip

    rows = [label(1, "a", True), label(1, "b", True), label(1, "c", False), label(1, "d", False)]
    rows += [label(2, "e", True), label(3, "f", True), label(3, "f", False)]
    dropped = Dropped()
    assert len(list(paired_rows(rows, 9, 0, dropped))) == 4
    assert dropped.reasons() == {"its prompt has no other response with the other label": 3}
    some = list(paired_rows(rows, 2, 0, Dropped()))
    assert len(some) == 2 and len({row["pair_id"] for row in some}) == 2
    sides = {(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in some}
    assert sides < {("a", "c"), ("a", "d"), ("b", "c"), ("b", "d")}


# Exact resume.


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
    rows, dropped = list(unpaired_rows(ROWS[:1])), Dropped()
    with pytest.raises(DataError, match="0 of 0 responses"):
        encode_labeled(rows, tokenizer, LengthLimit(3, "is too long"), dropped)
    assert dropped.reasons() == {"is too long": 2}
    with pytest.raises(DataError, match="1 of 1 responses"):
        encode_labeled(rows[:1], tokenizer, LengthLimit(99, ""), Dropped())
