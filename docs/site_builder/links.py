"""Links of a page: right in a repository browser, and turned into links of the site.

A page links to files of the repository by relative paths (``../rl/ppo.py``), as a repository
browser follows them. On the site a link to a module becomes one to its page in the Python API, at
the name that the link's text gives; a link to any other file becomes one to a page with its text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from site_builder import modules
from site_builder.pages import PACKAGES, ROOT, Page, SiteError

#: Files of the repository's root that are pages of the site.
ROOT_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}

_LINK = re.compile(
    r"(?P<open>!?\[(?P<label>(?:[^\[\]`]|`[^`]*`|!\[[^\]]*\]\([^)]*\))*)\]\()(?P<target>[^()\s]+)\)"
)
_IDENTIFIER = re.compile(r"`([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)`")
_FENCE = re.compile(r"^\s*(`{3,}|~{3,})")


class Links:
    """Rewrites the links of pages, and remembers which files of the repository they lead to."""

    def __init__(self, root: Path = ROOT) -> None:
        self.root = root
        self.sources: set[str] = set()
        """Files and folders that need a page of their own, relative to the root."""
        self._public = set(modules.public_modules(root))

    def rewrite(self, text: str, repository_path: str, site_path: str) -> str:
        """Return a page with its links as they are on the site.

        Raises `SiteError` that names every link whose file, or whose name in a module, is gone.
        """
        problems: list[str] = []

        def replace(match: re.Match[str]) -> str:
            try:
                target = self._target(match["target"], match["label"], repository_path)
            except SiteError as error:
                problems.append(str(error))
                return match[0]
            if target is None:
                return match[0]
            path, hash_sign, anchor = target.partition("#")
            start = PurePosixPath(site_path).parent
            return f"{match['open']}{os.path.relpath(path, start)}{hash_sign}{anchor})"

        rewritten = "".join(
            line if is_code else _LINK.sub(replace, line) for line, is_code in lines(text)
        )
        if problems:
            raise SiteError("\n".join(problems))
        return rewritten

    def source_pages(self) -> list[Page]:
        """Return a page for each file or folder that a page links to and that is not a page."""
        return [_source_page(self.root, path) for path in sorted(self.sources)]

    def _target(self, target: str, label: str, repository_path: str) -> str | None:
        """Return a link's place on the site, or None where it stays as it is."""
        path, hash_sign, anchor = target.partition("#")
        if not path or re.match(r"[a-z][a-z0-9+.-]*:", path):
            return None
        inside = os.path.normpath(PurePosixPath(repository_path).parent / path)
        where = f"{repository_path}: [{label}]({target})"
        if inside.startswith(".."):
            raise SiteError(f"{where} leaves the repository")
        if not (self.root / inside).exists():
            raise SiteError(f"{where}: there is no {inside}")
        if inside in ROOT_PAGES:
            return ROOT_PAGES[inside] + hash_sign + anchor
        if inside.startswith("docs/") and (self.root / inside).is_file():
            inside = shown_instead(self.root, inside)
            return inside.removeprefix("docs/") + hash_sign + anchor
        name = module_of(self.root, inside)
        if name is not None:
            anchor = self._anchor(name, label, where)
            if name in self._public:
                return modules.page_path(name, self.root) + anchor
        self.sources.add(inside)
        return _source_path(self.root, inside)

    def _anchor(self, name: str, label: str, where: str) -> str:
        """Return where in a module's page a link leads: to the name that its text is, if it is one.

        The name may leave out the class that a method belongs to.
        """
        named = _IDENTIFIER.fullmatch(label)
        last = name.rpartition(".")[2]
        if named is None or named[1] in (name, last, f"{last}.py"):
            return ""
        if modules.module_file(name, self.root).name == "__init__.py":
            return ""
        for defined, is_public in modules.names_in(name, self.root).items():
            if defined == named[1] or defined.endswith(f".{named[1]}"):
                return f"#{name}.{defined}" if is_public else ""
        raise SiteError(f"{where}: {name} defines no {named[1]}")


def lines(text: str) -> Iterator[tuple[str, bool]]:
    """Yield each line with its end, and whether it is code: fenced, or indented after a blank."""
    fence, indented, blank = "", False, True
    for line in text.splitlines(keepends=True):
        match = _FENCE.match(line)
        if fence:
            yield line, True
            fence = "" if match and match[1].startswith(fence) else fence
            continue
        if match:
            fence = match[1]
            yield line, True
            continue
        indented = line.startswith("    ") and (blank or indented)
        blank = not line.strip()
        yield line, indented


def module_of(root: Path, path: str) -> str | None:
    """Return the dotted name of the module that a path of the repository is, or None."""
    file = root / path
    if file.is_dir():
        file = file / "__init__.py"
    if file.suffix != ".py" or not file.is_file():
        return None
    name = modules.module_name(file, root)
    return name if name.partition(".")[0] in PACKAGES else None


def shown_instead(root: Path, path: str) -> str:
    """Return what the site shows for a file: of a report in Markdown and HTML, the HTML."""
    page = PurePosixPath(path).with_suffix(".html")
    return str(page) if path.endswith(".md") and (root / page).is_file() else path


def _source_path(root: Path, path: str) -> str:
    return f"source/{path}/index.md" if (root / path).is_dir() else f"source/{path}.md"


def _source_page(root: Path, path: str) -> Page:
    """Return a page that shows a file's text, or a folder's files."""
    place, file = _source_path(root, path), root / path
    if file.is_dir():
        names = sorted(f"{child.name}/" if child.is_dir() else child.name for child in _shown(file))
        text = "".join(f"- `{name}`\n" for name in names)
    else:
        language = {".py": "python", ".yaml": "yaml", ".json": "json"}.get(file.suffix, "text")
        text = f"``````{language}\n{file.read_text(encoding='utf-8').rstrip()}\n``````\n"
    return Page(place, path, f"---\nsearch:\n  exclude: true\n---\n\n# `{path}`\n\n{text}")


def _shown(folder: Path) -> list[Path]:
    return [child for child in folder.iterdir() if not child.name.startswith((".", "__pycache__"))]
