# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What nobody can see from outside, and everybody notices once it is too late: no more room on the machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.cae.matrix.plugins.module_utils.encryption.verification import (
    FAIL,
    NOT_CHECKED,
    OK,
    WARN,
    Check,
)

GIB = 2**30


def checks(seen: Mapping[str, Any], warning_percent: int, failure_percent: int) -> list[Check]:
    """The checks of what the module C(machine_room) has returned, or of why it has not."""
    if "disks" not in seen:
        why = " ".join(str(seen.get("msg") or "it was not asked").split())
        return [Check("machine", "Room on the machine", NOT_CHECKED, why[:200])]
    found = list(_disks(seen["disks"], warning_percent, failure_percent))
    return [*found, _nginx(seen["nginx"])] if seen.get("nginx") else found


def _disks(disks: list[dict[str, Any]], warning_percent: int, failure_percent: int) -> Iterator[Check]:
    for disk in disks:
        name, title = f"disk.{disk['path']}", f"Disk {disk['path']}"
        what, least = min(
            ("free", disk["free_percent"]), ("of its inodes free", disk["free_inodes_percent"]), key=lambda one: one[1]
        )
        seen = f"{disk['free'] / GIB:.1f} of {disk['size'] / GIB:.1f} GiB free ({least}% {what})"
        if least >= warning_percent:
            yield Check(name, title, OK, seen)
            continue
        yield Check(
            name,
            title,
            FAIL if least < failure_percent else WARN,
            seen,
            f"The file system of {disk['path']} has {least}% {what}. When it is full, PostgreSQL stops, and with it "
            "every instance of the machine.",
            "See what it is (`du -xh --max-depth=3 / | sort -h | tail`): make the disk larger, or lower "
            "synapse_media_upload_limits. Media of other servers that nobody has opened lately can go "
            "(media_retention.remote_media_lifetime in synapse_extra_config).",
        )


def _nginx(nginx: Mapping[str, Any]) -> Check:
    seen = f"{nginx['connections']} for each process, {nginx['needed_connections']} needed"
    title = "Connections of nginx"
    if nginx["connections"] >= nginx["needed_connections"] and nginx["files"] >= nginx["needed_connections"]:
        return Check("nginx.connections", title, OK, seen)
    cause, mend = nginx["problem"], "Do so; or put Debian's nginx.conf back and run the playbook."
    if not cause:
        cause, mend = "nginx has less room than the people of this machine need at once.", "Run the playbook."
    return Check("nginx.connections", title, WARN, f"{seen}; {nginx['files']} open files", cause, mend)
