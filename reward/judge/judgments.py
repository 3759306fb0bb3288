"""Questions to a judge, and judgments to learn from: preferences, each in both orders."""

from __future__ import annotations

from collections.abc import Sequence

from plumbline.data.records import Conversation, Message, Row, assistant, read_dataset, user
from plumbline.runs.artifacts import Artifact

#: What a judge replies, by the verdict.
REPLIES = {"first": "1", "second": "2"}


def judge_question(prompt: Sequence[Message], first: str, second: str) -> Conversation:
    """Return the question which of two responses to a dialogue is better, as one user's turn."""
    dialogue = "\n".join(f"{message['role']}: {message['content']}" for message in prompt)
    return [
        user(
            f"{dialogue}\n\nResponse 1: {first}\n\nResponse 2: {second}\n\n"
            "Which response is better, 1 or 2?"
        )
    ]


def judgments(preferences: Artifact, split: str = "train") -> list[Row]:
    """Return every preference of a split as two demonstrations, one for each order.

    A judge that learnt from one order alone would learn the place with the label.
    """
    rows: list[Row] = []
    for row in read_dataset(preferences.path, split):
        chosen, rejected = (row[side][-1]["content"] for side in ("chosen", "rejected"))
        for first, second, verdict in ((chosen, rejected, "first"), (rejected, chosen, "second")):
            question = judge_question(row["prompt"], first, second)
            messages = [*question, assistant(REPLIES[verdict])]
            rows.append({"messages": messages, "form": "single_turn"})
    return rows
