# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is encrypted on a server already: seen in its database, or through its admin API. Nothing is ever written.

A room ID says nothing of where the room comes from (those of room version 12 have no domain), so a room is local when
the person who made it is.
"""

from __future__ import annotations

import datetime
import json
import time
import urllib.parse
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.cae.matrix.plugins.module_utils.encryption import gate
from ansible_collections.cae.matrix.plugins.module_utils.encryption.attestation import Attestation
from ansible_collections.cae.matrix.plugins.module_utils.encryption.gate import Room
from ansible_collections.cae.matrix.plugins.module_utils.matrix.identifiers import is_service_account, server_of
from ansible_collections.cae.matrix.plugins.module_utils.outside.public_client import PublicClient, Unreachable
from ansible_collections.cae.matrix.plugins.module_utils.outside.transport import is_loopback, token_problem

try:
    import psycopg2
except ImportError:
    psycopg2 = None

TO_DECIDE, ACCEPTED, CHOSEN = "to decide", "accepted", "chosen since"
_PAGE = 100

# Whether a room has ever been encrypted shows in three places: `m.room.encryption` without an algorithm is accepted,
# and then the statistics do not have it; encrypted messages stay when the state is gone.
ENCRYPTED_ROOMS = """
WITH sent AS (
    SELECT e.room_id,
           min(e.origin_server_ts) FILTER (WHERE s.event_id IS NOT NULL) AS turned_on,
           min(e.origin_server_ts) FILTER (WHERE e.type = 'm.room.encrypted') AS first_message
    FROM events e
    LEFT JOIN state_events s ON e.type = 'm.room.encryption' AND s.event_id = e.event_id AND s.state_key = ''
    WHERE e.type IN ('m.room.encryption', 'm.room.encrypted')
    GROUP BY e.room_id
), found (room_id, why) AS (
    SELECT room_id, 'state' FROM current_state_events WHERE type = 'm.room.encryption' AND state_key = ''
    UNION SELECT room_id, 'state' FROM room_stats_state WHERE encryption IS NOT NULL
    UNION SELECT room_id, 'messages' FROM sent WHERE first_message IS NOT NULL
), whys AS (
    SELECT room_id, string_agg('encrypted ' || why, ', ' ORDER BY why DESC) AS why FROM found GROUP BY room_id
), gate AS (SELECT name FROM users WHERE admin = 1 AND name ~ %(service_accounts)s)
SELECT w.room_id, COALESCE(s.name, s.canonical_alias, ''),
       COALESCE(NULLIF(r.creator, ''), (
           SELECT e.sender FROM events e WHERE e.room_id = w.room_id AND e.type = 'm.room.create' LIMIT 1
       ), ''),
       COALESCE(c.joined_members, 0), w.why, COALESCE(m.turned_on, m.first_message), (
           SELECT j.json FROM current_state_events t JOIN event_json j ON j.event_id = t.event_id
           WHERE t.room_id = w.room_id AND t.type = 'm.room.tombstone' AND t.state_key = ''
       )
FROM whys w
LEFT JOIN sent m ON m.room_id = w.room_id
LEFT JOIN rooms r ON r.room_id = w.room_id
LEFT JOIN room_stats_state s ON s.room_id = w.room_id
LEFT JOIN room_stats_current c ON c.room_id = w.room_id
WHERE r.creator IS NULL OR r.creator NOT IN (SELECT name FROM gate)
ORDER BY w.room_id
"""
PEOPLE = """
SELECT name,
       name IN (SELECT user_id FROM e2e_cross_signing_keys WHERE keytype = 'master'),
       name IN (SELECT user_id FROM e2e_room_keys_versions WHERE deleted = 0)
FROM users
WHERE deactivated = 0 AND is_guest = 0 AND appservice_id IS NULL
  AND NOT (admin = 1 AND name ~ %(service_accounts)s)
ORDER BY name
"""


class Unreadable(Exception):
    """The server cannot be audited; `mend` says what to do."""

    def __init__(self, cause: str, mend: str) -> None:
        super().__init__(f"{cause} {mend}")
        self.cause = cause
        self.mend = mend


@dataclass(frozen=True)
class Person:
    """Somebody who has something to do with encryption. None: not to be seen from here."""

    user_id: str
    identity: bool | None
    key_backup: bool | None


@dataclass(frozen=True)
class Findings:
    """What was seen of one server. `people` are those with an identity or a key backup; None counts are unknown."""

    source: str
    domain: str
    rooms: tuple[Room, ...]
    people: tuple[Person, ...]
    accounts: int
    identities: int | None
    key_backups: int | None
    # What could not be seen, and of how many: "key backups", "messages", "identities", "rooms".
    unknown: tuple[tuple[str, int], ...] = ()


def moment(milliseconds: object) -> str:
    """A date as Synapse keeps it, for people; nothing for what is none.

    >>> moment(1795374000000), moment(None), moment(10**30)
    ('2026-11-22T19:00:00Z', '', '')
    """
    if not isinstance(milliseconds, int) or isinstance(milliseconds, bool):
        return ""
    try:
        when = datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC)
    except (ValueError, OverflowError, OSError):
        return ""
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def is_local(creator: str, domain: str) -> bool | None:
    """Whether the room was made here; None where nobody knows who made it."""
    return server_of(creator) == domain if creator and domain else None


def replacement(event: object) -> str:
    """The room that a tombstone leads to."""
    content = event.get("content") if isinstance(event, Mapping) else None
    room = content.get("replacement_room") if isinstance(content, Mapping) else None
    return room if isinstance(room, str) else ""


# -- the database ----------------------------------------------------------------------------------------------------


def read_database(connection: str | Mapping[str, Any], domain: str = "", seconds: int = 300) -> Findings:
    """Everything, in one read-only transaction. `connection` is a URL, or what libpq takes by name."""
    if psycopg2 is None:
        raise Unreadable(
            "The Python library psycopg2 is missing where the database is read from.",
            "Install python3-psycopg2 there (apt install python3-psycopg2), or read from another machine (audit_from).",
        )
    who = {"service_accounts": r"^@encryption-gate(-[0-9]+)?:"}
    try:
        arguments = {"dsn": connection} if isinstance(connection, str) else dict(connection)
        opened = psycopg2.connect(**{"connect_timeout": 10, **arguments})
    except psycopg2.Error as error:
        raise Unreadable(
            f"The database does not let us in: {_one_line(error)}.",
            "See that PostgreSQL runs and lets this user connect from here (pg_hba.conf, firewall), and that the name, "
            "user and password are right (audit_database_url; postgresql_host and its neighbours).",
        ) from None
    try:
        opened.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with opened.cursor() as cursor:
            cursor.execute("SELECT set_config('statement_timeout', %s, true)", (str(seconds * 1000),))
            cursor.execute(PEOPLE, who)
            people = [Person(*row) for row in cursor.fetchall()]
            cursor.execute(ENCRYPTED_ROOMS, who)
            rows = cursor.fetchall()
    except psycopg2.Error as error:
        raise _unreadable(error, seconds) from None
    finally:
        opened.close()
    # Everybody in `users` is local.
    domain = next((server_of(person.user_id) for person in people), domain)
    return Findings(
        source="database",
        domain=domain,
        rooms=tuple(_room(row, domain) for row in rows),
        people=tuple(person for person in people if person.identity or person.key_backup),
        accounts=len(people),
        identities=sum(bool(person.identity) for person in people),
        key_backups=sum(bool(person.key_backup) for person in people),
    )


def _room(row: Sequence[Any], domain: str) -> Room:
    room_id, name, creator, members, why, since, tombstone = row
    # Parsed here: PostgreSQL refuses JSON with a \u0000 in it, which anybody may have written.
    try:
        event = json.loads(tombstone) if tombstone else None
    except RecursionError:
        event = None
    return Room(room_id, name, creator, members, why, moment(since), is_local(creator, domain), replacement(event))


def _unreadable(error: Any, seconds: int) -> Unreadable:
    code = error.pgcode
    if code in ("42P01", "42703", "42883"):
        return Unreadable(
            f"The database is not one that this audit can read: {_one_line(error)}.",
            "Name the database of Synapse itself; if it is that, its Synapse is too old: upgrade it first, or audit it "
            "through its admin API (audit_homeserver_url, audit_admin_token).",
        )
    if code == "42501":
        return Unreadable(
            f"The database user may not read what an audit needs: {_one_line(error)}.",
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO that user, or connect as the one that Synapse uses.",
        )
    if code == "57014":
        return Unreadable(
            f"The database was not read within {seconds} s.",
            "Give it more time (audit_timeout), or read a replica.",
        )
    return Unreadable(f"The database cannot be read: {_one_line(error)}.", "Look at PostgreSQL's log.")


def _one_line(error: object) -> str:
    # libpq tries several addresses, with and without TLS, and says the same of each.
    lines = dict.fromkeys(line.strip() for line in str(error).split("\nLINE ")[0].splitlines())
    return " ".join(" ".join(lines).split()).rstrip(".")


# -- the admin API ---------------------------------------------------------------------------------------------------


class AdminApi:
    """A Synapse that is known by its address and an administrator's token only."""

    def __init__(self, client: PublicClient, url: str, token: str, patience: float = 60.0) -> None:
        self.client = client
        self.url = url.rstrip("/")
        self.token = token
        self.patience = patience
        problem = token_problem(self.url)
        if problem:
            raise Unreadable(problem[0], f"audit_homeserver_url: {problem[1]}")
        split = urllib.parse.urlsplit(self.url)
        # What stands in for DNS must not lead a token off the machine either.
        if split.scheme == "http" and not all(is_loopback(where) for where, _ in client.addresses(str(split.hostname))):
            raise Unreadable(
                f"{self.url} would carry the administrator's token in clear text: matrix_resolve leads elsewhere.",
                "Take that name out of matrix_resolve.",
            )

    def ask(self, path: str, body: Any = None, may_be_gone: bool = False) -> Mapping[str, Any]:
        """The JSON of one answer, or `Unreadable`. Waits when Synapse asks for patience."""
        deadline = time.monotonic() + self.patience
        while True:
            status, answer = self._once(path, body)
            if status == 200 and answer:
                return answer
            if may_be_gone and answer.get("errcode") == "M_NOT_FOUND":
                return {}
            wait = answer.get("retry_after_ms")
            pause = wait / 1000 if isinstance(wait, (int, float)) else 1.0
            if status != 429 or time.monotonic() + pause > deadline:
                raise self._refusal(path.split("?")[0], status, answer)
            time.sleep(pause)

    def _once(self, path: str, body: Any = None) -> tuple[int, Mapping[str, Any]]:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        content = None if body is None else json.dumps(body).encode()
        try:
            response = self.client.request("GET" if body is None else "POST", self.url + path, headers, content)
            answer = response.json() if response.content_type == "application/json" else None
        except Unreachable as error:
            raise Unreadable(error.cause, error.mend) from None
        return response.status, answer if isinstance(answer, Mapping) else {}

    def _refusal(self, path: str, status: int, said: Mapping[str, Any]) -> Unreadable:
        errcode = said.get("errcode")
        if status == 401:
            return Unreadable(
                f"{self.url} does not know the access token ({errcode}).",
                "Log in again with an administrator's account, and put that token into audit_admin_token.",
            )
        if status == 403 and errcode:
            return Unreadable(
                f"The access token is not an administrator's: {self.url}{path} answers 403 {errcode}.",
                "Use the token of a server administrator (users.admin = 1), or the database (audit_database_url).",
            )
        admin = path.startswith("/_synapse/admin")
        if errcode == "M_UNRECOGNIZED" and (not admin or self._once("/_synapse/admin/v1/server_version")[0] == 200):
            return Unreadable(
                f"{self.url} does not know {path}: its Synapse is too old for this audit, or it is no Synapse.",
                "Upgrade it first, or audit its database (audit_database_url).",
            )
        if status in (403, 404) and admin:
            return Unreadable(
                f"{self.url}{path} answers {status}: the proxy in front keeps the admin API from the outside.",
                "Ask Synapse's own listener on the machine (audit_homeserver_url: http://localhost:8008, audit_from), "
                "or its database (audit_database_url).",
            )
        return Unreadable(
            f"{self.url}{path} answers {status} {errcode or ''}".rstrip() + ".",
            "See that audit_homeserver_url leads to Synapse, and read its log.",
        )

    def pages(self, path: str, key: str, token: str) -> Iterable[Mapping[str, Any]]:
        """All of a list that comes in pages."""
        start: Any = 0
        while start is not None:
            answer = self.ask(f"{path}limit={_PAGE}&from={urllib.parse.quote(str(start), safe='')}")
            page = [one for one in answer.get(key) or [] if isinstance(one, Mapping)]
            yield from page
            start = answer.get(token) if page else None

    def state(self, room_id: str, kind: str = "") -> list[Mapping[str, Any]]:
        """The state of a room; `kind` alone where the server can select (others send all of it).

        A room that somebody has deleted since it was listed has none.
        """
        wanted = f"?type={kind}" if kind else ""
        path = f"/_synapse/admin/v1/rooms/{urllib.parse.quote(room_id, safe='')}/state{wanted}"
        answer = self.ask(path, may_be_gone=True)
        return [
            event for event in answer.get("state") or [] if isinstance(event, Mapping) and not event.get("state_key")
        ]


def read_admin_api(api: AdminApi, room_limit: int = 2000) -> Findings:
    """What HTTP can tell. What it cannot is named in `unknown`, and not counted as none."""
    domain = server_of(str(api.ask("/_matrix/client/v3/account/whoami").get("user_id")))
    everybody = list(api.pages("/_synapse/admin/v2/users?guests=false&locked=true&", "users", "next_token"))
    ours = {one.get("name") for one in everybody if one.get("admin") and is_service_account(one.get("name"), domain)}
    people = [str(one["name"]) for one in everybody if one.get("name") not in ours]
    identities, unseen = _identities(api, people)
    unknown = [("key backups", len(people)), ("messages", 0)]
    if unseen:
        unknown.append(("identities", unseen))

    listed = {str(one["room_id"]): one for one in api.pages("/_synapse/admin/v1/rooms?", "rooms", "next_batch")}
    others = {room_id: one for room_id, one in listed.items() if one.get("creator") not in ours}
    encrypted = [room_id for room_id, one in others.items() if one.get("encryption") is not None]
    # `m.room.encryption` without an algorithm is not in the list: each room has to be asked, up to a limit.
    plain = [room_id for room_id, one in others.items() if one.get("encryption") is None]
    encrypted += [
        room_id for room_id in plain[:room_limit] if _event(api.state(room_id, gate.ENCRYPTION), gate.ENCRYPTION)
    ]
    if len(plain) > room_limit:
        unknown.append(("rooms", len(plain) - room_limit))
    return Findings(
        source="admin API",
        domain=domain,
        rooms=tuple(_listed_room(others[room_id], api.state(room_id), domain) for room_id in sorted(encrypted)),
        people=tuple(Person(name, True, None) for name in identities),
        accounts=len(people),
        identities=len(identities) if unseen < len(people) or not people else None,
        key_backups=None,
        unknown=tuple(unknown),
    )


def _identities(api: AdminApi, people: Sequence[str]) -> tuple[list[str], int]:
    """Who has a master key, and how many people the server does not show."""
    found, unseen = [], 0
    for start in range(0, len(people), _PAGE):
        asked = people[start : start + _PAGE]
        answer = api.ask("/_matrix/client/v3/keys/query", {"device_keys": {name: [] for name in asked}})
        found += [name for name in asked if name in (answer.get("master_keys") or {})]
        unseen += sum(name not in (answer.get("device_keys") or {}) for name in asked)
    return found, unseen


def _event(state: Iterable[Mapping[str, Any]], kind: str) -> Mapping[str, Any]:
    return next((event for event in state if event.get("type") == kind), {})


def _listed_room(listed: Mapping[str, Any], state: Sequence[Mapping[str, Any]], domain: str) -> Room:
    creator = str(listed.get("creator") or _event(state, "m.room.create").get("sender") or "")
    return Room(
        room_id=str(listed["room_id"]),
        name=str(listed.get("name") or listed.get("canonical_alias") or ""),
        creator=creator,
        members=int(listed.get("joined_members") or 0),
        why="encrypted state",
        since=moment(_event(state, gate.ENCRYPTION).get("origin_server_ts")),
        local=is_local(creator, domain),
        replaced_by=replacement(_event(state, "m.room.tombstone")),
    )


# -- what it means ---------------------------------------------------------------------------------------------------


def judge(found: Findings, accepted: Collection[str] = (), attested: Attestation | None = None) -> dict[str, Any]:
    """The audit of one server, as plain data.

    Once a server is attested its verdict is the attestation's: rooms that it did not accept were plain or not there
    then, so whatever is encrypted now was chosen since.
    """
    let_pass = attested.accepted_rooms if attested else accepted
    counted = gate.verdict(found.rooms, found.identities or 0, found.key_backups or 0, let_pass)
    absent = [] if attested else gate.not_encrypted(accepted, found.rooms)
    standing = {
        room.room_id: ACCEPTED if room.room_id in let_pass else CHOSEN if attested else TO_DECIDE
        for room in found.rooms
    }
    open_rooms = [room for room in found.rooms if standing[room.room_id] == TO_DECIDE]
    if attested:
        steps = ["attested"]
    elif open_rooms:
        steps = ["replace"] if any(room.local is not False and not room.replaced_by for room in open_rooms) else []
        steps += ["remote"] if any(room.local is False for room in open_rooms) else []
        steps += ["replaced"] if any(room.replaced_by for room in open_rooms) else []
        steps += ["accept"]
    else:
        steps = [{gate.ACCEPTED: "accepted", gate.MENDABLE: "help people", gate.IN_TIME: "go on"}[counted]]
    steps += ["take out"] if absent else []
    return {
        "verdict": attested.verdict if attested else counted,
        "source": found.source,
        "domain": found.domain,
        "attested": attested.first_attested_at if attested else None,
        "counts": {
            "accounts": found.accounts,
            "identities": found.identities,
            "key_backups": found.key_backups,
            "encrypted_rooms": len(found.rooms),
            "rooms_to_decide": len(open_rooms),
        },
        "rooms": [{**asdict(room), "standing": standing[room.room_id]} for room in found.rooms],
        "people": [asdict(person) for person in found.people],
        "accepted_in_vain": absent,
        "unknown": [{"what": what, "number": number} for what, number in found.unknown],
        "steps": steps,
    }
