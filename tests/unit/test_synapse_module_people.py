# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Synapse's module, in a real Synapse: who can register when, who is asked about recovery keys, and when it starts."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import hmac
import json
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cae.matrix.plugins.module_utils.encryption import registration
from ansible_collections.cae.matrix.tests.patience import START, eventually
from ansible_collections.cae.matrix.tests.unit.homeserver import IMPORTS, Homeserver
from ansible_collections.cae.matrix.tests.unit.opt_in_server import (
    ASKED,
    DEFERRED,
    DOMAIN,
    ENCRYPTION,
    INSTANCE,
    MODULE,
    NOT_ASKED,
    OWN,
    PREFERENCE,
    PROOF,
    RECOVERY,
    SERVICE,
    OptInServer,
    Person,
)

LIMITS = {"per_second": 10000, "burst_count": 10000}
JWT_SECRET = "a secret of thirty-two characters"


# --- Registration -----------------------------------------------------------------------------------------------------


class Cas(BaseHTTPRequestHandler):
    """A CAS server that knows everybody: the ticket is the name."""

    def do_GET(self) -> None:
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        body = (
            '<cas:serviceResponse xmlns:cas="http://www.yale.edu/tp/cas"><cas:authenticationSuccess>'
            f"<cas:user>{query['ticket'][0]}</cas:user>"
            "</cas:authenticationSuccess></cas:serviceResponse>"
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: Any) -> None:
        """Nobody reads it."""


@pytest.fixture(scope="module")
def cas() -> Iterator[str]:
    service = ThreadingHTTPServer(("127.0.0.1", 0), Cas)
    threading.Thread(target=service.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{service.server_port}"
    service.shutdown()
    service.server_close()


@pytest.fixture(scope="module")
def unproven(python: str, cas: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OptInServer]:
    """A server whose every door is open, as far as Synapse is concerned."""
    server = OptInServer(
        python,
        tmp_path_factory.mktemp("unproven"),
        {
            "public_baseurl": f"https://matrix.{DOMAIN}/",
            "enable_registration": True,
            "registration_requires_token": True,
            "rc_registration": LIMITS,
            "rc_login": {key: LIMITS for key in ("address", "account", "failed_attempts")},
            "jwt_config": {"enabled": True, "secret": JWT_SECRET, "algorithm": "HS256"},
            "cas_config": {"enabled": True, "server_url": cas, "enable_registration": True},
            "sso": {"client_whitelist": [f"https://chat.{DOMAIN}/"]},
        },
        attested=False,
    )
    try:
        # What happens before that is seen as well, but not told event by event.
        eventually(server.follows, "the stream is followed")
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def gate(unproven: OptInServer) -> Person:
    """The gate's own account, the only one there can be before the proof; it makes a registration token."""
    unproven.attestation.unlink(missing_ok=True)
    person = unproven.person("encryption-gate")
    unproven.sql("UPDATE users SET admin = 1")
    status, answer = unproven.request(
        "POST", "/_synapse/admin/v1/registration_tokens/new", {"token": "token"}, person.token
    )
    assert status == 200, answer
    return person


def by_token(server: Homeserver, gate: Person, name: str) -> int:
    path, body = "/_matrix/client/v3/register", {"username": name, "password": "correct horse battery"}
    session = server.request("POST", path, body)[1]["session"]
    status = 0
    for stage in ({"type": "m.login.registration_token", "token": "token"}, {"type": "m.login.dummy"}):
        status, _ = server.request("POST", path, {**body, "auth": {**stage, "session": session}})
        if status != 401:
            break
    return status


def by_admin(server: Homeserver, gate: Person, name: str) -> int:
    path = f"/_synapse/admin/v2/users/@{name}:{DOMAIN}"
    status = server.request("PUT", path, {"displayname": name}, gate.token)[0]
    return 200 if status == 201 else status


def by_shared_secret(server: Homeserver, gate: Person, name: str) -> int:
    with contextlib.suppress(AssertionError):
        server.register(f"@{name}:{DOMAIN}")
        return 200
    return 429


def by_jwt(server: Homeserver, gate: Person, name: str) -> int:
    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    signed = part(json.dumps({"alg": "HS256"}).encode()) + "." + part(json.dumps({"sub": name}).encode())
    token = f"{signed}.{part(hmac.new(JWT_SECRET.encode(), signed.encode(), hashlib.sha256).digest())}"
    body = {"type": "org.matrix.login.jwt", "token": token}
    return server.request("POST", "/_matrix/client/v3/login", body)[0]


def by_single_sign_on(server: Homeserver, gate: Person, name: str) -> int:
    """What the browser asks for when the CAS server has sent it back."""
    query = urllib.parse.urlencode({"redirectUrl": f"https://chat.{DOMAIN}/", "ticket": name})
    status, _ = server.request("GET", f"/_matrix/client/r0/login/cas/ticket?{query}", parse=False)
    return 200 if status == 302 else int(status)


WAYS = [by_token, by_admin, by_shared_secret, by_jwt, by_single_sign_on]


def exists(server: OptInServer, name: str) -> bool:
    return bool(server.sql(f"SELECT 1 FROM users WHERE name = '@{name}:{DOMAIN}'"))


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_nobody_registers_before_the_proof_and_everybody_after(
    unproven: OptInServer, gate: Person, way: Callable[[Homeserver, Person, str], int]
) -> None:
    name = way.__name__.replace("_", "-")
    before, said = unproven.counts()["refusals registration"], len(unproven.log)
    unproven.attestation.unlink(missing_ok=True)
    assert way(unproven, gate, name) != 200
    assert not exists(unproven, name)
    assert unproven.counts()["refusals registration"] == before + 1
    line = f"Refused: the registration of '{name}': there is no attestation ({unproven.attestation}). Encryption has "
    assert unproven.log[said:].count(line) == 1
    assert "cae.matrix.cooperative" in unproven.log[said:]

    unproven.attestation.write_text(unproven.proof.to_json())
    assert way(unproven, gate, name) == 200
    assert exists(unproven, name)
    assert unproven.counts()["refusals registration"] == before + 1

    unproven.attestation.rename(unproven.attestation.with_name("attestation.2026-11-22.json"))
    assert way(unproven, gate, f"{name}-late") != 200
    assert not exists(unproven, f"{name}-late")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is not JSON"),
        (b"\xff\xfe", "it is not text"),
        (b"[]", "it is not a JSON object"),
        (b'{"schema_version": 1}', "keys are missing or unknown"),
        (dataclasses.replace(PROOF, domain="other.example").to_json().encode(), "is for coop (other.example)"),
        (dataclasses.replace(PROOF, instance="other").to_json().encode(), "is for other (coop.example)"),
        (dataclasses.replace(PROOF, verdict="too late").to_json().encode(), "registration or verdict is unknown"),
        (dataclasses.replace(PROOF, attested_at="2026-99-01T00:00:00Z").to_json().encode(), "attested_at is"),
        (dataclasses.replace(PROOF, machine="0" * 64).to_json().encode(), "was made on another machine"),
        (
            dataclasses.replace(PROOF, synapse_digest="sha256:" + "0" * 64).to_json().encode(),
            "is for another configuration than the one that Synapse runs with",
        ),
        (dataclasses.replace(PROOF, synapse_digest="").to_json().encode(), "is of an earlier version"),
    ],
    ids=str,
)
def test_only_a_whole_attestation_of_this_server_counts(
    unproven: OptInServer, gate: Person, content: bytes, why: str
) -> None:
    unproven.attestation.write_bytes(content)
    said = len(unproven.log)
    assert by_shared_secret(unproven, gate, "somebody") == 429
    assert why in unproven.log[said:]
    assert not exists(unproven, "somebody")


def test_an_attestation_that_cannot_be_read_counts_for_nothing(unproven: OptInServer, gate: Person) -> None:
    unproven.attestation.unlink(missing_ok=True)
    unproven.attestation.mkdir()
    said = len(unproven.log)
    try:
        assert by_shared_secret(unproven, gate, "somebody") == 429
        assert "cannot be read (Is a directory)" in unproven.log[said:]
    finally:
        unproven.attestation.rmdir()


def test_the_gates_account_is_let_in_by_the_shared_secret_only(unproven: OptInServer, gate: Person) -> None:
    unproven.attestation.unlink(missing_ok=True)
    assert by_shared_secret(unproven, gate, "encryption-gate-2") == 200
    for name in ("encryption-gates", "encryption-gate-x", "xencryption-gate", "encryption-gate-"):
        assert by_shared_secret(unproven, gate, name) == 429, name
    for number, way in enumerate((by_token, by_admin, by_jwt, by_single_sign_on), 3):
        assert way(unproven, gate, f"encryption-gate-{number}") != 200, way.__name__
        assert not exists(unproven, f"encryption-gate-{number}")
    # Nor does anybody take that name once the server is proven.
    unproven.attestation.write_text(unproven.proof.to_json())
    for number, way in enumerate((by_token, by_admin, by_jwt, by_single_sign_on), 8):
        assert way(unproven, gate, f"encryption-gate-{number}") != 200, way.__name__
        assert not exists(unproven, f"encryption-gate-{number}")


def test_application_services_register_their_own(unproven: OptInServer) -> None:
    unproven.attestation.unlink(missing_ok=True)
    body = {"type": "m.login.application_service", "username": "bridged_ann"}
    status, answer = unproven.request("POST", "/_matrix/client/v3/register", body, str(SERVICE["as_token"]))
    assert status == 200, answer
    assert unproven.sql(f"SELECT * FROM account_data WHERE user_id = '@bridged_ann:{DOMAIN}'") == []


def test_the_gate_is_nobody_who_could_be_asked_about_recovery(gate: Person) -> None:
    assert gate.recovery() == (None, None)


def test_what_the_gate_tries_is_nobodys_habit_or_choice(unproven: OptInServer, gate: Person) -> None:
    plain = unproven.counts()["rooms_started_plain"]
    room = gate.make({"initial_state": [ENCRYPTION]})
    assert not gate.encrypts(room)
    assert unproven.counts()["rooms_started_plain"] == plain
    assert gate.turn_on(room) == 200
    unproven.attestation.write_text(unproven.proof.to_json())
    ann = unproven.person("ann")
    second = ann.make({})
    assert ann.turn_on(second) == 200
    eventually(lambda: f"turned on in {second}" in unproven.log, "the stream was followed up to here")
    assert f"turned on in {room}" not in unproven.log
    # Each is counted once, those of other tests included.
    assert unproven.counts()["opt_ins later"] == unproven.log.count("Opt-in (later): ")


# --- Recovery ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OptInServer]:
    server = OptInServer(python, tmp_path_factory.mktemp("recovery"))
    try:
        # What happens before that is seen as well, but not told event by event.
        eventually(server.follows, "the stream is followed")
        yield server
    finally:
        server.stop()


def asked(person: Person) -> None:
    eventually(lambda: person.recovery() == ASKED, f"{person.user_id} is asked: {person.recovery()}")


def still_not_asked(server: OptInServer, *people: Person) -> None:
    """Once the stream was followed up to now."""
    marker = Person(server, f"@m:{DOMAIN}", server.register(f"@m{time.monotonic_ns()}:{DOMAIN}"))
    room = marker.make({})
    assert marker.turn_on(room) == 200
    eventually(lambda: f"turned on in {room}" in server.log, "the stream is followed")
    for person in people:
        assert person.recovery() == NOT_ASKED, person.user_id


def test_newcomers_are_not_asked_until_they_opt_in(server: OptInServer) -> None:
    ann, bob, eve = (server.person(name) for name in ("ann", "bob", "eve"))
    assert [person.recovery() for person in (ann, bob, eve)] == [NOT_ASKED] * 3
    plain = ann.make({"invite": [bob.user_id, eve.user_id]})
    bob.join(plain)
    encrypted = ann.make({"initial_state": [ENCRYPTION], "invite": [bob.user_id, eve.user_id]}, OWN)
    asked(ann)
    still_not_asked(server, bob, eve)
    bob.join(encrypted)
    asked(bob)
    assert eve.ask("POST", f"/rooms/{encrypted}/leave", {})[0] == 200
    still_not_asked(server, eve)


def test_who_is_there_when_a_room_becomes_encrypted_is_asked(server: OptInServer) -> None:
    people = [server.person(f"there{number}") for number in range(4)]
    room = people[0].make({"invite": [person.user_id for person in people[1:]]})
    for person in people[1:3]:
        person.join(room)
    still_not_asked(server, *people)
    assert people[0].turn_on(room) == 200
    for person in people[:3]:
        asked(person)
    assert people[3].recovery() == NOT_ASKED


def test_what_people_have_set_themselves_is_left_alone(server: OptInServer) -> None:
    ann = server.person("mine")
    ann.put_data(RECOVERY, {"enabled": True})
    ann.put_data(PREFERENCE, {"enabled": True})
    ann.make({})
    eventually(lambda: ann.data(DEFERRED) == {"enabled": False}, "the mark is taken back")
    assert ann.data(RECOVERY) == {"enabled": True}


def test_who_was_asked_once_is_not_spared_again(python: str, server: OptInServer) -> None:
    ann = server.person("once")
    room = ann.make({"initial_state": [ENCRYPTION]}, OWN)
    asked(ann)
    assert ann.ask("POST", f"/rooms/{room}/leave", {})[0] == 200
    plain = ann.make({})
    assert plain
    still_not_asked(server)
    assert ann.recovery() == ASKED


def test_everybody_is_looked_at_once_at_start(python: str, tmp_path: Path) -> None:
    """People from before the module, and what they did while it was not there; more than one page of them."""
    crowd, key = 120, "m.secret_storage.default_key"
    server = Homeserver(python, tmp_path, {"registration_shared_secret": "x"})
    try:
        names = ("idle", "opted", "invited", "gone", "chose", "keyed", "reset", "left", "encryption-gate")
        people = {name: Person(server, f"@{name}:{DOMAIN}", server.register(f"@{name}:{DOMAIN}")) for name in names}
        invited = [people[name].user_id for name in ("invited", "gone")]
        room = people["opted"].make({"initial_state": [ENCRYPTION], "invite": invited})
        people["gone"].join(room)
        assert people["gone"].ask("POST", f"/rooms/{room}/leave", {})[0] == 200
        people["chose"].put_data(RECOVERY, {"enabled": True})
        people["keyed"].put_data(key, {"key": "abc"})
        people["reset"].put_data(key, {})
        body = {"auth": {"type": "m.login.password", "user": people["left"].user_id, "password": "secret"}}
        assert people["left"].ask("POST", "/account/deactivate", body)[0] == 200
    finally:
        server.stop()
    with_crowd = OptInServer.__new__(OptInServer)
    with_crowd._database = tmp_path / "db"
    with_crowd.sql(
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < "
        f"{crowd - 1}) INSERT INTO users (name, creation_ts, admin, is_guest, deactivated) "
        f"SELECT '@crowd' || i || ':{DOMAIN}', 0, 0, 0, 0 FROM n"
    )

    def marks(server: OptInServer) -> dict[str, tuple[Any, Any]]:
        rows = server.sql("SELECT user_id, account_data_type, content FROM account_data")
        found: dict[str, dict[str, Any]] = {}
        for user_id, data_type, content in rows:
            found.setdefault(user_id[1:].split(":")[0], {})[data_type] = json.loads(content)
        return {name: (data.get(RECOVERY), data.get(DEFERRED)) for name, data in found.items()}

    never = {"enabled": False}
    opt_in = OptInServer(python, tmp_path)
    try:
        eventually(lambda: f"deferred for {crowd + 4} people" in opt_in.log, "everybody was looked at", START)
        found = marks(opt_in)
        assert {name: found.get(name) for name in names} == {
            "idle": NOT_ASKED,
            "opted": (None, never),
            "invited": NOT_ASKED,
            "gone": NOT_ASKED,
            "chose": ({"enabled": True}, never),
            "keyed": (None, never),
            "reset": NOT_ASKED,
            "left": None,
            "encryption-gate": None,
        }
        assert all(found[f"crowd{number}"] == NOT_ASKED for number in range(crowd))
    finally:
        opt_in.stop()

    # Without the module for a while: what was missed is made up for; what was interrupted is finished.
    opt_in.sql(f"DELETE FROM account_data WHERE user_id = '@crowd7:{DOMAIN}' AND account_data_type = '{RECOVERY}'")
    server = Homeserver(python, tmp_path, {"registration_shared_secret": "x"})
    try:
        people["invited"].server = server
        people["invited"].join(room)
    finally:
        server.stop()
    opt_in = OptInServer(python, tmp_path)
    try:
        eventually(lambda: marks(opt_in)["invited"] == ASKED, "who joined meanwhile is asked")
        eventually(lambda: marks(opt_in)["crowd7"] == NOT_ASKED, "the interrupted is finished")
        assert marks(opt_in)["opted"] == (None, never)
        assert marks(opt_in)["idle"] == NOT_ASKED
        assert "Traceback" not in opt_in.log
    finally:
        opt_in.stop()


def test_a_registration_survives_what_goes_wrong_with_account_data(python: str, tmp_path: Path) -> None:
    server = OptInServer(python, tmp_path)
    try:
        server.sql("ALTER TABLE account_data RENAME TO elsewhere")
        try:
            ann = server.person("ann")
        finally:
            server.sql("ALTER TABLE elsewhere RENAME TO account_data")
        assert "Could not defer recovery for @ann:coop.example" in server.log
        ann.make({})
        eventually(lambda: ann.recovery() == NOT_ASKED, "made up for at the first room")
    finally:
        server.stop()


# --- Start ------------------------------------------------------------------------------------------------------------


def refused(python: str, directory: Path, extra: dict[str, Any], more: dict[str, Any] | None = None) -> str:
    """What Synapse says when it does not start."""
    files = []
    if more is not None:
        files.append(directory / "registration.yaml")
        files[0].write_text(json.dumps(more))
    with pytest.raises(AssertionError):
        OptInServer(python, directory, extra, more=files)
    return (directory / "log").read_text()


def test_synapse_does_not_start_with_encryption_by_default(python: str, tmp_path: Path) -> None:
    said = refused(python, tmp_path, {"encryption_enabled_by_default_for_room_type": "all"})
    assert "Encryption would not be opt-in, 1 contradiction" in said
    assert "encryption_enabled_by_default_for_room_type" in said


def test_a_later_file_counts_as_synapse_counts_it(python: str, tmp_path: Path) -> None:
    said = refused(
        python,
        tmp_path,
        {"encryption_enabled_by_default_for_room_type": "off"},
        {"encryption_enabled_by_default_for_room_type": "invite", "allow_guest_access": True},
    )
    assert "Encryption would not be opt-in, 2 contradictions" in said
    assert "allow_guest_access: is true and makes an account for every passer-by" in said


def test_a_wrong_configuration_of_the_module_is_named(python: str, tmp_path: Path) -> None:
    said = refused(python, tmp_path, {"modules": [{"module": MODULE, "config": {"instance": "Coop"}}]})
    assert "Error in configuration at 'modules.<item 0>.config.instance'" in said
    assert "must be the instance's slug" in said


def inside(python: str, statement: str, arguments: list[Any]) -> list[Any]:
    """What a statement of the module's gives for each argument, in the interpreter that has Synapse."""
    script = (
        "import json, sys\n"
        "from cae_matrix_opt_in import ConfigError, EncryptionOptIn, settings\n"
        "def asked(argument):\n"
        f"    try: return {statement}\n"
        "    except ConfigError as error: return list(error.path)\n"
        "for line in sys.stdin: print(json.dumps(asked(json.loads(line))))\n"
    )
    done = subprocess.run(
        [python, "-c", script],
        input="".join(json.dumps(argument) + "\n" for argument in arguments),
        env={"PYTHONPATH": ":".join(map(str, IMPORTS))},
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_wrong_configuration_is_refused(python: str) -> None:
    right = {"instance": INSTANCE, "attestation": "/etc/matrix/coop/attestation.json"}
    wrong: list[tuple[dict[str, Any], str]] = [
        ({}, "instance"),
        ({**right, "instance": None}, "instance"),
        ({**right, "instance": "x" * 21}, "instance"),
        ({**right, "attestation": "attestation.json"}, "attestation"),
        ({**right, "attestation": 5}, "attestation"),
        ({"instance": INSTANCE}, "attestation"),
        ({**right, "atestation": "/x"}, "atestation"),
    ]
    answers = inside(python, "EncryptionOptIn.parse_config(argument).instance", [*(c for c, _ in wrong), right])
    assert answers == [*([key] for _, key in wrong), INSTANCE]


def test_what_the_roles_write_is_no_contradiction(python: str) -> None:
    """As Synapse merges the files of roles synapse and encryption_gate, in each state of registration."""
    declared = {
        "server_name": DOMAIN,
        "public_baseurl": f"https://matrix.{DOMAIN}/",
        "encryption_enabled_by_default_for_room_type": "off",
        "registration_shared_secret_path": "/etc/matrix/coop/secrets/registration_shared_secret",
        "oidc_providers": [{"idp_id": "x", "enable_registration": True}],
        "jwt_config": {"enabled": True, "secret": "x"},
        "modules": [{"module": MODULE, "config": {}}],
    }
    merged = [
        registration.without_doors(declared) | registration.registration_document(declared, mode)
        for mode in registration.MODES
    ]
    without_token = {**merged[-1], "registration_requires_token": False}
    *sound, broken = inside(python, "settings.contradictions(argument)", [*merged, without_token])
    assert sound == [None] * len(merged)
    assert "enable_registration" in broken
