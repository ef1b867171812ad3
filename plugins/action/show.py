# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Shows lines to the person at the terminal."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.cae.matrix.plugins.plugin_utils.telling import tell


class ActionModule(ActionBase):
    """Ansible looks for this class."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(
            argument_spec={"lines": {"type": "list", "elements": "str", "required": True}}
        )
        lines: list[str] = [part for line in arguments["lines"] for part in line.splitlines() or [""]]
        # A program has them in the result.
        return {"changed": False} if tell(self, lines) else {"changed": False, "lines": lines}
