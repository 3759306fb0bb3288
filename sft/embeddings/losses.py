"""The contrastive loss, as a pure function of vectors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def contrastive_loss(
    queries: Tensor, texts: Tensor, same: Tensor, temperature: float = 0.05
) -> Tensor:
    """Return the cross-entropy of finding each query's text among all texts of a batch, [B].

    - log exp(cos(q_i, t_i) / T) / sum_j exp(cos(q_i, t_j) / T), the InfoNCE of van den Oord et al.
    (2018) with the other texts of the batch as negatives (Karpukhin et al., 2020).

    Args:
        queries: [B, D].
        texts: [M, D], M >= B: the texts of the B queries in their order, then further negatives.
        same: [B, M], true where a text is a right answer of a query, too, and does not count as
            a negative of it. Each query's own text always counts.
        temperature: T, without a unit.

    Returns:
        Losses in nats, [B].
    """
    cosines = F.normalize(queries, dim=-1) @ F.normalize(texts, dim=-1).t() / temperature
    own = torch.arange(len(queries), device=queries.device)
    hidden = same.clone()
    hidden[own, own] = False
    return F.cross_entropy(cosines.masked_fill(hidden, -torch.inf), own, reduction="none")
