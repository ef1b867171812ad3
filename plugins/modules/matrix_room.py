#!/usr/bin/python
# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rooms and spaces of one server, as declared."""

from __future__ import annotations

DOCUMENTATION = r"""
module: matrix_room
short_description: Make and keep rooms and spaces
version_added: 0.1.0
author: cae.matrix contributors
description:
  - Makes the rooms and spaces that are declared, all of them in one task, and keeps what is declared of them. What is
    not declared, such as a topic that is not given, is left as people made it. Rooms that are not named are left alone.
  - Works through Synapse's API on its Unix socket, with the encryption gate's account, which asks Synapse to act as
    O(owner). The rooms are that person's, and nobody else comes into them. Where O(owner) has left a room or has no
    power in it any more, it is done as another person of this server who has.
  - Rooms are made plain. Encryption that somebody turns on later is never touched.
  - Can be interrupted at any moment and run again. Synapse gives an alias to one room only, and makes it with the
    room, so that there is never a second one.
  - An alias that leads to a room that people have made is taken at its word. That room is kept from then on.
extends_documentation_fragment: [cae.matrix.service_account]
options:
  owner:
    description:
      - The part before the colon in C(@name:domain) of the person whose rooms these are. The account has to exist; the
        gate makes those of C(encryption_gate_administrators).
    type: str
    required: true
  rooms:
    description: The rooms and spaces. In a space, rooms are in the order in which they are here.
    type: list
    elements: dict
    required: true
    suboptions:
      alias:
        description: The part between C(#) and the colon in C(#name:domain). It is what the room is known by.
        type: str
        required: true
      state:
        description:
          - With C(absent), the room is closed. Nobody can write or come in any more, which is said in it, and its
            alias, its place in the spaces named here and in the directory are taken away. Nothing is deleted. Whoever
            is in it can still read it.
        type: str
        choices: [present, absent]
        default: present
      kind:
        description: A space holds rooms and other spaces.
        type: str
        choices: [room, space]
        default: room
      name:
        description: The name that people see. Required unless O(rooms[].state=absent).
        type: str
      topic:
        description: What it is about. An empty text takes the topic away.
        type: str
      join:
        description:
          - Who can come in by themselves. C(public) is everybody whom O(rooms[].servers) does not refuse, C(space)
            whoever is in one of O(rooms[].parents), C(invite) nobody.
          - A new room begins with C(invite).
        type: str
        choices: [public, space, invite]
      parents:
        description:
          - Aliases of the spaces, among O(rooms), that the room is in. Where this is given, it is in no other of those
            spaces; an empty list takes it out of them all.
        type: list
        elements: str
      links:
        description:
          - For a space, aliases of rooms and spaces of other servers that are shown in it, such as
            C(#federation:federation.example). One that cannot be found now is named in the result and tried again on
            the next run.
          - Where this is given, links of an earlier run that are not named any more are taken away. What people have
            put into the space is left there.
        type: list
        elements: str
      write:
        description:
          - Who can write.
          - A new room begins with C(everyone).
        type: str
        choices: [everyone, moderators, administrators]
      moderators:
        description:
          - People (C(@name:domain)) who have at least the power to moderate (50). Nobody loses power that others have
            given them.
        type: list
        elements: str
        default: []
      administrators:
        description: People who have at least the power to administer the room (100).
        type: list
        elements: str
        default: []
      history:
        description:
          - Who can read what was said before.
          - A new room begins with C(shared).
        type: str
        choices: [shared, joined, invited, world_readable]
      listed:
        description:
          - Whether it is in the public directory of this server.
          - A new room is not.
        type: bool
      servers:
        description:
          - Which servers can take part, as names with C(*) and C(?) (C(m.room.server_acl)). This server always can.
            Servers that are named by an address are refused.
          - People of a server that is refused are removed from the room, as their server would otherwise go on
            receiving what is said there, and invitations to them are withdrawn.
        type: dict
        suboptions:
          allow:
            description: Servers that can take part.
            type: list
            elements: str
            default: ["*"]
          deny:
            description: Servers that cannot, even where O(rooms[].servers.allow) has them.
            type: list
            elements: str
            default: []
attributes:
  check_mode:
    support: full
    description: Says what it would do.
  diff_mode:
    support: full
    description: Of each room that changes, what changes.
seealso:
  - module: cae.matrix.remedy
"""

EXAMPLES = r"""
- name: A welcome space with two rooms, which shows the federation's space as well
  cae.matrix.matrix_room:
    owner: amina
    rooms:
      - alias: bienvenue
        kind: space
        name: Bienvenue
        topic: Les salons de la coopérative
        join: public
        links: ["#federation:federation.example"]
      - alias: annonces
        name: Annonces
        join: space
        parents: [bienvenue]
        write: moderators
        moderators: ["@bruno:example.coop"]
      - alias: entraide
        name: Entraide
        join: space
        parents: [bienvenue]
    domain: example.coop
    config_dir: /etc/matrix/example
    socket: /run/matrix-synapse/example/client.sock

- name: A room of the federation, for its members' servers
  cae.matrix.matrix_room:
    owner: amina
    rooms:
      - alias: comptabilite
        name: Comptabilité
        join: public
        servers:
          allow: [federation.example, atelier.example, example.coop]
    domain: federation.example
    config_dir: /etc/matrix/hub
    socket: /run/matrix-synapse/hub/client.sock

- name: Close a room
  cae.matrix.matrix_room:
    owner: amina
    rooms:
      - alias: projet-2024
        state: absent
    domain: example.coop
    config_dir: /etc/matrix/example
    socket: /run/matrix-synapse/example/client.sock
"""

RETURN = r"""
rooms:
  description: The rooms, in the order given, and what was done in this run.
  returned: always
  type: list
  elements: dict
  contains:
    alias:
      description: The alias, as given.
      type: str
    room_id:
      description: The room; null if there is none, or not yet.
      type: str
    changed:
      description: Whether anything was changed.
      type: bool
    done:
      description: The steps of this run, or those that there would be.
      type: list
      elements: str
    notes:
      description: What could not be done, and why. Shown as warnings as well.
      type: list
      elements: str
  sample:
    - alias: annonces
      room_id: "!nUbMWhkbnfBQvFMDVd:example.coop"
      changed: true
      done: ["make the room Annonces"]
      notes: []
report:
  description: What was done, for people; nothing about rooms that needed nothing.
  returned: always
  type: str
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cae.matrix.plugins.module_utils.encryption.acting import Acting
from ansible_collections.cae.matrix.plugins.module_utils.encryption.remedy import (
    CREATE,
    MEMBER,
    POWER,
    SPACE,
    Room,
    level,
    mapping,
    shown,
)
from ansible_collections.cae.matrix.plugins.module_utils.matrix.identifiers import server_of
from ansible_collections.cae.matrix.plugins.module_utils.rooms import declared as rooms
from ansible_collections.cae.matrix.plugins.module_utils.rooms.declared import Change, Child, Declared
from ansible_collections.cae.matrix.plugins.module_utils.synapse.admin import (
    Synapse,
    SynapseError,
    existing_account,
    quote,
)

# Making a room, or removing somebody of a server that does not answer.
PATIENCE = 120.0
# Another server's answer about an alias: a hub that is down must not hold up its members.
LINK_PATIENCE = 20.0
# How far back the message of a closed room is looked for.
RECENT = 50

SPEC: dict[str, Any] = {
    "owner": {"type": "str", "required": True},
    "rooms": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "alias": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "kind": {"type": "str", "choices": ["room", "space"], "default": "room"},
            "name": {"type": "str"},
            "topic": {"type": "str"},
            "join": {"type": "str", "choices": ["public", "space", "invite"]},
            "parents": {"type": "list", "elements": "str"},
            "links": {"type": "list", "elements": "str"},
            "write": {"type": "str", "choices": ["everyone", "moderators", "administrators"]},
            "moderators": {"type": "list", "elements": "str", "default": []},
            "administrators": {"type": "list", "elements": "str", "default": []},
            "history": {"type": "str", "choices": ["shared", "joined", "invited", "world_readable"]},
            "listed": {"type": "bool"},
            "servers": {
                "type": "dict",
                "options": {
                    "allow": {"type": "list", "elements": "str", "default": ["*"]},
                    "deny": {"type": "list", "elements": "str", "default": []},
                },
            },
        },
    },
    "domain": {"type": "str", "required": True},
    "config_dir": {"type": "path", "required": True},
    "socket": {"type": "path", "required": True},
}


class NotThereYet(Synapse):
    """In check mode, before the gate has passed for the first time: a server without rooms."""

    def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, token: str | None = None
    ) -> tuple[int, Any]:
        if path.startswith("/_synapse/admin/v1/rooms?"):
            return 200, {"rooms": []}
        return 404, {}


class Rooms(Acting):
    """The rooms of one server that are declared."""

    def __init__(self, synapse: Synapse, domain: str, admin: str, owner: str, check_mode: bool) -> None:
        super().__init__(synapse, domain, admin)
        self.owner = f"@{owner}:{domain}"
        self.check_mode = check_mode
        self.changed = False
        self.results: dict[str, dict[str, Any]] = {}
        self.diffs: list[dict[str, str]] = []
        self.objections: dict[str, str] = {}
        self._found: dict[str, Room] = {}
        self._version = ""

    # -- looking ------------------------------------------------------------------------------------------------

    def alias(self, one: Declared) -> str:
        """In full."""
        return f"#{one.alias}:{self.domain}"

    def find(self, one: Declared) -> Room | None:
        """The room that the alias leads to, unless that is one in which nobody is."""
        room_id = self.behind(self.alias(one))
        room = self.room(room_id) if room_id else None
        if room_id is None or (room is not None and room.members("join")):
            return room
        if one.absent:
            return room or Room(room_id, [])
        # Left by an interrupted run, or by everybody. Only the first has nothing but its beginning.
        if room is not None and set(room.events) == {(CREATE, "")} and rooms.made_for(room) == one.alias:
            self.do(
                one, f"remove {room_id}, which was begun and has nobody in it", self.remove, room_id, self.alias(one)
            )
        else:
            self.do(one, f"take the alias from {room_id}, which nobody here is in", self.free, self.alias(one))
        return None

    def public(self) -> set[str]:
        """The rooms in the directory."""
        found: set[str] = set()
        start: int | None = 0
        while start is not None:
            answer = self.synapse.call("GET", f"/_synapse/admin/v1/rooms?public_rooms=true&limit=1000&from={start}")
            found |= {one["room_id"] for one in answer["rooms"]}
            start = answer.get("next_batch")
        return found

    def version(self) -> str:
        """Of the rooms that Synapse makes."""
        if not self._version:
            status, answer = self.synapse.ask("GET", "/_matrix/client/v3/capabilities")
            versions = answer.get("capabilities", {}).get("m.room_versions", {}) if status == 200 else {}
            self._version = str(versions.get("default", ""))
        return self._version

    def objection(self, one: Declared, room: Room) -> str | None:
        """Why a room that is there cannot be the one that is declared."""
        if room.is_space != one.is_space:
            there = "space" if room.is_space else "room"
            return (
                f"{room.label} is a {there}, and a {one.kind} is declared; take another alias, or give it kind: {there}"
            )
        if room.replacement is not None:
            return (
                f"{room.label} is closed and leads to {room.replacement or 'nowhere'}; give that room the alias "
                f"{self.alias(one)}, or take the alias away"
            )
        return None

    def actor(self, room: Room, changes: Sequence[Change], kicks: bool = False) -> str | None:
        """The owner, or another person of this server who can do all that."""
        needed = max([room.needed(one.kind) for one in changes], default=0)
        for one in changes:
            if one.kind == POWER:
                # Nobody can give more than they have.
                before = mapping(room.powers.get("users"))
                given = [level(number) for user, number in one.content["users"].items() if before.get(user) != number]
                needed = max(needed, level(one.content.get("events_default")), *given)
        if kicks:
            needed = max(needed, level(room.powers.get("kick", 50)))
        able = room.able(self.domain, needed)
        first = [self.owner] if self.owner in able else []
        return next((user for user in first + able if self.usable(user)), None)

    # -- doing --------------------------------------------------------------------------------------------------

    def run(self, declared: Sequence[Declared]) -> None:
        """All of them: first each by itself, then what spaces hold, then what is to be closed."""
        for one in declared:
            self.results[one.alias] = {"alias": one.alias, "room_id": None, "changed": False, "done": [], "notes": []}
        present = [one for one in declared if not one.absent]
        absent = [one for one in declared if one.absent]
        if present:
            self.check_owner()
        for one in declared:
            room = self.find(one)
            if room is not None:
                self.known(one, room)
                objection = None if one.absent else self.objection(one, room)
                if objection:
                    self.objections[one.alias] = objection
        listed = self.public()
        for one in rooms.parents_first(present):
            if self.sound(one):
                self.keep(one, listed)
        for one in present:
            if one.is_space and self.sound(one):
                self.arrange(one, declared)
        for one in absent:
            if one.alias in self._found:
                self.close(one, listed)

    def sound(self, one: Declared) -> bool:
        """Whether nothing speaks against it."""
        return one.alias not in self.objections

    def known(self, one: Declared, room: Room) -> None:
        self._found[one.alias] = room
        self.results[one.alias]["room_id"] = room.room_id

    def ids(self) -> dict[str, str]:
        """In check mode, what is not made yet has its alias in place of an identifier."""
        return {alias: self._found[alias].room_id if alias in self._found else f"(#{alias})" for alias in self.results}

    def check_owner(self) -> None:
        if not self.usable(self.owner):
            if self.check_mode:
                return
            raise SynapseError(
                f"{self.owner}, whose rooms these are, has no account, or a locked, suspended or deactivated one.",
                "Name somebody of encryption_gate_administrators, whose accounts the gate makes.",
            )

    def do(self, one: Declared, words: str, what: Callable[..., Any], *arguments: Any) -> None:
        """One step; in check mode, only its words."""
        if not self.check_mode:
            what(*arguments)
        self.changed = True
        self.results[one.alias]["changed"] = True
        if words not in self.results[one.alias]["done"]:
            self.results[one.alias]["done"].append(words)

    def note(self, one: Declared, text: str) -> None:
        self.results[one.alias]["notes"].append(text)

    def show(self, one: Declared, room: Room, changes: Sequence[Change]) -> None:
        """For the diff."""
        if changes:
            sides = {
                "before": {f"{it.kind} {it.key}".strip(): room.content(it.kind, it.key) for it in changes},
                "after": {f"{it.kind} {it.key}".strip(): it.content for it in changes},
            }
            diff = {key: json.dumps(side, indent=2, ensure_ascii=False) + "\n" for key, side in sides.items()}
            header = f"{self.alias(one)} ({shown(room.name or one.name)})"
            self.diffs.append(diff | {f"{key}_header": header for key in sides})

    def apply(self, one: Declared, room: Room, changes: Sequence[Change]) -> bool:
        """Sends these states; whether there is somebody who can."""
        if not changes:
            return True
        actor = self.actor(room, changes)
        if actor is None:
            self.powerless(one, room, ", ".join(dict.fromkeys(it.words for it in changes)))
            return False
        self.show(one, room, changes)
        for it in changes:
            self.do(one, it.words, self.put, actor, room.room_id, it.kind, it.key, it.content)
        return True

    def powerless(self, one: Declared, room: Room, words: str) -> None:
        self.objections[one.alias] = (
            f"nobody of {self.domain} who is in {room.label} and can be acted as has the power to: {words}; ask "
            f"somebody with power there to raise {self.owner} to {rooms.ADMINISTRATOR}"
        )

    def keep(self, one: Declared, listed: set[str]) -> None:
        """One room by itself."""
        room = self._found.get(one.alias)
        if room is None:
            room = self.make(one)
        if room is not None:
            fresh = rooms.made_for(room) == one.alias
            changes = rooms.changes(one, room, fresh, self.ids(), self.owner, self.domain)
            if self.apply(one, room, changes):
                self.put_out(one, room)
        self.show_in_directory(one, one.listed, listed)

    def make(self, one: Declared) -> Room | None:
        """A new room with its alias, in one step; None in check mode."""
        unmade = rooms.unmade(self.version(), self.domain)
        changes = rooms.changes(one, unmade, True, self.ids(), self.owner, self.domain)
        self.show(one, unmade, changes)
        self.do(one, f"make the {one.kind} {one.name}", self.create, one, changes)
        return self._found.get(one.alias)

    def create(self, one: Declared, changes: Sequence[Change]) -> None:
        body = {
            "preset": "private_chat",
            "visibility": "private",
            "room_alias_name": one.alias,
            "creation_content": {rooms.MARK: one.alias, **({"type": SPACE} if one.is_space else {})},
            "initial_state": [{"type": it.kind, "state_key": it.key, "content": it.content} for it in changes],
        }
        path = "/_matrix/client/v3/createRoom"
        status, answer = self.synapse.ask("POST", path, body, self.token(self.owner))
        room_id = answer.get("room_id")
        if answer.get("errcode") == "M_ROOM_IN_USE":
            # Made by this very request, whose answer was lost, or by another run.
            room_id = self.behind(self.alias(one))
        elif status != 200:
            raise self.synapse.refusal("POST", path, status, answer)
        room = self.room(str(room_id))
        if room is None or rooms.made_for(room) != one.alias or room.membership(self.owner) != "join":
            raise SynapseError(f"Another run is making {self.alias(one)} at this moment.", "Run again when it is done.")
        if room.encrypted and room.members("join", "invite") == [self.owner]:
            self.remove(room.room_id, self.alias(one))
            raise SynapseError(
                f"Synapse encrypted the new room {self.alias(one)}; it is removed again.",
                "See that encryption_enabled_by_default_for_room_type is off, and that no module adds encryption.",
            )
        self.known(one, room)

    def put_out(self, one: Declared, room: Room) -> None:
        """People of servers that the room refuses, now that it does."""
        people = rooms.outsiders(one.acl, room, self.domain)
        if not people:
            return
        actor = self.actor(room, (), kicks=True)
        if actor is None:
            self.note(one, f"nobody of {self.domain} can remove {', '.join(people)}")
            return
        removed = [user for user in people if room.power(user) < room.power(actor)]
        if set(people) - set(removed):
            strong = ", ".join(sorted(set(people) - set(removed)))
            self.note(one, f"{strong} cannot be removed, having as much power there as {actor}")
        out = {"membership": "leave", "reason": rooms.REFUSED}
        self.show(one, room, [Change(MEMBER, user, out, "") for user in removed])
        for user in removed:
            self.do(one, f"remove {user}, whose server is refused", self.put, actor, room.room_id, MEMBER, user, out)

    def show_in_directory(self, one: Declared, wanted: bool | None, listed: set[str]) -> None:
        """In the directory, or not."""
        room = self._found.get(one.alias)
        if wanted is None or wanted == (room is not None and room.room_id in listed):
            return
        words = "list it in the directory" if wanted else "take it out of the directory"
        try:
            self.do(one, words, self.publish, room, wanted)
        except SynapseError as error:
            if error.status != 403:
                raise
            self.note(one, f"it is not in the directory: {error.cause} See room_list_publication_rules.")

    def publish(self, room: Room, wanted: bool) -> None:
        path = f"/_matrix/client/v3/directory/list/room/{quote(room.room_id)}"
        self.synapse.call("PUT", path, {"visibility": "public" if wanted else "private"})

    def arrange(self, space: Declared, declared: Sequence[Declared]) -> None:
        """What a space holds."""
        ids = self.ids()
        room = self._found.get(space.alias) or Room(ids[space.alias], [])
        inside = [one for one in declared if not one.absent and space.alias in (one.parents or ())]
        children = [Child(ids[one.alias], one.alias, (self.domain,)) for one in inside]
        for link in space.links or ():
            child = self.linked(space, link)
            if child is not None and child.room_id not in [one.room_id for one in children]:
                children.append(child)
        gone = [
            ids[one.alias]
            for one in declared
            if one.alias in self._found and one not in inside and (one.absent or one.parents is not None)
        ]
        changes = rooms.arrangement(room, children, gone, space.links)
        if room.events:
            self.apply(space, room, changes)
        else:
            self.show(space, room, changes)
            for it in changes:
                self.do(space, it.words, lambda: None)

    def linked(self, space: Declared, link: str) -> Child | None:
        """A room of another server, if it can be found now."""
        asking = self.asking()
        path = f"/_matrix/client/v3/directory/room/{quote(link)}"
        try:
            status, answer = asking.ask("GET", path)
        except SynapseError:
            status, answer = 504, {"error": f"no answer within {LINK_PATIENCE:.0f} s"}
        finally:
            asking.close()
        if status != 200:
            why = answer.get("error") or status
            self.note(space, f"{link} cannot be found now ({why}); it is tried again on the next run")
            return None
        server = server_of(link)
        others = sorted(one for one in answer["servers"] if one not in (server, self.domain))
        return Child(str(answer["room_id"]), link, (server, *others[:2]), link)

    def asking(self) -> Synapse:
        """A connection of its own, for what may take long."""
        if isinstance(self.synapse, NotThereYet):
            return self.synapse
        asking = Synapse(self.synapse.socket_path, LINK_PATIENCE)
        asking.token = self.synapse.token
        return asking

    def close(self, one: Declared, listed: set[str]) -> None:
        """A room that is to be no more. The alias goes last: until then, it is how the room is found."""
        room = self._found[one.alias]
        changes = rooms.closing(room, self.alias(one)) if room.members("join") else []
        actor = self.actor(room, changes) if changes else None
        if changes and actor is None:
            self.powerless(one, room, "close it")
            return
        if actor and not room.is_space and not self.told(room):
            self.do(one, "say that it is closed", self.tell, actor, room)
        self.apply(one, room, changes)
        self.show_in_directory(one, False, listed)
        self.do(one, f"take away {self.alias(one)}", self.free, self.alias(one))

    def told(self, room: Room) -> bool:
        path = f"/_synapse/admin/v1/rooms/{quote(room.room_id)}/messages?dir=b&limit={RECENT}"
        return any(rooms.CLOSED in event.get("content", {}) for event in self.synapse.call("GET", path)["chunk"])

    def tell(self, actor: str, room: Room) -> None:
        content = {"msgtype": "m.notice", "body": rooms.CLOSING, rooms.CLOSED: True}
        path = f"/_matrix/client/v3/rooms/{quote(room.room_id)}/send/m.room.message/{time.time_ns()}"
        self.synapse.call("PUT", path, content, self.token(actor))

    # -- telling ------------------------------------------------------------------------------------------------

    def report(self) -> str:
        """For people; nothing about rooms that needed nothing."""
        lines = []
        for one in self.results.values():
            if one["done"] or one["notes"]:
                lines.append(f"#{one['alias']}:{self.domain} ({one['room_id'] or 'a new one'}):")
                lines += [f"  - {step}" for step in one["done"]] + [f"  note: {note}" for note in one["notes"]]
        return "\n".join(lines)

    def noted(self) -> list[tuple[str, str]]:
        """What could not be done, and of which room."""
        return [(alias, note) for alias, one in self.results.items() for note in one["notes"]]

    def result(self) -> dict[str, Any]:
        """What the module returns."""
        return {
            "changed": self.changed,
            "rooms": list(self.results.values()),
            "report": self.report(),
            "diff": self.diffs,
        }


def connected(params: Mapping[str, Any], check_mode: bool) -> Rooms:
    """Logged in as the gate's account."""
    config_dir = Path(params["config_dir"])
    if check_mode and not (config_dir / "gate.token").exists():
        return Rooms(NotThereYet(params["socket"]), params["domain"], "", params["owner"], check_mode)
    synapse = Synapse(params["socket"], PATIENCE)
    account = existing_account(synapse, params["domain"], config_dir)
    return Rooms(synapse, params["domain"], account.user_id, params["owner"], check_mode)


def main() -> None:
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    params = module.params
    problems = rooms.problems(params["rooms"], params["owner"], params["domain"])
    if problems:
        module.fail_json(msg="Nothing was changed.\n" + "\n".join(problems), changed=False, rooms=[], report="")
    try:
        run = connected(params, module.check_mode)
    except SynapseError as error:
        module.fail_json(msg=str(error), changed=False, rooms=[], report="")
    try:
        run.run([Declared.read(entry, params["domain"]) for entry in params["rooms"]])
    except SynapseError as error:
        again = " What was begun is finished by running again." if run.changed else ""
        module.fail_json(msg=f"{error}{again}", **run.result())
    finally:
        run.log_out()
        # Nobody looks into the result of a run that went well.
        for alias, text in run.noted():
            module.warn(f"#{alias}:{run.domain}: {text}")
    if run.objections:
        others = "The other rooms are as declared.\n" if len(run.results) > 1 else ""
        problems = [f"{alias}: {text}" for alias, text in run.objections.items()]
        module.fail_json(msg=others + "\n".join(problems), **run.result())
    module.exit_json(**run.result())


if __name__ == "__main__":
    main()
