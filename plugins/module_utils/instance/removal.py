# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Take one instance off a machine without its neighbours noticing, and keep what people wrote.

A removal is a row of steps. Each one can tell from the machine alone whether it is still to be done, so that a removal
can be interrupted anywhere and run again; the owner's marker goes last.
"""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.cae.matrix.plugins.module_utils.host.document_set import Transaction, lock, plan
from ansible_collections.cae.matrix.plugins.module_utils.instance import run_log

MARKER = "instance.json"
RECORD = "removal.json"
SCHEMA = "cae.matrix/removal/1"
CERTBOT_PATIENCE = 600.0
# A restored one-time key breaks the encrypted session that was begun with it.
NOT_DUMPED = "e2e_one_time_keys_json"
SERVICE_ACCOUNTS = "^@encryption-gate(-[0-9]+)?:"


class RemovalError(Exception):
    """Something a person has to mend; the message says what, and how."""


@dataclass(frozen=True)
class Names:
    """What the instance is called on the machine.

    C(connection) is how its database is reached if that is external, C(cluster) which cluster of the machine it is in
    otherwise, such as C(15/main); empty if there is none any more.
    """

    instance: str
    domain: str
    user: str
    service: str
    slice: str
    site: str
    database: str
    config_dir: Path
    data_dir: Path
    backup_dir: Path
    connection: Mapping[str, Any] = field(default_factory=dict)
    cluster: str = ""
    root: Path = Path("/")

    def etc(self, *parts: str) -> Path:
        """A path below /etc."""
        return self.root.joinpath("etc", *parts)


@dataclass(frozen=True)
class Step:
    """One step: what it is, whether it is still to be done, and how."""

    what: str
    pending: Callable[[], bool]
    do: Callable[[], None]


def run(*command: str, may_fail: bool = False, given: str = "", **more: Any) -> subprocess.CompletedProcess[str]:
    """The result of a program that is expected to succeed; C(given) is what it reads."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, cwd="/", **more)
    if done.returncode != 0 and not may_fail:
        raise RemovalError(f"`{' '.join(command)}` failed: {(done.stderr or done.stdout).strip()[-600:]}")
    return done


def size_of(path: Path) -> int:
    """Bytes in a tree.

    >>> size_of(Path("/nonexistent"))
    0
    """
    return sum(
        os.lstat(os.path.join(directory, name)).st_size for directory, _, names in os.walk(path) for name in names
    )


def human(size: float) -> str:
    """
    >>> human(3 * 2**20)
    '3.0 MiB'
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def move(source: Path, target: Path) -> None:
    """Move a tree, whole: what was interrupted half-way is done again from a source that is still complete."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.lstat(source).st_dev == os.stat(target.parent).st_dev:
        os.rename(source, _free(target))
    else:
        copy_across(source, target)


def copy_across(source: Path, target: Path) -> None:
    """Move a tree to another file system; the target is there when all of it is, the source goes then."""
    part = target.with_name(target.name + ".part")
    _remove(part)
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, part, symlinks=True)
    else:
        shutil.copy2(source, part, follow_symlinks=False)
    os.sync()
    os.rename(part, _free(target))
    _remove(source)


def _move_all(sources: list[Path], directory: Path) -> None:
    for source in sources:
        move(source, directory / source.name)


def _free(target: Path) -> Path:
    """The target, or where something of that name is kept already (moved, then interrupted), one beside it."""
    number, found = 1, target
    while os.path.lexists(found):
        number += 1
        found = target.with_name(f"{target.name}.{number}")
    return found


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _psql(command: list[str], query: str, values: Mapping[str, str], environment: Mapping[str, str]) -> str:
    options = ["--no-psqlrc", "--tuples-only", "--no-align", "--quiet", "--set=ON_ERROR_STOP=1"]
    options += [f"--set={name}={value}" for name, value in values.items()]
    return run(*command, *options, given=query, env=environment).stdout.strip()


class Database:
    """The instance's database: the machine's own, or somebody else's, which is never dropped."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.external = bool(names.connection)

    def _program(self, program: str) -> tuple[list[str], dict[str, str]]:
        if not self.external:
            return ["runuser", "--user=postgres", "--", program, f"--dbname={self.names.database}"], self._own()
        of = {key: str(value) for key, value in self.names.connection.items()}
        command = [
            program,
            f"--dbname={of['dbname']}",
            f"--host={of['host']}",
            f"--port={of.get('port', '5432')}",
            f"--username={of['user']}",
            "--no-password",
        ]
        given = {"PGSSLMODE": "sslmode", "PGSSLROOTCERT": "sslrootcert", "PGPASSFILE": "passfile"}
        given |= {"PGCONNECT_TIMEOUT": "connect_timeout"}
        return command, dict(os.environ) | {name: of[key] for name, key in given.items() if key in of}

    def _own(self) -> dict[str, str]:
        """The environment in which Debian's client programs use the instance's cluster."""
        ours = {name: value for name, value in os.environ.items() if not re.match("PG[A-Z]", name)}
        return ours | {"PGCLUSTER": self.names.cluster}

    def ask(self, query: str, **values: str) -> str:
        """The one value of a query, asked in the database itself; values stand in it as C(:'name')."""
        command, environment = self._program("psql")
        return _psql(command, query, values, environment)

    def administer(self, query: str) -> str:
        """The one value of a query, or nothing of a statement, of the cluster's owner, outside the database."""
        command = ["runuser", "--user=postgres", "--", "psql", "--dbname=postgres"]
        return _psql(command, query, {"name": self.names.database}, self._own())

    def there(self) -> bool:
        """Whether there is a database or a role, or may be one elsewhere."""
        if self.external:
            return True
        if not self.names.cluster or shutil.which("psql") is None:
            return False
        try:
            return self.administer(COUNT) != "0"
        except RemovalError as error:
            raise RemovalError(
                f"The PostgreSQL cluster {self.names.cluster} cannot be asked for the instance's database: {error}. "
                f"Start it (pg_ctlcluster {self.names.cluster.replace('/', ' ')} start) and run this again"
            ) from error

    def has_data(self) -> bool:
        """Whether it is there and not only its role."""
        return self.external or (self.there() and self.administer(COUNT_DATABASES) == "1")

    def losses(self) -> dict[str, Any]:
        """What the database says would be lost."""
        if not self.has_data():
            return {}
        if not self.ask("SELECT to_regclass('users')"):
            return {"database_bytes": int(self.ask("SELECT pg_database_size(current_database())"))}
        found: dict[str, Any] = json.loads(
            self.ask(LOSSES, ours=SERVICE_ACCOUNTS, people_of_ours=f"%:{self.names.domain}")
        )
        return found

    def dump(self, path: Path) -> None:
        """All of it in PostgreSQL's custom format; there once it is complete, or not at all."""
        part = path.with_name(path.name + ".part")
        command, environment = self._program("pg_dump")
        with open(part, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            done = subprocess.run(
                [*command, "--format=custom", f"--exclude-table-data={NOT_DUMPED}"],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.PIPE,
                env=environment,
                cwd="/",
                check=False,
            )
            file.flush()
            os.fsync(file.fileno())
        if done.returncode != 0:
            part.unlink()
            raise RemovalError(f"The database cannot be dumped: {done.stderr.decode(errors='replace').strip()[-600:]}")
        run("pg_restore", "--list", str(part))
        os.rename(part, path)

    def drop(self) -> None:
        """The machine's own database and its role."""
        if self.has_data():
            self.administer('DROP DATABASE IF EXISTS :"name" WITH (FORCE)')
        self.administer('DROP ROLE IF EXISTS :"name"')


# A database that has come to belong to somebody else is theirs.
COUNT_DATABASES = "SELECT count(*) FROM pg_database WHERE datname = :'name' AND pg_get_userbyid(datdba) = :'name'"
COUNT = """
SELECT (SELECT count(*) FROM pg_database WHERE datname = :'name' AND pg_get_userbyid(datdba) = :'name')
     + (SELECT count(*) FROM pg_roles WHERE rolname = :'name')
"""
# Counted where it lies; what only the gate's own account did is not the people's.
LOSSES = """
SELECT json_build_object(
  'people', (SELECT count(*) FROM users WHERE deactivated = 0 AND name !~ :'ours' AND is_guest = 0),
  'rooms', (SELECT count(DISTINCT room_id) FROM local_current_membership WHERE membership = 'join'
            AND user_id !~ :'ours'),
  'messages', (SELECT count(*) FROM events WHERE type IN ('m.room.message', 'm.room.encrypted')),
  'media', (SELECT count(*) FROM local_media_repository),
  'database_bytes', pg_database_size(current_database()),
  'shared_rooms', (SELECT count(DISTINCT room_id) FROM current_state_events
                   WHERE type = 'm.room.member' AND membership = 'join' AND state_key NOT LIKE :'people_of_ours'),
  'servers', (SELECT coalesce(json_agg(server ORDER BY server), '[]') FROM
              (SELECT DISTINCT substring(state_key from ':(.*)$') AS server FROM current_state_events
               WHERE type = 'm.room.member' AND membership = 'join' AND state_key NOT LIKE :'people_of_ours') AS s)
)
"""


class Removal:
    """The removal of one instance."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.database = Database(names)
        self.notes: list[str] = []
        self.archive, self.record = self._begun()

    # --- what is there ----------------------------------------------------------------------------------------------

    def _begun(self) -> tuple[Path, dict[str, Any]]:
        """The archive and record of a removal that was begun, or new ones."""
        for path in sorted(self.names.backup_dir.glob(f"removed-*/{RECORD}")):
            record = json.loads(path.read_text(encoding="utf-8"))
            if record.get("finished") is None:
                return path.parent, record
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        return self.names.backup_dir / f"removed-{stamp}", {}

    @property
    def begun(self) -> bool:
        """Whether this removal was begun by an earlier run."""
        return bool(self.record)

    def there(self) -> bool:
        """Whether there is an instance, or what a removal that was interrupted has left of one."""
        if self.begun or (self.names.config_dir / MARKER).exists():
            return True
        traces = [
            str(path)
            for path in (
                self.names.config_dir,
                self.names.data_dir,
                self._unit_dir / self.names.slice,
                *self._site_files(),
            )
            if path.exists()
        ]
        if traces:
            raise RemovalError(
                f"{', '.join(traces)} may be of the instance {self.names.instance}, but no owner marker "
                f"({self.names.config_dir / MARKER}) says whose: bring the instance up again if its first run was "
                "interrupted, or put the marker back, and remove it then. Nothing has been changed."
            )
        return False

    def losses(self) -> dict[str, Any]:
        """What people would lose; of a removal that was begun, what was counted then."""
        if self.begun:
            counted: dict[str, Any] = self.record["lost"]
            return counted
        found: dict[str, Any] = {}
        try:
            found = self.database.losses()
        except (RemovalError, OSError) as error:
            if not self.database.external:
                raise
            self.notes.append(f"The external database could not be asked what it holds: {error}.")
        found["media_bytes"] = size_of(self.names.data_dir)
        key = self.names.config_dir / "secrets/signing.key"
        with contextlib.suppress(OSError):
            found["signing_key"] = ":".join(key.read_text(encoding="ascii").split()[:2])
        found["backups"] = sorted(path.name for path in self.names.backup_dir.glob("*"))
        return found

    def lacks(self, lost: Mapping[str, Any]) -> str:
        """Why there is no room for the archive, or nothing."""
        if self.begun:
            return ""
        place = self.names.backup_dir
        while not place.exists():
            place = place.parent
        need = 0 if (self.archive / "database.dump").exists() else int(lost.get("database_bytes", 0))
        for tree in (self.names.data_dir, self.names.config_dir):
            if tree.exists() and os.stat(tree).st_dev != os.stat(place).st_dev:
                need += size_of(tree)
        free = shutil.disk_usage(place).free
        if need <= free:
            return ""
        return (
            f"The archive of what people wrote may need {human(need)} in {self.names.backup_dir}, where "
            f"{human(free)} are free: make room there, or mount another disk on it. Nothing has been changed."
        )

    # --- the steps --------------------------------------------------------------------------------------------------

    def steps(self, lost: Mapping[str, Any]) -> list[Step]:
        """Everything that is to be done, in order."""
        names, archive = self.names, self.archive
        return [
            Step(f"begin the archive {archive}", lambda: not self.begun, lambda: self._begin(lost)),
            Step("take it out of nginx", lambda: any(map(os.path.lexists, self._site_files())), self._leave_nginx),
            Step(f"stop {names.service}", lambda: bool(self._running()), self._stop),
            Step("dump its database", self._dump_pending, self._dump),
            Step(
                f"drop the database and role {names.database}",
                lambda: not self.database.external and self.database.there(),
                self.database.drop,
            ),
            Step("move media and data into the archive", names.data_dir.exists, self._keep_data),
            Step("delete its certificate from certbot", self._lineage().exists, self._delete_lineage),
            Step("take it out of pg_ident.conf", lambda: bool(self._ident_plan().steps), self._leave_ident),
            Step("trust its certificate authorities no longer", lambda: bool(self._cas()), self._distrust),
            Step("remove its units and slice", lambda: bool(self._unit_files()), self._remove_units),
            Step(
                "move its logs and challenges away",
                lambda: bool(self._leftovers()),
                self._keep_logs,
            ),
            Step(
                "move configuration and secrets into the archive",
                lambda: bool(self._configuration()),
                lambda: _move_all(self._configuration(), archive / "configuration"),
            ),
            Step(f"remove the system user {names.user}", self._account_there, self._remove_account),
            Step("remove the owner marker", names.config_dir.exists, self._forget),
            Step("close the record", lambda: self.record.get("finished") is None, self._finish),
        ]

    def pending(self, lost: Mapping[str, Any]) -> Iterator[Step]:
        """The steps that are still to be done, each one asked when its turn has come."""
        for step in self.steps(lost):
            if step.pending():
                yield step

    def _write_record(self) -> None:
        path = self.archive / RECORD
        part = path.with_name(RECORD + ".part")
        part.write_text(json.dumps(self.record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.chmod(part, 0o600)
        os.rename(part, path)

    def _begin(self, lost: Mapping[str, Any]) -> None:
        self.archive.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.record = {
            "schema": SCHEMA,
            "instance": self.names.instance,
            "domain": self.names.domain,
            "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "finished": None,
            "lost": dict(lost),
        }
        self._write_record()

    def _finish(self) -> None:
        _own(self.archive)
        self.record["finished"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._write_record()

    # nginx, first: who asks meanwhile finds nobody rather than an error of ours.

    def _site_files(self) -> list[Path]:
        return [
            self.names.etc("nginx", "sites-enabled", f"{self.names.site}.conf"),
            self.names.etc("nginx", "sites-available", f"{self.names.site}.conf"),
        ]

    def _leave_nginx(self) -> None:
        enabled, available = self._site_files()
        with lock():
            leads_to = os.readlink(enabled) if enabled.is_symlink() else None
            enabled.unlink(missing_ok=True)
            if shutil.which("nginx"):
                judged = run("nginx", "-t", "-q", may_fail=True)
                if judged.returncode != 0:
                    if leads_to is not None:
                        enabled.symlink_to(leads_to)
                    raise RemovalError(
                        f"nginx refuses what would be left of its configuration: {judged.stderr.strip()}. Mend that, "
                        "and run this again; nginx serves what it served."
                    )
                with contextlib.suppress(KeyError):
                    for member in grp.getgrnam(self.names.user).gr_mem:
                        run("gpasswd", "--delete", member, self.names.user)
                if run("systemctl", "is-active", "--quiet", "nginx.service", may_fail=True).returncode == 0:
                    run("systemctl", "reload", "nginx.service")
            if available.exists():
                move(available, self.archive / "nginx" / available.name)

    # Units: those named after the instance, whoever wrote them.

    @property
    def _unit_dir(self) -> Path:
        return self.names.etc("systemd", "system")

    def _unit_files(self) -> list[Path]:
        ours = re.compile(rf"matrix-[a-z0-9-]+@{re.escape(self.names.instance)}\.[a-z]+(\.d)?")
        slices = (self.names.slice, f"{self.names.slice}.d")
        if not self._unit_dir.is_dir():
            return []
        found = [path for path in self._unit_dir.iterdir() if ours.fullmatch(path.name) or path.name in slices]
        return sorted(found + [path for path in self._unit_dir.glob("*.wants/*") if ours.fullmatch(path.name)])

    def _running(self) -> list[str]:
        listed = run("systemctl", "list-units", "--all", "--plain", "--no-legend", f"matrix-*@{self.names.instance}.*")
        active = [words[0] for line in listed.stdout.splitlines() if (words := line.split()) and words[2] != "inactive"]
        enabled = [path.name for path in self._unit_files() if path.parent.suffix == ".wants"]
        return sorted({*active, *enabled}, key=lambda name: (not name.endswith(".timer"), name))

    def _stop(self) -> None:
        for unit in self._running():
            run("systemctl", "disable", "--now", unit)
            run("systemctl", "reset-failed", unit, may_fail=True)

    def _remove_units(self) -> None:
        run("systemctl", "stop", self.names.slice, may_fail=True)
        for path in self._unit_files():
            if path.is_symlink():
                path.unlink()
            else:
                move(path, self.archive / "systemd" / path.name)
        run("systemctl", "daemon-reload")

    # The database.

    @property
    def _dump_file(self) -> Path:
        return self.archive / "database.dump"

    def _dump_pending(self) -> bool:
        if self._dump_file.exists() or (self.archive / "database.not-dumped").exists():
            return False
        return self.database.has_data()

    def _dump(self) -> None:
        try:
            self.database.dump(self._dump_file)
        except (RemovalError, OSError) as error:
            if not self.database.external:
                raise
            # Nobody drops it: it is all still there.
            (self.archive / "database.not-dumped").write_text(f"{error}\n", encoding="utf-8")
            self.notes.append(f"The external database could not be dumped, and is left as it is: {error}")

    def _ident_plan(self) -> Any:
        blocks = [
            {"path": str(path), "name": self.names.instance, "state": "absent", "position": "end", "content": None}
            for path in sorted(self.names.etc("postgresql").glob("*/*/pg_ident.conf"))
        ]
        return plan({"blocks": blocks})

    def _leave_ident(self) -> None:
        with lock():
            Transaction().apply(self._ident_plan().steps, str(self.names.backup_dir), judge=lambda: None, trees=[])
        if self.names.cluster:
            self.database.administer("SELECT pg_reload_conf()")

    # What is left.

    def _keep_data(self) -> None:
        move(self.names.data_dir, self.archive / "data")

    def _lineage(self) -> Path:
        return self.names.etc("letsencrypt", "renewal", f"{self.names.site}.conf")

    def _delete_lineage(self) -> None:
        deadline = time.monotonic() + CERTBOT_PATIENCE
        while True:
            done = run("certbot", "delete", "--non-interactive", "--cert-name", self.names.site, may_fail=True)
            if done.returncode == 0:
                return
            if "Another instance of Certbot" not in done.stderr or time.monotonic() > deadline:
                raise RemovalError(f"certbot cannot delete the certificate {self.names.site}: {done.stderr.strip()}")
            time.sleep(1)

    def _cas(self) -> list[Path]:
        """CA files of the instance: of the slugs on this machine that a name begins with, the longest is its owner."""
        directory = self.names.root / "usr/local/share/ca-certificates"
        slugs = {path.parent.name for path in self.names.etc("matrix").glob(f"*/{MARKER}")} | {self.names.instance}
        found = []
        for path in sorted(directory.glob(f"matrix-{self.names.instance}-*.crt*")):
            owners = [slug for slug in slugs if path.name.startswith(f"matrix-{slug}-")]
            if max(owners, key=len) == self.names.instance:
                found.append(path)
        return found

    def _distrust(self) -> None:
        with lock():
            kept = []
            for path in self._cas():
                target = path if path.suffix == ".removed" else path.with_name(f"{path.name}.removed")
                os.rename(path, target)
                kept.append(target)
            # Debian's program forgets what is gone only when it forgets everything for a moment (--fresh).
            linked = {path.name.removesuffix(".crt.removed") + ".pem" for path in kept}
            for link in self.names.etc("ssl", "certs").iterdir():
                if link.is_symlink() and (link.name in linked or os.readlink(link) in linked):
                    link.unlink()
            run("update-ca-certificates")
            for path in kept:
                move(path, self.archive / "ca-certificates" / path.name.removesuffix(".removed"))

    def _leftovers(self) -> list[Path]:
        root = self.names.root
        found = sorted((root / "var/log/nginx").glob(f"{self.names.site}.*"))
        more = (root / "var/www" / self.names.site, run_log.path(self.names.instance, str(root / "var/log/matrix")))
        return found + [path for path in more if path.exists()]

    def _keep_logs(self) -> None:
        log = run_log.path(self.names.instance, str(self.names.root / "var/log/matrix"))
        if log.exists():
            run_log.write(log, run_log.line("removed", archive=self.archive))
        _move_all(self._leftovers(), self.archive / "logs")

    def _configuration(self) -> list[Path]:
        if not self.names.config_dir.is_dir():
            return []
        return sorted(path for path in self.names.config_dir.iterdir() if path.name != MARKER)

    def _account_there(self) -> bool:
        with contextlib.suppress(KeyError):
            return bool(pwd.getpwnam(self.names.user))
        with contextlib.suppress(KeyError):
            return bool(grp.getgrnam(self.names.user))
        return False

    def _remove_account(self) -> None:
        with contextlib.suppress(KeyError):
            pwd.getpwnam(self.names.user)
            run("userdel", self.names.user)
        with contextlib.suppress(KeyError):
            grp.getgrnam(self.names.user)
            run("groupdel", self.names.user)

    def _forget(self) -> None:
        (self.names.config_dir / MARKER).unlink(missing_ok=True)
        self.names.config_dir.rmdir()


def _own(tree: Path) -> None:
    """The number of a user that is gone is given to somebody else one day."""
    for directory, names, files in os.walk(tree):
        for name in [*names, *files]:
            os.lchown(os.path.join(directory, name), 0, 0)


def report(names: Names, lost: Mapping[str, Any]) -> list[str]:
    """What would be lost, for people."""
    lines = []
    if "people" in lost:
        lines += [
            f"accounts of people: {lost['people']}",
            f"rooms: {lost['rooms']}",
            f"messages: {lost['messages']}",
            f"rooms shared with other servers: {lost['shared_rooms']}"
            + (f" ({', '.join(lost['servers'][:20])})" if lost["servers"] else ""),
        ]
    if "media" in lost:
        lines.append(f"files people sent: {lost['media']}")
    lines.append(f"media and data: {human(lost.get('media_bytes', 0))} in {names.data_dir}")
    if "database_bytes" in lost:
        lines.append(f"database: {human(lost['database_bytes'])}")
    if "signing_key" in lost:
        lines.append(
            f"signing key: {lost['signing_key']}; without it nobody can be {names.domain} again for other servers"
        )
    if lost.get("backups"):
        lines.append(f"kept in {names.backup_dir}, and staying there: {', '.join(lost['backups'])}")
    return lines
