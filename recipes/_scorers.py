"""Scorers by a user's names: a model, the address of a reward server, or a file of terms.

A file of terms is YAML: ``terms`` is a list, each with its ``kind`` (a row of `SCORERS`), its
``weight``, maybe a ``name``, and the settings of that kind.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from annotation.llm_judge.compare import EndpointJudge
from annotation.llm_judge.config import JudgeConfig
from plumbline.config import Config
from plumbline.config.yaml_text import read_yaml
from plumbline.data.checkers import JsonObject, Pattern
from plumbline.errors import ConfigError
from plumbline.runs.artifacts import Artifact, sha256
from plumbline.runs.calls import Deferred, SourceFile, defer
from plumbline.tables import Table
from reward.classifier import label_weights
from reward.content import content_of
from reward.ensemble import COMBINATIONS, EnsembleScorer
from reward.judge.local import LocalJudge
from reward.load_scorer import reward_scorer, takes_label
from reward.process.scorer import ProcessScorer
from reward.process.steps import STEP_COMBINATIONS, STEP_SPLITS
from reward.scorers.answers import COMPARISONS, AnswerScorer
from reward.scorers.both_orders import BothOrdersScorer
from reward.scorers.classifier import ClassifierScorer
from reward.scorers.code_output import CodeOutputScorer
from reward.scorers.implicit import ImplicitReward
from reward.scorers.rules import FormatScorer, LengthScorer, PatternScorer
from reward.scorers.weighted_sum import WeightedSum
from reward.server.client import RemoteScorer, content_at, is_address

FindModel = Callable[[str], Artifact | Path]
"""Finds the model that a user names."""


class ModelTerm(Config):
    """A reward model: a sequence classifier."""

    model: str
    """The reward model: a folder, a hub name, run:stage, or the id of an artefact."""
    label: str | None = None
    """Of a classifier with two labels, the good one. Null: the second."""


class EnsembleTerm(Config):
    """Several reward models as one."""

    models: tuple[str, ...] = Field(min_length=2)
    """The reward models."""
    how: Annotated[str, COMBINATIONS] = "mean"
    """How their scores are combined."""
    uncertainty_weight: float = Field(1.0, ge=0)
    """Weight of the variance between members, with how: uncertainty."""


class ProcessTerm(Config):
    """A process reward model: the steps of a response, and what their rewards come to."""

    model: str
    """The process reward model."""
    combine: Annotated[str, STEP_COMBINATIONS] = "product"
    """How the probabilities of the steps become one reward."""
    split: Annotated[str | None, STEP_SPLITS] = None
    """How responses are cut into steps. Null: as in its training."""


class ImplicitTerm(Config):
    """The implicit reward of a DPO policy: beta times its log-ratio to the reference."""

    policy: str
    """The policy that was trained on preferences."""
    reference: str
    """The model that it was trained from."""
    beta: float = Field(0.1, gt=0)
    """The beta of its training."""
    per_token: bool = False
    """Divide by the number of tokens, as SimPO does."""


class AnswerTerm(Config):
    """A checkable answer: 1 where the response gives it, 0 elsewhere."""

    answers: Path
    """A file of prompts with references (docs/formats.md)."""
    compare: Annotated[str, COMPARISONS] = "exact"
    """How a response is compared with the answer."""


class CodeTerm(Config):
    """Python that is run with limits: 1 where it prints the known answer, 0 elsewhere."""

    answers: Path
    """A file of prompts with references: the output, or a test that starts with assert."""
    seconds: float = Field(5.0, gt=0)
    """Most seconds of a program."""
    memory_mb: int = Field(512, ge=32)
    """Most memory of a program, in MB."""
    workers: int = Field(4, ge=1)
    """Programs that run at once."""


class FormatTerm(Config):
    """1 for a response that is a JSON object, 0 for any other."""

    json_keys: tuple[str, ...] = ()
    """The keys that the object must have."""


class LengthTerm(Config):
    """0 in a range of lengths, minus the relative distance to it outside."""

    at_least: int = Field(0, ge=0)
    """The shortest length without a penalty."""
    at_most: int | None = Field(None, ge=1)
    """The longest length without a penalty. Null: any."""
    unit: Literal["words", "characters"] = "words"
    """What is counted."""


class PatternTerm(Config):
    """How often a regular expression is found, up to a limit."""

    expression: str
    """The regular expression (Python's), where ^ and $ are the ends of lines."""
    at_most: int = Field(1, ge=1)
    """More matches than this count no more."""


class RequiredPatternTerm(Config):
    """1 for a response in which a regular expression is found, 0 for any other."""

    expression: str
    """The regular expression (Python's), where ^ and $ are the ends of lines."""


class ClassifierTerm(Config):
    """The probability of a label by a text classifier that reads the response alone."""

    model: str
    """The classifier: a folder or a hub name."""
    label: str
    """The label whose probability is the score."""


class JudgeTerm(Config):
    """An LLM judge: the share of a win over a reference response, shown in both orders."""

    references: Path
    """A file of prompts with references: the responses to win against."""
    judge: JudgeConfig
    """The endpoint and its model."""


class TrainedJudgeTerm(Config):
    """A judge of your own (recipe train_judge): a win over a reference, shown in both orders."""

    model: str
    """The judge: a folder, a hub name, run:stage, or the id of an artefact."""
    references: Path
    """A file of prompts with references: the responses to win against."""


class RemoteTerm(Config):
    """A scorer behind `plumbline reward serve`."""

    url: str
    """The server's address."""
    patience: float = Field(600.0, gt=0)
    """Seconds to wait for a server that is down."""


@dataclass(frozen=True)
class ScorerKind:
    """A kind of scorer: a row of the table."""

    name: str
    settings: type[Config]
    make: Callable[[Any, FindModel], Deferred[Any]]
    """Maps the settings to the scorer, deferred."""

    @property
    def about(self) -> str:
        """What it scores, in a line."""
        return str(self.settings.__doc__)


def _model(term: ModelTerm, find: FindModel) -> Deferred[Any]:
    model = find(term.model)
    if takes_label(folder := model.path if isinstance(model, Artifact) else model):
        label_weights(folder, term.label)  # may refuse
    return defer(reward_scorer, model=model, **({"label": term.label} if term.label else {}))


def _process(t: ProcessTerm, find: FindModel) -> Deferred[Any]:
    return defer(ProcessScorer, model=find(t.model), combine=t.combine, split=t.split)


def _remote(term: RemoteTerm, _: FindModel) -> Deferred[Any]:
    content = content_at(term.url)
    return defer(RemoteScorer, url=term.url, content=content, patience=term.patience)


SCORERS: Table[ScorerKind] = Table(
    "kind of scorer",
    [
        ScorerKind("model", ModelTerm, _model),
        ScorerKind(
            "ensemble",
            EnsembleTerm,
            lambda t, find: defer(
                EnsembleScorer,
                models=[find(name) for name in t.models],
                how=t.how,
                weight=t.uncertainty_weight,
            ),
        ),
        ScorerKind("process", ProcessTerm, _process),
        ScorerKind(
            "implicit",
            ImplicitTerm,
            lambda t, find: defer(
                ImplicitReward,
                policy=find(t.policy),
                reference=find(t.reference),
                beta=t.beta,
                per_token=t.per_token,
            ),
        ),
        ScorerKind(
            "answer",
            AnswerTerm,
            lambda t, _: defer(AnswerScorer, answers=SourceFile(t.answers), compare=t.compare),
        ),
        ScorerKind(
            "code",
            CodeTerm,
            lambda t, _: defer(
                CodeOutputScorer,
                answers=SourceFile(t.answers),
                seconds=t.seconds,
                memory_mb=t.memory_mb,
                workers=t.workers,
            ),
        ),
        ScorerKind(
            "json",
            FormatTerm,
            lambda t, _: defer(FormatScorer, checker=defer(JsonObject, keys=list(t.json_keys))),
        ),
        ScorerKind(
            "matches",
            RequiredPatternTerm,
            lambda t, _: defer(FormatScorer, checker=defer(Pattern, expression=t.expression)),
        ),
        ScorerKind(
            "length",
            LengthTerm,
            lambda t, _: defer(LengthScorer, at_least=t.at_least, at_most=t.at_most, unit=t.unit),
        ),
        ScorerKind(
            "pattern",
            PatternTerm,
            lambda t, _: defer(PatternScorer, expression=t.expression, at_most=t.at_most),
        ),
        ScorerKind(
            "classifier",
            ClassifierTerm,
            lambda t, find: defer(ClassifierScorer, model=find(t.model), label=t.label),
        ),
        ScorerKind(
            "judge",
            JudgeTerm,
            lambda t, _: defer(
                BothOrdersScorer,
                judge=defer(EndpointJudge, config=t.judge),
                references=SourceFile(t.references),
            ),
        ),
        ScorerKind(
            "trained_judge",
            TrainedJudgeTerm,
            lambda t, find: defer(
                BothOrdersScorer,
                judge=defer(LocalJudge, model=find(t.model)),
                references=SourceFile(t.references),
            ),
        ),
        ScorerKind("remote", RemoteTerm, _remote),
    ],
)
_FILES = (".yaml", ".yml")
#: What every term may have beside the settings of its kind.
_OF_EVERY_TERM = ("kind", "name", "weight")


def named_scorer(name: str, find: FindModel, label: str | None = None) -> Deferred[Any]:
    """Return the scorer that a user names: a server's address, a file of terms, or a model.

    ``label``: of a classifier with two labels, the good one.
    """
    if label is not None and (is_address(name) or name.endswith(_FILES)):
        raise ConfigError(
            f"reward_label is {label!r}, but {name} is not a model. Leave it out; a term of kind "
            "model has a label of its own."
        )
    if is_address(name):
        return _remote(RemoteTerm(url=name), find)
    if name.endswith(_FILES):
        return scorer_in(Path(name).expanduser(), find)
    return SCORERS["model"].make(ModelTerm(model=name, label=label), find)


def scorer_in(file: Path, find: FindModel) -> Deferred[Any]:
    """Return the weighted sum that a file of terms describes."""
    if not file.is_file():
        raise ConfigError(f"There is no file of terms {file} (looked for from {Path.cwd()}).")
    content = read_yaml(file)
    terms = content.get("terms") if isinstance(content, Mapping) else None
    if not isinstance(terms, Sequence) or not terms or set(content) != {"terms"}:
        raise ConfigError(
            f"{file} must hold 'terms', a list of scorers, and nothing else. Each has a kind: "
            f"{', '.join(SCORERS)}."
        )
    names, weights, scorers = [], [], []
    for number, term in enumerate(terms, 1):
        kind, settings = _read_term(term, f"{file}, term {number}")
        scorers.append(kind.make(settings, find))
        weights.append(_weight(term, f"{file}, term {number}"))
        names.append(str(term.get("name", kind.name)))
    return defer(WeightedSum, names=names, weights=weights, scorers=scorers)


def _read_term(term: Any, place: str) -> tuple[ScorerKind, Config]:
    if not isinstance(term, Mapping) or "kind" not in term:
        raise ConfigError(f"{place} has no kind. Kinds of scorers: {', '.join(SCORERS)}.")
    try:
        kind = SCORERS[str(term["kind"])]
    except KeyError as error:
        raise ConfigError(f"{place}: {error.args[0]}.") from None
    values = {key: value for key, value in term.items() if key not in _OF_EVERY_TERM}
    try:
        return kind, kind.settings.model_validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, p['loc']))}: {p['msg'].removeprefix('Value error, ')}"
            for p in error.errors(include_url=False)
        )
        known = ", ".join(kind.settings.model_fields)
        raise ConfigError(f"{place} ({kind.name}): {problems}. Its settings are {known}.") from None


def _weight(term: Mapping[str, Any], place: str) -> float:
    weight = term.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise ConfigError(f"{place}: the weight is {weight!r}, which is not a number.")
    return float(weight)


def scorer_content(scorer: Deferred[Any]) -> str:
    """Return the hash of all that a scorer's scores depend on: 64 hexadecimal digits.

    That of a reward model alone is the hash of its files, so that a server of it is recognized by
    the model's folder.
    """
    if scorer.function is reward_scorer and set(scorer.arguments) == {"model"}:
        return str(_content(scorer.arguments["model"]))
    if scorer.function is RemoteScorer:
        return str(scorer.arguments["content"])
    text = json.dumps(_content(scorer), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _content(value: Any) -> Any:
    if isinstance(value, Deferred):
        if value.function is RemoteScorer:
            return value.arguments["content"]
        function = f"{value.function.__module__}.{value.function.__qualname__}"
        return [function, {name: _content(item) for name, item in value.arguments.items()}]
    if isinstance(value, SourceFile):
        return sha256(value.path)
    if isinstance(value, Artifact):
        return content_of(value.path)
    if isinstance(value, Path):
        return content_of(value)
    if isinstance(value, Config):
        return value.identity()
    if isinstance(value, list | tuple):
        return [_content(item) for item in value]
    return value
