"""Formats in which the steps of a chain of thought are labelled, one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plumbline.data.format import Format, derived
from plumbline.data.messages import structure_from
from plumbline.data.part_values import Parts

#: PRM800K's ratings: bad, neutral and good. Lightman et al. (2023) count neutral ones as good.
_RATINGS = {-1: 0.0, 0: 1.0, 1: 1.0}


def _prm800k(parts: dict[str, Any]) -> Sequence[Parts]:
    """Read a question of PRM800K: its chosen chain, and each other step behind the chain so far.

    In a row for another step only that one has a label, so that none counts twice.
    """
    question, label = (structure_from(parts[name]) for name in ("prompt", "label"))
    if not isinstance(question, Mapping) or not isinstance(question.get("problem"), str):
        raise ValueError("'question' has no problem")
    steps = label.get("steps") if isinstance(label, Mapping) else None
    if not isinstance(steps, Sequence) or not steps:
        raise ValueError("'label' has no steps")
    prompt, chain = question["problem"], list[str]()
    labels: list[float | None] = []
    rows: list[Parts] = []
    for number, step in enumerate(steps, 1):
        completions, chosen = step.get("completions") or [], step.get("chosen_completion")
        for place, completion in enumerate(completions):
            rating = _rating(completion, number)
            if place != chosen and rating is not None:
                rows.append(
                    _row(prompt, [*chain, completion["text"]], [*labels, rating], last=True)
                )
        if chosen is not None:
            if not 0 <= chosen < len(completions):
                raise ValueError(f"chooses completion {chosen} of {len(completions)} in {number}")
            chain.append(completions[chosen]["text"])
            labels.append(_rating(completions[chosen], number))
        elif isinstance(human := step.get("human_completion"), Mapping):
            chain.append(human["text"])
            labels.append(1.0)  # its author built on it
        else:
            break
    if any(label is not None for label in labels):
        rows.append(_row(prompt, chain, labels))
    if not rows:
        raise ValueError("has no step with a rating")
    return rows


def _rating(completion: Mapping[str, Any], step: int) -> float | None:
    rating = completion.get("rating")
    if rating is None:
        return None
    if rating not in _RATINGS or isinstance(rating, bool):
        raise ValueError(f"has the rating {rating!r} in step {step}; ratings are -1, 0 and 1")
    return _RATINGS[rating]


def _row(
    prompt: str, steps: Sequence[str], labels: Sequence[float | None], *, last: bool = False
) -> Parts:
    hidden = len(labels) - 1 if last else 0
    return {
        "prompt": prompt,
        "steps": list(steps),
        "step_labels": [*[None] * hidden, *labels[hidden:]],
    }


STEPS = (
    Format(
        "prm800k",
        "PRM800K: a question, and for each step of a solution the rated attempts at it",
        {"prompt": ("question",), "label": ("label",)},
        marks=("prompt", "label"),
        derives=derived(("steps", "step_labels"), of=("prompt", "label")),
        read=_prm800k,
        holds=lambda record: (
            isinstance(label := structure_from(record["label"]), Mapping) and "steps" in label
        ),
        example={
            "question": {"problem": "What is 2 + 3?"},
            "label": {
                "steps": [
                    {
                        "completions": [{"text": "2 + 3 = 5", "rating": 1}],
                        "chosen_completion": 0,
                    }
                ]
            },
        },
    ),
    Format(
        "stepwise",
        "TRL's stepwise supervision, Math-Shepherd as TRL has it: steps with true or false each",
        {
            "prompt": ("prompt",),
            "steps": ("completions", "steps"),
            "step_labels": ("labels", "step_labels"),
        },
        marks=("prompt", "steps", "step_labels"),
        example={"prompt": "What is 2 + 3?", "completions": ["2 + 3 = 5"], "labels": [True]},
    ),
)
