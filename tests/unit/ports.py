# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ports for servers that do not tell which one they were given."""

from __future__ import annotations

import contextlib
import itertools
import random
import socket

# Below those that the kernel gives to whoever asks for any.
PORTS = range(20000, 32000)
_ours: list[socket.socket] = []


def free_port() -> int:
    """A port that nobody else is told to take as long as this process lives, other test runs included.

    An abstract name marks it: like a port, it belongs to one process, in one network namespace.
    """
    start = random.randrange(len(PORTS))
    for port in itertools.islice(itertools.cycle(PORTS), start, start + len(PORTS)):
        mark = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(OSError), socket.socket() as probe:
            mark.bind(f"\0cae.matrix port {port}")
            probe.bind(("", port))
            _ours.append(mark)
            return port
        mark.close()
    raise AssertionError(f"no free port in {PORTS}")
