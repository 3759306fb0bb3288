"""Formulas in LaTeX as MathML, of elements and attributes that can do nothing but look.

The library that translates them copies text and addresses into its result as they are. So its tree
is written again here: what is not on the lists below is left out, and all text is escaped.
"""

from __future__ import annotations

import html
import re
from typing import Any

LONGEST_FORMULA = 2_000
"""Characters of a formula; a longer one is shown as it is written."""
_ELEMENTS = frozenset(
    {"math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "ms", "mfrac", "msqrt", "mroot"}
    | {"mstyle", "merror", "mpadded", "mphantom", "msub", "msup", "msubsup", "munder", "mover"}
    | {"munderover", "mmultiscripts", "mtable", "mtr", "mtd"}
)
_ATTRIBUTES = frozenset(
    {"display", "displaystyle", "scriptlevel", "mathvariant", "stretchy", "fence", "form"}
    | {"lspace", "rspace", "accent", "accentunder", "linethickness", "columnalign"}
    | {"rowspacing", "columnspacing", "minsize", "maxsize", "width"}
)
_VALUE = re.compile(r"[\w .,+-]{1,40}")
_ALIGNED = re.compile(r"\\(begin|end)\{(?:aligned|align\*?|split|gathered|gather\*?|eqnarray\*?)\}")
_DIRECTIVES = re.compile(r"\\(?:nonumber|notag|label\{[^{}]*\}|tag\*?\{[^{}]*\})")


def formula(latex: str, *, block: bool) -> str:
    """Return a formula as MathML, or as its source where it cannot be translated."""
    body = _mathml(latex.strip(), block=block) if len(latex) <= LONGEST_FORMULA else None
    if body is None:
        body = f'<code class="formula">{html.escape(latex)}</code>'
    return f'<span class="formula">{body}</span>' if block else body


def _mathml(latex: str, *, block: bool) -> str | None:
    from latex2mathml.converter import convert_to_element

    # The library knows matrices, but not lines that are aligned at their equals signs.
    plain = _DIRECTIVES.sub("", _ALIGNED.sub(_as_array, latex))
    try:
        tree = convert_to_element(plain, display="block" if block else "inline")
        return _written(tree)
    except (Exception, RecursionError):  # a person's or a model's LaTeX can be wrong in any way
        return None


def _as_array(match: re.Match[str]) -> str:
    return r"\begin{array}{rl}" if match[1] == "begin" else r"\end{array}"


def _written(element: Any) -> str:
    """Return an element and what is in it; of an unknown one, only what is in it."""
    inside = _text(element.text) + "".join(_written(child) + _text(child.tail) for child in element)
    if element.tag == "menclose":  # what \boxed becomes; browsers draw no such element
        return f'<mrow class="boxed">{inside}</mrow>'
    if element.tag not in _ELEMENTS:
        return f"<mrow>{inside}</mrow>" if len(element) else f"<mtext>{inside}</mtext>"
    attributes = "".join(
        f' {name}="{html.escape(value)}"'
        for name, value in element.attrib.items()
        if name in _ATTRIBUTES and _VALUE.fullmatch(value)
    )
    return f"<{element.tag}{attributes}>{inside}</{element.tag}>"


def _text(text: str | None) -> str:
    # The library writes signs as references, such as &#x0003C;.
    return html.escape(html.unescape(text)) if text else ""
