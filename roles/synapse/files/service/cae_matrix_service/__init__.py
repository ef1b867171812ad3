# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a service needs and Synapse has no option for: a module of Synapse. docs/en/synapse.md says what for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synapse.config._base import ConfigError
from synapse.module_api import ModuleApi

from . import listening, uploads, watchdog


class Service:
    """What Synapse loads, in each of its processes; before it listens."""

    def __init__(self, watchdog_seconds: int, api: ModuleApi) -> None:
        listening.lengthen_queues()
        watchdog.start(watchdog_seconds, api)
        uploads.start(api)

    @staticmethod
    def parse_config(config: Mapping[str, Any]) -> int:
        for key in config:
            if key != "watchdog_seconds":
                raise ConfigError("is not known here: this module takes watchdog_seconds", (str(key),))
        seconds = config.get("watchdog_seconds", 0)
        if type(seconds) is not int or seconds < 0:
            raise ConfigError("must be a whole number of seconds, or 0 for none", ("watchdog_seconds",))
        return seconds
