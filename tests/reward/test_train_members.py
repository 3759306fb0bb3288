"""Ensembles that one stage trains: members as they would be alone, one pass, one reward."""

from __future__ import annotations

import json
import os
from typing import ClassVar

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from plumbline.data.records import assistant, read_dataset, user, write_dataset
from plumbline.errors import ModelError
from plumbline.lm import trunk
from plumbline.lm.chat import encode_responses
from plumbline.lm.gpu import status
from plumbline.lm.gpu.checks import has_packed_pass
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.artifacts import Artifact
from plumbline.runs.metrics import read_metrics
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from plumbline.seeds import derive
from plumbline.training.config import TrainingConfig
from reward import text_scorer
from reward.calibration import Calibration
from reward.config import EnsembleConfig, RewardConfig
from reward.content import content_of
from reward.ensemble import EnsembleScorer
from reward.load_scorer import reward_scorer
from reward.metrics import pairwise_accuracy
from reward.mounted import MountedScorer
from reward.scorer import RewardModelScorer
from reward.train import train_reward_model
from tests.rl.two_rounds import scores_of_two_rounds

ANSWERS = ["Certainly.", "No " * 20, "The saws cost $7. Thank you!", "Aisle 3."] * 3
CONFIG = RewardConfig(
    tuning=TuningConfig(method="lora", rank=4),
    training=TrainingConfig(
        learning_rate=5e-3, epochs=2, batch_size=8, log_every=1, checkpoint_every=3
    ),
)


class Folder(Artifact):
    """A folder as an artefact without a manifest."""

    @property
    def id(self) -> str:
        return self.path.name


@pytest.fixture(scope="module")
def preferences(tmp_path_factory):
    rows = [
        {
            "pair_id": f"p-{n}",
            "prompt": [user(f"How much are {n} saws?")],
            "chosen": [assistant(f"That is ${7 * n}. Thank you!")],
            "rejected": [assistant("No idea." if n % 3 else "Ask someone else, I am busy.")],
        }
        for n in range(1, 33)
    ]
    folder = tmp_path_factory.mktemp("preferences")
    splits = {"train": rows[:24], "test": rows[24:]}
    write_dataset(folder, splits, kind="preference", title="P", description="")
    return Folder(folder)


def train(folder, base_folder, preferences, seed=0, report_to=(), **ensemble):
    training = CONFIG.training.model_copy(update={"report_to": report_to})
    changes = {"ensemble": EnsembleConfig(**ensemble), "training": training}
    config = CONFIG.model_copy(update=changes)
    stage = Stage(folder / "stage", Reporter(quiet=True))
    figures = train_reward_model(
        stage, config=config, policy=Folder(base_folder), preferences=preferences, seed=seed
    )
    return stage.folder, figures


class Tracker(TrainerCallback):
    """A tracker that notes when it begins and ends, and for which run."""

    noted: ClassVar[list[str]] = []

    def on_train_begin(self, args, state, control, **_):
        self.noted.append(f"begin {os.environ['WANDB_RUN_ID']}")

    def on_log(self, args, state, control, logs=None, **_):
        pass

    def on_train_end(self, args, state, control, **_):
        self.noted.append("end")


@pytest.fixture(scope="module")
def trained(base_folder, preferences, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "noting", Tracker)
        return train(
            tmp_path_factory.mktemp("trained"), base_folder, preferences, report_to=("noting",),
            members=2, how="minimum",
        )  # fmt: skip


def test_each_member_is_a_run_of_the_trackers_that_ends_with_it(trained):
    runs = [f"begin stage-member-{number}" for number in (0, 1)]
    assert Tracker.noted == [runs[0], "end", runs[1], "end"]


def weights(folder):
    return (folder / "adapter_model.safetensors").read_bytes()


def test_a_member_is_what_its_seed_makes_alone(trained, base_folder, preferences, tmp_path):
    folder, _ = trained
    seed = derive(0, "member", 1) % 2**32
    alone, _ = train(tmp_path, base_folder, preferences, seed=seed)
    assert weights(folder / "member-1") == weights(alone)
    heads = [
        value
        for name in ("member-0", "member-1")
        for key, value in load_file(folder / name / "adapter_model.safetensors").items()
        if key.endswith("score.weight")
    ]
    assert not torch.allclose(*heads, atol=1e-3)


def test_the_folder_is_one_reward(trained, prompts):
    folder, _ = trained
    members = [RewardModelScorer(folder / f"member-{n}").score(prompts, ANSWERS) for n in (0, 1)]
    assert np.abs(np.subtract(*members)).max() > 1e-3
    scorer = reward_scorer(Folder(folder))
    assert isinstance(scorer, EnsembleScorer)
    assert scorer.name == "reward"  # as the judge of a recipe is called
    assert scorer.score(prompts, ANSWERS) == pytest.approx(np.min(members, axis=0), abs=1e-4)


def test_its_figures_are_those_of_the_ensemble(trained, preferences):
    folder, figures = trained
    rows = read_dataset(preferences.path, "test")
    asked = [row["prompt"] for row in rows]
    both = [[row[side][-1]["content"] for row in rows] for side in ("chosen", "rejected")]
    scorer = EnsembleScorer.read(folder)
    chosen, rejected = (scorer.score(asked, texts) for texts in both)
    assert figures["accuracy"] == pairwise_accuracy(chosen, rejected)
    alone = [RewardModelScorer(folder / f"member-{n}") for n in (0, 1)]
    of_members = [pairwise_accuracy(*(m.score(asked, texts) for texts in both)) for m in alone]
    assert figures["member_accuracy"] == pytest.approx(np.mean(of_members))
    assert figures["members"] == 2
    assert figures["pairs"] == 24
    # Each step's line is the mean of the members' lines.
    lines = read_metrics(folder / "metrics.jsonl")
    parts = [read_metrics(folder / f"member-{n}" / "metrics.jsonl") for n in (0, 1)]
    assert [line["step"] for line in lines] == [line["step"] for line in parts[0]]
    assert lines[0]["loss"] == pytest.approx(np.mean([part[0]["loss"] for part in parts]))


def test_killed_in_the_second_member_it_ends_with_the_same_bytes(
    trained, base_folder, preferences, tmp_path, monkeypatch
):
    from reward.trainer import RewardTrainer

    compute, calls = RewardTrainer.compute_loss, []

    def dies(trainer, *arguments, **options):
        calls.append(1)
        if len(calls) == 6 + 5:  # a member takes six steps
            raise KeyboardInterrupt
        return compute(trainer, *arguments, **options)

    monkeypatch.setattr(RewardTrainer, "compute_loss", dies)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, base_folder, preferences, members=2, how="minimum")
    resumed, figures = train(tmp_path, base_folder, preferences, members=2, how="minimum")
    assert len(calls) == 11 + 3  # from the checkpoint at the third step of the second member
    whole, same = trained
    assert figures == same
    for file in sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file()):
        if file.name != "README.md" and file.name != "adapter_config.json":  # they name the folder
            assert (resumed / file).read_bytes() == (whole / file).read_bytes(), file


def test_all_adapters_read_a_batch_at_once(trained, prompts, monkeypatch):
    """By the packed pass of a GPU, tried here on a CPU: one call of it for both members."""
    folder, _ = trained
    expected = EnsembleScorer.read(folder).member_scores(prompts, ANSWERS)
    calls = []

    def counted(model, packing, roles=(None,), **options):
        calls.append(tuple(roles))
        return packed(model, packing, roles, **options)

    packed = trunk.packed_states
    status.forget()
    monkeypatch.setattr(trunk, "packed_states", counted)
    monkeypatch.setattr(
        trunk, "has_packed_pass", lambda model: has_packed_pass(model, anywhere=True)
    )
    together = EnsembleScorer.read(folder).member_scores(prompts, ANSWERS)
    status.forget()
    assert calls == [("reward-0", "reward-1")]
    assert together == pytest.approx(expected, abs=1e-3)


def test_texts_are_encoded_once_for_all_members(trained, prompts, monkeypatch):
    folder, _ = trained
    scorer = EnsembleScorer.read(folder)
    encode, encoded = encode_responses, []

    def counting(tokenizer, texts):
        encoded.extend(texts)
        return encode(tokenizer, texts)

    monkeypatch.setattr(text_scorer, "encode_responses", counting)
    scorer.score(prompts, ANSWERS)
    assert len(encoded) == len(ANSWERS)


def test_texts_longer_than_in_training_are_counted(trained, prompts):
    scorer = EnsembleScorer.read(trained[0])
    scorer.score(prompts, ANSWERS)
    assert scorer.shortened == 0
    asked = [[user("Well? " * CONFIG.max_length)], prompts[0]]
    scorer.score(asked, ANSWERS[:2])
    assert scorer.shortened == 1


def test_members_of_other_tokenizers_read_by_themselves(trained, prompts, model_of_kind, tmp_path):
    from tests.reward.test_ensemble import reward_model

    folder, _ = trained
    other = reward_model(model_of_kind("chatml"), tmp_path / "other", 5)
    scorer = EnsembleScorer([folder / "member-0", other])
    expected = [RewardModelScorer(m).score(prompts, ANSWERS) for m in (folder / "member-0", other)]
    assert scorer.member_scores(prompts, ANSWERS) == pytest.approx(np.array(expected), abs=1e-4)


def test_ppo_is_paid_by_the_ensemble(trained, base_folder, prompts, tmp_path, monkeypatch):
    folder, _ = trained
    paid = []
    score = EnsembleScorer.score

    def noted(self, asked, texts):
        scores = score(self, asked, texts)
        paid.append((self.members[0], asked, texts, scores))
        return scores

    monkeypatch.setattr(EnsembleScorer, "score", noted)
    means = scores_of_two_rounds(
        tmp_path / "ppo", base_folder, prompts, reward_scorer(Folder(folder))
    )
    monkeypatch.undo()
    assert all(isinstance(member, MountedScorer) for member, *_ in paid)  # on the policy's base
    assert len(paid) == len(means) == 2
    plain = EnsembleScorer.read(folder)
    for (_, asked, texts, scores), mean in zip(paid, means, strict=True):
        assert scores == pytest.approx(plain.score(asked, texts), abs=1e-3)
        assert mean == pytest.approx(np.mean(scores), abs=1e-5)


def test_its_content_is_that_of_its_members_wherever_they_are(trained, tmp_path):
    folder, _ = trained
    linked = tmp_path / "linked"
    linked.mkdir()
    facts = json.loads((folder / "ensemble.json").read_text())
    facts["members"] = [str(folder / name) for name in facts["members"]]
    (linked / "ensemble.json").write_text(json.dumps(facts))
    assert content_of(linked) == content_of(folder)
    (linked / "ensemble.json").write_text(json.dumps(facts | {"how": "mean"}))
    assert content_of(linked) != content_of(folder)


def test_a_damaged_ensemble_is_refused(trained, tmp_path):
    (tmp_path / "ensemble.json").write_text('{"members": ["member-0"]}')
    with pytest.raises(ModelError, match="does not describe an ensemble"):
        reward_scorer(tmp_path)
    with pytest.raises(ModelError, match="Leave it out"):
        reward_scorer(trained[0], label="good")


def test_its_temperature_is_its_own(trained):
    folder, _ = trained
    assert EnsembleScorer.read(folder).calibration == Calibration.read(folder)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ensemble": {"how": "minimum"}}, "members: 2 or more"),
        ({"ensemble": {"members": 3, "uncertainty_weight": 2.0}}, "uncertainty"),
        ({"ensemble": {"members": 3}, "tuning": {"method": "full"}}, "members are adapters"),
    ],
)
def test_settings_without_an_effect_are_refused(settings, said):
    with pytest.raises(ValidationError, match=said):
        RewardConfig.model_validate(settings)
