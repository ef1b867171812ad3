# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sends a release from the controller only when the machine lacks it; everything else is the module's work."""

from __future__ import annotations

import os
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.cae.matrix.plugins.module_utils.host.element_web import digest_of
from ansible_collections.cae.matrix.plugins.plugin_utils.controller import account

MODULE = "cae.matrix.element_web_release"
FILES = ("file", "signature_file")


class ActionModule(ActionBase):
    """Ansible looks for this class."""

    TRANSFERS_FILES = True
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        result = self._install(task_vars)
        what = [f"release {self._task.args.get('version')}"] if result.get("changed") else []
        return account(self, result, task_vars or {}, what)

    def _install(self, task_vars: dict[str, Any] | None) -> dict[str, Any]:
        arguments = {key: value for key, value in self._task.args.items() if key != "transferred"}
        if not arguments.get("file"):
            found: dict[str, Any] = self._execute_module(MODULE, module_args=arguments, task_vars=task_vars)
            return found
        for key in FILES:
            path = os.path.expanduser(str(arguments.get(key, "")))
            if not os.path.isfile(path):
                raise AnsibleActionFail(f'element_web_release_{key}: there is no file "{path}" on the controller')
            arguments[key] = path
        if (actual := digest_of(arguments["file"])) != arguments.get("sha256"):
            raise AnsibleActionFail(
                f"the SHA-256 digest of {arguments['file']} is {actual}, but element_web_release_sha256 promises "
                f"{arguments.get('sha256')}"
            )
        found = self._execute_module(MODULE, module_args={**arguments, "transferred": False}, task_vars=task_vars)
        if found.get("failed") or not found.get("needed") or self._task.check_mode:
            return found
        directory = self._make_tmp_path()
        try:
            for key in FILES:
                arguments[key] = self._transfer_file(arguments[key], self._connection._shell.join_path(directory, key))
            return dict(self._execute_module(MODULE, module_args=arguments, task_vars=task_vars))
        finally:
            self._remove_tmp_path(directory)
