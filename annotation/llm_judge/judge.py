"""An LLM as a judge of pairs: it sees both orders, and its labels are records like people's.

Models prefer the first or the second position (Zheng et al., 2023, "Judging LLM-as-a-Judge with
MT-Bench and Chatbot Arena"). So a pair is shown in both orders, and its label is the verdict that
holds in both. Where the verdict depends on the order, the pair becomes a tie or gets no label.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from annotation.llm_judge.client import JudgeEndpoint, Key, journal
from annotation.llm_judge.config import JudgeConfig
from annotation.llm_judge.prompt import Reading, Side, question, read_reply
from annotation.pair_ids import checked_ids
from plumbline.data.labels import Choice, Label, write_labels
from plumbline.data.records import Message, Row, read_dataset
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.lm.endpoint.answers import Journal
from plumbline.lm.endpoint.client import Reply, TurnedDown, ask_all
from plumbline.runs.artifacts import Artifact
from plumbline.runs.stage import Stage, stage
from plumbline.seeds import rng

ANSWERS_FILE = "answers.jsonl"
"""Beside the labels: every answer, unchanged, with its tokens."""
INCONSISTENT = "inconsistent"
"""The flag of a label on a pair whose verdict depends on the order."""
ORDERS: tuple[Side, Side] = ("a", "b")


class Judgment(NamedTuple):
    """The outcome of both orders: a choice, or why there is none."""

    choice: Choice | None
    consistent: bool | None
    """Whether both orders have the same verdict; None where they cannot be compared."""
    reason: str | None


@stage("labels")
def judge_pairs(
    stage: Stage, *, config: JudgeConfig, pairs: Artifact, data_seed: int
) -> dict[str, float | None]:
    """Let an LLM judge pairs: one label per pair, from two answers.

    Each answer is kept in the stage's shards, so a stage that is killed resumes.
    """
    rows = read_dataset(pairs.path, "train")
    ids = checked_ids(rows, pairs.id)

    # 1. Ask about every pair in both orders.
    file = stage.shards / ANSWERS_FILE
    replies = journal(file)
    questions = [
        (Key(name, first), partial(_ask, config, row, first, data_seed))
        for name, row in zip(ids, rows, strict=True)
        for first in ORDERS
    ]
    stage.say(
        f"asks {config.model} on {config.where}; {len(questions)} requests, "
        f"{len(replies)} answered before"
    )
    turned_down = _ask_all(stage, config, questions, replies)

    # 2. Make one label of two answers, or count the pair with the reason.
    labels, dropped = [], Dropped()
    judgments = []
    for number, (name, row) in enumerate(zip(ids, rows, strict=True), 1):
        answers = {first: replies.answers.get(Key(name, first)) for first in ORDERS}
        readings = {
            first: read_reply(answer) if answer else None for first, answer in answers.items()
        }
        judgment = combine(readings["a"], readings["b"], config)
        judgments.append(judgment)
        if judgment.choice is None:
            dropped.add(pairs.id, number, str(judgment.reason), name)
        else:
            labels.append(_label(config, row, judgment, answers, readings, data_seed))
    stage.report_dropped(dropped)
    if not labels:
        raise DataError(
            f"The judge {config.model!r} gave no label to any of {len(rows)} pairs: "
            f"{dropped.summary()}. Its answers are in {file}. Use another model, or change "
            "judge.structured or judge.max_tokens."
        )

    # 3. Write the labels, and every answer unchanged.
    write_labels(stage.folder, labels)
    shutil.copyfile(file, stage.folder / ANSWERS_FILE)
    return metrics(config, labels, judgments, list(replies.answers.values()), turned_down)


def combine(a_first: Reading | None, b_first: Reading | None, config: JudgeConfig) -> Judgment:
    """Combine the verdicts of both orders; None is a request without an answer."""
    choices = []
    for first, reading in zip(ORDERS, (a_first, b_first), strict=True):
        if reading is None:
            return Judgment(None, None, "the endpoint refused a request")
        if reading.problem is not None:
            return Judgment(None, None, f"the judge {reading.problem}")
        choices.append(choice_of(reading, first))
    if choices[0] == choices[1]:
        return Judgment(choices[0], True, None)
    if config.inconsistent == "leave_out":
        return Judgment(None, False, "the verdict depends on the order")
    return Judgment("tie", False, None)


def choice_of(reading: Reading, first: Side) -> Choice:
    """Return the response that a verdict means, by which one was shown first."""
    if reading.verdict == "tie":
        return "tie"
    return first if reading.verdict == "first" else _other(first)


def metrics(
    config: JudgeConfig,
    labels: Sequence[Label],
    judgments: Sequence[Judgment],
    answers: Sequence[Reply],
    turned_down: Sequence[TurnedDown],
) -> dict[str, float | None]:
    """Return a judge's metrics: consistency, position bias, failures and cost.

    ``position_consistency`` is the share of pairs with the same verdict in both orders.
    ``first_share`` is the share of verdicts for either response that went to the one shown first;
    0.5 means no position bias. Problems are counted per answer, and each pair has two.
    """
    compared = [j.consistent for j in judgments if j.consistent is not None]
    readings = [read_reply(answer) for answer in answers]
    sided = [r.verdict for r in readings if r.verdict in ("first", "second")]
    problems = Counter(reading.problem for reading in readings)
    prompt, completion = (
        sum(int(answer[kind] or 0) for answer in answers)
        for kind in ("prompt_tokens", "completion_tokens")
    )
    cost = None
    if config.input_price is not None and config.output_price is not None:
        cost = (prompt * config.input_price + completion * config.output_price) / 1e6
    return {
        "labels": float(len(labels)),
        "position_consistency": sum(compared) / len(compared) if compared else None,
        "first_share": sided.count("first") / len(sided) if sided else None,
        "ties": float(sum(label.choice == "tie" for label in labels)),
        "inconsistent": float(compared.count(False)),
        "pairs": float(len(judgments)),
        "left_out": float(len(judgments) - len(labels)),
        "refused": float(problems["refused to judge"]),
        "unreadable": float(problems["replied without a readable verdict"]),
        "cut_off": float(problems["was cut off"]),
        "turned_down": float(len(turned_down)),
        "answers": float(len(answers)),
        "retries": float(sum(int(answer["retries"] or 0) for answer in answers)),
        "prompt_tokens": float(prompt),
        "completion_tokens": float(completion),
        "answers_without_usage": float(sum(a["completion_tokens"] is None for a in answers)),
        "cost": cost,
    }


def _ask(config: JudgeConfig, row: Row, first: Side, seed: int, structured: bool) -> list[Message]:
    return question(config, row, first, structured=structured, seed=seed)


def _ask_all(
    stage: Stage,
    config: JudgeConfig,
    questions: Sequence[tuple[Key, Callable[[bool], list[Message]]]],
    replies: Journal[Key],
) -> list[TurnedDown]:
    endpoint = JudgeEndpoint(config)
    try:
        with stage.bar("answers", len(questions)) as bar:
            bar.update(len(replies))
            refused = ask_all(
                [(key, partial(endpoint.ask, key, messages)) for key, messages in questions],
                replies,
                config,
                progress=bar.advance,
            )
    finally:
        endpoint.close()
    if config.structured == "auto" and not endpoint.structured:
        stage.say("the endpoint accepts no JSON schema: verdicts are read from text")
    turned_down = list(refused.values())
    if turned_down:
        stage.say_plainly(
            f"{len(turned_down)} requests were refused, such as: {turned_down[0].reason}"
        )
    return turned_down


def _label(
    config: JudgeConfig,
    row: Row,
    judgment: Judgment,
    answers: Mapping[Side, Reply | None],
    readings: Mapping[Side, Reading | None],
    data_seed: int,
) -> Label:
    """Return the label of a pair, with the reasons given in one of the orders, drawn at random.

    The reasons name response 1 and 2; ``shown_first`` says which of the pair was 1.
    """
    random = rng(data_seed, "judge's label", row["pair_id"])
    first: Side = "a" if random.random() < 0.5 else "b"
    reading, answer = readings[first], answers[first]
    assert reading is not None and answer is not None and judgment.choice is not None
    return Label(
        pair_id=str(row["pair_id"]),
        annotator=config.model,
        source="llm",
        choice=judgment.choice,
        created_at=str(answer["at"]),
        shown_first=first,
        rationale=reading.rationale,
        flags=() if judgment.consistent else (INCONSISTENT,),
    )


def _other(side: Side) -> Side:
    return "b" if side == "a" else "a"
