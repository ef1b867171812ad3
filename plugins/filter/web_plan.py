# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether an instance's site can be added to what a machine serves already."""

from __future__ import annotations

DOCUMENTATION = r"""
name: web_plan
short_description: Whether an instance's site can be added to what a machine serves already
version_added: 0.1.0
author: cae.matrix contributors
description:
  - Compares what the module M(cae.matrix.instance_claim) saw of a machine's web server with what role C(reverse_proxy)
    is about to add, and names everything that stands in the way, with what to do about it.
options:
  _input:
    description: C(web) of the fact C(cae_matrix_machine).
    type: dict
    required: true
  declared:
    description:
      - What is about to be added. C(mode), C(names) (all that are served), C(domain), C(hostname), C(element),
        C(names_taken), C(proxy_user), C(acme_email) and C(trusted_proxies), as the variables say.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Check that the site can be added
  vars:
    example_plan: "{{ ansible_facts.cae_matrix_machine.web | cae.matrix.web_plan(declared) }}"
  ansible.builtin.assert:
    that: example_plan.problems | length == 0
    fail_msg: "{{ example_plan.problems | join('\n') }}"
"""

RETURN = r"""
_value:
  description: The plan.
  type: dict
  contains:
    problems:
      description: What stands in the way, each with its cause and what to do.
      type: list
      elements: str
    bucket_size:
      description: What C(server_names_hash_bucket_size) has to be, or 0 if nginx's own is enough.
      type: int
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.cae.matrix.plugins.module_utils.host.web_plan import plan


class FilterModule:
    """Ansible looks for this class."""

    def filters(self) -> dict[str, Callable[..., dict[str, Any]]]:
        return {"web_plan": plan}
