# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The playbook that looks from outside agrees that the instances are in order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Instance


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("verify") / "report.json"
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "--inventory",
            os.environ["MOLECULE_INVENTORY_FILE"],
            str(Path(__file__).parents[1] / "outside.yml"),
            "--extra-vars",
            # These machines are not made to find each other; scenario federation's are.
            json.dumps({"verify_report": str(path), "verify_pairs": False}),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "WARNING" not in done.stdout + done.stderr
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_nothing_fails_from_outside(report: dict[str, Any], instance: Instance) -> None:
    assert report["ok"] is True
    seen = next(one for one in report["instances"] if one["name"] == instance.slug)
    assert seen["matrix_domain"] == instance.domain
    # Only an Element that is declared absent is left out; tests that register may have used up the server's patience.
    unusual = {check["id"]: check for check in seen["checks"] if check["state"] != "ok"}
    unusual.pop("element", None)
    if unusual.get("registration", {}).get("seen", "").startswith("429"):
        del unusual["registration"]
    # How full the disk of whoever tests is, is theirs to know.
    unusual = {name: check for name, check in unusual.items() if not name.startswith("disk.")}
    assert unusual == {}
    assert {"nginx.connections", "disk./var/lib/matrix"} <= {check["id"] for check in seen["checks"]}


def test_the_signing_keys_were_looked_at(report: dict[str, Any], instance: Instance) -> None:
    seen = next(one for one in report["instances"] if one["name"] == instance.slug)
    keys = next(check for check in seen["checks"] if check["id"] == "federation.keys")
    assert "signed" in keys["seen"]
