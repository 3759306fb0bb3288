"""One judge for all policies: the same held-out prompts, random streams, scorers and measures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from evaluation.config import EvaluationConfig
from evaluation.evaluate import measure_samples
from evaluation.harness import Harness
from evaluation.tasks.sampling import sample_policy
from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import Deferred, defer
from plumbline.runs.run import Run


class Judge(NamedTuple):
    """What evaluates policies, and the evaluation of the one that all started from."""

    baseline: Artifact
    """The evaluation of the start."""
    harness: Deferred[Any]
    """For finished policies, with all measures."""
    hook: Deferred[Any]
    """For policies in training, without the measures: adding one trains nothing again."""


def sample_start(
    run: Run, policy: Artifact, task: Deferred[Any], config: EvaluationConfig, data_seed: int
) -> Artifact:
    """Return the responses of the policy that all start from: stage ``samples/sft``."""
    return run.make(
        "samples/sft",
        sample_policy,
        policy=policy,
        prompts=task,
        count=config.prompts,
        sampling=config.sampling,
        data_seed=data_seed,
    )


def build_judge(
    run: Run,
    policy: Artifact,
    responses: Artifact,
    *,
    config: EvaluationConfig,
    task: Deferred[Any],
    scorers: Sequence[Deferred[Any]],
    measures: Sequence[Deferred[Any]],
    data_seed: int,
    reference: Artifact | None = None,
) -> Judge:
    """Evaluate the start; return what evaluates the others, against it.

    The first scorer decides. ``responses`` are those of the start, ``policy``, to the task. KL is
    that to the ``reference``; without one, to the start.
    """
    shared: dict[str, Any] = {
        "config": config, "prompts": task, "data_seed": data_seed, "scorers": list(scorers),
    }  # fmt: skip
    start: dict[str, Any] = {
        "samples": responses, "policy": policy, "reference": reference or policy,
        "data_seed": data_seed,
    }  # fmt: skip
    scored = run.make("scores/sft", measure_samples, **start, harness=defer(Harness, **shared))
    baseline = run.make(
        "evaluation/sft",
        measure_samples,
        **start,
        harness=defer(Harness, **shared, measures=list(measures)),
    )
    return Judge(
        baseline,
        harness=defer(Harness, **shared, baseline=scored, measures=list(measures)),
        hook=defer(Harness, **shared, baseline=scored),
    )
