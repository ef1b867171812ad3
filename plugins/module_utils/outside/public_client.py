# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""HTTP(S) from outside, through public names, with the standard library alone.

A check is worth what its error message says, so whatever keeps an answer from arriving becomes one
exception, `Unreachable`, which has a short `kind` for programs, and a `cause` and a `mend` for people.

A resolve map stands in for DNS: the connection goes to the address in the map, while SNI, the Host
header and the check of the certificate keep using the name. Proxies from the environment are not used:
what counts is what this machine sees for itself.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import http.client
import ipaddress
import json
import socket
import ssl
import threading
import time
import urllib.parse
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.cae.matrix.plugins.module_utils.outside.transport import BadCaFile, tls_context

DEFAULT_PORTS = {"http": 80, "https": 443}
REDIRECTS = (301, 302, 303, 307, 308)
# OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which the ssl module has no name for: read an expired certificate's dates.
_NO_CHECK_TIME = 0x200000
_EXPIRED, _NOT_YET_VALID, _HOSTNAME_MISMATCH, _ADDRESS_MISMATCH = 10, 9, 62, 64
_UNKNOWN_CA = (18, 19, 20, 21)
_NOT_TLS = (
    "WRONG_VERSION_NUMBER",
    "HTTP_REQUEST",
    "PACKET_LENGTH_TOO_LONG",
    "RECORD_LAYER_FAILURE",
    "UNKNOWN_PROTOCOL",
)
_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.ENETDOWN, errno.EHOSTDOWN)


class Unreachable(Exception):
    """No usable answer: `kind` for programs, `cause` and `mend` for people.

    Kinds: bad-url, name-not-found, name-lookup-failed, refused, timeout, no-route, closed,
    tls-unknown-ca, tls-expired, tls-not-yet-valid, tls-name-mismatch, tls-certificate, tls-protocol,
    tls-not-spoken, not-http, too-large, too-many-redirects, redirect-to-http, not-json, bad-ca-file.
    """

    def __init__(self, cause: str, mend: str, kind: str = "unreachable", url: str = "") -> None:
        super().__init__(f"{cause} {mend}")
        self.cause = cause
        self.mend = mend
        self.kind = kind
        self.url = url


@dataclass(frozen=True)
class Certificate:
    """What the peer showed, once verified."""

    subject_alt_names: tuple[str, ...]
    not_before: datetime.datetime
    not_after: datetime.datetime
    issuer: str

    @classmethod
    def from_peer(cls, peer: Mapping[str, Any]) -> Certificate:
        issuer = {name: value for relative in peer.get("issuer", ()) for name, value in relative}
        return cls(
            subject_alt_names=tuple(str(value) for _, value in peer.get("subjectAltName", ())),
            not_before=_certificate_time(str(peer["notBefore"])),
            not_after=_certificate_time(str(peer["notAfter"])),
            issuer=str(issuer.get("commonName") or issuer.get("organizationName") or "?"),
        )


@dataclass(frozen=True)
class Redirect:
    """One hop: `url` answered `status` and sent us to `location`."""

    url: str
    status: int
    location: str


@dataclass(frozen=True)
class Response:
    """An answer, whatever its status. `headers.get()` knows no case; `url` is the last one asked."""

    url: str
    status: int
    headers: http.client.HTTPMessage
    body: bytes
    received: datetime.datetime
    redirects: tuple[Redirect, ...] = ()
    certificate: Certificate | None = None
    tls_version: str | None = None

    @property
    def content_type(self) -> str:
        """The media type alone, in lower case; empty when the server names none."""
        return str(self.headers.get("Content-Type") or "").split(";")[0].strip().lower()

    def text(self) -> str:
        return self.body.decode("utf-8", errors="replace")

    def json(self) -> Any:
        """The body as JSON, or `Unreachable` of kind not-json which shows how the body begins."""
        try:
            return json.loads(self.body.decode("utf-8"), parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            begins = " ".join(self.text()[:200].split())[:60]
            shown = f"it begins with {begins!r}" if begins else "it is empty"
            kind = f", content type {self.content_type}" if self.content_type else ""
            raise Unreachable(
                f"{self.url} answered {self.status} with something that is not JSON:"
                f" {shown}{kind} ({_first_line(error)}).",
                "Look at what is served there; often it is a website's own page in place of the expected document.",
                "not-json",
                self.url,
            ) from None


class PublicClient:
    """Asks public names, following `resolve` where it names an address.

    `resolve` maps a name, or "name:port", to an address, or "address:port" ("[address]:port" for IPv6).
    `ca_file` holds CAs in PEM, trusted in addition to the system's. `timeout` is for one whole request
    (each redirect begins a new one), so that a server that drips cannot hold a check up.
    """

    def __init__(
        self,
        resolve: Mapping[str, str] | None = None,
        ca_file: str | None = None,
        timeout: float = 10.0,
        max_body: int = 1 << 20,
        max_redirects: int = 5,
        user_agent: str = "cae.matrix",
    ) -> None:
        self.resolve = {str(name).lower().rstrip("."): str(address) for name, address in (resolve or {}).items()}
        self.timeout = timeout
        self.max_body = max_body
        self.max_redirects = max_redirects
        self.user_agent = user_agent
        self._ca_file = ca_file or None
        self._context = self._make_context()

    # -- asking -----------------------------------------------------------------------------------------------

    def get(self, url: str, headers: Mapping[str, str] | None = None, follow: bool = True) -> Response:
        return self.request("GET", url, headers=headers, follow=follow)

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        follow: bool = True,
    ) -> Response:
        """One answer, of any status; `Unreachable` when there is none."""
        sent = dict(headers or {})
        redirects: list[Redirect] = []
        while True:
            response = self._once(method, url, sent, body, tuple(redirects))
            location = response.headers.get("Location")
            if not follow or response.status not in REDIRECTS or not location:
                return response
            target = _join(url, location)
            redirects.append(Redirect(url, response.status, target))
            if len(redirects) > self.max_redirects:
                raise Unreachable(
                    f"{redirects[0].url} redirects more than {self.max_redirects} times, last to {target}.",
                    "Take the redirect loop out of that server's configuration.",
                    "too-many-redirects",
                    redirects[0].url,
                )
            before, after = urllib.parse.urlsplit(url), urllib.parse.urlsplit(target)
            if before.scheme == "https" and after.scheme == "http":
                raise Unreachable(
                    f"{url} redirects from HTTPS to {target}, which clients refuse to follow.",
                    "Let that redirect point at https://.",
                    "redirect-to-http",
                    url,
                )
            if (before.scheme, before.netloc) != (after.scheme, after.netloc):
                sent = {name: value for name, value in sent.items() if name.lower() not in ("authorization", "cookie")}
            if response.status == 303 or (response.status in (301, 302) and method == "POST"):
                method, body = "GET", None
            url = target

    def handshake(self, name: str, port: int = 443) -> tuple[Certificate, str]:
        """The verified certificate and the TLS version, without asking for anything."""
        url = f"https://{name}:{port}/"
        sock, where = self._connect(name, port, url)
        with sock, self._handshake(sock, name, port, where, url) as tls:
            return Certificate.from_peer(tls.getpeercert() or {}), str(tls.version())

    def addresses(self, name: str, port: int = 443) -> list[tuple[str, int]]:
        """Where `name` leads, (address, port) in the order in which they are tried."""
        name = name.lower().rstrip(".")
        mapped = self.resolve.get(f"{name}:{port}") or self.resolve.get(name)
        if mapped:
            return [_address(mapped, port)]
        with contextlib.suppress(ValueError):
            return [(str(ipaddress.ip_address(name)), port)]
        try:
            found = socket.getaddrinfo(name.encode("idna").decode("ascii"), port, type=socket.SOCK_STREAM)
        except UnicodeError:
            raise Unreachable(
                f"{name!r} is not a host name.", "Correct the name in the inventory.", "bad-url", name
            ) from None
        except socket.gaierror as error:
            if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
                raise Unreachable(
                    f"The name {name} is not in DNS.",
                    f"Create an A (and AAAA) record for {name}, or name its address in matrix_resolve before a move.",
                    "name-not-found",
                    name,
                ) from None
            raise Unreachable(
                f"Looking up the name {name} failed: {error.strerror}.",
                "Check this machine's resolver, and the name servers of that domain.",
                "name-lookup-failed",
                name,
            ) from None
        return list(dict.fromkeys((str(where[4][0]), port) for where in found))

    def accepts_tls(self, name: str, version: ssl.TLSVersion, port: int = 443) -> bool | None:
        """Would the server speak exactly this version? None when this machine's OpenSSL cannot ask."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # old versions are the point here
                context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
                context.maximum_version = version
                context.minimum_version = version
            context.set_ciphers("ALL:@SECLEVEL=0")
        except (ssl.SSLError, ValueError):
            return None
        raw, _ = self._connect(name, port)
        with raw:
            try:
                with context.wrap_socket(raw, server_hostname=name):
                    return True
            except ssl.SSLError as error:
                return None if error.reason in ("NO_PROTOCOLS_AVAILABLE", "NO_CIPHERS_AVAILABLE") else False
            except OSError as error:
                if isinstance(error, TimeoutError):
                    raise _timeout(f"{name}:{port}", self.timeout, f"https://{name}:{port}/") from None
                return False

    # -- one request ------------------------------------------------------------------------------------------

    def _once(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, redirects: tuple[Redirect, ...]
    ) -> Response:
        scheme, host, port, netloc, path = _parts(url)
        sock, where = self._connect(host, port, url)
        with contextlib.ExitStack() as stack:
            stack.callback(sock.close)
            deadline = time.monotonic() + self.timeout
            expired = stack.enter_context(_shut_down_after(sock, self.timeout))
            certificate: Certificate | None = None
            tls_version: str | None = None
            if scheme == "https":
                try:
                    tls = self._handshake(sock, host, port, where, url)
                except Unreachable:
                    if expired.is_set():
                        raise _timeout(where, self.timeout, url) from None
                    raise
                stack.callback(tls.close)
                certificate = Certificate.from_peer(tls.getpeercert() or {})
                tls_version = tls.version()
                sock = tls
            connection = http.client.HTTPConnection(host, port)
            connection.sock = sock
            try:
                connection.request(
                    method,
                    path,
                    body=body,
                    headers={
                        "Host": netloc,
                        "User-Agent": self.user_agent,
                        "Accept": "*/*",
                        "Accept-Encoding": "identity",
                        "Connection": "close",
                        **headers,
                    },
                )
                answer = connection.getresponse()
                received = datetime.datetime.now(datetime.UTC)
                content = answer.read(self.max_body + 1)
                cut_short = bool(answer.length) and len(content) <= self.max_body
            except (http.client.HTTPException, OSError, ValueError) as error:
                if expired.is_set() or isinstance(error, TimeoutError) or time.monotonic() >= deadline:
                    raise _timeout(where, self.timeout, url) from None
                raise self._broken(error, scheme, where, url) from None
            if expired.is_set():
                raise _timeout(where, self.timeout, url)
        if len(content) > self.max_body:
            raise Unreachable(
                f"{url} answered with more than {self.max_body} bytes.",
                "Look at what is served there; the expected document is small.",
                "too-large",
                url,
            )
        if cut_short:
            raise self._broken(http.client.IncompleteRead(content), scheme, where, url)
        return Response(url, answer.status, answer.headers, content, received, redirects, certificate, tls_version)

    @staticmethod
    def _broken(error: Exception, scheme: str, where: str, url: str) -> Unreachable:
        if isinstance(error, (http.client.RemoteDisconnected, http.client.IncompleteRead, ssl.SSLEOFError)) or (
            isinstance(error, OSError) and not isinstance(error, ssl.SSLError)
        ):
            return Unreachable(
                f"{where} closed the connection before its answer to {url} was complete.",
                "Read the log of the web server there; a proxy in front may also have no server behind it.",
                "closed",
                url,
            )
        if isinstance(error, ssl.SSLError):
            return Unreachable(
                f"TLS with {where} broke while reading {url}: {error.reason or _first_line(error)}.",
                "Read the log of the web server there (it may ask for a client certificate).",
                "tls-protocol",
                url,
            )
        mend = f"Check which service listens there, and that it speaks {scheme.upper()}."
        return Unreachable(f"{where} does not answer {url} in HTTP: {_first_line(error)!r}.", mend, "not-http", url)

    def _connect(self, host: str, port: int, url: str = "") -> tuple[socket.socket, str]:
        """A TCP connection, and the words for where it leads."""
        found = self.addresses(host, port)
        deadline = time.monotonic() + self.timeout
        failures: list[tuple[str, OSError]] = []
        for address, real_port in found:
            where = f"{host}:{real_port}" if address == host else f"{host}:{port} ({_shown(address, real_port, port)})"
            left = deadline - time.monotonic()
            if left <= 0:
                break
            try:
                # A share of the time for each address, so that one dead address does not use all of it.
                share = left / (len(found) - len(failures))
                sock = socket.create_connection((address, real_port), timeout=share)
            except OSError as error:
                failures.append((where, error))
                continue
            sock.settimeout(self.timeout)
            return sock, where
        where, failure = failures[0]
        also = f" ({len(failures) - 1} other address(es) failed as well)" if len(failures) > 1 else ""
        if isinstance(failure, ConnectionRefusedError):
            raise Unreachable(
                f"{where} refuses connections{also}.",
                f"Start the web server there and let it listen on port {port}; check that the address is right.",
                "refused",
                url,
            )
        if isinstance(failure, TimeoutError):
            raise _timeout(where, self.timeout, url)
        if failure.errno in _NO_ROUTE:
            raise Unreachable(
                f"There is no route to {where}{also}: {failure.strerror}.",
                "Check the address (an AAAA record without IPv6 is a usual reason), routing and firewall.",
                "no-route",
                url,
            )
        raise Unreachable(
            f"Connecting to {where} failed{also}: {failure.strerror or failure}.",
            "Check the address, routing and firewall.",
            "no-route",
            url,
        )

    # -- TLS --------------------------------------------------------------------------------------------------

    def _make_context(self) -> ssl.SSLContext:
        try:
            return tls_context(self._ca_file)
        except BadCaFile as error:
            raise Unreachable(
                str(error), "Let matrix_ca_file name a PEM file on the machine that runs the checks.", "bad-ca-file"
            ) from None

    def _handshake(self, sock: socket.socket, host: str, port: int, where: str, url: str) -> ssl.SSLSocket:
        try:
            return self._context.wrap_socket(sock, server_hostname=host)
        except ssl.SSLCertVerificationError as error:
            raise self._bad_certificate(error, host, port, where, url) from None
        except ssl.SSLError as error:
            raise _bad_handshake(error, where, url) from None
        except TimeoutError:
            raise _timeout(where, self.timeout, url) from None
        except OSError:
            raise Unreachable(
                f"{where} closed the connection during the TLS handshake.",
                f"Check that port {port} speaks TLS, and that it has a certificate for {host}.",
                "tls-protocol",
                url,
            ) from None

    def _bad_certificate(
        self, error: ssl.SSLCertVerificationError, host: str, port: int, where: str, url: str
    ) -> Unreachable:
        code = error.verify_code
        if code in (_EXPIRED, _NOT_YET_VALID):
            shown = self.look_at_certificate(host, port)
            now = datetime.datetime.now(datetime.UTC)
            if code == _EXPIRED:
                when = "has expired"
                if shown and shown.not_after <= now:
                    when = f"expired on {shown.not_after:%Y-%m-%d %H:%M} UTC"
                elif shown:
                    when = "is in date, but one of its issuer's certificates has expired"
                return Unreachable(
                    f"The certificate of {where} {when}.",
                    "Renew it (and see why the automatic renewal did not), then reload the web server.",
                    "tls-expired",
                    url,
                )
            since = f" before {shown.not_before:%Y-%m-%d %H:%M} UTC" if shown and shown.not_before > now else ""
            return Unreachable(
                f"The certificate of {where} is not valid yet{since}.",
                "Check the clock of this machine, and of the one that made the certificate.",
                "tls-not-yet-valid",
                url,
            )
        if code in (_HOSTNAME_MISMATCH, _ADDRESS_MISMATCH):
            shown = self.look_at_certificate(host, port)
            names = f", only for {', '.join(shown.subject_alt_names) or 'no name at all'}" if shown else ""
            return Unreachable(
                f"The certificate of {where} is not for {host}{names}.",
                f"Ask for a certificate that names {host}; if another site answers there, add a virtual host for it.",
                "tls-name-mismatch",
                url,
            )
        if code in _UNKNOWN_CA:
            own = " It is self-signed." if code == 18 else ""
            return Unreachable(
                f"The certificate of {where} comes from a CA that is not trusted here, or without its chain"
                f" ({error.verify_message}).{own}",
                "Serve the full chain (fullchain.pem); for a private CA, set matrix_ca_file to its certificate.",
                "tls-unknown-ca",
                url,
            )
        return Unreachable(
            f"The certificate of {where} is refused: {error.verify_message}.",
            "Replace the certificate.",
            "tls-certificate",
            url,
        )

    def look_at_certificate(self, host: str, port: int) -> Certificate | None:
        """What a server shows that was refused for its name or date, for the message."""
        context = self._make_context()
        context.check_hostname = False
        context.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME)
        with contextlib.suppress(OSError, Unreachable, KeyError, ValueError):
            sock, _ = self._connect(host, port)
            with sock, context.wrap_socket(sock, server_hostname=host) as tls:
                return Certificate.from_peer(tls.getpeercert() or {})
        return None


@contextlib.contextmanager
def _shut_down_after(sock: socket.socket, seconds: float) -> Iterator[threading.Event]:
    """Socket timeouts count from the last byte; this one counts from the start."""
    # A duplicate, since wrapping a socket in TLS takes its descriptor away.
    twin = sock.dup()
    expired = threading.Event()

    def end() -> None:
        expired.set()
        with contextlib.suppress(OSError):
            twin.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield expired
    finally:
        timer.cancel()
        timer.join()
        twin.close()


def _parts(url: str) -> tuple[str, str, int, str, str]:
    """Scheme, host, port, what the Host header says, and the path with its query."""
    try:
        split = urllib.parse.urlsplit(url)
        scheme, host, port = split.scheme, split.hostname, split.port
        if scheme not in DEFAULT_PORTS or not host or split.username is not None:
            raise ValueError("not http:// or https:// with a host")
        host = host if ":" in host else host.encode("idna").decode("ascii")
        path = urllib.parse.quote(split.path or "/", safe="/%:@!$&'()*+,;=~-._")
        query = urllib.parse.quote(split.query, safe="/%:@!$&'()*+,;=~-._?")
    except (ValueError, UnicodeError):
        raise Unreachable(
            f"{url!r} is not an address that can be asked.",
            "Write https://, a host name, and a path.",
            "bad-url",
            url,
        ) from None
    shown = f"[{host}]" if ":" in host else host
    netloc = shown if port in (None, DEFAULT_PORTS[scheme]) else f"{shown}:{port}"
    return scheme, host, port or DEFAULT_PORTS[scheme], netloc, path + (f"?{query}" if query else "")


def _join(url: str, location: str) -> str:
    try:
        return urllib.parse.urldefrag(urllib.parse.urljoin(url, location)).url
    except ValueError:
        raise Unreachable(
            f"{url} redirects to {location!r}, which is not an address.", "Correct that redirect.", "bad-url", url
        ) from None


def _address(mapped: str, port: int) -> tuple[str, int]:
    """`address`, `address:port` or `[address]:port` of a resolve map."""
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(mapped.strip("[]"))), port
    address, _, own_port = mapped.rpartition(":")
    try:
        number = int(own_port)
        if not 0 < number < 65536:
            raise ValueError
        return str(ipaddress.ip_address(address.strip("[]"))), number
    except ValueError:
        raise Unreachable(
            f"{mapped!r} in matrix_resolve is not an address.",
            "Give an IPv4 or IPv6 address, with a port where it is not the usual one.",
            "bad-url",
        ) from None


def _shown(address: str, real_port: int, port: int) -> str:
    if real_port == port:
        return address
    return f"[{address}]:{real_port}" if ":" in address else f"{address}:{real_port}"


def _timeout(where: str, seconds: float, url: str) -> Unreachable:
    return Unreachable(
        f"{where} did not answer within {seconds:g} s.",
        "Check that the machine is up and that a firewall lets this port through (it may drop packets in silence).",
        "timeout",
        url,
    )


def _bad_handshake(error: ssl.SSLError, where: str, url: str) -> Unreachable:
    reason = error.reason or ""
    if reason in _NOT_TLS:
        return Unreachable(
            f"{where} does not speak TLS on that port.",
            "Let the web server listen with TLS there (in nginx: `listen 443 ssl`).",
            "tls-not-spoken",
            url,
        )
    if reason in ("UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION"):
        cause = f"{where} speaks no TLS version from 1.2 on."
    elif reason == "TLSV1_UNRECOGNIZED_NAME":
        cause = f"{where} says that it does not serve this name."
    elif isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        cause = f"{where} closed the connection during the TLS handshake."
    else:
        cause = f"The TLS handshake with {where} failed: {reason or _first_line(error)}."
    return Unreachable(
        cause,
        "Let the web server speak TLS 1.2 and 1.3 with a certificate for this name; its log says more.",
        "tls-protocol",
        url,
    )


def _certificate_time(text: str) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(ssl.cert_time_to_seconds(text), datetime.UTC)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:120]
