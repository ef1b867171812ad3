# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is said of a machine that has no more room, before it has none."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.cae.matrix.plugins.module_utils.encryption.verification import Check
from ansible_collections.cae.matrix.plugins.module_utils.encryption.verification_machine import GIB, checks

ROOMY = {"connections": 4096, "files": 16384, "needed_connections": 4096, "needed_files": 16384, "problem": ""}


def seen(free: int = 50, inodes: int = 90, **nginx: Any) -> dict[str, Any]:
    disk = {"path": "/var/lib/matrix", "size": 100 * GIB, "free": free * GIB, "free_percent": free}
    return {"people": 300, "disks": [disk | {"free_inodes_percent": inodes}], "nginx": ROOMY | nginx}


def run(machine: dict[str, Any]) -> dict[str, Check]:
    return {check.id: check for check in checks(machine, 20, 5)}


def test_a_machine_with_room_is_in_order() -> None:
    found = run(seen())
    assert [check.state for check in found.values()] == ["ok", "ok"]
    assert found["disk./var/lib/matrix"].seen == "50.0 of 100.0 GiB free (50% free)"


@pytest.mark.parametrize(
    ("free", "inodes", "state"), [(20, 90, "ok"), (19, 90, "warn"), (5, 90, "warn"), (4, 90, "FAIL"), (50, 4, "FAIL")]
)
def test_a_disk_warns_before_it_is_full(free: int, inodes: int, state: str) -> None:
    disk = run(seen(free, inodes))["disk./var/lib/matrix"]
    assert disk.state == state
    assert ("synapse_media_upload_limits" in disk.mend) is (state != "ok")
    assert ("inodes" in disk.seen) is (inodes < free)


@pytest.mark.parametrize(
    ("nginx", "words"),
    [
        ({"connections": 768, "problem": "nginx.conf is not as Debian ships it"}, "not as Debian ships it"),
        ({"connections": 768}, "less room than"),
        ({"files": 1024}, "less room than"),
    ],
)
def test_too_few_connections_are_told(nginx: dict[str, Any], words: str) -> None:
    check = run(seen(**nginx))["nginx.connections"]
    assert check.state == "warn"
    assert words in check.cause


def test_another_web_server_is_not_asked_for() -> None:
    assert list(run(seen() | {"nginx": None})) == ["disk./var/lib/matrix"]


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        ({"unreachable": True, "msg": "Failed to connect:\nno route"}, "Failed to connect: no route"),
        ({"skipped": True}, "not asked"),
    ],
)
def test_a_machine_that_was_not_reached_is_not_checked(machine: dict[str, Any], words: str) -> None:
    (check,) = checks(machine, 20, 5)
    assert (check.state, check.id) == ("not checked", "machine")
    assert words in check.seen
