# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A real Synapse with people on it, and a service account whose requests can be cut off at any of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.cae.matrix.plugins.module_utils.encryption.remedy import Room
from ansible_collections.cae.matrix.plugins.module_utils.synapse.admin import ServiceAccount, Synapse, quote
from ansible_collections.cae.matrix.tests.unit.homeserver import Homeserver

DOMAIN = "coop.example"
ALICE, BRUNO, CHLOE, DENIS, EMMA, FARID = (
    f"@{name}:{DOMAIN}" for name in ("alice", "bruno", "chloe", "denis", "emma", "farid")
)
NOT_MADE_BY_PEOPLE = "/_synapse/admin/v1/users/"


class Killed(BaseException):
    """The playbook, at the worst moment."""


class Fragile(Synapse):
    """Asks like the real one, counts what it changes, and dies when an answer is about to arrive."""

    def __init__(self, socket_path: str, token: str, dies_after: int | None = None) -> None:
        super().__init__(socket_path)
        self.token = token
        self.dies_after = dies_after
        self.writes: list[str] = []

    def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, token: str | None = None
    ) -> tuple[int, Any]:
        answer = super().ask(method, path, body, token)
        if method != "GET" and not path.startswith(NOT_MADE_BY_PEOPLE):
            self.writes.append(f"{method} {path}")
            if len(self.writes) == self.dies_after:
                self.close()
                raise Killed
        return answer


class People:
    """A server with people on it."""

    def __init__(self, python: str, directory: Path, extra: dict[str, Any] | None = None) -> None:
        self._python, self.directory, self._extra = python, directory, extra or {}
        self.server = Homeserver(python, directory, self._extra)
        self.socket = str(directory / "s")
        (directory / "secret").write_text("x")
        synapse = Synapse(self.socket)
        account = ServiceAccount(synapse, DOMAIN, directory / "token", directory / "secret")
        assert account.ready()
        synapse.close()
        self.admin, self.admin_token = account.user_id, synapse.token
        self.tokens = {user: self.server.register(user) for user in (ALICE, BRUNO, CHLOE, DENIS, EMMA, FARID)}

    def restart(self) -> None:
        self.server = Homeserver(self._python, self.directory, self._extra)

    def ask(self, method: str, path: str, body: Any = None, user: str | None = ALICE) -> dict[str, Any]:
        token = self.tokens[user] if user else self.admin_token
        prefix = "" if path.startswith("/_synapse") else "/_matrix/client/v3/"
        status, answer = self.server.request(method, prefix + path, body, token)
        assert status in (200, 201), (method, path, answer)
        return answer

    def status(self, method: str, path: str, body: Any, user: str) -> int:
        return self.server.request(method, "/_matrix/client/v3/" + path, body, self.tokens[user])[0]

    def room(self, room_id: str) -> Room:
        path = f"/_synapse/admin/v1/rooms/{quote(room_id)}/state"
        return Room(room_id, self.ask("GET", path, user=None)["state"])

    def events(self, room_id: str) -> set[str]:
        return {event["event_id"] for event in self.room(room_id).events.values()}

    def rooms(self) -> set[str]:
        """Those that somebody is in."""
        listed = self.ask("GET", "/_synapse/admin/v1/rooms?limit=10000", user=None)["rooms"]
        return {one["room_id"] for one in listed if one["joined_members"]}

    def behind(self, alias: str) -> str | None:
        status, answer = self.server.request("GET", f"/_matrix/client/v3/directory/room/{quote(alias)}")
        return answer["room_id"] if status == 200 else None

    def put(self, room_id: str, kind: str, content: Any, key: str = "", user: str = ALICE) -> None:
        self.ask("PUT", f"rooms/{quote(room_id)}/state/{kind}/{quote(key)}", content, user)

    def join(self, room_id: str, user: str) -> None:
        self.ask("POST", f"join/{quote(room_id)}", {}, user)
