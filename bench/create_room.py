# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How much Synapse's module adds to /createRoom: the real Synapse with and without it, taking turns.

usage: SYNAPSE_PYTHON=… PYTHONPATH=.ansible/collections python bench/create_room.py [rounds]

Prints JSON; exits with 1 if the goal is missed. The servers make the same rooms: `plain` ones, where the module has to
look up the person's preference, and `own`, encrypted by a request with the mark. `habit` is encrypted without the
module and plain with it, one event less; it is shown, and does not count.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from ansible_collections.cae.matrix.tests.unit.homeserver import Homeserver
from ansible_collections.cae.matrix.tests.unit.opt_in_server import (
    ENCRYPTION,
    OWN,
    OptInServer,
    Person,
    configuration,
    free_port,
)

GOAL_MS = 2.0
KINDS = {
    "plain": ({}, {}),
    "own": ({"initial_state": [ENCRYPTION]}, OWN),
    "habit": ({"initial_state": [ENCRYPTION]}, {}),
}
NEWCOMERS = 60


def took(person: Person, kind: str) -> float:
    body, headers = KINDS[kind]
    begin = time.perf_counter()
    person.make(dict(body), dict(headers))
    return (time.perf_counter() - begin) * 1000


def cpu_ms(server: Homeserver) -> float:
    """What the whole process has used so far: the module's work in the background counts here."""
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def compared(pairs: list[tuple[float, float]]) -> dict[str, float]:
    without, with_module = zip(*pairs, strict=True)
    return {
        "without_ms": round(statistics.median(without), 2),
        "with_ms": round(statistics.median(with_module), 2),
        # Of two requests made one after the other: the machine's moods come to both.
        "added_ms": round(statistics.median(after - before for before, after in pairs), 2),
        # The tenth percentile: how long it takes where nothing else uses the machine.
        "added_undisturbed_ms": round(
            statistics.quantiles(with_module, n=10)[0] - statistics.quantiles(without, n=10)[0], 2
        ),
        "rooms": len(pairs),
    }


def measure(python: str, rounds: int) -> dict[str, dict[str, float]]:
    with tempfile.TemporaryDirectory() as name:
        places = [Path(name) / which for which in ("without", "with")]
        for place in places:
            place.mkdir()
        same = configuration(places[0], free_port())
        del same["modules"]
        stock = Homeserver(python, places[0], same)
        try:
            ours = OptInServer(python, places[1])
            try:
                servers: tuple[Homeserver, Homeserver] = (stock, ours)
                people = [Person(server, "@a:coop.example", server.register("@a:coop.example")) for server in servers]
                for kind in list(KINDS) * 5:
                    for person in people:
                        took(person, kind)
                figures = {}
                for kind in KINDS:
                    pairs = []
                    before = [cpu_ms(server) for server in servers]
                    for number in range(rounds):
                        order = (0, 1) if number % 2 else (1, 0)
                        times = {which: took(people[which], kind) for which in order}
                        pairs.append((times[0], times[1]))
                    used = [cpu_ms(server) - start for server, start in zip(servers, before, strict=True)]
                    figures[kind] = compared(pairs) | {"added_cpu_ms": round((used[1] - used[0]) / rounds, 2)}
                # The first room of somebody: nothing about them is in Synapse's cache yet.
                firsts = []
                for number in range(NEWCOMERS):
                    user = f"@new{number}:coop.example"
                    newcomers = [Person(server, user, server.register(user)) for server in servers]
                    order = (0, 1) if number % 2 else (1, 0)
                    times = {which: took(newcomers[which], "plain") for which in order}
                    firsts.append((times[0], times[1]))
                figures["plain, somebody's first"] = compared(firsts)
                return figures
            finally:
                ours.stop()
        finally:
            stock.stop()


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    figures = measure(os.environ["SYNAPSE_PYTHON"], rounds)
    worst = max(figure["added_ms"] for kind, figure in figures.items() if kind != "habit")
    result = {"what": "time added to /createRoom", "measured": worst, "goal": GOAL_MS, "unit": "ms", "kinds": figures}
    print(json.dumps({**result, "ok": worst <= GOAL_MS}, indent=2))
    return 0 if worst <= GOAL_MS else 1


if __name__ == "__main__":
    sys.exit(main())
