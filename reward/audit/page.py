"""The page of an audit: one HTML file that opens offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plumbline import __version__, pages
from reward.audit import drawing
from reward.audit.biases import Bias, Effect
from reward.audit.measured import Measured
from reward.audit.shares import Share
from reward.audit.verdict import Verdict, trait_words

_LISTED = 12
_TEXT = 400


def render(
    name: str,
    measured: Measured,
    verdict: Verdict,
    suspicious: Sequence[Mapping[str, Any]],
    to_label: Sequence[Mapping[str, Any]],
) -> str:
    """Return the page."""
    environment = pages.templates("reward")
    environment.filters |= {"share": shown_share, "effect": shown_effect, "short": shortened}
    calibration, curve = measured.calibration, measured.optimization
    content: dict[str, Any] = {
        "title": f"Audit of {name}",
        "version": __version__,
        "measured": measured,
        "verdict": verdict,
        "reliability": None
        if calibration is None
        else drawing.reliability(calibration.before, calibration.after),
        "biases": [_bias_row(bias) for bias in measured.biases if bias.of_score is not None],
        "reactions": [
            (r, drawing.interval_bar(r.change, r.low, r.high, 2.0)) for r in measured.reactions
        ],
        "curve": None if curve is None else drawing.best_of_n(curve),
        "suspicious": suspicious[:_LISTED],
        "suspicious_count": len(suspicious),
        "to_label_count": len(to_label),
    }
    return environment.get_template("audit.html.jinja").render(content)


def _bias_row(bias: Bias) -> dict[str, Any]:
    title, unit = trait_words(bias.trait)
    effect = bias.beyond_labels
    bar = "" if effect is None else drawing.interval_bar(effect.value, effect.low, effect.high, 1.0)
    return {"bias": bias, "title": title, "unit": unit, "bar": bar}


def shown_share(share: Share | None) -> str:
    """Return a share with its interval, or a dash where there is none."""
    if share is None:
        return "–"
    return f"{share.value:.1%} ({share.low:.1%} to {share.high:.1%})"


def shown_effect(effect: Effect | None) -> str:
    """Return an effect with its interval, or a dash where there is none."""
    if effect is None:
        return "–"
    return f"{effect.value:+.2f} ({effect.low:+.2f} to {effect.high:+.2f})"


def shortened(text: str) -> str:
    """Return a text, cut where it is long."""
    return text if len(text) <= _TEXT else f"{text[:_TEXT]} … ({len(text)} characters)"
