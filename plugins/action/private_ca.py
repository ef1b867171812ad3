# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The CA is on the controller, and so is all of this: no connection, other user or interpreter is involved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.cae.matrix.plugins.module_utils.host.private_ca import CaError, load, make, sign

ARGUMENTS = {
    "directory": {"type": "path", "required": True},
    "passphrase": {"type": "str", "default": "", "no_log": True},
    "make": {"type": "bool", "default": False},
    "request": {"type": "str"},
    "names": {"type": "list", "elements": "str", "default": []},
    "days": {"type": "int", "default": 365},
}


class ActionModule(ActionBase):
    """Ansible looks for this class."""

    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _, given = self.validate_argument_spec(argument_spec=ARGUMENTS, required_by={"request": ["names"]})
        directory, passphrase = Path(given["directory"]), given["passphrase"]
        try:
            found = load(directory, passphrase, given["names"])
            made = found is None and given["make"]
            if made and not self._task.check_mode:
                found = make(directory, passphrase)
            result: dict[str, Any] = {"changed": made or bool(given["request"]), "exists": found is not None}
            if found is None:
                return result
            result["not_after"] = found.certificate.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ")
            if given["request"]:
                result["chain"] = sign(found, given["request"], given["names"], given["days"])
            return result
        except CaError as error:
            raise AnsibleActionFail(f"The private CA cannot be used, and nothing of it was changed:\n{error}") from None
