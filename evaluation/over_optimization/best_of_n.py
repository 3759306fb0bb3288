"""Best of n: the simplest way to optimize against a reward model, with a KL known in advance.

A policy gives N responses to each prompt, once. For any ranking score, the expected quality of the
best of any n <= N of them follows from the same responses (Nakano et al., 2021; Gao et al., 2022).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

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
from plumbline.training.processes import scores_of

RESPONSES = "responses.parquet"
Scores = npt.NDArray[np.float64]


@stage("best-of-n", spreads_rows=True)
def sample_many_responses(
    stage: Stage,
    *,
    policy: Artifact,
    prompts: Sequence[Conversation],
    responses: int,
    sampling: SamplingConfig,
    scorers: Mapping[str, Scorer],
    data_seed: int,
) -> Mapping[str, float | None]:
    """Sample many responses to each prompt and score them all: one column per scorer."""
    if responses < 2:
        raise ConfigError(
            f"Best of n needs 2 responses or more to each prompt, not {responses}. Set "
            "best_of.responses."
        )
    silence_libraries()
    import pandas as pd

    # 1. N responses to each prompt, each from a random stream of its own.
    loaded = Policy.load(policy.path)
    repeated = [prompt for prompt in prompts for _ in range(responses)]
    seeds = [
        derive(data_seed, "best of n", prompt_id(prompt), number)
        for prompt in prompts
        for number in range(responses)
    ]
    generations = sample_in_chunks(
        stage, loaded, [loaded.encode(p) for p in repeated], seeds, sampling, "responses"
    )
    texts = [loaded.decode(generation.ids) for generation in generations]

    # 2. Score each different response once.
    keys = [(prompt_id(prompt), text) for prompt, text in zip(repeated, texts, strict=True)]
    unique = {key: (prompt, key[1]) for key, prompt in zip(keys, repeated, strict=True)}
    columns = {}
    with stage.bar("scores", len(scorers)) as bar:
        for name, scorer in scorers.items():
            scores = scores_of(scorer, *map(list, zip(*unique.values(), strict=True)))
            score_by_key = dict(zip(unique, scores, strict=True))
            columns[name] = [score_by_key[key] for key in keys]
            bar.advance()
    pd.DataFrame({"prompt_id": [key[0] for key in keys], "response": texts, **columns}).to_parquet(
        stage.folder / RESPONSES, index=False
    )
    return {
        "responses": float(len(texts)),
        "different_share": len(unique) / len(texts),
        **{name: float(np.mean(scores)) for name, scores in columns.items()},
    }


def read_scores(artifact: Artifact) -> dict[str, Scores]:
    """Return the scores of the responses by scorer, [prompts, responses]."""
    import pandas as pd

    table = pd.read_parquet(artifact.path / RESPONSES)
    prompts = table["prompt_id"].nunique()
    return {
        str(name): table[name].to_numpy(dtype=np.float64).reshape(prompts, -1)
        for name in table.columns
        if name not in ("prompt_id", "response")
    }
