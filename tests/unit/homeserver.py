# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A real Synapse for the unit tests, on a Unix socket, with SQLite: as fast to start as it gets, and no less real."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import json
import os
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# What Synapse imports besides itself: the tests' own modules, and those of role synapse with what they build on.
OWN = ROOT / "roles/synapse/files"
IMPORTS = (ROOT / "tests/unit", OWN / "opt_in", OWN / "federation", ROOT / ".ansible/collections")
KEY = "ed25519 a_test AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


class Homeserver:
    """One server; `extra` is added to its configuration, and wins; so do further configuration files."""

    def __init__(self, python: str, directory: Path, extra: dict[str, Any], more: Sequence[Path] = ()) -> None:
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
            "presence": {"enabled": False},
            "rc_message": limits,
            "rc_room_creation": limits,
            "rc_invites": {key: limits for key in ("per_room", "per_user", "per_issuer")},
            **extra,
        }
        (directory / "homeserver.yaml").write_text(json.dumps(config))  # JSON is YAML
        command = ["synapse.app.homeserver", "-c", str(directory / "homeserver.yaml")]
        for path in more:
            command += ["-c", str(path)]
        self._start(python, directory / "log", command)

    def _start(self, python: str, log_file: Path, command: Sequence[str]) -> None:
        self._log = log_file
        with log_file.open("w") as log:
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, IMPORTS))}
            self._process = subprocess.Popen(
                [python, "-m", *command], stdout=log, stderr=log, cwd=log_file.parent, env=environment
            )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _wait(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self._process.poll() is None, self.log[-3000:]
            with contextlib.suppress(OSError):
                if self.request("GET", "/health", parse=False)[0] == 200:
                    return
            time.sleep(0.05)
        raise AssertionError(f"Synapse did not answer within a minute: {self.log[-3000:]}")

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text()

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        token: str = "",
        parse: bool = True,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("localhost", timeout=30)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(30)
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
