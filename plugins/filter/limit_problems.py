# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is wrong with the limits of an instance."""

from __future__ import annotations

DOCUMENTATION = r"""
name: limit_problems
short_description: What is wrong with the limits of an instance
version_added: 0.1.0
author: cae.matrix contributors
description:
  - Checks what an instance may take of its machine, memory, processor and threads, also against the size of Synapse's
    caches.
  - Returns every problem, each naming the variable and the mend; an empty list if there is none.
options:
  _input:
    description: >-
      The values of C(synapse_memory_high), C(synapse_memory_max), C(synapse_cpu_quota), C(synapse_cpu_weight),
      C(synapse_tasks_max) and C(synapse_cache_max_memory), by their names.
    type: dict
    required: true
  machine:
    description:
      - The fact C(cae_matrix_machine). With it, a warning is given when the limits of all instances of the machine
        exceed its memory together.
    type: dict
  instance:
    description: The slug of the instance whose limits they are.
    type: str
"""

EXAMPLES = r"""
- name: Refuse limits that systemd would not understand
  vars:
    example_problems: >-
      {{ {'synapse_memory_max': synapse_memory_max, 'synapse_cpu_quota': synapse_cpu_quota}
         | cae.matrix.limit_problems }}
  ansible.builtin.assert:
    that: example_problems | length == 0
    fail_msg: "{{ example_problems }}"
"""

RETURN = r"""
_value:
  description: The problems.
  type: list
  elements: str
  sample: ['synapse_memory_max: "2 GB" is no size; a whole number and K, M or G, such as 2G, or "" for none']
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.utils.display import Display
from ansible_collections.cae.matrix.plugins.module_utils.instance.limits import overcommitted, problems


def limit_problems(given: Mapping[str, Any], machine: Mapping[str, Any] | None = None, instance: str = "") -> list[str]:
    found = problems(given)
    if machine and not found and (text := overcommitted(machine, instance, given.get("synapse_memory_max"))):
        Display().warning(text)
    return found


class FilterModule:
    """Ansible looks for this class."""

    def filters(self) -> dict[str, Callable[..., list[str]]]:
        return {"limit_problems": limit_problems}
