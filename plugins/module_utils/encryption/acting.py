# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Looking at rooms as the service account, and changing them as people who have power there.

Asking Synapse to act as a person makes no device, and nobody else comes into the room.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any

from ansible_collections.cae.matrix.plugins.module_utils.encryption.remedy import Room
from ansible_collections.cae.matrix.plugins.module_utils.matrix.identifiers import server_of
from ansible_collections.cae.matrix.plugins.module_utils.synapse.admin import Synapse, SynapseError, quote

TOKEN_LIFE_MS = 24 * 3600 * 1000


class Acting:
    """The rooms of one server. `synapse` is logged in as an administrator, `admin`."""

    def __init__(self, synapse: Synapse, domain: str, admin: str) -> None:
        self.synapse = synapse
        self.domain = domain
        self.admin = admin
        self._tokens: dict[str, str] = {}

    # -- looking ------------------------------------------------------------------------------------------------

    def room(self, room_id: str, kind: str = "") -> Room | None:
        """A room's current state (of one kind, if need be), or None where Synapse has never heard of it."""
        path = f"/_synapse/admin/v1/rooms/{quote(room_id)}/state"
        status, answer = self.synapse.ask("GET", path + (f"?type={kind}" if kind else ""))
        if status == 404 or (status == 400 and answer.get("errcode") == "M_INVALID_PARAM"):
            return None
        if status != 200:
            raise self.synapse.refusal("GET", path, status, answer)
        return Room(room_id, answer["state"])

    def behind(self, alias: str) -> str | None:
        """The room that an alias leads to."""
        path = f"/_matrix/client/v3/directory/room/{quote(alias)}"
        status, answer = self.synapse.ask("GET", path)
        if status == 200:
            return str(answer["room_id"])
        # Another server may not answer, or answer anything.
        if status == 404 or server_of(alias) != self.domain:
            return None
        raise self.synapse.refusal("GET", path, status, answer)

    def usable(self, user_id: str) -> bool:
        """Whether Synapse would let somebody act as this person."""
        status, user = self.synapse.ask("GET", f"/_synapse/admin/v2/users/{quote(user_id)}")
        barred = ("deactivated", "locked", "suspended", "shadow_banned", "appservice_id")
        return status == 200 and not any(user.get(one) for one in barred)

    # -- doing --------------------------------------------------------------------------------------------------

    def put(self, actor: str, room_id: str, kind: str, key: str, content: Mapping[str, Any]) -> None:
        """One state of a room, as somebody who may."""
        path = f"/_matrix/client/v3/rooms/{quote(room_id)}/state/{quote(kind)}/{quote(key)}"
        self.synapse.call("PUT", path, content, self.token(actor))

    def remove(self, room_id: str, alias: str) -> None:
        """A room with nobody else in it. Synapse does it in the background: after a crash it waits for a lock first."""
        path = f"/_synapse/admin/v2/rooms/{quote(room_id)}"
        self.synapse.call("DELETE", path, {"block": False, "purge": True, "force_purge": True})
        self.free(alias)

    def free(self, alias: str) -> None:
        """The alias leads nowhere any more."""
        path = f"/_matrix/client/v3/directory/room/{quote(alias)}"
        status, answer = self.synapse.ask("DELETE", path)
        if status not in (200, 404):
            raise self.synapse.refusal("DELETE", path, status, answer)

    def token(self, user_id: str) -> str:
        """To act as a person: no device, nothing that they see in their sessions."""
        if user_id == self.admin:
            return self.synapse.token
        if user_id not in self._tokens:
            end = {"valid_until_ms": int(time.time() * 1000) + TOKEN_LIFE_MS}
            path = f"/_synapse/admin/v1/users/{quote(user_id)}/login"
            self._tokens[user_id] = str(self.synapse.call("POST", path, end)["access_token"])
        return self._tokens[user_id]

    def log_out(self) -> None:
        """Takes the tokens back; those of a run that was killed end by themselves."""
        with contextlib.suppress(SynapseError):
            for token in self._tokens.values():
                self.synapse.ask("POST", "/_matrix/client/v3/logout", {}, token)
        self._tokens = {}
