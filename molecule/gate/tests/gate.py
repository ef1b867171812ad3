# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One server, and the means to break it and to run the gate on it: through the role, or its modules alone."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import secrets
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote as percent

import ansible.module_utils
import pytest
from ansible_collections.cae.matrix.plugins.filter.gate_plan import gate_plan
from ansible_collections.cae.matrix.tests.patience import SETTLE, START, eventually
from conftest import EPHEMERAL, PROJECT, Api, Instance, run_playbook

DOMAIN, CONFIG = "atelier.test", "/etc/matrix/atelier"
WELL_KNOWN, EXTRA, ATTESTATION = (
    f"{CONFIG}/{path}" for path in ("well-known/client", "synapse/zz-by-hand.yaml", "attestation.json")
)
DROP_IN = "/etc/systemd/system/matrix-synapse@atelier.service.d"
# A release that an earlier version would have brought.
EARLIER = "/opt/matrix/synapse/earlier"
UNIT = "matrix-synapse@atelier.service"
MEGOLM = {"algorithm": "m.megolm.v1.aes-sha2"}
# The password of everybody whom tests make an account for.
PASSWORD = secrets.token_urlsafe(12)

# Runs on the machine: a module, without all that Ansible does around it. With a moment, it dies just before the n-th
# thing it does of a kind, as Python's audit events tell them, and as surely as from a power cut.
MODULE = """
import os, runpy, signal, sys

sys.path.insert(0, "/root/gate")
name, event, words, left = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
del sys.argv[1:]

def die(happens, arguments):
    global left
    if happens == event and words in repr(arguments):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

if event:
    sys.addaudithook(die)
runpy.run_module("ansible_collections.cae.matrix.plugins.modules." + name, run_name="__main__", alter_sys=True)
"""

# Runs on the machine: all that tests break, but for what they put back themselves.
MEND = f"""
cd {CONFIG}
[ -e /root/sound ] || (mkdir /root/sound && cp -a well-known synapse/homeserver.yaml venv /root/sound)
diff -r /root/sound/well-known well-known >/dev/null || cp -a /root/sound/well-known .
if [ -e {EARLIER} ]; then
    rm -r {EARLIER} venv
    cp -a /root/sound/homeserver.yaml synapse
    cp -a /root/sound/venv .
    touch {EXTRA}
fi
if [ -e {EXTRA} ] || [ -e {DROP_IN}/by-hand.conf ] || ! systemctl --quiet is-enabled {UNIT}; then
    rm -rf {EXTRA} {DROP_IN}/by-hand.conf other
    systemctl --quiet enable {UNIT}
    systemctl daemon-reload
    systemctl reset-failed {UNIT}
    systemctl restart {UNIT}
fi
systemctl show -P InvocationID {UNIT}
cat synapse/registration.yaml
"""


@dataclass(frozen=True)
class Moment:
    """The n-th time that a process does something, told by an audit event and words in what comes with it."""

    event: str = ""
    words: str = ""
    number: int = 1


@dataclass
class Run:
    """What one run of the gate said."""

    status: int
    output: str
    changed: bool

    @property
    def told(self) -> str:
        """As one line, however Ansible folded it."""
        return " ".join(self.output.split())


class Server:
    """The machine under test."""

    def __init__(self, instance: Instance, api: Api) -> None:
        self.instance, self.api = instance, api
        self.declared: dict[str, Any] = json.loads((EPHEMERAL / "declared.json").read_text())
        self.admin = instance.admin

    def execute(self, *argv: str, content: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        command = ["docker", "exec", "-i", self.instance.container, *argv]
        return subprocess.run(command, input=content, capture_output=True, check=False)

    def inside(self, *argv: str, content: str = "") -> str:
        done = self.execute(*argv, content=content.encode())
        assert done.returncode == 0, f"{argv}: {done.stdout.decode()}\n{done.stderr.decode()}"
        return done.stdout.decode()

    def write(self, path: str, content: str) -> None:
        self.inside("sh", "-c", 'cat >"$0" && chmod 0644 "$0"', path, content=content)

    @contextlib.contextmanager
    def aside(self, path: str) -> Iterator[None]:
        """Somebody moves a file away, and back again."""
        self.inside("mv", path, f"{path}.aside")
        try:
            yield
        finally:
            self.inside("mv", f"{path}.aside", path)

    def restart(self) -> None:
        self.inside("systemctl", "restart", UNIT)

    def is_active(self) -> None:
        shown = ("systemctl", "show", "-P", "ActiveState", UNIT)
        eventually(lambda: self.inside(*shown).strip() == "active", f"{UNIT} is active", START)

    def journal(self, *flags: str) -> str:
        return self.inside("journalctl", "--no-pager", "--output", "cat", "--unit", UNIT, *flags)

    def sql(self, query: str) -> str:
        return self.instance.sql(query).strip()

    # -- what the gate left -------------------------------------------------------------------------------------

    def attestation(self) -> dict[str, Any] | None:
        found = self.inside("sh", "-c", f"cat {ATTESTATION} 2>/dev/null || [ ! -e {ATTESTATION} ]")
        return dict(json.loads(found)) if found else None

    def attested(self) -> dict[str, Any]:
        found = self.attestation()
        assert found is not None
        return found

    def forget(self) -> None:
        """As if the gate had never passed."""
        self.inside("sh", "-c", f"rm -f {CONFIG}/attestation*.json")

    # -- from outside, through the proxy ------------------------------------------------------------------------

    def ask(self, method: str, path: str, body: Any = None, token: str | None = None) -> tuple[int, Any]:
        answer = self.api.request(method, path, body, token)
        return answer.status_code, answer.json()

    def register(self) -> tuple[int, Any]:
        return self.ask("POST", "/_matrix/client/v3/register", {})

    def token_of_support(self) -> str:
        """An ordinary login: what a person sees."""
        return self.api.login("support", self.inside("cat", f"{CONFIG}/admins/support.password").strip()).token

    def token_of_new(self, localpart: str) -> str:
        """Somebody gets an account, and logs in."""
        status, answer = self.admin("PUT", f"/_synapse/admin/v2/users/@{localpart}:{DOMAIN}", {"password": PASSWORD})
        assert status in (200, 201), answer
        return self.api.login(localpart, PASSWORD).token

    # -- rooms --------------------------------------------------------------------------------------------------

    def room(self, token: str, name: str) -> str:
        return str(self.api.ok("POST", "/_matrix/client/v3/createRoom", {"name": name}, token)["room_id"])

    def encrypted_room(self, token: str, name: str, content: Any = MEGOLM) -> str:
        """A room whose administrator turns encryption on, as any client can."""
        room = self.room(token, name)
        self.api.ok("PUT", f"/_matrix/client/v3/rooms/{percent(room)}/state/m.room.encryption/", content, token)
        return room

    def encrypted(self) -> list[str]:
        """The rooms that speak against a server that no gate has seen."""
        query = "SELECT DISTINCT room_id FROM events WHERE type IN ('m.room.encryption', 'm.room.encrypted')"
        return self.sql(query).split()

    def remove_rooms(self, rooms: list[str]) -> None:
        """One of the mends: gone, from the database too.

        A removal that comes while Synapse launches another waits for its scheduler's next round, a minute later; and
        one that meets tables which are still being filled fails, and succeeds when it is asked for again.
        """
        removals = {room: self.begin_removal(room) for room in rooms}

        def gone(room: str) -> bool:
            status = self.admin("GET", f"/_synapse/admin/v2/rooms/delete_status/{removals[room]}")[1]["status"]
            if status == "failed":
                removals[room] = self.begin_removal(room)
            return bool(status == "complete")

        for room in rooms:
            eventually(functools.partial(gone, room), f"{room} is removed", SETTLE)
            assert self.sql(f"SELECT count(*) FROM events WHERE room_id = '{room}'") == "0"

    def begin_removal(self, room: str) -> str:
        status, answer = self.admin("DELETE", f"/_synapse/admin/v2/rooms/{percent(room)}", {"purge": True})
        assert status == 200, answer
        return str(answer["delete_id"])

    # -- through Ansible ----------------------------------------------------------------------------------------

    def run(self, playbook: str, *flags: str, **variables: Any) -> Run:
        status, output = run_playbook(playbook, *flags, **variables)
        return Run(status, output, " changed=0 " not in output)

    def play(self, **variables: Any) -> Run:
        """The gate as ops teams run it: where the test is about what an inventory says."""
        return self.run("molecule/gate/gate.yml", **variables)

    # -- the modules alone --------------------------------------------------------------------------------------

    @functools.cached_property
    def staged(self) -> bool:
        """What a module is made of lies on the machine."""
        packed, utilities = io.BytesIO(), Path(ansible.module_utils.__path__[0])
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for source in (utilities, PROJECT / "plugins"):
                for path in sorted(source.rglob("*.py")):
                    package = "ansible" if source.name == "module_utils" else "ansible_collections/cae/matrix"
                    archive.add(path, f"{package}/{path.relative_to(source.parent)}")
            # Ansible's own would want what only a controller has.
            archive.addfile(tarfile.TarInfo("ansible/__init__.py"))
            archive.add(utilities.with_name("release.py"), "ansible/release.py")
        unpack = "rm -rf /root/gate && mkdir /root/gate && tar -x -C /root/gate"
        assert self.execute("sh", "-c", unpack, content=packed.getvalue()).returncode == 0
        return True

    def begin(self, name: str, moment: Moment, **arguments: Any) -> subprocess.CompletedProcess[bytes]:
        """A process with one of the modules of a run that is about this server itself."""
        assert self.staged
        content = json.dumps({"ANSIBLE_MODULE_ARGS": self.declared["own"] | arguments}).encode()
        command = ["python3", "-c", MODULE, name, moment.event, moment.words, str(moment.number)]
        return self.execute(*command, content=content)

    def module(self, name: str, **arguments: Any) -> Run:
        return outcome(self.begin(name, Moment(), **arguments))

    def observed(self, **arguments: Any) -> Any:
        """What the public names serve, asked from here as the role does."""
        name = "ansible_collections.cae.matrix.plugins.modules.public_documents"
        content = json.dumps({"ANSIBLE_MODULE_ARGS": self.declared["public"] | arguments})
        done = subprocess.run(
            [sys.executable, "-m", name], input=content.encode(), cwd=PROJECT, capture_output=True, check=True
        )
        result: dict[str, Any] = json.loads(done.stdout)
        return result["observed"]

    def arguments(self) -> dict[str, Any]:
        """What the role gives the gate's module, whatever the state."""
        plan = gate_plan(self.declared["documents"], "token")
        names = ["digest", "synapse_digest", "closed_until_proven", "proven", "prove_again", "declared"]
        names += ["configuration", "database", "database_password", "collection_version"]
        kept = {name: plan[name] for name in names if plan[name] is not None}
        return {**self.declared["gate"], **kept, "registration": "token"}

    def gate(self, *, accepted: list[str] | None = None, **public: Any) -> Run:
        """The gate's two modules one after the other: where the test is about the server, and the inventory as it was.

        A tenth of what the same run costs through the role, which makes the machine ready and reads the inventory.
        """
        closed = self.module("encryption_gate", state="closed_unless_attested", **self.arguments())
        if closed.status:
            return closed
        proven = self.module(
            "encryption_gate",
            state="proven",
            observed=self.observed(**public),
            accepted_rooms=accepted or [],
            **self.arguments(),
        )
        return Run(proven.status, f"{closed.output}\n{proven.output}".strip(), closed.changed or proven.changed)

    def killed(self, moment: Moment) -> int:
        """The status of a proof that died at a moment."""
        run = self.begin("encryption_gate", moment, state="proven", observed=self.observed(), **self.arguments())
        return run.returncode


def outcome(done: subprocess.CompletedProcess[bytes]) -> Run:
    said = done.stdout.decode() + done.stderr.decode()
    try:
        result = json.loads(done.stdout)
    except ValueError:
        raise AssertionError(f"the module ended with {done.returncode}: {said}") from None
    words = [result.get("msg", ""), result.get("report", ""), *result.get("warnings", [])]
    return Run(done.returncode, "\n".join(map(str, words)), bool(result.get("changed")))


def closed(server: Server, run: Run, *words: str) -> None:
    """Refused with these words, and nobody can register."""
    assert run.status != 0, run.output
    for word in words:
        assert word in run.told, f"{word!r} is not in the report:\n{run.output}"
    status, answer = server.register()
    assert (status, answer["errcode"]) == (403, "M_FORBIDDEN"), answer
    assert "enable_registration: false" in server.inside("cat", f"{CONFIG}/synapse/registration.yaml")
    assert server.attestation() is None


def passed(server: Server, run: Run, registration: str = "token") -> None:
    assert run.status == 0, run.output
    assert server.attested()["registration"] == registration
    assert server.register()[0] == {"token": 401, "closed": 403}[registration]


@pytest.fixture(scope="session")
def server(instance: Instance, api: Api) -> Server:
    return Server(instance, api)


def mend(server: Server) -> None:
    """Attested and open by token again, whatever the test before has broken."""
    process, registration = server.inside("sh", "-ec", MEND).split("\n", 1)
    server.is_active()
    attested = (server.attestation() or {}).get("invocation_id") == process
    if attested and registration == server.arguments()["proven"] and server.register()[0] == 401:
        return
    run = server.gate()
    if run.status:
        # A test that failed may have left rooms.
        server.remove_rooms(server.encrypted())
        run = server.gate()
    passed(server, run)


@pytest.fixture(autouse=True, scope="module")
def nothing_encrypted(server: Server) -> None:
    """What others encrypted would keep a server from being new."""
    mend(server)
    server.remove_rooms(server.encrypted())


@pytest.fixture(autouse=True)
def as_it_was(server: Server) -> None:
    """Each test begins like that. So none has to mend: that the gate passes again without the cause is seen here."""
    mend(server)
