"""What is compared: trainings of methods, each looked at several times, from wherever they come."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from evaluation.samples import read_rows, read_samples
from plumbline.data.records import Row
from plumbline.runs.artifacts import Artifact, sha256
from plumbline.runs.metrics import METRICS, read_metrics

#: method -> seed -> {"policy": artefact, "evaluation": artefact}
Methods = Mapping[str, Mapping[str, Mapping[str, Artifact]]]

EVALUATIONS = "evaluations"
TRACES = "traces"
COSTS = ("responses", "tokens", "steps", "seconds")
_NEVER_SCORES = frozenset(
    {"prompt_id", "prompt", "response", "tokens", "words", "finished", "logprob",
     "reference_logprob", "subset", "ids"}
)  # fmt: skip


@dataclass(frozen=True)
class Look:
    """One policy at one moment of its training: its answers, judged, and what it had cost by then.

    ``costs``: responses learnt from, tokens trained on or sampled, optimiser steps, seconds; None
    where it is not known.
    """

    checkpoint: int
    rows: Sequence[Row]
    costs: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def kl(self) -> float | None:
        """KL to the reference, nats a response (k1 on sequences); None without log-probabilities.

        The mean of log p − log q over the responses; may be below 0 in a finite sample.
        """
        found = [
            row["logprob"] - row["reference_logprob"]
            for row in self.rows
            if row.get("logprob") is not None and row.get("reference_logprob") is not None
        ]
        return sum(found) / len(found) if found and len(found) == len(self.rows) else None

    def mean(self, scorer: str) -> float | None:
        """Return the mean score; None where not every row has one."""
        values = [row.get(scorer) for row in self.rows]
        known = [float(value) for value in values if value is not None]
        return sum(known) / len(known) if known and len(known) == len(values) else None

    def on(self, prompts: Iterable[str]) -> Look:
        """Return this look at some prompts alone, in their order."""
        rows = {row["prompt_id"]: row for row in self.rows}
        return replace(self, rows=[rows[identity] for identity in prompts])


@dataclass(frozen=True)
class Trained:
    """One training of one method with one seed."""

    method: str
    seed: str
    looks: Sequence[Look]
    """By checkpoint; the last is the finished policy, unless ``unfinished``."""
    source: str
    """Where it comes from, in words."""
    terms: Mapping[str, str] = field(default_factory=dict)
    """What must be the same for a comparison to mean something: name to digest."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """The method's own settings, flattened."""
    troubles: Sequence[str] = ()
    """What went wrong in training, in words."""
    unfinished: bool = False
    memory: float | None = None
    """Peak memory, bytes."""
    scorers: Sequence[str] = ()
    """Which columns of the answers are scores by which policies may be compared."""

    @property
    def final(self) -> Look:
        """The last look."""
        return self.looks[-1]

    @property
    def name(self) -> str:
        """Method and seed."""
        return f"{self.method}, seed {self.seed}"

    def identity(self, look: Look) -> str:
        """Return the id of the policy at a look: method, seed and checkpoint."""
        return f"{self.method}/{self.seed}/{look.checkpoint}"


def of_methods(methods: Methods) -> list[Trained]:
    """Return what a recipe's artefacts hold."""
    return [
        of_artifacts(method, seed, made["policy"], made["evaluation"])
        for method, seeds in methods.items()
        for seed, made in seeds.items()
    ]


def of_artifacts(method: str, seed: str, policy: Artifact, evaluation: Artifact) -> Trained:
    """Return one training from its policy and its evaluation."""
    manifest = policy.manifest
    lines = read_metrics(policy.path / METRICS) if (policy.path / METRICS).exists() else []
    last = int(max((line["step"] for line in lines), default=0))
    whole = {
        "responses": policy.metrics.get("responses"),
        "tokens": _sum(policy.metrics.get("tokens_seen"), policy.metrics.get("tokens_sampled")),
        "steps": policy.metrics.get("steps"),
        "seconds": manifest.seconds,
    }
    looks, missing = _looks(policy.path, lines, whole, last)
    final = Look(last, read_samples(evaluation), whole)
    troubles = [*_troubles(policy.path, lines), *missing]
    arguments = evaluation.manifest.arguments["arguments"]
    return Trained(
        method=method,
        seed=seed,
        looks=[*(look for look in looks if look.checkpoint < last), final],
        source=f"{policy.id} and {evaluation.id}",
        terms=terms_of(arguments, policy, final.rows),
        settings=_settings(manifest.arguments["arguments"]),
        troubles=troubles,
        memory=float(manifest.peak_memory_bytes),
        scorers=_won_by(evaluation.metrics) or numeric_columns(final.rows),
    )


def of_partial(method: str, seed: str, folder: Path) -> Trained | None:
    """Return a training that goes on, from what it has left so far; None before its first look."""
    metrics = folder / METRICS
    lines = read_metrics(metrics) if metrics.exists() else []
    looks, _ = _looks(folder, lines, {}, 0)
    if not looks:
        return None
    return Trained(
        method, seed, looks, f"{folder.name}, not finished", troubles=_troubles(folder, lines),
        terms={"prompts": prompts_digest(looks[-1].rows)}, unfinished=True,
        scorers=_won_by(
            {name.removeprefix("eval/"): value for line in lines for name, value in line.items()}
        ),
    )  # fmt: skip


def baseline_of(evaluation: Artifact) -> Look:
    """Return the policy that every method started from, as a look."""
    return Look(0, read_samples(evaluation), dict.fromkeys(COSTS, 0.0))


def numeric_columns(rows: Sequence[Row]) -> list[str]:
    """Return the names of the columns that are scores or other measures, in their order."""
    if not rows:
        return []
    return [
        name
        for name, value in rows[0].items()
        if name not in _NEVER_SCORES
        and "." not in name
        and isinstance(value, int | float)
        and not isinstance(value, bool)
    ]


def subset_of(row: Row) -> str:
    """Return the kind of prompt a row belongs to: as given, else by how many turns it has."""
    if row.get("subset") is not None:
        return str(row["subset"])
    turns = sum(message["role"] == "user" for message in row["prompt"])
    return "one turn" if turns == 1 else f"{turns} turns"


def prompts_digest(rows: Sequence[Row]) -> str:
    """Return a digest of which prompts were answered."""
    import hashlib

    identities = "\n".join(sorted(str(row["prompt_id"]) for row in rows))
    return f"{len(rows)} prompts {hashlib.sha256(identities.encode()).hexdigest()[:12]}"


def terms_of(arguments: Mapping[str, Any], policy: Artifact, rows: Sequence[Row]) -> dict[str, str]:
    """Return on which terms a policy was judged, from its evaluation's description."""
    harness = arguments.get("harness", {}).get("arguments", {})
    found = {"prompts": prompts_digest(rows)}
    if "reference" in arguments:
        found["reference"] = str(arguments["reference"]["artifact"])
    if "config" in harness:
        values = dict(harness["config"]["values"])
        found["sampling"] = json.dumps(values.get("sampling"), sort_keys=True)
    for scorer in harness.get("scorers", ()):
        name = str(scorer["function"]).rsplit(".", 1)[-1]
        found[f"judge {name}"] = json.dumps(scorer["arguments"], sort_keys=True)
    tokenizer = policy.path / "tokenizer.json"
    if tokenizer.exists():
        found["tokenizer"] = sha256(tokenizer)[:12]
    return found


def _looks(
    folder: Path,
    lines: Sequence[Mapping[str, Any]],
    whole: Mapping[str, float | None],
    last: int,
) -> tuple[list[Look], list[str]]:
    """Return the looks during training and what is missing among them.

    What a look had cost is the whole's share by steps, which is exact for steps and responses and
    nearly so for tokens and time.
    """
    found, missing = [], []
    for line in lines:
        if "eval/kl" not in line:
            continue
        step = int(line["step"])
        path = folder / EVALUATIONS / f"step-{step}.parquet"
        if not path.exists():
            missing.append(f"the answers of checkpoint {step} are gone")
            continue
        share = step / last if last else 0.0
        costs = {name: None if v is None else v * share for name, v in whole.items()}
        found.append(Look(step, read_rows(path), costs))
    return found, missing


def _troubles(folder: Path, lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say where a training diverged or was interfered with by its guards."""
    found = []
    for name in ("loss", "score", "eval/kl", "eval/reward"):
        lost = [line["step"] for line in lines if name in line and line[name] is None]
        if lost:
            found.append(f"diverged: {name} is no finite number at step {lost[0]}")
    if (folder / TRACES).is_dir() and (count := len(list((folder / TRACES).iterdir()))):
        found.append(f"its guards stepped in {count} times (see traces/)")
    return found


def _settings(arguments: Mapping[str, Any]) -> dict[str, str]:
    config = arguments.get("config")
    return dict(_flat(config["values"], "")) if isinstance(config, Mapping) else {}


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", json.dumps(value)


def _sum(*values: float | None) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _won_by(figures: Mapping[str, Any]) -> list[str]:
    """Return the scorers of a harness: those by which it counts wins."""
    return [name.removesuffix("_win_rate") for name in figures if name.endswith("_win_rate")]


def is_finite(look: Look, scorer: str) -> bool:
    """Whether every row has a finite score."""
    return all(row.get(scorer) is not None and math.isfinite(row[scorer]) for row in look.rows)
