# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who would be cut off from whom by another policy of federation: seen in the database. Nothing is ever written.

A room has no server of its own (room IDs of version 12 have no domain), so servers are those of the people in it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ansible_collections.cae.matrix.plugins.module_utils.encryption.gate import readable
from ansible_collections.cae.matrix.plugins.module_utils.matrix.server_names import matches, server_name_problem

try:
    import psycopg2
except ImportError:
    psycopg2 = None

EVERYBODY = "*"
SCHEMA = "cae.matrix/federation/1"
# What is in force where no run has said so yet.
BEFORE: Mapping[str, Any] = {"profile": "open", "federates": True, "allowed": None, "denied": []}
# How much is listed; the rest is counted.
SERVERS, ROOMS, PEOPLE = 20, 20, 3

# Who takes part: people in rooms that people from here are in or invited to; and who has invited somebody from here
# into a room that this server is not in yet, of which it has no state. One row for each of a server's largest rooms.
# Counted in windows: the planner knows nothing of these sets' sizes, and would join large ones row by row.
_SHARED = """
WITH members AS (
    SELECT room_id, state_key AS person, substring(state_key FROM position(':' IN state_key) + 1) AS server
    FROM current_state_events WHERE type = 'm.room.member' AND membership IN ('join', 'invite')
), counted AS (
    SELECT room_id, person, server, count(*) FILTER (WHERE server = %(domain)s) OVER (PARTITION BY room_id) AS local
    FROM members
    UNION ALL
    SELECT DISTINCT l.room_id, m.sender, substring(m.sender FROM position(':' IN m.sender) + 1),
           count(*) OVER (PARTITION BY l.room_id)
    FROM local_current_membership l JOIN room_memberships m ON m.event_id = l.event_id
    WHERE l.membership = 'invite' AND NOT EXISTS (SELECT FROM current_state_events c WHERE c.room_id = l.room_id)
), others AS (
    SELECT room_id, person, server, local, (row_number() OVER (PARTITION BY person) = 1)::int AS once
    FROM counted WHERE server <> %(domain)s AND local > 0
), shared AS (
    SELECT server, room_id, max(local) AS local, count(*) AS people, sum(once) AS once,
           (array_agg(person ORDER BY person))[1:%(some)s] AS some
    FROM others GROUP BY server, room_id
), placed AS (
    SELECT *, count(*) OVER (PARTITION BY server) AS rooms, sum(once) OVER (PARTITION BY server) AS everybody,
           row_number() OVER (PARTITION BY server ORDER BY local DESC, room_id) AS place
    FROM shared
)
SELECT p.server, p.rooms, p.everybody::int, p.room_id, COALESCE(t.name, t.canonical_alias, ''), p.local, p.people,
       p.some
FROM placed p LEFT JOIN room_stats_state t ON t.room_id = p.room_id
WHERE p.place <= %(rooms)s ORDER BY p.server, p.place
"""


class Unknown(Exception):
    """Whether anything would be lost cannot be seen; the message names the cause and the mend."""


@dataclass(frozen=True)
class SharedRoom:
    """A room with people from here and people of one other server; `some` of these by name."""

    room_id: str
    name: str
    local_people: int
    people: int
    some: tuple[str, ...]


@dataclass(frozen=True)
class Loss:
    """A server that would be out of reach, and what people from here share with it. The largest rooms are listed."""

    server: str
    rooms: int
    people: int
    accepted: bool = False
    listed: tuple[SharedRoom, ...] = ()


def in_force(path: Path) -> Mapping[str, Any]:
    """The policy that role synapse has written last; before it wrote any, everybody could be reached.

    >>> in_force(Path("/nonexistent"))["profile"]
    'open'
    """
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return BEFORE
    except (OSError, ValueError) as error:
        raise Unknown(f"{path}, which says what is in force, cannot be read: {error}. {_look_at(path)}") from None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA or not _is_policy(found):
        raise Unknown(f"{path}, which says what is in force, is not as role synapse writes it. {_look_at(path)}")
    return found


def _look_at(path: Path) -> str:
    return (
        f"Put back the copy in the instance's backup directory, or remove {path.name}: then everybody counts as within "
        "reach so far, and is listed if that ends."
    )


def _is_policy(found: Mapping[str, Any]) -> bool:
    def names(value: object) -> bool:
        return isinstance(value, list) and all(isinstance(one, str) for one in value)

    allowed = found.get("allowed")
    kinds = isinstance(found.get("federates"), bool) and isinstance(found.get("profile"), str)
    return kinds and (allowed is None or names(allowed)) and names(found.get("denied"))


def reaches(policy: Mapping[str, Any], server: str) -> bool:
    """Whether a server is within reach.

    >>> reaches({"federates": True, "allowed": None, "denied": ["*.bad.test"]}, "a.bad.test")
    False
    """
    if not policy["federates"] or any(matches(glob, server) for glob in policy["denied"]):
        return False
    return policy["allowed"] is None or server in policy["allowed"]


def can_lose(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether there can be a server that was within reach and will not be; if not, nobody has to be asked.

    >>> can_lose(BEFORE, {"federates": True, "allowed": ["a.test"], "denied": []}), can_lose(BEFORE, BEFORE)
    (True, False)
    """
    if not before["federates"]:
        return False
    if not after["federates"] or not set(after["denied"]) <= set(before["denied"]):
        return True
    if after["allowed"] is None:
        return False
    return before["allowed"] is None or not set(before["allowed"]) <= set(after["allowed"])


def accepted_problems(accepted: Sequence[object]) -> list[str]:
    """What is wrong with the names of servers whose loss is acknowledged.

    >>> accepted_problems(["*", "a.test", "@ann:a.test"])
    ['federation_accepted_losses: "@ann:a.test" is no server name; the part after the colon in @name:example.coop']
    """
    found = (server_name_problem(name) for name in accepted if name != EVERYBODY)
    return [f"federation_accepted_losses: {text}" for text in found if text]


def read(
    connection: Mapping[str, Any],
    domain: str,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    accepted: Collection[str],
    seconds: int = 300,
) -> list[Loss]:
    """Every server that would be lost, those not acknowledged first. One read-only transaction."""
    if psycopg2 is None:
        raise Unknown(
            "The Python library psycopg2 is missing on the machine, so the database cannot be asked. "
            "Install it: apt install python3-psycopg2."
        )
    try:
        opened = psycopg2.connect(**{"connect_timeout": 10, **connection})
    except psycopg2.Error as error:
        raise Unknown(
            f"The database does not let us in: {_one_line(error)}. See that PostgreSQL runs and lets this user "
            "connect; of an external one, see to postgresql_host and its neighbours."
        ) from None
    try:
        opened.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with opened.cursor() as cursor:
            cursor.execute("SELECT set_config('statement_timeout', %s, true)", (str(seconds * 1000),))
            cursor.execute("SELECT to_regclass('local_current_membership')")
            # Synapse has never run.
            if cursor.fetchone() == (None,):
                return []
            cursor.execute(_SHARED, {"domain": domain, "rooms": ROOMS, "some": PEOPLE})
            return _losses(cursor, before, after, accepted)
    except psycopg2.Error as error:
        raise Unknown(
            f"The database cannot be read: {_one_line(error)}. Look at PostgreSQL's log; see that this is the "
            "database of this instance."
        ) from None
    finally:
        opened.close()


def _losses(
    rows: Iterable[tuple[Any, ...]], before: Mapping[str, Any], after: Mapping[str, Any], accepted: Collection[str]
) -> list[Loss]:
    found = []
    for (server, rooms, people), largest in itertools.groupby(rows, lambda row: row[:3]):
        if reaches(before, server) and not reaches(after, server):
            listed = tuple(
                SharedRoom(room_id, name, local, theirs, tuple(some))
                for _server, _rooms, _people, room_id, name, local, theirs, some in largest
            )
            found.append(Loss(server, rooms, people, server in accepted, listed))
    found.sort(key=lambda one: (one.accepted, -one.people, -one.rooms, one.server))
    return found[:SERVERS] + [replace(one, listed=()) for one in found[SERVERS:]]


def _one_line(error: object) -> str:
    return " ".join(str(error).split()).rstrip(".")


def message(losses: Sequence[Loss], before: str, after: str) -> str:
    """What would be lost, what that means, and how it is acknowledged.

    >>> print(message([Loss("b.test", 1, 2)], "open", "internal").splitlines()[1])
      b.test: 2 people of theirs, in 1 room
    """
    change = f"profile {before}, then {after}" if before != after else f"profile {after}, fewer servers than before"
    shown = losses[:SERVERS]
    # Others have chosen these names, and somebody will paste them into a shell: only what is a server name is offered.
    named = [one.server for one in losses]
    if len(losses) > len(shown) or any(server_name_problem(server) for server in named):
        named = [EVERYBODY]
    lines = [
        f"This run would cut people off from {_count(len(losses), 'server')} that they share rooms with ({change}). "
        "Nothing has been changed."
    ]
    for one in shown:
        lines += _lines(one)
    if len(losses) > len(shown):
        people = sum(one.people for one in losses[len(shown) :])
        lines.append(
            f"  and {_count(len(losses) - len(shown), 'more server')}, with {_count(people, 'person', 'people')}"
        )
    lines += [
        "What it means: the rooms and what was said there stay, but nothing new passes between the people of these "
        "servers and those here, either way, nor can they invite each other. When the servers are within reach again, "
        "the rooms go on, and what was said meanwhile comes with the next message, or when somebody scrolls back.",
        "To prevent it, put back what has changed: matrix_profile, the entry in the list of members, "
        "federation_allowed_servers or federation_denied_servers.",
        f"To go on all the same, for this run: -e '{json.dumps({'federation_accepted_losses': named})}'",
    ]
    return "\n".join(lines)


def _lines(loss: Loss) -> Iterator[str]:
    theirs = _count(loss.people, "person", "people")
    yield f"  {readable(loss.server)}: {theirs} of theirs, in {_count(loss.rooms, 'room')}"
    for room in loss.listed:
        some = ", ".join(readable(person) for person in room.some) + (" …" if room.people > len(room.some) else "")
        name = f'"{readable(room.name)}"' if readable(room.name) else "a room without a name"
        yield f"    {name} ({readable(room.room_id)}): {room.local_people} from here; {room.people} of theirs: {some}"
    if loss.listed and loss.rooms > len(loss.listed):
        yield f"    and {_count(loss.rooms - len(loss.listed), 'more room')}"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
