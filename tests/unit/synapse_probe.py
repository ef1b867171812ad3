# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run by the interpreter that has Synapse: what does Synapse make of each configuration on standard input?

One JSON document a line in, one answer a line out: {"refused": message} or the facts that the tests look at.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from ansible_collections.cae.matrix.tests.unit import synapse_once
from synapse.app import _base
from synapse.config.homeserver import HomeServerConfig
from synapse.http.server import DirectServeJsonResource
from synapse.http.servlet import parse_json_object_from_request
from synapse.module_api import ModuleApi


class Levels:
    """A module of the real Synapse: other default power levels without the two seconds of a new start."""

    def __init__(self, config: Any, api: ModuleApi) -> None:
        homeserver = api._hs

        async def put(resource: Any, request: Any) -> tuple[int, dict[str, Any]]:
            levels = parse_json_object_from_request(request)
            homeserver.get_room_creation_handler()._default_power_level_content_override = levels
            return 200, {}

        resource = type("LevelsResource", (DirectServeJsonResource,), {"_async_render_PUT": put})
        api.register_web_resource("/_synapse/client/levels", resource(clock=homeserver.get_clock()))


class WithoutWhitelist:
    """A module of the real Synapse: a Synapse that keeps elsewhere whom it federates with."""

    def __init__(self, config: Any, api: ModuleApi) -> None:
        del api._hs.config.federation.federation_domain_whitelist


class OtherListeners:
    """A module of the real Synapse: a Synapse that listens in another way than ours knows."""

    def __init__(self, config: Any, api: ModuleApi) -> None:
        def listen_unix(path: str, mode: int, factory: Any, *, reactor: Any, backlog: int = 7) -> list[Any]:
            return [reactor.listenUNIX(path, factory, backlog, mode, True)]

        _base.listen_unix = listen_unix
        del _base.listen_ssl


def facts(document: dict[str, Any]) -> dict[str, Any]:
    config = HomeServerConfig()
    try:
        config.parse_config_dict(document, config_dir_path="/nowhere", data_dir_path="/nowhere")
    except Exception as error:
        return {"refused": f"{type(error).__name__}: {error}"}
    registration = config.registration
    return {
        "encrypts": sorted(config.room.encryption_enabled_by_default_for_room_presets),
        "opens": [
            name
            for name, is_open in {
                "registration": registration.enable_registration,
                "registration without a token": not registration.registration_requires_token,
                "registration by address": registration.enable_registration_token_3pid_bypass,
                "guests": registration.allow_guest_access,
                "oidc": any(provider.enable_registration for provider in config.oidc.oidc_providers),
                "cas": config.cas.cas_enabled and config.cas.cas_enable_registration,
                "saml": config.saml2.saml2_enabled,
                "jwt": config.jwt.jwt_enabled,
                "delegated": config.mas.enabled,
                "modules": config.modules.loaded_modules,
                "password providers": config.authproviders.password_providers,
            }.items()
            if is_open
        ],
        "server_name": config.server.server_name,
        "public_baseurl": config.server.public_baseurl,
    }


if __name__ == "__main__":
    synapse_once.check_schemas_once()
    synapse_once.compile_templates_once()
    for line in sys.stdin:
        print(json.dumps(facts(json.loads(line))), flush=True)
