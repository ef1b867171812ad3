# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What happens when something dies. Runs after the gate's tests: they compare with the start that the gate has seen."""

from __future__ import annotations

import time

from conftest import Api, Instance


def test_it_comes_back_after_a_crash(instance: Instance, api: Api) -> None:
    unit = f"matrix-synapse@{instance.slug}.service"
    before = instance.run("systemctl", "show", "--property", "MainPID", "--value", unit).strip()
    instance.run("systemctl", "kill", "--signal", "KILL", unit)
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        now = instance.run("systemctl", "show", "--property", "MainPID,ActiveState", "--value", unit).split()
        if "active" in now and before not in now and "0" not in now:
            break
        time.sleep(1)
    assert api.request("GET", "/_matrix/client/versions").status_code == 200
