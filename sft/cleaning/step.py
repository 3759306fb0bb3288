"""What a step of cleaning is: its settings, and what it does to rows.

A step looks at each row by itself (`Step.prepare`), or compares all rows (`Step.compare`). A row is
a dictionary: ``messages`` (and ``form``, ``tools``, ``wrong_answers``, columns that its source
keeps), ``origin`` and ``row``, which say where it came from, ``tier``, ``split`` once rows are
split, and ``source``, the number of its source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from plumbline.config import Config
from plumbline.data.records import CONVERSATIONS, Message, Row, assistant
from plumbline.errors import ConfigError
from sft.wrong_answers import with_wrong_answers

if TYPE_CHECKING:
    import numpy as np

    from plumbline.hooks import Scorer
    from plumbline.lm.generation import SamplingConfig
    from plumbline.lm.writer import Writer, WriterEndpointConfig


class StepConfig(Config):
    """The settings of a step; a class of each step's own adds them."""

    step: str
    """Which step: a row of the table in docs/data.md."""

    def models(self) -> Sequence[str]:
        """Return the models that the step loads, as a user names them."""
        return ()


class Outcome(NamedTuple):
    """What a step made of a row."""

    rows: Sequence[Row] = ()
    """The row, changed or not; several where the step makes new ones; none where it is left out."""
    reason: str | None = None
    """Why the row is left out, in words that continue "this row …"."""
    changes: Sequence[str] = ()
    """What was changed, in words that are counted: "mojibake was repaired"."""
    detail: Any = None
    """What people want to see of a row that is left out: where it hit, what it repeats."""


class StepContext(NamedTuple):
    """What a step may use beside its settings."""

    data_seed: int = 0
    scorers: Mapping[str, Scorer] = {}
    """Scorers by the name that a setting gives; only for steps that run in the main process."""
    models: Mapping[str, Path] = {}
    """Folders of models by the name that a setting gives; for such steps, too."""
    answers: Path | None = None
    """Where answers of endpoints are kept."""

    def scorer(self, name: str) -> Scorer:
        """Return the scorer that a setting names."""
        if name not in self.scorers:
            raise ConfigError(
                f"A step names the reward model {name!r}, and here steps have none. Build the "
                "dataset by `plumbline data build`, and train on that."
            )
        return self.scorers[name]

    def folder_of(self, model: str) -> Path:
        """Return the folder of a model that a setting names."""
        if model not in self.models:
            raise ConfigError(
                f"A step names the model {model!r}, and here steps have no models. Build the "
                "dataset by `plumbline data build`, and train on that."
            )
        return self.models[model]

    def writer(
        self, model: str | None, endpoint: WriterEndpointConfig | None, sampling: SamplingConfig
    ) -> Writer:
        """Return what writes texts: a model of this machine, or one behind an endpoint."""
        from plumbline.lm.policy import Policy
        from plumbline.lm.writer import EndpointWriter, LocalWriter

        if model is not None:
            return LocalWriter(Policy.load(self.folder_of(model)), sampling)
        if endpoint is None or self.answers is None:
            raise ConfigError(
                "A step asks an endpoint, and here no answers can be kept. Build the dataset by "
                "`plumbline data build`, and train on that."
            )
        return EndpointWriter(endpoint, self.answers)


#: A step at work: from some rows to what became of each, in their order.
RowFunction = Callable[[Sequence[Row]], Iterable[Outcome]]


class Removal(NamedTuple):
    """A row that a comparison leaves out."""

    place: int
    """Its place among all rows."""
    reason: str
    detail: Any = None


@dataclass(frozen=True)
class Compared:
    """All rows, as a comparison sees them."""

    keys: Sequence[np.ndarray]
    """The rows' keys, [N, K] bytes in all: one array for each block of rows, mapped from disk."""
    alive: np.ndarray
    """[N] whether a row is still there; those left out before are not compared."""
    row: Callable[[int], Row]
    """Reads one row."""


@dataclass(frozen=True)
class Comparison:
    """How a step compares all rows."""

    key_bytes: Callable[[Any], int]
    """From the settings to K, the length of a row's key in bytes."""
    key: Callable[[Any], Callable[[Row], bytes]]
    """From the settings to what makes a row's key; it runs in the workers."""
    decide: Callable[[Any, Compared], Iterable[Removal]]
    """Says which rows are left out."""


@dataclass(frozen=True)
class Step:
    """A step: what it is called, what may be set, what it does."""

    name: str
    about: str
    settings: type[StepConfig]
    prepare: Callable[[Any, StepContext], RowFunction] | None = None
    """From the settings to what the step does with rows. It is called once in each process."""
    compare: Comparison | None = None
    """How rows are compared, in place of ``prepare``."""
    runs_in: Literal["workers", "main"] = "workers"
    """main: in one process, for steps that load a model."""
    makes_rows: bool = False
    """Whether it makes new rows. It then runs after the split, on rows of ``train`` alone."""
    example: Mapping[str, Any] = field(default_factory=dict)
    """Settings to show in the documentation."""


def each(function: Callable[[Row], Outcome]) -> RowFunction:
    """Return a step that does the same with every row."""
    return lambda rows: [function(row) for row in rows]


def texts_of(row: Row) -> list[str]:
    """Return the texts of a row, turn by turn."""
    return [message["content"] for message in turns_of(row)]


def turns_of(row: Row) -> list[Message]:
    """Return all turns of a row."""
    return [message for column in CONVERSATIONS if column in row for message in row[column]]


def spoken_of(row: Row) -> list[str]:
    """Return what the assistant says in a row, and what is learnt of it."""
    return [
        turn["content"]
        for turn in turns_of(row)
        if turn["role"] == "assistant" and turn.get("weight") != 0
    ]


def with_turns(row: Row, change: Callable[[Message], Message]) -> Row:
    """Return a row with each turn and wrong answer changed; the row itself where nothing was."""
    changed: Row = {}
    for column in CONVERSATIONS:
        if column in row:
            turns = [change(turn) for turn in row[column]]
            if any(new is not old for new, old in zip(turns, row[column], strict=True)):
                changed[column] = turns
    row = with_wrong_answers(row, lambda text: change(assistant(text))["content"])
    return row | changed if changed else row
