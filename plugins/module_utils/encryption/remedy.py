# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How an encrypted room is replaced by a plain one. Pure functions; the module C(remedy) does the looking and the work.

The work is done as a person of the old room who has power in it (the service account asks Synapse to act as them): so
the new room is theirs, its powers are those of the old one in every room version, a direct conversation stays one
between two people, and no foreign account stays behind in either room.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.cae.matrix.plugins.module_utils.encryption.gate import ENCRYPTION
from ansible_collections.cae.matrix.plugins.module_utils.matrix.identifiers import server_of

# Key in the new room's m.room.create: which room it replaces, and what an interruption would make forget.
MARK = "cae.matrix.remedy"
CREATE, MEMBER, POWER = "m.room.create", "m.room.member", "m.room.power_levels"
TOMBSTONE, CANONICAL, CHILD = "m.room.tombstone", "m.room.canonical_alias", "m.space.child"
SPACE = "m.space"
DIRECT = "m.direct"
# More people than this are no direct conversation, and need not be asked whether it is one to them.
DIRECT_AT_MOST = 8

# What the new room takes over as it is. The rest either means something only where it was said (pinned events, bridges,
# calls, invitations by e-mail), or is looked after on its own (people, aliases), or is what the remedy is against.
KEPT = (
    "m.room.name",
    "m.room.topic",
    "m.room.avatar",
    "m.room.join_rules",
    "m.room.history_visibility",
    "m.room.guest_access",
    "m.room.server_acl",
    "m.room.retention",
    "m.space.parent",
    CHILD,
    "im.vector.modular.widgets",
    "io.element.widgets.layout",
    "im.ponies.room_emotes",
    "org.matrix.room.preview_urls",
)
# Ways to post that a room may have given a level of their own, which closing has to raise as well.
POSTS = ("m.room.message", "m.room.encrypted", "m.sticker", "m.reaction")

TOMBSTONE_BODY = (
    "Ce salon chiffré est fermé. La conversation continue, sans chiffrement, dans un nouveau salon ; "
    "les anciens messages restent ici.\n"
    "This encrypted room is closed. The conversation goes on, without encryption, in a new room; "
    "the old messages stay here."
)
INVITATION = (
    "La conversation continue ici, sans chiffrement : l'ancien salon, chiffré, est fermé. / "
    "The conversation goes on here, without encryption: the old, encrypted room is closed."
)
WITHDRAWN = (
    "Ce salon est fermé ; une invitation au nouveau salon vous attend. / "
    "This room is closed; an invitation to the new one is waiting for you."
)

Event = Mapping[str, Any]


def shown(name: str) -> str:
    """A name that somebody chose, so that it cannot paint the terminal.

    >>> shown("Bureau\\x1b[31m"), shown("")
    ('Bureau?[31m', 'no name')
    """
    return "".join(letter if letter.isprintable() else "?" for letter in name) or "no name"


def lock_alias(room_id: str, domain: str) -> str:
    """The alias that the new room has while it is being made: Synapse gives it to one room only.

    >>> lock_alias("!a:b.test", "b.test")
    '#cae-matrix-remedy-d5e552e66ef29ff602fc931a146814d6:b.test'
    """
    return f"#cae-matrix-remedy-{hashlib.sha256(room_id.encode()).hexdigest()[:32]}:{domain}"


def level(value: Any, default: int = 0) -> int:
    """A power level; old rooms have them as text.

    >>> level("50"), level(None, 7), level([], 7)
    (50, 7, 7)
    """
    try:
        return int(value)
    except (TypeError, ValueError):
        return default


def mapping(value: Any) -> dict[str, Any]:
    """What may be anything, as people can send anything."""
    return dict(value) if isinstance(value, Mapping) else {}


class Room:
    """A room as its current state tells it."""

    def __init__(self, room_id: str, events: Iterable[Event]) -> None:
        self.room_id = room_id
        self.events = {(str(event["type"]), str(event.get("state_key", ""))): event for event in events}

    def content(self, kind: str, key: str = "") -> dict[str, Any]:
        return mapping(self.events.get((kind, key), {}).get("content"))

    def of_kind(self, kind: str) -> dict[str, dict[str, Any]]:
        """By state key, what has not been taken back."""
        return {key: self.content(kind, key) for (one, key) in self.events if one == kind and self.content(kind, key)}

    @property
    def name(self) -> str:
        name = self.content("m.room.name").get("name")
        return name if isinstance(name, str) else ""

    @property
    def label(self) -> str:
        return f"{self.room_id} ({shown(self.name)})"

    @property
    def creator(self) -> str:
        return str(self.events.get((CREATE, ""), {}).get("sender", ""))

    @property
    def version(self) -> str:
        return str(self.content(CREATE).get("room_version", "1"))

    @property
    def is_space(self) -> bool:
        return self.content(CREATE).get("type") == SPACE

    @property
    def encrypted(self) -> bool:
        return (ENCRYPTION, "") in self.events

    @property
    def replacement(self) -> str | None:
        """Where the tombstone leads, or None while the room is open."""
        tombstone = self.content(TOMBSTONE)
        return str(tombstone.get("replacement_room", "")) if tombstone else None

    @property
    def replaces(self) -> str | None:
        """The room that a remedy made this one for."""
        mark = mapping(self.content(CREATE).get(MARK))
        return str(mark["room_id"]) if "room_id" in mark else None

    def members(self, *memberships: str) -> list[str]:
        return sorted(key for kind, key in self.events if kind == MEMBER and self.membership(key) in memberships)

    def membership(self, user_id: str) -> str | None:
        found = self.content(MEMBER, user_id).get("membership")
        return found if isinstance(found, str) else None

    # -- powers -------------------------------------------------------------------------------------------------

    @property
    def creators_reign(self) -> bool:
        """Since version 12, who made a room has every power and is in no list; and its identifier has no domain."""
        return ":" not in self.room_id

    @property
    def creators(self) -> list[str]:
        more = self.content(CREATE).get("additional_creators")
        return (
            [self.creator, *(str(one) for one in more if one != self.creator)]
            if isinstance(more, list)
            else [self.creator]
        )

    @property
    def powers(self) -> dict[str, Any]:
        """What m.room.power_levels says, in numbers; where there is none, who made the room decides."""
        if (POWER, "") not in self.events:
            return {"users": {} if self.creators_reign else {self.creator: 100}}
        return in_numbers(self.content(POWER))

    def power(self, user_id: str) -> float:
        if self.creators_reign and user_id in self.creators:
            return math.inf
        powers = self.powers
        return level(mapping(powers.get("users")).get(user_id), level(powers.get("users_default")))

    def needed(self, *kinds: str) -> int:
        """The level that sends each of these states."""
        powers = self.powers
        levels, default = mapping(powers.get("events")), level(powers.get("state_default", 50))
        return max(level(levels.get(kind), default) for kind in kinds)

    def able(self, domain: str, needed: int) -> list[str]:
        """The people of this server who are in the room with at least that power, those to act as first."""
        people = [user for user in self.members("join") if server_of(user) == domain and self.power(user) >= needed]
        return sorted(people, key=lambda user: (-self.power(user), user not in self.creators, user))


def in_numbers(powers: Mapping[str, Any]) -> dict[str, Any]:
    """Power levels as room versions since 10 want them.

    >>> in_numbers({"ban": "50", "events": {"m.room.name": " 1"}, "users": {"@a:b.test": 100}})
    {'ban': 50, 'events': {'m.room.name': 1}, 'users': {'@a:b.test': 100}}
    """

    def number(value: Any) -> Any:
        return level(value, 0) if isinstance(value, str) else value

    return {
        key: {one: number(inner) for one, inner in value.items()} if isinstance(value, Mapping) else number(value)
        for key, value in powers.items()
    }


def closed_powers(room: Room) -> dict[str, Any]:
    """Those of the old room afterwards, as an upgrade leaves them: only moderators post or invite."""
    powers = room.powers
    floor = restricted(room)
    for key in ("invite", "events_default"):
        powers[key] = max(level(powers.get(key)), floor)
    events = mapping(powers.get("events"))
    raised = {kind: floor for kind in POSTS if kind in events and level(events[kind]) < floor}
    if raised:
        powers["events"] = events | raised
    return powers


def restricted(room: Room) -> int:
    """The level below which nobody posts any more."""
    return max(level(room.powers.get("users_default")) + 1, 50)


def closers(room: Room, domain: str, aliases: Sequence[str] = ()) -> list[str]:
    """Who can close the room and take its aliases along."""
    kinds = [TOMBSTONE, POWER, *([CANONICAL] if aliases and room.content(CANONICAL) else [])]
    return room.able(domain, max(room.needed(*kinds), restricted(room)))


@dataclass(frozen=True)
class Parent:
    """A space that has the room among its children, and who can change that."""

    space: str
    name: str
    child: Mapping[str, Any]
    actors: Sequence[str]

    @property
    def label(self) -> str:
        return f"the space {self.space} ({shown(self.name)})"


@dataclass(frozen=True)
class Mark:
    """What the new room's m.room.create says about the old one: moving it away must not make it forgotten."""

    room_id: str
    aliases: tuple[str, ...]
    canonical: Mapping[str, Any]
    listed: bool

    @classmethod
    def of(cls, old: Room, aliases: Iterable[str], listed: bool) -> Mark:
        aliases = tuple(sorted(aliases))
        shown = old.content(CANONICAL)
        canonical: dict[str, Any] = {"alias": shown["alias"]} if shown.get("alias") in aliases else {}
        more = shown.get("alt_aliases")
        kept = [one for one in more if one in aliases] if isinstance(more, list) else []
        return cls(old.room_id, aliases, canonical | ({"alt_aliases": kept} if kept else {}), listed)

    @classmethod
    def read(cls, new: Room) -> Mark:
        mark = mapping(new.content(CREATE).get(MARK))
        aliases = mark.get("aliases")
        return cls(
            str(mark.get("room_id", "")),
            tuple(one for one in aliases if isinstance(one, str)) if isinstance(aliases, list) else (),
            mapping(mark.get("canonical")),
            bool(mark.get("listed")),
        )

    def content(self) -> dict[str, Any]:
        return {
            "room_id": self.room_id,
            "aliases": list(self.aliases),
            "canonical": dict(self.canonical),
            "listed": self.listed,
        }

    def left(self, old: Room) -> dict[str, Any]:
        """m.room.canonical_alias of the old room without what has moved."""
        content = old.content(CANONICAL)
        if content.get("alias") in self.aliases:
            del content["alias"]
        more = content.pop("alt_aliases", None)
        kept = [one for one in more if one not in self.aliases] if isinstance(more, list) else []
        return content | ({"alt_aliases": kept} if kept else {})


@dataclass
class Plan:
    """All that is going to happen to one room."""

    old: Room
    actor: str
    domain: str
    version: str
    mark: Mark
    direct: Mapping[str, str]
    parents: Sequence[Parent]
    new: Room | None = None
    leftover: str | None = None
    notes: list[str] = field(default_factory=list)

    # -- the new room -------------------------------------------------------------------------------------------

    @property
    def creators_reign(self) -> bool:
        return self.old.creators_reign if self.version == self.old.version else level(self.version) >= 12

    @property
    def reigning(self) -> list[str]:
        """Who has every power in the new room."""
        if not self.creators_reign:
            return []
        return [self.actor, *(one for one in self.old.creators if self.old.creators_reign and one != self.actor)]

    def creation(self, last_event: str | None) -> dict[str, Any]:
        """The body of the createRoom request."""
        old = self.old.content(CREATE)
        content: dict[str, Any] = {key: value for key, value in old.items() if key in ("type", "m.federate")}
        content["predecessor"] = {"room_id": self.old.room_id, **({"event_id": last_event} if last_event else {})}
        content[MARK] = self.mark.content()
        if self.reigning[1:]:
            content["additional_creators"] = self.reigning[1:]
        return {
            "preset": "private_chat",
            "room_version": self.version,
            "room_alias_name": lock_alias(self.old.room_id, self.domain)[1:].partition(":")[0],
            "creation_content": content,
            "initial_state": [
                {"type": kind, "state_key": key, "content": value} for (kind, key), value in self.state().items()
            ],
        }

    def state(self) -> dict[tuple[str, str], dict[str, Any]]:
        """What the new room begins with. Nothing is left to the preset, and nothing says encryption."""
        state = {(POWER, ""): self.powers_at_first()}
        for kind in KEPT:
            state |= {(kind, key): value for key, value in self.old.of_kind(kind).items()}
        state.setdefault(("m.room.guest_access", ""), {"guest_access": "forbidden"})
        # Otherwise Synapse would show the alias that is only there while the room is being made.
        state[(CANONICAL, "")] = {}
        return state

    def powers(self) -> dict[str, Any]:
        """Those that the new room ends up with."""
        powers = self.old.powers
        users = mapping(powers.get("users"))
        powers["users"] = {user: number for user, number in users.items() if user not in self.reigning}
        return powers

    def powers_at_first(self) -> dict[str, Any]:
        """The same, but whoever acts can do all that is to be done."""
        powers = self.powers()
        if not self.creators_reign:
            doing = [level(powers.get(key, 50)) for key in ("state_default", "ban", "invite")]
            events = map(level, mapping(powers.get("events")).values())
            own = level(powers["users"].get(self.actor))
            powers["users"][self.actor] = max([100, own, *doing, *events])
        return powers

    def powers_at_last(self, new: Room) -> dict[str, Any]:
        """Those that the new room has, with nobody more powerful than before."""
        powers = new.powers
        if not self.creators_reign:
            users = mapping(powers.get("users"))
            before = mapping(self.old.powers.get("users")).get(self.actor)
            powers["users"] = {user: number for user, number in users.items() if user != self.actor}
            if before is not None:
                powers["users"][self.actor] = before
        return powers

    # -- people -------------------------------------------------------------------------------------------------

    def bans(self) -> dict[str, dict[str, Any]]:
        """As member events of the new room."""
        reasons = {user: self.old.content(MEMBER, user).get("reason") for user in self.old.members("ban")}
        return {user: {"membership": "ban", **({"reason": why} if why else {})} for user, why in reasons.items()}

    def withdrawable(self) -> list[str]:
        """Unanswered invitations, which would lead into a closed, encrypted room."""
        own = self.old.power(self.actor)
        may = own >= level(self.old.powers.get("kick", 50))
        return [user for user in self.old.members("invite") if may and self.old.power(user) < own]

    # -- for people ---------------------------------------------------------------------------------------------

    def lines(self) -> list[str]:
        """What is still to be done, for the terminal."""
        lines = []
        if self.leftover:
            lines.append(f"remove {self.leftover}, which an interrupted run left with nobody in it")
        if self.new:
            lines.append(f"go on with {self.new.room_id}, which an interrupted run has made")
        else:
            kind = "space" if self.old.is_space else "direct conversation" if self.direct else "room"
            gone = "" if self.version == self.old.version else f", as {self.old.version} is no longer supported"
            kept = sorted({one.removeprefix("m.room.") for one, key in self.state() if (one, key) in self.old.events})
            kept = [one for one in kept if one != "canonical_alias"]
            lines.append(f"make a plain {kind} (version {self.version}{gone}) as {self.actor}, with: {', '.join(kept)}")
        invited = uninvited(self.old, self.new, self.actor)
        lines.append(f"invite {len(invited)}: {', '.join(invited)}" if invited else "invite nobody else")
        if self.bans():
            lines.append(f"keep out: {', '.join(self.bans())}")
        lines += [f"make it a direct conversation for {user}" for user in self.direct]
        if self.mark.aliases:
            lines.append(f"move: {', '.join(self.mark.aliases)}")
        if self.mark.listed:
            lines.append("list the new room in the directory in place of the old one")
        lines += [f"put it in the place of the old one in {one.label}" for one in self.parents if one.actors]
        if self.withdrawable():
            lines.append(f"withdraw the unanswered invitations to the old room: {', '.join(self.withdrawable())}")
        lines.append("close the old room with a tombstone that leads to the new one; its history stays")
        return lines

    def before(self) -> dict[str, Any]:
        """The old room, as the diff shows it."""
        known = [key for key in self.state() if key in self.old.events]
        return self._shown({key: self.old.content(*key) for key in known}) | {
            "room": self.old.room_id,
            "encrypted": True,
            "spaces": [one.space for one in self.parents],
        }

    def after(self) -> dict[str, Any]:
        """The new room, as the diff shows it."""
        canonical = dict(self.mark.canonical)
        state = {**self.state(), (POWER, ""): self.powers(), (CANONICAL, ""): canonical}
        return self._shown(state) | {
            "room": self.new.room_id if self.new else "(a new one)",
            "encrypted": False,
            "replaces": self.old.room_id,
            "spaces": [one.space for one in self.parents if one.actors],
            "invited": uninvited(self.old, self.new, self.actor),
        }

    def _shown(self, state: Mapping[tuple[str, str], Mapping[str, Any]]) -> dict[str, Any]:
        return {
            "aliases": list(self.mark.aliases),
            "listed": self.mark.listed,
            "state": {f"{kind} {key}".strip(): value for (kind, key), value in sorted(state.items()) if value},
        }


def invitation(direct: bool) -> dict[str, Any]:
    """As a member event: the endpoint for invitations has no way to say that a conversation is direct."""
    return {"membership": "invite", "reason": INVITATION, **({"is_direct": True} if direct else {})}


def uninvited(old: Room, new: Room | None, actor: str = "") -> list[str]:
    """Who is in the old room, or invited there, and has never been in the new one in any way."""
    people = [user for user in old.members("join", "invite") if user != actor]
    return [user for user in people if new is None or new.membership(user) is None]


def why_not(old: Room, replacement: Room | None, domain: str, able: Sequence[str]) -> str | None:
    """What speaks against replacing this room; None if nothing does. A finished remedy is no objection."""
    if old.replacement is not None:
        if replacement is not None and replacement.replaces == old.room_id:
            return None
        return (
            f"is closed already, and leads to {old.replacement or 'nowhere'}; name that room if it is the one you mean"
        )
    if not old.encrypted:
        return "is not encrypted: there is nothing to remedy"
    if able:
        return None
    here = [user for user in old.members("join") if server_of(user) == domain]
    made = f"it was made by {old.creator}" + ("" if server_of(old.creator) == domain else ", on another server")
    if not here:
        return f"is remote: {made}, and nobody of {domain} is in it"
    return (
        f"{made}, and nobody of {domain} who is in it has the power to close it, so that the service account can get "
        "none either; ask somebody with power there to raise one of: " + ", ".join(here[:5])
    )
