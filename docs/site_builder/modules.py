"""The pages of the Python API: one for each public module, made from its docstrings."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from site_builder.pages import NOT_IN_API, PACKAGES, ROOT, Page, SiteError, table


def public_modules(root: Path = ROOT) -> list[str]:
    """Return the dotted name of every module that has a page, packages before what is in them."""
    return [
        name
        for package in PACKAGES
        for file in sorted((root / package).rglob("*.py"), key=_order)
        if not _is_private(name := module_name(file, root)) and not _is_left_out(name)
    ]


def module_name(file: Path, root: Path = ROOT) -> str:
    """Return the dotted name of a module's file."""
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def module_file(name: str, root: Path = ROOT) -> Path:
    """Return the file of a module."""
    path = root.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def page_path(name: str, root: Path = ROOT) -> str:
    """Return the place of a module's page on the site."""
    path = "api/" + name.replace(".", "/")
    return f"{path}/index.md" if root.joinpath(*name.split(".")).is_dir() else f"{path}.md"


def names_in(name: str, root: Path = ROOT) -> dict[str, bool]:
    """Return the names that a module defines, methods with their class; True: on its page."""
    text = module_file(name, root).read_text(encoding="utf-8")
    lines = text.split("\n")
    return {
        defined: not _is_private(defined) and _is_documented(node, lines)
        for defined, node in _definitions(ast.parse(text).body)
    }


def undocumented(name: str, root: Path = ROOT) -> list[str]:
    """Return the public classes, functions and methods of a module that have no docstring."""
    tree = ast.parse(module_file(name, root).read_text(encoding="utf-8"))
    missing = [] if ast.get_docstring(tree) else [name]
    return missing + [
        f"{name}.{defined}"
        for defined, node in _definitions(tree.body)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not _is_private(defined)
        and not ast.get_docstring(node)
    ]


def api_pages(root: Path = ROOT) -> list[Page]:
    """Return a page for each public module; raise `SiteError` where a docstring is missing."""
    names = public_modules(root)
    if missing := [text for name in names for text in undocumented(name, root)]:
        raise SiteError("\n".join(f"{text} has no docstring" for text in missing))
    return [_overview(names, root), *(_page(name, names, root) for name in names)]


def summary(name: str, root: Path = ROOT) -> str:
    """Return the first line of a module's docstring."""
    tree = ast.parse(module_file(name, root).read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").partition("\n")[0]


def _page(name: str, names: list[str], root: Path) -> Page:
    text = f"::: {name}\n"
    inside = [other for other in names if other.rpartition(".")[0] == name]
    if inside:
        text += "\n## Modules\n\n" + _list(inside, Path(page_path(name, root)).parent, root) + "\n"
    return Page(page_path(name, root), name.rpartition(".")[2], text)


def _overview(names: list[str], root: Path) -> Page:
    rooms = [name for name in names if "." not in name]
    text = (
        "# Python API\n\nEvery public module, by room. A room imports the core (`plumbline`) and "
        "never another room.\n\n" + _list(rooms, Path("api"), root) + "\n"
    )
    return Page("api/index.md", "Python API", text)


def _list(names: list[str], folder: Path, root: Path) -> str:
    rows = [
        [f"[`{name}`]({Path(page_path(name, root)).relative_to(folder)})", summary(name, root)]
        for name in names
    ]
    return table(["module", "what it holds"], rows)


def _definitions(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.stmt]]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield prefix + node.name, node
            yield from _definitions(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Name):
                    yield prefix + target.id, node
        elif isinstance(node, ast.If | ast.Try):  # a name that depends on what is installed
            yield from _definitions(node.body, prefix)


def _is_documented(node: ast.stmt, lines: list[str]) -> bool:
    """Whether a class or function has a docstring, or a variable a text above or below it."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return bool(ast.get_docstring(node))
    above, below = lines[node.lineno - 2], lines[node.end_lineno or node.lineno :]
    return above.strip().startswith("#:") or bool(below and below[0].strip().startswith('"""'))


def _order(file: Path) -> tuple[str, ...]:
    parts = file.with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def _is_private(name: str) -> bool:
    return any(part.startswith("_") for part in name.split("."))


def _is_left_out(name: str) -> bool:
    return any(name == left_out or name.startswith(left_out + ".") for left_out in NOT_IN_API)
