"""What a round shows: means over its steps, figures of its responses, and warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from plumbline.errors import ConfigError
from plumbline.hooks import Scorer, term_means
from plumbline.runs.processes import of_all_processes, share_of
from plumbline.runs.stage import Stage
from plumbline.training.figures import pooled, read_numbers
from rl.config import GuardConfig
from rl.episodes import Episode
from rl.reward_hacking import COMPARED, repetition, reward_hacking_warnings
from rl.rollouts import Rollout, score_episodes


class RunningMeans:
    """Weighted means over the optimiser steps of a round.

    Values stay where they are until the means are asked for: reading a number from a GPU waits for
    all that it has to do before.
    """

    def __init__(self) -> None:
        self._entries: list[tuple[str, Tensor | float, Tensor | float]] = []

    def add(self, name: str, value: Tensor | float, weight: Tensor | float = 1.0) -> None:
        """Add a value with its weight in the mean."""
        self._entries.append((name, value, weight))

    def __len__(self) -> int:
        return len(self._entries)

    def cut(self, length: int) -> None:
        """Drop what was added after there were ``length`` entries."""
        del self._entries[length:]

    def means(self) -> dict[str, float]:
        """Return the weighted mean of each, over the entries of all processes."""
        numbers = iter(read_numbers([n for _, *pair in self._entries for n in pair]))
        sums: dict[str, float] = {}
        counts: dict[str, float] = {}
        for name, *_ in self._entries:
            value, weight = next(numbers), next(numbers)
            sums[name] = sums.get(name, 0.0) + value * weight
            counts[name] = counts.get(name, 0.0) + weight
        (sums, counts), *others = of_all_processes((sums, counts))
        for other_sums, other_counts in others:
            for name in other_sums:
                sums[name] = sums.get(name, 0.0) + other_sums[name]
                counts[name] = counts.get(name, 0.0) + other_counts[name]
        return {name: total / max(counts[name], 1e-12) for name, total in sums.items()}


class RoundLog:
    """Writes each round's metrics, and warns once of each way in which a reward is gamed.

    ``kl_is_noisy``: ``kl`` compares log-probabilities that were computed in two ways.
    """

    def __init__(
        self,
        stage: Stage,
        config: GuardConfig,
        watched: Sequence[Scorer],
        *,
        kl_is_noisy: bool = False,
    ) -> None:
        if len({scorer.name for scorer in watched}) < len(watched):
            raise ConfigError(
                "Two watched scorers have one name, under which the log has one column. Give each "
                "a name of its own."
            )
        self._stage, self._config, self._watched = stage, config, watched
        self._kl_is_noisy = kl_is_noisy
        self.metrics: dict[str, float] = {}
        """Of the last round."""
        self.history: list[dict[str, float]] = []
        """Of every round, what warnings are decided by."""
        self.reported: list[str] = []
        """Warnings that were said already."""

    def record(
        self,
        iteration: int,
        rollout: Rollout,
        episodes: Sequence[Episode],
        losses: Mapping[str, float],
        scorer: Scorer | None = None,
    ) -> None:
        """Log the metrics of a finished round, and say what they warn of for the first time."""
        metrics = rollout_metrics(rollout, episodes, self._watched) | dict(losses)
        metrics |= reward_terms(scorer, len(episodes)) if scorer is not None else {}
        if self._kl_is_noisy and iteration == 1:
            self._say_kl_noise(rollout)
        self.history.append(
            {
                name: value
                for name, value in metrics.items()
                if name in COMPARED or name.startswith("watched/")
            }
        )
        warnings = reward_hacking_warnings(self.history, self._config)
        if not metrics["steps"]:
            warnings["no_step"] = "no step was taken: every response was rejected or skipped"
        for name, sentence in warnings.items():
            metrics[f"warning/{name}"] = 1.0
            if name not in self.reported:
                self.reported.append(name)
                self._stage.say(f"[yellow]round {iteration}: {sentence}[/yellow]")
        self._stage.metrics.log(iteration, metrics)
        self.metrics = metrics

    def _say_kl_noise(self, rollout: Rollout) -> None:
        """Say how far from 0 the KL is in the first round, in which the policy is its reference."""
        self._stage.say(
            f"kl compares log-probabilities of sampling with those of training, which are computed "
            f"in another precision: of the policy to itself it is {float(rollout.kl.mean()):.4f} "
            f"nats per response (standard deviation {float(rollout.kl.std()):.4f}), where 0 is "
            "exact. With rollouts.recompute_logprobs: true and max_staleness: 0 it is 0."
        )

    def totals(self) -> dict[str, float | None]:
        """Return what the whole training came to."""
        return {
            "score": self.metrics.get("score"),
            "kl": self.metrics.get("kl"),
            "warnings": float(len(self.reported)),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a checkpoint must keep."""
        return {"metrics": self.metrics, "history": self.history, "reported": self.reported}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.metrics, self.history = state["metrics"], state["history"]
        self.reported = state["reported"]


def reward_terms(scorer: Scorer, responses: int) -> dict[str, float]:
    """Return the means of what a round's scores were made of; each process scored its share."""
    share = share_of(responses)
    return pooled([(term_means(scorer), share.stop - share.start)])


def rollout_metrics(
    rollout: Rollout, episodes: Sequence[Episode], watched: Sequence[Scorer]
) -> dict[str, float]:
    """Return the metrics of a round's responses."""
    lengths = rollout.batch.response_mask.sum(1).float()
    metrics = {
        "score": float(rollout.scores.mean()),
        "score_std": float(rollout.scores.std()),
        "kl": float(rollout.kl.mean()),
        "tokens": float(lengths.mean()),
        "finished": float(rollout.finished.float().mean()),
        "repetition": sum(repetition(e.response_ids, e.policy_mask) for e in episodes)
        / len(episodes),
    }
    for scorer in watched:
        scores = score_episodes(scorer, episodes)
        metrics[f"watched/{scorer.name}"] = sum(scores) / len(scores)
    return metrics
