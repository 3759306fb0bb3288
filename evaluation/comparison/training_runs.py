"""What is compared: training runs of methods, each evaluated at several checkpoints."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from evaluation.comparison.energy import Energy, energy_of
from evaluation.sample_files import read_rows, read_samples
from plumbline.data.records import Row
from plumbline.runs.artifacts import Artifact, sha256
from plumbline.runs.metrics import METRICS, read_metrics
from plumbline.runs.run import flat_settings
from plumbline.world.gold import GoldUtility

#: method -> seed -> {"policy": artefact, "evaluation": artefact}
Methods = Mapping[str, Mapping[str, Mapping[str, Artifact]]]

EVALUATIONS = "evaluations"
TRACES = "traces"
COSTS = ("responses", "tokens", "steps", "seconds")
#: Columns of a response that are no scores.
NO_SCORES = frozenset(
    {"prompt_id", "prompt", "response", "tokens", "words", "finished", "logprob",
     "reference_logprob", "sampling_logprob", "subset", "ids", "logprobs", "references"}
)  # fmt: skip


#: What people read in place of the names of a recipe's stages.
_TITLES = {"sft": "SFT", "dpo": "DPO", "ppo": "PPO"}
#: Functions that load a judge, by the name that older runs have for it.
_SAME_JUDGE = {"reward_scorer": "RewardModelScorer"}
#: The term of policies that the embedded world's own gold utility judged.
JUDGE_OF_WORLD = f"judge {GoldUtility.__name__}"


def title_of(method: str) -> str:
    """Return what people read in place of the name of a recipe's method."""
    return _TITLES.get(method, method)


@dataclass(frozen=True)
class CheckpointEval:
    """The evaluation of one checkpoint: its responses with scores, and its costs so far.

    ``costs``: responses trained on, tokens trained on or sampled, optimizer steps, seconds; None
    where it is unknown.
    """

    step: int
    rows: Sequence[Row]
    costs: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def kl(self) -> float | None:
        """KL to the reference, nats per response (k1 on sequences); None without log-probabilities.

        The mean of log p − log q over the responses; it may be below 0 in a finite sample.
        """
        log_ratios = self.log_ratios
        return sum(log_ratios) / len(log_ratios) if log_ratios else None

    @property
    def log_ratios(self) -> list[float]:
        """The log p − log q of each response, in nats; empty where one of them is unknown."""
        log_ratios = [
            row["logprob"] - row["reference_logprob"]
            for row in self.rows
            if row.get("logprob") is not None and row.get("reference_logprob") is not None
        ]
        return log_ratios if len(log_ratios) == len(self.rows) else []

    def mean(self, scorer: str) -> float | None:
        """Return the mean score; None where a row has none."""
        values = [row.get(scorer) for row in self.rows]
        known = [float(value) for value in values if value is not None]
        return sum(known) / len(known) if known and len(known) == len(values) else None

    def on_prompts(self, prompts: Iterable[str]) -> CheckpointEval:
        """Return this evaluation on some prompts only, in their order."""
        rows = {row["prompt_id"]: row for row in self.rows}
        return replace(self, rows=[rows[identity] for identity in prompts])


@dataclass(frozen=True)
class TrainingRun:
    """One training of one method with one seed."""

    method: str
    seed: str
    checkpoints: Sequence[CheckpointEval]
    """In order; the last is the finished policy, if ``is_finished``."""
    source: str
    """Where it comes from, in words."""
    terms: Mapping[str, str] = field(default_factory=dict)
    """What must be equal for policies to be comparable: name to digest."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """The settings of the method, flattened."""
    problems: Sequence[str] = ()
    """What went wrong in training, in words."""
    is_finished: bool = True
    peak_memory: float | None = None
    """Bytes."""
    scorers: Sequence[str] = ()
    """The columns of the responses that are scores by which policies can be compared."""
    title: str = ""
    """What people read in place of the method's name, if anything."""
    energy: Energy | None = None
    """Energy of the training, if anything is known of it."""

    @property
    def final(self) -> CheckpointEval:
        """The last checkpoint."""
        return self.checkpoints[-1]

    @property
    def name(self) -> str:
        """Method and seed."""
        return f"{self.method}, seed {self.seed}"

    def policy_id(self, checkpoint: CheckpointEval) -> str:
        """Return the id of the policy at a checkpoint: method, seed and step."""
        return f"{_id_part(self.method)}/{_id_part(self.seed)}/{checkpoint.step}"


@dataclass(frozen=True)
class Baseline:
    """The policy that all others are compared with."""

    name: str
    title: str
    evaluation: CheckpointEval


def training_runs_of(methods: Methods) -> list[TrainingRun]:
    """Return the training runs of a recipe's artefacts."""
    return [
        training_run_of(method, seed, artifacts["policy"], artifacts["evaluation"])
        for method, seeds in methods.items()
        for seed, artifacts in seeds.items()
    ]


def training_run_of(method: str, seed: str, policy: Artifact, evaluation: Artifact) -> TrainingRun:
    """Return one training run from its policy and its evaluation."""
    manifest = policy.manifest
    lines = read_metrics(policy.path / METRICS) if (policy.path / METRICS).exists() else []
    last_step = int(max((line["step"] for line in lines), default=0))
    total_costs = {
        "responses": policy.metrics.get("responses"),
        "tokens": _sum(policy.metrics.get("tokens_seen"), policy.metrics.get("tokens_sampled")),
        "steps": policy.metrics.get("steps"),
        "seconds": manifest.seconds,
    }
    checkpoints, missing = _checkpoints(policy.path, lines, total_costs, last_step)
    final = CheckpointEval(last_step, read_samples(evaluation), total_costs)
    arguments = evaluation.manifest.arguments["arguments"]
    return TrainingRun(
        method=method,
        seed=seed,
        checkpoints=[*(c for c in checkpoints if c.step < last_step), final],
        source=f"{policy.id} and {evaluation.id}",
        terms=comparability_terms(arguments, policy, final.rows),
        settings=_settings(manifest.arguments["arguments"]),
        problems=[*_training_problems(policy.path, lines), *missing],
        peak_memory=float(manifest.peak_memory_bytes),
        scorers=_scorers_with_wins(evaluation.metrics) or numeric_columns(final.rows),
        title=title_of(method),
        energy=energy_of(manifest),
    )


def unfinished_training_run(method: str, seed: str, folder: Path) -> TrainingRun | None:
    """Return a training run in progress, from its folder; None before its first checkpoint."""
    metrics = folder / METRICS
    lines = read_metrics(metrics) if metrics.exists() else []
    checkpoints, _ = _checkpoints(folder, lines, {}, 0)
    if not checkpoints:
        return None
    return TrainingRun(
        method,
        seed,
        checkpoints,
        f"{folder.name}, not finished",
        problems=_training_problems(folder, lines),
        terms={"prompts": prompts_digest(checkpoints[-1].rows)},
        is_finished=False,
        scorers=_scorers_with_wins(
            {name.removeprefix("eval/"): value for line in lines for name, value in line.items()}
        ),
        title=title_of(method),
    )


def baseline_of(evaluation: Artifact, name: str = "sft") -> Baseline:
    """Return the policy that every method of a recipe started from."""
    checkpoint = CheckpointEval(0, read_samples(evaluation), dict.fromkeys(COSTS, 0.0))
    return Baseline(name, title_of(name), checkpoint)


def numeric_columns(rows: Sequence[Row]) -> list[str]:
    """Return the names of the columns that are scores or other measures, in order.

    A column counts where any row has a number in it.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    return [
        name
        for name in names
        if name not in NO_SCORES
        and "." not in name
        and any(
            isinstance(value := row.get(name), int | float) and not isinstance(value, bool)
            for row in rows
        )
    ]


def subset_of(row: Row) -> str:
    """Return the subset of a prompt: as given, else by its number of turns."""
    if row.get("subset") is not None:
        return str(row["subset"])
    turns = sum(message["role"] == "user" for message in row["prompt"])
    return "one turn" if turns == 1 else f"{turns} turns"


def prompts_digest(rows: Sequence[Row]) -> str:
    """Return a digest of the set of prompts."""
    identities = "\n".join(sorted(str(row["prompt_id"]) for row in rows))
    return f"{len(rows)} prompts {hashlib.sha256(identities.encode()).hexdigest()[:12]}"


def comparability_terms(
    arguments: Mapping[str, Any], policy: Artifact, rows: Sequence[Row]
) -> dict[str, str]:
    """Return the terms on which a policy was evaluated, from the arguments of its evaluation."""
    harness = arguments.get("harness", {}).get("arguments", {})
    terms = {"prompts": prompts_digest(rows)}
    if "reference" in arguments:
        terms["reference"] = str(arguments["reference"]["artifact"])
    if "config" in harness:
        values = dict(harness["config"]["values"])
        terms["sampling"] = json.dumps(values.get("sampling"), sort_keys=True)
    for scorer in harness.get("scorers", ()):
        name = str(scorer["function"]).rsplit(".", 1)[-1]
        name = _SAME_JUDGE.get(name, name)
        terms[f"judge {name}"] = json.dumps(scorer["arguments"], sort_keys=True)
    tokenizer = policy.path / "tokenizer.json"
    if tokenizer.exists():
        terms["tokenizer"] = sha256(tokenizer)[:12]
    return terms


def _checkpoints(
    folder: Path,
    lines: Sequence[Mapping[str, Any]],
    total_costs: Mapping[str, float | None],
    last_step: int,
) -> tuple[list[CheckpointEval], list[str]]:
    """Return the evaluations during training, and what is missing among them.

    The cost of a checkpoint is the total cost by its share of the steps: exact for steps and
    responses, nearly exact for tokens and time.
    """
    checkpoints, missing = [], []
    for line in lines:
        if "eval/kl" not in line:
            continue
        step = int(line["step"])
        path = folder / EVALUATIONS / f"step-{step}.parquet"
        if not path.exists():
            missing.append(f"the responses of checkpoint {step} are missing")
            continue
        share = step / last_step if last_step else 0.0
        costs = {name: None if v is None else v * share for name, v in total_costs.items()}
        checkpoints.append(CheckpointEval(step, read_rows(path), costs))
    return checkpoints, missing


def _training_problems(folder: Path, lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say where a training diverged or its guards stepped in."""
    problems = []
    for name in ("loss", "score", "eval/kl", "eval/reward"):
        steps = [line["step"] for line in lines if name in line and line[name] is None]
        if steps:
            problems.append(f"diverged: {name} is not finite at step {steps[0]}")
    if (folder / TRACES).is_dir() and (count := len(list((folder / TRACES).iterdir()))):
        problems.append(f"its guards stepped in {count} times (see traces/)")
    return problems


def _settings(arguments: Mapping[str, Any]) -> dict[str, str]:
    config = arguments.get("config")
    return flat_settings(config["values"]) if isinstance(config, Mapping) else {}


def _id_part(text: str) -> str:
    """Return a name without slashes and without what a file or a page cannot show."""
    return "".join(
        quote(c, safe="", errors="replace") if c in "%/" or not c.isprintable() else c for c in text
    )


def _sum(*values: float | None) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _scorers_with_wins(metrics: Mapping[str, Any]) -> list[str]:
    """Return the scorers of a harness: those by which it counts wins."""
    return [name.removesuffix("_win_rate") for name in metrics if name.endswith("_win_rate")]
