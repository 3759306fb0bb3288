"""Public benchmarks, and one's own in the same format, through lm-evaluation-harness.

Tasks that it finds in a folder of ours work without a network, as long as their data lie there.
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
from plumbline.lm.policy import Policy, using_adapter
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact, sha256, write_json
from plumbline.runs.stage import Stage, stage

RESULTS = "results.json"
SAMPLES = "samples.jsonl"
#: For standard errors that have no formula; those of means have one.
_RESAMPLES = 1000


class BenchmarkConfig(Config):
    """Which of lm-evaluation-harness's tasks are run, and how."""

    tasks: tuple[str, ...] = Field(min_length=1)
    """Names of tasks, of its own or of those in ``folder``."""
    folder: str | None = not_in_identity(None)
    """A folder with tasks of one's own, as YAML. Null: only those that come with it."""
    few_shot: int | None = Field(None, ge=0)
    """Examples before each question. Null: as the task says."""
    limit: int | None = Field(None, ge=1)
    """At most this many questions of each task. Null: all; figures with a limit are not the
    benchmark's."""
    chat_template: bool = False
    """Put the questions through the model's chat template."""
    batch_size: int = not_in_identity(8, ge=1)
    """Questions that are asked together."""


@stage("benchmark")
def run_benchmarks(
    stage: Stage, *, policy: Artifact, config: BenchmarkConfig, folder_digest: str | None, seed: int
) -> Mapping[str, float | None]:
    """Run tasks of lm-evaluation-harness on a policy; every question stays in ``samples.jsonl``.

    Figures are ``<task>/<metric>`` with ``<task>/<metric>_error``, its standard error there.
    ``folder_digest`` is what `digest_of` says of the folder with tasks: its content counts, not
    where it lies.
    """
    silence_libraries()
    lm_eval, model_class, manager = _harness()
    speaker = Policy.load(policy.path)
    tasks = manager.TaskManager(include_path=config.folder, include_defaults=config.folder is None)
    unknown = _unknown(tasks, config)
    if unknown and config.folder is not None:  # reading all that come with it takes a while
        tasks = manager.TaskManager(include_path=config.folder)
        unknown = _unknown(tasks, config)
    if unknown:
        raise ConfigError(
            f"lm-evaluation-harness knows no task {unknown[0]!r}"
            + (f", and there is none in {config.folder}." if config.folder else ".")
            + " `lm-eval ls tasks` lists those that it has."
        )
    os.environ.setdefault("DISABLE_MULTIPROC", "1")  # else it starts a pool to resample
    with using_adapter(speaker.model, speaker.adapter):
        model = model_class(
            pretrained=speaker.model, tokenizer=speaker.tokenizer, batch_size=config.batch_size
        )
        found = lm_eval.simple_evaluate(
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
    if not found["results"]:
        raise DataError(f"lm-evaluation-harness gave no result for {', '.join(config.tasks)}.")
    write_json(
        stage.folder / RESULTS,
        {name: _plain(found[name]) for name in ("results", "versions", "n-shot", "n-samples")},
    )
    with (stage.folder / SAMPLES).open("w", encoding="utf-8") as lines:
        for name, samples in sorted(found["samples"].items()):
            for sample in samples:
                line = {"task": name} | _plain(sample)
                lines.write(json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n")
    return figures_of(found["results"])


def _unknown(tasks: Any, config: BenchmarkConfig) -> list[str]:
    return [name for name in config.tasks if not tasks.match_tasks([name])]


def figures_of(results: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """Return lm-evaluation-harness's results as figures; a standard error it does not know is left.

    It writes ``metric,filter``; the filter is kept where it is not ``none``.
    """
    figures: dict[str, float | None] = {}
    for task, values in results.items():
        for key, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            metric, _, kind = key.partition(",")
            error = metric.endswith("_stderr")
            name = metric.removesuffix("_stderr") + (f"/{kind}" if kind not in ("", "none") else "")
            if metric not in ("sample_len",):
                figures[f"{task}/{name}{'_error' if error else ''}"] = float(value)
    return figures


def digest_of(folder: str | None) -> str | None:
    """Return a digest of every file in a folder of tasks, so that a changed task is run anew."""
    if folder is None:
        return None
    files = sorted(file for file in Path(folder).rglob("*") if file.is_file())
    if not files:
        raise DataError(f"There are no tasks in {folder}: it is no folder, or it is empty.")
    text = "".join(f"{file.relative_to(folder)}\0{sha256(file)}\n" for file in files)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _harness() -> tuple[Any, Any, Any]:
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


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it; what it cannot, as text."""
    return json.loads(json.dumps(value, default=str))
