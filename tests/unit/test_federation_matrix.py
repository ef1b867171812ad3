# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who may talk to whom after everybody's policy, and the table of who does."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.cae.matrix.plugins.filter.federation_matrix import federation_matrix
from ansible_collections.cae.matrix.plugins.filter.federation_peers import federation_peers
from ansible_collections.cae.matrix.plugins.module_utils.federation.policy import policy
from ansible_collections.cae.matrix.tests.patience import cpu_at_most

PROFILES = {
    "hub.example": "federation",
    "open.example": "open",
    "closed.example": "federation",
    "inside.example": "internal",
}
LIST: dict[str, Any] = {
    "hub": "hub.example",
    "members": [{"name": domain, "domain": domain, "profile": profile} for domain, profile in PROFILES.items()],
}
OUTSIDER = policy("open", {}, "outside.example")
OK_ROW = {"expected": True, "outcome": "reached", "state": "ok", "step": "backoff", "seen": "", "cause": "", "mend": ""}


def asked(domain: str, policies: dict[str, Any], others: list[str] | None = None) -> dict[str, str]:
    """Why each is not to be reached; empty where it is."""
    found = federation_peers(domain, policies, LIST, others or [])
    assert all(one["expected"] == (one["why"] == "") for one in found)
    return {one["domain"]: one["why"] for one in found}


def everybody() -> dict[str, Any]:
    known = {domain: policy(profile, LIST, domain) for domain, profile in PROFILES.items()}
    return {**known, "outside.example": OUTSIDER}


def test_both_policies_have_to_agree() -> None:
    policies = everybody()
    expected = {
        frozenset(pair)
        for pair in (
            ("hub.example", "open.example"),
            ("hub.example", "closed.example"),
            ("open.example", "closed.example"),
            ("open.example", "outside.example"),
        )
    }
    reached = {(one, other) for one in policies for other, why in asked(one, policies).items() if not why}
    assert {frozenset(pair) for pair in reached} == expected
    assert len(reached) == 2 * len(expected)
    assert asked("open.example", policies)["inside.example"] == "inside.example is internal"
    assert asked("closed.example", policies)["outside.example"] == (
        "closed.example talks to members only, and outside.example is none of its"
    )


def test_of_members_elsewhere_the_list_tells_as_much() -> None:
    mine = {"open.example": policy("open", LIST, "open.example")}
    assert asked("open.example", mine) == {
        "hub.example": "",
        "closed.example": "",
        "inside.example": "inside.example is internal",
    }
    stranger = {"outside.example": OUTSIDER}
    assert asked("outside.example", stranger)["closed.example"].startswith("closed.example talks to members only")
    assert asked("outside.example", stranger)["open.example"] == ""


def test_further_names_are_asked_and_denied_ones_refused() -> None:
    mine = {"open.example": policy("open", LIST, "open.example", denied=["*.bad.example"])}
    found = asked("open.example", mine, ["matrix.org", "a.bad.example", "hub.example", "open.example"])
    assert found["matrix.org"] == found["hub.example"] == ""
    assert found["a.bad.example"] == "open.example denies a.bad.example"
    assert list(found).count("hub.example") == 1
    assert "open.example" not in found


@pytest.mark.parametrize("others", ["matrix.org", ["https://matrix.org"], ["Matrix.org"]])
def test_a_wrong_name_is_refused_with_its_variable(others: Any) -> None:
    with pytest.raises(AnsibleFilterError, match="verify_peers: "):
        federation_peers("open.example", {}, {}, others)


def test_five_hundred_members_are_no_wait() -> None:
    members = [{"name": str(n), "domain": f"m{n}.example", "profile": "federation"} for n in range(500)]
    listed = {"hub": "m0.example", "members": members}
    with cpu_at_most(2):
        found = federation_peers("m1.example", {"m1.example": policy("federation", listed, "m1.example")}, listed)
    assert len(found) == 499
    assert all(one["expected"] for one in found)


def result(domain: str, rows: dict[str, dict[str, Any]], **more: Any) -> dict[str, Any]:
    peers = [{"domain": name, "expected": row.get("expected", True), "why": ""} for name, row in rows.items()]
    found = {"rows": [{"domain": name, **OK_ROW, **row} for name, row in rows.items()]}
    return {"domain": domain, "peers": peers, "found": found, "failure": "", **more}


GAP = {"state": "FAIL", "outcome": "failed", "step": "version", "cause": "It has expired.", "mend": "Renew it."}


def test_the_matrix() -> None:
    report = federation_matrix(
        [
            result("a.example", {"b.example": {}, "c.example": {"expected": False, "outcome": "refused here"}}),
            result("b.example", {"a.example": GAP, "c.example": {"state": "warn", "cause": "Soon.", "mend": "Do."}}),
        ]
    )
    assert report["counts"] == {"ok": 1, "warn": 1, "refused": 1, "gap": 1}
    assert report["ok"] is False
    assert report["gaps"] == {"b.example": ["a.example"]}
    assert report["table"] == [
        "Who reaches whom: 4 asked, 2 reached, 1 refused as declared, 1 not as it should be",
        "",
        "FROM \\ TO      1    2    3",
        "1 a.example    -   ok   no",
        "2 b.example  GAP    -  ok!",
        "3 c.example    (asked by the others only)",
        "",
        "ok reached, ok! reached, with a warning below, no refused, as declared, GAP not as it should be, see below",
        "",
        "GAP   b.example -> a.example  (version)",
        "    cause  It has expired.",
        "    mend   Renew it.",
        "",
        "warn  b.example -> c.example  (backoff)",
        "    cause  Soon.",
        "    mend   Do.",
    ]
    assert report["pairs"][2] == {"from": "b.example", "to": "a.example", "expected": True, "seen": "", **GAP}


@pytest.mark.parametrize(
    ("more", "cause"),
    [
        ({"found": {"unreachable": True, "msg": "ssh: no route"}}, "its machine cannot be reached: ssh: no route"),
        ({"found": {}, "failure": "The key is gone."}, "a.example could not be asked: The key is gone."),
        ({"found": {}}, "could not be asked: it was not asked"),
    ],
)
def test_who_could_not_be_asked_has_its_row_all_the_same(more: dict[str, Any], cause: str) -> None:
    peers: dict[str, dict[str, Any]] = {"b.example": {}, "c.example": {"expected": False}}
    report = federation_matrix([result("a.example", peers, **more), result("b.example", {"a.example": {}})])
    assert [pair["state"] for pair in report["pairs"]] == ["FAIL", "FAIL", "ok"]
    assert [line for line in report["table"] if line.startswith("GAP ")] == ["GAP   a.example -> everybody"]
    assert cause in report["pairs"][0]["cause"]
    assert report["pairs"][0]["mend"]
    assert not report["ok"]


def test_a_hundred_members_are_counted_not_drawn() -> None:
    names = [f"member-{number}.example" for number in range(100)]
    results = [result(one, {other: {} for other in names if other != one}) for one in names]
    results[7]["found"]["rows"][3] |= GAP
    with cpu_at_most(2):
        table = federation_matrix(results)["table"]
    assert len(table) < 110
    assert max(map(len, table)) <= 110
    assert table[0].startswith("Who reaches whom: 9900 asked, 9899 reached, 0 refused as declared, 1 not")
    assert [line.split() for line in table if line.startswith("member-7.example ")] == [
        ["member-7.example", "98", "0", "1"]
    ]
    assert "GAP   member-7.example -> member-3.example  (version)" in table


def test_nobody_to_ask() -> None:
    assert federation_matrix([]) == {
        "pairs": [],
        "counts": {"ok": 0, "warn": 0, "refused": 0, "gap": 0},
        "ok": True,
        "gaps": {},
        "table": ["Who reaches whom: nobody to ask."],
    }
