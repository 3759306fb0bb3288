"""What a person sees who corrects a question and its answer, and the rows that can be shown."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from annotation.argilla.form import Field, Form, Question
from plumbline.data.records import Row
from plumbline.errors import DataError

PASSAGE, DOUBT, ASKED, ANSWERED = "passage", "doubt", "asked", "answered"
QUESTION, ANSWER = "question", "answer"
REASON, SLICE = "reason", "slice"
_LONGEST = 20_000
_GUIDELINES = """\
# Correct the question and the answer

You see a piece of a text, and a question and an answer that a model made of it. A check was in
doubt about them.

1. Read the piece of text.
2. Make the question one that a person would ask, and that the text answers. It must make sense
   without the text beside it: name what it asks about.
3. Make the answer right and whole, by the text alone.
4. Submit. Submit without a change if both are good as they are.

Discard what cannot be made good: a text that says nothing worth asking about, or is broken.
"""


def form() -> Form:
    """Return the form: the passage, why there is doubt, and both texts to edit."""
    return Form(
        (
            Field(PASSAGE, "Text", "text", required=False),
            Field(DOUBT, "Why it is doubtful", "text", required=False),
            Field(ASKED, "Question, as it was written", "text"),
            Field(ANSWERED, "Answer, as it was written", "text"),
        ),
        (
            Question(QUESTION, "Question", "text", required=True),
            Question(ANSWER, "Answer", "text", required=True),
        ),
        _GUIDELINES,
    )


def shown(row: Row) -> dict[str, Any]:
    """Return what the record of a row shows; texts that are absent are left out."""
    question, answer = row["messages"][-2:]
    texts = {
        PASSAGE: row.get(SLICE),
        DOUBT: row.get(REASON),
        ASKED: question["content"],
        ANSWERED: answer["content"],
    }
    return {name: text for name, text in texts.items() if text}


def corrected(row: Row, values: Mapping[str, Any]) -> Row:
    """Return a row with a person's question and answer; ``review`` says whether they changed."""
    *before, question, answer = row["messages"]
    texts = (str(values[QUESTION]).strip(), str(values[ANSWER]).strip())
    changed = texts != (question["content"].strip(), answer["content"].strip())
    turns = [*before, question | {"content": texts[0]}, answer | {"content": texts[1]}]
    kept = {name: value for name, value in row.items() if name not in (REASON, SLICE)}
    return kept | {"messages": turns, "review": "corrected" if changed else "confirmed"}


def item_of(row: Row) -> str:
    """Return the id of a row's record: a digest of its content."""
    text = json.dumps(row, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def read_doubtful(file: Path) -> list[Row]:
    """Read rows to correct: JSON lines, each a dialogue that ends in a question and an answer.

    Raises `DataError` with the line of a row that cannot be shown.
    """
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {error}. Give a file of JSON lines.") from None
    rows: dict[str, Row] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            row = _row(line, f"{file}, line {number}")
            rows.setdefault(item_of(row), row)
    if not rows:
        raise DataError(f"{file} has no rows, so there is nothing to correct.")
    return list(rows.values())


def _row(line: str, place: str) -> Row:
    try:
        row: Row = json.loads(line)
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{place} has half of a character ({error.object[error.start]!a}, a surrogate on its "
            "own), which no text can hold. Write the whole character, or take it out. Nothing was "
            "sent."
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} is not JSON ({error}). Nothing was sent.") from None
    messages = row.get("messages") if isinstance(row, dict) else None
    turns = messages if isinstance(messages, list) else []
    roles = [turn.get("role") if isinstance(turn, dict) else None for turn in turns[-2:]]
    if roles != ["user", "assistant"]:
        raise DataError(
            f"{place} has no 'messages' that end in a user's turn and an assistant's. Nothing was "
            "sent. Give rows like those of doubtful.jsonl."
        )
    for name, text in shown_texts(row).items():
        if not isinstance(text, str) or len(text) > _LONGEST or "\0" in text:
            raise DataError(
                f"{place}: the {name} is not a text, has a NUL character, or is longer than "
                f"{_LONGEST:,} characters, which no page shows. Nothing was sent."
            )
        if name in ("question", "answer") and not text.strip():
            raise DataError(f"{place}: the {name} is empty. Nothing was sent.")
    return row


def shown_texts(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the texts of a row that a page shows, by what they are."""
    question, answer = row["messages"][-2:]
    return {
        "question": question.get("content"),
        "answer": answer.get("content"),
        SLICE: row.get(SLICE) or "",
        REASON: row.get(REASON) or "",
    }
