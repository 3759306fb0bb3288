"""Several aspects in one reward model: an output each, their sum by weights, on disk and in PPO."""

from __future__ import annotations

import json
import math

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from plumbline.data.records import assistant, user, write_dataset
from plumbline.errors import DataError, ModelError
from plumbline.lm.load import trainable_causal_lm
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.artifacts import Artifact
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from plumbline.training.config import TrainingConfig
from reward.aspects import ASPECTS
from reward.config import RewardConfig
from reward.losses import LOSSES, PairLabels
from reward.scorer import RewardModelScorer
from reward.train import train_reward_model
from reward.trainer import aspect_losses, pair_rewards


class Folder(Artifact):
    """A folder as an artefact without a manifest."""

    @property
    def id(self) -> str:
        return self.path.name


def test_the_reward_is_the_weighted_sum_of_the_outputs():
    outputs = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.0, 4.0], [2.0, 2.0]])
    rewards = pair_rewards(outputs, (0.5, 2.0))
    assert rewards.chosen.tolist() == [4.5, 8.0]
    assert rewards.rejected.tolist() == [-0.5, 5.0]


def test_losses_of_aspects_are_a_mean_over_those_with_a_label():
    ln3 = math.log(3)
    outputs = torch.tensor([[ln3, 5.0], [0.0, 5.0], [0.0, 0.0], [ln3, 0.0]], requires_grad=True)
    targets = torch.tensor([[1.0, 1.0], [0.0, math.nan]])

    def loss(pair, p):
        return LOSSES["bradley_terry"].function(pair, PairLabels(probability=p))

    losses = aspect_losses(outputs, targets, loss)
    first = (-math.log(3 / 4) + math.log(2)) / 2
    assert losses.tolist() == pytest.approx([first, -math.log(3 / 4)])
    losses.sum().backward()
    assert outputs.grad[2:, 1].tolist() == [0, 0]
    assert bool(outputs.grad.isfinite().all())


#: Polite and long are independent here: each output must learn its own.
def row(n):
    polite, long = n % 2 == 0, n // 2 % 2 == 0
    first = ("Thank you! " if polite else "") + ("And so on. " * 4 if long else "Yes.")
    second = ("" if polite else "Thank you! ") + ("Yes." if long else "And so on. " * 4)
    return {
        "pair_id": f"p-{n}",
        "prompt": [user(f"Question {n}")],
        "chosen": [assistant(first.strip() or "Yes.")],
        "rejected": [assistant(second.strip() or "Yes.")],
        "polite": float(polite),
        "long": float(long) if n % 5 else None,
    }


ROWS = [row(n) for n in range(64)]
ASPECTS_SET = {
    "polite": {"labels": "polite", "weight": 2.0},
    "long": {"labels": "long", "weight": -0.5},
}


def train(folder, base_folder, method="lora", **changes):
    data = folder / "data"
    splits = {"train": ROWS[:48], "test": ROWS[48:]}
    write_dataset(data, splits, kind="preference", title="", description="")
    stage = Stage(folder / "stage", Reporter(quiet=True))
    settings = {
        "tuning": TuningConfig(method=method),
        "aspects": ASPECTS_SET,
        "aspect_weight": 4.0,
        "training": TrainingConfig(
            learning_rate=5e-3, epochs=6, batch_size=8, checkpoint_every=100
        ),
    }
    config = RewardConfig(**settings | changes)
    train_reward_model(
        stage, config=config, policy=Folder(base_folder), preferences=Folder(data), seed=0
    )
    return stage.folder


@pytest.fixture(scope="module", params=["full", "lora"])
def trained(request, base_folder, tmp_path_factory):
    return train(tmp_path_factory.mktemp("aspects"), base_folder, request.param), request.param


PROMPTS = [[user("Question 99")]] * 4
TEXTS = ["Thank you! Yes.", "Yes.", "Thank you! " + "And so on. " * 4, "And so on. " * 4]


def test_each_output_learns_its_own_aspect(trained):
    folder, _ = trained
    scorer = RewardModelScorer(folder)
    scores = scorer.aspect_scores(PROMPTS, TEXTS)
    thanked, plain, both, long = scores["polite"]
    assert min(thanked, both) > max(plain, long)
    thanked, plain, both, long = scores["long"]
    assert min(both, long) > max(thanked, plain)
    summed = [2.0 * p - 0.5 * n for p, n in zip(scores["polite"], scores["long"], strict=True)]
    assert scorer.raw_scores(PROMPTS, TEXTS) == pytest.approx(summed, abs=1e-4)


def test_on_disk_it_is_a_classifier_with_a_label_for_each_aspect(trained):
    folder, method = trained
    assert json.loads((folder / ASPECTS).read_text())["weights"] == [2.0, -0.5]
    if method == "full":
        model = AutoModelForSequenceClassification.from_pretrained(folder)
        assert model.config.id2label == {0: "polite", 1: "long"}


def test_moved_in_to_a_policy_it_gives_the_same_rewards(trained, base_folder):
    folder, method = trained
    scorer = RewardModelScorer(folder)
    policy = trainable_causal_lm(base_folder, TuningConfig(method="lora", rank=2))
    mounted = scorer.mount(policy)
    assert (mounted is scorer) == (method == "full")
    assert mounted.score(PROMPTS, TEXTS) == pytest.approx(scorer.score(PROMPTS, TEXTS), abs=1e-4)
    if method == "lora":
        weight, bias = mounted.linear()
        assert weight.shape == (1, 64) and bias.shape == (1,)


def test_outputs_that_nothing_names_are_refused(trained):
    folder, _ = trained
    file = folder / ASPECTS
    text = file.read_text()
    try:
        file.write_text(json.dumps({"names": ["polite"], "weights": [1.0]}))
        with pytest.raises(ModelError, match="1 names and 1 weights, and the model 2 outputs"):
            RewardModelScorer(folder).score(PROMPTS, TEXTS)
        file.unlink()
        with pytest.raises(ModelError, match=r"has 2 outputs and no aspects\.json"):
            RewardModelScorer(folder).score(PROMPTS, TEXTS)
    finally:
        file.write_text(text)


def test_an_aspect_without_labels_is_refused(base_folder, tmp_path):
    with pytest.raises(DataError, match=r"reward\.aspects\.kind\.labels is 'kind'"):
        train(tmp_path, base_folder, aspects={"kind": {"labels": "kind"}})
    with pytest.raises(ValueError, match="it needs loss: a pairwise one without ties"):
        RewardConfig(loss="davidson", aspects=ASPECTS_SET)
