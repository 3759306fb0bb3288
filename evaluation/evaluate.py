"""Judging a finished policy on all held-out prompts. This file only sequences.

`sample_policy` makes the answers, `measure_samples` measures them and never samples; a recipe joins
the two by `sample_and_measure`. `evaluate_policy` does both in one stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evaluation.harness import Harness
from evaluation.samples import SAMPLES, read_samples, write_samples
from evaluation.statistics import mean_interval
from evaluation.tasks.sampling import sample_policy
from plumbline.data.records import Row
from plumbline.lm.policy import Policy
from plumbline.lm.sampling import sample_in_chunks
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import Deferred
from plumbline.runs.run import Run
from plumbline.runs.stage import Stage, stage


@stage("evaluation")
def evaluate_policy(
    stage: Stage, *, policy: Artifact, reference: Artifact, harness: Harness, data_seed: int
) -> Mapping[str, float | None]:
    """Judge a policy: answers with every measure in ``samples.parquet``, means in the manifest."""
    silence_libraries()
    judged = Policy.load(policy.path)
    against = judged if policy.id == reference.id else Policy.load(reference.path)
    rows = harness.judge(
        judged,
        against,
        harness.prompts,
        sampler=lambda speaker, prompts, seeds: sample_in_chunks(
            stage, speaker, prompts, seeds, harness.config.sampling, "held-out answers"
        ),
    )
    write_samples(stage.folder / SAMPLES, rows)
    return headline(harness, rows, data_seed)


@stage("evaluation")
def measure_samples(
    stage: Stage,
    *,
    samples: Artifact,
    policy: Artifact | None,
    reference: Artifact | None,
    harness: Harness,
    data_seed: int,
) -> Mapping[str, float | None]:
    """Measure answers that were sampled before; none is sampled here.

    ``samples``: answers of `sample_policy`, or those of an earlier evaluation, whose columns stay.
    ``reference``: None leaves the KL out. The figures are those of `evaluate_policy`.
    """
    silence_libraries()
    rows = read_samples(samples)
    judged = None if policy is None else Policy.load(policy.path)
    against: Policy | None = None
    if reference is not None:
        same = policy is not None and policy.id == reference.id
        against = judged if same else Policy.load(reference.path)
    for name, problem in harness.measure(rows, judged, against).items():
        stage.say(f"left out {name}: {problem}")
    write_samples(stage.folder / SAMPLES, rows)
    return headline(harness, rows, data_seed)


def sample_and_measure(
    run: Run,
    name: str,
    *,
    policy: Artifact,
    reference: Artifact | None,
    harness: Deferred[Harness],
) -> Artifact:
    """Let a policy answer, and measure the answers: stages ``samples/…`` and ``evaluation/…``.

    With another measure, scorer or baseline in the harness, the same answers are measured again.
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


def headline(harness: Harness, rows: Sequence[Row], data_seed: int) -> dict[str, float | None]:
    """Return all figures with the intervals of the win rates, what is most asked for first."""
    figures: dict[str, float | None] = dict(harness.figures(rows))
    if harness.has_baseline:
        for scorer in harness.scorers:
            interval = mean_interval(
                harness.points(rows, scorer.name),
                harness.config.confidence,
                harness.config.resamples,
                data_seed,
            )
            figures[f"{scorer.name}_win_rate_low"] = interval.low
            figures[f"{scorer.name}_win_rate_high"] = interval.high
    if not harness.scorers:
        return figures
    judge = harness.scorers[0].name
    first = {name: figures.pop(name) for name in (f"{judge}_win_rate", judge) if name in figures}
    return first | figures
