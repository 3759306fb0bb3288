"""Guards: a step that would wreck the policy is not taken, and nothing about it is silent."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from plumbline.errors import ModelError
from plumbline.lm.policy import Policy
from plumbline.training.figures import read_numbers
from rl.config import GuardConfig
from rl.rollouts import Rollout

_MOST_TRACED = 16


class Spike(NamedTuple):
    """Why a minibatch's step must not be taken."""

    reason: str
    rows: list[int]
    """The responses it is about, as rows of the round, worst first."""


def spike(
    log_ratio: Tensor,
    mask: Tensor,
    numbers: Mapping[str, Tensor | float],
    rows: Tensor,
    config: GuardConfig,
) -> Spike | None:
    """Return why a minibatch is not to be learnt from, or None.

    ``log_ratio`` [B, R] is log p_new - log p_old of each token, ``mask`` [B, R] its real tokens,
    ``numbers`` the minibatch's loss and gradients' norms by name, and ``rows`` [B] the responses'
    places in the round.
    """
    log_ratio = log_ratio.masked_fill(~mask, 0.0)
    worst = log_ratio.abs().nan_to_num(math.inf).amax(1)
    k3 = (log_ratio.exp() - 1 - log_ratio).sum() / mask.sum().clamp(min=1)
    finite, most, approx_kl, *known = read_numbers(
        [log_ratio.isfinite().all(), worst.max(), k3, *numbers.values()]
    )
    reason = None
    wrong = {n: x for n, x in zip(numbers, known, strict=True) if not math.isfinite(x)}
    if not finite:
        reason = "a token's log-probability is not finite"
    elif wrong:
        name, number = next(iter(wrong.items()))
        reason = f"the {name} is {number}, not a number to learn from"
    elif config.log_ratio is not None and most > config.log_ratio:
        reason = (
            f"a token's log-probability moved by {most:.1f} since it was drawn; "
            f"guards.log_ratio allows {config.log_ratio:g}"
        )
    elif config.approx_kl is not None and approx_kl > config.approx_kl:
        reason = (
            f"the policy is {approx_kl:.2f} nats per token from the one that drew the "
            f"responses; guards.approx_kl allows {config.approx_kl:g}"
        )
    if reason is None:
        return None
    order = worst.argsort(descending=True, stable=True).cpu()
    return Spike(reason, rows[order].tolist())


class Guard:
    """Looks at every minibatch before its step is taken, and keeps traces of what it stops."""

    def __init__(
        self, config: GuardConfig, policy: Policy, folder: Path, say: Callable[[str], None]
    ) -> None:
        self._config, self._policy = config, policy
        self._folder, self._say = folder, say

    @property
    def limits_change(self) -> bool:
        """Whether it says how far a step may lead."""
        return self._config.log_ratio is not None or self._config.approx_kl is not None

    def blocks_step(
        self,
        rollout: Rollout,
        log_ratio: Tensor,
        numbers: Mapping[str, Tensor | float],
        rows: Tensor,
        iteration: int,
    ) -> bool:
        """Return whether a minibatch's step must be skipped.

        ``rollout`` is the round, ``rows`` [B] the minibatch in it, and ``log_ratio`` [B, R] how
        far its log-probabilities moved; ``numbers`` as in `spike`. Raises `ModelError` where a
        spike ends training.
        """
        cause = spike(log_ratio, rollout.mask[rows], numbers, rows, self._config)
        if cause is None:
            return False
        file = self._trace(rollout, log_ratio, rows, cause, iteration)
        if self._config.action == "stop":
            raise ModelError(
                f"Round {iteration + 1}: {cause.reason}. Training ends, as guards.action is stop; "
                f"the responses are in {file}. A lower learning rate, fewer ppo_epochs or a larger "
                "kl.coefficient keep the policy nearer."
            )
        self._say(
            f"[yellow]round {iteration + 1}: {cause.reason}; a step is skipped, see {file}[/yellow]"
        )
        return True

    def drop_traces_after(self, iteration: int) -> None:
        """Drop traces of rounds that will be gone through again."""
        for file in self._folder.glob("round-*.jsonl"):
            if int(file.stem.removeprefix("round-")) > iteration:
                file.unlink()

    def _trace(
        self, rollout: Rollout, log_ratio: Tensor, rows: Tensor, cause: Spike, iteration: int
    ) -> Path:
        """Write the worst responses of a minibatch, token by token."""
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / f"round-{iteration + 1}.jsonl"
        places = {int(row): place for place, row in enumerate(rows)}
        with file.open("a", encoding="utf-8") as lines:
            for row in cause.rows[:_MOST_TRACED]:
                traced = _row(rollout, row, log_ratio[places[row]], self._policy)
                line = {"reason": cause.reason, **traced}
                lines.write(json.dumps(line, ensure_ascii=False) + "\n")
        return file


def _row(rollout: Rollout, row: int, log_ratio: Tensor, policy: Policy) -> dict[str, Any]:
    batch = rollout.batch.rows(slice(row, row + 1))
    width = batch.response_mask.shape[1]
    real = batch.attention_mask[0, -width:].bool()
    ids = batch.response_ids[0][real].tolist()
    prompt = batch.ids[0, :-width][batch.attention_mask[0, :-width].bool()].tolist()
    return {
        "prompt": policy.tokenizer.decode(prompt),
        "response": policy.tokenizer.decode(ids),
        "score": _number(rollout.scores[row]),
        "kl": _number(rollout.kl[row]),
        "tokens": policy.tokenizer.convert_ids_to_tokens(ids),
        "old_logprobs": _numbers(rollout.logprobs[row][real]),
        "reference_logprobs": _numbers(rollout.reference_logprobs[row][real]),
        "log_ratio": _numbers(log_ratio[: len(real)][real]),
        "advantages": _numbers(rollout.advantages[row][real]),
    }


def _number(value: Tensor) -> float | str:
    number = round(float(value), 5)
    return number if math.isfinite(number) else str(number)  # JSON has no infinity


def _numbers(values: Tensor) -> list[float | str]:
    return [_number(value) for value in values.detach()]
