"""What all parts of the page need from the content: styles of methods, titles, checkpoints.

The content itself is a plain dictionary (`page_content` makes it); every list in it may be empty
and every number missing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev
from typing import Any

from evaluation.comparison.page_content import BASELINE_ID

Row = Mapping[str, Any]

#: Distinguishable with any kind of color vision (Okabe and Ito, 2008). The first is the baseline's.
#: The style sheet has a lighter set for dark backgrounds, in the same order.
COLORS = ("#7f7f7f", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#9c8a00")
#: Vega's names of shapes, and a sign of the same shape for tables: no reader depends on color.
SHAPES = (
    "cross", "circle", "square", "triangle-up", "diamond", "triangle-down", "triangle-right"
)  # fmt: skip
SIGNS = ("✚", "●", "■", "▲", "◆", "▼", "▶")

#: Metrics of a policy that have columns of their own in the table of results.
_RESULT_COLUMNS = frozenset(
    {"kl", "kl_se", "words", "finished", "prompts", "logprob", "reference_logprob"}
)
_SUFFIXES = ("_low", "_high", "_se", "_std")


@dataclass(frozen=True)
class MethodStyle:
    """How the page shows a method: its title, color, sign and shape."""

    name: str | None
    """None for the baseline, since a method may have any name."""
    title: str
    index: int
    """0 is the baseline; methods count from 1."""

    @property
    def color(self) -> int:
        """Place in `COLORS`; colors repeat only beyond seven methods."""
        return self.index if self.index == 0 else 1 + (self.index - 1) % (len(COLORS) - 1)

    @property
    def sign(self) -> str:
        """A sign of the method's shape."""
        return SIGNS[0] if self.index == 0 else SIGNS[1 + (self.index - 1) % (len(SIGNS) - 1)]

    @property
    def shape(self) -> str:
        """The method's shape in charts."""
        return SHAPES[0] if self.index == 0 else SHAPES[1 + (self.index - 1) % (len(SHAPES) - 1)]


class View:
    """The content of a comparison, with what is derived from it for showing."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        # Samples are many; `evaluation.comparison.page.packed_responses` packs them.
        self.samples: Row = content.get("samples") or {}
        self.content: Row = finite({k: v for k, v in content.items() if k != "samples"})
        self.judge: str = self.content.get("judge") or ""

    def rows(self, key: str) -> Sequence[Row]:
        """Return one of the lists of the content."""
        rows: Sequence[Row] = self.content.get(key) or []
        return rows

    @property
    def running(self) -> bool:
        """Whether the run is still in progress."""
        return self.content.get("status") == "running"

    @cached_property
    def headline(self) -> Row:
        """Who won, by how much, and how far to trust it; an older content has none."""
        none: Row = {"so_far": self.running, "title": "There is no verdict yet", "margin": [],
                     "basis": "", "trust": [], "missing": []}  # fmt: skip
        return self.content.get("headline") or none

    @property
    def baseline(self) -> Row:
        """The name, title and metrics of the baseline; empty where there is none."""
        return self.content.get("baseline") or {}

    @property
    def baseline_metrics(self) -> Row:
        """The metrics of the baseline; empty where there is none."""
        return self.baseline.get("metrics") or {}

    @property
    def design(self) -> Row:
        """The numbers of seeds and prompts, and the budget."""
        return self.content.get("design") or {}

    @property
    def of_models(self) -> bool:
        """Whether single models are compared, and not methods of training with their seeds."""
        return bool(self.design.get("of_models"))

    @property
    def confidence(self) -> str:
        """The confidence of the intervals, as text."""
        return f"{100 * (self.design.get('confidence') or 0.95):g}%"

    @cached_property
    def baseline_style(self) -> MethodStyle:
        """How the baseline is shown."""
        return MethodStyle(None, self.baseline.get("title") or "the baseline", 0)

    @cached_property
    def methods(self) -> list[MethodStyle]:
        """The methods in the order of their colors, without the baseline.

        A method that only a policy or a curve names is added at the end.
        """
        titles = {row["name"]: row.get("title") or row["name"] for row in self.rows("methods")}
        for key in ("policies", "frontier"):
            for row in self.rows(key):
                titles.setdefault(row["method"], row["method"])
        return [MethodStyle(name, title, n) for n, (name, title) in enumerate(titles.items(), 1)]

    @property
    def styles(self) -> list[MethodStyle]:
        """The baseline and all methods."""
        return [self.baseline_style, *self.methods]

    def style(self, name: str | None) -> MethodStyle:
        """Return the style of a method by its name; None is the baseline."""
        if name is None:
            return self.baseline_style
        return self._by_name.get(name) or MethodStyle(name, name, 0)

    @cached_property
    def _by_name(self) -> dict[str | None, MethodStyle]:
        return {style.name: style for style in self.methods}

    @cached_property
    def scorers(self) -> list[Row]:
        """The scorers, the deciding one first."""
        return sorted(self.rows("scorers"), key=lambda row: row["name"] != self.judge)

    def scorer_title(self, name: str, *, unit: bool = False) -> str:
        """Return the title of a scorer, with its unit if wanted."""
        row: Row = next((row for row in self.scorers if row["name"] == name), {})
        title = row.get("title") or name
        return f"{title}, {row['unit']}" if unit and row.get("unit") else title

    @cached_property
    def policies(self) -> dict[str, Row]:
        """The policies by their ids."""
        return {row["id"]: row for row in self.rows("policies")}

    def policy_title(self, policy_id: str) -> str:
        """Return ``DPO, seed 0, step 60``, or as much of it as is known."""
        if policy_id == BASELINE_ID:
            return self.baseline_style.title
        row = self.policies.get(policy_id)
        if row is None:
            return policy_id
        words = [self.style(row["method"]).title]
        if self.of_models:
            return words[0]
        if row.get("seed") is not None:
            words.append(f"seed {row['seed']}")
        if row.get("checkpoint") is not None:
            words.append(f"step {row['checkpoint']}")
        return ", ".join(words)

    def finished(self, method: str | None) -> list[Row]:
        """Return a method's final policies, one per seed; during training, the last of each."""
        rows = [row for row in self.rows("policies") if row["method"] == method]
        final = [row for row in rows if row.get("final")]
        if final:
            return final
        last = {row.get("seed"): row for row in rows}
        return list(last.values())

    def matched(self, method: str | None) -> list[Row]:
        """Return the policies of a method that are compared at the budget."""
        return [
            row for row in self.rows("policies") if row["method"] == method and row.get("matched")
        ]

    @cached_property
    def further_measures(self) -> list[str]:
        """Names of the metrics that the table of results does not show."""
        scorers = {row["name"] for row in self.scorers}
        names: dict[str, None] = {}
        for row in self.rows("policies"):
            for name, value in (row.get("metrics") or {}).items():
                if value is None:
                    continue
                stem = name
                for suffix in _SUFFIXES:
                    stem = stem.removesuffix(suffix)
                stem = stem.removesuffix("_win_rate")
                if name not in _RESULT_COLUMNS and not {stem, name.split(".")[0]} & scorers:
                    names.setdefault(name)
        return list(names)


def finite(value: Any) -> Any:
    """Return the same data without NaN and infinities, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return value


def metric_values(rows: Sequence[Row], name: str) -> list[float]:
    """Return a metric of each policy that has it."""
    values = [(row.get("metrics") or {}).get(name) for row in rows]
    return [float(value) for value in values if value is not None]


def mean(values: Sequence[float]) -> float | None:
    """Return the mean, or None of nothing."""
    return fmean(values) if values else None


def std(values: Sequence[float]) -> float | None:
    """Return the standard deviation over seeds; None below two of them."""
    return stdev(values) if len(values) > 1 else None
