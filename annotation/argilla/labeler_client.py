"""What a labeller can do, by the requests that the labelling page makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from annotation.argilla.api import Dataset, Status, dataset_of
from annotation.argilla.client import PATIENCE_SECONDS, Client, RefusedError

if TYPE_CHECKING:
    import httpx

_QUEUE_PAGE = 10


@dataclass(frozen=True)
class ShownRecord:
    """A record as a labeller's page gets it."""

    id: str
    fields: Mapping[str, Any]
    status: str


class LabelerClient(Client):
    """A labeller who is signed in."""

    @classmethod
    def sign_in(
        cls,
        url: str,
        name: str,
        password: str,
        *,
        patience: float = PATIENCE_SECONDS,
        transport: httpx.BaseTransport | None = None,
    ) -> LabelerClient:
        """Sign in with name and password, as the page does."""
        anonymous = Client(url, {}, patience=patience, transport=transport)
        try:
            credentials = {"username": name, "password": password}
            token = anonymous.request("POST", "/token", data=credentials)
        finally:
            anonymous.close()
        headers = {"Authorization": f"Bearer {token['access_token']}"}
        return cls(url, headers, patience=patience, transport=transport)

    def datasets(self) -> list[Dataset]:
        """Return the datasets that this labeller can see."""
        return [dataset_of(row) for row in self.request("GET", "/me/datasets")["items"]]

    def queue(
        self, dataset_id: str, offset: int = 0, limit: int = _QUEUE_PAGE
    ) -> tuple[list[ShownRecord], int]:
        """Return the next records of this labeller's queue, and how many it has."""
        scopes = (
            {"entity": "response", "property": "status"},
            {"entity": "record", "property": "status"},
        )
        pending = [{"type": "terms", "scope": scope, "values": ["pending"]} for scope in scopes]
        include = [("include", "responses"), ("include", "suggestions")]
        page = self.request(
            "POST",
            f"/me/datasets/{dataset_id}/records/search",
            json={"query": {}, "filters": {"and": pending}},
            params=[*include, ("offset", str(offset)), ("limit", str(limit))],
        )
        records = [hit["record"] for hit in page["items"] if hit is not None]
        return [ShownRecord(r["id"], r["fields"], r["status"]) for r in records], page["total"]

    def question_kinds(self, dataset_id: str) -> dict[str, str]:
        """Return the names of a dataset's questions, each with its kind."""
        questions = self.request("GET", f"/datasets/{dataset_id}/questions")["items"]
        return {question["name"]: question["settings"]["type"] for question in questions}

    def submit(
        self, record_id: str, values: Mapping[str, Any], status: Status = "submitted"
    ) -> str:
        """Answer a record, or change the answer; return the answer's id."""
        body = {
            "status": status,
            "record_id": record_id,
            "values": {name: {"value": value} for name, value in values.items()},
        }
        # Argilla's request for several answers also accepts one that was given before, so an
        # answer can be sent again when its reply was lost.
        result = self.request("POST", "/me/responses/bulk", json={"items": [body]})["items"][0]
        if result["item"] is None:
            detail = (result.get("error") or {}).get("detail", "")
            raise RefusedError.with_status(
                422, f"The labelling server at {self.url} refuses an answer: {detail}"
            )
        return str(result["item"]["id"])
