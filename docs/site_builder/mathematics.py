r"""Mathematics as MathML, which browsers draw without a script and without a network.

A page writes formulas as LaTeX between dollars, as repository browsers read them. Markdown marks
them (``<span class="arithmatex">\(…\)</span>``); here they become MathML in the finished HTML.
"""

from __future__ import annotations

import html
import re

_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)


def with_mathml(page: str) -> str:
    """Return the HTML of a page with every formula as MathML."""
    from latex2mathml.converter import convert

    def inline(match: re.Match[str]) -> str:
        return str(convert(html.unescape(match[1])))

    def block(match: re.Match[str]) -> str:
        return str(convert(html.unescape(match[1]), display="block"))

    return _INLINE.sub(inline, _BLOCK.sub(block, page))
