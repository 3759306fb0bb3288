"""Pairs as they come from files and artefacts, and those that no person should be asked about."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from annotation.questions.form import problem_with_showing
from plumbline.data.labels import Choice
from plumbline.data.reader import DataFormatConfig, ExampleReader, ReadReport, ReadRow
from plumbline.data.records import Conversation, problem_with, prompt_id
from plumbline.data.sources import Rows, Source
from plumbline.data.uses import USES
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


def read_pairs(
    path: Path | Source, config: DataFormatConfig | None = None
) -> tuple[list[Pair], ReadReport]:
    """Read pairs from a file in any format of docs/formats.md, or from an artifact's folder.

    A row has a ``prompt`` and the responses ``a`` and ``b``, or ``chosen`` and ``rejected``, which
    become a and b; each is text or messages. It may have a ``pair_id`` (else one is made of its
    text), an ``answer`` and ``reasons``. Rows that are no pairs are kept with the reason.
    """
    if isinstance(path, Source):
        return _pairs_in(ExampleReader(path, USES["pairs"], config))
    if isinstance(path, Source):
        return _pairs_in(ExampleReader(path, USES["pairs"], config))
    file = path / "train.parquet" if path.is_dir() else path
    if not file.is_file():
        raise DataError(
            f"There are no pairs at {path}: it is neither a file nor the folder of a dataset with "
            "a train.parquet."
        )
    return _pairs_in(ExampleReader(file, USES["pairs"], config))


def pairs_of(rows: Iterable[Mapping[str, Any]], origin: str) -> tuple[list[Pair], Dropped]:
    """Read rows as pairs; what is wrong with the others is kept."""
    dropped = Dropped()
    reader = ExampleReader(Rows(origin, rows), USES["pairs"], dropped=dropped)
    return _pairs_in(reader)[0], dropped


def _pairs_in(reader: ExampleReader) -> tuple[list[Pair], ReadReport]:
    pairs: list[Pair] = []
    seen: set[str] = set()
    for entry in reader:
        example = entry.example
        sides = {"prompt": example.prompt, "a": example.a, "b": example.b}
        problem = next(
            (
                f"{name!r} {wrong}"
                for name, turns in sides.items()
                if (wrong := problem_with(turns))
            ),
            None,
        )
        if problem is None:
            pair = _pair(entry)
            problem = GIVEN_TWICE if pair.id in seen else None
        if problem is not None:
            reader.leave_out(entry, problem)
            continue
        seen.add(pair.id)
        pairs.append(pair)
    return pairs, reader.report


def _pair(entry: ReadRow) -> Pair:
    example = entry.example
    assert example.a is not None
    assert example.b is not None
    a, b = example.a[-1]["content"], example.b[-1]["content"]
    nth = f"-{entry.nth}" if entry.nth else ""
    return Pair(
        id=f"{example.id}{nth}" if example.id else _id(example.prompt, a, b),
        prompt=example.prompt,
        a=a,
        b=b,
        answer=example.answer,
        reasons=example.reasons,
    )


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

    first, second = _normalized(a), _normalized(b)
    if first == second:
        return SAME
    return SIMILAR if Indel.normalized_similarity(first, second) >= threshold else None


def _normalized(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
