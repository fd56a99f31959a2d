"""A device with a web page, on loopback: it can go away and return on the same port, hang, or cut answers off."""

import contextlib
import hashlib
import json
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Response:
    body: bytes | str | dict[str, Any] = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut_off: bool = False


Handle = Callable[[Request], Response]


class FakeDevice:
    """Answers with `handle` until stopped; `requests` keeps what came."""

    def __init__(self, handle: Handle, certificate: Path | None = None) -> None:
        self.handle = handle
        self.requests: list[Request] = []
        self.hang = threading.Event()
        self.woken = threading.Event()
        self._certificate = certificate
        self._port = 0
        self._connections: list[socket.socket] = []
        self._server: ThreadingHTTPServer | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http{'s' if self._certificate else ''}://127.0.0.1:{self._port}"

    def start(self) -> None:
        device = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                device._connections.append(self.connection)

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                request = Request(self.command, self.path, dict(self.headers), body)
                device.requests.append(request)
                if device.hang.is_set():
                    device.woken.wait(30)
                response = device.handle(request)
                content = response.body
                if isinstance(content, dict):
                    content = json.dumps(content)
                if isinstance(content, str):
                    content = content.encode()
                self.send_response(response.status)
                for name, value in response.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content) + (100 if response.cut_off else 0)))
                self.end_headers()
                self.wfile.write(content)
                self.close_connection = response.cut_off

            do_GET = do_POST = do_DELETE = _answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                return

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                return

        self._server = Server(("127.0.0.1", self._port), Handler)
        if self._certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Go away, with every connection that is open."""
        if self._server is None:
            return
        self.woken.set()
        self._server.shutdown()
        self._server.server_close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._connections.clear()
        self._server = None


@contextlib.contextmanager
def device(handle: Handle, certificate: Path | None = None) -> Iterator[FakeDevice]:
    fake = FakeDevice(handle, certificate)
    try:
        yield fake
    finally:
        fake.stop()


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 with its key, and the certificate alone."""
    key, certificate, both = folder / "key.pem", folder / "certificate.pem", folder / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=bmc"]
    subprocess.run([*command, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    both.write_text(certificate.read_text() + key.read_text())
    return both, certificate


def digest_is_right(request: Request, user: str, password: str, realm: str) -> bool:
    """RFC 7616 with SHA-256 and qop auth, as a Shelly checks it."""
    given = request.headers.get("Authorization", "")
    if not given.startswith("Digest "):
        return False
    parts = {name: value.strip('"') for name, value in re.findall(r'(\w+)=("[^"]*"|[^,\s]+)', given)}

    def sha256(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    first = sha256(f"{user}:{realm}:{password}")
    second = sha256(f"{request.method}:{request.path}")
    wanted = sha256(":".join([first, parts["nonce"], parts["nc"], parts["cnonce"], parts["qop"], second]))
    return parts.get("algorithm") == "SHA-256" and parts["uri"] == request.path and parts["response"] == wanted
