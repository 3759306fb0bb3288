"""Formats in which a row is a question with its response, or a question alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from plumbline.data.format import AROUND, MEANINGFUL, WRONG, Format, Names, derived
from plumbline.data.messages import structure_from
from plumbline.data.part_values import Parts, has_something, options_of, right_option, text_of
from plumbline.data.records import Message

_WITH_LABEL: Names = {"label": ("label", "kto_tag", "score_label")}
_SUBSET: Names = {"subset": ("subset", "category", "subject", "type", "level")}
_REFERENCES = (
    "references", "reference", "reference_answer", "gold", "ground_truth", "expected_answer",
    "canonical_solution", "best_answer",
)  # fmt: skip


def answered(parts: dict[str, Any]) -> Parts:
    """Take the response for a reference where the row has no other, and the other way round."""
    texts = parts.get("response")
    answers = structure_from(texts)
    # A text may be JSON because the question asks for it: only SQuAD's two keys make it answers.
    squad = {"text", "answer_start"} if isinstance(texts, str) else {"text"}
    if isinstance(answers, Mapping) and answers.keys() >= squad:
        texts = answers["text"]
    if isinstance(texts, list) and not (texts and isinstance(texts[0], Mapping)):
        rest = {name: held for name, held in parts.items() if name != "response"}
        first = {"response": text_of(texts[0])} if texts else {}
        return {"references": texts} | rest | first
    if isinstance(texts, bool | int | float):
        parts = parts | {"response": text_of(texts)}
    return ({"references": parts["response"]} if "response" in parts else {}) | parts


def chosen_option(parts: dict[str, Any]) -> Parts:
    """Take the right option for the response where nobody worked it out, and the rest as wrong."""
    if "correct" not in parts or has_something(parts.get("response")):
        return parts
    right = right_option(parts)
    response, *wrong = (
        f"{letter}) {text}"
        for letter, text in [right, *(o for o in options_of(parts) if list(o) != right)]
    )
    return {"wrong_answers": wrong} | parts | {"response": response}


def _stem(parts: dict[str, Any]) -> Parts:
    """Read ARC's own files, in which the question holds its options."""
    question = structure_from(parts["prompt"])
    if isinstance(question, Mapping):
        parts = parts | {"prompt": question.get("stem"), "options": question.get("choices")}
    options_of(parts)
    return chosen_option(parts)


def _calls(parts: dict[str, Any]) -> Parts:
    """Read calls of tools as the response."""
    calls = structure_from(parts["response"])
    if not isinstance(calls, list):
        raise ValueError("'answers' is not a list of calls of tools")
    message: Message = {"role": "assistant", "content": ""}
    return parts | {"response": [message | {"tool_calls": calls}]}


QUESTIONS = (
    Format(
        "alpaca",
        "Stanford Alpaca, Dolly, LLaMA-Factory, AlpacaEval: an instruction and what it is applied "
        "to; with earlier turns under history",
        {
            "prompt": ("instruction",),
            "input": ("input", "context"),
            "response": ("output", "response", "completion"),
            "references": _REFERENCES,
            **AROUND,
            **_WITH_LABEL,
            **WRONG,
            **_SUBSET,
            "id": ("id",),
        },
        marks=("prompt",),
        read=answered,
        derives=derived(("references",), of=("response",)),
        example={"instruction": "Translate to French.", "input": "red", "output": "rouge"},
    ),
    Format(
        "multiple_choice",
        "MMLU, ARC, AQuA, CommonsenseQA: a question with options, which are listed under it",
        {
            "prompt": ("question", "query", "prompt", "problem"),
            "context": ("context", "passage"),
            "options": ("options", "choices"),
            "correct": ("correct", "answer", "answerKey", "answer_idx", "label", "gold"),
            "response": ("rationale", "solution", "explanation"),
            **WRONG,
            "system": MEANINGFUL["system"],
            "media": MEANINGFUL["media"],
            **_SUBSET,
            "id": ("id", "question_id"),
        },
        marks=("prompt", "options"),
        derives=derived(("response", "references", "wrong_answers"), of=("correct",)),
        read=chosen_option,
        example={
            "question": "2 + 2?",
            "options": ["A)3", "B)4"],
            "rationale": "Two and two make four.",
            "correct": "B",
        },
    ),
    Format(
        "arc",
        "ARC's own files: a question with its stem and choices",
        {"prompt": ("question",), "correct": ("answerKey",), "id": ("id",)},
        marks=("prompt",),
        holds=lambda record: isinstance(record.get("question"), Mapping)
        and "stem" in record["question"],
        derives=derived(("response", "references", "wrong_answers"), of=("correct",)),
        read=_stem,
        example={
            "id": "1",
            "question": {
                "stem": "What melts?",
                "choices": [{"text": "ice", "label": "A"}, {"text": "sand", "label": "B"}],
            },
            "answerKey": "A",
        },
    ),
    Format(
        "question_answer",
        "GSM8K, MATH, SQuAD, OpenOrca, AlignBench, TruthfulQA: a question, with its passage",
        {
            "prompt": ("question", "problem"),
            "context": ("context", "passage", "support"),
            "response": ("response", "solution", "answer", "answers", "output", "correct_answer"),
            "references": _REFERENCES,
            **AROUND,
            **_WITH_LABEL,
            **WRONG,
            **_SUBSET,
            "id": ("id", "question_id"),
        },
        marks=("prompt",),
        derives=derived(("references",), of=("response",)),
        read=answered,
        example={"question": "Two bags of 3?", "answer": "2 * 3 = 6\n#### 6"},
    ),
    Format(
        "tool_use",
        "xLAM function calling: a query, the tools, and the calls that answer it",
        {
            "prompt": ("query",),
            "response": ("answers",),
            "tools": ("tools",),
            "system": MEANINGFUL["system"],
            "id": ("id",),
        },
        marks=("prompt", "response", "tools"),
        read=_calls,
        example={
            "query": "Weather in Oslo?",
            "tools": json.dumps([{"name": "weather", "parameters": {"city": {"type": "str"}}}]),
            "answers": json.dumps([{"name": "weather", "arguments": {"city": "Oslo"}}]),
        },
    ),
    Format(
        "prompt_completion",
        "TRL's prompt-completion, and its unpaired preferences (KTO) with a label; HumanEval, "
        "IFEval: a prompt as text or as messages",
        {
            "prompt": ("prompt",),
            "context": MEANINGFUL["context"],
            "input": ("input",),
            "response": (
                "completion", "response", "answer", "output", "target", "reference_response",
            ),
            "references": (*_REFERENCES, "chosen"),
            **AROUND,
            **_WITH_LABEL,
            **WRONG,
            **_SUBSET,
            "id": ("id", "prompt_id", "task_id", "key"),
        },
        marks=("prompt",),
        derives=derived(("references",), of=("response",)),
        read=answered,
        example={"prompt": "Name a colour", "completion": "Red"},
    ),
    Format(
        "input_output",
        "MetaMathQA, FLAN, Firefly: query or input, and response, output or target",
        {
            "prompt": ("query", "inputs", "input", "source"),
            "context": MEANINGFUL["context"],
            "response": ("response", "output", "outputs", "target", "targets", "completion"),
            "references": _REFERENCES,
            **AROUND,
            **_WITH_LABEL,
            **WRONG,
            "subset": ("subset", "category", "kind", "type"),
            "id": ("id",),
        },
        marks=("prompt",),
        derives=derived(("references",), of=("response",)),
        read=answered,
        example={"query": "2 + 2?", "response": "4"},
    ),
)  # fmt: skip
