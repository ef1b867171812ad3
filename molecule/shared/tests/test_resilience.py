# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What happens when something dies."""

from __future__ import annotations

import pytest
from ansible_collections.cae.matrix.tests.patience import START, eventually
from conftest import Api, Instance


@pytest.mark.usefixtures("first_start")
def test_it_comes_back_after_a_crash(instance: Instance, api: Api) -> None:
    unit = f"matrix-synapse@{instance.slug}.service"

    def again() -> bool:
        now = instance.run("systemctl", "show", "--property", "MainPID,ActiveState", "--value", unit).split()
        return "active" in now and before not in now and "0" not in now

    before = instance.run("systemctl", "show", "--property", "MainPID", "--value", unit).strip()
    instance.run("systemctl", "kill", "--signal", "KILL", unit)
    eventually(again, "another process of Synapse", seconds=START)
    assert api.request("GET", "/_matrix/client/versions").status_code == 200
