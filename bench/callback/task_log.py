# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: task_log
type: aggregate
short_description: Note every execution of a task in a file, for the bench
description: One JSON object a line, with role, action, what was written and whether it changed; never content.
options:
  path:
    description: The file.
    type: path
    required: true
    env:
      - name: BENCH_TASK_LOG
"""

import json
import time
from typing import Any

from ansible.plugins.callback import CallbackBase

PATHS = ("path", "dest", "name")


class CallbackModule(CallbackBase):  # type: ignore[misc]
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "task_log"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._began = time.monotonic()

    def v2_runner_on_ok(self, result: Any) -> None:
        self._note(result, "ok")

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._note(result, "failed")

    def _note(self, result: Any, outcome: str) -> None:
        task, data = result.task, result.result
        items = [item for item in data["results"] if not item.get("skipped")] if task.loop else [data]
        written: dict[str, list[str]] = {}
        for item in items:
            arguments = item.get("invocation", {}).get("module_args", {})
            if task.resolved_action == "cae.matrix.documents":
                for kind in ("directories", "files", "secrets", "links", "blocks"):
                    for each in arguments.get(kind) or []:
                        if each.get("state", "present") == "present":
                            written.setdefault(kind, []).append(each["path"])
            else:
                paths = [arguments[name] for name in PATHS if isinstance(arguments.get(name), str)]
                written.setdefault("files", []).extend(paths[:1])
        line = {
            "host": result.host.get_name(),
            "role": task._role.get_name(False) if task._role else None,
            "task": task.name,
            "action": task.resolved_action,
            "executions": len(items),
            "seconds": round(time.monotonic() - self._began, 3),
            "changed": bool(data.get("changed")),
            "changed_paths": [path for item in items for path in item.get("changed_paths", [])],
            "written": written,
            "outcome": outcome,
        }
        with open(self.get_option("path"), "a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
