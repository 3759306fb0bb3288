"""Letting a policy answer a task, once. What is measured of the answers is decided afterwards.

Nothing here knows a measure, so that a new one, or another way of counting, makes no answer anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from evaluation.samples import SAMPLES, write_samples
from plumbline.data.records import Conversation, Row, prompt_id
from plumbline.data.tasks import Task, as_task
from plumbline.lm.generation import Generation, SamplingConfig
from plumbline.lm.policy import Policy
from plumbline.lm.sampling import sample_in_chunks
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact
from plumbline.runs.stage import Stage, stage
from plumbline.seeds import derive

Sampler = Callable[[Policy, list[list[int]], list[int]], list[Generation]]


@stage("samples")
def sample_policy(
    stage: Stage,
    *,
    policy: Artifact,
    prompts: Task | Sequence[Conversation],
    count: int | None,
    sampling: SamplingConfig,
    data_seed: int,
) -> Mapping[str, float | None]:
    """Let a policy answer the first ``count`` prompts: ``samples.parquet``, without any measure.

    Each row has the prompt, the response, its ``ids`` and the log-probability of each of them.
    """
    silence_libraries()
    task = as_task(prompts).first(count)
    for note in task.notes:
        stage.say(note)
    rows = answer(
        Policy.load(policy.path),
        task,
        sampling,
        data_seed,
        lambda speaker, asked, seeds: sample_in_chunks(
            stage, speaker, asked, seeds, sampling, "held-out answers"
        ),
    )
    write_samples(stage.folder / SAMPLES, rows)
    return {
        "prompts": float(len(rows)),
        "tokens": sum(row["tokens"] for row in rows) / len(rows),
        "finished": sum(row["finished"] for row in rows) / len(rows),
    }


def answer(
    policy: Policy,
    task: Task,
    sampling: SamplingConfig,
    data_seed: int,
    sampler: Sampler | None = None,
) -> list[Row]:
    """Return a policy's answer to each prompt of a task, as a row.

    Every prompt has a random stream of its own, which depends on the data seed and on its text
    alone: all policies draw from the same.
    """
    encoded = [policy.encode(prompt) for prompt in task.prompts]
    seeds = [derive(data_seed, "evaluation", prompt_id(prompt)) for prompt in task.prompts]
    if sampler is None:
        generations = policy.sample(encoded, seeds, sampling)
    else:
        generations = sampler(policy, encoded, seeds)
    return [
        task.columns(item) | _row(policy.decode(generation.ids), generation)
        for item, generation in zip(task.items, generations, strict=True)
    ]


def _row(text: str, generation: Generation) -> Row:
    return {
        "response": text,
        "tokens": len(generation.ids),
        "words": len(text.split()),
        "finished": generation.finished,
        "logprob": sum(generation.logprobs),
        "ids": generation.ids,
        "logprobs": generation.logprobs,
    }
