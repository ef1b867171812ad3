# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A real Synapse with the encryption opt-in module, as role synapse configures it."""

from __future__ import annotations

import json
import re
import sqlite3
import urllib.request
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible_collections.cae.matrix.plugins.module_utils.encryption.opt_in import synapse_digest
from ansible_collections.cae.matrix.tests.patience import PROMPT, patient
from ansible_collections.cae.matrix.tests.unit import proof
from ansible_collections.cae.matrix.tests.unit.homeserver import Homeserver
from ansible_collections.cae.matrix.tests.unit.ports import free_port

DOMAIN, INSTANCE = "coop.example", "coop"
MODULE = "cae_matrix_opt_in.EncryptionOptIn"
MARK = "X-Matrix-Own-Client"
OWN = {MARK: "element-web-5d41402abc4b2a76b9719d911017c592"}
ENCRYPTION: dict[str, Any] = {
    "type": "m.room.encryption",
    "state_key": "",
    "content": {"algorithm": "m.megolm.v1.aes-sha2"},
}
PREFERENCE, DEFERRED, RECOVERY = "cae.matrix.encrypt_new_rooms", "cae.matrix.recovery_deferred", "io.element.recovery"
SERVICE = {
    "id": "bridge",
    "url": None,
    "as_token": "as-token",
    "hs_token": "hs-token",
    "sender_localpart": "bridge",
    "rate_limited": False,
    "namespaces": {"users": [{"regex": "@bridged_.*", "exclusive": True}], "rooms": [], "aliases": []},
}
PROOF = replace(proof.PROOF, instance=INSTANCE, domain=DOMAIN, synapse_digest=synapse_digest({"server_name": DOMAIN}))


def configuration(directory: Path, metrics_port: int) -> dict[str, Any]:
    """What is added to the plain server's configuration. Its shared secret comes by path, as in real life."""
    (directory / "registration_shared_secret").write_text("x")
    (directory / "bridge.yaml").write_text(json.dumps(SERVICE))
    return {
        "listeners": [
            {
                "path": str(directory / "s"),
                "type": "http",
                "x_forwarded": True,
                "request_id_header": MARK,
                "resources": [{"names": ["client"]}],
            },
            {"port": metrics_port, "bind_addresses": ["127.0.0.1"], "type": "metrics"},
        ],
        "enable_metrics": True,
        "registration_shared_secret": None,
        "registration_shared_secret_path": str(directory / "registration_shared_secret"),
        "app_service_config_files": [str(directory / "bridge.yaml")],
        "modules": [
            {"module": MODULE, "config": {"instance": INSTANCE, "attestation": str(directory / "attestation.json")}}
        ],
    }


class OptInServer(Homeserver):
    """One server, attested unless told otherwise."""

    def __init__(
        self,
        python: str,
        directory: Path,
        extra: dict[str, Any] | None = None,
        attested: bool = True,
        more: Sequence[Path] = (),
    ) -> None:
        self.metrics_port = free_port()
        self.attestation = directory / "attestation.json"
        self._database = directory / "db"
        config = configuration(directory, self.metrics_port) | (extra or {})
        self.proof = replace(PROOF, synapse_digest=synapse_digest({"server_name": DOMAIN} | config))
        if attested:
            self.attestation.write_text(self.proof.to_json())
        super().__init__(python, directory, config, more)

    def person(self, name: str) -> Person:
        return Person(self, f"@{name}:{DOMAIN}", self.register(f"@{name}:{DOMAIN}"))

    def encrypted_rooms(self) -> set[str]:
        query = "SELECT room_id FROM current_state_events WHERE type = 'm.room.encryption' AND state_key = ''"
        return {room for (room,) in self.sql(query)}

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(self._database)
        try:
            with connection:
                return connection.execute(query).fetchall()
        finally:
            connection.close()

    def metrics(self) -> str:
        address = f"http://127.0.0.1:{self.metrics_port}/_synapse/metrics"
        with urllib.request.urlopen(address, timeout=patient(PROMPT)) as answer:
            return str(answer.read().decode())

    def follows(self) -> bool:
        """Whether this process looks by now who takes part in encrypted rooms: half a second after its start."""
        return 'synapse_background_process_start_count_total{name="cae_matrix_opt_in_follow"' in self.metrics()

    def counts(self) -> dict[str, float]:
        """The module's counters, as Synapse's own metrics listener shows them."""
        text = self.metrics()
        found = re.findall(r"^cae_matrix_(\w+?)_total(?:\{\w+=\"([^\"]*)\"\})? (\S+)$", text, re.MULTILINE)
        return {f"{name} {label}".strip(): float(value) for name, label, value in found}


class Person:
    """Somebody with an account."""

    def __init__(self, server: Homeserver, user_id: str, token: str) -> None:
        self.server, self.user_id, self.token = server, user_id, token

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        return self.server.request(method, f"/_matrix/client/v3{path}", body, self.token, headers=headers)

    def make(self, body: dict[str, Any], headers: dict[str, str] | None = None) -> str:
        status, answer = self.ask("POST", "/createRoom", body, headers)
        assert status == 200, (answer, body)
        return str(answer["room_id"])

    def encrypts(self, room_id: str) -> bool:
        """Whether the room is encrypted, as a client sees it."""
        status, answer = self.ask("GET", f"/rooms/{room_id}/state/m.room.encryption")
        assert status in (200, 404), answer
        return status == 200

    def turn_on(self, room_id: str) -> int:
        """What "enable encryption" in a room's settings sends, in every client."""
        return self.ask("PUT", f"/rooms/{room_id}/state/m.room.encryption", ENCRYPTION["content"])[0]

    def data(self, data_type: str) -> dict[str, Any] | None:
        status, answer = self.ask("GET", f"/user/{self.user_id}/account_data/{data_type}")
        return answer if status == 200 else None

    def put_data(self, data_type: str, content: dict[str, Any]) -> None:
        status, answer = self.ask("PUT", f"/user/{self.user_id}/account_data/{data_type}", content)
        assert status == 200, answer

    def join(self, room_id: str) -> None:
        status, answer = self.ask("POST", f"/join/{room_id}", {})
        assert status == 200, answer

    def recovery(self) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        return self.data(RECOVERY), self.data(DEFERRED)


# What somebody's account data for recovery, and the module's mark beside it, are when they are (not) asked.
AccountData = dict[str, Any] | None
NOT_ASKED: tuple[AccountData, AccountData] = ({"enabled": False}, {"enabled": True})
ASKED: tuple[AccountData, AccountData] = ({}, {"enabled": False})
