"""Steps on numbers: a quality score by any scorer, and how sure a label is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from plumbline.data.records import Conversation, Row
from plumbline.errors import ConfigError, DataError
from plumbline.tables import code_of, load_function
from sft.cleaning.step import Outcome, RowFunction, Step, StepConfig, StepContext, each


class QualityConfig(StepConfig):
    """What a score decides."""

    step: Literal["quality"] = "quality"
    scorer: str
    """What scores last answers: a reward model (a folder, run:stage, or the id of an artefact), or
    a function of your own by its dotted path, from a prompt's messages and an answer to a
    number."""
    min_score: float
    """Rows of a smaller score are left out."""
    keep_score: bool = True
    """Keep the score beside each row, as ``quality``."""

    def is_function(self) -> bool:
        """Return whether the scorer is a function of the user's own."""
        return _is_function(self.scorer)

    def identity(self) -> dict[str, Any]:
        """Return the values that determine the result, a function's code among them."""
        return super().identity() | ({"code": code_of(self.scorer)} if self.is_function() else {})

    @field_validator("scorer")
    @classmethod
    def _can_be_imported(cls, scorer: str) -> str:
        if _is_function(scorer):
            load_function(scorer)
        return scorer


def _is_function(scorer: str) -> bool:
    return "." in scorer and "/" not in scorer and not Path(scorer).exists()


def _quality(config: QualityConfig, context: StepContext) -> RowFunction:
    score = (
        _own_scorer(config.scorer) if config.is_function() else context.scorer(config.scorer).score
    )

    def step(rows: Sequence[Row]) -> list[Outcome]:
        prompts = [row["messages"][:-1] for row in rows]
        answers = [row["messages"][-1]["content"] for row in rows]
        scores = score(prompts, answers)
        return [_judged(row, float(n), config) for row, n in zip(rows, scores, strict=True)]

    return step


def _own_scorer(path: str) -> Callable[[Sequence[Conversation], Sequence[str]], list[float]]:
    function = load_function(path)

    def score(prompts: Sequence[Conversation], answers: Sequence[str]) -> list[float]:
        scores = []
        for prompt, answer in zip(prompts, answers, strict=True):
            value = function(prompt, answer)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise DataError(f"{path} returned {value!r}; a score is a number.")
            scores.append(float(value))
        return scores

    return score


def _judged(row: Row, score: float, config: QualityConfig) -> Outcome:
    if not score >= config.min_score:  # NaN is not a score
        reason = f"scores below min_score ({config.min_score:g}) by {config.scorer}"
        return Outcome(reason=reason, detail={"score": round(score, 4)})
    return Outcome((row | {"quality": score},) if config.keep_score else (row,))


QUALITY = Step(
    "quality",
    "the score of the last answer, by a reward model or a function of your own",
    QualityConfig,
    _quality,
    runs_in="main",
    example={"scorer": "runs/store/reward-model-…", "min_score": 0.0},
)


class ClassifierStepConfig(StepConfig):
    """Which labels of a classifier keep a row, or leave it out."""

    step: Literal["classifier"] = "classifier"
    model: str
    """A classifier as `plumbline train classifier` makes it: run:stage, a folder, or the id of an
    artefact."""
    of: Literal["answer", "prompt", "row"] = "answer"
    """What it reads: the last answer, the last turn before it, or all turns, one below another."""
    keep: tuple[str, ...] = ()
    """Labels of which one must hold. Empty: any."""
    leave_out: tuple[str, ...] = ()
    """Labels none of which may hold."""
    min_probability: float = Field(0.5, ge=0, le=1)
    """From this probability on a label holds."""
    keep_label: bool = True
    """Keep the likeliest label beside each row, as ``label``, with its ``probability``."""

    @model_validator(mode="after")
    def _decides_something(self) -> ClassifierStepConfig:
        if not self.keep and not self.leave_out and not self.keep_label:
            raise ValueError("keep and leave_out are empty and keep_label is off: it does nothing")
        both = sorted(set(self.keep) & set(self.leave_out))
        if both:
            raise ValueError(f"keep and leave_out both name {', '.join(both)}")
        return self

    def models(self) -> Sequence[str]:
        """Return the classifier."""
        return (self.model,)


def _classifier(config: ClassifierStepConfig, context: StepContext) -> RowFunction:
    from sft.classification.predict import TextClassifier

    classifier = TextClassifier(context.folder_of(config.model))
    unknown = sorted({*config.keep, *config.leave_out} - set(classifier.labels))
    if unknown:
        raise ConfigError(
            f"The step classifier names the label {unknown[0]!r}, and {config.model} has the "
            f"labels {', '.join(classifier.labels)}."
        )

    def step(rows: Sequence[Row]) -> list[Outcome]:
        texts = [_read_of(row, config.of) for row in rows]
        return [
            _labeled(row, likely, config)
            for row, likely in zip(rows, classifier.probabilities(texts), strict=True)
        ]

    return step


def _read_of(row: Row, of: str) -> str:
    turns = [turn["content"] for turn in row["messages"]]
    if of == "row":
        return "\n".join(turns)
    return turns[-1] if of == "answer" else turns[-2] if len(turns) > 1 else ""


def _labeled(row: Row, likely: Mapping[str, float], config: ClassifierStepConfig) -> Outcome:
    detail = {label: round(p, 4) for label, p in likely.items()}
    holds = [label for label, p in likely.items() if p >= config.min_probability]
    bad = [label for label in holds if label in config.leave_out]
    if bad:
        return Outcome(reason=f"is labelled {bad[0]} by {config.model}", detail=detail)
    if config.keep and not set(holds) & set(config.keep):
        wanted = " or ".join(config.keep)
        return Outcome(reason=f"is not labelled {wanted} by {config.model}", detail=detail)
    best = max(likely, key=lambda label: likely[label])
    more = {"label": best, "probability": likely[best]} if config.keep_label else {}
    return Outcome((row | more,))


CLASSIFIER = Step(
    "classifier",
    "the labels of a text classifier: which keep a row, and which leave it out",
    ClassifierStepConfig,
    _classifier,
    runs_in="main",
    example={"model": "my_run:classifier", "leave_out": ["spam"]},
)


class ConfidenceConfig(StepConfig):
    """How sure a label must be."""

    step: Literal["confidence"] = "confidence"
    column: str = "confidence"
    """The column with the confidence, from 0 to 1; its source must keep it (``keep``)."""
    min_confidence: float = Field(0.9, ge=0, le=1)
    """Rows of a smaller confidence are left out."""


def _confidence(config: ConfidenceConfig, _: StepContext) -> RowFunction:
    def step(row: Row) -> Outcome:
        value = row.get(config.column)
        try:
            confidence = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return Outcome(reason=f"has no number under {config.column!r}")
        if not 0 <= confidence <= 1:
            return Outcome(reason=f"has a {config.column} that is not from 0 to 1")
        if confidence < config.min_confidence:
            reason = f"has a {config.column} below min_confidence ({config.min_confidence:g})"
            return Outcome(reason=reason, detail={config.column: confidence})
        return Outcome((row,))

    return each(step)


CONFIDENCE = Step(
    "confidence",
    "how sure a noisy label is, by a column that the source keeps",
    ConfidenceConfig,
    _confidence,
)
