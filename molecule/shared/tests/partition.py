# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Two machines that stop hearing each other, and people on both who go on talking. The bench measures with it, too."""

from __future__ import annotations

import contextlib
import secrets
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ansible_collections.cae.matrix.tests.patience import START, eventually

# One request of a person to the client API of their own server: method, path, body; the answer, which must be good.
Ask = Callable[[str, str, dict[str, Any] | None], Any]

# A card that nobody has: what is sent there is lost without a word, as in a network that has come apart.
NOBODY = "02:00:00:00:00:01"


def _neighbour(container: str, *arguments: str) -> None:
    subprocess.run(["docker", "exec", container, "ip", "neigh", *arguments], check=True, capture_output=True)


@contextlib.contextmanager
def partition(one: tuple[str, str], other: tuple[str, str]) -> Iterator[None]:
    """Between two containers, each given with its address, packets are dropped in both directions, not refused.

    >>> with partition(("container-a", "172.18.0.2"), ("container-b", "172.18.0.3")):
    ...     ...
    """
    ways = ((one[0], other[1]), (other[0], one[1]))
    try:
        for container, address in ways:
            _neighbour(container, "replace", address, "lladdr", NOBODY, "nud", "permanent", "dev", "eth0")
        yield
    finally:
        for container, address in ways:
            _neighbour(container, "del", address, "dev", "eth0")


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="")


@dataclass
class Side:
    """One person of a conversation, what their server took from them, and what their /sync showed, when."""

    user_id: str
    ask: Ask = field(repr=False)
    sent: list[str] = field(default_factory=list)
    shown: list[tuple[str, float]] = field(default_factory=list)
    # Whether /sync has left something out, and said so: clients then look it up, with /messages.
    gap: bool = False

    def when(self, body: str) -> float | None:
        """When /sync first showed a message, on the monotonic clock."""
        return next((when for shown, when in self.shown if shown == body), None)


class Conversation:
    """A room between people of different servers, each of whom listens with a /sync of their own.

    What is said is numbered, so that the end can be compared with the beginning: `problems` says what was lost, what
    came twice and what came out of its sender's order, for each side.
    """

    def __init__(self, sides: list[Side], name: str) -> None:
        self.sides = sides
        self._numbers = 0
        self._end = threading.Event()
        first, *others = sides
        body = {"name": name, "preset": "private_chat", "invite": [side.user_id for side in others]}
        self.room: str = first.ask("POST", "/_matrix/client/v3/createRoom", body)["room_id"]
        for side in others:
            eventually(partial(side.ask, "POST", f"/_matrix/client/v3/join/{_quoted(self.room)}", {}), seconds=START)
        for side in sides:
            threading.Thread(target=self._listen, args=(side,), daemon=True).start()

    def _listen(self, side: Side) -> None:
        wanted = {
            "presence": {"types": []},
            "account_data": {"types": []},
            "room": {
                "rooms": [self.room],
                "timeline": {"types": ["m.room.message"], "limit": 200},
                "ephemeral": {"types": []},
                "account_data": {"types": []},
                "state": {"types": []},
            },
        }
        path = f"/_matrix/client/v3/user/{_quoted(side.user_id)}/filter"
        chosen = side.ask("POST", path, wanted)["filter_id"]
        since = ""
        known: set[str] = set()
        while not self._end.is_set():
            path = f"/_matrix/client/v3/sync?filter={chosen}&timeout=5000"
            try:
                answer = side.ask("GET", path + since, None)
            except Exception:
                # A server that starts again, say; who misses something for good finds it among the problems.
                self._end.wait(0.5)
                continue
            now, since = time.monotonic(), f"&since={answer['next_batch']}"
            timeline = answer.get("rooms", {}).get("join", {}).get(self.room, {}).get("timeline", {})
            for event in timeline.get("events", []):
                # Clients know an event again; the same words in another event would be a message that came twice.
                if event["event_id"] not in known:
                    known.add(event["event_id"])
                    side.shown.append((event["content"]["body"], now))
            side.gap = side.gap or (bool(timeline.get("limited")) and len(known) > len(timeline["events"]))

    def say(self, side: Side) -> str:
        """One more message; what was said."""
        self._numbers += 1
        said = f"{side.user_id} {self._numbers}"
        path = f"/_matrix/client/v3/rooms/{_quoted(self.room)}/send/m.room.message/{secrets.token_hex(8)}"
        side.ask("PUT", path, {"msgtype": "m.text", "body": said})
        side.sent.append(said)
        return said

    def history(self, side: Side) -> list[str]:
        """Everything that was said, as this side's server tells it to who scrolls back to the beginning."""
        found: list[str] = []
        page = ""
        while True:
            path = f"/_matrix/client/v3/rooms/{_quoted(self.room)}/messages?dir=b&limit=500{page}"
            answer = side.ask("GET", path, None)
            found += [event["content"]["body"] for event in answer["chunk"] if event["type"] == "m.room.message"]
            if not answer.get("end"):
                return found[::-1]
            page = f"&from={_quoted(answer['end'])}"

    def missing(self) -> int:
        """How many messages are not there yet on one side or another."""
        said = {body for side in self.sides for body in side.sent}
        return sum(len(said.difference(self.history(side))) for side in self.sides)

    def problems(self) -> list[str]:
        """What is wrong by now, in /messages and in /sync; nothing, in the end."""
        found = []
        for side in self.sides:
            views = {"/messages": self.history(side), "/sync": [body for body, _ in side.shown]}
            for view, bodies in views.items():
                twice = {body for body in bodies if bodies.count(body) > 1}
                found += [f"{view} of {side.user_id} shows twice: {body}" for body in twice]
                for speaker in self.sides:
                    heard = [body for body in bodies if body in set(speaker.sent)]
                    lost = [body for body in speaker.sent if body not in set(heard)]
                    if view == "/messages" or not side.gap:
                        found += [f"{view} of {side.user_id} lacks: {body}" for body in lost]
                    if not lost and heard != sorted(heard, key=speaker.sent.index):
                        found.append(f"{view} of {side.user_id} has another order than {speaker.user_id}: {heard}")
        return found

    def sound(self) -> bool:
        """True, or an AssertionError that tells what is wrong by now."""
        if found := self.problems():
            sent = sum(len(side.sent) for side in self.sides)
            raise AssertionError(f"{sent} said, {len(found)} problems: {'; '.join(found[:10])}")
        return True

    def close(self) -> None:
        """Nobody listens any more, once the /sync of now is answered."""
        self._end.set()
