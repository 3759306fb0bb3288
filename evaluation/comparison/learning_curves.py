"""How methods learn: quality and KL over training, with intervals over seeds, on one page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from evaluation import plots
from evaluation.comparison.training_runs import Methods
from evaluation.statistics import band, mean_and_error
from plumbline.runs.artifacts import Artifact, write_json
from plumbline.runs.metrics import METRICS, read_metrics
from plumbline.runs.stage import Stage, stage

CODE_BESIDE = "../templates"
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
    """Write how methods learn: ``report.html``, ``report.md``, plots, and figures as JSON."""
    rows = looks(methods)
    table = finals(methods, judge)
    write_json(stage.folder / "summary.json", {"judge": judge, "methods": table, "looks": rows})
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
    plots.write_report(stage.folder, "curves", content, dict(_charts(rows, judge, list(methods))))
    return {f"{row['method']}_{judge}": row[judge]["mean"] for row in table}


def looks(methods: Methods) -> list[dict[str, Any]]:
    """Return one row for each method and look at it during training: means over seeds, bands."""
    rows = []
    for method, seeds in methods.items():
        by_step: dict[int, dict[str, list[float]]] = {}
        for made in seeds.values():
            for line in read_metrics(made["policy"].path / METRICS):
                if f"{_EVALUATED}kl" not in line:
                    continue
                gathered = by_step.setdefault(int(line["step"]), {})
                for name in _SHOWN:
                    if line.get(f"{_EVALUATED}{name}") is not None:
                        gathered.setdefault(name, []).append(line[f"{_EVALUATED}{name}"])
        for step, gathered in sorted(by_step.items()):
            row: dict[str, Any] = {"method": method, "step": step, "seeds": len(gathered["kl"])}
            for name, values in gathered.items():
                found = band(values)
                row |= {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}
            rows.append(row)
    return rows


def finals(methods: Methods, judge: str) -> list[dict[str, Any]]:
    """Return one row a method: its finished policies, as means over seeds with intervals."""
    rows = []
    for method, seeds in methods.items():
        judged = [made["evaluation"].metrics for made in seeds.values()]
        trained = [made["policy"] for made in seeds.values()]
        row: dict[str, Any] = {"method": method, "seeds": len(judged)}
        for name in (f"{judge}_win_rate", *_SHOWN):
            values = [float(m[name] or 0) for m in judged if m.get(name) is not None]
            if values:
                row[name] = band(values)._asdict()
        row["seconds"] = mean_and_error([p.manifest.seconds for p in trained]).mean
        row["tokens_sampled"] = mean_and_error(
            [float(p.metrics.get("tokens_sampled") or 0) for p in trained]
        ).mean
        row["signs"] = sum(float(p.metrics.get("signs") or 0) for p in trained)
        rows.append(row)
    return rows


def _charts(
    rows: Sequence[dict[str, Any]], judge: str, methods: list[str]
) -> list[tuple[str, plots.Chart]]:
    shown = "gold utility" if judge == "gold" else "reward"
    return [
        ("quality", _over_rounds(rows, judge, shown, methods)),
        ("kl", _over_rounds(rows, "kl", "KL, nats a response", methods)),
        ("frontier", _frontier(rows, judge, shown, methods)),
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
        x=alt.X("kl:Q", title="KL, nats a response (root scale)", scale=alt.Scale(type="sqrt")),
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
    shown = alt.Legend(orient="bottom", columns=4, symbolOpacity=1)
    return alt.Color("method:N", title=None, scale=scale, legend=shown)
