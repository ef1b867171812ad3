# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What happens to one is not seen by the people of the other: asked every 100 ms, not one request fails."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator

import pytest
from ansible_collections.cae.matrix.tests.patience import START, eventually
from conftest import Api, Instance
from neighbours import begin, bring_one_step, done, one_step, play, steady
from steady import Steady

# Of a removal, each in a process of its own: nginx left, stopped, dumped, dropped, data moved.
STEPS_ALONE = 6


@pytest.fixture
def unseen(nord: Instance) -> Iterator[Steady]:
    """The neighbour, asked all the time; a test that uses this fails with the first of its failures."""
    with steady(nord) as asked:
        yield asked
    assert asked.count > 5
    assert asked.failures == []


def main_pid(instance: Instance) -> str:
    unit = f"matrix-synapse@{instance.slug}.service"
    return instance.run("systemctl", "show", "--property", "MainPID", "--value", unit).strip()


def test_the_one_who_asks_sees_a_failure(nord: Instance) -> None:
    """Or its silence would mean nothing."""
    with steady(nord) as asked:
        nord.run("systemctl", "restart", f"matrix-synapse@{nord.slug}.service")
    assert asked.failures

    def answers_again() -> bool:
        with steady(nord) as asked:
            eventually(lambda: asked.count > 3)
        return not asked.failures

    eventually(answers_again, seconds=START)


def test_a_restart(atelier: Instance, unseen: Steady) -> None:
    before = main_pid(atelier)
    atelier.run("systemctl", "restart", f"matrix-synapse@{atelier.slug}.service")
    assert main_pid(atelier) != before


def test_a_limit_that_changes_restarts_nobody(as_declared: Instance, unseen: Steady) -> None:
    atelier = as_declared
    before = main_pid(atelier)
    for limit, size in (("3G", 3 * 2**30), ("2048M", 2 * 2**30)):
        said = done(play(atelier, synapse_memory_max=limit))
        assert "changed=0 " not in said, said
        shown = atelier.run("systemctl", "show", "--property=MemoryMax", "--value", "matrix-atelier.slice")
        assert int(shown) == size
    assert main_pid(atelier) == before


def test_wrong_values_are_refused_by_name(atelier: Instance) -> None:
    wrong = {
        "synapse_memory_max": "2 GB",
        "synapse_cpu_quota": "1.5",
        "synapse_cpu_weight": "much",
        "synapse_tasks_max": "1",
    }
    status, said = play(atelier, **wrong)
    assert status != 0
    for variable in wrong:
        assert f"{variable}: " in said
    assert "changed=0 " in said


# A file that Synapse may not write, in its unit: what the rehearsal reads is in order, and Synapse does not start.
UNWRITABLE = """
version: 1
formatters: {plain: {format: "%(message)s"}}
handlers: {file: {class: logging.FileHandler, filename: /srv/journal.log, formatter: plain}}
root: {level: INFO, handlers: [file]}
"""


def test_a_configuration_that_synapse_does_not_start_with_is_put_back(atelier: Instance, unseen: Steady) -> None:
    homeserver = f"/etc/matrix/{atelier.slug}/synapse/homeserver.yaml"
    before = atelier.run("cat", homeserver)
    atelier.run("sh", "-c", f"printf %s '{UNWRITABLE}' > /srv/journal.yaml")
    status, said = play(atelier, synapse_extra_config={"log_config": "/srv/journal.yaml"})
    assert status != 0
    assert "Read-only file system: '/srv/journal.log'" in said
    assert "The previous configuration was put back" in said
    assert atelier.run("cat", homeserver) == before
    assert Api(atelier).request("GET", "/_matrix/client/versions").status_code == 200


def test_a_module_that_cannot_be_imported_changes_nothing(atelier: Instance, unseen: Steady) -> None:
    before = main_pid(atelier)
    modules = {"modules": [{"module": "ldap_auth_provider.LdapAuthProviderModule", "config": {}}]}
    for flags in (["--check"], []):
        status, said = play(atelier, *flags, synapse_extra_config=modules)
        assert status != 0
        assert "ldap_auth_provider.LdapAuthProviderModule cannot be imported" in " ".join(said.split())
        assert "synapse_extra_requirements" in said
        assert "changed=0 " in said
    assert main_pid(atelier) == before


SITES = {
    "sites-enabled/zzz.conf": "server { listen 80; server_name www.other.test\n  matrix.atelier.test; }",
    "conf.d/other.conf": "server { listen 80; server_name .ATELIER.test; }",
}


def test_a_website_of_somebody_else_is_refused_and_stays(atelier: Instance, unseen: Steady) -> None:
    for name, site in SITES.items():
        atelier.run("sh", "-c", f"printf '{site}' > /etc/nginx/{name}")
    status, said = play(atelier)
    atelier.run("sh", "-c", "cd /etc/nginx && rm " + " ".join(SITES))
    assert status != 0
    # As YAML has it.
    found = " ".join(said.split()).replace("''", "'")
    assert (
        "/etc/nginx/sites-enabled/zzz.conf:1: another site of this machine's nginx serves matrix.atelier.test" in found
    )
    assert "/etc/nginx/conf.d/other.conf:1: another site of this machine's nginx serves atelier.test: set" in found
    assert "reverse_proxy_well_known: elsewhere" in found
    assert "changed=0 " in said


def test_another_configuration(as_declared: Instance, unseen: Steady) -> None:
    atelier = as_declared
    before = main_pid(atelier)
    done(play(atelier, synapse_extra_config={"retention": {"enabled": True}}))
    assert main_pid(atelier) != before


def test_a_removal_nobody_confirmed(atelier: Instance, unseen: Steady) -> None:
    before = main_pid(atelier)
    for more in ({}, {"matrix_removal_confirmed": "atelier-nord.test"}):
        status, said = play(atelier, matrix_state="absent", **more)
        assert status != 0
        assert "accounts of people: 1" in said
        assert f"set matrix_removal_confirmed to {atelier.domain}" in said
    said = done(play(atelier, "--check", matrix_state="absent"))
    assert "would be done: drop the database and role matrix_atelier" in said
    assert main_pid(atelier) == before


def test_a_removal_that_is_interrupted(atelier: Instance, nord: Instance, unseen: Steady) -> None:
    sent = secrets.token_hex(8)
    atelier.run(
        "sh", "-c", f"echo {sent} > /var/lib/matrix/atelier/media/sent && echo {sent} > /etc/matrix/atelier/proxy/note"
    )
    bring_one_step(atelier)
    for _ in range(STEPS_ALONE):
        assert one_step(atelier)
    # What is left is none to build upon.
    status, said = play(atelier)
    assert status != 0
    assert "run with matrix_state: absent once more" in " ".join(said.split())
    absent = {"matrix_state": "absent", "matrix_removal_confirmed": atelier.domain}
    done(play(atelier, **absent))
    assert one_step(atelier) == ""
    left = atelier.run(
        "find", "/etc", "/var/lib/matrix", "/run/matrix-synapse", "/var/log/nginx", "/var/www", "/usr/local",
        "-name", "*atelier*", "-not", "-name", "*atelier-nord*", "-not", "-name", "*atelier_nord*",
    )  # fmt: skip
    assert left == ""
    for path in ("/etc/passwd", "/etc/group", "/etc/postgresql/*/main/pg_ident.conf"):
        lines = atelier.run("sh", "-c", f"cat {path}")
        assert "atelier" not in lines.replace("atelier-nord", "").replace("atelier_nord", "")
    postgres = ("runuser", "--user=postgres", "--", "psql", "-d", "postgres", "-Atc")
    names = atelier.run(*postgres, "SELECT datname FROM pg_database UNION ALL SELECT rolname FROM pg_roles").split()
    assert sorted(name for name in names if name.startswith("matrix_")) == [
        "matrix_atelier_nord", "matrix_atelier_nord", "matrix_instances",
    ]  # fmt: skip

    # The newest: whoever works on these tests runs them again on the same machine.
    kept = atelier.run("sh", "-c", "echo /var/backups/matrix/atelier/removed-*").split()[-1]
    assert atelier.run("stat", "--format", "%U %a", kept).split() == ["root", "700"]
    assert atelier.run("cat", f"{kept}/data/media/sent", f"{kept}/configuration/proxy/note").split() == [sent, sent]
    assert json.loads(atelier.run("cat", f"{kept}/removal.json"))["lost"]["people"] == 1
    assert "TABLE DATA public events" in atelier.run("pg_restore", "--list", f"{kept}/database.dump")
    atelier.run("test", "-s", f"{kept}/configuration/secrets/signing.key")

    assert "changed=0 " in done(play(atelier, **absent))


def test_both_at_once(removed: Instance, nord: Instance) -> None:
    """Two inventories, two processes, one machine, and everything of one of them to be made anew."""
    # Another value each time: there is something to change whatever was before.
    other = {"retention": {"enabled": True, "purge_jobs": [{"interval": f"{secrets.randbelow(1000) + 1}h"}]}}

    def both_run() -> list[str]:
        runs = [begin(removed), begin(nord, synapse_extra_config=other)]
        return [done(run.finish()) for run in runs]

    for said in both_run():
        assert "changed=0 " not in said
        assert "[WARNING]" not in said
    for instance in (removed, nord):
        assert Api(instance).request("GET", "/_matrix/client/versions").status_code == 200
    for said in both_run():
        assert "changed=0 " in said


def test_a_removal_that_is_interrupted_after_each_step(atelier: Instance, unseen: Steady) -> None:
    bring_one_step(atelier)
    steps = []
    while step := one_step(atelier):
        steps.append(step)
        assert len(steps) < 30
    assert steps[-2:] == ["remove the owner marker", "close the record"]
    assert len(set(steps)) == len(steps)
    assert "changed=0 " in done(play(atelier, matrix_state="absent", matrix_removal_confirmed=atelier.domain))
