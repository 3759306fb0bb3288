"""Judging a finished policy on all held-out prompts. This file only sequences."""

from __future__ import annotations

from collections.abc import Mapping

from evaluation.harness import SAMPLES, Harness, write_samples
from evaluation.statistics import mean_interval
from plumbline.artefacts import Artefact
from plumbline.policy import Policy
from plumbline.quiet import hush
from plumbline.sampling import sample_in_chunks
from plumbline.stages import Stage, stage


@stage("evaluation")
def evaluate_policy(
    stage: Stage, *, policy: Artefact, reference: Artefact, harness: Harness, data_seed: int
) -> Mapping[str, float | None]:
    """Judge a policy: answers with every measure in ``samples.parquet``, means in the manifest."""
    hush()
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
    judge = harness.scorers[0].name
    headline = {name: figures.pop(name) for name in (f"{judge}_win_rate", judge) if name in figures}
    return headline | figures
