"""Building demonstrations: clean, de-duplicate, split by prompt. This file only sequences."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

from plumbline.data.records import (
    Conversation,
    Message,
    Row,
    is_held_out,
    opening,
    problem_with,
    prompt_id,
    write_dataset,
)
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.runs.stage import Stage, stage
from sft.config import DemonstrationsConfig
from sft.sources import Demonstrations

_DESCRIPTION = "Conversations that show the work: cleaned, de-duplicated, split by prompt."


@stage("demonstrations")
def build_demonstrations(
    stage: Stage,
    *,
    config: DemonstrationsConfig,
    source: Demonstrations,
    data_seed: int,
    held_out: Demonstrations | None = None,
) -> Mapping[str, float | None]:
    """Make a dataset of demonstrations with splits ``train`` and ``test``.

    ``held_out`` is the split ``test``, where it is given; what shares a prompt with it is not
    trained on. Else a share of the prompts is held out.
    """
    # 1. Clean each conversation, and leave out what cannot be learnt from.
    rows, dropped = clean(source.rows[: config.max_rows], config, source.dropped)
    # 2. Keep one of each: the same conversation twice counts twice in the loss.
    rows = deduplicate(rows, dropped)
    # 3. Split by prompt, so that no prompt is on both sides, and no response that is tested is
    # learnt as an earlier turn of a longer dialogue.
    if held_out is None:
        train, test = split_by_prompt(rows, config.held_out_share, data_seed, source.may_grow)
    else:
        both = Dropped([*dropped.rows, *held_out.dropped.rows])
        test, dropped = clean(held_out.rows, config, both)
        train = without_openings_of(test, rows, dropped)
    if not train or not test:
        raise DataError(
            f"{len(rows)} demonstrations are left of {len(source.rows)} read, which makes "
            f"{len(train)} to train on and {len(test)} held out; both need some. Left out: "
            f"{dropped.reasons() or 'none'}."
        )
    for note in source.notes():
        stage.say_plainly(note)
    stage.report_dropped(dropped)
    counts = write_dataset(
        stage.folder,
        {"train": train, "test": test},
        kind="messages",
        title="Demonstrations",
        description="\n\n".join([_DESCRIPTION, *source.notes()]),
        dropped=dropped,
    )
    forms = Counter(row["form"] for row in rows)
    return counts | {f"{form}_rows": float(count) for form, count in sorted(forms.items())}


def clean(
    rows: Sequence[Row], config: DemonstrationsConfig, dropped: Dropped
) -> tuple[list[Row], Dropped]:
    """Normalise texts and leave out rows that are no demonstration, each with the reason."""
    kept, left_out = [], Dropped(list(dropped.rows))
    for row in rows:
        messages = [clean_message(message) for message in row["messages"]]
        problem = _problem(messages, row["form"], config)
        if problem is None:
            kept.append(row | {"messages": messages})
        else:
            left_out.add(row["origin"], row["row"], problem, row["messages"])
    return kept, left_out


def clean_message(message: Message) -> Message:
    """Return a message in Unicode NFC, with plain line ends, without control characters."""
    text = unicodedata.normalize(
        "NFC", message["content"].replace("\r\n", "\n").replace("\r", "\n")
    )
    text = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")
    return {**message, "content": text.strip()}


def deduplicate(rows: Sequence[Row], dropped: Dropped) -> list[Row]:
    """Keep the first of equal conversations; case and white space make no difference."""
    seen: set[tuple[tuple[str, str, str], ...]] = set()
    kept = []
    for row in rows:
        key = tuple(
            (m["role"], " ".join(m["content"].casefold().split()), str(m.get("tool_calls") or ""))
            for m in row["messages"]
        )
        if key in seen:
            dropped.add(row["origin"], row["row"], "repeats an earlier row", row["messages"])
        else:
            seen.add(key)
            kept.append(row)
    return kept


def split_by_prompt(
    rows: Sequence[Row], held_out_share: float, data_seed: int, may_grow: bool = True
) -> tuple[list[Row], list[Row]]:
    """Split rows so that a prompt is on one side only.

    Where dialogues may grow from each other, all with the same opening are on one side; else what
    stands before the last response decides.
    """
    train: list[Row] = []
    test: list[Row] = []
    for row in rows:
        prompt = opening(row["messages"]) if may_grow else row["messages"][:-1]
        (test if is_held_out(prompt, held_out_share, data_seed) else train).append(row)
    return train, test


def without_openings_of(
    held_out: Sequence[Row], rows: Sequence[Row], dropped: Dropped
) -> list[Row]:
    """Return the rows whose dialogue does not open as a held-out one does."""
    openings = {prompt_id(opening(row["messages"])) for row in held_out}
    kept = []
    for row in rows:
        if prompt_id(opening(row["messages"])) in openings:
            dropped.add(row["origin"], row["row"], "has a held-out prompt", row["messages"])
        else:
            kept.append(row)
    return kept


def _problem(messages: Conversation, form: str, config: DemonstrationsConfig) -> str | None:
    problem = problem_with(messages)
    if problem is not None:
        return problem
    if messages[-1]["role"] != "assistant":
        return f"ends with the {messages[-1]['role']}'s turn, so there is no answer to learn"
    if not any(message["role"] == "user" for message in messages):
        return "has no user's turn, so there is nothing to answer"
    if form not in config.forms:
        return f"is of the form {form}, which forms leaves out"
    if sum(len(message["content"]) for message in messages) > config.max_characters:
        return f"is longer than max_characters ({config.max_characters})"
    return None
