"""The page of a dataset: one HTML file that needs no network."""

from __future__ import annotations

from plumbline import __version__
from plumbline.pages import templates
from plumbline.terminal import visible
from sft.inspect.content import Bar, Content

CODE_BESIDE = "templates"
_HEIGHT = 120


def render(content: Content) -> str:
    """Return the page as HTML. Texts from data are escaped, and control characters shown."""
    environment = templates("sft.inspect", CODE_BESIDE)
    environment.filters |= {"visible": visible, "heights": _heights}
    return environment.get_template("inspect.html.jinja").render(
        title=content.title, content=content, version=__version__
    )


def _heights(bars: list[Bar]) -> list[tuple[Bar, float]]:
    """Return bars with their heights in pixels."""
    most = max((bar.rows for bar in bars), default=1)
    return [(bar, round(_HEIGHT * bar.rows / most, 1)) for bar in bars]
