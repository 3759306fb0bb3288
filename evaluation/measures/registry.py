"""All measures, one row each, and those that a run takes.

Adding a measure is one function that returns a `Measure`, and one row in `MEASURES`. A measure of
your own needs no row: a setting names it by its dotted path (docs/extending/measure.md).

A recipe hands measures over as deferred calls (`select_measures`). Each is identified by the code
of its own module, so the code of one measure is not part of the identity of anything that does not
use it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from evaluation.measures import (
    diversity,
    format_errors,
    moderation,
    perplexity,
    reasoning,
    references,
    refusals,
)
from evaluation.measures.measure import Measure, by_text
from plumbline.config import Config, not_in_identity, only_when
from plumbline.errors import ConfigError
from plumbline.runs.calls import Deferred, SourceFile, defer
from plumbline.tables import Table, code_of, load_function


@dataclass(frozen=True)
class MeasureRow:
    """A measure by name: the call that makes it, and whether it is taken by default."""

    name: str
    measure: Deferred[Measure]
    is_default: bool
    takes: tuple[str, ...] = ()
    """Arguments that a config or a task may give: phrases, checker."""

    def with_arguments(self, arguments: Mapping[str, Any]) -> Deferred[Measure]:
        """Return the call with those of the arguments that it takes; None is left out."""
        taken = {n: arguments[n] for n in self.takes if arguments.get(n) is not None}
        return defer(self.measure.function, **self.measure.arguments, **taken)

    def load(self) -> Measure:
        """Return the measure itself."""
        return self.measure.function(**self.measure.arguments)


def _row(
    name: str,
    function: Callable[..., Measure],
    *,
    default: bool = True,
    takes: tuple[str, ...] = (),
    **arguments: Any,
) -> MeasureRow:
    return MeasureRow(name, defer(function, **arguments), default, takes)


def measure_from_path(path: str, code: str) -> Measure:
    """Return a measure of the user's own; ``path`` is its function, ``code`` a digest of its file.

    A function of one argument is a number per response: it gets the text. A function without
    arguments returns a `Measure`. The digest does nothing here; it makes the file a part of the
    identity of what is measured.
    """
    function = load_function(path)
    required = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is parameter.empty
    ]
    if len(required) == 1:
        name = path.rpartition(".")[2]
        return Measure(name, name.replace("_", " "), "", None, by_text(function, name))
    measure = None if required else function()
    if not isinstance(measure, Measure):
        raise ConfigError(
            f"{path} is not a measure. Give a function of one argument, the text of a response, "
            "that returns a number or None; or a function without arguments that returns an "
            "evaluation.measures.measure.Measure (docs/extending/measure.md)."
        )
    return measure


def _from_function(path: str, _: Callable[..., Any]) -> MeasureRow:
    return MeasureRow(path, defer(measure_from_path, path=path, code=code_of(path)), False)


MEASURES: Table[MeasureRow] = Table(
    "measure",
    [
        _row("characters", diversity.characters, default=False),
        _row("distinct_1", diversity.distinct, n=1),
        _row("distinct_2", diversity.distinct, n=2),
        _row("distinct_3", diversity.distinct, n=3, default=False),
        _row("self_bleu", diversity.self_bleu),
        _row("repetition", diversity.repetition),
        _row("refusal", refusals.refusal, takes=("phrases",)),
        _row("format_errors", format_errors.format_errors, takes=("checker",)),
        _row("reference_perplexity", perplexity.reference_perplexity),
        _row("perplexity", perplexity.perplexity),
        _row("exact_match", references.exact_match),
        _row("f1", references.f1),
        _row("bleu", references.bleu),
        _row("rouge_1", references.rouge, kind="rouge1", default=False),
        _row("rouge_2", references.rouge, kind="rouge2", default=False),
        _row("rouge_l", references.rouge, kind="rougeL"),
        _row("numeric_accuracy", reasoning.numeric_accuracy),
        _row("step_accuracy", reasoning.step_accuracy),
    ],
    from_function=_from_function,
)
DEFAULT_MEASURES = tuple(row.name for row in MEASURES.values() if row.is_default)


#: What the harness itself reports of every policy: title, unit, whether higher is better.
BUILT_IN: Mapping[str, tuple[str, str, bool | None]] = {
    "kl": ("KL to the reference", "nats per response", None),
    "tokens": ("tokens per response", "tokens", None),
    "words": ("words per response", "words", None),
    "finished": ("responses that ended by themselves", "share of responses", True),
}


class MeasuresConfig(Config):
    """Which measures are taken of finished policies. A change samples and trains nothing again."""

    names: tuple[Annotated[str, MEASURES], ...] = DEFAULT_MEASURES
    """Measures by name, or by the dotted path of a function of your own. A measure that needs what
    a task does not have is left out, with a message."""
    refusals: Path | None = only_when(
        lambda config: any("phrases" in MEASURES[name].takes for name in config.names),
        f"the measure {MEASURES.where(lambda row: 'phrases' in row.takes)} among names",
        None,
        in_identity=False,
    )
    """A file with one phrase per line that marks a refusal. Null: the built-in phrases."""
    words: Path | None = not_in_identity(None)
    """A file of words and phrases, in [categories], by which responses are flagged. Null: none."""
    threshold: float = only_when(
        lambda config: config.words is not None, "a file of words", 0.5, gt=0, le=1
    )
    """A response is flagged where a category has this score or more."""


def select_measures(config: MeasuresConfig, checker: Any = None) -> list[Deferred[Measure]]:
    """Return the measures of a config as deferred calls, for a harness.

    ``checker``, itself deferred, belongs to the task: what it finds counts as a format error.
    """
    phrases = None if config.refusals is None else SourceFile(config.refusals)
    arguments = {"checker": checker, "phrases": phrases}
    measures = [MEASURES[name].with_arguments(arguments) for name in dict.fromkeys(config.names)]
    if config.words is not None:
        words = defer(moderation.WordList, file=SourceFile(config.words))
        measures.append(defer(moderation.moderation, moderator=words, threshold=config.threshold))
    return measures


def describe_measures(names: Sequence[str] = tuple(MEASURES)) -> list[dict[str, Any]]:
    """Return what each measure means, for tables."""
    measures = [MEASURES[name].load() for name in names]
    return [
        {
            "name": measure.name,
            "title": measure.title,
            "unit": measure.unit,
            "higher_is_better": measure.higher_is_better,
            "per": "row" if measure.by_row is not None and measure.of_set is None else "set",
            "needs": list(measure.needs),
        }
        for measure in measures
    ]


def cautions(names: Iterable[str]) -> list[str]:
    """Return what a reader must know of the measures among these metrics before trusting them."""
    names = {name.partition(".")[0] for name in names}
    measures = [MEASURES[name].load() for name in MEASURES if name in names]
    return [measure.caution for measure in measures if measure.caution]
