#!/usr/bin/python
# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ask a machine whether an instance may live there."""

from __future__ import annotations

DOCUMENTATION = r"""
module: instance_claim
short_description: Ask a machine whether an instance may live there
version_added: 0.1.0
description:
  - Reads the owner markers C(/etc/matrix/*/instance.json) and C(/etc/os-release) of the machine, and changes nothing.
  - Fails when another cooperative already has the instance's name or its domain on this machine, also one from another
    inventory, and on a distribution that the collection does not support.
  - Returns the few facts about the machine that the roles of this collection need, so that none of them gathers facts.
author:
  - cae.matrix contributors
options:
  instance:
    description: The slug of the instance.
    type: str
    required: true
  domain:
    description: The Matrix domain of the instance.
    type: str
    required: true
  inventory_host:
    description: The inventory host that stands for the instance.
    type: str
    required: true
  state:
    description:
      - V(absent) for an instance that is about to be removed. With V(present), one whose removal was begun and not
        finished is refused.
    type: str
    choices: [present, absent]
    default: present
  markers_dir:
    description: Where the directories of the instances are.
    type: path
    default: /etc/matrix
  backups_dir:
    description: Where the records of removals are.
    type: path
    default: /var/backups/matrix
  os_release:
    description: The file that names the distribution.
    type: path
    default: /etc/os-release
attributes:
  check_mode:
    description: Changes nothing in either mode.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
"""

EXAMPLES = r"""
- name: Check that the machine is ours to use
  cae.matrix.instance_claim:
    instance: atelier
    domain: atelier.example.coop
    inventory_host: atelier
"""

RETURN = r"""
ansible_facts:
  description: Facts about the machine.
  returned: success
  type: dict
  contains:
    cae_matrix_machine:
      description: What the roles of this collection need to know about the machine.
      type: dict
      sample:
        debian: "12"
        memory_mb: 3920
        instances: [atelier]
      contains:
        debian:
          description: The major version of Debian.
          type: str
        memory_mb:
          description: Memory in MiB; what the control group grants, where that is less.
          type: int
        instances:
          description: The instances whose markers are on the machine.
          type: list
          elements: str
"""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

SUPPORTED = {"debian": ("12", "13")}
MARKER = "instance.json"
MIB = 1024 * 1024


def read_os_release(text: str) -> dict[str, str]:
    """The assignments of an os-release file."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith("#"):
            try:
                values[name] = "".join(shlex.split(value))
            except ValueError:
                values[name] = value
    return values


def distribution_problem(release: Mapping[str, str]) -> str | None:
    """Why the collection cannot manage this distribution, or None."""
    supported = SUPPORTED.get(release.get("ID", ""), ())
    if release.get("VERSION_ID", "") in supported:
        return None
    name = release.get("PRETTY_NAME") or release.get("ID") or "an unknown distribution"
    return (
        f"This machine runs {name}; cae.matrix supports Debian 12 and Debian 13. "
        "Point ansible_host at a machine that runs one of them."
    )


def claim_problems(
    instance: str, domain: str, inventory_host: str, markers: Mapping[Path, Mapping[str, Any] | None]
) -> list[str]:
    """Every marker on the machine that contradicts the claim, with cause and mend."""
    found: list[str] = []
    for path, marker in sorted(markers.items()):
        slug = path.parent.name
        if marker is None:
            found.append(
                f"{path} is no owner marker (a JSON object with matrix_domain, inventory_hostname and instance): "
                "restore it from /var/backups/matrix, or remove it if that instance is gone."
            )
            continue
        owner_domain = marker.get("matrix_domain")
        owner_host = marker.get("inventory_hostname")
        if slug == instance and owner_domain != domain:
            found.append(
                f'The instance name "{instance}" belongs to {owner_domain} on this machine ({path}), not to {domain}: '
                "give this inventory host another matrix_instance."
            )
        elif slug == instance and owner_host != inventory_host:
            found.append(
                f'The instance "{instance}" on this machine is managed as inventory host "{owner_host}" ({path}), '
                f'not as "{inventory_host}": give this inventory host another matrix_instance and matrix_domain; '
                "or, if the inventory host was renamed on purpose, write its new name into that file."
            )
        elif slug != instance and owner_domain == domain:
            found.append(
                f'The domain {domain} is already served on this machine by the instance "{slug}" ({path}, inventory '
                f'host "{owner_host}"): set matrix_instance to "{slug}" if it is the same cooperative, '
                "or mend matrix_domain."
            )
    return found


def read_markers(directory: Path) -> dict[Path, Mapping[str, Any] | None]:
    """The markers below a directory; None for one that cannot be understood."""
    markers: dict[Path, Mapping[str, Any] | None] = {}
    for path in sorted(directory.glob(f"*/{MARKER}")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            content = None
        markers[path] = content if isinstance(content, dict) else None
    return markers


def removal_problems(instance: str, backups: Path) -> list[str]:
    """A removal that was interrupted has taken away part of the instance: what is left is none to build upon."""
    found = []
    for path in sorted(backups.glob(f"{instance}/removed-*/removal.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            record = {}
        if record.get("finished") is None:
            found.append(
                f'The removal of the instance "{instance}" was begun and not finished ({path}): run with '
                "matrix_state: absent once more, then bring it up again; what people wrote is kept beside that file."
            )
    return found


def memory_mb(root: Path = Path("/")) -> int:
    """Memory that PostgreSQL may count on, in MiB: the machine's, or what the control group grants if that is less."""
    limits: list[int] = []
    for line in (root / "proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemTotal:"):
            limits.append(int(line.split()[1]) // 1024)
    for name in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            value = (root / name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if value.isdigit():
            limits.append(int(value) // MIB)
    return min(limits)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "instance": {"type": "str", "required": True},
            "domain": {"type": "str", "required": True},
            "inventory_host": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "markers_dir": {"type": "path", "default": "/etc/matrix"},
            "backups_dir": {"type": "path", "default": "/var/backups/matrix"},
            "os_release": {"type": "path", "default": "/etc/os-release"},
        },
        supports_check_mode=True,
    )
    arguments = module.params
    try:
        release = read_os_release(Path(arguments["os_release"]).read_text(encoding="utf-8"))
    except OSError:
        release = {}
    problem = distribution_problem(release)
    if problem:
        module.fail_json(msg=problem)
    try:
        markers = read_markers(Path(arguments["markers_dir"]))
    except OSError as error:
        module.fail_json(
            msg=f"The owner markers of the instances cannot be read: {error}. Run the play with become: true."
        )
    found = claim_problems(arguments["instance"], arguments["domain"], arguments["inventory_host"], markers)
    if arguments["state"] == "present":
        found += removal_problems(arguments["instance"], Path(arguments["backups_dir"]))
    if found:
        module.fail_json(msg=" ".join(found))
    module.exit_json(
        changed=False,
        ansible_facts={
            "cae_matrix_machine": {
                "debian": release["VERSION_ID"],
                "memory_mb": memory_mb(),
                "instances": [path.parent.name for path in markers],
            }
        },
    )


if __name__ == "__main__":
    main()
