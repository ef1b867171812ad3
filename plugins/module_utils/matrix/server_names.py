# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Names of servers and hosts, what is wrong with one, and what a glob among them means."""

from __future__ import annotations

import functools
import ipaddress
import re

LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_PORT = re.compile(r":[0-9]{1,5}\Z")
_GLOB = re.compile(r"[a-z0-9.*?-]+|\[[0-9a-f:.*?]+\]")


def hostname_problem(variable: str, value: object) -> str | None:
    """Why C(value) is no DNS name that Matrix can be served under, or None.

    >>> hostname_problem("matrix_domain", "https://example.coop")
    'matrix_domain: "https://example.coop" has a scheme; write the name alone, example.coop'
    """
    if not isinstance(value, str) or not value:
        return f"{variable}: a domain name is needed, such as example.coop; got {value!r}"
    quoted = f'{variable}: "{value}"'
    if "://" in value:
        return f"{quoted} has a scheme; write the name alone, {value.split('://', 1)[1].strip('/').lower()}"
    if "/" in value:
        return f"{quoted} has a path; write the name alone, {value.split('/', 1)[0].lower()}"
    if ":" in value:
        return f"{quoted} has a port; write the name alone, {value.split(':', 1)[0].lower()}: clients reach it on 443"
    if not value.isascii():
        return f"{quoted} has letters that DNS does not know; write {_ascii_form(value)}"
    if value != value.lower():
        return f"{quoted} has capitals; Matrix identifiers compare byte by byte, write {value.lower()}"
    if value.endswith("."):
        return f"{quoted} ends in a dot; write {value.rstrip('.')}"
    try:
        ipaddress.ip_address(value)
    except ValueError:
        pass
    else:
        return f"{quoted} is an address; people's identifiers carry this name for ever, so give a domain name"
    labels = value.split(".")
    if len(labels) < 2 or len(value) > 253 or not all(LABEL.fullmatch(label) for label in labels):
        return f"{quoted} is no domain name; letters a-z, digits and dashes between dots, such as example.coop"
    return None


def _ascii_form(value: str) -> str:
    """What stands in DNS for a name with other letters.

    >>> _ascii_form("Coopérative.example")
    'xn--cooprative-e7a.example'
    """
    try:
        return value.rstrip(".").encode("idna").decode().lower()
    except UnicodeError:
        return "it in letters a-z, digits and dashes"


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
