"""Pages that open offline, all in one look: the frame, the style sheet and how figures read.

A page's template extends ``page.html.jinja``, which brings the style sheet, the header and the
footer, and fills its blocks: ``style``, ``navigation``, ``content`` and ``scripts``. Markdown
templates use the same filters.
"""

from __future__ import annotations

import re

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from plumbline.runs.progress import duration, size
from plumbline.terminal import visible

CODE_BESIDE = "templates"
#: What Markdown would read as markup, or a viewer as HTML.
_MARKUP = re.compile(r"([\\`*_\[\]<>|#])")


def templates(package: str, folder: str = "templates") -> Environment:
    """Return the templates of a package, with the shared ones behind them."""
    environment = Environment(
        loader=ChoiceLoader(
            [PackageLoader(package, folder), PackageLoader("plumbline", CODE_BESIDE)]
        ),
        undefined=StrictUndefined,
        autoescape=lambda name: name is not None and ".html" in name,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "duration": duration,
        "size": size,
        "percent": percent,
        "number": number,
        "cell": cell,
        "plain": plain,
    }
    return environment


def percent(value: float | None) -> str:
    """Return a share in per cent, or a dash where there is none."""
    return "–" if value is None else f"{value:.1%}"


def number(value: float | None, digits: int = 2) -> str:
    """Return a number with so many digits, or a dash where there is none."""
    return "–" if value is None else f"{value:z,.{digits}f}"  # z: no minus before a zero


def cell(text: object) -> str:
    """Return a text that stays in its cell of a Markdown table."""
    return visible(str(text)).replace("|", "\\|").replace("\n", " ⏎ ")


def plain(text: object) -> str:
    """Return somebody's text so that Markdown shows it as it is: no markup, no picture, one line.

    Labelled text may come from anywhere; a picture in it would tell its owner who reads the page.
    """
    return _MARKUP.sub(r"\\\1", visible(str(text))).replace("\n", " ⏎ ")
