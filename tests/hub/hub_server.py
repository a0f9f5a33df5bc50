"""A model hub on loopback: repositories with branches and commits, faults on demand, and a log of what was asked.

It speaks the HTTP protocol of both client libraries (hf_routes.py, om_routes.py).
"""
import hashlib
import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

# for tests that take long: the other hub is for the slow runs
ONE_FAST = pytest.mark.parametrize("hub", ["hf", pytest.param("om", marks=pytest.mark.slow)], indirect=True)
LARGE = (".safetensors", ".bin", ".ckpt")  # kept in large file storage


def git_sha1(content):
    """Git's name of a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256(content):
    """Large file storage's name of a blob."""
    return hashlib.sha256(content).hexdigest()


class Repo:
    """A repository; `files` of the commit at the end of a branch, older commits stay."""

    def __init__(self, files=None, private=False, gated=False, token=None):
        self.private, self.gated, self.token = private, gated, token
        self.pulls = []
        self.commits, self.branches = {}, {}
        self.commit(files or {}, "main", "initial commit")

    def commit(self, files, branch="main", message="change", pull=False):
        """Add a commit with `files` changed (None deletes) and return its name."""
        base = dict(self.commits.get(self.branches.get(branch), {}))
        base.update(files)
        content = {path: value for path, value in base.items() if value is not None}
        text = "".join(f"{path}{sha256(value)}" for path, value in sorted(content.items())) + f"{len(self.commits)}"
        name = hashlib.sha1((message + text).encode()).hexdigest()
        self.commits[name] = content
        if pull:
            self.pulls.append((name, message))
        else:
            self.branches[branch] = name
        return name

    def at(self, revision):
        """(commit, files) of a branch or commit; (None, None) when there is none."""
        commit = self.branches.get(revision, revision)
        return (commit, self.commits[commit]) if commit in self.commits else (None, None)


class HubServer:
    """The server; `url` is its address, `repos` what it holds, `log` the requests as (method, path, headers)."""

    def __init__(self, certificate=None, host=None):
        self.repos, self.log, self.large, self.lock = {}, [], {}, threading.Lock()
        self.stopped = threading.Event()
        self.faults = []  # dicts with "path" (part of it) and what goes wrong; "times" counts down
        self.read_token = None  # a token that may read private repositories
        self.write_token = "write"
        self.storage_service = False  # whether large files are said to lie in one beside the hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads, self._server.hub = True, self
        self.port = self._server.server_address[1]
        scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            scheme = "https"
        self.url = f"{scheme}://{host or '127.0.0.1'}" + ("" if host else f":{self.port}")
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def stop(self):
        """End the server, and the connections that clients keep."""
        self.stopped.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add(self, repo_id, files=None, **kwargs):
        """Add a repository; contents may be str."""
        content = {path: value.encode() if isinstance(value, str) else value for path, value in (files or {}).items()}
        self.repos[repo_id] = Repo(content, **kwargs)
        return self.repos[repo_id]

    def fault(self, path, times=1, **what):
        """Let requests whose address contains `path` go wrong.

        status=number answers that; cut=bytes ends the connection after them, stall=bytes goes silent; corrupt=True
        sends another content, short=bytes leaves them out; slow=seconds takes that long, wait=seconds begins that late.
        """
        self.faults.append({"path": path, "times": times, **what})

    def take_fault(self, address, *kinds):
        """The fault of one of `kinds` that an address meets now, or None."""
        with self.lock:
            for fault in self.faults:
                if fault["path"] in address and fault["times"] > 0 and set(kinds) & set(fault):
                    fault["times"] -= 1
                    return fault
        return None

    def asked(self, part, method=None):
        """Paths of the requests that contain `part`."""
        return [path for verb, path, _ in self.log if part in path and method in (None, verb)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def log_message(self, format, *args):
        """Quiet."""

    def _run(self):
        self.hub = self.server.hub
        parts = urlsplit(self.path)
        self.address, self.query = unquote(parts.path), {key: value[0] for key, value in parse_qs(parts.query).items()}
        length = int(self.headers.get("Content-Length") or 0)
        if self.hub.stopped.is_set():
            self.close_connection = True
            return
        chunked = "chunked" in self.headers.get("Transfer-Encoding", "")
        self.body = self._read_chunks() if chunked else self.rfile.read(length)
        with self.hub.lock:
            self.hub.log.append((self.command, self.path, dict(self.headers)))
        fault = self.hub.take_fault(self.path, "wait")
        if fault is not None:
            time.sleep(fault["wait"])
        fault = self.hub.take_fault(self.path, "status")
        if fault is not None:
            self.send_json({"error": f"status {fault['status']} on demand"}, fault["status"], fault.get("headers"))
            return
        import hf_routes
        import om_routes
        routes = om_routes if self.address.startswith("/api/v1/") else hf_routes
        routes.answer(self)

    do_GET = do_HEAD = do_POST = do_PUT = _run

    def _read_chunks(self):
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    @property
    def token(self):
        """The token of the request, None without one."""
        value = self.headers.get("Authorization") or ""
        return value.removeprefix("Bearer ") or None

    def json(self):
        """The body as JSON."""
        return json.loads(self.body or b"{}")

    def send_json(self, content, status=200, headers=None):
        """Answer with JSON."""
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def redirect(self, location, headers):
        """Answer 302."""
        self.send_response(302)
        for key, value in {**headers, "Location": location, "Content-Length": "0"}.items():
            self.send_header(key, value)
        self.end_headers()

    def send_file(self, content, headers=None):
        """Answer with a file's content, from the byte that Range asks for, with the fault that is due."""
        start = 0
        asked = self.headers.get("Range")
        if asked and self.command == "GET":
            start = int(asked.removeprefix("bytes=").split("-")[0])
            if start >= len(content):
                self.send_json({"error": "range"}, 416, {"Content-Range": f"bytes */{len(content)}"})
                return
        faults = ("cut", "stall", "corrupt", "short", "slow") if self.command == "GET" else ()
        fault = self.hub.take_fault(self.path, *faults) or {}
        if fault.get("corrupt"):
            content = bytes([content[0] ^ 1]) + content[1:]
        data = content[start:len(content) - fault.get("short", 0)]
        self.send_response(206 if start else 200)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if "cut" in fault:
            self.wfile.write(data[:fault["cut"]])
            self.wfile.flush()
            self.connection.close()
            self.close_connection = True
            return
        if "stall" in fault:
            self.wfile.write(data[:fault["stall"]])
            self.wfile.flush()
            self.hub.stopped.wait(30)
            self.close_connection = True
            return
        if "slow" in fault:
            step = max(1, len(data) // 10)
            for at in range(0, len(data), step):
                self.wfile.write(data[at:at + step])
                self.wfile.flush()
                time.sleep(fault["slow"] / 10)
            return
        self.wfile.write(data)
