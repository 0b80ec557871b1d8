"""A stand-in of the hub's HTTP interface on this machine: what huggingface_hub asks for in a push and a download."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Files = dict[str, bytes]


def revision(files: Files) -> str:
    """A commit's hash: other contents, another commit."""
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    server: StandIn

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, content: Any, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.tokens.append(self.headers.get("Authorization"))
        parts = self.path.partition("?")[0].strip("/").split("/")
        if self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif self.path == "/api/repos/create":
            asked = json.loads(body)
            kind, name = asked.get("type") or "model", f"{asked['organization']}/{asked['name']}"
            self.server.repos.setdefault((kind, name), {})
            self.server.asked.append(asked)
            self.answer({"url": f"{self.server.address}/{'datasets/' * (kind == 'dataset')}{name}"})
        elif "preupload" in parts:
            files = json.loads(body)["files"]
            self.answer(
                {"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]}
            )
        else:
            assert parts[4] == "commit", self.path
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "header":
                    self.server.messages.append(line["value"]["summary"])
                else:
                    content = base64.b64decode(line["value"]["content"])
                    self.repo(parts)[line["value"]["path"]] = content
            commit = revision(self.repo(parts))
            address = f"{self.server.address}/{parts[2]}/{parts[3]}/commit/{commit}"
            self.answer({"commitUrl": address, "commitOid": commit})

    def repo(self, parts: list[str]) -> Files:
        return self.server.repos[parts[1].removesuffix("s"), f"{parts[2]}/{parts[3]}"]

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[0] == "api":
            if (parts[1].removesuffix("s"), "/".join(parts[2:4])) not in self.server.repos:
                self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
            elif "tree" in parts:
                self.answer(
                    [
                        {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                        for path, content in self.repo(parts).items()
                    ]
                )
            else:
                files = [{"rfilename": path} for path in self.repo(parts)]
                self.answer({"id": "/".join(parts[2:4]), "sha": revision(self.repo(parts)), "siblings": files})
            return
        kind, parts = ("dataset", parts[1:]) if parts[0] == "datasets" else ("model", parts)
        files = self.server.repos[kind, "/".join(parts[:2])]
        content = files["/".join(parts[4:])]
        self.answer(content, X_Repo_Commit=revision(files), ETag=f'"{hashlib.sha1(content).hexdigest()}"')

    do_HEAD = do_GET  # noqa: N815


class StandIn(ThreadingHTTPServer):
    """The server.

    Attributes:
        repos: files by kind and name.
        asked: repositories as they were asked for.
        messages: of the commits.
        tokens: of the requests that write.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[tuple[str, str], Files] = {}
        self.asked: list[dict[str, Any]] = []
        self.messages: list[str] = []
        self.tokens: list[str | None] = []
        self.address = f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def stand_in() -> Iterator[StandIn]:
    with StandIn() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
