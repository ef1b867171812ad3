# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What runs is what lies on disk: a service that is older than something it has read starts or reads it again.

Nothing here depends on what this run has written: a run that was interrupted between a file and its restart, a
certificate whose reload was lost, and a file that somebody edited by hand are all found by looking at the processes and
at the files they read (`in_force_readers`).

The clock is asked as little as possible. Where the same process still runs that was last found to be in force, its
files have to be those of then, to the inode. The times of files and processes decide only about a process that somebody
else has started; an error on the safe side costs one restart, since what was restarted is remembered.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import stat
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Gone with the processes, at the next boot.
RECORDS = Path("/run/cae-matrix/in-force")
# The times of files are those of the kernel's last tick.
TICK = 0.01
PATIENCE = 60.0
_LINKS = 40
_DONE = {"start": "started", "restart": "restarted", "reload": "reloaded"}

Signature = dict[str, list[int]]


class InForceError(Exception):
    """What is on disk could not be put in force; the message says why, and what to do."""


@dataclass(frozen=True)
class Running:
    """What runs of a service. A change from `since` on may have been missed by it (seconds since the epoch)."""

    identity: str
    since: float


@dataclass
class Outcome:
    """What was done about one service (in check mode, what would be), and because of what."""

    name: str
    done: list[str] = field(default_factory=list)
    because: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        return bool(self.done)

    @property
    def diff(self) -> dict[str, str]:
        before = "".join(f"{reason}\n" for reason in self.because)
        return {"before_header": self.name, "after_header": self.name, "before": before, "after": _lines(self.done)}

    def told(self) -> dict[str, Any]:
        return {"name": self.name, "done": self.done, "because": self.because}


def _why(path: str, files: Signature) -> str:
    if path in files:
        return "is newer"
    return "has lost a file" if os.path.isdir(path) else "is not read any more"


def _lines(words: Iterable[str]) -> str:
    return "".join(f"({word})\n" for word in words)


def _since(files: Signature, start: float) -> list[str]:
    return sorted(path for path, (changed, *_) in files.items() if changed / 1e9 >= start - TICK)


def run(*argv: str, may_fail: bool = False, hint: str = "") -> subprocess.CompletedProcess[str]:
    """The output of a program, which must succeed."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise InForceError(f"There is no program {argv[0]!r} on this machine. {hint}".rstrip()) from None
    if done.returncode != 0 and not may_fail:
        said = " ".join((done.stderr or done.stdout).split())
        raise InForceError(f"`{' '.join(argv)}` failed: {said or done.returncode}. {hint}".rstrip())
    return done


# --- files ------------------------------------------------------------------------------------------------------


def on_the_way(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """A file, and every link that leads to it: whichever of them is replaced, something else is read."""
    left = [part for part in reversed(path.split("/")) if part]
    here, links = "/", 0
    while left:
        part = left.pop()
        if part in (".", ".."):
            here = os.path.dirname(here) if part == ".." else here
            continue
        there = os.path.join(here, part)
        try:
            found = os.lstat(there)
        except OSError:
            return
        if not stat.S_ISLNK(found.st_mode):
            here = there
            continue
        links += 1
        if links > _LINKS:
            return
        yield there, found
        target = os.readlink(there)
        if target.startswith("/"):
            here = "/"
        left += [word for word in reversed(target.split("/")) if word]
    yield here, os.stat(here)


def signature(paths: Iterable[str]) -> Signature:
    """What tells these files, and the links to them, from other ones."""
    found: Signature = {}
    for path in paths:
        with contextlib.suppress(OSError):
            for name, seen in on_the_way(path):
                # A directory may be another one below the surface (overlayfs), and is no other for that.
                inode, size = (0, 0) if stat.S_ISDIR(seen.st_mode) else (seen.st_ino, seen.st_size)
                found[name] = [seen.st_ctime_ns, inode, size]
    return found


# --- systemd ----------------------------------------------------------------------------------------------------


class Unit:
    """What systemd knows of a unit."""

    _PROPERTIES = (
        "ActiveState",
        "ActiveEnterTimestamp",
        "ActiveEnterTimestampMonotonic",
        "DropInPaths",
        "ExecMainStartTimestamp",
        "ExecMainStartTimestampMonotonic",
        "ExecStart",
        "FragmentPath",
        "InvocationID",
        "MainPID",
        "NeedDaemonReload",
        "Slice",
        "StateChangeTimestamp",
        "StateChangeTimestampMonotonic",
        "Triggers",
        "UnitFileState",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self._shown: dict[str, str] = {}

    def _ask(self, name: str, *properties: str) -> dict[str, str]:
        command = ("systemctl", "show", "--timestamp=us+utc", f"--property={','.join(properties)}", name)
        shown = run(*command, may_fail=True).stdout
        return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)

    def refresh(self) -> None:
        self._shown = self._ask(self.name, *self._PROPERTIES)

    def __getitem__(self, name: str) -> str:
        if not self._shown:
            self.refresh()
        return self._shown.get(name, "")

    @property
    def main_pid(self) -> int:
        return int(self["MainPID"] or 0)

    @property
    def files(self) -> list[str]:
        return [path for path in (self["FragmentPath"], *self["DropInPaths"].split()) if path]

    def needs_daemon_reload(self) -> bool:
        """Whether the unit, the slice it is in, or the one it triggers is not as its files say."""
        if self["NeedDaemonReload"] == "yes":
            return True
        others = [*self["Slice"].split(), *self["Triggers"].split()]
        return any(self._ask(name, "NeedDaemonReload").get("NeedDaemonReload") == "yes" for name in others)

    def time(self, name: str) -> float:
        """When something happened, by the clock of then or of now, whichever is earlier: it may have been set since."""
        try:
            text = self[name].removesuffix(" UTC")
            then = datetime.datetime.strptime(text, "%a %Y-%m-%d %H:%M:%S.%f").replace(tzinfo=datetime.UTC).timestamp()
            ago = time.clock_gettime(time.CLOCK_MONOTONIC) - int(self[f"{name}Monotonic"]) / 1e6
        except ValueError:
            return 0.0
        return min(then, time.time() - ago)

    def do(self, verb: str) -> None:
        hint = f"Read its journal: journalctl -u {self.name}."
        run("systemctl", verb, self.name, hint=hint if verb != "enable" else "")
        self.refresh()


# --- what is in force -------------------------------------------------------------------------------------------


class Reader:
    """A service and what it reads. The others say here where they differ."""

    verb = "restart"
    warnings: tuple[str, ...] = ()

    def __init__(self, unit: str, enabled: bool = False) -> None:
        self.unit = Unit(unit)
        self.enabled = enabled

    def running(self) -> Running | None:
        """The process, or None where nothing runs."""
        if self.unit["ActiveState"] not in ("active", "reloading"):
            return None
        return Running(self.unit["InvocationID"], self.unit.time("ActiveEnterTimestamp"))

    def files(self) -> set[str]:
        """What it reads once."""
        return set(self.unit.files)

    def directories(self) -> set[str]:
        """Where it looks for files: what is gone from there shows nowhere else."""
        return set()

    def reasons(self) -> list[str]:
        """Why it is not in force although no file is newer."""
        return []

    def wait(self, before: Running | None) -> Running:
        """What runs afterwards, once it does."""
        return until(lambda: self._another(before), f"{self.unit.name} does not run after it was started")

    def _another(self, before: Running | None) -> Running | None:
        self.unit.refresh()
        found = self.running()
        return found if found is not None and (before is None or found.identity != before.identity) else None

    # -- the record ---------------------------------------------------------------------------------------------

    @property
    def _record(self) -> Path:
        return RECORDS / f"{self.unit.name}.json"

    def remembered(self) -> dict[str, Any]:
        try:
            found = json.loads(self._record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def remember(self, running: Running, files: Signature) -> None:
        record = {"identity": running.identity, "files": files}
        if record == self.remembered():
            return
        self._record.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = self._record.with_name(f".{self._record.name}")
        part.write_text(json.dumps(record), encoding="utf-8")
        part.replace(self._record)

    def newer(self, running: Running, files: Signature) -> list[str]:
        """Those of its files that what runs has not read, or not as they are now."""
        then = self.remembered()
        if then.get("identity") == running.identity:
            read = then["files"]
            return sorted(path for path in files.keys() | read.keys() if files.get(path) != read.get(path))
        found = _since(files, running.since)
        # A file that is gone shows in its directory only, as do those that editors put there for a while.
        return found or _since(signature(self.directories()), running.since)

    def apply(self, verb: str, running: Running | None) -> None:
        """Have it read everything now."""
        files = signature(self.files())
        self.unit.do(verb)
        self.remember(self.wait(running), files)


def until(condition: Callable[[], Running | None], failure: str, seconds: float = PATIENCE) -> Running:
    """What a condition gives in the end."""
    deadline = time.monotonic() + seconds
    while (found := condition()) is None:
        if time.monotonic() > deadline:
            raise InForceError(f"{failure} (waited {seconds:g} s).")
        time.sleep(0.05)
    return found


def enforce(reader: Reader, check_mode: bool = False) -> Outcome:
    """Have a service run with what is on disk; does nothing where it does."""
    outcome = Outcome(reader.unit.name)
    if reader.unit.needs_daemon_reload():
        outcome.done.append("systemd has read its units")
        outcome.because.append("its unit has changed on disk")
        if not check_mode:
            run("systemctl", "daemon-reload")
            reader.unit.refresh()
    if reader.enabled and reader.unit["UnitFileState"] != "enabled":
        outcome.done.append("enabled")
        if not check_mode:
            reader.unit.do("enable")
    running, files = reader.running(), signature(reader.files())
    verb, because = "start", ["it does not run"]
    if running is not None:
        newer = reader.newer(running, files)
        because = [*reader.reasons(), *(f"{path} {_why(path, files)}" for path in newer)]
        if because:
            verb = reader.verb
        elif reader.unit["ActiveState"] == "activating":
            because = ["it is still starting"]
    outcome.warnings += reader.warnings
    outcome.because += because
    if because:
        outcome.done.append(_DONE[verb])
        if not check_mode:
            reader.apply(verb, running if verb != "start" else None)
    elif running is not None and not check_mode:
        reader.remember(running, files)
    return outcome
