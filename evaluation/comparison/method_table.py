"""One table of methods: how often each wins against the start, at four points of its training.

Where it was best, at the same KL, at the same tokens, and at the end; with intervals over prompts
and training seeds, and p-values that Holm's correction holds over the whole table.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluation.comparison.budget_matching import (
    BudgetConfig,
    Matched,
    match_budget,
    prompts_of_all_checkpoints,
    resolve_budget,
    scores_of,
)
from evaluation.comparison.comparability import check_comparability
from evaluation.comparison.training_runs import (
    Baseline,
    CheckpointEval,
    Methods,
    TrainingRun,
    baseline_of,
    title_of,
    training_runs_of,
)
from plumbline import statistics
from plumbline.runs.artifacts import Artifact, write_json
from plumbline.runs.stage import Stage, stage

Wins = NDArray[np.float64]
"""[S, P]: for each training seed and prompt 1 for a win, 0 for a loss, 1/2 for a tie."""


class Cell(NamedTuple):
    """How often a method wins against the start, at one point of its training."""

    method: str
    at: str
    """best, kl, tokens or end."""
    where: str
    """The point in words."""
    win_rate: float
    low: float
    high: float
    p: float
    """Against 1/2."""
    p_adjusted: float
    """By Holm over all cells of the table."""
    seeds: int
    prompts: int
    kl: float | None
    """Mean KL there, nats per response; None where it is unknown."""


def method_table(
    runs: Sequence[TrainingRun], baseline: Baseline, judge: str, confidence: float
) -> list[Cell]:
    """Return the cells of the table, method by method."""
    comparable = check_comparability(runs, judge, baseline.evaluation)
    groups: dict[str, list[TrainingRun]] = defaultdict(list)
    for run in comparable.runs:
        groups[run.method].append(run)
    on_the_way = prompts_of_all_checkpoints(comparable.runs, comparable.prompts)
    start = baseline.evaluation
    points: list[tuple[str, str, str, Wins, float | None]] = []
    for method, group in groups.items():
        wins = np.stack([_wins_of_best(run, start, judge, on_the_way) for run in group])
        points.append((method, "best", "its best checkpoint", wins, None))
    for by in ("kl", "tokens"):
        if by == "kl" and not comparable.has_comparable_kl:
            continue
        budget = resolve_budget(comparable.runs, BudgetConfig(by=by))
        if budget is None:
            continue
        for method, group in groups.items():
            places = [place for run in group if (place := match_budget(run, budget)) is not None]
            if places:
                wins = np.stack([_wins_of_match(p, start, judge, on_the_way) for p in places])
                kl = _mean([_kl_of(place) for place in places])
                points.append((method, by, budget.text, wins, kl))
    for method, group in groups.items():
        finals = [run.final for run in group]
        wins = np.stack([_wins(final, start, judge, comparable.prompts) for final in finals])
        kl = _mean([final.kl for final in finals])
        points.append((method, "end", "the end of training", wins, kl))
    rates = [statistics.win_share(wins, confidence) for *_, wins, _ in points]
    adjusted = statistics.holm([rate.p_value for rate in rates])
    cells = [
        Cell(
            method, at, where, rate.difference, rate.low, rate.high, rate.p_value, p,
            wins.shape[0], wins.shape[1], kl,
        )
        for (method, at, where, wins, kl), rate, p in zip(points, rates, adjusted, strict=True)
    ]  # fmt: skip
    order = list(groups)
    return sorted(cells, key=lambda cell: order.index(cell.method))


def _wins(
    checkpoint: CheckpointEval, start: CheckpointEval, judge: str, prompts: Sequence[str]
) -> Wins:
    """Return a checkpoint's wins against the start, [P]."""
    if not prompts:
        return np.zeros(0)
    scores, base = (scores_of([each], judge, prompts) for each in (checkpoint, start))
    wins: Wins = statistics.head_to_head(scores, base)[0, 0]
    return wins


def _wins_of_best(
    run: TrainingRun, start: CheckpointEval, judge: str, prompts: Sequence[str]
) -> Wins:
    """Return the wins of a training's best checkpoint, [P].

    Each half of the prompts is judged at the checkpoint that is best on the other half: the best on
    the same prompts would look better than it is. The policy before training is not among them.
    """
    trained = [checkpoint for checkpoint in run.checkpoints if checkpoint.step > 0]
    candidates = trained or list(run.checkpoints)
    wins = np.zeros(len(prompts))
    for parity in (0, 1):
        half, others = prompts[parity::2], prompts[1 - parity :: 2]
        means = scores_of(candidates, judge, others or half).mean(axis=1)
        wins[parity::2] = _wins(candidates[int(means.argmax())], start, judge, half)
    return wins


def _wins_of_match(
    place: Matched, start: CheckpointEval, judge: str, prompts: Sequence[str]
) -> Wins:
    """Return the wins where a training meets a budget, [P], interpolated as scores are."""
    before, after = (_wins(each, start, judge, prompts) for each in (place.before, place.after))
    wins: Wins = (1 - place.share) * before + place.share * after
    return wins


def _kl_of(place: Matched) -> float | None:
    before, after = place.before.kl, place.after.kl
    if before is None or after is None:
        return None
    # By the square root, as the place was found.
    low, high = max(before, 0.0) ** 0.5, max(after, 0.0) ** 0.5
    return float(((1 - place.share) * low + place.share * high) ** 2)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


@stage("table")
def tabulate_methods(
    stage: Stage, *, judge: str, baseline: Artifact, methods: Methods, confidence: float
) -> Mapping[str, float | None]:
    """Write the table of methods as Markdown, CSV and JSON: ``methods.*``."""
    cells = method_table(training_runs_of(methods), baseline_of(baseline), judge, confidence)
    rows = [cell._asdict() for cell in cells]
    write_json(stage.folder / "methods.json", rows)
    with (stage.folder / "methods.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(Cell._fields))
        writer.writeheader()
        writer.writerows(rows)
    _write_markdown(stage.folder / "methods.md", cells, confidence)
    return {f"{cell.method}_at_{cell.at}": cell.win_rate for cell in cells}


_HEADINGS = {
    "best": "at its best checkpoint",
    "kl": "at the same KL",
    "tokens": "at the same tokens",
    "end": "at the end",
}


def _write_markdown(path: Path, cells: Sequence[Cell], confidence: float) -> None:
    present = [at for at in _HEADINGS if any(cell.at == at for cell in cells)]
    by_method: dict[str, dict[str, Cell]] = defaultdict(dict)
    for cell in cells:
        by_method[cell.method][cell.at] = cell
    lines = [
        f"Share of prompts on which a method wins against the start, with {confidence:.0%} "
        "intervals over prompts and training seeds; * where Holm's correction over the whole table "
        f"leaves p below {1 - confidence:.2g}.",
        "",
        "| method | " + " | ".join(_HEADINGS[at] for at in present) + " | KL at the end, nats |",
        "|---|" + "---|" * (len(present) + 1),
    ]
    for method, row in by_method.items():
        shown = [_shown(row.get(at), confidence) for at in present]
        kl = row["end"].kl
        ending = "" if kl is None else f"{kl:.1f}"
        lines.append(f"| {title_of(method)} | {' | '.join(shown)} | {ending} |")
    points = {cell.at: cell.where for cell in cells if cell.at in ("kl", "tokens")}
    lines += [
        "",
        *(f"{_HEADINGS[at].capitalize()}: {where}." for at, where in points.items()),
        "The best checkpoint on one half of the prompts is judged on the other half.",
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _shown(cell: Cell | None, confidence: float) -> str:
    if cell is None:
        return ""
    star = "*" if cell.p_adjusted < 1 - confidence else ""
    return f"{cell.win_rate:.0%}{star} ({cell.low:.0%} to {cell.high:.0%})"
