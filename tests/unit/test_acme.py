# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Before an ACME server is asked: whether names lead here, and whether it was asked the same before.

certbot itself and an ACME server are in the scenario C(acme).
"""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from ansible_collections.cae.matrix.plugins.module_utils.host.acme import (
    Order,
    by_web,
    look_at_answers,
    look_at_names,
    reason,
    resolve,
)
from ansible_collections.cae.matrix.plugins.module_utils.host.acme_order import other_order, record_of
from ansible_collections.cae.matrix.tests.unit.ports import free_port

STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"
PRODUCTION = "https://acme-v02.api.letsencrypt.org/directory"
OWN = ["192.0.2.7", "2001:db8::7"]
Serve = Callable[[str, type[http.server.BaseHTTPRequestHandler]], None]


def order(**changes: object) -> Order:
    given: dict[str, object] = {
        "name": "matrix-coop",
        "directory": PRODUCTION,
        "names": ["coop.example", "matrix.coop.example"],
        "webroot": "/var/www/matrix-coop",
        "hook": "/etc/matrix/coop/proxy/certificate-renewed",
    }
    return Order(**given | changes)  # type: ignore[arg-type]


# --- names ------------------------------------------------------------------------------------------------------


def addresses(**known: list[str]) -> Callable[[str], list[str]]:
    def look(name: str) -> list[str]:
        if name not in known:
            raise OSError(-2, "Name or service not known")
        return known[name]

    return look


def test_names_that_lead_here_leave_nothing_to_ask() -> None:
    found, elsewhere = look_at_names(["coop"], OWN, addresses(coop=[*OWN, "127.0.1.1", "::1"]))
    assert (found.wrong, found.unseen, elsewhere) == ([], [], [])


def test_a_name_without_an_address_is_named() -> None:
    found, _elsewhere = look_at_names(["coop", "chat"], OWN, addresses(coop=OWN))
    assert len(found.wrong) == 1
    assert found.wrong[0].startswith("chat has no address")
    assert "A or AAAA record" in found.wrong[0]


def test_an_aaaa_record_of_a_machine_without_ipv6_is_wrong() -> None:
    found, elsewhere = look_at_names(["coop"], ["192.0.2.7"], addresses(coop=OWN))
    assert found.wrong == [
        "the AAAA record of coop leads to 2001:db8::7, and this machine has no IPv6 address: remove that record, or"
        " give the machine one"
    ]
    assert elsewhere == []


def test_other_addresses_are_to_be_asked() -> None:
    _found, elsewhere = look_at_names(["coop"], OWN, addresses(coop=["198.51.100.1", "2001:db8::8", *OWN]))
    assert elsewhere == [("coop", "198.51.100.1"), ("coop", "2001:db8::8")]


def test_the_machines_own_resolver_is_asked() -> None:
    assert "127.0.0.1" in resolve("localhost")


# --- answers ----------------------------------------------------------------------------------------------------

PORT = free_port()


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:

        def begin(address: str, handler: type[http.server.BaseHTTPRequestHandler]) -> None:
            stack.enter_context(_server(address, handler))

        yield begin


@contextmanager
def _server(address: str, handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[None]:
    server = http.server.ThreadingHTTPServer((address, PORT), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


class Quiet(http.server.BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


class Website(Quiet):
    """Somebody else's, which has a page for everything."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"Bienvenue")


class SendsOn(Quiet):
    def do_GET(self) -> None:
        self.send_response(301)
        self.send_header("Location", "https://www.coop.example/")
        self.end_headers()


def ours(webroot: Path) -> type[http.server.BaseHTTPRequestHandler]:
    class Ours(Quiet):
        def do_GET(self) -> None:
            assert self.headers["Host"] == "coop"
            path = webroot / self.path.lstrip("/")
            self.send_response(200 if path.is_file() else 404)
            self.end_headers()
            if path.is_file():
                self.wfile.write(path.read_bytes())

    return Ours


def test_a_router_that_leads_here_is_right(tmp_path: Path, serve: Serve) -> None:
    serve("127.0.0.2", ours(tmp_path))
    found = look_at_answers([("coop", "127.0.0.2")], OWN, str(tmp_path), PORT)
    assert (found.wrong, found.unseen) == ([], [])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_another_server_is_wrong(tmp_path: Path, serve: Serve) -> None:
    serve("127.0.0.2", Website)
    serve("127.0.0.3", ours(tmp_path / "another"))
    found = look_at_answers([("coop", "127.0.0.2"), ("coop", "127.0.0.3")], OWN, str(tmp_path), PORT)
    assert len(found.wrong) == 2
    assert found.wrong[0] == (
        "the A record of coop leads to 127.0.0.2, where another server answers: let it lead to this machine"
        " (192.0.2.7, 2001:db8::7)"
    )


def test_a_router_that_shows_its_own_pages_to_those_inside_refuses_nothing(tmp_path: Path, serve: Serve) -> None:
    serve("127.0.0.2", Website)
    found = look_at_answers([("coop", "127.0.0.2")], ["192.168.1.7", "2001:db8::7"], str(tmp_path), PORT)
    assert found.wrong == []
    assert "another server answers from inside" in found.unseen[0]


def test_a_proxy_in_front_is_not_judged_from_behind(tmp_path: Path, serve: Serve) -> None:
    serve("127.0.0.2", Website)
    found, elsewhere = look_at_names(["coop"], ["192.0.2.7"], addresses(coop=["127.0.0.2", "::1:7"]), in_front=True)
    assert (found.wrong, elsewhere) == ([], [("coop", "127.0.0.2"), ("coop", "::1:7")])
    found = look_at_answers([("coop", "127.0.0.2"), ("coop", "::1")], OWN, str(tmp_path), PORT, in_front=True)
    assert found.wrong == []
    assert len(found.unseen) == 2


def test_what_cannot_be_told_is_a_warning(tmp_path: Path, serve: Serve) -> None:
    serve("127.0.0.2", SendsOn)
    found = look_at_answers([("coop", "127.0.0.2"), ("coop", "127.0.0.4")], OWN, str(tmp_path), PORT)
    assert found.wrong == []
    assert "sends on" in found.unseen[0]
    assert "127.0.0.4, where nobody answers" in found.unseen[1]


def test_an_aaaa_record_where_nobody_answers_is_wrong(tmp_path: Path) -> None:
    found = look_at_answers([("coop", "::1")], OWN, str(tmp_path), PORT)
    assert "the AAAA record of coop leads to ::1, where nobody answers" in found.wrong[0]


# --- what is asked ----------------------------------------------------------------------------------------------


def test_what_is_secret_is_no_argument() -> None:
    asked = order(options={"eab-kid": "us", "eab-hmac-key": "secret", "must-staple": True, "reuse-key": False})
    assert asked.settings["eab-hmac-key"] == "secret"
    assert asked.settings["must-staple"] == "true"
    assert "reuse-key" not in asked.settings
    assert "secret" not in str(record_of(asked.directory, asked.options))


@pytest.mark.parametrize("options", [{"authenticator": "dns-rfc2136"}, {"dns-ovh": True}, {"standalone": True}])
def test_another_proof_needs_no_web_server(options: dict[str, object]) -> None:
    asked = order(options=options)
    assert not by_web(options)
    assert "webroot-path" not in asked.settings
    assert by_web({"account": "0123"})


def remembered(path: Path, directory: str, **options: object) -> str:
    path.write_text(json.dumps(record_of(directory, options)), encoding="utf-8")
    return str(path)


def test_the_same_order_stays(tmp_path: Path) -> None:
    record = remembered(tmp_path / "acme.json", STAGING, account="a")
    assert other_order("matrix-coop", STAGING, {"account": "a"}, record, str(tmp_path)) is None


def test_another_directory_or_account_is_asked(tmp_path: Path) -> None:
    record = remembered(tmp_path / "acme.json", STAGING)
    assert other_order("matrix-coop", PRODUCTION, {}, record, str(tmp_path)) == (
        f"it came from {STAGING}, and {PRODUCTION} is declared"
    )
    assert "other options" in str(other_order("matrix-coop", STAGING, {"account": "b"}, record, str(tmp_path)))


@pytest.mark.parametrize("content", [None, "", "[]", "not JSON"])
def test_without_a_record_certbot_remembers(tmp_path: Path, content: str | None) -> None:
    """From before there were records."""
    record = tmp_path / "acme.json"
    if content is not None:
        record.write_text(content, encoding="utf-8")
    (tmp_path / "matrix-coop.conf").write_text(f"# renew\n[renewalparams]\nserver = {STAGING}\n", encoding="utf-8")
    assert STAGING in str(other_order("matrix-coop", PRODUCTION, {}, str(record), str(tmp_path)))
    assert other_order("matrix-coop", STAGING, {}, str(record), str(tmp_path)) is None
    assert "not known" in str(other_order("matrix-coop", STAGING, {"account": "a"}, str(record), str(tmp_path)))
    assert other_order("another", STAGING, {}, str(record), str(tmp_path)) is None


def test_what_certbot_says_is_told_without_its_noise() -> None:
    said = """Saving debug log to /var/log/letsencrypt/letsencrypt.log
Certbot failed to authenticate some domains (authenticator: webroot). The Certificate Authority reported these problems:
  Domain: matrix.coop.example
  Type:   unauthorized
  Detail: 198.51.100.1: Invalid response from http://matrix.coop.example/.well-known/acme-challenge/x: 404
Some challenges have failed.
Ask for help or search for solutions at https://community.letsencrypt.org. See the logfile for more details."""
    found = reason(said)
    assert "Domain: matrix.coop.example" in found
    assert "404" in found
    assert "Ask for help" not in found
    assert "too many certificates" in reason("Saving debug log\nAn unexpected error occurred:\ntoo many certificates")
