"""Argilla's REST API, version 1: all that the room knows about Argilla's paths and JSON.

The rest of the room uses the classes here, so that another labelling server could take its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from annotation.argilla.client import (
    PATIENCE_SECONDS,
    Client,
    Connection,
    RefusedError,
    ServerError,
)
from annotation.argilla.form import Field, Form, Question

if TYPE_CHECKING:
    import httpx

Status = Literal["submitted", "discarded", "draft"]
PUSH_PAGE = 500
"""Records in one request; Argilla accepts no more."""
PULL_PAGE = 500
_READINGS = 5
_KINDS = {"one": "label_selection", "some": "multi_label_selection"}


@dataclass(frozen=True)
class User:
    """An account."""

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
    """A time that changes whenever an answer is given, changed or deleted."""


@dataclass(frozen=True)
class Answer:
    """A person's latest answer to one record."""

    id: str
    item: str | None
    """The record's external id."""
    user_id: str
    status: Status
    values: Mapping[str, Any]
    given_at: str
    changed_at: str


@dataclass(frozen=True)
class DatasetProgress:
    """How many records of a dataset are answered."""

    records: int
    completed: int
    """Records with all the answers that they should get."""
    submitted: Mapping[str, int]
    """Submitted answers, by user name."""
    discarded: Mapping[str, int]
    """Discarded records, by user name."""


@dataclass(frozen=True)
class Webhook:
    """An address that the server calls at events."""

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

    # Accounts and workspaces.

    def me(self, patience: float | None = None) -> User:
        """Return who the key belongs to."""
        return _user(self.request("GET", "/me", patience=patience))

    def users(self) -> list[User]:
        """Return all users; only an owner may."""
        return [_user(user) for user in self.request("GET", "/users")["items"]]

    def create_user(self, name: str, password: str, role: str = "annotator") -> User:
        """Add a user; only an owner may."""
        body = {"username": name, "first_name": name, "password": password, "role": role}
        return _user(self.request("POST", "/users", json=body))

    def workspaces(self) -> dict[str, str]:
        """Return the ids of the workspaces that this user can see, by name."""
        return {w["name"]: w["id"] for w in self.request("GET", "/me/workspaces")["items"]}

    def create_workspace(self, name: str) -> str:
        """Make a workspace, or find the one with that name; return its id."""
        try:
            return str(self.request("POST", "/workspaces", json={"name": name})["id"])
        except RefusedError as error:
            if error.status != 409:
                raise
            return self.workspaces()[name]

    def members(self, workspace_id: str) -> list[User]:
        """Return the members of a workspace."""
        users = self.request("GET", f"/workspaces/{workspace_id}/users")["items"]
        return [_user(user) for user in users]

    def add_member(self, workspace_id: str, user: User) -> None:
        """Add a user to a workspace; a member stays one."""
        try:
            self.request("POST", f"/workspaces/{workspace_id}/users", json={"user_id": user.id})
        except RefusedError as error:
            if error.status != 409:
                raise

    # Datasets.

    def datasets(self, workspace_id: str | None = None) -> list[Dataset]:
        """Return the datasets that this user can see, in all workspaces or in one."""
        where = {"workspace_id": workspace_id} if workspace_id is not None else {}
        return [
            dataset_of(row) for row in self.request("GET", "/me/datasets", params=where)["items"]
        ]

    def create_dataset(
        self, workspace_id: str, name: str, overlap: int, form: Form, metadata: Mapping[str, Any]
    ) -> Dataset:
        """Make a dataset without its form, or find the one with that name."""
        body = {
            "name": name,
            "workspace_id": workspace_id,
            "guidelines": form.guidelines,
            "allow_extra_metadata": False,
            "distribution": {"strategy": "overlap", "min_submitted": overlap},
            "metadata": dict(metadata),
        }
        try:
            return dataset_of(self.request("POST", "/datasets", json=body))
        except RefusedError as error:
            if error.status != 409:
                raise
            return next(d for d in self.datasets(workspace_id) if d.name == name)

    def publish(self, dataset: Dataset, form: Form) -> None:
        """Add the form to a dataset and open it. What an earlier attempt did is not done again."""
        for path, bodies in (
            (f"/datasets/{dataset.id}/fields", map(_field_json, form.fields)),
            (f"/datasets/{dataset.id}/questions", map(_question_json, form.questions)),
        ):
            existing = {row["name"] for row in self.request("GET", path)["items"]}
            for body in bodies:
                if body["name"] not in existing:
                    self._request_once("POST", path, json=body)
        self._request_once("PUT", f"/datasets/{dataset.id}/publish")

    def update_dataset(self, dataset_id: str, **changes: Any) -> None:
        """Change a dataset's ``guidelines`` or ``metadata``."""
        self.request("PATCH", f"/datasets/{dataset_id}", json=changes)

    def form_names(self, dataset_id: str) -> tuple[set[str], set[str]]:
        """Return the names of a dataset's fields and questions."""
        fields, questions = (
            {row["name"] for row in self.request("GET", f"/datasets/{dataset_id}/{kind}")["items"]}
            for kind in ("fields", "questions")
        )
        return fields, questions

    def question_ids(self, dataset_id: str) -> dict[str, str]:
        """Return the ids of a dataset's questions, by name."""
        rows = self.request("GET", f"/datasets/{dataset_id}/questions")["items"]
        return {row["name"]: row["id"] for row in rows}

    def _request_once(self, method: str, path: str, **content: Any) -> None:
        """Send a request that is refused the second time; the first reply may have been lost."""
        try:
            self.request(method, path, **content)
        except RefusedError as error:
            if error.status == 409 or "already" in str(error):
                return
            raise

    # Records and answers.

    def item_ids(self, dataset_id: str) -> set[str]:
        """Return the external ids of all records of a dataset."""
        ids: set[str] = set()
        for page in self._pages(dataset_id, answers=False):
            ids |= {record["external_id"] for record in page if record["external_id"]}
        return ids

    def send(
        self,
        dataset_id: str,
        records: Sequence[tuple[str, Mapping[str, Any]]],
        suggestions: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Send up to `PUSH_PAGE` records (external id and fields), in order.

        The server finds a record again by its external id, so a record sent twice exists once.
        ``suggestions`` are answers to start from, by record and question id.
        """
        suggested = suggestions or {}
        items = [
            {
                "external_id": item,
                "fields": dict(fields),
                **(
                    {
                        "suggestions": [
                            {"question_id": question, "value": value}
                            for question, value in suggested[item].items()
                        ]
                    }
                    if item in suggested
                    else {}
                ),
            }
            for item, fields in records
        ]
        self.request("PUT", f"/datasets/{dataset_id}/records/bulk", json={"items": items})

    def answers(self, dataset_id: str) -> Iterator[list[Answer]]:
        """Yield everybody's latest answers to all records of a dataset, page by page."""
        for page in self._pages(dataset_id, answers=True):
            yield [
                _answer(response, record["external_id"])
                for record in page
                for response in record.get("responses") or ()
            ]

    def progress(self, dataset_id: str) -> DatasetProgress:
        """Return how many records are answered, without the answers."""
        users = self.request("GET", f"/datasets/{dataset_id}/users/progress")["users"]
        submitted, discarded = (
            {user["username"]: sum(user[state][kind] for state in ("completed", "pending"))
             for user in users}
            for kind in ("submitted", "discarded")
        )  # fmt: skip
        records = self.request("GET", f"/datasets/{dataset_id}/progress")
        return DatasetProgress(records["total"], records["completed"], submitted, discarded)

    def _pages(self, dataset_id: str, *, answers: bool) -> Iterator[list[dict[str, Any]]]:
        """Yield all records of a dataset.

        Argilla orders them by time of insertion. Two records with the same time could change places
        between two pages, so that one is missed. So the records are counted, and read again if some
        are missing.
        """
        seen: set[str] = set()
        for _ in range(_READINGS):
            offset, total = 0, 1
            while offset < total:
                params: dict[str, Any] = {"offset": offset, "limit": PULL_PAGE}
                if answers:
                    params["include"] = "responses"
                page = self.request("GET", f"/datasets/{dataset_id}/records", params=params)
                total = page["total"]
                offset += PULL_PAGE
                seen |= {record["id"] for record in page["items"]}
                yield page["items"]
            if len(seen) >= total:
                return
        raise ServerError(
            f"Dataset {dataset_id} at {self.url} has {total} records, but {_READINGS} readings "
            f"found {len(seen)}. Somebody may be adding and deleting records. Try again later."
        )

    # Webhooks.

    def webhooks(self) -> list[Webhook]:
        """Return the server's webhooks; only an owner may."""
        return [_webhook(row) for row in self.request("GET", "/webhooks")["items"]]

    def add_webhook(self, url: str, events: Sequence[str], description: str) -> Webhook:
        """Ask the server to call an address at events; only an owner may."""
        body = {"url": url, "events": list(events), "description": description}
        return _webhook(self.request("POST", "/webhooks", json=body))

    def remove_webhook(self, webhook_id: str) -> None:
        """Remove a webhook that may be gone already."""
        try:
            self.request("DELETE", f"/webhooks/{webhook_id}")
        except RefusedError as error:
            if error.status != 404:
                raise


def _user(row: Mapping[str, Any]) -> User:
    # The server also sends everybody's API key, which is not kept.
    return User(row["id"], row["username"], row["role"])


def dataset_of(row: Mapping[str, Any]) -> Dataset:
    """Return a dataset from the server's JSON."""
    return Dataset(
        id=row["id"],
        name=row["name"],
        workspace_id=row["workspace_id"],
        published=row["status"] == "ready",
        metadata=row.get("metadata") or {},
        last_activity=row["last_activity_at"],
    )


def _answer(row: Mapping[str, Any], item: str | None) -> Answer:
    values = {name: entry["value"] for name, entry in (row.get("values") or {}).items()}
    return Answer(
        id=row["id"],
        item=item,
        user_id=row["user_id"],
        status=row["status"],
        values=values,
        given_at=_time(row["inserted_at"]),
        changed_at=_time(row["updated_at"]),
    )


def _webhook(row: Mapping[str, Any]) -> Webhook:
    return Webhook(row["id"], row["url"], row.get("description") or "", row["secret"])


def _time(value: str) -> str:
    """Return a server's time, which is UTC even without a zone, as ISO 8601."""
    try:
        time = datetime.fromisoformat(value)
    except (ValueError, TypeError):
        raise ServerError(f"The labelling server gave {value!r} where a time belongs.") from None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC).isoformat()


def _field_json(field: Field) -> dict[str, Any]:
    settings = {"type": field.kind, "use_markdown": field.markdown}
    return {
        "name": field.name,
        "title": field.title,
        "required": field.required,
        "settings": settings,
    }


def _question_json(question: Question) -> dict[str, Any]:
    settings: dict[str, Any] = {"type": _KINDS.get(question.kind, question.kind)}
    if question.kind == "text":
        settings["use_markdown"] = False
    elif question.kind == "rating":
        settings["options"] = [{"value": int(value)} for value, _ in question.options]
    else:
        settings["options"] = [{"value": value, "text": text} for value, text in question.options]
    return {
        "name": question.name,
        "title": question.title,
        "required": question.required,
        "description": question.description,
        "settings": settings,
    }
