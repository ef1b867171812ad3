# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The network comes apart, the hub goes away, a neighbour is restarted: people go on talking."""

from __future__ import annotations

import secrets
import time
from functools import partial

from ansible_collections.cae.matrix.tests.patience import SETTLE, START, eventually
from federation import HUB, SERVERS, Person, Poller, both_hear, talking
from partition import partition


def test_what_was_said_while_apart_arrives_once_and_in_order(people: dict[str, Person]) -> None:
    one, other = SERVERS["atelier"], SERVERS["jardin"]
    with talking("Par intermittence", people["atelier"], people["jardin"]) as talk:
        both_hear(talk)
        heard = {side.user_id: len(side.shown) for side in talk.sides}
        with partition((one.container, one.address), (other.container, other.address)):
            for _ in range(20):
                for side in talk.sides:
                    talk.say(side)
                # The pace of lively people.
                time.sleep(0.5)
            # Apart indeed: everybody heard nobody but themselves.
            for side in talk.sides:
                since = [body for body, _ in side.shown[heard[side.user_id] :]]
                assert {body.split()[0] for body in since} == {side.user_id}
        eventually(talk.sound, seconds=SETTLE)


def test_without_the_hub_cooperatives_talk(people: dict[str, Person]) -> None:
    """Also two that have never met: nobody's keys are only to be had from the hub."""
    hub = SERVERS[HUB]
    hub.run("systemctl", "stop", "nginx.service", f"matrix-synapse@{hub.slug}.service")
    try:
        newcomers = [
            Person(SERVERS[name], f"sans-federation-{secrets.token_hex(3)}") for name in ("fabrique", "jardin")
        ]
        with talking("La fédération dort", *newcomers) as talk:
            both_hear(talk)
    finally:
        hub.run("systemctl", "start", f"matrix-synapse@{hub.slug}.service", "nginx.service")
    eventually(lambda: people[HUB].try_to("GET", "/_matrix/client/versions").status_code == 200, seconds=START)


def test_a_neighbour_on_the_same_machine_notices_no_restart(people: dict[str, Person]) -> None:
    assert SERVERS["atelier"].container == SERVERS["fabrique"].container
    poller = Poller("/_matrix/client/v3/account/whoami", people["fabrique"])
    with poller.watching():
        SERVERS["atelier"].run("systemctl", "restart", "matrix-synapse@atelier.service")
        back = partial(people["atelier"].ok, "GET", "/_matrix/client/v3/account/whoami")
        eventually(back, seconds=START)
    assert poller.looks > 3
    assert poller.failures == []
