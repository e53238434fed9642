"""A proxy in front of a store, which counts requests and does what bad days of a store do."""

import collections
import http.client
import random
import socket
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "PATCH")
HOP = {"connection", "keep-alive", "transfer-encoding", "host", "content-length"}


class Proxy:
    """Passes requests on to `target`, an address; hurts some of them.

    Attributes:
        address: of the proxy.
        counts: of requests, by kind, such as "GET object" or "POST upload".
        sent: bytes of bodies on their way to the store, and `received` from it.
        hurt: counts of what was done to requests.
        most: requests that are still hurt.
        deny: a status that every request of the methods `denied` gets, or 0.
    """

    def __init__(self, *, shares=None, seed=0):
        """Listens on a free port.

        Args:
            shares: of the requests that are hurt, by name: "429", "503", "cut upload" (half of it
                arrives), "lost answer" (the store does it and nobody learns), "delay".
            seed: of the choice.
        """
        self.target = ""
        self.counts, self.hurt = collections.Counter(), collections.Counter()
        self.sent = self.received = self.deny = 0
        self.shares, self.most = shares or {}, 10**9
        self.denied = METHODS
        self._draw, self._lock = random.Random(seed), threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exception):
        self._server.shutdown()
        self._server.server_close()

    def choose(self):
        """Returns what is done to the next request, or ""."""
        with self._lock:
            at = self._draw.random()
            for name, share in self.shares.items() if self.most else ():
                if at < share:
                    self.hurt[name] += 1
                    self.most -= 1
                    return name
                at -= share
        return ""

    def count(self, kind, sent, received):
        with self._lock:
            self.counts[kind] += 1
            self.sent += sent
            self.received += received

    def reset(self):
        with self._lock:
            self.counts.clear()
            self.sent = self.received = 0


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # a client that was killed


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self):
        proxy = self.server.proxy
        body = self._body()
        fault = proxy.choose()
        denied = proxy.deny if self.command in proxy.denied else 0
        if denied or fault in ("429", "503"):
            proxy.count(self._kind(), len(body), 0)
            self._send(denied or int(fault), [("Retry-After", "0")], b"denied by a test")
            return
        if fault == "delay":
            time.sleep(0.3)
        if fault == "cut upload" and body:
            self._cut(body)
            return
        status, headers, content = self._passed_on(body)
        proxy.count(self._kind(), len(body), len(content))
        if fault == "lost answer":
            self._hang_up()
            return
        self._send(status, headers, content)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = answer

    def _body(self):
        if self.headers.get("Transfer-Encoding", "") == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _passed_on(self, body):
        place = urllib.parse.urlsplit(self.server.proxy.target)
        store = http.client.HTTPConnection(place.hostname, place.port, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
        headers["Content-Length"] = str(len(body))
        try:
            store.request(self.command, self.path, body, headers)
            answer = store.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            store.close()

    def _cut(self, body):
        """Sends half of an upload to the store, then ends both connections."""
        place = urllib.parse.urlsplit(self.server.proxy.target)
        with socket.create_connection((place.hostname, place.port), timeout=10) as store:
            head = f"{self.command} {self.path} HTTP/1.1\r\nHost: {place.netloc}\r\n"
            head += "".join(
                f"{k}: {v}\r\n" for k, v in self.headers.items() if k.lower() not in HOP
            )
            store.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
            store.sendall(body[: len(body) // 2])
        self._hang_up()

    def _hang_up(self):
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _kind(self):
        path = urllib.parse.urlsplit(self.path).path
        if "/upload/" in path:
            return f"{self.command} upload"
        rest = path.partition("/o")[2] if "/b/" in path else path
        return f"{self.command} {'object' if rest.strip('/') else 'list'}"

    def _send(self, status, headers, content):
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *args):
        pass
