# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The hub's rooms: who has one, under which alias, for ever, and who can take part."""

from __future__ import annotations

import doctest
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.cae.matrix.plugins.filter.federation_rooms import federation_rooms as as_filter
from ansible_collections.cae.matrix.plugins.module_utils.federation import hub_rooms as module
from ansible_collections.cae.matrix.plugins.module_utils.federation.hub_rooms import (
    RoomsError,
    federation_rooms,
    servers,
)
from ansible_collections.cae.matrix.plugins.module_utils.federation.members import read_file
from ansible_collections.cae.matrix.plugins.modules.matrix_room import SPEC
from ansible_collections.cae.matrix.tests.patience import cpu_at_most
from hypothesis import given, settings
from hypothesis import strategies as some

HUB = "federation.example"
EXAMPLE = Path(__file__).parents[2] / "inventories/example_federation_hub"


def member(domain: str, name: str | None = None, profile: str = "open") -> dict[str, Any]:
    return {"name": name or domain, "domain": domain, "hostname": f"matrix.{domain}", "profile": profile}


def listed(*members: dict[str, Any]) -> dict[str, Any]:
    return {"name": "Fédération des CAE", "hub": HUB, "members": [member(HUB, "Le pivot"), *members]}


def room(found: dict[str, Any], alias: str) -> dict[str, Any]:
    (one,) = [room for room in found["rooms"] if room["alias"] == alias]
    return dict(one)


def test_doctests() -> None:
    assert doctest.testmod(module, raise_on_error=True).attempted >= 2


def test_a_space_the_themes_and_a_room_for_each_member() -> None:
    themes = [{"alias": "annonces", "name": "Annonces", "topic": "Ce qui vaut pour tous", "write": "moderators"}]
    found = federation_rooms(
        listed(member("atelier.example", "Atelier"), member("fabrique.test", "La Fabrique")), themes=themes
    )
    allowed = {"allow": ["atelier.example", "fabrique.test", HUB]}
    assert [one["alias"] for one in found["rooms"]] == ["federation", "annonces", "atelier", "fabrique"]
    assert room(found, "federation") == {
        "alias": "federation",
        "kind": "space",
        "name": "Fédération des CAE",
        "topic": "Les salons de la fédération : un par thème, et un par membre.",
        "join": "public",
        "write": "administrators",
        "servers": allowed,
    }
    assert room(found, "annonces") == {
        "alias": "annonces",
        "name": "Annonces",
        "topic": "Ce qui vaut pour tous",
        "join": "public",
        "parents": ["federation"],
        "write": "moderators",
        "servers": allowed,
    }
    assert room(found, "atelier")["name"] == "Atelier"
    assert room(found, "atelier")["topic"].startswith("Atelier (atelier.example) : son salon")
    assert room(found, "atelier")["parents"] == ["federation"]


def test_the_inventory_wins_over_what_is_said_by_default() -> None:
    found = federation_rooms(
        listed(member("a.example")),
        space={"alias": "cae", "name": "CAE"},
        themes=[{"alias": "bureau", "name": "Bureau", "join": "invite"}, {"alias": "vieux", "state": "absent"}],
        language="en",
    )
    assert room(found, "cae")["name"] == "CAE"
    assert room(found, "bureau")["join"] == "invite"
    assert room(found, "bureau")["parents"] == ["cae"]
    assert room(found, "vieux") == {"alias": "vieux", "state": "absent"}
    assert room(found, "a")["topic"] == "a.example (a.example): its room, open to all members of the federation."


def test_who_leaves_loses_its_room_and_its_place() -> None:
    before = federation_rooms(listed(member("a.example"), member("b.example")))
    after = federation_rooms(listed(member("a.example")), before["record"])
    assert room(after, "b") == {"alias": "b", "state": "absent"}
    assert room(after, "a")["servers"] == {"allow": ["a.example", HUB]}
    # Still known on the run after that, and back under the same alias.
    again = federation_rooms(listed(member("a.example"), member("b.example")), after["record"])
    assert again == before


def test_a_member_that_is_for_itself_has_no_room_and_no_place() -> None:
    before = federation_rooms(listed(member("a.example"), member("b.example")))
    after = federation_rooms(listed(member("a.example"), member("b.example", profile="internal")), before["record"])
    assert room(after, "b")["state"] == "absent"
    assert servers(listed(member("b.example", profile="internal"))) == [HUB]


def test_an_alias_once_given_stays() -> None:
    first = federation_rooms(listed(member("atelier.example")))
    # The newcomer stands before it in the list, and would have had the short alias.
    found = federation_rooms(listed(member("atelier.coop"), member("atelier.example")), first["record"])
    assert found["record"]["members"] == {"atelier.coop": "atelier-coop", "atelier.example": "atelier"}


def test_aliases_that_are_taken_are_passed_over() -> None:
    found = federation_rooms(
        listed(
            member("federation.coop"),
            member("aide.example"),
            member("bar.example"),
            member("bar-a.b"),
            member("bar.a.b"),
        ),
        themes=[{"alias": "aide", "name": "Aide"}],
        declared=[{"alias": "bar", "name": "Bar"}, {"alias": "bar-a-b", "name": "Autre"}],
    )
    assert found["record"]["members"] == {
        "federation.coop": "federation-coop",
        "aide.example": "aide-example",
        "bar.example": "bar-example",
        "bar-a.b": "bar-a",
        "bar.a.b": "bar-a-b-2",
    }


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"themes": [{"alias": "x", "name": "X"}] * 2}, '"x" is the alias of federation_rooms and of federation_rooms'),
        (
            {"themes": [{"alias": "federation", "name": "X"}]},
            "federation_space and of federation_rooms; give federation_rooms",
        ),
        (
            {"themes": [{"alias": "a", "name": "X"}], "record": {"members": {"a.example": "a"}}},
            '"a" is the alias of federation_rooms and of the room of a.example; give federation_rooms another',
        ),
        (
            {"declared": [{"alias": "federation"}]},
            "federation_space and of rooms_declared; give rooms_declared another",
        ),
    ],
)
def test_two_things_with_one_alias_are_refused(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(RoomsError, match=named):
        federation_rooms(listed(member("a.example")), **arguments)
    with pytest.raises(AnsibleFilterError, match="federation_rooms: "):
        as_filter(listed(member("a.example")), **arguments)


NAMES = some.lists(some.sampled_from(["a.example", "b.example", "a.b.example", "a-b.example", "b.a"]), unique=True)


@settings(deadline=None)
@given(some.lists(NAMES, max_size=6))
def test_whatever_the_history_no_two_members_share_a_room_and_nobody_changes_it(history: list[list[str]]) -> None:
    record: dict[str, Any] = {}
    known: dict[str, str] = {}
    for domains in history:
        found = federation_rooms(listed(*(member(domain) for domain in domains)), json.loads(json.dumps(record)))
        record = found["record"]
        aliases = record["members"]
        assert len(set(aliases.values())) == len(aliases)
        assert {domain: aliases[domain] for domain in known} == known
        known = aliases
        closed = {one["alias"] for one in found["rooms"] if one.get("state") == "absent"}
        assert closed == {alias for domain, alias in aliases.items() if domain not in domains}


def test_the_module_takes_what_it_is_given() -> None:
    known = SPEC["rooms"]["options"]
    assert isinstance(known, dict)
    before = federation_rooms(listed(member("a.example"), member("b.example")))
    for one in federation_rooms(listed(member("a.example")), before["record"])["rooms"]:
        assert set(one) <= set(known)
        for key, value in one.items():
            assert value in known[key].get("choices", [value])


def test_five_hundred_members_take_no_time() -> None:
    members = listed(*(member(f"coop{number}.example") for number in range(500)))
    with cpu_at_most(2):
        assert len(federation_rooms(members)["rooms"]) == 501


def test_the_example_is_a_good_one() -> None:
    members, notes = read_file(str(EXAMPLE / "federation_members.yml"))
    assert notes == []
    said = yaml.safe_load((EXAMPLE / "host_vars/hub/main.yml").read_text())
    assert members["hub"] == said["matrix_domain"]
    assert str(members["members"][0]["logo"]).startswith("data:image/svg+xml;base64,")
    found = federation_rooms(members, space=said["federation_space"], themes=said["federation_rooms"])
    assert [one["alias"] for one in found["rooms"]] == [
        "federation", "annonces", "entraide", "gestion", "atelier", "fabrique"
    ]  # fmt: skip
