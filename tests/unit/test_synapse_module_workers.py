# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Synapse's module on a main process and a worker, over Redis and PostgreSQL, as big cooperatives run it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cae.matrix.tests.patience import START, eventually
from ansible_collections.cae.matrix.tests.unit.homeserver import Homeserver
from ansible_collections.cae.matrix.tests.unit.opt_in_server import (
    ASKED,
    DOMAIN,
    ENCRYPTION,
    NOT_ASKED,
    OWN,
    PREFERENCE,
    OptInServer,
    Person,
    configuration,
)
from ansible_collections.cae.matrix.tests.unit.ports import free_port
from ansible_collections.cae.matrix.tests.unit.programs import program
from ansible_collections.cae.matrix.tests.unit.services import postgresql, running


@pytest.fixture(scope="module")
def services() -> Iterator[Path]:
    """A directory with the sockets of PostgreSQL and Redis in it, which nobody else can enter."""
    redis = program("redis-server", "redis-server")
    with postgresql() as place:
        command = [redis, "--port", "0", "--unixsocket", str(place / "redis.sock"), "--save", "", "--dir", str(place)]
        with running(command, place / "redis.log"):
            eventually(lambda: (place / "redis.sock").exists(), "Redis is up", START)
            yield place


class Worker(OptInServer):
    """A generic worker beside the main process, with the same configuration and a few lines of its own."""

    def __init__(self, python: str, directory: Path) -> None:
        self.metrics_port = free_port()
        self._socket = str(directory / "w")
        listeners = configuration(directory, self.metrics_port)["listeners"]
        listeners[0]["path"] = self._socket
        own = {"worker_app": "synapse.app.generic_worker", "worker_name": "worker1", "worker_listeners": listeners}
        (directory / "worker.yaml").write_text(json.dumps(own))
        files = [argument for name in ("homeserver", "worker") for argument in ("-c", str(directory / f"{name}.yaml"))]
        self._start(python, directory / "worker.log", ["synapse.app.generic_worker", *files])


@pytest.fixture(scope="module", params=["main", "worker1"])
def processes(
    python: str, services: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[OptInServer, Worker]]:
    """The main process and the worker; the background tasks run on one, then on the other."""
    missing = subprocess.run([python, "-c", "import txredisapi, hiredis"], check=False).returncode
    assert not missing, "SYNAPSE_PYTHON has no Redis client: install matrix-synapse[redis] there"
    directory = tmp_path_factory.mktemp("w")
    extra: dict[str, Any] = {
        "database": {"name": "psycopg2", "args": {"host": str(services), "user": "synapse", "dbname": "postgres"}},
        "redis": {"enabled": True, "path": str(services / "redis.sock")},
        "instance_map": {"main": {"path": str(directory / "r")}},
        "worker_replication_secret": "x",
        "enable_registration": True,
        "registration_requires_token": True,
        "rc_registration": {"per_second": 10000, "burst_count": 10000},
    }
    if request.param != "main":
        extra["run_background_tasks_on"] = request.param
    listeners = configuration(directory, port := free_port())["listeners"]
    extra["listeners"] = [
        *listeners,
        {"path": str(directory / "r"), "type": "http", "resources": [{"names": ["replication"]}]},
    ]
    main = OptInServer(python, directory, extra)
    main.metrics_port = port
    try:
        worker = Worker(python, directory)
        try:
            yield main, worker
        finally:
            worker.stop()
    finally:
        main.stop()


def register_by_token(server: Homeserver, name: str) -> tuple[int, dict[str, Any]]:
    path, body = "/_matrix/client/v3/register", {"username": name, "password": "correct horse battery"}
    status, answer = server.request("POST", path, body)
    session = answer["session"]
    for stage in ({"type": "m.login.registration_token", "token": "token"}, {"type": "m.login.dummy"}):
        status, answer = server.request("POST", path, {**body, "auth": {**stage, "session": session}})
        if status != 401:
            break
    return status, answer


def test_the_promise_is_kept_on_every_process(processes: tuple[OptInServer, Worker], request: Any) -> None:
    main, worker = processes
    background = main if request.node.callspec.params["processes"] == "main" else worker
    suffix = request.node.callspec.params["processes"]
    eventually(background.follows, "one process follows")
    assert not (worker if background is main else main).follows()

    # Registration, on the worker: before the proof, and after it.
    boss = Person(main, f"@boss-{suffix}:{DOMAIN}", main.register(f"@boss-{suffix}:{DOMAIN}", admin=True))
    main.request("POST", "/_synapse/admin/v1/registration_tokens/new", {"token": "token"}, boss.token)
    main.attestation.unlink()
    assert register_by_token(worker, f"ann-{suffix}")[0] == 429
    assert worker.counts()["refusals registration"] == 1
    assert f"Refused: the registration of 'ann-{suffix}': there is no attestation" in worker.log
    main.attestation.write_text(main.proof.to_json())
    status, answer = register_by_token(worker, f"ann-{suffix}")
    assert status == 200, answer
    ann = Person(worker, answer["user_id"], answer["access_token"])
    bob = main.person(f"bob-{suffix}")
    eventually(lambda: (ann.recovery(), bob.recovery()) == (NOT_ASKED, NOT_ASKED), "nobody is asked")

    # Rooms, on the worker.
    room = ann.make({"initial_state": [ENCRYPTION], "invite": [bob.user_id]})
    assert not ann.encrypts(room)
    assert worker.counts()["rooms_started_plain"] == 1
    assert main.counts()["rooms_started_plain"] == 0
    bob.join(room)
    chosen = bob.make({})
    assert not bob.encrypts(chosen)
    assert (ann.recovery(), bob.recovery()) == (NOT_ASKED, NOT_ASKED)

    # A later choice, on the worker, is seen by the process that follows.
    later = background.counts()["opt_ins later"]
    assert ann.turn_on(room) == 200
    eventually(lambda: (ann.recovery(), bob.recovery()) == (ASKED, ASKED), "both are asked")
    eventually(lambda: background.counts()["opt_ins later"] == later + 1, "the opt-in is counted")

    # The mark of the cooperative's own Element Web, and a preference that was written elsewhere.
    assert ann.encrypts(ann.make({"initial_state": [ENCRYPTION]}, OWN))
    on_main = Person(main, ann.user_id, ann.token)
    assert not ann.encrypts(ann.make({}))
    on_main.put_data(PREFERENCE, {"enabled": True})
    eventually(lambda: ann.encrypts(ann.make({})), "the worker knows the preference")
    # Nothing of that, made encrypted from the start, is a later choice.
    assert background.counts()["opt_ins later"] == later + 1
    for process in processes:
        assert "Traceback" not in process.log
        assert "Cannot follow" not in process.log
        assert "Not running looping call" not in process.log
