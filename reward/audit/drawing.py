"""Drawings of an audit as SVG, in the colors of the page: they follow its light and dark look."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from reward.audit.optimization import OverOptimization
from reward.audit.pair_calibration import PairCalibration

_WIDTH, _HEIGHT = 520, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 14, 12, 42


class Axes(NamedTuple):
    """Where values are on a drawing."""

    x_from: float
    x_to: float
    y_from: float
    y_to: float

    def x(self, value: float) -> float:
        """Return the place of a value from the left."""
        share = (value - self.x_from) / (self.x_to - self.x_from)
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        """Return the place of a value from the top."""
        share = (value - self.y_from) / (self.y_to - self.y_from)
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 1)

    def points(self, pairs: Sequence[tuple[float, float]]) -> str:
        """Return pairs of values as the points of a line."""
        return " ".join(f"{self.x(x)},{self.y(y)}" for x, y in pairs)


def reliability(before: PairCalibration, after: PairCalibration | None) -> Markup:
    """Return the reliability plot: accuracy against confidence, with the diagonal."""
    axes = Axes(0.5, 1.0, 0.0, 1.0)
    parts = [
        *_frame(axes, [0.5, 0.6, 0.7, 0.8, 0.9, 1.0], [0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
                "confidence", "accuracy", "{:.0%}"),
        f'<line class="guide" x1="{axes.x(0.5)}" y1="{axes.y(0.5)}" x2="{axes.x(1)}" '
        f'y2="{axes.y(1)}"/>',
    ]  # fmt: skip
    for kind, calibration in (("second", after), ("first", before)):
        if calibration is None:
            continue
        for place in calibration.bins:
            x, share = axes.x(place.confidence), place.accuracy
            low, high = (axes.y(v) for v in (share.low, share.high))
            parts.append(f'<line class="{kind}" x1="{x}" x2="{x}" y1="{low}" y2="{high}"/>')
            parts.append(
                f'<circle class="{kind}" cx="{x}" cy="{axes.y(share.value)}" r="4">'
                f"<title>{place.confidence:.1%} confident, {share.value:.1%} right of "
                f"{share.size}</title></circle>"
            )
    return _svg(parts, "Accuracy against confidence")


def best_of_n(curve: OverOptimization) -> Markup:
    """Return gold and proxy against the root of KL, with gold's interval and its fit."""
    roots = [math.sqrt(point.kl) for point in curve.points]
    proxy_scale = max((abs(p.proxy) for p in curve.points), default=1.0) or 1.0
    gold_scale = max((max(abs(p.gold_high), abs(p.gold_low)) for p in curve.points), default=1.0)
    gold_scale = gold_scale or 1.0
    low = min(0.0, *(p.gold_low / gold_scale for p in curve.points))
    axes = Axes(0.0, max(roots) or 1.0, low, 1.05)
    band = [(r, p.gold_high / gold_scale) for r, p in zip(roots, curve.points, strict=True)]
    band += [(r, p.gold_low / gold_scale) for r, p in zip(roots, curve.points, strict=True)][::-1]
    gold = [(r, p.gold / gold_scale) for r, p in zip(roots, curve.points, strict=True)]
    proxy = [(r, p.proxy / proxy_scale) for r, p in zip(roots, curve.points, strict=True)]
    ticks = [t for t in (0.0, 0.5, 1.0, 1.5, 2.0, 2.5) if t <= axes.x_to]
    parts = [
        *_frame(axes, ticks, [], "root of KL (nats)", "gain", "{:.1f}"),
        f'<polygon class="band" points="{axes.points(band)}"/>',
        f'<polyline class="second" points="{axes.points(proxy)}"/>',
        f'<polyline class="first" points="{axes.points(gold)}"/>',
    ]
    if curve.fit is not None and curve.fit["alpha"] is not None:
        steps = [axes.x_to * n / 40 for n in range(41)]
        fitted = [(d, d * (curve.fit["alpha"] - curve.fit["beta"] * d) / gold_scale) for d in steps]
        parts.append(f'<polyline class="guide" points="{axes.points(fitted)}"/>')
    for root, point in zip(roots, curve.points, strict=True):
        parts.append(
            f'<circle class="first" cx="{axes.x(root)}" cy="{axes.y(point.gold / gold_scale)}" '
            f'r="4"><title>best of {point.n}: gold {point.gold:+.3f}, score {point.proxy:+.3f}'
            "</title></circle>"
        )
    return _svg(parts, "Gold and score against KL")


def interval_bar(value: float, low: float, high: float, scale: float) -> Markup:
    """Return a value with its interval around zero, as a small drawing for a table."""
    width, middle = 180, 90

    def place(number: float) -> float:
        return round(middle + max(-1.0, min(1.0, number / scale)) * (middle - 4), 1)

    return Markup(
        f'<svg class="bar" viewBox="0 0 {width} 16" role="img" aria-label="{value:+.2f}">'
        f'<line class="axis" x1="{middle}" x2="{middle}" y1="0" y2="16"/>'
        f'<line class="first" x1="{place(low)}" x2="{place(high)}" y1="8" y2="8"/>'
        f'<circle class="first" cx="{place(value)}" cy="8" r="4"/></svg>'
    )


def _frame(
    axes: Axes, xs: Sequence[float], ys: Sequence[float], x_title: str, y_title: str, form: str
) -> list[str]:
    bottom, left = _HEIGHT - _BOTTOM, _LEFT
    zero = axes.y(0.0) if axes.y_from < 0 else bottom
    parts = [
        f'<line class="axis" x1="{left}" x2="{_WIDTH - _RIGHT}" y1="{zero}" y2="{zero}"/>',
        f'<line class="axis" x1="{left}" x2="{left}" y1="{_TOP}" y2="{bottom}"/>',
    ]
    for x in xs:
        parts.append(
            f'<text x="{axes.x(x)}" y="{bottom + 16}" text-anchor="middle">{form.format(x)}</text>'
        )
    for y in ys:
        parts.append(
            f'<text x="{left - 6}" y="{axes.y(y) + 4}" text-anchor="end">{form.format(y)}</text>'
        )
    middle = (left + _WIDTH - _RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x_title)}</text>'
    )
    height = (_TOP + bottom) / 2
    parts.append(
        f'<text x="12" y="{height}" text-anchor="middle" transform="rotate(-90 12 {height})">'
        f"{escape(y_title)}</text>"
    )
    return parts


def _svg(parts: Sequence[str], label: str) -> Markup:
    return Markup(
        f'<svg class="drawing" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )
