"""What is watched while a model trains: each figure with its healthy range, and what to do else.

Every training on the shared skeleton writes these figures, warns once when one leaves its range,
and shows them as curves (`plumbline.training.curves_page`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from plumbline.tables import Table

Place = Literal["metrics.jsonl", "speed.jsonl"]


@dataclass(frozen=True)
class WatchedFigure:
    """A row of the table of watched figures."""

    name: str
    """As metrics.jsonl calls it."""
    title: str
    """For people, with its unit."""
    low: float | None = None
    """The least healthy value; None where there is no limit."""
    high: float | None = None
    """The largest healthy value; None where there is no limit."""
    below: str = ""
    """What a value below ``low`` means, and what to do."""
    above: str = ""
    """What a value above ``high`` means, and what to do."""
    follows_learning_rate: bool = False
    """Whether it falls with the learning rate, as at the end of a training."""
    written_to: Place = "metrics.jsonl"
    """What depends on the clock or the machine is kept outside the artefact."""

    def problem(self, value: float) -> str | None:
        """Return what is wrong with a value; None where it is healthy."""
        if not math.isfinite(value):
            return f"{self.title} is not finite: lower the learning rate"
        if self.low is not None and value < self.low:
            return f"{self.title} is {value:.2g}, below {self.low:g}: {self.below}"
        if self.high is not None and value > self.high:
            return f"{self.title} is {value:.2g}, above {self.high:g}: {self.above}"
        return None


#: The ranges are those of common practice: they say where to look, not that a training failed. An
#: update of 1e-3 of the weights per step is usual for training from scratch, and fine-tuning at
#: small learning rates makes smaller ones.
WATCHED_FIGURES: Table[WatchedFigure] = Table(
    "watched figure",
    (
        WatchedFigure("loss", "loss"),
        WatchedFigure("held_out_loss", "held-out loss (nats per token)"),
        WatchedFigure(
            "held_out_gap",
            "held-out loss less training loss",
            high=0.2,
            above="the model learns its rows by heart. Train for fewer epochs, keep the best "
            "weights (held_out.keep: best), or add rows",
        ),
        WatchedFigure(
            "grad_norm",
            "gradient norm",
            low=1e-3,
            high=10.0,
            below="hardly anything is learnt any more. Stop earlier, or look whether the right "
            "weights train",
            above="single batches pull the weights far. Lower the learning rate, or look for rows "
            "that do not belong here",
        ),
        WatchedFigure(
            "update_ratio",
            "size of an update / size of the weights",
            low=1e-6,
            high=1e-1,
            below="the weights hardly move. Raise the learning rate",
            above="the weights are overwritten rather than tuned. Lower the learning rate or "
            "warm up for longer",
            follows_learning_rate=True,
        ),
        WatchedFigure("learning_rate", "learning rate"),
        WatchedFigure("tokens_per_second", "tokens per second", written_to="speed.jsonl"),
        WatchedFigure("memory_gib", "memory (GiB)", written_to="speed.jsonl"),
        WatchedFigure(
            "gpu_use",
            "share of the time in which the GPU computes",
            low=0.3,
            below="the GPU waits for the processor. Raise batch_size",
            written_to="speed.jsonl",
        ),
    ),
)


class HealthReport:
    """Warns once of each figure that leaves its range."""

    def __init__(self) -> None:
        self.reported: list[str] = []
        """Figures that were warned of already."""

    def warnings(
        self, metrics: Mapping[str, float], peak_learning_rate: float = 0.0
    ) -> Iterator[tuple[str, str]]:
        """Yield name and sentence of each figure that leaves its range for the first time.

        Where the schedule has the learning rate below a tenth of its peak, as at the end of a
        training, updates are meant to be small, and their size is not judged.
        """
        rate = metrics.get("learning_rate", math.inf)
        for name, figure in WATCHED_FIGURES.items():
            value = metrics.get(name)
            if value is None or name in self.reported:
                continue
            if figure.follows_learning_rate and rate < 0.1 * peak_learning_rate:
                continue
            problem = figure.problem(float(value))
            if problem is not None:
                self.reported.append(name)
                yield name, problem
