# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Of an inventory, those are looked at that are meant to be there."""

from __future__ import annotations

import json
from pathlib import Path

from ansible_collections.cae.matrix.tests.unit.programs import ansible_playbook

ROOT = Path(__file__).resolve().parents[2]


def test_an_instance_that_is_declared_absent_is_passed_over(tmp_path: Path) -> None:
    nobody = "127.0.0.9"
    there = {"matrix_domain": "a.test", "matrix_resolve": dict.fromkeys(("a.test", "matrix.a.test"), nobody)}
    gone = {"matrix_domain": "gone.test", "matrix_state": "absent"}
    shared = {"ansible_connection": "local", "matrix_element_enabled": False, "verify_timeout": 2}
    inventory = {"cooperatives": {"vars": shared, "hosts": {"gone": gone, "there": there}}}
    (tmp_path / "hosts.json").write_text(json.dumps(inventory))
    done = ansible_playbook(
        tmp_path,
        "-i",
        str(tmp_path / "hosts.json"),
        "-e",
        f"verify_report={tmp_path / 'report.json'}",
        str(ROOT / "playbooks" / "verify.yml"),
    )
    # Nobody listens for the one that should be there.
    assert done.returncode == 2, done.stdout + done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert [(one["name"], one["ok"]) for one in report["instances"]] == [("there", False)]
    assert report["pairs"] == []
    assert "gone.test" not in done.stdout
