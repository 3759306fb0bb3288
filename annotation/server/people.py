"""Accounts on a labelling server: added, listed, removed, given a new password."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from annotation.campaign.argilla import Argilla
from annotation.campaign.client import Connection, RefusedError
from annotation.server.home import new_password, write_private_json
from plumbline.errors import ConfigError, DataError

ROLES = ("annotator", "admin", "owner")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,59}")


@dataclass(frozen=True)
class Person:
    """An account."""

    id: str
    name: str
    role: str
    workspaces: tuple[str, ...]


class People:
    """The accounts of one server, as its owner sees them."""

    def __init__(self, connection: Connection, credentials: Path) -> None:
        self._server = Argilla(connection)
        self._url = connection.url
        self._credentials = credentials

    def list(self) -> Sequence[Person]:
        """Return everybody, the first to come first."""
        return [
            Person(
                id=user["id"],
                name=user["username"],
                role=user["role"],
                workspaces=tuple(
                    workspace["name"]
                    for workspace in self._ask("GET", f"/users/{user['id']}/workspaces")["items"]
                )
                if user["role"] != "owner"
                else ("all",),
            )
            for user in self._users()
        ]

    def add(
        self,
        name: str,
        *,
        role: str = "annotator",
        workspaces: Sequence[str] = (),
        password: str | None = None,
    ) -> Path:
        """Make an account; return the file with its password, to hand over.

        An account that is there already gains the workspaces and keeps its password.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r} cannot be a name: small letters, digits, dots, - and _, at most 60."
            )
        if role not in ROLES:
            raise ConfigError(f"The role is {role!r}; it may be {', '.join(ROLES)}.")
        if password is not None and not 8 <= len(password) <= 100:
            raise ConfigError("A password has 8 to 100 characters.")
        there = [user for user in self._users() if user["username"] == name]
        if there:
            if there[0]["role"] != role:
                raise ConfigError(f"There is a {name!r} already, and they are {there[0]['role']}.")
            user = there[0]
        else:
            password = password or new_password()
            body = {"username": name, "first_name": name, "role": role, "password": password}
            # Written first: an account whose password nobody has would be of no use.
            self._write(name, password)
            user = self._ask("POST", "/users", json=body)
        for workspace in workspaces:
            self._join(user["id"], workspace)
        return self._file(name)

    def remove(self, name: str, *, delete_labels: bool = False) -> None:
        """End somebody's access. What they labelled stays, unless that is to go too.

        Argilla deletes a person's answers with the person, so the account stays, closed: with a
        password and key that nobody knows, and in no workspace.
        """
        user = self._find(name)
        if user["role"] == "owner" and sum(u["role"] == "owner" for u in self._users()) == 1:
            raise ConfigError(f"{name!r} is the only owner; the site would have none.")
        if delete_labels:
            self._ask("DELETE", f"/users/{user['id']}")
        else:
            for workspace in self._ask("GET", f"/users/{user['id']}/workspaces")["items"]:
                self._ask("DELETE", f"/workspaces/{workspace['id']}/users/{user['id']}")
            self._change(user["id"], new_password())
        self._file(name).unlink(missing_ok=True)

    def reset(self, name: str, *, password: str | None = None) -> Path:
        """Give somebody a new password and key; return the file with the password."""
        user = self._find(name)
        if password is not None and not 8 <= len(password) <= 100:
            raise ConfigError("A password has 8 to 100 characters.")
        password = password or new_password()
        self._write(name, password)
        self._change(user["id"], password)
        return self._file(name)

    def _change(self, user_id: str, password: str) -> None:
        self._ask("PATCH", f"/users/{user_id}", json={"password": password})
        try:
            self._ask("POST", f"/users/{user_id}/api-key")
        except RefusedError as error:
            if error.status not in (404, 405):
                raise
            raise DataError(
                f"The password is changed, but the server at {self._url} has no way to change an "
                "API key (sites made by `plumbline annotate up` have one). Whoever holds the old "
                "key still gets in: delete the account to end that."
            ) from None

    def _join(self, user_id: str, workspace: str) -> None:
        known = self._server.workspaces()
        if workspace not in known:
            raise ConfigError(
                f"There is no workspace {workspace!r}; there are: {', '.join(sorted(known)) or 'none'}. "
                "`plumbline annotate push` makes a campaign's workspace."
            )
        try:
            self._ask("POST", f"/workspaces/{known[workspace]}/users", json={"user_id": user_id})
        except RefusedError as error:
            if error.status != 409:  # a member already
                raise

    def _find(self, name: str) -> dict[str, Any]:
        import difflib

        users = {user["username"]: user for user in self._users()}
        if name not in users:
            near = difflib.get_close_matches(name, users, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"There is nobody called {name!r} on {self._url}.{hint}")
        return users[name]

    def _users(self) -> list[dict[str, Any]]:
        return list(self._ask("GET", "/users")["items"])

    def _ask(self, method: str, path: str, **content: Any) -> Any:
        return self._server.ask(method, path, **content)

    def _file(self, name: str) -> Path:
        return self._credentials / f"{name}.json"

    def _write(self, name: str, password: str) -> None:
        self._credentials.mkdir(parents=True, exist_ok=True)
        self._credentials.chmod(0o700)
        write_private_json(
            self._file(name), {"site": self._url, "username": name, "password": password}
        )
