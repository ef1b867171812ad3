# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How the collection tells people something on their terminal: as lines, whatever their callback and its format.

A callback prints the text of a task as a value, with quotes and C(\\n) unless it is configured otherwise, and the text
of a failure twice. A person reads lines.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from ansible import constants
from ansible.plugins.action import ActionBase


def for_people() -> bool:
    """Whether what is printed is read by people: a callback that prints JSON is read by a program."""
    return "json" not in str(constants.DEFAULT_STDOUT_CALLBACK)


def printable(text: str) -> str:
    """The text without what a terminal would take for an order: others have chosen some of the names in it."""
    return "".join(character if character.isprintable() or character == "\n" else "\ufffd" for character in text)


def tell(action: ActionBase, lines: Iterable[object]) -> bool:
    """Print the lines as they are; False where that would be in a program's way, or the task may show nothing."""
    if not for_people() or action._task.no_log:
        return False
    action._display.display(printable("\n".join(str(line) for line in lines)))
    return True


class TellingAction(ActionBase):
    """Runs the module of its own name; when that fails with several lines, they are printed once."""

    _supports_check_mode = True
    # What the lines of a failure say already, as data.
    told: ClassVar[tuple[str, ...]] = ()

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        result: dict[str, Any] = self._execute_module(task_vars=task_vars)
        lines = str(result.get("msg", "")).splitlines()
        host = (task_vars or {}).get("inventory_hostname", "")
        if result.get("failed") and len(lines) > 1 and tell(self, [f"{host}: {lines[0]}", *lines[1:]]):
            result["msg"] = f"{lines[0].rstrip(':')} (see the lines above)"
            # Ansible's own summary of the error has all of it once more.
            for key in ("exception", *self.told):
                result.pop(key, None)
        return result
