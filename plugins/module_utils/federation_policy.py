# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whom a server federates with: its profile, the list of members and a few names make one policy.

Pure functions, used by the filter C(federation_policy).
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.cae.matrix.plugins.module_utils.instance import LABEL, PROFILES

# Synapse's own default: whom to ask for keys of servers that do not answer themselves.
KEY_SERVER = "matrix.org"
_PORT = re.compile(r":[0-9]{1,5}\Z")
_GLOB = re.compile(r"[a-z0-9.*?-]+|\[[0-9a-f:.*?]+\]")


class Contradictions(Exception):
    """No policy follows from these variables; the message holds every reason, each with its mend."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("Whom the server federates with is not clear: " + "; ".join(self.problems))


def server_name_problem(name: object, glob: bool = False) -> str | None:
    """Why C(name) is no server name (with C(glob), none with * and ? in it), or None.

    >>> server_name_problem("https://outil.example"), server_name_problem("*.bad.example", glob=True)
    ('"https://outil.example" has a scheme; write the name alone, outil.example', None)
    """
    if not isinstance(name, str) or not name:
        return f"{name!r} is no server name, such as example.coop"
    if "://" in name:
        return f'"{name}" has a scheme; write the name alone, {name.split("://", 1)[1].strip("/").lower()}'
    if name != name.lower():
        return f'"{name}" has capitals; server names compare byte by byte, write {name.lower()}'
    host = _PORT.sub("", name)
    good = _GLOB.fullmatch(host) is not None if glob and set("*?") & set(name) else _is_host(host)
    return None if good else f'"{name}" is no server name; the part after the colon in @name:example.coop'


def _is_host(host: str) -> bool:
    if host.startswith("[") and host.endswith("]"):
        try:
            return ipaddress.ip_address(host[1:-1]).version == 6
        except ValueError:
            return False
    return len(host) <= 253 and all(LABEL.fullmatch(label) for label in host.split("."))


def matches(glob: str, name: str) -> bool:
    """Whether a glob of the deny list means this server; a glob without a port means every port.

    >>> matches("*.bad.example", "a.bad.example:8448"), matches("bad.example", "bad.example.org")
    (True, False)
    """
    meant = _pattern(glob).fullmatch
    return bool(meant(name) or meant(_PORT.sub("", name)))


@functools.lru_cache(maxsize=10000)
def _pattern(glob: str) -> re.Pattern[str]:
    text = "".join({"*": ".*", "?": "."}.get(one) or re.escape(one) for one in glob)
    return re.compile(text, re.DOTALL | re.IGNORECASE)


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
