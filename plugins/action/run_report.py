# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Shows what a run has changed and how the instance is now; the module looks at the machine and writes its log."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.cae.matrix.plugins.module_utils.instance import run_report
from ansible_collections.cae.matrix.plugins.plugin_utils.telling import tell
from ansible_collections.cae.matrix.plugins.plugin_utils.version import collection_version


class ActionModule(ActionBase):
    """Ansible looks for this class."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        paths = (variables.get("ansible_facts") or {}).get(run_report.CHANGED_FACT) or {}
        changed = run_report.changes(variables, paths)
        _, about = self.validate_argument_spec(argument_spec=run_report.ARGUMENTS)
        about |= {"changed": run_report.count(changed), "collection_version": collection_version()}
        found: dict[str, Any] = self._execute_module(module_args=about, task_vars=task_vars)
        if found.get("failed"):
            return found
        lines = run_report.lines(about, changed, found | {"check_mode": self._task.check_mode})
        result = {"changed": False, "changes": changed}
        return result if tell(self, ["", *lines, ""]) else result | {"lines": lines}
