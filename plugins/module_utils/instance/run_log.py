# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What was run on an instance, and when, in a file on its machine: a line when a run begins, another when it has ended.

A run that failed or was killed leaves the first line alone. Nothing secret is ever in there.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import re
import secrets
import time
from pathlib import Path

DIRECTORY = "/var/log/matrix"
# Some thousand runs; the older half goes when it is reached.
LIMIT = 512 * 1024
_UNFIT = re.compile(r"[^\w.,:/@+-]", re.ASCII)


def path(instance: str, directory: str = DIRECTORY) -> Path:
    return Path(directory) / f"{instance}.log"


def new_id() -> str:
    return secrets.token_hex(3)


def line(word: str, run: str = "", **values: object) -> str:
    """One line: the time, what happened, and C(name=value) without spaces in them.

    >>> line("began", "3fa2c1", by="amina k", playbook="")[21:]
    'began run=3fa2c1 by=amina_k'
    """
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    said = {"run": run} | {key: value for key, value in values.items() if value not in ("", None)}
    return " ".join([moment, word, *(f"{key}={_UNFIT.sub('_', str(value))}" for key, value in said.items())])


def write(file: Path, text: str) -> None:
    """Add a line; two runs at once take turns."""
    file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(file, flags, 0o640)
    with os.fdopen(descriptor, "r+b") as log:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with contextlib.suppress(KeyError, PermissionError):
            os.fchown(descriptor, -1, grp.getgrnam("adm").gr_gid)
        if os.fstat(descriptor).st_size > LIMIT:
            kept = log.read()[-LIMIT // 2 :].partition(b"\n")[2]
            os.ftruncate(descriptor, 0)
            log.write(kept)
        log.write(f"{text}\n".encode())
