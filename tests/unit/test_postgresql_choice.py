# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which cluster an instance uses, and what is refused before anything changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from ansible_collections.cae.matrix.plugins.module_utils.host.machine_postgresql import Cluster
from ansible_collections.cae.matrix.plugins.module_utils.host.postgresql_choice import (
    Claim,
    choose,
    foreign,
    look,
    problem,
)

OWN = "matrix_atelier"
MARKER: dict[str, Any] = {"matrix_domain": "atelier.test"}
GROUP = {"matrix_instances": {"login": False, "powerful": False}}


def cluster(name: str, port: int = 5432, *databases: str, **more: Any) -> Cluster:
    """A running cluster with databases as we make them."""
    version, short = name.split("/")
    roles = {database: {"login": True, "powerful": False} for database in databases} | GROUP
    given: dict[str, Any] = {
        "running": True,
        "databases": {database: database for database in databases},
        "group_members": [database for database in databases if database.startswith("matrix_")],
        "roles": roles,
        "settings": {"max_connections": 100},
        **more,
    }
    return Cluster(version, short, port, **given)


def claim(wanted: str = "", markers: Mapping[str, Mapping[str, Any]] | None = None, hindrance: str = "") -> Claim:
    return Claim("atelier", wanted, "15", markers or {}, lambda version, found: hindrance)


def chosen(made: Claim, *found: Cluster) -> tuple[str, str]:
    """The cluster, and why it cannot be used."""
    facts, why = look(made, found)
    return facts.get("cluster", ""), why


RECORDED = {"atelier": MARKER | {"postgresql_cluster": "15/main"}}


@pytest.mark.parametrize(
    ("made", "found", "expected"),
    [
        # The only one, whatever its name, port and packager.
        (claim(), [cluster("15/main")], "15/main"),
        (claim(), [cluster("15/main", 5433)], "15/main"),
        (claim(), [cluster("17/coop", 5440)], "17/coop"),
        (claim("17/main"), [cluster("15/main"), cluster("17/main", 5433)], "17/main"),
        # Debian's package is yet to create it.
        (claim(), [], "15/main"),
        (claim("15/main"), [], "15/main"),
        (claim("15/main"), [cluster("17/main")], "15/main"),
        # Old ones that nobody starts do not count.
        (claim(), [cluster("13/main", running=False, start="manual"), cluster("15/main", 5433)], "15/main"),
        (claim(), [cluster("13/main", running=False, binaries=False), cluster("15/main", 5433)], "15/main"),
        (claim(), [cluster("13/main", running=False, binaries=False)], "15/main"),
        # The one that is recorded, also beside the one that an upgrade of Debian brings.
        (claim(markers=RECORDED), [cluster("15/main", 5433, OWN), cluster("17/main", 5432)], "15/main"),
        (claim(markers=RECORDED), [cluster("15/main", running=False), cluster("17/main", 5433)], "15/main"),
        # An installation from before clusters were recorded.
        (claim(markers={"atelier": MARKER}), [cluster("15/main", 5433, OWN), cluster("17/main", 5432)], "15/main"),
        (claim(markers={"atelier": MARKER}), [cluster("15/main", 5433, OWN), cluster("17/main", 5432, OWN)], "17/main"),
        (claim(markers={"atelier": MARKER}), [cluster("15/main", running=False)], "15/main"),
        # Moved, and the old one dropped.
        (claim(markers=RECORDED), [cluster("17/main", 5432, OWN)], "17/main"),
        (
            claim("17/main", RECORDED),
            [cluster("15/main", running=False, start="manual"), cluster("17/main", 5432, OWN)],
            "17/main",
        ),
        # Where the neighbours are.
        (claim(markers={"nord": {"postgresql_cluster": "15/b"}}), [cluster("15/a"), cluster("15/b", 5433)], "15/b"),
        (claim(markers={"nord": {}}), [cluster("15/a"), cluster("15/b", 5433, "matrix_nord")], "15/b"),
        # Before its database was made, it may still go elsewhere.
        (claim("17/main", RECORDED), [cluster("15/main"), cluster("17/main", 5433)], "17/main"),
    ],
)
def test_the_cluster_is_found(made: Claim, found: Sequence[Cluster], expected: str) -> None:
    assert chosen(made, *found) == (expected, "")


@pytest.mark.parametrize(
    ("made", "found", "words"),
    [
        (
            claim(),
            [cluster("15/main", 5433), cluster("15/autre", 5432)],
            ("15/main on port 5433", "set postgresql_cluster"),
        ),
        (claim("main"), [cluster("15/main")], ('"main" is no cluster', '"15/main"')),
        (claim("15-main"), [cluster("15/main")], ("no cluster",)),
        (
            claim("15/autre"),
            [cluster("15/main")],
            ("no PostgreSQL cluster 15/autre", "pg_createcluster 15 autre --start"),
        ),
        (claim("17/main"), [], ("no PostgreSQL cluster 17/main", "pg_lsclusters lists none")),
        (claim(hindrance="it is so"), [], ("no PostgreSQL cluster 15/main", "it is so", "pg_createcluster 15 main")),
        # Its database is elsewhere: an empty one must not be made in its place.
        (
            claim("17/main", RECORDED),
            [cluster("15/main", 5432, OWN), cluster("17/main", 5433)],
            ("is in 15/main", "pg_dump"),
        ),
        (claim("17/main", RECORDED), [cluster("15/main", running=False), cluster("17/main", 5433)], ("is in 15/main",)),
        (claim(markers=RECORDED), [cluster("17/main")], ("15/main, recorded for this instance, is gone", "17/main")),
        (
            claim(markers={"atelier": MARKER}),
            [cluster("15/main", 5433, OWN), cluster("17/main", 5434, OWN)],
            ("several clusters hold a database matrix_atelier",),
        ),
        (
            claim(markers={"nord": {"postgresql_cluster": "15/a"}, "sud": {"postgresql_cluster": "15/b"}}),
            [cluster("15/a"), cluster("15/b", 5433)],
            ("other instances use several clusters", "postgresql_cluster"),
        ),
    ],
)
def test_what_is_not_clear_is_refused(made: Claim, found: Sequence[Cluster], words: Sequence[str]) -> None:
    name, why = chosen(made, *found)
    assert name == ""
    for word in words:
        assert word in why


@pytest.mark.parametrize(
    ("made", "found", "words"),
    [
        (claim(), cluster("15/main", owner="backup"), ("system user backup",)),
        (claim(), cluster("15/main", recovery=True), ("standby", "postgresql_host to its primary")),
        (claim(), cluster("15/main", running=False), ("is stopped", "pg_ctlcluster 15 main start")),
        (claim(markers=RECORDED), cluster("15/main", running=False, start="manual"), ("says manual", "write auto")),
        (claim(markers=RECORDED), cluster("15/main", running=False, binaries=False), ("15 of the cluster",)),
        (claim(), cluster("15/main", error="FATAL: no entry"), ("FATAL: no entry", "local all postgres peer")),
        # What has our names and was not made by us.
        (claim(), cluster("15/main", 5432, OWN), ("a database and a role matrix_atelier", "another matrix_instance")),
        (claim(), cluster("15/main", roles={OWN: {}}), ("a role matrix_atelier already",)),
        (
            claim(markers={"atelier": MARKER}),
            cluster("15/main", 5432, OWN, databases={OWN: "paie"}),
            ("belongs to paie", "was not made by this collection"),
        ),
        (
            claim(markers={"atelier": MARKER}),
            cluster("15/main", 5432, OWN, group_members=[]),
            ("GRANT matrix_instances",),
        ),
        (claim(), cluster("15/main", group_members=["paie"]), ("matrix_instances", "the members paie")),
        (claim(), cluster("15/main", roles={"matrix_instances": {"login": True}}), ("matrix_instances", "can log in")),
        (claim(), cluster("15/main", roles={"matrix_instances": {"powerful": True}}), ("matrix_instances", "rights")),
    ],
)
def test_what_cannot_be_used_is_refused(made: Claim, found: Cluster, words: Sequence[str]) -> None:
    facts, why = look(made, [found])
    assert facts["cluster"] == "15/main"
    for word in words:
        assert word in why


@pytest.mark.parametrize(
    "found",
    [
        # Its owner has been changed since; the marker says that it is ours.
        cluster("15/main", 5432, OWN, databases={OWN: "postgres"}),
        # Not yet made, or on the way.
        cluster("15/main"),
        cluster("15/main", roles={OWN: {}, **GROUP}),
        # A neighbour that is gone, its role is not.
        cluster("15/main", 5432, OWN, group_members=[OWN, "matrix_partie"]),
        # Dead since a moment ago.
        cluster("15/main", running=False),
    ],
)
def test_what_is_recorded_is_ours(found: Cluster) -> None:
    assert chosen(claim(markers=RECORDED), found) == ("15/main", "")


@pytest.mark.parametrize(
    ("found", "strange", "ours"),
    [
        (cluster("15/main"), [], True),
        (cluster("15/main", 5432, OWN, "matrix_nord"), [], True),
        (cluster("15/main", 5432, OWN, "paie"), ["paie"], False),
        # A name like ours is none of ours without a marker.
        (cluster("15/main", 5432, OWN, "matrix_sud"), ["matrix_sud"], False),
        (cluster("15/main", tables=True), ["postgres (it has tables)"], False),
        # Who cannot be asked may hold anything.
        (cluster("15/main", running=False), [], False),
    ],
)
def test_a_cluster_is_ours_when_it_holds_nothing_else(found: Cluster, strange: list[str], ours: bool) -> None:
    facts, why = look(claim(markers={**RECORDED, "nord": {}}), [found])
    assert (facts["foreign"], facts["ours"], why) == (strange, ours, "")
    assert foreign(found, ["atelier", "nord"]) == strange


def test_one_that_is_still_to_be_created_is_ours() -> None:
    facts, _ = look(claim(), [])
    assert (facts["present"], facts["ours"], facts["config_file"]) == (
        False,
        True,
        "/etc/postgresql/15/main/postgresql.conf",
    )


def test_pools_are_those_of_the_same_cluster() -> None:
    markers = {
        **RECORDED,
        "nord": {"postgresql_cluster": "15/main", "postgresql_pool_max": 30},
        "sud": {"postgresql_cluster": "15/b", "postgresql_pool_max": 40},
        "ancien": {},
    }
    facts, _ = look(
        claim(markers=markers), [cluster("15/main"), cluster("15/b", 5433)], ["atelier", "nord", "nouvelle"]
    )
    assert facts["pools"] == {"ancien": 10, "nord": 30, "nouvelle": 10}


@pytest.mark.parametrize(
    ("found", "cluster_id", "refused"),
    [
        ([cluster("15/main", running=False, start="manual")], "15/main", False),
        # Gone with everything in it.
        ([cluster("17/main")], "", False),
        ([], "", False),
    ],
)
def test_a_removal_finds_its_cluster_or_none(found: list[Cluster], cluster_id: str, refused: bool) -> None:
    facts, why = look(claim(markers=RECORDED), found, absent=True)
    assert (facts.get("cluster", ""), bool(why)) == (cluster_id, refused)


def test_a_removal_does_not_guess() -> None:
    several = [cluster("15/a", 5433, OWN), cluster("15/b", 5434, OWN)]
    assert "set postgresql_cluster" in look(claim(markers={"atelier": MARKER}), several, absent=True)[1]
    # Where there is no instance, there is nothing to be asked.
    assert look(claim(), several, absent=True) == ({}, "")


def test_the_choice_is_judged_by_itself() -> None:
    made = claim()
    assert problem(made, choose(made, [cluster("15/main")])) is None
