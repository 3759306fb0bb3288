"""The page on a policy loss and an estimator of one's own: its code is run as it stands there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from plumbline.config import changed
from plumbline.lm.generation import SamplingConfig
from plumbline.runs.metrics import read_metrics
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from rl.config import PPOConfig
from rl.ppo import train_ppo

PAGE = (Path(__file__).parents[2] / "docs/extending/policy-loss.md").read_text("utf-8")
LOSS, ESTIMATOR, TEST = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
(SETTINGS,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(autouse=True)
def my_losses(tmp_path, monkeypatch):
    """The user's one file, in the folder where the command is given."""
    (tmp_path / "my_losses.py").write_text(LOSS + ESTIMATOR)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    yield
    sys.modules.pop("my_losses", None)


def test_the_test_on_the_page_passes():
    exec(TEST, {})


class LikesTheLetterE:
    name = "e"

    def score(self, prompts, responses):
        return [4 * text.count("e") / max(1, len(text)) for text in responses]


def test_training_with_both_learns(toy, tmp_path):
    base = PPOConfig(
        sampling=SamplingConfig(max_new_tokens=6),
        iterations=6,
        batch_size=32,
        minibatch_size=16,
        learning_rate=2e-2,
        evaluations=0,
    )
    config = changed(base, YAML(typ="safe").load(SETTINGS)["ppo"])
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
