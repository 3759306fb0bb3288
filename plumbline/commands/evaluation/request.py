"""What the command line asks of an evaluation, its settings, and what cannot be asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from evaluation.config import EvaluationConfig
from evaluation.measures.registry import MeasuresConfig
from evaluation.tasks.sources import TaskFileConfig
from evaluation.tasks.texts import TextsConfig
from plumbline.config import Config, load, to_yaml
from plumbline.errors import ConfigError

WORLD = "world"
BY_SCORE = ("gold", "reward", "ensemble")
BY_PAIRS = ("people", "llm")
#: In place of no limit.
EVERY = 1_000_000


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    models: tuple[str, ...]
    tasks: tuple[str, ...]
    reference: str | None
    rewards: tuple[str, ...]
    judge: str | None
    labels: Path | None
    tasks_folder: str | None
    judge_overrides: tuple[str, ...]
    asked_for: tuple[str, ...] | None
    """Measures that were named: each must be taken, or it is an error."""


class EvaluateConfig(Config):
    """Settings of an evaluation by command."""

    data_seed: int = Field(0, ge=0)
    """Seed of prompts, of samples and of the sides of pairs."""
    world_prompts: int = Field(300, ge=2)
    """Prompts of the embedded world."""
    evaluation: EvaluationConfig = EvaluationConfig(prompts=EVERY)
    """How answers are drawn, and the intervals."""
    measures: MeasuresConfig = MeasuresConfig()
    """Which measures are taken."""
    file: TaskFileConfig = TaskFileConfig()
    """Which rows of files are asked."""
    texts: TextsConfig = TextsConfig()
    """How plain texts are read."""
    few_shot: int | None = Field(None, ge=0)
    """Examples before each question of a benchmark. Null: as the benchmark says."""
    pairs: int | None = Field(None, ge=2)
    """At most this many pairs for people or an LLM to compare. Null: all."""


def settings(
    request: Request, count: int | None, split: str, seed: int, overrides: Sequence[str]
) -> EvaluateConfig:
    """Return the settings: defaults, then the options, then what ``--set`` says."""
    options = [f"data_seed={seed}", f"file.split={split}"]
    if count is not None:
        during = min(count, EvaluationConfig().prompts_during_training)
        options += [
            f"world_prompts={count}",
            f"evaluation.prompts_during_training={during}",
            f"evaluation.prompts={count}",
        ]
    if request.asked_for is not None:
        options.append(f"measures.names=[{', '.join(request.asked_for)}]")
    return load(EvaluateConfig, None, [*options, *overrides])


def run_name(request: Request, config: EvaluateConfig) -> str:
    """Return the name of the run: the same for the same request and settings."""
    text = json.dumps(asdict(request), default=str) + to_yaml(config)
    return f"evaluate-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def check(request: Request) -> None:
    """Raise `ConfigError` where what is asked for cannot be done."""
    sampled = [task for task in request.tasks if is_sampled(task)]
    if request.judge is not None and request.judge not in (*BY_SCORE, *BY_PAIRS):
        raise ConfigError(
            f"--judge is {request.judge!r}; judges are {', '.join((*BY_SCORE, *BY_PAIRS))}."
        )
    if request.judge in BY_PAIRS and request.reference is None:
        raise ConfigError(
            f"--judge {request.judge} compares answers with those of another model. Give it with "
            "--reference."
        )
    available = _scorer_names(request)
    if request.judge in BY_SCORE and sampled:
        lacking = [task for task in sampled if request.judge not in available(task)]
        if lacking:
            raise ConfigError(
                f"--judge {request.judge} cannot judge the task {lacking[0]!r}: gold knows the "
                "embedded world alone, reward needs one --reward and ensemble two."
            )
    if request.labels is not None and request.judge != "people":
        raise ConfigError("--labels hold what people said; give --judge people with them.")


def _scorer_names(request: Request) -> Any:
    named = {0: (), 1: ("reward",)}.get(len(request.rewards), ("ensemble",))
    return lambda task: (("gold",) if task == WORLD else ()) + named


def is_sampled(task: str) -> bool:
    """Tell whether a policy answers the task's prompts, and is not only asked for likelihoods."""
    return not task.startswith(("text:", "lm-eval:"))
