# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Nobody takes a part of a run for a run; one instance after another is possible."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.cae.matrix.tests.unit.programs import ansible_playbook

ROOT = Path(__file__).resolve().parents[2]
# The demo is for `make demo`, which gives no tags.
PLAYBOOKS = sorted(path for path in (ROOT / "playbooks").glob("*.yml") if path.name != "demo.yml")
# Nobody listens there: what is said, is said before anything is connected to.
NOWHERE = {"ansible_host": "127.0.0.9", "ansible_port": 9, "ansible_ssh_common_args": "-o ConnectTimeout=2"}


def play(directory: Path, playbook: Path, *flags: str, domain: str = "{name}.test") -> tuple[int, str]:
    hosts = {name: {"matrix_domain": domain.format(name=name)} for name in ("a", "b")}
    inventory = {"cooperatives": {"vars": NOWHERE, "hosts": hosts}, "federation_hub": {"hosts": {"a": {}}}}
    (directory / "hosts.json").write_text(json.dumps(inventory))
    done = ansible_playbook(directory, "-i", str(directory / "hosts.json"), *flags, str(playbook))
    return done.returncode, " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize("playbook", PLAYBOOKS, ids=lambda path: path.stem)
def test_a_part_of_a_run_is_refused(tmp_path: Path, playbook: Path) -> None:
    status, said = play(tmp_path, playbook, "--tags", "nginx")
    assert status == 2, said
    assert "--tags: a run is whole" in said
    assert "UNREACHABLE" not in said


def test_nothing_is_left_out_by_a_tag_that_no_task_has(tmp_path: Path) -> None:
    """Molecule says so at each run."""
    status, said = play(tmp_path, ROOT / "playbooks" / "cooperative.yml", "--skip-tags", "notest", domain="no domain")
    assert status == 2
    assert "fatal: [a]: FAILED!" in said
    assert "a run is whole" not in said


@pytest.mark.parametrize(("flags", "asked"), [((), ["a", "b"]), (("-e", "matrix_serial=1"), ["a"])])
def test_one_instance_after_another(tmp_path: Path, flags: tuple[str, ...], asked: list[str]) -> None:
    """The next is only touched where the one before went well."""
    status, said = play(tmp_path, ROOT / "playbooks" / "cooperative.yml", *flags, domain="not a domain of {name}")
    assert status == 2
    assert [name for name in ("a", "b") if f"fatal: [{name}]: FAILED!" in said] == asked, said
