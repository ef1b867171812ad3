# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How much memory Synapse's caches may use on a machine."""

from __future__ import annotations

DOCUMENTATION = r"""
name: cache_memory
short_description: How much memory Synapse's caches may use on a machine
version_added: 0.1.0
author: cae.matrix contributors
description:
  - Memory of the process above which caches are emptied, by the machine's memory and the number of instances it is for.
  - Changes in steps, since a Synapse whose caches have another size is restarted.
options:
  _input:
    description: The fact C(cae_matrix_machine). Of a machine that nobody has looked at, the largest default is given.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show the default
  ansible.builtin.debug:
    msg: "{{ ansible_facts.cae_matrix_machine | cae.matrix.cache_memory }}"
"""

RETURN = r"""
_value:
  description: The size, with its unit.
  type: str
  sample: 1024M
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.cae.matrix.plugins.module_utils.instance.limits import CACHE_STEPS, cache_mb


def cache_memory(machine: Mapping[str, Any]) -> str:
    if not machine:
        return f"{CACHE_STEPS[0]}M"
    return f"{cache_mb(machine['memory_mb'], len(machine['expected']))}M"


class FilterModule:
    """Ansible looks for this class."""

    def filters(self) -> dict[str, Callable[..., str]]:
        return {"cache_memory": cache_memory}
