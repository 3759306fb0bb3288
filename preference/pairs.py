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
from preference.config import PairFilterConfig, PairsConfig
from preference.pairing import passes

_ALL_THE_SAME = "all responses are the same or empty"


@stage("pairs", spreads_rows=True)
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
    # 1. Sample k responses to every prompt that can be answered, each from a seed of its own.
    current, dropped = Policy.load(policy.path), Dropped()
    answerable = _answerable(current, prompts, config, dropped)
    requests = [
        (current.encode(prompt), derive(seed, "pairs", prompt_id(prompt), sample))
        for _, prompt in answerable
        for sample in range(config.responses)
    ]
    ids, streams = zip(*requests, strict=True) if requests else ((), ())
    generations = sample_in_chunks(stage, current, ids, streams, config.sampling, "responses")
    texts = [current.decode(generation.ids) for generation in generations]

    # 2. Pair different ones.
    rows: list[Row] = []
    for place, (number, prompt) in enumerate(answerable):
        responses = texts[place * config.responses : (place + 1) * config.responses]
        pairs = make_pairs(prompt, responses, config.pairs_per_prompt, seed, config.filter)
        rows += pairs
        if not pairs:
            different = len({text for text in responses if text.strip()}) > 1
            reason = "pairs.filter lets no pair pass" if different else _ALL_THE_SAME
            dropped.add("sampled", number, reason, prompt)
    if not rows:
        raise DataError(
            "There is nothing to compare: the policy gave the same response to every prompt each "
            f"time, or could answer none ({dropped.summary()}). Raise "
            "pairs.sampling.temperature, or train the policy for less long."
        )
    stage.report_dropped(dropped)
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


def _answerable(
    policy: Policy, prompts: Sequence[Conversation], config: PairsConfig, dropped: Dropped
) -> list[tuple[int, Conversation]]:
    """Return the prompts that the policy can answer, with their numbers."""
    answerable = []
    for number, prompt in enumerate(prompts, 1):
        problem = policy.problem_with(prompt, config.sampling.max_new_tokens)
        if problem is None:
            answerable.append((number, prompt))
        else:
            dropped.add("prompts", number, problem, prompt)
    return answerable


def make_pairs(
    prompt: Conversation,
    responses: Sequence[str],
    at_most: int,
    seed: int,
    filter: PairFilterConfig = PairFilterConfig(),  # noqa: B008 - it is frozen
) -> list[Row]:
    """Return pairs of different responses, at random, in random order, with an id each."""
    random = rng(seed, "make pairs", prompt_id(prompt))
    different = [response for response in dict.fromkeys(responses) if response.strip()]
    limits = (filter.max_similarity, filter.max_length_ratio)
    pairs = [pair for pair in itertools.combinations(different, 2) if passes(*pair, *limits)]
    rows = []
    for number, pair in enumerate(random.sample(pairs, min(at_most, len(pairs)))):
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
