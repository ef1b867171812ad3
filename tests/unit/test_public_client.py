# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import datetime
import errno
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cae.matrix.plugins.module_utils.outside.public_client import PublicClient, Unreachable
from ansible_collections.cae.matrix.tests.patience import at_most, patient
from ansible_collections.cae.matrix.tests.unit.public_server import DAY, Answer, Asked, Authority, serve, speak

NAME = "matrix.atelier.test"
URL = f"https://{NAME}/"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def hello(asked: Asked) -> Answer:
    return 200, {"Content-Type": "application/json; charset=utf-8"}, b'{"hello": "world"}'


def client(where: str, authority: Authority | None = None, **options: Any) -> PublicClient:
    options.setdefault("timeout", patient(5))
    return PublicClient({NAME: where}, str(authority.ca_file) if authority else None, **options)


def refused(asking: PublicClient, url: str = URL) -> Unreachable:
    with pytest.raises(Unreachable) as raised:
        asking.get(url)
    assert raised.value.cause.endswith((".", "…"))
    assert raised.value.mend.endswith(".")
    return raised.value


def test_the_name_is_kept_where_the_address_comes_from_the_map(authority: Authority) -> None:
    asked: list[Asked] = []
    names: list[str | None] = []

    def site(what: Asked) -> Answer:
        asked.append(what)
        return hello(what)

    context = authority.server_context(NAME, "other.test")
    context.sni_callback = lambda sock, name, ctx: names.append(name)
    with serve(site, context) as where:
        answer = client(where, authority).get(f"{URL}a%20b?c=d", headers={"X-Own": "yes"})
    assert (answer.status, answer.json(), answer.content_type) == (200, {"hello": "world"}, "application/json")
    assert names == [NAME]
    assert (asked[0].host, asked[0].path, asked[0].headers["x-own"]) == (NAME, "/a%20b?c=d", "yes")
    assert answer.tls_version == "TLSv1.3"
    assert answer.certificate is not None
    assert answer.certificate.subject_alt_names == (NAME, "other.test")
    assert answer.certificate.issuer == "Test CA"
    assert abs(answer.certificate.not_after - datetime.datetime.now(datetime.UTC) - 90 * DAY) < DAY / 24
    assert abs(answer.received - datetime.datetime.now(datetime.UTC)) < DAY / 24


def test_other_ports_are_named_in_the_host_header() -> None:
    asked: list[Asked] = []

    def site(what: Asked) -> Answer:
        asked.append(what)
        return hello(what)

    with serve(site) as where:
        port = where.rpartition(":")[2]
        PublicClient({NAME: "127.0.0.1"}).get(f"http://{NAME}:{port}/")
        PublicClient({f"{NAME}:80": where, NAME: "192.0.2.1"}).get(f"http://{NAME}/")
    assert [one.host for one in asked] == [f"{NAME}:{port}", NAME]


def test_expired(authority: Authority) -> None:
    with serve(hello, authority.server_context(NAME, starts=-30 * DAY, ends=-1 * DAY)) as where:
        error = refused(client(where, authority))
    day = datetime.datetime.now(datetime.UTC) - DAY
    assert error.kind == "tls-expired"
    assert f"expired on {day:%Y-%m-%d}" in error.cause
    assert "Renew" in error.mend


def test_not_yet_valid(authority: Authority) -> None:
    with serve(hello, authority.server_context(NAME, starts=2 * DAY)) as where:
        error = refused(client(where, authority))
    assert error.kind == "tls-not-yet-valid"
    assert f"{datetime.datetime.now(datetime.UTC) + 2 * DAY:%Y-%m-%d}" in error.cause
    assert "clock" in error.mend


def test_wrong_name(authority: Authority) -> None:
    with serve(hello, authority.server_context("www.atelier.test", "atelier.test")) as where:
        error = refused(client(where, authority))
    assert error.kind == "tls-name-mismatch"
    assert f"not for {NAME}, only for www.atelier.test, atelier.test" in error.cause


def test_unknown_ca(authority: Authority) -> None:
    with serve(hello, authority.server_context(NAME)) as where:
        error = refused(client(where))
    assert error.kind == "tls-unknown-ca"
    assert "matrix_ca_file" in error.mend


def test_the_ca_file_is_an_addition_to_the_system(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's CAs stay trusted when a file names one more."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
    extra = Authority(authority.directory, "Another CA")
    with serve(hello, authority.server_context(NAME)) as where:
        assert client(where, extra).get(URL).status == 200
    with serve(hello, extra.server_context(NAME)) as where:
        assert client(where, extra).get(URL).status == 200


@pytest.mark.parametrize(("content", "why"), [(None, "No such file"), (b"no certificate", "no certificate in PEM")])
def test_ca_file_that_cannot_be_used(tmp_path: Path, content: bytes | None, why: str) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Unreachable) as raised:
        PublicClient(ca_file=str(path))
    assert raised.value.kind == "bad-ca-file"
    assert why in raised.value.cause
    assert str(path) in raised.value.cause


def test_old_tls_only(authority: Authority) -> None:
    with serve(hello, authority.server_context(NAME, version=ssl.TLSVersion.TLSv1_1)) as where:
        error = refused(client(where, authority))
        assert client(where).accepts_tls(NAME, ssl.TLSVersion.TLSv1_1) is True
        assert client(where).accepts_tls(NAME, ssl.TLSVersion.TLSv1_2) is False
    assert error.kind == "tls-protocol"


def test_new_tls_only(authority: Authority) -> None:
    with serve(hello, authority.server_context(NAME)) as where:
        assert client(where).accepts_tls(NAME, ssl.TLSVersion.TLSv1_1) is False
        assert client(where).accepts_tls(NAME, ssl.TLSVersion.TLSv1_2) is True


def test_plain_http_on_the_tls_port() -> None:
    with serve(hello) as where:
        error = refused(client(where))
    assert error.kind == "tls-not-spoken"


def test_connection_closed_in_the_handshake() -> None:
    with speak(lambda peer: peer.close()) as where:
        error = refused(client(where))
    assert error.kind == "tls-protocol"
    assert "closed the connection during the TLS handshake" in error.cause


def test_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    error = refused(client(f"127.0.0.1:{port}"))
    assert error.kind == "refused"
    assert f"{NAME}:443 (127.0.0.1:{port}) refuses connections" in error.cause


def test_name_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def lookup(*args: object, **options: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    error = refused(PublicClient())
    assert error.kind == "name-not-found"
    assert NAME in error.cause
    assert "matrix_resolve" in error.mend


def test_name_server_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def lookup(*args: object, **options: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    error = refused(PublicClient())
    assert error.kind == "name-lookup-failed"
    assert "Temporary failure" in error.cause


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (OSError(errno.EHOSTUNREACH, "No route to host"), "no-route"),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "no-route"),
        (TimeoutError("timed out"), "timeout"),
        (OSError(errno.EACCES, "Permission denied"), "no-route"),
    ],
)
def test_no_way_there(monkeypatch: pytest.MonkeyPatch, failure: OSError, kind: str) -> None:
    def connect(*args: object, **options: object) -> socket.socket:
        raise failure

    monkeypatch.setattr(socket, "create_connection", connect)
    error = refused(client("192.0.2.1"))
    assert error.kind == kind
    assert "192.0.2.1" in error.cause


def test_the_next_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(hello) as where:
        port = int(where.rpartition(":")[2])

        real = socket.getaddrinfo

        def lookup(host: str, *args: Any, **options: Any) -> list[Any]:
            found = ("127.0.0.2", "127.0.0.1") if host == NAME else (host,)
            return [answer for address in found for answer in real(address, *args, **options)]

        monkeypatch.setattr(socket, "getaddrinfo", lookup)
        assert PublicClient().get(f"http://{NAME}:{port}/").status == 200


def test_a_server_that_drips_does_not_hold_the_check_up() -> None:
    def drip(peer: socket.socket) -> None:
        peer.recv(1000)
        peer.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while True:
            peer.sendall(b"x")
            time.sleep(0.05)

    with speak(drip) as where, at_most(2):
        error = refused(client(where, timeout=0.4), f"http://{NAME}/")
    assert error.kind == "timeout"
    assert "0.4 s" in error.cause


def test_a_silent_server_is_a_timeout_also_in_the_handshake() -> None:
    def wait(peer: socket.socket) -> None:
        while peer.recv(1000):
            pass

    with speak(wait) as where:
        assert refused(client(where, timeout=0.3)).kind == "timeout"
        assert refused(client(where, timeout=0.3), f"http://{NAME}/").kind == "timeout"


def test_not_http() -> None:
    def ssh(peer: socket.socket) -> None:
        peer.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
        peer.recv(1000)

    with speak(ssh) as where:
        error = refused(client(where), f"http://{NAME}/")
    assert error.kind == "not-http"
    assert "SSH-2.0" in error.cause


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort"])
def test_an_answer_cut_short(said: bytes) -> None:
    def stop(peer: socket.socket) -> None:
        peer.recv(1000)
        peer.sendall(said)

    with speak(stop) as where:
        assert refused(client(where), f"http://{NAME}/").kind == "closed"


def test_too_large() -> None:
    with serve(lambda asked: (200, {}, b"x" * 1001)) as where:
        error = refused(client(where, max_body=1000), f"http://{NAME}/")
        assert len(client(where, max_body=1001).get(f"http://{NAME}/").body) == 1001
    assert error.kind == "too-large"


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b"<!DOCTYPE html>\n<html>", "begins with '<!DOCTYPE html> <html>'"),
        (b"", "is empty"),
        (b'{"a": NaN}', "NaN"),
        (b"\xff", "not JSON"),
        (b"[" * 100000, "not JSON"),
    ],
)
def test_not_json(body: bytes, shown: str) -> None:
    with serve(lambda asked: (200, {"Content-Type": "text/html"}, body)) as where:
        answer = client(where).get(f"http://{NAME}/where")
    with pytest.raises(Unreachable) as raised:
        answer.json()
    assert raised.value.kind == "not-json"
    assert shown in raised.value.cause
    assert f"http://{NAME}/where" in raised.value.cause


def redirects(asked: Asked) -> Answer:
    if asked.path == "/":
        return 301, {"Location": "/second"}, b""
    if asked.path == "/second":
        return 302, {"Location": f"http://other.test{asked.headers['x-to']}"}, b""
    if asked.path == "/loop":
        return 307, {"Location": "/loop"}, b""
    if asked.path == "/garbage":
        return 301, {"Location": "http://[nonsense"}, b""
    if asked.path == "/post303":
        return 303, {"Location": "/end"}, b""
    if asked.path == "/post307":
        return 307, {"Location": "/end"}, b""
    return 200, {}, f"{asked.method} {asked.host} {asked.headers.get('authorization')} {asked.body!r}".encode()


def test_redirects_are_followed_and_recorded() -> None:
    with serve(redirects) as where:
        asking = PublicClient({NAME: where, "other.test": where}, timeout=patient(5))
        answer = asking.get(f"http://{NAME}/", headers={"X-To": "/end", "Authorization": "Bearer secret"})
        assert asking.get(f"http://{NAME}/", follow=False).status == 301
    assert answer.text() == "GET other.test None b''"
    assert answer.url == "http://other.test/end"
    assert [(hop.url, hop.status, hop.location) for hop in answer.redirects] == [
        (f"http://{NAME}/", 301, f"http://{NAME}/second"),
        (f"http://{NAME}/second", 302, "http://other.test/end"),
    ]


@pytest.mark.parametrize(("path", "seen"), [("/post303", "GET"), ("/post307", "POST"), ("/end", "POST")])
def test_posts_over_redirects(path: str, seen: str) -> None:
    with serve(redirects) as where:
        answer = client(where).request(
            "POST", f"http://{NAME}{path}", headers={"Authorization": "Bearer secret"}, body=b"{}"
        )
    assert answer.text() == f"{seen} {NAME} Bearer secret {b'{}' if seen == 'POST' else b''!r}"


def test_redirect_loop() -> None:
    with serve(redirects) as where:
        assert refused(client(where), f"http://{NAME}/loop").kind == "too-many-redirects"


def test_redirect_to_garbage() -> None:
    with serve(redirects) as where:
        assert refused(client(where), f"http://{NAME}/garbage").kind == "bad-url"


def test_redirect_from_https_to_http(authority: Authority) -> None:
    def down(asked: Asked) -> Answer:
        return 301, {"Location": f"http://{NAME}/"}, b""

    with serve(down, authority.server_context(NAME)) as where:
        error = refused(client(where, authority))
    assert error.kind == "redirect-to-http"


@pytest.mark.parametrize(
    "url", ["ftp://a.test/", "https://", "https://[x/", "https://a.test:99999/", "a.test", "https://me:pw@a.test/"]
)
def test_bad_urls(url: str) -> None:
    assert refused(PublicClient(), url).kind == "bad-url"


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:0", "127.0.0.1:x", "host.test:80"])
def test_bad_resolve_map(address: str) -> None:
    error = refused(client(address))
    assert error.kind == "bad-url"
    assert "matrix_resolve" in error.cause


@pytest.mark.parametrize(
    ("mapped", "found"),
    [
        ("192.0.2.1", ("192.0.2.1", 443)),
        ("192.0.2.1:8443", ("192.0.2.1", 8443)),
        ("2001:db8::1", ("2001:db8::1", 443)),
        ("[2001:db8::1]", ("2001:db8::1", 443)),
        ("[2001:db8::1]:8443", ("2001:db8::1", 8443)),
    ],
)
def test_resolve_map(mapped: str, found: tuple[str, int]) -> None:
    assert PublicClient({NAME.upper(): mapped}).addresses(NAME) == [found]
