"""Tables of algorithms: each variant is one row, and a user's own function is one more.

A setting names a row of a table (``advantage.estimator: gae``), or a function of the user's own by
a dotted path (``loss.kind: my_module.my_loss``), which is imported from where the command is given
or from any installed package. There is no other list of the names: the config, the documentation
and the code that calls the function all read the table. A setting is declared by
``kind: Annotated[str, POLICY_LOSSES] = "clip"``; where null is admitted, by ``str | None``.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema


class Row(Protocol):
    """A row of a table: anything with a name."""

    @property
    def name(self) -> str:
        """What a setting calls it."""
        ...


R = TypeVar("R", bound=Row)


class Table(Mapping[str, R], Generic[R]):
    """Rows by name, in the order in which they are declared.

    ``from_function`` makes a row of a user's own function; without it the table takes none.
    ``renamed`` has old names, each with the new one, which the error names.
    """

    def __init__(
        self,
        what: str,
        rows: Iterable[R],
        from_function: Callable[[str, Callable[..., Any]], R] | None = None,
        renamed: Mapping[str, str] | None = None,
    ) -> None:
        self.what = what
        self._rows = {row.name: row for row in rows}
        self._from_function = from_function
        self._renamed = renamed or {}

    def __getitem__(self, name: str) -> R:
        if name in self._rows:
            return self._rows[name]
        if self._from_function is not None and "." in name:
            return self._from_function(name, load_function(name))
        raise KeyError(self._unknown(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def check(self, name: str | None) -> str | None:
        """Return the name of a row or of a function that can be imported; raise `ValueError`."""
        try:
            if name is not None:
                self[name]
        except KeyError as error:
            raise ValueError(error.args[0]) from None
        return name

    def where(self, holds: Callable[[R], bool]) -> str:
        """Return the names of the rows for which ``holds`` is true, for people to read."""
        return " or ".join(name for name, row in self._rows.items() if holds(row))

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "string", "enum": list(self._rows)}

    @property
    def choices(self) -> str:
        """The names, for people to read."""
        own = " | your_module.your_function" if self._from_function is not None else ""
        return " | ".join(self._rows) + own

    def _unknown(self, name: str) -> str:
        if name in self._renamed:
            return f"{name!r} is now called {self._renamed[name]!r}. Rename it"
        close = difflib.get_close_matches(name, self._rows, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        own = (
            ", or a function of your own by its dotted path, like my_module.my_function"
            if self._from_function is not None
            else ""
        )
        return f"there is no {self.what} {name!r}.{hint} There are: {', '.join(self._rows)}{own}"


def load_function(path: str) -> Callable[..., Any]:
    """Return a function of the user's own by its dotted path, such as ``my_module.my_loss``.

    Raises `ValueError` that says what is missing.
    """
    module_name, _, name = path.rpartition(".")
    try:
        module = _import(module_name)
    except Exception as error:  # the user's own code may raise anything
        what = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
        raise ValueError(
            f"{path!r}: the module {module_name!r} cannot be imported ({what}). It must be in "
            f"{Path.cwd()}, where the command is given, or be installed"
        ) from None
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"{path!r}: {module_name} has no function {name!r}")
    result: Callable[..., Any] = function
    return result


def code_of(path: str) -> str:
    """Return a digest of the file that defines a user's own function: 16 hexadecimal digits.

    It is part of the identity of what is made with the function.
    """
    module = _import(path.rpartition(".")[0])
    spec = importlib.util.find_spec(module.__name__)
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return ""
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()[:16]


def _import(module: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:  # an installed command does not search the current folder
        sys.path.append(here)
    return import_module(module)
