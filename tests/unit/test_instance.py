# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The shared variables of an instance: each bad value gets an error that names the variable."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.cae.matrix.plugins.filter.instance_problems import instance_problems
from ansible_collections.cae.matrix.plugins.module_utils.instance.names import Neighbour, problems, slug
from hypothesis import given
from hypothesis import strategies as st


def instance(**changes: Any) -> dict[str, Any]:
    return {
        "host": "atelier",
        "machine": "192.0.2.7",
        "matrix_instance": "atelier",
        "matrix_domain": "atelier.test",
        "matrix_hostname": "matrix.atelier.test",
        "element_hostname": "chat.atelier.test",
    } | changes


def test_a_good_instance_has_no_problem() -> None:
    assert problems(instance()) == []


@pytest.mark.parametrize(
    ("changes", "variable", "mend"),
    [
        ({"matrix_domain": "https://atelier.test"}, "matrix_domain", "atelier.test"),
        ({"matrix_domain": "atelier.test:8448"}, "matrix_domain", "port"),
        ({"matrix_domain": "Atelier.test"}, "matrix_domain", "atelier.test"),
        ({"matrix_domain": "atelier.test."}, "matrix_domain", "ends in a dot"),
        ({"matrix_domain": "atelier.test/chat"}, "matrix_domain", "path"),
        ({"matrix_domain": "192.0.2.7"}, "matrix_domain", "address"),
        ({"matrix_domain": "coopérative.example"}, "matrix_domain", "write xn--cooprative-e7a.example"),
        ({"matrix_hostname": "Matrix.Épicerie.test"}, "matrix_hostname", "write matrix.xn--picerie-9xa.test"),
        ({"matrix_domain": "a..é"}, "matrix_domain", "letters a-z"),
        ({"matrix_domain": "localhost"}, "matrix_domain", "no domain name"),
        ({"matrix_domain": "ate lier.test"}, "matrix_domain", "no domain name"),
        ({"matrix_domain": "-a.test"}, "matrix_domain", "no domain name"),
        ({"matrix_domain": "atelier.test\n"}, "matrix_domain", "no domain name"),
        ({"matrix_domain": None}, "matrix_domain", "needed"),
        ({"matrix_hostname": "Matrix.atelier.test"}, "matrix_hostname", "capitals"),
        ({"element_hostname": "chat.atelier.test:443"}, "element_hostname", "port"),
        ({"element_hostname": "matrix.atelier.test"}, "element_hostname", "name of its own"),
        ({"matrix_instance": "Atelier"}, "matrix_instance", "no slug"),
        ({"matrix_instance": "9e"}, "matrix_instance", "no slug"),
        ({"matrix_instance": "a" * 21}, "matrix_instance", "no slug"),
        ({"matrix_instance": "a_b"}, "matrix_instance", "no slug"),
        ({"matrix_instance": "atelier\n"}, "matrix_instance", "no slug"),
        ({"matrix_profile": "closed"}, "matrix_profile", "open, federation, internal"),
        ({"matrix_state": "removed"}, "matrix_state", "present or absent"),
        ({"matrix_language": "de"}, "matrix_language", "fr, en"),
        ({"matrix_max_upload_size": "50 MB"}, "matrix_max_upload_size", "50M"),
        ({"matrix_max_upload_size": 50}, "matrix_max_upload_size", "50M"),
        ({"matrix_people": 0}, "matrix_people", "such as 300"),
        ({"matrix_people": "many"}, "matrix_people", "such as 300"),
        ({"matrix_people": 2.5}, "matrix_people", "such as 300"),
        ({"matrix_people": True}, "matrix_people", "such as 300"),
        ({"matrix_resolve": {"matrix.atelier.test": "nowhere"}}, "matrix_resolve", "no IP address"),
        ({"matrix_resolve": ["192.0.2.7"]}, "matrix_resolve", "dict"),
    ],
)
def test_a_bad_value_is_named_with_its_mend(changes: dict[str, Any], variable: str, mend: str) -> None:
    found = problems(instance(**changes))
    assert len(found) == 1
    assert found[0].startswith(f"{variable}: ")
    assert mend in found[0]


def test_names_derived_from_a_bad_domain_are_not_blamed_again() -> None:
    (found,) = problems(
        instance(matrix_domain="A.test", matrix_hostname="matrix.A.test", element_hostname="chat.A.test")
    )
    assert found.startswith("matrix_domain: ")


def test_every_problem_comes_at_once() -> None:
    found = problems(instance(matrix_domain="A.test", matrix_instance="9", matrix_profile="x"))
    assert [text.split(":")[0] for text in found] == ["matrix_instance", "matrix_domain", "matrix_profile"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"instance": "atelier"}, ["matrix_instance"]),
        ({"domain": "atelier.test"}, ["matrix_domain"]),
        ({"instance": "atelier", "domain": "atelier.test"}, ["matrix_instance", "matrix_domain"]),
        ({"instance": "atelier", "machine": "192.0.2.8"}, []),
        ({"host": "atelier", "instance": "atelier", "domain": "atelier.test"}, []),
        ({}, []),
    ],
)
def test_neighbours_on_one_machine_do_not_share_a_name(changes: dict[str, str], expected: list[str]) -> None:
    other: dict[str, Any] = {"host": "fabrique", "machine": "192.0.2.7", "instance": "fabrique"}
    other |= {"domain": "fabrique.test"} | changes
    found = problems(instance(), [Neighbour(**other)])
    assert [text.split(":")[0] for text in found] == expected


def test_the_filter_reads_neighbours_from_hostvars() -> None:
    hostvars = {
        "atelier": {"matrix_domain": "atelier.test", "ansible_host": "192.0.2.7"},
        "Atelier.two": {"matrix_domain": "two.test", "ansible_host": "192.0.2.7"},
        "printer": {"ansible_host": "192.0.2.7"},
    }
    (found,) = instance_problems(instance(), hostvars, list(hostvars))
    assert "matrix_instance" in found
    assert "Atelier.two" in found


@pytest.mark.parametrize(
    "way",
    [
        {"ansible_port": 2222},
        {"ansible_ssh_common_args": "-J jump-b.example"},
        {"ansible_connection": "community.docker.docker"},
    ],
)
def test_one_address_reached_in_two_ways_is_two_machines(way: dict[str, Any]) -> None:
    """Behind jump hosts and forwarded ports; if it is one all the same, the owner's marker on it says so."""
    same = {"ansible_host": "192.0.2.7", "matrix_instance": "atelier"}
    hostvars: dict[str, dict[str, Any]] = {
        "atelier": {**same, "matrix_domain": "atelier.test", "ansible_port": 22},
        "other": {**same, "matrix_domain": "other.test"},
    }
    assert len(instance_problems(instance(), hostvars, list(hostvars))) == 1
    hostvars["other"] |= way
    assert instance_problems(instance(), hostvars, list(hostvars)) == []


@pytest.mark.parametrize(
    ("mine", "theirs", "expected"),
    [
        # Another's domain is the name of one's Element, and the other way round.
        ({}, {"matrix_domain": "chat.atelier.test"}, ["element_hostname"]),
        ({"matrix_domain": "chat.fabrique.test"}, {}, ["matrix_domain"]),
        ({}, {"matrix_domain": "matrix.atelier.test"}, ["matrix_hostname"]),
        ({}, {"matrix_hostname": "matrix.atelier.test"}, ["matrix_hostname"]),
        ({}, {"element_hostname": "chat.atelier.test"}, ["element_hostname"]),
        ({}, {"element_hostname": "atelier.test"}, ["matrix_domain"]),
        # What is not served is in nobody's way.
        ({"matrix_element_enabled": False}, {"matrix_domain": "chat.atelier.test"}, []),
        ({"reverse_proxy_well_known": "elsewhere"}, {"element_hostname": "atelier.test"}, []),
        ({}, {"matrix_domain": "chat.atelier.test", "reverse_proxy_well_known": "elsewhere"}, []),
        ({}, {"element_hostname": "chat.atelier.test", "matrix_element_enabled": "false"}, []),
        ({}, {"element_hostname": "chat.atelier.test", "matrix_state": "absent"}, []),
        ({}, {"element_hostname": "chat.atelier.test", "ansible_host": "192.0.2.8"}, []),
    ],
)
def test_no_name_is_served_for_two(mine: dict[str, Any], theirs: dict[str, Any], expected: list[str]) -> None:
    other = {"matrix_domain": "fabrique.test", "ansible_host": "192.0.2.7"} | theirs
    hosts = {"atelier": {"ansible_host": "192.0.2.7"}, "fabrique": other}
    found = instance_problems(instance(**mine), hosts, ["fabrique"])
    assert [text.split(":")[0] for text in found] == expected
    assert all("also served for inventory host fabrique" in text for text in found)


@given(st.text(alphabet="abcxyzABC019_-.", min_size=1))
def test_a_slug_is_one_small_label(name: str) -> None:
    made = slug(name)
    assert made == made.lower()
    assert "." not in made
    assert "_" not in made


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_no_value_is_a_traceback(value: Any) -> None:
    for name in ("matrix_domain", "matrix_instance", "matrix_resolve", "matrix_profile", "matrix_max_upload_size"):
        assert isinstance(problems(instance(**{name: value})), list)
