"""Sampling a policy's responses to a task, once. What is measured is decided afterwards.

Nothing here knows a measure, so a new measure, or a change to one, samples nothing again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from evaluation.sample_files import SAMPLES, write_samples
from evaluation.words import words_of
from plumbline.data.records import Conversation, Row, prompt_id
from plumbline.data.tasks import Item, Task, as_task
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.lm.generation import Generation, SamplingConfig
from plumbline.lm.policy import Policy
from plumbline.lm.sampling import sample_in_chunks
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact
from plumbline.runs.processes import spread
from plumbline.runs.stage import Stage, stage
from plumbline.seeds import derive

Sampler = Callable[[Policy, list[list[int]], list[int]], list[Generation]]


@stage("samples", spreads_rows=True)
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
    task, dropped = as_task(prompts).first(count), Dropped()
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
        dropped,
    )
    if dropped.rows:
        stage.report_dropped(dropped)
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
    dropped: Dropped | None = None,
) -> list[Row]:
    """Return a policy's response to each prompt of a task, as rows.

    Every prompt has its own random stream, which depends on the data seed and the text of the
    prompt only, so all policies draw from the same streams. Prompts that the policy's template
    refuses, or that leave no room for a response, have no row; ``dropped`` receives them.
    """
    items = _answerable(policy, task, sampling, dropped if dropped is not None else Dropped())
    encoded = [policy.encode(item.prompt) for item in items]
    seeds = [derive(data_seed, "evaluation", prompt_id(item.prompt)) for item in items]
    if sampler is None:
        generations = spread(
            lambda own: policy.sample(encoded[own], seeds[own], sampling), len(encoded)
        )
    else:
        generations = sampler(policy, encoded, seeds)
    rows = [
        task.columns(item) | response_columns(policy.decode(generation.ids), generation)
        for item, generation in zip(items, generations, strict=True)
    ]
    if not policy.samples_in_float32(sampling):
        _use_logprobs_of_a_pass(policy, encoded, rows, sampling)
    return rows


def _answerable(
    policy: Policy, task: Task, sampling: SamplingConfig, dropped: Dropped
) -> list[Item]:
    items = []
    for number, item in enumerate(task.items, 1):
        problem = policy.problem_with(item.prompt, sampling.max_new_tokens)
        if problem is None:
            items.append(item)
        else:
            dropped.add("prompts", number, problem, item.prompt)
    if task.items and not items:
        raise DataError(f"None of {len(task.items)} prompts can be answered: {dropped.summary()}.")
    return items


def _use_logprobs_of_a_pass(
    policy: Policy, prompts: Sequence[Sequence[int]], rows: Sequence[Row], sampling: SamplingConfig
) -> None:
    """Give rows the log-probabilities as a reference's are computed.

    Sampling and passes over whole responses take different ways through the weights. In float32
    that is rounding. In bfloat16 it is not, and a policy would have a KL to itself. The
    log-probability of sampling is kept as ``sampling_logprob``.
    """
    responses = [row["ids"] for row in rows]

    def of_rows(own: slice) -> list[tuple[list[float], float]]:
        logprobs = policy.logprobs_of(prompts[own], responses[own], sampling.temperature)
        return [
            (values[: len(ids)].tolist(), float(values.sum()))
            for values, ids in zip(logprobs, responses[own], strict=True)
        ]

    for row, (values, total) in zip(rows, spread(of_rows, len(rows)), strict=True):
        row["sampling_logprob"] = row["logprob"]
        row["logprobs"], row["logprob"] = values, total


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
