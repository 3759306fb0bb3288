"""Reading documents: one table of kinds of file, and what each of them is read by."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from plumbline.errors import ConfigError, DataError
from plumbline.tables import Table
from sft.documents.document import Document, Heading, TextBuilder


@dataclass(frozen=True)
class DocumentReader:
    """A kind of document."""

    name: str
    endings: tuple[str, ...]
    read: Callable[[Path], Document]
    about: str


def read_document(path: Path) -> Document:
    """Read a document by the ending of its name.

    Raises `DataError` where there is no such kind, and where the file holds no text.
    """
    ending = path.suffix.lower()
    reader = next((row for row in READERS.values() if ending in row.endings), None)
    if reader is None:
        known = ", ".join(ending for row in READERS.values() for ending in row.endings)
        raise DataError(f"{path} cannot be read as a document. These endings can: {known}.")
    document = reader.read(path)
    if not document.text.strip():
        raise DataError(
            f"{path} holds no text. "
            + ("Its pages may be pictures: run OCR first." if document.pages else "It is empty.")
        )
    return document


def _text(path: Path) -> str:
    try:
        # Line ends become one character, so offsets count characters as an editor does.
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 at byte {error.start}. Write it in UTF-8: "
            "iconv -f GB18030 -t UTF-8, for example."
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}.") from None


_FENCE = re.compile(r"^[ \t>]*(?P<fence>`{3,}|~{3,})")
_HEADING = re.compile(r"^[ \t>]{0,6}(?P<marks>#{1,6})[ \t]+(?P<title>.+?)[ \t]*#*[ \t]*$")
_COMMENT = re.compile(r"<!--.*?-->|^\{\{#.*?\}\}$", re.DOTALL | re.MULTILINE)


def _read_markdown(path: Path) -> Document:
    text = _text(path)
    headings: list[Heading] = []
    blocked = [match.span() for match in _COMMENT.finditer(text)]
    fence, opened, at = "", 0, 0
    for line in text.splitlines(keepends=True):
        mark = _FENCE.match(line)
        title = _HEADING.match(line.rstrip("\r\n"))
        if fence:
            if mark and mark["fence"].startswith(fence):
                blocked.append((opened, at + len(line)))
                fence = ""
        elif mark:
            fence, opened = mark["fence"], at
        elif title:
            headings.append(
                Heading(at, at + len(line.rstrip()), len(title["marks"]), title["title"])
            )
        at += len(line)
    if fence:
        blocked.append((opened, at))
    return Document(path.name, text, tuple(headings), (), tuple(sorted(blocked)))


def _read_plain(path: Path) -> Document:
    return Document(path.name, _text(path))


_LEVEL = re.compile(r"(?:heading|title|head|überschrift|标题)[ ]?([1-9A-D])?$", re.IGNORECASE)


def _read_docx(path: Path) -> Document:
    try:
        import docx
    except ImportError:
        raise _missing("python-docx", path) from None
    try:
        file = docx.Document(str(path))
    except Exception as error:  # the package raises errors of zip and XML
        raise DataError(f"{path} cannot be read as a Word document: {error}.") from None
    builder = TextBuilder()
    for item in file.iter_inner_content():
        if hasattr(item, "rows"):
            rows = ([cell.text for cell in row.cells] for row in item.rows)
            builder.add("\n".join(" | ".join(cells) for cells in rows), code=True)
            continue
        style = item.style.name if item.style is not None else ""
        is_code = style.lower().startswith(("code", "source", "html pre", "macro"))
        builder.add(item.text, heading=_level_of(style), code=is_code)
    return builder.document(path.name)


def _level_of(style: str) -> int | None:
    """Return the level of a paragraph's style; publishers write HeadA for the first one."""
    match = _LEVEL.search(style)
    if match is None:
        return None
    mark = match[1] or "1"
    return int(mark) if mark.isdigit() else "ABCD".index(mark.upper()) + 1


def _read_pdf(path: Path) -> Document:
    try:
        import pypdfium2
    except ImportError:
        raise _missing("pypdfium2", path) from None
    try:
        with pypdfium2.PdfDocument(path) as file:
            contents = [page.get_textpage().get_text_range() for page in file]
    except pypdfium2.PdfiumError as error:
        raise DataError(
            f"{path} cannot be read as a PDF: {error}. Is it damaged, or has it a password?"
        ) from None
    pages, parts, length = [], [], 0
    for content in contents:
        pages.append(length)
        parts.append(content.replace("\r\n", "\n").replace("\r", "\n").replace("\ufffe", "-"))
        parts.append("\n\n")
        length += len(parts[-2]) + 2
    return Document(path.name, "".join(parts), (), tuple(pages))


class _Html(HTMLParser):
    """Collects a page's blocks; what is not shown is left out."""

    _HIDDEN = frozenset(("script", "style", "head", "nav", "footer", "template", "noscript"))
    _BLOCKS = frozenset(
        [
            "p",
            "div",
            "li",
            "ul",
            "ol",
            "table",
            "tr",
            "td",
            "th",
            "section",
            "article",
            "main",
            "header",
            "blockquote",
            "dd",
            "dt",
            "dl",
            "figure",
            "figcaption",
            "br",
            "hr",
            "body",
            "form",
            "aside",
        ]
    )

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.builder = TextBuilder()
        self._words: list[str] = []
        self._hidden = 0
        self._heading: int | None = None
        self._code = 0

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag in self._HIDDEN:
            self._hidden += 1
        elif re.fullmatch("h[1-6]", tag):
            self.flush()
            self._heading = int(tag[1])
        elif tag == "pre":
            self.flush()
            self._code += 1
        elif tag in self._BLOCKS:
            self.flush()

    def handle_endtag(self, tag: str) -> None:
        if tag in self._HIDDEN:
            self._hidden = max(0, self._hidden - 1)
        elif re.fullmatch("h[1-6]", tag) or tag in self._BLOCKS:
            self.flush()
        elif tag == "pre":
            self.flush()
            self._code = max(0, self._code - 1)

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._words.append(data)

    def flush(self) -> None:
        """End a block."""
        text = "".join(self._words)
        self._words.clear()
        text = text if self._code else " ".join(text.split())
        self.builder.add(text, heading=self._heading, code=bool(self._code))
        self._heading = None


def _read_html(path: Path) -> Document:
    parser = _Html()
    parser.feed(_text(path))
    parser.close()
    parser.flush()
    return parser.builder.document(path.name)


def _missing(package: str, path: Path) -> ConfigError:
    return ConfigError(
        f"{path} is read by the package {package}: pip install 'plumbline-rlhf[documents]'."
    )


READERS = Table(
    "kind of document",
    [
        DocumentReader("markdown", (".md", ".markdown"), _read_markdown, "headings by #"),
        DocumentReader("text", (".txt",), _read_plain, "without headings"),
        DocumentReader("html", (".html", ".htm"), _read_html, "headings by h1 to h6"),
        DocumentReader("docx", (".docx",), _read_docx, "Word: headings by their styles"),
        DocumentReader("pdf", (".pdf",), _read_pdf, "pages, without headings; text, not pictures"),
    ],
)
