"""Soft labels in the reward model: the loss by hand and by difference, and what it trains."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import logsigmoid

from plumbline.data.records import assistant, write_dataset
from plumbline.errors import DataError
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.artifacts import Artifact
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from plumbline.training.config import TrainingConfig
from plumbline.world.clerks import Style, answer
from plumbline.world.data import prompts
from plumbline.world.shop import Shop
from reward.config import RewardConfig
from reward.losses import PairLabels, PairRewards, bradley_terry_loss
from reward.pairs import numbers_in
from reward.scorer import RewardModelScorer
from reward.train import train_reward_model

rewards = st.floats(-20, 20)
probabilities = st.floats(0, 1)


def loss(chosen, rejected, p):
    tensors = [torch.tensor([float(x)], dtype=torch.float64) for x in (chosen, rejected, p)]
    return bradley_terry_loss(PairRewards(*tensors[:2]), PairLabels(tensors[2])).item()


def test_the_loss_by_hand():
    # sigma(ln 3) = 3/4, so the two logarithms are ln(3/4) and ln(1/4).
    expected = -(2 / 3 * math.log(3 / 4) + 1 / 3 * math.log(1 / 4))
    assert loss(1 + math.log(3), 1.0, 2 / 3) == pytest.approx(expected)
    assert loss(0.3, 0.3, 0.8) == pytest.approx(math.log(2))


@given(rewards, rewards)
def test_with_certain_labels_it_is_the_ordinary_loss(chosen, rejected):
    ordinary = -logsigmoid(torch.tensor(chosen - rejected, dtype=torch.float64)).item()
    assert loss(chosen, rejected, 1.0) == pytest.approx(ordinary)


@given(rewards, rewards, probabilities)
def test_sides_may_be_swapped(chosen, rejected, p):
    assert loss(chosen, rejected, p) == pytest.approx(loss(rejected, chosen, 1 - p), abs=1e-9)


@given(st.floats(0.01, 0.99), rewards)
def test_it_is_least_where_the_model_is_as_sure_as_the_label(p, difference):
    entropy = -(p * math.log(p) + (1 - p) * math.log(1 - p))
    assert loss(math.log(p / (1 - p)), 0.0, p) == pytest.approx(entropy)
    assert loss(difference, 0.0, p) >= entropy - 1e-9


@given(st.floats(-8, 8), probabilities)
def test_its_gradient_equals_the_finite_difference(difference, p):
    chosen = torch.tensor([difference], dtype=torch.float64, requires_grad=True)
    rewards = PairRewards(chosen, torch.zeros(1, dtype=torch.float64))
    bradley_terry_loss(rewards, PairLabels(p)).sum().backward()
    step = 1e-5
    slope = (loss(difference + step, 0.0, p) - loss(difference - step, 0.0, p)) / (2 * step)
    assert chosen.grad.item() == pytest.approx(slope, abs=1e-6)
    # In closed form: sigma(difference) - p.
    assert chosen.grad.item() == pytest.approx(1 / (1 + math.exp(-difference)) - p, abs=1e-9)


def test_a_row_alone_has_the_loss_it_has_in_a_batch():
    chosen, rejected, p = torch.randn(3, 6).sigmoid().unbind()

    def of(rows):
        rewards = PairRewards(chosen[rows], rejected[rows])
        return bradley_terry_loss(rewards, PairLabels(p[rows]))

    torch.testing.assert_close(of(slice(6)), torch.stack([of(i) for i in range(6)]))


def probabilities_of(rows, column, origin):
    return numbers_in(rows, "soft_labels", column, origin, least=0, most=1)


def test_a_missing_column_names_the_nearest():
    rows = [{"pair_id": "p", "vote_share": 0.5}]
    assert list(probabilities_of(rows, "vote_share", "preferences-1")) == [0.5]
    with pytest.raises(DataError, match=r"preferences-1 has no such column.*'vote_share'"):
        probabilities_of(rows, "vote_shares", "preferences-1")
    with pytest.raises(DataError, match="Columns of numbers"):
        probabilities_of(rows, "xyz", "preferences-1")


@pytest.mark.parametrize("value", [None, 1.2, -0.1, "0.5", True, float("nan")])
def test_what_is_no_probability_is_refused_with_its_pair(value):
    rows = [{"pair_id": "p-0", "share": 1}, {"pair_id": "p-1", "share": value}]
    with pytest.raises(DataError, match="pair p-1"):
        probabilities_of(rows, "share", "preferences-1")


class Folder(Artifact):
    """A folder as an artefact without a manifest."""

    @property
    def id(self) -> str:
        return self.path.name


@pytest.fixture(scope="module")
def preferences(tmp_path_factory):
    """Polite answers over rude ones, of which people are said to be sure, half sure and against."""
    shop = Shop.from_seed(0)
    rows = [
        {
            "pair_id": f"p-{number}",
            "prompt": prompt,
            "chosen": [assistant(answer(shop, prompt, Style()))],
            "rejected": [
                assistant(answer(shop, prompt, Style(opening="", closing="Make it quick.")))
            ],
            "sure": 1.0,
            "even": 0.5,
            "mostly": 0.75,
            "against": 0.0,
        }
        for prompt, number in zip(prompts(0, 72, "preferences"), range(72), strict=True)
    ]
    folder = tmp_path_factory.mktemp("preferences")
    splits = {"train": rows[:48], "test": rows[48:]}
    write_dataset(folder, splits, kind="preference", title="P", description="")
    return Folder(folder)


@pytest.fixture(scope="module")
def train(base_folder, preferences, tmp_path_factory):
    def run(soft_labels):
        stage = Stage(tmp_path_factory.mktemp("reward"), Reporter(quiet=True))
        training = TrainingConfig(
            learning_rate=5e-3, epochs=2, batch_size=8, log_every=1, checkpoint_every=5
        )
        figures = train_reward_model(
            stage,
            config=RewardConfig(
                tuning=TuningConfig(method="lora", rank=4),
                training=training,
                soft_labels=soft_labels,
            ),
            policy=Folder(base_folder),
            preferences=preferences,
            seed=0,
        )
        return stage.folder, figures

    return run


@pytest.fixture(scope="module")
def hard(train):
    return train(None)


def weights(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.glob("*.safetensors"))}


def test_certain_soft_labels_train_the_same_model(train, hard):
    folder, figures = train("sure")
    assert figures == hard[1]
    assert weights(folder) == weights(hard[0]) != {}


def test_training_takes_the_soft_labels(train, hard):
    # Against the preference the model learns the opposite; on an even one it learns nothing of it.
    _, against = train("against")
    assert hard[1]["accuracy"] > 0.9
    assert against["accuracy"] < 0.1
    _, even = train("even")
    assert even["loss"] == pytest.approx(math.log(2), abs=0.05)


def test_rewards_differ_as_much_as_people_are_sure(train, hard, preferences):
    from plumbline.data.records import prompts_of, read_dataset

    rows = read_dataset(preferences.path, "test")

    def margin(folder):
        scorer = RewardModelScorer(folder)
        sides = [
            scorer.raw_scores(prompts_of(rows), [row[side][-1]["content"] for row in rows])
            for side in ("chosen", "rejected")
        ]
        return sum(c - r for c, r in zip(*sides, strict=True)) / len(rows)

    # With p = 3/4 the best margin is ln 3; with certain labels it grows as long as one trains.
    mostly = margin(train("mostly")[0])
    assert mostly == pytest.approx(math.log(3), abs=0.5)
    assert margin(hard[0]) > mostly + 1


def test_training_refuses_a_column_that_is_not_there(train):
    with pytest.raises(DataError, match="no such column"):
        train("vote_share")
