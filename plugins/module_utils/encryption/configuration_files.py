# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What Synapse reads beside the files that roles write: found as Synapse finds it, and set aside without losing it."""

from __future__ import annotations

import datetime
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from ansible_collections.cae.matrix.plugins.module_utils.encryption.gate import OWN_FILES

_CONFIG = "--config-path"


def stray_files(directory: Path) -> list[Path]:
    """Files that Synapse reads in its directory, or would (a link that leads nowhere yet), and that no role wrote."""
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    paths = [directory / name for name in names if name.endswith(".yaml") and name not in OWN_FILES]
    return [path for path in paths if path.is_symlink() or not path.is_dir()]


def other_places(command: Sequence[str], directory: Path) -> list[str]:
    """Files and directories besides its own that a command has Synapse read.

    >>> other_places(["python", "-m", "app", "-c", "/a/synapse/", "--config=/b", "-c/c"], Path("/a/synapse"))
    ['/b', '/c']
    """
    found = []
    words = iter(command)
    for word in words:
        name, equals, value = word.partition("=")
        if word.startswith("-c"):
            found.append(word[2:] or next(words, ""))
        elif len(name) > 2 and _CONFIG.startswith(name):
            # Python's argparse takes every beginning of an option for it.
            found.append(value if equals else next(words, ""))
    return [place for place in found if os.path.normpath(place) != str(directory)]


def command_of_unit(shown: str) -> list[str]:
    """The words of systemd's `ExecStart`, as `systemctl show` tells it.

    >>> command_of_unit("{ path=/bin/a ; argv[]=/bin/a -c /b ; ignore_errors=no ; pid=0 }")
    ['/bin/a', '-c', '/b']
    """
    return shown.partition("argv[]=")[2].partition(" ; ")[0].split()


def command_of_process(pid: str) -> list[str]:
    """The words that a process was started with; none if there is no such process."""
    try:
        return Path(f"/proc/{int(pid)}/cmdline").read_bytes().decode(errors="replace").split("\0") if int(pid) else []
    except (OSError, ValueError):
        return []


def set_aside(paths: Iterable[Path], backup_dir: Path) -> dict[str, str]:
    """Move files out of Synapse's sight, as they are; by their path, where each is now."""
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    moved = {}
    for path in paths:
        kept = backup_dir / "set-aside" / stamp / path.name
        for directory in (backup_dir, kept.parent.parent, kept.parent):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Another file system, perhaps: whole there before it is gone here.
        found = path.lstat()
        shutil.copy2(path, kept, follow_symlinks=False)
        os.chown(kept, found.st_uid, found.st_gid, follow_symlinks=False)
        path.unlink()
        moved[str(path)] = str(kept)
    return moved
