"""Signs of trouble while a policy learns from pairs: figures that show them, and what helps.

The best known: the chosen response becomes less likely, too, while the margin grows (likelihood
displacement; Razin et al., 2024). Shapes: ``B`` pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from preference.config import WatchConfig
from preference.logprobs import PairLogprobs
from preference.unpaired_losses import LabeledLogprobs

#: At this implied reward margin a pair's gradient is 1 % of that of an undecided one, about.
SATURATED = 5.0
#: Implied rewards below this may be rounding, as all are before the first step.
ROUNDING = 1e-4


@torch.no_grad()
def pair_figures(logprobs: PairLogprobs, beta: float) -> dict[str, Tensor]:
    """Return what a training shows of a batch, [] each.

    ``rewards/...`` are beta times log-ratios, ``logps/...`` log-probabilities in nats.
    ``displaced_share`` are pairs whose chosen response is less likely than under the reference
    though the margin is positive, ``saturated_share`` pairs beyond `SATURATED`.
    """
    chosen, rejected = beta * logprobs.chosen_log_ratio, beta * logprobs.rejected_log_ratio
    margins = chosen - rejected
    return {
        "rewards/chosen": chosen.mean(),
        "rewards/rejected": rejected.mean(),
        "rewards/accuracies": (margins > 0).float().mean(),
        "rewards/margins": margins.mean(),
        "logps/chosen": logprobs.chosen.mean(),
        "logps/rejected": logprobs.rejected.mean(),
        "chosen_log_ratio": logprobs.chosen_log_ratio.mean(),
        "displaced_share": ((logprobs.chosen_log_ratio < 0) & (margins > 0)).float().mean(),
        "saturated_share": (margins > SATURATED).float().mean(),
    }


@torch.no_grad()
def label_figures(
    logprobs: LabeledLogprobs, beta: float, threshold: Tensor
) -> list[tuple[dict[str, Tensor], int]]:
    """Return what a training on labels without pairs shows of a batch: means, and of how many.

    By the names that trainings on pairs have: chosen are the liked responses, rejected the others;
    a batch that has none of them has no figures of theirs. ``displaced_share`` are liked responses
    that are less likely than under the reference, ``saturated_share`` those of both kinds whose
    reward is on the right side of ``threshold`` [], which it is compared with, by more than
    `SATURATED`.
    """
    rewards, liked = beta * logprobs.log_ratio, logprobs.desirable
    right = torch.where(liked, rewards - threshold, threshold - rewards)
    groups = [
        (
            {
                "shift": logprobs.shift,
                "rewards/accuracies": (right > ROUNDING).float().mean(),
                "saturated_share": (right > SATURATED).float().mean(),
            },
            len(liked),
        )
    ]
    for name, mask in (("chosen", liked), ("rejected", ~liked)):
        if not mask.any():
            continue
        means = {
            f"rewards/{name}": rewards[mask].mean(),
            f"logps/{name}": logprobs.policy[mask].mean(),
        }
        if name == "chosen":
            means["chosen_log_ratio"] = logprobs.log_ratio[mask].mean()
            means["displaced_share"] = (rewards[mask] < -ROUNDING).float().mean()
        groups.append((means, int(mask.sum())))
    return groups


class SignTexts(NamedTuple):
    """What is said of signs, and what helps, in the settings of a kind of training."""

    displaced: str
    saturated: str


#: Of trainings on pairs.
FOR_PAIRS = SignTexts(
    "{value:.0%} of the chosen responses are less likely than under the reference though their "
    "margins grow: probability goes to neither response. mixture: {{sft: 0.1}}, loss: dpop or a "
    "larger beta hold it",
    "{value:.0%} of the pairs have margins so wide that they teach next to nothing. A larger beta, "
    "label_smoothing, loss: ipo or fewer epochs keep the policy nearer",
)
#: Of trainings on labels without pairs.
FOR_LABELS = SignTexts(
    "{value:.0%} of the liked responses are less likely than under the reference: probability goes "
    "elsewhere. A larger desirable_weight, a smaller undesirable_weight or a larger beta hold it",
    "{value:.0%} of the responses have rewards so far on the right side that they teach next to "
    "nothing. A larger beta or fewer epochs keep the policy nearer",
)


class Watch:
    """Looks at the figures of a training, and says once of each sign what it is and what helps.

    ``has_reference``: without one there are no log-ratios to look at.
    """

    def __init__(
        self,
        config: WatchConfig,
        say: Callable[[str], None],
        *,
        has_reference: bool = True,
        texts: SignTexts = FOR_PAIRS,
    ) -> None:
        self._config, self._say, self._has_reference = config, say, has_reference
        self._texts = texts
        self._said: set[str] = set()
        self._first_tokens: float | None = None

    def look_at_training(self, step: int, metrics: Mapping[str, float]) -> None:
        """Look at a line of training figures."""
        if not self._has_reference:
            return
        for name, text in (
            ("displaced_share", self._texts.displaced),
            ("saturated_share", self._texts.saturated),
        ):
            self._compare(step, name, metrics.get(name), text)

    def look_at_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Look at the figures of an evaluation."""
        self._compare(
            step,
            "kl",
            metrics.get("kl"),
            "the policy is {value:.1f} nats from its reference in its own responses. A larger "
            "beta, a lower learning rate or fewer steps keep it nearer",
        )
        tokens = metrics.get("tokens")
        if tokens is None:
            return
        if self._first_tokens is None:
            self._first_tokens = max(tokens, 1.0)
        self._compare(
            step,
            "length_growth",
            tokens / self._first_tokens,
            "responses have {value:.1f} times the tokens that they had at first. loss: "
            "sigmoid_norm or simpo, ld_alpha, or pairs balanced by length count them for less",
        )

    def _compare(self, step: int, name: str, value: float | None, text: str) -> None:
        most = getattr(self._config, name)
        if value is None or most is None or value < most or name in self._said:
            return
        self._said.add(name)
        self._say(f"[yellow]step {step}: {text.format(value=value)} (watch.{name}).[/yellow]")
