"""How far the policy is from its reference, and how hard it is pulled back."""

from __future__ import annotations

from torch import Tensor


def k1(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Return log p - log q of each sampled token: an unbiased estimate of KL(p || q), in nats.

    Schulman's k1 (2020). Its sum over a response estimates the KL of whole responses; single
    values may be negative. Both tensors are [B, R].
    """
    return logprobs - reference_logprobs


def adapted(coefficient: float, kl: float, target: float, responses: int, horizon: int) -> float:
    """Return the next coefficient of an adaptive penalty (Ziegler et al., 2019, section 2.2).

    e = clip((kl - target) / target, -0.2, 0.2) and beta' = beta (1 + e n / horizon), where ``kl``
    is the mean over the last ``responses`` responses, in nats a response.
    """
    error = min(0.2, max(-0.2, (kl - target) / target))
    return coefficient * (1 + error * responses / horizon)
