# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The role and the database of an instance, in a real cluster: root acts as its owner by runuser, and needs no more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from ansible_collections.cae.matrix.plugins.module_utils.instance.database import (
    Cluster,
    DatabaseError,
    NotConnected,
    make,
    state_of,
    steps,
    usable,
)
from ansible_collections.cae.matrix.plugins.modules import instance_database
from ansible_collections.cae.matrix.tests.unit import services
from ansible_collections.cae.matrix.tests.unit.programs import lacking, program

GROUP = "matrix_instances"
CLUSTER = Cluster(owner="nobody")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """A cluster that belongs to nobody; psql finds it by the environment, which runuser hands on."""
    program("psql", "postgresql-client")
    if os.geteuid():
        lacking("only root may use runuser")
    with services.postgresql() as place, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGHOST", str(place))
        patch.setenv("PGUSER", "synapse")
        yield


def missing(name: str, group: str = GROUP) -> list[str]:
    return [words for words, _ in steps(state_of(CLUSTER, name, group), name, group)]


def test_what_is_missing_is_made_and_then_nothing_is() -> None:
    assert make(CLUSTER, "matrix_a", GROUP)[-2:] == ["database matrix_a", "database matrix_a for nobody else"]
    assert make(CLUSTER, "matrix_a", GROUP) == []
    state = state_of(CLUSTER, "matrix_a", GROUP)
    assert usable(state)
    assert state["member"]
    assert state["owned"]
    assert state["private"]
    # One of another name has its own to come, in the group that is there.
    assert missing("matrix_b")[0] == "role matrix_b"


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        ('ALTER ROLE "{0}" SUPERUSER', ["role {0}"]),
        ('ALTER ROLE "{0}" NOLOGIN', ["role {0}"]),
        ('REVOKE matrix_instances FROM "{0}"', ["role {0} in matrix_instances"]),
        ('ALTER DATABASE "{0}" OWNER TO synapse', ["owner of database {0}"]),
        ('GRANT CONNECT ON DATABASE "{0}" TO PUBLIC', ["database {0} for nobody else"]),
        ('DROP DATABASE "{0}"', ["database {0}", "database {0} for nobody else"]),
        ("ALTER ROLE matrix_instances LOGIN", ["role matrix_instances"]),
    ],
)
def test_what_is_not_as_it_should_be_is_mended(harm: str, words: list[str]) -> None:
    name = "matrix_harmed"
    make(CLUSTER, name, GROUP)
    CLUSTER.run(harm.format(name))
    assert missing(name) == [one.format(name) for one in words]
    make(CLUSTER, name, GROUP)
    assert missing(name) == []


def test_several_at_once_do_not_trip_each_other_up() -> None:
    names = [f"matrix_at_once_{number}" for number in range(6)]
    with ThreadPoolExecutor(len(names)) as pool:
        assert all(pool.map(lambda name: make(CLUSTER, name, "matrix_at_once"), names))
    assert [words for name in names for words in missing(name, "matrix_at_once")] == []


def test_a_cluster_that_does_not_answer_is_told_apart() -> None:
    with pytest.raises(NotConnected, match="5999"):
        state_of(Cluster("nobody", 5999), "matrix_a", GROUP)


@pytest.mark.parametrize("name", ['x"; DROP TABLE users; --', "Matrix", "matrix-a", "", "x'"])
def test_only_names_that_need_no_quoting_are_taken(name: str) -> None:
    with pytest.raises(DatabaseError, match="is no name of a role"):
        state_of(CLUSTER, name, GROUP)


def module(name: str, **more: Any) -> dict[str, Any]:
    arguments = {"name": name, "owner": "nobody", "_ansible_check_mode": False, "_ansible_diff": True, **more}
    done = subprocess.run(
        [sys.executable, "-c", RUN, instance_database.__file__, json.dumps({"ANSIBLE_MODULE_ARGS": arguments})],
        capture_output=True,
        text=True,
        check=False,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


RUN = """
import runpy, sys
from ansible.module_utils import basic
basic._ANSIBLE_ARGS, basic._ANSIBLE_PROFILE = sys.argv[2].encode(), "legacy"
runpy.run_path(sys.argv[1], run_name="__main__")
"""


class TestModule:
    def test_says_what_it_makes_and_what_it_would_make(self) -> None:
        would = module("matrix_m", _ansible_check_mode=True)
        assert would["changed"]
        assert "matrix_m" not in CLUSTER.run("SELECT datname FROM pg_database")
        did = module("matrix_m")
        assert did["made"] == would["made"]
        assert did["diff"]["after"].splitlines() == did["made"]
        again = module("matrix_m")
        assert not again["changed"]
        assert again["database"] == {"encoding": "UTF8", "collate": "C", "ctype": "C"}

    def test_leaves_a_database_alone_that_synapse_cannot_use(self) -> None:
        CLUSTER.run("CREATE DATABASE matrix_ascii ENCODING 'SQL_ASCII' TEMPLATE template0")
        result = module("matrix_ascii")
        assert (result["changed"], result["usable"]) == (False, False)
        assert result["database"]["encoding"] == "SQL_ASCII"
        assert "matrix_ascii" not in CLUSTER.run("SELECT rolname FROM pg_roles")

    def test_names_the_cause_when_nothing_answers(self) -> None:
        result = module("matrix_a", port=5999)
        assert result["failed"]
        assert "5999" in result["msg"]
        assert "become: true" in result["msg"]

    def test_would_start_a_cluster_that_does_not_answer(self) -> None:
        result = module("matrix_a", port=5999, service="nothing.service", _ansible_check_mode=True)
        assert result["made"] == ["nothing.service started"]

    def test_says_when_it_cannot_be_started(self) -> None:
        result = module("matrix_a", port=5999, service="no-such-thing.service")
        assert result["failed"]
        assert "could not be" in result["msg"]
