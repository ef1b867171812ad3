# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Synapse's client and admin API over its Unix socket, with the gate's own service account.

The account is made with the registration shared secret, which works while registration is closed. Its token lies in
a root-only file. A token that was lost (a kill between the two, a file that somebody deleted) is replaced: first by a
password login, the password being derived from the shared secret, so that there is nothing more to keep; where
passwords are switched off or the secret has changed, by a successor account that retires its predecessors.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import json
import os
import socket
import time
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.cae.matrix.plugins.module_utils.matrix.identifiers import is_service_account
from ansible_collections.cae.matrix.plugins.module_utils.outside.transport import BadCaFile, tls_context, token_problem

SERVICE_LOCALPART = "encryption-gate"
DEVICE = "cae.matrix encryption gate"
# Role synapse lets each of them by name put rooms into the directory (_synapse_publishers).
SUCCESSORS = 20


class SynapseError(Exception):
    """Synapse answered, but not as it should, or did not answer; `mend` says what to do."""

    def __init__(self, cause: str, mend: str = "", status: int = 0, errcode: str = "") -> None:
        super().__init__(cause)
        self.cause = cause
        self.mend = mend
        self.status = status
        self.errcode = errcode

    def __str__(self) -> str:
        return f"{self.cause} {self.mend}".strip()


class Unanswered(SynapseError):
    """Synapse took a request, and had no answer in time; it may itself be waiting for another server."""


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def quote(part: str) -> str:
    """One path segment."""
    return urllib.parse.quote(part, safe="")


def registration_mac(secret: str, nonce: str, username: str, password: str, admin: bool) -> str:
    """What Synapse's shared-secret registration wants to see."""
    text = "\0".join((nonce, username, password, "admin" if admin else "notadmin"))
    return hmac.new(secret.encode(), text.encode(), hashlib.sha1).hexdigest()


def derived_password(secret: str, username: str) -> str:
    """The service account's password: nobody types it, and whoever can read the secret can make admins anyway."""
    return hmac.new(secret.encode(), f"cae.matrix {username}".encode(), hashlib.sha256).hexdigest()


class Synapse:
    """Requests over one kept-alive connection."""

    _host = "localhost"

    def __init__(self, socket_path: str, timeout: float = 30.0) -> None:
        self.socket_path = socket_path
        self.timeout = timeout
        self.token = ""
        self.requests = 0
        self._connection: http.client.HTTPConnection | None = None

    def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, token: str | None = None
    ) -> tuple[int, Any]:
        """Status and JSON of one answer. Waits when Synapse asks for patience (429), up to the time limit."""
        deadline = time.monotonic() + self.timeout
        while True:
            status, answer = self._once(method, path, body, self.token if token is None else token)
            if status != 429:
                return status, answer
            pause = float(answer.get("retry_after_ms", 500)) / 1000 if isinstance(answer, dict) else 0.5
            if time.monotonic() + pause > deadline:
                raise SynapseError(
                    f"Synapse refuses {method} {path.split('?')[0]} for another {pause:.0f} s (rate limit).",
                    "Run the playbook again after that time.",
                    429,
                )
            time.sleep(pause)

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None, token: str | None = None) -> Any:
        """The JSON of an answer of status 200, or `SynapseError`."""
        status, answer = self.ask(method, path, body, token)
        if status != 200:
            raise self.refusal(method, path, status, answer)
        return answer

    @staticmethod
    def refusal(method: str, path: str, status: int, answer: Any) -> SynapseError:
        errcode = str(answer.get("errcode", "")) if isinstance(answer, dict) else ""
        error = str(answer.get("error", "")) if isinstance(answer, dict) else ""
        return SynapseError(
            f"Synapse answered {method} {path.split('?')[0]} with {status} {errcode} {error}".rstrip() + ".",
            "Its journal says more.",
            status,
            errcode,
        )

    def wait_until_up(self, seconds: float) -> None:
        """Returns once Synapse answers with its own versions, which need the whole of it."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                status, _ = self._once("GET", "/_matrix/client/versions", None, "")
                if status == 200:
                    return
                last = f"it answered {status}"
            except SynapseError as error:
                last = error.cause
            if time.monotonic() >= deadline:
                raise SynapseError(
                    f"Synapse is not up after {seconds:.0f} s: {last}",
                    "Read its journal: journalctl -u 'matrix-synapse@*'.",
                )
            time.sleep(0.1)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> http.client.HTTPConnection:
        return UnixConnection(self.socket_path, self.timeout)

    def _once(self, method: str, path: str, body: Mapping[str, Any] | None, token: str) -> tuple[int, Any]:
        headers = {"Host": self._host, "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "https"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        content = None
        if body is not None or method in ("POST", "PUT"):
            content = json.dumps(body or {}).encode()
            headers["Content-Type"] = "application/json"
        for attempt in (1, 2):
            fresh = self._connection is None
            if self._connection is None:
                self._connection = self._connect()
            try:
                self._connection.request(method, path, body=content, headers=headers)
                response = self._connection.getresponse()
                raw = response.read()
                break
            except (OSError, http.client.HTTPException) as error:
                self.close()
                # A kept-alive connection that Synapse has closed in the meantime says nothing about Synapse.
                if attempt == 1 and not fresh:
                    continue
                refused = Unanswered if isinstance(error, TimeoutError) else SynapseError
                raise refused(
                    f"Synapse does not answer on {self.socket_path}: {error or type(error).__name__}.",
                    "Start it, or read its journal: journalctl -u 'matrix-synapse@*'.",
                ) from None
        self.requests += 1
        try:
            return response.status, json.loads(raw) if raw else {}
        except (ValueError, RecursionError):
            return response.status, {}


class RemoteSynapse(Synapse):
    """The same for a Synapse that this collection did not install, by its address; no redirect is followed."""

    def __init__(self, url: str, ca_file: str | None = None, timeout: float = 30.0) -> None:
        super().__init__(url, timeout)
        problem = token_problem(url)
        if problem:
            raise SynapseError(*problem)
        try:
            self._tls = tls_context(ca_file)
        except BadCaFile as error:
            raise SynapseError(str(error), "Let it name a PEM file on the machine that asks.") from None
        self._url = urllib.parse.urlsplit(url)
        self._host = self._url.netloc

    def _connect(self) -> http.client.HTTPConnection:
        host, port = str(self._url.hostname), self._url.port
        if self._url.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=self.timeout)
        return http.client.HTTPSConnection(host, port, timeout=self.timeout, context=self._tls)


def write_private(path: Path, text: str, uid: int = 0, gid: int = 0, mode: int = 0o600) -> None:
    """A file that is whole or not there, and never readable for others on its way."""
    # By this name, it goes with the next run if this one is killed (module documents).
    temporary = path.with_name(f".{path.name}.{os.getpid()}.cae-matrix-new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchown(file.fileno(), uid, gid)
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


class ServiceAccount:
    """The gate's account on one server, logged in on `synapse` after `ready`."""

    def __init__(self, synapse: Synapse, domain: str, token_file: Path, shared_secret_file: Path) -> None:
        self.synapse = synapse
        self.domain = domain
        self.token_file = token_file
        self.shared_secret_file = shared_secret_file
        self.user_id = ""

    def look(self) -> bool:
        """Uses the stored token if it still works, changing nothing."""
        try:
            token = self.token_file.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return False
        if not token:
            return False
        status, answer = self.synapse.ask("GET", "/_matrix/client/v3/account/whoami", token=token)
        user_id = answer.get("user_id") if isinstance(answer, dict) else None
        if status != 200 or not is_service_account(user_id):
            return False
        path = f"/_synapse/admin/v1/users/{quote(str(user_id))}/admin"
        status, answer = self.synapse.ask("GET", path, token=token)
        if status != 200 or not answer.get("admin"):
            return False
        self.synapse.token = token
        self.user_id = str(user_id)
        return True

    def ready(self) -> bool:
        """Logs in, making the account if need be; whether anything changed."""
        if self.look():
            return False
        try:
            secret = self.shared_secret_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise SynapseError(
                f"The registration shared secret {self.shared_secret_file} cannot be read: {error.strerror}.",
                "Run role synapse, which makes it.",
            ) from None
        for number in range(1, SUCCESSORS + 1):
            username = SERVICE_LOCALPART if number == 1 else f"{SERVICE_LOCALPART}-{number}"
            token = self._register(username, secret) or self._log_in(username, secret)
            if token:
                break
        else:
            raise SynapseError(
                f"{SUCCESSORS} service accounts of the gate exist, and none can be used.",
                f"Restore {self.token_file} from a backup, or free the names @{SERVICE_LOCALPART}-….",
            )
        write_private(self.token_file, token + "\n")
        self.synapse.token = token
        self.user_id = f"@{username}:{self.domain}"
        # The probe makes a handful of rooms at once; it must not wait for limits meant for people.
        self.synapse.call(
            "POST",
            f"/_synapse/admin/v1/users/{quote(self.user_id)}/override_ratelimit",
            {"messages_per_second": 0, "burst_count": 0},
        )
        for earlier in range(1, number):
            old = SERVICE_LOCALPART if earlier == 1 else f"{SERVICE_LOCALPART}-{earlier}"
            self._retire(f"@{old}:{self.domain}")
        return True

    def _register(self, username: str, secret: str) -> str | None:
        nonce = self.synapse.call("GET", "/_synapse/admin/v1/register", token="")["nonce"]
        password = derived_password(secret, username)
        body = {
            "nonce": nonce,
            "username": username,
            "displayname": "Encryption gate",
            "password": password,
            "admin": True,
            "mac": registration_mac(secret, nonce, username, password, admin=True),
        }
        status, answer = self.synapse.ask("POST", "/_synapse/admin/v1/register", body, token="")
        if status == 200:
            return str(answer["access_token"])
        if status == 400 and answer.get("errcode") == "M_USER_IN_USE":
            return None
        error = self.synapse.refusal("POST", "/_synapse/admin/v1/register", status, answer)
        error.mend = (
            f"Check that {self.shared_secret_file} is the file that registration_shared_secret_path names, "
            "and that Synapse was restarted since it changed."
        )
        raise error

    def _log_in(self, username: str, secret: str) -> str | None:
        body = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": username},
            "password": derived_password(secret, username),
            "initial_device_display_name": DEVICE,
        }
        status, answer = self.synapse.ask("POST", "/_matrix/client/v3/login", body, token="")
        if status != 200:
            return None
        token = str(answer["access_token"])
        path = f"/_synapse/admin/v1/users/{quote(str(answer['user_id']))}/admin"
        status, answer = self.synapse.ask("GET", path, token=token)
        return token if status == 200 and answer.get("admin") else None

    def _retire(self, user_id: str) -> None:
        status, user = self.synapse.ask("GET", f"/_synapse/admin/v2/users/{quote(user_id)}")
        if status == 200 and user.get("admin") and not user.get("deactivated"):
            self.synapse.call("POST", f"/_synapse/admin/v1/deactivate/{quote(user_id)}", {"erase": False})


def existing_account(synapse: Synapse, domain: str, config_dir: Path) -> ServiceAccount:
    """The account that the gate has made, logged in; or `SynapseError` saying that the gate comes first."""
    account = ServiceAccount(
        synapse, domain, config_dir / "gate.token", config_dir / "secrets" / "registration_shared_secret"
    )
    if not (config_dir / "attestation.json").exists():
        raise SynapseError(
            f"The encryption gate has not passed: there is no {config_dir / 'attestation.json'}.",
            "Run the playbook cae.matrix.cooperative, and mend what its report names.",
        )
    account.ready()
    return account


def read_text(path: Path) -> str | None:
    """The text of a file, or None where there is none."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_text(encoding="utf-8")
    return None
