"""The shortest PPO: two rounds, in which a policy is paid what a scorer gives it and no more."""

from __future__ import annotations

from pathlib import Path

from plumbline.hooks import Scorer
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.artifacts import Artifact
from plumbline.runs.metrics import read_metrics
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from rl.config import KLConfig, PPOConfig, ShapingConfig
from rl.ppo import train_ppo
from tests.rl.conftest import Folder


def scores_of_two_rounds(
    folder: Path, policy: Path, prompts: Artifact, scorer: Scorer
) -> list[float]:
    """Train a policy for two rounds; return the mean score of each."""
    stage = Stage(folder, Reporter(quiet=True))
    train_ppo(
        stage,
        config=PPOConfig(
            tuning=TuningConfig(method="lora", rank=2),
            sampling=SamplingConfig(max_new_tokens=8),
            iterations=2,
            batch_size=8,
            minibatch_size=8,
            kl=KLConfig(coefficient=0.0),
            shaping=ShapingConfig(missing_eos="keep"),
            evaluations=0,
        ),
        policy=Folder(policy),
        prompts=prompts,
        scorer=scorer,
        hook=None,
        seed=0,
    )
    return [line["score"] for line in read_metrics(stage.folder / "metrics.jsonl")]
