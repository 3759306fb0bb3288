"""The step of a build that adds edited copies of training rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from plumbline.config import Check, only_when
from plumbline.data.records import Message, Row
from plumbline.seeds import rng
from sft.augmentation.edits import EDITS, edited, read_synonyms, shipped_synonyms
from sft.cleaning.step import Outcome, RowFunction, Step, StepConfig, StepContext, each, with_turns

MARK = "augmentation"
"""The column that says by which edit a row was made; nothing in rows as they were read."""
TIER = "augmented"


class SurfaceEditsConfig(StepConfig):
    """Which edited copies of training rows are added."""

    step: Literal["surface_edits"] = "surface_edits"
    edits: tuple[Annotated[str, EDITS], ...] = Field(tuple(EDITS), min_length=1)
    """The edits, of which each copy has one, drawn at random."""
    copies: int = Field(1, ge=1, le=20)
    """Edited copies of each row."""
    share: float = Field(0.1, gt=0, le=0.5)
    """Share of the words of a user's turn that are edited, one at least. The authors of EDA advise
    0.05 for many rows and 0.1 for a few thousand."""
    synonyms: Path | None = only_when(
        lambda config: bool({"synonym", "insertion"} & set(config.edits)),
        "synonym or insertion among edits",
        None,
    )
    """A file with words that can stand for each other on each line. Null: a small list that comes
    with Plumbline, English and Chinese."""

    def identity(self) -> dict[str, Any]:
        """Return the values that determine the result, the synonyms among them."""
        values = super().identity()
        if self.synonyms is not None:
            values["synonyms"] = sorted(read_synonyms(self.synonyms).items())
        return values

    def checks_before_work(self) -> Sequence[Check]:
        """Read the synonyms."""
        return () if self.synonyms is None else (partial(check_synonyms, self.synonyms),)


def check_synonyms(file: Path) -> None:
    """Raise `ConfigError` where a list of synonyms cannot be used."""
    read_synonyms(file)


def copies_of(
    row: Row, config: SurfaceEditsConfig, data_seed: int, synonyms: dict[str, tuple[str, ...]]
) -> list[tuple[str, Row]]:
    """Return edited copies of a row, each with its edit; only those that differ from the others.

    Users' turns are edited. What the assistant says is learnt, so it stays as it is.
    """
    copies: list[tuple[str, Row]] = []
    seen = [row["messages"]]
    for number in range(config.copies):
        random = rng(data_seed, "surface edits", row["origin"], row["row"], number)
        name = random.choice(config.edits)

        def change(turn: Message, name: str = name, random: Any = random) -> Message:
            if turn["role"] != "user":
                return turn
            text = edited(turn["content"], EDITS[name], config.share, random, synonyms)
            return turn if text == turn["content"] else {**turn, "content": text}

        copy = with_turns(row, change)
        if copy["messages"] not in seen and all(
            turn["content"].strip() for turn in copy["messages"] if turn["role"] == "user"
        ):
            seen.append(copy["messages"])
            tier = {"tier": TIER} if "tier" in row else {}
            copies.append((name, copy | {MARK: name} | tier))
    return copies


def _add_copies(config: SurfaceEditsConfig, context: StepContext) -> RowFunction:
    synonyms = shipped_synonyms() if config.synonyms is None else read_synonyms(config.synonyms)

    def step(row: Row) -> Outcome:
        if row.get(MARK):
            return Outcome((row,))
        copies = copies_of(row, config, context.data_seed, synonyms)
        counts = Counter(f"a copy was made by {name}" for name, _ in copies)
        return Outcome((row, *(copy for _, copy in copies)), changes=sorted(counts))

    return each(step)


SURFACE_EDITS = Step(
    "surface_edits",
    "adds copies of training rows whose user's turns are edited: synonyms, swaps, typing errors",
    SurfaceEditsConfig,
    _add_copies,
    makes_rows=True,
    example={"edits": ["synonym", "typing"], "copies": 1},
)
