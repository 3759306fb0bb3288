"""Labels of steps from checkable results: Monte Carlo roll-outs behind each step.

Wang et al. (2024), "Math-Shepherd", section 3.3: a step is as good as the share of continuations
that come to the right result (their soft estimation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from plumbline.data.records import Conversation, Row, prompt_id
from plumbline.dropped import Dropped
from plumbline.hooks import Scorer
from plumbline.lm.policy import Policy
from plumbline.lm.sampling import sample_in_chunks
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact
from plumbline.runs.stage import Stage, stage
from plumbline.seeds import derive
from reward.process.config import RolloutLabelsConfig
from reward.process.data import write_steps
from reward.process.steps import STEP_SPLITS, step_ends


class _Chain(NamedTuple):
    """A sampled response, cut into steps."""

    prompt: Conversation
    prompt_ids: list[int]
    ids: list[int]
    text: str
    steps: list[str]
    ends: list[int]


@stage("steps")
def label_steps(
    stage: Stage,
    *,
    config: RolloutLabelsConfig,
    policy: Artifact,
    prompts: Sequence[Conversation],
    checker: Scorer,
    data_seed: int,
) -> Mapping[str, float | None]:
    """Sample responses, cut them into steps, and label each step by what follows from it."""
    silence_libraries()
    loaded, dropped = Policy.load(policy.path), Dropped()

    # 1. Responses, cut into steps. One that was cut short, or has no step, says nothing.
    chains = _sample_chains(stage, loaded, prompts, config, dropped, data_seed)
    stage.report_dropped(dropped)

    # 2. Continuations behind every step but the last of each.
    starts = [
        (number, step) for number, chain in enumerate(chains) for step in range(len(chain.ends) - 1)
    ]
    ids, seeds = [], []
    for number, step in starts:
        chain = chains[number]
        for rollout in range(config.rollouts):
            ids.append([*chain.prompt_ids, *chain.ids[: chain.ends[step] + 1]])
            seeds.append(derive(data_seed, "step roll-outs", number, step, rollout))
    ends = sample_in_chunks(
        stage, loaded, ids, seeds, config.sampling, "roll-outs", folder="rollouts"
    )

    # 3. The share of right results behind each step; that of the last is the response's own.
    texts = [
        loaded.decode([*start[len(chains[number].prompt_ids) :], *end.ids])
        for start, end, (number, _) in zip(
            ids, ends, (place for place in starts for _ in range(config.rollouts)), strict=True
        )
    ]
    prompted = [chains[number].prompt for number, _ in starts for _ in range(config.rollouts)]
    right = [score > config.right_above for score in checker.score(prompted, texts)]
    own = checker.score([chain.prompt for chain in chains], [chain.text for chain in chains])
    labels: list[list[float]] = [[] for _ in chains]
    for place, (number, _) in enumerate(starts):
        outcomes = right[place * config.rollouts : (place + 1) * config.rollouts]
        labels[number].append(sum(outcomes) / len(outcomes))
    rows: list[Row] = [
        {
            "prompt": chain.prompt,
            "completions": chain.steps,
            "labels": [*steps, float(score > config.right_above)],
        }
        for chain, steps, score in zip(chains, labels, own, strict=True)
    ]
    about, share, count = f"Roll-outs of {policy.id}", config.held_out_share, config.rollouts
    return {
        **write_steps(stage, rows, config.split, share, data_seed, about, dropped, count),
        "right_responses": sum(score > config.right_above for score in own) / len(own),
        "rollouts": float(len(ids)),
    }


def _sample_chains(
    stage: Stage,
    policy: Policy,
    prompts: Sequence[Conversation],
    config: RolloutLabelsConfig,
    dropped: Dropped,
    data_seed: int,
) -> list[_Chain]:
    """Return sampled responses with their steps; count those without a use."""
    repeated = [prompt for prompt in prompts for _ in range(config.responses)]
    encoded = [policy.encode(prompt) for prompt in repeated]
    seeds = [
        derive(data_seed, "steps", prompt_id(prompt), number)
        for prompt in prompts
        for number in range(config.responses)
    ]
    generations = sample_in_chunks(stage, policy, encoded, seeds, config.sampling, "responses")
    chains = []
    split = STEP_SPLITS[config.split].function
    for number, (prompt, prompt_ids, generation) in enumerate(
        zip(repeated, encoded, generations, strict=True), 1
    ):
        text = policy.decode(generation.ids)
        steps = split(text)
        if not generation.finished:
            dropped.add("responses", number, "was cut at max_new_tokens", text)
        elif not steps:
            dropped.add("responses", number, "has no step", text)
        else:
            ends = step_ends(policy.tokenizer, generation.ids, steps)
            chains.append(_Chain(prompt, prompt_ids, generation.ids, text, steps, ends))
    return chains
