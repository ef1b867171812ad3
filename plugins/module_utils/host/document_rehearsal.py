# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Let a program judge planned documents at their real paths, before anything is put in place.

A copy of the directories concerned gets the plan applied to it and is mounted over the real ones, in a mount
namespace that only the program sees.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import stat
import subprocess
import tempfile
from typing import Any

from ansible_collections.cae.matrix.plugins.module_utils.host.document_set import Attributes, DocumentError, Step

_TIMEOUT = 120
_RUN, _WORK = "/run", "cae-matrix-"
# $1 is a file that says "the program was reached"; then pairs of what is mounted where, "--", and the program.
_IN_NAMESPACE = """
reached=$1; shift
while [ "$1" != -- ]; do mount --bind "$1" "$2" || exit 1; shift 2; done
shift
: > "$reached"
exec "$@"
"""


def rehearse(validators: list[dict[str, Any]], steps: list[Step], check_mode: bool = False) -> None:
    """Run the validators that see something of the plan; raise with what the first refusal says."""
    for validator in validators:
        command, trees = validator["command"], _outermost(validator["tree"])
        real = [step for step in steps if step.action != "leftover"]
        concerned = [step for step in real if any(_inside(_place(step), tree) for tree in trees)]
        if not concerned:
            continue
        if check_mode and _not_there_yet(command, trees):
            continue
        if shutil.which(command[0]) is None:
            raise DocumentError(
                f"The configuration cannot be checked: there is no program {command[0]!r} on this machine. "
                "Install it first; nothing was changed."
            )
        trees = [tree for tree in trees if os.path.isdir(tree)]
        if trees:
            _rehearse(validator, trees, concerned, steps)


def _rehearse(validator: dict[str, Any], trees: list[str], concerned: list[Step], steps: list[Step]) -> None:
    command = validator["command"]
    # /run is memory: what is secret in a tree does not touch the disk.
    work = tempfile.mkdtemp(prefix=f"{_WORK}{os.getpid()}-", dir=_RUN if os.access(_RUN, os.W_OK) else None)
    try:
        mounts: list[str] = []
        for number, tree in enumerate(trees):
            copy = os.path.join(work, str(number))
            _copy_tree(tree, copy)
            for step in concerned:
                place = _place(step)
                if _inside(place, tree):
                    _apply(step, copy + place[len(tree) :])
            mounts += [copy, tree]
        reached = os.path.join(work, "reached")
        sandbox = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _IN_NAMESPACE, "sh", reached]
        try:
            result = subprocess.run(
                [*sandbox, *mounts, "--", *command],
                input=(validator.get("input") or "").encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise DocumentError(
                f"`{' '.join(command)}` did not end within {_TIMEOUT} s; nothing was changed."
            ) from None
        except FileNotFoundError:
            raise DocumentError(
                "The configuration cannot be checked: unshare (package util-linux) is missing."
            ) from None
        said = _without_secrets(result.stdout.decode(errors="replace"), steps)
        if not os.path.exists(reached):
            raise DocumentError(
                "The configuration cannot be checked before it is put in place: this machine does not allow a private "
                f"mount namespace ({said.strip()}). In a container, allow SYS_ADMIN and unshare; nothing was changed."
            )
        if result.returncode != 0:
            raise DocumentError(
                f"`{' '.join(command)}` refuses the new configuration (exit status {result.returncode}), "
                f"so nothing was changed:\n{said.strip()}"
            )
        forbidden = validator.get("forbid")
        lines = [line for line in said.splitlines() if forbidden and re.search(forbidden, line)]
        if lines:
            raise DocumentError(
                f"`{' '.join(command)}` accepts the new configuration with a warning that counts as an error here, so "
                "nothing was changed:\n" + "\n".join(lines)
            )
    finally:
        shutil.rmtree(work)


def sweep() -> None:
    """Take away what rehearsals that were killed have left."""
    for path in glob.glob(f"{_RUN}/{_WORK}*-*"):
        pid = os.path.basename(path).removeprefix(_WORK).split("-", 1)[0]
        if pid.isdecimal() and not os.path.exists(f"/proc/{pid}"):
            shutil.rmtree(path, ignore_errors=True)


def _not_there_yet(command: list[str], trees: list[str]) -> bool:
    """Whether the program, or one it is to start (runuser … -- /opt/…), would only be installed by a real run."""
    paths = [word for word in command if word.startswith("/") and not any(_inside(word, tree) for tree in trees)]
    return shutil.which(command[0]) is None or not all(os.path.exists(path) for path in paths)


def _outermost(trees: list[str]) -> list[str]:
    kept: list[str] = []
    for tree in sorted({os.path.realpath(tree) for tree in trees}):
        if not any(_inside(tree, outer) for outer in kept):
            kept.append(tree)
    return kept


def _place(step: Step) -> str:
    parent, name = os.path.split(step.real)
    return os.path.join(os.path.realpath(parent), name)


def _inside(path: str, tree: str) -> bool:
    return path == tree or path.startswith(tree + "/")


def _copy_tree(source: str, copy: str) -> None:
    found = os.lstat(source)
    os.mkdir(copy, 0o700)
    with os.scandir(source) as entries:
        for entry in entries:
            target = os.path.join(copy, entry.name)
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), target)
                _copy_owner(entry.stat(follow_symlinks=False), target)
            elif entry.is_dir():
                _copy_tree(entry.path, target)
            elif entry.is_file():
                shutil.copyfile(entry.path, target)
                _copy_owner(entry.stat(), target)
    _copy_owner(found, copy)


def _copy_owner(found: os.stat_result, target: str) -> None:
    os.lchown(target, found.st_uid, found.st_gid)
    if not stat.S_ISLNK(found.st_mode):
        os.chmod(target, stat.S_IMODE(found.st_mode))


def _apply(step: Step, target: str) -> None:
    if step.action == "directory":
        os.makedirs(target, exist_ok=True)
    elif step.action in ("file", "secret", "link", "remove"):
        # Where the plan could not be complete (check mode on a fresh machine), a directory may be missing.
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.lexists(target):
            os.unlink(target)
        if step.action == "link":
            os.symlink(step.target or "", target)
        elif step.action != "remove":
            with open(target, "xb") as file:
                file.write(step.content or b"")
    if step.attributes is not None:
        _set_attributes(target, step.attributes)


def _set_attributes(target: str, attributes: Attributes) -> None:
    uid = -1 if attributes.uid is None else attributes.uid
    gid = -1 if attributes.gid is None else attributes.gid
    os.chown(target, uid, gid)
    os.chmod(target, attributes.mode)


def _without_secrets(said: str, steps: list[Step]) -> str:
    """A program that quotes a line it does not like must not show a secret."""
    for step in steps:
        if step.secret and step.content:
            for line in step.content.decode(errors="replace").splitlines():
                value = re.split(r"[:=]\s+|=", line.strip(), maxsplit=1)[-1].strip("'\" ")
                for text in (line.strip(), value):
                    if len(text) >= 4:
                        said = said.replace(text, "(secret)")
    return said
