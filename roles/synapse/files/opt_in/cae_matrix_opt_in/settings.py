# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module's own configuration, and whether Synapse's contradicts what the module is there for."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.cae.matrix.plugins.module_utils.encryption.opt_in import Contradictions, problems

_INSTANCE = re.compile(r"[a-z][a-z0-9-]{0,19}")


class Wrong(Exception):
    """The module's configuration is wrong at `key`."""

    def __init__(self, key: str, cause: str) -> None:
        super().__init__(cause)
        self.key = key


@dataclass(frozen=True)
class Settings:
    """Which instance this is, and where its attestation is to be found."""

    instance: str
    attestation: str


def parse(config: Mapping[str, Any]) -> Settings:
    """The settings, or `Wrong`."""
    for key in config:
        if key not in ("instance", "attestation"):
            raise Wrong(str(key), "is not known here: this module takes instance and attestation")
    instance, attestation = config.get("instance"), config.get("attestation")
    if not isinstance(instance, str) or not _INSTANCE.fullmatch(instance):
        raise Wrong("instance", f"must be the instance's slug ({_INSTANCE.pattern})")
    if not isinstance(attestation, str) or not os.path.isabs(attestation):
        raise Wrong("attestation", "must be the absolute path of the instance's attestation.json")
    return Settings(instance, attestation)


def contradictions(document: Mapping[str, Any]) -> str | None:
    """What in Synapse's files, merged, contradicts encryption by choice; None if nothing does.

    The line of defence that runs before deployment judges documents as declared. On disk there is one thing more:
    the gate has opened registration, which it does only for holders of a token.
    """
    synapse = dict(document)
    if synapse.get("registration_requires_token") is True:
        synapse.pop("enable_registration", None)
    found = problems({"synapse": synapse, "well_known": None, "element": None})
    return str(Contradictions(found)) if found else None
