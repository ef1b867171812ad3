# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A deny list for federation: a module of Synapse. docs/en/profiles.md says what it does.

Synapse knows only whom it allows (`federation_domain_whitelist`), and asks "is this server in it?" before everything
it sends or takes. So what stands there is a container that everybody is in, but for those who are denied. Synapse loads
its modules before the parts that keep the container; the one part that may be there earlier is told.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.cae.matrix.plugins.module_utils.matrix.server_names import matches, server_name_problem
from synapse.config._base import ConfigError
from synapse.module_api import ModuleApi

logger = logging.getLogger(__name__)

_WHERE = "federation_domain_whitelist"


@dataclass(frozen=True)
class EverybodyBut:
    """Everybody is in it, but for those whom one of the globs means."""

    denied: tuple[str, ...]

    def __contains__(self, server_name: object) -> bool:
        # What has no name at all is refused by what comes next in Synapse, and in its own words.
        return not isinstance(server_name, str) or not _is_denied(self.denied, server_name)


@functools.lru_cache(maxsize=10000)
def _is_denied(denied: tuple[str, ...], server_name: str) -> bool:
    return any(matches(glob, server_name) for glob in denied)


class DenyList:
    """What Synapse loads, in each of its processes."""

    def __init__(self, config: EverybodyBut, api: ModuleApi) -> None:
        hs = api._hs
        if api.server_name not in config:
            raise ConfigError(f"This server's own name, {api.server_name}, is denied.", ("denied",))
        federation = hs.config.federation
        self._put(federation, config)
        if federation.federation_whitelist_endpoint_enabled:
            raise ConfigError(
                "It cannot answer for a deny list: remove it.", ("federation_whitelist_endpoint_enabled",)
            )
        # Single sign-on wants to have it before modules are loaded.
        if hs.config.media.can_load_media_repo:
            self._put(hs.get_media_repository(), config)
        logger.info("%d entries of the deny list are in force", len(config.denied))

    @staticmethod
    def _put(owner: Any, config: EverybodyBut) -> None:
        if not hasattr(owner, _WHERE):
            raise ConfigError(
                f"The deny list cannot be kept: this Synapse has no {_WHERE} in {type(owner).__name__}. Go back to the "
                "version before, or empty federation_denied_servers."
            )
        found = getattr(owner, _WHERE)
        if found is not None and found is not config:
            raise ConfigError("A list of allowed servers and one of denied ones exclude each other.", (_WHERE,))
        setattr(owner, _WHERE, config)

    @staticmethod
    def parse_config(config: Mapping[str, Any]) -> EverybodyBut:
        for key in config:
            if key != "denied":
                raise ConfigError("is not known here: this module takes denied", (str(key),))
        denied = config.get("denied")
        if not isinstance(denied, list) or not denied:
            raise ConfigError("must be a list of server names, * and ? for any part of one", ("denied",))
        for glob in denied:
            problem = server_name_problem(glob, glob=True)
            if problem:
                raise ConfigError(problem, ("denied",))
        return EverybodyBut(tuple(denied))
