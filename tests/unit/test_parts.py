# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The runner of the tests: what it reads, what it chooses, what it says of a failure."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys

import pytest
from ansible_collections.cae.matrix.tests import parts
from ansible_collections.cae.matrix.tests.parts import Case, Part, Result, Wrong
from ansible_collections.cae.matrix.tests.patience import START, eventually, patient

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = """# Testing

## Parts and budgets

Some words.

| part | pairs | budget | what it proves |
|---|---|---|---|
| lint | | 60 | style |
| unit | 2.19 2.21 | 90 | rules |
| `gate` | 2.19/12 | 420 | the gate |
| default | 2.19/12, 2.21/13 | 240 | the whole |

## Controllers

| not | this | one | either |
"""
SCENARIOS = ["default", "gate"]


def table() -> list[Part]:
    return parts.read_table(PAGE, SCENARIOS)


def test_the_table_gives_the_parts_in_its_order() -> None:
    assert [part.id for part in table()] == [
        "lint",
        "unit-2.19",
        "unit-2.21",
        "molecule-2.19-12-gate",
        "molecule-2.19-12-default",
        "molecule-2.21-13-default",
    ]
    assert table()[3] == Part("gate", "2.19/12", 420, "the gate")


@pytest.mark.parametrize(
    ("page", "scenarios", "cause"),
    [
        (PAGE, [*SCENARIOS, "acme"], "molecule/acme has no row"),
        (PAGE, ["default"], "a row 'gate', but there is no molecule/gate/molecule.yml"),
        (PAGE.replace("| 420 |", "| long |"), SCENARIOS, "gate: the budget 'long'"),
        (PAGE.replace("| 2.19/12 | 420", "| 2.18/12 | 420"), SCENARIOS, "gate: '2.18/12' is none of 2.19/12"),
        (PAGE.replace("| 2.19/12 | 420", "| | 420"), SCENARIOS, "gate: 'no pair' is none of"),
        (PAGE.replace("| 2.19 2.21 |", "| 2.19/12 |"), SCENARIOS, "unit: '2.19/12' is none of 2.19, 2.21"),
        (PAGE.replace("| | 60 |", "| 2.19 | 60 |"), SCENARIOS, "lint: '2.19'"),
        (PAGE.replace("| style |", "| style | more |"), SCENARIOS, "a row of 5 cells"),
        (PAGE.replace("| budget |", "| seconds |"), SCENARIOS, "a table with the columns part, pairs, budget"),
        ("# Another page", SCENARIOS, "'## Parts and budgets'"),
    ],
)
def test_a_table_that_is_wrong_is_refused_with_the_row(page: str, scenarios: list[str], cause: str) -> None:
    with pytest.raises(Wrong) as refused:
        parts.read_table(page, scenarios)
    assert cause in str(refused.value)


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        ([], 6),
        (["unit"], ["unit-2.19", "unit-2.21"]),
        (["unit-2.21", "lint"], ["unit-2.21", "lint"]),
        (
            ["default", "molecule-2.19"],
            ["molecule-2.19-12-default", "molecule-2.21-13-default", "molecule-2.19-12-gate"],
        ),
        (["molecule-2.19-12-gate"], ["molecule-2.19-12-gate"]),
    ],
)
def test_parts_are_chosen_by_name_id_or_beginning(words: list[str], chosen: int | list[str]) -> None:
    found = [part.id for part in parts.chosen(table(), words)]
    assert found == chosen or len(found) == chosen


def test_a_part_that_nobody_knows_is_refused_with_those_there_are() -> None:
    with pytest.raises(Wrong, match=r"'gat'; there are lint, unit-2\.19"):
        parts.chosen(table(), ["gat"])


def test_the_cross_has_every_scenario_in_every_pair_once() -> None:
    crossed = [part.id for part in parts.crossed(table())]
    assert len(crossed) == len(set(crossed)) == 1 + 2 + 4 + 4
    assert set(crossed) > {part.id for part in table()}


def test_the_page_of_the_collection_and_the_forges_agree() -> None:
    for name in parts.FORGES:
        text = (ROOT / name).read_text(encoding="utf-8")
        assert parts.with_jobs(text, parts.table()) == text, f"{name}: run `make forges`"
        assert all(f"- {part.id}\n" in text for part in parts.table())


JUNIT = """<?xml version="1.0"?><testsuites><testsuite tests="4">
<testcase classname="tests.unit.test_one" name="test_good" time="1.5"/>
<testcase classname="tests.unit.test_one" name="test_skipped" time="0"><skipped message="no Node.js"/></testcase>
<testcase classname="tests.unit.test_one" name="test_bad" time="0.25"><failure message="AssertionError: no"
>def test_bad():
&gt;       helper(1)

tests/unit/test_one.py:12:
_ _ _

    def helper(n):
&gt;       assert n == 2, "words"
E       AssertionError: words
E       assert 1 == 2

tests/unit/helpers.py:40: AssertionError</failure></testcase>
<testcase classname="" name="tests.unit.test_two" time="0"
><error message="collection failure">E   SyntaxError: bad</error></testcase>
</testsuite></testsuites>
"""


def test_a_report_tells_which_line_failed(tmp_path: pathlib.Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(JUNIT)
    cases = parts.read_junit(report)
    assert [(case.outcome, case.seconds) for case in cases] == [
        ("passed", 1.5),
        ("skipped", 0),
        ("failed", 0.25),
        ("failed", 0),
    ]
    assert parts.causes("", cases) == [
        "tests/unit/test_one.py:12: test_bad: AssertionError: words",
        "tests.unit.test_two: tests.unit.test_two: SyntaxError: bad",
    ]
    in_scenario = Case("tests/test_gate::test_it", 1, "failed", "tests/test_gate.py:3: AssertionError")
    assert parts.causes("", [in_scenario], "molecule/gate")[0].startswith(
        "molecule/gate/tests/test_gate.py:3: test_it: "
    )
    assert parts.read_junit(tmp_path / "absent.xml") == []
    report.write_text("cut off <")
    assert parts.read_junit(report) == []


ANSIBLE = """
TASK [Look at what may be absent] **********************************************
fatal: [atelier]: FAILED! => {"msg": "not there"}
...ignoring

TASK [cae.matrix.synapse : Start Synapse] ***************************************
[ERROR]: Task failed: Module failed: Unable to start service
Origin: /collection/roles/synapse/tasks/main.yml:75:3

73
75 - name: Start Synapse
     ^ column 3

fatal: [atelier]: FAILED! => changed=false
  msg: Unable to start service

PLAY RECAP *********************************************************************
"""


def test_the_log_of_a_run_tells_which_task_failed() -> None:
    assert parts.causes(ANSIBLE, []) == [
        "/collection/roles/synapse/tasks/main.yml:75:3: TASK [cae.matrix.synapse : Start Synapse]: "
        "Task failed: Module failed: Unable to start service"
    ]


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("ok\nroles/a.yml:3:1: \x1b[31myaml[indent]\x1b[0m wrong\nnox > x\n", ["roles/a.yml:3:1: yaml[indent] wrong"]),
        (
            "meta/a.yml:3:5: [colons]\n  error: too many\n3 | a:  b\nplugins/b.py:\n  wrong\nnox > Session y failed.\n",
            ["meta/a.yml:3:5: [colons] error: too many", "plugins/b.py: wrong", "Session y failed."],
        ),
        ("[DEPRECATION WARNING]: old\nok\n", ["[DEPRECATION WARNING]: old"]),
        ("one\ntwo\n\nthree\nfour\n", ["two", "", "three", "four"][-3:]),
        ("", ["it said nothing"]),
        ("\n".join(f"a.py:{n}: no" for n in range(9)), [*(f"a.py:{n}: no" for n in range(6)), "and 3 more"]),
    ],
)
def test_other_failures_leave_what_tells_most(log: str, said: list[str]) -> None:
    assert parts.causes(log, []) == said


def test_the_summary_tells_budgets_failures_and_the_sum() -> None:
    gate, lint, unit = Part("gate", "2.19/12", 10), Part("lint", "", 60), Part("unit", "2.19", 90)
    cases = [
        Case("test_one", 3, "passed"),
        Case("test_two", 5, "failed", "x.py:1: E"),
        Case("test_three", 0, "skipped", "why"),
    ]
    results = [
        Result(gate, "failed", 12, cases, ["x.py:1: test_two: no"]),
        Result(lint, "failed", 5, [], ["y.yml:3: wrong"]),
        Result(unit, "passed", 5, cases[:1] * 11, []),
    ]
    lines = parts.summary(results, 0, 22)
    text = "\n".join(lines)
    # The scenario counts itself, besides its tests; what has no report counts as one.
    assert lines[-1] == "12 passed, 3 failed"
    assert "gate 2.19/12                   12 s of 10  failed  over its budget" in lines
    assert text.count("over its budget") == 1
    assert lines[lines.index("==> the slowest tests") + 1] == "    5.0 s  gate 2.19/12  test_two"
    assert sum(line.startswith("    ") and " s  " in line for line in lines) == 10
    assert "gate 2.19/12: why" in lines
    assert "==> packets to names outside: 0" in lines
    assert "    x.py:1: test_two: no" in lines
    assert "    y.yml:3: wrong" in lines
    assert parts.summary(results[2:], None, 5)[-2:] == [
        "==> packets to names outside: not counted",
        "11 passed, 0 failed",
    ]


# A runner of its own, with parts that are programs of this test.
RUNNER = """
import pathlib, sys
sys.path.insert(0, {tests!r})
import parts
here = pathlib.Path({here!r})
parts.REPORTS = here
parts.SETUP = ("easy", "hard")
parts.SET_UP = str(here / "setup")
class Program(parts.Part):
    id = property(lambda part: part.name)
    needs = property(lambda part: "hard" if part.name == "needy" else "easy")
    limit = property(lambda part: 2 if part.name == "hung" else 600)
    def command(self): return ["sh", str(here / self.name)]
    def environment(self): return {{}}
results = parts.Run([Program(name, "", budget) for name, budget in {wanted!r}], 2).all()
print(*sorted(f"{{result.part.name}}={{result.outcome}}" for result in results))
print(*(cause for result in results for cause in result.causes if result.part.name == "hung"))
"""


def runner(here: pathlib.Path, *names: str, **scripts: str) -> subprocess.Popen[str]:
    for name, script in {"easy": "true", "hard": "true", **scripts}.items():
        (here / name).write_text(script)
    (here / "setup").write_text(f"#!/bin/sh\n. {here}/$1\n")
    (here / "setup").chmod(0o755)
    wanted = [(name, 10 - number) for number, name in enumerate(names)]
    program = RUNNER.format(tests=str(ROOT / "tests"), here=str(here), wanted=wanted)
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)


def test_one_that_fails_stops_no_other(tmp_path: pathlib.Path) -> None:
    said, _ = runner(tmp_path, "one", "two", "three", one="exit 3", two="true", three="echo done").communicate()
    assert said.splitlines()[-2] == "one=failed three=passed two=passed"
    assert (tmp_path / "three.log").read_text() == "done\n"


def test_parts_begin_while_the_set_up_of_others_goes_on_and_fail_with_it(tmp_path: pathlib.Path) -> None:
    # The hard step waits for the easy part: a barrier between set-up and parts would never end.
    scripts = {
        "hard": f"until [ -e {tmp_path}/seen ]; do sleep 0.05; done; echo no room; exit 1",
        "quick": f"touch {tmp_path}/seen",
    }
    said, _ = runner(tmp_path, "needy", "quick", needy="true", **scripts).communicate()
    assert said.splitlines()[-2] == "needy=failed quick=passed"
    assert "no room" in (tmp_path / "needy.log").read_text()


def test_a_signal_ends_the_parts_in_their_own_way(tmp_path: pathlib.Path) -> None:
    long = f"trap 'touch {tmp_path}/removed; exit 1' TERM; touch {tmp_path}/begun; while :; do sleep 0.05; done"
    running = runner(tmp_path, "long", "next", long=long, next=long.replace("removed", "other"))
    eventually(lambda: (tmp_path / "begun").exists(), "the part begins", START)
    os.kill(running.pid, signal.SIGTERM)
    running.communicate()
    assert running.returncode != 0
    assert (tmp_path / "removed").exists()


def test_a_part_that_waits_forever_is_ended_and_the_others_go_on(tmp_path: pathlib.Path) -> None:
    hung = f"trap 'touch {tmp_path}/removed; exit 0' TERM; echo the last words; while :; do sleep 0.05; done"
    said, _ = runner(tmp_path, "hung", "next", hung=hung, next="true").communicate()
    assert said.splitlines()[-2] == "hung=failed next=passed"
    assert "ended after 2 s" in said.splitlines()[-1]
    assert "the last words" in said.splitlines()[-1]
    assert (tmp_path / "removed").exists()


def test_a_run_whose_time_is_over_says_which_parts_it_did_not_begin(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MATRIX_TEST_LIMIT", "1.5")
    hung = "while :; do sleep 0.05; done"
    said, _ = runner(tmp_path, "one", "two", "late", one=hung, two=hung, late="true").communicate()
    assert said.splitlines()[-2] == "late=failed one=failed two=failed"
    assert "not begun" in (tmp_path / "late.log").read_text()


def test_what_a_part_leaves_running_does_not_hold_up_the_run(tmp_path: pathlib.Path) -> None:
    # It has its output, in a session of its own: to wait for the end of that output is to wait for it.
    begun = f"until [ -s {tmp_path}/left ]; do sleep 0.05; done"
    left = f"setsid sh -c 'echo $$ > {tmp_path}/left; exec sleep 600' & {begun}"
    try:
        said, _ = runner(tmp_path, "leaves", leaves=left).communicate(timeout=patient(START))
    finally:
        os.kill(int((tmp_path / "left").read_text()), signal.SIGKILL)
    assert said.splitlines()[-2] == "leaves=passed"
