# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The two that share a machine, and runs of playbooks on one of them."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import EPHEMERAL, Instance, instances
from steady import Steady

PROJECT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def both() -> dict[str, Instance]:
    return {found.slug: found for found in instances()}


@pytest.fixture(scope="session")
def atelier(both: dict[str, Instance]) -> Instance:
    return both["atelier"]


@pytest.fixture(scope="session")
def nord(both: dict[str, Instance]) -> Instance:
    """The neighbour whose name begins like the other's."""
    return both["atelier-nord"]


def steady(instance: Instance) -> Steady:
    return Steady(instance.base_url, instance.domain, instance.ssl_context())


@dataclass
class Run:
    """A run of the playbook on one instance, as an ops team does it, in a process of its own."""

    process: subprocess.Popen[str]

    def finish(self) -> tuple[int, str]:
        """Its status, and what it said."""
        said, _ = self.process.communicate()
        return self.process.returncode, said


def begin(instance: Instance, *arguments: str, **variables: Any) -> Run:
    command = ["ansible-playbook", "-i", str(EPHEMERAL / "inventory"), "--limit", instance.slug, *arguments]
    command += [str(PROJECT / "playbooks/cooperative.yml"), "-e", json.dumps(variables)]
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(EPHEMERAL / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_FORCE_COLOR": "0",
    }
    pipe = subprocess.PIPE
    return Run(
        subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True)
    )


def play(instance: Instance, *arguments: str, **variables: Any) -> tuple[int, str]:
    return begin(instance, *arguments, **variables).finish()
