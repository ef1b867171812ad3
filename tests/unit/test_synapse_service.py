# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What our module gives a service that Synapse has no option for: room for those who come at once, signs of life."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cae.matrix.tests.patience import START, at_most, patient
from ansible_collections.cae.matrix.tests.unit.homeserver import Homeserver

MODULE = "cae_matrix_service.Service"
AT_ONCE = 300
ASKS = b"GET /_matrix/client/versions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def service(**config: Any) -> dict[str, Any]:
    return {"module": MODULE, "config": config}


@contextlib.contextmanager
def running(python: str, directory: Path, *modules: dict[str, Any], **environment: str) -> Iterator[Homeserver]:
    server = Homeserver(python, directory, {"modules": list(modules)}, environment=environment)
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def waiting(server: Homeserver, path: Path) -> Iterator[list[socket.socket]]:
    """Those of many who are let into the queue of a Synapse that is too busy to answer anybody."""
    with contextlib.ExitStack() as stack:
        os.kill(server.pid, signal.SIGSTOP)
        stack.callback(os.kill, server.pid, signal.SIGCONT)
        let_in = []
        for _ in range(AT_ONCE):
            one = stack.enter_context(socket.socket(socket.AF_UNIX))
            one.setblocking(False)
            # What nginx gets as well: there is no other answer at a Unix socket whose queue is full.
            if one.connect_ex(str(path)) != errno.EAGAIN:
                let_in.append(one)
        yield let_in


def test_everybody_who_comes_at_once_is_answered(python: str, tmp_path: Path) -> None:
    with running(python, tmp_path, service()) as server, waiting(server, tmp_path / "s") as people:
        assert len(people) == AT_ONCE
        os.kill(server.pid, signal.SIGCONT)
        for one in people:
            one.settimeout(patient(START))
            one.sendall(ASKS)
        assert {one.recv(15) for one in people} == {b"HTTP/1.1 200 OK"}
        assert "takes no backlog" not in server.log


def test_without_it_most_are_turned_away(python: str, tmp_path: Path) -> None:
    """As Synapse is shipped; when this fails, the module may have become superfluous."""
    with running(python, tmp_path) as server, waiting(server, tmp_path / "s") as people:
        assert len(people) < AT_ONCE / 2


def test_a_synapse_that_listens_otherwise_is_left_alone(python: str, tmp_path: Path) -> None:
    other = {"module": "synapse_probe.OtherListeners", "config": {}}
    with running(python, tmp_path, other, service()) as server, waiting(server, tmp_path / "s") as people:
        assert len(people) < 20
        said = [line for line in server.log.splitlines() if "takes no backlog as expected" in line]
        assert len(said) == 2
        assert "_base.listen_unix of" in said[0]
        assert "_base.listen_ssl of" in said[1]


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    """What hears signs of life, as systemd does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(tmp_path / "notify"))
        ear.settimeout(patient(START))
        yield ear


def test_systemd_hears_of_it_for_as_long_as_it_lives(python: str, tmp_path: Path, systemd: socket.socket) -> None:
    with running(python, tmp_path, service(watchdog_seconds=2), NOTIFY_SOCKET=str(tmp_path / "notify")) as server:
        sign = b"WATCHDOG=1\nWATCHDOG_USEC=2000000"
        while systemd.recv(1000) != sign:
            pass
        with at_most(2, "the next sign of life"):
            assert systemd.recv(1000) == sign
        assert "Traceback" not in server.log


@pytest.mark.parametrize(
    ("config", "environment"),
    [({}, True), ({"watchdog_seconds": 0}, True), ({"watchdog_seconds": 1}, False)],
    ids=["not asked for", "off", "not under systemd"],
)
def test_nobody_is_told_otherwise(
    python: str, tmp_path: Path, systemd: socket.socket, config: dict[str, Any], environment: bool
) -> None:
    told = {"NOTIFY_SOCKET": str(tmp_path / "notify")} if environment else {}
    with running(python, tmp_path, service(**config), **told) as server:
        assert server.request("GET", "/health", parse=False)[0] == 200
        assert "cae_matrix_service_watchdog" not in server.log
        systemd.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                assert b"WATCHDOG" not in systemd.recv(1000)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"backlog": 9}, "this module takes watchdog_seconds"),
        ({"watchdog_seconds": -1}, "must be a whole number of seconds"),
        ({"watchdog_seconds": "60s"}, "must be a whole number of seconds"),
        ({"watchdog_seconds": True}, "must be a whole number of seconds"),
    ],
)
def test_a_wrong_configuration_is_named(python: str, tmp_path: Path, config: dict[str, Any], words: str) -> None:
    with pytest.raises(AssertionError) as death:
        Homeserver(python, tmp_path, {"modules": [service(**config)]}).stop()
    assert words in str(death.value)


class Sender:
    """Somebody who sends files, each of the same size."""

    def __init__(self, server: Homeserver, directory: Path) -> None:
        self._socket, self._token = directory / "s", server.register("@sender:coop.example")

    def sends(self, size: int) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        with contextlib.closing(connection):
            connection.sock.settimeout(patient(START))
            connection.sock.connect(str(self._socket))
            headers = {"Authorization": f"Bearer {self._token}", "X-Forwarded-For": "127.0.0.1"}
            connection.request("POST", "/_matrix/media/v3/upload", b"x" * size, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())


def stored(directory: Path) -> int:
    return sum(path.stat().st_size for path in (directory / "media").rglob("*") if path.is_file())


SIZE = 100_000
LIMITS = [{"time_period": "1d", "max_size": 3 * SIZE}, {"time_period": "1w", "max_size": 4 * SIZE}]


def limited(*modules: dict[str, Any]) -> dict[str, Any]:
    return {
        "modules": list(modules),
        "public_baseurl": "https://matrix.coop.example/",
        "media_upload_limits": LIMITS,
        "enable_media_repo": True,
    }


def test_who_has_sent_enough_leaves_nothing_more_on_the_disk(python: str, tmp_path: Path) -> None:
    server = Homeserver(python, tmp_path, limited(service()))
    try:
        sender = Sender(server, tmp_path)
        assert [sender.sends(SIZE)[0] for _ in range(3)] == [200] * 3
        for _ in range(3):
            status, answer = sender.sends(SIZE)
            assert (status, answer["errcode"]) == (403, "M_USER_LIMIT_EXCEEDED")
            assert "réessayez plus tard" in answer["error"]
            assert answer["info_uri"] == "https://matrix.coop.example/_synapse/client/media_upload_limit_exceeded"
        assert stored(tmp_path) == 3 * SIZE
        assert "Refused: a file of 100000 bytes of @sender:coop.example" in server.log
        assert "Traceback" not in server.log
    finally:
        server.stop()


def test_without_it_refused_files_stay_on_the_disk(python: str, tmp_path: Path) -> None:
    """As Synapse is shipped; when this fails, the module may have become superfluous."""
    server = Homeserver(python, tmp_path, limited())
    try:
        sender = Sender(server, tmp_path)
        assert [sender.sends(SIZE)[0] for _ in range(5)] == [200] * 3 + [403] * 2
        assert stored(tmp_path) == 5 * SIZE
    finally:
        server.stop()
