"""The prompts of each round of a training that samples, the same for every method that does."""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from functools import lru_cache

from plumbline.data.records import Conversation, iterate_dataset, prompt_number
from plumbline.dropped import DroppedFile
from plumbline.errors import DataError
from plumbline.hooks import Scorer, problem_with
from plumbline.lm.policy import Policy
from plumbline.runs.artifacts import Artifact
from plumbline.runs.stage import Stage
from plumbline.seeds import rng
from plumbline.training.row_file import LazyRows, RowFile, Texts, rows_at


def dataset_prompts(dataset: Artifact, split: str) -> LazyRows[Conversation]:
    """Return the different prompts of a split, in their order there.

    They are held as JSON in one piece of memory, which takes little more than their texts.
    """
    kept, seen = RowFile({"prompt": "object"}, None), set[int]()
    for row in iterate_dataset(dataset.path, split, ["prompt"]):
        number = prompt_number(row["prompt"])
        if number not in seen:
            seen.add(number)
            kept.add({"prompt": row["prompt"]})
    texts = Texts(kept.table()["prompt"])
    return LazyRows(len(kept), lambda place: json.loads(texts[place]))


def too_few(count: int, needed: int, setting: str, left_out: str = "") -> str:
    """Return what to say where there are fewer prompts than one round answers."""
    why = f" Left out: {left_out}." if left_out else ""
    shorter = ", or sampling.max_new_tokens where they are too long" if left_out else ""
    return (
        f"Prompts to train on: {count}; one round answers {needed} different ones."
        f"{why} Give more prompts, or lower {setting}{shorter}."
    )


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
        order = _order(seed, number, size)
        start, end = (min(max(place - number * size, 0), size) for place in (first, first + count))
        chosen += [prompts[row] for row in order[start:end]]
    return chosen


@lru_cache(maxsize=2)
def _order(seed: int, number: int, size: int) -> Sequence[int]:
    """Return the order of a pass over all prompts."""
    return array("l", rng(seed, "prompts", number).sample(range(size), size))


def fitting_prompts(
    stage: Stage,
    policy: Policy,
    scorers: Sequence[Scorer],
    prompts: Sequence[Conversation],
    new_tokens: int,
    needed: int,
    setting: str,
) -> Sequence[Conversation]:
    """Return the prompts that can be answered and scored.

    The others do not fit into the model's context together with a response, or the chat template
    of the policy or of a scorer refuses them. They are reported. Raises `DataError` where fewer
    are left than one round needs; ``setting`` names what to lower then.
    """
    fitting, dropped = array("l"), DroppedFile(stage.folder)
    for number, prompt in enumerate(prompts):
        problems = [
            policy.problem_with(prompt, new_tokens),
            *(problem_with(scorer, prompt) for scorer in scorers),
        ]
        problem = next((problem for problem in problems if problem is not None), None)
        if problem is None:
            fitting.append(number)
        else:
            dropped.add("prompts", number + 1, problem, prompt)
    stage.report_dropped(dropped)
    if len(fitting) < needed:
        raise DataError(too_few(len(fitting), needed, setting, dropped.summary()))
    return rows_at(prompts, fitting)
