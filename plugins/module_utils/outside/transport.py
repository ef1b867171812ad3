# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where a token or a password may travel, and who vouches for the other end: one rule for every client of ours."""

from __future__ import annotations

import ipaddress
import os
import ssl
import urllib.parse


class BadCaFile(Exception):
    """The file holds no CA that can be used; the text says why."""


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own, whatever DNS says.

    >>> is_loopback("localhost"), is_loopback("::1"), is_loopback("127.0.0.1.nip.io")
    (True, True, False)
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def token_problem(url: str) -> tuple[str, str] | None:
    """Why no token may be sent to this address, and what to do. None if it may: https, or http within the machine.

    >>> token_problem("https://matrix.example.coop"), token_problem("http://[::1]:8008")
    (None, None)
    >>> token_problem("http://localhost@evil.example")[0]
    'http://localhost@evil.example is no address of a homeserver.'
    """
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname or ""
        usable = parts.scheme in ("http", "https") and host and "@" not in parts.netloc and parts.port != 0
    except ValueError:
        usable, host = False, ""
    if not usable or parts.query or parts.fragment:
        return f"{url} is no address of a homeserver.", "Write it as https://matrix.example.coop."
    if parts.scheme == "http" and not is_loopback(host):
        return (
            f"{url} would carry the administrator's token in clear text.",
            "Use https://, or http://localhost on the machine itself or through an SSH tunnel.",
        )
    return None


def tls_context(ca_file: str | None = None) -> ssl.SSLContext:
    """Trusts the system's CAs, and those of a file in addition to them."""
    context = ssl.create_default_context()
    # Python 3.13 checks more strictly than 3.11 and than browsers; the verdict must not depend on the version.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file:
        try:
            context.load_verify_locations(cafile=os.path.expanduser(ca_file))
        except OSError as error:
            why = "it holds no certificate in PEM" if isinstance(error, ssl.SSLError) else error.strerror
            raise BadCaFile(f"The CA file {ca_file} cannot be used: {why}.") from None
    return context
