"""Building the site, step by step: the pages, the navigation, the HTML, and its check."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from site_builder import checks
from site_builder.command_pages import command_pages
from site_builder.links import ROOT_PAGES, Links, shown_instead
from site_builder.mathematics import with_mathml
from site_builder.modules import api_pages
from site_builder.pages import PACKAGES, ROOT, Page, SiteError
from site_builder.settings_pages import settings_pages

#: Navigation entries of mkdocs.yml that stand for pages that are made here.
SECTIONS = ("settings", "commands", "api", "extending")

#: Folders of docs/ that hold no page and no file of the site.
NOT_ON_THE_SITE = ("site_builder",)

#: Style sheet and script of the site.
STATIC = Path(__file__).parent / "static"


def build(folder: Path, root: Path = ROOT) -> Path:
    """Build the site in a folder; return where its HTML lies. Raises `SiteError`."""
    shutil.rmtree(folder, ignore_errors=True)
    source, site = folder / "source", folder / "site"
    links = Links(root)

    # 1. What browsers need, the pages that people wrote, and those that are made from the code.
    shutil.copytree(STATIC, source / "static")
    written = copy_pages(root, source, links)
    made = {
        "settings": settings_pages(),
        "commands": command_pages(),
        "api": api_pages(root),
    }
    for page in chain(*made.values(), links.source_pages()):
        _write(source / page.path, page.text)

    # 2. The configuration: that of the repository, with the whole navigation.
    config = YAML(typ="safe").load((root / "mkdocs.yml").read_text(encoding="utf-8"))
    made["extending"] = [page for page in written if page.path.startswith("extending/")]
    config["nav"] = navigation(config["nav"], made)
    refuse_unlisted(config["nav"], written)
    config |= {"docs_dir": "source", "site_dir": "site"}
    for plugin in config["plugins"]:
        if "mkdocstrings" in plugin:
            plugin["mkdocstrings"]["handlers"]["python"]["paths"] = [str(root)]
    with (folder / "mkdocs.yml").open("w", encoding="utf-8") as stream:
        YAML(typ="safe").dump(config, stream)

    # 3. The HTML, with mathematics that needs no script.
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    command += ["--config-file", str(folder / "mkdocs.yml")]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=folder, check=False, env=environment)
    if done.returncode:
        raise SiteError("zensical found what it printed above")
    for file in site.rglob("*.html"):
        if "example-report" not in file.parts:
            file.write_text(with_mathml(file.read_text(encoding="utf-8")), encoding="utf-8")
    trim_search(site)

    # 4. Nothing leads nowhere, and nothing is fetched from another host.
    if found := checks.problems(site):
        raise SiteError("\n".join(found))
    return site


def copy_pages(root: Path, source: Path, links: Links) -> list[Page]:
    """Copy docs/ and the root's pages, Markdown with the links of the site; return the pages."""
    files = [root / name for name in ROOT_PAGES] + [
        file
        for file in sorted((root / "docs").rglob("*"))
        if file.is_file() and file.relative_to(root / "docs").parts[0] not in NOT_ON_THE_SITE
    ]
    pages, problems = [], []
    for file in files:
        name = file.relative_to(root).as_posix()
        place = ROOT_PAGES.get(name, name.removeprefix("docs/"))
        if shown_instead(root, name) != name:
            continue
        if file.suffix != ".md":
            (source / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, source / place)
            continue
        try:
            text = links.rewrite(file.read_text(encoding="utf-8"), name, place)
        except SiteError as error:
            problems.append(str(error))
            continue
        pages.append(Page(place, _title(text, name), text))
        _write(source / place, text)
    if problems:
        raise SiteError("\n".join(problems))
    return pages


def navigation(entries: list[Any], made: dict[str, list[Page]]) -> list[Any]:
    """Return the navigation with the pages that are made here in place of their section's name."""
    whole: list[Any] = []
    for entry in entries:
        if isinstance(entry, dict):
            ((title, below),) = entry.items()
            if isinstance(below, str) and below in SECTIONS:
                whole.append({title: _section(below, made[below])})
            elif isinstance(below, list):
                whole.append({title: navigation(below, made)})
            else:
                whole.append(entry)
        elif entry in SECTIONS:
            whole += _section(entry, made[entry])
        else:
            whole.append(entry)
    return whole


def refuse_unlisted(entries: list[Any], pages: list[Page]) -> None:
    """Raise `SiteError` where a page that somebody wrote is not in the navigation."""
    listed = set(_paths(entries))
    if lost := [page.path for page in pages if page.path not in listed]:
        raise SiteError("\n".join(f"mkdocs.yml: the navigation lacks {path}" for path in lost))


def trim_search(site: Path) -> None:
    """Leave the source code of modules out of the search: their docstrings are enough."""
    file = site / "search.json"
    index = json.loads(file.read_text(encoding="utf-8"))
    for item in index["items"]:
        item["text"] = item["text"].partition("Source code in <code>")[0]
    text = json.dumps(index, ensure_ascii=False, separators=(",", ":"))
    file.write_text(text, encoding="utf-8")
    (site / "search.js").write_text(f"var __index = {text};", encoding="utf-8")


def _section(name: str, pages: list[Page]) -> list[Any]:
    if name != "api":
        return [{page.title: page.path} for page in pages]
    by_path = {page.path: page for page in pages}
    rooms = [{"All modules": "api/index.md"}]
    return rooms + [{room: _modules(f"api/{room}", by_path)} for room in PACKAGES]


def _modules(folder: str, pages: dict[str, Page]) -> list[Any]:
    """Return the navigation below a package: its own page, its modules, its packages."""
    below: list[Any] = [f"{folder}/index.md"]
    seen = set()
    for path, page in pages.items():
        if not path.startswith(f"{folder}/") or path == f"{folder}/index.md":
            continue
        first, slash, _ = path.removeprefix(f"{folder}/").partition("/")
        if not slash:
            below.append({page.title: path})
        elif first not in seen:
            seen.add(first)
            below.append({first: _modules(f"{folder}/{first}", pages)})
    return below


def _paths(entries: list[Any]) -> list[str]:
    found: list[str] = []
    for entry in entries:
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        found += _paths(value) if isinstance(value, list) else [value]
    return found


def _title(text: str, name: str) -> str:
    for line in text.splitlines():
        if line.startswith("# "):
            return line.removeprefix("# ").replace("`", "").strip()
    raise SiteError(f"{name} has no title: its first line must be '# TITLE'")


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
