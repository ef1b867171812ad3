# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Neither can read what is the other's, nor take what it needs."""

from __future__ import annotations

import ssl
import subprocess

import pytest
from ansible_collections.cae.matrix.tests.patience import START, eventually
from conftest import Instance

PAIRS = [("atelier", "atelier-nord"), ("atelier-nord", "atelier")]

# Runs on the machine as one instance: every path of the other that it can open.
OPEN = """
import os, socket, sys
for top in sys.argv[1:]:
    for directory, names, files in os.walk(top):
        for name in files:
            path = os.path.join(directory, name)
            try:
                os.close(os.open(path, os.O_RDONLY))
                print(path)
            except OSError:
                pass
"""
CONNECT = """
import socket, sys
with socket.socket(socket.AF_UNIX) as one:
    one.connect(sys.argv[1])
"""


def attempt(instance: Instance, *command: str) -> subprocess.CompletedProcess[str]:
    """What comes of a command of the instance's own user."""
    argv = ["docker", "exec", instance.container, "runuser", f"--user=matrix-{instance.slug}", "--", *command]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def database(instance: Instance) -> str:
    return "matrix_" + instance.slug.replace("-", "_")


@pytest.fixture(params=PAIRS, ids=lambda pair: f"{pair[0]} looks at {pair[1]}")
def pair(request: pytest.FixtureRequest, both: dict[str, Instance]) -> tuple[Instance, Instance]:
    looking, looked_at = request.param
    return both[looking], both[looked_at]


def test_the_database_is_open_to_its_own_role_only(pair: tuple[Instance, Instance]) -> None:
    own, other = pair
    query = "SELECT count(*) FROM users"
    mine = attempt(own, "psql", "-U", database(own), "-d", database(own), "-Atc", query)
    assert mine.returncode == 0, mine.stderr
    for role, name in (
        (database(own), database(other)),
        (database(other), database(other)),
        ("postgres", database(other)),
        (database(own), "postgres"),
    ):
        for more in ([], ["-h", "127.0.0.1", "-w"]):
            theirs = attempt(own, "psql", "-U", role, "-d", name, *more, "-Atc", query)
            assert theirs.returncode == 2, (role, name, more, theirs.stdout)
            assert "FATAL" in theirs.stderr or "no password supplied" in theirs.stderr


def test_postgresql_itself_keeps_a_role_out_of_the_others_database(pair: tuple[Instance, Instance]) -> None:
    """Also where somebody loosens pg_hba.conf: the role has no right to connect."""
    own, other = pair
    asked = f"SELECT has_database_privilege('{database(own)}', '{database(other)}', 'CONNECT')"
    assert own.run("runuser", "--user=postgres", "--", "psql", "-d", "postgres", "-Atc", asked).strip() == "f"


def test_files_are_out_of_reach(pair: tuple[Instance, Instance]) -> None:
    own, other = pair
    other.run(
        "sh", "-c", f"install -D -o matrix-{other.slug} /dev/null /var/lib/matrix/{other.slug}/media/local_content/a"
    )
    tops = [f"/etc/matrix/{other.slug}", f"/var/lib/matrix/{other.slug}", f"/var/backups/matrix/{other.slug}"]
    found = attempt(own, "python3", "-c", OPEN, *tops)
    assert (found.returncode, found.stdout) == (0, ""), found.stdout + found.stderr
    # The same look finds what is one's own.
    found = attempt(other, "python3", "-c", OPEN, *tops)
    assert f"/etc/matrix/{other.slug}/secrets/signing.key" in found.stdout
    assert f"/var/lib/matrix/{other.slug}/media/local_content/a" in found.stdout


def test_the_socket_is_out_of_reach(pair: tuple[Instance, Instance]) -> None:
    own, other = pair
    assert attempt(own, "python3", "-c", CONNECT, f"/run/matrix-synapse/{own.slug}/client.sock").returncode == 0
    refused = attempt(own, "python3", "-c", CONNECT, f"/run/matrix-synapse/{other.slug}/client.sock")
    assert "PermissionError" in refused.stderr


def test_processes_and_certificates_are_ones_own(both: dict[str, Instance]) -> None:
    seen = set()
    for slug, instance in both.items():
        unit = f"matrix-synapse@{slug}.service"
        pid = instance.run("systemctl", "show", "--property", "MainPID", "--value", unit).strip()
        assert instance.run("ps", "-o", "user:32=", "-p", pid).strip() == f"matrix-{slug}"
        seen.add(ssl.get_server_certificate((instance.matrix_hostname, 443)))
    assert len(seen) == len(both)


def show(instance: Instance, unit: str, *names: str) -> dict[str, str]:
    lines = instance.run("systemctl", "show", *(f"--property={name}" for name in names), unit).splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_each_has_a_slice_of_its_own_that_limits_nobody_else(both: dict[str, Instance]) -> None:
    for slug, instance in both.items():
        name = f"matrix-{slug.replace('-', '_')}.slice"
        service = show(instance, f"matrix-synapse@{slug}.service", "Slice", "ControlGroup")
        # A slice below another's would be limited with it.
        expected = f"/matrix.slice/{name}/matrix-synapse@{slug}.service"
        assert service == {"Slice": name, "ControlGroup": expected}
        limits = {"MemoryHigh": str(1536 * 2**20), "MemoryMax": str(2048 * 2**20), "TasksMax": "512"}
        assert show(instance, name, *limits) == limits


def test_who_takes_too_much_is_ended_and_the_neighbour_is_not(both: dict[str, Instance]) -> None:
    """With the controller that, with cgroup v1, the container's systemd cannot reach by itself."""
    atelier, nord = both["atelier"], both["atelier-nord"]
    controller = "/sys/fs/cgroup/memory"
    atelier.run("sh", "-c", f"test ! -d {controller} || mount -o remount,rw,bind {controller}")
    atelier.run("systemctl", "daemon-reexec")
    before = show(nord, "matrix-synapse@atelier-nord.service", "MainPID", "NRestarts")
    greedy = ["systemd-run", "--wait", "--collect", "--slice=matrix-atelier.slice"]
    greedy += ["--property=OOMScoreAdjust=1000", "python3", "-c", "[bytearray(b'x' * 2**20) for _ in range(3 * 1024)]"]
    done = subprocess.run(["docker", "exec", atelier.container, *greedy], capture_output=True, text=True, check=False)
    assert "status=KILL" in done.stderr, done.stderr
    assert show(nord, "matrix-synapse@atelier-nord.service", "MainPID", "NRestarts") == before
    active = {"ActiveState": "active"}
    eventually(lambda: show(atelier, "matrix-synapse@atelier.service", "ActiveState") == active, seconds=START)
