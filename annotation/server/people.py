"""Accounts on a labelling server: added, listed, removed, given a new password."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

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

    def __init__(
        self,
        connection: Connection,
        credentials: Path,
        *,
        page_url: str | None = None,
        owner_file: Path | None = None,
    ) -> None:
        """Work on a server; credentials to hand over go into a folder.

        ``page_url`` is where people sign in, if not at the connection's address. ``owner_file`` is
        where this machine's own site keeps what opens it, and is kept right.
        """
        self._server = Argilla(connection)
        self._url = connection.url
        self._page_url = page_url or connection.url
        self._credentials = credentials
        self._owner_file = owner_file

    def all(self) -> Sequence[Person]:
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
    ) -> Path | None:
        """Make an account; return the file with its password, to hand over.

        An account that is there already gains the workspaces and keeps its password: then nothing
        is returned.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r} cannot be a name: small letters, digits, dots, - and _, at most 60."
            )
        if role not in ROLES:
            raise ConfigError(f"The role is {role!r}; it may be {', '.join(ROLES)}.")
        _check(password)
        known = self._known_workspaces(workspaces)
        there = [user for user in self._users() if user["username"] == name]
        file = None
        if there:
            if there[0]["role"] != role:
                raise ConfigError(
                    f"There is a {name!r} already, whose role is {there[0]['role']}, and Argilla "
                    "changes no roles. Remove the account, or choose another name."
                )
            if password is not None:
                raise ConfigError(
                    f"There is a {name!r} already. A new password is a matter of: plumbline "
                    f"annotate users reset {name}"
                )
            user = there[0]
        else:
            user, file = self._create(name, role, password or new_password())
        for workspace in workspaces:
            self._join(user["id"], known[workspace])
        return file

    def remove(self, name: str, *, delete_labels: bool = False) -> None:
        """End somebody's access. What they labelled stays, unless that is to go too.

        Argilla deletes a person's answers with the person, so the account stays, closed: with a
        password and key that nobody knows, and in no workspace.
        """
        user = self._find(name)
        if user["id"] == self._server.me().id:
            raise ConfigError(
                f"{name!r} is the account that these commands work with; without it nobody could "
                f"run {self._url}."
            )
        if user["role"] == "owner" and sum(u["role"] == "owner" for u in self._users()) == 1:
            raise ConfigError(f"{name!r} is the only owner; the site would have none.")
        if delete_labels:
            self._ask("DELETE", f"/users/{user['id']}")
        else:
            # The ways in first: a command that is cut short leaves somebody out, not in.
            self._ask("PATCH", f"/users/{user['id']}", json={"password": new_password()})
            for workspace in self._ask("GET", f"/users/{user['id']}/workspaces")["items"]:
                if user["role"] != "owner":  # who is in all of them, by no membership
                    self._ask("DELETE", f"/workspaces/{workspace['id']}/users/{user['id']}")
        self._file(name).unlink(missing_ok=True)
        if not delete_labels:
            self._change_key(user["id"])

    def reset(self, name: str, *, password: str | None = None) -> Path:
        """Give somebody a new password and key; return the file with the password."""
        _check(password)
        user = self._find(name)
        is_own = user["id"] == self._server.me().id
        password = password or new_password()
        self._ask("PATCH", f"/users/{user['id']}", json={"password": password})
        if not is_own:
            file = self._write(name, password)
            self._change_key(user["id"])
            return file
        # Whoever resets the account that these commands work with needs its new key as well.
        api_key = self._change_key(user["id"])
        if self._owner_file is not None:
            access = {"username": name, "password": password, "api_key": api_key}
            write_private_json(self._owner_file, access)
            return self._owner_file
        return self._write(name, password, api_key=api_key)

    def _create(self, name: str, role: str, password: str) -> tuple[dict[str, Any], Path]:
        body = {"username": name, "first_name": name, "role": role, "password": password}
        # Written first: an account whose password nobody has would be of no use.
        file = self._write(name, password)
        try:
            return self._ask("POST", "/users", json=body), file
        except RefusedError:
            file.unlink(missing_ok=True)
            raise

    def _change_key(self, user_id: str) -> str:
        try:
            return str(self._ask("POST", f"/users/{user_id}/api-key")["api_key"])
        except RefusedError as error:
            if error.status not in (404, 405):
                raise
            raise DataError(
                f"The password is changed, but the server at {self._url} has no way to change an "
                "API key (sites made by `plumbline annotate up` have one). Whoever holds the old "
                "key still gets in: delete the account to end that."
            ) from None

    def _known_workspaces(self, wanted: Sequence[str]) -> dict[str, str]:
        known = self._server.workspaces()
        for workspace in wanted:
            if workspace not in known:
                raise ConfigError(
                    f"There is no workspace {workspace!r}; there are: "
                    f"{', '.join(sorted(known)) or 'none'}. `plumbline annotate push` makes a "
                    "campaign's workspace."
                )
        return known

    def _join(self, user_id: str, workspace_id: str) -> None:
        try:
            self._ask("POST", f"/workspaces/{workspace_id}/users", json={"user_id": user_id})
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
        return dict(users[name])

    def _users(self) -> list[dict[str, Any]]:
        return list(self._ask("GET", "/users")["items"])

    def _ask(self, method: str, path: str, **content: Any) -> Any:
        return self._server.ask(method, path, **content)

    def _file(self, name: str) -> Path:
        # On another server a name may hold anything, also what leads out of the folder.
        return self._credentials / f"{quote(name, safe='')}.json"

    def _write(self, name: str, password: str, **more: str) -> Path:
        self._credentials.mkdir(parents=True, exist_ok=True)
        self._credentials.chmod(0o700)
        file = self._file(name)
        access = {"site": self._page_url, "username": name, "password": password, **more}
        write_private_json(file, access)
        return file


def _check(password: str | None) -> None:
    # bcrypt reads 72 bytes, so that what follows would protect nothing.
    if password is not None and not (len(password) >= 8 and len(password.encode()) <= 72):
        raise ConfigError("A password has at least 8 characters, and at most 72 bytes.")
