"""How far the policy is from its reference, and how hard it is pulled back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from plumbline.tables import Table


def k1(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Return log p - log q of each sampled token: an unbiased estimate of KL(p || q), in nats.

    Schulman's k1 (2020). Its sum over a response estimates the KL of whole responses; single
    values may be negative. Both tensors are [B, R].
    """
    return logprobs - reference_logprobs


def k2(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Return (log p - log q)^2 / 2 of each sampled token: biased, and never negative.

    Its gradient at samples of p is, in expectation, that of KL(p || q) (Tang and Munos, 2025).
    """
    return 0.5 * (logprobs - reference_logprobs).square()


def k3(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Return q/p - 1 - log(q/p) of each sampled token: unbiased, and never negative.

    GRPO's penalty (Shao et al., 2024, eq. 4). Unbiased is the value; as a loss its gradient is
    that of KL(q || p) where p and q are close.
    """
    difference = reference_logprobs - logprobs
    return difference.exp() - 1 - difference


@dataclass(frozen=True)
class KLEstimator:
    """One estimator of the KL from policy to reference, token by token."""

    name: str
    function: Callable[[Tensor, Tensor], Tensor]
    """From log-probabilities [B, R] of policy and reference to nats [B, R]."""
    has_gradient: bool = True
    """Whether its gradient as a loss is other than 0 on average."""


KL_ESTIMATORS = Table(
    "KL estimator",
    [
        KLEstimator("k1", k1, has_gradient=False),
        KLEstimator("k2", k2),
        KLEstimator("k3", k3),
    ],
    from_function=KLEstimator,
)


def response_kl(logprobs: Tensor, reference_logprobs: Tensor, mask: Tensor) -> Tensor:
    """Return the KL estimate of each response, [B], in nats: k1, summed over the mask [B, R]."""
    return k1(logprobs, reference_logprobs).masked_fill(~mask, 0.0).sum(1)


def next_kl_coefficient(
    coefficient: float, kl: float, target: float, responses: int, horizon: int
) -> float:
    """Return the next coefficient of an adaptive penalty (Ziegler et al., 2019, section 2.2).

    e = clip((kl - target) / target, -0.2, 0.2) and beta' = beta (1 + e n / horizon), where ``kl``
    is the mean over the last ``responses`` responses, in nats per response.
    """
    error = min(0.2, max(-0.2, (kl - target) / target))
    return coefficient * (1 + error * responses / horizon)
