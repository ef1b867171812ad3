# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Keeps what a role has written for the end of the run; everything else is the module's work."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.cae.matrix.plugins.plugin_utils.controller import account


class ActionModule(ActionBase):
    """Ansible looks for this class."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        result: dict[str, Any] = self._execute_module(task_vars=task_vars)
        done = [f"{one['name']} {word}" for one in result.get("in_force", []) for word in one["done"]]
        return account(self, result, task_vars or {}, [*result.get("changed_paths", []), *done])
