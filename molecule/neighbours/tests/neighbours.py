# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The two that share a machine, and runs of playbooks on one of them."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import PROJECT, Instance, begin_playbook, finish_playbook, instances
from steady import Steady

# Runs on the machine: the next step of a removal and no more, as if it had been interrupted there.
ONE_STEP = """
import sys
from pathlib import Path
sys.path.insert(0, "/root/removal")
from ansible_collections.cae.matrix.plugins.module_utils.instance.removal import Names, Removal
slug, low = sys.argv[1], sys.argv[1].replace("-", "_")
names = Names(slug, f"{slug}.test", f"matrix-{slug}", f"matrix-synapse@{slug}.service", f"matrix-{low}.slice",
              f"matrix-{slug}", f"matrix_{low}", Path("/etc/matrix", slug), Path("/var/lib/matrix", slug),
              Path("/var/backups/matrix", slug), cluster=sys.argv[2])
removal = Removal(names)
step = next(removal.pending(removal.losses()), None) if removal.there() else None
if step:
    step.do()
    print(step.what)
"""


INSTANCES = {found.slug: found for found in instances()}


def remove(instance: Instance) -> None:
    if instance.machine.file(f"/etc/matrix/{instance.slug}").exists:
        done(play(instance, matrix_state="absent", matrix_removal_confirmed=instance.domain))


@pytest.fixture
def atelier() -> Instance:
    """The one to which things happen: brought up anew where a test before has removed it, or was about to."""
    found = INSTANCES["atelier"]
    if not found.machine.service(f"matrix-synapse@{found.slug}").is_running:
        remove(found)
        done(play(found))
    return found


@pytest.fixture
def as_declared(atelier: Instance) -> Instance:
    """With nothing that a test before has changed in its configuration."""
    homeserver = atelier.run("cat", "/etc/matrix/atelier/synapse/homeserver.yaml")
    if "retention" in homeserver or "max_upload_size: 50M" not in homeserver:
        done(play(atelier))
    return atelier


@pytest.fixture
def removed() -> Instance:
    """The same one, gone."""
    remove(INSTANCES["atelier"])
    return INSTANCES["atelier"]


@pytest.fixture(scope="session")
def nord() -> Instance:
    """The neighbour whose name begins like the other's; nothing takes it away."""
    return INSTANCES["atelier-nord"]


@pytest.fixture
def both(atelier: Instance, nord: Instance) -> dict[str, Instance]:
    return {found.slug: found for found in (atelier, nord)}


def steady(instance: Instance) -> Steady:
    return Steady(instance.base_url, instance.domain, instance.ssl_context())


@dataclass
class Run:
    """A run of the playbook on one instance, as an ops team does it, in a process of its own."""

    process: subprocess.Popen[str]

    def finish(self) -> tuple[int, str]:
        """Its status, and what it said."""
        return finish_playbook(self.process)


def begin(instance: Instance, *arguments: str, **variables: Any) -> Run:
    return Run(begin_playbook("playbooks/cooperative.yml", "--limit", instance.slug, *arguments, **variables))


def play(instance: Instance, *arguments: str, **variables: Any) -> tuple[int, str]:
    return begin(instance, *arguments, **variables).finish()


def done(outcome: tuple[int, str]) -> str:
    """What a run said that went well."""
    status, said = outcome
    assert status == 0, said
    return said


def bring_one_step(instance: Instance) -> None:
    """Put what a removal is made of on the machine, outside of Ansible."""
    target = "/root/removal/ansible_collections/cae/matrix/plugins/module_utils"
    for name in ("host/document_set.py", "instance/removal.py", "instance/run_log.py"):
        instance.run("mkdir", "-p", f"{target}/{Path(name).parent}")
        source = str(PROJECT / "plugins/module_utils" / name)
        subprocess.run(["docker", "cp", source, f"{instance.container}:{target}/{name}"], check=True)


def one_step(instance: Instance) -> str:
    """What the next step of the removal was, or nothing when there is none."""
    cluster = "/".join(instance.run("pg_lsclusters", "--no-header").split()[:2])
    return instance.run("python3", "-c", ONE_STEP, instance.slug, cluster).strip()
