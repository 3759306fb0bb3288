"""Episodes: a policy's answers to prompts, in one turn or in a dialogue with an environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from plumbline.data.records import Conversation, Message, assistant
from plumbline.errors import ConfigError
from plumbline.lm.chat import ConversationRefusedError, encode_turns
from plumbline.lm.context import context_length
from plumbline.lm.engines.engine import RolloutEngine
from plumbline.lm.policy import Policy
from rl.environments import Environment
from rl.shaping import truncate_at_stop


class Episode(NamedTuple):
    """One prompt and everything that followed."""

    prompt: Conversation
    prompt_ids: list[int]
    response_ids: list[int]
    """Everything after the prompt: the policy's tokens, and between them the environment's."""
    policy_mask: list[bool]
    """Which of these are the policy's."""
    logprobs: list[float]
    """Of the policy's tokens, by the engine that sampled them; 0 at the environment's."""
    finished: bool
    """Whether the policy's last turn came to an end."""
    turns: list[Message]
    """The same as messages; the last is the policy's."""
    values: list[float] | None = None
    """Of the state before each of the policy's tokens, where the engine was asked for them and the
    value model has not moved since; 0 at the environment's."""

    @property
    def scored_turn(self) -> tuple[Conversation, str]:
        """What a scorer is asked: everything before the last turn, and that turn."""
        return [*self.prompt, *self.turns[:-1]], str(self.turns[-1]["content"])


def play(
    engine: RolloutEngine,
    policy: Policy,
    prompts: Sequence[Conversation],
    seeds: Sequence[int],
    max_new_tokens: int,
    *,
    stop_token_ids: frozenset[int] = frozenset(),
    environment: Environment | None = None,
) -> list[Episode]:
    """Let the policy answer each prompt, and continue while the environment replies.

    An episode also ends where its next turn, of ``max_new_tokens``, would not fit in the model's
    context.
    """
    encoded = {id(prompt): policy.encode(prompt) for prompt in prompts}  # a group's only once
    episodes = [
        Episode(list(prompt), encoded[id(prompt)], [], [], [], False, []) for prompt in prompts
    ]
    live = list(range(len(episodes)))
    max_turns = environment.max_turns if environment is not None else 1
    for turn in range(max_turns):
        contexts = [[*episodes[row].prompt_ids, *episodes[row].response_ids] for row in live]
        # Each turn draws from a stream of its own: the seed and the number of the turn.
        generations = engine.sample(policy, contexts, [seeds[row] + turn for row in live])
        for row, generation in zip(live, generations, strict=True):
            ids, finished = truncate_at_stop(generation.ids, generation.finished, stop_token_ids)
            before = episodes[row]
            episodes[row] = before._replace(
                response_ids=[*before.response_ids, *ids],
                policy_mask=[*before.policy_mask, *[True] * len(ids)],
                logprobs=[*before.logprobs, *generation.logprobs[: len(ids)]],
                finished=finished,
                turns=[*before.turns, assistant(policy.decode(ids))],
                values=_with_values(before, generation.values, len(ids)),
            )
        if environment is None or turn + 1 == max_turns:
            break
        continued = []
        for row in live:
            episode = _continued(episodes[row], policy, environment, max_new_tokens)
            if episode is not None:
                episodes[row] = episode
                continued.append(row)
        live = continued
        if not live:
            break
    return episodes


def _with_values(before: Episode, values: list[float] | None, length: int) -> list[float] | None:
    """Return an episode's values with those of one more turn; None where either are not known."""
    if values is None or (before.response_ids and before.values is None):
        return None
    return [*(before.values or []), *values[:length]]


def _continued(
    episode: Episode, policy: Policy, environment: Environment, max_new_tokens: int
) -> Episode | None:
    """Return an episode with the environment's reply; None where it is over, or has no room."""
    if not episode.finished:
        return None
    reply = environment.reply([*episode.prompt, *episode.turns])
    if reply is None:
        return None
    try:
        ids = encode_turns(policy.tokenizer, [*episode.prompt, *episode.turns], [reply])
    except ConversationRefusedError:  # the chat template does not take such a reply
        return None
    context = context_length(policy.model.config)
    length = len(episode.prompt_ids) + len(episode.response_ids) + len(ids)
    if context is not None and length + max_new_tokens > context:
        return None
    return episode._replace(
        response_ids=[*episode.response_ids, *ids],
        policy_mask=[*episode.policy_mask, *[False] * len(ids)],
        logprobs=[*episode.logprobs, *[0.0] * len(ids)],
        values=_with_values(episode, [0.0] * len(ids), len(ids)),
        turns=[*episode.turns, reply],
    )


def stop_token_ids(policy: Policy, stop_at: str | None) -> frozenset[int]:
    """Return the ids at which responses are cut. Raises `ConfigError` unless it is one token."""
    if stop_at is None:
        return frozenset()
    ids = policy.tokenizer.encode(stop_at, add_special_tokens=False)
    if len(ids) != 1:
        raise ConfigError(
            f"shaping.stop_at is {stop_at!r}, which is {len(ids)} tokens of this tokenizer. Name "
            "a text that is one token, or leave it out."
        )
    return frozenset(ids)
