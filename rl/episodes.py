"""Episodes: a policy's answers to prompts, in one turn or in a dialogue with an environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from plumbline.data.records import Conversation, Message, assistant
from plumbline.lm.chat import encode_turns
from plumbline.lm.policy import Policy
from rl.config import PPOConfig
from rl.engines import RolloutEngine
from rl.shaping import until


class Environment(Protocol):
    """Answers the policy's turns, so that a dialogue goes on."""

    name: str
    turns: int
    """Most turns of the policy in one episode."""

    def reply(self, dialogue: Sequence[Message]) -> Message | None:
        """Return what is said to the policy's last turn, or None where the dialogue is over."""
        ...


class Episode(NamedTuple):
    """One prompt and all that followed."""

    prompt: Conversation
    prompt_ids: list[int]
    ids: list[int]
    """Everything after the prompt: the policy's tokens, and between them the environment's."""
    own: list[bool]
    """Which of these are the policy's."""
    logprobs: list[float]
    """Of the policy's tokens, by whoever drew them; 0 at the environment's."""
    finished: bool
    """Whether the policy's last turn came to an end."""
    turns: list[Message]
    """The same as messages; the last is the policy's."""
    values: list[float] | None = None
    """Of the state before each of the policy's tokens, where the engine was asked for them and the
    value model has not moved since; 0 at the environment's."""

    @property
    def judged(self) -> tuple[Conversation, str]:
        """What a scorer is asked: everything before the last turn, and that turn."""
        return [*self.prompt, *self.turns[:-1]], str(self.turns[-1]["content"])


def play(
    engine: RolloutEngine,
    policy: Policy,
    prompts: Sequence[Conversation],
    seeds: Sequence[int],
    config: PPOConfig,
    environment: Environment | None = None,
) -> list[Episode]:
    """Let the policy answer each prompt, and go on while the environment has something to say.

    An episode also ends where its next turn would not fit in the model's context.
    """
    stop_ids = stops(policy, config.shaping.stop_at)
    rendered = {id(prompt): policy.encode(prompt) for prompt in prompts}  # a group's only once
    episodes = [
        Episode(list(prompt), rendered[id(prompt)], [], [], [], False, []) for prompt in prompts
    ]
    live = list(range(len(episodes)))
    for turn in range(environment.turns if environment is not None else 1):
        asked = [[*episodes[row].prompt_ids, *episodes[row].ids] for row in live]
        # Each turn draws from a stream of its own: the seed and the number of the turn.
        drawn = engine.sample(policy, asked, [seeds[row] + turn for row in live])
        for row, generation in zip(live, drawn, strict=True):
            ids, finished = until(generation.ids, generation.finished, stop_ids)
            before = episodes[row]
            episodes[row] = before._replace(
                ids=[*before.ids, *ids],
                own=[*before.own, *[True] * len(ids)],
                logprobs=[*before.logprobs, *generation.logprobs[: len(ids)]],
                finished=finished,
                turns=[*before.turns, assistant(policy.decode(ids))],
                values=_joined(before, generation.values, len(ids)),
            )
        if environment is None or turn + 1 == environment.turns:
            break
        live = [row for row in live if _goes_on(episodes, row, policy, environment, config)]
        if not live:
            break
    return episodes


def _joined(before: Episode, values: list[float] | None, length: int) -> list[float] | None:
    """Return an episode's values with those of one more turn; None where either are not known."""
    if values is None or (before.ids and before.values is None):
        return None
    return [*(before.values or []), *values[:length]]


def _goes_on(
    episodes: list[Episode], row: int, policy: Policy, environment: Environment, config: PPOConfig
) -> bool:
    """Let the environment answer; say whether it did, and whether there is room to go on."""
    episode = episodes[row]
    if not episode.finished:
        return False
    said = environment.reply([*episode.prompt, *episode.turns])
    if said is None:
        return False
    between = encode_turns(policy.tokenizer, [*episode.prompt, *episode.turns], [said])
    context = getattr(policy.model.config.get_text_config(), "max_position_embeddings", None)
    length = len(episode.prompt_ids) + len(episode.ids) + len(between)
    if context is not None and length + config.sampling.max_new_tokens > context:
        return False
    episodes[row] = episode._replace(
        ids=[*episode.ids, *between],
        own=[*episode.own, *[False] * len(between)],
        logprobs=[*episode.logprobs, *[0.0] * len(between)],
        values=_joined(episode, [0.0] * len(between), len(between)),
        turns=[*episode.turns, said],
    )
    return True


def stops(policy: Policy, stop_at: str | None) -> frozenset[int]:
    """Return the ids at which responses are cut. Raises `ConfigError` where it is no one token."""
    from plumbline.errors import ConfigError

    if stop_at is None:
        return frozenset()
    ids = policy.tokenizer.encode(stop_at, add_special_tokens=False)
    if len(ids) != 1:
        raise ConfigError(
            f"shaping.stop_at is {stop_at!r}, which is {len(ids)} tokens of this tokenizer. Name "
            "a text that is one token, or leave it out."
        )
    return frozenset(ids)
