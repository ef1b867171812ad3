# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One server, and the means to break it and to run the gate on it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
import subprocess
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
EPHEMERAL = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
CONTAINER = f"cae-matrix-{os.environ.get('MATRIX_TEST_CORE', 'dev')}-{os.environ['MOLECULE_SCENARIO_NAME']}-atelier"
DOMAIN, CONFIG = "atelier.test", "/etc/matrix/atelier"
UNIT = "matrix-synapse@atelier.service"
MEGOLM = {"algorithm": "m.megolm.v1.aes-sha2"}

# Runs on the target with its Python: nothing there but the socket answers the admin API.
ADMIN_CALL = """
import http.client, json, socket, sys

connection = http.client.HTTPConnection("localhost")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect("/run/matrix-synapse/atelier/client.sock")
token = open("/etc/matrix/atelier/gate.token").read().strip()
headers = {"Authorization": "Bearer " + token, "X-Forwarded-For": "127.0.0.1"}
connection.request(sys.argv[1], sys.argv[2], sys.argv[3].encode(), headers)
answer = connection.getresponse()
print(json.dumps([answer.status, json.loads(answer.read() or b"null")]))
"""


@dataclass
class Run:
    """What one run of the gate said."""

    status: int
    output: str

    @property
    def changed(self) -> bool:
        return " changed=0 " not in self.output


class Server:
    """The machine under test."""

    def inside(self, *argv: str, content: str | None = None) -> str:
        done = subprocess.run(
            ["docker", "exec", "-i", CONTAINER, *argv], input=content, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{argv}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def write(self, path: str, content: str) -> None:
        self.inside("sh", "-c", 'cat >"$0" && chmod 0644 "$0"', path, content=content)

    def restart(self) -> None:
        self.inside("systemctl", "restart", UNIT)

    def sql(self, query: str) -> str:
        return self.inside("psql", "-U", "matrix_atelier", "-d", "matrix_atelier", "-At", "-c", query).strip()

    def attestation(self) -> dict[str, Any] | None:
        listing = self.inside("ls", CONFIG).split()
        if "attestation.json" not in listing:
            return None
        found: dict[str, Any] = json.loads(self.inside("cat", f"{CONFIG}/attestation.json"))
        return found

    def forget(self) -> None:
        """As if the gate had never passed."""
        self.inside("sh", "-c", f"rm -f {CONFIG}/attestation*.json")

    def ask(self, method: str, path: str, body: Any = None, token: str = "") -> tuple[int, Any]:
        """From outside, through the proxy."""
        address = json.loads((EPHEMERAL / "addresses.json").read_text())["atelier"]
        name = f"matrix.{DOMAIN}"
        context = ssl.create_default_context(cafile=str(EPHEMERAL / "ca" / "ca.pem"))
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        connection = http.client.HTTPSConnection(name, timeout=60, context=context)
        # In place of DNS: the connection goes to the container, the name stays in SNI, certificate and Host.
        raw = socket.create_connection((address, 443), timeout=60)
        connection.sock = context.wrap_socket(raw, server_hostname=name)
        with contextlib.closing(connection):
            connection.request(method, path, None if body is None else json.dumps(body).encode(), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")

    def register(self) -> tuple[int, Any]:
        return self.ask("POST", "/_matrix/client/v3/register", {})

    def token_of_support(self) -> str:
        """An ordinary login: what a person sees."""
        password = self.inside("cat", f"{CONFIG}/admins/support.password").strip()
        body = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": "support"},
            "password": password,
        }
        status, answer = self.ask("POST", "/_matrix/client/v3/login", body)
        assert status == 200, answer
        return str(answer["access_token"])

    def admin(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """The admin API, as the gate's own account."""
        answer = json.loads(self.inside("python3", "-c", ADMIN_CALL, method, path, json.dumps(body or {})))
        return int(answer[0]), answer[1]

    def room(self, token: str, name: str) -> str:
        status, answer = self.ask("POST", "/_matrix/client/v3/createRoom", {"name": name}, token)
        assert status == 200, answer
        return str(answer["room_id"])

    def encrypted_room(self, token: str, name: str, content: Any = MEGOLM) -> str:
        """A room whose administrator turns encryption on, as any client can."""
        room = self.room(token, name)
        path = f"/_matrix/client/v3/rooms/{urllib.parse.quote(room, safe='')}/state/m.room.encryption/"
        status, answer = self.ask("PUT", path, content, token)
        assert status == 200, answer
        return room

    def remove_room(self, room: str) -> None:
        """One of the mends: gone, from the database too.

        A removal that comes while Synapse launches another waits for its scheduler's next round, a minute later; and
        one that meets tables which are still being filled fails, and succeeds when it is asked for again.
        """
        path = f"/_synapse/admin/v2/rooms/{urllib.parse.quote(room, safe='')}"
        deadline = time.monotonic() + 180
        state = "failed"
        while state != "complete":
            assert time.monotonic() < deadline, state
            if state == "failed":
                status, answer = self.admin("DELETE", path, {"purge": True})
                assert status == 200, answer
            time.sleep(0.5)
            state = self.admin("GET", f"/_synapse/admin/v2/rooms/delete_status/{answer['delete_id']}")[1]["status"]
        assert self.sql(f"SELECT count(*) FROM events WHERE room_id = '{room}'") == "0"

    def command(self, playbook: Path, *flags: str, **variables: Any) -> list[str]:
        inventory = str(EPHEMERAL / "inventory")
        return ["ansible-playbook", "-i", inventory, *flags, str(playbook), "-e", json.dumps(variables)]

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "ANSIBLE_CONFIG": str(EPHEMERAL / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_FORCE_COLOR": "0",
        }

    def run(self, playbook: Path, *flags: str, **variables: Any) -> Run:
        done = subprocess.run(
            self.command(playbook, *flags, **variables),
            cwd=PROJECT,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        return Run(done.returncode, done.stdout + done.stderr)

    def gate(self, **variables: Any) -> Run:
        return self.run(PROJECT / "molecule/gate/gate.yml", **variables)


@pytest.fixture(scope="session")
def server() -> Server:
    return Server()


@pytest.fixture(autouse=True)
def as_it_was(server: Server) -> None:
    """Each test begins with a server that is attested and open by token."""
    if server.attestation() is None or server.register()[0] != 401:
        done = server.gate()
        assert done.status == 0, done.output
        assert server.register()[0] == 401


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """A failed test shows what the services said meanwhile."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed:
        journal = subprocess.run(
            ["docker", "exec", CONTAINER, "journalctl", "--no-pager", "--lines", "80", "--unit", UNIT],
            capture_output=True,
            text=True,
            check=False,
        )
        report.sections.append((f"journal of {UNIT}", journal.stdout + journal.stderr))
