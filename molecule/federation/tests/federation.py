# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The servers of the federation, one person on each, and who may talk to whom."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
from ansible_collections.cae.matrix.tests.patience import SETTLE, eventually
from conftest import Api, Instance, instances, run_playbook
from partition import Conversation, Side

SERVERS = {found.slug: found for found in instances()}
HUB, OUTSIDER = "federation", "ailleurs"
MEMBERS = sorted(set(SERVERS) - {OUTSIDER})
CLOSED = {"fabrique", "jardin", HUB}
# Everybody reaches everybody, but for the outsider and those who federate with the members only.
WAYS = list(permutations(SERVERS, 2))
MAY_NOT = [way for way in WAYS if OUTSIDER in way and set(way) & CLOSED]
MAY = [way for way in WAYS if way not in MAY_NOT]


class Person:
    """Somebody with an account on one of the servers, and a client that uses it by its public name."""

    def __init__(self, instance: Instance, localpart: str = "amina") -> None:
        self.instance = instance
        self.api = Api(instance)
        self.user_id = f"@{localpart}:{instance.domain}"
        account = f"/_synapse/admin/v2/users/{quote(self.user_id)}"
        status, answer = instance.admin("PUT", account, {"displayname": localpart.capitalize()})
        assert status in (200, 201), answer
        status, answer = instance.admin("POST", account.replace("v2", "v1") + "/login", {})
        assert status == 200, answer
        self.token: str = answer["access_token"]

    def ok(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        return self.api.ok(method, path, body, self.token)

    def try_to(self, method: str, path: str, body: dict[str, Any] | None = None) -> requests.Response:
        return self.api.request(method, path, body, self.token)

    def make(self, **body: Any) -> str:
        return str(self.ok("POST", "/_matrix/client/v3/createRoom", body)["room_id"])

    def join(self, room: str, via: str = "") -> requests.Response:
        path = f"/_matrix/client/v3/join/{quote(room, safe='')}" + (f"?server_name={via}&via={via}" if via else "")
        return self.try_to("POST", path, {})

    def in_room(self, room: str, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        return self.ok(method, f"/_matrix/client/v3/rooms/{quote(room, safe='')}/{path}", body)

    def state(self, room: str) -> dict[str, Any]:
        """The room's state, as this person's server knows it: content by type, of what has an empty key."""
        events = self.in_room(room, "GET", "state")
        return {event["type"]: event["content"] for event in events if not event["state_key"]}

    def invitations(self) -> set[str]:
        # Each time with another filter: for two minutes, the same question is answered the same.
        chosen = json.dumps({"room": {"timeline": {"limit": 1 + secrets.randbelow(10**9)}}})
        answer = self.ok("GET", f"/_matrix/client/v3/sync?filter={quote(chosen)}")
        return set(answer.get("rooms", {}).get("invite", {}))


@pytest.fixture(scope="session")
def people() -> dict[str, Person]:
    return {name: Person(instance) for name, instance in SERVERS.items()}


@contextlib.contextmanager
def talking(name: str, *people: Person) -> Iterator[Conversation]:
    talk = Conversation([Side(person.user_id, person.ok) for person in people], name)
    try:
        yield talk
    finally:
        talk.close()


def both_hear(talk: Conversation) -> None:
    """Each says something, and in the end nothing is lost, doubled or out of order."""
    for side in talk.sides:
        talk.say(side)
    eventually(talk.sound, seconds=SETTLE)


@dataclass
class Poller:
    """Somebody who looks at a server again and again, as a client does, and keeps every failure."""

    path: str
    person: Person
    looks: int = 0
    failures: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def watching(self) -> Iterator[Poller]:
        end = threading.Event()

        def watch() -> None:
            while not end.wait(0.2):
                try:
                    answer = self.person.try_to("GET", self.path)
                    if answer.status_code != 200:
                        self.failures.append(f"{answer.status_code} {answer.text}")
                except requests.RequestException as error:
                    self.failures.append(str(error))
                self.looks += 1

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield self
        finally:
            end.set()
            thread.join()


@dataclass
class Run:
    """What a run of a playbook said."""

    status: int
    output: str

    def refusal(self, host: str) -> str:
        """Why the run ended for one of the hosts: its error, in one line."""
        found = re.search(rf"^fatal: \[{host}(?: -> .*)?\].*\n((?:[ ].*\n|\n)*)", self.output, re.MULTILINE)
        assert found, self.output
        return " ".join(found.group().split())

    def unchanged(self, host: str) -> bool:
        """Whether it went well on a host, and had nothing to do there."""
        return bool(re.search(rf"^{host} .*changed=0 .*unreachable=0 .*failed=0 ", self.output, re.MULTILINE))


def play(playbook: Path, inventory: Path, *hosts: str, changes: dict[str, Any] | None = None, **variables: Any) -> Run:
    """A run on some of the hosts, as the ops team does it, with an inventory in which some variables are different."""
    source = inventory / "changes.json"
    every = {name: (changes or {}).get(name, {}) for name in SERVERS}
    source.write_text(json.dumps({"all": {"hosts": every}}))
    limit = ["--limit", ",".join(hosts)] if hosts else []
    return Run(*run_playbook(playbook, "-i", str(source), *limit, **variables))
