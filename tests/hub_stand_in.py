"""A model hub on loopback: serves folders as repositories and takes commits, for tests without a network."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Self
from urllib.parse import unquote, urlsplit


class HubStandIn:
    """Serves `root/<owner>/<name>/<revision>/...` at `endpoint`; a repository in `private` needs its token.

    `asked` records (method, path, token) of every request. A commit writes into the folder of its revision.
    """

    def __init__(self, root: Path, private: dict[str, str] | None = None) -> None:
        self.root, self.private = root, private or {}
        self.asked: list[tuple[str, str, str]] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Self:
        Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def stop(self) -> None:
        """Close the port, so that the hub cannot be reached any more."""
        self.server.shutdown()
        self.server.server_close()

    def folder(self, repo: str, revision: str) -> Path | None:
        """The folder of a revision, by its name or by its commit."""
        revisions = (self.root / repo).iterdir() if (self.root / repo).is_dir() else ()
        return next((path for path in revisions if revision in (path.name, self.commit(path))), None)

    def commit(self, folder: Path) -> str:
        """Forty hex digits that stand for the content of a revision."""
        listing = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.rglob("*"))]
        return hashlib.sha1(json.dumps([str(folder), listing]).encode()).hexdigest()

    def describe(self, repo: str, folder: Path) -> dict:
        return {
            "id": repo,
            "modelId": repo,
            "sha": self.commit(folder),
            "private": repo in self.private,
            "tags": [],
            "siblings": [{"rfilename": entry["path"]} for entry in self.tree(folder)],
        }

    def tree(self, folder: Path) -> list[dict]:
        files = (path for path in sorted(folder.rglob("*")) if path.is_file())
        return [
            {
                "type": "file",
                "path": path.relative_to(folder).as_posix(),
                "size": path.stat().st_size,
                "oid": etag(path),
            }
            for path in files
        ]

    def write(self, folder: Path, lines: bytes) -> None:
        for entry in map(json.loads, lines.splitlines()):
            if entry["key"] == "file":
                path = folder / entry["value"]["path"]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(base64.b64decode(entry["value"]["content"]))


def etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


def _handler(hub: HubStandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_) -> None:
            pass

        def reply(self, status: int, content: bytes | dict | list, **headers: str) -> None:
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
            for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def refuse(self, code: str, status: int = 404) -> None:
            self.reply(status, {"error": code}, X_Error_Code=code, X_Error_Message=code)

        def locate(self, repo: str, revision: str) -> Path | None:
            """The revision's folder, unless the answer is a refusal, which is then sent."""
            allowed = hub.private.get(repo) in (None, self.token)
            if not allowed or not (hub.root / repo).is_dir():
                return self.refuse("RepoNotFound", 404 if allowed else 401)
            return hub.folder(repo, revision) or self.refuse("RevisionNotFound")

        def do_GET(self) -> None:
            self.token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            path = unquote(urlsplit(self.path).path)
            hub.asked.append((self.command, path, self.token))
            if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?/?", path):
                repo, question, revision = match.groups()
                folder = self.locate(repo, revision or "main")
                if folder is not None:
                    self.reply(200, hub.tree(folder) if question == "tree" else hub.describe(repo, folder))
            elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                folder = self.locate(*match.groups()[:2])
                if folder is not None:
                    self.send_file(folder, folder / match[3])
            else:
                self.refuse("NotFound")

        do_HEAD = do_GET

        def send_file(self, folder: Path, path: Path) -> None:
            if not path.is_file():
                return self.refuse("EntryNotFound")
            self.reply(200, path.read_bytes(), ETag=f'"{etag(path)}"', X_Repo_Commit=hub.commit(folder))

        def do_POST(self) -> None:
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = unquote(urlsplit(self.path).path)
            hub.asked.append((self.command, path, token))
            match = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/([^/]+)", path)
            if path == "/api/repos/create":
                wanted = json.loads(body)
                repo = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
                (hub.root / repo / "main").mkdir(parents=True, exist_ok=True)
                self.reply(200, {"url": f"{hub.endpoint}/{repo}", "id": repo})
            elif path == "/api/validate-yaml":
                self.reply(200, {"errors": [], "warnings": []})
            elif match and match[2] == "preupload":
                files = [file["path"] for file in json.loads(body)["files"]]
                plain = {"uploadMode": "regular", "shouldIgnore": False}
                self.reply(200, {"files": [{"path": name, **plain} for name in files]})
            elif match:
                folder = hub.root / match[1] / match[3]
                hub.write(folder, body)
                commit = hub.commit(folder)
                self.reply(200, {"commitUrl": f"{hub.endpoint}/{match[1]}/commit/{commit}", "commitOid": commit})
            else:
                self.refuse("NotFound")

    return Handler
