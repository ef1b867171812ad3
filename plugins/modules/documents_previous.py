#!/usr/bin/python
# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: documents_previous
short_description: Put back what M(cae.matrix.documents) has replaced
version_added: 0.1.0
author: cae.matrix contributors (@cae-matrix)
description:
  - Puts the previous versions of files and links in place again, atomically, and removes those that were new.
    Directories and secrets stay.
options:
  backup_set:
    description: Directory with the previous versions, as M(cae.matrix.documents) returns it.
    type: str
    required: true
  made_paths:
    description: Files and links that were not there before.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Says what would change, and changes nothing.
    support: full
  diff_mode:
    description: Names the paths; what they hold may be secret, and is not shown.
    support: partial
seealso:
  - module: cae.matrix.documents
"""

EXAMPLES = r"""
- name: Put the previous configuration back
  cae.matrix.documents_previous:
    backup_set: "{{ written.backup_set }}"
    made_paths: "{{ written.made_paths }}"
"""

RETURN = r"""
changed_paths:
  description: What was put back or removed.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cae.matrix.plugins.module_utils.host.document_restore import restoration
from ansible_collections.cae.matrix.plugins.module_utils.host.document_set import (
    DocumentError,
    Ended,
    Transaction,
    lock,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "backup_set": {"type": "str", "required": True},
            "made_paths": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    try:
        with lock():
            steps = restoration(module.params["backup_set"], module.params["made_paths"])
            if not module.check_mode:
                Transaction().apply(steps)
    except DocumentError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"Nothing was put back, because writing failed: {error}")
    except Ended as signal_name:
        module.fail_json(msg=f"Nothing was put back, because the run was ended from outside ({signal_name}).")
    module.exit_json(
        changed=bool(steps), changed_paths=[step.path for step in steps], diff=[step.diff for step in steps]
    )


if __name__ == "__main__":
    main()
