"""Which policies can be compared: what is refused, and what is flagged.

A comparison is meaningful only where all policies responded to the same prompts, were sampled the
same way, have the same reference and the same judges. Differences are named; nothing is left out
without a message.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from evaluation.comparison.training_runs import CheckpointEval, TrainingRun
from plumbline.errors import DataError
from plumbline.statistics import mean_and_se

Level = Literal["note", "warning", "refused"]

#: What follows where a term differs.
_CONSEQUENCES = {
    "reference": "so their KL is not to the same policy and they did not start from the same one",
    "sampling": "so their responses were not sampled in the same way",
    "tokenizer": "so their log-probabilities are of different tokens and KL does not compare",
}


#: A mean log-ratio so many standard errors and so many nats below 0 is not a KL.
_ERRORS_BELOW = 4.0
_NATS_BELOW = 0.05
#: A training run that lacks more of its scores than this is left out.
_MAX_MISSING = 0.5


@dataclass(frozen=True)
class Flag:
    """Something that a reader must know: a note, a warning, or a policy that was left out."""

    level: Level
    text: str


@dataclass
class Comparable:
    """Training runs that can be compared, and the flags about them."""

    runs: list[TrainingRun]
    prompts: list[str]
    """Ids of the prompts that all responded to, in order."""
    flags: list[Flag] = field(default_factory=list)
    has_comparable_kl: bool = True


def check_comparability(
    runs: Sequence[TrainingRun],
    judge: str,
    baseline: CheckpointEval | None = None,
    *,
    common_prompts: bool = False,
    allowed: Collection[str] = (),
) -> Comparable:
    """Return what can be compared by ``judge``; raise `DataError` where nothing can.

    ``common_prompts`` restricts everything to the prompts that all responded to; ``allowed`` names
    terms that may differ (``reference``, ``sampling``).
    """
    flags: list[Flag] = []
    kept = []
    for run in runs:
        reason = _why_unscored(run.final, judge)
        if reason is None:
            kept.append(run)
        else:
            reason = "; ".join(run.problems) or reason
            flags.append(Flag("refused", f"{run.name} is left out: no finite {judge} ({reason})."))
    if not kept:
        raise DataError(
            f"There is nothing to compare: no policy has a finite {judge} for its responses. "
            + " ".join(flag.text for flag in flags)
        )
    flags += _term_flags(kept, allowed)
    finished = [run for run in kept if run.is_finished]
    prompts = _shared_prompts(finished or kept, baseline, common_prompts or not finished, flags)
    prompts = _scored_prompts(kept, baseline, judge, prompts, flags)
    if len(prompts) < 2:
        raise DataError(
            f"{_names(kept)} can be compared on {len(prompts)} prompt(s), and an interval needs "
            "two. At the end of training each policy needs a response to each prompt: in a file of "
            "samples, give the responses of one policy the same checkpoint."
        )
    about_kl = list(kl_flags(kept))
    flags += about_kl
    tokenizers = {run.terms["tokenizer"] for run in kept if "tokenizer" in run.terms}
    flags += [Flag("warning", f"{run.name}: {text}.") for run in kept for text in run.problems]
    flags += _unevenness_flags(kept)
    restricted = [
        replace(run, checkpoints=[_on_shared(c, prompts) for c in run.checkpoints]) for run in kept
    ]
    has_comparable_kl = len(tokenizers) <= 1 and not any(f.level == "warning" for f in about_kl)
    return Comparable(restricted, prompts, flags, has_comparable_kl)


def _on_shared(checkpoint: CheckpointEval, prompts: Sequence[str]) -> CheckpointEval:
    """Return a checkpoint on the shared prompts; one during training may have fewer of them."""
    responded = {row["prompt_id"] for row in checkpoint.rows}
    return checkpoint.on_prompts([identity for identity in prompts if identity in responded])


def _why_unscored(checkpoint: CheckpointEval, judge: str) -> str | None:
    """Say why a policy cannot be compared by its scores; None where it can."""
    scores = [row.get(judge) for row in checkpoint.rows]
    missing = sum(score is None for score in scores)
    if missing > _MAX_MISSING * len(scores):
        return f"{missing} of its {len(scores)} responses have no score"
    infinite = sum(score is not None and not math.isfinite(score) for score in scores)
    return f"{infinite} of its scores are not finite" if infinite else None


def _scored_prompts(
    runs: Sequence[TrainingRun],
    baseline: CheckpointEval | None,
    judge: str,
    prompts: Sequence[str],
    flags: list[Flag],
) -> list[str]:
    """Return the prompts at which no response lacks a score; flag how many go."""
    checkpoints = [(run.name, checkpoint) for run in runs for checkpoint in run.checkpoints]
    if baseline is not None:
        checkpoints.append(("the baseline", baseline))
    unscored: dict[str, set[str]] = defaultdict(set)
    for name, checkpoint in checkpoints:
        identities = {row["prompt_id"] for row in checkpoint.rows if row.get(judge) is None}
        if identities := identities & set(prompts):
            unscored[name] |= identities
    if not unscored:
        return list(prompts)
    gone = set().union(*unscored.values())
    kept = [identity for identity in prompts if identity not in gone]
    counts = ", ".join(f"{name} {len(identities)}" for name, identities in unscored.items())
    text = f"{len(gone)} of {len(prompts)} prompts have a response without {judge} ({counts})"
    if len(kept) < 2:
        raise DataError(f"{text}, so there is nothing to compare. Score the responses first.")
    flags.append(Flag("warning", f"{text}; only the other {len(kept)} are compared."))
    return kept


def kl_flags(runs: Sequence[TrainingRun]) -> Iterator[Flag]:
    """Flag log-probabilities that cannot be of the samples, and those that lack in part."""
    for run in runs:
        for checkpoint in run.checkpoints:
            known = sum(row.get("logprob") is not None for row in checkpoint.rows)
            referred = sum(row.get("reference_logprob") is not None for row in checkpoint.rows)
            log_ratios = checkpoint.log_ratios
            if (known or referred) and not log_ratios:
                yield Flag(
                    "note",
                    f"{run.name}: {known} of {len(checkpoint.rows)} responses have a logprob and "
                    f"{referred} a reference_logprob; KL needs both of every response, so it is "
                    "not known.",
                )
                break
            if not log_ratios:
                break
            noise = [
                abs(row["sampling_logprob"] - row["logprob"])
                for row in checkpoint.rows
                if row.get("sampling_logprob") is not None
            ]
            if noise and checkpoint is run.final:
                yield Flag(
                    "note",
                    f"{run.name} was sampled in less than float32: the log-probabilities of "
                    "sampling differ from those of the scoring pass by "
                    f"{mean_and_se(noise).mean:.2g} nats per response. KL uses the scoring pass "
                    "for policy and reference.",
                )
            mean, error = mean_and_se(log_ratios)
            if mean < -max(_NATS_BELOW, _ERRORS_BELOW * error):
                yield Flag(
                    "warning",
                    f"{run.name}: the mean of logprob - reference_logprob is {mean:.2f} nats per "
                    f"response at checkpoint {checkpoint.step}. A KL is never below 0, so the "
                    "log-probabilities are of another temperature, of other tokens, or of other "
                    "responses. KL is not used in this comparison.",
                )
                break


def _term_flags(runs: Sequence[TrainingRun], allowed: Collection[str]) -> list[Flag]:
    flags = []
    by_term: dict[str, dict[str, list[TrainingRun]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        for name, value in run.terms.items():
            by_term[name][value].append(run)
    for name, values in by_term.items():
        if len(values) < 2 or name == "prompts":
            continue
        sides = " and ".join(_names(group) for group in values.values())
        if name.startswith("judge "):
            raise DataError(
                f"{sides} were scored by different judges ({name.removeprefix('judge ')}), so "
                "their scores do not compare. Evaluate them again with one judge (plumbline "
                "evaluate), or compare them within their own runs."
            )
        text = f"{sides} differ in {name}, {_CONSEQUENCES.get(name, '')}".rstrip(", ")
        if name == "tokenizer" or name in allowed:
            flags.append(Flag("warning", f"{text}."))
        else:
            raise DataError(f"{text}. To compare them anyway, give --allow {name}.")
    return flags


def _shared_prompts(
    runs: Sequence[TrainingRun],
    baseline: CheckpointEval | None,
    common_prompts: bool,
    flags: list[Flag],
) -> list[str]:
    prompts = {run.name: [row["prompt_id"] for row in run.final.rows] for run in runs}
    if baseline is not None:
        prompts["the baseline"] = [row["prompt_id"] for row in baseline.rows]
    for name, identities in prompts.items():
        repeated = [identity for identity, n in Counter(identities).items() if n > 1]
        if repeated:
            raise DataError(
                f"{name} responds to {len(repeated)} prompts more than once at one checkpoint. "
                "Give each response a seed of its own, so that each policy has one response per "
                "prompt."
            )
    sets = {name: set(identities) for name, identities in prompts.items()}
    shared = set.intersection(*sets.values())
    union = set.union(*sets.values())
    if shared != union:
        counts = ", ".join(f"{name} {len(ids)}" for name, ids in list(sets.items())[:8])
        text = f"{len(shared)} of {len(union)} prompts have responses by all ({counts})"
        if not common_prompts or len(shared) < 2:
            raise DataError(
                f"The policies responded to different prompts: {text}. A paired comparison needs "
                "the same prompts: sample the missing responses"
                + ("." if len(shared) < 2 else ", or give --common-prompts to use the shared ones.")
            )
        flags.append(Flag("warning", f"Different prompts: {text}; only these are compared."))
    return [identity for identity in prompts[runs[0].name] if identity in shared]


def _unevenness_flags(runs: Sequence[TrainingRun]) -> Iterable[Flag]:
    seeds: dict[str, list[TrainingRun]] = defaultdict(list)
    for run in runs:
        seeds[run.method].append(run)
    all_finished = all(run.is_finished for run in runs)
    if all_finished and len({len(group) for group in seeds.values()}) > 1:
        counts = ", ".join(f"{method} {len(group)}" for method, group in seeds.items())
        yield Flag("warning", f"The methods have different numbers of seeds: {counts}.")
    for method, group in seeds.items():
        most = max(len(run.checkpoints) for run in group)
        for run in group:
            if len(run.checkpoints) < most and run.is_finished:
                yield Flag(
                    "warning",
                    f"{run.name} has {len(run.checkpoints)} checkpoints where another seed of "
                    f"{method} has {most}: some are missing, or it stopped early.",
                )


def _names(group: Sequence[TrainingRun]) -> str:
    names = [run.name for run in group]
    return names[0] if len(names) == 1 else f"{names[0]} (and {len(names) - 1} more)"
