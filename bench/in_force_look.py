# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs on the machine: what of an instance is on disk, and what is in force. See in_force.py."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

SLUG, DOMAIN = sys.argv[1:]
CONFIG = Path("/etc/matrix", SLUG)
UNIT = f"matrix-synapse@{SLUG}.service"
POST = "POST /_matrix/media/v3/upload HTTP/1.1\r\nHost: matrix.{domain}\r\nContent-Length: {size}\r\n\r\n"


class Connection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(f"/run/matrix-synapse/{SLUG}/client.sock")


def synapse(method: str, path: str, body: Any = None) -> Any:
    connection = Connection("localhost")
    token = (CONFIG / "gate.token").read_text().strip()
    content = None if body is None else json.dumps(body)
    connection.request(method, path, content, {"Authorization": f"Bearer {token}"})
    return json.loads(connection.getresponse().read())


def takes(size: int) -> bool:
    """Whether nginx lets through as much; where it does not, it says so before anything is sent."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", 443)) as plain,
        context.wrap_socket(plain, server_hostname=f"matrix.{DOMAIN}") as connection,
    ):
        connection.settimeout(2)
        connection.sendall(POST.format(domain=DOMAIN, size=size).encode())
        try:
            return b" 413 " not in connection.recv(64)
        except TimeoutError:
            return True


def shown(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def number(pattern: str, text: str) -> int:
    return max(map(int, re.findall(pattern, text)))


def on_disk() -> dict[str, Any]:
    homeserver = (CONFIG / "synapse/homeserver.yaml").read_text()
    postgresql = Path("/etc/postgresql/15/main/conf.d/cae-matrix.conf").read_text()
    return {
        "max_upload_size": number(r"max_upload_size: '?([0-9]+)M", homeserver) * 2**20,
        "power level": number(r"m.room.topic: ([0-9]+)", homeserver),
        "max_connections": number(r"max_connections = '([0-9]+)'", postgresql),
        "client_max_body_size": [True, False],
        "process": shown("systemctl", "show", "-P", "InvocationID", UNIT),
        "leftovers": [],
    }


def in_force() -> dict[str, Any]:
    site = Path(f"/etc/nginx/sites-available/matrix-{SLUG}.conf").read_text()
    body = number(r"client_max_body_size ([0-9]+)", site)
    room = synapse("POST", "/_matrix/client/v3/createRoom", {"preset": "private_chat"})["room_id"]
    levels = synapse("GET", f"/_matrix/client/v3/rooms/{room}/state/m.room.power_levels")
    synapse("DELETE", f"/_synapse/admin/v2/rooms/{room}", {"purge": True, "block": False})
    return {
        "max_upload_size": synapse("GET", "/_matrix/client/v1/media/config")["m.upload.size"],
        "power level": levels["events"].get("m.room.topic"),
        "max_connections": int(shown("runuser", "-u", "postgres", "--", "psql", "-Atc", "SHOW max_connections")),
        "client_max_body_size": [takes(body), takes(body + 1)],
        "process": json.loads((CONFIG / "attestation.json").read_text())["invocation_id"],
        "leftovers": [str(path) for top in ("/etc", "/run") for path in Path(top).rglob("*cae-matrix-*")],
    }


print(json.dumps({"disk": on_disk(), "force": in_force()}))
