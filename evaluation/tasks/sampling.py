"""Sampling a policy's responses to a task, once. What is measured is decided afterwards.

Nothing here knows a measure, so a new measure, or a change to one, samples nothing again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from evaluation.sample_files import SAMPLES, write_samples
from evaluation.words import words_of
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
    """Sample responses to the first ``count`` prompts: ``samples.parquet``, without any measure.

    Each row has the prompt, the response, its ``ids`` and the log-probability of each of them.
    """
    silence_libraries()
    task = as_task(prompts).first(count)
    for note in task.notes:
        stage.say_plainly(note)
    rows = sample_responses(
        Policy.load(policy.path),
        task,
        sampling,
        data_seed,
        lambda sampled, encoded, seeds: sample_in_chunks(
            stage, sampled, encoded, seeds, sampling, "held-out responses"
        ),
    )
    write_samples(stage.folder / SAMPLES, rows)
    return {
        "prompts": float(len(rows)),
        "tokens": sum(row["tokens"] for row in rows) / len(rows),
        "finished": sum(row["finished"] for row in rows) / len(rows),
    }


def sample_responses(
    policy: Policy,
    task: Task,
    sampling: SamplingConfig,
    data_seed: int,
    sampler: Sampler | None = None,
) -> list[Row]:
    """Return a policy's response to each prompt of a task, as rows.

    Every prompt has its own random stream, which depends on the data seed and the text of the
    prompt only, so all policies draw from the same streams.
    """
    encoded = [policy.encode(prompt) for prompt in task.prompts]
    seeds = [derive(data_seed, "evaluation", prompt_id(prompt)) for prompt in task.prompts]
    if sampler is None:
        generations = policy.sample(encoded, seeds, sampling)
    else:
        generations = sampler(policy, encoded, seeds)
    return [
        task.columns(item) | response_columns(policy.decode(generation.ids), generation)
        for item, generation in zip(task.items, generations, strict=True)
    ]


def response_columns(text: str, generation: Generation) -> Row:
    """Return the columns of a row that describe the response."""
    return {
        "response": text,
        "tokens": len(generation.ids),
        "words": len(words_of(text)),
        "finished": generation.finished,
        "logprob": sum(generation.logprobs),
        "ids": generation.ids,
        "logprobs": generation.logprobs,
    }
