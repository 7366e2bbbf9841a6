"""A hub on this machine: the few endpoints that huggingface_hub needs, over a folder, and ways to go wrong."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

REVISION = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeHub:
    """One repository, served from ``folder``; the settings may be changed while it runs."""

    folder: Path
    repository: str
    url: str = ""
    refuse_files: int | None = None  # an HTTP status, as a gated repository gives
    refuse_all: int | None = None
    stop_after: dict[str, int] = field(default_factory=dict)  # bytes of a file after which the connection breaks
    stall_after: int | None = None  # bytes of any file after which nothing comes any more
    instead: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)  # answers by parts of paths
    damage: set[str] = field(default_factory=set)
    licence: str | None = "llama3"
    requests: list[str] = field(default_factory=list)  # "GET path range"
    tokens: set[str] = field(default_factory=set)
    agents: set[str] = field(default_factory=set)  # what the client says of itself

    def info(self) -> dict:
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return {
            "id": self.repository,
            "sha": REVISION,
            "gated": "manual" if self.refuse_files else False,
            "private": False,
            "tags": [],
            "cardData": {"license": self.licence} if self.licence else None,
            "siblings": [self._sibling(path) for path in files],
        }

    def _sibling(self, path: Path) -> dict:
        content = path.read_bytes()
        git_id = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        row = {"rfilename": path.relative_to(self.folder).as_posix(), "size": len(content), "blobId": git_id}
        if path.suffix in (".bin", ".safetensors"):
            row["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return row

    def downloads(self) -> list[str]:
        """Every request for a file's content: its name, and from which byte on."""
        return [request.removeprefix("GET ") for request in self.requests if not request.startswith("GET /api/")]


@contextmanager
def serve(folder: Path, repository: str) -> Iterator[FakeHub]:
    hub = FakeHub(folder, repository)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            hub.tokens.add(self.headers.get("Authorization", ""))
            hub.agents.add(self.headers.get("User-Agent", ""))
            for part, (status, headers, body) in hub.instead.items():
                if part in path:
                    return self._send(status, body, headers)
            if path.startswith(f"/api/models/{hub.repository}"):
                hub.requests.append(f"GET {path}")
                if hub.refuse_all:
                    return self._error(hub.refuse_all, "")
                if path.partition("/revision/")[2] not in ("", "main", REVISION):
                    return self._error(404, "RevisionNotFound")
                return self._send(200, json.dumps(hub.info()).encode())
            file = self._file()
            if file is None:
                hub.requests.append(f"GET {path}")
                return self._error(404, "RepoNotFound")
            return self._send_file(file)

        def do_HEAD(self) -> None:
            file = self._file()
            return self._send(200, file.read_bytes(), cut=0) if file else self._error(404, "RepoNotFound")

        def _file(self) -> Path | None:
            start = f"/{hub.repository}/resolve/{REVISION}/"
            path = urlsplit(self.path).path
            file = hub.folder / path.removeprefix(start)
            return file if path.startswith(start) and file.is_file() else None

        def _send_file(self, file: Path) -> None:
            begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
            hub.requests.append(f"GET {file.name} {begin}")
            if hub.refuse_files:
                return self._error(hub.refuse_files, "GatedRepo")
            content = file.read_bytes()
            if file.name in hub.damage:
                content = content[:-1] + bytes([content[-1] ^ 1])
            if file.name in hub.stop_after and begin >= hub.stop_after[file.name]:
                return self._error(500, "")
            rest = content[begin:]
            cut = hub.stop_after[file.name] - begin if file.name in hub.stop_after else None
            headers = {"Content-Range": f"bytes {begin}-{len(content) - 1}/{len(content)}"} if begin else {}
            return self._send(206 if begin else 200, rest, headers, cut)

        def _send(
            self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: int | None = None
        ) -> None:
            self.send_response(status)
            common = {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Repo-Commit": REVISION}
            for name, value in {**common, **(headers or {}), "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if hub.stall_after is not None and len(body) > hub.stall_after:
                self.wfile.write(body[: hub.stall_after])
                with suppress(ConnectionError):
                    self.connection.recv(1)  # until the other side has gone
                return
            self.wfile.write(body[:cut])
            if cut is not None:
                self.close_connection = True

        def _error(self, status: int, code: str) -> None:
            self._send(status, b"", {"X-Error-Code": code} if code else {})

    return Handler
