# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A run with nothing to do does nothing, and costs what it did; first by its name, since others restart servers."""

from __future__ import annotations

import re
from pathlib import Path

from conftest import run_playbook

# Of a run that changes nothing, those passed over among them, in their order.
KNOWN = Path(__file__).with_name("tasks.txt")


def test_it_changes_nothing_and_has_the_tasks_it_had() -> None:
    """Each is a fork and a round trip in every run of everybody."""
    status, said = run_playbook("playbooks/cooperative.yml")
    assert status == 0, said
    assert re.search(r"^atelier .*changed=0 ", said, re.M), said
    tasks = re.findall(r"^TASK \[(?:cae\.matrix\.)?(.+?)\] \*", said, re.M)
    known = KNOWN.read_text(encoding="utf-8").splitlines()
    assert tasks == known, f"do without what came on top, or change {KNOWN.name} and say why in the commit"
