# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether one server reaches another, seen from its own machine, step by step and with its own signing key.

The steps end at the first that fails. What is looked at by hand finds the cause; what Synapse itself gets to see, asked
through its client API, has the last word. Needs `cryptography`, which the virtual environment of Synapse has.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.cae.matrix.plugins.module_utils.encryption.verification import (
    FAIL,
    OK,
    WARN,
    Fault,
    Outcome,
    clock,
    printable,
    server_name,
)
from ansible_collections.cae.matrix.plugins.module_utils.matrix import keys as federation_keys
from ansible_collections.cae.matrix.plugins.module_utils.matrix.signed_json import (
    canonical_json,
    decode_base64,
    encode_base64,
)
from ansible_collections.cae.matrix.plugins.module_utils.outside.public_client import (
    PublicClient,
    Response,
    Unreachable,
)
from ansible_collections.cae.matrix.plugins.module_utils.synapse.admin import Synapse, SynapseError, Unanswered, quote
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

# What came of it. A refusal is a policy; a failure proves nothing about policies.
REACHED, REFUSED_HERE, REFUSED_THERE, ABSENT, FAILED = "reached", "refused here", "refused there", "absent", "failed"
# Nobody is called that; whoever is asked about it has had to accept who asks.
NOBODY = "cae-matrix-verify"
EXPIRY_WARNING = datetime.timedelta(days=21)
# As Synapse reads .well-known.
MAX_BODY, MAX_REDIRECTS = 50 * 1024, 20
AT_ONCE = 20
NO_SRV = "SRV records, which other servers look for first, are not read here"
# What the client says is for a controller; from the machine of a server, some of it is mended elsewhere.
MENDS = {
    "name-not-found": "Create its A (and AAAA) record; Synapse asks this machine's DNS, and knows no matrix_resolve.",
    "tls-unknown-ca": (
        "Serve the full chain there (fullchain.pem); name a private CA in machine_trusted_ca_files here, and run"
        " cae.matrix.cooperative."
    ),
}


class Refused(Fault):
    """Not a fault in itself: somebody's policy, or a server that does not federate at all."""

    def __init__(self, outcome: str, cause: str, mend: str) -> None:
        super().__init__(cause, mend)
        self.outcome = outcome


class Elsewhere(Fault):
    """Where the server is could not be found by hand; Synapse, which reads SRV records, may know."""


@dataclass(frozen=True)
class Peer:
    """A server to be asked; `expected`, whether it and we may talk, and `why` not."""

    domain: str
    expected: bool = True
    why: str = ""


@dataclass(frozen=True)
class Row:
    """What came of one direction of a pair. `state` is about the promise: a refusal as declared is `ok`."""

    domain: str
    expected: bool
    outcome: str
    state: str
    step: str
    seen: str
    cause: str = ""
    mend: str = ""


@dataclass(frozen=True)
class SigningKey:
    """The key with which a server signs what it asks."""

    key_id: str
    key: Ed25519PrivateKey

    @classmethod
    def read(cls, path: Path) -> SigningKey:
        """The first key of Synapse's file, the one that it signs with; ValueError when there is none."""
        for line in path.read_text(encoding="utf-8").splitlines():
            algorithm, version, seed = line.split()
            if algorithm == "ed25519":
                return cls(f"{algorithm}:{version}", Ed25519PrivateKey.from_private_bytes(decode_base64(seed)))
        raise ValueError("no ed25519 key")

    @property
    def public(self) -> str:
        """The same key as others know it."""
        return encode_base64(self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))

    def authorization(self, method: str, uri: str, origin: str, destination: str) -> str:
        """The header that proves who asks, after "Request authentication" of Matrix's specification."""
        signed = {"method": method, "uri": uri, "origin": origin, "destination": destination}
        signature = encode_base64(self.key.sign(canonical_json(signed)))
        return f'X-Matrix origin="{origin}",destination="{destination}",key="{self.key_id}",sig="{signature}"'


@dataclass(frozen=True)
class Own:
    """The server that asks: its name, its key, and how to have its Synapse asked."""

    domain: str
    key: SigningKey
    synapse: Callable[[], Synapse]

    def published(self) -> str | None:
        """The public key that the running Synapse has by the name of ours; None when it does not say."""
        status, answer = self.synapse().ask("GET", "/_matrix/key/v2/server", token="")
        keys = answer.get("verify_keys", {}) if status == 200 and isinstance(answer, Mapping) else None
        return None if keys is None else str(keys.get(self.key.key_id, {}).get("key", ""))


@dataclass
class Pair:
    """One direction: `own` asks `peer`. What is worth a look without being a failure is in `warnings`."""

    own: Own
    client: PublicClient
    peer: Peer
    step: str = ""
    seen: list[str] = field(default_factory=list)
    warnings: list[Outcome] = field(default_factory=list)
    host: str = ""
    port: int = 0

    def run(self) -> Row:
        """Asks, and says whether what came of it is what was promised."""
        try:
            if self.peer.expected:
                self._reach()
            else:
                # Our own refusal is proven without a word to the other server.
                self._do("policy", self._synapse_refuses)
                self._look()
        except Unreachable as error:
            return self._judge(FAILED, Fault(error.cause, MENDS.get(error.kind, error.mend)))
        except SynapseError as error:
            return self._judge(FAILED, Fault(error.cause, error.mend))
        except Refused as refusal:
            return self._judge(refusal.outcome, refusal)
        except Fault as fault:
            return self._judge(FAILED, fault)
        return self._judge(REACHED)

    def _reach(self) -> None:
        try:
            self._look()
        except Elsewhere as fault:
            self.warnings.append(Outcome("", f"{fault.cause} Synapse itself finds its way.", fault.mend))
            try:
                self._do("synapse", self._synapse_reaches)
            except Refused:
                raise
            except Fault:
                raise fault from None
        else:
            self._do("synapse", self._synapse_reaches)
        self._do("backoff", self._backoff)

    def _look(self) -> None:
        self._do("delegation", self._delegation)
        self._do("version", self._version)
        self._do("keys", self._keys)
        self._do("request", self._request)

    def _do(self, step: str, look: Callable[[], Any]) -> None:
        self.step = step
        outcome = look()
        if isinstance(outcome, Outcome):
            if outcome.seen:
                self.seen.append(outcome.seen)
            if outcome.cause:
                self.warnings.append(outcome)

    def _judge(self, outcome: str, fault: Fault | None = None) -> Row:
        them = self.peer.domain
        cause, mend = (fault.cause, fault.mend) if fault else ("", "")
        if self.peer.expected:
            state = FAIL if fault else WARN if self.warnings else OK
            if state == WARN:
                cause = " ".join(warning.cause for warning in self.warnings)
                mend = " ".join(dict.fromkeys(warning.mend for warning in self.warnings))
        elif outcome == REACHED:
            state = FAIL
            cause = (
                f"{them} answers our signed requests, and we ask it, although {self.peer.why or 'they may not talk'}."
            )
            mend = "Run the playbook on both: what is in force is not what is declared."
        elif outcome == FAILED:
            state = FAIL
            cause = f"Whether {them} refuses us cannot be seen: {cause}"
        else:
            state = OK
            self.seen.append(cause)
            cause = mend = ""
        # What a server says reaches a terminal.
        seen, cause, mend = (printable(text) for text in ("; ".join(self.seen), cause, mend))
        return Row(printable(them), self.peer.expected, outcome, state, self.step, seen, cause, mend)

    # -- where it is --------------------------------------------------------------------------------------------

    def _delegation(self) -> Outcome:
        """Server discovery, without SRV records, which the standard library cannot read."""
        name = self.peer.domain
        try:
            host, port = server_name(name)
        except ValueError:
            raise Fault(f"{name!r} is not a server name.", "Correct it in the inventory, or in the list.") from None
        if port is not None or _is_address(host):
            self.host, self.port = host, port or 8448
            return Outcome(f"at {self._netloc()}")
        missing: Fault | None = None
        absent = False
        url = f"https://{name}/.well-known/matrix/server"
        try:
            answer = self.client.get(url)
            absent = answer.status == 404
            delegated = self._delegated(answer)
        except Unreachable as error:
            missing = Fault(error.cause, MENDS.get(error.kind, error.mend))
        except Fault as fault:
            missing = fault
        else:
            self.host, self.port = delegated[0], delegated[1] or 8448
            if delegated[1] is not None:
                return Outcome(f"at {self._netloc()}")
            return self._without_port(url)
        self.host, self.port = host, 8448
        try:
            self.client.handshake(host, 8448)
        except Unreachable as error:
            if absent:
                raise Refused(
                    ABSENT,
                    f"{name} does not federate: no .well-known/matrix/server, and on port 8448: {error.cause}",
                    f"If it should, set matrix_profile for {name} and run its playbook; {NO_SRV}.",
                ) from None
            raise Fault(
                f"{missing.cause} Without .well-known/matrix/server port 8448 is tried: {error.cause}",
                # That nothing listens there is how it should be.
                " Or: ".join([missing.mend, *([error.mend] if error.kind.startswith("tls") else [])]),
            ) from None
        if absent:
            return Outcome(f"at {host}:8448, without .well-known")
        cause = f"{name} answers on port 8448, but its .well-known/matrix/server cannot be read: {missing.cause}"
        return Outcome(f"at {host}:8448", cause, missing.mend)

    def _delegated(self, answer: Response) -> tuple[str, int | None]:
        if answer.status != 200:
            raise Fault(
                f"{answer.url} answers {answer.status}.",
                f"Serve it there (reverse_proxy_well_known): {self.peer.domain} cannot be found without.",
            )
        document = answer.json()
        server = document.get("m.server") if isinstance(document, dict) else None
        try:
            return server_name(str(server or ""))
        except ValueError:
            raise Fault(
                f"{answer.url} names no server: m.server is {server!r}.",
                f"Run the playbook for {self.peer.domain}, or have its webmaster serve what it declares.",
            ) from None

    def _without_port(self, url: str) -> Outcome:
        cause = f"{url} names {self.host} without a port: {NO_SRV}, only port 8448."
        mend = f'Say where it is: {{"m.server": "{self.host}:443"}}.'
        try:
            self.client.handshake(self.host, 8448)
        except Unreachable as error:
            raise Elsewhere(f"{cause} {error.cause}", mend) from None
        return Outcome(f"at {self.host}:8448", cause, mend)

    def _netloc(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    # -- what it answers ----------------------------------------------------------------------------------------

    def _ask(self, path: str, headers: Mapping[str, str] | None = None) -> Response:
        answer = self.client.get(f"https://{self._netloc()}{path}", headers=headers, follow=False)
        if answer.status in (502, 503, 504):
            raise Fault(
                f"The web server of {self.peer.domain} is up, but Synapse behind it is not ({answer.status}).",
                "Look at the instance's service there: `systemctl status matrix-synapse@<instance>`, and its journal.",
            )
        return answer

    def _document(self, path: str) -> tuple[Any, Response]:
        answer = self._ask(path)
        if answer.status == 404:
            raise Refused(
                ABSENT,
                f"{self.peer.domain} does not federate: {self._netloc()} has no {path}.",
                f"If it should, set matrix_profile for {self.peer.domain}, run its playbook, and see that its web"
                " server passes /_matrix to Synapse.",
            )
        if answer.status != 200:
            raise Fault(f"{answer.url} answers {answer.status}.", "See that the web server passes /_matrix to Synapse.")
        return answer.json(), answer

    def _version(self) -> Outcome:
        document, answer = self._document("/_matrix/federation/v1/version")
        server = document.get("server") if isinstance(document, dict) else None
        if not isinstance(server, dict) or not server.get("name"):
            raise Fault(f"{answer.url} does not say which server it is.", "See what answers in place of Synapse.")
        self.seen.append(f"{server['name']} {server.get('version', '')}".strip())
        if answer.certificate is not None:
            until = answer.certificate.not_after
            left = until - datetime.datetime.now(datetime.UTC)
            self.seen.append(f"certificate until {until:%Y-%m-%d}")
            if left < EXPIRY_WARNING:
                self.warnings.append(
                    Outcome(
                        "",
                        f"The certificate of {self.peer.domain} ({self.host}) runs out on {until:%Y-%m-%d %H:%M} UTC,"
                        f" in {left.days} days.",
                        "Have it renewed there; if that should happen by itself, read the log of the renewal.",
                    )
                )
        self.step = "clock"
        return clock(answer, self.peer.domain)

    def _keys(self) -> Outcome:
        document, _ = self._document("/_matrix/key/v2/server")
        try:
            keys = federation_keys.check(document, self.peer.domain, datetime.datetime.now(datetime.UTC))
        except federation_keys.KeyProblem as error:
            raise Fault(error.cause, error.mend) from None
        return Outcome(f"keys {', '.join(keys.key_ids)}")

    def _request(self) -> Outcome:
        """A real request. Synapse answers 404 for what is not there only to whom it knows and lets in."""
        them, us = self.peer.domain, self.own.domain
        uri = f"/_matrix/federation/v1/query/directory?room_alias={quote(f'#{NOBODY}:{them}')}"
        answer = self._ask(uri, {"Authorization": self.own.key.authorization("GET", uri, us, them)})
        document: Any = {}
        try:
            document = answer.json()
        except Unreachable:
            if answer.status == 200:
                raise
        errcode = str(document.get("errcode", "")) if isinstance(document, dict) else ""
        error = str(document.get("error", ""))[:200] if isinstance(document, dict) else ""
        if answer.status == 200 or (answer.status == 404 and errcode == "M_NOT_FOUND"):
            return Outcome("signed request accepted")
        said = " ".join(filter(None, (str(answer.status), errcode, error)))
        if answer.status == 403:
            raise self._refused_there(said)
        if answer.status == 401:
            raise self._distrusted(said)
        if answer.status == 429:
            raise Fault(f"{them} asks for patience ({said}).", "Run the checks again in a minute.")
        raise Fault(
            f"{them} answers a signed request with {said}.", "See the journal of Synapse there, at this very moment."
        )

    def _refused_there(self, said: str) -> Refused:
        them, us = self.peer.domain, self.own.domain
        return Refused(
            REFUSED_THERE,
            f"{them} refuses us by its own policy ({said}).",
            f"Run the playbook of {them}, if what it declares lets {us} in (its profile, its deny list, the list of"
            " members); if it does not, ask who keeps it.",
        )

    def _distrusted(self, said: str) -> Fault:
        them, us = self.peer.domain, self.own.domain
        published = self.own.published()
        if published is not None and published != self.own.key.public:
            return Fault(
                f"{them} refuses our signature, rightly: Synapse runs with another key than {self.own.key.key_id} of"
                " secrets/signing.key.",
                "Put the key back that it started with (a backup has it). If the new one is meant, give it a new name"
                " (the second word in that file) before Synapse is restarted.",
            )
        if "signature" in said.lower() and "key" in said.lower():
            return Fault(
                f"{them} remembers another key by the name of {self.own.key.key_id} ({said}).",
                "Put the old secrets/signing.key back from a backup; where it is lost, give the new key a new name (the"
                " second word in that file) and restart Synapse.",
            )
        return Fault(
            f"{them} cannot get hold of our signing keys ({said}).",
            f"See the way back, from {them} to {us}: there .well-known, DNS, the certificate and the CA of {us} have to"
            " be in order. Once they are, it may take that server some minutes to ask again.",
        )

    # -- what our own Synapse makes of it -----------------------------------------------------------------------

    def _synapse_refuses(self) -> None:
        """Has Synapse look up nobody there: its policy refuses at once, otherwise it goes and asks."""
        them = self.peer.domain
        try:
            status, answer = self.own.synapse().ask("GET", f"/_matrix/client/v3/profile/{quote(f'@{NOBODY}:{them}')}")
        except Unanswered:
            # It went and asked, so it is not our policy; who asks next sees what is wrong over there.
            return
        error = str(answer.get("error", "")) if status == 403 and isinstance(answer, Mapping) else ""
        if error.startswith(f"Federation denied with {them}"):
            raise Refused(
                REFUSED_HERE,
                f"Our own policy keeps us from {them} ({error.rstrip('.')}).",
                "Run the playbook here, if what is declared lets it in (matrix_profile, federation_denied_servers,"
                " federation_allowed_servers, the list of members); if it does not, that is where to change it.",
            )
        if error.startswith(f"Federation denied with {self.own.domain}"):
            raise self._refused_there(f"403 {error}")

    def _synapse_reaches(self) -> Outcome:
        """Has Synapse look up an alias that nobody has there: 404 has come from the other side."""
        them = self.peer.domain
        synapse = self.own.synapse()
        try:
            status, _ = synapse.ask("GET", f"/_matrix/client/v3/directory/room/{quote(f'#{NOBODY}:{them}')}")
        except Unanswered:
            raise Fault(
                f"This machine reaches {them}, but Synapse has had no answer from there for {synapse.timeout:.0f} s.",
                "Run this again; if it stays so, Synapse's journal says more (names, proxies, the load over there).",
            ) from None
        if status in (200, 404):
            return Outcome("Synapse gets through")
        # An alias tells no refusal from an outage.
        self._synapse_refuses()
        raise Fault(
            f"This machine reaches {them}, but Synapse does not (it answers {status}).",
            "It may remember for an hour that .well-known was missing: restart it. Otherwise its journal says more"
            " (names, proxies, and address ranges that its configuration refuses).",
        )

    def _backoff(self) -> Outcome:
        path = f"/_synapse/admin/v1/federation/destinations/{quote(self.peer.domain)}"
        synapse = self.own.synapse()
        status, answer = synapse.ask("GET", path)
        if status == 404:
            return Outcome("")
        if status != 200:
            raise synapse.refusal("GET", path, status, answer)
        now = datetime.datetime.now(datetime.UTC)
        until = datetime.datetime.fromtimestamp(
            (answer["retry_last_ts"] + answer["retry_interval"]) / 1000, datetime.UTC
        )
        if not answer["retry_last_ts"] or until <= now:
            return Outcome("")
        return Outcome(
            "",
            f"After earlier failures Synapse sends {self.peer.domain} nothing until {until:%Y-%m-%d %H:%M:%S} UTC.",
            "It then goes on by itself, at once if that server says something first; POST"
            f" {path}/reset_connection as an administrator makes it go on now.",
        )


def check(own: Own, client: PublicClient, peers: Sequence[Peer], deadline: float) -> list[Row]:
    """One row for each peer, asked at the same time; what has not answered by the deadline says so."""
    pool = ThreadPoolExecutor(max_workers=AT_ONCE)
    asked: dict[Future[Row], Pair] = {}
    for peer in peers:
        pair = Pair(own, client, peer)
        asked[pool.submit(pair.run)] = pair
    wait(asked, timeout=deadline)
    rows = [future.result() if future.done() else _late(pair, deadline) for future, pair in asked.items()]
    pool.shutdown(wait=False, cancel_futures=True)
    return rows


def _late(pair: Pair, deadline: float) -> Row:
    return Row(
        pair.peer.domain,
        pair.peer.expected,
        FAILED,
        FAIL,
        pair.step,
        "",
        f"{pair.peer.domain} was not done within {deadline:g} s, in which all were asked.",
        "Run the checks again with a longer verify_pairs_deadline.",
    )


def kept(rows: Iterable[Row]) -> bool:
    """Whether each came out as promised; warnings do not count."""
    return all(row.state != FAIL for row in rows)


def peers(wanted: Iterable[Mapping[str, Any]]) -> list[Peer]:
    """The peers of a module's options."""
    return [Peer(one["domain"], one["expected"], one["why"]) for one in wanted]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
