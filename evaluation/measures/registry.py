"""All measures by name, and those that a run takes.

A recipe hands measures over as deferred calls (`chosen`), each of which is known by the code of
its own module: what one measure does is no part of the identity of what does not use it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, field_validator

from evaluation.measures import behavior, diversity, likelihood, reasoning, references, safety
from evaluation.measures.measure import Measure
from plumbline.config import Config, not_in_identity
from plumbline.errors import ConfigError
from plumbline.runs.calls import Deferred, SourceFile, defer


class Entry(NamedTuple):
    """A measure by name, and whether it is taken where nobody asks for others."""

    measure: Deferred[Measure]
    usual: bool


REGISTRY: Mapping[str, Entry] = {
    "characters": Entry(defer(diversity.characters), False),
    "distinct_1": Entry(defer(diversity.distinct, n=1), True),
    "distinct_2": Entry(defer(diversity.distinct, n=2), True),
    "distinct_3": Entry(defer(diversity.distinct, n=3), False),
    "self_bleu": Entry(defer(diversity.self_bleu), True),
    "repetition": Entry(defer(diversity.repetition), True),
    "refusal": Entry(defer(behavior.refusal), True),
    "format_errors": Entry(defer(behavior.format_errors), True),
    "reference_perplexity": Entry(defer(likelihood.reference_perplexity), True),
    "perplexity": Entry(defer(likelihood.perplexity), True),
    "exact_match": Entry(defer(references.exact_match), True),
    "f1": Entry(defer(references.f1), True),
    "bleu": Entry(defer(references.bleu), True),
    "rouge_1": Entry(defer(references.rouge, kind="rouge1"), False),
    "rouge_2": Entry(defer(references.rouge, kind="rouge2"), False),
    "rouge_l": Entry(defer(references.rouge, kind="rougeL"), True),
    "numeric_accuracy": Entry(defer(reasoning.numeric_accuracy), True),
    "step_accuracy": Entry(defer(reasoning.step_accuracy), True),
}  # fmt: skip
USUAL = tuple(name for name, entry in REGISTRY.items() if entry.usual)

#: What the harness itself says of every policy: title, unit, whether more is better.
BUILT_IN: Mapping[str, tuple[str, str, bool | None]] = {
    "kl": ("KL to the reference", "nats an answer", None),
    "tokens": ("tokens an answer", "tokens", None),
    "words": ("words an answer", "words", None),
    "finished": ("answers that came to their end", "share of answers", True),
}


class MeasuresConfig(Config):
    """Which measures are taken of finished policies. Changing them samples and trains nothing."""

    names: tuple[str, ...] = USUAL
    """Measures by name; those that need what a task does not have are left out, and it is said."""
    refusals: Path | None = not_in_identity(None)
    """A file with one phrase a line by which refusals are known. Null: the built-in phrases."""
    words: Path | None = not_in_identity(None)
    """A file of words and phrases, in [terms], by which answers are flagged. Null flags none."""
    threshold: float = Field(0.5, gt=0, le=1)
    """From where on a safety term counts as applying."""

    @field_validator("names")
    @classmethod
    def _are_known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in names if name not in REGISTRY]
        if unknown:
            raise ValueError(
                f"there is no measure {unknown[0]!r}; measures are {', '.join(REGISTRY)}"
            )
        return names


def chosen(config: MeasuresConfig, checker: Any = None) -> list[Deferred[Measure]]:
    """Return the measures of a config as deferred calls, for a harness.

    ``checker``, itself deferred, is the task's own: what it finds counts as an error of form.
    """
    found = {name: REGISTRY[name].measure for name in config.names}
    if "format_errors" in found and checker is not None:
        found["format_errors"] = defer(behavior.format_errors, checker=checker)
    if "refusal" in found and config.refusals is not None:
        found["refusal"] = defer(behavior.refusal, phrases=SourceFile(config.refusals))
    if config.words is not None:
        words = defer(safety.WordList, file=SourceFile(config.words))
        found["listed_words"] = defer(
            safety.moderation, moderator=words, threshold=config.threshold
        )
    return list(found.values())


def measure_named(name: str) -> Measure:
    """Return a measure by name."""
    if name not in REGISTRY:
        raise ConfigError(f"There is no measure {name!r}. Measures are {', '.join(REGISTRY)}.")
    deferred = REGISTRY[name].measure
    return deferred.function(**deferred.arguments)


def explained(names: Sequence[str] = tuple(REGISTRY)) -> list[dict[str, Any]]:
    """Return what each measure means, for tables."""
    found = [measure_named(name) for name in names]
    return [
        {
            "name": one.name,
            "title": one.title,
            "unit": one.unit,
            "higher_is_better": one.higher_is_better,
            "per": "row" if one.by_row is not None and one.of_set is None else "set",
            "needs": list(one.needs),
        }
        for one in found
    ]
