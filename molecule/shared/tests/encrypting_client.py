# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A real encrypting client (matrix-nio with its `e2e` extra), for people who opt in."""

from __future__ import annotations

import ssl
import time
from pathlib import Path
from typing import Any

from ansible_collections.cae.matrix.tests.patience import PROMPT, patient
from nio import AsyncClient, AsyncClientConfig, MatrixRoom, MegolmEvent, RoomMessageText


class EncryptingClient:
    def __init__(self, base_url: str, user_id: str, device_id: str, token: str, store: Path, tls: ssl.SSLContext):
        config = AsyncClientConfig(encryption_enabled=True, store_sync_tokens=True)
        self.client = AsyncClient(base_url, user_id, device_id=device_id, store_path=str(store), config=config, ssl=tls)
        self.client.restore_login(user_id, device_id, token)
        self.read: list[str] = []
        self.unreadable: list[str] = []
        self.client.add_event_callback(self._on_text, RoomMessageText)
        self.client.add_event_callback(self._on_unreadable, MegolmEvent)

    async def __aenter__(self) -> EncryptingClient:
        await self.sync()
        return self

    async def __aexit__(self, *_error: Any) -> None:
        await self.client.close()

    async def _on_text(self, _room: MatrixRoom, event: RoomMessageText) -> None:
        self.read.append(event.body)

    async def _on_unreadable(self, _room: MatrixRoom, event: MegolmEvent) -> None:
        self.unreadable.append(event.event_id)

    async def sync(self) -> None:
        """What a client does between two keystrokes: receive, publish and claim keys, send what waits."""
        await self.client.sync(timeout=0, full_state=True)
        if self.client.should_upload_keys:
            await self.client.keys_upload()
        if self.client.should_query_keys:
            await self.client.keys_query()
        await self.client.send_to_device_messages()

    async def encrypts(self, room_id: str) -> bool:
        await self.sync()
        room = self.client.rooms.get(room_id)
        return room is not None and room.encrypted

    async def turn_encryption_on(self, room_id: str) -> Any:
        return await self.client.room_put_state(room_id, "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"})

    async def say(self, room_id: str, text: str) -> Any:
        return await self.client.room_send(
            room_id, "m.room.message", {"msgtype": "m.text", "body": text}, ignore_unverified_devices=True
        )

    async def hears(self, text: str) -> bool:
        """Whether the text arrives and can be read."""
        begin = time.monotonic()
        while text not in self.read and time.monotonic() - begin < patient(PROMPT):
            await self.client.sync(timeout=1000)
        return text in self.read
