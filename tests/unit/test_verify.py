# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A good instance on loopback, and one broken variant for each way in which a check can fail."""

from __future__ import annotations

import base64
import contextlib
import datetime
import email.utils
import json
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.cae.matrix.plugins.module_utils.encryption.verification import (
    Check,
    Expected,
    Verification,
    counts,
    report,
    table,
)
from ansible_collections.cae.matrix.plugins.module_utils.matrix import keys as federation_keys
from ansible_collections.cae.matrix.plugins.module_utils.matrix import signed_json
from ansible_collections.cae.matrix.plugins.module_utils.outside.public_client import PublicClient
from ansible_collections.cae.matrix.tests.patience import PROMPT, patient
from ansible_collections.cae.matrix.tests.unit.public_server import DAY, Answer, Asked, Authority, serve
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

DOMAIN, HOMESERVER, ELEMENT = "atelier.test", "matrix.atelier.test", "chat.atelier.test"
NAMES = (DOMAIN, HOMESERVER, ELEMENT)
JSON = {"Content-Type": "application/json", "Access-Control-Allow-Origin": "*"}
PROTECTION = {
    "X-Frame-Options": "SAMEORIGIN",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "frame-ancestors 'self'",
    "Strict-Transport-Security": "max-age=63072000",
    "Cache-Control": "no-cache",
}
KEY = Ed25519PrivateKey.generate()

Break = Callable[[Asked, Answer], Answer]


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode().rstrip("=")


def keys(**changes: Any) -> dict[str, Any]:
    until = (datetime.datetime.now(datetime.UTC) + DAY).timestamp()
    document: dict[str, Any] = {
        "server_name": DOMAIN,
        "valid_until_ts": int(until * 1000),
        "verify_keys": {"ed25519:a_x": {"key": b64(KEY.public_key().public_bytes_raw())}},
        "old_verify_keys": {},
        **changes,
    }
    signature = b64(KEY.sign(signed_json.canonical_json(document)))
    document["signatures"] = {DOMAIN: {"ed25519:a_x": signature}}
    return document


def as_json(document: Any, status: int = 200, headers: dict[str, str] = JSON) -> Answer:
    return status, dict(headers), json.dumps(document).encode()


CLIENT = {
    "m.homeserver": {"base_url": f"https://{HOMESERVER}/"},
    "io.element.e2ee": {"default": False},
}
CONFIG = {
    "default_server_config": {"m.homeserver": {"base_url": f"https://{HOMESERVER}", "server_name": DOMAIN}},
    "brand": "Atelier",
    "permalink_prefix": f"https://{ELEMENT}",
    "setting_defaults": {"UIFeature.voip": False},
}


def good(asked: Asked) -> Answer:
    path = asked.path
    if path.startswith("/.well-known/matrix/") and asked.host in (DOMAIN, HOMESERVER):
        documents: dict[str, Any] = {"client": CLIENT, "server": {"m.server": f"{HOMESERVER}:443"}}
        kind = path.rpartition("/")[2]
        return as_json(documents[kind]) if kind in documents else (404, {}, b"")
    if asked.host == HOMESERVER or asked.host.startswith(f"{HOMESERVER}:"):
        if path == "/_matrix/client/versions":
            return as_json({"versions": ["r0.6.1", "v1.1", "v1.11", "v1.12"]})
        if path == "/_matrix/client/v3/login":
            return as_json({"flows": [{"type": "m.login.password"}, {"type": "m.login.application_service"}]})
        if path.startswith("/_matrix/client/v3/register"):
            return as_json({"errcode": "M_FORBIDDEN"}, 403)
        if path == "/_matrix/key/v2/server":
            return as_json(keys())
        if path == "/_matrix/federation/v1/version":
            return as_json({"server": {"name": "Synapse", "version": "1.163.2"}})
    if asked.host == ELEMENT:
        if path == "/config.json":
            return as_json(CONFIG, headers=PROTECTION | {"Content-Type": "application/json"})
        if path in ("/", "/index.html"):
            return 200, PROTECTION | {"Content-Type": "text/html"}, b"<html>"
        if path == "/version":
            return 200, PROTECTION | {"Content-Type": "text/plain"}, b"v1.12.25\n"
        if path == "/mobile_guide/":
            page = f'<html><a href="https://{ELEMENT}/#/welcome">'
            return 200, PROTECTION | {"Content-Type": "text/html"}, page.encode()
        if path == "/manifest.json":
            return as_json({"name": "Atelier"}, headers=PROTECTION | {"Content-Type": "application/json"})
    return 404, {}, b""


def redirect(asked: Asked) -> Answer:
    return 301, {"Location": f"https://{asked.host}{asked.path}"}, b""


def untouched(asked: Asked, answer: Answer) -> Answer:
    return answer


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def context(authority: Authority) -> ssl.SSLContext:
    return authority.server_context(*NAMES)


Run = Callable[..., dict[str, Check]]


@pytest.fixture
def run(authority: Authority, context: ssl.SSLContext) -> Iterator[Run]:
    """Runs the checks on the good instance, each answer changed by `broken`."""
    with contextlib.ExitStack() as stack:

        def look(
            broken: Break = untouched,
            *,
            plain: Callable[[Asked], Answer] = redirect,
            contexts: dict[str, ssl.SSLContext] | None = None,
            resolve: dict[str, str] | None = None,
            ca_file: str | None = None,
            **expected: Any,
        ) -> dict[str, Check]:
            def site(asked: Asked) -> Answer:
                return broken(asked, good(asked))

            where = stack.enter_context(serve(site, context))
            unencrypted = stack.enter_context(serve(plain))
            found = {f"{name}:443": where for name in NAMES} | {f"{name}:80": unencrypted for name in NAMES}
            for name, other in (contexts or {}).items():
                found[f"{name}:443"] = stack.enter_context(serve(site, other))
            asking = PublicClient(found | (resolve or {}), ca_file or str(authority.ca_file), timeout=patient(PROMPT))
            defaults = {"element_hostname": ELEMENT, "element_version": "1.12.25"}
            checks = Verification(Expected(DOMAIN, HOMESERVER, **(defaults | expected)), asking).run()
            assert len({check.id for check in checks}) == len(checks)
            for check in checks:
                assert bool(check.cause) == bool(check.mend) == (check.state in ("FAIL", "warn")), check
            return {check.id: check for check in checks}

        yield look


def bad(checks: dict[str, Check]) -> dict[str, str]:
    return {name: check.state for name, check in checks.items() if check.state != "ok"}


def on(host: str, path: str, answer: Any) -> Break:
    """The good instance, but for one answer; a dict is served as JSON."""

    def broken(asked: Asked, usual: Answer) -> Answer:
        if asked.host.split(":")[0] != host or asked.path != path:
            return usual
        if callable(answer):
            changed: Answer = answer(usual)
            return changed
        if isinstance(answer, tuple):
            return answer[0], answer[1], answer[2]
        return as_json(answer, headers=usual[1])

    return broken


def without(header: str, value: str | None = None) -> Callable[[Answer], Answer]:
    def change(usual: Answer) -> Answer:
        headers = {name: kept for name, kept in usual[1].items() if name != header}
        return usual[0], headers | ({header: value} if value is not None else {}), usual[2]

    return change


def to_a_telephone(kind: str, where: str) -> Break:
    """The good instance, but for a proxy that sends one kind of telephone elsewhere."""

    def broken(asked: Asked, usual: Answer) -> Answer:
        telephone = kind in asked.headers.get("user-agent", "")
        return (302, {"Location": where}, b"") if telephone and asked.path == "/" else usual

    return broken


def test_a_good_instance(run: Run) -> None:
    checks = run()
    assert bad(checks) == {}
    assert len(checks) == 37
    assert checks["tls.homeserver"].seen.startswith("TLSv1.3, until ")
    assert checks["tls.homeserver"].seen.endswith("(89 days), by Test CA")
    assert checks["encryption"].seen == "off unless people ask for it, in both documents"
    assert checks["federation.delegation"].seen == f"{DOMAIN} is at {HOMESERVER}:443"
    assert "(matrix_resolve)" in checks["dns.domain"].seen


VERSIONS, LOGIN, REGISTER = "/_matrix/client/versions", "/_matrix/client/v3/login", "/_matrix/client/v3/register"
WELL_KNOWN = "/.well-known/matrix/"


def config(**changes: Any) -> dict[str, Any]:
    return CONFIG | changes


BROKEN: list[tuple[str, Break, str, str]] = [
    # check, what is broken, the state, words of its cause
    ("well-known.client.domain", on(DOMAIN, WELL_KNOWN + "client", (404, {}, b"")), "FAIL", "answers 404"),
    ("well-known.client.domain", on(DOMAIN, WELL_KNOWN + "client", (200, {}, b"<html>")), "FAIL", "not JSON"),
    ("well-known.client.domain", on(DOMAIN, WELL_KNOWN + "client", [1]), "FAIL", "not an object"),
    (
        "well-known.client.domain",
        on(DOMAIN, WELL_KNOWN + "client", CLIENT | {"m.homeserver": {"base_url": "https://old.test"}}),
        "FAIL",
        "sends clients to 'https://old.test'",
    ),
    (
        "well-known.client.homeserver",
        on(HOMESERVER, WELL_KNOWN + "client", without("Access-Control-Allow-Origin")),
        "FAIL",
        "no Access-Control-Allow-Origin",
    ),
    (
        "well-known.client.domain",
        on(DOMAIN, WELL_KNOWN + "client", without("Access-Control-Allow-Origin", "https://chat.test")),
        "FAIL",
        "Access-Control-Allow-Origin: https://chat.test",
    ),
    (
        "well-known.client.domain",
        on(DOMAIN, WELL_KNOWN + "client", without("Content-Type", "text/plain")),
        "warn",
        "served as text/plain",
    ),
    ("well-known.server.domain", on(DOMAIN, WELL_KNOWN + "server", (500, {}, b"")), "FAIL", "answers 500"),
    ("well-known.server.domain", on(DOMAIN, WELL_KNOWN + "server", {}), "FAIL", "m.server is None"),
    (
        "well-known.server.domain",
        on(DOMAIN, WELL_KNOWN + "server", {"m.server": f"{HOMESERVER}:x"}),
        "FAIL",
        "not a host with a port",
    ),
    (
        "well-known.server.homeserver",
        on(HOMESERVER, WELL_KNOWN + "server", {"m.server": "old.test:443"}),
        "FAIL",
        "sends other servers to old.test",
    ),
    ("well-known.support.domain", on(DOMAIN, WELL_KNOWN + "support", as_json({})), "FAIL", "neither contacts"),
    (
        "well-known.support.domain",
        on(DOMAIN, WELL_KNOWN + "support", as_json({"support_page": "https://a.test"}, headers={})),
        "FAIL",
        "no Access-Control-Allow-Origin",
    ),
    ("versions", on(HOMESERVER, VERSIONS, (502, {}, b"")), "FAIL", "Synapse behind it is not (502)"),
    ("versions", on(HOMESERVER, VERSIONS, (404, {}, b"")), "FAIL", "answers 404"),
    ("versions", on(HOMESERVER, VERSIONS, [1]), "FAIL", "not an object"),
    ("versions", on(HOMESERVER, VERSIONS, {"versions": []}), "FAIL", "names no versions"),
    ("versions", on(HOMESERVER, VERSIONS, {"versions": ["v1.12", "w2"]}), "FAIL", "does not have: w2"),
    ("versions", on(HOMESERVER, VERSIONS, {"versions": ["r0.6.1", "v1.4"]}), "FAIL", "only old versions"),
    ("versions.cors", on(HOMESERVER, VERSIONS, without("Access-Control-Allow-Origin")), "FAIL", "web clients cannot"),
    ("clock", on(HOMESERVER, VERSIONS, without("Date", "Sun, 22 Nov 2015 10:00:00 GMT")), "FAIL", "differ by"),
    ("clock", on(HOMESERVER, VERSIONS, without("Date", "noon")), "warn", "does not say what time"),
    (
        "clock",
        on(
            HOMESERVER,
            VERSIONS,
            lambda usual: without("Date", email.utils.formatdate(datetime.datetime.now().timestamp() + 30))(usual),
        ),
        "warn",
        "differ by",
    ),
    ("login", on(HOMESERVER, LOGIN, {"flows": [{"type": "m.login.token"}]}), "FAIL", "no way in"),
    (
        "registration",
        on(HOMESERVER, REGISTER, as_json({"flows": [{"stages": ["m.login.dummy"]}]}, 401)),
        "FAIL",
        "Anyone",
    ),
    (
        "registration",
        on(HOMESERVER, REGISTER, as_json({"flows": [{"stages": ["m.login.registration_token"]}]}, 401)),
        "FAIL",
        "tokens is open",
    ),
    ("registration", on(HOMESERVER, REGISTER + "?kind=guest", as_json({})), "FAIL", "guest"),
    ("registration", on(HOMESERVER, REGISTER, as_json({"errcode": "M_LIMIT_EXCEEDED"}, 429)), "warn", "limits"),
    ("denied.admin", on(HOMESERVER, "/_synapse/admin/v1/server_version", as_json({})), "FAIL", "the admin API"),
    ("denied.admin", on(HOMESERVER, "/_matrix/..%2f_synapse/admin/v1/server_version", as_json({})), "FAIL", "..%2f"),
    ("denied.admin", on(HOMESERVER, "/_synapse/admin/v1/users", as_json({}, 401)), "FAIL", "v1/users"),
    ("denied.metrics", on(HOMESERVER, "/_synapse/metrics", (200, {}, b"synapse_up 1")), "FAIL", "leads to metrics"),
    ("denied.replication", on(HOMESERVER, "/_synapse/replication/", (405, {}, b"")), "FAIL", "leads to replication"),
    ("federation.keys", on(HOMESERVER, "/_matrix/key/v2/server", keys(server_name="b.test")), "FAIL", "'b.test'"),
    (
        "federation.keys",
        on(HOMESERVER, "/_matrix/key/v2/server", keys(valid_until_ts=10**12)),
        "FAIL",
        "valid until 2001",
    ),
    ("federation.keys", on(HOMESERVER, "/_matrix/key/v2/server", keys() | {"x": 1}), "FAIL", "does not match"),
    ("federation.keys", on(HOMESERVER, "/_matrix/key/v2/server", keys() | {"signatures": {}}), "FAIL", "no signature"),
    ("federation.keys", on(HOMESERVER, "/_matrix/key/v2/server", (404, {}, b"")), "FAIL", "answers 404"),
    ("federation.version", on(HOMESERVER, "/_matrix/federation/v1/version", {}), "FAIL", "which server"),
    ("element.config", on(ELEMENT, "/config.json", (404, PROTECTION, b"")), "FAIL", "answers 404"),
    ("element.config", on(ELEMENT, "/config.json", [1]), "FAIL", "not an object"),
    ("element.config", on(ELEMENT, "/config.json", config(default_server_config={})), "FAIL", "leads people to None"),
    ("element.config", on(ELEMENT, "/config.json", without("Content-Type", "text/html")), "warn", "text/html"),
    (
        "element.third-parties",
        on(ELEMENT, "/config.json", config(integrations_ui_url="https://scalar.vector.im/")),
        "FAIL",
        "integrations_ui_url names scalar.vector.im",
    ),
    (
        "element.third-parties",
        on(ELEMENT, "/config.json", config(jitsi={"preferred_domain": "meet.element.io"})),
        "FAIL",
        "jitsi.preferred_domain names meet.element.io",
    ),
    (
        "element.telephones",
        on(ELEMENT, "/mobile_guide/", (200, PROTECTION, b'<a href="https://apps.apple.com/app/element-x">')),
        "FAIL",
        "iPhone: /mobile_guide/ names apps.apple.com",
    ),
    (
        "element.telephones",
        on(ELEMENT, "/manifest.json", {"related_applications": [{"url": "https://play.google.com/store"}]}),
        "FAIL",
        "Android: /manifest.json names play.google.com",
    ),
    ("element.telephones", on(ELEMENT, "/mobile_guide/", (404, PROTECTION, b"")), "FAIL", "answers 404"),
    (
        "element.telephones",
        to_a_telephone("Android", "https://mobile.test/"),
        "FAIL",
        "Android: / leads to https://mobile",
    ),
    (
        "element.telephones",
        to_a_telephone("iPhone", "https://mobile.test/"),
        "FAIL",
        "iPhone: / leads to https://mobile",
    ),
    ("element.calls", on(ELEMENT, "/config.json", config(setting_defaults={})), "warn", "no relay is declared"),
    ("element.version", on(ELEMENT, "/version", (200, PROTECTION, b"1.11.0")), "FAIL", "inventory says 1.12.25"),
    ("element.version", on(ELEMENT, "/version", (200, PROTECTION, b"<html>")), "FAIL", "is not a version"),
    ("element.headers", on(ELEMENT, "/", without("X-Frame-Options")), "FAIL", "/: X-Frame-Options"),
    ("element.headers", on(ELEMENT, "/version", without("X-Content-Type-Options")), "FAIL", "/version: X-Content"),
    (
        "element.headers",
        on(ELEMENT, "/index.html", without("Content-Security-Policy", "frame-ancestors *")),
        "FAIL",
        "/index.html: Content-Security-Policy",
    ),
    (
        "element.headers",
        on(ELEMENT, "/", without("Strict-Transport-Security", "max-age=60")),
        "FAIL",
        "/: Strict-Transport-Security",
    ),
    ("element.caching", on(ELEMENT, "/config.json", without("Cache-Control", "max-age=3600")), "FAIL", "max-age=3600"),
    (
        "encryption",
        on(DOMAIN, WELL_KNOWN + "client", CLIENT | {"io.element.e2ee": {"default": True}}),
        "FAIL",
        "io.element.e2ee",
    ),
    ("encryption", on(ELEMENT, "/config.json", config(force_verification=True)), "FAIL", "force_verification"),
]


@pytest.fixture
def closed_ports() -> dict[str, str]:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    return {f"{name}:8448": f"127.0.0.1:{port}" for name in (DOMAIN, HOMESERVER)}


def internal(asked: Asked, usual: Answer) -> Answer:
    for_servers = asked.path.startswith(("/_matrix/federation/", "/_matrix/key/")) or asked.path.endswith("/server")
    return as_json({"errcode": "M_UNRECOGNIZED"}, 404) if for_servers else usual


def test_an_internal_instance_has_nothing_for_other_servers(run: Run, closed_ports: dict[str, str]) -> None:
    checks = run(internal, resolve=closed_ports, federates=False)
    assert bad(checks) == {}
    assert "federation.delegation" not in checks
    assert checks["well-known.server.domain"].seen.startswith("none")


@pytest.mark.parametrize(
    ("served", "check"),
    [
        (on(DOMAIN, WELL_KNOWN + "server", {"m.server": f"{HOMESERVER}:443"}), "well-known.server.domain"),
        (on(HOMESERVER, "/_matrix/federation/v1/version", {"server": {}}), "federation.closed"),
        (on(HOMESERVER, "/_matrix/%66ederation/v1/version", (401, {}, b"")), "federation.closed"),
        (on(HOMESERVER, "/_matrix/key/v2/server", keys()), "federation.closed"),
    ],
)
def test_what_an_internal_instance_may_not_have(
    run: Run, closed_ports: dict[str, str], served: Break, check: str
) -> None:
    checks = run(lambda asked, usual: served(asked, internal(asked, usual)), resolve=closed_ports, federates=False)
    assert bad(checks) == {check: "FAIL"}
    assert "internal" in checks[check].cause


@pytest.mark.parametrize("certified", [True, False])
def test_nothing_may_listen_where_other_servers_look(
    run: Run, closed_ports: dict[str, str], context: ssl.SSLContext, certified: bool
) -> None:
    with serve(redirect, context if certified else None) as where:
        checks = run(internal, resolve=closed_ports | {f"{DOMAIN}:8448": where}, federates=False)
    assert bad(checks) == {"federation.port.domain": "FAIL"}


@pytest.mark.parametrize(
    ("check", "broken", "state", "words"), BROKEN, ids=[f"{row[0]}-{row[3]}".replace(" ", "_") for row in BROKEN]
)
def test_each_fault_is_seen_by_its_check(run: Run, check: str, broken: Break, state: str, words: str) -> None:
    checks = run(broken)
    assert checks[check].state == state
    assert words in checks[check].cause
    blamed = {name for name, seen in checks.items() if seen.state in ("FAIL", "warn")}
    assert blamed == {check}


def test_what_builds_on_a_failure_is_not_checked_and_says_why(run: Run) -> None:
    checks = run(on(HOMESERVER, VERSIONS, (502, {}, b"")))
    assert bad(checks) == {
        "versions": "FAIL",
        "versions.cors": "not checked",
        "clock": "not checked",
        "login": "not checked",
        "registration": "not checked",
    }
    assert checks["login"].seen == "because of: Client API versions"


def test_a_dead_name_leaves_the_other_names_checked(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    checks = run(resolve={f"{ELEMENT}:443": f"127.0.0.1:{port}"})
    assert checks["tls.element"].state == "FAIL"
    assert "refuses connections" in checks["tls.element"].cause
    states = bad(checks)
    assert states.pop("tls.element") == "FAIL"
    assert set(states) == {
        "tls-floor.element",
        "element.config",
        "element.third-parties",
        "element.telephones",
        "element.calls",
        "element.version",
        "element.headers",
        "element.caching",
        "encryption",
    }
    assert set(states.values()) == {"not checked"}


def test_a_name_that_is_not_in_dns(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def lookup(host: str, *args: Any, **options: Any) -> list[Any]:
        if host.endswith(".test"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    checks = run(element_hostname="talk.atelier.test")
    assert checks["dns.element"].state == "FAIL"
    assert "talk.atelier.test is not in DNS" in checks["dns.element"].cause
    assert checks["tls.element"].state == "not checked"


@pytest.mark.parametrize(("days", "state"), [(2, "FAIL"), (4, "warn"), (20, "warn"), (22, "ok"), (-1, "FAIL")])
def test_expiry(run: Run, authority: Authority, days: int, state: str) -> None:
    checks = run(contexts={DOMAIN: authority.server_context(DOMAIN, starts=-9 * DAY, ends=days * DAY + DAY / 2)})
    assert checks["tls.domain"].state == state
    if state != "ok":
        assert "expire" in checks["tls.domain"].cause


def test_a_certificate_for_another_name(run: Run, authority: Authority) -> None:
    checks = run(contexts={HOMESERVER: authority.server_context("www.test")})
    assert checks["tls.homeserver"].state == "FAIL"
    assert "only for www.test" in checks["tls.homeserver"].cause
    assert checks["versions"].state == "not checked"
    assert checks["federation.delegation"].state == "FAIL"


def test_a_private_ca_that_is_not_named(run: Run, authority: Authority) -> None:
    other = Authority(authority.directory, "Other CA")
    checks = run(ca_file=str(other.ca_file))
    assert "matrix_ca_file" in checks["tls.domain"].mend
    assert counts(list(checks.values()))["fail"] == 3


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_tls_accepted(run: Run, authority: Authority, version: ssl.TLSVersion) -> None:
    checks = run(contexts={ELEMENT: authority.server_context(ELEMENT, floor=version)})
    assert bad(checks) == {"tls-floor.element": "FAIL"}
    assert "accepts TLS 1." in checks["tls-floor.element"].cause


def test_http_that_stays_http(run: Run) -> None:
    checks = run(plain=lambda asked: (200, {}, b"hello"))
    assert bad(checks) == {"http.domain": "FAIL", "http.homeserver": "FAIL", "http.element": "FAIL"}
    checks = run(plain=lambda asked: (200, {}, b"hello"), well_known_elsewhere=True)
    assert bad(checks) == {"http.domain": "warn", "http.homeserver": "FAIL", "http.element": "FAIL"}


def test_http_that_leads_elsewhere(run: Run) -> None:
    checks = run(plain=lambda asked: (301, {"Location": "https://www.test/"}, b""))
    assert "301 to https://www.test/" in checks["http.element"].seen
    assert checks["http.element"].state == "FAIL"


def test_cors_sent_twice(run: Run) -> None:
    def twice(usual: Answer) -> Answer:
        return usual[0], usual[1] | {"access-control-allow-origin": "*"}, usual[2]

    checks = run(on(DOMAIN, WELL_KNOWN + "client", twice))
    assert "twice" in checks["well-known.client.domain"].cause


def test_support(run: Run) -> None:
    assert run()["well-known.support.domain"].seen == "none, and none declared"
    assert run(support=True)["well-known.support.domain"].state == "FAIL"
    served = {
        "contacts": [{"role": "m.role.admin", "email_address": "a@atelier.test"}],
        "support_page": "https://a.test",
    }

    def both(asked: Asked, usual: Answer) -> Answer:
        return as_json(served) if asked.path == WELL_KNOWN + "support" else usual

    assert run(both, support=True)["well-known.support.domain"].seen == "1 contact(s), page https://a.test"


def test_registration_with_tokens(run: Run) -> None:
    tokens = on(HOMESERVER, REGISTER, as_json({"flows": [{"stages": ["m.login.registration_token"]}]}, 401))
    assert run(tokens, registration="token")["registration"].state == "ok"
    closed = run(registration="token")["registration"]
    assert closed.state == "FAIL"
    assert "is closed, and the inventory asks for registration tokens" in closed.cause
    assert "the gate opens registration" in closed.mend


def test_registration_where_one_flow_needs_no_token(run: Run) -> None:
    flows = {"flows": [{"stages": ["m.login.registration_token"]}, {"stages": ["m.login.dummy"]}]}
    seen = run(on(HOMESERVER, REGISTER, as_json(flows, 401)), registration="token")["registration"]
    assert seen.state == "FAIL"
    assert "without a token" in seen.cause


def test_delegation_to_another_port(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    checks = run(
        on(DOMAIN, WELL_KNOWN + "server", {"m.server": f"{HOMESERVER}:8448"}),
        resolve={f"{HOMESERVER}:8448": f"127.0.0.1:{port}"},
    )
    assert bad(checks) == {
        "federation.delegation": "FAIL",
        "federation.keys": "not checked",
        "federation.version": "not checked",
    }


def test_delegation_without_a_port_means_8448(run: Run, context: ssl.SSLContext) -> None:
    with serve(good, context) as where:
        checks = run(on(DOMAIN, WELL_KNOWN + "server", {"m.server": HOMESERVER}), resolve={f"{HOMESERVER}:8448": where})
    assert bad(checks) == {"federation.delegation": "warn"}
    assert "8448" in checks["federation.delegation"].seen


def test_element_declared_absent(run: Run) -> None:
    checks = run(element_hostname=None)
    assert bad(checks) == {"element": "not checked"}
    assert "declared absent" in checks["element"].seen
    assert not [name for name in checks if name.endswith(".element") or name.startswith("element.")]
    assert checks["encryption"].seen == "off unless people ask for it, in .well-known"
    assert report("a", DOMAIN, list(checks.values()))["ok"] is True


def test_third_parties_that_the_inventory_accepts(run: Run) -> None:
    pointing = on(ELEMENT, "/config.json", config(jitsi={"preferred_domain": "meet.fed.test"}, help="https://h.test/x"))
    assert run(pointing)["element.third-parties"].seen == "2 found"
    assert run(pointing, third_parties=("meet.fed.test", "h.test"))["element.third-parties"].state == "ok"
    declared = {"element_web_jitsi_domain": "meet.fed.test", "element_web_footer_links": [{"url": "https://h.test/"}]}
    assert run(pointing, element_declared=declared)["element.third-parties"].state == "ok"
    assert run(pointing, element_declared={"element_web_jitsi_domain": "x"})["element.third-parties"].state == "FAIL"


def test_calls(run: Run) -> None:
    """What Element shows, and by what it gets through."""

    def seen(settings: dict[str, Any], *relays: str, **changes: Any) -> tuple[str, str]:
        served = on(ELEMENT, "/config.json", config(setting_defaults=settings, **changes))
        check = run(served, turn_uris=relays)["element.calls"]
        return check.state, check.seen

    shown, hidden = {"UIFeature.voip": True}, {"UIFeature.voip": False}
    assert seen(hidden) == ("ok", "hidden: synapse_turn_uris declares no relay")
    assert seen(hidden, "turn:t.test") == ("ok", "hidden")
    assert seen(shown, "turn:t.test", "turns:t.test") == ("ok", "shown, relayed by turn:t.test, turns:t.test")
    assert seen(shown) == seen({}) == ("warn", "shown, without a relay")
    alone = shown | {"enableLegacyCallsVoip": False}
    call = {"element_call": {"url": f"https://call.{DOMAIN}", "disable": False}}
    assert seen(alone, **call) == ("ok", f"shown, by Element Call (https://call.{DOMAIN})")
    assert seen(alone, element_call={"disable": True})[0] == seen(shown, **call)[0] == "warn"
    # What is no mapping is somebody's mistake, and no reason to stop.
    assert seen([], element_call="x")[0] == "warn"  # type: ignore[arg-type]


def test_one_name_for_everything(run: Run, authority: Authority) -> None:
    def site(asked: Asked) -> Answer:
        for host in (DOMAIN, HOMESERVER, ELEMENT):
            asked.host = host
            answer = good(asked)
            if answer[0] != 404:
                break
        return answer[0], answer[1], answer[2].replace(HOMESERVER.encode(), DOMAIN.encode())

    with serve(site, authority.server_context(DOMAIN)) as where, serve(redirect) as plain:
        asking = PublicClient({f"{DOMAIN}:443": where, f"{DOMAIN}:80": plain}, str(authority.ca_file))
        checks = Verification(Expected(DOMAIN, DOMAIN, DOMAIN), asking).run()
    assert {check.id: check.state for check in checks if check.state != "ok"} == {}
    assert [check.id for check in checks if check.id.startswith("tls.")] == ["tls.domain"]


def test_what_a_server_says_cannot_control_the_terminal(run: Run) -> None:
    checks = run(on(HOMESERVER, "/_matrix/federation/v1/version", {"server": {"name": "\x1b[31mred\r\nhost"}}))
    assert checks["federation.version"].seen == " [31mred  host"


def test_the_table_is_aligned(run: Run) -> None:
    checks = list(run(on(ELEMENT, "/version", (200, PROTECTION, b"1.11.0"))).values())
    lines = table("atelier.test", checks)
    assert lines[0] == "atelier.test: 37 checks, 36 ok, 0 warned, 1 failed, 0 not checked"
    state, seen = lines[2].index("STATE"), lines[2].index("SEEN")
    failed = next(line for line in lines if line.startswith("Element version"))
    assert failed[state : state + 4] == "FAIL"
    assert failed[seen:] == "1.11.0"
    below = lines[lines.index(failed) + 1 :]
    assert below[0] == "    cause  Element 1.11.0 is served, and the inventory says 1.12.25."
    assert below[1].startswith("    mend   Run cae.matrix.cooperative")
    assert all(line == line.rstrip() for line in lines)
    assert all(len(line) <= 110 for line in lines)
    assert all(re.match(r"\S", line) for line in (lines[0], lines[2], *[li for li in lines if " ok " in li]))


# -- signing keys ------------------------------------------------------------------------------------------------


def test_canonical_json_of_the_specification() -> None:
    assert signed_json.canonical_json({"本": 2, "日": 1, "a": {"c": None, "b": [True, "\u65e5"]}}) == (
        '{"a":{"b":[true,"日"],"c":null},"日":1,"本":2}'.encode()
    )
    with pytest.raises(ValueError, match="whole number"):
        signed_json.canonical_json({"a": [1.5]})


def test_the_signature_of_the_specification() -> None:
    """The test vector of the appendix of the Matrix specification: an empty object, signed by "domain"."""
    seed = signed_json.decode_base64("YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1")
    signature = "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"
    key = Ed25519PrivateKey.from_private_bytes(seed)
    key.public_key().verify(signed_json.decode_base64(signature), signed_json.canonical_json({}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"verify_keys": {}}, "names no key"),
        ({"verify_keys": {"rsa:a": {"key": "x"}}}, "not an ed25519 key"),
        ({"verify_keys": {"ed25519:b": {"key": "x"}}}, "not signed with its own key ed25519:b"),
        ({"verify_keys": {"ed25519:a_x": {"key": "###"}}}, "garbled"),
        ({"verify_keys": {"ed25519:a_x": {"key": b64(b"x" * 31)}}}, "garbled"),
        ({"verify_keys": {"ed25519:a_x": None}}, "garbled"),
        ({"valid_until_ts": None}, "no valid_until_ts"),
        ({"valid_until_ts": True}, "no valid_until_ts"),
        ({"valid_until_ts": -1}, "valid until 1969"),
        ({"signatures": {DOMAIN: {"ed25519:a_x": b64(b"x" * 64)}}}, "does not match"),
        ({"signatures": {DOMAIN: {"ed25519:a_x": 5}}}, "not signed with"),
        ({"signatures": []}, "no signature"),
        ({"ratio": 0.5}, "cannot be signed"),
    ],
)
def test_bad_key_documents(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(federation_keys.KeyProblem) as raised:
        federation_keys.check(keys() | changes, DOMAIN, datetime.datetime.now(datetime.UTC))
    assert words in raised.value.cause
    assert raised.value.mend


def test_good_key_documents() -> None:
    now = datetime.datetime.now(datetime.UTC)
    found = federation_keys.check(keys() | {"unsigned": {"age": 5}}, DOMAIN, now)
    assert found.key_ids == ("ed25519:a_x",)
    assert found.valid_until > now
    assert federation_keys.check(keys(valid_until_ts=10**18), DOMAIN, now).valid_until.year == 9999
    with pytest.raises(federation_keys.KeyProblem):
        federation_keys.check([], DOMAIN, now)
