"""Best of n: by hand, and by trying every subset."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from evaluation.over_optimization.best_of_n import best_of, read_scores, sample_many_responses
from plumbline.errors import ConfigError
from plumbline.lm.generation import SamplingConfig
from plumbline.runs.artifacts import Artifact


def test_three_answers_by_hand():
    found = best_of(np.array([[2.0, 3.0, 1.0]]), np.array([[20.0, 60.0, 10.0]]), [1, 2, 3])
    # Of two: {10, 20} gives 20, {10, 60} and {20, 60} give 60.
    assert found.judging == pytest.approx([30, 140 / 3, 60])
    assert found.ranking == pytest.approx([2, 8 / 3, 3])
    assert found.kl == pytest.approx([0, math.log(2) - 1 / 2, math.log(3) - 2 / 3])


def test_it_is_the_mean_over_every_subset():
    random = np.random.default_rng(3)
    ranking, judging = random.normal(size=(2, 4, 6))
    found = best_of(ranking, judging, range(1, 7))
    for place, size in enumerate(range(1, 7)):
        values = [
            judging[prompt][max(subset, key=lambda n, p=prompt: ranking[p][n])]
            for prompt in range(4)
            for subset in itertools.combinations(range(6), size)
        ]
        assert found.judging[place] == pytest.approx(np.mean(values))


def test_more_than_there_are_is_refused():
    with pytest.raises(ValueError, match="best of 3 cannot be selected from 2"):
        best_of(np.zeros((1, 2)), np.zeros((1, 2)), [3])


class Lengths:
    """Scores by length, and remembers what it was asked."""

    name = "length"

    def __init__(self):
        self.asked = []

    def score(self, prompts, responses):
        self.asked += zip(map(str, prompts), responses, strict=True)
        return [float(len(response)) for response in responses]


def test_a_policy_answers_often_and_each_answer_is_scored_once(base_folder, prompts, stage):
    scorer = Lengths()
    figures = sample_many_responses(
        stage,
        policy=Artifact(base_folder),
        prompts=prompts[:3],
        responses=5,
        sampling=SamplingConfig(temperature=0.05, max_new_tokens=4),
        scorers={"gold": scorer},
        data_seed=0,
    )
    scores = read_scores(Artifact(stage.folder))
    assert scores["gold"].shape == (3, 5)
    assert len(set(scorer.asked)) == len(scorer.asked) == round(15 * figures["different_share"])
    assert figures["different_share"] < 1  # so cold a policy repeats itself
    assert figures["gold"] == pytest.approx(scores["gold"].mean())
    with pytest.raises(ConfigError, match="needs 2 responses"):
        sample_many_responses(
            stage, policy=Artifact(base_folder), prompts=prompts, responses=1,
            sampling=SamplingConfig(), scorers={}, data_seed=0,
        )  # fmt: skip
