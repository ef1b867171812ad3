# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Registration tokens: when they end, and how they are shown. Pure functions."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from typing import Any

TOKEN = re.compile(r"[A-Za-z0-9._~-]{1,64}")
_HOURS = re.compile(r"[0-9]{1,6}")


def expiry_ms(text: str, now: datetime.datetime) -> int:
    """Milliseconds since 1970 for hours from now, or a date; a date without a time is its last minute, in UTC.

    >>> expiry_ms("1", datetime.datetime.fromtimestamp(0, datetime.UTC))
    3600000
    """
    text = text.strip()
    if _HOURS.fullmatch(text):
        end = now + datetime.timedelta(hours=int(text))
    else:
        try:
            end = datetime.datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(
                f'"{text}" is neither hours (48) nor a date (2027-01-31, 2027-01-31T18:00:00+01:00)'
            ) from None
        if "T" not in text and " " not in text:
            end = end.replace(hour=23, minute=59)
        if end.tzinfo is None:
            end = end.replace(tzinfo=datetime.UTC)
    if end <= now:
        raise ValueError(f'"{text}" is not in the future')
    return int(end.timestamp() * 1000)


def line(token: Mapping[str, Any]) -> str:
    """One token, for people.

    >>> line({"token": "abc", "uses_allowed": 3, "completed": 1, "pending": 0, "expiry_time": None})
    'abc: 1 of 3 used, no end'
    """
    uses = token["uses_allowed"]
    used = f"{token['completed']} of {'any number' if uses is None else uses} used"
    if token["pending"]:
        used += f", {token['pending']} under way"
    end = token["expiry_time"]
    if end is None:
        return f"{token['token']}: {used}, no end"
    when = datetime.datetime.fromtimestamp(end / 1000, datetime.UTC)
    return f"{token['token']}: {used}, until {when:%Y-%m-%d %H:%M} UTC"


def report(domain: str, action: str, tokens: Sequence[Mapping[str, Any]], changed: bool) -> str:
    """What the playbook shows."""
    if action == "revoke":
        return f"{domain}: {'revoked' if changed else 'was not there'}"
    if not tokens:
        return f"{domain}: no registration tokens"
    return "\n".join([f"{domain}:", *(line(token) for token in tokens)])
