"""A proxy on loopback: CONNECT and plain requests for any host end at one given port; it notes the hosts asked for."""
import http.client
import select
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class Proxy:
    """`url` is its address; every host is the one at `port`; `hosts` lists what was asked for."""

    def __init__(self, port):
        self.hosts = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads, self._server.proxy, self._server.target = True, self, port
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def stop(self):
        """End the proxy."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    timeout = 30

    def log_message(self, format, *args):
        """Quiet."""

    def do_CONNECT(self):
        """Tunnel."""
        self.server.proxy.hosts.append(self.path.split(":")[0])
        with socket.create_connection(("127.0.0.1", self.server.target)) as far:
            self.send_response(200)
            self.end_headers()
            ends = {self.connection: far, far: self.connection}
            while True:
                ready, _, _ = select.select(list(ends), [], [], 30)
                for end in ready:
                    data = end.recv(1 << 16)
                    if not data:
                        self.close_connection = True
                        return
                    ends[end].sendall(data)
                if not ready:
                    return

    def do_GET(self):
        """Pass on."""
        parts = urlsplit(self.path)
        self.server.proxy.hosts.append(parts.hostname)
        far = http.client.HTTPConnection("127.0.0.1", self.server.target, timeout=30)
        far.request(self.command, parts.path + (f"?{parts.query}" if parts.query else ""),
                    headers={key: value for key, value in self.headers.items() if key.lower() != "connection"})
        answer = far.getresponse()
        data = answer.read()
        self.send_response(answer.status)
        for key, value in answer.getheaders():
            if key.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_HEAD = do_GET
