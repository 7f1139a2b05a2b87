"""A read-only HTTP server for one page, /metrics, in threads of its own."""

from __future__ import annotations

import errno
import math
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from prometheus_client import generate_latest

from cluster.telemetry.exposition import registry
from cluster.telemetry.telemetry import Telemetry
from common.errors import UserError

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PORTS = 100
AT_ONCE = 8
REQUEST_SECONDS = 10.0
LINGER_SECONDS = 60.0
POLL_SECONDS = 0.1


class MetricsServer(ThreadingMixIn, TCPServer):
    """Serves the public numbers while it is entered; what clients send it cannot reach the run.

    A request has ten seconds in all, eight are answered at a time, and more are hung up on.

    Args:
        host: address to listen on.
        port: the first to try; a hundred are tried.
        telemetry: whose numbers.

    Attributes:
        port: the one that was free.

    Raises:
        UserError: the address is none of this machine's, or no port is free.
    """

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 4 * AT_ONCE

    def __init__(self, host: str, port: int, telemetry: Telemetry) -> None:
        self.telemetry = telemetry
        self.registry = registry(telemetry)
        self.slots = threading.BoundedSemaphore(AT_ONCE)
        self.read = threading.Event()
        self.read_at = -math.inf
        self.lingering_since = math.inf
        try:
            self.address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        except (OSError, UnicodeError):
            raise UserError(f"--metrics-host {host}: there is no such address") from None
        self.port = self._listen(host, range(port, min(port + PORTS, 2**16)))

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=[POLL_SECONDS], name="metrics", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def linger(self) -> None:
        """Waits until the page is read once more, if somebody has been reading it within the last minute."""
        self.lingering_since = time.monotonic()
        if time.monotonic() - self.read_at < LINGER_SECONDS:
            self.read.wait(LINGER_SECONDS)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answers in a thread, unless too many are being answered already."""
        if self.slots.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answers one request; its connection is closed when it takes too long, however it spends its time."""
        deadline = threading.Timer(REQUEST_SECONDS, _hang_up, [request])
        deadline.daemon = True
        deadline.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            deadline.cancel()
            self.slots.release()
            self.telemetry.served(time.thread_time())

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is nobody's concern."""

    def _listen(self, host: str, ports: range) -> int:
        for port in ports:
            try:
                super().__init__((host, port), _Handler)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    why = f"--metrics-host {host} --metrics-port {port}: cannot listen there ({error.strerror})"
                    raise UserError(why) from None
            else:
                return port
        raise UserError(f"--metrics-port {ports[0]}: no port is free up to {ports[-1]}; name another, or 0 for none")


class _Handler(BaseHTTPRequestHandler):
    server: MetricsServer
    timeout = REQUEST_SECONDS

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if address.path != "/metrics":
            self.send_error(404, "there is only /metrics")
            return
        own = str(self.server.telemetry.folder.path.resolve())
        if parse_qs(address.query).get("run", [own]) != [own]:
            self.send_error(404, "this is another run")
            return
        began = self.server.read_at = time.monotonic()
        page = generate_latest(self.server.registry)
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)
        if began >= self.server.lingering_since:
            self.server.read.set()

    def version_string(self) -> str:
        return "dreamfleet"

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: the terminal is the progress display's."""


def _hang_up(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it is closed already
