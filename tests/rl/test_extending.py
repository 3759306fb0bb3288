"""The page on a policy loss and an estimator of one's own: its code is run as it stands there."""

from __future__ import annotations

from plumbline.config import changed
from plumbline.lm.generation import SamplingConfig
from plumbline.runs.metrics import read_metrics
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from rl.config import PPOConfig
from rl.ppo import train_ppo


class LikesTheLetterE:
    name = "e"

    def score(self, prompts, responses):
        return [4 * text.count("e") / max(1, len(text)) for text in responses]


def test_training_with_both_learns(toy, tmp_path, worked_example):
    settings = worked_example("policy-loss").settings["ppo"]
    base = PPOConfig(
        sampling=SamplingConfig(max_new_tokens=6),
        iterations=6,
        batch_size=32,
        minibatch_size=16,
        learning_rate=2e-2,
        evaluations=0,
    )
    config = changed(base, settings)
    stage = Stage(tmp_path / "stage", Reporter(quiet=True))
    train_ppo(
        stage,
        config=config,
        policy=toy.artifact,
        prompts=toy.prompts,
        scorer=LikesTheLetterE(),
        hook=lambda *_: {},
        seed=0,
    )
    scores = [line["score"] for line in read_metrics(stage.folder / "metrics.jsonl")]
    assert sum(scores[-2:]) / 2 - sum(scores[:2]) / 2 > 0.3
