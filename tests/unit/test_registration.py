# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who decides how accounts come to be: the gate alone."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.cae.matrix.plugins.module_utils.encryption.registration import (
    DENY_LIST,
    DOORS,
    MODES,
    OWN_MODULE,
    registration_document,
    without_doors,
)
from hypothesis import given
from hypothesis import strategies as st

DECLARED: dict[str, Any] = {
    "server_name": "coop.example",
    "registration_shared_secret_path": "/secret",
    "registrations_require_3pid": ["email"],
    "app_service_config_files": ["/bridge.yaml"],
    "oidc_providers": [{"idp_id": "a", "enable_registration": True}, {"idp_id": "b"}],
    "oidc_config": {"enabled": True, "issuer": "https://sso.example"},
    "cas_config": {"server_url": "https://cas.example"},
    "saml2_config": {"sp_config": {"x": 1}},
    "jwt_config": {"enabled": True, "secret": "x", "algorithm": "HS256"},
    "modules": [{"module": "x.Y"}],
    "password_providers": [{"module": "x.Y"}],
    "ldap_config": {"enabled": True},
}
EXPLICIT = {
    "enable_registration",
    "registration_requires_token",
    "enable_registration_without_verification",
    "enable_registration_token_3pid_bypass",
    "allow_guest_access",
}
WITHHELD = ("saml2_config", "jwt_config", "modules", "password_providers", "ldap_config")
scalars = st.none() | st.booleans() | st.integers() | st.text()
values = scalars | st.lists(scalars) | st.dictionaries(st.text(), scalars)


def test_homeserver_yaml_holds_what_is_no_door() -> None:
    assert without_doors(DECLARED) == {
        "server_name": "coop.example",
        "registration_shared_secret_path": "/secret",
        "registrations_require_3pid": ["email"],
        "app_service_config_files": ["/bridge.yaml"],
    }


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_says_everything_about_registration(mode: str) -> None:
    for declared in ({}, DECLARED, {"enable_registration": True, "disable_registration": False}):
        document = registration_document(declared, mode)
        assert set(document) >= EXPLICIT
        assert set(document) <= set(DOORS)
        assert document["enable_registration"] is (mode == "token")
        assert document["registration_requires_token"] is True
        assert document["enable_registration_without_verification"] is False
        assert document["enable_registration_token_3pid_bypass"] is False
        assert document["allow_guest_access"] is False
        assert "disable_registration" not in document


def test_until_proven_nobody_new_comes_in() -> None:
    document = registration_document(DECLARED, "closed-until-proven")
    assert [provider["enable_registration"] for provider in document["oidc_providers"]] == [False, False]
    assert [provider["idp_id"] for provider in document["oidc_providers"]] == ["a", "b"]
    assert document["oidc_config"] == DECLARED["oidc_config"] | {"enable_registration": False}
    assert document["cas_config"] == DECLARED["cas_config"] | {"enable_registration": False}
    assert not any(document.get(key) for key in WITHHELD)


def test_the_module_that_keeps_doors_shut_is_always_there() -> None:
    own, other = {"module": OWN_MODULE, "config": {"instance": "coop"}}, {"module": "x.Y"}
    declared = DECLARED | {"modules": [own, other]}
    assert without_doors(declared)["modules"] == [own]
    # Synapse takes the list of homeserver.yaml where this one says nothing, and this one where it does.
    assert "modules" not in registration_document(declared, "closed-until-proven")
    assert registration_document(declared, "token")["modules"] == [own, other]
    assert "modules" not in registration_document(declared | {"modules": [own]}, "token")


def test_the_deny_list_is_our_own_as_well() -> None:
    own = [{"module": OWN_MODULE, "config": {}}, {"module": DENY_LIST, "config": {"denied": ["bad.example"]}}]
    declared = DECLARED | {"modules": own}
    assert without_doors(declared)["modules"] == own
    for mode in ("closed-until-proven", "token"):
        assert "modules" not in registration_document(declared, mode)


def test_until_proven_what_is_declared_empty_stays_of_its_kind() -> None:
    document = registration_document(dict.fromkeys((*WITHHELD, "oidc_providers", "oidc_config")), "closed-until-proven")
    assert document["oidc_providers"] == document["password_providers"] == []
    assert document["oidc_config"] == document["saml2_config"] == document["jwt_config"] == {}


@pytest.mark.parametrize("mode", ["closed", "token"])
def test_once_proven_providers_are_as_declared(mode: str) -> None:
    document = registration_document(DECLARED, mode)
    assert {key: document[key] for key in document if key not in EXPLICIT} == {
        key: DECLARED[key] for key in DECLARED if key in DOORS
    }


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="closed-until-proven, closed, token"):
        registration_document({}, "open")


@given(st.dictionaries(st.sampled_from([*DOORS, "server_name", "x"]), values), st.sampled_from(MODES))
def test_whatever_is_declared_no_door_is_left_in_homeserver_yaml_or_opened_early(declared: Any, mode: str) -> None:
    assert not set(without_doors(declared)) & set(DOORS)
    document = registration_document(declared, mode)
    assert document["enable_registration"] is (mode == "token")
    if mode == "closed-until-proven":
        for key in WITHHELD:
            assert not document.get(key)
        for key in ("oidc_config", "cas_config"):
            assert not document.get(key) or document[key]["enable_registration"] is False
