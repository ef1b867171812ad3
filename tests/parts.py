# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs the parts of the tests that docs/en/testing.md lists, side by side, and says what came out.

All parts share a few places (``MATRIX_TEST_PARALLEL``, else one per core), the longest first, and each begins as soon
as what it needs is set up. One that fails stops no other. What a part prints is kept in ``.cache/reports/<part>.log``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as tree
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
REPORTS = ROOT / ".cache" / "reports"
TABLE = ROOT / "docs" / "en" / "testing.md"
HEADING = "## Parts and budgets"
COLUMNS = ["part", "pairs", "budget", "what it proves"]

CORES = ("2.19", "2.21")
PAIRS = tuple(f"{core}/{debian}" for core in CORES for debian in ("12", "13"))
ALONE = {
    "lint": (
        *("yamllint", "ruff", "mypy", "ansible-lint", "extra-checks", "license-check", "changelog"),
        *("antsibull-nox-config", "mutants-check"),
    ),
    "package": ("package", "build-import-check", "docs-check", "release-check"),
}
"""Parts without a pair, and the sessions of noxfile.py that they are."""
PER_CORE = ("unit", "synapse")

UNIT = {"ANSIBLE_INJECT_FACT_VARS": "0", "PYTHONPATH": str(ROOT / ".ansible" / "collections")}
"""What unit tests find in their environment."""

LATE = 4
"""How many budgets a part may take before it is ended: a part that waits forever must not take the others' results."""
LATE_LEAST = 600.0
"""Seconds that each may take, however small its budget."""
GRACE = 120.0
"""Seconds that a part which is ended has to remove its containers."""
SET_UP_LIMIT = 1800.0
"""Seconds that a step of the set-up may take: the images are made in one."""
HUNG = -1000
"""The exit status of what was ended."""

SET_UP = "tests/setup"
SETUP = ("venv-2.19", "venv-2.21", "services", "collection", "venv-synapse", "browser", "prepared")
"""Its steps, in their order: each may need those before it."""


@dataclasses.dataclass(frozen=True)
class Part:
    """One row of the table, in one of its pairs: `2.19/12` for a scenario, `2.19` for tests without a machine."""

    name: str
    pair: str
    budget: float
    proves: str = ""

    @property
    def scenario(self) -> bool:
        return self.name not in (*ALONE, *PER_CORE)

    @property
    def id(self) -> str:
        """What its reports are called, and what a CI job asks for."""
        if self.scenario:
            return f"molecule-{self.pair.replace('/', '-')}-{self.name}"
        return f"{self.name}-{self.pair}" if self.pair else self.name

    @property
    def label(self) -> str:
        return f"{self.name} {self.pair}".strip()

    @property
    def limit(self) -> float:
        """Seconds after which it is taken for hung."""
        patience = max(1.0, float(os.environ.get("MATRIX_TEST_PATIENCE") or 1))
        return max(LATE_LEAST, LATE * self.budget) * patience

    @property
    def needs(self) -> str:
        """The last step of the set-up without which it cannot begin."""
        if self.scenario:
            return "prepared"
        return "venv-synapse" if self.name == "synapse" else "collection"

    @property
    def home(self) -> str:
        """Where its tests say they are."""
        return f"molecule/{self.name}" if self.scenario else ""

    @property
    def log(self) -> pathlib.Path:
        return REPORTS / f"{self.id}.log"

    @property
    def junit(self) -> pathlib.Path:
        return REPORTS / f"{self.id}.xml"

    def command(self) -> list[str]:
        if self.scenario:
            return ["tests/molecule-run", self.pair, self.name]
        if self.name in ALONE:
            return [sys.executable, "-m", "nox", "-s", *ALONE[self.name]]
        pytest = ["tests/on-core", self.pair, "python", "-m", "pytest", "--junitxml", str(self.junit)]
        pytest += order()
        if self.name == "synapse":
            # Two workers in one place: most of their time is spent waiting for a Synapse.
            return [*pytest, "-m", "synapse", "-n", "2", "--dist", "loadgroup", "tests/unit"]
        return [*pytest, "-m", "not synapse", "tests/unit"]

    def environment(self) -> dict[str, str]:
        if self.name not in PER_CORE:
            return {}
        # What a test needs is there: to skip it would be a lie.
        synapse = ROOT / ".cache" / "venv-synapse" / "bin" / "python"
        return {
            **UNIT,
            "MATRIX_TEST_STRICT": "1",
            **({"SYNAPSE_PYTHON": str(synapse)} if self.name == "synapse" else {}),
        }


def order() -> list[str]:
    """Another order of the unit tests with each commit, the same for each run of one: what is red stays red."""
    asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return [f"--randomly-seed={int(asked.stdout[:8], 16)}"] if asked.returncode == 0 else []


class Wrong(Exception):
    """The table, or what was asked for, is not right; the text says what."""


def read_table(text: str, scenarios: Sequence[str]) -> list[Part]:
    """The parts that a page lists, every scenario among them.

    Raises:
        Wrong: a row that cannot be understood, a scenario without a row, a row without a scenario.
    """
    section = text.partition(f"\n{HEADING}\n")[2].partition("\n## ")[0]
    lines = [line.strip().strip("|") for line in section.splitlines() if "|" in line]
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    if len(rows) < 3 or rows[0] != COLUMNS:
        raise Wrong(f"{HEADING!r} of the page is not followed by a table with the columns {', '.join(COLUMNS)}")
    parts = [part for row in rows[2:] for part in read_row(row)]
    named = {part.name for part in parts}
    rowless = [name for name in scenarios if name not in named]
    wrong = [f"molecule/{name} has no row in the table: add one, with its budget" for name in rowless]
    for name in sorted(named.difference(ALONE, PER_CORE, scenarios)):
        wrong.append(f"the table has a row {name!r}, but there is no molecule/{name}/molecule.yml")
    if wrong:
        raise Wrong("; ".join(wrong))
    return parts


def read_row(row: list[str]) -> Iterator[Part]:
    if len(row) != len(COLUMNS):
        raise Wrong(f"a row of {len(row)} cells instead of {len(COLUMNS)}: {' | '.join(row)}")
    name, pairs, budget, proves = row
    name = name.strip("`")
    known: Sequence[str] = ("",) if name in ALONE else CORES if name in PER_CORE else PAIRS
    for pair in [each.strip(" ,") for each in pairs.split()] or [""]:
        if pair not in known:
            raise Wrong(f"{name}: {pair or 'no pair'!r} is none of {', '.join(known) or 'nothing'}")
        try:
            yield Part(name, pair, float(budget), proves)
        except ValueError:
            raise Wrong(f"{name}: the budget {budget!r} is no number of seconds") from None


def crossed(parts: Sequence[Part]) -> list[Part]:
    """Every scenario in every pair, and what depends on a core with each."""
    rows = {part.name: part for part in reversed(parts)}
    return [
        dataclasses.replace(part, pair=pair)
        for part in reversed(rows.values())
        for pair in (PAIRS if part.scenario else CORES if part.name in PER_CORE else ("",))
    ]


def chosen(parts: Sequence[Part], words: Sequence[str]) -> list[Part]:
    """The parts that are called so: `gate`, `unit-2.19`, `molecule`, `molecule-2.19`, `molecule-2.19-12-gate`."""
    if not words:
        return list(parts)
    found = []
    for word in words:
        matches = [part for part in parts if word in (part.name, part.id) or part.id.startswith(f"{word}-")]
        if not matches:
            raise Wrong(f"no part is called {word!r}; there are {', '.join(part.id for part in parts)}")
        found += [part for part in matches if part not in found]
    return found


def table() -> list[Part]:
    scenarios = sorted(path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml"))
    return read_table(TABLE.read_text(encoding="utf-8"), scenarios)


FORGES = (".github/workflows/tests.yml", ".forgejo/workflows/tests.yml", ".gitlab-ci.yml")


def with_jobs(text: str, parts: Sequence[Part]) -> str:
    """A forge's CI file whose list of jobs is the table's."""
    head, begin, rest = text.partition("# parts\n")
    _, end, tail = rest.partition("# end of parts\n")
    indent = head.rpartition("\n")[2]
    return head + begin + "".join(f"{indent}- {part.id}\n" for part in parts) + indent + end + tail


def write_forges() -> None:
    for name in FORGES:
        path = ROOT / name
        path.write_text(with_jobs(path.read_text(encoding="utf-8"), table()), encoding="utf-8")


# -- What came out


@dataclasses.dataclass
class Case:
    """One test of a report."""

    name: str
    seconds: float
    outcome: str  # passed, failed, skipped
    said: str = ""


def read_junit(path: pathlib.Path) -> list[Case]:
    """The tests of a report, none where there is no report."""
    try:
        root = tree.parse(path).getroot()
    except (OSError, tree.ParseError):
        return []
    cases = []
    for element in root.iter("testcase"):
        name = f"{element.get('classname', '').replace('.', '/')}::{element.get('name', '')}".removeprefix("::")
        case = Case(name, float(element.get("time", 0)), "passed")
        for child in element:
            if child.tag in ("failure", "error"):
                case.outcome, case.said = "failed", child.text or child.get("message") or ""
            elif child.tag == "skipped":
                case.outcome, case.said = "skipped", child.get("message") or ""
        cases.append(case)
    return cases


# Where pytest says that something was called or raised: `tests/test_one.py:12: AssertionError`.
FRAME = re.compile(r"^(\S+/)?(\w+\.py:\d+):(?: |$)", re.M)
# What linters say: `path:12:3: text`, the text or more of it on a line of its own.
COMPLAINT = re.compile(r"^[\w./@-]+\.\w+(?::\d+(?::\d+)?: .+(?:\n  \S.*)?|:\n  \S.*)", re.M)
SESSION = re.compile(r"^nox > (Session \S+ (?:aborted|failed).*)", re.M)
WARNING = re.compile(r"^\[(?:DEPRECATION )?WARNING\].*", re.M)
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def failed_line(case: Case, home: str) -> str:
    """Which line of a test failed, and what it said; its path from the root, also where it ran in a scenario."""
    frames = [(each[2], f"{each[1] or ''}{each[2]}") for each in FRAME.finditer(case.said)]
    # What waits or asks for a test fails in a line of its own, which says little.
    own = [frame for frame in frames if frame[0].startswith("test_")]
    said = [line[1:].strip() for line in case.said.splitlines() if line.startswith("E ")]
    text = said[0] if said else next(iter(case.said.strip().splitlines()), "")
    line = (own or frames or [("", case.name)])[-1][1]
    path = line.partition(":")[0]
    if not (ROOT / path).exists() and (ROOT / home / path).exists():
        line = f"{home}/{line}"
    return f"{line}: {case.name.rpartition('::')[2]}: {text}"


def failed_tasks(log: str) -> list[str]:
    """Which tasks of Ansible failed for good: where they are written, and why."""
    found: list[str] = []
    task = origin = error = ""
    for line in log.splitlines():
        if line.startswith(("TASK [", "RUNNING HANDLER [", "PLAY")):
            task, origin, error = line.rstrip(" *"), "", ""
        elif line.startswith("[ERROR]: "):
            error = line.removeprefix("[ERROR]: ")
        elif line.startswith("Origin: "):
            origin = line.removeprefix("Origin: ")
        elif line.startswith("fatal: "):
            found.append(f"{origin or 'fatal'}: {task}: {error or line}")
        elif line == "...ignoring" and found:
            found.pop()
    # What was rescued stands before what was not.
    return found[-3:]


def causes(log: str, cases: Sequence[Case], home: str = "", most: int = 6) -> list[str]:
    """Why a part failed, the most telling first: tests, tasks, complaints of linters, warnings, last words."""
    log = ESCAPES.sub("", log).replace(f"{ROOT}/", "")
    found = [failed_line(case, home) for case in cases if case.outcome == "failed"]
    complaints = [" ".join(each[0].split()) for each in COMPLAINT.finditer(log)]
    found = found or failed_tasks(log) or complaints + SESSION.findall(log) or WARNING.findall(log)
    found = list(dict.fromkeys(found)) or log.strip().splitlines()[-3:] or ["it said nothing"]
    more = [f"and {len(found) - most} more"] if len(found) > most else []
    return [line[:400] for line in found[:most]] + more


@dataclasses.dataclass
class Result:
    part: Part
    outcome: str  # passed, failed
    seconds: float
    cases: list[Case]
    causes: list[str]

    def count(self) -> tuple[int, int]:
        """Passed and failed: its tests, and the part itself where it is more than its tests, or nothing tells."""
        passed = sum(case.outcome == "passed" for case in self.cases)
        failed = sum(case.outcome == "failed" for case in self.cases)
        if self.outcome == "passed":
            passed += self.part.scenario or not passed
        else:
            failed += self.part.scenario or not failed
        return passed, failed


def summary(results: Sequence[Result], outside: int | None, seconds: float) -> list[str]:
    """What is printed in the end; the last line is the sum."""
    lines = ["==> times"]
    for result in results:
        part = result.part
        over = "  over its budget" if result.seconds > part.budget else ""
        lines.append(f"{part.label:<28}{result.seconds:5.0f} s of {part.budget:.0f}  {result.outcome}{over}")
    lines.append(f"all: {seconds:.0f} s")
    cases = [(case, result.part) for result in results for case in result.cases]
    if cases:
        lines.append("==> the slowest tests")
        slowest = sorted(cases, key=lambda pair: pair[0].seconds, reverse=True)[:10]
        lines += [f"{case.seconds:7.1f} s  {part.label}  {case.name}" for case, part in slowest]
    skipped = sorted({f"{part.label}: {case.said}" for case, part in cases if case.outcome == "skipped"})
    if skipped:
        lines += [f"==> skipped: {sum(case.outcome == 'skipped' for case, _part in cases)}", *skipped]
    lines.append(f"==> packets to names outside: {'not counted' if outside is None else outside}")
    for result in results:
        if result.outcome == "failed":
            lines.append(f"==> {result.part.label} failed")
            lines += [f"    {cause}" for cause in result.causes]
            lines += [f"    {kind}: {path}" for kind, path in kept(result.part)]
    counts = [result.count() for result in results]
    lines.append(f"{sum(passed for passed, _ in counts)} passed, {sum(failed for _, failed in counts)} failed")
    return lines


def kept(part: Part) -> list[tuple[str, pathlib.Path]]:
    paths = [(kind, REPORTS / f"{part.id}.{kind}") for kind in ("log", "journal")]
    return [(kind, path.relative_to(ROOT)) for kind, path in paths if path.exists()]


def packets_outside(parts: Sequence[Part]) -> int | None:
    """What scenarios counted; nothing where none did."""
    paths = [path for part in parts if (path := REPORTS / f"{part.id}.outside").exists()]
    return sum(int(path.read_text()) for path in paths) if paths else None


# -- Running


class Run:
    """Some parts, and the set-up that they need, in as many places as the machine has cores."""

    def __init__(self, parts: Sequence[Part], places: int) -> None:
        self.places = places
        self.waiting = sorted(parts, key=lambda part: part.budget, reverse=True)
        last = max(SETUP.index(part.needs) for part in parts)
        unneeded = set() if any(part.name == "synapse" for part in parts) else {"venv-synapse"}
        self.setup = [step for step in SETUP[: last + 1] if step not in unneeded]
        self.alone = len(parts) == 1
        self.ready: set[str] = set()
        self.broken = False
        self.setting_up = False
        self.changed = threading.Condition()
        self.children: set[subprocess.Popen[bytes]] = set()
        self.stopping = False
        self.results: list[Result] = []
        self.until = time.monotonic() + float(os.environ.get("MATRIX_TEST_LIMIT") or "inf")

    def all(self) -> list[Result]:
        workers = [threading.Thread(target=self.work, daemon=True) for _ in range(self.places)]
        with self.stopped_by_signals():
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        if self.stopping:
            raise KeyboardInterrupt
        return self.results

    @contextlib.contextmanager
    def stopped_by_signals(self) -> Iterator[None]:
        """Children end in their own way, and remove their containers; a second signal does not wait for that."""

        def stop(_number: int, _frame: Any) -> None:
            how = signal.SIGKILL if self.stopping else signal.SIGTERM
            self.stopping = True
            for child in list(self.children):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, how)

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def work(self) -> None:
        while job := self.next():
            job()

    def next(self) -> Callable[[], None] | None:
        """What to do now: the next step of the set-up, else the longest part that can begin; in the end, nothing."""
        with self.changed:
            while not self.stopping:
                if self.setup and not self.setting_up:
                    self.setting_up = True
                    return self.set_up
                for part in self.waiting:
                    if part.needs in self.ready or self.broken:
                        self.waiting.remove(part)
                        return functools.partial(self.run, part)
                if not self.waiting and not self.setup:
                    return None
                # Signals come to the main thread, which cannot wake whoever waits here.
                self.changed.wait(1)
            return None

    def set_up(self) -> None:
        step = self.setup[0]
        begin = time.monotonic()
        with (REPORTS / "setup.log").open("ab") as log:
            good = self.call([SET_UP, step], lambda line: log.write(line), SET_UP_LIMIT) == 0
        took = time.monotonic() - begin
        if took > 1 or not good:
            print(f"==> set-up, {step}: {took:.0f} s{'' if good else ', failed'}", flush=True)
        with self.changed:
            self.setting_up = False
            if good:
                self.setup.pop(0)
                self.ready.add(step)
            else:
                self.broken = True
                self.setup.clear()
            self.changed.notify_all()

    def run(self, part: Part) -> None:
        part.junit.unlink(missing_ok=True)
        for kind in ("journal", "outside"):
            (REPORTS / f"{part.id}.{kind}").unlink(missing_ok=True)
        begin = time.monotonic()
        limit = min(part.limit, self.until - begin)
        if part.needs not in self.ready:
            part.log.write_bytes((REPORTS / "setup.log").read_bytes())
            code = 1
        elif limit <= 0:
            part.log.write_text("not begun: the time of the whole run was over (MATRIX_TEST_LIMIT)\n")
            code = 1
        else:
            print(f"==> {part.label} begins", flush=True)
            with part.log.open("wb") as log:
                keep = functools.partial(self.keep, log)
                code = self.call(part.command(), keep, limit, part.environment())
        if self.stopping:
            return
        said = part.log.read_text(encoding="utf-8", errors="replace")
        cases = read_junit(part.junit)
        outcome = "passed" if code == 0 else "failed"
        why = causes(said, cases, part.home) if code else []
        if code == HUNG:
            of = f"{LATE} times its budget" if limit == part.limit else "the time of the whole run"
            why = [f"ended after {limit:.0f} s, {of}; the last that it said:", *why]
        result = Result(part, outcome, time.monotonic() - begin, cases, why)
        with self.changed:
            self.results.append(result)
            if not self.alone:
                print("\n".join(said.splitlines() if code else said.splitlines()[-3:]), flush=True)
            print(f"==> {part.label}: {outcome} in {result.seconds:.0f} s", flush=True)

    def keep(self, log: IO[bytes], line: bytes) -> None:
        log.write(line)
        if self.alone:
            sys.stdout.buffer.write(line)
            sys.stdout.flush()

    def call(
        self,
        command: list[str],
        line: Callable[[bytes], Any],
        limit: float,
        environment: dict[str, str] | None = None,
    ) -> int:
        """The exit status of a program, each of whose lines is passed on; HUNG if it had to be ended."""
        child = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(environment or {}), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.children.add(child)
        # Not until the output ends: what a part leaves running may hold it open for good.
        reader = threading.Thread(target=self.pass_on, args=(child, line), daemon=True)
        reader.start()
        try:
            code = child.wait(limit)
        except subprocess.TimeoutExpired:
            code = HUNG
            for how in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                    os.killpg(child.pid, how)
                    child.wait(GRACE)
                    break
        reader.join(5)
        self.children.discard(child)
        return code

    @staticmethod
    def pass_on(child: subprocess.Popen[bytes], line: Callable[[bytes], Any]) -> None:
        assert child.stdout
        # The file that it goes to is closed once the part is over.
        with contextlib.suppress(ValueError):
            for each in child.stdout:
                line(each)


def main(words: Sequence[str], cross: bool = False) -> bool:
    """Runs the parts that are called so, or all; true if all passed."""
    begin = time.monotonic()
    REPORTS.mkdir(parents=True, exist_ok=True)
    for name in ("summary", "setup.log"):
        (REPORTS / name).unlink(missing_ok=True)
    parts = chosen(crossed(table()) if cross else table(), words)
    places = int(os.environ.get("MATRIX_TEST_PARALLEL") or os.cpu_count() or 1)
    results = Run(parts, places).all()
    order = [part.id for part in parts]
    results.sort(key=lambda result: order.index(result.part.id))
    lines = summary(results, packets_outside(parts), time.monotonic() - begin)
    print("\n".join(lines))
    (REPORTS / "summary").write_text(lines[-1] + "\n")
    return all(result.outcome == "passed" for result in results)
