# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What Synapse reads besides what roles wrote."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from ansible_collections.cae.matrix.plugins.module_utils.encryption import configuration_files

FIND = """
import sys
from synapse.config._base import find_config_files
print("\\n".join(find_config_files([sys.argv[1]])))
"""


def directory_with_everything(directory: Path) -> list[str]:
    """The names of what is strange in it."""
    for name in ("homeserver.yaml", "registration.yaml", "secrets.yaml", "zz.yaml", ".hidden.yaml", "0.yaml"):
        (directory / name).write_text("a: 1\n")
    for name in ("notes.txt", "ZZ.YAML", "zz.yaml.old", ".registration.yaml.12", "zz.yml"):
        (directory / name).write_text("not read\n")
    (directory / "sub.yaml").mkdir()
    (directory / "sub.yaml" / "deeper.yaml").write_text("a: 1\n")
    (directory / "link.yaml").symlink_to(directory / "notes.txt")
    return [".hidden.yaml", "0.yaml", "link.yaml", "zz.yaml"]


def test_what_is_strange_is_what_synapse_reads_and_no_role_wrote(tmp_path: Path, python: str) -> None:
    strange = directory_with_everything(tmp_path)
    done = subprocess.run([python, "-c", FIND, str(tmp_path)], capture_output=True, text=True, check=True)
    read = [Path(line).name for line in done.stdout.splitlines() if line.startswith(f"{tmp_path}/")]
    assert sorted([*strange, "homeserver.yaml", "registration.yaml", "secrets.yaml"]) == sorted(read)
    assert [path.name for path in configuration_files.stray_files(tmp_path)] == strange


def test_a_link_that_leads_nowhere_yet_is_strange(tmp_path: Path) -> None:
    (tmp_path / "later.yaml").symlink_to("/nowhere/at/all")
    assert [path.name for path in configuration_files.stray_files(tmp_path)] == ["later.yaml"]
    assert configuration_files.stray_files(tmp_path / "not-there") == []


def test_nothing_of_what_is_set_aside_is_lost(tmp_path: Path) -> None:
    directory, backups = tmp_path / "synapse", tmp_path / "backups" / "atelier"
    directory.mkdir()
    strange = directory_with_everything(directory)
    os.chmod(directory / "zz.yaml", 0o640)
    before = {name: (directory / name).lstat() for name in strange}
    moved = configuration_files.set_aside(configuration_files.stray_files(directory), backups)
    assert configuration_files.stray_files(directory) == []
    assert sorted(Path(path).name for path in moved) == strange
    for path, kept in moved.items():
        found = Path(kept).lstat()
        wanted = before[Path(path).name]
        assert (found.st_mode, found.st_uid, found.st_gid) == (wanted.st_mode, wanted.st_uid, wanted.st_gid)
        assert kept.startswith(f"{backups}/set-aside/")
    assert Path(moved[str(directory / "zz.yaml")]).read_text() == "a: 1\n"
    assert os.readlink(moved[str(directory / "link.yaml")]) == str(directory / "notes.txt")
    assert backups.stat().st_mode & 0o777 == 0o700
    # Another one of the same name, later.
    (directory / "zz.yaml").write_text("b: 2\n")
    again = configuration_files.set_aside(configuration_files.stray_files(directory), backups)
    assert Path(moved[str(directory / "zz.yaml")]).read_text() == "a: 1\n"
    assert Path(again[str(directory / "zz.yaml")]).read_text() == "b: 2\n"


@pytest.mark.parametrize(
    ("words", "places"),
    [
        ("-c /etc/a/synapse", []),
        ("-c /etc/a/synapse/", []),
        ("-c /etc/a/synapse -c /etc/a/other", ["/etc/a/other"]),
        ("-c/etc/a/other", ["/etc/a/other"]),
        ("--config-path=/x.yaml -c /etc/a/synapse", ["/x.yaml"]),
        ("--config /x.yaml --c=/y.yaml", ["/x.yaml", "/y.yaml"]),
        ("--keys-directory /keys -c /etc/a/synapse", []),
        ("", []),
    ],
)
def test_other_places(words: str, places: list[str]) -> None:
    command = ["python", "-m", "synapse.app.homeserver", *words.split()]
    assert configuration_files.other_places(command, Path("/etc/a/synapse")) == places


def test_the_words_of_a_process() -> None:
    assert configuration_files.command_of_process(str(os.getpid()))[0]
    assert configuration_files.command_of_process("0") == []
    assert configuration_files.command_of_process("") == []
