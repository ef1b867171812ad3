# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Encryption by choice, for every client: a module of Synapse. docs/en/synapse-module.md says what it does for whom."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from ansible_collections.cae.matrix.plugins.module_utils.encryption.opt_in import synapse_digest
from ansible_collections.cae.matrix.plugins.module_utils.matrix.identifiers import is_service_account
from synapse.api.errors import Codes, SynapseError
from synapse.config._base import ConfigError, read_config_files
from synapse.logging.context import current_context
from synapse.module_api import ModuleApi
from synapse.spam_checker_api import RegistrationBehaviour
from synapse.types import Requester

from . import creation, record, settings
from .proof import Proof
from .recovery import Recovery

logger = logging.getLogger(__name__)

PREFERENCE = "cae.matrix.encrypt_new_rooms"
BY_SHARED_SECRET = ("POST", "/_synapse/admin/v1/register")
OWN_CLIENT = "element-web-"


class EncryptionOptIn:
    """What Synapse loads, in each of its processes."""

    def __init__(self, config: settings.Settings, api: ModuleApi) -> None:
        self._api = api
        digest = self._refuse_contradictions()
        self._proof = Proof(config.attestation, config.instance, api.server_name, digest)
        self._recovery = Recovery(api)
        api.register_third_party_rules_callbacks(on_create_room=self.on_create_room)
        api.register_spam_checker_callbacks(check_registration_for_spam=self.check_registration_for_spam)
        api.register_account_validity_callbacks(on_user_registration=self._recovery.on_user_registration)

    @staticmethod
    def parse_config(config: dict[str, Any]) -> settings.Settings:
        try:
            return settings.parse(config)
        except settings.Wrong as error:
            raise ConfigError(str(error), (error.key,)) from None

    def _refuse_contradictions(self) -> str:
        """The digest of a configuration that keeps encryption opt-in; with any other, Synapse does not start."""
        config = self._api._hs.config
        document = read_config_files(config.config_files)
        found = settings.contradictions(document)
        if not found and config.room.encryption_enabled_by_default_for_room_presets:
            found = "Encryption would not be opt-in: Synapse would encrypt new rooms without being asked."
        if found:
            raise ConfigError(f"{found}\nSynapse does not start like that: change the inventory and run the playbook.")
        return synapse_digest(document)

    async def on_create_room(self, requester: Requester, body: creation.Body, is_requester_admin: bool) -> None:
        """Before a room is made: plain, unless somebody chose otherwise."""
        wrong = creation.malformed(body)
        if wrong:
            record.refused("malformed room", "%s asked for a room in which %s", requester.user, wrong)
            raise SynapseError(400, wrong, Codes.BAD_JSON)
        if requester.app_service_id is not None:
            return
        creator, asks = requester.user.to_string(), creation.asks_for_encryption(body)
        request = getattr(current_context(), "request", None)
        if asks and request is not None and _is_own_client(request):
            record.opt_in("creation", "%s made an encrypted room (%s) in Element Web", creator, creation.kind(body))
        elif (
            # An administrator who acts as somebody (the remedy does) is not doing what that person asked for.
            requester.authenticated_entity == creator
            and not creation.is_space(body)
            and await self._prefers_encryption(creator)
        ):
            creation.with_encryption(body)
            record.opt_in("preference", "%s made an encrypted room (%s)", creator, creation.kind(body))
        elif asks:
            creation.without_encryption(body)
            # The gate asks for encryption to see that it does not get it: nobody's habit.
            if not is_service_account(creator):
                record.started_plain(creator, creation.kind(body), getattr(request, "user_agent", "")[:200])

    async def _prefers_encryption(self, user_id: str) -> bool:
        try:
            preference = await self._api.account_data_manager.get_global(user_id, PREFERENCE)
        except Exception:
            # Synapse would make a 403 of it, as if the room were forbidden.
            logger.exception("Cannot read the preference of %s", user_id)
            raise SynapseError(503, "Your preferences cannot be read at the moment, try again") from None
        return preference is not None and preference.get("enabled") is True

    async def check_registration_for_spam(
        self,
        email_threepid: dict[str, Any] | None,
        username: str | None,
        request_info: Collection[tuple[str, str]],
        auth_provider_id: str | None = None,
    ) -> RegistrationBehaviour:
        """Before an account is made, on whichever way but an application service's: is the server proven?"""
        if is_service_account(f"@{username}:{self._api.server_name}", self._api.server_name):
            if self._by_shared_secret():
                return RegistrationBehaviour.ALLOW
            record.refused("registration", "the registration of %r: that name is the encryption gate's own", username)
            return RegistrationBehaviour.DENY
        why_not = self._proof.why_not()
        if why_not is None:
            return RegistrationBehaviour.ALLOW
        record.refused(
            "registration",
            "the registration of %r: %s. Encryption has not been proven to be by choice here; run the playbook "
            "cae.matrix.cooperative, its gate proves it or says what to mend",
            username,
            why_not,
        )
        return RegistrationBehaviour.DENY

    @staticmethod
    def _by_shared_secret() -> bool:
        """The account that proves the server comes before the proof; it takes the shared secret to make it."""
        request = getattr(current_context(), "request", None)
        return request is not None and (request.method, request.url) == BY_SHARED_SECRET


def _is_own_client(request: Any) -> bool:
    """The cooperative's proxy marks requests of its own Element Web; Synapse puts the method before the mark."""
    return str(request.request_id).removeprefix(f"{request.method}-").startswith(OWN_CLIENT)
