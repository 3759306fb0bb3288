"""Human preferences from files: Anthropic's HH format, TRL's and ShareGPT's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from plumbline.data.files import conversation_of, read_records
from plumbline.data.records import (
    Conversation,
    Row,
    assistant,
    is_held_out,
    problem_with_row,
    prompt_id,
    write_dataset,
)
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.runs.calls import SourceFile
from plumbline.runs.stage import Stage, stage
from preference.config import PreferenceFileConfig

_HH_TURN = re.compile(r"\n\n(Human|Assistant):[ ]?")


@stage("preferences")
def import_preferences(
    stage: Stage, *, config: PreferenceFileConfig, file: SourceFile, data_seed: int
) -> Mapping[str, float | None]:
    """Make a preference dataset with splits ``train`` and ``test`` from a file."""
    rows, dropped = read_preferences(file, config)
    train = [r for r in rows if not is_held_out(r["prompt"], config.held_out_share, data_seed)]
    test = [r for r in rows if is_held_out(r["prompt"], config.held_out_share, data_seed)]
    if not train or not test:
        raise DataError(
            f"{file.path} leaves {len(train)} pairs to train on and {len(test)} held out; both "
            f"need some. Left out: {dropped.reasons() or 'none'}."
        )
    stage.report_dropped(dropped)
    return write_dataset(
        stage.folder,
        {"train": train, "test": test},
        kind="preference",
        title="Preferences",
        description=f"Human preferences from {file.path.name}, split by prompt.",
        dropped=dropped,
    )


def read_preferences(file: SourceFile, config: PreferenceFileConfig) -> tuple[list[Row], Dropped]:
    """Read rows with ``prompt``, ``chosen``, ``rejected``; keep what is wrong with the others."""
    rows: list[Row] = []
    dropped, origin = Dropped(), file.path.name
    seen: set[str] = set()
    for number, record in read_records(file.path):
        if config.max_rows is not None and len(rows) + len(dropped.rows) >= config.max_rows:
            break
        try:
            row = preference_row(record)
        except ValueError as problem:
            dropped.add(origin, number, str(problem), record)
            continue
        reason = _problem(row, config, seen)
        if reason is not None:
            dropped.add(origin, number, reason, record)
            continue
        rows.append(
            {
                "pair_id": f"{prompt_id(row['prompt'])}-{number}",
                **row,
                "origin": origin,
                "row": number,
            }
        )
    return rows, dropped


def preference_row(record: Mapping[str, Any]) -> Row:
    """Turn a record into prompt, chosen and rejected; raise `ValueError` where it is none."""
    if "chosen" not in record or "rejected" not in record:
        raise ValueError(f"has the keys {', '.join(sorted(record))}, but no chosen and rejected")
    chosen, rejected = record["chosen"], record["rejected"]
    if "conversations" in record:  # ShareGPT: the prompt's turns, then one message each
        prompt = conversation_of(record["conversations"])
        return _row(prompt, conversation_of([chosen]), conversation_of([rejected]))
    if isinstance(chosen, str) and "prompt" not in record:
        return _split_common_prompt(read_hh(chosen), read_hh(rejected))
    if isinstance(chosen, str):
        prompt = record["prompt"]
        turns = conversation_of(prompt) if not isinstance(prompt, str) else read_hh(prompt)
        return _row(turns, [assistant(chosen)], [assistant(rejected)])
    if "prompt" not in record:
        return _split_common_prompt(conversation_of(chosen), conversation_of(rejected))
    return _row(
        conversation_of(record["prompt"]), conversation_of(chosen), conversation_of(rejected)
    )


def read_hh(text: str) -> Conversation:
    """Read a dialogue in Anthropic's HH format; a text without its marks is one user's turn."""
    parts = _HH_TURN.split(text)
    if len(parts) == 1:
        return [{"role": "user", "content": text}]
    if parts[0].strip():
        raise ValueError("has text before the first 'Human:' or 'Assistant:'")
    roles = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": roles[speaker], "content": content.strip()}
        for speaker, content in zip(parts[1::2], parts[2::2], strict=True)
    ]


def _split_common_prompt(chosen: Conversation, rejected: Conversation) -> Row:
    """Split two dialogues that share all but their last turn."""
    for name, dialogue in (("chosen", chosen), ("rejected", rejected)):
        if not dialogue or dialogue[-1]["role"] != "assistant":
            raise ValueError(f"{name!r} does not end with the assistant's turn")
    if chosen[:-1] != rejected[:-1]:
        raise ValueError("chosen and rejected answer different prompts")
    return _row(chosen[:-1], chosen[-1:], rejected[-1:])


def _row(prompt: Conversation, chosen: Conversation, rejected: Conversation) -> Row:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def _problem(row: Row, config: PreferenceFileConfig, seen: set[str]) -> str | None:
    problem = problem_with_row(row, "preference")
    if problem is not None:
        return problem
    if row["prompt"][-1]["role"] != "user":
        return f"'prompt' ends with the {row['prompt'][-1]['role']}'s turn, not the user's"
    if row["chosen"] == row["rejected"]:
        return "chosen and rejected are the same"
    key = prompt_id([*row["prompt"], *row["chosen"], *row["rejected"]])
    if key in seen:
        return "repeats an earlier row"
    seen.add(key)
    texts = [sum(len(m["content"]) for m in row[name]) for name in ("prompt", "chosen", "rejected")]
    if texts[0] + max(texts[1:]) > config.max_characters:
        return f"is longer than max_characters ({config.max_characters})"
    return None
