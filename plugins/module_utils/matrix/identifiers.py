# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Identifiers of people, rooms and aliases, as the Matrix specification writes them, and the gate's own among them."""

from __future__ import annotations

import re

SERVICE_ACCOUNT = re.compile(r"@encryption-gate(-[0-9]+)?:(?P<domain>.+)")
LOCALPART = re.compile(r"[a-z0-9.=/+-][a-z0-9._=/+-]*")


def server_of(identifier: str) -> str:
    """The server of a person or an alias: the part after the first colon.

    >>> server_of("@a:b.test:8448"), server_of("!hash")
    ('b.test:8448', '')
    """
    return identifier.partition(":")[2]


def is_service_account(user_id: object, domain: str | None = None) -> bool:
    """Whether this is a name that the gate's own account, or a successor, has.

    >>> is_service_account("@encryption-gate-2:a.test", "a.test"), is_service_account("@encryption-gates:a.test")
    (True, False)
    """
    found = SERVICE_ACCOUNT.fullmatch(user_id) if isinstance(user_id, str) else None
    return found is not None and domain in (None, found["domain"])
