# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the first line of the defence refuses, and that it refuses all of it at once."""

from __future__ import annotations

import collections
import contextlib
import copy
import itertools
from typing import Any

import pytest
from ansible_collections.cae.matrix.plugins.module_utils.encryption.opt_in import (
    Contradictions,
    digest,
    normalise,
    problems,
    synapse_digest,
)
from ansible_collections.cae.matrix.plugins.module_utils.encryption.registration import (
    DENY_LIST,
    OWN_MODULE,
    registration_document,
    without_doors,
)
from ansible_collections.cae.matrix.tests.unit.opt_in_documents import (
    DEPRECATED,
    E2EE,
    HARMLESS,
    LISTED,
    OVERRIDE,
    RELEVANT,
    REMOVED,
    Listed,
    edited,
    valid,
)
from hypothesis import given
from hypothesis import strategies as st

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["off", "false"]),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=12,
)


def places(documents: dict[str, Any]) -> list[tuple[str, ...]]:
    """Every key of the documents, and those that are judged when they are there."""
    found: list[tuple[str, ...]] = []

    def walk(path: tuple[str, ...], value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                found.append((*path, key))
                walk((*path, key), item)

    walk((), documents)
    return found + [path for listed in LISTED for path, _ in listed.edits]


PLACES = sorted(set(places(valid())))


def test_valid_documents_are_returned_with_the_default_spelt_out() -> None:
    result = normalise(valid())
    assert result["synapse"].pop("encryption_enabled_by_default_for_room_type") == "off"
    assert result == valid()


@pytest.mark.parametrize("managed", list(itertools.product([True, False], repeat=3)))
def test_each_document_may_be_managed_elsewhere(managed: tuple[bool, bool, bool]) -> None:
    documents = {name: value if here else None for here, (name, value) in zip(managed, valid().items(), strict=True)}
    assert {name for name, value in normalise(documents).items() if value is None} == {
        name for name, value in documents.items() if value is None
    }
    missing = {name: value for name, value in documents.items() if value is not None}
    assert normalise(missing) == normalise(documents)
    assert digest(missing) == digest(documents)


@pytest.mark.parametrize("listed", LISTED, ids=lambda listed: listed.name)
def test_a_listed_contradiction_is_refused_and_names_variable_and_mend(listed: Listed) -> None:
    with pytest.raises(Contradictions) as refusal:
        normalise(edited(*listed.edits))
    named = [problem for problem in refusal.value.problems if listed.key in problem.key or listed.key in problem.cause]
    assert named, refusal.value
    assert any(listed.variable in f"{problem.variable} {problem.mend}" for problem in named), refusal.value
    assert all(problem.mend and problem.variable in str(refusal.value) for problem in named)


def test_side_doors_name_the_variable_that_opens_registration() -> None:
    for key in ("enable_registration", "allow_guest_access", "matrix_authentication_service"):
        with pytest.raises(Contradictions, match="set encryption_gate_registration"):
            normalise(edited((("synapse", key), True)))


def test_a_secret_is_not_shown() -> None:
    with pytest.raises(Contradictions) as refusal:
        normalise(
            edited((("synapse", "registration_shared_secret"), "hunter2"), (("synapse", "jwt_config"), "hunter2"))
        )
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize("edit", HARMLESS, ids=lambda edit: f"{'.'.join(edit[0])}={edit[1]!r}")
def test_what_is_harmless_is_accepted_and_does_not_close_a_server(edit: Any) -> None:
    assert problems(edited(edit)) == []
    assert digest(edited(edit)) == digest(valid())


@pytest.mark.parametrize(
    "content",
    [
        None,
        {},
        {"events": {}},
        {"events": {"m.room.encryption": 0}},
        {"kick": 0},
        {"events": {"m.room.encryption": 50, "m.room.power_levels": 50}},
        {"events_default": 50},
        {"events_default": 50, "events": {"m.room.message": 50}},
        {"users_default": -10},
        {"notifications": {"room": 0}},
    ],
)
def test_power_levels_under_which_people_can_opt_in_are_accepted(content: Any) -> None:
    assert problems(edited(((*OVERRIDE, "private_chat"), content))) == []


def test_a_harmless_deprecated_key_beside_the_current_one_is_accepted() -> None:
    assert problems(edited((DEPRECATED, {"default": False}))) == []


def test_names_are_compared_among_those_that_are_managed() -> None:
    documents = edited((("element", "default_server_config", "m.homeserver", "base_url"), "https://other.example"))
    assert [problem.document for problem in problems(documents)] == ["element"]
    assert [problem.document for problem in problems(documents | {"synapse": None})] == ["element"]
    assert problems(documents | {"well_known": None, "synapse": None}) == []


def test_synapse_alone_takes_its_own_default_for_its_address() -> None:
    alone = {"synapse": {"server_name": "coop.example"}}
    assert digest(alone) == digest(
        {"synapse": {"server_name": "coop.example", "public_baseurl": "https://coop.example"}}
    )


def _place(path: tuple[str, ...]) -> tuple[str, ...]:
    """Element needs one of two keys that name its server: what is wrong with one decides whether the other matters."""
    if path[:2] in (("element", "default_server_name"), ("element", "default_server_config")):
        return ("element", "default_server", *path[2:])
    return path


@given(st.sets(st.sampled_from(range(len(LISTED))), max_size=6))
def test_every_injected_contradiction_is_in_the_one_message(chosen: set[int]) -> None:
    # Edits of one place, or of a place and what holds it, would undo each other.
    edits: list[Any] = []
    places: list[tuple[str, ...]] = []
    kept: list[Listed] = []
    for number in sorted(chosen):
        asked = [_place(path) for path, _ in LISTED[number].edits]
        if not any(a[: len(b)] == b or b[: len(a)] == a for a in asked for b in places):
            edits += LISTED[number].edits
            places += asked
            kept.append(LISTED[number])
    documents = edited(*edits)
    # A name that disagrees is told from the first one: another wrong name changes which, not whether.
    alone = [
        {(problem.document, problem.key) for problem in problems(edited(*listed.edits)) if not _is_a_name(problem)}
        for listed in kept
    ]
    found = problems(documents)
    assert bool(found) == bool(kept)
    assert set().union(*alone) <= {(problem.document, problem.key) for problem in found}
    if kept:
        with pytest.raises(Contradictions) as refusal:
            normalise(documents)
        assert all(str(problem) in str(refusal.value) for problem in found)
        assert f"{len(found)} contradiction" in str(refusal.value)


def _is_a_name(problem: Any) -> bool:
    return "name" in problem.key or "m.server" in problem.key or "base_url" in problem.key or "baseurl" in problem.key


@given(st.lists(st.tuples(st.sampled_from(PLACES), JSON), max_size=4))
def test_no_json_in_any_place_ends_in_anything_but_a_refusal(edits: list[Any]) -> None:
    documents = edited(*edits)
    if problems(documents):
        with pytest.raises(Contradictions):
            normalise(documents)
        return
    result = normalise(documents)
    assert normalise(result) == result
    assert digest(result) == digest(documents)


@given(JSON | st.dictionaries(st.sampled_from(["synapse", "well_known", "element"]), JSON))
def test_arbitrary_json_ends_in_nothing_but_a_refusal(documents: Any) -> None:
    with contextlib.suppress(Contradictions):
        normalise(documents)


@given(
    st.dictionaries(st.text(min_size=1).map(lambda key: f"x_{key}"), JSON),
    st.dictionaries(st.text(min_size=1).map(lambda key: f"org.example.{key}"), JSON),
    st.dictionaries(st.text(min_size=1).map(lambda key: f"x_{key}"), JSON),
)
def test_unrelated_keys_are_kept_and_change_nothing(synapse: Any, client: Any, element: Any) -> None:
    documents = valid()
    documents["synapse"].update(synapse)
    documents["well_known"]["client"].update(client)
    documents["element"].update(element)
    result = normalise(documents)
    assert set(synapse) <= set(result["synapse"])
    assert set(client) <= set(result["well_known"]["client"])
    assert set(element) <= set(result["element"])
    assert digest(documents) == digest(valid())


def reordered(value: Any) -> Any:
    return {key: reordered(value[key]) for key in reversed(value)} if isinstance(value, dict) else value


@pytest.mark.parametrize("edits", [(), *RELEVANT], ids=str)
def test_digest_does_not_depend_on_order(edits: Any) -> None:
    assert digest(reordered(edited(*edits))) == digest(edited(*edits))


def test_digest_changes_with_each_thing_that_matters() -> None:
    digests = [digest(edited(*edits)) for edits in ((), *RELEVANT)]
    assert len(set(digests)) == len(digests)
    assert all(one.startswith("sha256:") and len(one) == 71 for one in digests)


def test_digest_does_not_depend_on_whom_the_server_federates_with() -> None:
    own = {"module": OWN_MODULE, "config": {"instance": "coop"}}
    deny = {"module": DENY_LIST, "config": {"denied": ["bad.example"]}}
    declared = digest(edited((("synapse", "modules"), [own])))
    assert digest(edited((("synapse", "modules"), [own, deny]))) == declared
    assert digest(edited((("synapse", "modules"), [own, {"module": "x.Y"}]))) != declared
    # Profile internal: nothing for other servers.
    internal: list[Any] = [(("well_known", "server"), REMOVED), (("synapse", "federation_domain_whitelist"), [])]
    assert digest(edited(*internal)) == digest(valid())


def test_the_deny_list_is_named_once() -> None:
    deny = {"module": DENY_LIST, "config": {"denied": ["bad.example"]}}
    (found,) = problems(edited((("synapse", "modules"), [deny, deny])))
    assert f"names {DENY_LIST} again" in found.cause


def test_digest_refuses_what_normalise_refuses() -> None:
    with pytest.raises(Contradictions):
        digest(edited((E2EE, REMOVED)))


def test_the_documents_given_are_not_changed() -> None:
    documents, before = valid(), valid()
    normalise(documents)["well_known"]["client"]["x"] = 1
    assert documents == before


class Text(str):
    """Like Ansible's tagged texts."""

    __slots__ = ()


class Lazy(collections.UserDict[Any, Any]):
    """Like Ansible's lazy dicts: a mapping that is no dict."""


def test_tagged_and_lazy_values_become_plain_ones() -> None:
    def dressed(value: Any) -> Any:
        if isinstance(value, dict):
            return Lazy({Text(key): dressed(item) for key, item in value.items()})
        if isinstance(value, list):
            return tuple(dressed(item) for item in value)
        return Text(value) if isinstance(value, str) else value

    def types(value: Any) -> set[type]:
        inside = (
            [*value.keys(), *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
        )
        return {type(value)}.union(*(types(item) for item in inside))

    documents = edited((("synapse", "oidc_providers"), [{"idp_id": "x"}]))
    result = normalise(dressed(copy.deepcopy(documents)))
    assert result == normalise(documents)
    assert types(result) <= {dict, list, str, bool}
    assert digest(dressed(documents)) == digest(documents)


@pytest.mark.parametrize("documents", [None, [], "x", 1, [valid()]])
def test_what_is_no_dict_of_documents_is_refused(documents: Any) -> None:
    with pytest.raises(Contradictions, match="must be a dict of synapse, well_known and element"):
        normalise(documents)


class _OmitType:
    """Like Ansible's `omit` as filters see it."""


def test_what_is_omitted_counts_as_absent() -> None:
    omit = _OmitType()
    documents = valid()
    documents["synapse"]["encryption_enabled_by_default_for_room_type"] = omit
    documents["well_known"]["client"]["org.example"] = [omit]
    documents["element"] = omit
    expected = normalise(valid()) | {"element": None}
    expected["well_known"]["client"]["org.example"] = []
    assert normalise(documents) == expected


# --- Depth --------------------------------------------------------------------------------------------------------


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"more": value}
    return value


def cycle() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["more"] = [value]
    return value


@pytest.mark.parametrize("value", [deep(500), deep(100_000), cycle()], ids=["500", "100000", "cycle"])
@pytest.mark.parametrize("where", [("synapse", "media"), ("well_known", "client"), ("element", "features")], ids=str)
def test_what_no_program_would_read_is_a_contradiction(where: tuple[str, str], value: Any) -> None:
    documents = valid()
    documents[where[0]][where[1]] = value
    (problem,) = problems(documents)
    assert str(problem).startswith(f"{where[0]}: {where[1]}.more")
    assert "nested more than 50 levels deep, or holds itself" in problem.cause
    with pytest.raises(Contradictions):
        normalise(documents)


def test_documents_may_be_as_deep_as_anybody_writes_them() -> None:
    assert problems(edited((("synapse", "media"), deep(40)))) == []


# --- What Synapse finds of it in its own files ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edit", "same"),
    [
        (None, True),
        ((("synapse", "max_upload_size"), "1M"), True),
        ((("synapse", "modules"), [{"module": OWN_MODULE, "config": {}}, {"module": DENY_LIST}]), True),
        ((("synapse", "server_name"), "other.example"), False),
        ((("synapse", "modules"), [{"module": "x.Y", "config": {"a": 1.5}}]), False),
        (((*OVERRIDE, "private_chat"), {"events": {"m.room.encryption": 50}}), False),
        ((("synapse", "third_party_event_rules"), {"module": "x.Y"}), False),
    ],
    ids=str,
)
def test_synapse_computes_its_part_from_what_lies_on_disk(edit: Any, same: bool) -> None:
    declared = edited(edit)["synapse"] if edit else valid()["synapse"]
    on_disk = without_doors(declared) | registration_document(declared, "token")
    assert synapse_digest(on_disk) == synapse_digest(declared | {"encryption_enabled_by_default_for_room_type": "off"})
    assert (synapse_digest(declared) == synapse_digest(valid()["synapse"])) is same
