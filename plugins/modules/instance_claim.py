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
  - With O(playbook), adds a line to the log of runs on the machine, C(/var/log/matrix/<instance>.log), unless the claim
    is refused; M(cae.matrix.run_report) adds the one that says that the run has ended. The log is no part of what is
    declared, and counts as no change.
  - Fails when another cooperative already has the instance's name or its domain on this machine, also one from another
    inventory, and on a distribution that the collection does not support.
  - Chooses the PostgreSQL cluster of the instance (version, name, port), and fails when it is not clear which, when it
    cannot be used, or when it holds a database or role with the instance's names that the instance did not make.
  - Returns the few facts about the machine that the roles of this collection need, so that none of them gathers facts.
    What its web server does already is looked at when O(names) is given; C(nginx -T) says what its configuration is.
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
  people:
    description: For how many people the instance is meant.
    type: int
    default: 300
  state:
    description:
      - V(absent) for an instance that is about to be removed. With V(present), one whose removal was begun and not
        finished is refused.
    type: str
    choices: [present, absent]
    default: present
  postgresql:
    description:
      - Whether the instance's database is in a cluster of this machine. V(required), and one that cannot be used is
        refused; V(optional), and one that can be used is returned; V(unused), and nothing is asked.
    type: str
    choices: [required, optional, unused]
    default: unused
  postgresql_cluster:
    description: The cluster that the inventory names, as C(15/main); empty for the one that is found.
    type: str
    default: ""
  names:
    description: The DNS names that the instance is about to be served under. Empty, the web server is not looked at.
    type: list
    elements: str
    default: []
  expected:
    description: The slugs of the instances that the inventory puts on this machine.
    type: list
    elements: str
    default: []
  packages:
    description: Debian's packages that the roles need. Which of them are installed is in the facts.
    type: list
    elements: str
    default: []
  dpkg_status:
    description: The file in which dpkg keeps what is installed.
    type: path
    default: /var/lib/dpkg/status
  releases_dir:
    description: Where the releases of Synapse are.
    type: path
    default: /opt/matrix/synapse
  markers_dir:
    description: Where the directories of the instances are.
    type: path
    default: /etc/matrix
  backups_dir:
    description: Where the records of removals are.
    type: path
    default: /var/backups/matrix
  apt_lists_dir:
    description: Where apt has its lists of packages.
    type: path
    default: /var/lib/apt/lists
  os_release:
    description: The file that names the distribution.
    type: path
    default: /etc/os-release
  run:
    description: What the log of runs calls this one, if it has been begun already.
    type: str
    default: ""
  playbook:
    description: What is run. Without it, nothing is logged.
    type: str
  operator:
    description: Who runs it. The action knows it.
    type: str
  collection_version:
    description: The version of the collection. The action knows it.
    type: str
  log_dir:
    description: Where the logs of runs are.
    type: path
    default: /var/log/matrix
attributes:
  check_mode:
    description: Logs nothing in check mode; changes nothing else in either.
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
        expected: [atelier, nord]
        memory_limits: {atelier: 2147483648}
        postgresql: {cluster: 15/main, port: 5432, ours: true, foreign: []}
        people: 300
        nginx_is_short: false
        queue: 4096
        run: 3fa2c1
        apt_lists: true
        packages: [ca-certificates, nginx]
        releases: [/opt/matrix/synapse/1.156.0-0123456789ab/.built-for-debian-12]
        account:
          home: /var/lib/matrix/atelier
          shell: /usr/sbin/nologin
          comment: Matrix instance atelier
          group: [www-data]
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
        expected:
          description: The same, and those that the inventory puts there.
          type: list
          elements: str
        memory_limits:
          description: What the instances on the machine may take, in bytes, as their slices say.
          type: dict
        postgresql:
          description:
            - The cluster of the instance, its port, socket, files and service; C(present) is false for one that
              Debian's package is yet to create.
            - C(ours) is true when it holds no databases but those of instances of this machine, C(foreign) names the
              others. Empty when the database is elsewhere.
          type: dict
        web:
          description:
            - What the machine serves already. C(nginx) (empty if there is none), C(ports) held by other programs,
              C(addresses), C(ipv6), and C(site), a file that has the name of the instance's without being it.
          returned: when O(names) is given
          type: dict
        people:
          description: For how many people the instances are meant together, this one included.
          type: int
        nginx_is_short:
          description: Whether nginx, if it is there, has fewer connections than all of them need.
          type: bool
        queue:
          description: How many connections can wait at a socket (C(net.core.somaxconn)).
          type: int
        run:
          description: What the log of runs calls this one; empty if nothing was logged.
          type: str
        packages:
          description: Which of the packages that were asked for are installed.
          type: list
          elements: str
        releases:
          description: The markers of the releases of Synapse that were built completely, each for its Debian.
          type: list
          elements: str
        account:
          description: The instance's user, and who else is in its group; empty where they are not there.
          type: dict
        apt_lists:
          description: Whether apt has lists of packages, which a fresh image has not.
          type: bool
"""

import grp
import json
import pwd
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cae.matrix.plugins.module_utils.host import machine_room, machine_web
from ansible_collections.cae.matrix.plugins.module_utils.host.machine_postgresql import clusters
from ansible_collections.cae.matrix.plugins.module_utils.host.postgresql_choice import Claim, look
from ansible_collections.cae.matrix.plugins.module_utils.instance import run_log
from ansible_collections.cae.matrix.plugins.module_utils.instance.limits import slice_limits

SUPPORTED = {"debian": ("12", "13")}
# That of the oldest Debian; what is imported here needs no more than what that Debian's predecessor has.
PYTHON = (3, 11)
POSTGRESQL = {"12": "15", "13": "17"}
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
        if slug == instance and owner_domain != domain and owner_host == inventory_host:
            found.append(
                f'matrix_domain: the instance "{instance}" of this inventory host was brought up as {owner_domain} '
                f"({path}), not as {domain}; a domain never changes, accounts and rooms carry it. "
                f"Set matrix_domain to {owner_domain} again. For a server of another domain, add an inventory host "
                "with a matrix_instance of its own; to give this one up, run with matrix_state: absent and the "
                "old domain first."
            )
        elif slug == instance and owner_domain != domain:
            found.append(
                f'The instance name "{instance}" belongs to {owner_domain} on this machine ({path}), not to {domain}: '
                "give this inventory host another matrix_instance. Of several inventories given at once, group_vars of "
                "the last one count for all: put what is about one host into its host_vars."
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


def begin(module: AnsibleModule) -> str:
    """Write down that a run begins; the name that the log has for it."""
    arguments = module.params
    run = run_log.new_id()
    said = {"playbook": arguments["playbook"], "version": arguments["collection_version"], "by": arguments["operator"]}
    try:
        run_log.write(run_log.path(arguments["instance"], arguments["log_dir"]), run_log.line("began", run, **said))
    except OSError as error:
        module.warn(f"That this run begins could not be written down: {error}")
        return ""
    return run


def installed(names: Iterable[str], status: Path) -> list[str]:
    """Those of the packages that are installed, completely."""
    try:
        text = status.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    complete = {
        line.partition(" ")[2]
        for entry in text.split("\n\n")
        if "\nStatus: install ok installed\n" in entry
        for line in entry.splitlines()[:1]
    }
    return sorted(complete.intersection(names))


def account(name: str) -> dict[str, Any]:
    """What the machine's user and group of that name are; empty where one of them is not there."""
    try:
        user, group = pwd.getpwnam(name), grp.getgrnam(name)
    except KeyError:
        return {}
    return {"home": user.pw_dir, "shell": user.pw_shell, "comment": user.pw_gecos, "group": sorted(group.gr_mem)}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "instance": {"type": "str", "required": True},
            "domain": {"type": "str", "required": True},
            "inventory_host": {"type": "str", "required": True},
            "people": {"type": "int", "default": 300},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "postgresql": {"type": "str", "choices": ["required", "optional", "unused"], "default": "unused"},
            "postgresql_cluster": {"type": "str", "default": ""},
            "expected": {"type": "list", "elements": "str", "default": []},
            "names": {"type": "list", "elements": "str", "default": []},
            "packages": {"type": "list", "elements": "str", "default": []},
            "dpkg_status": {"type": "path", "default": "/var/lib/dpkg/status"},
            "releases_dir": {"type": "path", "default": "/opt/matrix/synapse"},
            "markers_dir": {"type": "path", "default": "/etc/matrix"},
            "backups_dir": {"type": "path", "default": "/var/backups/matrix"},
            "apt_lists_dir": {"type": "path", "default": "/var/lib/apt/lists"},
            "os_release": {"type": "path", "default": "/etc/os-release"},
            "playbook": {"type": "str"},
            "run": {"type": "str", "default": ""},
            "operator": {"type": "str"},
            "collection_version": {"type": "str"},
            "log_dir": {"type": "path", "default": run_log.DIRECTORY},
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
    if sys.version_info < PYTHON:
        running, needed = (".".join(map(str, version)) for version in (sys.version_info[:2], PYTHON))
        module.fail_json(
            msg=f"ansible_python_interpreter: {sys.executable} is Python {running}, and {needed} or later"
            " is needed. Take it out, or set it to /usr/bin/python3, which is Debian's."
        )
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
    slugs = [path.parent.name for path in markers]
    expected = sorted({*slugs, *arguments["expected"]})
    cluster: dict[str, Any] = {}
    if arguments["postgresql"] != "unused":
        claim = Claim(
            arguments["instance"],
            arguments["postgresql_cluster"],
            POSTGRESQL[release["VERSION_ID"]],
            {path.parent.name: marker for path, marker in markers.items() if marker},
        )
        cluster, problem = look(claim, clusters(), expected, arguments["state"] == "absent")
        if problem and arguments["postgresql"] == "required":
            module.fail_json(msg=problem)
    # Of an instance that is gone already, no log is begun again.
    there = arguments["state"] == "present" or any(path.parent.name == arguments["instance"] for path in markers)
    logged = arguments["playbook"] and there and not module.check_mode and not arguments["run"]
    people = machine_room.people(
        {path.parent.name: marker or {} for path, marker in markers.items()}, arguments["instance"], arguments["people"]
    )
    nginx = machine_room.nginx(people)
    facts: dict[str, Any] = {
        "debian": release["VERSION_ID"],
        "memory_mb": memory_mb(),
        "instances": slugs,
        "expected": expected,
        "memory_limits": slice_limits(slugs, Path("/etc/systemd/system")),
        "postgresql": cluster,
        "people": people,
        "nginx_is_short": nginx is not None and not nginx.enough,
        "queue": machine_room.queue(),
        "apt_lists": any(Path(arguments["apt_lists_dir"]).glob("*_Packages*")),
        "packages": installed(arguments["packages"], Path(arguments["dpkg_status"])),
        "releases": sorted(map(str, Path(arguments["releases_dir"]).glob("*/.built-for-debian-*"))),
        "account": account(f"matrix-{arguments['instance']}"),
        "run": begin(module) if logged else arguments["run"],
    }
    if arguments["names"] and arguments["state"] == "present":
        facts["web"] = machine_web.look(arguments["instance"], list(dict.fromkeys(arguments["names"])))
    module.exit_json(changed=False, ansible_facts={"cae_matrix_machine": facts})


if __name__ == "__main__":
    main()
