"""Where a training is: with the learners' weights, all that goes on after a kill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from plumbline.hooks import Scorer
from plumbline.runs.stage import Stage
from rl.config import PPOConfig
from rl.episodes import Episode
from rl.kl import adapted
from rl.learning import Learner
from rl.reward_hacking import repetition
from rl.roles import Roles
from rl.rollouts import Rollout

#: What `rl.reward_hacking` compares over rounds.
_REMEMBERED = ("score", "tokens", "entropy", "repetition")


@dataclass
class State:
    """Everything about a training but its weights."""

    kl_coefficient: float
    iteration: int = 0
    tokens_sampled: int = 0
    tokens_seen: int = 0
    """Tokens that passed through a model in training steps, prompts included."""
    figures: dict[str, float] = field(default_factory=dict)
    """Of the last round."""
    history: list[dict[str, float]] = field(default_factory=list)
    """Of every round, what signs of reward hacking are looked for in."""
    told: list[str] = field(default_factory=list)
    """Signs that were said already."""
    pending: list[Episode] | None = None
    """The next round's responses, where they were drawn one step before."""
    stopped: str = ""
    """Why training ended before its last round."""
    within: dict[str, Any] | None = None
    """With a KL budget: the last policy that was found within."""
    untried: dict[str, Any] | None = None
    """One step behind: the policy whose responses the next round will judge."""
    steps: int = 0
    """Optimiser steps that were taken."""

    def is_new(self, sign: str) -> bool:
        """Take note of a sign; return whether it is said for the first time."""
        if sign in self.told:
            return False
        self.told.append(sign)
        return True

    def is_beyond_budget(self, kl: float, config: PPOConfig, rounds: int) -> bool:
        """Return whether the policy after so many rounds has left the KL budget.

        It is ``kl`` from its reference, in nats a response.
        """
        budget = config.kl.budget
        if budget is None or kl <= budget:
            return False
        self.stopped = (
            f"After {rounds} rounds the policy is {kl:.2f} nats from its reference, beyond "
            f"kl.budget ({budget:g}); training ends with the last policy that was within."
        )
        return True

    def remember(self, learners: Mapping[str, Learner], config: PPOConfig) -> None:
        """With a KL budget, keep the policy that a round's responses have shown to be within."""
        if config.kl.budget is None:
            return
        weights = learners["policy"].parameters
        now = {
            "weights": {name: p.detach().clone() for name, p in weights.items()},
            "iteration": self.iteration,
            "steps": self.steps,
        }
        if config.rollouts.steps_behind:
            # They were drawn by the policy of the round before. This one will draw the next.
            self.within, self.untried = self.untried or now, now
        else:
            self.within = now

    def go_back(self, roles: Roles, learners: Mapping[str, Learner]) -> None:
        """Take up the last policy that was within the budget."""
        if self.within is None:
            return  # the first round, by the policy as it came
        for name, value in self.within["weights"].items():
            learners["policy"].parameters[name].data.copy_(value)
        self.iteration, self.steps = int(self.within["iteration"]), int(self.within["steps"])

    def advance(self, rollout: Rollout, figures: dict[str, float], config: PPOConfig) -> None:
        """Take note of a finished round, and adapt the KL penalty."""
        self.figures = {"kl_coefficient": self.kl_coefficient, **figures}
        self.history.append(
            {
                name: value
                for name, value in figures.items()
                if name in _REMEMBERED or name.startswith("watched/")
            }
        )
        if config.kl.target is not None:
            self.kl_coefficient = adapted(
                self.kl_coefficient,
                figures["kl"],
                config.kl.target,
                config.batch,
                config.kl.horizon,
            )
        passes = 2 if config.has_values and config.value.trunk == "own" else 1
        self.tokens_sampled += int(rollout.batch.response_mask.sum())
        self.tokens_seen += passes * config.epochs * int(rollout.batch.attention_mask.sum())
        self.steps += int(figures["steps"])
        self.iteration += 1


def figures_of(
    rollout: Rollout,
    episodes: Sequence[Episode],
    watched: Sequence[Scorer],
    losses: Mapping[str, float],
) -> dict[str, float]:
    """Return the figures of a round."""
    lengths = rollout.batch.response_mask.sum(1).float()
    figures = {
        "score": float(rollout.scores.mean()),
        "score_deviation": float(rollout.scores.std()),
        "kl": float(rollout.kl.mean()),
        "tokens": float(lengths.mean()),
        "finished": float(rollout.finished.float().mean()),
        "repetition": sum(repetition(e.ids, e.own) for e in episodes) / len(episodes),
    }
    for scorer in watched:
        asked = [episode.judged for episode in episodes]
        scores = scorer.score([p for p, _ in asked], [r for _, r in asked])
        figures[f"watched/{scorer.name}"] = sum(scores) / len(scores)
    return figures | dict(losses)


def keep(stage: Stage, state: State, learners: Mapping[str, Learner], roles: Roles) -> None:
    """Write a checkpoint.

    Every random draw is derived from the seed and the round, so no generator's state is in it.
    """
    plain = asdict(state)
    plain["pending"] = None if state.pending is None else [list(e) for e in state.pending]
    tree = {
        "state": plain,
        "learners": {name: learner.state() for name, learner in learners.items()},
        "reference": roles.reference_parameters if roles.follows else {},
        "metrics": stage.metrics.position(),
    }
    stage.checkpoints.save(state.iteration, tree)


def restore(stage: Stage, learners: Mapping[str, Learner], roles: Roles) -> State | None:
    """Take up the last checkpoint, or return None where there is none."""
    tree = stage.checkpoints.load()
    if tree is None:
        stage.metrics.rewind(0)
        return None
    for name, learner in learners.items():
        learner.restore(tree["learners"][name])
    for name, value in tree["reference"].items():
        roles.reference_parameters[name].data.copy_(value)
    stage.metrics.rewind(tree["metrics"])
    state = State(**tree["state"])
    if state.pending is not None:
        state.pending = [Episode(*row) for row in state.pending]
    return state
