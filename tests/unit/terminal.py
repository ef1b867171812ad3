# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A shell at a terminal, with somebody who types a passphrase when a program asks for one."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
from collections.abc import Mapping
from pathlib import Path

from ansible_collections.cae.matrix.tests.patience import START, patient

_ASKS = re.compile(r"[Vv]ault password[^\n]*: $")


def typed(command: str, place: Path, environment: Mapping[str, str], passphrase: str) -> tuple[int, str]:
    """The exit status, and what was on the screen."""
    child, screen = pty.fork()
    if child == 0:
        os.chdir(place)
        os.execve("/bin/bash", ["bash", "-e", "-c", command], dict(environment))
    shown, answered = "", 0
    while True:
        if not select.select([screen], [], [], patient(START))[0]:
            os.kill(child, signal.SIGKILL)
            shown += "\n(nothing more came)"
            break
        try:
            shown += os.read(screen, 65536).decode(errors="replace")
        except OSError:  # The other end is closed.
            break
        if _ASKS.search(shown[answered:]):
            answered = len(shown)
            os.write(screen, f"{passphrase}\n".encode())
    # Before the terminal goes, or the shell would be hung up.
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(screen)
    return status, shown
