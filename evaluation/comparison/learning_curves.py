"""Learning curves: quality and KL over training, with intervals over seeds, on one page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from evaluation import plots
from evaluation.comparison.training_runs import Methods
from plumbline.runs.artifacts import Artifact, write_json
from plumbline.runs.metrics import METRICS, read_metrics
from plumbline.runs.stage import Stage, stage
from plumbline.statistics import band, mean_and_se

CODE_BESIDE = "templates"
CONFIDENCE = 0.95
_EVALUATED = "eval/"
_SHOWN = ("gold", "reward", "kl", "words")


@stage("learning-curves")
def report_curves(
    stage: Stage,
    *,
    title: str,
    judge: str,
    baseline: Artifact,
    methods: Methods,
    changes: Mapping[str, Mapping[str, Any]],
) -> Mapping[str, float | None]:
    """Write the learning curves: ``report.html``, ``report.md``, plots and ``summary.json``."""
    rows = checkpoint_means(methods)
    table = final_means(methods, judge)
    write_json(
        stage.folder / "summary.json", {"judge": judge, "methods": table, "checkpoints": rows}
    )
    content: dict[str, Any] = {
        "title": title,
        "judge": judge,
        "baseline": baseline.metrics,
        "table": table,
        "changes": {
            name: json.dumps(change) if change else "–" for name, change in changes.items()
        },
        "seeds": sorted({seed for seeds in methods.values() for seed in seeds}),
    }
    charts = dict(_charts(rows, judge, list(methods)))
    plots.write_report(stage.folder, "evaluation.comparison", "learning_curves", content, charts)
    return {f"{row['method']}_{judge}": row[judge]["mean"] for row in table}


def checkpoint_means(methods: Methods) -> list[dict[str, Any]]:
    """Return one row per method and checkpoint: means over seeds with intervals."""
    rows = []
    for method, seeds in methods.items():
        by_step: dict[int, dict[str, list[float]]] = {}
        for artifacts in seeds.values():
            for line in read_metrics(artifacts["policy"].path / METRICS):
                if f"{_EVALUATED}kl" not in line:
                    continue
                values_by_metric = by_step.setdefault(int(line["step"]), {})
                for name in _SHOWN:
                    if line.get(f"{_EVALUATED}{name}") is not None:
                        values_by_metric.setdefault(name, []).append(line[f"{_EVALUATED}{name}"])
        for step, values_by_metric in sorted(by_step.items()):
            row: dict[str, Any] = {
                "method": method,
                "step": step,
                "seeds": len(values_by_metric["kl"]),
            }
            for name, values in values_by_metric.items():
                mean = band(values)
                row |= {name: mean.mean, f"{name}_low": mean.low, f"{name}_high": mean.high}
            rows.append(row)
    return rows


def final_means(methods: Methods, judge: str) -> list[dict[str, Any]]:
    """Return one row per method: its finished policies, as means over seeds with intervals."""
    rows = []
    for method, seeds in methods.items():
        evaluations = [artifacts["evaluation"].metrics for artifacts in seeds.values()]
        policies = [artifacts["policy"] for artifacts in seeds.values()]
        row: dict[str, Any] = {"method": method, "seeds": len(evaluations)}
        for name in (f"{judge}_win_rate", *_SHOWN):
            values = [float(m[name] or 0) for m in evaluations if m.get(name) is not None]
            if values:
                row[name] = band(values)._asdict()
        row["seconds"] = mean_and_se([p.manifest.seconds for p in policies]).mean
        row["tokens_sampled"] = mean_and_se(
            [float(p.metrics.get("tokens_sampled") or 0) for p in policies]
        ).mean
        # Before version 2 of manifests, warnings were called signs.
        row["warnings"] = sum(
            float(p.metrics.get("warnings", p.metrics.get("signs")) or 0) for p in policies
        )
        rows.append(row)
    return rows


def _charts(
    rows: Sequence[dict[str, Any]], judge: str, methods: list[str]
) -> list[tuple[str, plots.Chart]]:
    judge_title = "gold utility" if judge == "gold" else "reward"
    return [
        ("quality", _over_rounds(rows, judge, judge_title, methods)),
        ("kl", _over_rounds(rows, "kl", "KL, nats per response", methods)),
        ("frontier", _frontier(rows, judge, judge_title, methods)),
    ]


def _over_rounds(
    rows: Sequence[dict[str, Any]], name: str, title: str, methods: list[str]
) -> plots.Chart:
    base = alt.Chart(alt.Data(values=list(rows))).encode(
        x=alt.X("step:Q", title="round", axis=alt.Axis(tickMinStep=1)), color=_color(methods)
    )
    bands = base.mark_area(opacity=0.12).encode(
        y=alt.Y(f"{name}_low:Q", title=title, scale=alt.Scale(zero=False)),
        y2=f"{name}_high:Q",
    )
    lines = base.mark_line(strokeWidth=2, point=True).encode(
        y=alt.Y(f"{name}:Q", title=title, scale=alt.Scale(zero=False)),
        tooltip=[
            alt.Tooltip("method:N"),
            alt.Tooltip("step:Q"),
            *(alt.Tooltip(f"{name}{end}:Q", format=".3f") for end in ("", "_low", "_high")),
        ],
    )
    return (bands + lines).properties(width="container", height=320)


def _frontier(
    rows: Sequence[dict[str, Any]], judge: str, title: str, methods: list[str]
) -> plots.Chart:
    base = alt.Chart(alt.Data(values=[dict(row, kl=max(0.0, row["kl"])) for row in rows])).encode(
        x=alt.X("kl:Q", title="KL, nats per response (root scale)", scale=alt.Scale(type="sqrt")),
        y=alt.Y(f"{judge}:Q", title=title, scale=alt.Scale(zero=False)),
        color=_color(methods),
    )
    lines = base.mark_line(strokeWidth=1.5, opacity=0.7).encode(order="step:Q")
    points = base.mark_point(filled=True, size=60).encode(
        tooltip=["method:N", "step:Q", alt.Tooltip("kl:Q", format=".3f"),
                 alt.Tooltip(f"{judge}:Q", format=".3f")]
    )  # fmt: skip
    return (lines + points).properties(width="container", height=320)


def _color(methods: list[str]) -> alt.Color:
    scale = alt.Scale(domain=methods, range=plots.PALETTE[: len(methods)])
    legend = alt.Legend(orient="bottom", columns=4, symbolOpacity=1)
    return alt.Color("method:N", title=None, scale=scale, legend=legend)
