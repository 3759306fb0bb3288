"""Best of n: the simplest way to press on a reward model, with a KL that is known beforehand.

A policy answers each prompt N times, once; whatever ranks the answers, the expected quality of the
best of any n <= N of them follows from the same answers (Nakano et al., 2021; Gao et al., 2022).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from evaluation.statistics import best_of_n_kl
from plumbline.data.records import Conversation, prompt_id
from plumbline.errors import ConfigError
from plumbline.hooks import Scorer
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.policy import Policy
from plumbline.lm.sampling import sample_in_chunks
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact
from plumbline.runs.stage import Stage, stage
from plumbline.seeds import derive

ANSWERS = "answers.parquet"
Array = npt.NDArray[np.float64]


class BestOf(NamedTuple):
    """What choosing the best of n by a ranking score comes to, for several n (shape (M,))."""

    sizes: list[int]
    kl: Array
    """KL to the policy, nats: log n - (n - 1) / n; where answers repeat, a bound from above."""
    ranking: Array
    """Mean ranking score of the chosen answers."""
    judged: Array
    """Mean judging score of the same answers."""


def best_of(ranking: Array, judged: Array, sizes: Sequence[int]) -> BestOf:
    """Return what the best of n answers are worth, on average over all subsets of n answers.

    Args:
        ranking: score that chooses, shape (P, N): N answers to each of P prompts.
        judged: score of what was chosen, shape (P, N).
        sizes: each n, from 1 to N.

    The k-th worst of N answers is the best of n in C(k - 1, n - 1) of C(N, n) subsets, so the mean
    over subsets is exact and no subset is drawn.
    """
    count = ranking.shape[1]
    order = np.argsort(ranking, axis=1, kind="stable")
    ranked, chosen = (
        np.take_along_axis(scores, order, axis=1).mean(axis=0) for scores in (ranking, judged)
    )
    weights = np.array([_weights(count, size) for size in sizes])
    return BestOf(
        list(sizes),
        np.array([best_of_n_kl(size) for size in sizes]),
        weights @ ranked,
        weights @ chosen,
    )


def _weights(count: int, size: int) -> list[float]:
    if not 1 <= size <= count:
        raise ValueError(f"the best of {size} cannot be chosen from {count} answers")
    return [math.comb(rank, size - 1) / math.comb(count, size) for rank in range(count)]


@stage("best-of-n")
def answer_often(
    stage: Stage,
    *,
    policy: Artifact,
    prompts: Sequence[Conversation],
    answers: int,
    sampling: SamplingConfig,
    scorers: Mapping[str, Scorer],
    data_seed: int,
) -> Mapping[str, float | None]:
    """Let a policy answer each prompt many times; score all answers: one column a scorer."""
    if answers < 2:
        raise ConfigError(f"Best of n needs 2 answers or more to each prompt, not {answers}.")
    silence_libraries()
    import pandas as pd

    # 1. N answers to each prompt, each from a stream of its own.
    speaker = Policy.load(policy.path)
    asked = [prompt for prompt in prompts for _ in range(answers)]
    seeds = [
        derive(data_seed, "best of n", prompt_id(prompt), number)
        for prompt in prompts
        for number in range(answers)
    ]
    said = sample_in_chunks(
        stage, speaker, [speaker.encode(p) for p in asked], seeds, sampling, "answers"
    )
    texts = [speaker.decode(generation.ids) for generation in said]

    # 2. Score each different answer once.
    keys = [(prompt_id(prompt), text) for prompt, text in zip(asked, texts, strict=True)]
    different = {key: (prompt, key[1]) for key, prompt in zip(keys, asked, strict=True)}
    columns = {}
    with stage.bar("scores", len(scorers)) as bar:
        for name, scorer in scorers.items():
            scores = scorer.score(*zip(*different.values(), strict=True))
            of_answer = dict(zip(different, scores, strict=True))
            columns[name] = [of_answer[key] for key in keys]
            bar.advance()
    pd.DataFrame({"prompt_id": [key[0] for key in keys], "response": texts, **columns}).to_parquet(
        stage.folder / ANSWERS, index=False
    )
    return {
        "answers": float(len(texts)),
        "different_share": len(different) / len(texts),
        **{name: float(np.mean(scores)) for name, scores in columns.items()},
    }


def read_answers(artifact: Artifact) -> dict[str, Array]:
    """Return each scorer's scores of the answers, shape (prompts, answers)."""
    import pandas as pd

    table = pd.read_parquet(artifact.path / ANSWERS)
    prompts = table["prompt_id"].nunique()
    return {
        str(name): table[name].to_numpy(dtype=np.float64).reshape(prompts, -1)
        for name in table.columns
        if name not in ("prompt_id", "response")
    }
