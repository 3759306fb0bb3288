"""What writes questions: a model on this machine, or one behind an OpenAI-compatible endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from plumbline.lm.generation import SamplingConfig
from plumbline.lm.policy import Policy
from sft.documents.document import content_words, is_chinese

_ENGLISH = """\
Sentence: The bridge was closed because its cables had begun to rust.
Question: Why was the bridge closed?

Sentence: If the temperature falls below zero, the heating starts by itself.
Question: What happens if the temperature falls below zero?

Sentence: A thermostat is a device that keeps the temperature of a room steady.
Question: What is a thermostat?

"""
_CHINESE = """\
句子：蜜蜂用舞蹈告诉同伴花在哪个方向。
问题：蜜蜂怎样告诉同伴花在哪个方向？

句子：因为缆索生锈，这座桥禁止卡车通行。
问题：为什么这座桥禁止卡车通行？

句子：恒温器是使房间温度保持稳定的装置。
问题：什么是恒温器？

"""
#: Words that come from the examples where a sentence does not have them.
EXAMPLE_WORDS = frozenset(content_words("bridge cables rust thermostat temperature heating bees"))


def request_for(sentence: str, start: str) -> str:
    """Return a text that a model continues with the rest of a question.

    Examples and the sentence, then the question's beginning. A small model continues examples far
    better than it follows an instruction.
    """
    if is_chinese(sentence):
        return f"{_CHINESE}句子：{sentence}\n问题：{start}"
    return f"{_ENGLISH}Sentence: {sentence}\nQuestion: {start}"


class Generator(Protocol):
    """Writes questions, and says how well a question leads to its answer."""

    def questions(
        self, sentences: Sequence[str], starts: Sequence[str], seeds: Sequence[int]
    ) -> list[str]:
        """Return a question for each sentence, beginning as the start does."""
        ...

    def gains(self, questions: Sequence[str], answers: Sequence[str]) -> list[float | None]:
        """Return by how much each question raises its answer's log-probability, in nats per token.

        The mean over the answer's tokens of log p(token | question) - log p(token | no question).
        None where the generator gives no probabilities.
        """
        ...


class LocalGenerator:
    """A model on this machine."""

    def __init__(self, policy: Policy, sampling: SamplingConfig) -> None:
        self._policy = policy
        self._sampling = sampling

    def questions(
        self, sentences: Sequence[str], starts: Sequence[str], seeds: Sequence[int]
    ) -> list[str]:
        """Return a question for each sentence, beginning as the start does."""
        prompts = [self._ids(request_for(*pair)) for pair in zip(sentences, starts, strict=True)]
        sampled = self._policy.sample(prompts, seeds, self._sampling)
        return [
            first_question(start + self._policy.decode(generation.ids))
            for start, generation in zip(starts, sampled, strict=True)
        ]

    def gains(self, questions: Sequence[str], answers: Sequence[str]) -> list[float | None]:
        """Return by how much each question raises its answer's log-probability."""
        ids = [self._ids(answer) for answer in answers]
        with_question = [
            self._ids(f"问题：{q}\n答案：" if is_chinese(q) else f"Question: {q}\nAnswer: ")
            for q in questions
        ]
        without = [self._ids("答案：" if is_chinese(answer) else "Answer: ") for answer in answers]
        means = [self._means(prompts, ids) for prompts in (with_question, without)]
        return [after - before for after, before in zip(*means, strict=True)]

    def _means(self, prompts: list[list[int]], answers: list[list[int]]) -> list[float]:
        means: list[float] = []
        for at in range(0, len(prompts), 16):
            part = answers[at : at + 16]
            values = self._policy.logprobs_of(prompts[at : at + 16], part, batch_size=16)
            means += [float(row[: len(ids)].mean()) for row, ids in zip(values, part, strict=True)]
        return means

    def _ids(self, text: str) -> list[int]:
        return list(self._policy.tokenizer(text, add_special_tokens=False)["input_ids"])


def first_question(text: str) -> str:
    """Return the first line of a text up to its question mark."""
    line = text.strip().splitlines()[0] if text.strip() else ""
    for mark in "?？":
        if mark in line:
            return line[: line.index(mark) + 1].strip()
    return line.strip()
