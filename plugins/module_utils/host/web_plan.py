# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether an instance's site can be added to what a machine serves already, and what it needs for that.

Pure; the machine was looked at by C(machine_web).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Any

# What nginx has unless told otherwise on the processors of servers; then what a file of ours says.
BUCKETS = (64, 128, 256, 512)
_EMAIL = re.compile(r"[^@\s,;<>]+@[^@\s,;<>]+\.[^@\s,;<>.]+")
_VARIABLES = {"domain": "matrix_domain", "hostname": "matrix_hostname", "element": "element_hostname"}

Found = Mapping[str, Any]


def plan(web: Found, declared: Found) -> dict[str, Any]:
    """C(problems), each with its cause and what to do, and C(bucket_size), 0 if nginx's own is enough."""
    problems = list(_variables(declared))
    size = 0
    if declared["mode"] == "nginx" and web:
        problems += [*_site(web, declared), *_claims(web, declared), *_listens(web), *_ports(web)]
        size, small = bucket(web, declared["names"])
        problems += small
    return {"problems": problems, "bucket_size": size}


def _variables(declared: Found) -> Iterator[str]:
    email = str(declared.get("acme_email") or "")
    if email and not _EMAIL.fullmatch(email):
        yield f'reverse_proxy_acme_email: "{email}" is no address: write one, such as ops@example.coop, or none'
    for given in declared.get("trusted_proxies") or []:
        try:
            network = ipaddress.ip_network(str(given))
        except ValueError as error:
            yield (
                f'reverse_proxy_trusted_proxies: "{given}" is no address or network ({error}): write 192.0.2.7 or '
                "192.0.2.0/24"
            )
            continue
        if network.prefixlen == 0:
            yield (
                f'reverse_proxy_trusted_proxies: "{given}" is everybody, and anybody could pass for any address: '
                "write the addresses of the proxies in front"
            )


def _site(web: Found, declared: Found) -> Iterator[str]:
    nginx = web["nginx"]
    if web["site"]:
        yield (
            f"{web['site']} has the name of this instance's site, but was not written by cae.matrix: move it away, or "
            "give the instance another matrix_instance"
        )
    if nginx.get("broken"):
        hint = ""
        if not web["ipv6"] and "socket()" in nginx["broken"]:
            hint = "; this machine has no IPv6: take the lines `listen [::]…` out, of sites-enabled/default too"
        yield f"nginx refuses its configuration as it is: {nginx['broken']}: correct that (`nginx -t`){hint}"
    if not nginx and not web["ipv6"]:
        yield (
            "this machine has no IPv6, and Debian's nginx does not start there with its default site: put an empty one "
            "in its place first (mkdir -p /etc/nginx/sites-enabled && touch /etc/nginx/sites-enabled/default)"
        )
    if nginx.get("sites") is False:
        yield (
            "nginx does not read /etc/nginx/sites-enabled here, as Debian's does: make the directories "
            "/etc/nginx/sites-available and /etc/nginx/sites-enabled, and add "
            "`include /etc/nginx/sites-enabled/*.conf;` to http { } of nginx.conf; or set reverse_proxy_mode: external"
        )
    user, expected = nginx.get("user"), declared["proxy_user"]
    if user and user not in ("root", expected):
        yield (
            f'nginx runs as "{user}" here, and could not reach the instance: set machine_proxy_user: {user} '
            f'(it is "{expected}")'
        )


def _claims(web: Found, declared: Found) -> Iterator[str]:
    nginx = web["nginx"]
    for claim in nginx.get("claims") or []:
        name = claim["name"]
        if name not in declared["names"]:
            continue
        variables = [variable for key, variable in _VARIABLES.items() if declared[key] == name]
        other = f"give {' and '.join(variables)} another name"
        if claim["instance"]:
            yield f'{claim["place"]}: the instance "{claim["instance"]}" of this machine serves {name} as well: {other}'
            continue
        # Its website goes on where it is, and publishes the documents.
        ways = ["set reverse_proxy_well_known: elsewhere"] if variables == ["matrix_domain"] else [other]
        if claim["kind"] == "exact":
            ways += ["take the name out of that file"]
            yield f"{claim['place']}: another site of this machine's nginx serves {name}: {', or '.join(ways)}"
        elif name not in nginx["served"] and name not in declared["names_taken"]:
            ways += ["add it to reverse_proxy_names_taken if that site can do without it"]
            yield (
                f"{claim['place']}: another site of this machine's nginx serves {name} by `{claim['word']}`: "
                f"{', or '.join(ways)}"
            )


def _listens(web: Found) -> Iterator[str]:
    nginx = web["nginx"]
    own = [ipaddress.ip_address(address) for address in web["addresses"]]
    for spot in nginx.get("alone") or []:
        if not spot["address"]:
            yield (
                f"{spot['place']}: `{spot['words']}` holds port {spot['port']} for IPv4 as well, and nginx could not "
                f"open it for this instance: take ipv6only=off out, and add `listen {spot['port']}` beside"
            )
            continue
        address = ipaddress.ip_address(spot["address"])
        if [each for each in own if each.version == address.version] == [address]:
            yield (
                f"{spot['place']}: `{spot['words']}` is for the only address of this machine, and who comes by it "
                f"would get that site under the instance's names as well: write `listen {spot['port']}` there"
            )
    for spot in nginx.get("streams") or []:
        yield (
            f"{spot['place']}: nginx's stream module has port {spot['port']} (`{spot['words']}`): give it another one, "
            "or set reverse_proxy_mode: external"
        )


def _ports(web: Found) -> Iterator[str]:
    programs: dict[str, list[str]] = {}
    for port, program in sorted(web["ports"].items(), key=lambda item: int(item[0])):
        programs.setdefault(program, []).append(port)
    for program, ports in programs.items():
        noun = "ports" if len(ports) > 1 else "port"
        yield (
            f"{noun} {' and '.join(ports)} of this machine: held by {program}, and nginx needs both 80 and 443: set "
            "reverse_proxy_mode: external and use the snippets it makes for your web server, or stop that program"
        )


def bucket(web: Found, names: list[str]) -> tuple[int, list[str]]:
    """How large a bucket of nginx's table of server names has to be set, and why it cannot be.

    >>> bucket({"nginx": {}}, ["a" * 46]), bucket({"nginx": {}}, ["a" * 47])
    ((0, []), (128, []))
    """
    longest = max(map(len, names), default=0)
    needed = next((size for size in BUCKETS if _fits(longest, size)), BUCKETS[-1])
    present = web["nginx"].get("bucket") or []
    for each in present:
        if not each["ours"]:
            if each["size"].isdigit() and int(each["size"]) < needed:
                text = (
                    f"{each['place']}: server_names_hash_bucket_size {each['size']} is too small for a name of "
                    f"{longest} characters: write {needed} there, or choose shorter names"
                )
                return 0, [text]
            return 0, []
    # A neighbour may need it larger: what is there never shrinks.
    there = [int(each["size"]) for each in present if each["size"].isdigit()]
    return (max(needed, BUCKETS[1], *there), []) if there or needed > BUCKETS[0] else (0, [])


def _fits(length: int, size: int) -> bool:
    """nginx keeps a pointer, the length and the name, aligned, and a pointer at the end."""
    return -(-(length + 2) // 8) * 8 + 16 <= size
