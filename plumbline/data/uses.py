"""What data is read for, and which parts of a row each use needs and takes."""

from __future__ import annotations

from dataclasses import dataclass

from plumbline.tables import Table


@dataclass(frozen=True)
class Use:
    """A use of data."""

    name: str
    about: str
    needs: frozenset[str]
    """Parts without which a row is of no use."""
    takes: frozenset[str] = frozenset()
    """Parts that are used where a row has them, beside those of the prompt."""


def _use(name: str, about: str, needs: str, takes: str = "") -> Use:
    return Use(name, about, frozenset(needs.split()), frozenset(takes.split()))


USES = Table(
    "use of data",
    (
        _use(
            "demonstrations",
            "supervised fine-tuning: dialogues to learn from",
            "prompt response",
            "tools reasoning weight label wrong_answers",
        ),
        _use(
            "preferences",
            "reward models and DPO: two responses, one of them better",
            "prompt chosen rejected",
            "margin",
        ),
        _use(
            "unpaired",
            "KTO and its like: single responses, each good or bad",
            "prompt response label",
        ),
        _use(
            "steps",
            "process reward models: the steps of a response, each right or wrong",
            "prompt steps step_labels",
        ),
        _use(
            "prompts",
            "evaluation and reinforcement learning: what a policy is asked",
            "prompt",
            "references subset label",
        ),
        _use(
            "pairs",
            "two responses for people to compare",
            "prompt a b",
            "id answer reasons",
        ),
        _use(
            "labels",
            "who gave which label to what",
            "item person vote",
            "created_at shown_first rationale strength flags purpose",
        ),
        _use(
            "samples",
            "responses of any tool, to be compared",
            "prompt response model",
            "subset seed checkpoint logprob reference_logprob tokens finished tokenizer scores "
            "costs",
        ),
    ),
)
