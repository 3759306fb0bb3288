"""Accounts on a labelling server: adding, listing, removing them, and resetting passwords."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from annotation.argilla.api import Argilla
from annotation.argilla.client import Connection, RefusedError
from annotation.names import check_person_name
from annotation.server.site_folder import new_password, write_private_json
from plumbline.errors import ConfigError, DataError

ROLES = ("annotator", "admin", "owner")


@dataclass(frozen=True)
class Account:
    """The account of one person."""

    id: str
    name: str
    role: str
    workspaces: tuple[str, ...]


class Accounts:
    """The accounts of one server, as its owner sees them."""

    def __init__(
        self,
        connection: Connection,
        credentials: Path,
        *,
        page_url: str | None = None,
        owner_file: Path | None = None,
    ) -> None:
        """Connect to a server; files with passwords to hand over go into ``credentials``.

        ``page_url`` is the address where people sign in, if it is not the connection's.
        ``owner_file`` is where this machine's own site keeps the owner's access; it is updated.
        """
        self._server = Argilla(connection)
        self._url = connection.url
        self._page_url = page_url or connection.url
        self._credentials = credentials
        self._owner_file = owner_file

    def all(self) -> Sequence[Account]:
        """Return all accounts, the oldest first."""
        return [
            Account(
                id=user["id"],
                name=user["username"],
                role=user["role"],
                workspaces=tuple(
                    workspace["name"]
                    for workspace in self._request("GET", f"/users/{user['id']}/workspaces")[
                        "items"
                    ]
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

        An account that exists already gets the workspaces and keeps its password; then None is
        returned.
        """
        check_person_name(name)
        if role not in ROLES:
            raise ConfigError(f"The role is {role!r}; it may be {', '.join(ROLES)}.")
        _check_password(password)
        ids = self._known_workspaces(workspaces)
        existing = [user for user in self._users() if user["username"] == name]
        file = None
        if existing:
            if existing[0]["role"] != role:
                raise ConfigError(
                    f"There is a {name!r} already with the role {existing[0]['role']}, and Argilla "
                    "cannot change roles. Remove the account, or choose another name."
                )
            if password is not None:
                raise ConfigError(
                    f"There is a {name!r} already. To set a new password, use: plumbline annotate "
                    f"users reset {name}"
                )
            user = existing[0]
        else:
            user, file = self._create(name, role, password or new_password())
        for workspace in workspaces:
            self._add_to_workspace(user["id"], ids[workspace])
        return file

    def remove(self, name: str, *, delete_labels: bool = False) -> None:
        """End somebody's access. Their labels stay, unless ``delete_labels`` is set.

        Argilla deletes a person's answers together with the account. So the account stays, but
        closed: nobody knows its password and API key, and it is in no workspace.
        """
        user = self._find(name)
        if user["id"] == self._server.me().id:
            raise ConfigError(
                f"These commands use the account {name!r}. Without it, nobody could administer "
                f"{self._url}."
            )
        if user["role"] == "owner" and sum(u["role"] == "owner" for u in self._users()) == 1:
            raise ConfigError(f"{name!r} is the only owner. Add another owner first.")
        if delete_labels:
            self._request("DELETE", f"/users/{user['id']}")
        else:
            # Access ends first: if the command is interrupted, the person is out, not in.
            self._request("PATCH", f"/users/{user['id']}", json={"password": new_password()})
            for workspace in self._request("GET", f"/users/{user['id']}/workspaces")["items"]:
                if user["role"] != "owner":  # an owner sees all workspaces without being a member
                    self._request("DELETE", f"/workspaces/{workspace['id']}/users/{user['id']}")
        self._file(name).unlink(missing_ok=True)
        if not delete_labels:
            self._change_key(user["id"])

    def reset(self, name: str, *, password: str | None = None) -> Path:
        """Give somebody a new password and API key; return the file with the password."""
        _check_password(password)
        user = self._find(name)
        is_own = user["id"] == self._server.me().id
        password = password or new_password()
        self._request("PATCH", f"/users/{user['id']}", json={"password": password})
        if not is_own:
            file = self._write(name, password)
            self._change_key(user["id"])
            return file
        # These commands use this account, so its new key is needed as well.
        api_key = self._change_key(user["id"])
        if self._owner_file is not None:
            access = {"username": name, "password": password, "api_key": api_key}
            write_private_json(self._owner_file, access)
            return self._owner_file
        return self._write(name, password, api_key=api_key)

    def _create(self, name: str, role: str, password: str) -> tuple[dict[str, Any], Path]:
        body = {"username": name, "first_name": name, "role": role, "password": password}
        # Written first: an account whose password nobody knows would be useless.
        file = self._write(name, password)
        try:
            return self._request("POST", "/users", json=body), file
        except RefusedError:
            file.unlink(missing_ok=True)
            raise

    def _change_key(self, user_id: str) -> str:
        try:
            return str(self._request("POST", f"/users/{user_id}/api-key")["api_key"])
        except RefusedError as error:
            if error.status not in (404, 405):
                raise
            raise DataError(
                f"The password is changed, but the server at {self._url} cannot change an API key "
                "(sites made by `plumbline annotate up` can). Anyone with the old key still has "
                "access. Delete the account to end that."
            ) from None

    def _known_workspaces(self, wanted: Sequence[str]) -> dict[str, str]:
        ids = self._server.workspaces()
        for workspace in wanted:
            if workspace not in ids:
                raise ConfigError(
                    f"There is no workspace {workspace!r}; there are: "
                    f"{', '.join(sorted(ids)) or 'none'}. `plumbline annotate push` makes a "
                    "campaign's workspace."
                )
        return ids

    def _add_to_workspace(self, user_id: str, workspace_id: str) -> None:
        try:
            self._request("POST", f"/workspaces/{workspace_id}/users", json={"user_id": user_id})
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
        return list(self._request("GET", "/users")["items"])

    def _request(self, method: str, path: str, **content: Any) -> Any:
        return self._server.request(method, path, **content)

    def _file(self, name: str) -> Path:
        # On another server a name may hold anything, also a path out of the folder.
        return self._credentials / f"{quote(name, safe='')}.json"

    def _write(self, name: str, password: str, **more: str) -> Path:
        self._credentials.mkdir(parents=True, exist_ok=True)
        self._credentials.chmod(0o700)
        file = self._file(name)
        access = {"site": self._page_url, "username": name, "password": password, **more}
        write_private_json(file, access)
        return file


def _check_password(password: str | None) -> None:
    # bcrypt reads 72 bytes; further ones would protect nothing.
    if password is not None and not (len(password) >= 8 and len(password.encode()) <= 72):
        raise ConfigError("A password needs at least 8 characters and at most 72 bytes.")
