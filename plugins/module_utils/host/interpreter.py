# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which Python a module runs with: one that has the library it needs, if the inventory names another than Debian's."""

from __future__ import annotations

import importlib.util

from ansible.module_utils.common.respawn import has_respawned, probe_interpreters_for_module, respawn_module

# What apt installs libraries for.
DEBIANS = "/usr/bin/python3"


def with_library(name: str) -> None:
    """Start the module again with Debian's Python if only that has the library C(name).

    To be called before anything has changed. Returns where this Python has it, or none has: the module says so itself.
    """
    if has_respawned() or importlib.util.find_spec(name):
        return
    if found := probe_interpreters_for_module([DEBIANS], name):
        respawn_module(found)
