# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Real Synapses that federate with each other on loopback, over TLS, with certificates of a private CA.

Each has an address of its own (127.0.0.2, 127.0.0.3, ...), which with its port is its name: nobody has to be asked
where it is.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import ssl
from pathlib import Path
from typing import Any

from ansible_collections.cae.matrix.tests.patience import START, patient
from ansible_collections.cae.matrix.tests.unit.homeserver import Homeserver
from ansible_collections.cae.matrix.tests.unit.opt_in_server import Person
from ansible_collections.cae.matrix.tests.unit.ports import free_port
from ansible_collections.cae.matrix.tests.unit.public_server import Authority

UNLIMITED = {"per_second": 10000, "burst_count": 10000}


class FederatingServer(Homeserver):
    """One server, `name` to the others; `extra` is added to its configuration, and wins."""

    def __init__(
        self, python: str, directory: Path, address: str, authority: Authority, extra: dict[str, Any] | None = None
    ) -> None:
        directory.mkdir()
        port = free_port()
        self.name = f"{address}:{port}"
        self.key_id = f"ed25519:a_{port}"
        self._ca_file = authority.ca_file
        pair = authority.server_file(address)
        key = base64.b64encode(hashlib.sha256(self.name.encode()).digest()).decode().rstrip("=")
        config = {
            "server_name": self.name,
            "public_baseurl": f"https://{self.name}/",
            "signing_key": f"ed25519 a_{port} {key}",
            "tls_certificate_path": str(pair),
            "tls_private_key_path": str(pair),
            "federation_custom_ca_list": [str(authority.ca_file)],
            # Of names that are addresses, `ip_range_whitelist` is not asked.
            "federation_ip_range_blacklist": [],
            "listeners": [
                {
                    "path": str(directory / "s"),
                    "type": "http",
                    "x_forwarded": True,
                    "resources": [{"names": ["client", "federation"]}],
                },
                {
                    "port": port,
                    "bind_addresses": [address],
                    "type": "http",
                    "tls": True,
                    "resources": [{"names": ["federation"]}],
                },
            ],
            "send_federation": True,
            "rc_joins": {"local": UNLIMITED, "remote": UNLIMITED},
            "rc_joins_per_room": UNLIMITED,
            "rc_federation": {"window_size": 1000, "sleep_limit": 10000, "reject_limit": 10000, "concurrent": 100},
            **(extra or {}),
        }
        super().__init__(python, directory, config)

    def over_tls(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        """What other servers are answered; nothing is signed."""
        context = ssl.create_default_context(cafile=self._ca_file)
        # Python 3.13 wants more of a test's CA than 3.11, browsers and Synapse do.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        connection = http.client.HTTPSConnection(self.name, timeout=patient(START), context=context)
        with contextlib.closing(connection):
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def person(self, name: str) -> Person:
        user_id = f"@{name}:{self.name}"
        return Person(self, user_id, self.register(user_id))
