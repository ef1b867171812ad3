# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The audit of a server that is late: as its own, as somebody else's, and where it may not look."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.cae.matrix.tests.patience import eventually
from gate import CONFIG, DOMAIN, Run, Server

PLAYBOOK = "playbooks/audit.yml"
PORT = 8449
LOCALPART = f"amina-{secrets.token_hex(3)}"
AMINA = f"@{LOCALPART}:{DOMAIN}"
HOSTILE = "<script>alert(1)</script> {{ 7 * 7 }} \x1b[31m\u202eeiap & 'co'"
# The admin API is not served to the outside; this stands for a foreign server that serves it, or for a tunnel. At the
# second port it is as old as a Synapse without that list of people.
PROXY = f"""
server {{
    listen {PORT} ssl;
    listen {PORT + 1} ssl;
    server_name matrix.{DOMAIN};
    ssl_certificate {CONFIG}/tls/live/fullchain.pem;
    ssl_certificate_key {CONFIG}/tls/live/privkey.pem;
    location /_synapse/admin/v2/users {{
        default_type application/json;
        if ($server_port = {PORT + 1}) {{
            return 404 '{{"errcode": "M_UNRECOGNIZED", "error": "Unrecognized request"}}';
        }}
        proxy_pass http://unix:/run/matrix-synapse/atelier/client.sock;
    }}
    location / {{
        proxy_pass http://unix:/run/matrix-synapse/atelier/client.sock;
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header X-Forwarded-Proto https;
    }}
}}
"""
PSQL = "psql --quiet --set ON_ERROR_STOP=1"


@contextlib.contextmanager
def unattested(server: Server) -> Iterator[None]:
    """As before the first gate; what was attested comes back."""
    server.inside("sh", "-c", f"mkdir /root/kept && mv {CONFIG}/attestation*.json /root/kept/")
    try:
        yield
    finally:
        server.inside("sh", "-c", f"mv /root/kept/* {CONFIG}/ && rmdir /root/kept")


def as_postgres(server: Server, script: str, database: str = "postgres") -> None:
    server.inside("su", "postgres", "-c", f"{PSQL} {database}", content=script)


@pytest.fixture
def as_it_was() -> None:
    """Nothing is broken here that does not come back at once: once for all is enough."""


@pytest.fixture(scope="module")
def support(server: Server) -> str:
    return server.token_of_support()


@pytest.fixture(scope="module")
def person(server: Server) -> Iterator[str]:
    """The token of somebody who has set up encryption: an identity, and a key backup."""
    token = server.token_of_new(LOCALPART)
    public = "A" * 43
    key = {"user_id": AMINA, "usage": ["master"], "keys": {f"ed25519:{public}": public}}
    status, answer = server.ask("POST", "/_matrix/client/v3/keys/device_signing/upload", {"master_key": key}, token)
    assert status == 200, answer
    backup = {
        "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2",
        "auth_data": {"public_key": public, "signatures": {}},
    }
    status, answer = server.ask("POST", "/_matrix/client/v3/room_keys/version", backup, token)
    assert status == 200, answer
    yield token
    server.admin("POST", f"/_synapse/admin/v1/deactivate/{AMINA}", {"erase": True})


@pytest.fixture(scope="module")
def rooms(server: Server, support: str, person: str) -> Iterator[dict[str, str]]:
    """One of each: encrypted, replaced without an algorithm, with encrypted messages only, made elsewhere, plain."""
    found = {
        "plain": server.room(support, "Accueil"),
        "messages": server.room(person, "Messages"),
        "hostile": server.encrypted_room(person, HOSTILE),
        "empty": server.encrypted_room(support, "Sans algorithme", {}),
        # A room ID of room version 12, which says nothing of a server.
        "remote": "!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM",
    }
    path = f"/_matrix/client/v3/rooms/{found['messages']}/send/m.room.encrypted/1"
    assert server.ask("PUT", path, {"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "x"}, person)[0] == 200
    path = f"/_matrix/client/v3/rooms/{found['empty']}/state/m.room.tombstone/"
    # Such a character is no trouble for Synapse, but for JSON in PostgreSQL.
    closed = {"body": "ferm\u0000é", "replacement_room": found["plain"]}
    assert server.ask("PUT", path, closed, support)[0] == 200
    remote = found["remote"]
    statistics = "current_state_events, joined_members, invited_members, left_members, banned_members"
    server.sql(
        "INSERT INTO rooms (room_id, is_public, creator, room_version)"
        f" VALUES ('{remote}', false, '@x:ailleurs.test', '12');"
        "INSERT INTO room_stats_state (room_id, name, encryption)"
        f" VALUES ('{remote}', 'Voisins', 'm.megolm.v1.aes-sha2');"
        f"INSERT INTO room_stats_current (room_id, {statistics}, local_users_in_room, completed_delta_stream_id)"
        f" VALUES ('{remote}', 0, 2, 0, 0, 0, 1, 1);"
        f"UPDATE rooms SET creator = '' WHERE room_id = '{found['empty']}'"
    )
    yield found
    server.sql(
        f"DELETE FROM room_stats_current WHERE room_id = '{remote}';"
        f"DELETE FROM room_stats_state WHERE room_id = '{remote}'; DELETE FROM rooms WHERE room_id = '{remote}';"
        f"UPDATE rooms SET creator = '@support:{DOMAIN}' WHERE room_id = '{found['empty']}'"
    )


@pytest.fixture(scope="module")
def admin_url(server: Server) -> Iterator[str]:
    """Where the admin API answers from outside."""
    server.write("/etc/nginx/conf.d/audit.conf", PROXY)
    server.inside("systemctl", "reload", "nginx")
    eventually(lambda: f":{PORT}" in server.inside("ss", "-ltn"), "nginx listens")
    yield f"https://matrix.{DOMAIN}:{PORT}"
    server.inside("rm", "/etc/nginx/conf.d/audit.conf")
    server.inside("systemctl", "reload", "nginx")


@pytest.fixture(scope="module")
def databases(server: Server) -> Iterator[None]:
    """Somebody who may not read, somebody who may do nothing but read, and a database of long ago."""
    as_postgres(
        server,
        "CREATE ROLE sans_droit LOGIN PASSWORD 'lecture'; CREATE ROLE lecture LOGIN PASSWORD 'lecture';"
        "GRANT CONNECT ON DATABASE matrix_atelier TO sans_droit, lecture;",
    )
    as_postgres(
        server,
        "CREATE DATABASE ancien OWNER lecture;",
    )
    as_postgres(server, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO lecture;", "matrix_atelier")
    as_postgres(
        server,
        "CREATE TABLE users (name text, admin smallint, deactivated smallint, is_guest smallint, appservice_id text);"
        "GRANT SELECT ON users TO lecture;",
        "ancien",
    )
    yield
    as_postgres(server, "REVOKE SELECT ON ALL TABLES IN SCHEMA public FROM lecture;", "matrix_atelier")
    as_postgres(
        server,
        "REVOKE CONNECT ON DATABASE matrix_atelier FROM sans_droit, lecture;"
        "DROP DATABASE ancien; DROP ROLE sans_droit; DROP ROLE lecture;",
    )


@pytest.fixture(scope="module")
def strangers(
    server: Server,
    tmp_path_factory: pytest.TempPathFactory,
    admin_url: str,
    databases: None,
    support: str,
    person: str,
) -> Path:
    """An inventory of the same server as if others had made it, and of what cannot be audited."""
    inside = {"ansible_connection": "community.docker.docker", "ansible_host": server.instance.container}
    url = "postgresql://{}:lecture@127.0.0.1:5432/{}"
    hosts: dict[str, dict[str, Any]] = {
        "par-api": {"audit_homeserver_url": admin_url, "audit_admin_token": support},
        "par-base": {**inside, "audit_database_url": url.format("lecture", "matrix_atelier")},
        "pas-admin": {"audit_homeserver_url": admin_url, "audit_admin_token": person},
        "jeton-inconnu": {"audit_homeserver_url": admin_url, "audit_admin_token": "secret-inconnu"},
        "api-fermee": {"audit_homeserver_url": f"https://matrix.{DOMAIN}", "audit_admin_token": support},
        "api-ancienne": {
            "audit_homeserver_url": admin_url.replace(str(PORT), str(PORT + 1)),
            "audit_admin_token": support,
        },
        "sans-tls": {"audit_homeserver_url": f"http://matrix.{DOMAIN}", "audit_admin_token": support},
        "muet": {"audit_homeserver_url": "http://127.0.0.1:1", "audit_admin_token": support},
        "sans-dns": {"audit_homeserver_url": "https://nulle-part.invalid", "audit_admin_token": support},
        "sans-droit": {**inside, "audit_database_url": url.format("sans_droit", "matrix_atelier")},
        "mot-de-passe": {**inside, "audit_database_url": url.format("personne", "matrix_atelier")},
        "ancien": {**inside, "audit_database_url": url.format("lecture", "ancien")},
        # The controller of the tests has no psycopg2.
        "sans-psycopg2": {"audit_from": "localhost", "audit_database_url": url.format("lecture", "matrix_atelier")},
        "sqlite": {**inside, "audit_database_url": "sqlite:///srv/homeserver.db"},
        "injoignable": {
            "ansible_connection": "ansible.builtin.ssh",
            "ansible_host": "127.0.0.1",
            "ansible_port": 1,
            "matrix_domain": "injoignable.test",
        },
    }
    common = {
        "matrix_resolve": {f"matrix.{DOMAIN}": "{{ _test_addresses.atelier }}"},
        "matrix_domain": "{{ inventory_hostname }}.example",
    }
    for name, variables in hosts.items():
        hosts[name] = {**common, **variables}
    path = tmp_path_factory.mktemp("strangers") / "hosts.yml"
    # Both groups are audited.
    hub = {"federation_hub": {"hosts": {"par-base": hosts.pop("par-base")}}}
    path.write_text(yaml.safe_dump({"cooperatives": {"hosts": hosts}, **hub}))
    path.chmod(0o600)
    return path


class Audit:
    """One run of the playbook, and what it wrote."""

    def __init__(self, server: Server, directory: Path, *flags: str) -> None:
        self.files = directory / "audit.json", directory / "audit.html"
        paths = {"audit_report": str(self.files[0]), "audit_page": str(self.files[1])}
        self.run: Run = server.run(PLAYBOOK, *flags, **paths)
        assert all(file.exists() for file in self.files), self.run.output
        self.report: dict[str, Any] = json.loads(self.files[0].read_text())
        self.page = self.files[1].read_text()
        self.hosts = {one["name"]: one for one in self.report["instances"]}

    def rooms(self, host: str) -> dict[str, dict[str, Any]]:
        return {room["room_id"]: room for room in self.hosts[host]["rooms"]}


@pytest.fixture(scope="module")
def late(server: Server, rooms: dict[str, str], strangers: Path, tmp_path_factory: pytest.TempPathFactory) -> Audit:
    """Everything at once, in check mode, which must not hide anything."""
    with unattested(server):
        return Audit(server, tmp_path_factory.mktemp("late"), "-i", str(strangers), "--check")


def test_every_host_is_in_the_report_and_the_failures_are_not_hidden(late: Audit) -> None:
    assert late.run.status == 2, late.run.output
    assert late.report["ok"] is False
    assert {name for name, one in late.hosts.items() if one["ok"]} == {"atelier", "par-api", "par-base"}
    assert set(re.findall(r"changed=(\d+)", late.run.output)) == {"0"}


@pytest.mark.parametrize("host", ["atelier", "par-base", "par-api"])
def test_the_same_is_seen_from_everywhere(late: Audit, rooms: dict[str, str], host: str) -> None:
    one = late.hosts[host]
    assert one["verdict"] == "too late"
    assert one["domain"] == DOMAIN
    assert one["attested"] is None
    found = late.rooms(host)
    seen = {kind for kind, room in rooms.items() if room in found}
    # HTTP does not tell of messages, and says so.
    assert seen == {"hostile", "empty", "remote"} | ({"messages"} if one["source"] == "database" else set())
    assert len(found) == len(seen)
    assert {kind for kind in seen if "messages" in found[rooms[kind]]["why"]} == seen & {"messages"}
    assert {found[rooms[kind]]["replaced_by"]: kind for kind in sorted(seen)}.get(rooms["plain"]) == "empty"
    assert found[rooms["hostile"]]["name"] == HOSTILE
    assert found[rooms["hostile"]]["members"] == 1
    assert found[rooms["hostile"]]["since"].startswith("20")
    assert {kind: (found[rooms[kind]]["creator"], found[rooms[kind]]["local"]) for kind in seen - {"messages"}} == {
        "empty": (f"@support:{DOMAIN}", True),
        "hostile": (AMINA, True),
        "remote": ("@x:ailleurs.test", False),
    }
    assert {room["standing"] for room in found.values()} == {"to decide"}
    assert [advice["step"] for advice in one["what_can_be_done"]] == ["replace", "remote", "replaced", "accept"]
    assert one["counts"]["identities"] == 1


def test_what_http_cannot_tell_is_not_counted_as_none(late: Audit) -> None:
    by_api, by_database = late.hosts["par-api"], late.hosts["atelier"]
    assert by_api["people"] == [{"user_id": AMINA, "identity": True, "key_backup": None}]
    assert by_api["counts"]["key_backups"] is None
    assert {one["what"] for one in by_api["unknown"]} == {"key backups", "messages"}
    assert by_database["people"] == [{"user_id": AMINA, "identity": True, "key_backup": True}]
    assert by_database["unknown"] == []
    assert "inconnu" in late.page


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("pas-admin", ("not an administrator's", "403 M_FORBIDDEN", "audit_database_url")),
        ("jeton-inconnu", ("does not know the access token", "audit_admin_token")),
        ("api-fermee", ("keeps the admin API from the outside", "http://localhost:8008")),
        ("api-ancienne", ("does not know /_synapse/admin/v2/users", "too old", "audit_database_url")),
        ("sans-tls", ("token in clear text", "https://")),
        ("muet", ("127.0.0.1:1 refuses connections",)),
        ("sans-dns", ("nulle-part.invalid",)),
        ("sans-droit", ("permission denied for table", "GRANT SELECT")),
        ("mot-de-passe", ("password authentication failed", "audit_database_url")),
        ("ancien", ('relation "e2e_cross_signing_keys" does not exist', "too old", "audit_homeserver_url")),
        ("sans-psycopg2", ("psycopg2 is missing", "apt install python3-psycopg2", "audit_from")),
        ("sqlite", ("no URL of PostgreSQL", "audit_homeserver_url")),
        ("injoignable", ("cannot be reached", "ansible_host")),
    ],
)
def test_what_cannot_be_audited_says_why(late: Audit, host: str, words: tuple[str, ...]) -> None:
    one = late.hosts[host]
    assert (one["ok"], one["verdict"], one["rooms"]) == (False, None, [])
    for word in words:
        assert word in one["error"], one["error"]
    assert f"{host}: not audited" in late.run.output
    assert "Traceback" not in one["error"]


def test_no_secret_is_shown(late: Audit, support: str, person: str) -> None:
    for secret in (support, person, "secret-inconnu", ":lecture@"):
        for text in (late.run.output, late.page, json.dumps(late.report)):
            assert secret not in text


def test_the_files_are_for_the_one_who_asked(late: Audit) -> None:
    assert [file.stat().st_mode & 0o777 for file in late.files] == [0o600, 0o600]


def test_hostile_names_do_nothing(late: Audit, rooms: dict[str, str]) -> None:
    assert "<script" not in late.page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; {{ 7 * 7 }}" in late.page
    for character in "\x1b\u202e":
        assert character not in late.page
        assert character not in late.run.output
    assert "<script>alert(1)</script> {{ 7 * 7 }} [31meiap" in " ".join(late.run.output.split())


def test_the_page_needs_nothing_else(late: Audit) -> None:
    for word in ("src=", "http://", "https://", "@import", "url(", "<script", "<link"):
        assert word not in late.page.split("<body>")[0] + late.page.split("<body>")[1].split('lang="en"')[0]
    assert 'lang="fr"' in late.page
    for word in ("Trop tard", "Non audité", "à décider", "distant", "Sans algorithme"):
        assert word in late.page


def test_what_the_inventory_accepts(server: Server, rooms: dict[str, str], tmp_path: Path) -> None:
    listed = [room for kind, room in rooms.items() if kind != "plain"] + ["!nulle-part"]
    with unattested(server):
        found = Audit(server, tmp_path, "-e", json.dumps({"encryption_gate_accepted_rooms": listed}))
    assert found.run.status == 0, found.run.output
    one = found.hosts["atelier"]
    assert one["verdict"] == "too late, accepted"
    assert one["accepted_in_vain"] == ["!nulle-part"]
    assert {room["standing"] for room in one["rooms"]} == {"accepted"}
    assert "accepted in vain: !nulle-part" in found.run.output


def test_after_the_gate_it_is_people_s_own_choice(server: Server, rooms: dict[str, str], tmp_path: Path) -> None:
    before = server.inside("sh", "-c", f"find {CONFIG} -type f -exec sha256sum {{}} + | sort")
    found = Audit(server, tmp_path)
    assert found.run.status == 0, found.run.output
    attestation = server.attested()
    one = found.hosts["atelier"]
    assert (one["verdict"], one["attested"]) == (attestation["verdict"], attestation["first_attested_at"])
    assert {room["standing"] for room in one["rooms"]} == {"chosen since"}
    assert [advice["step"] for advice in one["what_can_be_done"]] == ["attested"]
    assert server.inside("sh", "-c", f"find {CONFIG} -type f -exec sha256sum {{}} + | sort") == before
