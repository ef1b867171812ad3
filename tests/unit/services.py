# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Programs that unit tests start by themselves, for as long as they need them."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible_collections.cae.matrix.tests.patience import START, eventually, patient
from ansible_collections.cae.matrix.tests.unit.programs import lacking, program

# PostgreSQL does not run as root.
NOBODY: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}


@contextlib.contextmanager
def running(command: list[str], log: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, **options)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(patient(START))


@contextlib.contextmanager
def postgresql() -> Iterator[Path]:
    """A PostgreSQL with a superuser C(synapse); the directory of its socket, which nobody else can enter."""
    postgres, initdb, ready = (program(name, "postgresql") for name in ("postgres", "initdb", "pg_isready"))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        place = Path(name)
        if NOBODY:
            shutil.chown(place, NOBODY["user"])
        cluster = ["-D", str(place / "cluster")]
        done = subprocess.run(
            [initdb, *cluster, "-U", "synapse", "-A", "trust", "-E", "UTF8", "--locale", "C", "-N"],
            capture_output=True,
            text=True,
            check=False,
            cwd=place,
            **NOBODY,
        )
        assert done.returncode == 0, done.stderr
        command = [postgres, *cluster, "-k", name, "-c", "listen_addresses=", "-c", "fsync=off"]
        with running(command, place / "postgres.log", cwd=place, **NOBODY):
            # Its socket is there before it answers.
            asked = [ready, "--quiet", "--host", name]
            eventually(lambda: not subprocess.run(asked, check=False).returncode, "PostgreSQL is up", START)
            yield place


class DebianClusters:
    """Clusters of postgresql-common with a place of their own, which the machine's do not know of."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.confroot = place / "etc"
        self.confroot.mkdir(parents=True)
        place.chmod(0o1777)
        self.version = max(path.parts[-3] for path in Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        self.names: list[str] = []

    def run(self, *command: str) -> str:
        environment = os.environ | {"PG_CLUSTER_CONF_ROOT": str(self.confroot)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", env=environment)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def create(self, port: int, running: bool = True, *more: str) -> str:
        """A cluster, as C(15/name)."""
        # What the machine's own are called must not matter: their names are in /run as well.
        name = f"test-{secrets.token_hex(4)}"
        place = ["--datadir", str(self.place / name), "--socketdir", str(self.place)]
        options = ["--logfile", str(self.place / f"{name}.log"), "--port", str(port), "--pgoption", "fsync=off", *more]
        self.run("pg_createcluster", *place, *options, self.version, name, "--", "--auth=trust", "--no-sync")
        self.names.append(name)
        if running:
            self.control(name, "start")
        return f"{self.version}/{name}"

    def control(self, name: str, *action: str) -> None:
        self.run("pg_ctlcluster", "--skip-systemctl-redirect", self.version, name.split("/")[-1], *action)

    def sql(self, port: int, *statements: str) -> str:
        command = ["psql", "-qAt", f"--host={self.place}", f"--port={port}", "--username=postgres", "--dbname=postgres"]
        return self.run(*command, *(f"--command={statement}" for statement in statements))

    def end(self) -> None:
        for name in self.names:
            # Nobody needs what it holds any more.
            if (self.place / name / "postmaster.pid").exists():
                self.control(name, "stop", "-m", "immediate")
            self.run("pg_dropcluster", self.version, name)
            Path(f"/var/run/postgresql/{self.version}-{name}.pid").unlink(missing_ok=True)


@contextlib.contextmanager
def debian_clusters() -> Iterator[DebianClusters]:
    program("pg_createcluster", "postgresql-common")
    program("postgres", "postgresql")
    if os.geteuid() != 0:
        lacking("not root: only root makes clusters of the user postgres")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        made = DebianClusters(Path(name))
        try:
            yield made
        finally:
            made.end()
