# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Everybody coming at once, as after every restart, and what dies coming back. Started by bench/run.

Three hundred people with two sessions each ask for their first `/sync` through TLS, all in the moment in which Synapse
is restarted. As clients do, they wait as long as a 503 says and ask again; a 502, or a connection that is cut, is
counted.
"""

from __future__ import annotations

import asyncio
import json
import resource
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

PEOPLE, SESSIONS, ROUNDS = 300, 2, 3
# The slowest of thousands of first syncs on two cores; a client waits as long.
PATIENCE = 300.0
SYNC = "/_matrix/client/v3/sync?timeout=0"
# Synapse asks its database before it says that it knows no such room.
NOWHERE = "/_matrix/client/v3/directory/room/%23nowhere:{domain}"
REQUEST = "GET {path} HTTP/1.1\r\nHost: matrix.{domain}\r\nAuthorization: Bearer {token}\r\n\r\n"

# Runs on the machine: people with an access token for each session, without a password, which would take minutes.
MAKE_PEOPLE = """
import http.client, json, pathlib, socket, sys
slug, domain, people, sessions = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
class Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(f"/run/matrix-synapse/{slug}/client.sock")
connection = Connection("localhost")
token = pathlib.Path(f"/etc/matrix/{slug}/gate.token").read_text().strip()
def ask(method, path, body):
    connection.request(method, path, json.dumps(body), {"Authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    found = json.loads(answer.read())
    assert answer.status in (200, 201), found
    return found
made = []
for number in range(people):
    user = f"@foule-{number}:{domain}"
    ask("PUT", f"/_synapse/admin/v2/users/{user}", {"displayname": f"Foule {number}"})
    made += [ask("POST", f"/_synapse/admin/v1/users/{user}/login", {})["access_token"] for _ in range(sessions)]
print(json.dumps(made))
"""


@dataclass
class Crowd:
    """What the sessions met."""

    answers: Counter[str] = field(default_factory=Counter)
    waited: int = 0
    last: float = 0.0


class Machine:
    """One machine with instances, and the people of each."""

    def __init__(self, container: str, address: str, ca_file: str, slugs: Sequence[str]) -> None:
        self.container, self.address, self.slugs = container, address, slugs
        self.context = ssl.create_default_context(cafile=ca_file)
        self.sessions: list[tuple[str, str]] = []
        # One open file for each session.
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)

    def run(self, *command: str) -> str:
        done = subprocess.run(["docker", "exec", self.container, *command], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def people(self) -> None:
        for slug in self.slugs:
            arguments = (slug, f"{slug}.test", str(PEOPLE), str(SESSIONS))
            tokens = json.loads(self.run("/usr/bin/python3", "-c", MAKE_PEOPLE, *arguments))
            self.sessions += [(f"{slug}.test", token) for token in tokens]

    # -- everybody at once -----------------------------------------------------------------------------------------

    async def once(self, domain: str, token: str, path: str = SYNC) -> tuple[str, float]:
        """One request, and for how many seconds the answer asks to wait."""
        try:
            reader, writer = await asyncio.open_connection(
                self.address, 443, ssl=self.context, server_hostname=f"matrix.{domain}", ssl_handshake_timeout=PATIENCE
            )
        except (OSError, ssl.SSLError) as error:
            return f"not connected: {type(error).__name__}", 0
        try:
            writer.write(REQUEST.format(path=path, domain=domain, token=token).encode())
            await writer.drain()
            head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii", "replace")
        except (OSError, ssl.SSLError, asyncio.IncompleteReadError) as error:
            return f"cut: {type(error).__name__}", 0
        finally:
            writer.close()
        headers = dict(line.lower().split(": ", 1) for line in head.splitlines()[1:] if ": " in line)
        return head.split()[1], float(headers.get("retry-after", 0))

    async def session(self, domain: str, token: str, crowd: Crowd, began: float) -> None:
        async with asyncio.timeout(PATIENCE):
            answer, wait = await self.once(domain, token)
            while answer == "503" and wait:
                crowd.waited += 1
                await asyncio.sleep(wait)
                answer, wait = await self.once(domain, token)
        crowd.answers[answer] += 1
        crowd.last = time.monotonic() - began

    async def everybody(self) -> Crowd:
        crowd, began = Crowd(), time.monotonic()
        everybody = [self.session(domain, token, crowd, began) for domain, token in self.sessions]
        for found in await asyncio.gather(*everybody, return_exceptions=True):
            if found is not None:
                crowd.answers[f"never answered: {type(found).__name__}"] += 1
        return crowd

    def restart(self) -> None:
        units = [f"matrix-synapse@{slug}.service" for slug in self.slugs]
        self.run("systemctl", "restart", "--no-block", *units)

    def measure(self, say: Callable[[str], None]) -> dict[str, Any]:
        self.people()
        rounds = []
        for number in range(ROUNDS):
            self.restart()
            crowd = asyncio.run(self.everybody())
            rounds.append({"answers": dict(crowd.answers), "waited": crowd.waited, "seconds": round(crowd.last, 1)})
            say(f"{len(self.sessions)} sessions at once, {number + 1}: {rounds[-1]}")
        refused = sum(number for each in rounds for answer, number in each["answers"].items() if answer != "200")
        return {"sessions": len(self.sessions), "refused": refused, "rounds": rounds}

    # -- what dies -------------------------------------------------------------------------------------------------

    def answered(self) -> bool:
        """From the database, through the proxy."""
        domain = f"{self.slugs[0]}.test"
        return asyncio.run(self.once(domain, "", NOWHERE.format(domain=domain)))[0] == "404"

    def main_process(self, unit: str) -> str:
        return self.run("systemctl", "show", "--property", "MainPID", "--value", unit)

    def crashes(self, say: Callable[[str], None]) -> dict[str, float]:
        """Seconds until people are answered again after the main process was killed."""
        listed = self.run("systemctl", "list-units", "--plain", "--no-legend", "postgresql@*-*.service").split()[0]
        units = {"Synapse": f"matrix-synapse@{self.slugs[0]}.service", "nginx": "nginx.service", "PostgreSQL": listed}
        found = {}
        for what, unit in units.items():
            before = self.main_process(unit)
            self.run("kill", "-KILL", before)
            began = time.monotonic()
            while self.main_process(unit) in (before, "0") or not self.answered():
                if time.monotonic() - began > PATIENCE:
                    raise RuntimeError(f"{unit} did not come back within {PATIENCE:g} s")
            found[what] = round(time.monotonic() - began, 1)
        say(f"back after kill -9: {found}")
        return found
