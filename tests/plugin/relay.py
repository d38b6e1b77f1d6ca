"""A relay in front of an S3 server, which counts the bytes that the server sends, and may send them slowly."""

import contextlib
import socket
import threading
import time


class CountingRelay:
    """Passes every byte on in both directions, and counts those from the server.

    Connections share `bytes_per_second`, as they share a network; without it, nothing is delayed.
    """

    def __init__(self, server_port, bytes_per_second=None):
        self.server_port, self.n_bytes = server_port, 0
        self.bytes_per_second, self.free_at, self.lock = bytes_per_second, 0.0, threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                client = self.listener.accept()[0]
                server = socket.create_connection(("127.0.0.1", self.server_port))
                threading.Thread(target=self._pass_on, args=(client, server), daemon=True).start()
                threading.Thread(target=self._pass_on, args=(server, client, True), daemon=True).start()

    def _pass_on(self, source, target, is_counted=False):
        with contextlib.suppress(OSError):
            while block := source.recv(2**16):
                self.n_bytes += len(block) * is_counted
                if is_counted and self.bytes_per_second:
                    self._wait(len(block))
                target.sendall(block)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def _wait(self, n_bytes):
        """Wait until the network has sent what was sent before and these bytes."""
        with self.lock:
            self.free_at = max(self.free_at, time.monotonic()) + n_bytes / self.bytes_per_second
            ready = self.free_at
        time.sleep(max(0.0, ready - time.monotonic()))

    def close(self):
        self.listener.close()
