"""The page of evaluated models: that of a comparison, with one policy for each model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from evaluation.comparison import page
from evaluation.comparison.budget_matching import BudgetConfig
from evaluation.comparison.page_content import comparison_content
from evaluation.comparison.training_runs import (
    Baseline,
    CheckpointEval,
    TrainingRun,
    numeric_columns,
    prompts_digest,
)
from evaluation.measures.registry import MEASURES
from evaluation.sample_files import read_samples
from plumbline.commands.evaluation.judges import JUDGES
from plumbline.errors import ConfigError
from plumbline.runs.artifacts import Artifact
from plumbline.runs.names import safe_file_name


def write_pages(
    evaluations: Mapping[str, Mapping[str, Artifact]],
    reference: str | None,
    judge: str | None,
    stages: Mapping[str, Artifact],
    confidence: float,
    folder: Path,
) -> list[Path]:
    """Write one page per task with responses; return the files.

    ``evaluations``: task to model to its evaluation. The page of a single task is in the folder
    itself, those of several in a folder each.
    """
    if not evaluations:
        raise ConfigError(
            "--html shows responses, and none of these tasks samples any. Add a task with prompts."
        )
    files = []
    for task, by_model in evaluations.items():
        place = folder if len(evaluations) == 1 else folder / safe_file_name(Path(task).name)
        _write_page(task, by_model, reference, judge, stages, confidence, place)
        files.append(place / "report.html")
    return files


def _write_page(
    task: str,
    by_model: Mapping[str, Artifact],
    reference: str | None,
    judge: str | None,
    stages: Mapping[str, Artifact],
    confidence: float,
    folder: Path,
) -> None:
    runs, baseline = [], None
    shared, titles = short_titles(by_model)
    for name, evaluation in by_model.items():
        checkpoint = CheckpointEval(0, read_samples(evaluation))
        if name == reference and len(by_model) > 1:
            baseline = Baseline(name, titles[name], checkpoint)
            continue
        terms = {"prompts": prompts_digest(checkpoint.rows)}
        scores = _scores(checkpoint)
        runs.append(
            TrainingRun(
                name, "0", [checkpoint], evaluation.id, terms=terms, scorers=scores,
                title=titles[name],
            )
        )  # fmt: skip
    content = comparison_content(
        runs,
        title=f"Evaluation {f'of {shared} ' if shared else ''}on {Path(task).name}",
        judge=judge if judge and judge in runs[0].scorers else _first_score(runs[0], task),
        baseline=baseline,
        budget=BudgetConfig(by="none"),
        confidence=confidence,
        stages=stages,
        of_models=True,
    )
    page.write(content, folder)


def short_titles(names: Iterable[str]) -> tuple[str, dict[str, str]]:
    """Return what the names of all models begin with, and each name without it.

    A name has parts that end with a colon or a slash, and keeps at least its last one: of
    ``run:sft`` and ``run:dpo/seed-0`` the first is ``run``.
    """
    parts = {name: re.split(r"(?<=[:/])", name) for name in names}
    first, shared = next(iter(parts.values())), 0
    while len(parts) > 1 and all(
        len(own) > shared + 1 and own[shared] == first[shared] for own in parts.values()
    ):
        shared += 1
    titles = {name: "".join(own[shared:]) for name, own in parts.items()}
    return "".join(first[:shared]).rstrip(":/"), titles


def _scores(checkpoint: CheckpointEval) -> list[str]:
    """Return the columns by which a response is better or worse: scorers first, then measures."""
    columns = numeric_columns(checkpoint.rows)
    scorers = [judge.name for judge in JUDGES.values() if judge.scorer is not None]
    measures = [MEASURES[name].load() for name in MEASURES]
    better = [measure.name for measure in measures if measure.higher_is_better]
    return [name for name in (*scorers, *better) if name in columns]


def _first_score(run: TrainingRun, task: str) -> str:
    if not run.scorers:
        raise ConfigError(
            f"--html compares by a score, and the task {task!r} has none. Give --reward, or a task "
            "with references."
        )
    return run.scorers[0]
