"""Search spaces: which settings a sweep changes, over which ranges, and the settings it tries.

Settings are drawn by a scrambled Sobol sequence, which fills a space more evenly than random
draws. Unlike a search that learns from its results, its draws do not depend on the
results of earlier trials or on the number of trials that run at once. A longer sweep starts with
the settings of a shorter one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from plumbline.config import Config, Seed, Seeds, only_when
from plumbline.seeds import derive

Value = float | int | str | bool | None


class Range(Config):
    """The values of one setting: between two numbers, or one of several values."""

    renamed: ClassVar[Mapping[str, str]] = {"whole": "integer"}

    low: float | None = None
    """The smallest value."""
    high: float | None = None
    """The largest value."""
    scale: Literal["log", "linear"] = "linear"
    """log: as many trials from 1 to 10 as from 10 to 100."""
    integer: bool = False
    """Integers only, both ends included."""
    choices: tuple[Value, ...] = Field(())
    """A list of values, instead of low and high."""

    @model_validator(mode="after")
    def _is_a_range(self) -> Range:
        if self.choices:
            if self.low is not None or self.high is not None:
                raise ValueError("a range has either choices, or low and high, not both")
            if self.scale != "linear" or self.integer:
                raise ValueError(
                    "scale and integer have no effect on choices; leave them out, or give low and "
                    "high"
                )
            return self
        if self.low is None or self.high is None or not self.low < self.high:
            raise ValueError(
                f"a range goes from low to a larger high, or has choices; low is {self.low}, high "
                f"is {self.high}"
            )
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f"low is {self.low:g}, but a logarithmic scale has no zero")
        return self

    def at(self, place: float) -> Value:
        """Return the value at a place in [0, 1)."""
        if self.choices:
            return self.choices[int(place * len(self.choices))]
        assert self.low is not None and self.high is not None
        low, high = self.low, self.high + (1.0 if self.integer else 0.0)
        if self.scale == "log":
            value = math.exp(math.log(low) + place * (math.log(high) - math.log(low)))
        else:
            value = low + place * (high - low)
        # Four digits are more than a sweep can resolve, and read better in a table.
        return math.floor(value) if self.integer else float(f"{value:.4g}")

    def place(self, value: Value) -> float:
        """Return where a value lies, 0 at the low end and 1 at the high one, for drawing."""
        if self.choices:
            known = value in self.choices
            return self.choices.index(value) / max(len(self.choices) - 1, 1) if known else math.nan
        assert self.low is not None and self.high is not None
        if not isinstance(value, int | float):
            return math.nan
        if self.scale == "log":
            if value <= 0:
                return math.nan
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


class TuningBudget(Config):
    """The cost of tuning each method: the same for every method."""

    renamed: ClassVar[Mapping[str, str]] = {"most_trials": "max_trials"}

    by: Literal["trials", "tokens", "seconds"] = "trials"
    """trials: settings tried. tokens: sampled and trained on. seconds: of process time, which
    differs between machines. A trial counts where it ends within the budget."""
    limit: float = Field(8, gt=0)
    """How much of that each method has."""
    max_trials: int = only_when(
        lambda config: config.by != "trials", "by: tokens or by: seconds", 64, ge=1
    )
    """At most so many trials."""

    def text(self) -> str:
        """Return the budget in words."""
        unit = {"trials": "trials", "tokens": "tokens", "seconds": "seconds of process time"}
        return f"{self.limit:,.0f} {unit[self.by]} per method"


class SearchConfig(Config):
    """How methods are tuned."""

    spaces: dict[str, dict[str, Range]]
    """For each method, the settings that trials change, by dotted key, with their ranges."""
    budget: TuningBudget = TuningBudget()
    """The cost of tuning each method."""
    seeds: Seeds = Field((100, 101), min_length=1)
    """Training seeds of every trial, as a list or as 100-101; none may be a seed of the
    comparison."""
    prompts: int = Field(100, ge=2)
    """Prompts that trials are evaluated on; none is a held-out prompt of the comparison."""
    kl_limit: float | None = Field(None, gt=0)
    """A trial farther than this from the SFT policy (nats, mean over seeds) cannot win."""
    draw_seed: Seed = 0
    """Seed of the settings that are drawn."""

    def rule(self, judge: str) -> str:
        """Return how the winner is selected, in words."""
        limit = "" if self.kl_limit is None else f" among those within {self.kl_limit:g} nats of KL"
        return (
            f"the highest mean {judge} score over {len(self.seeds)} tuning seed(s) on "
            f"{self.prompts} tuning prompts{limit}"
        )


Space = Mapping[str, Range]
Settings = dict[str, Value]


def draw_settings(space: Space, count: int, seed: int) -> list[Settings]:
    """Return ``count`` settings of a space, by dotted key; a smaller count gives the first ones."""
    from scipy.stats import qmc

    if not space or count < 1:
        return [{} for _ in range(count)]
    sequence = qmc.Sobol(len(space), scramble=True, rng=derive(seed, "sweep", *sorted(space)))
    places = sequence.random_base2(math.ceil(math.log2(count)))[:count]
    # Sorted, so that the order of the settings in a file changes nothing.
    ranges = sorted(space.items())
    return [
        {key: a_range.at(float(place)) for (key, a_range), place in zip(ranges, row, strict=True)}
        for row in places
    ]


def nest_settings(settings: Mapping[str, Value]) -> dict[str, Any]:
    """Return dotted keys as nested ones: ``{"kl.coefficient": 1}`` as ``{"kl": {...}}``."""
    tree: dict[str, Any] = {}
    for key, value in settings.items():
        *path, last = key.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return tree


def setting_at(settings: Mapping[str, Any], key: str) -> Value:
    """Return the value under a dotted key; raises `KeyError` where there is none."""
    node: Any = settings
    for part in key.split("."):
        node = node[part]
    value: Value = node
    return value


def count_within_budget(costs: Sequence[float], limit: float) -> int:
    """Return how many trials, in order, end within a budget."""
    spent = 0.0
    for number, cost in enumerate(costs):
        spent += cost
        if spent > limit * (1 + 1e-9):
            return number
    return len(costs)
