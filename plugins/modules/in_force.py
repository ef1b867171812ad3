#!/usr/bin/python
# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Has a service run with what is on disk."""

from __future__ import annotations

DOCUMENTATION = r"""
module: in_force
short_description: Have a service run with what is on disk
version_added: 0.1.0
author: cae.matrix contributors
description:
  - Compares a service with the files it reads, and starts, restarts or reloads it only if one of them is newer than
    what runs, whoever has written it and when. What a run that was interrupted has left undone, the next one does.
  - Where the unit, its slice or its drop-ins have changed, systemd reads them first.
  - Returns when the service runs with what was on disk.
  - Remembers in C(/run/cae-matrix/in-force/) with which files each service was found to run, until the next boot.
options:
  kind:
    description:
      - Who reads. V(synapse) reads its configuration, what that names, its unit and its virtual environment, and is
        restarted.
      - V(nginx) reads what C(nginx -T) names, with certificates and keys, and is reloaded.
      - V(postgresql) reads its configuration, and is reloaded; restarted where a setting needs that.
      - V(unit) is any unit that reads its own file only, such as a timer, and is restarted.
      - V(trusted_cas) is Debian's C(update-ca-certificates), for C(/usr/local/share/ca-certificates/matrix-*.crt).
    type: str
    required: true
    choices: [synapse, nginx, postgresql, unit, trusted_cas]
  unit:
    description: Its systemd unit. Required but for V(nginx), which is C(nginx.service), and V(trusted_cas).
    type: str
  config_dir:
    description: The instance's directory, such as C(/etc/matrix/atelier). Required with O(kind=synapse).
    type: path
  enabled:
    description: Whether to enable the unit.
    type: bool
    default: false
  may_restart:
    description:
      - With O(kind=postgresql), whether it may be restarted where a setting needs that. If not, a warning names the
        settings that wait.
    type: bool
    default: true
attributes:
  check_mode:
    description: Says what it would do, and does nothing.
    support: full
  diff_mode:
    description: Shows which files are newer, and what was done.
    support: full
seealso:
  - module: cae.matrix.documents
"""

EXAMPLES = r"""
- name: Have Synapse run with what is on disk
  cae.matrix.in_force:
    kind: synapse
    unit: matrix-synapse@atelier.service
    config_dir: /etc/matrix/atelier
    enabled: true
"""

RETURN = r"""
done:
  description: What was done.
  returned: success
  type: list
  elements: str
  sample: [restarted]
because:
  description: Because of what.
  returned: success
  type: list
  elements: str
  sample: [/etc/matrix/atelier/synapse/homeserver.yaml is newer]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cae.matrix.plugins.module_utils.host.in_force import InForceError
from ansible_collections.cae.matrix.plugins.module_utils.host.in_force_readers import OPTIONS, problems, put_in_force


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    found = problems(module.params)
    if found:
        module.fail_json(msg="; ".join(found))
    try:
        outcome = put_in_force(module.params, module.check_mode)
    except InForceError as error:
        module.fail_json(msg=str(error))
    for warning in outcome.warnings:
        module.warn(warning)
    diff = [outcome.diff] if outcome.changed else []
    module.exit_json(changed=outcome.changed, done=outcome.done, because=outcome.because, diff=diff)


if __name__ == "__main__":
    main()
