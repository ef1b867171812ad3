# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Lists once what the gate has seen."""

from __future__ import annotations

from ansible_collections.cae.matrix.plugins.plugin_utils.telling import TellingAction


class ActionModule(TellingAction):
    """Ansible looks for this class."""

    told = ("checks",)
