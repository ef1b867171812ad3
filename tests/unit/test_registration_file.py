# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether registration.yaml is as the gate has written it."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.cae.matrix.plugins.module_utils.synapse.registration_file import RegistrationFile

CLOSED, OPEN = "enable_registration: false\n", "enable_registration: true\n"


@pytest.fixture
def file(tmp_path: Path) -> RegistrationFile:
    (tmp_path / "synapse").mkdir()
    return RegistrationFile(tmp_path, (OPEN, CLOSED))


def write(file: RegistrationFile, text: str) -> None:
    file.note(text)
    file.path.write_text(text)


def test_what_the_gate_has_written_is_not_edited(file: RegistrationFile) -> None:
    assert not file.edited(), "there is none yet"
    for text in (CLOSED, OPEN, CLOSED):
        write(file, text)
        assert not file.edited()


def test_what_somebody_else_has_written_or_taken_away_is_edited_and_kept(file: RegistrationFile) -> None:
    write(file, OPEN)
    file.path.write_text(OPEN + "# by hand\n")
    assert file.edited()
    kept = file.keep()
    assert kept.read_text() == OPEN + "# by hand\n"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.parent != file.path.parent
    file.path.unlink()
    assert file.edited()


def test_an_inventory_that_has_changed_since_is_no_hand(file: RegistrationFile) -> None:
    write(file, OPEN)
    assert not RegistrationFile(file.digests.parent, ("another: text\n",)).edited()


def test_who_is_killed_before_the_file_is_written_has_edited_nothing(file: RegistrationFile) -> None:
    write(file, CLOSED)
    file.note(OPEN)
    assert not file.edited()


def test_a_file_of_before_there_were_digests_is_adopted(file: RegistrationFile) -> None:
    file.path.write_text(OPEN)
    assert not file.edited()
    file.adopt()
    file.path.write_text(OPEN + "# by hand\n")
    assert file.edited()
    # Not a file that nobody has declared.
    file.digests.unlink()
    file.adopt()
    assert not file.digests.exists()
