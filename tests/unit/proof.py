# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An attestation as the gate writes it."""

from __future__ import annotations

from ansible_collections.cae.matrix.plugins.module_utils.encryption.attestation import Attestation, this_machine

PROOF = Attestation(
    instance="atelier",
    domain="atelier.test",
    attested_at="2026-11-22T12:00:00Z",
    first_attested_at="2026-11-22T12:00:00Z",
    collection_version="0.1.0",
    synapse_version="1.163.2",
    element_version=None,
    digest="sha256:" + "0" * 64,
    invocation_id="0" * 32,
    registration="closed",
    verdict="in time",
    synapse_digest="sha256:" + "0" * 64,
    machine=this_machine(),
)
