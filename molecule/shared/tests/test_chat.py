# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What people and eavesdroppers can do on an instance that was just brought up."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import socket
from pathlib import Path
from urllib.parse import quote

import pytest
from ansible_collections.cae.matrix.tests.patience import START, patient
from conftest import Api, Instance, Person
from encrypting_client import EncryptingClient

CLIENT = "/_matrix/client/v3"


def make_room(api: Api, owner: Person, **content: object) -> str:
    return str(api.ok("POST", f"{CLIENT}/createRoom", dict(content), owner.token)["room_id"])


def encryption_of(api: Api, person: Person, room_id: str) -> int:
    path = f"{CLIENT}/rooms/{quote(room_id)}/state/m.room.encryption/"
    return int(api.request("GET", path, token=person.token).status_code)


def test_a_person_logs_in(api: Api, people: list[Person]) -> None:
    for person in people:
        who = api.ok("GET", f"{CLIENT}/account/whoami", token=person.token)
        assert who["user_id"] == person.user_id
        again = api.login(person.user_id, person.password)
        assert again.device_id != person.device_id


def test_a_wrong_password_is_refused(api: Api, people: list[Person]) -> None:
    body = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": people[0].user_id},
        "password": people[1].password,
    }
    assert api.request("POST", f"{CLIENT}/login", body).status_code == 403


def test_the_administrator_of_the_inventory_logs_in(instance: Instance, api: Api) -> None:
    password = instance.run("cat", f"/etc/matrix/{instance.slug}/admins/support.password").strip()
    admin = api.login("support", password)
    status, account = instance.admin("GET", f"/_synapse/admin/v2/users/{quote(admin.user_id)}")
    assert status == 200
    assert account["admin"] is True


def test_registration_needs_a_token(api: Api, instance: Instance, registration_token: str) -> None:
    password = secrets.token_urlsafe(16)
    refused = api.register(f"inconnu-{secrets.token_hex(3)}", password, None)
    assert refused.status_code in (401, 403), refused.text
    assert refused.json()["errcode"] in ("M_UNAUTHORIZED", "M_FORBIDDEN")
    # Application services and guests are no way around it.
    for kind in ("?kind=guest", ""):
        answer = api.request("POST", f"{CLIENT}/register{kind}", {"auth": {"type": "m.login.dummy"}})
        assert answer.status_code in (401, 403), answer.text
        assert "access_token" not in answer.json()


@pytest.mark.parametrize("preset", ["private_chat", "trusted_private_chat", "public_chat"])
def test_rooms_of_every_preset_are_plain(api: Api, people: list[Person], preset: str) -> None:
    amina, bruno = people
    room = make_room(
        api, amina, preset=preset, invite=[bruno.user_id], is_direct=preset == "trusted_private_chat", name="Réunion"
    )
    api.ok("POST", f"{CLIENT}/join/{quote(room)}", {}, bruno.token)
    assert encryption_of(api, amina, room) == 404
    text = {"msgtype": "m.text", "body": "Bonjour à tous"}
    sent = api.ok("PUT", f"{CLIENT}/rooms/{quote(room)}/send/m.room.message/{secrets.token_hex(4)}", text, amina.token)
    read = api.ok("GET", f"{CLIENT}/rooms/{quote(room)}/event/{quote(sent['event_id'])}", token=bruno.token)
    assert read["type"] == "m.room.message"
    assert read["content"]["body"] == "Bonjour à tous"


def test_two_people_opt_in_and_nobody_listens(
    instance: Instance, api: Api, people: list[Person], tmp_path: Path
) -> None:
    # Devices of their own: a client that encrypts is not the one that the other tests used.
    amina, bruno = (api.login(person.user_id, person.password) for person in people)
    room = make_room(api, amina, preset="trusted_private_chat", invite=[bruno.user_id], is_direct=True)
    api.ok("POST", f"{CLIENT}/join/{quote(room)}", {}, bruno.token)
    plain, secret, answer = (f"{word}-{secrets.token_hex(8)}" for word in ("clair", "secret", "réponse"))

    async def talk() -> None:
        stores = [tmp_path / name for name in ("amina", "bruno")]
        for store in stores:
            store.mkdir()
        clients = [
            EncryptingClient(
                instance.base_url, person.user_id, person.device_id, person.token, store, instance.ssl_context()
            )
            for person, store in zip((amina, bruno), stores, strict=True)
        ]
        async with clients[0] as hers, clients[1] as his:
            assert not await hers.encrypts(room)
            await hers.say(room, plain)
            assert await his.hears(plain)
            # Both may: it is the second person of a direct chat who asks for it here.
            await his.turn_encryption_on(room)
            assert await hers.encrypts(room)
            assert await his.encrypts(room)
            await hers.say(room, secret)
            assert await his.hears(secret)
            await his.sync()
            await his.say(room, answer)
            assert await hers.hears(answer)
            assert not hers.unreadable
            assert not his.unreadable

    asyncio.run(talk())

    # An eavesdropper on the server sees all that the database holds about the room, and only the plain words in it.
    stored = instance.sql(f"SELECT json FROM event_json WHERE room_id = '{room}'")
    types = [json.loads(line)["type"] for line in stored.splitlines()]
    assert types.count("m.room.encrypted") == 2
    assert types.count("m.room.message") == 1
    assert plain in stored
    for word in (secret, answer):
        assert word not in stored
        assert json.dumps(word).strip('"') not in stored
        assert dump_count(instance, word) == 0


def dump_count(instance: Instance, word: str) -> int:
    """How many lines of a dump of the whole database hold a word."""
    dump = f"runuser -u postgres -- pg_dump matrix_{instance.slug.replace('-', '_')}"
    return int(instance.run("sh", "-c", f"{dump} | grep -c '{word}' || true"))


@pytest.mark.parametrize(
    "path",
    [
        "/_synapse/admin/v1/server_version",
        "/_synapse/admin/v2/users",
        "//_synapse/admin/v2/users",
        "/_synapse//admin/v2/users",
        "/%5Fsynapse/admin/v2/users",
        "/_matrix/../_synapse/admin/v2/users",
        "/_matrix/%2e%2e/_synapse/admin/v2/users",
        "/_synapse/client/../admin/v2/users",
        "/_synapse/client/%2e%2e/admin/v2/users",
        "/_synapse/metrics",
        "/_synapse/replication/",
    ],
)
def test_the_operators_api_is_not_reachable_from_outside(instance: Instance, path: str) -> None:
    """The path goes out as it stands: a library that tidied it up would prove nothing."""
    token = instance.run("cat", f"/etc/matrix/{instance.slug}/gate.token").strip()
    names = [instance.matrix_hostname, instance.domain]
    if instance.serves_element:
        names.append(instance.element_hostname)
    for name in names:
        answer = raw_get(instance, name, path, token)
        status = int(answer.split(" ", 2)[1])
        # Element's page is served for what is not a file of its own, or nothing is.
        assert status in (301, 302, 400, 403, 404), f"{name}{path}: {answer[:300]}"
        assert "server_version" not in answer
        assert '"users"' not in answer


def raw_get(instance: Instance, name: str, path: str, token: str) -> str:
    with (
        socket.create_connection((instance.address, 443), timeout=patient(START)) as plain,
        instance.ssl_context().wrap_socket(plain, server_hostname=name) as tls,
    ):
        request = f"GET {path} HTTP/1.1\r\nHost: {name}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        tls.sendall(request.encode())
        received = b""
        while chunk := tls.recv(65536):
            received += chunk
    return received.decode(errors="replace")


def test_only_the_proxy_listens(instance: Instance) -> None:
    script = (
        "import glob\n"
        "for path in ('/proc/net/tcp', '/proc/net/tcp6'):\n"
        "    for line in open(path).read().splitlines()[1:]:\n"
        "        local, state = line.split()[1], line.split()[3]\n"
        "        if state == '0A': print(*local.rsplit(':', 1))\n"
    )
    open_ports: set[int] = set()
    local_ports: set[int] = set()
    for line in instance.run("python3", "-c", script).splitlines():
        address, port = line.split()
        loopback = address in ("0100007F", "00000000000000000000000001000000") or (
            len(address) == 8 and address.endswith("7F")
        )
        (local_ports if loopback else open_ports).add(int(port, 16))
    # Port 8448 is open only where the federation is delegated to it.
    assert open_ports <= {80, 443, 8448}, open_ports
    assert {80, 443} <= open_ports
    # The resolver of Docker's networks listens on the loopback, on a port that changes.
    names = instance.run("ss", "-ltnpH")
    assert "python" not in names, names
    assert "synapse" not in names, names
    assert local_ports - {5432} <= {int(line.split()[3].rsplit(":", 1)[1]) for line in names.splitlines()}


def test_files_have_the_modes_they_should(instance: Instance) -> None:
    slug, group = instance.slug, f"matrix-{instance.slug}"
    base = f"/etc/matrix/{slug}"
    expected = {
        base: ("root", group, "750"),
        f"{base}/instance.json": ("root", "root", "644"),
        f"{base}/attestation.json": ("root", group, "640"),
        f"{base}/gate.token": ("root", "root", "600"),
        f"{base}/log.yaml": ("root", group, "640"),
        f"{base}/admins": ("root", "root", "700"),
        f"{base}/admins/support.password": ("root", "root", "600"),
        f"{base}/synapse": ("root", group, "750"),
        f"{base}/synapse/homeserver.yaml": ("root", group, "640"),
        f"{base}/synapse/registration.yaml": (group, group, "600"),
        f"{base}/secrets": (group, group, "700"),
        f"{base}/secrets/signing.key": (group, group, "600"),
        f"{base}/secrets/macaroon_secret_key": (group, group, "600"),
        f"{base}/secrets/form_secret": (group, group, "600"),
        f"{base}/secrets/registration_shared_secret": (group, group, "600"),
        f"/var/lib/matrix/{slug}": (group, group, "700"),
        f"/run/matrix-synapse/{slug}": (group, group, "750"),
        f"/run/matrix-synapse/{slug}/client.sock": (group, group, "660"),
    }
    found: dict[str, tuple[str, ...]] = {}
    for line in instance.run("stat", "--format", "%n %U %G %a", *expected).splitlines():
        name, user, file_group, mode = line.split()
        found[name] = (user, file_group, mode)
    assert found == expected


def test_nothing_under_the_instance_is_for_everybody(instance: Instance) -> None:
    places = [f"/etc/matrix/{instance.slug}/{name}" for name in ("synapse", "secrets", "admins")]
    places.append(f"/var/lib/matrix/{instance.slug}")
    open_files = instance.run("find", *places, "-not", "-type", "l", "-perm", "/007")
    assert open_files == ""


def test_the_unit_is_hardened(instance: Instance) -> None:
    unit = f"matrix-synapse@{instance.slug}.service"
    told = instance.run("systemd-analyze", "security", "--no-pager", unit)
    score = re.search(r"Overall exposure level for .*: ([0-9.]+)", told)
    assert score is not None, told
    assert float(score.group(1)) <= 1.5, told


def test_synapse_can_write_its_own_data_and_nothing_else_of_the_machine(instance: Instance) -> None:
    """The kernel says so: a score counts many things, and one that is lost may not show."""
    unit = f"matrix-synapse@{instance.slug}.service"
    pid = instance.run("systemctl", "show", "--property", "MainPID", "--value", unit).strip()
    mounts = [line.split() for line in instance.run("cat", f"/proc/{pid}/mountinfo").splitlines()]
    writable = {fields[4] for fields in mounts if "rw" in fields[5].split(",")}
    assert f"/var/lib/matrix/{instance.slug}" in writable
    assert not writable & {"/", "/etc", "/usr", "/var", "/home", "/root", "/boot", f"/etc/matrix/{instance.slug}"}
    names = {"ProtectSystem": "strict", "ProtectHome": "yes", "PrivateDevices": "yes", "NoNewPrivileges": "yes"}
    shown = instance.run("systemctl", "show", *(f"--property={name}" for name in (*names, "ProtectProc")), unit)
    assert dict(line.split("=", 1) for line in shown.split()) == {**names, "ProtectProc": "invisible"}


def test_synapse_runs_as_the_instances_user(instance: Instance) -> None:
    unit = f"matrix-synapse@{instance.slug}.service"
    pid = instance.run("systemctl", "show", "--property", "MainPID", "--value", unit).strip()
    assert instance.run("ps", "-o", "user:32=", "-p", pid).strip() == f"matrix-{instance.slug}"
    status = instance.run("cat", f"/proc/{pid}/status")
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE), status
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE), status
    assert "jemalloc" in instance.run("cat", f"/proc/{pid}/maps")


def test_secrets_are_told_to_nobody(instance: Instance, people: list[Person]) -> None:
    """Neither the journal nor the command lines hold a secret, in whichever way it could have come there."""
    base = f"/etc/matrix/{instance.slug}"
    names = instance.run("find", f"{base}/secrets", f"{base}/admins", f"{base}/gate.token", "-type", "f").split()
    assert len(names) >= 6
    journal = instance.run("journalctl", "--no-pager", "--output", "cat")
    lines = instance.run("ps", "-eo", "args")
    for name in names:
        for word in instance.run("cat", name).split():
            if len(word) >= 16:
                assert word not in journal, f"the content of {name} is in the journal"
                assert word not in lines, f"the content of {name} is in a command line"
    for person in people:
        assert person.password not in journal
        assert person.token not in journal
