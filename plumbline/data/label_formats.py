"""Formats in which a row is a label or a sample of somebody's tool."""

from __future__ import annotations

from plumbline.data.format import AROUND, Format

#: Usual names of columns, the more telling first.
ITEM_NAMES = (
    "item", "item_id", "pair_id", "pair", "unit", "unit_id", "record_id", "record", "example_id",
    "example", "sample_id", "sample", "task_id", "task", "question_id", "doc_id", "document_id",
    "prompt_id", "id", "idx", "index",
)  # fmt: skip
PERSON_NAMES = (
    "person", "annotator", "annotator_id", "labeller", "labeler", "labeller_id", "labeler_id",
    "rater", "rater_id", "coder", "coder_id", "worker", "worker_id", "judge", "reviewer",
    "evaluator", "username", "user", "user_id",
)  # fmt: skip
VOTE_NAMES = (
    "label", "choice", "vote", "rating", "annotation", "category", "verdict", "judgement",
    "judgment", "answer", "winner", "preference", "score",
)  # fmt: skip

#: What else a sample may say; the comparison reads these by their own names.
SAMPLE_COLUMNS = (
    "seed", "checkpoint", "logprob", "reference_logprob", "tokens", "finished", "tokenizer",
    "scores", "costs",
)  # fmt: skip

LABELS = (
    Format(
        "votes",
        "tables of labels with a row for each vote: Label Studio, Prodigy, MTurk, spreadsheets",
        {
            "item": ITEM_NAMES,
            "person": PERSON_NAMES,
            "vote": VOTE_NAMES,
            "created_at": ("created_at",),
            "shown_first": ("shown_first",),
            "rationale": ("rationale",),
            "strength": ("strength",),
            "flags": ("flags",),
            "purpose": ("purpose",),
        },
        marks=("item", "person", "vote"),
        example={"pair_id": "p1", "annotator": "ana", "choice": "a"},
    ),
    Format(
        "samples",
        "samples for `plumbline compare`, AlpacaEval's outputs: a response and who gave it",
        {
            "prompt": ("prompt", "instruction", "question"),
            "response": ("response", "output", "completion"),
            "model": ("model", "generator", "method"),
            "subset": ("subset", "category", "dataset"),
            **AROUND,
            **{name: (name,) for name in SAMPLE_COLUMNS},
        },
        marks=("prompt", "response", "model"),
        example={"prompt": "Name a colour", "response": "Red", "model": "ours"},
    ),
)
