"""Several responses to each prompt, of one policy or of several, at one temperature or several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from plumbline.data.records import Conversation, prompt_id
from plumbline.dropped import LeftOut
from plumbline.lm.generation import Generation, SamplingConfig
from plumbline.lm.policy import Policy
from plumbline.lm.sampling import sample_and_keep
from plumbline.runs.artifacts import Artifact
from plumbline.runs.stage import Stage
from plumbline.seeds import derive
from preference.pairs_config import PairsConfig


class Response(NamedTuple):
    """A response, and who gave it."""

    text: str
    policy: str = ""
    """The id of the artefact."""
    temperature: float = 1.0
    tokens: int = 0
    finished: bool = True


class Answered(NamedTuple):
    """A prompt with its responses."""

    number: int
    """The prompt's, from 1."""
    prompt: Conversation
    responses: list[Response]


def sample_responses(
    stage: Stage,
    policies: Sequence[Artifact],
    prompts: Sequence[Conversation],
    config: PairsConfig,
    seed: int,
    dropped: LeftOut,
) -> list[Answered]:
    """Return ``responses`` of each policy to every prompt that all of them can answer.

    Each response has a random stream of its own. The other prompts are kept with the reason.
    """
    answerable = list(enumerate(prompts, 1))
    gathered: dict[int, list[Response]] = {number: [] for number, _ in answerable}
    for place, artifact in enumerate(policies):
        policy = Policy.load(artifact.path)
        answerable = _answerable(policy, answerable, config, dropped)
        for number, drawn in _draw(stage, policy, artifact.id, place, answerable, config, seed):
            gathered[number] += drawn
    return [Answered(number, prompt, gathered[number]) for number, prompt in answerable]


def _answerable(
    policy: Policy,
    prompts: Sequence[tuple[int, Conversation]],
    config: PairsConfig,
    dropped: LeftOut,
) -> list[tuple[int, Conversation]]:
    """Return the prompts that a policy can answer, with their numbers."""
    answerable = []
    for number, prompt in prompts:
        problem = policy.problem_with(prompt, config.sampling.max_new_tokens)
        if problem is None:
            answerable.append((number, prompt))
        else:
            dropped.add("prompts", number, problem, prompt)
    return answerable


def _draw(
    stage: Stage,
    policy: Policy,
    name: str,
    place: int,
    prompts: Sequence[tuple[int, Conversation]],
    config: PairsConfig,
    seed: int,
) -> list[tuple[int, list[Response]]]:
    """Return each prompt's number with the responses of one policy, in the order of their draws."""
    temperatures = config.temperatures or (config.sampling.temperature,)
    encoded = {number: policy.encode(prompt) for number, prompt in prompts}
    drawn: dict[tuple[int, int], Response] = {}
    for group, temperature in enumerate(temperatures):
        draws = range(group, config.responses, len(temperatures))
        places = [(number, prompt, n) for number, prompt in prompts for n in draws]
        if not places:
            continue
        own = ("policy", place) if place else ()
        responses = sample_and_keep(
            stage,
            policy,
            [encoded[number] for number, _, _ in places],
            [derive(seed, "pairs", prompt_id(prompt), n, *own) for _, prompt, n in places],
            _at(config.sampling, temperature),
            "responses",
            partial(_response, policy, name, temperature),
            folder=f"{place}-{group}" if place or group else "",
        )
        for (number, _, n), response in zip(places, responses, strict=True):
            drawn[number, n] = response
    return [(number, [drawn[number, n] for n in range(config.responses)]) for number, _ in prompts]


def _response(policy: Policy, name: str, temperature: float, sampled: Generation) -> Response:
    text = policy.decode(sampled.ids)
    return Response(text, name, temperature, len(sampled.ids), sampled.finished)


def _at(sampling: SamplingConfig, temperature: float) -> SamplingConfig:
    return sampling.model_copy(update={"temperature": temperature})


def different_responses(responses: Sequence[Response]) -> list[Response]:
    """Return the responses that are not empty, and of equal texts the first."""
    by_text: dict[str, Response] = {}
    for response in responses:
        if response.text.strip():
            by_text.setdefault(response.text, response)
    return list(by_text.values())


def share_of(policy: Artifact, drawn_by: Counter[str]) -> float | None:
    """Return which share of responses, counted by the names of their policies, is a policy's."""
    return drawn_by[policy.id] / drawn_by.total() if drawn_by else None
