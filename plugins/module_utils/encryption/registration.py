# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who decides how accounts come to be: the gate, in a configuration file of its own.

Synapse reads every `*.yaml` of its configuration directory in sorted order and merges them by top-level key, so
`registration.yaml` wins over `homeserver.yaml`. Role `synapse` leaves the keys in `DOORS` out of the latter, and the
gate alone writes them into the former.

Application services register their own users and are not a door: whoever declares one holds its token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Before the gate has passed; after it, as `encryption_gate_registration` says.
MODES = ("closed-until-proven", "closed", "token")

# Single sign-on and the like: allowed as declared, once the server is proven to be opt-in.
SIGN_ON = ("oidc_providers", "oidc_config", "cas_config", "saml2_config", "jwt_config")
# Code of others that may create accounts when somebody logs in.
CODE = ("modules", "password_providers", "ldap_config")
# Except ours: one keeps doors shut, one denies servers, one keeps the service up; no accounts come of it. They stay in
# homeserver.yaml, which role `synapse` writes together with the release that has them: what the gate writes has to suit
# the release before, too.
OWN_MODULE = "cae_matrix_opt_in.EncryptionOptIn"
DENY_LIST = "cae_matrix_federation.DenyList"
OWN_MODULES = (OWN_MODULE, DENY_LIST, "cae_matrix_service.Service")
# What only the gate decides. `disable_registration` is Synapse's old name and overrides `enable_registration`.
DECIDED_BY_GATE = (
    "enable_registration",
    "disable_registration",
    "enable_registration_without_verification",
    "registration_requires_token",
    "enable_registration_token_3pid_bypass",
    "allow_guest_access",
    "registration_shared_secret",
    "matrix_authentication_service",
)
DOORS = DECIDED_BY_GATE + SIGN_ON + CODE


# What is declared, served or read in files is a few levels deep.
DEEPEST = 50


class TooDeep(ValueError):
    """A document that is no tree of a sensible depth; `where` is how it is reached, as far as one reads."""

    why = f"is nested more than {DEEPEST} levels deep, or holds itself"

    def __init__(self) -> None:
        super().__init__()
        self.where = ""

    def __str__(self) -> str:
        return f"{self.where or 'the document'} {self.why}"


def plain(value: Any, _left: int = DEEPEST) -> Any:
    """Turn Ansible's tagged and lazy values into plain ones, recursively; nothing but `omit` is dropped.

    >>> plain({"a": ({1: None},)})
    {'a': [{1: None}]}
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, (Mapping, list, tuple, set, frozenset)) and not _left:
        raise TooDeep
    if isinstance(value, Mapping):
        return {_plain_key(key): _below(key, item, _left) for key, item in value.items() if not _omitted(item)}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_below(number, item, _left) for number, item in enumerate(value) if not _omitted(item)]
    return str(value)


def _below(key: Any, value: Any, left: int) -> Any:
    try:
        return plain(value, left - 1)
    except TooDeep as error:
        if left > DEEPEST - 3:
            error.where = f"{key}.{error.where}".rstrip(".")
        raise


def _omitted(value: Any) -> bool:
    # Ansible drops these when it finishes a template, which is after the filters in it have run.
    return type(value).__name__ == "_OmitType"


def _plain_key(key: Any) -> Any:
    simple = plain(key)
    return str(simple) if isinstance(simple, (list, dict)) else simple


def without_doors(synapse_document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what homeserver.yaml holds: the declared document without the keys that create accounts."""
    declared = plain(synapse_document)
    kept = {key: value for key, value in declared.items() if key not in DOORS}
    own = own_modules(declared)
    return kept | {"modules": own} if own else kept


def own_modules(document: Mapping[str, Any]) -> list[Any]:
    """The entries of Synapse's `modules` that are the collection's own."""
    modules = document.get("modules")
    listed = modules if isinstance(modules, list) else []
    return [module for module in listed if isinstance(module, dict) and module.get("module") in OWN_MODULES]


def registration_document(synapse_document: Mapping[str, Any], mode: str) -> dict[str, Any]:
    """Return what registration.yaml holds.

    Until proven, providers that can let known people in without creating accounts do only that; those that cannot
    are withheld.
    """
    if mode not in MODES:
        raise ValueError(f"unknown registration mode {mode!r}: use one of {', '.join(MODES)}")
    declared = plain(synapse_document)
    document: dict[str, Any] = {
        "enable_registration": mode == "token",
        "registration_requires_token": True,
        "enable_registration_without_verification": False,
        "enable_registration_token_3pid_bypass": False,
        "allow_guest_access": False,
    }
    providers = {key: declared[key] for key in SIGN_ON + CODE if key in declared}
    if mode == "closed-until-proven" or (declared.get("modules") or []) == own_modules(declared):
        # Those of homeserver.yaml are enough.
        providers.pop("modules", None)
    if mode == "closed-until-proven":
        providers = {key: _known_people_only(key, value) for key, value in providers.items()}
    return document | providers


def _known_people_only(key: str, value: Any) -> Any:
    if key == "oidc_providers" and isinstance(value, list):
        return [provider | {"enable_registration": False} for provider in value if isinstance(provider, dict)]
    if key in ("oidc_config", "cas_config") and isinstance(value, dict) and value:
        return value | {"enable_registration": False}
    return [] if key in ("oidc_providers", "password_providers") else {}
