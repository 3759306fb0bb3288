"""Made-up training runs for tests of comparisons: every number in them is known."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from evaluation.comparison.training_runs import CheckpointEval, TrainingRun, prompts_digest
from plumbline.data.records import prompt_id, user


def responses(
    gold: Sequence[float], kl: float = 0.0, *, first: int = 0, **more: Sequence[Any]
) -> list[dict[str, Any]]:
    """Return one evaluated response per gold score; all have the same KL."""
    rows = []
    for number, score in enumerate(gold, first):
        prompt = [user(f"question {number}")]
        rows.append(
            {
                "prompt_id": prompt_id(prompt),
                "prompt": prompt,
                "response": f"response {score:.3f} to {number}",
                "tokens": 10,
                "words": 4,
                "finished": True,
                "logprob": -1.0,
                "reference_logprob": -1.0 - kl,
                "gold": float(score),
                "reward": float(score) / 2,
            }
            | {name: values[number - first] for name, values in more.items()}
        )
    return rows


def training(
    method: str = "ppo",
    seed: int = 0,
    gains: Sequence[float] = (0.0, 0.5, 1.0),
    kls: Sequence[float] = (0.0, 1.0, 4.0),
    prompts: int = 12,
    noise: float = 0.0,
    **more: Any,
) -> TrainingRun:
    """Return a training whose mean gold score rises by ``gains`` at ``kls``."""
    random = np.random.default_rng(zlib.crc32(f"{method}/{seed}".encode()))
    base = np.linspace(0.0, 1.0, prompts)
    checkpoints = [
        CheckpointEval(
            10 * step,
            responses(base + gain + noise * random.normal(size=prompts), kl),
            {"responses": 100.0 * step, "tokens": 1000.0 * step, "steps": 10.0 * step,
             "seconds": 5.0 * step},
        )
        for step, (gain, kl) in enumerate(zip(gains, kls, strict=True))
    ]  # fmt: skip
    given: Mapping[str, Any] = {
        "source": f"{method}-{seed}",
        "terms": {"prompts": prompts_digest(checkpoints[-1].rows), "reference": "policy-1"},
        "scorers": ["gold", "reward"],
    } | more
    return TrainingRun(method, str(seed), checkpoints, **given)


@pytest.fixture
def make_training():
    return training


@pytest.fixture
def make_responses():
    return responses
