"""Pairs as they come from files and artefacts, and those that no person should be asked about."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from annotation.campaign.questions import problem_with_showing
from plumbline.data.files import conversation_of, read_records
from plumbline.data.labels import CHOICES, Choice
from plumbline.data.records import Conversation, problem_with, prompt_id, user
from plumbline.dropped import Dropped
from plumbline.errors import DataError

SAME = "has responses that are the same but for case and white space"
SIMILAR = "has responses that are nearly the same"
GIVEN_TWICE = "has the pair_id of an earlier row"


@dataclass(frozen=True)
class Pair:
    """A prompt with two responses to compare."""

    id: str
    prompt: Conversation
    a: str
    b: str
    answer: Choice | None = None
    """The known answer, where there is one."""
    reasons: tuple[str, ...] = ()
    """Why a senior labeller should see it."""

    def to_json(self) -> dict[str, Any]:
        """Return what is needed to show the pair."""
        return {"pair_id": self.id, "prompt": self.prompt, "a": self.a, "b": self.b}


def read_pairs(path: Path) -> tuple[list[Pair], Dropped]:
    """Read pairs from a ``.json``, ``.jsonl`` or ``.parquet`` file or the folder of an artefact.

    A row has a ``prompt`` and the responses ``a`` and ``b``, or TRL's ``chosen`` and ``rejected``,
    which become a and b; each is text or messages. It may have a ``pair_id`` (else one is made of
    its text), an ``answer`` and ``reasons``. Rows that are no pairs are kept with the reason.
    """
    file = path / "train.parquet" if path.is_dir() else path
    if not file.is_file():
        raise DataError(
            f"There are no pairs at {path}: it is neither a file nor the folder of a dataset with "
            "a train.parquet."
        )
    return pairs_of((record for _, record in read_records(file)), file.name)


def pairs_of(rows: Iterable[Mapping[str, Any]], origin: str) -> tuple[list[Pair], Dropped]:
    """Read rows as pairs; what is wrong with the others is kept."""
    pairs: list[Pair] = []
    dropped, seen = Dropped(), set[str]()
    for number, row in enumerate(rows, 1):
        try:
            pair = pair_of(row)
        except ValueError as problem:
            dropped.add(origin, number, str(problem), dict(row))
            continue
        if pair.id in seen:
            dropped.add(origin, number, GIVEN_TWICE, pair.to_json())
            continue
        seen.add(pair.id)
        pairs.append(pair)
    return pairs, dropped


def pair_of(row: Mapping[str, Any]) -> Pair:
    """Return a row as a pair; raise `ValueError` with the reason where it is none."""
    names = ("a", "b") if "a" in row or "b" in row else ("chosen", "rejected")
    missing = [name for name in names if row.get(name) is None]
    if missing:
        raise ValueError(f"has no {' and no '.join(map(repr, missing))}")
    prompt, a, b = _split(row.get("prompt"), *(row[name] for name in names))
    for name, turns in (("prompt", prompt), (names[0], a), (names[1], b)):
        problem = problem_with(turns)
        if problem is not None:
            raise ValueError(f"{name!r} {problem}")
    for name, turns in zip(names, (a, b), strict=True):
        if len(turns) != 1 or turns[0]["role"] != "assistant":
            raise ValueError(f"{name!r} is not one message of the assistant's")
    answer = row.get("answer")
    if answer is not None and answer not in CHOICES:
        raise ValueError(f"has the answer {answer!r}, which is none of {', '.join(CHOICES)}")
    reasons = row.get("reasons") or ()
    return Pair(
        id=str(row.get("pair_id") or _id(prompt, a[0]["content"], b[0]["content"])),
        prompt=prompt,
        a=a[0]["content"],
        b=b[0]["content"],
        answer=answer,
        reasons=(reasons,) if isinstance(reasons, str) else tuple(map(str, reasons)),
    )


def _split(prompt: Any, *sides: Any) -> tuple[Conversation, Conversation, Conversation]:
    """Return prompt and responses as messages; without a prompt, what both dialogues begin with."""
    a, b = (
        [{"role": "assistant", "content": side}] if isinstance(side, str) else conversation_of(side)
        for side in sides
    )
    if prompt is not None:
        turns = [user(prompt)] if isinstance(prompt, str) else conversation_of(prompt)
        return turns, a, b  # type: ignore[return-value]
    if a[:-1] != b[:-1]:
        raise ValueError("has no 'prompt', and its two dialogues differ before their last turn")
    return a[:-1], a[-1:], b[-1:]  # type: ignore[return-value]


def _id(prompt: Conversation, a: str, b: str) -> str:
    text = json.dumps([a, b], ensure_ascii=False)
    return f"{prompt_id(prompt)}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def leave_out(pairs: Sequence[Pair], threshold: float, origin: str) -> tuple[list[Pair], Dropped]:
    """Return the pairs that a person can judge, and the others with the reason."""
    kept, dropped = [], Dropped()
    for number, pair in enumerate(pairs, 1):
        reason = problem_with_showing(pair.prompt, (pair.a, pair.b)) or alike(
            pair.a, pair.b, threshold
        )
        if reason is None:
            kept.append(pair)
        else:
            dropped.add(origin, number, reason, pair.to_json())
    return kept, dropped


def alike(a: str, b: str, threshold: float) -> str | None:
    """Return in what way two responses are too alike to compare, or None where they are not.

    Similarity is 1 less the share of characters to insert or delete to make one of the other
    (Indel distance over the sum of the lengths), on text without case and runs of white space.
    """
    from rapidfuzz.distance import Indel

    one, other = _normalized(a), _normalized(b)
    if one == other:
        return SAME
    return SIMILAR if Indel.normalized_similarity(one, other) >= threshold else None


def _normalized(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
