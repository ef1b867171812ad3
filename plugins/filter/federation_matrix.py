# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who reaches whom, for programs and for the terminal."""

from __future__ import annotations

DOCUMENTATION = r"""
name: federation_matrix
short_description: One table of who reaches whom
version_added: 0.1.0
author: cae.matrix contributors
description:
  - Puts the results of M(cae.matrix.federation_check) for several instances together. C(playbooks/verify.yml) uses it.
options:
  _input:
    description:
      - For each instance its C(domain), its C(peers) (the filter C(federation_peers)), what the module returned
        (C(found), possibly empty), and why it could not be asked (C(failure), possibly empty).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Show who reaches whom
  cae.matrix.show:
    lines: "{{ ([{'domain': matrix_domain, 'peers': peers, 'found': found}] | cae.matrix.federation_matrix).table }}"
"""

RETURN = r"""
_value:
  description:
    - C(pairs), one entry for each direction that was to be asked, with C(from), C(to), and what the module says of it.
    - C(counts), how many were reached (C(ok), C(warn)), C(refused) as declared, or are a C(gap).
    - C(ok), whether there is no gap; C(gaps), for each server that has some, the other ends.
    - C(table), the same as lines for a terminal.
  type: dict
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.cae.matrix.plugins.module_utils.encryption.registration import plain
from ansible_collections.cae.matrix.plugins.module_utils.federation.reach import counts, gaps, pairs, table


def federation_matrix(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """See DOCUMENTATION."""
    found = pairs(plain(results))
    number = counts(found)
    return {"pairs": found, "counts": number, "ok": number["gap"] == 0, "gaps": gaps(found), "table": table(found)}


class FilterModule:
    """Ansible looks for this class."""

    def filters(self) -> dict[str, Callable[..., dict[str, Any]]]:
        return {"federation_matrix": federation_matrix}
