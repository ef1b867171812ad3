# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is written into our file of PostgreSQL's settings."""

from __future__ import annotations

DOCUMENTATION = r"""
name: postgresql_settings
short_description: What is written into our file of PostgreSQL's settings
version_added: 0.1.0
author: cae.matrix contributors
description:
  - Sizes a cluster by the machine's memory and by the connections that its instances may open.
  - If the cluster holds databases that are not of this collection, gives only what the inventory names itself and
    does not lower anything, and warns with the values that are in force and those that are wanted.
options:
  _input:
    description: The fact C(cae_matrix_machine.postgresql).
    type: dict
    required: true
  memory_mb:
    description: Memory that the cluster may count on, in MiB.
    type: int
    required: true
  instance:
    description: The slug of the instance.
    type: str
    required: true
  pool_max:
    description: The most connections of the instance; 0 when its database is elsewhere.
    type: int
    required: true
  max_connections:
    description: What the inventory says; without it, or with 0, at least 200, in steps of 100.
    type: int
  declared:
    description: Other settings that the inventory names. They win.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Show the settings
  ansible.builtin.debug:
    msg: "{{ ansible_facts.cae_matrix_machine.postgresql | cae.matrix.postgresql_settings(2048, 'atelier', 10) }}"
"""

RETURN = r"""
_value:
  description: The settings by their names.
  type: dict
  sample: {max_connections: 200, shared_buffers: 512MB}
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.utils.display import Display
from ansible_collections.cae.matrix.plugins.module_utils.host.postgresql_settings import plan


def postgresql_settings(
    cluster: Mapping[str, Any],
    memory_mb: int,
    instance: str,
    pool_max: int,
    max_connections: int | None = None,
    declared: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    pools = {**cluster.get("pools", {}), instance: int(pool_max)}
    settings, warnings = plan(
        cluster, int(memory_mb), pools.values(), int(max_connections) if max_connections else None, declared
    )
    for text in warnings:
        Display().warning(text)
    return settings


class FilterModule:
    """Ansible looks for this class."""

    def filters(self) -> dict[str, Callable[..., dict[str, Any]]]:
        return {"postgresql_settings": postgresql_settings}
