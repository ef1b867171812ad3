# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the gate leaves behind on a server that has passed."""

from __future__ import annotations

import json

from conftest import Api, Instance
from testinfra.host import Host


def test_attestation(instance: Instance, host: Host, first_start: str) -> None:
    file = host.file(f"/etc/matrix/{instance.slug}/attestation.json")
    assert (file.user, file.group, file.mode) == ("root", f"matrix-{instance.slug}", 0o640)
    found = json.loads(file.content_string)
    assert found["domain"] == instance.domain
    assert found["verdict"] == "in time"
    assert found["accepted_rooms"] == []
    assert found["invocation_id"] == first_start


def test_who_can_read_what_the_gate_keeps(instance: Instance, host: Host) -> None:
    directory = f"/etc/matrix/{instance.slug}"
    token = host.file(f"{directory}/gate.token")
    assert (token.user, token.mode) == ("root", 0o600)
    registration = host.file(f"{directory}/synapse/registration.yaml")
    assert (registration.user, registration.mode) == (f"matrix-{instance.slug}", 0o600)
    born = host.file(f"{directory}/admins/support.password")
    assert (born.user, born.mode) == ("root", 0o600)
    assert host.file(f"{directory}/admins").mode == 0o700


def test_registration_asks_for_a_token(api: Api) -> None:
    answer = api.request("POST", "/_matrix/client/v3/register", {})
    assert answer.status_code == 401
    assert all("m.login.registration_token" in flow["stages"] for flow in answer.json()["flows"])
    refused = api.register("sans-jeton", "un mot de passe assez long", None)
    assert refused.status_code in (401, 403), refused.text


def test_the_gate_leaves_no_room(instance: Instance) -> None:
    assert instance.sql("SELECT count(*) FROM rooms WHERE creator LIKE '@encryption-gate%'").strip() == "0"


def test_the_administrator_can_log_in(instance: Instance, api: Api, host: Host) -> None:
    password = host.file(f"/etc/matrix/{instance.slug}/admins/support.password").content_string.strip()
    assert api.login("support", password).user_id == f"@support:{instance.domain}"
    status, answer = instance.admin("GET", f"/_synapse/admin/v2/users/@support:{instance.domain}")
    assert status == 200
    assert answer["admin"]
    assert answer["displayname"] == "Équipe support"
