"""Argilla 2.x behind words of our own: all that this package knows about Argilla is in here.

The paths and the JSON are those of Argilla's REST API, version 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from annotation.campaign.client import (
    PATIENCE_SECONDS,
    Client,
    Connection,
    RefusedError,
    ServerError,
)
from annotation.campaign.questions import Field, Form, Question

if TYPE_CHECKING:
    import httpx

Status = Literal["submitted", "discarded", "draft"]
PUSH_PAGE = 500
"""Records in one request; Argilla takes no more."""
PULL_PAGE = 500
_QUEUE_PAGE = 10
_READINGS = 5
_KINDS = {"one": "label_selection", "some": "multi_label_selection"}


@dataclass(frozen=True)
class User:
    """Somebody with an account."""

    id: str
    name: str
    role: str


@dataclass(frozen=True)
class Dataset:
    """A dataset on the server."""

    id: str
    name: str
    workspace_id: str
    published: bool
    metadata: Mapping[str, Any]
    last_activity: str
    """Another after every answer that is given, changed or deleted."""


@dataclass(frozen=True)
class Answer:
    """What one person last said about one record."""

    id: str
    item: str | None
    """The record's external id."""
    user_id: str
    status: Status
    values: Mapping[str, Any]
    given_at: str
    changed_at: str


@dataclass(frozen=True)
class Done:
    """How far a dataset has come."""

    records: int
    completed: int
    """Records that were answered as often as they should be."""
    submitted: Mapping[str, int]
    """Answers by user name."""
    discarded: Mapping[str, int]


@dataclass(frozen=True)
class Hook:
    """A webhook."""

    id: str
    url: str
    description: str
    secret: str = field(repr=False)


class Argilla(Client):
    """One Argilla server, as one of its users sees it."""

    def __init__(
        self,
        connection: Connection,
        *,
        patience: float = PATIENCE_SECONDS,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {"X-Argilla-Api-Key": connection.api_key}
        super().__init__(
            connection.url,
            headers,
            certificate=connection.certificate,
            patience=patience,
            transport=transport,
        )

    # Who is who.

    def me(self, patience: float | None = None) -> User:
        """Return who the key belongs to."""
        return _user(self.ask("GET", "/me", patience=patience))

    def users(self) -> list[User]:
        """Return all users; only an owner may."""
        return [_user(found) for found in self.ask("GET", "/users")["items"]]

    def create_user(self, name: str, password: str, role: str = "annotator") -> User:
        """Add a user; only an owner may."""
        body = {"username": name, "first_name": name, "password": password, "role": role}
        return _user(self.ask("POST", "/users", json=body))

    def workspaces(self) -> dict[str, str]:
        """Return the ids of the workspaces that this user sees, by name."""
        return {w["name"]: w["id"] for w in self.ask("GET", "/me/workspaces")["items"]}

    def create_workspace(self, name: str) -> str:
        """Make a workspace, or find the one of that name; return its id."""
        try:
            return str(self.ask("POST", "/workspaces", json={"name": name})["id"])
        except RefusedError as error:
            if error.status != 409:
                raise
            return self.workspaces()[name]

    def members(self, workspace_id: str) -> list[User]:
        """Return who is in a workspace."""
        found = self.ask("GET", f"/workspaces/{workspace_id}/users")["items"]
        return [_user(user) for user in found]

    def add_member(self, workspace_id: str, user: User) -> None:
        """Let a user into a workspace; nothing happens where they are in it."""
        try:
            self.ask("POST", f"/workspaces/{workspace_id}/users", json={"user_id": user.id})
        except RefusedError as error:
            if error.status != 409:
                raise

    # Datasets.

    def datasets(self, workspace_id: str | None = None) -> list[Dataset]:
        """Return the datasets that this user sees, in all workspaces or in one."""
        where = {"workspace_id": workspace_id} if workspace_id is not None else {}
        return [
            dataset_of(found) for found in self.ask("GET", "/me/datasets", params=where)["items"]
        ]

    def create_dataset(
        self, workspace_id: str, name: str, overlap: int, form: Form, metadata: Mapping[str, Any]
    ) -> Dataset:
        """Make a dataset without its form, or find the one of that name."""
        body = {
            "name": name,
            "workspace_id": workspace_id,
            "guidelines": form.guidelines,
            "allow_extra_metadata": False,
            "distribution": {"strategy": "overlap", "min_submitted": overlap},
            "metadata": dict(metadata),
        }
        try:
            return dataset_of(self.ask("POST", "/datasets", json=body))
        except RefusedError as error:
            if error.status != 409:
                raise
            return next(d for d in self.datasets(workspace_id) if d.name == name)

    def publish(self, dataset: Dataset, form: Form) -> None:
        """Give a dataset its form and open it. What an earlier attempt did is not done again."""
        for path, bodies in (
            (f"/datasets/{dataset.id}/fields", map(_field_json, form.fields)),
            (f"/datasets/{dataset.id}/questions", map(_question_json, form.questions)),
        ):
            there = {found["name"] for found in self.ask("GET", path)["items"]}
            for body in bodies:
                if body["name"] not in there:
                    self._once("POST", path, json=body)
        self._once("PUT", f"/datasets/{dataset.id}/publish")

    def set_guidelines(self, dataset_id: str, text: str) -> None:
        """Replace a dataset's guidelines page."""
        self.ask("PATCH", f"/datasets/{dataset_id}", json={"guidelines": text})

    def form_names(self, dataset_id: str) -> tuple[set[str], set[str]]:
        """Return the names of a dataset's fields and questions."""
        fields, questions = (
            {found["name"] for found in self.ask("GET", f"/datasets/{dataset_id}/{kind}")["items"]}
            for kind in ("fields", "questions")
        )
        return fields, questions

    def _once(self, method: str, path: str, **content: Any) -> None:
        """Send what is refused the second time, since the first answer may have been lost."""
        try:
            self.ask(method, path, **content)
        except RefusedError as error:
            if error.status == 409 or "already" in str(error):
                return
            raise

    # Records and answers.

    def item_ids(self, dataset_id: str) -> set[str]:
        """Return the external ids of all records of a dataset."""
        found: set[str] = set()
        for page in self._pages(dataset_id, answers=False):
            found |= {record["external_id"] for record in page if record["external_id"]}
        return found

    def send(self, dataset_id: str, records: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Send up to `PUSH_PAGE` records (external id and fields), in order.

        A record that is there is found again by its external id, and is there once.
        """
        items = [{"external_id": item, "fields": dict(fields)} for item, fields in records]
        self.ask("PUT", f"/datasets/{dataset_id}/records/bulk", json={"items": items})

    def answers(self, dataset_id: str) -> Iterator[list[Answer]]:
        """Yield everybody's last answers on all records of a dataset, page by page."""
        for page in self._pages(dataset_id, answers=True):
            yield [
                _answer(response, record["external_id"])
                for record in page
                for response in record.get("responses") or ()
            ]

    def done(self, dataset_id: str) -> Done:
        """Return how far a dataset has come: counts, without the answers."""
        users = self.ask("GET", f"/datasets/{dataset_id}/users/progress")["users"]
        submitted, discarded = (
            {user["username"]: sum(user[state][kind] for state in ("completed", "pending"))
             for user in users}
            for kind in ("submitted", "discarded")
        )  # fmt: skip
        records = self.ask("GET", f"/datasets/{dataset_id}/progress")
        return Done(records["total"], records["completed"], submitted, discarded)

    def _pages(self, dataset_id: str, *, answers: bool) -> Iterator[list[dict[str, Any]]]:
        """Yield all records of a dataset, each once.

        Argilla orders them by time of insertion. Two with the same time could change places
        between two pages, and one be missed: so the records are counted, and read again if need be.
        """
        seen: set[str] = set()
        for _ in range(_READINGS):
            offset, total = 0, 1
            while offset < total:
                params: dict[str, Any] = {"offset": offset, "limit": PULL_PAGE}
                if answers:
                    params["include"] = "responses"
                page = self.ask("GET", f"/datasets/{dataset_id}/records", params=params)
                total = page["total"]
                offset += PULL_PAGE
                seen |= {record["id"] for record in page["items"]}
                yield page["items"]
            if len(seen) >= total:
                return
        raise ServerError(
            f"Dataset {dataset_id} at {self.url} has {total} records, but {_READINGS} readings "
            f"showed {len(seen)}: is somebody deleting and adding records? Try again afterwards."
        )

    # Webhooks.

    def hooks(self) -> list[Hook]:
        """Return the server's webhooks; only an owner may."""
        return [_hook(found) for found in self.ask("GET", "/webhooks")["items"]]

    def add_hook(self, url: str, events: Sequence[str], description: str) -> Hook:
        """Ask the server to call an address at events; only an owner may."""
        body = {"url": url, "events": list(events), "description": description}
        return _hook(self.ask("POST", "/webhooks", json=body))

    def remove_hook(self, hook_id: str) -> None:
        """Remove a webhook; nothing happens where it is gone."""
        try:
            self.ask("DELETE", f"/webhooks/{hook_id}")
        except RefusedError as error:
            if error.status != 404:
                raise


def _user(found: Mapping[str, Any]) -> User:
    # The server sends everybody's API key along; it is not kept.
    return User(found["id"], found["username"], found["role"])


def dataset_of(found: Mapping[str, Any]) -> Dataset:
    """Return a dataset from the server's JSON."""
    return Dataset(
        id=found["id"],
        name=found["name"],
        workspace_id=found["workspace_id"],
        published=found["status"] == "ready",
        metadata=found.get("metadata") or {},
        last_activity=found["last_activity_at"],
    )


def _answer(found: Mapping[str, Any], item: str | None) -> Answer:
    values = {name: entry["value"] for name, entry in (found.get("values") or {}).items()}
    return Answer(
        id=found["id"],
        item=item,
        user_id=found["user_id"],
        status=found["status"],
        values=values,
        given_at=_time(found["inserted_at"]),
        changed_at=_time(found["updated_at"]),
    )


def _hook(found: Mapping[str, Any]) -> Hook:
    return Hook(found["id"], found["url"], found.get("description") or "", found["secret"])


def _time(value: str) -> str:
    """Return a server's time, which is UTC whether it says so or not, as ISO 8601."""
    time = datetime.fromisoformat(value)
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC).isoformat()


def _field_json(shown: Field) -> dict[str, Any]:
    settings = {"type": shown.kind, "use_markdown": shown.markdown}
    return {
        "name": shown.name,
        "title": shown.title,
        "required": shown.required,
        "settings": settings,
    }


def _question_json(asked: Question) -> dict[str, Any]:
    settings: dict[str, Any] = {"type": _KINDS.get(asked.kind, asked.kind)}
    if asked.kind == "text":
        settings["use_markdown"] = False
    elif asked.kind == "rating":
        settings["options"] = [{"value": int(value)} for value, _ in asked.options]
    else:
        settings["options"] = [{"value": value, "text": text} for value, text in asked.options]
    return {
        "name": asked.name,
        "title": asked.title,
        "required": asked.required,
        "description": asked.description,
        "settings": settings,
    }
