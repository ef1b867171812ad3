# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What can be seen of an instance from outside, check by check.

Every check runs. One that builds on another which failed is "not checked", and says because of which.
"""

from __future__ import annotations

import datetime
import email.utils
import ipaddress
import re
import ssl
import textwrap
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from ansible_collections.cae.matrix.plugins.module_utils.encryption.opt_in import problems as opt_in_problems
from ansible_collections.cae.matrix.plugins.module_utils.matrix import keys as federation_keys
from ansible_collections.cae.matrix.plugins.module_utils.outside.public_client import (
    PublicClient,
    Response,
    Unreachable,
)

OK, WARN, FAIL, NOT_CHECKED = "ok", "warn", "FAIL", "not checked"
SPEC_VERSION = re.compile(r"r0\.\d+\.\d+|v1\.\d+")
# Authenticated media came with 1.11; current clients are built on it.
SPEC_FLOOR = 11
HSTS_FLOOR = 31536000
NO_STORE = ("no-cache", "no-store", "max-age=0")
# What must stay behind the proxy, and the same written so that a careless proxy lets it pass.
DENIED = {
    "admin": (
        "the admin API",
        (
            "/_synapse/admin/v1/server_version",
            "/_synapse/admin/v1/users",
            "/_matrix/../_synapse/admin/v1/server_version",
            "/_matrix/..%2f_synapse/admin/v1/server_version",
            "/_matrix/%2e%2e/_synapse/admin/v1/server_version",
            "//_synapse/admin/v1/server_version",
            "/%5fsynapse/admin/v1/server_version",
            "/_synapse/client/../admin/v1/server_version",
        ),
    ),
    "metrics": ("metrics", ("/_synapse/metrics", "/metrics")),
    "replication": ("replication", ("/_synapse/replication/", "/_synapse/replication/get_repl_stream/events/x")),
}

# Where other servers look, and where they look when nothing tells them otherwise.
CLOSED = (
    "/_matrix/federation/v1/version",
    "/_matrix/federation/v1/publicRooms",
    "/_matrix/federation/v1/media/download/x",
    "/_matrix/%66ederation/v1/version",
    "/_matrix/key/v2/server",
)
FEDERATION_PORT = 8448

# Element sends these to its guide for telephones; a proxy could as well.
TELEPHONES = {
    "iPhone": "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"
    " Version/18.6 Mobile/15E148 Safari/604.1",
    "Android": "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko)"
    " Chrome/142.0.0.0 Mobile Safari/537.36",
}
TELEPHONE_PATHS = ("/mobile_guide/", "/manifest.json")


class Fault(Exception):
    """A check failed: what was seen instead, why, and what to do."""

    def __init__(self, cause: str, mend: str, seen: str = "") -> None:
        super().__init__(cause)
        self.cause, self.mend, self.seen = cause, mend, seen


@dataclass(frozen=True)
class Check:
    """One line of the table."""

    id: str
    title: str
    state: str
    seen: str = ""
    cause: str = ""
    mend: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a check saw; `cause` and `mend` make it a warning."""

    seen: str
    cause: str = ""
    mend: str = ""


@dataclass(frozen=True)
class Expected:
    """What the inventory says there should be."""

    domain: str
    hostname: str
    element_hostname: str | None = None
    element_version: str = ""
    registration: str = "closed"
    federates: bool = True
    well_known_elsewhere: bool = False
    support: bool = False
    third_parties: tuple[str, ...] = ()
    element_declared: Mapping[str, Any] = field(default_factory=dict)
    turn_uris: tuple[str, ...] = ()
    expiry_warning_days: int = 21
    expiry_failure_days: int = 3


@dataclass
class Verification:
    """Runs the checks in order; what a later one needs of an earlier one is in `found`."""

    expected: Expected
    client: PublicClient
    checks: list[Check] = field(default_factory=list)
    found: dict[str, Any] = field(default_factory=dict)

    # -- running ----------------------------------------------------------------------------------------------

    def run(self) -> list[Check]:
        want = self.expected
        # One name may play several roles; it is looked at once, under the first.
        sites = {want.domain: "domain"}
        sites.setdefault(want.hostname, "homeserver")
        if want.element_hostname:
            sites.setdefault(want.element_hostname, "element")
        for name, role in sites.items():
            self._site(name, role)
        homeserver = f"tls.{sites[want.hostname]}"
        for name in dict.fromkeys((want.domain, want.hostname)):
            self._well_known(name, sites[name])
        self._check("versions", "Client API versions", [homeserver], self._versions)
        self._check("versions.cors", "Client API CORS", ["versions"], self._versions_cors)
        self._check("clock", "Clock", ["versions"], self._clock)
        self._check("login", "Login flows", ["versions"], self._login)
        self._check("registration", "Registration", ["versions"], self._registration)
        for slug, (what, paths) in DENIED.items():
            self._check(
                f"denied.{slug}",
                f"No way to {what}",
                [homeserver],
                partial(self._denied, what, paths),
            )
        if want.federates:
            self._check(
                "federation.delegation", "Federation delegation", ["well-known.server.domain"], self._delegation
            )
            self._check("federation.keys", "Federation signing keys", ["federation.delegation"], self._keys)
            self._check("federation.version", "Federation version", ["federation.delegation"], self._federation_version)
        else:
            self._check("federation.closed", "Closed to other servers", [homeserver], self._closed)
            for name, role in sites.items():
                if name in (want.domain, want.hostname):
                    look = partial(self._port_closed, name)
                    self._check(
                        f"federation.port.{role}", f"Nothing on {name}:{FEDERATION_PORT}", [f"dns.{role}"], look
                    )
        self._element(f"tls.{sites.get(want.element_hostname or '')}")
        needed = ["well-known.client.domain"]
        if want.element_hostname:
            needed.append("element.config")
        self._check("encryption", "Encryption opt-in", needed, self._encryption)
        return self.checks

    def _check(self, id: str, title: str, needs: Sequence[str], look: Callable[[], Outcome]) -> None:
        states = {check.id: check for check in self.checks}
        lacking = [states[need].title for need in needs if states[need].state in (FAIL, NOT_CHECKED)]
        if lacking:
            self._note(Check(id, title, NOT_CHECKED, f"because of: {', '.join(lacking)}"))
            return
        try:
            outcome = look()
        except Unreachable as error:
            self._note(Check(id, title, FAIL, "", error.cause, error.mend))
        except Fault as error:
            self._note(Check(id, title, FAIL, error.seen, error.cause, error.mend))
        else:
            state = WARN if outcome.cause else OK
            self._note(Check(id, title, state, outcome.seen, outcome.cause, outcome.mend))

    def _note(self, check: Check) -> None:
        # What a server says reaches a terminal: no control characters.
        self.checks.append(Check(**{name: printable(value) for name, value in asdict(check).items()}))

    # -- names and TLS ----------------------------------------------------------------------------------------

    def _site(self, name: str, role: str) -> None:
        self._check(f"dns.{role}", f"DNS {name}", [], lambda: self._dns(name))
        self._check(f"tls.{role}", f"TLS {name}", [f"dns.{role}"], lambda: self._tls(name))
        self._check(f"tls-floor.{role}", f"TLS versions {name}", [f"tls.{role}"], lambda: self._tls_floor(name))
        self._check(f"http.{role}", f"HTTP {name}", [f"dns.{role}"], lambda: self._http(name))

    def _dns(self, name: str) -> Outcome:
        addresses = [address for address, _ in self.client.addresses(name)]
        mapped = name in self.client.resolve or f"{name}:443" in self.client.resolve
        return Outcome(", ".join(addresses) + (" (matrix_resolve)" if mapped else ""))

    def _tls(self, name: str) -> Outcome:
        certificate, version = self.client.handshake(name)
        left = certificate.not_after - _now()
        days = left.days
        seen = f"{version}, until {certificate.not_after:%Y-%m-%d} ({days} days), by {certificate.issuer}"
        cause = f"The certificate of {name} expires in {days} days."
        mend = "Renew it; if that should happen by itself, read the log of the renewal (certbot's timer)."
        if left < datetime.timedelta(days=self.expected.expiry_failure_days):
            raise Fault(cause, mend, seen)
        if left < datetime.timedelta(days=self.expected.expiry_warning_days):
            return Outcome(seen, cause, mend)
        return Outcome(seen)

    def _tls_floor(self, name: str) -> Outcome:
        answers = {
            label: self.client.accepts_tls(name, version)
            for label, version in (("1.0", ssl.TLSVersion.TLSv1), ("1.1", ssl.TLSVersion.TLSv1_1))
        }
        spoken = [label for label, accepted in answers.items() if accepted]
        if spoken:
            raise Fault(
                f"{name} accepts TLS {' and '.join(spoken)}, which are broken.",
                "Allow TLS 1.2 and 1.3 only (in nginx: `ssl_protocols TLSv1.2 TLSv1.3;` for every server there).",
                f"TLS {', '.join(spoken)} accepted",
            )
        unknown = [label for label, accepted in answers.items() if accepted is None]
        if unknown:
            return Outcome(
                f"TLS {', '.join(unknown)} not asked",
                f"This machine's OpenSSL cannot speak TLS {' or '.join(unknown)}.",
                "Run the checks from another machine to know.",
            )
        return Outcome("TLS 1.0 and 1.1 refused")

    def _http(self, name: str) -> Outcome:
        first = f"http://{name}/"
        answer = self.client.get(first, follow=False)
        location = urllib.parse.urljoin(first, str(answer.headers.get("Location") or ""))
        target = urllib.parse.urlsplit(location)
        if answer.status in (301, 302, 307, 308) and target.scheme == "https" and target.hostname == name:
            return Outcome(f"{answer.status} to {location}")
        seen = f"{answer.status}" + (f" to {location}" if answer.headers.get("Location") else "")
        cause = f"{first} does not lead to https://{name}/."
        mend = f"Let the web server redirect it (in nginx: `return 301 https://{name}$request_uri;`)."
        if name == self.expected.domain and self.expected.well_known_elsewhere:
            return Outcome(seen, cause, mend)
        raise Fault(cause, mend, seen)

    # -- .well-known ------------------------------------------------------------------------------------------

    def _well_known(self, name: str, role: str) -> None:
        title = f"well-known/{{}} on {name}"
        for kind, look in (
            ("client", self._well_known_client),
            ("server", self._well_known_server if self.expected.federates else self._no_well_known_server),
            ("support", self._well_known_support),
        ):
            self._check(
                f"well-known.{kind}.{role}",
                title.format(kind),
                [f"tls.{role}"],
                partial(look, f"https://{name}/.well-known/matrix/{kind}", f"{kind}.{role}"),
            )

    def _document(self, url: str, variable: str) -> tuple[dict[str, Any], Response]:
        answer = self.client.get(url)
        where = f" (redirected to {answer.url})" if answer.redirects else ""
        if answer.status != 200:
            raise Fault(
                f"{url}{where} answers {answer.status}.",
                f"Serve the document there: run cae.matrix.cooperative again, or give that site's webmaster the files"
                f" ({variable}).",
                str(answer.status),
            )
        document = answer.json()
        if not isinstance(document, dict):
            raise Fault(f"{url}{where} is JSON, but not an object.", "Serve the document that the role declares.")
        return document, answer

    def _well_known_client(self, url: str, key: str) -> Outcome:
        document, answer = self._document(url, "reverse_proxy_well_known")
        homeserver = document.get("m.homeserver")
        base_url = homeserver.get("base_url") if isinstance(homeserver, dict) else None
        wanted = f"https://{self.expected.hostname}"
        if not isinstance(base_url, str) or base_url.rstrip("/") != wanted:
            raise Fault(
                f"{url} sends clients to {base_url!r}, not to {wanted}/.",
                "Set m.homeserver.base_url there to the homeserver's address; an old file may be in front of ours.",
                str(base_url),
            )
        self._cors(answer)
        self.found[f"well-known.{key}"] = document
        return _content_type(answer, f"base_url {base_url}")

    def _well_known_server(self, url: str, key: str) -> Outcome:
        document, answer = self._document(url, "reverse_proxy_well_known")
        server = document.get("m.server")
        if not isinstance(server, str) or not server or "/" in server:
            raise Fault(
                f"{url} names no server: m.server is {server!r}.",
                f'Serve {{"m.server": "{self.expected.hostname}:443"}}.',
                str(server),
            )
        try:
            host, port = server_name(server)
        except ValueError:
            raise Fault(
                f"{url}: m.server is {server!r}, which is not a host with a port.",
                f'Serve {{"m.server": "{self.expected.hostname}:443"}}.',
                server,
            ) from None
        if host != self.expected.hostname:
            raise Fault(
                f"{url} sends other servers to {host}, not to {self.expected.hostname}.",
                f'Serve {{"m.server": "{self.expected.hostname}:443"}}; an old file may be in front of ours.',
                server,
            )
        self.found[f"well-known.{key}"] = (host, port)
        return _content_type(answer, f"m.server {server}")

    def _no_well_known_server(self, url: str, key: str) -> Outcome:
        answer = self.client.get(url)
        if answer.status in (404, 410):
            return Outcome("none, as profile internal wants it")
        raise Fault(
            f"{url} answers {answer.status}, and matrix_profile is internal: other servers would look for this one.",
            "Remove the document there (where the domain's website is elsewhere, its webmaster has to), or set another"
            " matrix_profile.",
            str(answer.status),
        )

    def _well_known_support(self, url: str, key: str) -> Outcome:
        if not self.expected.support:
            answer = self.client.get(url)
            if answer.status == 404:
                return Outcome("none, and none declared")
        document, answer = self._document(url, "reverse_proxy_support_contacts")
        contacts, page = document.get("contacts"), document.get("support_page")
        if not (isinstance(contacts, list) and contacts) and not (isinstance(page, str) and page):
            raise Fault(
                f"{url} names neither contacts nor a support page.",
                "Set reverse_proxy_support_contacts or reverse_proxy_support_page.",
            )
        self._cors(answer)
        parts = [f"{len(contacts)} contact(s)"] if isinstance(contacts, list) and contacts else []
        return _content_type(answer, ", ".join([*parts, *([f"page {page}"] if page else [])]))

    @staticmethod
    def _cors(answer: Response) -> None:
        values = answer.headers.get_all("Access-Control-Allow-Origin") or []
        if values != ["*"]:
            seen = f"Access-Control-Allow-Origin: {', '.join(values)}" if values else "no Access-Control-Allow-Origin"
            why = "twice, which browsers refuse" if len(values) > 1 else "so that web clients cannot read it"
            raise Fault(
                f"{answer.url} is served with {seen}, {why}.",
                "Send the header `Access-Control-Allow-Origin: *` there, once.",
                seen,
            )

    # -- the homeserver ---------------------------------------------------------------------------------------

    def _api(self, path: str) -> tuple[dict[str, Any], Response]:
        answer = self.client.get(f"https://{self.expected.hostname}{path}")
        if answer.status in (502, 503, 504):
            raise Fault(
                f"The web server of {self.expected.hostname} is up, but Synapse behind it is not ({answer.status}).",
                "Look at the instance's service: `systemctl status matrix-synapse@<instance>`, and its journal.",
                str(answer.status),
            )
        if answer.status != 200:
            raise Fault(
                f"{answer.url} answers {answer.status}.",
                "Check that the web server passes /_matrix to Synapse.",
                str(answer.status),
            )
        document = answer.json()
        if not isinstance(document, dict):
            raise Fault(f"{answer.url} is JSON, but not an object.", "Check what answers in place of Synapse.")
        return document, answer

    def _versions(self) -> Outcome:
        document, answer = self._api("/_matrix/client/versions")
        self.found["versions"] = answer
        versions = document.get("versions")
        if not isinstance(versions, list) or not versions:
            raise Fault(f"{answer.url} names no versions.", "Check what answers in place of Synapse.")
        odd = [str(version) for version in versions if not SPEC_VERSION.fullmatch(str(version))]
        newest = max((int(str(v)[3:]) for v in versions if re.fullmatch(r"v1\.\d+", str(v))), default=-1)
        if odd or newest < SPEC_FLOOR:
            raise Fault(
                f"{answer.url} names "
                + (f"versions that Matrix does not have: {', '.join(odd)}." if odd else "only old versions of Matrix."),
                f"Clients of today want v1.{SPEC_FLOOR} and newer: install the Synapse that the collection pins.",
                ", ".join(map(str, versions)),
            )
        return Outcome(f"up to v1.{newest}")

    def _versions_cors(self) -> Outcome:
        self._cors(self.found["versions"])
        return Outcome("Access-Control-Allow-Origin: *")

    def _clock(self) -> Outcome:
        return clock(self.found["versions"], self.expected.hostname)

    def _login(self) -> Outcome:
        document, answer = self._api("/_matrix/client/v3/login")
        flows = document.get("flows")
        kinds = [str(f.get("type")) for f in flows if isinstance(f, dict)] if isinstance(flows, list) else []
        if not {"m.login.password", "m.login.sso"} & set(kinds):
            raise Fault(
                f"{answer.url} offers no way in that people can use.",
                "Turn on password login or single sign-on in Synapse.",
                ", ".join(kinds) or "no flow",
            )
        return Outcome(", ".join(kind.removeprefix("m.login.") for kind in kinds))

    def _registration(self) -> Outcome:
        url = f"https://{self.expected.hostname}/_matrix/client/v3/register"
        headers = {"Content-Type": "application/json"}
        guest = self.client.request("POST", f"{url}?kind=guest", headers=headers, body=b"{}")
        if guest.status == 200:
            raise Fault(
                "Anyone can come in as a guest.", "Take allow_guest_access out of synapse_extra_config.", "guests: 200"
            )
        answer = self.client.request("POST", url, headers=headers, body=b"{}")
        document = answer.json()
        code = document.get("errcode") if isinstance(document, dict) else None
        seen = f"{answer.status} {code or ''}".strip()
        if answer.status == 429:
            return Outcome(seen, "The server limits how often one may ask.", "Run the checks again in a minute.")
        wanted = self.expected.registration
        if answer.status == 403:
            if wanted == "closed":
                return Outcome(f"closed ({seen})")
            raise Fault(
                "Registration is closed, and the inventory asks for registration tokens.",
                "Run cae.matrix.cooperative again: the gate opens registration once it has passed, or reports why not.",
                seen,
            )
        flows = document.get("flows") if isinstance(document, dict) else None
        stages = [f.get("stages") for f in flows if isinstance(f, dict)] if isinstance(flows, list) else []
        tokens = bool(stages) and all(isinstance(s, list) and "m.login.registration_token" in s for s in stages)
        if answer.status == 401 and tokens:
            if wanted == "token":
                return Outcome("with a registration token")
            raise Fault(
                "Registration with tokens is open, and the inventory says closed.",
                "Run cae.matrix.cooperative again, or set encryption_gate_registration: token.",
                seen,
            )
        raise Fault(
            "Anyone can register, without a token." if answer.status in (200, 401) else f"{url} answers {seen}.",
            "Only the gate opens registration; look for what else changed Synapse, and run cae.matrix.cooperative.",
            seen,
        )

    def _denied(self, what: str, paths: Sequence[str]) -> Outcome:
        for path in paths:
            answer = self.client.get(f"https://{self.expected.hostname}{path}", follow=False)
            if answer.status in (200, 401, 405) or b"M_MISSING_TOKEN" in answer.body:
                raise Fault(
                    f"{path} on {self.expected.hostname} leads to {what} of Synapse ({answer.status}).",
                    "Let the web server pass only /_matrix and /_synapse/client, and not normalise what it passes.",
                    str(answer.status),
                )
        return Outcome(f"{len(paths)} paths refused")

    # -- federation -------------------------------------------------------------------------------------------

    def _delegation(self) -> Outcome:
        host, port = self.found["well-known.server.domain"]
        if port is None:
            # Without a port other servers look for SRV records first; the standard library cannot.
            seen = f"{host}:8448 (no port in m.server)"
            self.client.handshake(host, 8448)
            self.found["federation"] = (host, 8448)
            return Outcome(
                seen,
                f"m.server is {host} without a port: other servers look for SRV records, then try 8448.",
                f'Say where it is: {{"m.server": "{host}:443"}}.',
            )
        self.client.handshake(host, port)
        self.found["federation"] = (host, port)
        return Outcome(f"{self.expected.domain} is at {host}:{port}")

    def _closed(self) -> Outcome:
        for path in CLOSED:
            answer = self.client.get(f"https://{self.expected.hostname}{path}", follow=False)
            if answer.status != 404:
                raise Fault(
                    f"{path} on {self.expected.hostname} answers {answer.status}, and matrix_profile is internal.",
                    "Run cae.matrix.cooperative again; a web server of your own needs the new rules from"
                    " /etc/matrix/<instance>/proxy/.",
                    str(answer.status),
                )
        return Outcome(f"{len(CLOSED)} paths answer 404")

    def _port_closed(self, name: str) -> Outcome:
        try:
            self.client.handshake(name, FEDERATION_PORT)
        except Unreachable as error:
            if error.kind in ("refused", "timeout", "no-route"):
                return Outcome("nothing listens")
        raise Fault(
            f"Something listens on {name}:{FEDERATION_PORT}, where other servers look; matrix_profile is internal.",
            "Stop it, or close that port in the firewall.",
            "it answers",
        )

    def _federation_api(self, path: str) -> Any:
        host, port = self.found["federation"]
        netloc = f"[{host}]" if ":" in host else host
        answer = self.client.get(f"https://{netloc}:{port}{path}")
        if answer.status != 200:
            raise Fault(
                f"{answer.url} answers {answer.status}.",
                "Check that the web server passes /_matrix to Synapse, whose listener serves federation.",
                str(answer.status),
            )
        return answer.json()

    def _keys(self) -> Outcome:
        document = self._federation_api("/_matrix/key/v2/server")
        try:
            keys = federation_keys.check(document, self.expected.domain, _now())
        except federation_keys.KeyProblem as error:
            raise Fault(error.cause, error.mend) from None
        return Outcome(f"{', '.join(keys.key_ids)}, signed, until {keys.valid_until:%Y-%m-%d %H:%M} UTC")

    def _federation_version(self) -> Outcome:
        document = self._federation_api("/_matrix/federation/v1/version")
        server = document.get("server") if isinstance(document, dict) else None
        if not isinstance(server, dict) or not server.get("name"):
            raise Fault(
                "The federation API does not say which server it is.", "Check what answers in place of Synapse."
            )
        return Outcome(f"{server.get('name')} {server.get('version', '')}".strip())

    # -- Element Web ------------------------------------------------------------------------------------------

    def _element(self, tls: str) -> None:
        if not self.expected.element_hostname:
            seen = "left out: declared absent (matrix_element_enabled is false)"
            self._note(Check("element", "Element Web", NOT_CHECKED, seen))
            return
        self._check("element.config", "Element config.json", [tls], self._element_config)
        self._check("element.third-parties", "Element third parties", ["element.config"], self._third_parties)
        self._check("element.telephones", "Element on telephones", [tls], self._telephones)
        self._check("element.calls", "Element calls", ["element.config"], self._calls)
        self._check("element.version", "Element version", [tls], self._element_version)
        self._check("element.headers", "Element security headers", [tls], self._element_headers)
        self._check("element.caching", "Element caching", [tls], self._element_caching)

    def _element_get(self, path: str) -> Response:
        answer = self.client.get(f"https://{self.expected.element_hostname}{path}")
        if answer.status != 200:
            raise Fault(
                f"{answer.url} answers {answer.status}.",
                "Run cae.matrix.cooperative again; if it passed, look for another site that answers for this name.",
                str(answer.status),
            )
        return answer

    def _element_config(self) -> Outcome:
        answer = self._element_get("/config.json")
        document = answer.json()
        if not isinstance(document, dict):
            raise Fault(f"{answer.url} is JSON, but not an object.", "Run cae.matrix.cooperative again.")
        server = document.get("default_server_config")
        home = server.get("m.homeserver") if isinstance(server, dict) else None
        home = home if isinstance(home, dict) else {}
        base_url, name = home.get("base_url"), home.get("server_name")
        if str(base_url).rstrip("/") != f"https://{self.expected.hostname}" or name != self.expected.domain:
            raise Fault(
                f"Element leads people to {base_url!r} ({name!r}), not to https://{self.expected.hostname}/"
                f" ({self.expected.domain}).",
                "Take default_server_config out of element_web_extra_config, and run cae.matrix.cooperative again.",
                str(base_url),
            )
        self.found["element"] = document
        return _content_type(answer, f"for {name}")

    def _strangers(self, document: Any) -> list[str]:
        """The hosts of others that a document names, unless the inventory does."""
        own = {self.expected.domain, self.expected.hostname, self.expected.element_hostname}
        accepted = own | set(self.expected.third_parties) | _named_hosts(self.expected.element_declared)
        return sorted(
            {
                f"{path} names {host}"
                for path, host in _hosts(document)
                if host not in accepted and not host.endswith(f".{self.expected.domain}")
            }
        )

    def _third_parties(self) -> Outcome:
        strangers = self._strangers(self.found["element"])
        if strangers:
            raise Fault(
                f"config.json points at others: {'; '.join(strangers)}.",
                "Run cae.matrix.cooperative; if they are meant to be there, name those hosts in verify_third_parties.",
                f"{len(strangers)} found",
            )
        return Outcome("none")

    def _telephones(self) -> Outcome:
        wrong = []
        for device, user_agent in TELEPHONES.items():
            for path in ("/", *TELEPHONE_PATHS):
                url = f"https://{self.expected.element_hostname}{path}"
                answer = self.client.get(url, {"User-Agent": user_agent}, follow=False)
                if answer.headers.get("Location"):
                    wrong.append(f"{device}: {path} leads to {answer.headers.get('Location')}")
                elif answer.status != 200:
                    wrong.append(f"{device}: {path} answers {answer.status}")
                elif path in TELEPHONE_PATHS:
                    wrong += [f"{device}: {one}" for one in self._strangers({path: answer.text()})]
        if wrong:
            raise Fault(
                f"Telephones are not led to the cooperative's own page: {'; '.join(wrong)}.",
                "Run cae.matrix.cooperative; a web server of your own needs the new rules from"
                " /etc/matrix/<instance>/proxy/.",
                f"{len(wrong)} wrong",
            )
        return Outcome(f"a page of this server ({', '.join(TELEPHONES)})")

    def _calls(self) -> Outcome:
        config = self.found["element"]
        settings = _mapping(config.get("setting_defaults"))
        element_call = _mapping(config.get("element_call"))
        relays = ", ".join(self.expected.turn_uris)
        # What is not said is as Element has it.
        if settings.get("UIFeature.voip", True) is not True:
            return Outcome("hidden" + ("" if relays else ": synapse_turn_uris declares no relay"))
        if relays:
            return Outcome(f"shown, relayed by {relays}")
        if settings.get("enableLegacyCallsVoip", True) is not True and not element_call.get("disable"):
            return Outcome(f"shown, by Element Call ({element_call.get('url')})")
        return Outcome(
            "shown, without a relay",
            "Calls of two only get through within one network: no relay is declared.",
            "Set synapse_turn_uris and synapse_turn_shared_secret, or set element_web_calls to false.",
        )

    def _element_version(self) -> Outcome:
        answer = self._element_get("/version")
        version = answer.text().strip().removeprefix("v")
        if not re.fullmatch(r"[0-9]+\.[0-9]+[0-9A-Za-z.+-]*", version):
            raise Fault(
                f"{answer.url} is not a version.", "Look for another site that answers for this name.", version[:40]
            )
        wanted = self.expected.element_version.removeprefix("v")
        if wanted and version != wanted:
            raise Fault(
                f"Element {version} is served, and the inventory says {wanted}.",
                "Run cae.matrix.cooperative; if it passed, look for a cache in front.",
                version,
            )
        return Outcome(version)

    def _element_headers(self) -> Outcome:
        wrong: list[str] = []
        for path in ("/", "/index.html", "/config.json", "/version"):
            headers = self.client.get(f"https://{self.expected.element_hostname}{path}").headers
            if str(headers.get("X-Frame-Options", "")).upper() != "SAMEORIGIN":
                wrong.append(f"{path}: X-Frame-Options is not SAMEORIGIN")
            if str(headers.get("X-Content-Type-Options", "")).lower() != "nosniff":
                wrong.append(f"{path}: X-Content-Type-Options is not nosniff")
            if not re.search(r"(^|;)\s*frame-ancestors 'self'\s*(;|$)", headers.get("Content-Security-Policy", "")):
                wrong.append(f"{path}: Content-Security-Policy lacks frame-ancestors 'self'")
            age = re.search(r"max-age=\"?(\d+)", headers.get("Strict-Transport-Security", ""))
            if age is None or int(age.group(1)) < HSTS_FLOOR:
                wrong.append(f"{path}: Strict-Transport-Security is missing or short of a year")
        if wrong:
            raise Fault(
                f"Headers that protect people are missing: {'; '.join(wrong)}.",
                "nginx drops inherited add_header lines in a location that has its own: repeat them there.",
                f"{len(wrong)} wrong",
            )
        return Outcome("frames, sniffing, HSTS")

    def _element_caching(self) -> Outcome:
        wrong = []
        paths = ("/", "/index.html", "/config.json", "/version")
        for path in paths:
            headers = self.client.get(f"https://{self.expected.element_hostname}{path}").headers
            control = str(headers.get("Cache-Control", "")).lower()
            if not any(word in control.replace(" ", "").split(",") for word in NO_STORE):
                wrong.append(f"{path} ({control or 'no Cache-Control'})")
        if wrong:
            raise Fault(
                f"Browsers may keep old copies of {', '.join(wrong)}.",
                "Send `Cache-Control: no-cache` there, or people keep an old Element after an upgrade.",
                f"{len(wrong)} wrong",
            )
        return Outcome(f"no-cache on {len(paths)} paths")

    # -- encryption -------------------------------------------------------------------------------------------

    def _encryption(self) -> Outcome:
        well_known = {"client": self.found["well-known.client.domain"]}
        found = opt_in_problems({"synapse": None, "well_known": well_known, "element": self.found.get("element")})
        if found:
            raise Fault(
                "What is served is not opt-in. " + " ".join(f"{p.document}: {p.key} {p.cause}" for p in found),
                "Run cae.matrix.cooperative again; if it passed, look for a site or cache that serves something else.",
                f"{len(found)} contradiction(s)",
            )
        return Outcome(
            "off unless people ask for it, in " + ("both documents" if self.found.get("element") else ".well-known")
        )


# -- words -------------------------------------------------------------------------------------------------------


def counts(checks: Sequence[Check]) -> dict[str, int]:
    """How many checks are in each state, by the names of the report."""
    names = {OK: "ok", WARN: "warn", FAIL: "fail", NOT_CHECKED: "not_checked"}
    return {name: sum(check.state == state for check in checks) for state, name in names.items()}


def table(heading: str, checks: Sequence[Check], width: int = 110) -> list[str]:
    """The checks as lines for a terminal: aligned columns, cause and mend below what they belong to."""
    number = counts(checks)
    lines = [
        f"{heading}: {len(checks)} checks, {number['ok']} ok, {number['warn']} warned, {number['fail']} failed,"
        f" {number['not_checked']} not checked",
        "",
    ]
    rows = [("CHECK", "STATE", "SEEN"), *((check.title, check.state, check.seen) for check in checks)]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    details = {index: check for index, check in enumerate(checks, start=1)}
    for index, (title, state, seen) in enumerate(rows):
        lines.append(f"{title:<{first}}  {state:<{second}}  {seen}".rstrip())
        for label in ("cause", "mend"):
            text = getattr(details.get(index), label, "")
            if text:
                begin = f"    {label:<5}  "
                lines += textwrap.wrap(
                    text,
                    width,
                    initial_indent=begin,
                    subsequent_indent=" " * len(begin),
                    break_long_words=False,
                    break_on_hyphens=False,
                )
    return lines


def _content_type(answer: Response, seen: str) -> Outcome:
    if answer.content_type == "application/json":
        return Outcome(seen)
    return Outcome(
        f"{seen}, as {answer.content_type or 'no content type'}",
        f"{answer.url} is served as {answer.content_type or 'nothing in particular'}, not as application/json.",
        "Let the web server send `Content-Type: application/json` there; some clients insist.",
    )


def clock(answer: Response, name: str) -> Outcome:
    """How far the clock of `name`, which gave this answer, is from this machine's; more than a minute is a Fault."""
    try:
        theirs = email.utils.parsedate_to_datetime(str(answer.headers.get("Date")))
    except ValueError:
        return Outcome("no Date header", "The server does not say what time it is.", "Let the web server send Date.")
    if theirs.tzinfo is None:
        theirs = theirs.replace(tzinfo=datetime.UTC)
    # The header counts whole seconds, so that up to one of the difference is rounding.
    ahead = round((theirs - answer.received).total_seconds())
    seen = f"{abs(ahead)} s {'ahead' if ahead > 0 else 'behind'}" if abs(ahead) > 1 else "in step"
    cause = f"The clock of {name} and this machine's differ by {abs(ahead)} s."
    mend = "Synchronise both (systemd-timesyncd or chrony): signatures, certificates and tokens depend on it."
    if abs(ahead) > 60:
        raise Fault(cause, mend, seen)
    return Outcome(seen, cause, mend) if abs(ahead) > 5 else Outcome(seen)


def server_name(name: str) -> tuple[str, int | None]:
    """Host and port of a Matrix server name; ValueError when it is none."""
    split = urllib.parse.urlsplit(f"//{name}")
    if split.hostname is None or split.path or split.query or split.username is not None or name.endswith(":"):
        raise ValueError(name)
    if not re.fullmatch(r"[a-z0-9.-]+", split.hostname):
        ipaddress.ip_address(split.hostname)
    return split.hostname, split.port


def _hosts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(where in the document, host) of every address in it."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _hosts(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _hosts(inner, path)
    elif isinstance(value, str):
        for match in re.finditer(r"(?:https?|wss?):\\?/\\?/([^\s/\\?#\"'<>()]+)", value, re.IGNORECASE):
            host = match.group(1).rpartition("@")[2].lower()
            yield path, re.sub(r":\d*$", "", host)
        if path.endswith(("preferred_domain", "preferredDomain")) and "/" not in value and value:
            yield path, value.lower()


def _named_hosts(declared: Any) -> set[str]:
    """The hosts that the inventory names itself, in addresses or alone."""
    if isinstance(declared, Mapping):
        return set().union(*(_named_hosts(inner) for inner in declared.values()))
    if isinstance(declared, (list, tuple)):
        return set().union(*(_named_hosts(inner) for inner in declared))
    if isinstance(declared, str):
        return {host for _, host in _hosts(declared)} | {declared.lower()}
    return set()


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def printable(value: str) -> str:
    return "".join(character if character.isprintable() else " " for character in value)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def report(name: str, domain: str, checks: Sequence[Check]) -> dict[str, Any]:
    """One instance in the JSON report."""
    return {
        "name": name,
        "matrix_domain": domain,
        "ok": not any(check.state == FAIL for check in checks),
        "counts": counts(checks),
        "checks": [asdict(check) for check in checks],
    }
