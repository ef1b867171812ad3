# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Web servers on loopback that tests of checks from outside talk to, and certificates for them."""

from __future__ import annotations

import contextlib
import datetime
import http.server
import ipaddress
import socket
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.cae.matrix.tests.patience import patient
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


@dataclass
class Authority:
    """A private CA which makes certificates with whatever fault a test wants."""

    directory: Path
    name: str = "Test CA"
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        now = datetime.datetime.now(datetime.UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 400 * DAY)
            .not_valid_after(now + 400 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        self.ca_file = self.directory / f"{self.name}.pem"
        self.ca_file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def server_context(
        self,
        *names: str,
        starts: datetime.timedelta = -2 * DAY,
        ends: datetime.timedelta = 90 * DAY,
        version: ssl.TLSVersion | None = None,
        floor: ssl.TLSVersion | None = None,
    ) -> ssl.SSLContext:
        """A TLS server's context for `names`; `version` alone is spoken if given, or from `floor` on."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server_file(*names, starts=starts, ends=ends))
        if version is not None or floor is not None:
            context.set_ciphers("ALL:@SECLEVEL=0")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                context.minimum_version = version or floor or ssl.TLSVersion.TLSv1_2
                if version is not None:
                    context.maximum_version = version
        return context

    def server_file(
        self, *names: str, starts: datetime.timedelta = -2 * DAY, ends: datetime.timedelta = 90 * DAY
    ) -> Path:
        """A file with a new key and its certificate for `names`."""
        now = datetime.datetime.now(datetime.UTC)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])]))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + starts)
            .not_valid_after(now + ends)
            .add_extension(x509.SubjectAlternativeName([_alternative(name) for name in names]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        path = self.directory / f"{certificate.serial_number}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        return path


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@dataclass
class Asked:
    method: str
    host: str
    path: str
    headers: dict[str, str]
    body: bytes


Answer = tuple[int, dict[str, str], bytes]
Site = Callable[[Asked], Answer]


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    context: ssl.SSLContext | None = None
    site: Site

    def finish_request(self, request: Any, client_address: Any) -> None:
        # The handshake belongs to the thread of the connection: a client that refuses it stops nothing else.
        with contextlib.suppress(OSError):
            if self.context is not None:
                request = self.context.wrap_socket(request, server_side=True)
            super().finish_request(request, client_address)
            if isinstance(request, ssl.SSLSocket):
                request.close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        length = int(self.headers.get("Content-Length") or 0)
        asked = Asked(
            self.command,
            str(self.headers.get("Host")),
            self.path,
            {name.lower(): value for name, value in self.headers.items()},
            self.rfile.read(length),
        )
        status, headers, body = server.site(asked)
        self.send_response_only(status)
        for name, value in {"Date": self.date_time_string(), "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_OPTIONS = _answer

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def serve(site: Site, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve `site`, over TLS when there is a context; gives address:port for a resolve map."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.context = context
    server.site = site
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def speak(conversation: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that says what a test wants, byte by byte, to whoever connects."""
    listener = socket.create_server(("127.0.0.1", 0))
    stopping = threading.Event()

    def loop() -> None:
        while True:
            peer, _ = listener.accept()
            with peer:
                if stopping.is_set():
                    return
                with contextlib.suppress(OSError):
                    conversation(peer)

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    host, port = listener.getsockname()[:2]
    try:
        yield f"{host}:{port}"
    finally:
        stopping.set()
        with contextlib.suppress(OSError):
            socket.create_connection((host, port), timeout=patient(1)).close()
        thread.join(timeout=patient(5))
        listener.close()
