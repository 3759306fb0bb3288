"""Each round's responses: drawn when they are needed, or while the policy learns.

With ``rollouts.max_staleness: 1``, a round's responses are drawn by the policy that the round
before began with. An engine that works elsewhere draws them while that round is learnt from; one in
this process draws them first, which saves no time and gives the same responses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch

from plumbline.data.records import Conversation
from plumbline.errors import ConfigError
from plumbline.hooks import Scorer
from plumbline.lm.engines.engine import RolloutEngine
from plumbline.lm.engines.native import NativeEngine
from plumbline.lm.generation import ValueHead
from plumbline.lm.policy import Policy
from plumbline.lm.precision import computes_in_bfloat16
from plumbline.lm.sharding import gathered
from plumbline.runs.processes import rows_of_all, share_of
from plumbline.runs.stage import Stage
from plumbline.seeds import derive
from plumbline.training.prompt_rounds import fitting_prompts, prompts_of_round
from rl.config import PPOConfig
from rl.environments import Environment
from rl.episodes import Episode, play, stop_token_ids
from rl.roles import Roles


class RolloutSampler:
    """Draws the responses of one round after the other."""

    def __init__(
        self,
        engine: RolloutEngine,
        policy: Policy,
        prompts: Sequence[Conversation],
        config: PPOConfig,
        seed: int,
        environment: Environment | None = None,
    ) -> None:
        if environment is not None and config.shaping.stop_at is not None:
            raise ConfigError(
                f"shaping.stop_at is {config.shaping.stop_at!r}, which cuts turns, but an "
                "environment replies to whole turns only. Leave it out."
            )
        self._engine, self._policy, self._prompts = engine, policy, prompts
        self._config, self._seed, self._environment = config, seed, environment
        self._stop_token_ids = stop_token_ids(policy, config.shaping.stop_at)
        self._stale = config.rollouts.max_staleness > 0
        self._thread = ThreadPoolExecutor(1) if self._stale and engine.remote else None
        self.pending: list[Episode] | None = None
        """The responses of the next round, where they are drawn already."""

    @property
    def recomputes_logprobs(self) -> bool:
        """Whether log-probabilities must be computed again, as training computes them."""
        setting = self._config.rollouts.recompute_logprobs
        return self._stale or not self._is_exact if setting is None else setting

    @property
    def kl_is_noisy(self) -> bool:
        """Whether ``kl`` compares log-probabilities of sampling with those of a training pass.

        Where both are by the same pass, the KL of a policy to itself is 0.
        """
        return not self._is_exact and (self._stale or not self.recomputes_logprobs)

    @property
    def _is_exact(self) -> bool:
        """Whether sampling and training compute the same log-probabilities, up to rounding.

        They take different ways through the same weights. In float32 that is a matter of rounding;
        where either computes in less, or in another format, it is not.
        """
        held: torch.dtype = self._policy.model.get_input_embeddings().weight.dtype
        half = computes_in_bfloat16(self._config.precision, self._policy.model.device)
        return self._engine.exact and not half and held.itemsize >= torch.float32.itemsize

    def note_values(self, head: ValueHead) -> bool:
        """Let the engine note values with a head on the policy's trunk; return whether it will.

        Only where learning will start from them: not where the trunk moves between sampling and
        learning, nor where they are computed again with the log-probabilities. Only our own loop
        sees the states.
        """
        if self._stale or self.recomputes_logprobs or not isinstance(self._engine, NativeEngine):
            return False
        self._engine.value_head = head
        return True

    def next(self, iteration: int) -> list[Episode]:
        """Return the responses of a round that begins."""
        return self.sample_current(iteration) if self.pending is None else self.pending

    def sample_current(self, iteration: int) -> list[Episode]:
        """Return what the policy as it is answers to a round's prompts."""
        with gathered(self._policy.model):
            self._engine.refresh(self._policy, iteration)
            return rows_of_all(self._draw(iteration))

    @contextmanager
    def drawing_ahead(self, iteration: int) -> Iterator[None]:
        """With stale rollouts: draw the next round by the policy as it is, while the block runs."""
        future: Future[list[Episode]] | None = None
        if self._stale and iteration + 1 < self._config.iterations:
            with gathered(self._policy.model):
                self._engine.refresh(self._policy, iteration)
                if self._thread is not None:
                    future = self._thread.submit(self._draw, iteration + 1)
                else:
                    future = Future()
                    future.set_result(self._draw(iteration + 1))
        yield
        # Processes meet here and not in the thread, where other meetings might be under way.
        self.pending = rows_of_all(future.result()) if future is not None else None

    def _draw(self, iteration: int) -> list[Episode]:
        """Return this process's share of a round; each row's stream depends on its place alone."""
        config, share = self._config, share_of(self._config.batch_size)
        count = config.batch_size // config.group_size
        prompts = prompts_of_round(self._prompts, count, iteration, self._seed)
        grouped = [prompt for prompt in prompts for _ in range(config.group_size)]
        seeds = [derive(self._seed, "rollout", iteration, n) for n in range(config.batch_size)]
        episodes = play(
            self._engine,
            self._policy,
            grouped[share],
            seeds[share],
            config.sampling.max_new_tokens,
            stop_token_ids=self._stop_token_ids,
            environment=self._environment,
        )
        self._engine.release()
        return episodes

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a checkpoint must keep; streams are derived from the seed."""
        pending = self.pending
        return {"pending": None if pending is None else [list(episode) for episode in pending]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        pending = state["pending"]
        self.pending = None if pending is None else [Episode(*row) for row in pending]


def make_sampler(
    stage: Stage,
    roles: Roles,
    scorers: Sequence[Scorer],
    prompts: Sequence[Conversation],
    config: PPOConfig,
    seed: int,
    environment: Environment | None,
) -> RolloutSampler:
    """Return the sampler that a config asks for; prompts that cannot be used are reported."""
    engine = config.rollouts.make_engine(config.sampling)
    fitting = prompts_that_fit(stage, roles.policy, scorers, prompts, config)
    sampler = RolloutSampler(engine, roles.policy, fitting, config, seed, environment)
    if roles.shares_trunk:
        sampler.note_values(roles.value_of)
    return sampler


def prompts_that_fit(
    stage: Stage,
    policy: Policy,
    scorers: Sequence[Scorer],
    prompts: Sequence[Conversation],
    config: PPOConfig,
) -> Sequence[Conversation]:
    """Return the prompts that can be answered and scored.

    The others do not fit into the model's context together with a response, or the chat template
    of the policy or of a scorer refuses them. They are reported. Raises `DataError` where fewer
    are left than one round needs.
    """
    needed = config.batch_size // config.group_size
    return fitting_prompts(
        stage, policy, scorers, prompts, config.sampling.max_new_tokens, needed, "ppo.batch_size"
    )
