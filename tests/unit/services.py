# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Programs that unit tests start by themselves, for as long as they need them."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible_collections.cae.matrix.tests.patience import START, eventually, patient
from ansible_collections.cae.matrix.tests.unit.programs import program

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
