# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Signs of life for systemd: a process that hangs is not one that ended, and looks healthy from outside.

systemd is asked from here to listen for them, and not by `WatchdogSec=` in the unit: instances share the unit, and one
whose release is without this module would be ended again and again.
"""

from __future__ import annotations

import os
import socket

from synapse.module_api import ModuleApi

_SIGNS = 4
"""Within the time after which systemd ends a service without any."""


def start(seconds: int, api: ModuleApi) -> None:
    """As long as the reactor turns, systemd hears of it."""
    if seconds and os.environ.get("NOTIFY_SOCKET"):
        api.looping_background_call(
            _show, seconds * 1000 / _SIGNS, seconds, desc="cae_matrix_service_watchdog", run_on_all_instances=True
        )


def _show(seconds: int) -> None:
    """As sd_notify(3) does: "I live; if you do not hear that again within so long, I do not"."""
    address = os.environ["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to_systemd:
        to_systemd.connect("\0" + address[1:] if address.startswith("@") else address)
        to_systemd.send(b"WATCHDOG=1\nWATCHDOG_USEC=%d" % (seconds * 1_000_000))
