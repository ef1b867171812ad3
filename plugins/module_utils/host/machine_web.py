# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a machine serves already: nginx and its sites, who holds ports 80 and 443, its addresses.

Changes nothing, and decides nothing (C(web_plan) does, on the controller). Used by the module C(instance_claim).
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.cae.matrix.plugins.module_utils.host.nginx_configuration import (
    Configuration,
    Listen,
    claims,
    configuration,
    files_of,
)

PORTS = (80, 443)
# What the collection writes says so; a file without it is somebody else's, whatever its name.
MARK = "Written by cae.matrix"
SHARED = "/etc/nginx/conf.d/cae-matrix.conf"
_SITE = re.compile(r"/etc/nginx/sites-(?:available|enabled)/matrix-([a-z][a-z0-9-]*)\.conf")
_OURS = re.compile(r"/etc/nginx/sites-(?:available|enabled)/matrix-|/etc/matrix/|" + re.escape(SHARED))
# A neighbour whose files are just being written, or taken away, may be half there for a moment.
_SETTLE = 5.0
_TIMEOUT = 60

Run = Callable[[Sequence[str]], "tuple[int, str, str]"]


def run(command: Sequence[str]) -> tuple[int, str, str]:
    """Status, output and errors of a program."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, "", str(error)
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def look(instance: str, names: Sequence[str], root: Path = Path("/"), runner: Run = run) -> dict[str, Any]:
    """Everything that a site of this instance, with these names, has to get along with."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin")
    return {
        "ipv6": ipv6(),
        "addresses": addresses(root),
        "ports": {str(port): holder for port, holder in holders(root, program or "").items()},
        "site": foreign_site(instance, root),
        "nginx": nginx(program, instance, names, runner) if program else {},
    }


# --- nginx ------------------------------------------------------------------------------------------------------


def nginx(program: str, instance: str, names: Sequence[str], runner: Run = run) -> dict[str, Any]:
    """What nginx says of its own configuration."""
    _, _, said = runner([program, "-v"])
    version = re.search(r"nginx/([0-9.]+)", said)
    found: dict[str, Any] = {"version": version.group(1) if version else ""}
    deadline = time.monotonic() + _SETTLE
    while True:
        status, dump, errors = runner([program, "-T", "-q"])
        broken = _reason(errors) if status else ""
        if not _OURS.search(broken) or _own(broken, instance) or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    if broken:
        # What is wrong in files of this instance is put right by this run.
        return found | ({} if _own(broken, instance) else {"broken": broken})
    return found | describe(configuration(dump), instance, names, files_of(dump))


def _reason(errors: str) -> str:
    lines = [re.sub(r"^.*?\[(?:emerg|alert|crit|error)\] (?:\d+#\d+: )?", "", line) for line in errors.splitlines()
             if re.search(r"\[(?:emerg|alert|crit|error)\]", line)]  # fmt: skip
    return lines[0].strip() if lines else errors.strip()[-300:] or "no reason given"


def _own(broken: str, instance: str) -> bool:
    site = rf"/etc/nginx/sites-(?:available|enabled)/matrix-{instance}\.conf"
    return bool(re.search(rf"{site}|/etc/matrix/{instance}/", broken))


def describe(found: Configuration, instance: str, names: Sequence[str], files: Mapping[str, str]) -> dict[str, Any]:
    """What of a configuration touches these names."""
    hostname = socket.gethostname()
    taken: list[dict[str, Any]] = []
    served: set[str] = set()
    alone: list[dict[str, Any]] = []
    for server in found.servers:
        listens = [listen for listen in server.listens if listen.port in PORTS]
        owner = owner_of(listens[0].directive.file, files) if listens else ""
        if owner == instance:
            served.update(name for name in names for word, _ in server.names if word == name)
            continue
        if not owner:
            alone += [_spot(listen) for listen in listens if _shadows(listen)]
        for word, directive in server.names if listens else ():
            for name in names:
                if kind := claims(word, name, hostname):
                    claim = {"name": name, "word": word, "kind": kind}
                    taken.append(claim | {"place": directive.place, "instance": owner})
    buckets = [each for each in found.http if each.name == "server_names_hash_bucket_size" and len(each.words) > 1]
    return {
        "user": found.user,
        "sites": found.reads(f"/etc/nginx/sites-enabled/matrix-{instance}.conf"),
        "shared": found.reads(SHARED),
        "claims": list({(each["name"], each["place"]): each for each in taken}.values()),
        "served": sorted(served),
        "alone": list({each["place"]: each for each in alone}.values()),
        "streams": [_spot(listen) for listen in found.streams if listen.port in PORTS and not _udp(listen)],
        "bucket": [{"size": each.words[1], "place": each.place, "ours": each.file == SHARED} for each in buckets],
    }


def owner_of(file: str, files: Mapping[str, str]) -> str:
    """The instance that a file was written for; empty if it was not written by this collection."""
    named = _SITE.fullmatch(file)
    return named.group(1) if named and MARK in files.get(file, "") else ""


def _spot(listen: Listen) -> dict[str, Any]:
    words = " ".join(listen.directive.words)
    return {"address": listen.address, "port": listen.port, "place": listen.directive.place, "words": words}


def _shadows(listen: Listen) -> bool:
    """Whether a site with C(listen 443) gets nothing there: who comes by that address gets the other one."""
    if "ipv6only=off" in listen.directive.words and not listen.address:
        return True
    try:
        return not ipaddress.ip_address(listen.address).is_loopback
    except ValueError:
        return False


def _udp(listen: Listen) -> bool:
    return "udp" in listen.directive.words


def foreign_site(instance: str, root: Path = Path("/")) -> str:
    """The file that has the name of the instance's site, but was not written by this collection; empty if none has."""
    for directory in ("available", "enabled"):
        path = root / f"etc/nginx/sites-{directory}/matrix-{instance}.conf"
        with contextlib.suppress(OSError):
            if MARK not in path.read_text(encoding="utf-8", errors="replace"):
                return str(path)
    return ""


# --- ports and addresses ----------------------------------------------------------------------------------------


def holders(root: Path, program: str = "") -> dict[int, str]:
    """The program that holds each of the two ports, if it is not this machine's nginx."""
    sockets: dict[str, int] = {}
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (root / "proc/net" / name).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                port = int(fields[1].rsplit(":", 1)[1], 16)
                # 0A is LISTEN.
                if fields[3] == "0A" and port in PORTS:
                    sockets[fields[9]] = port
    found: dict[int, str] = {}
    owners = _owners(root, set(sockets)) if sockets else {}
    for inode, port in sockets.items():
        process = owners.get(inode)
        if process is None:
            found.setdefault(port, "another program")
        elif not _is_nginx(root, process, program):
            found[port] = _program(process)
    return found


def _owners(root: Path, inodes: set[str]) -> dict[str, Path]:
    """One process for each socket."""
    found: dict[str, Path] = {}
    for process in _processes(root):
        if len(found) == len(inodes):
            break
        with contextlib.suppress(OSError):
            for descriptor in os.scandir(process / "fd"):
                with contextlib.suppress(OSError):
                    target = os.readlink(descriptor.path)
                    if target.startswith("socket:[") and target[8:-1] in inodes:
                        found.setdefault(target[8:-1], process)
    return found


def _processes(root: Path) -> Iterator[Path]:
    """The main process comes before those it has started."""
    numbers = [int(entry) for entry in os.listdir(root / "proc") if entry.isdecimal()]
    for number in sorted(numbers):
        yield root / "proc" / str(number)


def _program(process: Path) -> str:
    name = "a program that has just ended"
    with contextlib.suppress(OSError):
        name = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
    container = "" if _same_root(process) else ", in a container"
    return f"{name} (process {process.name}{container})"


def _same_root(process: Path) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samestat(os.stat(process / "root/etc"), os.stat("/etc"))
    return True


def _is_nginx(root: Path, process: Path, program: str) -> bool:
    """Whether it is the nginx whose configuration was read, and not one built by hand, or in a container."""
    if not program or not _same_root(process):
        return False
    with contextlib.suppress(OSError):
        # One that was upgraded under a running process is marked so.
        running = os.readlink(process / "exe").removesuffix(" (deleted)")
        return running == os.path.realpath(program)
    return False


def addresses(root: Path = Path("/")) -> list[str]:
    """The machine's own addresses that others can reach it by."""
    found: set[str] = set()
    last = ""
    with contextlib.suppress(OSError):
        for line in (root / "proc/net/fib_trie").read_text(encoding="ascii").splitlines():
            if "|--" in line:
                last = line.rsplit(" ", 1)[1]
            elif line.strip() == "/32 host LOCAL":
                found.add(last)
    with contextlib.suppress(OSError):
        for line in (root / "proc/net/if_inet6").read_text(encoding="ascii").splitlines():
            found.add(str(ipaddress.IPv6Address(int(line.split()[0], 16))))
    known = [ipaddress.ip_address(each) for each in found]
    return sorted(str(each) for each in known if not each.is_loopback and not each.is_link_local)


def ipv6() -> bool:
    """Whether the kernel gives IPv6 sockets; with C(ipv6.disable=1) a C(listen [::]) keeps nginx from starting."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True
