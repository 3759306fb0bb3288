"""A request to ``plumbline evaluate``: its settings, and what cannot be requested."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import Field

from evaluation.config import EvaluationConfig
from evaluation.measures.registry import MeasuresConfig
from evaluation.tasks.sources import TaskFileConfig
from evaluation.tasks.text_perplexity import TextsConfig
from plumbline.commands.evaluation.judges import JUDGES, WORLD, Judge
from plumbline.config import Config, Seed, load, to_yaml
from plumbline.errors import ConfigError

#: The number of prompts without a limit.
NO_LIMIT = 1_000_000


@dataclass(frozen=True)
class EvaluateRequest:
    """The arguments of the command."""

    models: tuple[str, ...]
    tasks: tuple[str, ...]
    reference: str | None
    rewards: tuple[str, ...]
    judge: str | None
    labels: Path | None
    tasks_folder: str | None
    judge_overrides: tuple[str, ...]
    measures: tuple[str, ...] | None
    """Measures that were named: each must apply, or it is an error."""


class EvaluateConfig(Config):
    """Settings of ``plumbline evaluate``."""

    data_seed: Seed = 0
    """Seed of prompts, of samples and of the sides of pairs."""
    world_prompts: int = Field(300, ge=2)
    """Prompts of the embedded world."""
    evaluation: EvaluationConfig = EvaluationConfig(prompts=NO_LIMIT)
    """How responses are sampled, and the intervals."""
    measures: MeasuresConfig = MeasuresConfig()
    """Which measures are taken."""
    file: TaskFileConfig = TaskFileConfig()
    """Which rows of files are used."""
    texts: TextsConfig = TextsConfig()
    """How plain texts are read."""
    few_shot: int | None = Field(None, ge=0)
    """Examples before each question of a benchmark. Null: the number that the benchmark states."""
    pairs: int | None = Field(None, ge=2)
    """At most this many pairs for people or an LLM to compare. Null: all."""


def evaluate_settings(
    request: EvaluateRequest,
    count: int | None,
    split: str,
    seed: int,
    overrides: Sequence[str],
) -> EvaluateConfig:
    """Return the settings: defaults, then the options, then ``--set``."""
    options = [f"data_seed={seed}", f"file.split={split}"]
    if count is not None:
        during = min(count, EvaluationConfig().prompts_during_training)
        options += [
            f"world_prompts={count}",
            f"evaluation.prompts_during_training={during}",
            f"evaluation.prompts={count}",
        ]
    if request.measures is not None:
        options.append(f"measures.names=[{', '.join(request.measures)}]")
    return load(EvaluateConfig, None, [*options, *overrides])


def run_name(request: EvaluateRequest, config: EvaluateConfig) -> str:
    """Return the name of the run: the same for the same request and settings."""
    text = json.dumps(asdict(request), default=str) + to_yaml(config)
    return f"evaluate-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def check_request(request: EvaluateRequest, config: EvaluateConfig) -> None:
    """Raise `ConfigError` where a request cannot be fulfilled, or a setting has no effect."""
    sampled = [task for task in request.tasks if is_sampled(task)]
    judge: Judge | None = None
    if request.judge is not None:
        try:
            judge = JUDGES[request.judge]
        except KeyError as error:
            raise ConfigError(f"--judge: {error.args[0]}.") from None
        if judge.compares_pairs and request.reference is None:
            raise ConfigError(
                f"--judge {judge.name} compares responses with those of another model. Name it "
                "with --reference."
            )
        lacking = [t for t in sampled if not judge.is_available(t, len(request.rewards))]
        if lacking:
            raise ConfigError(
                f"--judge {judge.name} cannot judge the task {lacking[0]!r}: it needs "
                f"{judge.needs}."
            )
    if request.labels is not None and not (judge is not None and judge.asks_people):
        raise ConfigError("--labels hold votes of people; give --judge people with them.")
    _refuse_ineffective(config, request, judge)


def _refuse_ineffective(
    config: EvaluateConfig, request: EvaluateRequest, judge: Judge | None
) -> None:
    """Refuse settings that have no effect on the tasks and the judge of the request."""
    pairs = judge is not None and judge.compares_pairs
    model = judge is not None and judge.compares_pairs and not judge.asks_people
    kinds = {task.partition(":")[0] for task in request.tasks}
    has_file = any(is_sampled(task) and task != WORLD for task in request.tasks)
    settings = [
        ("world_prompts", config.world_prompts != EvaluateConfig().world_prompts
         and config.evaluation.prompts == NO_LIMIT, WORLD in kinds, "the task world"),
        ("few_shot", config.few_shot != EvaluateConfig().few_shot, "lm-eval" in kinds,
         "a task lm-eval:NAME"),
        ("pairs", config.pairs is not None, pairs, "--judge people or --judge llm"),
        ("texts", config.texts != TextsConfig(), "text" in kinds, "a task text:FILE"),
        ("--tasks-folder", request.tasks_folder is not None, "lm-eval" in kinds,
         "a task lm-eval:NAME"),
        ("--judge-set", bool(request.judge_overrides), model, "--judge llm"),
        ("file", config.file != TaskFileConfig(), has_file, "a file of prompts as a task"),
    ]  # fmt: skip
    for name, is_set, has_effect, needs in settings:
        if is_set and not has_effect:
            raise ConfigError(
                f"The setting {name} has no effect here: it needs {needs}. Leave it out, or add "
                "that."
            )


def is_sampled(task: str) -> bool:
    """Return whether a task needs responses of a policy, and not likelihoods alone."""
    return not task.startswith(("text:", "lm-eval:"))
