"""Which code made an artefact: a digest of a module and of everything of ours that it imports.

A stage runs again when its own code changes, and not when a comment, a docstring, the report's
layout or another stage changes. The digest follows the import statements of our packages from the
stage's module on (those for types alone left out), and takes each module's syntax tree without
docstrings. A module with code in other files (a page's template, for example) names their folder in
``CODE_BESIDE``.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import threading
from functools import cache
from pathlib import Path

PACKAGES = frozenset(
    ("plumbline", "sft", "reward", "preference", "rl", "annotation", "evaluation", "recipes")
)
#: Modules that only show, word or schedule things; what a stage makes does not depend on them.
PRESENTATION = frozenset(
    (
        "plumbline.runs.artifacts",
        "plumbline.runs.calls",
        "plumbline.runs.code_version",
        "plumbline.config",
        "plumbline.config.declare",
        "plumbline.config.document",
        "plumbline.config.explain",
        "plumbline.config.read",
        "plumbline.errors",
        "plumbline.runs.isolation",
        "plumbline.runs.old_runs",
        "plumbline.runs.preload",
        "plumbline.privacy",
        "plumbline.runs.progress",
        "plumbline.runs.run",
        "plumbline.runs.spinning",
        "plumbline.runs.stage",
        "plumbline.quiet",
        "plumbline.tables",
    )
)


#: Python 3.11 counts the depth of syntax trees once for all threads: two that parse at a time fail.
_PARSING = threading.Lock()


@cache
def digest(module: str) -> str:
    """Return the digest of a module of ours and of all that it imports: 16 hexadecimal digits."""
    sources = sorted((name, fingerprint(name)) for name in closure(module))
    return hashlib.sha256(repr(sources).encode()).hexdigest()[:16]


@cache
def closure(module: str) -> frozenset[str]:
    """Return the module and every module of ours that it imports, presentation left out."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen or name in PRESENTATION:
            continue
        seen.add(name)
        waiting.extend(_imports(name))
    return frozenset(seen)


@cache
def _path(module: str) -> Path | None:
    """Return a module's file without importing the module, which may import large libraries."""
    top, *rest = module.split(".")
    if top not in PACKAGES:
        return None
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        return None
    package = Path(spec.origin).parent.joinpath(*rest)
    for path in (package.with_suffix(".py"), package / "__init__.py"):
        if path.is_file():
            return path
    return None  # `from package.module import name`: the name is not a module


@cache
def _tree(module: str) -> ast.Module:
    """Return what a module does: its syntax tree without docstrings and imports for types."""
    path = _path(module)
    with _PARSING:
        tree = ast.parse(path.read_text(encoding="utf-8") if path is not None else "")
    return ast.Module([_WhatRuns().visit(node) for node in tree.body], type_ignores=[])


@cache
def _imports(module: str) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(name for name in names if _path(name) is not None)


@cache
def fingerprint(module: str) -> str:
    """Return the digest of one module as its file was when it was first asked for."""
    tree, path = _tree(module), _path(module)
    parts = [ast.dump(tree).encode()]
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name("CODE_BESIDE")], value=ast.Constant(str(folder))):
                assert path is not None
                parts += [file.read_bytes() for file in sorted((path.parent / folder).iterdir())]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


class _WhatRuns(ast.NodeTransformer):
    """Drops what does not change a result: docstrings, and imports for types alone."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return ast.Pass()
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return ast.Pass()
        return self.generic_visit(node)
