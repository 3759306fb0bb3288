"""Ensembles: by hand what they come to, and by each member alone what they score."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from plumbline.errors import ConfigError
from plumbline.hooks import Mountable
from plumbline.lm.load import trainable_causal_lm, trainable_sequence_scorer
from plumbline.lm.model_folder import ADAPTER
from plumbline.lm.save import save_model
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.artifacts import Artifact
from reward import ensemble
from reward.calibration import Calibration
from reward.ensemble import COMBINATIONS, EnsembleScorer
from reward.mounted import MountedScorer
from reward.scorer import RewardModelScorer

ANSWERS = ["Certainly.", "No " * 20, "The saws cost $7. Thank you!", "Aisle 3."] * 3


def reward_model(base_folder, folder, seed: int, method: str = "lora"):
    """A reward model whose every trained weight is random, with a scale of its own."""
    folder.mkdir()
    torch.manual_seed(seed)
    model = trainable_sequence_scorer(base_folder, TuningConfig(method=method))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    save_model(model, load_tokenizer(base_folder), folder, source=base_folder, card="")
    Calibration(0.1 * seed, 1.0 + seed, max_length=200).write(folder)
    return folder


@pytest.fixture(scope="module")
def models(base_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("members")
    return [reward_model(base_folder, folder / f"member-{seed}", seed) for seed in range(3)]


@pytest.fixture(scope="module")
def alone(models, prompts):
    """What each member scores by itself, with a base of its own: shape (3, 12)."""
    return np.array([RewardModelScorer(model).score(prompts, ANSWERS) for model in models])


def test_three_ways_of_combining_by_hand():
    scores = np.array([[1.0, 2.0], [3.0, 0.0], [2.0, 4.0]])
    ways = {name: way.function for name, way in COMBINATIONS.items()}
    assert ways["mean"](scores, 9.0).tolist() == [2, 2]
    assert ways["minimum"](scores, 9.0).tolist() == [1, 0]
    # variances: (1 + 1 + 0) / 3 and (0 + 4 + 4) / 3
    assert ways["uncertainty"](scores, 0.5) == pytest.approx([2 - 1 / 3, 2 - 4 / 3])
    assert ways["uncertainty"](scores, 0.0).tolist() == [2, 2]


@pytest.mark.parametrize("how", ["mean", "minimum", "uncertainty"])
def test_an_ensemble_scores_as_its_members_do_alone(models, alone, prompts, how):
    assert alone.std(axis=0).min() > 1e-3  # they disagree, or nothing would be seen
    scorer = EnsembleScorer(models, how, weight=0.7)
    expected = {
        "mean": alone.mean(axis=0),
        "minimum": alone.min(axis=0),
        "uncertainty": alone.mean(axis=0) - 0.7 * alone.var(axis=0),
    }[how]
    assert scorer.score(prompts, ANSWERS) == pytest.approx(expected, abs=1e-4)
    assert scorer.ensemble_std(prompts, ANSWERS) == pytest.approx(alone.std(axis=0), abs=1e-4)


def test_members_share_one_base(models):
    members = EnsembleScorer(models).members
    assert all(isinstance(member, MountedScorer) for member in members)
    assert len({id(member._model) for member in members}) == 1
    assert [member.adapter for member in members] == ["reward-0", "reward-1", "reward-2"]


def test_members_move_in_to_a_policy_and_leave_it_as_it_was(base_folder, models, alone, prompts):
    model = trainable_causal_lm(base_folder, TuningConfig(method="lora", rank=2))
    trains = [name for name, p in model.named_parameters() if p.requires_grad]
    scorer = EnsembleScorer(models, "mean")
    assert isinstance(scorer, Mountable)
    mounted = scorer.mount(model)
    assert mounted.score(prompts, ANSWERS) == pytest.approx(alone.mean(axis=0), abs=1e-4)
    assert all(member._model is model for member in mounted.members)
    assert model.active_adapter == ADAPTER
    assert [name for name, p in model.named_parameters() if p.requires_grad] == trains
    assert scorer.score(prompts, ANSWERS) == pytest.approx(alone.mean(axis=0), abs=1e-4)


def test_a_member_that_is_whole_stands_beside_the_others(base_folder, models, prompts, tmp_path):
    whole = reward_model(base_folder, tmp_path / "whole", 7, "full")
    expected = np.mean(
        [RewardModelScorer(model).score(prompts, ANSWERS) for model in (models[0], whole)], axis=0
    )
    for order in ([models[0], whole], [whole, models[0]]):
        scorer = EnsembleScorer(order, "mean")
        assert scorer.score(prompts, ANSWERS) == pytest.approx(expected, abs=1e-4)


def test_members_score_once_for_reward_and_spread_together(models, alone, prompts, monkeypatch):
    scorer = EnsembleScorer(models)
    together, calls = ensemble.scores_together, []
    monkeypatch.setattr(
        ensemble, "scores_together", lambda *what: calls.append(1) or together(*what)
    )
    scorer.score(prompts, ANSWERS)
    scorer.ensemble_std(prompts, ANSWERS)
    assert len(calls) == 1
    swapped = [ANSWERS[1], ANSWERS[0], *ANSWERS[2:]]
    assert scorer.score(prompts, swapped) != pytest.approx(alone.mean(axis=0), abs=1e-3)
    assert len(calls) == 2


def test_artifacts_are_taken_as_well_as_folders(models, alone, prompts):
    scorer = EnsembleScorer([Artifact(model) for model in models], "minimum")
    assert scorer.score(prompts, ANSWERS) == pytest.approx(alone.min(axis=0), abs=1e-4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"models": 1}, "cannot disagree"),
        ({"how": "median"}, "no way of combining an ensemble 'median'"),
        ({"weight": -1.0}, "would reward answers"),
    ],
)
def test_what_is_no_ensemble_is_refused(models, change, said):
    count = change.pop("models", 2)
    with pytest.raises(ConfigError, match=said):
        EnsembleScorer(models[:count], **change)
