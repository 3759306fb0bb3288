"""Wrong answers as ids beside the right one, and in batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from plumbline.data.records import Row, assistant
from plumbline.lm.chat import ConversationRefusedError, EncodedTurns, encode_demonstration
from plumbline.lm.chat_template import Tool
from sft.losses import AnswerLogprobs
from sft.wrong_answers import wrong_answers_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WRONG_IDS = "wrong_ids"
"""The column of the tokenised dataset with the ids of each wrong answer behind its prompt."""
WRONG_STARTS = "wrong_starts"
"""The column with the number of the first token of each of them."""
START = "answer_start"
"""The column with that number for the right answer; 0 where a row has no wrong ones."""
COLUMNS = (WRONG_IDS, WRONG_STARTS, START)
NO_WRONG_ANSWERS: Mapping[str, Any] = {WRONG_IDS: [], WRONG_STARTS: [], START: 0}
"""The columns of a row that has none."""
BATCH = "wrong_answers"
"""The key of a batch with a `WrongAnswers` as a dictionary."""


def encode_wrong_answers(
    tokenizer: PreTrainedTokenizerBase,
    row: Row,
    right: EncodedTurns,
    tools: Sequence[Tool] = (),
) -> dict[str, Any]:
    """Return the columns of a row's wrong answers; ``right`` ends with the right one.

    Raises `ConversationRefusedError` for wrong answers that cannot be compared with the right one.
    """
    texts, messages = wrong_answers_of(row), row["messages"]
    if not texts:
        return dict(NO_WRONG_ANSWERS)
    last = len(messages) - 1
    if right.turns[-1] != last:
        raise ConversationRefusedError(
            "has wrong answers, and its last message is not a response that is learnt"
        )
    wrong = [
        encode_demonstration(
            tokenizer, [*messages[:-1], assistant(text)], last_turn_only=True, tools=tools
        )[0]
        for text in texts
    ]
    start = right.turns.index(last)
    if any(answer.ids == right.ids for answer in wrong):
        raise ConversationRefusedError("has its right answer among the wrong ones")
    return {
        WRONG_IDS: [answer.ids for answer in wrong],
        WRONG_STARTS: [answer.turns.index(last) for answer in wrong],
        START: start,
    }


class WithWrongAnswers:
    """A collator that also collates wrong answers, where rows have their columns."""

    def __init__(self, collate: Callable[[list[Mapping[str, Any]]], dict[str, Any]]) -> None:
        self._collate = collate

    def __call__(self, examples: list[Mapping[str, Any]]) -> dict[str, Any]:
        """Return a batch; wrong answers are padded to the width of the rows, and they to theirs."""
        if START not in examples[0]:
            return self._collate(examples)
        wrong: list[Mapping[str, Any]] = [
            {"input_ids": ids, "labels": [-100] * start + ids[start:]}
            for example in examples
            for ids, start in zip(example[WRONG_IDS], example[WRONG_STARTS], strict=True)
        ]
        plain = [{name: example[name] for name in ("input_ids", "labels")} for example in examples]
        both, rows = self._collate([*plain, *wrong]), len(examples)
        batch: dict[str, Any] = {name: value[:rows] for name, value in both.items()}
        batch[BATCH] = {name: value[rows:] for name, value in both.items()} | {
            "row": torch.tensor(
                [n for n, example in enumerate(examples) for _ in example[WRONG_IDS]],
                dtype=torch.long,
            ),
            "start": torch.tensor([example[START] for example in examples]),
        }
        return batch


def with_wrong_rows(inputs: Mapping[str, Any], wrong: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the model reads: the rows of a batch, and behind them its wrong answers."""
    return {name: torch.cat([value, wrong[name]]) for name, value in inputs.items()}


def answer_logprobs(logprobs: Tensor, labels: Tensor, wrong: Mapping[str, Any]) -> AnswerLogprobs:
    """Return answers apart from what else is learnt in their rows.

    Args:
        logprobs: [R + W, P] of each token but the first, rows first; 0 where nothing is learnt.
            Virtual tokens may stand in front.
        labels: [R, T] of the rows, T - 1 <= P.
        wrong: what `WithWrongAnswers` adds to the batch.
    """
    rows, width = len(labels), labels.shape[1] - 1
    own = logprobs[:, logprobs.shape[1] - width :]
    places = torch.arange(1, width + 1, device=labels.device)
    return AnswerLogprobs(
        right=own[:rows],
        right_mask=(labels[:, 1:] != -100) & (places >= wrong["start"][:, None]),
        wrong=own[rows:],
        wrong_mask=wrong["labels"][:, 1:] != -100,
        row=wrong["row"],
    )
