"""Benchmarks of lm-evaluation-harness, public ones and your own.

Tasks in a folder of your own work without a network, as long as their data are there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from plumbline.config import Config, not_in_identity
from plumbline.errors import ConfigError, DataError
from plumbline.lm.adapters import using_adapter
from plumbline.lm.policy import Policy
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact, sha256, write_json
from plumbline.runs.stage import Stage, stage

RESULTS = "results.json"
SAMPLES = "samples.jsonl"
#: Bootstrap resamples for standard errors that have no formula; those of means have one.
_RESAMPLES = 1000


class BenchmarkConfig(Config):
    """Which tasks of lm-evaluation-harness are run, and how."""

    tasks: tuple[str, ...] = Field(min_length=1)
    """Names of tasks of lm-evaluation-harness, or of those in ``folder``."""
    folder: str | None = not_in_identity(None)
    """A folder with tasks of your own, as YAML. Null: only those of lm-evaluation-harness."""
    few_shot: int | None = Field(None, ge=0)
    """Examples before each question. Null: the number that the task states."""
    limit: int | None = Field(None, ge=1)
    """At most this many questions of each task. Null: all. Results with a limit are not those of
    the benchmark."""
    chat_template: bool = False
    """Format the questions with the chat template of the model."""
    batch_size: int = not_in_identity(8, ge=1)
    """Questions per batch."""


@stage("benchmark")
def run_benchmarks(
    stage: Stage, *, policy: Artifact, config: BenchmarkConfig, folder_digest: str | None, seed: int
) -> Mapping[str, float | None]:
    """Run tasks of lm-evaluation-harness on a policy; all questions are kept in ``samples.jsonl``.

    Metrics are ``<task>/<metric>`` with ``<task>/<metric>_se``, the standard error.
    ``folder_digest`` is the `digest_of` the folder with tasks: its content counts, not its path.
    """
    silence_libraries()
    lm_eval, model_class, manager = _import_lm_eval()
    evaluated = Policy.load(policy.path)
    tasks = _known_tasks(manager, config)
    os.environ.setdefault("DISABLE_MULTIPROC", "1")  # else lm-eval starts a pool to resample
    with using_adapter(evaluated.model, evaluated.adapter):
        model = model_class(
            pretrained=evaluated.model, tokenizer=evaluated.tokenizer, batch_size=config.batch_size
        )
        results = lm_eval.simple_evaluate(
            model=model,
            tasks=list(config.tasks),
            task_manager=tasks,
            num_fewshot=config.few_shot,
            limit=config.limit,
            apply_chat_template=config.chat_template,
            log_samples=True,
            bootstrap_iters=_RESAMPLES,
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
            verbosity="ERROR",
        )
    if not results["results"]:
        raise DataError(f"lm-evaluation-harness gave no result for {', '.join(config.tasks)}.")
    write_json(
        stage.folder / RESULTS,
        {name: _as_json(results[name]) for name in ("results", "versions", "n-shot", "n-samples")},
    )
    with (stage.folder / SAMPLES).open("w", encoding="utf-8") as lines:
        for name, samples in sorted(results["samples"].items()):
            for sample in samples:
                line = {"task": name} | _as_json(sample)
                lines.write(json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n")
    return benchmark_metrics(results["results"])


def _known_tasks(manager: Any, config: BenchmarkConfig) -> Any:
    """Return a task manager that knows all tasks; raise `ConfigError` that names an unknown one."""

    def unknown() -> list[str]:
        return [name for name in config.tasks if not tasks.match_tasks([name])]

    tasks = manager.TaskManager(include_path=config.folder, include_defaults=config.folder is None)
    if unknown() and config.folder is not None:  # the built-in tasks take a while to read
        tasks = manager.TaskManager(include_path=config.folder)
    if names := unknown():
        raise ConfigError(
            f"lm-evaluation-harness has no task {names[0]!r}"
            + (f", and there is none in {config.folder}." if config.folder else ".")
            + " `lm-eval ls tasks` lists its tasks."
        )
    return tasks


def benchmark_metrics(results: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """Return the results of lm-evaluation-harness as metrics; unknown standard errors are left out.

    Its keys are ``metric,filter``; the filter is kept where it is not ``none``.
    """
    metrics: dict[str, float | None] = {}
    for task, values in results.items():
        for key, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            metric, _, kind = key.partition(",")
            is_se = metric.endswith("_stderr")
            name = metric.removesuffix("_stderr") + (f"/{kind}" if kind not in ("", "none") else "")
            if metric not in ("sample_len",):
                metrics[f"{task}/{name}{'_se' if is_se else ''}"] = float(value)
    return metrics


def digest_of(folder: str | None) -> str | None:
    """Return a digest of all files in a folder of tasks, so that a changed task runs again."""
    if folder is None:
        return None
    files = sorted(file for file in Path(folder).rglob("*") if file.is_file())
    if not files:
        raise DataError(
            f"There are no tasks in {folder}: it is not a folder, or it is empty. Give a folder "
            "with tasks as YAML."
        )
    text = "".join(f"{file.relative_to(folder)}\0{sha256(file)}\n" for file in files)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _import_lm_eval() -> tuple[Any, Any, Any]:
    try:
        import lm_eval
        from lm_eval import tasks
        from lm_eval.models.huggingface import HFLM
    except ImportError as problem:
        raise ConfigError(
            f"Benchmarks need lm-evaluation-harness, which cannot be imported ({problem}): "
            "pip install 'plumbline-rlhf[lm-eval]'."
        ) from None
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return lm_eval, HFLM, tasks


def _as_json(value: Any) -> Any:
    """Return a value that JSON can hold; what it cannot hold becomes text."""
    return json.loads(json.dumps(value, default=str))
