"""Sampling responses from a policy and making pairs of them for labelling."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from plumbline.data.records import Conversation, Row, assistant, prompt_id, write_dataset
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.lm.policy import Policy
from plumbline.lm.sampling import sample_in_chunks
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact
from plumbline.runs.stage import Stage, stage
from plumbline.seeds import derive, rng
from preference.config import PairsConfig


@stage("pairs")
def sample_pairs(
    stage: Stage,
    *,
    config: PairsConfig,
    policy: Artifact,
    prompts: Sequence[Conversation],
    seed: int,
) -> Mapping[str, float | None]:
    """Make pairs of a policy's responses: columns ``prompt``, ``a`` and ``b``, in random order."""
    silence_libraries()
    # 1. Sample k responses to every prompt, each from a seed of its own.
    speaker = Policy.load(policy.path)
    asked = [prompt for prompt in prompts for _ in range(config.responses)]
    seeds = [
        derive(seed, "pairs", prompt_id(prompt), number)
        for prompt in prompts
        for number in range(config.responses)
    ]
    generations = sample_in_chunks(
        stage, speaker, [speaker.encode(p) for p in asked], seeds, config.sampling, "responses"
    )
    texts = [speaker.decode(generation.ids) for generation in generations]

    # 2. Pair different ones.
    rows, dropped = [], Dropped()
    for number, prompt in enumerate(prompts):
        answers = texts[number * config.responses : (number + 1) * config.responses]
        pairs = make_pairs(prompt, answers, config.pairs_per_prompt, seed)
        rows += pairs
        if not pairs:
            dropped.add("sampled", number + 1, "all responses are the same or empty", prompt)
    if not rows:
        raise DataError(
            "The policy gave the same response to every prompt each time, so there is nothing to "
            "compare. Raise pairs.sampling.temperature, or train the policy for less long."
        )
    counts = write_dataset(
        stage.folder,
        {"train": rows},
        kind="prompts",
        title="Pairs to label",
        description=f"Two responses by {policy.id} to each prompt, in random order.",
        dropped=dropped,
    )
    tokens = sum(len(generation.ids) for generation in generations)
    return {
        "pairs": counts["train_rows"],
        "responses": float(len(generations)),
        "finished_share": sum(g.finished for g in generations) / len(generations),
        "mean_tokens": tokens / len(generations),
        "dropped_rows": counts["dropped_rows"],
    }


def make_pairs(prompt: Conversation, answers: Sequence[str], at_most: int, seed: int) -> list[Row]:
    """Return pairs of different answers, at random, in random order, with an id each."""
    random = rng(seed, "make pairs", prompt_id(prompt))
    different = [answer for answer in dict.fromkeys(answers) if answer.strip()]
    pairs = list(itertools.combinations(different, 2))
    chosen = random.sample(pairs, min(at_most, len(pairs)))
    rows = []
    for number, pair in enumerate(chosen):
        a, b = random.sample(pair, 2)
        rows.append(
            {
                "pair_id": f"{prompt_id(prompt)}-{number}",
                "prompt": prompt,
                "a": [assistant(a)],
                "b": [assistant(b)],
            }
        )
    return rows
