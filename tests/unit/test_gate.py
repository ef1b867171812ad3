# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the gate concludes, without a server."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.cae.matrix.plugins.filter.gate_plan import gate_plan
from ansible_collections.cae.matrix.plugins.module_utils.encryption import attestation, gate
from ansible_collections.cae.matrix.plugins.module_utils.matrix.identifiers import is_service_account
from ansible_collections.cae.matrix.tests.unit.proof import PROOF
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
BASE_URL = "https://matrix.atelier.test/"
KEYS = {"ed25519:a": {"key": "abc"}}
DOCUMENTS: dict[str, Any] = {
    "synapse": {
        "server_name": "atelier.test",
        "public_baseurl": BASE_URL,
        "jwt_config": {"enabled": True, "secret": "not for the target", "algorithm": "HS256"},
        "database": {"name": "psycopg2", "args": {"dbname": "m", "user": "m", "cp_min": 5, "password": "hidden"}},
    },
    "well_known": {
        "client": {"m.homeserver": {"base_url": BASE_URL}, "io.element.e2ee": {"default": False}, "org.else": 1},
        "server": {"m.server": "matrix.atelier.test:443"},
        "support": None,
    },
    "element": {"default_server_config": {"m.homeserver": {"base_url": BASE_URL}}, "brand": "Atelier"},
}


def answer(json_body: Any = None, status: int = 200, cors: str = "*", error: Any = None) -> dict[str, Any]:
    return {"url": "https://x.test/", "status": status, "cors": cors, "json": json_body, "text": "", "error": error}


def served() -> dict[str, dict[str, Any]]:
    """What a sound server shows."""
    documents = copy.deepcopy(DOCUMENTS)
    return {
        "well_known_client": answer(documents["well_known"]["client"]),
        "well_known_server": answer(documents["well_known"]["server"]),
        "versions": answer({"versions": ["v1.11"]}),
        "key": answer({"server_name": "atelier.test", "verify_keys": KEYS}),
        "element": answer(documents["element"]),
        "element_specific": answer(status=404, error={"kind": "not-json", "cause": "a page", "mend": "look"}),
        "register": answer({"errcode": "M_FORBIDDEN"}, 403),
    }


def refused(observed: dict[str, dict[str, Any]]) -> list[gate.Check]:
    declared = gate.what_matters(DOCUMENTS)
    return gate.refused(gate.public_checks(observed, declared, "atelier.test", KEYS))


def test_a_sound_server_passes() -> None:
    assert refused(served()) == []


def test_a_page_that_is_no_json_in_place_of_the_specific_config_is_no_config() -> None:
    observed = served()
    observed["element_specific"]["status"] = 200
    assert refused(observed) == []


def client(value: Any) -> Callable[[dict[str, dict[str, Any]]], None]:
    def change(observed: dict[str, dict[str, Any]]) -> None:
        observed["well_known_client"]["json"]["io.element.e2ee"] = value

    return change


def put(name: str, **values: Any) -> Callable[[dict[str, dict[str, Any]]], None]:
    return lambda observed: observed[name].update(values)


BROKEN: list[tuple[str, Callable[[dict[str, dict[str, Any]]], None], str, str]] = [
    ("true", client({"default": True}), gate.FAILED, 'io.element.e2ee is {"default": true}'),
    ("zero is not false", client({"default": 0}), gate.FAILED, 'io.element.e2ee is {"default": 0}'),
    ("text is not false", client({"default": "false"}), gate.FAILED, "io.element.e2ee"),
    ("forced off", client({"default": False, "force_disable": True}), gate.FAILED, "force_disable"),
    ("missing", client(None), gate.FAILED, "io.element.e2ee is nothing"),
    ("no CORS", put("well_known_client", cors=""), gate.FAILED, "Access-Control-Allow-Origin"),
    ("404", put("well_known_client", status=404), gate.FAILED, "answers 404"),
    ("a list", put("well_known_client", json=[]), gate.FAILED, "not with the document"),
    ("other server", put("well_known_server", json={"m.server": "x.test:443"}), gate.FAILED, "m.server is"),
    (
        "no JSON",
        put("well_known_server", error={"kind": "not-json", "cause": "a page", "mend": "look"}),
        gate.FAILED,
        "a page",
    ),
    ("DNS", put("versions", error={"kind": "refused", "cause": "no", "mend": "do"}), gate.UNSEEN, "no"),
    ("bad gateway", put("versions", status=502, json={}), gate.UNSEEN, "502"),
    ("no homeserver", put("versions", json={"hello": 1}), gate.FAILED, "not with the versions"),
    ("other key", put("key", json={"server_name": "atelier.test", "verify_keys": {}}), gate.FAILED, "another signing"),
    ("other name", put("key", json={"server_name": "x.test", "verify_keys": KEYS}), gate.FAILED, "signed by"),
    ("Element elsewhere", put("element", json={}), gate.FAILED, "default_server_config is nothing"),
    (
        "Element forces verification",
        put("element", json={**DOCUMENTS["element"], "force_verification": True}),
        gate.FAILED,
        "force_verification is true",
    ),
    (
        "Element without encryption",
        put("element", json={**DOCUMENTS["element"], "setting_defaults": {"lowBandwidth": True}}),
        gate.FAILED,
        'setting_defaults is {"lowBandwidth": true}',
    ),
    (
        "a specific config wins",
        put("element_specific", status=200, error=None, json={"force_verification": True}),
        gate.FAILED,
        "force_verification is true",
    ),
]


@pytest.mark.parametrize("document", ["well_known_client", "element"])
@pytest.mark.parametrize("address", [f"{BASE_URL.rstrip('/')}/", BASE_URL.rstrip("/"), f"{BASE_URL.rstrip('/')}:443"])
def test_an_address_is_the_same_with_and_without_its_final_slash(document: str, address: str) -> None:
    """As the filter has it, which let it pass."""
    observed = served()
    served_document = copy.deepcopy(observed[document]["json"])
    (served_document.get("default_server_config") or served_document)["m.homeserver"]["base_url"] = address
    put(document, json=served_document)(observed)
    assert refused(observed) == []


@pytest.mark.parametrize(("change", "status", "words"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_each_break_is_named(change: Callable[[dict[str, dict[str, Any]]], None], status: str, words: str) -> None:
    observed = served()
    change(observed)
    found = refused(observed)
    assert [check.status for check in found] == [status]
    assert words in found[0].why
    assert found[0].mend


def internal(observed: dict[str, dict[str, Any]]) -> list[gate.Check]:
    """The same documents for a server that nobody federates with."""
    documents = copy.deepcopy(DOCUMENTS)
    del documents["well_known"]["server"]
    return gate.refused(gate.public_checks(observed, gate.what_matters(documents), "atelier.test", {}))


@pytest.mark.parametrize("body", [{"errcode": "M_UNRECOGNIZED"}, None])
def test_an_internal_server_shows_nothing_to_other_servers(body: Any) -> None:
    observed = served() | {"well_known_server": answer(status=404), "key": answer(body, 404)}
    assert internal(observed) == []
    # The page of a web server is as good: there is nothing.
    observed["key"]["error"] = {"kind": "not-json", "cause": "a page", "mend": "look"}
    assert internal(observed) == []


def test_a_server_that_shows_keys_is_not_the_internal_one() -> None:
    (found,) = internal(served())
    assert found.status == gate.FAILED
    assert "internal" in found.why
    assert [check.status for check in internal(served() | {"key": answer({}, 502)})] == [gate.UNSEEN]
    error = {"kind": "refused", "cause": "no", "mend": "do"}
    assert [check.why for check in internal(served() | {"key": answer(status=0, error=error)})] == ["no"]


def test_what_does_not_matter_is_not_compared() -> None:
    observed = served()
    observed["well_known_client"]["json"]["org.else"] = 2
    observed["element"]["json"]["brand"] = "Another"
    observed["element"]["json"]["setting_defaults"] = {"UIFeature.registration": True}
    assert refused(observed) == []


def test_absent_element_is_not_looked_for() -> None:
    declared = gate.what_matters({**DOCUMENTS, "element": None})
    observed = served()
    for name in ("element", "element_specific"):
        del observed[name]
    assert gate.refused(gate.public_checks(observed, declared, "atelier.test", KEYS)) == []
    assert "element" not in gate.questions("a.test", "m.a.test", None)


BY_TOKEN = {"flows": [{"stages": ["m.login.registration_token", "m.login.dummy"]}]}
ANYBODY = {"flows": [{"stages": ["m.login.dummy"]}, *BY_TOKEN["flows"]]}


@pytest.mark.parametrize(
    ("status", "body", "promised", "expected"),
    [
        (403, {"errcode": "M_FORBIDDEN"}, "closed", gate.PASSED),
        (403, {"errcode": "M_FORBIDDEN"}, "token", gate.FAILED),
        (401, BY_TOKEN, "token", gate.PASSED),
        (401, BY_TOKEN, "closed", gate.FAILED),
        (401, ANYBODY, "token", gate.FAILED),
        (401, {"flows": []}, "token", gate.FAILED),
        (403, {}, "closed", gate.FAILED),
        (200, {}, "closed", gate.FAILED),
        (502, None, "closed", gate.UNSEEN),
    ],
)
def test_registration_is_as_promised(status: int, body: Any, promised: str, expected: str) -> None:
    assert gate.register_check(answer(body, status), promised).status == expected


def test_a_fresh_room_is_plain_only_without_any_encryption_event() -> None:
    assert gate.room_check("r", None).status == gate.PASSED
    assert gate.room_check("r", {}).status == gate.FAILED
    assert gate.room_check("r", {"algorithm": gate.ALGORITHM}).status == gate.FAILED


def test_turning_encryption_on_is_seen() -> None:
    assert gate.opt_in_check("", "r", 200, {}, {"algorithm": gate.ALGORITHM}).status == gate.PASSED
    assert gate.opt_in_check("", "r", 200, {}, None).status == gate.FAILED
    assert "M_FORBIDDEN" in gate.opt_in_check("", "r", 403, {"errcode": "M_FORBIDDEN"}, None).why


FORBIDDEN: gate.Answer = 403, {"errcode": "M_FORBIDDEN"}
NO_GUESTS: gate.Answer = 403, {"errcode": "M_UNKNOWN", "error": "Guest access is disabled"}
LOGIN: gate.Answer = 200, {"flows": [{"type": "m.login.password"}, {"type": "m.login.sso", "identity_providers": []}]}


@pytest.mark.parametrize(
    ("door", "answer_of_synapse"),
    [
        (0, (401, {"flows": [{"stages": ["m.login.dummy"]}]})),
        (0, (401, {"flows": [{"stages": ["m.login.registration_token"]}]})),
        (0, (200, {"user_id": "@a:a.test"})),
        (0, (403, {"errcode": "M_USER_DEACTIVATED"})),
        (1, (200, {"user_id": "@1:a.test"})),
        (2, (200, {"flows": [{"type": "org.matrix.login.jwt"}]})),
        (2, (200, {"flows": [{"type": "m.login.sso", "identity_providers": [{"id": "saml", "name": "SAML"}]}]})),
    ],
    ids=str,
)
def test_closed_is_what_was_tried_and_refused(door: int, answer_of_synapse: gate.Answer) -> None:
    assert gate.open_doors(FORBIDDEN, NO_GUESTS, LOGIN) == []
    answers = [FORBIDDEN, NO_GUESTS, LOGIN]
    answers[door] = answer_of_synapse
    assert gate.open_doors(*answers)


def test_verdicts() -> None:
    room = gate.Room("!abc", "Bureau", "@a:a.test", 2, "encrypted state")
    assert gate.verdict([], 0, 0) == gate.IN_TIME
    assert gate.verdict([], 1, 0) == gate.verdict([], 0, 1) == gate.MENDABLE
    assert gate.verdict([room], 0, 0) == gate.TOO_LATE
    late = gate.audit_check([room], 1, 1, 3)
    assert late.status == gate.FAILED
    assert "!abc (Bureau, made by @a:a.test" in late.why
    assert gate.audit_check([], 1, 0, 3).status == gate.PASSED


def test_report_begins_with_what_is_wrong() -> None:
    checks = [gate.Check("fine", gate.PASSED), gate.Check("bad", gate.FAILED, "because", "do this")]
    assert gate.report("atelier", checks, "not passed").splitlines() == [
        "Encryption gate of atelier: not passed",
        "[failed] bad: because",
        "    mend: do this",
        "[passed] fine",
    ]


@pytest.mark.parametrize("name", ["Amina", "_amina", "", "a b", "é", "encryption-gate", "encryption-gate-3", "a" * 250])
def test_names_that_are_none(name: str) -> None:
    assert len(gate.localpart_problems([name], "a.test")) == 1


def test_names_that_are_good() -> None:
    assert gate.localpart_problems(["amina", "a.b_c=d/e+f-1", "encryption-gates"], "a.test") == []
    assert len(gate.localpart_problems(["amina", "amina"], "a.test")) == 1


def test_service_account_of_another_domain_is_somebody_else() -> None:
    assert is_service_account("@encryption-gate:a.test", "a.test")
    assert not is_service_account("@encryption-gate:b.test", "a.test")
    assert not is_service_account("@encryption-gate-x:a.test", "a.test")
    assert not is_service_account(None)


# -- the attestation -------------------------------------------------------------------------------------------------


def test_an_attestation_is_read_as_it_was_written() -> None:
    assert attestation.parse(PROOF.to_json()) == PROOF
    room = dataclasses.replace(PROOF, accepted_rooms=("!abc",), element_version="1.12.25")
    assert attestation.parse(room.to_json()) == room


def test_the_schema_names_the_same_keys() -> None:
    schema = json.loads((ROOT / "docs/attestation.schema.json").read_text(encoding="utf-8"))
    assert set(schema["required"]) == set(schema["properties"]) == set(json.loads(PROOF.to_json()))
    assert schema["properties"]["schema_version"]["const"] == attestation.SCHEMA_VERSION
    assert tuple(schema["properties"]["registration"]["enum"]) == attestation.REGISTRATION
    assert tuple(schema["properties"]["verdict"]["enum"]) == attestation.VERDICTS


@given(
    st.sampled_from(sorted(json.loads(PROOF.to_json()))),
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.text(max_size=5),
        st.lists(st.integers(), min_size=1),
        st.dictionaries(st.text(), st.integers()),
    ),
)
def test_what_is_not_whole_proves_nothing(key: str, value: Any) -> None:
    """Any one key replaced: either it is refused, or it still is an attestation that reads back the same."""
    document = json.loads(PROOF.to_json())
    document[key] = value
    text = json.dumps(document)
    try:
        found = attestation.parse(text)
    except attestation.Malformed:
        return
    assert json.loads(found.to_json()) == document


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"schema_version": 2}', "[" * 100000])
def test_what_is_no_attestation(text: str) -> None:
    with pytest.raises(attestation.Malformed):
        attestation.parse(text)


def test_every_key_is_needed_and_no_other_is_known() -> None:
    document = json.loads(PROOF.to_json())
    for key in set(document) - {"synapse_digest", "machine"}:
        with pytest.raises(attestation.Malformed):
            attestation.parse(json.dumps({name: value for name, value in document.items() if name != key}))
    with pytest.raises(attestation.Malformed):
        attestation.parse(json.dumps({**document, "more": 1}))


def test_an_attestation_of_an_earlier_version_is_one() -> None:
    document = json.loads(PROOF.to_json())
    del document["synapse_digest"], document["machine"]
    assert attestation.parse(json.dumps(document)) == dataclasses.replace(PROOF, synapse_digest="", machine="")


@pytest.mark.parametrize(
    "moment",
    [
        "2026-99-01T00:00:00Z",
        "2026-02-30T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-1-01T00:00:00Z",
        "٢٠٢٦-01-01T00:00:00Z",
    ],
)
@pytest.mark.parametrize("key", ["attested_at", "first_attested_at"])
def test_a_moment_that_there_is_not(key: str, moment: str) -> None:
    with pytest.raises(attestation.Malformed, match=key):
        attestation.parse(json.dumps(json.loads(PROOF.to_json()) | {key: moment}))


def test_a_machine_is_told_from_another(tmp_path: Path) -> None:
    names = []
    for number in range(2):
        (tmp_path / "machine-id").write_text(f"{number:032x}\n")
        names.append(attestation.this_machine(str(tmp_path / "machine-id")))
        assert f"{number:032x}" not in names[-1]
    assert len(set(names)) == 2
    assert attestation.this_machine(str(tmp_path / "none")) == ""


# -- the plan --------------------------------------------------------------------------------------------------------


def test_the_plan_hands_over_no_secret_but_in_registration() -> None:
    plan = gate_plan(DOCUMENTS, "token")
    assert plan["database"] == {"dbname": "m", "user": "m"}
    assert plan["database_password"] == "hidden"
    shown = json.dumps({key: plan[key] for key in ("declared", "digest", "database")})
    assert "not for the target" not in shown
    assert "hidden" not in shown
    assert yaml.safe_load(plan["proven"])["jwt_config"]["enabled"] is True
    assert yaml.safe_load(plan["proven"])["enable_registration"] is True
    assert not yaml.safe_load(plan["closed_until_proven"])["jwt_config"]
    assert yaml.safe_load(plan["closed_until_proven"])["enable_registration"] is False
    assert plan["collection_version"] == yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"]


def test_without_sign_on_closed_needs_no_restart() -> None:
    documents = copy.deepcopy(DOCUMENTS)
    del documents["synapse"]["jwt_config"]
    plan = gate_plan(documents, "closed")
    assert plan["closed_until_proven"] == plan["proven"]


def test_how_people_register_is_not_part_of_the_digest() -> None:
    assert gate_plan(DOCUMENTS, "token")["digest"] == gate_plan(DOCUMENTS, "closed")["digest"]


DEEP: dict[str, Any] = {}
DEEP["more"] = DEEP


@pytest.mark.parametrize(
    "arguments", [(DOCUMENTS, "open"), ({}, "closed"), (None, "closed"), ({"synapse": DEEP}, "closed")]
)
def test_a_plan_of_nothing(arguments: tuple[Any, str]) -> None:
    with pytest.raises(AnsibleFilterError):
        gate_plan(*arguments)
