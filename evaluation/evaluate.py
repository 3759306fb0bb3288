"""Evaluating a finished policy on all held-out prompts. This file only sequences.

`sample_policy` samples the responses, `measure_samples` measures them and never samples; a recipe
joins the two by `sample_and_measure`. `evaluate_policy` does both in one stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evaluation.harness import Harness
from evaluation.sample_files import SAMPLES, read_samples, write_samples
from evaluation.tasks.sampling import sample_policy
from plumbline.data.records import Row
from plumbline.lm.policy import Policy
from plumbline.lm.sampling import sample_in_chunks
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import Deferred
from plumbline.runs.run import Run
from plumbline.runs.stage import Stage, stage
from plumbline.statistics import bootstrap_interval


@stage("evaluation", spreads_rows=True)
def evaluate_policy(
    stage: Stage, *, policy: Artifact, reference: Artifact, harness: Harness, data_seed: int
) -> Mapping[str, float | None]:
    """Evaluate a policy: responses with every measure in ``samples.parquet``, means as metrics."""
    silence_libraries()
    evaluated = Policy.load(policy.path)
    reference_policy = evaluated if policy.id == reference.id else Policy.load(reference.path)
    rows = harness.evaluate(
        evaluated,
        reference_policy,
        harness.prompts,
        sampler=lambda sampled, prompts, seeds: sample_in_chunks(
            stage, sampled, prompts, seeds, harness.config.sampling, "held-out responses"
        ),
    )
    write_samples(stage.folder / SAMPLES, rows)
    return headline_metrics(harness, rows, data_seed)


@stage("evaluation", spreads_rows=True)
def measure_samples(
    stage: Stage,
    *,
    samples: Artifact,
    policy: Artifact | None,
    reference: Artifact | None,
    harness: Harness,
    data_seed: int,
) -> Mapping[str, float | None]:
    """Measure responses that were sampled before; this stage samples nothing.

    ``samples``: responses of `sample_policy`, or those of an earlier evaluation, whose columns
    stay. ``reference``: with None there is no KL. The metrics are those of `evaluate_policy`.
    """
    silence_libraries()
    rows = read_samples(samples)
    evaluated = None if policy is None else Policy.load(policy.path)
    reference_policy: Policy | None = None
    if reference is not None:
        is_same = policy is not None and policy.id == reference.id
        reference_policy = evaluated if is_same else Policy.load(reference.path)
    by_problem: dict[str, list[str]] = {}
    for name, problem in harness.measure(rows, evaluated, reference_policy).items():
        by_problem.setdefault(problem, []).append(name)
    for problem, names in by_problem.items():
        stage.say(f"not measured, since {problem}: {', '.join(names)}")
    write_samples(stage.folder / SAMPLES, rows)
    return headline_metrics(harness, rows, data_seed)


def sample_and_measure(
    run: Run,
    name: str,
    *,
    policy: Artifact,
    reference: Artifact | None,
    harness: Deferred[Harness],
) -> Artifact:
    """Sample responses and measure them: stages ``samples/…`` and ``evaluation/…``.

    With another measure, scorer or baseline in the harness, the same responses are measured again.
    """
    config, data_seed = harness.arguments["config"], harness.arguments["data_seed"]
    samples = run.make(
        f"samples/{name}",
        sample_policy,
        policy=policy,
        prompts=harness.arguments["prompts"],
        count=config.prompts,
        sampling=config.sampling,
        data_seed=data_seed,
    )
    return run.make(
        f"evaluation/{name}",
        measure_samples,
        samples=samples,
        policy=policy,
        reference=reference,
        harness=harness,
        data_seed=data_seed,
    )


def headline_metrics(
    harness: Harness, rows: Sequence[Row], data_seed: int
) -> dict[str, float | None]:
    """Return all metrics with the intervals of the win rates; the deciding score comes first."""
    metrics: dict[str, float | None] = dict(harness.metrics(rows))
    if harness.has_baseline:
        for scorer in harness.scorers:
            interval = bootstrap_interval(
                harness.win_scores(rows, scorer.name),
                harness.config.confidence,
                harness.config.resamples,
                data_seed,
            )
            metrics[f"{scorer.name}_win_rate_low"] = interval.low
            metrics[f"{scorer.name}_win_rate_high"] = interval.high
    if not harness.scorers:
        return metrics
    judge = harness.scorers[0].name
    first = {name: metrics.pop(name) for name in (f"{judge}_win_rate", judge) if name in metrics}
    return first | metrics
