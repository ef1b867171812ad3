# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who may live on a machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cae.matrix.plugins.modules import instance_claim
from ansible_collections.cae.matrix.tests.unit.ports import free_port
from ansible_collections.cae.matrix.tests.unit.services import debian_clusters

DEBIAN_12 = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"\n'
UBUNTU = 'PRETTY_NAME="Ubuntu 24.04 LTS"\nID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\n'


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine on which the instance atelier lives."""
    (tmp_path / "os-release").write_text(DEBIAN_12)
    put_marker(tmp_path, "atelier", {"matrix_domain": "atelier.test", "inventory_hostname": "a", "instance": "atelier"})
    return tmp_path


def put_marker(machine: Path, slug: str, content: Any) -> None:
    directory = machine / "matrix" / slug
    directory.mkdir(parents=True)
    (directory / "instance.json").write_text(content if isinstance(content, str) else json.dumps(content))


def claim(
    machine: Path,
    instance: str,
    domain: str,
    host: str,
    environment: dict[str, str] | None = None,
    before_all: str = "",
    **more: Any,
) -> dict[str, Any]:
    """Run the module as Ansible does, check mode on."""
    arguments = {
        "ANSIBLE_MODULE_ARGS": {
            "instance": instance,
            "domain": domain,
            "inventory_host": host,
            "markers_dir": str(machine / "matrix"),
            "os_release": str(machine / "os-release"),
            "backups_dir": str(machine / "backups"),
            "apt_lists_dir": str(machine / "lists"),
            **more,
            "_ansible_check_mode": True,
        }
    }
    before = sorted(machine.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", before_all + RUN, instance_claim.__file__, json.dumps(arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | (environment or {}),
    )
    assert sorted(machine.rglob("*")) == before
    result: dict[str, Any] = json.loads(done.stdout)
    return result


# Newer cores want to know in which form results travel.
RUN = """
import runpy, sys
from ansible.module_utils import basic
basic._ANSIBLE_ARGS = sys.argv[2].encode()
basic._ANSIBLE_PROFILE = "legacy"
runpy.run_path(sys.argv[1], run_name="__main__")
"""


OLD = "import sys; sys.version_info = (3, 9, 18, 'final', 0)\n"


def test_a_python_that_is_too_old_is_named_with_the_variable(machine: Path) -> None:
    found = claim(machine, "atelier", "atelier.test", "a", before_all=OLD)
    assert found["msg"].startswith(f"ansible_python_interpreter: {sys.executable} is Python 3.9, and 3.11 or later")
    (machine / "os-release").write_text(UBUNTU)
    assert "ansible_python_interpreter" not in claim(machine, "atelier", "atelier.test", "a", before_all=OLD)["msg"]


@pytest.mark.parametrize(
    ("instance", "domain", "host"),
    [("atelier", "atelier.test", "a"), ("fabrique", "fabrique.test", "f")],
)
def test_the_owner_and_newcomers_may(machine: Path, instance: str, domain: str, host: str) -> None:
    result = claim(machine, instance, domain, host)
    assert not result.get("failed"), result
    assert result["changed"] is False
    facts = result["ansible_facts"]["cae_matrix_machine"]
    assert facts["debian"] == "12"
    assert facts["memory_mb"] > 0
    assert facts["instances"] == ["atelier"]
    assert facts["postgresql"] == {}
    # The marker of an older version says nothing of people.
    assert facts["people"] == (300 if instance == "atelier" else 600)
    assert facts["queue"] > 0
    assert facts["apt_lists"] is False


def test_a_fresh_image_has_no_lists_of_packages(machine: Path) -> None:
    (machine / "lists/partial").mkdir(parents=True)
    assert claim(machine, "nord", "nord.test", "n")["ansible_facts"]["cae_matrix_machine"]["apt_lists"] is False
    (machine / "lists/archive_debian_dists_bookworm_main_binary-amd64_Packages.lz4").touch()
    assert claim(machine, "nord", "nord.test", "n")["ansible_facts"]["cae_matrix_machine"]["apt_lists"] is True


def test_whoever_is_declared_is_expected(machine: Path) -> None:
    facts = claim(machine, "nord", "nord.test", "n", expected=["nord", "sud"])["ansible_facts"]["cae_matrix_machine"]
    assert facts["expected"] == ["atelier", "nord", "sud"]


def test_the_cluster_is_chosen_and_refused_before_anything_changes(machine: Path) -> None:
    with debian_clusters() as made:
        port = free_port()
        name = made.create(port)
        made.sql(port, "CREATE ROLE matrix_prise", "CREATE DATABASE paie")
        environment = {"PG_CLUSTER_CONF_ROOT": str(made.confroot)}
        given: dict[str, Any] = {"environment": environment, "postgresql": "required"}
        found = claim(machine, "nord", "nord.test", "n", **given)["ansible_facts"]["cae_matrix_machine"]["postgresql"]
        assert (found["cluster"], found["port"]) == (name, port)
        assert (found["ours"], found["foreign"], found["pools"]) == (False, ["paie"], {"atelier": 10})
        refused = claim(machine, "prise", "prise.test", "p", **given)
        assert "a role matrix_prise already" in refused["msg"]
        refused = claim(machine, "nord", "nord.test", "n", **given, postgresql_cluster="9.6/nulle")
        assert "no PostgreSQL cluster 9.6/nulle" in refused["msg"]
        optional = claim(machine, "prise", "prise.test", "p", **given | {"postgresql": "optional"})
        assert not optional.get("failed")


@pytest.mark.parametrize(
    ("instance", "domain", "host", "cause", "mend"),
    [
        # The same inventory host: its domain was changed, and it is not its name that is wrong.
        ("atelier", "autre.test", "a", "was brought up as atelier.test", "Set matrix_domain to atelier.test again"),
        ("atelier", "autre.test", "b", "belongs to atelier.test", "another matrix_instance"),
        ("atelier", "atelier.test", "b", 'managed as inventory host "a"', "write its new name into that file"),
        ("autre", "atelier.test", "a", "already served on this machine by", "matrix_instance to"),
        # From another inventory, too.
        ("autre", "atelier.test", "b", "already served on this machine by", "matrix_instance to"),
    ],
)
def test_somebody_elses_is_refused(machine: Path, instance: str, domain: str, host: str, cause: str, mend: str) -> None:
    result = claim(machine, instance, domain, host)
    assert result["failed"]
    assert cause in result["msg"]
    assert mend in result["msg"]


@pytest.mark.parametrize(("finished", "refused"), [("null", True), ('"2026-11-22T17:00:00Z"', False)])
def test_what_a_removal_has_left_is_none_to_build_upon(machine: Path, finished: str, refused: bool) -> None:
    record = machine / "backups/atelier/removed-20261122T170000Z/removal.json"
    record.parent.mkdir(parents=True)
    record.write_text(f'{{"finished": {finished}}}')
    result = claim(machine, "atelier", "atelier.test", "a")
    assert bool(result.get("failed")) is refused
    assert not refused or "run with matrix_state: absent once more" in result["msg"]
    assert not claim(machine, "atelier", "atelier.test", "a", state="absent").get("failed")


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_a_broken_marker_is_named(machine: Path, content: str) -> None:
    put_marker(machine, "brisee", content)
    result = claim(machine, "atelier", "atelier.test", "a")
    assert result["failed"]
    assert "brisee/instance.json is no owner marker" in result["msg"]


@pytest.mark.parametrize("release", [UBUNTU, DEBIAN_12.replace("12", "11"), 'ID=debian\nPRETTY_NAME="sid"\n', ""])
def test_other_distributions_are_refused(machine: Path, release: str) -> None:
    (machine / "os-release").write_text(release)
    result = claim(machine, "atelier", "atelier.test", "a")
    assert result["failed"]
    assert "supports Debian 12 and Debian 13" in result["msg"]


def test_a_bare_machine_has_no_markers(tmp_path: Path) -> None:
    (tmp_path / "os-release").write_text(DEBIAN_12)
    assert claim(tmp_path, "atelier", "atelier.test", "a")["ansible_facts"]["cae_matrix_machine"]["instances"] == []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 4000),
        ({"sys/fs/cgroup/memory.max": "max\n"}, 4000),
        ({"sys/fs/cgroup/memory.max": "2147483648\n"}, 2048),
        ({"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 4000),
    ],
)
def test_memory_is_what_may_be_used(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    for name, content in {"proc/meminfo": "MemTotal:  4096000 kB\nMemFree: 1 kB\n", **files}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert instance_claim.memory_mb(tmp_path) == expected


DPKG = """\
Package: nginx
Status: install ok installed
Version: 1.22.1-9

Package: certbot
Status: deinstall ok config-files
Version: 2.1.0-4

Package: openssl
Status: install ok unpacked
Version: 3.0.17

Package: acl
Status: install ok installed
Version: 2.3.1-3
"""


def test_packages_are_there_when_dpkg_is_done_with_them(machine: Path) -> None:
    (machine / "status").write_text(DPKG)
    wanted = ["nginx", "certbot", "openssl", "ca-certificates", "nginx=1.22.1-9"]
    asked: dict[str, Any] = {"packages": wanted, "dpkg_status": str(machine / "status")}
    facts = claim(machine, "nord", "nord.test", "n", **asked)["ansible_facts"]["cae_matrix_machine"]
    # A version that is asked for is apt's to judge.
    assert facts["packages"] == ["nginx"]


def test_without_dpkgs_file_nothing_is_there(machine: Path) -> None:
    asked: dict[str, Any] = {"packages": ["nginx"], "dpkg_status": str(machine / "none")}
    facts = claim(machine, "nord", "nord.test", "n", **asked)["ansible_facts"]["cae_matrix_machine"]
    assert facts["packages"] == []


ACCOUNT = """\
import grp, pwd
USERS = {"matrix-nord": pwd.struct_passwd(("matrix-nord", "x", 990, 990, "Matrix instance nord", "/home/n", "/bin/sh"))}
GROUPS = {"matrix-nord": grp.struct_group(("matrix-nord", "x", 990, ["www-data"]))}
pwd.getpwnam, grp.getgrnam = USERS.__getitem__, GROUPS.__getitem__
"""


def test_the_instances_account_is_looked_at(machine: Path) -> None:
    facts = claim(machine, "nord", "nord.test", "n", before_all=ACCOUNT)["ansible_facts"]["cae_matrix_machine"]
    assert facts["account"] == {
        "home": "/home/n",
        "shell": "/bin/sh",
        "comment": "Matrix instance nord",
        "group": ["www-data"],
    }
    facts = claim(machine, "sud", "sud.test", "s")["ansible_facts"]["cae_matrix_machine"]
    assert facts["account"] == {}
