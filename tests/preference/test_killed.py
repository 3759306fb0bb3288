"""The online loop as a process, killed at random moments: it ends with the same bytes."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.warm_start import Command

pytestmark = pytest.mark.slow

ROUNDS_AT_LEAST = 10
#: Every state that the loop has: sampler, buffers of pairs left out, reference, optimiser, budgets.
WORKER = """
import sys
from pathlib import Path

from plumbline.data.records import user
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.artifacts import Artifact
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from preference.config import OnlineConfig
from preference.online import train_online


class Folder(Artifact):
    @property
    def id(self):
        return self.path.name


class LikesLetters:
    name = "letters"

    def score(self, prompts, responses):
        return [float(text.count("e")) for text in responses]


config = OnlineConfig(
    max_sampled_tokens=900, max_kl=1e6, prompts_per_round=4, responses=3, epochs=2,
    sampling=SamplingConfig(max_new_tokens=8), minibatch_size=2, learning_rate=5e-3,
    tuning=TuningConfig(rank=4), reference_every=2, evaluations=3, checkpoint_every=2,
)
train_online(
    Stage(Path(sys.argv[1]), Reporter(quiet=True)), config=config, policy=Folder(Path(sys.argv[2])),
    prompts=[[user(f"How much are {n} saws?")] for n in range(10)], scorer=LikesLetters(),
    hook=lambda policy, reference, step, folder: {"kl": float(step)}, seed=0,
)
"""


@pytest.fixture
def start(warm_start, base_folder, tmp_path):
    """Start the training in a folder; returns the process."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    return lambda folder: warm_start.start(str(folder), str(base_folder), script=script)


def finish(process: Command) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]


def rounds(folder: Path) -> int:
    """Return how many rounds were logged so far."""
    metrics = folder / "out" / "metrics.jsonl"
    return metrics.read_text().count('"score"') if metrics.exists() else 0


def test_killed_at_random_moments_it_ends_with_the_same_bytes(start, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    finish(start(whole))
    total = rounds(whole)
    assert total >= ROUNDS_AT_LEAST

    moments, killed = random.Random(0), 0
    for after in sorted(moments.sample(range(1, total - 1), 3)):
        process = start(cut)
        deadline = time.monotonic() + 120
        while process.poll() is None and rounds(cut) < after:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.15))  # in the middle of a round, wherever that is
        killed += process.poll() is None
        process.kill()
        process.communicate()
    assert killed >= 2
    finish(start(cut))
    for name in ("adapter_model.safetensors", "metrics.jsonl", "dropped.jsonl"):
        assert (cut / "out" / name).read_bytes() == (whole / "out" / name).read_bytes(), name
