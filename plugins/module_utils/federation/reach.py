# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who may talk to whom after everybody's policy, and who does reach whom, as a table.

Pure functions, used by the filters C(federation_peers) and C(federation_matrix).
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.cae.matrix.plugins.module_utils.federation.policy import policy
from ansible_collections.cae.matrix.plugins.module_utils.matrix.server_names import matches

# More columns than that do not fit; gaps and counts say the same.
COLUMNS = 12
WIDTH = 110
NOT_ASKED = "not asked"
MARKS = {"ok": "ok", "warn": "ok!", "refused": "no", "gap": "GAP", "self": "-", "unasked": "."}
LEGEND = {
    "ok": "reached",
    "warn": "reached, with a warning below",
    "refused": "refused, as declared",
    "gap": "not as it should be, see below",
    "unasked": "not asked from there",
}


def wanted(
    domain: str, policies: Mapping[str, Mapping[str, Any]], members: Mapping[str, Any], others: Iterable[str]
) -> list[dict[str, Any]]:
    """The servers that `domain` should ask, and whether they may talk.

    Args:
        domain: the server that asks.
        policies: the policy of each server of the inventories, by its domain.
        members: the list of members; empty without one.
        others: names of further servers.

    >>> open = {"profile": "open", "federates": True, "allowed": None, "denied": ["b.example"]}
    >>> wanted("a.example", {"a.example": open}, {}, ["b.example"])
    [{'domain': 'b.example', 'expected': False, 'why': 'a.example denies b.example'}]
    """
    listed = _listed(members)
    known = {**listed, **policies}
    asked = [name for name in dict.fromkeys([*policies, *listed, *others]) if name != domain]
    found = []
    for name in asked:
        why = _refusal(domain, known.get(domain), name) or _refusal(name, known.get(name), domain)
        found.append({"domain": name, "expected": not why, "why": why})
    return found


def _listed(members: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The policies of members whose inventory is not here, as far as the list tells them."""
    closed = None
    if any(one["profile"] == "federation" for one in members.get("members", [])):
        closed = frozenset(policy("federation", members, str(members["hub"]))["allowed"])
    return {
        str(one["domain"]): {
            "federates": one["profile"] != "internal",
            "allowed": closed if one["profile"] == "federation" else None,
            "denied": [],
        }
        for one in members.get("members", [])
    }


def _refusal(who: str, its: Mapping[str, Any] | None, whom: str) -> str:
    """Why `who` refuses `whom`; empty when it does not, or nothing is known of it."""
    if not its:
        return ""
    if not its["federates"]:
        return f"{who} is internal"
    if its["allowed"] is not None and whom not in its["allowed"]:
        return f"{who} talks to members only, and {whom} is none of its"
    if any(matches(glob, whom) for glob in its["denied"]):
        return f"{who} denies {whom}"
    return ""


def pairs(results: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One entry for each direction that was asked, and for each host that could not ask."""
    return [pair for result in results for pair in _pairs(result)]


def _pairs(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    source, found = str(result["domain"]), result.get("found") or {}
    rows = found.get("rows")
    error = str(result.get("failure") or found.get("msg") or "it was not asked: the output of the playbook says why")
    mend = "Mend that, and see that the instance is up; then look again."
    if found.get("unreachable"):
        error = f"its machine cannot be reached: {error}"
        mend = "Check ansible_host, SSH and its keys; then look again."
    asked = {row["domain"]: row for row in rows or []}
    for peer in result["peers"]:
        row = asked.get(peer["domain"])
        if row is None:
            yield {
                "from": source,
                "to": peer["domain"],
                "expected": peer["expected"],
                "outcome": NOT_ASKED,
                "state": "FAIL",
                "step": "",
                "seen": "",
                "cause": f"{source} could not be asked: {error}",
                "mend": mend,
            }
        else:
            told = ("expected", "outcome", "state", "step", "seen", "cause", "mend")
            yield {"from": source, "to": peer["domain"], **{key: row[key] for key in told}}


def counts(found: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many pairs are in each of the states of the table.

    >>> counts([])
    {'ok': 0, 'warn': 0, 'refused': 0, 'gap': 0}
    """
    return {kind: sum(_kind(pair) == kind for pair in found) for kind in ("ok", "warn", "refused", "gap")}


def gaps(found: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """For each server that has gaps, where to.

    >>> gaps([{"from": "a.example", "to": "b.example", "state": "FAIL"}])
    {'a.example': ['b.example']}
    """
    by_source: dict[str, list[str]] = {}
    for pair in found:
        if pair["state"] == "FAIL":
            by_source.setdefault(pair["from"], []).append(pair["to"])
    return by_source


def _kind(pair: Mapping[str, Any]) -> str:
    if pair["state"] == "FAIL":
        return "gap"
    if not pair["expected"]:
        return "refused"
    return "warn" if pair["state"] == "warn" else "ok"


def table(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Who reaches whom, for a terminal: a matrix while it fits, then a line for each gap with its cause and mend."""
    if not found:
        return ["Who reaches whom: nobody to ask."]
    number = counts(found)
    lines = [
        f"Who reaches whom: {len(found)} asked, {number['ok'] + number['warn']} reached, {number['refused']} refused as"
        f" declared, {number['gap']} not as it should be",
        "",
    ]
    sources = list(dict.fromkeys(pair["from"] for pair in found))
    names = list(dict.fromkeys([*sources, *(pair["to"] for pair in found)]))
    cells = {(pair["from"], pair["to"]): _kind(pair) for pair in found}
    lines += _matrix(sources, names, cells) if len(names) <= COLUMNS else _totals(sources, found)
    silent = set()
    for pair in found:
        if not pair["cause"] or pair["from"] in silent:
            continue
        to = pair["to"]
        if pair["outcome"] == NOT_ASKED:
            # One cause for all of them.
            silent.add(pair["from"])
            to = "everybody"
        mark = "GAP " if pair["state"] == "FAIL" else "warn"
        head = f"{mark}  {pair['from']} -> {to}"
        lines += ["", f"{head}  ({pair['step']})" if pair["step"] else head]
        lines += _wrapped("cause", pair["cause"]) + _wrapped("mend", pair["mend"])
    return lines


def _matrix(sources: Sequence[str], names: Sequence[str], cells: Mapping[tuple[str, str], str]) -> list[str]:
    labels = [f"{number} {name}" for number, name in enumerate(names, start=1)]
    first = max(len("FROM \\ TO"), *map(len, labels))
    lines = ["FROM \\ TO".ljust(first) + "".join(f"{number:>5}" for number in range(1, len(names) + 1))]
    used = set()
    for name, label in zip(names, labels, strict=True):
        kinds = ["self" if name == other else cells.get((name, other), "unasked") for other in names]
        if name in sources:
            used |= set(kinds)
            lines.append(label.ljust(first) + "".join(f"{MARKS[kind]:>5}" for kind in kinds))
        else:
            lines.append(f"{label.ljust(first)}    (asked by the others only)")
    legend = ", ".join(f"{MARKS[kind]} {words}" for kind, words in LEGEND.items() if kind in used)
    return [*lines, "", *textwrap.wrap(legend, WIDTH)]


def _totals(sources: Sequence[str], found: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [("FROM", "REACHED", "REFUSED", "GAPS")]
    for source in sources:
        number = counts([pair for pair in found if pair["from"] == source])
        reached = number["ok"] + number["warn"]
        rows.append((source, str(reached), str(number["refused"]), str(number["gap"])))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _wrapped(label: str, text: str) -> list[str]:
    begin = f"    {label:<5}  "
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=begin,
        subsequent_indent=" " * len(begin),
        break_long_words=False,
        break_on_hyphens=False,
    )
