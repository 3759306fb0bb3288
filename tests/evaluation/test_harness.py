"""The harness: the same prompts and streams for all, and figures by hand."""

from __future__ import annotations

import pytest
import torch

from evaluation.config import EvaluationConfig
from evaluation.harness import Harness, read_samples, write_samples
from plumbline.artefacts import Artefact
from plumbline.generation import SamplingConfig
from plumbline.policy import Policy
from plumbline.world.gold import GoldUtility

CONFIG = EvaluationConfig(
    prompts=12,
    prompts_during_training=6,
    resamples=200,
    sampling=SamplingConfig(max_new_tokens=16),
)


class Counts:
    """A scorer that counts words."""

    name = "words_score"

    def score(self, prompts, responses):
        return [float(len(text.split())) for text in responses]


@pytest.fixture
def harness(prompts):
    return Harness(CONFIG, prompts, [GoldUtility(0), Counts()], data_seed=0)


def moved(base_folder) -> Policy:
    """The same model with other weights."""
    other = Policy.load(base_folder)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.add_(0.03 * torch.randn(parameter.shape, generator=generator))
    return other


def test_a_policy_against_itself_has_no_divergence(harness, policy):
    rows = harness.judge(policy, policy, harness.prompts)
    figures = harness.figures(rows)
    assert figures["kl"] == pytest.approx(0, abs=1e-3)
    assert figures["prompts"] == 12
    assert figures["gold"] == pytest.approx(sum(row["gold"] for row in rows) / 12)
    parts = [key for key in rows[0] if key.startswith("gold.")]
    assert sum(rows[0][part] for part in parts) == pytest.approx(rows[0]["gold"])


def test_judging_is_the_same_whoever_is_judged_before(harness, policy, base_folder):
    first = harness.judge(policy, policy, harness.prompts)
    harness.judge(moved(base_folder), policy, harness.prompts)
    again = harness.judge(policy, policy, harness.prompts)
    assert [row["response"] for row in again] == [row["response"] for row in first]


def test_kl_is_the_mean_difference_of_log_probabilities(harness, policy, base_folder):
    other = moved(base_folder)
    rows = harness.judge(other, policy, harness.prompts)
    expected = [row["logprob"] - row["reference_logprob"] for row in rows]
    figures = harness.figures(rows)
    assert figures["kl"] == pytest.approx(sum(expected) / 12)
    assert figures["kl"] > 0


class Samples(Artefact):
    """A folder with samples."""


def test_wins_are_counted_by_prompt_and_equal_answers_tie(harness, policy, prompts, tmp_path):
    rows = harness.judge(policy, policy, harness.prompts)
    theirs = [row | {"words_score": row["words_score"] + 1e-7} for row in rows]  # rounding
    theirs[0] = theirs[0] | {"response": "else", "words_score": rows[0]["words_score"] - 1}
    theirs[1] = theirs[1] | {"response": "else", "words_score": rows[1]["words_score"] + 1}
    write_samples(tmp_path / "samples.parquet", list(reversed(theirs)))
    assert len(read_samples(Samples(tmp_path))) == 12
    against = Harness(CONFIG, prompts, [Counts()], data_seed=0, baseline=Samples(tmp_path))
    points = against.points(rows, "words_score")
    assert points == [1.0, 0.0] + [0.5] * 10
    assert against.figures(rows)["words_score_win_rate"] == 0.5


def test_looks_during_training_use_the_first_of_the_same_prompts(harness, policy, tmp_path):
    figures = harness(policy, policy, 3, tmp_path / "evaluations")
    assert figures["eval/prompts"] == 6
    whole = harness.judge(policy, policy, harness.prompts)
    (file,) = (tmp_path / "evaluations").iterdir()
    import pandas as pd

    assert pd.read_parquet(file)["response"].tolist() == [row["response"] for row in whole[:6]]
