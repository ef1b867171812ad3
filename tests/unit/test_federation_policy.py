# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whom a server federates with: what follows from the variables, and every contradiction with its mend."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.cae.matrix.plugins.filter.federation_policy import federation_policy
from ansible_collections.cae.matrix.plugins.module_utils.federation.policy import Contradictions, policy
from ansible_collections.cae.matrix.plugins.module_utils.matrix.server_names import matches, server_name_problem
from ansible_collections.cae.matrix.tests.patience import cpu_at_most
from hypothesis import given
from hypothesis import strategies as st

HUB, OURS, OTHER, ALONE = "federation.example", "atelier.example", "fabrique.example", "interne.example"


def member(domain: str, profile: str = "open") -> dict[str, str]:
    return {"name": domain, "domain": domain, "hostname": f"matrix.{domain}", "profile": profile}


def members(*more: dict[str, str], hub: str = HUB) -> dict[str, Any]:
    listed = [member(HUB), member(OURS), member(OTHER, "federation"), member(ALONE, "internal"), *more]
    return {"schema": "cae.matrix/members/1", "name": "Fédération", "hub": hub, "members": listed}


def test_open_is_everybody_but_who_is_denied() -> None:
    made = policy("open", members(), OURS, denied=["evil.example", "*.bad.example", "evil.example"])
    assert made == {
        "profile": "open",
        "federates": True,
        "allowed": None,
        "denied": ["*.bad.example", "evil.example"],
        "key_servers": ["matrix.org"],
        "hub": HUB,
    }


def test_open_without_anything_needs_nothing() -> None:
    made = policy("open", {}, OURS)
    assert (made["allowed"], made["denied"], made["hub"]) == (None, [], "")


def test_a_denied_key_server_is_not_asked() -> None:
    assert policy("open", {}, OURS, denied=["*.org"])["key_servers"] == []


def test_federation_is_the_members_who_federate_the_hub_and_whom_the_inventory_adds() -> None:
    made = policy("federation", members(), OURS, allowed=["client.example:8448", "client.example"])
    assert made["allowed"] == sorted([HUB, OURS, OTHER, "client.example", "client.example:8448"])
    assert made["key_servers"] == [HUB]
    assert made["federates"] is True


def test_the_hub_asks_nobody_else_for_keys() -> None:
    made = policy("federation", members(), HUB)
    assert made["key_servers"] == []
    assert HUB in made["allowed"]


def test_federation_without_a_list_is_whom_the_inventory_names() -> None:
    made = policy("federation", {}, OURS, hub=HUB, allowed=[OTHER])
    assert made["allowed"] == sorted([OURS, HUB, OTHER])
    assert made["hub"] == HUB


def test_a_server_that_is_no_member_yet_may_talk_to_itself() -> None:
    assert "neu.example" in policy("federation", members(), "neu.example")["allowed"]


def test_internal_is_nobody() -> None:
    made = policy("internal", members(), ALONE)
    assert (made["federates"], made["allowed"], made["key_servers"]) == (False, [], [])


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    # what is set, the variable that is named, words of the mend
    ({"profile": "closed"}, "matrix_profile", "open, federation, internal"),
    ({"profile": "federation", "listed": {}}, "federation_members", "file or address"),
    ({"profile": "federation", "listed": {}, "hub": HUB}, "federation_members", "file or address"),
    ({"profile": "federation", "denied": ["evil.example"]}, "federation_denied_servers", 'matrix_profile to "open"'),
    ({"profile": "internal", "denied": ["evil.example"]}, "federation_denied_servers", "empty it"),
    ({"profile": "open", "allowed": ["x.example"]}, "federation_allowed_servers", 'matrix_profile to "federation"'),
    ({"profile": "internal", "allowed": ["x.example"]}, "federation_allowed_servers", "empty it"),
    ({"denied": [OURS]}, "federation_denied_servers", "this server's own domain; take it out"),
    ({"denied": [HUB]}, "federation_denied_servers", "the federation's hub; take it out"),
    ({"denied": [HUB], "listed": {}, "hub": HUB}, "federation_denied_servers", "the federation's hub"),
    ({"denied": ["fab*"]}, "federation_denied_servers", f"denies {OTHER}, which is a member"),
    ({"denied": ["Evil.example"]}, "federation_denied_servers", "write evil.example"),
    ({"denied": ["https://evil.example/"]}, "federation_denied_servers", "write the name alone, evil.example"),
    ({"denied": "evil.example"}, "federation_denied_servers", "a list of server names is needed"),
    ({"denied": [7]}, "federation_denied_servers", "7 is no server name"),
    ({"denied": ["evil.example/x"]}, "federation_denied_servers", "no server name"),
    ({"denied": ["evil*example\n"]}, "federation_denied_servers", "no server name"),
    ({"profile": "federation", "allowed": ["*.example"]}, "federation_allowed_servers", "no server name"),
    ({"profile": "federation", "allowed": ["@a:x.example"]}, "federation_allowed_servers", "no server name"),
    ({"hub": "other.example"}, "federation_hub", f"not the hub of the list of members, which is {HUB}"),
    ({"hub": "other example", "listed": {}}, "federation_hub", "no server name"),
    ({"profile": "internal", "domain": HUB}, "matrix_profile", "this is the hub"),
    (
        {"listed": {"hub": HUB, "members": [member(HUB, "internal"), member(OURS)]}},
        "federation_members",
        "nobody could reach it",
    ),
]


@pytest.mark.parametrize(("given_", "variable", "mend"), REFUSED, ids=[f"{row[1]}-{row[2]}"[:60] for row in REFUSED])
def test_a_contradiction_names_the_variable_and_the_mend(given_: dict[str, Any], variable: str, mend: str) -> None:
    settings = {"profile": "open", "listed": members(), "domain": OURS} | given_
    with pytest.raises(Contradictions) as refusal:
        policy(
            settings.pop("profile"), settings.pop("listed"), settings.pop("domain"), **settings
        )  # the rest by their names
    (found,) = refusal.value.problems
    assert found.startswith(f"{variable}: ")
    assert mend in found


def test_all_contradictions_come_at_once() -> None:
    with pytest.raises(AnsibleFilterError) as refusal:
        federation_policy("internal", members(), HUB, hub="x.example", denied=[HUB], allowed=["y.example"])
    for variable in ("federation_denied_servers", "federation_allowed_servers", "federation_hub", "matrix_profile"):
        assert f"{variable}: " in str(refusal.value)


@pytest.mark.parametrize(
    ("glob", "name", "meant"),
    [
        ("bad.example", "bad.example", True),
        ("bad.example", "bad.example:8448", True),
        ("bad.example:8448", "bad.example", False),
        ("bad.example:8448", "bad.example:8448", True),
        ("bad.example", "BAD.example", True),
        ("bad.example", "a.bad.example", False),
        ("*.bad.example", "a.bad.example", True),
        ("*.bad.example", "bad.example", False),
        ("*bad.example", "notbad.example", True),
        ("bad?example", "bad.example", True),
        ("bad.example", "badxexample", False),
        ("192.0.2.*", "192.0.2.7:8448", True),
        ("[2001:db8::*]", "[2001:db8::1]:8448", True),
        ("bad.example", "bad.example\n", False),
    ],
)
def test_a_glob_means_what_it_says(glob: str, name: str, meant: bool) -> None:
    assert matches(glob, name) is meant


@pytest.mark.parametrize("name", ["example.coop", "example.coop:8448", "192.0.2.7", "[2001:db8::1]", "localhost", "x"])
def test_what_matrix_takes_for_a_server_name_is_one(name: str) -> None:
    assert server_name_problem(name) is None
    assert matches(name, name)


@given(st.text() | st.none() | st.integers())
def test_no_name_is_a_traceback(name: Any) -> None:
    for glob in (True, False):
        problem = server_name_problem(name, glob)
        assert problem is None or isinstance(problem, str)
    if server_name_problem(name, glob=True) is None:
        matches(name, "example.coop")


def test_five_hundred_members_and_as_many_denied_are_instant() -> None:
    listed = members(*(member(f"c{number}.example") for number in range(500)))
    with cpu_at_most(2):
        policy("open", listed, OURS, denied=[f"*.x{number}.bad" for number in range(500)])
    assert len(policy("federation", listed, OURS)["allowed"]) == 503
