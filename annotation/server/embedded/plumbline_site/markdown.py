"""A model's Markdown as HTML that is safe to show: nothing in it runs, loads, or disappears.

HTML in a text is shown as text. Images are named and not loaded: their server would learn who reads
what, and when. Every other character of the text can be seen, too: reference definitions, for
example, which Markdown hides, are shown as they are written.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.rules_inline.state_inline import Delimiter

from .formulas import LONGEST_FORMULA, formula

if TYPE_CHECKING:
    from markdown_it.rules_block import StateBlock
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token

LONGEST_HIGHLIGHTED = 20_000
"""Characters of a block of code that gets colours; more would take too long."""
_DEEPEST = 100
"""Lists and quotations within each other. The parser leaves out what is deeper."""
_MOST_LINES = 60
"""Lines of one formula."""
_CLOSERS = {"(": "\\)", "[": "\\]"}
_WITHOUT_SPACES = re.compile(
    "[\u3000-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef"
    "\U00020000-\U0003ffff]"
)
"""A character of Chinese, Japanese or Korean, their punctuation included."""
_LANGUAGE = re.compile(r"[\w+#.-]{1,30}")


@lru_cache(maxsize=256)
def rendered(text: str, *, markdown: bool = True, breaks: bool = True) -> str:
    """Return a text as HTML: formatted, or as it is written.

    With ``breaks``, line breaks stay where a model put them, as in a chat. A person's page of
    guidelines is in lines that may be filled.
    """
    if markdown:
        parser, env = _parser(breaks), {}  # type: ignore[var-annotated]
        tokens = parser.parse(text, env)
        if max((token.level for token in tokens), default=0) < _DEEPEST - 2:
            return str(parser.renderer.render(tokens, parser.options, env))
    return f'<div class="plain">{html.escape(text)}</div>'


@lru_cache(maxsize=2)
def _parser(breaks: bool) -> Any:
    from mdit_py_plugins.dollarmath import dollarmath_plugin

    parser: Any = MarkdownIt(
        "commonmark", {"html": False, "breaks": breaks, "maxNesting": _DEEPEST}
    )
    parser.enable(["table", "strikethrough"]).disable(["reference", "html_block", "html_inline"])
    # A price is not a formula: "$5 and $6".
    parser.use(dollarmath_plugin, allow_labels=False, allow_space=False, allow_digits=False)
    parser.inline.ruler.before("escape", "bracket_math", _bracket_math)
    parser.inline.ruler.before("emphasis", "emphasis_without_spaces", _emphasis_without_spaces)
    parser.block.ruler.before(
        "fence", "bracket_math_block", _bracket_math_block, {"alt": ["paragraph", "blockquote"]}
    )
    parser.validateLink = _is_web_address
    for kind, rule in {
        "math_inline": lambda tokens, i, *_: formula(tokens[i].content, block=False),
        "math_inline_double": lambda tokens, i, *_: formula(tokens[i].content, block=True),
        "math_block": lambda tokens, i, *_: formula(tokens[i].content, block=True),
        "image": _image,
        "fence": lambda tokens, i, *_: _code(tokens[i].content, tokens[i].info),
        "code_block": lambda tokens, i, *_: _code(tokens[i].content, ""),
        "link_open": _link_open,
        "link_close": _link_close,
        "table_open": lambda *_: '<div class="wide"><table>\n',
        "table_close": lambda *_: "</table></div>\n",
    }.items():
        parser.renderer.rules[kind] = rule
    return parser


def _emphasis_without_spaces(state: StateInline, silent: bool) -> bool:
    """Read asterisks beside Chinese, Japanese or Korean as the marks of emphasis that they are.

    Markdown tells opening from closing marks by the spaces and punctuation around them. Where a
    language writes no spaces, ``**word:**next`` would show its asterisks.
    """
    start = state.pos
    if silent or state.src[start] != "*":
        return False
    end = start
    while end < state.posMax and state.src[end] == "*":
        end += 1
    before = state.src[start - 1] if start else " "
    after = state.src[end] if end < state.posMax else " "
    if not _WITHOUT_SPACES.search(before + after):
        return False
    opens, closes = not after.isspace(), not before.isspace()
    for _ in range(end - start):
        state.push("text", "", 0).content = "*"
        state.delimiters.append(
            Delimiter(ord("*"), end - start, len(state.tokens) - 1, -1, opens, closes)
        )
    state.pos = end
    return True


def _bracket_math(state: StateInline, silent: bool) -> bool:
    r"""Read a formula in ``\(…\)`` or ``\[…\]``."""
    if state.src[state.pos] != "\\" or state.pos + 1 >= state.posMax:
        return False
    opener = state.src[state.pos + 1]
    closer = _CLOSERS.get(opener)
    if closer is None:
        return False
    start = state.pos + 2
    # Not further than a formula may be long: a text of openers only would take quadratic time.
    end = state.src.find(closer, start, min(state.posMax, start + LONGEST_FORMULA))
    if end < 0:
        return False
    content = state.src[start:end]
    if not content.strip():
        return False
    if not silent:
        kind = "math_inline" if opener == "(" else "math_inline_double"
        state.push(kind, "math", 0).content = content
    state.pos = end + 2
    return True


def _bracket_math_block(state: StateBlock, first: int, last: int, silent: bool) -> bool:
    r"""Read a formula of several lines, from a line that begins with ``\[`` to one with ``\]``."""
    start = state.bMarks[first] + state.tShift[first]
    if state.is_code_block(first) or not state.src.startswith("\\[", start):
        return False
    if state.src.find("\\]", start, start + LONGEST_FORMULA) < 0:
        return False
    for line in range(first, min(last, first + _MOST_LINES)):
        end = state.eMarks[line]
        if state.isEmpty(line):
            return False
        if state.src[start if line == first else state.bMarks[line] : end].rstrip().endswith("\\]"):
            if not silent:
                token = state.push("math_block", "math", 0)
                token.content = state.src[start + 2 : end].rstrip()[:-2]
                token.map = [first, line + 1]
                token.block = True
                state.line = line + 1
            return True
    return False


def _is_web_address(address: str) -> bool:
    return address.strip().lower().startswith(("http://", "https://"))


def _host(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _image(tokens: Sequence[Token], i: int, *_: Any) -> str:
    token = tokens[i]
    named = f"image “{token.content}”" if token.content else "image"
    address = str(token.attrs.get("src", ""))
    return f'<span class="image">[{html.escape(named)}, not loaded: {html.escape(address)}]</span>'


def _link_open(tokens: Sequence[Token], i: int, *_: Any) -> str:
    address = html.escape(str(tokens[i].attrs.get("href", "")))
    return f'<a href="{address}" target="_blank" rel="noopener noreferrer nofollow">'


def _link_close(tokens: Sequence[Token], i: int, *_: Any) -> str:
    """Close a link, and say where it leads, where its text does not."""
    depth, opening = 0, i - 1
    while opening >= 0 and (depth or tokens[opening].type != "link_open"):
        depth += {"link_close": 1, "link_open": -1}.get(tokens[opening].type, 0)
        opening -= 1
    address = str(tokens[opening].attrs.get("href", ""))
    shown = "".join(token.content for token in tokens[opening + 1 : i])
    where = (
        "" if shown == address else f' <span class="host">({html.escape(_host(address))})</span>'
    )
    return f"</a>{where}"


def _code(content: str, info: str) -> str:
    language = info.split()[0] if info.strip() else ""
    name = f'<span class="language">{html.escape(info.strip())}</span>' if info.strip() else ""
    return (
        f'<div class="code">{name}<pre tabindex="0"><code>{_colored(content, language)}</code>'
        "</pre></div>\n"
    )


def _colored(content: str, language: str) -> str:
    """Return code with its words marked by kind, where the language is known."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    if not _LANGUAGE.fullmatch(language) or len(content) > LONGEST_HIGHLIGHTED:
        return html.escape(content)
    try:
        lexer = get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return html.escape(content)
    return str(highlight(content, lexer, HtmlFormatter(nowrap=True)))
