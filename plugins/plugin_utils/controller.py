# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What only the controller knows about a run."""

from __future__ import annotations

import getpass
import os
import socket
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.cae.matrix.plugins.module_utils.instance.run_report import CHANGED_FACT


def operator() -> str:
    """Who started the run, and where: C(amina@laptop)."""
    try:
        name = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    return f"{name}@{socket.gethostname().partition('.')[0]}"


def account(action: ActionBase, result: dict[str, Any], variables: dict[str, Any], what: list[str]) -> dict[str, Any]:
    """The result of a task, which also keeps for the end of the run what the task's role has changed."""
    if what:
        role = action._task._role.get_name().rpartition(".")[2] if action._task._role else ""
        so_far: dict[str, list[str]] = (variables.get("ansible_facts") or {}).get(CHANGED_FACT) or {}
        result["ansible_facts"] = {CHANGED_FACT: {**so_far, role: [*so_far.get(role, ()), *what]}}
    return result
