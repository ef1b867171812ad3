# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A member leaves and comes back, and one closes itself: listed first, acknowledged, and nobody else notices."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.cae.matrix.tests.patience import SETTLE, START, eventually, patient
from conftest import PROJECT
from federation import HUB, SERVERS, Person, Poller, Run, both_hear, play, talking
from partition import Conversation

SCENARIO = PROJECT / "molecule/federation"
STAYING = ("atelier", "fabrique", HUB)

Rooms = dict[str, Conversation]


@pytest.fixture
def rooms(people: dict[str, Person]) -> Iterator[Rooms]:
    """What people of jardin have been talking about, with whom, before anything changes."""
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(talking(f"Le jardin et {name}", people["jardin"], people[name]))
            for name in STAYING
        }


def run(work: Path, *hosts: str, changes: dict[str, Any] | None = None) -> Run:
    return play(SCENARIO / "converge.yml", work, *hosts, changes=changes)


def without_jardin(work: Path, **more: Any) -> dict[str, Any]:
    members = yaml.safe_load((SCENARIO / "inventory/members.yml").read_text())
    members["members"] = [one for one in members["members"] if one["domain"] != SERVERS["jardin"].domain]
    path = work / "members.yml"
    path.write_text(yaml.safe_dump(members, allow_unicode=True))
    return {name: {"federation_members": str(path), **more} for name in STAYING}


def refused(inviting: Person, invited: Person) -> bool:
    room = inviting.make(name="Encore là ?")
    answer = inviting.try_to("POST", f"/_matrix/client/v3/rooms/{room}/invite", {"user_id": invited.user_id})
    # A server that answers nothing to others is taken for one that is too old for the room.
    return answer.status_code in (400, 403, 502) and room not in invited.invitations()


def test_a_member_leaves_one_closes_itself_and_everybody_comes_back(
    people: dict[str, Person], rooms: Rooms, tmp_path: Path
) -> None:
    """One story, since each part begins where the one before has ended; whatever fails, the end is as the beginning."""
    try:
        nobody_is_cut_off_without_a_word(rooms, tmp_path)
        a_member_leaves_while_the_others_talk(people, rooms, tmp_path)
        a_cooperative_closes_itself(people, rooms, tmp_path)
    finally:
        # First who comes back: for an hour, a Synapse remembers that a domain told it nothing.
        done = [run(tmp_path, "jardin"), run(tmp_path, *STAYING)]
    for each in done:
        assert each.status == 0, each.output
    for talk in rooms.values():
        both_hear(talk)
    eventually(lambda: people["jardin"].join(f"#jardin:{SERVERS[HUB].domain}").status_code == 200, seconds=START)
    assert not refused(people["jardin"], people["fabrique"])


def nobody_is_cut_off_without_a_word(rooms: Rooms, work: Path) -> None:
    """Neither by a shorter list alone, nor by a profile alone."""
    for name in ("fabrique", "atelier"):
        both_hear(rooms[name])
    changes = {"fabrique": without_jardin(work)["fabrique"], "jardin": {"matrix_profile": "internal"}}
    done = run(work, *changes, changes=changes)
    assert done.status != 0
    for host, lost in (("fabrique", "Le jardin et fabrique"), ("jardin", "Le jardin et atelier")):
        done.refusal(host)
        # What is lost is told in lines of its own, once to each who loses it.
        assert 1 <= done.output.count(lost) <= len(changes)
        assert done.output.count("federation_accepted_losses") >= 1
    for name in ("fabrique", "atelier"):
        both_hear(rooms[name])


def a_member_leaves_while_the_others_talk(people: dict[str, Person], rooms: Rooms, work: Path) -> None:
    """Those whose own server has nothing to change see no failure at all; messages of the others are late at most."""
    poller = Poller("/_matrix/client/v3/account/whoami", people["atelier"])
    end = threading.Event()
    with talking("Pendant ce temps", people["atelier"], people["fabrique"]) as talk, poller.watching():

        def go_on() -> None:
            while not end.wait(1):
                for side in talk.sides:
                    # A server that starts again is away for seconds; a client tries again.
                    eventually(partial(talk.say, side), seconds=START)

        thread = threading.Thread(target=go_on)
        thread.start()
        done = run(work, *STAYING, changes=without_jardin(work, federation_accepted_losses=[SERVERS["jardin"].domain]))
        end.set()
        thread.join()
        assert done.status == 0, done.output
        eventually(lambda: talk.missing() == 0, seconds=SETTLE)
    assert poller.looks > 10
    assert poller.failures == []
    for name in ("fabrique", HUB):
        assert refused(people["jardin"], people[name])
        assert refused(people[name], people["jardin"])
    # Who is open to the world is open to who has left.
    both_hear(rooms["atelier"])


def a_cooperative_closes_itself(people: dict[str, Person], rooms: Rooms, work: Path) -> None:
    jardin = SERVERS["jardin"]
    changes = {"jardin": {"matrix_profile": "internal", "federation_accepted_losses": ["*"]}}
    # Beside those of the shorter list, for whom there is nothing left to do.
    done = run(work, *STAYING, "jardin", changes={**without_jardin(work), **changes})
    assert done.status == 0, done.output
    assert all(done.unchanged(name) for name in STAYING), done.output

    assert refused(people["jardin"], people["atelier"])
    assert refused(people["atelier"], people["jardin"])
    get = people["jardin"].api.session.get
    for url in (
        f"https://{jardin.domain}/.well-known/matrix/server",
        f"https://{jardin.matrix_hostname}/_matrix/federation/v1/version",
        f"https://{jardin.matrix_hostname}/_matrix/key/v2/server",
    ):
        assert get(url, timeout=patient(START)).status_code == 404, url
    assert get(f"https://{jardin.domain}/.well-known/matrix/client", timeout=patient(START)).status_code == 200
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((jardin.address, 8448), timeout=patient(START))
    # Among themselves they go on.
    colleague = Person(jardin, "bruno")
    with talking("Entre nous", people["jardin"], colleague) as talk:
        both_hear(talk)
