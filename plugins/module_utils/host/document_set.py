# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Everything one role owns on a machine, written as one set: all of it, or none.

Nothing here knows Ansible. The steps are: ``check`` the parameters, take the ``lock``, compute the ``plan``,
``apply`` it. The plan holds every byte that will be written, so that it can be rehearsed before it is applied.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import grp
import hashlib
import os
import pwd
import re
import secrets
import shutil
import signal
import stat
import string
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

Params = dict[str, Any]

LOCK_FILE = "/run/lock/cae-matrix.lock"
LOCK_TIMEOUT = 600.0
KEPT_BACKUPS = 5
_STAGED = ".cae-matrix-new"
_PREVIOUS = ".cae-matrix-previous"
# With a number, of a process that writes without the lock.
_LEFTOVER = re.compile(r"\..+?(?:\.([0-9]+))?(?:\.cae-matrix-new|\.cae-matrix-previous)")
_MODE = re.compile(r"0?[0-7]{3,4}")
# What is there belongs to the collection. Elsewhere, a file is its own if it says so, as all that it writes there do.
OURS = re.compile(r"/(?:etc|opt|var/lib|var/backups)/matrix/|/var/www/matrix-|/usr/local/share/ca-certificates/matrix-")
MARK = b"cae.matrix"
_MARKER = re.compile(r"# (BEGIN|END) cae\.matrix (.+)")


class DocumentError(Exception):
    """Something a person has to mend; the message says what, and how."""


@dataclass(frozen=True)
class Attributes:
    """Who owns a path and what its mode is; an id of None is a name this machine does not know (check mode)."""

    uid: int | None
    gid: int | None
    mode: int
    owner: str
    group: str

    def differs(self, found: os.stat_result) -> bool:
        return (self.uid, self.gid, self.mode) != (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode))

    def __str__(self) -> str:
        return f"{self.owner}:{self.group} {self.mode:04o}"


@dataclass
class Step:
    """One change. ``real`` is where it is written (only blocks follow a link to a file)."""

    path: str
    real: str
    action: str  # leftover | directory | secret | attributes | file | link | remove
    diff: dict[str, str]
    attributes: Attributes | None = None
    content: bytes | None = None
    target: str | None = None
    keep_previous: bool = False
    secret: bool = False
    # A file or a link where there was none.
    made: bool = False
    # What it is called in the diff where one line of many says it all.
    listed_under: str = ""


@dataclass
class Plan:
    steps: list[Step] = field(default_factory=list)

    @property
    def changed_paths(self) -> list[str]:
        return list(dict.fromkeys(step.path for step in self.steps))

    @property
    def made_paths(self) -> list[str]:
        """Files and links that were not there; secrets and directories stay, whatever becomes of the rest."""
        return [step.path for step in self.steps if step.made]

    @property
    def diff(self) -> list[dict[str, str]]:
        """One entry for each step, and one for all that a line says everything about: a bare machine has many."""
        entries: dict[int | str, dict[str, str]] = {}
        for number, step in enumerate(self.steps):
            if name := step.listed_under:
                many = {"before_header": name, "after_header": name, "before": "", "after": ""}
                entries.setdefault(name, many)["after"] += f"{step.path} {step.diff['after']}"
            else:
                entries[number] = step.diff
        return list(entries.values())


# --- the parameters ---------------------------------------------------------------------------------------------


def check(params: Params) -> list[str]:
    """Every mistake that can be seen without looking at the machine."""
    problems: list[str] = []
    claims: dict[str, str] = {}

    def claim(path: Any, kind: str) -> bool:
        problem = _path_problem(path)
        if problem:
            problems.append(f"{kind} {path!r}: {problem}")
            return False
        if path in claims:
            problems.append(f"{path}: named twice, as {claims[path]} and as {kind}; a path is one thing only")
            return False
        claims[path] = kind
        return True

    for kind, key in (("directory", "directories"), ("file", "files"), ("secret", "secrets"), ("link", "links")):
        for item in params.get(key) or []:
            claim(item["path"], kind)
            if "mode" in item:
                problem = _mode_problem(item["mode"])
                if problem:
                    problems.append(f"{item['path']}: {problem}")

    for item in params.get("files") or []:
        given = [key for key in ("content", "secret_content") if item.get(key) is not None]
        if item["state"] == "absent" and given:
            problems.append(f"{item['path']}: state is absent, so {given[0]} has no meaning; leave one of them out")
        if item["state"] == "present" and len(given) != 1:
            problems.append(f"{item['path']}: give exactly one of content and secret_content")
        for key in given:
            if not isinstance(item[key], str):
                problems.append(
                    f"{item['path']}: {key} is a {type(item[key]).__name__}, not text; "
                    "serialise it (to_nice_yaml, to_nice_json)"
                )

    for item in params.get("links") or []:
        if item["state"] == "present" and not item.get("target"):
            problems.append(f"{item['path']}: a link needs a target")

    names: set[tuple[str, str]] = set()
    for item in params.get("blocks") or []:
        path, name = item["path"], item["name"]
        problem = _path_problem(path)
        if problem:
            problems.append(f"block {name!r} in {path!r}: {problem}")
        elif path in claims:
            problems.append(f"{path}: named both as {claims[path]} and as the file of block {name!r}")
        if not re.fullmatch(r"\S(?:[^\r\n]*\S)?", name):
            problems.append(
                f"{path}: a block's name is one line that neither starts nor ends with a space, not {name!r}"
            )
        if (path, name) in names:
            problems.append(f"{path}: block {name!r} is named twice")
        names.add((path, name))
        if item["state"] == "present":
            if not isinstance(item.get("content"), str):
                problems.append(f"{path}: block {name!r} needs content, as text")
            elif any(_MARKER.fullmatch(line.rstrip()) for line in item["content"].splitlines()):
                problems.append(f"{path}: the content of block {name!r} holds a marker of a block")

    for path in claims:
        for parent in _parents(path):
            if claims.get(parent, "directory") != "directory":
                problems.append(f"{path}: lies under {parent}, which is named as {claims[parent]}")

    for item in params.get("validate") or []:
        if not item["command"]:
            problems.append("validate: a command is missing")
        if not item["tree"]:
            problems.append("validate: tree names the directories that the command is to see as they would be")
        problems += [
            f"validate: tree {tree!r}: {problem}"
            for tree in item["tree"]
            for problem in [_path_problem(tree)]
            if problem
        ]
    backup_dir = params.get("backup_dir")
    if backup_dir is not None and _path_problem(backup_dir):
        problems.append(f"backup_dir {backup_dir!r}: {_path_problem(backup_dir)}")
    return problems


def _path_problem(path: Any) -> str | None:
    if not isinstance(path, str) or not path.startswith("/"):
        return "the path must be absolute, starting with /"
    if "\0" in path or "\n" in path:
        return "the path holds a character that no path may hold"
    if path == "/" or path != os.path.normpath(path) or path.startswith("//"):
        return "the path must be written in its shortest form: no .., no double or trailing /, and not / itself"
    return None


def _mode_problem(mode: Any) -> str | None:
    if isinstance(mode, str) and _MODE.fullmatch(mode):
        return None
    return f"mode {mode!r} is none; write it in octal and in quotes, such as '0640'"


def _parents(path: str) -> Iterator[str]:
    while path != "/":
        path = os.path.dirname(path)
        yield path


# --- the lock ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def lock(path: str = LOCK_FILE, timeout: float = LOCK_TIMEOUT) -> Iterator[None]:
    """One writer at a time on this machine, also when two inventories run at once."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DocumentError(
            f"The lock {path} cannot be opened: {error.strerror}. Remove that file and run again."
        ) from error
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise DocumentError(f"The lock {path} belongs to somebody else. Remove that file and run again.")
        _flock(descriptor, path, timeout)
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _flock(descriptor: int, path: str, timeout: float) -> None:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return

    def give_up(number: int, frame: Any) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except TimeoutError:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        raise DocumentError(
            f"Another run has been writing on this machine for {timeout:g} s: it holds {path} (process {holder}). "
            "Wait until it has finished, or end that process if it hangs, and run again."
        ) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


# --- the plan ---------------------------------------------------------------------------------------------------


def plan(params: Params, check_mode: bool = False) -> Plan:
    """What has to change, with every byte of it; nothing is touched."""
    planner = _Planner(check_mode)
    planner.leftovers(params)
    planner.directories(params.get("directories") or [])
    for item in params.get("secrets") or []:
        planner.secret(item)
    for item in params.get("files") or []:
        planner.file(item)
    for item in params.get("links") or []:
        planner.link(item)
    by_path: dict[str, list[Params]] = {}
    for item in params.get("blocks") or []:
        by_path.setdefault(item["path"], []).append(item)
    for path, items in by_path.items():
        planner.blocks(path, items)
    return planner.result


class _Planner:
    def __init__(self, check_mode: bool) -> None:
        self.check_mode = check_mode
        self.result = Plan()
        self._planned_directories: set[str] = set()

    def _add(self, path: str, action: str, before: str, after: str, real: str | None = None, **more: Any) -> None:
        diff = {"before_header": path, "after_header": path, "before": before, "after": after}
        self.result.steps.append(Step(path, real or path, action, diff, **more))

    def leftovers(self, params: Params) -> None:
        """What a run that was killed has left beside what it wrote; the lock keeps a living one away."""
        places = {item["path"] for item in params.get("directories") or []}
        for key in ("files", "secrets", "links"):
            places |= {os.path.dirname(item["path"]) for item in params.get(key) or []}
        places |= {os.path.dirname(os.path.realpath(item["path"])) for item in params.get("blocks") or []}
        for place in sorted(places):
            try:
                names = os.listdir(place)
            except (FileNotFoundError, NotADirectoryError):
                continue
            left = [name for name in sorted(names) if (found := _LEFTOVER.fullmatch(name)) and not _alive(found[1])]
            for path in [os.path.join(place, name) for name in left]:
                if not os.path.isdir(path) or os.path.islink(path):
                    _refuse_planted_links(place)
                    self._add(path, "leftover", "(left by a run that was interrupted)\n", "")

    def directories(self, items: list[Params]) -> None:
        wanted = {item["path"]: self._attributes(item) for item in items}
        for path in list(wanted):
            for parent in _parents(path):
                if parent not in wanted and not os.path.isdir(parent):
                    wanted[parent] = Attributes(0, 0, 0o755, "root", "root")
        for path in sorted(wanted, key=lambda name: (name.count("/"), name)):
            attributes = wanted[path]
            _refuse_planted_links(path)
            self._planned_directories.add(path)
            try:
                found = os.stat(path)
            except FileNotFoundError:
                if os.path.islink(path):
                    raise DocumentError(f"{path} is a link that leads nowhere; remove it or mend its target.") from None
                listed = "new directories"
                self._add(path, "directory", "", f"{attributes}\n", attributes=attributes, listed_under=listed)
                continue
            except NotADirectoryError:
                raise DocumentError(f"{path} cannot be made: something above it is not a directory.") from None
            if not stat.S_ISDIR(found.st_mode):
                raise DocumentError(f"{path} is to be a directory, but something else is there; move it away.")
            if attributes.differs(found):
                real = os.path.realpath(path)
                before = f"(directory) {_describe(found)}\n"
                self._add(path, "directory", before, f"(directory) {attributes}\n", real, attributes=attributes)

    def secret(self, item: Params) -> None:
        path, attributes = item["path"], self._attributes(item)
        found = self._look(path)
        if found is None:
            content = new_secret(item["kind"]).encode()
            after = f"(secret, made on this machine) {attributes}\n"
            self._add(path, "secret", "", after, attributes=attributes, content=content, secret=True)
            return
        if not stat.S_ISREG(found.st_mode):
            raise DocumentError(f"{path} is to be a secret, but it is no regular file; move it away.")
        if found.st_size == 0:
            raise DocumentError(
                f"The secret {path} is empty, and is never overwritten. Put the right one back from a backup, "
                "or, if nothing has used it yet, remove the file: a new one is made in the next run."
            )
        if attributes.differs(found):
            before = f"(secret, unchanged) {_describe(found)}\n"
            self._add(path, "attributes", before, f"(secret, unchanged) {attributes}\n", attributes=attributes)

    def file(self, item: Params) -> None:
        path = item["path"]
        found = self._look(path, needs_parent=item["state"] == "present")
        if found is not None and not (stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)):
            raise DocumentError(f"{path} is to be a file, but something else (a directory?) is there; move it away.")
        foreign = self._foreign(path, found)
        if item["state"] == "absent":
            if found is not None and not foreign:
                # The inventory no longer says whether it was secret: what only its owner could read is not shown.
                masked = not stat.S_ISLNK(found.st_mode) and not found.st_mode & 0o077
                before = "(secret)\n" if masked else _shown(path, found, item.get("diff", True))
                self._add(path, "remove", before, "", keep_previous=True)
            return
        attributes = self._attributes(item)
        secret = item.get("secret_content") is not None
        text = item["secret_content"] if secret else item["content"]
        content = text.encode()
        regular = found is not None and stat.S_ISREG(found.st_mode)
        same = regular and _read(path) == content
        if foreign and not same and not (regular and hashlib.sha256(_read(path)).hexdigest() == item.get("replaces")):
            _refuse_foreign(path)
        if same and found is not None and not attributes.differs(found):
            return
        if same and found is not None:
            before, after = f"{_describe(found)}\n", f"{attributes}\n"
            if secret:
                before, after = f"(secret, unchanged) {before}", f"(secret, unchanged) {after}"
        elif secret:
            before, after = "" if found is None else "(secret)\n", "(secret, changed)\n"
        else:
            in_full = item.get("diff", True)
            before = "" if found is None else _shown(path, found, in_full)
            after = text if in_full else _in_short(content)
        self._add(path, "file", before, after, attributes=attributes, content=content)
        step = self.result.steps[-1]
        step.keep_previous, step.secret, step.made = not same, secret, found is None
        if found is None and not secret and not item.get("diff", True):
            step.listed_under = "new files, in short"
        if not same and found is not None and attributes.differs(found):
            step.diff["before_header"] += f" ({_describe(found)})"
            step.diff["after_header"] += f" ({attributes})"

    def link(self, item: Params) -> None:
        path = item["path"]
        found = self._look(path, needs_parent=item["state"] == "present")
        if found is not None and not (stat.S_ISLNK(found.st_mode) or stat.S_ISREG(found.st_mode)):
            raise DocumentError(
                f"{path} is to be a link, but a directory (or something else that is no file) is there; "
                "look what it holds and move it away."
            )
        before = "" if found is None else _shown(path, found)
        linked = found is not None and stat.S_ISLNK(found.st_mode)
        after = f"-> {item['target']}\n"
        if item["state"] == "absent":
            if found is not None and not linked and not self._foreign(path, found):
                raise DocumentError(f"{path} is to be no link any more, but a file is there; move it away.")
            # One that leads elsewhere is somebody else's.
            if linked and (item["target"] is None or before == after):
                self._add(path, "remove", before, "", keep_previous=True)
            return
        if not linked and self._foreign(path, found):
            _refuse_foreign(path)
        if before != after or found is None or not stat.S_ISLNK(found.st_mode):
            self._add(path, "link", before, after, target=item["target"], keep_previous=True, made=found is None)

    def _foreign(self, path: str, found: os.stat_result | None) -> bool:
        """Whether what is there was not written by this collection; a file that says so is replaced as it is needed."""
        if found is None or OURS.match(path) or (stat.S_ISREG(found.st_mode) and found.st_size == 0):
            return False
        return not stat.S_ISREG(found.st_mode) or MARK not in _read(path)

    def blocks(self, path: str, items: list[Params]) -> None:
        _refuse_planted_links(path)
        real = os.path.realpath(path)
        wanted = any(item["state"] == "present" for item in items)
        found = self._look(real, needs_parent=wanted)
        if found is None and not wanted:
            return
        if found is None:
            before, attributes = "", Attributes(0, 0, 0o644, "root", "root")
        else:
            if not stat.S_ISREG(found.st_mode):
                raise DocumentError(f"{path} is to hold a block, but it is no regular file; move it away.")
            before = _read(real).decode(errors="surrogateescape")
            mode = stat.S_IMODE(found.st_mode)
            attributes = Attributes(found.st_uid, found.st_gid, mode, str(found.st_uid), str(found.st_gid))
        after = before
        for item in items:
            content = item["content"] if item["state"] == "present" else None
            after = with_block(after, item["name"], content, item["position"], path)
        if after != before or found is None:
            raw = after.encode(errors="surrogateescape")
            old, new = (text.encode(errors="surrogateescape").decode(errors="replace") for text in (before, after))
            self._add(path, "file", old, new, real, attributes=attributes, content=raw, keep_previous=True)

    def _look(self, path: str, needs_parent: bool = True) -> os.stat_result | None:
        _refuse_planted_links(os.path.dirname(path))
        try:
            return os.lstat(path)
        except FileNotFoundError:
            parent = os.path.dirname(path)
            if needs_parent and not self.check_mode and parent not in self._made() and not os.path.isdir(parent):
                raise DocumentError(
                    f"{path} cannot be written: its directory {parent} does not exist. Name it in directories, "
                    "or install what owns it first."
                ) from None
            return None
        except NotADirectoryError:
            raise DocumentError(f"{path} cannot be written: something above it is not a directory.") from None

    def _made(self) -> set[str]:
        return self._planned_directories

    def _attributes(self, item: Params) -> Attributes:
        uid = self._id(item["path"], "owner", item["owner"])
        gid = self._id(item["path"], "group", item["group"])
        return Attributes(uid, gid, int(item["mode"], 8), item["owner"], item["group"])

    def _id(self, path: str, kind: str, name: str) -> int | None:
        try:
            return pwd.getpwnam(name).pw_uid if kind == "owner" else grp.getgrnam(name).gr_gid
        except KeyError:
            if name.isdecimal():
                return int(name)
            if self.check_mode:
                return None
            raise DocumentError(
                f"{path}: this machine has no {'user' if kind == 'owner' else 'group'} {name!r} to be its {kind}."
            ) from None


def new_secret(kind: str) -> str:
    if kind == "synapse_signing_key":
        version = "".join(secrets.choice(string.ascii_letters) for _ in range(4))
        seed = base64.b64encode(secrets.token_bytes(32)).decode().rstrip("=")
        return f"ed25519 a_{version} {seed}\n"
    return secrets.token_urlsafe(48)


def with_block(text: str, name: str, content: str | None, position: str, path: str) -> str:
    """``text`` with block ``name`` holding ``content`` (None: without that block).

    A block stays where it is as long as nothing but comments and other blocks of ours stands on the wrong side of
    it: several instances may all want to be first.
    """
    lines = text.splitlines(keepends=True)
    begin, end = f"# BEGIN cae.matrix {name}", f"# END cae.matrix {name}"
    starts = [number for number, line in enumerate(lines) if line.rstrip() == begin]
    ends = [number for number, line in enumerate(lines) if line.rstrip() == end]
    if len(starts) != len(ends) or len(starts) > 1 or (starts and starts[0] > ends[0]):
        raise DocumentError(
            f"{path}: the markers of block {name!r} do not match. There must be one line '{begin}' and after it one "
            f"line '{end}', or neither; mend the file by hand."
        )
    if not starts and content is None:
        return text
    block: list[str] = []
    if content is not None:
        body = content if content.endswith("\n") or not content else content + "\n"
        block = [f"{begin}\n", *body.splitlines(keepends=True), f"{end}\n"]
    if starts:
        first, last = starts[0], ends[0] + 1
        wrong_side = lines[:first] if position == "start" else lines[last:]
        if content is None or not _foreign(wrong_side):
            return "".join(lines[:first] + block + lines[last:])
        lines = lines[:first] + lines[last:]
    if position == "start":
        top = _leading_blocks(lines)
        return "".join(lines[:top] + block + lines[top:])
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    return "".join(lines + block)


def _foreign(lines: list[str]) -> bool:
    """Whether a line that is neither empty, nor a comment, nor in one of our blocks is among them."""
    inside: str | None = None
    for line in lines:
        marker = _MARKER.fullmatch(line.rstrip())
        if marker and inside is None and marker[1] == "BEGIN":
            inside = marker[2]
        elif marker and marker[1] == "END" and marker[2] == inside:
            inside = None
        elif inside is None and line.strip() and not line.lstrip().startswith("#"):
            return True
    return False


def _leading_blocks(lines: list[str]) -> int:
    """How many lines at the top belong to our blocks."""
    top, inside = 0, None
    for number, line in enumerate(lines):
        marker = _MARKER.fullmatch(line.rstrip())
        if inside is None:
            if not (marker and marker[1] == "BEGIN"):
                break
            inside = marker[2]
        elif marker and marker[1] == "END" and marker[2] == inside:
            inside, top = None, number + 1
    return top


def _refuse_planted_links(path: str) -> None:
    """Root must not be led elsewhere by a link that an unprivileged user could have put into the path."""
    for place in [path, *_parents(path)]:
        try:
            found = os.lstat(place)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if not stat.S_ISLNK(found.st_mode):
            continue
        around = os.lstat(os.path.dirname(place))
        others_write = around.st_mode & 0o022 and not around.st_mode & stat.S_ISVTX
        if {found.st_uid, around.st_uid} - {0, os.geteuid()} or others_write:
            raise DocumentError(f"{place} is a link that others than root can change; it is not followed. Replace it.")


def _refuse_foreign(path: str) -> None:
    raise DocumentError(
        f"{path} is there already, and was not written by cae.matrix, so nothing was changed. Look what it is for, "
        "and move it away."
    )


def _describe(found: os.stat_result) -> str:
    return f"{_name(found.st_uid, 'owner')}:{_name(found.st_gid, 'group')} {stat.S_IMODE(found.st_mode):04o}"


def _name(number: int, kind: str) -> str:
    try:
        return pwd.getpwuid(number).pw_name if kind == "owner" else grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        return file.read()


def _shown(path: str, found: os.stat_result, in_full: bool = True) -> str:
    if stat.S_ISLNK(found.st_mode):
        return f"-> {os.readlink(path)}\n"
    content = _read(path)
    return content.decode(errors="replace") if in_full else _in_short(content)


def _in_short(content: bytes) -> str:
    """For what nobody reads in a diff: shipped code, lock files."""
    return f"({len(content.splitlines())} lines, sha256 {hashlib.sha256(content).hexdigest()})\n"


# --- applying it ------------------------------------------------------------------------------------------------


class Ended(BaseException):
    """The run was told to stop (the controller went away)."""


class Transaction:
    """Changes that are all undone, last first, unless ``commit`` is reached."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []
        self._leftovers: list[str] = []

    def apply(
        self,
        steps: list[Step],
        backup_dir: str | None = None,
        judge: Callable[[], None] | None = None,
        trees: Sequence[str] = (),
    ) -> str | None:
        """Put every step in place. Whatever fails, what was there before is there again afterwards.

        ``judge`` raises when it does not like the plan; all it finds made are those of ``trees`` that are new.
        """
        with _stop_signals_raise():
            try:
                for step in steps:
                    if step.action == "leftover":
                        _remove_leftover(step.real)
                for step in steps:
                    if step.action == "directory" and any(f"{tree}/".startswith(f"{step.real}/") for tree in trees):
                        self.directory(step.real, step.attributes)
                if judge:
                    judge()
                for step in steps:
                    if step.action == "directory":
                        self.directory(step.real, step.attributes)
                for step in steps:
                    if step.action == "secret":
                        self._new_secret(step)
                    elif step.action == "attributes":
                        self._mend(step.real, step.attributes)
                # Everything is written beside its place first: a full disk shows before anything is replaced.
                for step in steps:
                    self._stage(step)
                backup = _back_up(steps, backup_dir) if backup_dir else None
                for step in steps:
                    self._replace(step)
                for parent in {os.path.dirname(step.real) for step in steps}:
                    _sync_directory(parent)
                with _stop_signals_ignored():
                    self.commit()
            except BaseException:
                with _stop_signals_ignored():
                    self.roll_back()
                raise
        return backup

    def commit(self) -> None:
        self._undo.clear()
        for path in self._leftovers:
            # All is in place: one that cannot be removed is no failure, and the next run removes it.
            with contextlib.suppress(OSError):
                os.unlink(path)

    def roll_back(self) -> None:
        problems = []
        while self._undo:
            try:
                self._undo.pop()()
            except OSError as error:
                problems.append(str(error))
        if problems:
            raise DocumentError(
                "Writing failed, and what was already written could not all be put back: " + "; ".join(problems)
            )

    def _will_remove(self, path: str) -> None:
        self._leftovers.append(path)
        self._undo.append(lambda: _remove_leftover(path))

    def directory(self, path: str, attributes: Attributes | None) -> None:
        try:
            os.mkdir(path, 0o700)
            self._undo.append(lambda: os.rmdir(path))
        except FileExistsError:
            self._mend(path, attributes)
            return
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _set_attributes(descriptor, attributes)
        finally:
            os.close(descriptor)

    def _mend(self, path: str, attributes: Attributes | None) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        found = os.fstat(descriptor)
        before = Attributes(found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode), "", "")

        def put_back() -> None:
            again = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                _set_attributes(again, before)
            finally:
                os.close(again)

        try:
            self._undo.append(put_back)
            _set_attributes(descriptor, attributes)
        finally:
            os.close(descriptor)

    def _new_secret(self, step: Step) -> None:
        # Linked under its name once it is complete: a machine that stops here leaves no empty secret behind,
        # and a secret that appeared meanwhile is not overwritten.
        staged = self._write_beside(step)
        os.link(staged, step.real)
        self._undo.append(lambda: os.unlink(step.real))

    def _stage(self, step: Step) -> None:
        if step.action == "file":
            self._write_beside(step)
        elif step.action == "link":
            staged = _beside(step.real, _STAGED)
            _remove_leftover(staged)
            os.symlink(step.target or "", staged)
            self._will_remove(staged)

    def _write_beside(self, step: Step) -> str:
        staged = _beside(step.real, _STAGED)
        _remove_leftover(staged)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(staged, flags, 0o600)
        self._will_remove(staged)
        with open(descriptor, "wb") as file:
            file.write(step.content or b"")
            file.flush()
            _set_attributes(descriptor, step.attributes)
            os.fsync(descriptor)
        return staged

    def _replace(self, step: Step) -> None:
        if step.action not in ("file", "link", "remove"):
            return
        previous = _beside(step.real, _PREVIOUS)
        _remove_leftover(previous)
        existed = os.path.lexists(step.real)
        if existed:
            # A second name for what is there, so that putting it back needs neither space nor a copy.
            os.link(step.real, previous, follow_symlinks=False)
            self._will_remove(previous)
            self._undo.append(lambda: os.rename(previous, step.real))
        if step.action == "remove":
            os.unlink(step.real)
            return
        os.rename(_beside(step.real, _STAGED), step.real)
        if not existed:
            self._undo.append(lambda: os.unlink(step.real))


def _alive(process: str | None) -> bool:
    return process is not None and os.path.exists(f"/proc/{process}")


def _beside(path: str, suffix: str) -> str:
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}{suffix}")


def _remove_leftover(path: str) -> None:
    """What a run that was killed has left; the lock keeps a living one away."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _set_attributes(descriptor: int, attributes: Attributes | None) -> None:
    if attributes is None:
        return
    uid = -1 if attributes.uid is None else attributes.uid
    gid = -1 if attributes.gid is None else attributes.gid
    os.fchown(descriptor, uid, gid)
    os.fchmod(descriptor, attributes.mode)


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _back_up(steps: list[Step], backup_dir: str) -> str | None:
    """Keep the previous versions of what changes; the newest sets stay."""
    kept = [step for step in steps if step.keep_previous and os.path.lexists(step.real)]
    if not kept:
        return None
    sets = os.path.join(backup_dir, "documents")
    for directory in [*reversed([backup_dir, *_parents(backup_dir)]), sets]:
        if not os.path.isdir(directory):
            os.mkdir(directory, 0o700 if directory in (backup_dir, sets) else 0o755)
    # Of one look at the clock: of two, a set of the next second can be called older than what is there, and go first.
    seconds, rest = divmod(time.time_ns(), 10**9)
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(seconds)) + f".{rest:09d}Z"
    new = os.path.join(sets, stamp)
    os.mkdir(new, 0o700)
    for step in kept:
        copy = new + step.real
        os.makedirs(os.path.dirname(copy), mode=0o700, exist_ok=True)
        shutil.copy2(step.real, copy, follow_symlinks=False)
        found = os.lstat(step.real)
        os.lchown(copy, found.st_uid, found.st_gid)
    for old in sorted(os.listdir(sets))[:-KEPT_BACKUPS]:
        shutil.rmtree(os.path.join(sets, old))
    return new


@contextlib.contextmanager
def _stop_signals_raise() -> Iterator[None]:
    def ended(number: int, frame: Any) -> None:
        raise Ended(signal.Signals(number).name)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    previous = {number: signal.signal(number, ended) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _stop_signals_ignored() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
