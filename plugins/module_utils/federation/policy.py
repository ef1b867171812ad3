# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whom a server federates with: its profile, the list of members and a few names make one policy.

Pure functions, used by the filter C(federation_policy).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.cae.matrix.plugins.module_utils.instance.names import PROFILES
from ansible_collections.cae.matrix.plugins.module_utils.matrix.server_names import matches, server_name_problem

# Synapse's own default: whom to ask for keys of servers that do not answer themselves.
KEY_SERVER = "matrix.org"


class Contradictions(Exception):
    """No policy follows from these variables; the message holds every reason, each with its mend."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("Whom the server federates with is not clear: " + "; ".join(self.problems))


def policy(
    profile: str,
    members: Mapping[str, Any] | None,
    domain: str,
    hub: str = "",
    denied: Sequence[str] = (),
    allowed: Sequence[str] = (),
) -> dict[str, Any]:
    """Whom a server federates with, or `Contradictions`.

    Args:
        profile: C(matrix_profile).
        members: the list of members as C(federation_list) holds it; empty without one.
        domain: the server's own domain.
        hub: C(federation_hub).
        denied: C(federation_denied_servers).
        allowed: C(federation_allowed_servers).

    >>> policy("federation", {}, "atelier.example", allowed=["client.example"])["allowed"]
    ['atelier.example', 'client.example']
    """
    listed = members or {}
    found = list(_problems(profile, listed, domain, hub, denied, allowed))
    if found:
        raise Contradictions(found)
    hub = str(listed.get("hub") or hub)
    everybody = [one["domain"] for one in listed.get("members", []) if one.get("profile", "open") != "internal"]
    key_servers: list[str] = []
    if profile == "open" and not any(matches(glob, KEY_SERVER) for glob in denied):
        key_servers = [KEY_SERVER]
    elif profile == "federation" and hub not in ("", domain):
        key_servers = [hub]
    return {
        "profile": profile,
        "federates": profile != "internal",
        "allowed": {
            "open": None,
            "federation": sorted({domain, *([hub] if hub else []), *everybody, *allowed}),
            "internal": [],
        }[profile],
        "denied": sorted(set(denied)),
        "key_servers": key_servers,
        "hub": hub,
    }


def _problems(
    profile: str, listed: Mapping[str, Any], domain: str, hub: str, denied: Sequence[str], allowed: Sequence[str]
) -> Iterator[str]:
    if profile not in PROFILES:
        yield f'matrix_profile: "{profile}" is unknown; one of {", ".join(PROFILES)}'
        return
    for variable, names, glob in (
        ("federation_denied_servers", denied, True),
        ("federation_allowed_servers", allowed, False),
        ("federation_hub", [hub] if hub else [], False),
    ):
        if isinstance(names, str) or not isinstance(names, Sequence):
            yield f"{variable}: a list of server names is needed, such as [example.coop]"
            return
        wrong = [text for name in names if (text := server_name_problem(name, glob))]
        yield from (f"{variable}: {text}" for text in wrong)
        if wrong:
            return
    if denied and profile != "open":
        yield (
            f'federation_denied_servers: with matrix_profile "{profile}" nobody is let in who is not named; '
            'empty it, or set matrix_profile to "open"'
        )
    if allowed and profile != "federation":
        yield (
            f'federation_allowed_servers: with matrix_profile "{profile}" it means nothing; '
            'empty it, or set matrix_profile to "federation"'
        )
    if profile == "federation" and not listed and not allowed:
        yield (
            'federation_members: matrix_profile "federation" needs the list of members; '
            "set it to the list's file or address (or name servers in federation_allowed_servers)"
        )
    if hub and listed and hub != listed.get("hub"):
        yield f'federation_hub: "{hub}" is not the hub of the list of members, which is {listed.get("hub")}'
    yield from _hub_problems(profile, listed, domain, hub)
    yield from _deny_problems(listed, domain, hub, denied)


def _hub_problems(profile: str, listed: Mapping[str, Any], domain: str, hub: str) -> Iterator[str]:
    the_hub = listed.get("hub") or hub
    if profile == "internal" and the_hub == domain:
        yield 'matrix_profile: "internal", but this is the hub, whom all members have to reach; "open" or "federation"'
    for one in listed.get("members", []):
        if one["domain"] == the_hub and one.get("profile") == "internal":
            yield (
                f'federation_members: the hub {the_hub} has profile "internal" in the list, and nobody could reach it; '
                '"open" or "federation"'
            )


def _deny_problems(listed: Mapping[str, Any], domain: str, hub: str, denied: Sequence[str]) -> Iterator[str]:
    named = {one["domain"]: "a member of the federation" for one in listed.get("members", [])}
    named |= {name: "the federation's hub" for name in (hub, listed.get("hub")) if name}
    named |= {domain: "this server's own domain"}
    for glob in denied:
        for name, what in named.items():
            if matches(glob, name):
                yield f'federation_denied_servers: "{glob}" denies {name}, which is {what}; take it out'
