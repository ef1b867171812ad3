# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What happens when something dies, hangs, or is stopped on purpose."""

from __future__ import annotations

import pytest
from ansible_collections.cae.matrix.tests.patience import START, at_most, eventually
from conftest import Api, Instance

POSTGRES = ("runuser", "--user=postgres", "--")
# For the cooperatives, however it dies.
BACK_WITHIN = 10


def synapse(instance: Instance) -> str:
    return f"matrix-synapse@{instance.slug}.service"


def show(instance: Instance, unit: str, name: str) -> str:
    return instance.run("systemctl", "show", "--property", name, "--value", unit).strip()


def kill(instance: Instance, unit: str, signal: str) -> str:
    """The main process alone, as the kernel would; its number."""
    main = show(instance, unit, "MainPID")
    assert int(main) > 1, show(instance, unit, "ActiveState")
    instance.run("kill", "--signal", signal, main)
    return main


def another(instance: Instance, unit: str, before: str) -> bool:
    return show(instance, unit, "ActiveState") == "active" and show(instance, unit, "MainPID") not in (before, "0")


def ended(instance: Instance, unit: str) -> str:
    state = show(instance, unit, "ActiveState")
    return "" if state in ("active", "deactivating") else state


def answers(instance: Instance, api: Api) -> bool:
    """From its database, through the proxy."""
    path = f"/_matrix/client/v3/directory/room/%23nowhere:{instance.domain}"
    answer = api.request("GET", path)
    return answer.status_code == 404 and answer.json()["errcode"] == "M_NOT_FOUND"


def units(instance: Instance) -> dict[str, str]:
    listed = instance.run("systemctl", "list-units", "--plain", "--no-legend", "postgresql@*-*.service")
    return {"nginx": "nginx.service", "postgresql": listed.split()[0], "synapse": synapse(instance)}


@pytest.mark.usefixtures("first_start")
@pytest.mark.parametrize("what", ["nginx", "postgresql", "synapse"])
def test_it_comes_back_after_a_crash(instance: Instance, api: Api, what: str) -> None:
    unit = units(instance)[what]
    with at_most(BACK_WITHIN, f"{what} after a crash"):
        before = kill(instance, unit, "KILL")
        eventually(lambda: another(instance, unit, before), f"another process of {what}", START)
        eventually(lambda: answers(instance, api), "people are answered", START)


@pytest.mark.parametrize(
    ("what", "stop"),
    [
        ("nginx", ("nginx", "-s", "quit")),
        ("nginx", ("systemctl", "stop", "nginx.service")),
        ("postgresql", ("pg_ctlcluster", "{version}", "main", "stop")),
        # Systemd does not know of it beforehand.
        ("postgresql", (*POSTGRES, "pg_ctlcluster", "{version}", "main", "stop")),
    ],
    ids=["nginx -s quit", "systemctl stop", "pg_ctlcluster stop", "pg_ctlcluster stop by postgres"],
)
def test_what_is_stopped_on_purpose_stays_stopped(
    instance: Instance, api: Api, what: str, stop: tuple[str, ...]
) -> None:
    unit = units(instance)[what]
    version = unit.partition("@")[2].partition("-")[0]
    instance.run(*(word.format(version=version) for word in stop))
    try:
        # What waits for its next start is "activating".
        assert eventually(lambda: ended(instance, unit)) in ("inactive", "failed")
    finally:
        instance.run("systemctl", "start", unit)
    eventually(lambda: answers(instance, api), "people are answered", START)


@pytest.mark.usefixtures("first_start")
def test_a_synapse_that_hangs_is_started_again(instance: Instance, api: Api) -> None:
    unit, file = synapse(instance), f"/etc/matrix/{instance.slug}/synapse/homeserver.yaml"
    patience, impatience = "watchdog_seconds: 60", "watchdog_seconds: 3"
    instance.run("sed", "-i", f"s/{patience}/{impatience}/", file)
    try:
        assert impatience in instance.run("cat", file)
        instance.run("systemctl", "restart", unit)
    finally:
        instance.run("sed", "-i", f"s/{impatience}/{patience}/", file)
    # The first sign of life, and with it after how long systemd misses the next one.
    eventually(lambda: show(instance, unit, "WatchdogTimestampMonotonic") != "0", "it shows that it lives", START)
    before = kill(instance, unit, "STOP")
    eventually(lambda: another(instance, unit, before), "another process of Synapse", START)
    eventually(lambda: answers(instance, api), "people are answered", START)
