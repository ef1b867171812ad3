# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The options of modules that act as the encryption gate's own account, over Synapse's Unix socket."""

from __future__ import annotations


class ModuleDocFragment:
    """Ansible looks for this class."""

    DOCUMENTATION = r"""
options:
  domain:
    description: The part after the colon in C(@name:domain).
    type: str
    required: true
  config_dir:
    description: The instance's directory, such as C(/etc/matrix/atelier).
    type: path
    required: true
  socket:
    description: Synapse's Unix socket.
    type: path
    required: true
"""
