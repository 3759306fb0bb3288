"""What the functions of `plumbline.api` return; a notebook shows each with its figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline.pages import number, percent
from plumbline.runs.artifacts import Artifact
from plumbline.runs.metrics import METRICS, read_metrics
from plumbline.runs.run import RunRecord

if TYPE_CHECKING:
    import pandas as pd

#: Kinds of artefacts that a recipe of one stage is run for.
_MADE = ("policy", "reward-model", "pairs")
#: The figure of each training that its curve shows: the first of these that it logs.
_CURVES = ("loss", "score")


class StageResult:
    """What one stage made. It stands wherever a model or data can be named."""

    def __init__(self, run: RunRecord) -> None:
        self.run = run
        results = {
            name: artifact for name, artifact in run.artifacts.items() if artifact.kind in _MADE
        }
        self.stage, self.artifact = list(results.items())[-1]

    @property
    def path(self) -> Path:
        """Its folder: a model that ``from_pretrained`` reads, an adapter, or a dataset."""
        return self.artifact.path

    @property
    def metrics(self) -> dict[str, float | None]:
        """The headline figures of the training."""
        return dict(self.artifact.metrics)

    @property
    def evaluation(self) -> dict[str, float | None] | None:
        """The figures of its evaluation after training; None where there was none."""
        evaluation: Artifact | None = self.run.artifacts.get(f"evaluation/{self.stage}")
        return None if evaluation is None else dict(evaluation.metrics)

    @property
    def history(self) -> pd.DataFrame:
        """The figures that were logged in training: one row for each line, with its step."""
        import pandas as pd

        return pd.DataFrame(read_metrics(self.path / METRICS))

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        metrics = ", ".join(f"{name}={_figure(value)}" for name, value in self.metrics.items())
        return f"<{self.artifact.id} in {self.run.folder}: {metrics}>"

    def _repr_html_(self) -> str:
        parts = [f"<p><b>{escape(self.stage)}</b> in {escape(str(self.run.folder))}</p>"]
        parts.append(_table(("figure", "value"), _rows(self.metrics)))
        if self.evaluation is not None:
            parts.append(_table(("evaluation", "value"), _rows(self.evaluation)))
        curve = self._curve()
        return "".join(parts) + ("" if curve is None else curve)

    def _curve(self) -> str | None:
        """Return the curve of the training as SVG."""
        import altair

        from evaluation.plots import specification, svg

        history = self.history
        name = next((name for name in _CURVES if name in history), None)
        if name is None or history[name].count() < 2:
            return None
        points = history[["step", name]].dropna()
        chart = (
            altair.Chart(altair.Data(values=points.to_dict("records")), height=200)
            .mark_line(point=True)
            .encode(x="step:Q", y=altair.Y(f"{name}:Q", scale=altair.Scale(zero=False)))
        )
        return svg(specification(chart))


class Evaluation:
    """Figures of models by task, and the responses that they are of."""

    def __init__(self, folder: Path, results: Mapping[str, Any]) -> None:
        self.folder = folder
        self.results = dict(results)
        """What ``metrics.json`` holds."""

    @property
    def metrics(self) -> dict[str, dict[str, dict[str, float | None]]]:
        """Figures by task, then model."""
        return dict(self.results["tasks"])

    @property
    def samples(self) -> pd.DataFrame:
        """The responses: one row for each prompt and model, with all that was measured of it."""
        import pandas as pd

        from evaluation.sample_files import SAMPLES

        return pd.read_parquet(self.folder / SAMPLES)

    def __repr__(self) -> str:
        return f"<Evaluation of {', '.join(self.results['models'])} in {self.folder}>"

    def _repr_html_(self) -> str:
        from plumbline.commands.evaluation.metric_tables import metric_lines

        return "".join(
            f"<p><b>{escape(task)}</b></p>"
            + _table(
                ("measure", "unit", *metrics),
                ((line.title, line.unit, *line.values) for line in metric_lines(metrics)),
            )
            for task, metrics in self.metrics.items()
        )


class Comparison:
    """The report of a comparison, and what it says."""

    def __init__(self, folder: Path, content: Mapping[str, Any]) -> None:
        self.folder = folder
        self._content = content

    @property
    def report(self) -> Path:
        """The page, which opens in any browser."""
        return self.folder / "report.html"

    @property
    def summary(self) -> dict[str, Any]:
        """What ``summary.json`` holds: verdict, win rates with intervals, KL, costs."""
        from evaluation.comparison.compare import SUMMARY
        from plumbline.runs.artifacts import read_json

        values: dict[str, Any] = read_json(self.folder / SUMMARY)
        return values

    def __repr__(self) -> str:
        return f"<Comparison in {self.folder}: {self._content['headline']['title']}>"

    def _repr_html_(self) -> str:
        headline, judge = self._content["headline"], self._content["judge"]
        sentences = [*headline["margin"], headline["basis"], *headline["trust"]]
        rows = [
            (
                policy["method"],
                policy["seed"],
                number(policy["metrics"].get(judge)),
                percent(policy["metrics"].get(f"{judge}_win_rate")),
                number(policy["metrics"].get("kl")),
            )
            for policy in self._content["policies"]
            if policy["final"]
        ]
        return (
            f"<p><b>{escape(headline['title'])}</b></p>"
            + "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
            + _table(("method", "seed", judge, "win rate", "KL"), rows)
            + f"<p>The whole report: {escape(str(self.report))}</p>"
        )


def _rows(metrics: Mapping[str, float | None]) -> list[tuple[str, str]]:
    return [(name, _figure(value)) for name, value in metrics.items() if value is not None]


def _figure(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, *rows]
    cells = [[escape(str(cell)) for cell in line] for line in lines]
    first = "".join(f"<th>{cell}</th>" for cell in cells[0])
    rest = "".join(
        "<tr>" + "".join(f"<td>{cell}</td>" for cell in line) + "</tr>" for line in cells[1:]
    )
    return f"<table><tr>{first}</tr>{rest}</table>"
