"""Sampling many responses within a stage: in chunks, so that a killed stage keeps what it has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from plumbline.lm.generation import Generation, SamplingConfig
from plumbline.lm.policy import Policy
from plumbline.runs.artifacts import read_json, write_json
from plumbline.runs.processes import spread
from plumbline.runs.stage import Stage

T = TypeVar("T")
_BATCHES_IN_A_CHUNK = 4


def sample_in_chunks(
    stage: Stage,
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    config: SamplingConfig,
    description: str,
    *,
    folder: str = "",
) -> list[Generation]:
    """Sample one response to each prompt (as ids); chunks that are done are not sampled again.

    Where several processes share the stage, each samples its share of the prompts. A stage that
    samples more than once gives each time a ``folder`` of its own.
    """
    return sample_and_keep(
        stage, policy, prompts, seeds, config, description, lambda sampled: sampled, folder=folder
    )


def sample_and_keep(
    stage: Stage,
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    config: SamplingConfig,
    description: str,
    keep: Callable[[Generation], T],
    *,
    folder: str = "",
) -> list[T]:
    """Sample as `sample_in_chunks` does; return what ``keep`` makes of each response.

    Ids and log-probabilities take some ten times the memory of the text.
    """
    shards = stage.shards / folder
    shards.mkdir(exist_ok=True)
    return spread(
        lambda own: [
            keep(sampled)
            for chunk in _chunks(
                stage, policy, prompts[own], seeds[own], config, description, shards
            )
            for sampled in chunk
        ],
        len(prompts),
    )


def _chunks(
    stage: Stage,
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    config: SamplingConfig,
    description: str,
    shards: Path,
) -> Iterator[list[Generation]]:
    width = _BATCHES_IN_A_CHUNK * config.batch_size
    with stage.bar(description, len(prompts)) as bar:
        for start in range(0, len(prompts), width):
            chunk = slice(start, start + width)
            shard = shards / f"{start:09d}.json"
            if not shard.exists():
                write_json(shard, policy.sample(prompts[chunk], seeds[chunk], config, bar.advance))
            generations = [Generation(*row) for row in read_json(shard)]
            bar.update(start + len(generations))
            yield generations
