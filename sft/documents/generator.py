"""What writes questions: a model on this machine, or one behind an OpenAI-compatible endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from plumbline.data.records import Message, user
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.policy import Policy
from plumbline.lm.writer import Writer
from sft.documents.document import is_chinese
from sft.documents.question_forms import QuestionForm, request_for

_ANSWER_TOKENS = 32
_PARTS = 16


class Generator(Protocol):
    """Writes questions, answers them, and says how well a question leads to its answer."""

    def questions(
        self, sentences: Sequence[str], forms: Sequence[QuestionForm], seeds: Sequence[int]
    ) -> list[str]:
        """Return a question of the form to each sentence."""
        ...

    def answers(self, questions: Sequence[str], texts: Sequence[str]) -> list[str]:
        """Return an answer to each question, from a text."""
        ...

    def gains(self, questions: Sequence[str], answers: Sequence[str]) -> list[float | None]:
        """Return by how much each question raises its answer's log-probability, in nats per token.

        The mean over the answer's tokens of log p(token | question) - log p(token | no question).
        None where the generator gives no probabilities.
        """
        ...


class LocalGenerator:
    """A model on this machine; it continues examples, so it need not follow instructions."""

    def __init__(self, policy: Policy, sampling: SamplingConfig) -> None:
        self._policy = policy
        self._sampling = sampling

    def questions(
        self, sentences: Sequence[str], forms: Sequence[QuestionForm], seeds: Sequence[int]
    ) -> list[str]:
        """Return a question of the form to each sentence."""
        prompts = [self._ids(request_for(*pair)) for pair in zip(sentences, forms, strict=True)]
        sampled = self._policy.sample(prompts, seeds, self._sampling)
        return [
            first_question(form.start + self._policy.decode(generation.ids))
            for form, generation in zip(forms, sampled, strict=True)
        ]

    def answers(self, questions: Sequence[str], texts: Sequence[str]) -> list[str]:
        """Return an answer to each question, from a text: the likeliest words, nearly."""
        prompts = [
            self._ids(f"{text}\n\n{asked_as(question)}")
            for question, text in zip(questions, texts, strict=True)
        ]
        surely = self._sampling.model_copy(
            update={"temperature": 0.01, "max_new_tokens": _ANSWER_TOKENS, "batch_size": _PARTS}
        )
        sampled = self._policy.sample(prompts, [0] * len(prompts), surely)
        replies = [self._policy.decode(generation.ids).strip() for generation in sampled]
        return [reply.splitlines()[0] if reply else "" for reply in replies]

    def gains(self, questions: Sequence[str], answers: Sequence[str]) -> list[float | None]:
        """Return by how much each question raises its answer's log-probability."""
        chinese = [is_chinese(question) for question in questions]
        # A word's first token has the space before it.
        ids = [
            self._ids(answer if c else f" {answer}")
            for answer, c in zip(answers, chinese, strict=True)
        ]
        with_question = [self._ids(asked_as(question)) for question in questions]
        without = [self._ids("答案：" if c else "Answer:") for c in chinese]
        means = [self._means(prompts, ids) for prompts in (with_question, without)]
        return [after - before for after, before in zip(*means, strict=True)]

    def _means(self, prompts: list[list[int]], answers: list[list[int]]) -> list[float]:
        means: list[float] = []
        for at in range(0, len(prompts), _PARTS):
            part = answers[at : at + _PARTS]
            values = self._policy.logprobs_of(prompts[at : at + _PARTS], part, batch_size=_PARTS)
            means += [float(row[: len(ids)].mean()) for row, ids in zip(values, part, strict=True)]
        return means

    def _ids(self, text: str) -> list[int]:
        return list(self._policy.tokenizer(text, add_special_tokens=False)["input_ids"])


class WriterGenerator:
    """A model that follows instructions, such as one behind an endpoint; without probabilities."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def questions(
        self, sentences: Sequence[str], forms: Sequence[QuestionForm], seeds: Sequence[int]
    ) -> list[str]:
        """Return a question of the form to each sentence; an empty one where the model fails."""
        prompts = [_asks_for(*pair) for pair in zip(sentences, forms, strict=True)]
        written = self._writer.write(prompts, seeds)
        return [
            question if question.startswith(form.start) else ""
            for form, question in zip(
                forms, (first_question(entry.text) for entry in written), strict=True
            )
        ]

    def answers(self, questions: Sequence[str], texts: Sequence[str]) -> list[str]:
        """Return an answer to each question, from a text."""
        prompts = [
            [user(f"{text}\n\nAnswer from this text alone, in its words and in one sentence: {q}")]
            for q, text in zip(questions, texts, strict=True)
        ]
        return [entry.text for entry in self._writer.write(prompts, [0] * len(prompts))]

    def gains(self, questions: Sequence[str], answers: Sequence[str]) -> list[float | None]:
        """Return None for each."""
        return [None] * len(questions)


def _asks_for(sentence: str, form: QuestionForm) -> list[Message]:
    examples = "\n".join(
        f"Sentence: {shown}\nQuestion: {question}" for shown, question in form.examples
    )
    return [
        user(
            f"Write one question that the sentence answers. It begins with {form.start!r}, is in "
            "the language of the sentence, and names what it asks about. Reply with the question "
            f"alone.\n\n{examples}\nSentence: {sentence}\nQuestion:"
        )
    ]


def asked_as(question: str) -> str:
    """Return a question as a text that a model continues with its answer."""
    if is_chinese(question):
        return f"问题：{question}\n答案："
    return f"Question: {question}\nAnswer:"


def first_question(text: str) -> str:
    """Return the first line of a text up to its question mark."""
    line = text.strip().splitlines()[0] if text.strip() else ""
    line = line.removeprefix("Question:").strip().strip('"')
    for mark in "?？":
        if mark in line:
            return line[: line.index(mark) + 1].strip()
    return line.strip()
