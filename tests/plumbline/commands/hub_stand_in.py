"""A local stand-in for the hub: the part of its HTTP interface by which models and data move."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import urllib.parse
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0" * 39 + "1"


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

    def keep(self, name: str, folder: Path) -> None:
        """Hold a folder's files as a repository: ``org/name``, or ``datasets/org/name``."""
        files = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
        self.repositories[name] = {"files": files, "private": False}


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
        if "/paths-info/" in self.path:
            name = self.path.removeprefix("/api/").removeprefix("models/").split("/paths-info/")[0]
            asked = urllib.parse.parse_qs(body.decode())["paths"]
            files = self._files(name) or {}
            return self._send(_described({file: files[file] for file in asked if file in files}))
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

    def do_HEAD(self) -> None:
        self._resolve()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/api/whoami-v2":
            return self._send({"name": "me", "type": "user", "orgs": []})
        if not path.startswith("/api/"):
            return self._resolve()
        name, _, rest = path.removeprefix("/api/").removeprefix("models/").partition("/revision/")
        if name in self.server.licenses:
            card = {"license": self.server.licenses[name]}
            return self._send({"id": name, "cardData": card, "siblings": [], "tags": []})
        name, _, rest = name.partition("/tree/")
        files = self._files(name)
        if files is None:
            return self._missing("RepoNotFound")
        if rest:  # the files of a folder
            folder = rest.partition("/")[2]
            inside = {file: files[file] for file in files if file.startswith(folder)}
            return self._send(_described(inside)) if inside else self._missing("EntryNotFound")
        siblings = [{"rfilename": file, "size": len(files[file])} for file in files]
        return self._send({
            "id": name.removeprefix("datasets/"), "sha": COMMIT, "siblings": siblings, "tags": [],
            "private": False, "lastModified": "2026-01-01T00:00:00.000Z",
        })  # fmt: skip

    def _files(self, name: str) -> dict[str, bytes] | None:
        kept = self.server.repositories.get(name)
        return None if kept is None else kept["files"]

    def _resolve(self) -> None:
        """Send a file of a repository, or its headers."""
        name, _, place = self.path.partition("?")[0].strip("/").partition("/resolve/")
        files = self._files(name)
        if files is None:
            return self._missing("RepoNotFound")
        content = files.get(urllib.parse.unquote(place.partition("/")[2]))
        if content is None:
            return self._missing("EntryNotFound")
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def _missing(self, code: str) -> None:
        self._send({"error": "not found"}, 404, {"X-Error-Code": code})

    def _send(
        self, content: Any, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)


def _described(files: Mapping[str, bytes]) -> list[dict[str, Any]]:
    return [
        {"type": "file", "path": name, "size": len(files[name]),
         "oid": hashlib.sha1(files[name]).hexdigest()}
        for name in files
    ]  # fmt: skip
