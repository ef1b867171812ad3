# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Plans on the controller what is declared for a host: only Ansible's own process knows all variables."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars
from ansible_collections.cae.matrix.plugins.module_utils.instance.variables import Checked, check, read_options
from ansible_collections.cae.matrix.plugins.plugin_utils.plan import (
    ROLES,
    Declaration,
    InstancePlan,
    NotYetKnown,
    message,
)
from ansible_collections.cae.matrix.plugins.plugin_utils.telling import tell


class ActionModule(ActionBase):
    """Ansible looks for this class."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _VALID_ARGS = frozenset(("required", "whole", "documents"))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        _, arguments = self.validate_argument_spec(
            {
                "required": {"type": "list", "elements": "str", "default": []},
                "whole": {"type": "bool", "default": False},
                "documents": {"type": "list", "elements": "str", "default": []},
            }
        )
        declared = Declaration(self._templar, self._loader, variables)
        plan = InstancePlan(declared, whole=arguments["whole"])
        again = bool(arguments["documents"])
        # The names that a run keeps facts under are nobody's mistakes.
        options = read_options(ROLES)
        values: dict[str, Any] = {}
        for name in (name for name in options if name in variables):
            try:
                values[name] = declared.value("plan", name)
            except NotYetKnown:
                # It depends on what the machine will say; then it is checked.
                plan.waits = True
        plan.take(self._checked(values, options, () if again else variables.keys(), arguments["required"]))
        if again:
            plan.with_documents(arguments["documents"])
        else:
            plan.without_machine()
        if plan.problems:
            return {**result, "failed": True, "msg": self._told(variables, message(plan.problems))}
        # Among them may be secrets: no callback gets them. A failure is for people, and shows no such value.
        return {**result, "changed": False, "facts": plan.facts, "_ansible_no_log": True}

    def _told(self, variables: dict[str, Any], text: str) -> str:
        """What the failure says, once its lines have been printed for people."""
        first, *rest = text.splitlines()
        if rest and tell(self, [f"{variables['inventory_hostname']}: {first}", *rest]):
            return f"{first.rstrip(':')} (see the lines above)"
        return text

    def _checked(
        self, values: dict[str, Any], options: dict[str, Any], names: Collection[str], required: list[str]
    ) -> Checked:
        """The values against the argument specs of all roles."""
        return check(
            values,
            options,
            names=names,
            own=values.get("matrix_own_variables") or (),
            command_line=load_extra_vars(self._loader).keys(),
            required=required,
        )
