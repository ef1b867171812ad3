# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether one server reaches another: real Synapses over TLS, and web servers with every fault in front of none."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cae.matrix.plugins.module_utils.encryption.verification import Fault, Outcome
from ansible_collections.cae.matrix.plugins.module_utils.federation import pairs
from ansible_collections.cae.matrix.plugins.module_utils.federation.pairs import Own, Peer, Row, SigningKey
from ansible_collections.cae.matrix.plugins.module_utils.outside.public_client import PublicClient
from ansible_collections.cae.matrix.plugins.module_utils.synapse.admin import Synapse
from ansible_collections.cae.matrix.tests.patience import START, at_most, eventually, patient
from ansible_collections.cae.matrix.tests.unit.federating_servers import UNLIMITED, FederatingServer
from ansible_collections.cae.matrix.tests.unit.ports import free_port
from ansible_collections.cae.matrix.tests.unit.public_server import DAY, Answer, Asked, Authority, Site, serve, speak
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SEED = "B" * 42 + "A"
JSON = {"Content-Type": "application/json"}


def nothing_there() -> str:
    return f"127.0.0.1:{free_port()}"


class Server(FederatingServer):
    """One with the gate's account, which can be stopped, and started again with another key."""

    def __init__(self, python: str, directory: Path, address: str, ca: Authority, extra: dict[str, Any]) -> None:
        self._python, self._directory = python, directory
        # Profiles as they are kept where strangers may come.
        common = {"allow_profile_lookup_over_federation": False, "rc_profile": UNLIMITED}
        super().__init__(python, directory, address, ca, {**common, **extra})
        self._config = json.loads((directory / "homeserver.yaml").read_text())
        self._key_file = directory / "signing.key"
        self._key_file.write_text(self._config["signing_key"] + "\n")
        self.token = self.register(f"@encryption-gate:{self.name}", admin=True)

    def start(self, key: str = "") -> None:
        """Once it was stopped; a key that is given replaces the one it had, under the same name."""
        config = {**self._config, "signing_key": key or self._config["signing_key"]}
        path = self._directory / "homeserver.yaml"
        path.write_text(json.dumps(config))
        self._key_file.write_text(config["signing_key"] + "\n")
        self._start(self._python, self._directory / "log", ["synapse.app.homeserver", "-c", str(path)])

    @property
    def other_key(self) -> str:
        algorithm, version, _ = self._config["signing_key"].split()
        return f"{algorithm} {version} {SEED}"

    def own(self, key: str = "") -> Own:
        path = self._key_file
        if key:
            path = self._directory / "other.key"
            path.write_text(key + "\n")

        def ask() -> Synapse:
            one = Synapse(self._socket, patient(20))
            one.token = self.token
            return one

        return Own(self.name, SigningKey.read(path), ask)


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def servers(
    python: str, ca: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Server, Server]]:
    """Two that are open, and one that talks to nobody."""
    directory = tmp_path_factory.mktemp("f")
    with contextlib.ExitStack() as stack:
        made = []
        kinds: list[dict[str, Any]] = [{}, {}, {"federation_domain_whitelist": []}]
        for number, extra in enumerate(kinds, start=2):
            made.append(Server(python, directory / str(number), f"127.0.0.{number}", ca, extra))
            stack.callback(made[-1].stop)
        yield made[0], made[1], made[2]


def client(ca: Authority, resolve: dict[str, str] | None = None, timeout: float = 0) -> PublicClient:
    return PublicClient(resolve, str(ca.ca_file), timeout or patient(5), pairs.MAX_BODY, pairs.MAX_REDIRECTS)


def ask(own: Own, ca: Authority, name: str, expected: bool = True, why: str = "") -> Row:
    return pairs.check(own, client(ca), [Peer(name, expected, why)], 60)[0]


# -- real servers ----------------------------------------------------------------------------------------------------


def test_two_open_servers_reach_each_other(servers: tuple[Server, Server, Server], ca: Authority) -> None:
    for one, other in (servers[:2], servers[1::-1]):
        row = ask(one.own(), ca, other.name)
        assert (row.outcome, row.state, row.step, row.cause) == ("reached", "ok", "backoff", "")
        for sight in (
            f"at {other.name}",
            "Synapse 1.",
            "certificate until",
            f"keys {other.key_id}",
            "request accepted",
        ):
            assert sight in row.seen
        assert row.seen.endswith("Synapse gets through")


def test_what_is_accepted_against_the_policy_is_a_gap(servers: tuple[Server, Server, Server], ca: Authority) -> None:
    row = ask(servers[0].own(), ca, servers[1].name, expected=False, why="b denies a")
    assert (row.outcome, row.state) == ("reached", "FAIL")
    assert "although b denies a" in row.cause


@pytest.mark.parametrize("expected", [True, False])
def test_the_other_side_refuses(servers: tuple[Server, Server, Server], ca: Authority, expected: bool) -> None:
    row = ask(servers[0].own(), ca, servers[2].name, expected)
    # What they answer to our Synapse is as good, where nothing more is to be found out.
    assert (row.outcome, row.step) == ("refused there", "request" if expected else "policy")
    assert row.state == ("FAIL" if expected else "ok")
    assert f"{servers[2].name} refuses us by its own policy (403" in (row.cause if expected else row.seen)
    assert bool(row.mend) is expected


@pytest.mark.parametrize("expected", [True, False])
def test_this_side_refuses(servers: tuple[Server, Server, Server], ca: Authority, expected: bool) -> None:
    row = ask(servers[2].own(), ca, servers[0].name, expected)
    # What is not meant to be is asked of our own Synapse first, and nothing leaves the machine.
    assert (row.outcome, row.step) == ("refused here", "synapse" if expected else "policy")
    assert row.state == ("FAIL" if expected else "ok")
    assert f"Our own policy keeps us from {servers[0].name}" in (row.cause if expected else row.seen)
    assert ("matrix_profile" in row.mend) is expected


def test_a_key_on_disk_that_synapse_does_not_run_with(servers: tuple[Server, Server, Server], ca: Authority) -> None:
    row = ask(servers[0].own(servers[0].other_key), ca, servers[1].name)
    assert (row.outcome, row.state, row.step) == ("failed", "FAIL", "request")
    assert f"Synapse runs with another key than {servers[0].key_id}" in row.cause


def test_a_key_replaced_behind_the_others_back(servers: tuple[Server, Server, Server], ca: Authority) -> None:
    one, other = servers[:2]
    assert ask(one.own(), ca, other.name).state == "ok"
    one.stop()
    one.start(one.other_key)
    try:
        row = ask(one.own(), ca, other.name)
    finally:
        one.stop()
        one.start()
    assert (row.outcome, row.state, row.step) == ("failed", "FAIL", "request")
    assert f"{other.name} remembers another key by the name of {one.key_id}" in row.cause
    assert "back from a backup" in row.mend


def test_our_keys_cannot_be_had(servers: tuple[Server, Server, Server], ca: Authority) -> None:
    own = servers[0].own()
    nowhere = Own(nothing_there(), own.key, own.synapse)
    row = ask(nowhere, ca, servers[1].name)
    assert (row.outcome, row.state, row.step) == ("failed", "FAIL", "request")
    assert f"{servers[1].name} cannot get hold of our signing keys (401" in row.cause
    assert f"from {servers[1].name} to {nowhere.domain}" in row.mend


def test_synapse_holds_back_after_an_outage(servers: tuple[Server, Server, Server], ca: Authority) -> None:
    one, other = servers[:2]
    other.stop()
    try:
        row = ask(one.own(), ca, other.name)
        assert (row.outcome, row.step) == ("failed", "version")
        assert "refuses connections" in row.cause
        query = {"device_keys": {f"@x:{other.name}": []}, "timeout": 30000}
        path = f"/_synapse/admin/v1/federation/destinations/{other.name}"

        def held_back() -> bool:
            one.request("POST", "/_matrix/client/v3/keys/query", query, one.token)
            return bool(one.request("GET", path, token=one.token)[1].get("retry_last_ts"))

        eventually(held_back, "Synapse holds back", START)
    finally:
        other.start()
    row = ask(one.own(), ca, other.name)
    assert (row.outcome, row.state, row.step) == ("reached", "warn", "backoff")
    assert f"sends {other.name} nothing until 20" in row.cause
    assert "reset_connection" in row.mend
    # The other one asks in its turn, which is the sign of life that ends the wait.
    assert ask(other.own(), ca, one.name).outcome == "reached"
    eventually(lambda: ask(one.own(), ca, other.name).state == "ok", "Synapse holds back no longer")


def test_synapse_finds_what_cannot_be_found_by_hand(servers: tuple[Server, Server, Server], ca: Authority) -> None:
    """A server that only SRV records lead to is left to Synapse; what they say here is played by another way there."""
    own, other = servers[0].own(), servers[1]
    with serve(
        site({"/.well-known/matrix/server": {"m.server": "b.invalid"}}), ca.server_context("b.invalid")
    ) as front:
        resolve = {"b.invalid:443": front, "b.invalid:8448": nothing_there()}

        class Found(pairs.Pair):
            def _synapse_reaches(self) -> Outcome:
                return pairs.Pair(own, self.client, Peer(other.name))._synapse_reaches()

        row = Found(own, client(ca, resolve), Peer("b.invalid")).run()
        assert (row.outcome, row.state) == ("reached", "warn")
        assert "SRV records" in row.cause
        row = pairs.Pair(own, client(ca, resolve), Peer("b.invalid")).run()
    assert (row.outcome, row.state, row.step) == ("failed", "FAIL", "synapse")
    assert "without a port: SRV records" in row.cause


def test_synapse_does_not_get_through_where_the_machine_does(
    servers: tuple[Server, Server, Server], ca: Authority
) -> None:
    """What is only wrong for Synapse is seen as well: here, a name that only the client's resolve map knows."""
    other = servers[1]
    own = servers[0].own()
    pair = pairs.Pair(own, client(ca, {"b.invalid": other.name}), Peer("b.invalid"))
    with pytest.raises(Fault, match=r"This machine reaches b\.invalid, but Synapse does not \(it answers 502"):
        pair._synapse_reaches()


# -- faults on the way, which no Synapse has to be there for ----------------------------------------------------------


def silent() -> Synapse:
    raise AssertionError("Synapse is not to be asked")


OWN = Own("a.example", SigningKey("ed25519:1", Ed25519PrivateKey.generate()), silent)


def look(resolve: dict[str, str], ca: Authority, name: str = "b.example", timeout: float = 0) -> Row:
    return pairs.check(OWN, client(ca, resolve, timeout), [Peer(name)], patient(30))[0]


def site(answers: dict[str, Any], headers: dict[str, str] | None = None) -> Site:
    def answer(asked: Asked) -> Answer:
        found = answers.get(asked.path.split("?")[0])
        if found is None:
            return 404, JSON, b"{}"
        return 200, {**JSON, **(headers or {})}, json.dumps(found).encode()

    return answer


WELL_KNOWN = {"/.well-known/matrix/server": {"m.server": "matrix.b.example:443"}}
VERSION = {"/_matrix/federation/v1/version": {"server": {"name": "Synapse", "version": "1"}}}


def both(address: str) -> dict[str, str]:
    return {"b.example": address, "b.example:8448": nothing_there(), "matrix.b.example": address}


def test_a_server_that_does_not_federate(ca: Authority) -> None:
    with serve(site({}), ca.server_context("b.example")) as address:
        row = look(both(address), ca)
        assert (row.outcome, row.state, row.step) == ("absent", "FAIL", "delegation")
        assert (
            "b.example does not federate: no .well-known/matrix/server, and on port 8448: b.example:8448" in row.cause
        )
        pair = pairs.Pair(OWN, client(ca, both(address)), Peer("b.example", False, "b.example is internal"))
        with pytest.raises(pairs.Refused) as refused:
            pair._look()
        assert pair._judge(refused.value.outcome, refused.value).state == "ok"


def test_8448_without_well_known(ca: Authority) -> None:
    with serve(site(VERSION), ca.server_context("b.example")) as address:
        row = look({"b.example": address}, ca)
    assert row.seen.startswith("at b.example:8448, without .well-known; Synapse 1")
    assert (row.step, row.outcome) == ("keys", "absent")


def test_a_redirected_well_known(ca: Authority) -> None:
    def moved(asked: Asked) -> Answer:
        if asked.host == "b.example":
            return 301, {"Location": "https://www.b.example/.well-known/matrix/server"}, b""
        return site(WELL_KNOWN | VERSION)(asked)

    with serve(moved, ca.server_context("b.example", "www.b.example", "matrix.b.example")) as address:
        row = look({**both(address), "www.b.example": address}, ca)
    assert row.seen.startswith("at matrix.b.example:443; Synapse 1")


@pytest.mark.parametrize(
    ("answers", "cause"),
    [
        ({"/.well-known/matrix/server": {"m.server": ""}}, "names no server"),
        ({"/.well-known/matrix/server": {"m.server": "https://matrix.b.example"}}, "names no server"),
        ({"/.well-known/matrix/server": ["x"]}, "names no server"),
        ({"/.well-known/matrix/server": {"x": "y" * pairs.MAX_BODY}}, "more than 51200 bytes"),
        ({"/.well-known/matrix/server": {"m.server": "matrix.b.example"}}, "without a port: SRV records"),
    ],
)
def test_a_wrong_well_known(ca: Authority, answers: dict[str, Any], cause: str) -> None:
    with serve(site(answers), ca.server_context("b.example", "matrix.b.example")) as address:
        resolve = {**both(address), "matrix.b.example:8448": nothing_there()}
        pair = pairs.Pair(OWN, client(ca, resolve), Peer("b.example"))
        with pytest.raises(Fault, match=cause):
            pair._delegation()


def test_a_certificate_that_has_run_out_names_the_member_and_its_end(ca: Authority) -> None:
    with (
        serve(site(WELL_KNOWN), ca.server_context("b.example")) as front,
        serve(site(VERSION), ca.server_context("matrix.b.example", ends=-DAY)) as address,
    ):
        row = look({"b.example": front, "matrix.b.example": address}, ca)
    assert (row.domain, row.outcome, row.state, row.step) == ("b.example", "failed", "FAIL", "version")
    assert "The certificate of matrix.b.example:443" in row.cause
    assert "expired on 20" in row.cause


def test_a_certificate_that_will_run_out_soon(ca: Authority) -> None:
    with serve(site(WELL_KNOWN | VERSION), ca.server_context("b.example", "matrix.b.example", ends=9 * DAY)) as address:
        pair = pairs.Pair(OWN, client(ca, both(address)), Peer("b.example"))
        pair._delegation()
        pair._version()
    row = pair._judge(pairs.REACHED)
    assert (row.state, row.outcome) == ("warn", "reached")
    assert row.cause.startswith("The certificate of b.example (matrix.b.example) runs out on 20")


def test_an_unknown_authority_is_mended_on_the_machine(ca: Authority, tmp_path: Path) -> None:
    with serve(site(WELL_KNOWN), Authority(tmp_path, "stranger").server_context("b.example")) as address:
        row = look(both(address), ca)
    assert (row.outcome, row.step) == ("failed", "delegation")
    assert "CA that is not trusted" in row.cause
    assert "machine_trusted_ca_files" in row.mend
    assert "8448" not in row.mend


@pytest.mark.parametrize(("date", "step"), [("Sun, 22 Nov 2020 12:00:00 GMT", "clock"), ("now", "keys")])
def test_a_clock_that_is_off(ca: Authority, date: str, step: str) -> None:
    headers = {} if date == "now" else {"Date": date}
    with serve(site(WELL_KNOWN | VERSION, headers), ca.server_context("b.example", "matrix.b.example")) as address:
        row = look(both(address), ca)
    assert (row.state, row.step) == ("FAIL", step)
    assert ("clock of b.example" in row.cause) is (step == "clock")


def test_keys_of_another_server(ca: Authority) -> None:
    answers = WELL_KNOWN | VERSION | {"/_matrix/key/v2/server": {"server_name": "c.example"}}
    with serve(site(answers), ca.server_context("b.example", "matrix.b.example")) as address:
        row = look(both(address), ca)
    assert (row.outcome, row.step) == ("failed", "keys")
    assert "'c.example', not of 'b.example'" in row.cause


def test_synapse_behind_its_web_server_is_down(ca: Authority) -> None:
    def down(asked: Asked) -> Answer:
        return site(WELL_KNOWN)(asked) if "well-known" in asked.path else (502, {}, b"<html>")

    with serve(down, ca.server_context("b.example", "matrix.b.example")) as address:
        row = look(both(address), ca)
    assert (row.outcome, row.step) == ("failed", "version")
    assert "Synapse behind it is not (502)" in row.cause


def test_one_that_hangs_does_not_hold_the_others_up(ca: Authority) -> None:
    released = threading.Event()

    def hang(peer: socket.socket) -> None:
        released.wait(patient(START))

    with (
        speak(hang) as hanging,
        serve(site({}), ca.server_context("b.example")) as address,
    ):
        resolve = {"hangs.example": hanging, **both(address)}
        wanted = [Peer("hangs.example"), Peer("b.example")]
        # Enough for the one that answers, however busy the machine is.
        seconds = round(patient(0.5), 1)
        with at_most(5):
            slow, quick = pairs.check(OWN, client(ca, resolve, seconds), wanted, patient(20))
        assert f"did not answer within {seconds:g} s" in slow.cause
        assert quick.outcome == "absent"
        # Its patience is longer than the deadline: what is known by then is reported.
        seconds = round(patient(1))
        with at_most(2.5):
            slow, quick = pairs.check(OWN, client(ca, resolve, 3 * seconds), wanted, seconds)
        assert f"was not done within {seconds:g} s" in slow.cause
        assert quick.outcome == "absent"
        released.set()


def test_a_synapse_that_waits_for_the_other_server(ca: Authority, tmp_path: Path) -> None:
    """What Synapse has no answer to in time is the other server's doing, and none of our policy."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        own = Own("a.example", OWN.key, lambda: Synapse(str(tmp_path / "s"), 0.2))
        pair = pairs.Pair(own, client(ca), Peer("b.example"))
        with pytest.raises(Fault, match=r"Synapse has had no answer from there for 0 s"):
            pair._synapse_reaches()
        pair._synapse_refuses()


def test_what_a_server_says_cannot_steer_a_terminal(ca: Authority) -> None:
    version = {"/_matrix/federation/v1/version": {"server": {"name": "\x1b[2J", "version": "1"}}}
    with serve(site(WELL_KNOWN | version), ca.server_context("b.example", "matrix.b.example")) as address:
        row = look(both(address), ca)
    assert "[2J" in row.seen
    assert "\x1b" not in row.seen
