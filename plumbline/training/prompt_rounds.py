"""The prompts of each round of a training that samples, the same for every method that does."""

from __future__ import annotations

from collections.abc import Sequence

from plumbline.data.records import Conversation
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.hooks import Scorer, problem_with
from plumbline.lm.policy import Policy
from plumbline.runs.stage import Stage
from plumbline.seeds import rng


def prompts_of_round(
    prompts: Sequence[Conversation], count: int, iteration: int, seed: int
) -> list[Conversation]:
    """Return the prompts of one round: passes over all of them, each in an order of its own.

    A pass that ends in mid-round is followed by the next one at once, so that every prompt comes
    equally often.
    """
    size, first = len(prompts), iteration * count
    chosen: list[Conversation] = []
    for number in range(first // size, (first + count - 1) // size + 1):
        order = rng(seed, "prompts", number).sample(range(size), size)
        start, end = (min(max(place - number * size, 0), size) for place in (first, first + count))
        chosen += [prompts[row] for row in order[start:end]]
    return chosen


def fitting_prompts(
    stage: Stage,
    policy: Policy,
    scorers: Sequence[Scorer],
    prompts: Sequence[Conversation],
    new_tokens: int,
    needed: int,
    setting: str,
) -> list[Conversation]:
    """Return the prompts that can be answered and scored.

    The others do not fit into the model's context together with a response, or the chat template
    of the policy or of a scorer refuses them. They are reported. Raises `DataError` where fewer
    are left than one round needs; ``setting`` names what to lower then.
    """
    fitting, dropped = [], Dropped()
    for number, prompt in enumerate(prompts, 1):
        problems = [
            policy.problem_with(prompt, new_tokens),
            *(problem_with(scorer, prompt) for scorer in scorers),
        ]
        problem = next((problem for problem in problems if problem is not None), None)
        if problem is None:
            fitting.append(prompt)
        else:
            dropped.add("prompts", number, problem, prompt)
    stage.report_dropped(dropped)
    if len(fitting) < needed:
        raise DataError(
            f"{len(fitting)} of {len(prompts)} prompts are left, fewer than the {needed} of one "
            f"round. Left out: {dropped.summary() or 'none'}. Give more prompts, or lower "
            f"{setting} or sampling.max_new_tokens."
        )
    return fitting
