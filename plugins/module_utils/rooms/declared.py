# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rooms and spaces as declared, and what has to be changed for them to be so.

Pure functions; the module C(matrix_room) does the looking and the work.
"""

from __future__ import annotations

import bisect
import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.cae.matrix.plugins.module_utils.encryption.remedy import (
    CANONICAL,
    CHILD,
    CREATE,
    POWER,
    Room,
    closed_powers,
    level,
    mapping,
)
from ansible_collections.cae.matrix.plugins.module_utils.matrix.identifiers import (
    LOCALPART,
    is_service_account,
    server_of,
)
from ansible_collections.cae.matrix.plugins.module_utils.matrix.server_names import matches, server_name_problem

# Key in m.room.create: the alias that the room was made for.
MARK = "cae.matrix.room"
# Key in m.space.child: the alias of the other server's room that stands there because it was declared.
LINK = "cae.matrix.link"
# Key in the message that says that a room is closed.
CLOSED = "cae.matrix.closed"

NAME, TOPIC, JOIN_RULES = "m.room.name", "m.room.topic", "m.room.join_rules"
HISTORY, GUESTS, ACL, PARENT = "m.room.history_visibility", "m.room.guest_access", "m.room.server_acl", "m.space.parent"

MODERATOR, ADMINISTRATOR = 50, 100
WRITE = {"everyone": 0, "moderators": MODERATOR, "administrators": ADMINISTRATOR}
# What people write with, where a room gives it a level of its own.
WRITING = ("m.room.message", "m.room.encrypted", "m.sticker")

CLOSING = (
    "Ce salon est fermé : on ne peut plus y écrire ni y entrer. Ce qui y a été dit reste là pour ses membres.\n"
    "This room is closed: nobody can write here or come in any more. What was said stays here for its members."
)
REFUSED = (
    "Votre serveur ne participe plus à ce salon. Vos autres conversations ne changent pas. / "
    "Your server no longer takes part in this room. Your other conversations do not change."
)

_ALIAS = re.compile(r"#[^\s:]+:\S+")
_USER = re.compile(r"@[^\s:]+:(\S+)")
_PORT = re.compile(r":[0-9]{1,5}\Z")
_STEP = 1 << 16
_ORDER = re.compile(r"[0-9]{10}")


@dataclass(frozen=True)
class Declared:
    """One room or space of the list. None is what is left as people made it."""

    alias: str
    absent: bool
    is_space: bool
    name: str
    topic: str | None
    join: str | None
    parents: tuple[str, ...] | None
    links: tuple[str, ...] | None
    write: str | None
    moderators: tuple[str, ...]
    administrators: tuple[str, ...]
    history: str | None
    listed: bool | None
    acl: Mapping[str, Any] | None

    @classmethod
    def read(cls, entry: Mapping[str, Any], domain: str) -> Declared:
        """An entry, as Ansible gives it."""
        parents, links, servers = entry.get("parents"), entry.get("links"), entry.get("servers")
        return cls(
            alias=entry["alias"],
            absent=entry.get("state") == "absent",
            is_space=entry.get("kind") == "space",
            name=entry.get("name") or "",
            topic=entry.get("topic"),
            join=entry.get("join"),
            parents=None if parents is None else tuple(parents),
            links=None if links is None else tuple(links),
            write=entry.get("write"),
            moderators=tuple(entry.get("moderators") or ()),
            administrators=tuple(entry.get("administrators") or ()),
            history=entry.get("history"),
            listed=entry.get("listed"),
            acl=None if servers is None else access(servers.get("allow"), servers.get("deny"), domain),
        )

    @property
    def kind(self) -> str:
        return "space" if self.is_space else "room"


@dataclass(frozen=True)
class Change:
    """One state event to be sent."""

    kind: str
    key: str
    content: Mapping[str, Any]
    words: str


def access(allow: Sequence[str] | None, deny: Sequence[str] | None, domain: str) -> dict[str, Any]:
    """m.room.server_acl; this server always takes part.

    >>> access(["a.example"], [], "b.example")
    {'allow': ['a.example', 'b.example'], 'allow_ip_literals': False, 'deny': []}
    """
    allowed = _hosts(["*"] if allow is None else allow)
    if _PORT.search(domain) or not any(matches(glob, domain) for glob in allowed):
        allowed.append(domain)
    return {"allow": allowed, "allow_ip_literals": _is_address(domain), "deny": _hosts(deny or ())}


def _hosts(names: Iterable[str]) -> list[str]:
    """Servers are compared without their ports."""
    return list(dict.fromkeys(_PORT.sub("", name) for name in names))


def refused(acl: Mapping[str, Any], server: str) -> bool:
    """Whether a server may not take part.

    >>> acl = access(["*.example"], ["bad.example"], "b.example")
    >>> [refused(acl, one) for one in ("a.example", "a.example:8448", "bad.example", "other.test", "192.0.2.1")]
    [False, False, True, True, True]
    """
    if not acl.get("allow_ip_literals", True) and _is_address(server):
        return True
    if any(matches(glob, server) for glob in acl.get("deny", ())):
        return True
    return not any(matches(glob, server) for glob in acl.get("allow", ()))


def _is_address(server: str) -> bool:
    if server.startswith("["):
        return True
    try:
        ipaddress.IPv4Address(server.partition(":")[0])
    except ValueError:
        return False
    return True


# -- what is wrong with the list --------------------------------------------------------------------------------------


def problems(entries: Sequence[Mapping[str, Any]], owner: str, domain: str) -> list[str]:
    """Why these rooms cannot be made, each reason with its entry.

    >>> problems([{"alias": "accueil", "name": "Accueil", "join": "space"}], "amina", "coop.example")
    ['rooms[1] (accueil): join is space, and parents names none; name the space, or choose invite']
    """
    found = []
    if not LOCALPART.fullmatch(owner) or is_service_account(f"@{owner}:{domain}"):
        found.append(
            f'owner: "{owner}" is no localpart of a person; name an account that exists, such as the first of '
            "encryption_gate_administrators"
        )
    by_alias: dict[str, Mapping[str, Any]] = {}
    for number, entry in enumerate(entries, 1):
        label = f"rooms[{number}] ({entry['alias']})"
        own = [] if entry["alias"] not in by_alias else ["that alias is there twice; each room has its own"]
        by_alias.setdefault(entry["alias"], entry)
        own += _problems(entry, domain)
        found += [f"{label}: {text}" for text in own]
    for number, entry in enumerate(entries, 1):
        found += [f"rooms[{number}] ({entry['alias']}): {text}" for text in _parent_problems(entry, by_alias)]
    return found


def _problems(entry: Mapping[str, Any], domain: str) -> Iterator[str]:
    alias = entry["alias"]
    if alias.startswith("#") or ":" in alias:
        localpart, _, server = alias.lstrip("#").partition(":")
        if server in ("", domain):
            yield f"the alias is written without # and domain: {localpart}"
        else:
            yield f"it is an alias of {server}; only rooms of {domain} can be made here (links show others in a space)"
    elif not alias or re.search(r"\s", alias) or not alias.isprintable():
        yield "the alias is empty or has spaces in it"
    elif len(f"#{alias}:{domain}".encode()) > 255:
        yield "the alias is too long; with the domain, 255 bytes at most"
    if entry.get("state") == "absent":
        return
    if not (entry.get("name") or "").strip():
        yield "name is missing"
    for option in ("moderators", "administrators"):
        for user in entry.get(option) or ():
            matched = _USER.fullmatch(user)
            wrong = server_name_problem(matched[1]) if matched else "write it as @name:example.coop"
            if wrong:
                yield f'{option}: "{user}" is nobody; {wrong}'
    links = entry.get("links") or ()
    if links and entry.get("kind") != "space":
        yield "links are for spaces; set kind: space, or take them away"
    for link in links:
        wrong = server_name_problem(server_of(link)) if _ALIAS.fullmatch(link) else "write it as #name:example.coop"
        if wrong:
            yield f'links: "{link}" is no alias; {wrong}'
        elif server_of(link) == domain:
            yield f'links: "{link}" is on this server; name the space in the parents of that room instead'
        elif links.count(link) > 1:
            yield f'links: "{link}" is there twice'
    servers = entry.get("servers") or {}
    for option in ("allow", "deny"):
        for glob in servers.get(option) or ():
            if wrong := server_name_problem(glob, glob=True):
                yield f"servers.{option}: {wrong}"
            elif option == "deny" and matches(glob, domain):
                yield f'servers.deny: "{glob}" is this server as well, which would shut itself out of its own room'


def _parent_problems(entry: Mapping[str, Any], by_alias: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    if entry.get("state") == "absent":
        return
    parents = entry.get("parents") or ()
    if entry.get("join") == "space" and not parents:
        yield "join is space, and parents names none; name the space, or choose invite"
    for parent in parents:
        space = by_alias.get(parent)
        if parents.count(parent) > 1:
            yield f'parents: "{parent}" is there twice'
        elif space is None:
            yield f'parents: "{parent}" is none of these rooms'
        elif space.get("kind") != "space":
            yield f'parents: "{parent}" is no space; give it kind: space'
        elif space.get("state") == "absent":
            yield f'parents: "{parent}" is to be absent'
    around = _around(entry["alias"], by_alias)
    if around:
        yield f"it would be inside itself: {' in '.join(around)}"


def _around(alias: str, by_alias: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A way from a space to itself through its parents."""
    ways, seen = [[alias]], set()
    while ways:
        way = ways.pop()
        for parent in by_alias.get(way[-1], {}).get("parents") or ():
            if parent == alias:
                return [*way, alias]
            if parent not in seen:
                seen.add(parent)
                ways.append([*way, parent])
    return []


def parents_first(rooms: Sequence[Declared]) -> list[Declared]:
    """In an order in which they can be made.

    >>> room = {"alias": "a", "parents": ["b"]}, {"alias": "b", "kind": "space"}
    >>> [one.alias for one in parents_first([Declared.read(one, "c.example") for one in room])]
    ['b', 'a']
    """
    by_alias = {one.alias: one for one in rooms}
    ordered: dict[str, Declared] = {}

    def take(one: Declared) -> None:
        for parent in one.parents or ():
            take(by_alias[parent])
        ordered.setdefault(one.alias, one)

    for one in rooms:
        take(one)
    return list(ordered.values())


# -- what has to change -----------------------------------------------------------------------------------------------


def unmade(version: str, domain: str) -> Room:
    """A room that is yet to be made: its identifier will be of the kind that its version has.

    >>> unmade("11", "a.example").creators_reign, unmade("12", "a.example").creators_reign
    (False, True)
    """
    return Room("!" if level(version) >= 12 else f"!:{domain}", [])


def made_for(room: Room) -> str:
    """The alias that this module made a room for, if it did."""
    mark = room.content(CREATE).get(MARK)
    return mark if isinstance(mark, str) else ""


def changes(one: Declared, room: Room, fresh: bool, ids: Mapping[str, str], owner: str, domain: str) -> list[Change]:
    """The states that have to be sent for a room to be as declared.

    Args:
        one: what is declared.
        room: what there is; without events, all of a new room.
        fresh: whether the room was made by us, so that what is missing was interrupted, and begins as a new one does.
        ids: the identifiers of the rooms that are declared, by alias.
        owner: who makes it.
        domain: this server.
    """
    found: list[Change] = []

    def want(kind: str, content: Mapping[str, Any] | None, words: str, key: str = "") -> None:
        if content is not None and (room.content(kind, key) != content or (fresh and (kind, key) not in room.events)):
            found.append(Change(kind, key, content, words))

    missing = {kind for kind in (JOIN_RULES, HISTORY, GUESTS) if fresh and (kind, "") not in room.events}
    # First of all, so that nobody comes in whom it refuses.
    want(ACL, one.acl, "set which servers can take part")
    powers = wanted_powers(one, room, fresh, owner)
    if powers != room.powers or (fresh and (POWER, "") not in room.events):
        found.append(Change(POWER, "", powers, "set who can write, moderate and administer"))
    if room.name != one.name:
        want(NAME, {"name": one.name}, f"name it {one.name}")
    if one.topic is not None and str(room.content(TOPIC).get("topic", "")) != one.topic:
        want(TOPIC, {"topic": one.topic} if one.topic else {}, "set the topic")
    join = one.join or ("invite" if JOIN_RULES in missing else None)
    if join and (join == "space" or room.content(JOIN_RULES).get("join_rule") != join):
        want(JOIN_RULES, join_rule(join, [ids[parent] for parent in one.parents or ()]), "set who can come in")
    history = one.history or ("shared" if HISTORY in missing else None)
    if history and room.content(HISTORY).get("history_visibility") != history:
        want(HISTORY, {"history_visibility": history}, "set who can read what was said before")
    if GUESTS in missing:
        want(GUESTS, {"guest_access": "forbidden"}, "keep out guests without an account")
    shown = room.content(CANONICAL)
    if not shown.get("alias"):
        want(CANONICAL, {**shown, "alias": f"#{one.alias}:{domain}"}, "show the alias")
    for number, alias in enumerate(one.parents or ()):
        content = room.content(PARENT, ids[alias])
        content["via"] = through(content.get("via"), domain)
        if number == 0 and (PARENT, ids[alias]) not in room.events:
            content["canonical"] = True
        want(PARENT, content, f"name the space {alias} in it", ids[alias])
    for alias, parent in ids.items():
        if one.parents is not None and alias not in one.parents and room.content(PARENT, parent):
            want(PARENT, {}, f"no longer name the space {alias} in it", parent)
    return found


def join_rule(join: str, spaces: Sequence[str]) -> dict[str, Any]:
    """m.room.join_rules.

    >>> join_rule("space", ["!a"])
    {'join_rule': 'restricted', 'allow': [{'type': 'm.room_membership', 'room_id': '!a'}]}
    """
    if join != "space":
        return {"join_rule": join}
    return {
        "join_rule": "restricted",
        "allow": [{"type": "m.room_membership", "room_id": space} for space in spaces],
    }


def through(via: object, domain: str) -> list[str]:
    """The servers through which a room can be joined, this one among them.

    >>> through(["a.example"], "b.example"), through(None, "b.example")
    (['b.example', 'a.example'], ['b.example'])
    """
    known = [one for one in via if isinstance(one, str)] if isinstance(via, list) else []
    return known if domain in known else [domain, *known]


def first_powers(one: Declared, creators_reign: bool, owner: str) -> dict[str, Any]:
    """Those of a new room, as Synapse gives them; everybody can invite into a room that is entered by invitation."""
    return {
        "users": {} if creators_reign else {owner: ADMINISTRATOR},
        "users_default": 0,
        "events": {
            NAME: 50,
            POWER: 100,
            HISTORY: 100,
            CANONICAL: 50,
            "m.room.avatar": 50,
            "m.room.tombstone": 150 if creators_reign else 100,
            ACL: 100,
            "m.room.encryption": 100,
        },
        "events_default": 0,
        "state_default": 50,
        "ban": 50,
        "kick": 50,
        "redact": 50,
        "invite": 0 if (one.join or "invite") == "invite" else 50,
        "historical": 100,
    }


def wanted_powers(one: Declared, room: Room, fresh: bool, owner: str) -> dict[str, Any]:
    """The powers that there are, with those that are declared. Nobody who was given more loses it."""
    begins = fresh and (POWER, "") not in room.events
    creators = room.creators if room.events else [owner]
    powers = first_powers(one, room.creators_reign, creators[0]) if begins else room.powers
    users = mapping(powers.get("users"))
    for people, least in ((one.moderators, MODERATOR), (one.administrators, ADMINISTRATOR)):
        for user in people:
            if not (room.creators_reign and user in creators):
                users[user] = max(level(users.get(user), level(powers.get("users_default"))), least)
    powers["users"] = users
    if one.write is not None:
        needed = WRITE[one.write]
        if level(powers.get("events_default")) != needed:
            powers["events_default"] = needed
        events = mapping(powers.get("events"))
        powers["events"] = events | {kind: needed for kind in WRITING if kind in events}
    return powers


def outsiders(acl: Mapping[str, Any] | None, room: Room, domain: str) -> list[str]:
    """People in the room, invited or at its door, whose server the room refuses."""
    if acl is None:
        return []
    people = room.members("join", "invite", "knock")
    servers = {server_of(user) for user in people} - {domain}
    out = {server for server in servers if refused(acl, server)}
    return [user for user in people if server_of(user) in out]


def closing(room: Room, alias: str) -> list[Change]:
    """The states of a room in which nothing happens any more."""
    found = []
    powers = closed_powers(room)
    if powers != room.powers:
        found.append(Change(POWER, "", powers, "take the right to write"))
    if room.content(JOIN_RULES).get("join_rule") != "invite":
        found.append(Change(JOIN_RULES, "", join_rule("invite", ()), "let nobody in any more"))
    found += [Change(PARENT, space, {}, "take it out of its spaces") for space in room.of_kind(PARENT)]
    shown = room.content(CANONICAL)
    more = shown.get("alt_aliases")
    kept = {key: value for key, value in shown.items() if key != "alt_aliases" and value != alias}
    if isinstance(more, list) and [one for one in more if one != alias]:
        kept["alt_aliases"] = [one for one in more if one != alias]
    if kept != shown:
        found.append(Change(CANONICAL, "", kept, "no longer show the alias"))
    return found


@dataclass(frozen=True)
class Child:
    """What a space is to hold."""

    room_id: str
    label: str
    via: Sequence[str]
    link: str = ""


def arrangement(
    space: Room, children: Sequence[Child], gone: Iterable[str], links: Iterable[str] | None
) -> list[Change]:
    """What has to be sent for a space to hold these, in this order. What people have put there stays.

    Args:
        space: the space as it is.
        children: what is declared to be in it.
        gone: identifiers of declared rooms that are in it no more.
        links: the aliases of other servers' rooms that are declared; None if that is left as it is.
    """
    found = []
    places = orders([space.content(CHILD, child.room_id).get("order") for child in children])
    for child, order in zip(children, places, strict=True):
        before = space.content(CHILD, child.room_id)
        known = before.get("via")
        via = known if isinstance(known, list) and child.via[0] in known else list(child.via)
        after = {**before, "via": via, "order": order, **({LINK: child.link} if child.link else {})}
        if after != before:
            words = f"put {child.label} in its place" if before else f"put {child.label} in it"
            found.append(Change(CHILD, child.room_id, after, words))
    stay = {child.room_id for child in children}
    there = {key: str(content.get(LINK, "")) for key, content in space.of_kind(CHILD).items() if key not in stay}
    for room_id in gone:
        if room_id in there:
            found.append(Change(CHILD, room_id, {}, f"take {room_id} out of it"))
    held = {child.link for child in children}
    for room_id, link in there.items():
        # One that cannot be found now, and was before, stays.
        if links is not None and link and (link in held or link not in links):
            found.append(Change(CHILD, room_id, {}, f"take {link} out of it"))
    return found


def orders(existing: Sequence[object]) -> list[str]:
    """Texts that sort as the list does, changing as few of those that there are as possible.

    >>> orders([None, None])
    ['0000065536', '0000131072']
    >>> orders(["0000065536", None, "0000131072"])
    ['0000065536', '0000098304', '0000131072']
    """
    numbers = [int(one) if isinstance(one, str) and _ORDER.fullmatch(one) else None for one in existing]
    kept = _rising(numbers)
    result: list[int] = []
    previous = 0
    for start, number in enumerate(numbers):
        if start in kept and number is not None:
            result.append(number)
        else:
            following = next((numbers[later] for later in range(start, len(numbers)) if later in kept), None)
            to_fill = next((later - start for later in range(start, len(numbers)) if later in kept), 0)
            step = _STEP if following is None else (following - previous) // (to_fill + 1)
            if step < 1:
                # No room between two of them: all get new ones.
                return [f"{place * _STEP:010d}" for place in range(1, len(existing) + 1)]
            result.append(previous + step)
        previous = result[-1]
    return [f"{one:010d}" for one in result]


def _rising(numbers: Sequence[int | None]) -> set[int]:
    """The places of a longest series that rises already."""
    tails: list[int] = []
    ends: list[int] = []
    before: dict[int, int | None] = {}
    for place, number in enumerate(numbers):
        if number is None or number < 1:
            continue
        at = bisect.bisect_left(tails, number)
        tails[at : at + 1] = [number]
        ends[at : at + 1] = [place]
        before[place] = ends[at - 1] if at else None
    kept: set[int] = set()
    last: int | None = ends[-1] if ends else None
    while last is not None:
        kept.add(last)
        last = before[last]
    return kept
