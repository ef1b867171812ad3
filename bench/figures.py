# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Measure what the project promises in figures. Started by bench/run; see bench/README.md."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crowd import PEOPLE, Machine
from federation import Federation, pairs
from in_force import Kills

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench/results.json"
BIN = Path(sys.executable).parent
IMAGE = os.environ.get("BENCH_IMAGE", "cae-matrix/debian:{release}")
HOST, DOMAIN = "banc", "banc.test"
NEIGHBOUR = "voisin"
IDLE_SECONDS = 300
ROUNDS = 3
PARTS = (
    "first_run",
    "writes",
    "unchanged",
    "hardening",
    "contradictions",
    "lint",
    "create_room",
    "federation",
    "neighbours",
    "in_force",
    "crowd",
)

# Actions that write files. What they write under /etc is configuration.
WRITERS = re.compile(
    r"(cae\.matrix\.documents|(ansible\.(builtin|legacy|posix)|community\.general)\."
    r"(template|copy|lineinfile|blockinfile|replace|assemble|ini_file|xml|sysctl|authorized_key|deb822_repository))"
)


class BenchError(Exception):
    pass


@dataclass
class Figure:
    what: str
    measured: float
    goal: float
    unit: str
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.measured <= self.goal


@dataclass
class Run:
    seconds: float
    tasks: list[dict[str, Any]]

    @property
    def changed(self) -> list[str]:
        return [f"{task['role'] or 'playbook'}: {task['task']}" for task in self.tasks if task["changed"]]


def say(text: str) -> None:
    print(f"==> {text}", flush=True)


def command(*arguments: str, **more: Any) -> str:
    result = subprocess.run(arguments, capture_output=True, text=True, check=False, **more)
    if result.returncode != 0:
        raise BenchError(f"`{shlex.join(arguments)}` failed:\n{result.stdout[-6000:]}\n{result.stderr[-3000:]}")
    return str(result.stdout)


class Bench:
    def __init__(self, work: Path) -> None:
        self.work = work
        self.containers: set[str] = set()
        self.environment = os.environ | {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "bench/callback"),
            "ANSIBLE_CALLBACKS_ENABLED": "task_log",
            "ANSIBLE_INJECT_FACT_VARS": "0",
            "ANSIBLE_NOCOLOR": "1",
            "BENCH_TASK_LOG": str(work / "tasks.jsonl"),
        }

    # --- hosts --------------------------------------------------------------------------------------------------

    def bare(self, release: int) -> str:
        """A new container with nothing on it but Debian; the one before with that name goes."""
        name = f"cae-matrix-bench-{release}"
        self.remove(name)
        self.containers.add(name)
        image = IMAGE.format(release=release)
        wanted = [{"name": HOST, "container": name, "image": image, "domains": [DOMAIN]}]
        more = {"hosts_wanted": wanted, "bench_addresses": str(self.work / "addresses.json")}
        self._playbook("-i", "localhost,", "bench/hosts.yml", "-e", json.dumps(more))
        return name

    def remove(self, *names: str) -> None:
        for name in names:
            subprocess.run(["docker", "rm", "-fv", name], capture_output=True, check=False)

    def clean(self) -> None:
        self.remove(*self.containers)
        subprocess.run(["docker", "network", "rm", "cae-matrix-bench"], capture_output=True, check=False)
        shutil.rmtree(self.work)

    def inside(self, container: str, *arguments: str, **more: Any) -> str:
        return command("docker", "exec", "-i", container, *arguments, **more)

    def inventory(self, container: str, host: str = HOST) -> Path:
        address = json.loads((self.work / "addresses.json").read_text())[HOST]
        domain = f"{host}.test"
        names = [domain, f"matrix.{domain}", f"chat.{domain}"]
        variables: dict[str, Any] = {
            "ansible_connection": "community.docker.docker",
            "ansible_host": container,
            "ansible_python_interpreter": "/usr/bin/python3",
            "matrix_domain": domain,
            "matrix_name": "Coopérative du banc",
            "matrix_resolve": dict.fromkeys(names, address),
            "matrix_ca_file": str(self.work / "ca/ca.pem"),
            "machine_postgresql_memory_mb": 1024,
            "reverse_proxy_certificate": "private_ca",
            "reverse_proxy_private_ca_dir": str(self.work / "ca"),
            "encryption_gate_registration": "token",
            "encryption_gate_administrators": [{"localpart": "support"}],
        }
        variables |= self.element()
        path = self.work / "hosts.json"
        path.write_text(json.dumps({"cooperatives": {"hosts": {host: variables}}}, indent=1))
        return path

    def element(self) -> dict[str, Any]:
        """Element's release as the tests have it: the one of ELEMENT_WEB_RELEASE, or the fixture."""
        directory = self.work / "element"
        if not directory.exists():
            command(str(BIN / "python"), str(ROOT / "tests/element-release"), str(directory), "--or-fixture", cwd=ROOT)
        variables: dict[str, Any] = json.loads((directory / "variables.json").read_text())
        return variables

    # --- runs ---------------------------------------------------------------------------------------------------

    def _playbook(self, *arguments: str) -> None:
        command(str(BIN / "ansible-playbook"), *arguments, cwd=ROOT, env=self.environment)

    def cooperative(self, container: str, host: str = HOST) -> Run:
        log = self.work / "tasks.jsonl"
        log.unlink(missing_ok=True)
        inventory = self.inventory(container, host)
        began = time.monotonic()
        self._playbook("-i", str(inventory), "playbooks/cooperative.yml")
        seconds = time.monotonic() - began
        return Run(seconds, [json.loads(line) for line in log.read_text().splitlines()])

    # --- the figures --------------------------------------------------------------------------------------------

    def first_run(self) -> tuple[Figure, Run]:
        """The playbook against the script, on equal machines, taking turns."""
        ours: list[float] = []
        theirs: list[float] = []
        details: dict[str, Any] = {}
        run = Run(0, [])
        for turn in range(ROUNDS):
            container = self.bare(12)
            before = set(self.inside(container, "apt-mark", "showmanual").split())
            run = self.cooperative(container)
            ours.append(run.seconds)
            say(f"first run {turn + 1}, playbook: {run.seconds:.1f} s")
            payload = self._payload(container, before, run)
            packages = self._installed(container)

            container = self.bare(12)
            began = time.monotonic()
            command("docker", "cp", str(payload), f"{container}:/root/payload")
            self.inside(container, "bash", "/root/payload/unavoidable.sh", "/root/payload")
            theirs.append(time.monotonic() - began)
            say(f"first run {turn + 1}, unavoidable.sh: {theirs[-1]:.1f} s")
            differing = sorted(packages ^ self._installed(container))
            if differing:
                raise BenchError(f"not the same packages, so not comparable: {differing}")
        details["playbook_seconds"] = [round(seconds, 1) for seconds in ours]
        details["script_seconds"] = [round(seconds, 1) for seconds in theirs]
        slowest = sorted(run.tasks, key=lambda task: -task["seconds"])[:8]
        details["slowest_tasks"] = [[task["role"], task["task"], task["seconds"]] for task in slowest]
        details["element"] = Path(self.element()["element_web_release_file"]).name
        ratio = statistics.median(ours) / statistics.median(theirs)
        return Figure("first run, against the unavoidable", round(ratio, 2), 1.6, "times", details), run

    def _installed(self, container: str) -> set[str]:
        return set(self.inside(container, "dpkg-query", "-W", "-f", "${Package}\\n").split())

    def _payload(self, container: str, manual_before: set[str], run: Run) -> Path:
        """What unavoidable.sh gets for free: every answer, and the configuration as rendered."""
        payload = self.work / "payload"
        shutil.rmtree(payload, ignore_errors=True)
        payload.mkdir()
        shutil.copy(ROOT / "bench/unavoidable.sh", payload)
        shutil.copy(self.work / "ca/ca.pem", payload)
        manual = set(self.inside(container, "apt-mark", "showmanual").split())
        (payload / "packages").write_text("\n".join(sorted(manual - manual_before)) + "\n")
        paths = [
            path for kind in ("files", "links", "blocks") for path in managed(run)[kind] if path.startswith("/etc/")
        ]
        outside = [path for path in paths if not path.startswith("/etc/matrix/")]
        venv = self.inside(container, "readlink", f"/etc/matrix/{HOST}/venv").strip()
        whole = ["etc/matrix", f"{venv}.sources".lstrip("/")]
        archive = ["tar", "--create", "--directory", "/", *whole, *(path.lstrip("/") for path in outside)]
        with open(payload / "configuration.tar", "wb") as file:
            subprocess.run(["docker", "exec", container, *archive], stdout=file, check=True)
        facts = {
            "instance": HOST,
            "domain": DOMAIN,
            "matrix_hostname": f"matrix.{DOMAIN}",
            "user": f"matrix-{HOST}",
            "database": f"matrix_{HOST}",
            "venv": venv,
            "element_dir": self.inside(container, "readlink", "-f", f"/etc/matrix/{HOST}/element/release").strip(),
        }
        element = self.element()
        release = Path(element["element_web_release_file"])
        facts["element_sha256"] = hashlib.sha256(release.read_bytes()).hexdigest()
        shutil.copy(release, payload / "element.tar.gz")
        shutil.copy(element["element_web_release_signature_file"], payload / "element.asc")
        key = subprocess.run(
            ["gpg", "--dearmor"], input=element["element_web_signing_key"].encode(), capture_output=True, check=True
        )
        (payload / "element.gpg").write_bytes(key.stdout)
        (payload / "facts.sh").write_text("".join(f"{key}={shlex.quote(value)}\n" for key, value in facts.items()))
        return payload

    def writes(self, run: Run) -> list[Figure]:
        """How often tasks that write configuration were executed, for each role, in a first run."""
        roles: dict[str, int] = {}
        elsewhere: list[list[str]] = []
        own: dict[str, int] = {}
        for task in run.tasks:
            role = (task["role"] or "playbook").removeprefix("cae.matrix.")
            roles.setdefault(role, 0)
            if not WRITERS.fullmatch(task["action"]):
                if task["action"].startswith("cae.matrix.") and task["changed"]:
                    own[task["action"]] = own.get(task["action"], 0) + task["executions"]
                continue
            paths = [path for paths in task["written"].values() for path in paths]
            if paths and not any(path.startswith("/etc/") for path in paths):
                elsewhere.append([role, task["task"]])
            else:
                roles[role] += task["executions"]
        details = {
            "executions": roles,
            "tasks_that_write_elsewhere": elsewhere,
            "other_modules_of_ours_that_changed": own,
        }
        details["executions_of_all_tasks"] = sum(task["executions"] for task in run.tasks)
        return [Figure("tasks that write configuration, most of any role", max(roles.values()), 1, "", details)]

    def unchanged(self, container: str, first: Run) -> list[Figure]:
        run = self.cooperative(container)
        slowest = sorted(run.tasks, key=lambda task: -task["seconds"])[:8]
        details = {
            "tasks": len(run.tasks),
            "changed": run.changed,
            "slowest_tasks": [[task["role"], task["task"], task["seconds"]] for task in slowest],
        }
        figures = [
            Figure("a run that changes nothing", round(run.seconds, 1), 20, "s", details),
            Figure("tasks changed in a run that changes nothing", len(run.changed), 0, "", {}),
        ]
        paths = managed(first)
        # A directory of several is mended for itself, and files in it are looked at for themselves.
        everything = sorted({path for kind in paths.values() for path in kind})
        look = [sys_python(), "-c", LOOK, json.dumps(everything)]
        before = json.loads(self.inside(container, *look))
        self.inside(container, sys_python(), "-c", EDIT, json.dumps(paths))
        edited = json.loads(self.inside(container, *look))
        untouched = [path for path in everything if edited[path] == before[path]]
        if untouched:
            raise BenchError(f"these could not be edited by hand: {untouched}")
        mending = self.cooperative(container)
        after = json.loads(self.inside(container, *look))
        left = [path for path in everything if after[path] != before[path]]
        again = self.cooperative(container)
        details = {
            "edited": {kind: len(names) for kind, names in paths.items()},
            "not_mended": left,
            "seconds_of_the_mending_run": round(mending.seconds, 1),
            "changed_in_the_run_after": again.changed,
        }
        figures.append(Figure("hand edits that the next run does not mend", len(left), 0, "", details))
        return figures

    def hardening(self, container: str, release: int) -> Figure:
        unit = f"matrix-synapse@{HOST}.service"
        self.inside(container, "systemctl", "is-active", unit)
        said = self.inside(container, "systemd-analyze", "security", "--no-pager", unit)
        found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
        if not found:
            raise BenchError(f"systemd-analyze said something unknown:\n{said[-2000:]}")
        version = self.inside(container, "systemctl", "--version").split()[1]
        what = f"systemd-analyze security of Synapse, Debian {release}"
        return Figure(what, float(found[1]), 1.5, "", {"systemd": version})

    def contradictions(self) -> list[Figure]:
        path = self.work / "mutants.json"
        tests = [str(test) for test in (ROOT / "tests/unit").glob("test_*.py") if "BENCH_MUTANTS" in test.read_text()]
        environment = self.environment | {
            "BENCH_MUTANTS": str(path),
            "PYTHONPATH": str(ROOT / ".ansible/collections"),
            "SYNAPSE_PYTHON": os.environ.get("SYNAPSE_PYTHON", str(ROOT / ".cache/venv-synapse/bin/python")),
        }
        command(str(BIN / "python"), "-m", "pytest", "-q", *tests, cwd=ROOT, env=environment)
        numbers = json.loads(path.read_text())
        missed = numbers["listed"] - numbers["listed_refused"]
        return [
            Figure("listed contradictions that are not refused", missed, 0, "", {"listed": numbers["listed"]}),
            Figure("mutants neither refused nor harmless in real Synapse", numbers["bad"], 0, "", numbers),
        ]

    def neighbours(self) -> list[Figure]:
        """One more cooperative on a machine that has one: how long it takes, and its memory when nothing happens."""
        container = self.bare(12)
        first = self.cooperative(container).seconds
        say(f"the first on a bare machine: {first:.1f} s")
        second = self.cooperative(container, NEIGHBOUR).seconds
        say(f"one more: {second:.1f} s; now {IDLE_SECONDS} s of silence")
        time.sleep(IDLE_SECONDS)
        said = self.inside(container, sys_python(), "-c", PSS, f"matrix-{NEIGHBOUR}", f"matrix_{NEIGHBOUR}")
        processes: dict[str, list[int]] = json.loads(said)
        memory = sum(sum(sizes) for sizes in processes.values()) * 1024 / 1e6
        seconds = {"first_seconds": round(first, 1), "second_seconds": round(second, 1)}
        return [
            Figure(
                "one more cooperative on a machine, against the first", round(second / first, 2), 0.5, "times", seconds
            ),
            Figure("memory of one more idle cooperative", round(memory), 200, "MB", {"pss_kib": processes}),
        ]

    def in_force(self) -> Figure:
        """Updates that are killed, and what runs after the run that follows."""
        container = self.bare(12)
        self.cooperative(container)
        playbook = [str(BIN / "ansible-playbook"), "-i", str(self.work / "hosts.json"), "playbooks/cooperative.yml"]
        found = Kills(playbook, self.environment, str(ROOT), container, HOST).measure(say)
        what = f"of {found['kills']} killed updates, those that one more run does not put in force"
        return Figure(what, len(found["wrong"]), 0, "", found)

    def crowd(self) -> list[Figure]:
        """Everybody at once, for one instance and for four on one machine; what dies comes back."""
        container = self.bare(12)
        self.cooperative(container)
        address = json.loads((self.work / "addresses.json").read_text())[HOST]
        ca_file = str(self.work / "ca/ca.pem")
        one = Machine(container, address, ca_file, [HOST])
        found, back = one.measure(say), one.crashes(say)
        others = [f"{NEIGHBOUR}-{number}" for number in range(3)]
        for host in others:
            self.cooperative(container, host)
        four = Machine(container, address, ca_file, [HOST, *others])
        all_found = four.measure(say)
        what = f"502 or cut connections, {{}} sessions of {PEOPLE} people each on {{}} coming back at once, three times"
        return [
            Figure(what.format(found["sessions"], "one instance"), found["refused"], 0, "", found),
            Figure(what.format(all_found["sessions"], "four instances"), all_found["refused"], 0, "", all_found),
            Figure("back by itself after kill -9, the slowest", max(back.values()), 10, "s", back),
        ]

    def create_room(self) -> Figure:
        environment = self.environment | {
            "PYTHONPATH": str(ROOT / ".ansible/collections"),
            "SYNAPSE_PYTHON": os.environ.get("SYNAPSE_PYTHON", str(ROOT / ".cache/venv-synapse/bin/python")),
        }
        program = [str(BIN / "python"), str(ROOT / "bench/create_room.py")]
        said = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
        try:
            found = json.loads(said.stdout)
        except ValueError:
            raise BenchError(f"create_room.py said something unknown:\n{said.stdout}{said.stderr}") from None
        what = "time that Synapse's module adds to /createRoom"
        return Figure(what, found["measured"], found["goal"], "ms", found["kinds"])

    def federation(self) -> list[Figure]:
        servers = Federation(self.work, IMAGE, self._playbook, say)
        self.containers |= set(servers.containers.values())
        servers.up(self.element())
        found = servers.measure()
        # A pair that fails fails the scenario; the report tells which.
        subprocess.run([str(ROOT / "tests/molecule-run"), "2.21/13", "federation"], capture_output=True, check=False)
        matrix = pairs(ROOT / ".cache/reports/molecule-2.21-13-federation.xml")
        wrong = [problem for each in found["partitions"] for problem in each.get("problems", [])]
        figures = [
            Figure("pairs without the promised outcome", matrix["pairs"] - matrix["as_promised"], 0, "", matrix),
            Figure(
                "from send to another server's /sync, p95", found["latency"]["p95_ms"], 1000, "ms", found["latency"]
            ),
            Figure(
                f"messages lost or doubled over {len(found['partitions'])} partitions",
                len(wrong),
                0,
                "",
                {"seed": found["seed"], "partitions": found["partitions"]},
            ),
        ]
        for kind, outage in found["outages"].items():
            delay = outage["shipped"]["all_there_after_s"]
            what = f"until all have arrived, after {outage['seconds'] / 60:g} minutes of {kind}"
            figures.append(Figure(what, servers.patience if delay is None else delay, 120, "s", outage))
        return figures

    def lint(self) -> list[Figure]:
        arguments = [str(BIN / "ansible-lint"), "--offline", "--profile", "production", "--format", "json"]
        environment = self.environment | {"PATH": f"{BIN}:{os.environ['PATH']}"}
        said = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        try:
            problems = json.loads(said.stdout)
        except ValueError:
            raise BenchError(f"ansible-lint said something unknown:\n{said.stdout}{said.stderr}") from None
        rules: dict[str, int] = {}
        for problem in problems:
            rules[problem["check_name"]] = rules.get(problem["check_name"], 0) + 1
        settings = (ROOT / ".ansible-lint").read_text() if (ROOT / ".ansible-lint").exists() else ""
        skips = len(re.findall(r"^(skip_list|warn_list|enable_list):", settings, re.MULTILINE))
        tracked = command("git", "ls-files", "*.yml", "*.yaml", "*.cfg", cwd=ROOT).split()
        for name in tracked:
            skips += len(re.findall(r"#\s*no" + r"qa|skip_ansible_lint", (ROOT / name).read_text()))
        what = "ansible-lint, profile production: warnings and skips"
        return [Figure(what, len(problems) + skips, 0, "", {"warnings": rules, "skips": skips})]


def managed(run: Run) -> dict[str, list[str]]:
    """Every path that the roles' documents tasks say is theirs."""
    paths: dict[str, list[str]] = {kind: [] for kind in ("directories", "files", "secrets", "links", "blocks")}
    for task in run.tasks:
        if task["action"] == "cae.matrix.documents":
            for kind, names in task["written"].items():
                paths[kind] += [name for name in names if name not in paths[kind]]
    return paths


def sys_python() -> str:
    return "/usr/bin/python3"


# Runs on the machine. The memory of an instance's processes and of those that PostgreSQL has for it; what is shared is
# divided by those who share it.
PSS = """
import json, os, pwd, sys
user, database = sys.argv[1:]
found = {"synapse": [], "postgresql": []}
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        owner = pwd.getpwuid(os.stat(f"/proc/{pid}").st_uid).pw_name
        words = open(f"/proc/{pid}/cmdline").read().replace(chr(0), " ").split()
        if owner == user:
            kind = "synapse"
        elif owner == "postgres" and database in words:
            kind = "postgresql"
        else:
            continue
        rollup = open(f"/proc/{pid}/smaps_rollup").read().split()
        found[kind].append(int(rollup[rollup.index("Pss:") + 1]))
    except (FileNotFoundError, ProcessLookupError):
        continue
print(json.dumps(found))
"""

# Runs on the machine. What a person would see of each path.
LOOK = """
import hashlib, json, os, re, sys
seen = {}
for path in json.loads(sys.argv[1]):
    found = os.lstat(path)
    holds = None
    if os.path.islink(path):
        holds = os.readlink(path)
    elif "/tls/private-ca/" in path:
        # Mended by signing another one.
        holds = re.sub("-----BEGIN CERT.+?-----END CERTIFICATE-----", "", open(path).read(), flags=re.DOTALL).strip()
    elif os.path.isfile(path):
        holds = hashlib.sha256(open(path, "rb").read()).hexdigest()
    seen[path] = [oct(found.st_mode), found.st_uid, found.st_gid, holds]
print(json.dumps(seen))
"""

# Runs on the machine. A careless hand on everything: a line more, a mode, a link that leads elsewhere.
EDIT = """
import json, os, re, sys
paths = json.loads(sys.argv[1])
for path in paths["files"]:
    text = open(path).read()
    try:
        # Still JSON, as a person would leave it.
        text = json.dumps(json.loads(text) | {"by hand": True})
    except ValueError:
        text += "# by hand\\n"
    with open(path, "w") as file:
        file.write(text)
for number, path in enumerate(paths["files"]):
    if number % 2:
        os.chmod(path, 0o666)
for path in paths["blocks"]:
    text = open(path).read()
    with open(path, "w") as file:
        file.write(re.sub(r"(# BEGIN cae\\.matrix [^\\n]*\\n)", r"\\1# by hand\\n", text))
for path in paths["links"]:
    os.unlink(path)
    os.symlink("/nonexistent", path)
for path in paths["secrets"]:
    os.chmod(path, 0o644)
for path in paths["directories"]:
    os.chmod(path, 0o711)
"""


def table(figures: list[Figure]) -> str:
    rows = [("what", "measured", "goal", "ok")]
    rows += [
        (each.what, f"{each.measured:g} {each.unit}".strip(), f"{each.goal:g}", "yes" if each.ok else "NO")
        for each in figures
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def record(parts: set[str], figures: dict[str, list[Figure]]) -> None:
    """Parts that were not measured now keep what was measured before."""
    kept = json.loads(RESULTS.read_text())["parts"] if RESULTS.exists() else {}
    core = command(str(BIN / "ansible-playbook"), "--version").splitlines()[0]
    where = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": command("git", "rev-parse", "--short", "HEAD", cwd=ROOT).strip(),
        "ansible_core": re.findall(r"[0-9]+\.[0-9.]+", core)[0],
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }
    for part in parts:
        measured = [
            {"what": f.what, "measured": f.measured, "goal": f.goal, "unit": f.unit, "ok": f.ok, "details": f.details}
            for f in figures[part]
        ]
        kept[part] = {"measured_with": where, "figures": measured}
    ordered = {part: kept[part] for part in PARTS if part in kept}
    RESULTS.write_text(json.dumps({"parts": ordered}, indent=2, ensure_ascii=False) + "\n")


def measure(bench: Bench, parts: set[str]) -> dict[str, list[Figure]]:
    figures: dict[str, list[Figure]] = {}
    if parts & {"first_run", "writes", "unchanged", "hardening"}:
        first: Run | None = None
        if "first_run" in parts:
            figure, first = bench.first_run()
            figures["first_run"] = [figure]
        if parts & {"writes", "unchanged", "hardening"}:
            container = bench.bare(12)
            first = bench.cooperative(container)
            say(f"first run: {first.seconds:.1f} s")
            if "writes" in parts:
                figures["writes"] = bench.writes(first)
            if "unchanged" in parts:
                figures["unchanged"] = bench.unchanged(container, first)
            if "hardening" in parts:
                figures["hardening"] = [bench.hardening(container, 12)]
                bench.remove(container)
                container = bench.bare(13)
                bench.cooperative(container)
                figures["hardening"].append(bench.hardening(container, 13))
    if "contradictions" in parts:
        figures["contradictions"] = bench.contradictions()
    if "lint" in parts:
        figures["lint"] = bench.lint()
    if "create_room" in parts:
        figures["create_room"] = [bench.create_room()]
    if "federation" in parts:
        figures["federation"] = bench.federation()
    if "in_force" in parts:
        figures["in_force"] = [bench.in_force()]
    if "crowd" in parts:
        figures["crowd"] = bench.crowd()
    if "neighbours" in parts:
        figures["neighbours"] = bench.neighbours()
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench/run", description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--keep", action="store_true", help="leave the last containers, and what was made, for a look")
    arguments = parser.parse_args()
    parts = set(arguments.only.split(","))
    if parts - set(PARTS):
        parser.error(f"unknown: {', '.join(sorted(parts - set(PARTS)))}")
    bench = Bench(Path(tempfile.mkdtemp(prefix="cae-matrix-bench-")))
    try:
        figures = measure(bench, parts)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        if arguments.keep:
            say(f"kept: {bench.work}, {', '.join(sorted(bench.containers))}")
        else:
            bench.clean()
    record(parts, figures)
    listed = [figure for part in PARTS for figure in figures.get(part, [])]
    print(table(listed))
    return 0 if all(figure.ok for figure in listed) else 1


if __name__ == "__main__":
    sys.exit(main())
