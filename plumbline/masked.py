"""Means and variances over the real positions of padded tensors."""

from __future__ import annotations

from torch import Tensor


def masked_mean(values: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Return the mean of ``values`` where ``mask`` is true; 0 if it is true nowhere.

    ``values`` and ``mask`` are [B, R], or have any one shape. With ``dim`` the mean is along it
    (``dim=1``: [B]), else over all.
    """
    weights = mask.to(values.dtype)
    if dim is None:
        return (values * weights).sum() / weights.sum().clamp(min=1)
    return (values * weights).sum(dim) / weights.sum(dim).clamp(min=1)


def masked_var(values: Tensor, mask: Tensor) -> Tensor:
    """Return the variance (with Bessel's correction) of ``values`` [B, R] where ``mask`` is true.

    Raises `ValueError` for fewer than two real positions, which have no variance.
    """
    count = mask.sum()
    if count < 2:
        raise ValueError(f"a variance needs two values, and the mask leaves {int(count)}")
    centered = values - masked_mean(values, mask)
    return masked_mean(centered.square(), mask) * count / (count - 1)


def masked_whiten(values: Tensor, mask: Tensor, *, subtract_mean: bool = True) -> Tensor:
    """Return ``values`` [B, R] at unit variance over the mask, and at zero mean by default.

    ``subtract_mean=False`` keeps the mean where it was, as rewards need: their sign has a meaning.
    Values outside the mask are scaled as well, and are not to be used.
    """
    mean = masked_mean(values, mask)
    whitened = (values - mean) * (masked_var(values, mask) + 1e-8).rsqrt()
    return whitened if subtract_mean else whitened + mean


def last_position(mask: Tensor) -> Tensor:
    """Return the place of the last True in each row of ``mask`` [B, R], [B].

    The last column's place for a row without any.
    """
    return mask.shape[1] - 1 - mask.flip(1).int().argmax(1)
