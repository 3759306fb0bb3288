"""Checks of the finished site: every link leads somewhere, and nothing comes from another host."""

from __future__ import annotations

import os
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: What a browser fetches by itself while it shows a page.
_FETCHED = {"link": "href"} | dict.fromkeys(("img", "script", "iframe", "source", "video"), "src")
#: The colours of code, which are most of a page: they lead nowhere, and nothing leads to them.
_COLOURS = re.compile(r'<span class="[^"]*">|</span>')
_CSS_URL = re.compile(r"url\(\s*['\"]?(https?:)?//")


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value is not None}
        if "id" in values:
            self.ids.add(values["id"])
        if tag == "a":
            self.ids.update([values["name"]] if "name" in values else [])
            self.links += [values["href"]] if "href" in values else []
        attribute = _FETCHED.get(tag)
        if attribute is not None and attribute in values and values.get("rel") != "canonical":
            self.fetched.append(values[attribute])


def problems(site: Path) -> list[str]:
    """Return a sentence for each link of the site that leads nowhere or fetches from elsewhere."""
    found = []
    for file in sorted(site.rglob("*.html")):
        page, where = _read(file), file.relative_to(site)
        for target in [*page.links, *page.fetched]:
            missing = _missing(site, file, target)
            if missing is not None:
                found.append(f"{where}: {target} leads nowhere: {missing}")
        found += [
            f"{where}: {target} is fetched from another host"
            for target in page.fetched
            if urlsplit(target).netloc
        ]
    for file in sorted(site.rglob("*.css")):
        if _CSS_URL.search(file.read_text(encoding="utf-8")):
            found.append(f"{file.relative_to(site)}: fetches from another host")
    return found


def _missing(site: Path, file: Path, target: str) -> str | None:
    """Return what a link lacks, or None. Links to other hosts are not followed."""
    parts = urlsplit(target)
    if parts.scheme or parts.netloc:
        return None
    path = unquote(parts.path)
    folder = site if path.startswith("/") else file.parent
    other = _file_at(os.path.normpath(folder / path.lstrip("/"))) if path else file
    if other is None:
        return "there is no such file"
    fragment = unquote(parts.fragment)
    if fragment and other.suffix == ".html" and fragment not in _read(other).ids | {"__top"}:
        return f"the page has no {fragment!r}"
    return None


@cache
def _file_at(path: str) -> Path | None:
    """Return the file that a browser shows for a path, or None."""
    file = Path(path, "index.html") if Path(path).is_dir() else Path(path)
    return file if file.is_file() else None


@cache
def _read(file: Path) -> _Page:
    page = _Page()
    page.feed(_COLOURS.sub("", file.read_text(encoding="utf-8")))
    return page
