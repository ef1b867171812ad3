# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""registration.yaml on the machine: what is there, and whether the gate has written it."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Collection
from pathlib import Path

from ansible_collections.cae.matrix.plugins.module_utils.synapse.admin import read_text, write_private


def stamp() -> str:
    """The present, for the name of what is kept."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S.%fZ")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class RegistrationFile:
    """The file, and beside it the digests of what the gate wrote last."""

    def __init__(self, config_dir: Path, declared: Collection[str | None]) -> None:
        self.path = config_dir / "synapse/registration.yaml"
        self.digests = config_dir / "registration.sha256"
        self.declared = declared

    @property
    def text(self) -> str | None:
        return read_text(self.path)

    def _written(self) -> list[str]:
        return [line.split(" ", 1)[0] for line in (read_text(self.digests) or "").splitlines()]

    def edited(self) -> bool:
        """Whether somebody else has written it since, or taken it away."""
        text, written = self.text, self._written()
        if text is None:
            return bool(written)
        return text not in self.declared and _sha256(text) not in written

    def keep(self) -> Path:
        """Where what somebody has written is kept; Synapse does not look there."""
        kept = self.digests.with_name(f"registration.{stamp()}.yaml")
        write_private(kept, self.text or "")
        return kept

    def note(self, text: str) -> None:
        """Before it is written: whoever is killed in between has written it, or the one before is there."""
        written = [_sha256(text), *(one for one in self._written() if one != _sha256(text))][:2]
        write_private(self.digests, "".join(f"{one}  {self.path}\n" for one in written))

    def adopt(self) -> None:
        """A file of before there were digests, as it would be written now."""
        text = self.text
        if text is not None and text in self.declared and not self._written():
            self.note(text)
