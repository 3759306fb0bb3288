"""Best of n: sampled responses, each scored once."""

from __future__ import annotations

import pytest

from evaluation.over_optimization.best_of_n import read_scores, sample_many_responses
from plumbline.errors import ConfigError
from plumbline.lm.generation import SamplingConfig
from plumbline.runs.artifacts import Artifact


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
