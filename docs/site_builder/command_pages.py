"""Pages of the command line, made from the typer application: one for each command."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Iterator
from typing import Any

from site_builder.pages import Page, code, reference_table, table


def command_pages() -> list[Page]:
    """Return the pages, an overview first."""
    commands = list(all_commands())
    return [_overview(commands), *(_page(name, command) for name, command in commands)]


def all_commands() -> Iterator[tuple[str, Any]]:
    """Yield every command with its whole name, such as ``plumbline annotate push``."""
    from typer.main import get_command

    from plumbline.commands.app import app

    yield from _leaves("plumbline", get_command(app))


def options_of(command: Any) -> dict[str, Any]:
    """Return the options of a command, by each spelling."""
    return {
        spelling: parameter
        for parameter in command.params
        for spelling in (*parameter.opts, *parameter.secondary_opts)
        if spelling.startswith("-")
    }


def takes_value(parameter: Any) -> bool:
    """Whether a value follows an option."""
    return not getattr(parameter, "is_flag", False)


def _leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    below = getattr(command, "commands", None)
    if below is None:
        yield name, command
        return
    for key, child in below.items():
        if not child.hidden:
            yield from _leaves(f"{name} {key}", child)


def _page(name: str, command: Any) -> Page:
    arguments = [p for p in command.params if not p.opts[0].startswith("-")]
    options = [p for p in command.params if p.opts[0].startswith("-") and not p.hidden]
    usage = " ".join([name, *map(_usage, arguments), *(["[OPTIONS]"] if options else [])])
    parts = [f"# {name}", _text(command.help), f"    {usage}"]
    if arguments:
        rows = [[code(_placeholder(command, p)), _text(p.help)] for p in arguments]
        parts.append(table(["argument", "what it is"], rows))
    if options:
        rows = [[_spelled(command, p), _default(p), _text(p.help) + _variable(p)] for p in options]
        parts.append(reference_table(["option", "default", "what it does"], rows))
    path = name.removeprefix("plumbline ").replace(" ", "-")
    return Page(f"commands/{path}.md", name.removeprefix("plumbline "), "\n\n".join(parts) + "\n")


def _overview(commands: list[tuple[str, Any]]) -> Page:
    rows = [
        [
            f"[`{name}`]({name.removeprefix('plumbline ').replace(' ', '-')}.md)",
            _text(command.help).partition("\n")[0],
        ]
        for name, command in commands
    ]
    text = (
        "# Command line\n\nEvery command says more with `--help`. `plumbline --debug …` shows "
        "tracebacks and the messages of libraries.\n\n" + table(["command", "what it does"], rows)
    )
    from plumbline.commands.app import app

    return Page("commands/index.md", "Command line", f"{text}\n\n{app.info.epilog}\n")


def _usage(parameter: Any) -> str:
    name = parameter.name.upper()
    name += "…" if parameter.nargs == -1 else ""
    return name if parameter.required else f"[{name}]"


def _placeholder(command: Any, parameter: Any) -> str:
    return _usage(parameter)


def _spelled(command: Any, parameter: Any) -> str:
    spellings = ", ".join(map(code, parameter.opts))
    if parameter.secondary_opts:
        spellings += " / " + ", ".join(map(code, parameter.secondary_opts))
    if not takes_value(parameter):
        return spellings
    value = parameter.metavar or _kind(_annotation(command, parameter.name))
    return f"{spellings} {code(value)}"


def _annotation(command: Any, name: str) -> Any:
    hints = typing.get_type_hints(inspect.unwrap(command.callback))
    return hints.get(name, str)


def _kind(annotation: Any) -> str:
    """Return what stands for an option's value: NUMBER, PATH, TEXT, or the values it may have."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return "|".join(map(str, inner))
    if origin in (typing.Union, types.UnionType, list, tuple):
        return _kind(next(part for part in inner if part is not type(None)))
    members = getattr(annotation, "__members__", None)
    if members is not None:
        return "|".join(str(member.value) for member in members.values())
    return {"int": "NUMBER", "float": "NUMBER", "Path": "PATH"}.get(
        getattr(annotation, "__name__", ""), "TEXT"
    )


def _default(parameter: Any) -> str:
    value = parameter.default
    if value is None or callable(value) or value in ((), []):
        return ""
    return code(str(value).lower() if isinstance(value, bool) else value)


def _variable(parameter: Any) -> str:
    return f" (or the variable `{parameter.envvar}`)" if parameter.envvar else ""


def _text(text: str | None) -> str:
    """Return help as Markdown: rich's marks and what typer takes for control characters go."""
    plain = re.sub(r"\[/?(?:bold|dim|italic|cyan|green|yellow|red)\]", "", text or "")
    return inspect.cleandoc(plain.replace("\b", "")).strip()
