"""One round with a scorer in the loop: responses of the policy, their scores, and pairs of them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from plumbline.data.records import Conversation, prompt_id
from plumbline.dropped import Dropped
from plumbline.hooks import Scorer
from plumbline.lm.policy import Policy
from plumbline.runs.processes import spread
from plumbline.seeds import derive, rng
from plumbline.training.processes import scores_of
from plumbline.training.prompt_rounds import prompts_of_round
from preference.batches import PairExample
from preference.config import OnlineConfig
from preference.pairing import PAIRINGS, PairingSettings, passes


class Round(NamedTuple):
    """What a round learns from, and what it cost."""

    examples: list[PairExample]
    metrics: Mapping[str, float]
    """What metrics.jsonl shows of it."""
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
    policy: Policy,
    prompts: Sequence[Conversation],
    scorer: Scorer,
    config: OnlineConfig,
    number: int,
    seed: int,
    dropped: Dropped,
) -> Round:
    """Let the policy answer a round's prompts, score the responses, and pair them.

    Prompts and random streams are those of PPO with groups of as many responses. What makes no
    pair is counted in ``dropped``. Where several processes share the training, each samples and
    scores its share.
    """
    # 1. k responses to each prompt, each from a stream of its own.
    chosen = prompts_of_round(prompts, config.prompts_per_round, number, seed)
    grouped = [prompt for prompt in chosen for _ in range(config.responses)]
    seeds = [derive(seed, "rollout", number, n) for n in range(len(grouped))]
    ids = [policy.encode(prompt) for prompt in grouped]
    generations = spread(
        lambda own: policy.sample(ids[own], seeds[own], config.sampling), len(grouped)
    )
    texts = [policy.decode(generation.ids) for generation in generations]

    # 2. Their scores; a response that was cut pays for it.
    scores = [
        score - (0.0 if generation.finished else config.missing_eos_penalty)
        for score, generation in zip(scores_of(scorer, grouped, texts), generations, strict=True)
    ]

    # 3. Pairs.
    examples: list[PairExample] = []
    k = config.responses
    for place, prompt in enumerate(chosen):
        rows = slice(place * k, (place + 1) * k)
        candidates = Candidates(
            prompt,
            ids[place * k],
            [generation.ids for generation in generations[rows]],
            texts[rows],
            scores[rows],
        )
        examples += pairs_of(candidates, config, number, seed, dropped)
    tokens = [len(generation.ids) for generation in generations]
    return Round(
        examples,
        {
            "score": statistics.fmean(scores),
            "score_of_best": statistics.fmean(
                max(scores[start : start + k]) for start in range(0, len(scores), k)
            ),
            "tokens": statistics.fmean(tokens),
            "finished": statistics.fmean(generation.finished for generation in generations),
            "pairs": float(len(examples)),
        },
        sum(tokens),
        sum(tokens) + sum(map(len, ids)),
    )


def pairs_of(
    candidates: Candidates, config: OnlineConfig, number: int, seed: int, dropped: Dropped
) -> list[PairExample]:
    """Return the pairs of one prompt's responses; what makes none is counted.

    Empty responses leave, and of equal ones all but the first.
    """
    different = {text: n for n, text in reversed(list(enumerate(candidates.texts))) if text.strip()}
    kept = sorted(different.values())
    origin, row = f"round {number + 1}", number + 1
    if len(kept) < 2:
        dropped.add(origin, row, "all responses are the same or empty", candidates.prompt)
        return []
    scores = [candidates.scores[n] for n in kept]
    settings = PairingSettings(config.target_gap, config.rso_beta)
    random = rng(seed, "pairing", number, prompt_id(candidates.prompt))
    pairs = PAIRINGS[config.pairing].function(scores, settings, random)
    texts = [candidates.texts[n] for n in kept]
    limits = (config.filter.max_similarity, config.filter.max_length_ratio)
    passing = [(a, b) for a, b in pairs if passes(texts[a], texts[b], *limits)]
    wide = [(a, b) for a, b in passing if scores[a] - scores[b] > config.min_gap]
    if not wide:
        reason = "is within min_gap"
        if not passing:
            reason = "filter lets no pair pass" if pairs else "all responses have the same score"
        dropped.add(origin, row, reason, candidates.prompt)
    return [
        PairExample(candidates.prompt_ids, candidates.ids[kept[a]], candidates.ids[kept[b]])
        for a, b in wide
    ]
