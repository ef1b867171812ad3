# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether the gate has proven this server. The attestation comes and goes while Synapse runs, so it is looked at anew
for each registration; it is read again only when it is another file than before."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ansible_collections.cae.matrix.plugins.module_utils.encryption import attestation


@dataclass
class Proof:
    """The attestation that has to be there before anybody can register."""

    path: str
    instance: str
    domain: str
    # Of the configuration that this process runs with.
    digest: str
    _seen: tuple[int, ...] = ()
    _why_not: str | None = None

    def why_not(self) -> str | None:
        """Why there is no proof, or None if there is one."""
        try:
            stat = os.stat(self.path)
            seen = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            if seen != self._seen:
                self._why_not = self._judge()
                self._seen = seen
        except FileNotFoundError:
            return f"there is no attestation ({self.path})"
        except OSError as error:
            return f"the attestation {self.path} cannot be read ({error.strerror})"
        return self._why_not

    def _judge(self) -> str | None:
        try:
            with open(self.path, encoding="utf-8") as file:
                found = attestation.parse(file.read())
        except UnicodeDecodeError:
            return f"the attestation {self.path} is not valid: it is not text"
        except attestation.Malformed as error:
            return f"the attestation {self.path} is not valid: {error}"
        if not found.is_for(self.instance, self.domain):
            return f"the attestation {self.path} is for {found.instance} ({found.domain}), another server"
        if not found.synapse_digest:
            return f"the attestation {self.path} is of an earlier version, and does not say what of Synapse was proven"
        if found.machine != attestation.this_machine():
            return f"the attestation {self.path} was made on another machine"
        if found.synapse_digest != self.digest:
            return f"the attestation {self.path} is for another configuration than the one that Synapse runs with"
        return None
