# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Everything is in the database of somebody else's server, reached over TLS with a password nobody else sees."""

from __future__ import annotations

import subprocess

import pytest
from conftest import Api, Instance, Person, run_playbook

PASSWORD = 'mot:de\\passe "d\'essai"'


def ask_the_server(instance: Instance, query: str) -> str:
    container = instance.container.removesuffix(instance.slug) + "base"
    command = ["runuser", "-u", "postgres", "--", "psql", "-d", "atelier_chat", "-AtF", " ", "-c", query]
    done = subprocess.run(["docker", "exec", container, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_two_people_talk(api: Api, people: list[Person]) -> None:
    """They registered by token, so the gate has passed, the first count in this database included."""
    amina, bruno = people
    content = {"preset": "trusted_private_chat", "invite": [bruno.user_id], "is_direct": True}
    room = api.ok("POST", "/_matrix/client/v3/createRoom", content, amina.token)["room_id"]
    api.ok("POST", f"/_matrix/client/v3/join/{room}", {}, bruno.token)
    text = {"msgtype": "m.text", "body": "Bonjour"}
    api.ok("PUT", f"/_matrix/client/v3/rooms/{room}/send/m.room.message/1", text, bruno.token)


def test_people_are_told_the_relay_for_calls(instance: Instance, api: Api, people: list[Person]) -> None:
    told = api.ok("GET", "/_matrix/client/v3/voip/turnServer", token=people[0].token)
    assert told["uris"] == ["turn:relais.test?transport=udp"]
    assert told["username"].endswith(f":{people[0].user_id}")
    assert told["ttl"] == 24 * 60 * 60
    holding = instance.run("grep", "-rlF", "-e", "secret-du-relais", f"/etc/matrix/{instance.slug}/").split()
    assert holding == [f"/etc/matrix/{instance.slug}/synapse/secrets.yaml"]


def test_they_are_in_the_external_database(instance: Instance, people: list[Person]) -> None:
    known = ask_the_server(instance, "SELECT name FROM users").split()
    assert {person.user_id for person in people} <= set(known)


def test_every_connection_is_by_tls_from_the_machine(instance: Instance, people: list[Person]) -> None:
    assert people
    seen = ask_the_server(
        instance,
        "SELECT host(client_addr), ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
        " WHERE datname = 'atelier_chat' AND usename = 'chat'",
    )
    assert set(seen.splitlines()) == {f"{instance.address} t"}


def test_the_password_is_in_one_file(instance: Instance) -> None:
    places = [f"/etc/matrix/{instance.slug}", f"/var/lib/matrix/{instance.slug}", "/etc/systemd/system"]
    # libpq's file escapes it: no other file holds it in either way.
    escaped = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
    for word in (PASSWORD, escaped):
        found = subprocess.run(
            ["docker", "exec", instance.container, "grep", "-rlF", "-e", word, *places],
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.stdout.split() in ([], [f"/etc/matrix/{instance.slug}/secrets/pgpass"])
        assert word not in instance.run("journalctl", "--no-pager", "--output", "cat")
    group = f"matrix-{instance.slug}"
    stat = instance.run("stat", "--format", "%U %G %a", f"/etc/matrix/{instance.slug}/secrets/pgpass")
    assert stat.split() == [group, group, "600"]


@pytest.mark.parametrize(
    ("variable", "value", "cause"),
    [
        ("postgresql_password", "pas-le-bon", "password authentication failed"),
        ("postgresql_database", "personne", 'database "personne" does not exist'),
        ("postgresql_ca_file", "/etc/ssl/certs/ca-certificates.crt", "certificate verify failed"),
        ("postgresql_sslmode", "disable", "no encryption"),
        ("postgresql_database", "autre_chat", "LC_COLLATE C.UTF-8"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_changes(instance: Instance, variable: str, value: str, cause: str) -> None:
    before = instance.run("find", "/etc/matrix", "/var/lib/matrix", "-printf", "%p %m %T@\\n")
    status, output = run_playbook("playbooks/cooperative.yml", **{variable: value})
    said = " ".join(output.split())
    assert status != 0, said
    assert cause in said, said
    assert "changed=0 " in said, said
    assert value not in said or variable != "postgresql_password", said
    assert instance.run("find", "/etc/matrix", "/var/lib/matrix", "-printf", "%p %m %T@\\n") == before


@pytest.mark.last
def test_a_removal_leaves_the_database_to_its_owner(instance: Instance) -> None:
    """Debian 12's pg_dump is older than the server, and dumps nothing; then the removal says so."""
    known = ask_the_server(instance, "SELECT count(*) FROM users")
    # "psql (PostgreSQL) 15.14 (Debian …)", and 170006.
    own = int(instance.run("psql", "--version").split()[2].split(".")[0])
    older = own < int(ask_the_server(instance, "SHOW server_version_num")) // 10000
    gone = {"matrix_state": "absent", "matrix_removal_confirmed": instance.domain}
    status, output = run_playbook("playbooks/cooperative.yml", **gone)
    said = " ".join(output.split())
    assert status == 0, said
    kept = instance.run("sh", "-c", f"ls -d /var/backups/matrix/{instance.slug}/removed-*").split()[-1]
    if older:
        assert "could not be dumped, and is left as it is" in said
        assert "server version mismatch" in said
    else:
        assert "TABLE DATA public events" in instance.run("pg_restore", "--list", f"{kept}/database.dump")
    assert ask_the_server(instance, "SELECT count(*) FROM users") == known
    left = ["find", "/etc/matrix", "/var/lib/matrix", "-mindepth", "1"]
    assert instance.run(*left) == ""
