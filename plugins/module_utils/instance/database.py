# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The role and the database of one instance in the machine's own cluster.

Everything goes through C(runuser) and C(psql): whoever may become root may act as the cluster's owner, whatever
privilege escalation the inventory has (sudo to root only, su, C(ansible_become_user)).
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
# psql's own word for "there is no connection".
NOT_CONNECTED = 2
PRIVILEGES = "NOSUPERUSER NOCREATEDB NOCREATEROLE"

# One row: what is there, and what of it is as it should be.
STATE = """
SELECT row_to_json(found) FROM (
  SELECT current_setting('server_version_num')::int AS server,
         g.oid IS NOT NULL AS group_there, COALESCE(NOT g.rolcanlogin, false) AS group_fine,
         r.oid IS NOT NULL AS role_there,
         COALESCE(r.rolcanlogin AND NOT r.rolsuper AND NOT r.rolcreatedb AND NOT r.rolcreaterole, false) AS role_fine,
         EXISTS (SELECT FROM pg_auth_members m WHERE m.member = r.oid AND m.roleid = g.oid) AS member,
         d.oid IS NOT NULL AS database_there, COALESCE(d.datdba = r.oid, false) AS owned,
         pg_encoding_to_char(d.encoding) AS encoding, d.datcollate AS collate, d.datctype AS ctype,
         NOT EXISTS (SELECT FROM aclexplode(COALESCE(d.datacl, acldefault('d', d.datdba))) a
                     WHERE a.grantee = 0) AS private,
         GREATEST((pg_stat_file(current_setting('hba_file'))).modification,
                  (pg_stat_file(current_setting('ident_file'))).modification) > pg_conf_load_time() AS stale
  FROM (SELECT) AS one
  LEFT JOIN pg_roles g ON g.rolname = '{group}'
  LEFT JOIN pg_roles r ON r.rolname = '{name}'
  LEFT JOIN pg_database d ON d.datname = '{name}'
) AS found
"""


class DatabaseError(Exception):
    """psql failed; the message is its own."""


class NotConnected(DatabaseError):
    """The cluster does not answer."""


@dataclass(frozen=True)
class Cluster:
    """A cluster of this machine, asked over its socket as the user that owns it."""

    owner: str = "postgres"
    port: int = 5432
    socket_directory: str | None = None  # where libpq looks by itself

    def run(self, sql: str, database: str = "postgres") -> str:
        """What psql prints for a statement."""
        command = [
            *("runuser", f"--user={self.owner}", "--", "psql", "--no-psqlrc", "--quiet", "--tuples-only"),
            *("--no-align", "--set=ON_ERROR_STOP=1", f"--port={self.port}"),
            *([f"--host={self.socket_directory}"] if self.socket_directory else []),
            *(f"--dbname={database}", "--file=-"),
        ]
        try:
            done = subprocess.run(command, input=sql, capture_output=True, text=True, check=False, cwd="/")
        except OSError as error:
            raise DatabaseError(str(error)) from error
        if done.returncode:
            words = done.stderr.strip() or f"{' '.join(command)} ended with {done.returncode}"
            raise (NotConnected if done.returncode == NOT_CONNECTED else DatabaseError)(words)
        return done.stdout


def state_of(cluster: Cluster, name: str, group: str) -> dict[str, Any]:
    for one in (name, group):
        if not NAME.fullmatch(one):
            raise DatabaseError(f'"{one}" is no name of a role: small letters, digits and _')
    found: dict[str, Any] = json.loads(cluster.run(STATE.format(name=name, group=group)))
    return found


def usable(state: Mapping[str, Any]) -> bool:
    """Whether Synapse can use the database; one that is not there yet will be."""
    if not state["database_there"]:
        return True
    return bool(state["encoding"] == "UTF8" and state["collate"] == "C" and state["ctype"] == "C")


def steps(state: Mapping[str, Any], name: str, group: str) -> Iterator[tuple[str, str]]:
    """What is missing: in words, and the statement. Each can be repeated, also while another run makes its own."""
    if not state["group_there"]:
        yield f"role {group}", _unless_there(f'CREATE ROLE "{group}" NOLOGIN {PRIVILEGES}')
    elif not state["group_fine"]:
        yield f"role {group}", f'ALTER ROLE "{group}" NOLOGIN {PRIVILEGES}'
    if not state["role_there"]:
        yield f"role {name}", _unless_there(f'CREATE ROLE "{name}" LOGIN {PRIVILEGES}')
    elif not state["role_fine"]:
        yield f"role {name}", f'ALTER ROLE "{name}" LOGIN {PRIVILEGES}'
    if not state["member"]:
        yield f"role {name} in {group}", f'GRANT "{group}" TO "{name}"'
    if not state["database_there"]:
        # A cluster whose default is ICU would make it its own collation's.
        provider = " LOCALE_PROVIDER libc" if state["server"] >= 150000 else ""
        yield (
            f"database {name}",
            f"CREATE DATABASE \"{name}\" OWNER \"{name}\" ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'{provider} "
            "TEMPLATE template0",
        )
    elif not state["owned"]:
        yield f"owner of database {name}", f'ALTER DATABASE "{name}" OWNER TO "{name}"'
    if not state["database_there"] or not state["private"]:
        yield f"database {name} for nobody else", f'REVOKE ALL ON DATABASE "{name}" FROM PUBLIC'


def _unless_there(statement: str) -> str:
    return f"DO $$ BEGIN {statement}; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"


def patiently(action: Callable[[], Any], tries: int = 10, pause: float = 1.0) -> Any:
    """Again, as long as it fails: another run may be making its own, or have PostgreSQL started again."""
    for _ in range(tries - 1):
        try:
            return action()
        except DatabaseError:
            time.sleep(pause)
    return action()


def make(cluster: Cluster, name: str, group: str) -> list[str]:
    """Make what is missing; what was made, in words."""
    made: dict[str, None] = {}

    def attempt() -> None:
        for words, statement in steps(state_of(cluster, name, group), name, group):
            cluster.run(statement)
            made[words] = None

    patiently(attempt)
    return list(made)
