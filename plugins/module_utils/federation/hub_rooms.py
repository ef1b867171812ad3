# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rooms of the federation's hub: a space, a room per theme and a room per member.

Pure functions, used by the filter C(federation_rooms).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

RECORD = "cae.matrix/federation-rooms/1"
# What people read, by language: the space's topic, and that of a member's room.
WORDS = {
    "fr": {
        "space": "Les salons de la fédération : un par thème, et un par membre.",
        "member": "{name} ({domain}) : son salon, ouvert à tous les membres de la fédération.",
    },
    "en": {
        "space": "The federation's rooms: one for each theme, and one for each member.",
        "member": "{name} ({domain}): its room, open to all members of the federation.",
    },
}


class RoomsError(Exception):
    """No rooms follow from these variables; the message holds every reason, each with its mend."""


def servers(members: Mapping[str, Any]) -> list[str]:
    """Who can take part in the federation's rooms: the hub, and members who talk to others at all.

    >>> servers({"hub": "hub.example", "members": [{"domain": "a.example", "profile": "internal"}]})
    ['hub.example']
    """
    return sorted({members["hub"], *(one["domain"] for one in _with_a_room(members))})


def federation_rooms(
    members: Mapping[str, Any],
    record: Mapping[str, Any] | None = None,
    space: Mapping[str, Any] | None = None,
    themes: Sequence[Mapping[str, Any]] = (),
    declared: Sequence[Mapping[str, Any]] = (),
    language: str = "fr",
) -> dict[str, Any]:
    """What the hub has rooms for, as module C(matrix_room) takes it, and the record of which room is whose.

    A member keeps the alias that it was once given, whoever joins or leaves later. The room of one that has left is
    closed.

    Args:
        members: C(federation_list).
        record: what this returned as C(record) on the run before; nothing on the first.
        space: C(federation_space).
        themes: C(federation_rooms).
        declared: other rooms of the hub (C(rooms_declared)), whose aliases are taken.
        language: C(fr) or C(en).

    >>> found = federation_rooms({"hub": "hub.example", "name": "CAE", "members": [
    ...     {"domain": "atelier.example", "name": "Atelier", "profile": "open"}]})
    >>> [room["alias"] for room in found["rooms"]], found["record"]["members"]
    (['federation', 'atelier'], {'atelier.example': 'atelier'})
    """
    words = WORDS.get(language, WORDS["fr"])
    the_space = {"alias": "federation", "name": members["name"], "topic": words["space"], **(space or {})}
    given = dict((record or {}).get("members", {}))
    taken = _taken(the_space, themes, declared, given)

    allowed = {"allow": servers(members)}
    common = {"join": "public", "parents": [the_space["alias"]], "write": "everyone", "servers": allowed}
    rooms = [{"kind": "space", "join": "public", "write": "administrators", "servers": allowed, **the_space}]
    rooms += [dict(theme) if theme.get("state") == "absent" else {**common, **theme} for theme in themes]
    present = _with_a_room(members)
    for member in present:
        alias = given.setdefault(member["domain"], _free_alias(member["domain"], taken))
        taken.add(alias)
        topic = words["member"].format(name=member["name"], domain=member["domain"])
        rooms.append({**common, "alias": alias, "name": member["name"], "topic": topic})
    here = {member["domain"] for member in present}
    rooms += [{"alias": alias, "state": "absent"} for domain, alias in sorted(given.items()) if domain not in here]
    return {"rooms": rooms, "record": {"schema": RECORD, "members": dict(sorted(given.items()))}}


def _with_a_room(members: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The hub has the themes' rooms, and nobody outside could come into the room of a server that is for itself."""
    return [
        one
        for one in members["members"]
        if one["domain"] != members["hub"] and one.get("profile", "open") != "internal"
    ]


def _taken(
    space: Mapping[str, Any],
    themes: Sequence[Mapping[str, Any]],
    declared: Sequence[Mapping[str, Any]],
    given: Mapping[str, str],
) -> set[str]:
    """The aliases that no new member can have, or `RoomsError` when two things have the same."""
    whose: dict[str, list[str]] = {}
    for alias, what in (
        (space["alias"], "federation_space"),
        *((theme["alias"], "federation_rooms") for theme in themes),
        *((room["alias"], "rooms_declared") for room in declared),
        *((alias, f"the room of {domain}") for domain, alias in given.items()),
    ):
        whose.setdefault(alias, []).append(what)
    problems = [
        f'"{alias}" is the alias of {" and of ".join(owners)}; give {_to_mend(owners)} another'
        for alias, owners in whose.items()
        if len(owners) > 1
    ]
    if problems:
        raise RoomsError("federation_rooms: " + "; ".join(problems))
    return set(whose)


def _to_mend(owners: Sequence[str]) -> str:
    """Never the members' rooms: people have come into them already."""
    return next(owner for owner in reversed(owners) if not owner.startswith("the room of"))


def _free_alias(domain: str, taken: set[str]) -> str:
    """The first label of the domain where it is free, else more of it."""
    whole = domain.replace(".", "-")
    numbered = (f"{whole}-{number}" for number in itertools.count(2))
    return next(alias for alias in itertools.chain((domain.split(".")[0], whole), numbered) if alias not in taken)
