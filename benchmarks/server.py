"""An S3 server on this machine that answers from files, counts, and can be as slow as a network."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

PIECE_BYTES = 2**16  # sent at a time


class Server:
    """Answers requests for objects, and for lists of them, as S3 does. Objects that are not there are refused.

    Attributes
    ----------
    n_bytes, n_requests : of the content of each object, by its key
    most_at_once : requests for objects
    """

    def __init__(self, paths: Mapping[str, Path], *, delay_seconds: float = 0, bytes_per_second: float = 0) -> None:
        self.n_bytes: Counter[str] = Counter()
        self.n_requests: Counter[str] = Counter()
        self.paths, self.delay_seconds, self.bytes_per_second = paths, delay_seconds, bytes_per_second
        self.n_at_once = self.most_at_once = 0
        self.lock, self.free_at = threading.Lock(), 0.0
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_: Any) -> None:
                pass

            def do_HEAD(self) -> None:
                server.answer(self, is_sent=False)

            def do_GET(self) -> None:
                server.answer(self, is_sent=True)

        ThreadingHTTPServer.request_queue_size = 50  # boto3 opens ten connections at once
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    @contextmanager
    def running(self) -> Iterator[Server]:
        """Answer requests until the block ends."""
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        yield self
        self.http.shutdown()

    def answer(self, request: BaseHTTPRequestHandler, *, is_sent: bool) -> None:
        """Answer a request for an object or a list, after the delay."""
        url = urlsplit(request.path)
        key = unquote(url.path).lstrip("/").partition("/")[2]  # without the bucket
        if not key:
            self._send_list(request, parse_qs(url.query).get("prefix", [""])[0])
            return
        with self.lock:
            self.n_at_once += 1
            self.most_at_once = max(self.most_at_once, self.n_at_once)
        time.sleep(self.delay_seconds)
        path = self.paths.get(key)
        size = path.stat().st_size if path else 0
        first, last = re.findall(r"bytes=(\d+)-(\d*)", request.headers.get("Range", "bytes=0-"))[0]
        start, stop = int(first), min(int(last or size) + 1, size)
        request.send_response(403 if path is None else 206 if "Range" in request.headers else 200)
        request.send_header("Content-Length", str(stop - start if path else 0))
        request.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        request.send_header("ETag", f'"{size}"')
        request.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        request.end_headers()
        if is_sent and path:
            with path.open("rb") as file:
                file.seek(start)
                for n_left in range(stop - start, 0, -PIECE_BYTES):
                    request.wfile.write(self._wait_for(file.read(min(n_left, PIECE_BYTES))))
        with self.lock:
            self.n_at_once -= 1
            self.n_requests[key] += 1
            self.n_bytes[key] += (stop - start) * is_sent

    def _wait_for(self, piece: bytes) -> bytes:
        """Return a piece when the line, which all connections share, has carried it."""
        if self.bytes_per_second:
            with self.lock:
                self.free_at = max(self.free_at, time.monotonic()) + len(piece) / self.bytes_per_second
                seconds = self.free_at - time.monotonic()
            time.sleep(max(0, seconds))
        return piece

    def _send_list(self, request: BaseHTTPRequestHandler, prefix: str) -> None:
        """Send the objects of a folder, as `ListObjectsV2` does with a slash as delimiter."""
        keys = [key for key in self.paths if key.startswith(prefix) and "/" not in key[len(prefix) :]]
        entries = [(escape(key), self.paths[key].stat().st_size) for key in keys]
        objects = "".join(
            f'<Contents><Key>{key}</Key><Size>{n}</Size><ETag>"{n}"</ETag></Contents>' for key, n in entries
        )
        body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{objects}</ListBucketResult>".encode()
        request.send_response(200)
        request.send_header("Content-Type", "application/xml")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)
