"""A local stand-in for the hub: the part of its HTTP interface by which models are uploaded."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub(ThreadingHTTPServer):
    """Keeps repositories in memory. Large files go by Git LFS's transfer, as on the hub."""

    def __init__(self, token: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.token = token
        self.repositories: dict[str, dict[str, Any]] = {}
        self.large: dict[str, bytes] = {}
        self.licenses: dict[str, str] = {}
        """What the cards of models that are there already say."""
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/api/validate-yaml":
            return self._send({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            return self._send({"error": "Invalid username or password."}, 401)
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            private = asked.get("private", False) or asked.get("visibility") == "private"
            made = self.server.repositories.setdefault(name, {"files": {}, "private": private})
            made["asked"] = asked
            return self._send({"url": f"{self.server.url}/{name}", "id": name, "name": name})
        name = "/".join(self.path.removeprefix("/api/models/").strip("/").split("/")[:2])
        name = name.removesuffix(".git")
        files = self.server.repositories[name]["files"]
        if "/preupload/" in self.path:
            return self._send({"files": [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]})  # fmt: skip
        if self.path.endswith("/info/lfs/objects/batch"):
            return self._send({"transfer": "basic", "objects": [
                {
                    "oid": thing["oid"],
                    "size": thing["size"],
                    "actions": {"upload": {"href": f"{self.server.url}/large/{thing['oid']}"}},
                }
                for thing in json.loads(body)["objects"]
            ]})  # fmt: skip
        if "/commit/" in self.path:
            for line in map(json.loads, body.decode().splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = self.server.large[value["oid"]]
            return self._send({
                "commitUrl": f"{self.server.url}/{name}/commit/abc", "commitOid": "abc",
            })  # fmt: skip
        return self._send({"error": f"unknown: {self.path}"}, 404)

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        digest = self.path.rpartition("/")[2]
        assert hashlib.sha256(content).hexdigest() == digest
        self.server.large[digest] = content
        self._send({})

    def do_GET(self) -> None:
        if self.path == "/api/whoami-v2":
            return self._send({"name": "me", "type": "user", "orgs": []})
        model = self.path.partition("?")[0].removeprefix("/api/models/").partition("/revision/")[0]
        if model in self.server.licenses:
            card = {"license": self.server.licenses[model]}
            return self._send({"id": model, "cardData": card, "siblings": [], "tags": []})
        return self._send({"error": "not found"}, 404)

    def _send(self, content: Any, status: int = 200) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
