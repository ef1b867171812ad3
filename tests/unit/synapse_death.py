# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A module of the real Synapse that kills it when the next event of a chosen kind is about to be made."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from synapse.module_api import ModuleApi


class Death:
    def __init__(self, config: dict[str, Any], api: ModuleApi) -> None:
        # The kind of event, in a file that a test writes; it is gone before Synapse is, so that it dies only once.
        self._order = Path(config["order"])
        api.register_third_party_rules_callbacks(check_event_allowed=self.check_event_allowed)

    async def check_event_allowed(self, event: Any, state: Any) -> tuple[bool, None]:
        if self._order.exists() and self._order.read_text() == event.type:
            self._order.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return True, None
