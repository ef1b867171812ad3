# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Asking an ACME server for a certificate, with certbot, once the names are known to lead to this machine."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import os
import re
import secrets
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.cae.matrix.plugins.module_utils.host.acme_order import record_of

CHALLENGE = ".well-known/acme-challenge"
LOG = "/var/log/letsencrypt/letsencrypt.log"
# certbot lets one run at a time on a machine: a neighbour's, or the timer's.
_PATIENCE = 240.0
_BUSY = "Another instance of Certbot"
_ANSWER = 10.0
_INSIDE = [ipaddress.ip_network(each) for each in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")]
# What Debian's /etc/hosts gives a machine's own name.
_LOOPBACK = ("127.0.0.1", "127.0.1.1", "::1")
# With one of these, no web server has to show that a name is ours.
_OTHER_WAYS = frozenset(["authenticator", "configurator", "manual", "standalone", "nginx", "apache"])


class AcmeError(Exception):
    """Something a person has to mend; the message says what, and how."""


def by_web(options: Iterable[str]) -> bool:
    """Whether a web server on this machine has to show that the names are ours."""
    return not any(name in _OTHER_WAYS or name.startswith("dns-") for name in options)


@dataclass(frozen=True)
class Order:
    """A certificate that is asked for: where, for which names, and how."""

    name: str
    directory: str
    names: Sequence[str]
    webroot: str
    hook: str
    email: str = ""
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, str]:
        """certbot's configuration: what is secret in it is no argument, which everybody on the machine could read."""
        found: dict[str, object] = {
            "server": self.directory,
            "cert-name": self.name,
            "domains": ",".join(self.names),
            "deploy-hook": self.hook,
            "key-type": "ecdsa",
            "agree-tos": True,
            "non-interactive": True,
            "force-renewal": True,
            "renew-with-new-domains": True,
            **({"email": self.email} if self.email else {"register-unsafely-without-email": True}),
            **({"authenticator": "webroot", "webroot-path": self.webroot} if by_web(self.options) else {}),
            **self.options,
        }
        return {name: "true" if value is True else str(value) for name, value in found.items() if value is not False}


# --- whether the names lead here --------------------------------------------------------------------------------


def resolve(name: str) -> list[str]:
    """The addresses of a name, as the machine sees them."""
    return list(dict.fromkeys(str(info[4][0]) for info in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)))


@dataclass
class Astray:
    """C(wrong): what an ACME server would stumble over. C(unseen): what cannot be told from here."""

    wrong: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)


def look_at_names(
    names: Sequence[str],
    own: Sequence[str],
    resolver: Callable[[str], list[str]] = resolve,
    in_front: bool = False,
) -> tuple[Astray, list[tuple[str, str]]]:
    """What is wrong before anything answers here, and each name with an address that is none of the machine's.

    C(in_front): addresses may be those of another machine's proxy.
    """
    found = Astray()
    elsewhere = []
    for name in names:
        try:
            addresses = resolver(name)
        except OSError as error:
            found.wrong.append(
                f"{name} has no address ({error.strerror}): add an A or AAAA record that leads to this machine"
            )
            continue
        for address in addresses:
            if address in own or address in _LOOPBACK:
                continue
            if ":" in address and not in_front and not any(":" in each for each in own):
                found.wrong.append(
                    f"{_leads(name, address)}, and this machine has no IPv6 address: remove that record, or give the"
                    " machine one"
                )
            else:
                elsewhere.append((name, address))
    return found, elsewhere


def look_at_answers(
    elsewhere: Sequence[tuple[str, str]], own: Sequence[str], webroot: str, port: int = 80, in_front: bool = False
) -> Astray:
    """Whether what answers at addresses that are none of the machine's (a router's, a proxy's) is this machine."""
    found = Astray()
    mine = ", ".join(own)
    with _token(webroot) as token:
        for name, address in elsewhere:
            leads = _leads(name, address)
            status, text = _ask(address, name, token, port)
            if text == token:
                continue
            if status is None and ":" in address:
                found.wrong.append(f"{leads}, where nobody answers, and this machine's are {mine}: correct the record")
            elif status is None:
                # A router that does not lead back from inside looks the same.
                found.unseen.append(f"{leads}, where nobody answers this machine; an ACME server has to reach it there")
            elif 300 <= status < 400:
                found.unseen.append(f"{leads}, where a server sends on to another address; it has to end here")
            elif ":" not in address and _behind_a_router(own):
                # Many a router shows its own pages to those inside, and leads here who comes from outside.
                found.unseen.append(
                    f"{leads}, where another server answers from inside; from outside it has to be this one"
                )
            else:
                found.wrong.append(f"{leads}, where another server answers: let it lead to this machine ({mine})")
    if in_front:
        # A proxy may show itself to those outside only.
        found = Astray(unseen=found.wrong + found.unseen)
    return found


def _behind_a_router(own: Sequence[str]) -> bool:
    """Whether all that this machine has by IPv4 is for inside a network."""
    known = [ipaddress.ip_address(each) for each in own]
    return not any(each.version == 4 and not any(each in network for network in _INSIDE) for each in known)


def _leads(name: str, address: str) -> str:
    return f"the {'AAAA' if ipaddress.ip_address(address).version == 6 else 'A'} record of {name} leads to {address}"


def _ask(address: str, name: str, token: str, port: int) -> tuple[int | None, str]:
    """Status and text of what is served there in place of the token; no status if nobody answers."""
    connection = http.client.HTTPConnection(address, port, timeout=_ANSWER)
    try:
        connection.request("GET", f"/{CHALLENGE}/{token}", headers={"Host": name})
        answer = connection.getresponse()
        return answer.status, answer.read(len(token) + 1).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return None, ""
    finally:
        connection.close()


@contextlib.contextmanager
def _token(webroot: str) -> Iterator[str]:
    """A file where challenges are answered, that has its own name in it."""
    token = f"cae-matrix-{secrets.token_hex(16)}"
    path = Path(webroot, CHALLENGE, token)
    for directory in (path.parent.parent, path.parent):
        if not directory.is_dir():
            directory.mkdir()
            directory.chmod(0o755)
    path.write_text(token, encoding="ascii")
    path.chmod(0o644)
    try:
        yield token
    finally:
        path.unlink(missing_ok=True)


# --- certbot ----------------------------------------------------------------------------------------------------


def obtain(order: Order, record: str) -> None:
    """Have certbot get a certificate, and remember with what it was asked for."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", prefix="cae-matrix-", suffix=".ini") as settings:
        settings.writelines(f"{name} = {value}\n" for name, value in order.settings.items())
        settings.flush()
        command = ["certbot", "certonly", "--config", settings.name]
        deadline = time.monotonic() + _PATIENCE
        while True:
            done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
            if _BUSY not in done.stdout + done.stderr:
                break
            if time.monotonic() > deadline:
                raise AcmeError(f"Another certbot has been running for {_PATIENCE:g} s: wait for it, and run again.")
            time.sleep(1)
    if done.returncode:
        raise AcmeError(reason(f"{done.stdout}\n{done.stderr}"))
    staged = Path(f"{record}.new")
    staged.write_text(json.dumps(record_of(order.directory, order.options)) + "\n", encoding="utf-8")
    os.replace(staged, record)


def reason(said: str) -> str:
    """What matters of what certbot says when it fails."""
    lines = [line.strip() for line in said.splitlines()]
    details = [line for line in lines if re.match(r"(Domain|Type|Detail|Hint): ", line)]
    if not details:
        noise = ("Saving debug log", "Ask for help", "See the logfile", "- - -")
        details = [line for line in lines if line and not line.startswith(noise)][-4:]
    return f"The ACME server gave no certificate: {' '.join(details)} (all of it: {LOG})"
