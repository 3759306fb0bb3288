"""What all parts of the page need to know about a comparison's content: who is who, and the looks.

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

Row = Mapping[str, Any]

#: Told apart with any kind of colour vision (Okabe and Ito, 2008). The first is the baseline's.
#: The page has a lighter set for dark grounds in its style sheet, in the same order.
COLORS = ("#7f7f7f", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#9c8a00")
#: Vega's names of shapes, and a sign of the same shape for tables: no reader depends on colour.
SHAPES = (
    "cross", "circle", "square", "triangle-up", "diamond", "triangle-down", "triangle-right"
)  # fmt: skip
SIGNS = ("✚", "●", "■", "▲", "◆", "▼", "▶")

BASELINE = "sft"
#: Under which names the baseline stands in tables and in samples.
_BASELINES = frozenset({BASELINE, "baseline"})

#: Figures of a policy that have columns of their own in the table of results.
_ORDINARY = frozenset(
    {"kl", "kl_error", "words", "finished", "prompts", "logprob", "reference_logprob"}
)


@dataclass(frozen=True)
class Who:
    """A method as the page shows it: its name, its title and its place among the looks."""

    name: str
    title: str
    index: int
    """0 is the baseline; methods count from 1."""

    @property
    def color(self) -> int:
        """Place in `COLORS`; there are more methods than colours only beyond seven."""
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
    """A comparison's content, with what is derived from it for showing."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        # Samples are many and go their own way (`evaluation.comparison.page.samples`).
        self.samples: Row = content.get("samples") or {}
        self.content: Row = finite({k: v for k, v in content.items() if k != "samples"})
        self.judge: str = self.content.get("judge") or ""

    def rows(self, key: str) -> Sequence[Row]:
        """Return one of the content's lists."""
        found: Sequence[Row] = self.content.get(key) or []
        return found

    @property
    def running(self) -> bool:
        """Whether the run is still going on."""
        return self.content.get("status") == "running"

    @property
    def baseline(self) -> Row:
        """The baseline's title and figures; empty where there is none."""
        return self.content.get("baseline") or {}

    @property
    def design(self) -> Row:
        """How many seeds and prompts, and how the budgets were matched."""
        return self.content.get("design") or {}

    @property
    def confidence(self) -> str:
        """The intervals' confidence, as text."""
        return f"{100 * (self.design.get('confidence') or 0.95):g} %"

    @cached_property
    def people(self) -> dict[str, Who]:
        """The baseline and every method, by name, in the order of their colours.

        A method that only a policy or a curve names is added at the end.
        """
        named = {row["name"]: row.get("title") or row["name"] for row in self.rows("methods")}
        for key in ("policies", "frontier"):
            for row in self.rows(key):
                if row["method"] not in _BASELINES:
                    named.setdefault(row["method"], row["method"])
        found = {BASELINE: Who(BASELINE, self.baseline.get("title") or "SFT", 0)}
        for index, (name, title) in enumerate(named.items(), 1):
            found[name] = Who(name, title, index)
        return found

    @property
    def methods(self) -> list[Who]:
        """The methods, without the baseline."""
        return list(self.people.values())[1:]

    def who(self, name: str) -> Who:
        """Return a method by its name or its title; what is unknown looks like the baseline."""
        if name in _BASELINES:
            return self.people[BASELINE]
        for who in self.people.values():
            if name in (who.name, who.title):
                return who
        return Who(name, name, 0)

    @cached_property
    def scorers(self) -> list[Row]:
        """The scorers, the deciding one first."""
        return sorted(self.rows("scorers"), key=lambda row: row["name"] != self.judge)

    def scorer_title(self, name: str, *, unit: bool = False) -> str:
        """Return a scorer's title, with its unit if wanted."""
        row: Row = next((row for row in self.scorers if row["name"] == name), {})
        title = row.get("title") or name
        return f"{title}, {row['unit']}" if unit and row.get("unit") else title

    @cached_property
    def policies(self) -> dict[str, Row]:
        """The policies by their ids."""
        return {row["id"]: row for row in self.rows("policies")}

    def policy_title(self, policy_id: str) -> str:
        """Return ``DPO, seed 0, step 60``, or as much of it as is known."""
        if policy_id in _BASELINES:
            return self.people[BASELINE].title
        row = self.policies.get(policy_id)
        if row is None:
            return policy_id
        words = [self.who(row["method"]).title]
        if row.get("seed") is not None:
            words.append(f"seed {row['seed']}")
        if row.get("checkpoint") is not None:
            words.append(f"step {row['checkpoint']}")
        return ", ".join(words)

    def finished(self, method: str) -> list[Row]:
        """Return a method's final policies, one a seed; while it trains, the last of each."""
        mine = [row for row in self.rows("policies") if row["method"] == method]
        final = [row for row in mine if row.get("final")]
        if final:
            return final
        last = {row.get("seed"): row for row in mine}
        return list(last.values())

    def matched(self, method: str) -> list[Row]:
        """Return the policies of a method that are compared at the budget."""
        return [
            row for row in self.rows("policies") if row["method"] == method and row.get("matched")
        ]

    @cached_property
    def further_measures(self) -> list[str]:
        """Names of the figures that the table of results does not show."""
        scorers = {row["name"] for row in self.scorers}
        found: dict[str, None] = {}
        for row in self.rows("policies"):
            for name, value in (row.get("figures") or {}).items():
                if value is None:
                    continue
                head = name.split(".")[0]
                stem = name.removesuffix("_low").removesuffix("_high").removesuffix("_error")
                stem = stem.removesuffix("_win_rate")
                if name not in _ORDINARY and stem not in scorers and head not in scorers:
                    found.setdefault(name)
        return list(found)


def finite(value: Any) -> Any:
    """Return the same data without NaN and infinities, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return value


def figures(rows: Sequence[Row], name: str) -> list[float]:
    """Return a figure of each policy that has it."""
    found = [(row.get("figures") or {}).get(name) for row in rows]
    return [float(value) for value in found if value is not None]


def mean(values: Sequence[float]) -> float | None:
    """Return the mean, or None of nothing."""
    return fmean(values) if values else None


def spread(values: Sequence[float]) -> float | None:
    """Return the standard deviation over seeds; None below two of them."""
    return stdev(values) if len(values) > 1 else None
