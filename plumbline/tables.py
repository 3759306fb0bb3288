"""Tables of algorithms: each variant is one row, and a user's own function is one more.

A setting names a row of a table (``advantage.estimator: gae``), or a function of the user's own by
a dotted path (``loss.kind: my_module.my_loss``), which is imported from where the command is given
or from any installed package. There is no other list of the names: the config, the documentation
and the code that calls the function all read the table.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Generic, Protocol, TypeVar

from pydantic import AfterValidator, WithJsonSchema


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
    """

    def __init__(
        self,
        what: str,
        rows: Iterable[R],
        from_function: Callable[[str, Callable[..., Any]], R] | None = None,
    ) -> None:
        self.what = what
        self._rows = {row.name: row for row in rows}
        self._from_function = from_function

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

    def check(self, name: str) -> str:
        """Return the name of a row or of a function that can be imported; raise `ValueError`."""
        try:
            self[name]
        except KeyError as error:
            raise ValueError(error.args[0]) from None
        return name

    @property
    def field(self) -> Any:
        """The type of a setting that names a row: ``kind: POLICY_LOSSES.field = "clip"``."""
        return Annotated[
            str,
            AfterValidator(self.check),
            WithJsonSchema({"type": "string", "enum": list(self._rows)}),
            self,
        ]

    @property
    def choices(self) -> str:
        """The names, for people to read."""
        own = " | your_module.your_function" if self._from_function is not None else ""
        return " | ".join(self._rows) + own

    def _unknown(self, name: str) -> str:
        close = difflib.get_close_matches(name, self._rows, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        own = (
            ", or a function of your own by its dotted path, like my_module.my_function"
            if self._from_function is not None
            else ""
        )
        return f"{name!r} is no {self.what}.{hint} There are: {', '.join(self._rows)}{own}"


def load_function(path: str) -> Callable[..., Any]:
    """Return a function of the user's own by its dotted path, such as ``my_module.my_loss``.

    Raises `ValueError` that says what is missing.
    """
    module_name, _, name = path.rpartition(".")
    try:
        module = _import(module_name)
    except ImportError as error:
        raise ValueError(
            f"{path!r}: the module {module_name!r} cannot be imported ({error}). It must lie in "
            f"{Path.cwd()}, where the command is given, or be installed"
        ) from None
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"{path!r}: {module_name} has no function {name!r}")
    result: Callable[..., Any] = function
    return result


def code_of(path: str) -> str:
    """Return a digest of the file that a user's own function stands in: 16 hexadecimal digits.

    It is part of the identity of what is made with the function.
    """
    module = _import(path.rpartition(".")[0])
    spec = importlib.util.find_spec(module.__name__)
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return ""
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()[:16]


def _import(module: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:  # a command that is installed does not look where it is given
        sys.path.append(here)
    return import_module(module)
