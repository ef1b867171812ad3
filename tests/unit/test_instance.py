# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The shared variables of an instance: each bad value gets an error that names the variable."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.cae.matrix.plugins.filter.instance_problems import instance_problems
from ansible_collections.cae.matrix.plugins.module_utils.instance import Neighbour, problems, slug
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
    other = {"host": "fabrique", "machine": "192.0.2.7", "instance": "fabrique", "domain": "fabrique.test"} | changes
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
