"""A KL budget: training ends where the policy has left it, with the last policy that was within."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from rl.config import PPOConfig
from rl.state import TrainingState


class KLBudget:
    """Compares the KL of each round's responses with ``kl.max_kl``; without one, never ends any."""

    def __init__(self, config: PPOConfig, say: Callable[[str], None]) -> None:
        self.max_kl = config.kl.max_kl
        self._staleness, self._say = config.rollouts.max_staleness, say
        self._last_within: dict[str, Any] | None = None
        self._untested: dict[str, Any] | None = None
        """With stale rollouts: the policy that drew the responses of the next round."""

    def ends_training(
        self, training: TrainingState, kl: Tensor, staleness: int | None = None
    ) -> bool:
        """Return whether the policy that drew a round's responses is beyond the budget.

        If so it is rolled back to the last one that was within; if not, this one is remembered.
        ``kl`` [B] is that of the responses, in nats, drawn ``staleness`` rounds ago.
        """
        if self.max_kl is None:
            return False
        mean = float(kl.mean())
        if mean <= self.max_kl:
            self._remember(training.snapshot())
            return False
        staleness = self._staleness if staleness is None else staleness
        rounds = training.iteration - min(training.iteration, staleness)
        self._say(
            f"After {rounds} rounds the policy is {mean:.2f} nats from its reference, beyond "
            f"kl.max_kl ({self.max_kl:g}); training ends with the last policy that was within."
        )
        if self._last_within is not None:  # None in the first round, by the policy as it came
            training.rollback(self._last_within)
        return True

    def _remember(self, policy: dict[str, Any]) -> None:
        if self._staleness:
            # The policy of the round before drew these responses. This one draws the next.
            self._last_within, self._untested = self._untested or policy, policy
        else:
            self._last_within = policy

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a checkpoint must keep."""
        return {"last_within": self._last_within, "untested": self._untested}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._last_within, self._untested = state["last_within"], state["untested"]
