# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Broken on purpose: the gate refuses, names the cause, and keeps registration closed; mended, it passes."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
from typing import Any

import pytest
from gate import ATTESTATION, CONFIG, DROP_IN, EXTRA, UNIT, WELL_KNOWN, Moment, Server, closed, passed

JWT_SECRET = "a secret that only these tests know, long enough"
JWT = {"jwt_config": {"enabled": True, "secret": JWT_SECRET, "algorithm": "HS256"}}
NOWHERE = {"atelier.test": "192.0.2.1"}


def rooms_of_the_gate(server: Server) -> str:
    return server.sql("SELECT count(*) FROM rooms WHERE creator LIKE '@encryption-gate%'")


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


def test_nothing_changed_nothing_done(server: Server) -> None:
    """Through the role; of a whole run, test_a_second_run of scenario `default` says it."""
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
    wrong = (".well-known/matrix/client", 'io.element.e2ee is {"default": true}')
    closed(server, server.gate(), *wrong)
    # Asked again, it says the same.
    closed(server, server.gate(), *wrong)
    # A website that knows nothing of it.
    server.write(WELL_KNOWN, "<!DOCTYPE html><title>Not found</title>")
    closed(server, server.gate(), "[failed] .well-known/matrix/client", "not JSON")
    # A name that does not answer keeps a server closed that is not attested.
    server.write(WELL_KNOWN, sound)
    closed(server, server.gate(resolve=NOWHERE, timeout=2), "[unseen]")
    passed(server, server.gate())


def test_a_name_that_does_not_answer_closes_nothing_that_is_attested(server: Server) -> None:
    before = server.attestation()
    run = server.play(matrix_resolve=NOWHERE, encryption_gate_checks_timeout=2)
    assert run.status != 0, run.output
    assert "[unseen]" in run.output
    assert server.attestation() == before
    assert server.register()[0] == 401


def test_broken_by_hand(server: Server) -> None:
    """What somebody puts beside our files: it is set aside before anything starts with it, or Synapse is stopped."""
    all_rooms = "encryption_enabled_by_default_for_room_type: all\n"
    open_to_all = "enable_registration: true\nenable_registration_without_verification: true\n"
    server.write(EXTRA, f"{all_rooms}{open_to_all}registration_requires_token: false\nmodules: []\n")
    server.restart()
    assert "m.login.dummy" in json.dumps(server.register())
    closed(server, server.gate(), "zz-by-hand.yaml, which no role wrote, was set aside", "Registration is closed.")
    assert server.execute("test", "-e", EXTRA).returncode == 1
    kept = server.inside("sh", "-c", "cat /var/backups/matrix/atelier/set-aside/*/zz-by-hand.yaml")
    assert open_to_all in kept
    passed(server, server.gate())

    # Another directory, which the gate does not know.
    server.inside("mkdir", "-p", f"{CONFIG}/other", DROP_IN)
    server.write(f"{CONFIG}/other/all.yaml", f"{all_rooms}modules: []\n")
    begin = f"{CONFIG}/venv/bin/python -m synapse.app.homeserver -c {CONFIG}/synapse"
    server.write(f"{DROP_IN}/by-hand.conf", f"[Service]\nExecStart=\nExecStart={begin} -c {CONFIG}/other\n")
    server.inside("systemctl", "daemon-reload")
    server.restart()
    run = server.gate()
    closed(server, run, f"has Synapse read {CONFIG}/other as well", "Registration is closed.")
    # One that opens the door.
    server.write(f"{CONFIG}/other/open.yaml", f"{open_to_all}registration_requires_token: false\nmodules: []\n")
    server.restart()
    run = server.gate()
    assert run.status != 0, run.output
    assert "Registration was open nevertheless" in run.told
    assert server.inside("systemctl", "show", "-P", "ActiveState", "-P", "UnitFileState", UNIT).split() == [
        "inactive",
        "disabled",
    ]

    # A contradiction that the module sees.
    server.inside("rm", f"{DROP_IN}/by-hand.conf")
    server.inside("systemctl", "daemon-reload")
    server.write(EXTRA, all_rooms)
    with pytest.raises(AssertionError, match="Job for"):
        server.restart()
    assert "encryption_enabled_by_default_for_room_type" in server.journal("--lines", "60")
    run = server.gate()
    assert run.status != 0, run.output
    assert server.attestation() is None


def test_an_inventory_that_changes(server: Server) -> None:
    """Through the role: what matters is declared otherwise and not served so. Closed, also for those who sign on."""
    carla, dora = (f"{name}-{secrets.token_hex(3)}" for name in ("carla", "dora"))
    carlas = f"SELECT count(*) FROM users WHERE name = '@{carla}:atelier.test'"
    people = [{"localpart": "support"}, {"localpart": dora, "display_name": "Dora", "password": "un mot de passe"}]
    other = {"im.vector.riot.e2ee": {"default": False}}
    run = server.play(synapse_extra_config=JWT, reverse_proxy_well_known_client_extra=other)
    closed(server, run, "im.vector.riot.e2ee is nothing", ".well-known/matrix/client")
    assert jwt_login(server, carla) in (400, 403)
    assert server.sql(carlas) == "0"

    # Declared as it is served: open, and there are administrators.
    run = server.play(synapse_extra_config=JWT, encryption_gate_administrators=people)
    passed(server, run)
    assert run.changed
    assert jwt_login(server, carla) == 200
    assert server.sql(carlas) == "1"
    assert "un mot de passe" not in run.output
    assert server.sql(f"SELECT admin FROM users WHERE name = '@{dora}:atelier.test'") == "1"

    # A password is set once.
    people[1]["password"] = "un autre"
    again = server.module("administrators", administrators=people)
    assert again.status == 0, again.output
    assert not again.changed, again.output
    assert server.api.login(dora, "un mot de passe").token


def test_an_administrator_with_a_wrong_name_is_refused(server: Server) -> None:
    bad = server.run("playbooks/cooperative.yml", encryption_gate_administrators=[{"localpart": "Dora Maar"}])
    assert bad.status != 0
    assert not bad.changed, bad.output
    assert 'encryption_gate_administrators: "Dora Maar" is no localpart' in bad.told


def test_closed_is_closed_and_opens_again(server: Server) -> None:
    passed(server, server.play(encryption_gate_registration="closed"), "closed")
    refused = server.module("registration_token", action="create")
    assert refused.status != 0
    assert "Nobody could use the token" in refused.output
    passed(server, server.gate())


def test_a_malformed_attestation_proves_nothing(server: Server) -> None:
    server.write(ATTESTATION, '{"schema_version": 1, "digest": "sha256:0"}')
    run = server.gate()
    passed(server, run)
    assert run.changed


def test_a_restart_is_proven_anew(server: Server) -> None:
    """And a lost token is replaced for it."""
    before = server.attested()
    server.inside("rm", f"{CONFIG}/gate.token")
    server.restart()
    passed(server, server.gate())
    after = server.attested()
    assert before["invocation_id"] != after["invocation_id"]
    assert before["first_attested_at"] == after["first_attested_at"]
    assert server.inside("stat", "-c", "%a %U", f"{CONFIG}/gate.token").strip() == "600 root"


def dies(server: Server, moment: Moment, status: int) -> None:
    """The gate is killed; the door is closed, or the server attested."""
    assert server.killed(moment) == 137, f"it never came to {moment}"
    server.is_active()
    assert server.register()[0] == status, moment
    if status == 401:
        assert server.attestation() is not None, moment


def test_killed_and_run_again(server: Server) -> None:
    """At whatever moment it dies, the door is closed or the server attested, and the next run takes it from there."""
    sound = server.inside("cat", WELL_KNOWN)
    server.write(WELL_KNOWN, "{}")
    # Closed on disk, and not yet in the process; closed there, too, and still attested.
    dies(server, Moment("subprocess.Popen", "restart"), 401)
    dies(server, Moment("os.rename", "attestation."), 403)
    # From here on, an open door is the work of a run that died.
    closed(server, server.gate(), ".well-known/matrix/client")
    server.write(WELL_KNOWN, sound)
    # All rooms are made, and none removed.
    dies(server, Moment("http.client.send", "PUT /_matrix/client/v3/rooms/"), 403)
    assert rooms_of_the_gate(server) != "0"
    # Proven, and not yet attested; attested; open on disk; open, and not seen to be so; seen, and not attested as open.
    dies(server, Moment("os.rename", "attestation.json"), 403)
    assert server.attestation() is None
    dies(server, Moment("os.rename", "registration.yaml"), 403)
    assert server.attestation() is not None
    dies(server, Moment("subprocess.Popen", "restart"), 403)
    dies(server, Moment("http.client.send", "POST /_matrix/client/v3/register"), 401)
    dies(server, Moment("os.rename", "attestation.json", 2), 401)
    # The opening that was cut short is finished.
    assert server.attested()["registration"] == "closed"
    passed(server, server.gate())
    assert rooms_of_the_gate(server) == "0"


def test_registration_that_somebody_edits_is_put_right_in_one_run(server: Server) -> None:
    """Read by Synapse, or not yet, or gone; what was written is kept."""
    path = f"{CONFIG}/synapse/registration.yaml"
    sound = server.inside("cat", path)
    # Synapse would not start with a door that asks for no token.
    by_hand = sound.replace("enable_registration: true", "enable_registration: false # by hand")
    assert by_hand != sound
    for restarts in (True, False):
        server.write(path, by_hand)
        if restarts:
            server.restart()
        run = server.gate()
        passed(server, run)
        assert f"{path} was edited by hand" in run.told
        kept = re.findall(rf"{CONFIG}/registration\.\S+\.yaml", run.told)[0]
        assert server.inside("cat", kept) == by_hand
        assert server.inside("cat", path) == sound
        assert server.inside("stat", "-c", "%a %U", path, kept).split() == ["600", "matrix-atelier", "600", "root"]
        server.inside("rm", kept)
    server.inside("rm", path)
    run = server.gate()
    passed(server, run)
    assert f"{path} was gone" in run.told
    assert not server.gate().changed


def test_a_process_that_has_not_read_what_is_on_disk_is_not_attested(server: Server) -> None:
    """A run was killed between the file and the restart: what it declared would be attested, and not be in force."""
    before = server.attested()["invocation_id"]
    server.inside("touch", f"{CONFIG}/log.yaml")
    run = server.gate()
    passed(server, run)
    assert f"had not read {CONFIG}/log.yaml" in run.told
    assert server.attested()["invocation_id"] not in (before, "")
    assert not server.gate().changed


def test_registration_tokens(server: Server) -> None:
    playbook = "playbooks/registration_token.yml"
    name = f"trente-{secrets.token_hex(3)}"
    made = server.run(
        playbook,
        registration_token_action="create",
        registration_token=name,
        registration_token_uses_allowed=30,
        registration_token_expiry="2031-05-01",
    )
    assert made.status == 0, made.output
    assert made.changed
    assert f"{name}: 0 of 30 used, until 2031-05-01 23:59 UTC" in made.told
    again = server.module("registration_token", action="create", token=name, uses_allowed=30, expiry="2031-05-01")
    assert again.status == 0, again.output
    assert not again.changed
    assert name in server.run(playbook).output
    assert server.run(playbook, registration_token_action="revoke", registration_token=name).changed
    assert name not in server.module("registration_token").output

    with server.aside(ATTESTATION):
        refused = server.run(playbook, registration_token_action="create")
    assert refused.status != 0
    assert "The encryption gate has not passed" in refused.told
