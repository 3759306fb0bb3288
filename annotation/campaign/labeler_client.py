"""What a labeller can do, by the requests that the labelling site's page makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from annotation.campaign.argilla import Dataset, Status, dataset_of
from annotation.campaign.client import PATIENCE_SECONDS, Client, RefusedError

if TYPE_CHECKING:
    import httpx

_QUEUE_PAGE = 10


@dataclass(frozen=True)
class Shown:
    """A record as a labeller's page gets it."""

    id: str
    fields: Mapping[str, Any]
    status: str


class Desk(Client):
    """What a labeller can do: what is here goes through the requests that the page makes."""

    @classmethod
    def sign_in(
        cls,
        url: str,
        name: str,
        password: str,
        *,
        patience: float = PATIENCE_SECONDS,
        transport: httpx.BaseTransport | None = None,
    ) -> Desk:
        """Sign in with name and password, as the page does."""
        door = Client(url, {}, patience=patience, transport=transport)
        try:
            token = door.ask("POST", "/token", data={"username": name, "password": password})
        finally:
            door.close()
        headers = {"Authorization": f"Bearer {token['access_token']}"}
        return cls(url, headers, patience=patience, transport=transport)

    def datasets(self) -> list[Dataset]:
        """Return the datasets that this labeller sees."""
        return [dataset_of(found) for found in self.ask("GET", "/me/datasets")["items"]]

    def queue(
        self, dataset_id: str, offset: int = 0, limit: int = _QUEUE_PAGE
    ) -> tuple[list[Shown], int]:
        """Return the next records of this labeller's queue, and how many there are in all."""
        of = (
            {"entity": "response", "property": "status"},
            {"entity": "record", "property": "status"},
        )
        body = {
            "query": {},
            "filters": {
                "and": [{"type": "terms", "scope": scope, "values": ["pending"]} for scope in of]
            },
        }
        params = [("include", "responses"), ("include", "suggestions")]
        found = self.ask(
            "POST",
            f"/me/datasets/{dataset_id}/records/search",
            json=body,
            params=[*params, ("offset", str(offset)), ("limit", str(limit))],
        )
        records = [hit["record"] for hit in found["items"] if hit is not None]
        return [Shown(r["id"], r["fields"], r["status"]) for r in records], found["total"]

    def questions(self, dataset_id: str) -> set[str]:
        """Return the names of a dataset's questions."""
        found = self.ask("GET", f"/datasets/{dataset_id}/questions")["items"]
        return {question["name"] for question in found}

    def submit(
        self, record_id: str, values: Mapping[str, Any], status: Status = "submitted"
    ) -> str:
        """Answer a record, or change the answer; return the answer's id."""
        body = {
            "status": status,
            "record_id": record_id,
            "values": {name: {"value": value} for name, value in values.items()},
        }
        # The page's request for several answers at once also takes one that was given before, so
        # that an answer whose receipt was lost can be sent again.
        result = self.ask("POST", "/me/responses/bulk", json={"items": [body]})["items"][0]
        if result["item"] is None:
            detail = (result.get("error") or {}).get("detail", "")
            raise RefusedError.of(
                422, f"The labelling server at {self.url} refuses an answer: {detail}"
            )
        return str(result["item"]["id"])
