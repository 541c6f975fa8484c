"""A hub on 127.0.0.1 that answers what `huggingface_hub` asks to push a model, as the Hub does."""

import base64
import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TOKEN, USER = "hf_of_the_tests", "ann"
LFS_ENDINGS = (".safetensors", ".gguf", ".bin")
# As the Hub: files of Git are smaller, and more are sent as LFS's.
LARGEST_REGULAR = 10_000_000
DROP = "drop"


@dataclass
class Repository:
    """What lies in a repository.

    files: path -> bytes; of what Xet holds, b"". oids: path -> SHA-256 of what LFS or Xet holds.
    commits: (SHA, summary, paths) of each.
    """

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    oids: dict[str, str] = field(default_factory=dict)
    commits: list[tuple[str, str, list[str]]] = field(default_factory=list)

    def commit(self, summary: str, paths: list[str]) -> str:
        sha = hashlib.sha1(f"{len(self.commits)} {summary}".encode()).hexdigest()
        self.commits.append((sha, summary, paths))
        return sha


@dataclass
class Failure:
    """The next request of a method to a path is answered with this status, or dropped in the middle."""

    method: str
    path: str
    how: int | str
    times: int = 1


@dataclass
class Hub:
    """State of the server, which tests look at and change."""

    address: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    # Larger objects are sent in parts.
    part_size: int = 1 << 30
    # The folder of a Xet storage, which hf_xet writes itself; None is a hub without.
    xet: Path | None = None
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def failure(self, method: str, path: str) -> int | str | None:
        with self.lock:
            for one in self.failures:
                if one.times and one.method == method and re.search(one.path, path):
                    one.times -= 1
                    return one.how
        return None

    def sent(self, what: str) -> list[str]:
        """The requests whose line holds `what`."""
        return [line for line in self.asked if what in line]


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, message: str, code: str = "", **more: Any) -> None:
        super().__init__(message)
        self.status, self.code, self.body = status, code, {"error": message, **more}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def _serve(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.asked.append(f"{self.command} {path}")
        how = self.hub.failure(self.command, path)
        if how == DROP:
            self.rfile.read(int(self.headers["Content-Length"]) // 2)
            # Reset, as by a router that restarts.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            if how is not None:
                raise Refused(int(how), "busy")
            status, answer = self._answer(path, body)
        except Refused as error:
            status, answer = error.status, error.body
            self._send(status, answer, {"X-Error-Code": error.code, "X-Error-Message": str(error)})
            return
        self._send(status, answer, {"ETag": f'"{hashlib.md5(body).hexdigest()}"'})

    do_GET = do_POST = do_PUT = do_HEAD = _serve

    def _send(self, status: int, answer: Any, headers: dict[str, str]) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        if status in (429, 503):
            self.send_header("Retry-After", "1")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _answer(self, path: str, body: bytes) -> tuple[int, Any]:
        if self.command == "PUT":
            return self._store(path, body)
        if path.startswith("/lfs/complete/"):
            return self._complete(path, json.loads(body))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise Refused(401, "Invalid username or password.")
        for pattern, answer in ROUTES.items():
            found = re.fullmatch(pattern, f"{self.command} {path}")
            if found:
                return 200, answer(self, body, *found.groups())
        raise Refused(404, f"no such route: {path}")

    def _repository(self, name: str) -> Repository:
        if name not in self.hub.repositories:
            raise Refused(404, "Repository not found", "RepoNotFound")
        return self.hub.repositories[name]

    def create(self, body: bytes) -> Any:
        asked = json.loads(body)
        name = f"{asked['organization'] or USER}/{asked['name']}"
        url = f"{self.hub.address}/{name}"
        if name in self.hub.repositories:
            raise Refused(409, "You already created this model repo", url=url)
        if asked["organization"] not in (None, USER):
            raise Refused(403, f"You don't have the rights to create a model under {asked['organization']}")
        repository = self.hub.repositories[name] = Repository(asked.get("visibility") == "private")
        repository.files[".gitattributes"] = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
        repository.commit("initial commit", [".gitattributes"])
        return {"url": url, "name": name}

    def info(self, _: bytes, name: str) -> Any:
        repository = self._repository(name)
        return {
            "id": name,
            "private": repository.private,
            "sha": repository.commits[-1][0],
            "siblings": [{"rfilename": path} for path in sorted(repository.files)],
        }

    def validate(self, body: bytes) -> Any:
        content = json.loads(body)["content"]
        found = re.search(r"^license: (.*)$", content, re.MULTILINE)
        if found and not re.fullmatch(r"[a-z0-9.-]+", found[1]):
            raise Refused(400, "bad", errors=[{"message": '"license" must be one of apache-2.0, mit ...'}])
        return {"errors": [], "warnings": []}

    def preupload(self, body: bytes, name: str) -> Any:
        return {"files": [self._mode(self._repository(name), one) for one in json.loads(body)["files"]]}

    def _mode(self, repository: Repository, asked: Any) -> Any:
        path = asked["path"]
        is_lfs = path.endswith(LFS_ENDINGS) or asked["size"] > LARGEST_REGULAR
        found = {"path": path, "uploadMode": "lfs" if is_lfs else "regular", "shouldIgnore": False}
        if path in repository.files:
            content = repository.files[path]
            blob = b"blob %d\0" % len(content) + content
            found["oid"] = repository.oids.get(path) or hashlib.sha1(blob).hexdigest()
        return found

    def xet_token(self, _: bytes, name: str) -> Any:
        self._repository(name)
        if self.hub.xet is None:
            raise Refused(404, "no Xet storage here")
        expires = int(time.time()) + 3600
        return {"casUrl": f"local://{self.hub.xet}", "accessToken": "of_xet", "exp": expires}

    def batch(self, body: bytes, name: str) -> Any:
        self._repository(name)
        asked = json.loads(body)
        assert asked["operation"] == "upload" and asked["hash_algo"] == "sha256"
        return {"transfer": "basic", "objects": [self._action(one) for one in asked["objects"]]}

    def _action(self, one: Any) -> Any:
        oid, size = one["oid"], one["size"]
        if oid in self.hub.objects:
            return {"oid": oid, "size": size}
        upload: dict[str, Any] = {"href": f"{self.hub.address}/lfs/{oid}"}
        if size > self.hub.part_size:
            numbers = range(1, -(-size // self.hub.part_size) + 1)
            upload = {
                "href": f"{self.hub.address}/lfs/complete/{oid}",
                "header": {
                    "chunk_size": str(self.hub.part_size),
                    **{f"{n:05d}": f"{self.hub.address}/lfs/{oid}/{n}" for n in numbers},
                },
            }
        verify = {"href": f"{self.hub.address}/lfs/verify"}
        return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}}

    def verify(self, body: bytes) -> Any:
        asked = json.loads(body)
        if len(self.hub.objects.get(asked["oid"], b"")) != asked["size"]:
            raise Refused(404, "no such object")
        return {}

    def _store(self, path: str, body: bytes) -> tuple[int, Any]:
        _, _, oid, *part = path.split("/")
        if part:
            self.hub.parts.setdefault(oid, {})[int(part[0])] = body
            return 200, {}
        return self._keep(oid, body)

    def _complete(self, path: str, asked: Any) -> tuple[int, Any]:
        oid = path.rpartition("/")[2]
        numbers = [part["partNumber"] for part in asked["parts"]]
        return self._keep(oid, b"".join(self.hub.parts[oid][number] for number in numbers))

    def _keep(self, oid: str, content: bytes) -> tuple[int, Any]:
        if hashlib.sha256(content).hexdigest() != oid:
            raise Refused(400, "the content is not that of the object's SHA-256")
        self.hub.objects[oid] = content
        return 200, {}

    def commit(self, body: bytes, name: str) -> Any:
        repository = self._repository(name)
        header, *operations = [json.loads(line) for line in body.splitlines()]
        paths = []
        for operation in operations:
            value = operation["value"]
            paths.append(value["path"])
            if operation["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif self.hub.xet or len(self.hub.objects.get(value["oid"], b"")) == value["size"]:
                repository.files[value["path"]] = self.hub.objects.get(value["oid"], b"")
                repository.oids[value["path"]] = value["oid"]
            else:
                raise Refused(400, f"{value['path']}: the LFS object does not exist")
        sha = repository.commit(header["value"]["summary"], paths)
        return {"commitUrl": f"{self.hub.address}/{name}/commit/{sha}", "commitOid": sha}


_NAME = r"([\w.-]+/[\w.-]+)"
ROUTES = {
    "POST /api/repos/create": Handler.create,
    "POST /api/validate-yaml": Handler.validate,
    f"GET /api/models/{_NAME}": Handler.info,
    f"GET /api/models/{_NAME}/revision/main": Handler.info,
    f"POST /api/models/{_NAME}/preupload/main": Handler.preupload,
    f"POST /api/models/{_NAME}/commit/main": Handler.commit,
    f"GET /api/models/{_NAME}/xet-write-token/main": Handler.xet_token,
    rf"POST /{_NAME}\.git/info/lfs/objects/batch": Handler.batch,
    "POST /lfs/verify": Handler.verify,
}


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub on this machine, without repositories."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Served", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
