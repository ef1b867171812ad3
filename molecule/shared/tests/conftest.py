# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the scenarios' tests share: the instances, their public names, people, and the journal when a test fails.

Whatever the tests are about, nothing may ask anybody outside the test network meanwhile.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
import testinfra
import yaml
from ansible_collections.cae.matrix.tests.patience import SETTLE, START, patient
from testinfra.host import Host

EPHEMERAL = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])

# Nobody's address: each machine sends a packet there, so that a count of none means something.
NOBODY = ("192.0.2.1", 9)
SEND = """
import contextlib, socket, sys
with contextlib.suppress(PermissionError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as card:
    card.sendto(b"?", (sys.argv[1], int(sys.argv[2])))
"""

# Runs on the target with its Python: nothing there but the socket answers the admin API.
ADMIN_CALL = """
import http.client, json, socket, sys

class Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout({seconds})
        self.sock.connect("/run/matrix-synapse/{slug}/client.sock")

connection = Connection("localhost")
token = open("/etc/matrix/{slug}/gate.token").read().strip()
body = sys.argv[3].encode() if len(sys.argv) > 3 else None
connection.request(sys.argv[1], sys.argv[2], body, {{"Authorization": "Bearer " + token}})
answer = connection.getresponse()
print(json.dumps([answer.status, json.loads(answer.read() or b"null")]))
"""


def begin_playbook(playbook: str | Path, /, *arguments: str, **variables: Any) -> subprocess.Popen[str]:
    """A run on the scenario's inventory, as an ops team does it, with variables on the command line; not its end."""
    command = ["ansible-playbook", "-i", str(EPHEMERAL / "inventory"), *arguments, str(PROJECT / playbook)]
    environment = {"ANSIBLE_CONFIG": str(EPHEMERAL / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}
    return subprocess.Popen(
        [*command, "-e", json.dumps(variables)],
        cwd=PROJECT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run_playbook(playbook: str | Path, /, *arguments: str, **variables: Any) -> tuple[int, str]:
    """The same until its end: its status, and what it said."""
    return finish_playbook(begin_playbook(playbook, *arguments, **variables))


def finish_playbook(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Of one that was begun. Several instances at once take longer than one: what takes this long hangs."""
    try:
        said, _ = process.communicate(timeout=patient(3 * SETTLE))
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, said


@dataclass
class Person:
    user_id: str
    password: str
    token: str = field(repr=False)
    device_id: str


@dataclass
class Instance:
    slug: str
    domain: str
    matrix_hostname: str
    element_hostname: str
    ca_file: str
    address: str
    container: str
    people: list[Person] = field(default_factory=list, repr=False)

    @property
    def base_url(self) -> str:
        return f"https://{self.matrix_hostname}"

    @property
    def serves_element(self) -> bool:
        """A scenario may declare Element absent; then nothing answers by its name."""
        return bool(self.machine.file(f"/etc/matrix/{self.slug}/element/config.json").exists)

    @property
    def machine(self) -> Host:
        return testinfra.get_host(f"docker://{self.container}")

    def ssl_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca_file)

    def run(self, *argv: str) -> str:
        """The output of a command on the target, which must succeed."""
        done = subprocess.run(["docker", "exec", self.container, *argv], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{argv}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def admin(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        """The admin API, over the instance's own socket, as the operators on the machine use it."""
        script = ADMIN_CALL.format(slug=self.slug, seconds=patient(START))
        extra = [json.dumps(body)] if body is not None else []
        status, answer = json.loads(self.run("python3", "-c", script, method, path, *extra))
        return int(status), answer

    def sql(self, query: str) -> str:
        database = "matrix_" + self.slug.replace("-", "_")
        return self.run("psql", "-U", database, "-d", database, "-At", "-c", query)


class Api:
    """The client API, over HTTPS through the proxy, by the public name."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.session = requests.Session()
        # The proxies of the machine that tests have nothing to do with the hosts under test.
        self.session.trust_env = False
        self.session.verify = instance.ca_file

    def request(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        token: str | None = None,
        headers: dict[str, str] | None = None,
        **options: Any,
    ) -> requests.Response:
        """One request; where the server asks for patience (429), it gets as much as it asks for."""
        headers = {**(headers or {}), **({"Authorization": f"Bearer {token}"} if token else {})}
        url, begin = self.instance.base_url + path, time.monotonic()
        while True:
            answer = self.session.request(method, url, json=body, headers=headers, timeout=patient(START), **options)
            if answer.status_code != 429 or time.monotonic() - begin > patient(SETTLE):
                return answer
            time.sleep(answer.json().get("retry_after_ms", 1000) / 1000)

    def ok(self, method: str, path: str, body: dict[str, Any] | None = None, token: str | None = None) -> Any:
        answer = self.request(method, path, body, token)
        assert answer.status_code == 200, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def login(self, localpart: str, password: str) -> Person:
        body = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": localpart},
            "password": password,
        }
        answer = self.ok("POST", "/_matrix/client/v3/login", body)
        return Person(answer["user_id"], password, answer["access_token"], answer["device_id"])

    def register(self, localpart: str, password: str, registration_token: str | None) -> requests.Response:
        """Goes through the stages that the server asks for, as a client does."""
        path = "/_matrix/client/v3/register"
        body: dict[str, Any] = {"username": localpart, "password": password}
        answer = self.request("POST", path, body)
        if answer.status_code != 401:
            return answer
        session, flows = answer.json()["session"], answer.json()["flows"]
        for stage in flows[0]["stages"]:
            auth = {"type": stage, "session": session}
            if stage == "m.login.registration_token":
                auth["token"] = registration_token or "no-such-token"
            answer = self.request("POST", path, {**body, "auth": auth})
            if answer.status_code == 200 or "errcode" in answer.json():
                return answer
        return answer


def instances() -> list[Instance]:
    """The hosts of the inventory that are instances; others are machines, or what stands around."""
    found = []
    inventory = EPHEMERAL / "inventory"
    addresses = json.loads((EPHEMERAL / "addresses.json").read_text())
    groups: dict[str, Any] = yaml.safe_load((inventory / "ansible_inventory.yml").read_text())
    # What a scenario declares where its platforms are not its instances.
    if (inventory / "hosts").exists():
        groups |= yaml.safe_load((inventory / "hosts").read_text())
    for name in [
        host for group in ("cooperatives", "federation_hub") for host in groups.get(group, {}).get("hosts", {})
    ]:
        domain = f"{name}.test"
        found.append(
            Instance(
                slug=name,
                domain=domain,
                matrix_hostname=f"matrix.{domain}",
                element_hostname=f"chat.{domain}",
                ca_file=str(EPHEMERAL / "ca" / "ca.pem"),
                address=addresses[name],
                container=container_of(name),
            )
        )
    return found


def container_of(host: str) -> str:
    """Where a host of the inventory lives."""
    return str(yaml.safe_load((EPHEMERAL / "inventory/host_vars" / host).read_text())["ansible_host"])


def machines() -> list[str]:
    """The containers, all on one network."""
    return sorted({container_of(host) for host in json.loads((EPHEMERAL / "addresses.json").read_text())})


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout


def dropped(container: str) -> Counter[str]:
    """How many packets of a machine were to leave the test network, and where to (molecule/shared/network)."""
    ask = ["--network", f"container:{container}", "--cap-add", "NET_ADMIN", "cae-matrix/prepared:13", "nft", "--json"]
    listed = json.loads(docker("run", "--rm", *ask, "list", "table", "inet", "closed"))["nftables"]
    found: Counter[str] = Counter()
    for element in [each["elem"] for entry in listed for each in entry.get("set", {}).get("elem", [])]:
        found[" ".join(map(str, element["val"]["concat"]))] += element["counter"]["packets"]
    return found


@pytest.fixture(scope="session", autouse=True)
def nobody_outside_is_asked(request: pytest.FixtureRequest) -> Iterator[None]:
    """From the moment the network was closed until the last test: no packet to outside, no name but the network's."""
    known = " ".join(map(str, (NOBODY[0], "udp", NOBODY[1])))
    for container in machines():
        docker("exec", container, "python3", "-c", SEND, *map(str, NOBODY))
        assert dropped(container)[known], f"{container}: what leaves the network is not counted"
    yield
    tried = Counter(
        {
            f"{container} to {where}": count
            for container in machines()
            for where, count in dropped(container).items()
            if where != known
        }
    )
    names = docker("logs", machines()[0].rpartition("-")[0] + "-names").split()
    tried.update(f"the name {name}" for name in names if not f".{name}".endswith(".test"))
    if report := request.config.option.xmlpath:
        Path(report).with_suffix(".outside").write_text(f"{tried.total()}\n")
    assert not tried, "asked outside the test network: " + ", ".join(f"{what} ({tried[what]})" for what in tried)


@pytest.fixture(scope="session", autouse=True)
def public_names() -> Iterator[None]:
    """Stands in for DNS: the public names lead to the containers, for every client library, with TLS and SNI intact."""
    table = {
        name: found.address
        for found in instances()
        for name in (found.domain, found.matrix_hostname, found.element_hostname)
    }
    ask = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        return ask(table.get(host, host), *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        yield


@pytest.fixture(scope="session", params=instances(), ids=lambda found: found.slug)
def instance(request: pytest.FixtureRequest) -> Instance:
    found: Instance = request.param
    return found


@pytest.fixture(scope="session")
def host(instance: Instance) -> Host:
    """Testinfra's view of the machine that the instance runs on."""
    return instance.machine


@pytest.fixture(scope="session")
def first_start(instance: Instance) -> str:
    """The start of Synapse that the gate has seen: who is about to restart it asks for this before."""
    unit = f"matrix-synapse@{instance.slug}.service"
    return instance.run("systemctl", "show", "-P", "InvocationID", unit).strip()


@pytest.fixture(scope="session")
def api(instance: Instance) -> Api:
    return Api(instance)


@pytest.fixture(scope="session")
def registration_token(instance: Instance) -> str:
    status, answer = instance.admin("POST", "/_synapse/admin/v1/registration_tokens/new", {})
    assert status == 200, answer
    return str(answer["token"])


def newcomers(api: Api, registration_token: str) -> list[Person]:
    """Two people who registered as people do."""
    found = []
    for name in ("amina", "bruno"):
        localpart, password = f"{name}-{secrets.token_hex(3)}", secrets.token_urlsafe(16)
        answer = api.register(localpart, password, registration_token)
        assert answer.status_code == 200, answer.text
        found.append(api.login(localpart, password))
    return found


@pytest.fixture(scope="session")
def people(instance: Instance, api: Api, registration_token: str) -> list[Person]:
    """The two that most tests are about."""
    if not instance.people:
        instance.people += newcomers(api, registration_token)
    return instance.people


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "last: takes away what all other tests look at, and so comes after them")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever order they were given otherwise."""
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """A failed test shows what the services said meanwhile: those of its instance, or of all."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if not report.failed:
        return
    mine = getattr(item, "funcargs", {}).get("instance")
    for found in [mine] if mine else instances():
        for unit in (f"matrix-synapse@{found.slug}.service", "nginx.service", "postgresql@*.service"):
            journal = subprocess.run(
                ["docker", "exec", found.container, "journalctl", "--no-pager", "--lines", "60", "--unit", unit],
                capture_output=True,
                text=True,
                check=False,
            )
            report.sections.append((f"journal of {unit} on {found.container}", journal.stdout + journal.stderr))
