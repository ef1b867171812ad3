# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Broken on purpose: the gate refuses, names the cause, and keeps registration closed; mended, it passes."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import subprocess
import time
from typing import Any

from conftest import CONFIG, CONTAINER, PROJECT, Run, Server

WELL_KNOWN = f"{CONFIG}/well-known/client"
EXTRA = f"{CONFIG}/synapse/zz-by-hand.yaml"
JWT_SECRET = "a secret that only these tests know, long enough"
JWT = {"jwt_config": {"enabled": True, "secret": JWT_SECRET, "algorithm": "HS256"}}


def closed(server: Server, run: Run, *words: str) -> None:
    """Refused with these words, and nobody can register."""
    assert run.status != 0, run.output
    for word in words:
        assert word in run.output, f"{word!r} is not in the report:\n{run.output}"
    status, answer = server.register()
    assert (status, answer["errcode"]) == (403, "M_FORBIDDEN"), answer
    assert "enable_registration: false" in server.inside("cat", f"{CONFIG}/synapse/registration.yaml")
    assert server.attestation() is None


def passed(server: Server, run: Run, registration: str = "token") -> None:
    assert run.status == 0, run.output
    found = server.attestation()
    assert found is not None
    assert found["registration"] == registration
    assert server.register()[0] == {"token": 401, "closed": 403}[registration]


def rooms_of_the_gate(server: Server) -> str:
    return str(server.sql("SELECT count(*) FROM rooms WHERE creator LIKE '@encryption-gate%'"))


def test_nothing_changed_nothing_done(server: Server) -> None:
    before = server.attestation()
    run = server.gate()
    assert run.status == 0, run.output
    assert not run.changed, run.output
    assert server.attestation() == before
    assert rooms_of_the_gate(server) == "0"


def test_another_well_known_in_front(server: Server) -> None:
    sound = server.inside("cat", WELL_KNOWN)
    served = json.loads(sound)
    served["io.element.e2ee"]["default"] = True
    server.write(WELL_KNOWN, json.dumps(served))
    try:
        closed(server, server.gate(), ".well-known/matrix/client", 'io.element.e2ee is {"default": true}')
        # Asked again, it says the same.
        closed(server, server.gate(), ".well-known/matrix/client")
    finally:
        server.write(WELL_KNOWN, sound)
    passed(server, server.gate())


def test_well_known_of_a_website_that_knows_nothing(server: Server) -> None:
    sound = server.inside("cat", WELL_KNOWN)
    server.write(WELL_KNOWN, "<!DOCTYPE html><title>Not found</title>")
    try:
        closed(server, server.gate(), "not JSON")
    finally:
        server.write(WELL_KNOWN, sound)
    passed(server, server.gate())


def test_synapse_set_to_all_by_hand(server: Server) -> None:
    # Without the module, which would not let Synapse start with it.
    server.write(EXTRA, 'encryption_enabled_by_default_for_room_type: "all"\nmodules: []\n')
    server.restart()
    try:
        run = server.gate()
        closed(server, run, "zz-by-hand.yaml, which no role wrote", "a private room starts plain")
        assert "[failed] a public room starts plain" in run.output
        assert "[failed] a room encrypted out of habit starts plain" in run.output
        assert rooms_of_the_gate(server) == "0"
    finally:
        server.inside("rm", EXTRA)
        server.restart()
    passed(server, server.gate())


def test_a_drop_in_that_reads_another_directory(server: Server) -> None:
    drop_in = "/etc/systemd/system/matrix-synapse@atelier.service.d"
    server.inside("mkdir", "-p", "/etc/matrix/atelier/other", drop_in)
    content = "encryption_enabled_by_default_for_room_type: all\nmodules: []\n"
    server.write("/etc/matrix/atelier/other/all.yaml", content)
    begin = f"{CONFIG}/venv/bin/python -m synapse.app.homeserver -c {CONFIG}/synapse"
    server.write(f"{drop_in}/by-hand.conf", f"[Service]\nExecStart=\nExecStart={begin} -c {CONFIG}/other\n")
    server.inside("systemctl", "daemon-reload")
    server.restart()
    try:
        closed(server, server.gate(), "[failed] a private conversation starts plain")
    finally:
        server.inside("rm", "-r", drop_in, "/etc/matrix/atelier/other")
        server.inside("systemctl", "daemon-reload")
        server.restart()
    passed(server, server.gate())


def test_an_encrypted_room_before_the_first_gate(server: Server) -> None:
    room = server.encrypted_room(server.token_of_support(), "Bureau")

    # After the first gate it is people's own business, whatever is restarted.
    server.restart()
    passed(server, server.gate())

    server.forget()
    ways = ("cae.matrix.audit", "cae.matrix.remedy", f'encryption_gate_accepted_rooms: ["{room}"]')
    closed(server, server.gate(), "too late", room, "Bureau", "@support:atelier.test", *ways)

    # One of the mends that the report names.
    server.remove_room(room)
    passed(server, server.gate())


def test_what_matters_changes_in_the_inventory(server: Server) -> None:
    """The declared document changes, the served one does not follow: closed until it does."""
    run = server.gate(reverse_proxy_well_known_client_extra={"im.vector.riot.e2ee": {"default": False}})
    closed(server, run, "im.vector.riot.e2ee is nothing")
    passed(server, server.gate())


def test_closed_is_closed_and_opens_again(server: Server) -> None:
    passed(server, server.gate(encryption_gate_registration="closed"), "closed")
    passed(server, server.gate())


def test_a_name_that_does_not_answer_closes_nothing_that_is_attested(server: Server) -> None:
    before = server.attestation()
    run = server.gate(matrix_resolve={"atelier.test": "192.0.2.1"}, encryption_gate_checks_timeout=2)
    assert run.status != 0
    assert "[unseen]" in run.output
    assert server.attestation() == before
    assert server.register()[0] == 401


def test_but_it_keeps_a_new_server_closed(server: Server) -> None:
    server.forget()
    run = server.gate(matrix_resolve={"atelier.test": "192.0.2.1"}, encryption_gate_checks_timeout=2)
    closed(server, run, "[unseen]")


def test_a_malformed_attestation_proves_nothing(server: Server) -> None:
    server.write(f"{CONFIG}/attestation.json", '{"schema_version": 1, "digest": "sha256:0"}')
    run = server.gate()
    passed(server, run)
    assert run.changed


def test_a_restart_is_proven_anew(server: Server) -> None:
    before = server.attestation()
    server.restart()
    passed(server, server.gate())
    after = server.attestation()
    assert before is not None
    assert after is not None
    assert before["invocation_id"] != after["invocation_id"]
    assert before["first_attested_at"] == after["first_attested_at"]


def test_a_lost_token_is_replaced(server: Server) -> None:
    server.inside("rm", f"{CONFIG}/gate.token")
    server.restart()
    passed(server, server.gate())
    assert server.inside("stat", "-c", "%a %U", f"{CONFIG}/gate.token").strip() == "600 root"


def test_killed_and_run_again(server: Server) -> None:
    """At whatever moment it dies, the door is closed or the server attested, and the next run passes."""
    sound = server.inside("cat", WELL_KNOWN)
    for seconds in (2.0, 4.0, 6.0, 8.0):
        # Each time from a closed door, so that an open one is this run's doing.
        server.write(WELL_KNOWN, "{}")
        closed(server, server.gate(), ".well-known/matrix/client")
        server.write(WELL_KNOWN, sound)
        begun = subprocess.Popen(
            server.command(PROJECT / "molecule/gate/gate.yml"),
            cwd=PROJECT,
            env=server.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            begun.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            # A module is a nameless script that this interpreter reads; its controller's death would not end it.
            kill = ["docker", "exec", CONTAINER, "pkill", "-KILL", "-x", "-f", "/usr/bin/python3"]
            subprocess.run(kill, check=False)
            begun.kill()
            begun.wait()
        deadline = time.monotonic() + 60
        while server.inside("systemctl", "show", "-P", "ActiveState", "matrix-synapse@atelier").strip() != "active":
            assert time.monotonic() < deadline
            time.sleep(0.2)
        if server.register()[0] == 401:
            assert server.attestation() is not None
    passed(server, server.gate())
    assert rooms_of_the_gate(server) == "0"


def test_an_opening_cut_short_is_finished(server: Server) -> None:
    """The door is open as proven, and the run died before it could attest that."""
    found = server.attestation()
    assert found is not None
    server.write(f"{CONFIG}/attestation.json", json.dumps(found | {"registration": "closed"}))
    server.restart()
    passed(server, server.gate())
    again = server.attestation()
    assert again is not None
    assert again["registration"] == "token"


def jwt(localpart: str) -> str:
    """A token as the cooperative's own portal would sign it."""

    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    signed = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part({'sub': localpart})}"
    mac = hmac.new(JWT_SECRET.encode(), signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def jwt_login(server: Server, localpart: str) -> int:
    body = {"type": "org.matrix.login.jwt", "token": jwt(localpart)}
    return int(server.ask("POST", "/_matrix/client/v3/login", body)[0])


def test_single_sign_on_makes_no_account_before_the_gate(server: Server) -> None:
    sound = server.inside("cat", WELL_KNOWN)
    server.forget()
    server.write(WELL_KNOWN, "{}")
    try:
        closed(server, server.gate(synapse_extra_config=JWT), ".well-known/matrix/client")
        assert jwt_login(server, "carla") in (400, 403)
        assert server.sql("SELECT count(*) FROM users WHERE name = '@carla:atelier.test'") == "0"
    finally:
        server.write(WELL_KNOWN, sound)
    passed(server, server.gate(synapse_extra_config=JWT))
    assert jwt_login(server, "carla") == 200
    assert server.sql("SELECT count(*) FROM users WHERE name = '@carla:atelier.test'") == "1"


def test_registration_tokens(server: Server) -> None:
    playbook = PROJECT / "playbooks/registration_token.yml"
    made = server.run(
        playbook,
        registration_token_action="create",
        registration_token="trente",
        registration_token_uses_allowed=30,
        registration_token_expiry="2031-05-01",
    )
    assert made.status == 0, made.output
    assert "trente: 0 of 30 used, until 2031-05-01 23:59 UTC" in made.output
    again = server.run(
        playbook,
        registration_token_action="create",
        registration_token="trente",
        registration_token_uses_allowed=30,
        registration_token_expiry="2031-05-01",
    )
    assert not again.changed, again.output
    assert "trente" in server.run(playbook).output
    assert server.run(playbook, registration_token_action="revoke", registration_token="trente").changed
    assert "trente" not in server.run(playbook).output

    passed(server, server.gate(encryption_gate_registration="closed"), "closed")
    refused = server.run(playbook, registration_token_action="create")
    assert refused.status != 0
    assert "Nobody could use the token" in refused.output

    server.forget()
    refused = server.run(playbook, registration_token_action="create")
    assert refused.status != 0
    assert "The encryption gate has not passed" in refused.output


def test_administrators(server: Server) -> None:
    people = [{"localpart": "support"}, {"localpart": "dora", "display_name": "Dora", "password": "un mot de passe"}]
    run = server.gate(encryption_gate_administrators=people)
    assert run.status == 0, run.output
    assert run.changed
    assert "un mot de passe" not in run.output
    assert server.sql("SELECT admin FROM users WHERE name = '@dora:atelier.test'") == "1"
    people[1]["password"] = "un autre"
    again = server.gate(encryption_gate_administrators=people)
    assert not again.changed, again.output
    body = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": "dora"},
        "password": "un mot de passe",
    }
    assert server.ask("POST", "/_matrix/client/v3/login", body)[0] == 200
    bad = server.gate(encryption_gate_administrators=[{"localpart": "Dora Maar"}])
    assert bad.status != 0
    assert "encryption_gate_administrators: Dora Maar" in bad.output
