# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Servers that talk to each other, and networks that come apart between them. Started by bench/run.

Three machines with five cooperatives, brought up by the playbook. Two of them keep Synapse's own retry settings, which
their inventory gives them. First messages cross from one machine to another while nothing else happens. Then, at the
same time: machines one and two are kept apart once, for long, and machine three from each of them several times, for
one to three minutes. People on both sides talk throughout. Last, machine two refuses everybody, for long.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import requests

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "molecule/shared/tests"), str(ROOT / ".ansible/collections")]

from ansible_collections.cae.matrix.tests.patience import START, eventually
from partition import Conversation, Side, partition

MACHINES = {"one": 12, "two": 13, "three": 12}
INSTANCES = {"atelier": "one", "jardin": "two", "verger": "three", "ancienne": "one", "autrefois": "two"}
# What Synapse does unless told otherwise (config/federation.py of 1.163).
SYNAPSE_OWN = {
    "client_timeout": "60s",
    "max_long_retries": 10,
    "max_long_retry_delay": "60s",
    "destination_min_retry_interval": "10m",
    "destination_retry_multiplier": 2,
    "destination_max_retry_interval": "7d",
}
OWN_RETRIES = ("ancienne", "autrefois")
SEED = 20261122
MESSAGES = 200
PARTITIONS = 10
PARTITION_SECONDS = (60, 180)
OUTAGE_SECONDS = 15 * 60

Trouble = contextlib.AbstractContextManager[None]


def pairs(report: Path) -> dict[str, int]:
    """How many pairs of the matrix have the promised outcome, by what Molecule's scenario reports."""
    promised = ("test_people_of_two_servers_talk[", "test_nothing_passes_between_servers_that_may_not[")
    cases = [case for case in ElementTree.parse(report).iter("testcase") if case.get("name", "").startswith(promised)]
    return {"pairs": len(cases), "as_promised": sum(len(case) == 0 for case in cases)}


class Federation:
    """The servers, and what is measured with them."""

    # Synapse's own settings may make people wait for long; what has not arrived by then counts as lost.
    patience = 30 * 60

    def __init__(self, work: Path, image: str, playbook: Callable[..., None], say: Callable[[str], None]) -> None:
        self.work, self.image, self.playbook, self.say = work, image, playbook, say
        self.containers = {machine: f"cae-matrix-bench-federation-{machine}" for machine in MACHINES}
        self.addresses: dict[str, str] = {}

    # --- servers ------------------------------------------------------------------------------------------------

    def up(self, element: dict[str, Any]) -> None:
        wanted = [
            {
                "name": machine,
                "container": self.containers[machine],
                "image": self.image.format(release=release),
                "domains": [f"{name}.test" for name, where in INSTANCES.items() if where == machine],
            }
            for machine, release in MACHINES.items()
        ]
        more = {"hosts_wanted": wanted, "bench_addresses": str(self.work / "federation.json")}
        self.playbook("-i", "localhost,", "bench/hosts.yml", "-e", json.dumps(more))
        self.addresses = json.loads((self.work / "federation.json").read_text())
        inventory = self.work / "federation-hosts.json"
        hosts = {name: self._variables(name) | element for name in INSTANCES}
        inventory.write_text(json.dumps({"cooperatives": {"hosts": hosts}}, indent=1))
        # The CA is there with the first: the others' machines trust it from the start.
        self.playbook("-i", str(inventory), "playbooks/cooperative.yml", "--limit", "atelier")
        for host in hosts.values():
            host["machine_trusted_ca_files"] = [str(self.work / "ca/ca.pem")]
        inventory.write_text(json.dumps({"cooperatives": {"hosts": hosts}}, indent=1))
        self.playbook("-i", str(inventory), "playbooks/cooperative.yml")

    def _variables(self, name: str) -> dict[str, Any]:
        domain, machine = f"{name}.test", INSTANCES[name]
        more = {"federation": SYNAPSE_OWN} if name in OWN_RETRIES else {}
        return {
            "ansible_connection": "community.docker.docker",
            "ansible_host": self.containers[machine],
            "ansible_python_interpreter": "/usr/bin/python3",
            "matrix_domain": domain,
            "matrix_element_enabled": False,
            "matrix_resolve": dict.fromkeys((domain, f"matrix.{domain}", f"chat.{domain}"), self.addresses[machine]),
            "matrix_ca_file": str(self.work / "ca/ca.pem"),
            "machine_postgresql_memory_mb": 512,
            "reverse_proxy_certificate": "private_ca",
            "reverse_proxy_private_ca_dir": str(self.work / "ca"),
            "encryption_gate_registration": "token",
            "encryption_gate_administrators": [{"localpart": "support"}],
            # One person says more here than people do; the containers' addresses are private ones.
            "synapse_rc_message": {"per_second": 100, "burst_count": 1000},
            "synapse_extra_config": {"ip_range_whitelist": ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]} | more,
        }

    @contextlib.contextmanager
    def names(self) -> Iterator[None]:
        """Stands in for DNS."""
        table = {f"matrix.{name}.test": self.addresses[machine] for name, machine in INSTANCES.items()}
        ask = socket.getaddrinfo

        def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
            return ask(table.get(host, host), *arguments, **options)

        socket.getaddrinfo = getaddrinfo
        try:
            yield
        finally:
            socket.getaddrinfo = ask

    def person(self, name: str) -> Side:
        """The support of a cooperative, logged in; one connection for each thread, as clients have."""
        own = threading.local()
        path = f"/etc/matrix/{name}/admins/support.password"
        argv = ["docker", "exec", self.containers[INSTANCES[name]], "cat", path]
        password = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
        token = ""

        def ask(method: str, path: str, body: dict[str, Any] | None) -> Any:
            if not hasattr(own, "session"):
                own.session = requests.Session()
                own.session.trust_env = False
                own.session.verify = str(self.work / "ca/ca.pem")
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            url = f"https://matrix.{name}.test{path}"
            answer = own.session.request(method, url, json=body, headers=headers, timeout=90)
            if answer.status_code != 200:
                raise RuntimeError(f"{method} {url}: {answer.status_code} {answer.text}")
            return answer.json()

        identifier = {"type": "m.id.user", "user": "support"}
        login = {"type": "m.login.password", "identifier": identifier, "password": password}
        token = ask("POST", "/_matrix/client/v3/login", login)["access_token"]
        return Side(f"@support:{name}.test", ask)

    def apart(self, one: str, other: str) -> Trouble:
        ends = [(self.containers[machine], self.addresses[machine]) for machine in (one, other)]
        return partition(ends[0], ends[1])

    @contextlib.contextmanager
    def refusing(self, machine: str) -> Iterator[None]:
        """Nobody answers on the machine; who comes is told so at once."""
        container = self.containers[machine]
        try:
            subprocess.run(["docker", "exec", container, "systemctl", "stop", "nginx.service"], check=True)
            yield
        finally:
            subprocess.run(["docker", "exec", container, "systemctl", "start", "nginx.service"], check=True)

    # --- figures ------------------------------------------------------------------------------------------------

    def latency(self, messages: int = MESSAGES) -> dict[str, Any]:
        """From the moment a client sends until the other's /sync shows it: taking turns, in both directions."""
        talk = Conversation([self.person("atelier"), self.person("verger")], "Sans attendre")
        took: list[float] = []
        for number in range(messages + 10):
            speaker, listener = talk.sides if number % 2 == 0 else talk.sides[::-1]
            began = time.monotonic()
            said = talk.say(speaker)
            took.append((eventually(partial(listener.when, said), seconds=START, every=0.005) - began) * 1000)
        problems = talk.problems()
        talk.close()
        # The first ones find each other's names, keys and connections.
        counted = sorted(took[10:])
        return {
            "messages": len(counted),
            "median_ms": round(statistics.median(counted)),
            "p95_ms": round(statistics.quantiles(counted, n=20)[-1]),
            "most_ms": round(counted[-1]),
            "problems": problems,
            # Of the whole machine: what else went on.
            "load": round(os.getloadavg()[0], 1),
        }

    def _talk(self, trouble: Trouble, speakers: list[tuple[Conversation, Side]], seconds: float, every: float) -> float:
        """Talk while something is wrong; when it was mended."""
        with trouble:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                for talk, side in speakers:
                    talk.say(side)
                time.sleep(min(every, max(0, end - time.monotonic())))
        return time.monotonic()

    def partitions(self, instance: str, lengths: list[float]) -> list[dict[str, Any]]:
        """One conversation of machine three with another machine, kept apart again and again."""
        machine = INSTANCES[instance]
        talk = Conversation([self.person(instance), self.person("verger")], "Par intermittence")
        found: list[dict[str, Any]] = []
        for length in lengths:
            before = sum(len(side.sent) for side in talk.sides)
            speakers = [(talk, side) for side in talk.sides]
            healed = self._talk(self.apart(machine, "three"), speakers, length, every=3)
            delay = self._arrived(talk, healed)
            sent = sum(len(side.sent) for side in talk.sides) - before
            found.append({"seconds": round(length), "messages": sent, "all_there_after_s": delay})
            self.say(f"{machine} and three apart for {length:.0f} s: {sent} messages, all there after {delay} s")
        problems = talk.problems()
        talk.close()
        found[-1]["problems"] = problems
        return found

    def _arrived(self, talk: Conversation, healed: float) -> float | None:
        """Seconds from healing until both sides have everything, in /sync: nobody has to look twice."""

        def all_shown() -> bool:
            said = {body for side in talk.sides for body in side.sent}
            return all(said <= {body for body, _ in side.shown} | set(side.sent) for side in talk.sides)

        try:
            eventually(all_shown, seconds=self.patience, every=0.5)
        except AssertionError:
            return None
        return round(max(0.0, max(when for side in talk.sides for _, when in side.shown) - healed), 1)

    def outage(self, trouble: Trouble, both: bool, seconds: float = OUTAGE_SECONDS) -> dict[str, Any]:
        """Between machines one and two, for long: a pair of servers with our settings, and one with Synapse's own."""
        pairs = {"shipped": ("atelier", "jardin"), "synapse": OWN_RETRIES}
        talks = {kind: Conversation([self.person(name) for name in pair], "Panne") for kind, pair in pairs.items()}
        speakers = [(talk, side) for talk in talks.values() for side in talk.sides[: 2 if both else 1]]
        for talk, side in speakers:
            talk.say(side)
        eventually(lambda: all(talk.missing() == 0 for talk in talks.values()), seconds=START)
        healed = self._talk(trouble, speakers, seconds, every=10)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            waiting = {kind: pool.submit(self._arrived, talk, healed) for kind, talk in talks.items()}
            delays = {kind: one.result() for kind, one in waiting.items()}
        found: dict[str, Any] = {"seconds": seconds}
        for kind, talk in talks.items():
            sent = sum(len(side.sent) for side in talk.sides)
            found[kind] = {"messages": sent, "all_there_after_s": delays[kind], "problems": talk.problems()}
            talk.close()
            self.say(f"outage, {kind}: {sent} messages, all there after {delays[kind]} s")
        return found

    def measure(self) -> dict[str, Any]:
        """Everything; the long ones at the same time."""
        with self.names():
            latency = self.latency()
            self.say(f"from send to the other's /sync: median {latency['median_ms']} ms, p95 {latency['p95_ms']} ms")
            chance = random.Random(SEED)
            lengths = [chance.uniform(*PARTITION_SECONDS) for _ in range(PARTITIONS)]
            with concurrent.futures.ThreadPoolExecutor() as pool:
                silent = pool.submit(self.outage, self.apart("one", "two"), both=True)
                halves = [
                    pool.submit(self.partitions, instance, lengths[number::2])
                    for number, instance in enumerate(("atelier", "jardin"))
                ]
                partitions = [each for half in halves for each in half.result()]
            # Who is on a machine without its web server cannot speak either.
            outages = {"silence": silent.result(), "refusals": self.outage(self.refusing("two"), both=False)}
            return {"latency": latency, "seed": SEED, "partitions": partitions, "outages": outages}
