"""The data of an audit: pairs with a better response, votes of people, and reward benchmarks.

What a file is, its first row decides: RewardBench 2 (lists of responses), preferences (RewardBench
1 among them), or pairs with a column for each person's vote.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from plumbline.data.labels import Label
from plumbline.data.reader import DataFormatConfig, ExampleReader, ReadRow
from plumbline.data.records import (
    Conversation,
    Row,
    problem_with_row,
    prompt_id,
    read_dataset,
    user,
)
from plumbline.data.sources import Rows, Source
from plumbline.data.uses import Use
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.runs.artifacts import Artifact
from reward.audit.people import columns_of_people, majority, votes_in
from reward.audit.reward_bench import is_bench_2

_PREFERENCES = Use(
    "preferences", "pairs to audit by", frozenset(("prompt", "chosen", "rejected")),
    frozenset(("subset", "margin")),
)  # fmt: skip
_PAIRS = Use("pairs", "pairs with votes", frozenset(("prompt", "a", "b")), frozenset(("id",)))
#: Columns that say which model gave a response.
_MODELS = ("chosen_model", "rejected_model")


@dataclass
class AuditPair:
    """A pair: the better response first, where that is known."""

    pair_id: str
    prompt: Conversation
    chosen: str
    rejected: str
    origin: str
    row: int
    subset: str | None = None
    """Its subset in the file; of a file without subsets its name, where there are several."""
    is_decided: bool = True
    """Whether one of the responses is known to be the better; else `chosen` is a."""
    votes: tuple[str, ...] = ()
    """Of people: a where it is for `chosen`, b for `rejected`, tie."""
    orders: tuple[tuple[bool, bool], ...] = ()
    """Of each vote for a side: whether it is for `chosen`, and whether it is for the side that was
    shown first."""
    models: tuple[str, str] | None = None
    """Which models gave the chosen and the rejected response."""


@dataclass
class BenchRow:
    """A row of RewardBench 2: its right responses come first."""

    id: str
    subset: str
    prompt: Conversation
    responses: list[str]
    right: int
    origin: str
    row: int


@dataclass
class AuditData:
    """Everything that a model is audited by."""

    pairs: list[AuditPair] = field(default_factory=list)
    bench: list[BenchRow] = field(default_factory=list)
    dropped: Dropped = field(default_factory=Dropped)
    notes: list[str] = field(default_factory=list)


def read_audit_data(
    sources: Sequence[Artifact | Source],
    config: DataFormatConfig | None = None,
    labels: Sequence[Label] = (),
) -> AuditData:
    """Read every source; raise `DataError` where nothing can be audited by.

    ``labels`` are on the pairs of the sources: by the id of the pair, a and b as they are there.
    """
    data = AuditData()
    for source, name in zip(sources, _names_of(sources), strict=True):
        read_before = len(data.pairs)
        if labels:
            pool = Rows(source.id, _pairs_in(source)) if isinstance(source, Artifact) else source
            _read_labeled(pool, config or DataFormatConfig(), labels, data)
        elif isinstance(source, Artifact):
            rows = read_dataset(source.path, "test")
            _read_preferences(Rows(f"{source.id}:test", rows), DataFormatConfig(), data)
        else:
            _read_source(source, config or DataFormatConfig(), data)
        if len(sources) > 1:
            for pair in data.pairs[read_before:]:
                pair.subset = pair.subset or name
    _leave_out(data)
    if not data.pairs and not data.bench:
        raise DataError(
            f"{', '.join(getattr(s, 'name', None) or str(getattr(s, 'id', s)) for s in sources)} "
            "leaves no pair to audit by. Left out: "
            f"{data.dropped.summary() or 'nothing; there were no rows'}."
        )
    return data


def _names_of(sources: Sequence[Artifact | Source]) -> list[str]:
    """Return what each source is called; files of one name by their whole paths."""
    names = [source.id if isinstance(source, Artifact) else source.name for source in sources]
    return [
        source.place if names.count(name) > 1 and isinstance(source, Source) else name
        for source, name in zip(sources, names, strict=True)
    ]


def _read_source(source: Source, config: DataFormatConfig, data: AuditData) -> None:
    first = next((row.record for row in source.rows() if row.record is not None), None)
    if first is not None and is_bench_2(first) and not config.columns:
        _read_bench_2(source, data)
        return
    people = columns_of_people(first or {})
    if people and not {"chosen", "rejected"} & set(first or {}):
        _read_votes(source, config, people, data)
        return
    _read_preferences(source, config, data)


def _read_preferences(source: Source | Rows, config: DataFormatConfig, data: AuditData) -> None:
    reader = ExampleReader(source, _PREFERENCES, config, dropped=data.dropped)
    for entry in reader:
        example = entry.example
        row: Row = {
            "prompt": example.prompt, "chosen": example.chosen, "rejected": example.rejected,
        }  # fmt: skip
        problem = _problem(row)
        if problem is not None:
            reader.leave_out(entry, problem)
            continue
        pair = _pair(entry, row["chosen"], row["rejected"], reader.report.origin)
        pair.subset = example.subset
        pair.models = _models_of(entry.record)
        data.pairs.append(pair)
    data.notes += reader.report.notes()


def _read_votes(
    source: Source, config: DataFormatConfig, people: Sequence[str], data: AuditData
) -> None:
    reader = ExampleReader(source, _PAIRS, config, dropped=data.dropped)
    for entry in reader:
        example, votes = entry.example, votes_in(entry.record, people)
        row: Row = {"prompt": example.prompt, "chosen": example.a, "rejected": example.b}
        problem = _problem(row)
        if problem is None and not votes:
            problem = "has no vote"
        if problem is not None:
            reader.leave_out(entry, problem)
            continue
        choice = majority(votes)
        sides = (row["chosen"], row["rejected"])
        if choice == "b":
            sides, votes = sides[::-1], [{"a": "b", "b": "a"}.get(v, v) for v in votes]
        pair = _pair(entry, *sides, reader.report.origin)
        pair.votes, pair.is_decided = tuple(votes), choice in ("a", "b")
        data.pairs.append(pair)
    data.notes.append(f"{reader.report.origin}: votes of {', '.join(people)}")


def _pairs_in(artifact: Artifact) -> list[Row]:
    return read_dataset(artifact.path, "train")


def _read_labeled(
    source: Source | Rows, config: DataFormatConfig, labels: Sequence[Label], data: AuditData
) -> None:
    """Read pairs whose better response is the one that most labels are for."""
    by_pair: dict[str, list[Label]] = defaultdict(list)
    for label in labels:
        if label.purpose == "vote":
            by_pair[label.pair_id].append(label)
    reader = ExampleReader(source, _PAIRS, config, dropped=data.dropped)
    for entry in reader:
        example = entry.example
        row: Row = {"prompt": example.prompt, "chosen": example.a, "rejected": example.b}
        pair = None
        problem = _problem(row)
        if problem is None:
            pair = _pair(entry, row["chosen"], row["rejected"], reader.report.origin)
            problem = None if by_pair[pair.pair_id] else "has no label"
        if problem is not None or pair is None:
            reader.leave_out(entry, str(problem))
            continue
        of_pair = by_pair[pair.pair_id]
        votes: list[str] = ["tie" if v.choice == "both_bad" else v.choice for v in of_pair]
        better = majority(votes)
        if better == "b":
            pair.chosen, pair.rejected = pair.rejected, pair.chosen
            votes = [{"a": "b", "b": "a"}.get(vote, vote) for vote in votes]
        pair.votes, pair.is_decided = tuple(votes), better in ("a", "b")
        pair.orders = tuple(
            (label.choice == ("b" if better == "b" else "a"), label.choice == label.shown_first)
            for label in of_pair
            if label.choice in ("a", "b") and label.shown_first is not None
        )
        data.pairs.append(pair)
    data.notes.append(f"{reader.report.origin}: {len(labels)} labels")


def _read_bench_2(source: Source, data: AuditData) -> None:
    for row in source.rows():
        record = row.record
        problem = row.problem if record is None else _bench_problem(record)
        if problem is not None or record is None:
            data.dropped.add(source.name, row.number, problem or "cannot be read", record)
            continue
        chosen, rejected = list(record["chosen"]), list(record["rejected"])
        right = int(record["num_correct"])
        data.bench.append(
            BenchRow(
                str(record.get("id", row.number)), str(record["subset"]),
                [user(str(record["prompt"]))], [*chosen, *rejected], right, source.name, row.number,
            )
        )  # fmt: skip
    data.notes.append(f"{source.name}: {len(data.bench)} rows of RewardBench 2")


def _bench_problem(record: Mapping[str, Any]) -> str | None:
    if not is_bench_2(record):
        return "is not a row of RewardBench 2, as the first one is"
    texts = [*record["chosen"], *record["rejected"]]
    if not isinstance(record.get("prompt"), str) or not all(isinstance(t, str) for t in texts):
        return "has a prompt or a response that is not text"
    right = record["num_correct"]
    if right != len(record["chosen"]) or not 0 < right < len(texts):
        return f"has num_correct {right!r}, and {len(record['chosen'])} right responses"
    return None


def _problem(row: Row) -> str | None:
    if row["chosen"] and row["rejected"]:
        sides = [row[name][-1]["content"] for name in ("chosen", "rejected")]
        if not all(isinstance(text, str) and text.strip() for text in sides):
            return "has an empty response"
    problem = problem_with_row(row, "preference")
    if problem is None and row["chosen"] == row["rejected"]:
        problem = "chosen and rejected are the same"
    if problem is None and any(len(row[side]) != 1 for side in ("chosen", "rejected")):
        problem = "has responses of several turns"
    return problem


def _pair(entry: ReadRow, chosen: Conversation, rejected: Conversation, origin: str) -> AuditPair:
    record, nth = entry.record, f"-{entry.nth}" if entry.nth else ""
    known = record.get("pair_id", entry.example.id)
    prompt = entry.example.prompt
    name = str(known) if known is not None else f"{prompt_id(prompt)}-{entry.number}{nth}"
    texts = (str(chosen[-1]["content"]), str(rejected[-1]["content"]))
    return AuditPair(name, prompt, *texts, origin, entry.number)


def _models_of(record: Mapping[str, Any]) -> tuple[str, str] | None:
    chosen, rejected = (record.get(name) for name in _MODELS)
    return (str(chosen), str(rejected)) if chosen and rejected else None


def _leave_out(data: AuditData) -> None:
    """Leave out pairs that repeat an earlier one."""
    seen: set[tuple[str, str, str]] = set()
    kept = []
    for pair in data.pairs:
        key = (prompt_id(pair.prompt), pair.chosen, pair.rejected)
        if key in seen:
            data.dropped.add(pair.origin, pair.row, "repeats an earlier row", pair.pair_id)
            continue
        seen.add(key)
        kept.append(pair)
    data.pairs = kept
