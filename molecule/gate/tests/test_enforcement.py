# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Line three on a real server: Synapse itself keeps to it, whoever goes past the gate."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator

import pytest
from gate import ATTESTATION, CONFIG, Server, closed

# Over the socket, with the secret: what an operator on the machine, or a script of theirs, can do.
REGISTER = """
import hashlib, hmac, http.client, json, socket, sys

def ask(method, body=None):
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect("/run/matrix-synapse/atelier/client.sock")
    connection.request(method, "/_synapse/admin/v1/register", body and json.dumps(body))
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())

name = sys.argv[1]
secret = open("/etc/matrix/atelier/secrets/registration_shared_secret").read().strip()
nonce = ask("GET")[1]["nonce"]
mac = hmac.new(secret.encode(), "\\0".join((nonce, name, "not-a-good-one", "notadmin")).encode(), hashlib.sha1)
body = {"nonce": nonce, "username": name, "password": "not-a-good-one", "admin": False, "mac": mac.hexdigest()}
print(json.dumps(ask("POST", body)))
"""


def register(server: Server, name: str) -> int:
    return int(json.loads(server.inside("python3", "-c", REGISTER, name))[0])


@pytest.fixture
def without_attestation(server: Server) -> Iterator[None]:
    """Set aside under a running server, as nobody but an operator could."""
    with server.aside(ATTESTATION):
        yield


def test_with_an_attestation_operators_make_accounts(server: Server) -> None:
    assert register(server, f"avec-attestation-{secrets.token_hex(3)}") == 200


@pytest.mark.usefixtures("without_attestation")
def test_without_an_attestation_nobody_gets_an_account(server: Server) -> None:
    assert register(server, "sans-attestation") != 200
    assert server.sql("SELECT count(*) FROM users WHERE name LIKE '@sans-attestation%'") == "0"
    said = server.journal("--since", "-1min")
    assert "sans-attestation" in said
    assert "attestation" in said


# Code of others, which the proof cannot see before it is let in.
ENCRYPTS = """
class Encrypts:
    def __init__(self, config, api):
        api.register_third_party_rules_callbacks(on_create_room=self.on_create_room)

    async def on_create_room(self, requester, request_content, is_requester_admin):
        content = {"algorithm": "m.megolm.v1.aes-sha2"}
        request_content["initial_state"] = [{"type": "m.room.encryption", "state_key": "", "content": content}]
"""


def test_a_module_that_encrypts_rooms_is_found_and_registration_closes(server: Server) -> None:
    place = server.inside(f"{CONFIG}/venv/bin/python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
    server.write(f"{place.strip()}/encrypts.py", ENCRYPTS)
    try:
        run = server.play(synapse_extra_config={"modules": [{"module": "encrypts.Encrypts", "config": {}}]})
        closed(server, run, "with everything declared, a room without preset starts plain")
        assert "encrypts.Encrypts" not in server.inside("cat", f"{CONFIG}/synapse/registration.yaml")
    finally:
        server.inside("rm", f"{place.strip()}/encrypts.py")
