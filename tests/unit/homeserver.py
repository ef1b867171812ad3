# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A real Synapse for the unit tests, on a Unix socket, with SQLite: as fast to start as it gets, and no less real."""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import hmac
import http.client
import json
import os
import select
import signal
import socket
import sqlite3
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ansible_collections.cae.matrix.tests.patience import START, eventually, patient
from ansible_collections.cae.matrix.tests.unit.names import ASKED_OUTSIDE

ROOT = Path(__file__).resolve().parents[2]
# What Synapse imports besides itself: the tests' own modules, and those of role synapse with what they build on.
OWN = ROOT / "roles/synapse/files"
IMPORTS = (ROOT / "tests/unit", OWN / "opt_in", OWN / "federation", OWN / "service", ROOT / ".ansible/collections")
KEY = "ed25519 a_test AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


class Starter:
    """What starts all servers of this test run: see C(synapse_starter.py)."""

    def __init__(self, python: str) -> None:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, IMPORTS))}
        command = [python, str(Path(__file__).with_name("synapse_starter.py"))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        self._one_at_a_time = threading.Lock()
        atexit.register(self._process.communicate)

    def ask(self, order: dict[str, Any]) -> int:
        assert self._process.stdin
        assert self._process.stdout
        with self._one_at_a_time:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        assert answer, "the Python that should have Synapse cannot start it: see above"
        return int(answer)


class Process:
    """A program of Synapse; a child of the starter, and so waited for in another way than a child of ours."""

    def __init__(
        self, starter: Starter, log: Path, module: str, *arguments: str, environment: dict[str, str] | None = None
    ) -> None:
        self._starter = starter
        order: dict[str, Any] = {"directory": str(log.parent), "log": str(log), "module": module}
        order |= {"arguments": arguments, "environment": environment or {}}
        self.pid = starter.ask(order)
        self._handle = os.pidfd_open(self.pid)
        self._forgotten = False

    def ended(self, within: float = 0) -> bool:
        return bool(select.select([self._handle], [], [], within)[0])

    def stop(self) -> None:
        if self._forgotten:
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, signal.SIGTERM)
        stopped = self.ended(patient(START))
        if not stopped:
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        self._starter.ask({"forget": self.pid})
        self._forgotten = True
        os.close(self._handle)
        assert stopped, f"process {self.pid} does not stop"


@functools.cache
def starter(python: str) -> Starter:
    return Starter(python)


@functools.cache
def empty_database(python: str) -> bytes:
    """Synapse's tables with nothing in them: making them is what takes time, after reading the code."""
    with tempfile.TemporaryDirectory() as name:
        database, config, log = (Path(name, part) for part in ("db", "config.yaml", "log"))
        kept = {"name": "sqlite3", "args": {"database": str(database)}}
        config.write_text(json.dumps({"server_name": "any.example", "database": kept, "signing_key": KEY}))
        script = "synapse._scripts.update_synapse_database"
        how = ("--database-config", str(config), "--run-background-updates")
        making = Process(starter(python), log, script, *how)
        assert making.ended(patient(START)), log.read_text()
        making.stop()
        assert database.exists(), log.read_text()
        with contextlib.closing(sqlite3.connect(database)) as connection:
            assert connection.execute("SELECT count(*) FROM background_updates").fetchall() == [(0,)], log.read_text()
        return database.read_bytes()


class Homeserver:
    """One server; `extra` is added to its configuration, and wins; so do further configuration files."""

    def __init__(
        self,
        python: str,
        directory: Path,
        extra: dict[str, Any],
        more: Sequence[Path] = (),
        environment: dict[str, str] | None = None,
    ) -> None:
        self._socket = str(directory / "s")
        limits = {"per_second": 10000, "burst_count": 10000}
        config = {
            "server_name": "coop.example",
            "report_stats": False,
            "database": {"name": "sqlite3", "args": {"database": str(directory / "db")}},
            "listeners": [
                {"path": self._socket, "type": "http", "x_forwarded": True, "resources": [{"names": ["client"]}]}
            ],
            "signing_key": KEY,
            "media_store_path": str(directory / "media"),
            "pid_file": str(directory / "pid"),
            "macaroon_secret_key": "x",
            "form_secret": "x",
            "registration_shared_secret": "x",
            "bcrypt_rounds": 4,
            "trusted_key_servers": [],
            # What no test looks at, and every event would cost.
            "presence": {"enabled": False},
            "user_directory": {"enabled": False},
            "send_federation": False,
            # For two minutes, who asks /sync the same again is answered the same, whatever has happened since.
            "caches": {"sync_response_cache_duration": "0s"},
            "rc_message": limits,
            "rc_room_creation": limits,
            "rc_invites": {key: limits for key in ("per_room", "per_user", "per_issuer")},
            **extra,
        }
        (directory / "homeserver.yaml").write_text(json.dumps(config))  # JSON is YAML
        database = directory / "db"
        if config["database"]["args"].get("database") == str(database) and not database.exists():
            database.write_bytes(empty_database(python))
        command = ["synapse.app.homeserver", "-c", str(directory / "homeserver.yaml")]
        for path in more:
            command += ["-c", str(path)]
        self._start(python, directory / "log", command, environment)

    def _start(
        self, python: str, log_file: Path, command: Sequence[str], environment: dict[str, str] | None = None
    ) -> None:
        self._log = log_file
        self._process = Process(starter(python), log_file, *command, environment=environment)
        try:
            eventually(self._is_up_or_dead, f"Synapse answers; it said: {log_file}", START)
            assert not self._process.ended(), self.log[-3000:]
        except BaseException:
            self.stop()
            raise

    def _is_up_or_dead(self) -> bool:
        if self._process.ended(0):
            return True
        with contextlib.suppress(OSError):
            return self.request("GET", "/health", parse=False)[0] == 200
        return False

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text()

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        self._process.stop()
        assert ASKED_OUTSIDE not in self.log

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        token: str = "",
        parse: bool = True,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("localhost", timeout=patient(START))
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(patient(START))
        with contextlib.closing(connection):
            connection.sock.connect(self._socket)
            sent = {"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "https", **(headers or {})}
            if token:
                sent["Authorization"] = f"Bearer {token}"
            connection.request(method, path, None if body is None else json.dumps(body), sent)
            answer = connection.getresponse()
            text = answer.read()
        return answer.status, json.loads(text) if parse else {}

    def register(self, user: str, admin: bool = False) -> str:
        """An account by the shared secret, as the gate makes its own."""
        nonce = self.request("GET", "/_synapse/admin/v1/register")[1]["nonce"]
        name = user[1:].split(":")[0]
        level = "admin" if admin else "notadmin"
        mac = hmac.new(b"x", "\0".join((nonce, name, "secret", level)).encode(), hashlib.sha1).hexdigest()
        body = {"nonce": nonce, "username": name, "password": "secret", "admin": admin, "mac": mac}
        status, answer = self.request("POST", "/_synapse/admin/v1/register", body)
        assert status == 200, answer
        return str(answer["access_token"])
