# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tells the module who runs what; everything else is the module's work."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.cae.matrix.plugins.plugin_utils.controller import operator
from ansible_collections.cae.matrix.plugins.plugin_utils.version import collection_version


class ActionModule(ActionBase):
    """Ansible looks for this class."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        arguments = {"operator": operator(), "collection_version": collection_version()} | self._task.args
        result: dict[str, Any] = self._execute_module(module_args=arguments, task_vars=task_vars)
        return result
