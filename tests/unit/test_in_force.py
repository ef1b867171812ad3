# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who runs with an older file reads it again, and nobody else: with real processes, and files as runs leave them.

systemd and nginx are real in the scenarios (molecule/neighbours/tests/test_in_force.py).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible_collections.cae.matrix.plugins.module_utils.host import in_force
from ansible_collections.cae.matrix.plugins.module_utils.host.in_force import (
    InForceError,
    Outcome,
    Reader,
    Running,
    enforce,
)
from ansible_collections.cae.matrix.plugins.module_utils.host.in_force_readers import (
    NginxReader,
    PostgresqlReader,
    SynapseReader,
    TrustedCas,
)
from ansible_collections.cae.matrix.tests.patience import eventually
from ansible_collections.cae.matrix.tests.unit import services
from ansible_collections.cae.matrix.tests.unit.programs import program

# Reads its file once, as Synapse does, and says what it has read.
PROGRAM = """
import pathlib, signal, sys
read = pathlib.Path(sys.argv[1])
pathlib.Path(sys.argv[2]).write_text(read.read_text() if read.exists() else "(nothing)")
signal.pause()
"""


class NoUnit(in_force.Unit):
    """Where no systemd runs: a unit whose verbs the test defines."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.properties = {"ActiveState": "active", "UnitFileState": "enabled"}
        self.verbs: list[str] = []

    def _ask(self, name: str, *properties: str) -> dict[str, str]:
        return self.properties

    def do(self, verb: str) -> None:
        self.verbs.append(verb)


class Program(Reader):
    """A process that has read a file."""

    def __init__(self, place: Path) -> None:
        super().__init__("program.service")
        self.place = place
        self.process: subprocess.Popen[bytes] | None = None
        self.file, self.read = place / "etc/read.conf", place / "has-read"
        self.unit: NoUnit = NoUnit("program.service")
        self.unit.do = self.do  # type: ignore[method-assign]
        self.back = 0.0
        self.verbs: list[str] = []
        self.at_start: Callable[[], None] = lambda: None

    def do(self, verb: str) -> None:
        self.verbs.append(verb)
        self.start()

    def start(self) -> None:
        self.stop()
        self.at_start()
        self.read.unlink(missing_ok=True)
        self.started = time.time()
        self.process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(self.file), str(self.read)])
        eventually(lambda: self.read.exists() and self.read.read_text(), "the program has read its file")

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
        self.process = None

    def running(self) -> Running | None:
        return Running(str(self.process.pid), self.started - self.back) if self.process else None

    def files(self) -> set[str]:
        return {str(self.file)}

    def directories(self) -> set[str]:
        return {str(self.file.parent)}

    @property
    def in_force(self) -> str:
        return self.read.read_text()


@pytest.fixture(autouse=True)
def _records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_force, "RECORDS", tmp_path / "records")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Program]:
    found = Program(tmp_path)
    write(found.file, "old")
    # So that it is older than the process, also for a kernel that counts in ticks.
    tick(found.file)
    found.start()
    yield found
    found.stop()


def write(path: Path, text: str) -> None:
    """As runs do: beside it, and then in its place."""
    path.parent.mkdir(exist_ok=True)
    part = path.with_name("part")
    part.write_text(text)
    part.rename(path)


def tick(after: Path) -> None:
    eventually(lambda: time.time() > after.stat().st_ctime + 3 * in_force.TICK, "the clock goes on")


def test_who_has_read_what_is_there_is_left_alone(service: Program) -> None:
    for _ in range(2):
        assert enforce(service) == Outcome("program.service")
    assert service.file.read_text() == "old"
    assert not enforce(service).changed
    assert service.verbs == []


def test_a_run_that_was_interrupted_before_the_restart_is_made_up_for(service: Program) -> None:
    """Whether a run before has seen the process or not."""
    for text, seen in (("new", False), ("newer", True)):
        if seen:
            enforce(service)
        write(service.file, text)
        found = enforce(service)
        assert (found.done, found.because) == (["restarted"], [f"{service.file} is newer"])
        assert service.in_force == text
        assert not enforce(service).changed


def test_check_mode_says_so_and_does_nothing(service: Program) -> None:
    write(service.file, "new")
    found = enforce(service, check_mode=True)
    assert found.done == ["restarted"]
    assert service.verbs == []
    assert not in_force.RECORDS.exists()
    assert enforce(service).done == ["restarted"]


def test_what_does_not_run_is_started(service: Program) -> None:
    service.stop()
    assert enforce(service).done == ["started"]
    assert service.in_force == "old"
    assert not enforce(service).changed


def test_a_file_of_the_same_tick_as_the_start_costs_one_restart_at_most(service: Program) -> None:
    write(service.file, "new")
    service.start()
    done = [enforce(service).changed for _ in range(3)]
    assert done[1:] == [False, False]
    assert service.in_force == "new"


def test_a_clock_that_was_set_back_costs_one_restart_at_most(service: Program) -> None:
    """By then all files seem to be newer than whatever is started."""
    service.back = 3600.0
    assert [enforce(service).changed for _ in range(3)] == [True, False, False]


def test_a_change_is_seen_also_by_a_clock_that_was_set_back(service: Program) -> None:
    enforce(service)
    service.back = -3600.0
    write(service.file, "new")
    assert enforce(service).changed
    assert service.in_force == "new"


def test_who_was_restarted_by_somebody_else_is_left_alone(service: Program) -> None:
    enforce(service)
    write(service.file, "new")
    tick(service.file)
    service.start()
    assert not enforce(service).changed
    # Put back, without a restart.
    write(service.file, "old")
    assert enforce(service).changed
    assert service.in_force == "old"


def test_a_file_that_is_gone_was_read(service: Program) -> None:
    for seen in (False, True):
        if seen:
            enforce(service)
        service.file.unlink()
        assert enforce(service).changed
        assert service.in_force == "(nothing)"
        assert not enforce(service).changed
        write(service.file, "again")
        assert enforce(service).changed


def test_a_link_that_leads_elsewhere_is_another_file(service: Program) -> None:
    """As certbot's live directory, and a venv: what it leads to may be old."""
    old, new = service.place / "1/read.conf", service.place / "2/read.conf"
    for path, text in ((old, "one"), (new, "two")):
        write(path, text)
    live = service.place / "etc/live"
    live.symlink_to(old.parent)
    service.file = live / "read.conf"
    tick(new)
    service.start()
    assert not enforce(service).changed
    write_link(live, new.parent)
    assert f"{live} is newer" in enforce(service).because
    assert service.in_force == "two"


def write_link(path: Path, target: Path) -> None:
    part = path.with_name("part")
    part.symlink_to(target)
    part.rename(path)


def test_what_changes_during_the_restart_is_for_the_next_run(service: Program) -> None:
    write(service.file, "new")
    service.at_start = lambda: write(service.file, "newest")
    assert enforce(service).changed
    service.at_start = lambda: None
    # It may have read it, or not.
    assert [enforce(service).changed for _ in range(2)] == [True, False]


def test_links_in_a_circle_are_no_file(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    found = in_force.signature([str(tmp_path / "one"), str(tmp_path / "none")])
    assert sorted(found) == [str(tmp_path / "one"), str(tmp_path / "two")]


def test_synapse_reads_what_its_configuration_names(tmp_path: Path) -> None:
    config = tmp_path / "etc"
    for path in ("synapse/homeserver.yaml", "log.yaml", "secrets/signing.key", "secrets/pgpass", "attestation.json"):
        (config / path).parent.mkdir(parents=True, exist_ok=True)
        (config / path).write_text("x")
    for name in ("bridge.yaml", "sso"):
        (config / name).write_text("x")
    (config / "synapse/homeserver.yaml").write_text(
        f"log_config: {config}/log.yaml\n"
        f"signing_key_path: '{config}/secrets/signing.key'\n"
        f"app_service_config_files:\n- {config}/bridge.yaml\n"
        f"oidc_providers:\n- idp_id: one\n  client_secret_path: {config}/sso\n"
        f"media_store_path: {config}\npid_file: {config}/log.yaml\n"
        f"database:\n  args:\n    passfile: {config}/secrets/pgpass\n"
        f"modules:\n- config:\n    attestation: {config}/attestation.json\n"
    )
    reader = SynapseReader("x", str(config))
    reader.unit = NoUnit("x")
    expected = ["bridge.yaml", "log.yaml", "secrets/signing.key", "sso", "started-from.json", "synapse/homeserver.yaml"]
    assert sorted(reader.files()) == [f"{config}/{name}" for name in [*expected, "venv"]]


def test_nginx_reads_what_it_lists_and_the_certificates_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("fullchain.pem", "privkey.pem", "ca.pem"):
        (tmp_path / name).write_text("x")
    listed = (
        f"# configuration file {tmp_path}/nginx.conf:\nhttp {{ include sites-enabled/*;\n}}\n"
        f"# configuration file {tmp_path}/sites-enabled/a.conf:\n"
        f'server {{ ssl_certificate {tmp_path}/fullchain.pem; ssl_certificate_key "{tmp_path}/privkey.pem";\n'
        "    proxy_ssl_trusted_certificate ca.pem;\n    ssl_protocols TLSv1.2;\n    root /var/www;\n}\n"
    )
    place = tmp_path / "bin"
    place.mkdir()
    (place / "nginx").write_text(f"#!/bin/sh\ncat <<'END'\n{listed}END\n")
    (place / "nginx").chmod(0o755)
    monkeypatch.setenv("PATH", str(place), prepend=os.pathsep)
    reader = NginxReader()
    expected = ["ca.pem", "fullchain.pem", "nginx.conf", "privkey.pem", "sites-enabled/a.conf"]
    assert sorted(reader.files()) == [f"{tmp_path}/{name}" for name in expected]
    assert reader.directories() == {str(tmp_path), f"{tmp_path}/sites-enabled"}


# --- PostgreSQL -------------------------------------------------------------------------------------------------


class Cluster(PostgresqlReader):
    """One of the test's own, without Debian's wrappers and systemd."""

    def __init__(self, place: Path, may_restart: bool = True) -> None:
        super().__init__("postgresql@15-main.service", may_restart)
        self.place = place
        self.unit = NoUnit(self.unit.name)
        self.unit.do = self.do  # type: ignore[method-assign]
        self.verbs: list[str] = []

    def psql(self) -> tuple[str, ...]:
        return (program("psql", "postgresql-client"), "--host", str(self.place), "--username", "synapse")

    def do(self, verb: str) -> None:
        self.verbs.append(verb)
        if verb == "reload":
            os.kill(int((self.place / "cluster/postmaster.pid").read_text().split()[0]), signal.SIGHUP)
            return
        command = [program("pg_ctl", "postgresql"), "-D", str(self.place / "cluster"), "-w", "-l", "/dev/null", verb]
        subprocess.run(command, check=True, capture_output=True, cwd=self.place, **services.NOBODY)

    def show(self, name: str) -> str:
        shown = subprocess.run(
            [*self.psql(), "-d", "postgres", "-Atc", f"SHOW {name}"], capture_output=True, text=True, check=True
        )
        return shown.stdout.strip()

    def configure(self, text: str) -> None:
        path = self.place / "cluster/conf.d/ours.conf"
        write(path, text)
        path.chmod(0o644)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with services.postgresql() as place:
        found = Cluster(place)
        os.chmod(place, 0o755)
        (place / "cluster/conf.d").mkdir()
        os.chmod(place / "cluster/conf.d", 0o755)
        with (place / "cluster/postgresql.conf").open("a") as file:
            file.write("include_dir 'conf.d'\n")
        found.configure("work_mem = '5MB'\n")
        assert enforce(found).done == ["reloaded"]
        assert not enforce(found).changed
        found.verbs.clear()
        yield found
        found.do("stop")


def test_postgresql_reads_again_what_it_can(cluster: Cluster) -> None:
    cluster.configure("work_mem = '6MB'\n")
    found = enforce(cluster)
    assert found.done == ["reloaded"]
    assert found.because == [f"{cluster.place}/cluster/conf.d/ours.conf is newer"]
    assert cluster.show("work_mem") == "6MB"
    (cluster.place / "cluster/conf.d/ours.conf").unlink()
    assert enforce(cluster).done == ["reloaded"]
    assert cluster.show("work_mem") == "4MB"
    assert not enforce(cluster).changed


def test_who_may_connect_is_read_again(cluster: Cluster) -> None:
    with (cluster.place / "cluster/pg_hba.conf").open("a") as file:
        file.write("# another line\n")
    assert enforce(cluster).done == ["reloaded"]
    assert not enforce(cluster).changed


def test_postgresql_that_is_not_ours_is_not_restarted_and_what_waits_is_named(cluster: Cluster) -> None:
    cluster.may_restart = False
    before = cluster.show("max_connections")
    cluster.configure("max_connections = 77\nwork_mem = '7MB'\n")
    for done in (["reloaded"], []):
        found = enforce(cluster)
        assert found.done == done
        assert "these settings wait: max_connections" in found.warnings[0]
    assert (cluster.show("work_mem"), cluster.show("max_connections")) == ("7MB", before)


def test_a_setting_that_only_a_start_can_change_restarts_it(cluster: Cluster) -> None:
    """Also where somebody has reloaded it since the file was written."""
    cluster.configure("max_connections = 78\n")
    cluster.do("reload")
    eventually(lambda: cluster.show("work_mem") == "4MB", "it is reloaded")
    cluster.verbs.clear()
    assert enforce(cluster, check_mode=True).done == ["restarted"]
    assert cluster.verbs == []
    assert "max_connections has changed, which takes a restart" in enforce(cluster).because
    assert cluster.verbs == ["restart"]
    assert cluster.show("max_connections") == "78"
    assert not enforce(cluster).changed


def test_a_setting_that_postgresql_refuses_is_named(cluster: Cluster) -> None:
    cluster.configure("no_such_setting = 1\n")
    with pytest.raises(InForceError, match=r"ours\.conf:1: unrecognized configuration parameter"):
        enforce(cluster)
    assert cluster.verbs == []


# --- trusted CAs ------------------------------------------------------------------------------------------------


@pytest.fixture
def trusted(tmp_path: Path) -> TrustedCas:
    for name in ("local", "made", "hooks", "debian"):
        (tmp_path / name).mkdir()
    (tmp_path / "conf").write_text("# none of Debian's\n")
    places = {"certsconf": "conf", "certsdir": "debian", "localcertsdir": "local", "etccertsdir": "made"}
    options = places | {"hooksdir": "hooks"}
    given = [word for name, place in options.items() for word in (f"--{name}", f"{tmp_path}/{place}")]
    program("update-ca-certificates", "ca-certificates")
    return TrustedCas(f"{tmp_path}/local", f"{tmp_path}/made", given)


def authority(path: Path, name: str) -> None:
    key = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-keyout",
        "/dev/null",
    ]
    command = [program("openssl", "openssl"), *key, "-subj", f"/CN={name}", "-days", "9", "-out", str(path)]
    subprocess.run(command, check=True, capture_output=True)


def by_hash(cas: TrustedCas) -> set[str]:
    return {os.path.basename(os.path.realpath(path)) for path in cas.made.glob("*.0")}


def test_a_ca_is_trusted_wherever_a_run_was_interrupted(trusted: TrustedCas) -> None:
    assert not trusted.enforce(check_mode=False).changed
    ca = trusted.sources / "matrix-atelier-ca.crt"
    authority(ca, "one")
    assert trusted.enforce(check_mode=True).done == ["update-ca-certificates"]
    assert trusted.enforce(check_mode=False).done == ["update-ca-certificates"]
    assert by_hash(trusted) == {"matrix-atelier-ca.crt"}
    assert not trusted.enforce(check_mode=False).changed
    # Another one by the same name, and the program killed when it had made the links, and not those by hash.
    authority(ca, "two")
    for path in trusted.made.glob("*.0"):
        path.unlink()
    shutil.copy(trusted.bundle, f"{trusted.bundle}.new")
    assert trusted.enforce(check_mode=False).because == [f"{ca} is not trusted yet"]
    assert "matrix-atelier-ca.crt" in by_hash(trusted)
    assert trusted.bundle.read_text().count("BEGIN CERTIFICATE") == 1
    # Gone.
    ca.unlink()
    assert trusted.enforce(check_mode=False).because == [f"{ca} is gone, and still trusted"]
    assert not trusted.enforce(check_mode=False).changed


def test_the_same_ca_of_two_instances_is_trusted_once_and_for_all(trusted: TrustedCas) -> None:
    authority(trusted.sources / "matrix-a-ca.crt", "one")
    shutil.copy(trusted.sources / "matrix-a-ca.crt", trusted.sources / "matrix-b-ca.crt")
    assert [trusted.enforce(check_mode=False).changed for _ in range(2)] == [True, False]
