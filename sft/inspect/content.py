"""What a page of a dataset shows, as plain values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from plumbline.data.records import CONVERSATIONS, Row
from plumbline.dropped import Dropped
from plumbline.temporary import TemporaryFolder
from sft.build.ledger import Ledger
from sft.build.passes import labels_of, run_passes
from sft.cleaning.language import detect, text_to_judge, weight_of
from sft.cleaning.step import texts_of, turns_of
from sft.cleaning.steps import read_step
from sft.inspect.personal_data import find_personal_data, shortened
from sft.sources import from_rows

#: Fewer letters than this tell no language, and a smaller score is not sure.
_LEAST_LETTERS = 20
_SURE = 0.5
_BARS = 24
_SHOWN = 8


class Bar(NamedTuple):
    """A bar of a histogram."""

    start: int
    end: int
    """One more than the largest number that it counts."""
    rows: int


class Piece(NamedTuple):
    """A part of a sample's text."""

    text: str
    learnt: bool


class SampleTurn(NamedTuple):
    """A turn of a sample, or a whole text as a model reads it."""

    role: str
    pieces: Sequence[Piece]


class Sample(NamedTuple):
    """A row as the page shows it."""

    title: str
    parts: Mapping[str, Sequence[SampleTurn]]
    """By what it is: ``dialogue``, or ``chosen`` and ``rejected``."""


class PersonalDataEntry(NamedTuple):
    """What was found of a kind of personal data."""

    kind: str
    matches: int
    rows: int
    examples: Sequence[str]


@dataclass
class Content:
    """All that a page shows."""

    title: str
    kind: str
    """demonstrations or preferences."""
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    """Rows by something (split, form, origin, tier), then by its value."""
    left_out: Sequence[tuple[str, int]] = ()
    characters: Sequence[Bar] = ()
    tokens: Sequence[Bar] = ()
    token_summary: Mapping[str, int] = field(default_factory=dict)
    window: int | None = None
    refused: Mapping[str, int] = field(default_factory=dict)
    """Rows that the model's chat template refuses, by reason."""
    languages: Sequence[tuple[str, int]] = ()
    duplicates: Mapping[str, int] = field(default_factory=dict)
    personal_data: Sequence[PersonalDataEntry] = ()
    samples: Sequence[Sample] = ()
    notes: Sequence[str] = ()


def describe(
    title: str, kind: str, splits: Mapping[str, Sequence[Row]], left_out: Mapping[str, int]
) -> Content:
    """Return everything about rows that needs no model."""
    rows = [row for split in splits.values() for row in split]
    lengths = [sum(map(len, texts_of(row))) for row in rows]
    return Content(
        title=title,
        kind=kind,
        counts=_counts(splits),
        left_out=sorted(left_out.items(), key=lambda entry: -entry[1]),
        characters=histogram(lengths),
        languages=_languages(rows),
        duplicates=_duplicates(rows),
        personal_data=_personal_data(rows),
    )


def histogram(numbers: Sequence[int], bars: int = _BARS) -> list[Bar]:
    """Return bars of equal width up to the 99th percentile, and one for all that is larger."""
    if not numbers:
        return []
    ordered = sorted(numbers)
    most = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    width = max(1, -(-(most + 1) // bars))
    counts = Counter(min(number // width, bars) for number in numbers)
    last = max(counts)
    drawn = [Bar(n * width, (n + 1) * width, counts[n]) for n in range(min(last, bars - 1) + 1)]
    if last == bars:
        drawn.append(Bar(bars * width, ordered[-1] + 1, counts[bars]))
    return drawn


def summary_of(numbers: Sequence[int]) -> dict[str, int]:
    """Return shortest, median, 95th percentile and longest."""
    ordered = sorted(numbers)
    if not ordered:
        return {}
    places = {"shortest": 0.0, "median": 0.5, "95 % at most": 0.95, "longest": 1.0}
    return {name: ordered[round(share * (len(ordered) - 1))] for name, share in places.items()}


def turns_as_written(row: Row, column: str) -> list[SampleTurn]:
    """Return the turns of a row with what is learnt marked, as far as it is known without a model.

    In preference sets the responses are compared, so all of them is marked.
    """
    turns = []
    for turn in row[column]:
        learnt = turn["role"] == "assistant" and turn.get("weight") != 0 and column != "prompt"
        pieces = []
        if turn.get("reasoning_content"):
            pieces.append(Piece(f"[thinking] {turn['reasoning_content']}\n", learnt))
        pieces.append(Piece(turn["content"], learnt))
        for call in turn.get("tool_calls") or ():
            function = call["function"]
            pieces.append(Piece(f"\n[calls] {function['name']}({function['arguments']})", learnt))
        turns.append(SampleTurn(turn["role"], pieces))
    return turns


def _counts(splits: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, int]]:
    counts = {"split": {split: len(rows) for split, rows in splits.items()}}
    for name in ("form", "tier", "origin"):
        values = Counter(
            str(row[name]) for rows in splits.values() for row in rows if row.get(name) is not None
        )
        if values:
            counts[name] = dict(values.most_common(20))
    turns = Counter(
        str(sum(turn["role"] == "assistant" for turn in turns_of(row)))
        for rows in splits.values()
        for row in rows
    )
    return counts | {"turns of the assistant": dict(sorted(turns.items(), key=_by_number)[:12])}


def _by_number(entry: tuple[str, int]) -> int:
    return int(entry[0])


def _languages(rows: Sequence[Row]) -> list[tuple[str, int]]:
    counts: Counter[str] = Counter()
    for row in rows:
        text = text_to_judge(texts_of(row))
        language = detect(text) if weight_of(text) >= _LEAST_LETTERS else None
        sure = language is not None and language.score >= _SURE
        counts[language.code if language is not None and sure else "not sure"] += 1
    return counts.most_common()


def _duplicates(rows: Sequence[Row]) -> dict[str, int]:
    """Count copies by the steps of a build."""
    steps = [
        read_step(name, n) for n, name in enumerate(("exact_duplicates", "near_duplicates"), 1)
    ]
    dialogues = [
        {"messages": [t for column in CONVERSATIONS if column in row for t in row[column]]}
        for row in rows
    ]
    dropped = Dropped()
    with TemporaryFolder() as folder:
        run_passes(
            [from_rows([{"form": "", **row} for row in dialogues], "")],
            steps,
            folder=folder,
            ledger=Ledger(dropped, labels_of(steps)),
            share=0.5,
            data_seed=0,
        )
    return dropped.reasons()


def _personal_data(rows: Sequence[Row]) -> list[PersonalDataEntry]:
    counts: Counter[str] = Counter()
    in_rows: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    for row in rows:
        seen = [entry for text in texts_of(row) for entry in find_personal_data(text)]
        counts.update(kind for kind, _ in seen)
        in_rows.update({kind for kind, _ in seen})
        for kind, text in seen:
            shown = examples.setdefault(kind, [])
            if len(shown) < _SHOWN:
                shown.append(
                    f"{row.get('origin', '')} row {row.get('row', '?')}: {shortened(text)}"
                )
    return [
        PersonalDataEntry(kind, count, in_rows[kind], examples[kind])
        for kind, count in counts.most_common()
    ]
