# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What nginx itself answers, as role reverse_proxy configures it: Synapse is away, or a file is too large for it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from ansible_collections.cae.matrix.tests.patience import START, eventually, patient
from ansible_collections.cae.matrix.tests.unit.homeserver import Homeserver
from ansible_collections.cae.matrix.tests.unit.ports import free_port
from ansible_collections.cae.matrix.tests.unit.programs import ansible_playbook, program
from ansible_collections.cae.matrix.tests.unit.services import running

ROOT = Path(__file__).resolve().parents[2]
NAME = "matrix.coop.example"
LIMIT = 14 * 2**20
"""More than Synapse takes of anybody (13 107 200), or it would be that."""
NGINX = """
{user}daemon off;
pid {place}/nginx.pid;
error_log {place}/error.log;
worker_processes 1;
events {{ worker_connections 512; }}
http {{
    client_body_temp_path {place}/body;
    proxy_temp_path {place}/proxy;
    fastcgi_temp_path {place}/fastcgi;
    uwsgi_temp_path {place}/uwsgi;
    scgi_temp_path {place}/scgi;
    include {place}/site.conf;
}}
"""


def rendered(place: Path, upload: int, synapse: Path) -> str:
    """The site, as the role makes it."""
    variables = {
        "ansible_connection": "local",
        "matrix_domain": "coop.example",
        "matrix_instance": "coop",
        "matrix_max_upload_size": f"{upload // 2**20}M",
        "matrix_element_enabled": False,
        "reverse_proxy_certificate": "files",
        "reverse_proxy_certificate_path": f"{place}/fullchain.pem",
        "reverse_proxy_certificate_key_path": f"{place}/privkey.pem",
    }
    facts = {"debian": "12", "memory_mb": 4000, "instances": [], "people": 300, "nginx_is_short": False, "queue": 4096}
    facts["web"] = {"ipv6": False, "addresses": [], "ports": {}, "site": "", "nginx": {"broken": ""}}
    play = {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [
            {"ansible.builtin.set_fact": {"cae_matrix_machine": facts, "cacheable": True}},
            {
                "ansible.builtin.include_role": {
                    "name": "cae.matrix.reverse_proxy",
                    "tasks_from": "documents",
                    "public": True,
                }
            },
            {
                "ansible.builtin.template": {
                    "src": str(ROOT / "roles/reverse_proxy/templates/nginx.conf.j2"),
                    "dest": str(place / "rendered.conf"),
                    "mode": "0600",
                },
                "vars": {"__reverse_proxy_tls": {"ipv6": False, "usable": True}},
            },
        ],
    }
    (place / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"coop": variables}}}))
    (place / "play.yml").write_text(yaml.safe_dump([play]))
    ours = {"_matrix_client_socket": str(synapse), "_reverse_proxy_live": str(place), "_matrix_on_machine": False}
    done = ansible_playbook(ROOT, "-i", str(place / "hosts.yml"), "-e", json.dumps(ours), str(place / "play.yml"))
    assert done.returncode == 0, done.stdout + done.stderr
    return (place / "rendered.conf").read_text()


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    text: str

    @property
    def json(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.text)
        return found


@dataclass
class Proxy:
    port: int

    def connection(self) -> http.client.HTTPConnection:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=patient(START))
        found = http.client.HTTPConnection(NAME)
        found.sock = context.wrap_socket(raw, server_hostname=NAME)
        return found

    def ask(self, method: str, path: str, headers: Mapping[str, str] | None = None, body: object = None) -> Answer:
        """As browsers do: who is answered before everything is sent reads the answer all the same."""
        connection = self.connection()
        with contextlib.closing(connection):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
                connection.request(method, path, body, dict(headers or {}))  # type: ignore[arg-type]
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read().decode())


@contextlib.contextmanager
def proxy(place: Path, upload: int, synapse: Path) -> Iterator[Proxy]:
    nginx, openssl = program("nginx", "nginx"), program("openssl", "openssl")
    made = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    made += ["-subj", f"/CN={NAME}", "-keyout", str(place / "privkey.pem"), "-out", str(place / "fullchain.pem")]
    subprocess.run(made, check=True, capture_output=True)
    port, plain = free_port(), free_port()
    site = rendered(place, upload, synapse).replace("/var/log/nginx/", f"{place}/")
    site = site.replace("listen 443 ", f"listen 127.0.0.1:{port} ").replace("listen 80;", f"listen 127.0.0.1:{plain};")
    (place / "site.conf").write_text(site)
    user = "user root root;\n" if os.geteuid() == 0 else ""
    (place / "nginx.conf").write_text(NGINX.format(place=place, user=user))
    with running([nginx, "-c", str(place / "nginx.conf"), "-e", str(place / "error.log")], place / "nginx.log"):
        found = Proxy(port)
        eventually(lambda: found.ask("GET", "/").status == 404, "nginx answers", START)
        yield found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("proxy")


@pytest.fixture(scope="module")
def synapse(python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("s")
    server = Homeserver(python, directory, {"max_upload_size": LIMIT, "public_baseurl": f"https://{NAME}/"})
    (directory / "token").write_text(server.register("@sender:coop.example"))
    try:
        yield directory
    finally:
        server.stop()


@pytest.fixture(scope="module")
def site(place: Path, synapse: Path) -> Iterator[Proxy]:
    with proxy(place, LIMIT, synapse / "s") as found:
        yield found


@pytest.mark.parametrize("chunked", [False, True], ids=["length known", "chunked"])
@pytest.mark.parametrize(
    ("size", "status"),
    [(LIMIT, 200), (LIMIT + 1, 413), (LIMIT * 5, 413)],
    ids=["at the limit", "one more", "five times"],
)
def test_a_file_that_is_too_large_is_told_so(site: Proxy, synapse: Path, size: int, status: int, chunked: bool) -> None:
    headers = {"Authorization": f"Bearer {(synapse / 'token').read_text()}", "Origin": "https://chat.coop.example"}
    body: object = (b"x" * 65536 for _ in range(size // 65536)) if chunked else b"x" * size
    if chunked:
        body = iter([b"x" * size])
    answer = site.ask("POST", "/_matrix/media/v3/upload", headers, body)
    assert answer.status == status, answer.text
    assert answer.headers.get_all("Access-Control-Allow-Origin") == ["*"]
    assert status == 200 or answer.json["errcode"] == "M_TOO_LARGE"


def test_what_synapse_takes_of_nobody_is_told_so_too(synapse: Path, tmp_path: Path) -> None:
    """Files are smaller here than what other servers send at once: nginx lets as much pass as Synapse takes."""
    with proxy(tmp_path, 2**20, synapse / "s") as small:
        for size, status in ((13_107_200, 404), (13_107_201, 413)):
            answer = small.ask("PUT", "/_matrix/federation/v1/send/1", {}, b"x" * size)
            assert answer.status == status, answer.text


@pytest.fixture(scope="module")
def away(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """The socket is there, and nobody listens: Synapse is starting."""
    directory = tmp_path_factory.mktemp("away")
    with socket.socket(socket.AF_UNIX) as nobody:
        nobody.bind(str(directory / "s"))
        with proxy(directory, LIMIT, directory / "s") as found:
            yield found


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_while_synapse_starts_clients_are_told_to_wait(away: Proxy, method: str) -> None:
    answer = away.ask(method, "/_matrix/client/v3/sync", {"Origin": "https://chat.coop.example"}, b"{}")
    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.json["errcode"] == "M_UNKNOWN"
    assert "réessayez" in answer.json["error"]
    assert "try again" in answer.json["error"]
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers.get_all("Access-Control-Allow-Origin") == ["*"]
    assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]
    assert "Strict-Transport-Security" in answer.headers


def test_a_browser_may_ask_while_synapse_starts(away: Proxy) -> None:
    """Without this, Element sees a network error in the place of the answer."""
    asked = {"Origin": "https://chat.coop.example", "Access-Control-Request-Method": "PUT"}
    answer = away.ask("OPTIONS", "/_matrix/client/v3/sync", asked)
    assert answer.status == 204
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "PUT" in answer.headers["Access-Control-Allow-Methods"]
    assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]


def test_what_is_away_for_others_is_not_for_the_rest(away: Proxy) -> None:
    assert away.ask("GET", "/_synapse/admin/v1/server_version").status == 404


def test_as_soon_as_synapse_is_there_it_answers_itself(site: Proxy) -> None:
    answer = site.ask("GET", "/_matrix/client/versions")
    assert answer.status == 200
    assert "Retry-After" not in answer.headers
    refused = site.ask("GET", "/_matrix/client/v3/sync")
    assert (refused.status, refused.json["errcode"]) == (401, "M_MISSING_TOKEN")
