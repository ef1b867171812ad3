# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A real browser in front of the instance, through nginx: the small client of the tests, or the real Element."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from conftest import Api, Instance, newcomers

BROWSER = Path(__file__).resolve().parents[3] / "tests/browser"


def test_a_person_logs_in_with_a_browser(instance: Instance, api: Api, registration_token: str, tmp_path: Path) -> None:
    # Nothing that other tests did is in their way.
    people = newcomers(api, registration_token)
    summary = {
        "matrix_domain": instance.domain,
        "homeserver_url": f"https://{instance.matrix_hostname}/",
        "element_url": f"https://{instance.element_hostname}/",
        "address": instance.address,
        "ca_file": instance.ca_file,
        "accounts": [{"user_id": person.user_id, "password": person.password, "admin": False} for person in people],
    }
    (tmp_path / "summary.json").write_text(json.dumps({"instances": [summary]}), encoding="utf-8")
    tests = ["test_any_client.py"]
    if os.environ.get("ELEMENT_WEB_RELEASE"):
        tests.append("test_real_element.py")
    # A run of its own: these tests know nothing of Molecule, and have a conftest too.
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *tests],
        cwd=BROWSER,
        env={**os.environ, "MATRIX_SUMMARY": str(tmp_path / "summary.json"), "MATRIX_SCREENSHOTS": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
