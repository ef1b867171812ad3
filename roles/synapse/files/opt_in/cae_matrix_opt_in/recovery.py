# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Keeps clients from asking about recovery keys for as long as somebody takes part in no encrypted room.

Who takes part is read from the database: it knows the rooms that came to be while Synapse was down, on another worker,
or on another server. One process looks there, the one that runs Synapse's background tasks.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.cae.matrix.plugins.module_utils.encryption.gate import ENCRYPTION
from ansible_collections.cae.matrix.plugins.module_utils.matrix.identifiers import is_service_account
from synapse.module_api import ModuleApi

from . import record

logger = logging.getLogger(__name__)

RECOVERY = "io.element.recovery"
NOT_ASKED = {"enabled": False}
KEY = "m.secret_storage.default_key"
# True: RECOVERY was set to NOT_ASKED. False: that was undone, or is never to be done.
MARK = "cae.matrix.recovery_deferred"

_EVERY_MS = 500
_PAGE = 100

_PEOPLE = """
    SELECT u.name, m.content, r.content, k.content, EXISTS (
        SELECT 1 FROM local_current_membership AS l
        JOIN current_state_events AS e ON e.room_id = l.room_id AND e.type = ? AND e.state_key = ''
        WHERE l.user_id = u.name AND l.membership = 'join'
    )
    FROM users AS u
    LEFT JOIN account_data AS m ON m.user_id = u.name AND m.account_data_type = ?
    LEFT JOIN account_data AS r ON r.user_id = u.name AND r.account_data_type = ?
    LEFT JOIN account_data AS k ON k.user_id = u.name AND k.account_data_type = ?
    WHERE u.deactivated = 0 AND u.is_guest = 0 AND (u.appservice_id IS NULL OR u.appservice_id = '')
"""
_TYPES = (ENCRYPTION, MARK, RECOVERY, KEY)
_ONE = _PEOPLE + " AND u.name = ?"
_NEXT = _PEOPLE + " AND u.name > ? ORDER BY u.name LIMIT ?"
# Local people who came or went somewhere, and those in a room whose encryption changed.
_CONCERNED = """
    SELECT u.name FROM current_state_delta_stream AS d
    JOIN users AS u ON u.name = d.state_key
    WHERE d.stream_id > ? AND d.stream_id <= ? AND d.type = 'm.room.member'
    UNION
    SELECT l.user_id FROM current_state_delta_stream AS d
    JOIN local_current_membership AS l ON l.room_id = d.room_id AND l.membership = 'join'
    WHERE d.stream_id > ? AND d.stream_id <= ? AND d.type = ? AND d.state_key = ''
"""
# Encryption that did not come with the room: at creation, and where this server joins, the join rules come along.
_TURNED_ON = """
    SELECT d.room_id, e.sender FROM current_state_delta_stream AS d
    JOIN events AS e ON e.event_id = d.event_id
    WHERE d.stream_id > ? AND d.stream_id <= ? AND d.type = ? AND d.state_key = '' AND d.prev_event_id IS NULL
    AND NOT EXISTS (
        SELECT 1 FROM current_state_delta_stream AS c
        WHERE c.room_id = d.room_id AND c.stream_id = d.stream_id AND c.type = 'm.room.join_rules'
        AND c.prev_event_id IS NULL
    )
"""


@dataclass(frozen=True)
class Person:
    """What the database says about somebody."""

    user_id: str
    mark: Any
    recovery: Any
    key: Any
    takes_part: bool

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> Person:
        mark, recovery, key = (None if text is None else json.loads(text) for text in row[1:4])
        return cls(row[0], mark, recovery, key, bool(row[4]))

    def wanted(self) -> list[tuple[str, dict[str, Any]]]:
        """The account data to write, in this order: whatever interrupts it, the next look finishes it."""
        if self.mark is None:
            if self.takes_part or self.recovery is not None or self.key:
                return [(MARK, {"enabled": False})]
            return [(MARK, {"enabled": True}), (RECOVERY, NOT_ASKED)]
        if self.mark.get("enabled") is not True:
            return []
        if self.takes_part:
            mark: tuple[str, dict[str, Any]] = (MARK, {"enabled": False})
            return [(RECOVERY, {}), mark] if self.recovery == NOT_ASKED else [mark]
        return [(RECOVERY, NOT_ASKED)] if self.recovery is None else []


class Recovery:
    """Sets and takes back what keeps clients from asking."""

    def __init__(self, api: ModuleApi) -> None:
        self._api = api
        # What no public interface gives: up to where the stream of events is complete.
        self._store = api._hs.get_datastores().main
        self._position: int | None = None
        self._failing = False
        if api.should_run_background_tasks():
            api.looping_background_call(self._follow, _EVERY_MS, desc="cae_matrix_opt_in_follow")

    async def on_user_registration(self, user_id: str) -> None:
        """Somebody new. The account is there: whatever goes wrong here must not take it back."""
        try:
            for person in await self._look(_ONE, user_id):
                await self._settle(person)
        except Exception:
            logger.exception("Could not defer recovery for %s; it is done when they first come into a room", user_id)

    async def _follow(self) -> None:
        try:
            position = self._store.get_room_max_stream_ordering()
            if self._position is None:
                await self._compare()
            elif self._position < position:
                await self._catch_up(self._position, position)
            self._position = position
            self._failing = False
        except Exception as error:
            # Without its database, Synapse has more to say than this.
            if not self._failing:
                logger.warning("Cannot follow who takes part in encrypted rooms, trying again: %s", error)
            self._failing = True

    async def _compare(self) -> None:
        """Everybody, once: those who were there before this module, and what happened while Synapse was down."""
        deferred, last = 0, ""
        while True:
            people = await self._look(_NEXT, last, _PAGE)
            for person in people:
                deferred += await self._settle(person)
            if len(people) < _PAGE:
                break
            last = people[-1].user_id
        if deferred:
            logger.info("Recovery is deferred for %d people who take part in no encrypted room", deferred)

    async def _catch_up(self, since: int, until: int) -> None:
        def look(txn: Any) -> tuple[list[Person], list[Sequence[Any]]]:
            concerned = _rows(txn, _CONCERNED, since, until, since, until, ENCRYPTION)
            people = [row for (user_id,) in concerned for row in _rows(txn, _ONE, *_TYPES, user_id)]
            return list(map(Person.from_row, people)), _rows(txn, _TURNED_ON, since, until, ENCRYPTION)

        people, turned_on = await self._api.run_db_interaction("cae_matrix_opt_in", look)
        for person in people:
            await self._settle(person)
        for room_id, sender in turned_on:
            if not is_service_account(sender):
                record.opt_in("later", "encryption was turned on in %s by %s", room_id, sender)

    async def _settle(self, person: Person) -> bool:
        """Writes what is missing; whether recovery was deferred by it."""
        if is_service_account(person.user_id):
            return False
        wanted = person.wanted()
        for data_type, content in wanted:
            await self._api.account_data_manager.put_global(person.user_id, data_type, content)
        return (RECOVERY, NOT_ASKED) in wanted

    async def _look(self, query: str, *arguments: Any) -> list[Person]:
        rows = await self._api.run_db_interaction("cae_matrix_opt_in", _rows, query, *_TYPES, *arguments)
        return list(map(Person.from_row, rows))


def _rows(txn: Any, query: str, *arguments: Any) -> list[Sequence[Any]]:
    txn.execute(query, arguments)
    return list(txn.fetchall())
