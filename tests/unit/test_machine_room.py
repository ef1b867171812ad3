# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Room for everybody at once on a machine: what is ours to change, and what is told to who looks."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from ansible_collections.cae.matrix.plugins.module_utils.host import machine_room
from ansible_collections.cae.matrix.plugins.module_utils.host.machine_room import FLOOR, Nginx

SHIPPED = """\
user www-data;
worker_processes auto;
pid /run/nginx.pid;
include /etc/nginx/modules-enabled/*.conf;

events {
	worker_connections 768;
	# multi_accept on;
}

http {
	include /etc/nginx/sites-enabled/*;
}
"""
MANY = 3000


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine with nginx as Debian has installed it."""
    put(tmp_path, SHIPPED)
    install(tmp_path, SHIPPED)
    return tmp_path


def put(machine: Path, text: str) -> None:
    path = machine / "etc/nginx/nginx.conf"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def install(machine: Path, text: str) -> None:
    """What dpkg knows of the package."""
    for name in ("info", "updates"):
        (machine / "var/lib/dpkg" / name).mkdir(parents=True, exist_ok=True)
    (machine / "var/lib/dpkg/status").write_text(
        "Package: nginx-common\nStatus: install ok installed\nMaintainer: x <x@x.test>\nArchitecture: all\nVersion: 1\n"
        f"Description: x\nConffiles:\n /etc/default/nginx {'0' * 32}\n"
        f" /etc/nginx/nginx.conf {hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()}\n"
    )


def look(machine: Path, people: int = 300) -> Nginx:
    found = machine_room.nginx(people, machine)
    assert found is not None
    return found


def test_the_file_that_debian_ships_gets_room_once(machine: Path) -> None:
    found = look(machine)
    assert (found.enough, found.problem, found.connections) == (False, "", 768)
    changed = [line for line in found.content.splitlines() if line not in SHIPPED.splitlines()]
    assert changed == [
        "worker_rlimit_nofile 16384; # cae.matrix",
        "\tworker_connections 4096; # cae.matrix, before: 768",
    ]
    assert found.replaces == hashlib.sha256(SHIPPED.encode()).hexdigest()
    put(machine, found.content)
    assert look(machine).enough
    assert look(machine).content == ""


def test_it_grows_with_the_people_and_never_shrinks(machine: Path) -> None:
    put(machine, look(machine).content)
    more = look(machine, MANY)
    assert not more.enough
    assert f"worker_connections {more.needed_connections}; # cae.matrix, before: 768" in more.content
    assert more.content.count("worker_rlimit_nofile") == 1
    assert machine_room.shipped(more.content) == SHIPPED
    put(machine, more.content)
    assert look(machine, 20).enough


@pytest.mark.parametrize(
    "text",
    [
        SHIPPED.replace("auto", "8"),
        SHIPPED.replace("768", "1024"),
        SHIPPED + "# ours\n",
        SHIPPED.replace("\tworker_connections 768;\n", ""),
        "include /srv/nginx.conf;\n",
    ],
)
def test_what_somebody_else_has_written_is_left_alone_and_told(machine: Path, text: str) -> None:
    put(machine, text)
    found = look(machine)
    assert found.content == ""
    for part in ("matrix_people", "`worker_rlimit_nofile 16384;`", "`worker_connections 4096;`", "reload nginx"):
        assert part in found.problem


def test_what_is_done_to_ours_afterwards_is_left_alone_as_well(machine: Path) -> None:
    mine = look(machine).content.replace("auto", "8")
    put(machine, mine)
    assert look(machine).problem == ""
    assert look(machine, MANY).content == ""
    assert "matrix_people" in look(machine, MANY).problem


def test_somebody_elses_with_enough_is_nobodys_problem(machine: Path) -> None:
    put(machine, SHIPPED.replace("768", "8192").replace("user", "worker_rlimit_nofile 20000;\nuser"))
    assert look(machine) == Nginx(8192, 20000, FLOOR, 4 * FLOOR)


def test_open_files_may_come_from_the_unit(machine: Path) -> None:
    put(machine, SHIPPED.replace("768", "8192"))
    assert look(machine).problem
    (machine / "run").mkdir()
    (machine / "run/nginx.pid").write_text("7\n")
    (machine / "proc/7").mkdir(parents=True)
    (machine / "proc/7/limits").write_text(
        "Limit  Soft Limit  Hard Limit  Units\nMax open files  65536  524288  files\n"
    )
    assert look(machine).problem == ""


def started_with(machine: Path, files: int, *, able: bool = False) -> None:
    """A machine, often a container, that can have so many open files; one that is able takes what the kernel has."""
    (machine / "proc/1").mkdir(parents=True, exist_ok=True)
    (machine / "proc/1/limits").write_text(
        f"Limit  Soft Limit  Hard Limit  Units\nMax open files  1024  {files}  files\n"
    )
    (machine / "proc/1/status").write_text(
        f"Name:\tsystemd\nCapBnd:\t{'000001ffffffffff' if able else '00000000a82435fb'}\n"
    )
    (machine / "proc/sys/fs").mkdir(parents=True, exist_ok=True)
    (machine / "proc/sys/fs/nr_open").write_text("1048576\n")


def test_nothing_is_asked_for_that_a_container_cannot_have(machine: Path) -> None:
    """nginx would get nothing of it: with 20,000 in all and 24,576 asked for, it went on with 1,024."""
    started_with(machine, 20000)
    found = look(machine, 1200)
    assert "worker_rlimit_nofile 20000; # cae.matrix" in found.content
    assert found.problem == ""
    put(machine, found.content)
    assert look(machine, 1200).enough
    # What an earlier version has written there.
    put(machine, found.content.replace("20000", "24576"))
    assert look(machine, 1200).content == found.content


def test_a_machine_that_can_have_fewer_than_everybody_is_told(machine: Path) -> None:
    started_with(machine, 4000)
    found = look(machine, 1200)
    assert "can have 4000 files open at most, and nginx's need 6144" in found.problem
    assert "lxc.prlimit.nofile" in found.problem
    put(machine, found.content)
    again = look(machine, 1200)
    assert (again.content, again.enough) == ("", False)
    assert again.problem == found.problem


def test_a_machine_of_its_own_is_bound_by_the_kernel_alone(machine: Path) -> None:
    started_with(machine, 1024, able=True)
    assert "worker_rlimit_nofile 24576; # cae.matrix" in look(machine, 1200).content
    assert machine_room.most_files(machine) == 1048576


def test_an_upgrade_that_kept_ours_is_not_touched_again(machine: Path) -> None:
    put(machine, look(machine).content)
    install(machine, SHIPPED + "# of the next release\n")
    assert look(machine) == Nginx(FLOOR, 4 * FLOOR, FLOOR, 4 * FLOOR)
    assert look(machine, MANY).content == ""


def test_no_nginx_needs_nothing(tmp_path: Path) -> None:
    assert machine_room.nginx(300, tmp_path) is None


@pytest.mark.parametrize(("people", "connections"), [(1, 4096), (300, 4096), (819, 4096), (820, 5120), (1200, 6144)])
def test_connections_follow_the_people(people: int, connections: int) -> None:
    assert machine_room.connections(people) == connections


def test_everybody_on_the_machine_counts(tmp_path: Path) -> None:
    for slug, text in {"a": '{"people": 20}', "b": "{}", "c": "nonsense", "d": '{"people": "40"}'}.items():
        (tmp_path / "etc/matrix" / slug).mkdir(parents=True)
        (tmp_path / "etc/matrix" / slug / "instance.json").write_text(text)
    markers = machine_room.markers(tmp_path)
    # Who says nothing that can be read is as large as anybody.
    assert machine_room.people(markers) == 20 + 3 * 300
    # As declared now, whatever was declared before, or for the first time.
    assert machine_room.people(markers, "a", 50) == 50 + 3 * 300
    assert machine_room.people(markers, "e", 50) == 70 + 3 * 300
    assert json.loads((tmp_path / "etc/matrix/a/instance.json").read_text()) == {"people": 20}


def test_disks_are_named_once(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    (disk,) = machine_room.disks((str(tmp_path), str(tmp_path / "media"), str(tmp_path / "nowhere")))
    assert disk.path == str(tmp_path)
    assert 0 < disk.free <= disk.size
    assert disk.free_percent == 100 * disk.free // disk.size
    assert 0 <= disk.free_inodes_percent <= 100


def test_the_queue_is_the_kernels(tmp_path: Path) -> None:
    assert machine_room.queue(tmp_path) == machine_room.QUEUE
    (tmp_path / "proc/sys/net/core").mkdir(parents=True)
    (tmp_path / "proc/sys/net/core/somaxconn").write_text("128\n")
    assert machine_room.queue(tmp_path) == 128
