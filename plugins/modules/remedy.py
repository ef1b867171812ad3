#!/usr/bin/python
# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Plain rooms in place of encrypted ones."""

from __future__ import annotations

DOCUMENTATION = r"""
module: remedy
short_description: Replace encrypted rooms by plain ones
version_added: 0.1.0
author: cae.matrix contributors
description:
  - Encryption cannot be taken off a room, so each of the rooms named is replaced by a new one, with the same name,
    topic, avatar, aliases, power levels, join rules, history visibility, guest access, server ACL, place in its spaces
    and in the directory. Everybody who is in the old room, or invited there, is invited into the new one; bans are
    kept. The old room is closed with a tombstone that leads to the new one. Its history stays where it is.
  - Works through Synapse's API on its Unix socket, with the encryption gate's account, which asks Synapse to act as a
    person of the old room who has power there. The new room is that person's, and nobody else comes into either room.
  - All rooms are looked at before anything is changed. If one of them cannot be replaced, nothing is.
  - Can be interrupted at any moment and run again. The new room is made with an alias that comes from the identifier of
    the old one, and Synapse gives an alias to one room only. So there is never a second one.
  - A room that has been replaced is left alone; people who could not be invited then are invited when they can be.
options:
  rooms:
    description: The rooms, by identifier (C(!…)), by alias (C(#…)), or by their exact name if no other room has it.
    type: list
    elements: str
    required: true
  domain:
    description: The part after the colon in C(@name:domain).
    type: str
    required: true
  config_dir:
    description: The instance's directory, such as C(/etc/matrix/atelier).
    type: path
  socket:
    description: Synapse's Unix socket.
    type: path
  url:
    description:
      - The address of a Synapse that this collection did not install, in place of O(socket) and O(config_dir).
      - With C(https://), or C(http://) on the machine itself (C(localhost), C(127.0.0.1), C([::1])).
    type: str
  admin_token:
    description: The access token of an administrator of that Synapse.
    type: str
  ca_file:
    description: Certificate authorities to trust in addition to those of the system.
    type: path
attributes:
  check_mode:
    support: full
    description: Says what it would do.
  diff_mode:
    support: full
    description: Each room as it is, and the one that takes its place.
seealso:
  - module: cae.matrix.encryption_gate
"""

EXAMPLES = r"""
- name: Replace two rooms
  cae.matrix.remedy:
    rooms:
      - "#bureau:example.coop"
      - "!OGEhHVWSdvArJzumhm:example.coop"
    domain: example.coop
    config_dir: /etc/matrix/example
    socket: /run/matrix-synapse/example/client.sock
"""

RETURN = r"""
rooms:
  description: The rooms, old and new, and what was done in this run.
  returned: always
  type: list
  elements: dict
  contains:
    old:
      description: The encrypted room.
      type: str
    new:
      description: The plain one; null if it has not been made.
      type: str
    name:
      description: The name of both.
      type: str
    actor:
      description: As whom it was done; null if there was nothing to do.
      type: str
    finished:
      description: Whether the old room is closed and leads to the new one.
      type: bool
    done:
      description: The steps of this run, or those that there would be.
      type: list
      elements: str
    notes:
      description: What could not be done, and why.
      type: list
      elements: str
  sample:
    - old: "!OGEhHVWSdvArJzumhm:example.coop"
      new: "!nUbMWhkbnfBQvFMDVd:example.coop"
      name: Bureau
      actor: "@amina:example.coop"
      finished: true
      done: ["made !nUbMWhkbnfBQvFMDVd:example.coop", "invited 1: @bruno:example.coop", "closed the old room"]
      notes: []
report:
  description: The same, for people.
  returned: always
  type: str
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cae.matrix.plugins.module_utils.encryption import remedy
from ansible_collections.cae.matrix.plugins.module_utils.encryption.acting import Acting
from ansible_collections.cae.matrix.plugins.module_utils.encryption.remedy import (
    CANONICAL,
    CHILD,
    CREATE,
    DIRECT,
    MEMBER,
    POWER,
    TOMBSTONE,
    Mark,
    Parent,
    Plan,
    Room,
    lock_alias,
)
from ansible_collections.cae.matrix.plugins.module_utils.matrix.identifiers import server_of
from ansible_collections.cae.matrix.plugins.module_utils.synapse.admin import (
    RemoteSynapse,
    ServiceAccount,
    Synapse,
    SynapseError,
    quote,
)

# Inviting somebody of another server waits for that server.
PATIENCE = 300.0


class Refused(Exception):
    """A room cannot be replaced; the message begins with what was asked for."""


@dataclass(frozen=True)
class Finished:
    """A room that a remedy has closed."""

    old: Room
    new: Room


class Remedy(Acting):
    """The encrypted rooms of one server."""

    def __init__(self, synapse: Synapse, domain: str, admin: str) -> None:
        super().__init__(synapse, domain, admin)
        self.results: list[dict[str, Any]] = []
        self.diffs: list[dict[str, str]] = []
        self.changed = False
        self._listing: list[dict[str, Any]] | None = None

    # -- looking ------------------------------------------------------------------------------------------------

    def listing(self) -> list[dict[str, Any]]:
        """All rooms that the server knows."""
        if self._listing is None:
            self._listing, start = [], 0
            while start is not None:
                answer = self.synapse.call("GET", f"/_synapse/admin/v1/rooms?limit=1000&from={start}")
                self._listing += answer["rooms"]
                start = answer.get("next_batch")
        return self._listing

    def find(self, wanted: str) -> Room:
        """The encrypted room that is meant, also by the name or alias that its replacement has taken over."""
        if wanted.startswith("!"):
            found: str | None = wanted
        elif wanted.startswith("#"):
            found = self.behind(wanted) or self.on_its_way(wanted)
            if found is None:
                raise Refused(f"{wanted}: there is no such alias")
        else:
            found = self.by_name(wanted)
        room = self.room(str(found))
        meant = wanted if found == wanted else f"{wanted} ({found})"
        if room is None:
            raise Refused(f"{meant}: there is no such room on this server")
        if not room.events:
            raise Refused(f"{meant}: nobody of {self.domain} is in that room any more")
        if not room.encrypted and room.replaces:
            old = self.room(room.replaces)
            # Anybody can write such a mark; only a remedy's work is pointed at from the other end as well.
            if old is not None and room.room_id in (old.replacement, self.behind(lock_alias(old.room_id, self.domain))):
                return old
        return room

    def on_its_way(self, alias: str) -> str | None:
        """The replacement for which an interrupted run had taken an alias from the old room, and not given it yet."""
        for one in self.listing() if server_of(alias) == self.domain else []:
            if not one.get("encryption") and server_of(str(one.get("creator"))) == self.domain:
                room = self.room(one["room_id"], CREATE)
                if room is not None and room.replaces and alias in Mark.read(room).aliases:
                    return room.room_id
        return None

    def by_name(self, wanted: str) -> str:
        found = [one["room_id"] for one in self.listing() if one.get("name") == wanted]
        if len(found) > 1:
            made = {room_id: room.replaces for room_id in found if (room := self.room(room_id, CREATE))}
            found = [room_id for room_id in found if made.get(room_id) not in found]
        if not found:
            raise Refused(f"{wanted}: no room has that name")
        if len(found) > 1:
            raise Refused(f"{wanted}: {len(found)} rooms have that name; take the identifier: {', '.join(found)}")
        return str(found[0])

    def plan(self, wanted: str) -> Plan | Finished:
        """What is to be done to a room, or what has been. Changes nothing."""
        old = self.find(wanted)
        after = self.room(old.replacement) if old.replacement else None
        lock = lock_alias(old.room_id, self.domain)
        aliases = [one for one in self.aliases(old.room_id) if one != lock]
        able = remedy.closers(old, self.domain, aliases)
        objection = remedy.why_not(old, after, self.domain, able)
        if objection:
            raise Refused(f"{wanted}: {old.label} {objection}")
        if after is not None:
            return Finished(old, after)
        new, leftover = self.begun(old, wanted, able)
        # Who began goes on: the new room is theirs.
        able = [user for user in able if new is None or user == new.creator]
        actor = next((user for user in able if self.usable(user)), None)
        if actor is None:
            raise Refused(
                f"{wanted}: {old.label} can be replaced only by acting as {' or '.join(able)}, whose account is "
                "locked, suspended or a bridge's; unlock it, or give power in the room to somebody else"
            )
        plan = Plan(
            old=old,
            actor=actor,
            domain=self.domain,
            version=new.version if new else self.version(old),
            mark=Mark.read(new) if new else Mark.of(old, aliases, self.listed(old.room_id)),
            direct=self.direct(old),
            parents=self.parents(old.room_id),
            new=new,
            leftover=leftover,
        )
        plan.notes += [
            f"nobody of {self.domain} can change {one.label}: the old room stays in it, and the new one is not"
            for one in plan.parents
            if not one.actors
        ]
        if plan.creators_reign and actor not in old.creators:
            plan.notes.append(
                f"{actor} becomes a creator, with every power, as none of those who made the old one can act"
            )
        return plan

    def begun(self, old: Room, wanted: str, able: list[str]) -> tuple[Room | None, str | None]:
        """What an interrupted run has made: a room to go on with, or one that nobody is in and that has to go."""
        lock = lock_alias(old.room_id, self.domain)
        found = self.behind(lock)
        new = self.room(found) if found else None
        if found is None or new is None:
            return None, found
        made_for_this = new.replaces == old.room_id
        if not new.members("join", "invite") and (made_for_this or not new.events):
            return None, found
        if made_for_this and new.creator in able:
            return new, None
        raise Refused(
            f"{wanted}: {old.label} cannot be replaced: the alias {lock}, which its replacement needs, leads to "
            f"{new.label}, made by {new.creator}, who could not have replaced it; remove the alias"
        )

    def aliases(self, room_id: str) -> list[str]:
        """Its aliases on this server."""
        return list(self.synapse.call("GET", f"/_matrix/client/v3/rooms/{quote(room_id)}/aliases")["aliases"])

    def listed(self, room_id: str) -> bool:
        path = f"/_matrix/client/v3/directory/list/room/{quote(room_id)}"
        return bool(self.synapse.call("GET", path)["visibility"] == "public")

    def version(self, old: Room) -> str:
        """That of the old room, unless Synapse no longer makes such rooms."""
        able = self.synapse.call("GET", "/_matrix/client/v3/capabilities")["capabilities"]["m.room_versions"]
        return old.version if old.version in able["available"] else str(able["default"])

    def direct(self, old: Room) -> dict[str, str]:
        """The people of this server to whom it is a direct conversation, and with whom."""
        people = old.members("join", "invite")
        if len(people) > remedy.DIRECT_AT_MOST:
            return {}
        found = {user: self.direct_rooms(user) for user in people if server_of(user) == self.domain}
        return {
            user: partner
            for user, rooms in found.items()
            for partner, room_ids in rooms.items()
            if isinstance(room_ids, list) and old.room_id in room_ids
        }

    def direct_rooms(self, user_id: str) -> dict[str, Any]:
        path = f"/_synapse/admin/v1/users/{quote(user_id)}/accountdata"
        return remedy.mapping(self.synapse.call("GET", path)["account_data"]["global"].get(DIRECT))

    def parents(self, room_id: str) -> list[Parent]:
        """The spaces of this server that have the room among their children."""
        found = []
        for one in self.listing():
            if one.get("room_type") != remedy.SPACE or one["room_id"] == room_id:
                continue
            children = self.room(one["room_id"], CHILD)
            child = children.content(CHILD, room_id) if children else {}
            space = self.room(one["room_id"]) if child else None
            if space is not None and space.replacement is None:
                able = [user for user in space.able(self.domain, space.needed(CHILD)) if self.usable(user)]
                found.append(Parent(space.room_id, space.name, child, able))
        return found

    # -- doing --------------------------------------------------------------------------------------------------

    def run(self, rooms: list[str], check_mode: bool) -> list[str]:
        """Looks at all rooms, then changes one after the other. The problems: if there are any, nothing changed."""
        problems: list[str] = []
        plans: dict[str, Plan | Finished] = {}
        for wanted in dict.fromkeys(rooms):
            try:
                plan = self.plan(wanted)
                plans.setdefault(plan.old.room_id, plan)
            except Refused as refused:
                problems.append(str(refused))
        if problems:
            return problems
        for plan in plans.values():
            if check_mode and isinstance(plan, Plan):
                self.foresee(plan)
                continue
            # What came before may have changed it: a space that the room is in, for one.
            self._listing = None
            again = plan if check_mode else self.plan(plan.old.room_id)
            if isinstance(again, Plan):
                self.replace(again)
            else:
                self.finish(again, check_mode)
        return []

    def result(self, old: Room, new: str | None, actor: str | None, finished: bool) -> dict[str, Any]:
        result: dict[str, Any] = {
            "old": old.room_id,
            "new": new,
            "name": old.name,
            "actor": actor,
            "finished": finished,
            "done": [],
            "notes": [],
        }
        self.results.append(result)
        return result

    def foresee(self, plan: Plan) -> None:
        result = self.result(plan.old, plan.new.room_id if plan.new else None, plan.actor, False)
        result["done"] = plan.lines()
        result["notes"] = plan.notes
        self.changed = True
        self.show(plan)

    def show(self, plan: Plan) -> None:
        sides = {"before": plan.before(), "after": plan.after()}
        diff = {key: json.dumps(side, indent=2, ensure_ascii=False) + "\n" for key, side in sides.items()}
        self.diffs.append(diff | {f"{key}_header": plan.old.label for key in sides})

    def did(self, result: dict[str, Any], step: str) -> None:
        self.changed = True
        result["done"].append(step)

    def finish(self, room: Finished, check_mode: bool) -> None:
        """What may be left to do of a room that is closed, and who could not be invited then."""
        old, new = room.old, room.new
        result = self.result(old, new.room_id, None, True)
        missing = remedy.uninvited(old, new)
        able = new.able(self.domain, remedy.level(new.powers.get("invite")))
        actor = next((user for user in able if self.usable(user)), None) if missing else None
        if missing and not actor:
            result["notes"].append(f"nobody of {self.domain} can invite {', '.join(missing)} into the new room")
        lock = lock_alias(old.room_id, self.domain)
        locked = self.behind(lock) is not None
        if check_mode:
            for step in ([f"invite {', '.join(missing)}"] if actor else []) + ([f"remove {lock}"] if locked else []):
                self.did(result, step)
            return
        if actor:
            result["actor"] = actor
            self.invite(result, actor, new.room_id, missing, remedy.invitation(bool(self.direct(old))))
        if locked:
            self.unlock(result, lock)

    def replace(self, plan: Plan) -> None:
        """One room. Each step looks before it does, so that it can be taken twice."""
        old, actor = plan.old, plan.actor
        result = self.result(old, plan.new.room_id if plan.new else None, actor, False)
        result["notes"] += plan.notes
        self.show(plan)
        new = plan.new or self.make(plan, result)
        result["new"] = new.room_id
        if new.encrypted and new.members("join", "invite") == [actor]:
            self.remove(new.room_id, lock_alias(old.room_id, self.domain))
            result["new"] = None
            raise SynapseError(
                f"Synapse encrypted the room that {actor} was to have in place of {old.label}; it is removed again.",
                "See that encryption_enabled_by_default_for_room_type is off, and that no module adds encryption.",
            )
        for (kind, key), content in plan.state().items():
            exists = (kind, key) in new.events
            if new.content(kind, key) != content and not (exists and kind in (POWER, CANONICAL)):
                self.put(actor, new.room_id, kind, key, content)
                self.did(result, f"set {kind} {key}".rstrip())
        for user, ban in plan.bans().items():
            if new.membership(user) != "ban":
                self.put(actor, new.room_id, MEMBER, user, ban)
                self.did(result, f"kept {user} out")
        self.make_direct(plan, new.room_id, result)
        missing = remedy.uninvited(old, new, actor)
        refused = self.invite(result, actor, new.room_id, missing, remedy.invitation(bool(plan.direct)))
        self.move_addresses(plan, new, result)
        # Looked at again: what an interrupted creation had left out has been set since.
        now = self.room(new.room_id) or new
        last = plan.powers_at_last(now)
        if last != now.powers:
            self.put(actor, new.room_id, POWER, "", last)
            self.did(result, f"gave {actor} the power of before")
        for parent in plan.parents:
            self.adopt(plan, parent, new.room_id, result)
        for user in plan.withdrawable():
            if user not in refused:
                self.put(actor, old.room_id, MEMBER, user, {"membership": "leave", "reason": remedy.WITHDRAWN})
                self.did(result, f"withdrew the invitation of {user} to the old room")
        closed = remedy.closed_powers(old)
        if closed != old.powers:
            self.put(actor, old.room_id, POWER, "", closed)
            self.did(result, "took the right to post in the old room")
        tombstone = {"body": remedy.TOMBSTONE_BODY, "replacement_room": new.room_id}
        self.put(actor, old.room_id, TOMBSTONE, "", tombstone)
        self.did(result, "closed the old room")
        result["finished"] = True
        # Last: until the old room is closed, it is how the new one is found.
        self.unlock(result, lock_alias(old.room_id, self.domain))

    def make(self, plan: Plan, result: dict[str, Any]) -> Room:
        """The new room, with its lock, in one step."""
        if plan.leftover:
            self.remove(plan.leftover, lock_alias(plan.old.room_id, self.domain))
            self.did(result, f"removed {plan.leftover}")
        path = f"/_synapse/admin/v1/rooms/{quote(plan.old.room_id)}/messages?dir=b&limit=1"
        last = self.synapse.call("GET", path)["chunk"]
        body = plan.creation(last[0]["event_id"] if last else None)
        path = "/_matrix/client/v3/createRoom"
        status, answer = self.synapse.ask("POST", path, body, self.token(plan.actor))
        room_id = answer.get("room_id")
        if status == 400 and answer.get("errcode") == "M_ROOM_IN_USE":
            # Made by this very request, whose answer was lost, or by another run.
            room_id = self.behind(lock_alias(plan.old.room_id, self.domain))
        elif status != 200:
            error = self.synapse.refusal("POST", path, status, answer)
            error.mend = (
                "Its journal says more; alias_creation_rules must let people make #cae-matrix-remedy-… aliases."
            )
            raise error
        new = self.room(str(room_id))
        if new is None or new.creator != plan.actor:
            raise SynapseError(
                f"Another run is replacing {plan.old.label} at this moment.", "Run again when it is done."
            )
        self.did(result, f"made {new.room_id}")
        return new

    def invite(
        self, result: dict[str, Any], actor: str, room_id: str, people: list[str], how: dict[str, Any]
    ) -> list[str]:
        """One by one, as one who cannot be reached must not keep out the others; those who are not invited."""
        invited, refused = [], []
        try:
            for user in people:
                try:
                    self.put(actor, room_id, MEMBER, user, how)
                except SynapseError as error:
                    if error.status == 0 and server_of(user) == self.domain:
                        raise
                    refused.append(user)
                    result["notes"].append(f"{user} is not invited, run again later: {error.cause}")
                else:
                    invited.append(user)
        finally:
            if invited:
                self.did(result, f"invited {len(invited)}: {', '.join(invited)}")
        return refused

    def make_direct(self, plan: Plan, room_id: str, result: dict[str, Any]) -> None:
        """As Synapse does at an upgrade: each person's own list of direct conversations."""
        for user, partner in plan.direct.items():
            rooms = self.direct_rooms(user)
            if not self.usable(user):
                result["notes"].append(f"{user} has to mark the new conversation as direct: the account is locked")
            elif room_id not in rooms.get(partner, []):
                content = rooms | {partner: [*rooms.get(partner, []), room_id]}
                path = f"/_matrix/client/v3/user/{quote(user)}/account_data/{DIRECT}"
                self.synapse.call("PUT", path, content, self.token(user))
                self.did(result, f"made it a direct conversation for {user}")

    def move_addresses(self, plan: Plan, new: Room, result: dict[str, Any]) -> None:
        """Aliases, those that are shown, the directory."""
        for alias in plan.mark.aliases:
            behind = self.behind(alias)
            path = f"/_matrix/client/v3/directory/room/{quote(alias)}"
            if behind not in (None, plan.old.room_id, new.room_id):
                result["notes"].append(f"{alias} now leads to {behind}, and was left there")
            elif behind != new.room_id:
                if behind:
                    self.synapse.call("DELETE", path)
                self.synapse.call("PUT", path, {"room_id": new.room_id}, self.token(plan.actor))
                self.did(result, f"moved {alias}")
        for room, shown in ((new, dict(plan.mark.canonical)), (plan.old, plan.mark.left(plan.old))):
            if room.content(CANONICAL) != shown:
                self.put(plan.actor, room.room_id, CANONICAL, "", shown)
                self.did(result, f"set {CANONICAL} of {room.room_id}")
        if plan.mark.listed:
            for room_id, visibility in ((new.room_id, "public"), (plan.old.room_id, "private")):
                if self.listed(room_id) != (visibility == "public"):
                    path = f"/_matrix/client/v3/directory/list/room/{quote(room_id)}"
                    self.synapse.call("PUT", path, {"visibility": visibility})
                    self.did(result, f"made {room_id} {visibility} in the directory")

    def adopt(self, plan: Plan, parent: Parent, room_id: str, result: dict[str, Any]) -> None:
        """The new room in the place of the old one, with the same order."""
        if parent.actors:
            actor = plan.actor if plan.actor in parent.actors else parent.actors[0]
            children = self.room(parent.space, CHILD)
            if children is None or children.content(CHILD, room_id) != parent.child:
                self.put(actor, parent.space, CHILD, room_id, dict(parent.child))
            self.put(actor, parent.space, CHILD, plan.old.room_id, {})
            self.did(result, f"put it in {parent.label}")

    def unlock(self, result: dict[str, Any], lock: str) -> None:
        self.synapse.call("DELETE", f"/_matrix/client/v3/directory/room/{quote(lock)}")
        self.did(result, f"removed {lock}")

    # -- telling ------------------------------------------------------------------------------------------------

    def report(self, check_mode: bool) -> str:
        return "\n".join(line for one in self.results for line in self._told(one, check_mode))

    @staticmethod
    def _told(one: dict[str, Any], check_mode: bool) -> list[str]:
        label = f"{one['old']} ({remedy.shown(one['name'])})"
        if one["finished"] and not one["done"]:
            head = f"{label}: replaced already by {one['new']}; nothing to do"
        elif check_mode:
            head = (
                f"{label}: would be replaced, as {one['actor']}:"
                if not one["finished"]
                else f"{label}: replaced by {one['new']}; would:"
            )
        else:
            head = f"{label}: replaced by {one['new']}:" if one["finished"] else f"{label}: begun, not finished:"
        return [head, *(f"  - {step}" for step in one["done"]), *(f"  note: {note}" for note in one["notes"])]


def connected(params: dict[str, Any], check_mode: bool) -> Remedy:
    """Logged in as the gate's account, or with the token of an administrator."""
    if params["url"]:
        elsewhere = RemoteSynapse(params["url"], params["ca_file"], PATIENCE)
        elsewhere.token = params["admin_token"]
        return Remedy(elsewhere, params["domain"], administrator(elsewhere, params["domain"]))
    synapse = Synapse(params["socket"], PATIENCE)
    config_dir = Path(params["config_dir"])
    account = ServiceAccount(
        synapse, params["domain"], config_dir / "gate.token", config_dir / "secrets" / "registration_shared_secret"
    )
    # The gate need not have passed: what it refuses may be the very rooms that are to be replaced.
    if not check_mode:
        account.ready()
    elif not account.look():
        raise SynapseError(
            f"The gate's account cannot be used yet: {config_dir / 'gate.token'} is missing or no longer valid.",
            "Run the playbook cae.matrix.cooperative, which makes it, also where it then refuses.",
        )
    return Remedy(synapse, params["domain"], account.user_id)


def administrator(synapse: Synapse, domain: str) -> str:
    """Whose token it is, if it is one to do this with."""
    status, answer = synapse.ask("GET", "/_matrix/client/v3/account/whoami")
    user_id = str(answer.get("user_id", ""))
    if status != 200 or server_of(user_id) != domain:
        raise SynapseError(
            f"The admin token is not valid for {domain}: {status} {user_id or answer.get('errcode', '')}.",
            "Take the access token of an administrator of that server.",
        )
    status, answer = synapse.ask("GET", f"/_synapse/admin/v1/users/{quote(user_id)}/admin")
    if status != 200 or not answer.get("admin"):
        raise SynapseError(
            f"The admin API does not answer to {user_id}: {status} {answer.get('errcode', '')}.",
            "Make that person an administrator of the server, and let /_synapse/admin through to where this runs.",
        )
    return user_id


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "rooms": {"type": "list", "elements": "str", "required": True},
            "domain": {"type": "str", "required": True},
            "config_dir": {"type": "path"},
            "socket": {"type": "path"},
            "url": {"type": "str"},
            "admin_token": {"type": "str", "no_log": True},
            "ca_file": {"type": "path"},
        },
        required_one_of=[("socket", "url")],
        mutually_exclusive=[("socket", "url")],
        required_by={"socket": "config_dir", "url": "admin_token"},
        supports_check_mode=True,
    )
    remedies: list[Remedy] = []

    def result() -> dict[str, Any]:
        if not remedies:
            return {"changed": False, "rooms": [], "report": ""}
        run = remedies[0]
        return {
            "changed": run.changed,
            "rooms": run.results,
            "report": run.report(module.check_mode),
            "diff": run.diffs,
        }

    try:
        remedies.append(connected(module.params, module.check_mode))
        run = remedies[0]
        try:
            problems = run.run(module.params["rooms"], module.check_mode)
        finally:
            run.log_out()
    except (SynapseError, Refused) as error:
        again = " What was begun is finished by running again." if remedies and remedies[0].changed else ""
        module.fail_json(msg=f"{error}{again}", **result())
    if problems:
        module.fail_json(msg="Nothing was changed.\n" + "\n".join(problems), **result())
    module.exit_json(**result())


if __name__ == "__main__":
    main()
