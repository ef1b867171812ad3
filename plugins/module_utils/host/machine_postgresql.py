# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The PostgreSQL clusters of a machine, as they are. Which of them an instance uses: C(postgresql_choice).

Clusters are those of postgresql-common (C(pg_lsclusters)), whoever packaged the server. Nothing here changes anything.
"""

from __future__ import annotations

import errno
import json
import os
import pwd
import re
import shutil
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OWNER = "postgres"
GROUP = "matrix_instances"
DEFAULT_PORT = 5432
SOCKET_DIRECTORY = "/var/run/postgresql"
BINARIES = "/usr/lib/postgresql"
# The variable is Debian's own.
CONFROOT = os.environ.get("PG_CLUSTER_CONF_ROOT") or "/etc/postgresql"
PATIENCE = 30.0
OWN_SETTINGS = "conf.d/cae-matrix.conf"
# pg_settings counts in these.
UNITS = {"kB": 1024, "8kB": 8192, "MB": 1024**2, "B": 1, None: 1, "": 1}
CREATE_MAIN = re.compile(r"^\s*create_main_cluster\s*=?\s*'?(\w+)'?", re.MULTILINE)
ASSIGNMENT = re.compile(r"^\s*(\w+)\s*=\s*'((?:[^']|'')*)'\s*$", re.MULTILINE)


@dataclass
class Cluster:
    """One cluster. What only a running server tells is empty for one that does not run."""

    version: str
    name: str
    port: int = DEFAULT_PORT
    running: bool = False
    start: str = "auto"
    owner: str = OWNER
    data_directory: str = ""
    present: bool = True
    binaries: bool = True
    recovery: bool = False
    error: str = ""
    socket_directory: str = SOCKET_DIRECTORY
    config_file: str = ""
    hba_file: str = ""
    ident_file: str = ""
    # Their owners by the names of the databases.
    databases: dict[str, str] = field(default_factory=dict)
    # Tables in the database C(postgres): somebody uses the cluster without a database of their own.
    tables: bool = False
    roles: dict[str, dict[str, Any]] = field(default_factory=dict)
    group_members: list[str] = field(default_factory=list)
    settings: dict[str, int] = field(default_factory=dict)
    # What is in our own file of settings.
    written: dict[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """As people name it, C(15/main)."""
        return f"{self.version}/{self.name}"

    @property
    def service(self) -> str:
        """Its systemd unit."""
        return f"postgresql@{self.version}-{self.name}.service"

    def settle(self, confroot: str) -> None:
        """Fill in where its files are, unless the server has said so."""
        directory = f"{confroot}/{self.version}/{self.name}"
        self.config_file = self.config_file or f"{directory}/postgresql.conf"
        self.hba_file = self.hba_file or f"{directory}/pg_hba.conf"
        self.ident_file = self.ident_file or f"{directory}/pg_ident.conf"


# One row of JSON, asked in the database C(postgres). The settings are those that are compared before one is written.
QUERY = """
SELECT json_build_object(
  'recovery', pg_is_in_recovery(),
  'config_file', current_setting('config_file'),
  'hba_file', current_setting('hba_file'),
  'ident_file', current_setting('ident_file'),
  'databases', (SELECT coalesce(json_object_agg(datname, pg_get_userbyid(datdba) ORDER BY datname), '{}')
                FROM pg_database WHERE datname NOT IN ('template0', 'template1', 'postgres')),
  'tables', EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                    WHERE c.relkind IN ('r', 'p') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'),
  'roles', (SELECT coalesce(json_object_agg(rolname, json_build_object(
              'login', rolcanlogin, 'powerful', rolsuper OR rolcreatedb OR rolcreaterole)), '{}')
            FROM pg_roles WHERE rolname ~ '^matrix_'),
  'group_members', (SELECT coalesce(json_agg(r.rolname ORDER BY r.rolname), '[]')
                    FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid JOIN pg_roles r ON r.oid = m.member
                    WHERE g.rolname = 'matrix_instances'),
  'settings', (SELECT json_object_agg(name, json_build_array(setting, unit)) FROM pg_settings
               WHERE name IN ('max_connections', 'shared_buffers', 'effective_cache_size', 'work_mem',
                              'maintenance_work_mem'))
)
"""


def listed(text: str) -> list[Cluster]:
    """The clusters in the output of C(pg_lsclusters --no-header --start-conf).

    >>> listed("15 main 5433 down,manual postgres /var/lib/postgresql/15/main /var/log/x.log")[0].start
    'manual'
    """
    found = []
    for line in text.splitlines():
        columns = line.split(maxsplit=5)
        if len(columns) < 6:
            continue
        version, name, port, status, owner, rest = columns
        state = status.split(",")
        found.append(
            Cluster(
                version=version,
                name=name,
                port=int(port) if port.isdigit() else 0,
                running="online" in state,
                recovery="recovery" in state,
                start=next((word for word in state if word in ("auto", "manual", "disabled")), "auto"),
                binaries="binaries_missing" not in state,
                owner=owner,
                data_directory=rest.rsplit(maxsplit=1)[0],
            )
        )
    return found


def size(value: str, unit: str | None) -> int:
    """A setting as pg_settings has it, in bytes or as a count.

    >>> size("16384", "8kB")
    134217728
    """
    return int(value) * UNITS[unit]


def own_settings(path: Path) -> dict[str, str]:
    """What is in our own file of settings; it is written by us, one quoted value a line."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return {}
    return {name: value.replace("''", "'") for name, value in ASSIGNMENT.findall(text)}


def in_force(cluster: Cluster) -> None:
    """Whether a server runs, its port and its socket, which its files need not say any more."""
    try:
        lines = (Path(cluster.data_directory) / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        cluster.running = Path(f"/proc/{int(lines[0])}/comm").read_text(encoding="utf-8").startswith("postgres")
        cluster.port = int(lines[3])
        _put_socket(cluster, lines[4])
    except (OSError, IndexError, ValueError):
        return


def declared_socket(cluster: Cluster, confroot: str) -> None:
    """The socket that a stopped server will have."""
    _put_socket(
        cluster,
        _debian(confroot, "pg_conftool", "-s", cluster.version, cluster.name, "show", "unix_socket_directories"),
    )


def _put_socket(cluster: Cluster, directories: str) -> None:
    directory = directories.split(",")[0].strip()
    # /run/postgresql is the same place under another name, and no reason to write a file anew.
    if directory and os.path.realpath(directory) != os.path.realpath(SOCKET_DIRECTORY):
        cluster.socket_directory = directory


def _debian(confroot: str, *command: str) -> str:
    """What a program of postgresql-common says."""
    environment = os.environ | {"PG_CLUSTER_CONF_ROOT": confroot, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd="/", env=environment, timeout=PATIENCE
    )
    return done.stdout


def ask(cluster: Cluster) -> None:
    """Complete what is known of a running cluster by what the server says; C(error) if it says nothing."""
    command = [
        f"{BINARIES}/{cluster.version}/bin/psql",
        f"--host={cluster.socket_directory}",
        f"--port={cluster.port}",
        f"--username={cluster.owner}",
        "--dbname=postgres",
        "--no-psqlrc",
        "--no-password",
        "--tuples-only",
        "--no-align",
        f"--command={QUERY}",
    ]
    if pwd.getpwuid(os.geteuid()).pw_name != cluster.owner:
        command = ["runuser", f"--user={cluster.owner}", "--", *command]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    environment |= {"PGCONNECT_TIMEOUT": "10", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd="/", env=environment, timeout=PATIENCE
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        cluster.error = str(error)
        return
    if done.returncode != 0:
        cluster.error = " ".join(done.stderr.split())[-400:] or f"psql ended with {done.returncode}"
        return
    told = json.loads(done.stdout)
    cluster.settings = {name: size(*value) for name, value in told.pop("settings").items()}
    for name, value in told.items():
        setattr(cluster, name, value)


def clusters(confroot: str = CONFROOT) -> list[Cluster]:
    """All clusters of the machine."""
    if shutil.which("pg_lsclusters") is None:
        return []
    found = listed(_debian(confroot, "pg_lsclusters", "--no-header", "--start-conf"))
    for cluster in found:
        in_force(cluster)
        if cluster.running:
            ask(cluster)
        else:
            declared_socket(cluster, confroot)
        cluster.settle(confroot)
        cluster.written = own_settings(Path(cluster.config_file).parent / OWN_SETTINGS)
    return found


def free_port(taken: Sequence[int] = ()) -> int:
    """The port that C(pg_createcluster) would take now: it looks at TCP and at the ports of other clusters."""
    port = DEFAULT_PORT
    while port in taken or not all(_bindable(family, port) for family in (socket.AF_INET, socket.AF_INET6)):
        port += 1
    return port


def _bindable(family: socket.AddressFamily, port: int) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("", port))
            one.listen(0)
    except OSError as error:
        # A machine without IPv6 has nothing there that could be taken.
        return error.errno != errno.EADDRINUSE
    return True


def hindrance(version: str, found: Sequence[Cluster], root: Path = Path("/")) -> str:
    """Why installing Debian's C(postgresql-VERSION) would bring no cluster that runs, or nothing."""
    if (root / f"usr/lib/postgresql/{version}/bin/postgres").exists():
        return f"PostgreSQL {version} is installed without a cluster"
    try:
        text = (root / "etc/postgresql-common/createcluster.conf").read_text(encoding="utf-8")
    except OSError:
        text = ""
    said = CREATE_MAIN.findall(text)
    if said and said[-1].lower() in ("off", "false", "no", "0", "f", "n", "of"):
        return "/etc/postgresql-common/createcluster.conf says that the package creates none"
    port = free_port([cluster.port for cluster in found])
    # A server that listens on a socket only: pg_createcluster does not see it.
    path = root / SOCKET_DIRECTORY.lstrip("/") / f".s.PGSQL.{port}"
    if path.exists():
        return f"a server that postgresql-common does not manage has the socket {path}"
    return ""


def facts(cluster: Cluster) -> dict[str, Any]:
    """What the roles need to know of the cluster that was chosen."""
    return {
        "cluster": cluster.id,
        "version": cluster.version,
        "service": cluster.service,
        "present": cluster.present,
        "running": cluster.running,
        "port": cluster.port,
        "socket_directory": cluster.socket_directory,
        "config_file": cluster.config_file,
        "hba_file": cluster.hba_file,
        "ident_file": cluster.ident_file,
        "settings": cluster.settings,
        "written": cluster.written,
    }
