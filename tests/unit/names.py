# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Nobody outside is asked for a name: not by the tests, and not by the Synapses that they start.

Names that are reserved for tests exist nowhere, and are answered so at once; any other one is a mistake.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from typing import Any

ASKED_OUTSIDE = "Asked outside for"
RESERVED = ("test", "example", "invalid")


def _here(name: str) -> bool:
    try:
        ipaddress.ip_address(name.split("%")[0])
    except ValueError:
        return name in ("", "localhost")
    return True


def keep_inside(report: Callable[[str], None]) -> None:
    """From now on, names that are not reserved are reported when this process asks for one, and not asked for."""
    ask = socket.getaddrinfo

    def getaddrinfo(host: str | bytes | None, *rest: Any, **options: Any) -> Any:
        name = host.decode("ascii", "replace") if isinstance(host, bytes) else host or ""
        if _here(name):
            return ask(host, *rest, **options)
        if name.lower().rstrip(".").rpartition(".")[2] not in RESERVED:
            report(name)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    socket.getaddrinfo = getaddrinfo
