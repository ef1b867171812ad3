# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the instances of a machine need together, and whether the machine has room for it: connections, disk.

Without Ansible.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MARKERS = "etc/matrix/*/instance.json"
NGINX = "etc/nginx/nginx.conf"
NGINX_PID = "run/nginx.pid"
SOMAXCONN = "proc/sys/net/core/somaxconn"
NR_OPEN = "proc/sys/fs/nr_open"
QUEUE = 4096
"""How many can wait at a socket; what Synapse's listen for is in roles/synapse/files/service."""
# Of an instance that an older version of the collection has brought up.
PEOPLE = 300

# Two sessions each, and of each nginx has two connections: one comes in, one goes on to Synapse. A quarter more for
# other servers and pages. One of nginx's processes may get nearly all: the kernel does not share them out evenly.
_PER_PERSON = 2 * 2 * 1.25
_STEP = 1024
FLOOR = 4096
_FILES = 4
_ANY = 1024 * 1024
# Who has this capability (its number is the kernel's) is bound by no limit of its own.
_SYS_RESOURCE = 24
_BOUNDING = re.compile(r"^CapBnd:\s*([0-9a-f]+)$", re.MULTILINE)
_LIMITS = re.compile(r"^Max open files +(?P<soft>\d+) +(?P<hard>\d+)", re.MULTILINE)

_CONNECTIONS = re.compile(r"^(?P<before>[ \t]*worker_connections[ \t]+)(?P<value>\d+)[ \t]*;", re.MULTILINE)
_RLIMIT = re.compile(r"^[ \t]*worker_rlimit_nofile[ \t]+(?P<value>\d+)[ \t]*;", re.MULTILINE)
_EVENTS = re.compile(r"^[ \t]*events[ \t]*\{", re.MULTILINE)
# What we have written, to be told from what somebody else has.
_OURS = re.compile(
    r"^(?P<before>[ \t]*worker_connections[ \t]+)\d+; # cae\.matrix, before: (?P<value>\d+)$", re.MULTILINE
)
_OUR_RLIMIT = re.compile(r"^worker_rlimit_nofile \d+; # cae\.matrix\n", re.MULTILINE)


@dataclass(frozen=True)
class Nginx:
    """What one process of nginx may have open, and what it should.

    `content` is its main file as it would be, `replaces` the SHA-256 of the file that it was made from.
    """

    connections: int
    files: int
    needed_connections: int
    needed_files: int
    content: str = ""
    replaces: str = ""
    problem: str = ""

    @property
    def enough(self) -> bool:
        return self.connections >= self.needed_connections and self.files >= self.needed_connections


@dataclass(frozen=True)
class Disk:
    """A file system that the instances write to; shares in percent of what others than root can have."""

    path: str
    size: int
    free: int
    free_percent: int
    free_inodes_percent: int


def connections(people: int) -> int:
    """Of one process of nginx, so that everybody can be there at once.

    >>> connections(300), connections(1200)
    (4096, 6144)
    """
    return max(FLOOR, -int(-people * _PER_PERSON // _STEP) * _STEP)


def people(declared: Mapping[str, Mapping[str, Any]], instance: str = "", number: int = PEOPLE) -> int:
    """Of all instances on a machine, by their markers; of the one that is asked for, as declared.

    >>> people({"a": {"people": 20}, "b": {}}, "c", 40)
    360
    """
    known = {slug: marker.get("people") for slug, marker in declared.items()}
    if instance:
        known[instance] = number
    return sum(each if isinstance(each, int) and each > 0 else PEOPLE for each in known.values())


def shipped(text: str) -> str:
    """nginx.conf without what we have changed in it."""
    return _OUR_RLIMIT.sub("", _OURS.sub(r"\g<before>\g<value>;", text))


def raised(text: str, wanted: int, files: int) -> str:
    """nginx.conf, as it is shipped, with more connections; empty where there is no place for that."""
    if len(_CONNECTIONS.findall(text)) != 1 or len(_EVENTS.findall(text)) != 1:
        return ""
    text = _CONNECTIONS.sub(rf"\g<before>{wanted}; # cae.matrix, before: \g<value>", text)
    return _EVENTS.sub(lambda found: f"worker_rlimit_nofile {files}; # cae.matrix\n{found[0]}", text)


def nginx(number: int, root: Path = Path("/")) -> Nginx | None:
    """What nginx has room for, and what for so many people; None where there is none."""
    path = root / NGINX
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return None
    wanted, most = connections(number), most_files(root)
    files = min(wanted * _FILES, most)
    asked = _value(_RLIMIT, text, 0)
    # Where nginx asks for more than it may have, it gets nothing of it, and goes on with what it was started with.
    has = asked if 0 < asked <= most else _open_files(root)
    found = Nginx(_value(_CONNECTIONS, text, 512), has, wanted, files)
    if found.enough:
        return found
    original = shipped(text)
    as_shipped = hashlib.md5(original.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()
    content = raised(original, wanted, files) if as_shipped == _conffile_digest(root) else ""
    problem = "" if content else _left_alone(path, number, found)
    if most < wanted:
        problem = _too_few_files(number, wanted, most)
    if content == text:
        content = ""
    replaces = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest() if content else ""
    return Nginx(found.connections, found.files, wanted, files, content, replaces, problem)


def _too_few_files(number: int, wanted: int, most: int) -> str:
    return (
        f"A process of this machine can have {most} files open at most, and nginx's need {wanted}: when the {number} "
        "people of this machine (matrix_people) come at once, some are cut off. Raise that limit where the "
        "machine is started: lxc.prlimit.nofile of an LXC container, --ulimit nofile of a Docker container."
    )


def _left_alone(path: Path, number: int, found: Nginx) -> str:
    return (
        f"{path} is not as Debian ships it, so it is left alone, but nginx's processes have room for "
        f"{found.connections} connections and {found.files} open files each: when the {number} people of this machine "
        "(matrix_people) come at once, some are cut off. "
        f"Write `worker_rlimit_nofile {found.needed_files};` at its top and "
        f"`worker_connections {found.needed_connections};` into its events block, and reload nginx."
    )


def _value(pattern: re.Pattern[str], text: str, otherwise: int) -> int:
    # The last one counts for whoever reads; nginx itself refuses a second.
    values = [int(found["value"]) for found in pattern.finditer(text)]
    return values[-1] if values else otherwise


def _open_files(root: Path) -> int:
    """What nginx was started with, by a drop-in of its unit for example; what systemd gives otherwise."""
    with contextlib.suppress(OSError, IndexError):
        return _limits(root, (root / NGINX_PID).read_text().strip())[0]
    return 1024


def _limits(root: Path, process: str) -> tuple[int, int]:
    """How many files a process may have open, and to how many it can raise that."""
    soft, hard = _LIMITS.findall((root / "proc" / process / "limits").read_text())[0]
    return int(soft), int(hard)


def most_files(root: Path = Path("/")) -> int:
    """How many open files a service of root can give itself: in a container, often what that was started with."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        able = int(_BOUNDING.findall((root / "proc/1/status").read_text())[0], 16) >> _SYS_RESOURCE & 1
        if able:
            return int((root / NR_OPEN).read_text())
        return _limits(root, "1")[1]
    return _ANY


def _conffile_digest(root: Path) -> str:
    """Of nginx.conf as the installed package brought it."""
    asked = ["dpkg-query", f"--admindir={root / 'var/lib/dpkg'}", "--show", "--showformat=${Conffiles}\n"]
    try:
        listed = subprocess.run([*asked, "nginx-common"], capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return ""
    return dict(line.split()[:2] for line in listed.splitlines() if len(line.split()) > 1).get(f"/{NGINX}", "")


def queue(root: Path = Path("/")) -> int:
    """How many the kernel lets wait at a socket, whoever listens."""
    try:
        return int((root / SOMAXCONN).read_text())
    except (OSError, ValueError):
        return QUEUE


def disks(paths: tuple[str, ...]) -> list[Disk]:
    """The file systems that paths are on, each once, by the first of them; a path that is not there is passed over."""
    found: dict[int, Disk] = {}
    for path in paths:
        try:
            device, seen = os.stat(path).st_dev, os.statvfs(path)
        except OSError:
            continue
        # As df(1): what is kept for root is nobody's.
        size = (seen.f_blocks - seen.f_bfree + seen.f_bavail) * seen.f_frsize
        inodes = 100 * seen.f_favail // seen.f_files if seen.f_files else 100
        free = seen.f_bavail * seen.f_frsize
        found.setdefault(device, Disk(path, size, free, 100 * free // size if size else 100, inodes))
    return list(found.values())


def markers(root: Path = Path("/")) -> dict[str, Mapping[str, Any]]:
    """What the instances of a machine declare."""
    found: dict[str, Mapping[str, Any]] = {}
    for path in sorted(root.glob(MARKERS)):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            content = None
        found[path.parent.name] = content if isinstance(content, dict) else {}
    return found
