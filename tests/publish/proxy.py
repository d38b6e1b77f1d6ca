"""A proxy in front of S3 that records requests, and fails when a test tells it to."""

import contextlib
import http.client
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


class Request:
    """A request on its way to S3; `n_answered_bytes` is the size of what S3 answered."""

    n_answered_bytes = 0

    def __init__(self, method, path, headers, body):
        self.method, self.headers, self.body = method, headers, body
        parts = urlsplit(path)
        self.path, self.query = unquote(parts.path), parse_qs(parts.query, keep_blank_values=True)
        self.name = self.path.rpartition("/")[2]

    def puts(self, name=""):
        """Return whether the request brings the content of an object."""
        return self.method == "PUT" and name in self.name and not set(self.query) - {"x-id"}


class Cut(Exception):
    """Raised to cut the connection in place of an answer."""


def refuse(status, code, message="as told by the test"):
    """Return an answer of S3 that reports a failure."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    return status, {"Content-Type": "application/xml"}, body


class Proxy:
    """Passes requests on to S3 and records them; `fault` may answer instead, `after` acts when S3 has answered.

    `shorten` returns the part of a content that is sent before the connection is cut, or None to send all of it.
    """

    def __init__(self, port):
        self.port, self.requests, self.n_under_way, self.lock = port, [], 0, threading.Lock()
        self.passed_on = []
        self.clear()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def answer(self):
                with proxy.lock:
                    proxy.n_under_way += 1
                try:
                    length = int(self.headers.get("Content-Length") or 0)
                    body = self.rfile.read(length)
                    if len(body) < length:
                        raise Cut  # the sender died in the middle of it
                    request = Request(self.command, self.path, dict(self.headers), body)
                    with proxy.lock:
                        proxy.requests.append(request)
                    status, headers, content = proxy.fault(request) or self.pass_on(request)
                    proxy.after(request)
                    self.send_response(status)
                    for name, value in headers.items():
                        if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                            self.send_header(name, value)
                    length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(content))
                    self.send_header("Content-Length", length)
                    self.end_headers()
                    if self.command != "HEAD":
                        part = proxy.shorten(request, content)
                        self.wfile.write(content if part is None else part)
                        if part is not None:
                            raise Cut
                except (Cut, OSError):
                    self.close_connection = True
                    with contextlib.suppress(OSError):
                        self.connection.shutdown(socket.SHUT_RDWR)
                finally:
                    with proxy.lock:
                        proxy.n_under_way -= 1

            def pass_on(self, request):
                connection = http.client.HTTPConnection("127.0.0.1", proxy.port)
                connection.request(self.command, self.path, request.body, dict(self.headers))
                response = connection.getresponse()
                content = response.read()
                request.n_answered_bytes = len(content)
                if response.status < 300:
                    proxy.passed_on.append(request)
                return response.status, dict(response.headers), content

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda request, address: None  # a sender that died
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        """End the proxy, and free its port."""
        self.server.shutdown()
        self.server.server_close()

    def clear(self):
        """Forget all requests and faults."""
        self.fault = self.after = lambda request: None
        self.shorten = lambda request, content: None
        self.requests, self.passed_on = [], []

    def wait(self):
        """Wait until no request is under way."""
        while self.n_under_way:
            time.sleep(0.005)

    def contents_sent(self):
        """Return the names of the objects whose content S3 accepted, in order."""
        return [request.name for request in self.passed_on if request.puts()]
