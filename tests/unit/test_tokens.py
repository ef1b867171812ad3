# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""When registration tokens end, and how they are shown."""

from __future__ import annotations

import datetime

import pytest
from ansible_collections.cae.matrix.plugins.module_utils.synapse import tokens

NOW = datetime.datetime(2026, 11, 22, 12, 0, tzinfo=datetime.UTC)


def end(text: str) -> str:
    return datetime.datetime.fromtimestamp(tokens.expiry_ms(text, NOW) / 1000, datetime.UTC).isoformat()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("48", "2026-11-24T12:00:00+00:00"),
        ("2027-01-31", "2027-01-31T23:59:00+00:00"),
        ("2027-01-31T18:00:00+01:00", "2027-01-31T17:00:00+00:00"),
        ("2027-01-31T18:00", "2027-01-31T18:00:00+00:00"),
    ],
)
def test_ends(text: str, expected: str) -> None:
    assert end(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "0", "-1", "2020-01-01", "2026-11-22T12:00", "1.5", "31/01/2027"])
def test_no_end_at_all(text: str) -> None:
    with pytest.raises(ValueError, match=r"neither|not in the future"):
        tokens.expiry_ms(text, NOW)


def test_report() -> None:
    token = {"token": "abc", "uses_allowed": 3, "completed": 1, "pending": 1, "expiry_time": 1798761599000}
    assert tokens.report("a.test", "list", [token], False) == (
        "a.test:\nabc: 1 of 3 used, 1 under way, until 2026-12-31 23:59 UTC"
    )
    assert tokens.report("a.test", "list", [], False) == "a.test: no registration tokens"
    assert tokens.report("a.test", "revoke", [], True) == "a.test: revoked"
    assert tokens.report("a.test", "revoke", [], False) == "a.test: was not there"
