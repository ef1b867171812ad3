# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A set of documents taken back: the previous versions that were kept of it, and nothing of what was new."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence

from ansible_collections.cae.matrix.plugins.module_utils.host.document_set import Attributes, DocumentError, Step


def restoration(backup_set: str, made: Sequence[str]) -> list[Step]:
    """What puts back what is kept in a set (see document_set), and removes the files and links that came with it."""
    if not os.path.isdir(backup_set):
        raise DocumentError(f"There are no previous versions to put back: {backup_set} does not exist.")
    steps = [_step(copy, copy[len(backup_set) :]) for copy in sorted(_kept(backup_set))]
    kept = {step.path for step in steps}
    return steps + [_removal(path) for path in made if path not in kept and os.path.lexists(path)]


def _kept(directory: str) -> Iterator[str]:
    for entry in os.scandir(directory):
        if entry.is_dir(follow_symlinks=False):
            yield from _kept(entry.path)
        else:
            yield entry.path


def _step(copy: str, path: str) -> Step:
    found = os.lstat(copy)
    if stat.S_ISLNK(found.st_mode):
        target = os.readlink(copy)
        return Step(path, path, "link", _shown(path, f"-> {target}\n"), target=target)
    with open(copy, "rb") as file:
        content = file.read()
    attributes = Attributes(found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode), "", "")
    return Step(path, path, "file", _shown(path, "(the previous version)\n"), attributes, content)


def _removal(path: str) -> Step:
    return Step(path, path, "remove", _shown(path, ""))


def _shown(path: str, after: str) -> dict[str, str]:
    # What was secret is not told apart here, so nothing is shown.
    return {"before_header": path, "after_header": path, "before": "(what was taken back)\n", "after": after}
