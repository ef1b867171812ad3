# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is seen of real clusters of postgresql-common."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.cae.matrix.plugins.module_utils.host import machine_postgresql
from ansible_collections.cae.matrix.plugins.module_utils.host.machine_postgresql import (
    Cluster,
    clusters,
    hindrance,
    listed,
)
from ansible_collections.cae.matrix.plugins.module_utils.host.postgresql_choice import Claim, look
from ansible_collections.cae.matrix.tests.unit.ports import free_port
from ansible_collections.cae.matrix.tests.unit.services import DebianClusters, debian_clusters


@pytest.fixture(scope="module")
def made() -> Iterator[DebianClusters]:
    with debian_clusters() as found:
        yield found


@pytest.fixture(scope="module")
def shared(made: DebianClusters) -> Cluster:
    """One with an instance's database, and somebody else's."""
    port = free_port()
    made.create(port)
    made.sql(
        port,
        "CREATE ROLE matrix_instances",
        "CREATE ROLE matrix_atelier LOGIN IN ROLE matrix_instances",
        "CREATE DATABASE matrix_atelier OWNER matrix_atelier",
        "CREATE DATABASE paie",
        "CREATE ROLE matrix_puissant CREATEDB",
    )
    return next(cluster for cluster in clusters(str(made.confroot)) if cluster.port == port)


def test_what_a_server_says_is_known(made: DebianClusters, shared: Cluster) -> None:
    assert shared.error == ""
    assert (shared.running, shared.recovery, shared.start, shared.owner) == (True, False, "auto", "postgres")
    assert shared.databases == {"matrix_atelier": "matrix_atelier", "paie": "postgres"}
    assert shared.group_members == ["matrix_atelier"]
    assert shared.roles["matrix_instances"] == {"login": False, "powerful": False}
    assert shared.roles["matrix_puissant"]["powerful"]
    assert shared.socket_directory == str(made.place)
    assert shared.hba_file == f"{made.confroot}/{shared.id}/pg_hba.conf"
    assert shared.settings["max_connections"] == 100
    assert shared.settings["shared_buffers"] == 128 * 2**20
    assert not shared.tables


def test_it_is_shared_also_without_a_database_of_theirs(made: DebianClusters) -> None:
    port = free_port()
    made.create(port)
    made.sql(port, "CREATE TABLE notes (text text)")
    found = next(cluster for cluster in clusters(str(made.confroot)) if cluster.port == port)
    assert found.tables
    facts, why = look(Claim("nord", found.id, found.version), [found])
    assert (facts["ours"], why) == (False, "")


def test_one_that_is_stopped_is_known_by_its_files(made: DebianClusters) -> None:
    port = free_port()
    name = made.create(port, False, "--start-conf", "manual")
    found = next(cluster for cluster in clusters(str(made.confroot)) if cluster.id == name)
    assert (found.running, found.start, found.port) == (False, "manual", port)
    assert found.socket_directory == str(made.place)
    assert found.config_file == f"{made.confroot}/{name}/postgresql.conf"


def test_the_port_is_the_one_in_force(made: DebianClusters) -> None:
    """A port that was changed in the file and not put in force reaches nobody."""
    port = free_port()
    name = made.create(port)
    made.run("pg_conftool", *name.split("/"), "set", "port", str(free_port()))
    found = next(cluster for cluster in clusters(str(made.confroot)) if cluster.id == name)
    assert (found.port, found.error) == (port, "")


def test_one_that_lets_nobody_in_says_so(made: DebianClusters) -> None:
    port = free_port()
    name = made.create(port)
    Path(f"{made.confroot}/{name}/pg_hba.conf").write_text("local all all reject\n")
    made.control(name, "reload")
    found = next(cluster for cluster in clusters(str(made.confroot)) if cluster.id == name)
    assert "pg_hba.conf" in found.error
    assert "local all postgres peer" in look(Claim("nord", name, found.version), [found])[1]


def test_a_standby_is_refused(made: DebianClusters) -> None:
    port = free_port()
    name = made.create(port, False)
    (made.place / name.split("/")[1] / "standby.signal").touch()
    made.control(name, "start")
    found = next(cluster for cluster in clusters(str(made.confroot)) if cluster.id == name)
    assert "standby" in look(Claim("nord", name, found.version), [found])[1]


def test_our_line_shuts_nobody_out(made: DebianClusters, shared: Cluster) -> None:
    """It comes first in pg_hba.conf, and is for the instances' roles in the databases of their names only."""
    path = Path(shared.hba_file)
    before = path.read_text()
    line = "local   sameuser  +matrix_instances  peer map=matrix\n"
    path.write_text(line + before)
    made.control(shared.name, "reload")
    try:
        made.sql(shared.port, "CREATE ROLE paie LOGIN", "SELECT 1")
        asked = ["psql", "-qAt", f"--host={made.place}", f"--port={shared.port}", "--command=SELECT 1"]
        assert made.run(*asked, "--username=paie", "--dbname=paie").strip() == "1"
        assert made.run(*asked, "--username=matrix_atelier", "--dbname=paie").strip() == "1"
        with pytest.raises(AssertionError, match=r"[Pp]eer|map"):
            made.run(*asked, "--username=matrix_atelier", "--dbname=matrix_atelier")
    finally:
        path.write_text(before)
        made.control(shared.name, "reload")


LISTED = """\
13 main    5432 down,binaries_missing,auto  postgres  /var/lib/postgresql/13/main /var/log/postgresql/13.log
15 my-coop 5433 online,recovery,patroni,manual <unknown> /srv/data/15 <unknown>
17 main    <unknown> down,disabled postgres <unknown> /var/log/postgresql/17.log
"""


def test_the_list_is_read() -> None:
    first, second, third = listed(LISTED)
    assert (first.id, first.binaries, first.start, first.running) == ("13/main", False, "auto", False)
    assert (second.service, second.running, second.recovery) == ("postgresql@15-my-coop.service", True, True)
    assert (second.start, second.owner, second.data_directory) == ("manual", "<unknown>", "/srv/data/15")
    assert (third.port, third.start) == (0, "disabled")


def test_settings_that_were_written_are_read(tmp_path: Path) -> None:
    path = tmp_path / "cae-matrix.conf"
    assert machine_postgresql.own_settings(path) == {}
    path.write_text("# Written by cae.matrix\nmax_connections = '200'\nlog_line_prefix = 'it''s '\n")
    assert machine_postgresql.own_settings(path) == {"max_connections": "200", "log_line_prefix": "it's "}


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ({}, ""),
        ({"usr/lib/postgresql/15/bin/postgres": ""}, "installed without a cluster"),
        ({"usr/lib/postgresql/17/bin/postgres": ""}, ""),
        ({"etc/postgresql-common/createcluster.conf": "create_main_cluster = false\n"}, "createcluster.conf"),
        ({"etc/postgresql-common/createcluster.conf": "#create_main_cluster = false\n"}, ""),
        ({"var/run/postgresql/.s.PGSQL.{port}": ""}, ".s.PGSQL"),
    ],
)
def test_why_a_package_brings_no_cluster(tmp_path: Path, files: dict[str, str], word: str) -> None:
    port = machine_postgresql.free_port()
    for name, text in files.items():
        path = tmp_path / name.format(port=port)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    why = hindrance("15", [], tmp_path)
    assert bool(why) is bool(word)
    assert word in why


@pytest.mark.parametrize("address", ["", "127.0.0.1"])
def test_a_port_that_something_else_has_is_not_the_next(address: str) -> None:
    first = machine_postgresql.free_port()
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((address, first))
        taken.listen(1)
        assert machine_postgresql.free_port() > first
    assert machine_postgresql.free_port([first]) > first
