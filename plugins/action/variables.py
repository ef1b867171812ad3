# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Checks what is declared for a host, on the controller alone: only Ansible's own process knows all variables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars
from ansible_collections.cae.matrix.plugins.module_utils.variables import check, read_options

ROLES = Path(__file__).resolve().parents[2] / "roles"


class ActionModule(ActionBase):
    """Ansible looks for this class."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _VALID_ARGS = frozenset(("required",))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        options = read_options(ROLES)
        values: dict[str, Any] = {}
        for name in options.keys() & task_vars.keys():
            try:
                values[name] = self._templar.template(task_vars[name])
            except AnsibleError:
                # It depends on what is not known yet; the role that reads it has it checked by Ansible.
                continue
        checked = check(
            {name: values[name] for name in options if name in values},
            options,
            names=task_vars.keys(),
            own=values.get("matrix_own_variables") or (),
            command_line=load_extra_vars(self._loader).keys(),
            required=self._task.args.get("required", ()),
        )
        if checked.problems:
            return {**result, "failed": True, "msg": "\n".join(checked.problems)}
        # Among the converted ones may be secrets: they are shown at no verbosity.
        return {**result, "changed": False, "converted": checked.converted, "_ansible_verbose_override": True}
