"""One round with a scorer in the loop: responses of the policy, their scores, and pairs of them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from plumbline.data.records import Conversation, prompt_id
from plumbline.dropped import Dropped
from plumbline.hooks import Scorer
from plumbline.lm.engines.engine import RolloutEngine
from plumbline.lm.generation import Generation
from plumbline.lm.policy import Policy
from plumbline.lm.sharding import gathered
from plumbline.runs.processes import spread
from plumbline.seeds import derive, rng
from plumbline.training.processes import scores_of
from plumbline.training.prompt_rounds import prompts_of_round
from preference.batches import PairExample
from preference.config import OnlineConfig
from preference.scored_pairs import scored_pairs


class Round(NamedTuple):
    """What a round learns from, and what it cost."""

    examples: list[PairExample]
    metrics: Mapping[str, float]
    """What metrics.jsonl shows of it."""
    prompt_ids: list[list[int]]
    """The prompt of each response."""
    response_ids: list[list[int]]
    """The responses that the policy drew, whether they are in a pair or not."""
    tokens_sampled: int
    tokens_scored: int
    """Tokens of the prompts and responses that the scorer read, in the policy's tokens."""


class Candidates(NamedTuple):
    """The responses to one prompt."""

    prompt: Conversation
    prompt_ids: list[int]
    ids: list[list[int]]
    texts: list[str]
    scores: list[float]


def sample_round(
    engine: RolloutEngine,
    policy: Policy,
    prompts: Sequence[Conversation],
    scorer: Scorer,
    config: OnlineConfig,
    number: int,
    seed: int,
    dropped: Dropped,
    tokens_left: int | None = None,
) -> Round:
    """Let the policy answer a round's prompts, score the responses, and pair them.

    Prompts and random streams are those of PPO with groups of as many responses. What makes no
    pair is counted in ``dropped``. At most ``tokens_left`` tokens are sampled, where it is given.
    Where several processes share the training, each samples and scores its share.
    """
    # 1. k responses to each prompt, each from a stream of its own.
    chosen = prompts_of_round(prompts, config.prompts_per_round, number, seed)
    grouped = [prompt for prompt in chosen for _ in range(config.responses)]
    seeds = [derive(seed, "rollout", number, n) for n in range(len(grouped))]
    ids = [policy.encode(prompt) for prompt in grouped]
    with gathered(policy.model):
        engine.refresh(policy, number)
        generations = spread(lambda own: engine.sample(policy, ids[own], seeds[own]), len(grouped))
        engine.release()
    generations = within_budget(generations, tokens_left)
    grouped, ids = grouped[: len(generations)], ids[: len(generations)]
    texts = [policy.decode(generation.ids) for generation in generations]

    # 2. Their scores; a response that was cut pays for it.
    scores = [
        score - (0.0 if generation.finished else config.missing_eos_penalty)
        for score, generation in zip(scores_of(scorer, grouped, texts), generations, strict=True)
    ]

    # 3. Pairs.
    examples: list[PairExample] = []
    k = config.responses
    for start in range(0, len(generations), k):
        rows = slice(start, start + k)
        candidates = Candidates(
            grouped[start],
            ids[start],
            [generation.ids for generation in generations[rows]],
            texts[rows],
            scores[rows],
        )
        examples += pairs_of(candidates, config, number, seed, dropped)
    tokens = sum(len(generation.ids) for generation in generations)
    return Round(
        examples,
        {**_metrics_of(generations, scores, k), "pairs": float(len(examples))},
        ids,
        [generation.ids for generation in generations],
        tokens,
        tokens + sum(map(len, ids)),
    )


def _metrics_of(generations: Sequence[Generation], scores: list[float], k: int) -> dict[str, float]:
    """Return means over a round's responses, ``k`` of which answer one prompt."""
    groups = [scores[start : start + k] for start in range(0, len(scores), k)]
    return {
        "score": statistics.fmean(scores),
        "score_of_best": statistics.fmean(map(max, groups)),
        "tokens": statistics.fmean(len(generation.ids) for generation in generations),
        "finished": statistics.fmean(generation.finished for generation in generations),
    }


def within_budget(generations: Sequence[Generation], tokens_left: int | None) -> list[Generation]:
    """Return the responses, in their order, up to so many tokens; the last of them is cut there.

    A response that is cut has not come to its end, as one at ``max_new_tokens`` has not. Those
    behind it are left out. With None, all are returned.
    """
    if tokens_left is None:
        return list(generations)
    kept: list[Generation] = []
    for generation in generations:
        if tokens_left < len(generation.ids):
            if tokens_left > 0:
                ids, logprobs = generation.ids[:tokens_left], generation.logprobs[:tokens_left]
                kept.append(Generation(ids, logprobs, finished=False))
            break
        kept.append(generation)
        tokens_left -= len(generation.ids)
    return kept


def pairs_of(
    candidates: Candidates, config: OnlineConfig, number: int, seed: int, dropped: Dropped
) -> list[PairExample]:
    """Return the pairs of one prompt's responses; what makes none is counted."""
    random = rng(seed, "pairing", number, prompt_id(candidates.prompt))
    ranked = scored_pairs(candidates.texts, candidates.scores, config, config.filter, random)
    if ranked.reason is not None:
        reason = ranked.reason
        if len(candidates.texts) < 2:
            reason = "has one response where max_sampled_tokens ends"
        dropped.add(f"round {number + 1}", number + 1, reason, candidates.prompt)
    return [
        PairExample(candidates.prompt_ids, candidates.ids[a], candidates.ids[b])
        for a, b in ranked.pairs
    ]
