#!/usr/bin/python
# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: documents
short_description: Write everything a role owns on a machine, in one task
version_added: 0.1.0
author: cae.matrix contributors (@cae-matrix)
description:
  - Directories, files, links, blocks in shared files and secrets, as one set. Either all of it is in place
    afterwards, or nothing has changed.
  - In this order. All parameters are checked. A lock on the machine is taken (C(/run/lock/cae-matrix.lock); another
    run is waited for, ten minutes at most). Everything that has to change is computed. What O(validate) names judges
    the new configuration at its real paths, in a private mount namespace. Then directories and secrets are made,
    previous versions are kept in O(backup_dir), files and links are replaced atomically.
  - If anything fails on the way, what had already been replaced is put back.
  - What the collection did not make is never replaced. Below its own directories (C(/etc/matrix), C(/var/lib/matrix)
    and the like) all is its own; elsewhere, a file that is there and does not name C(cae.matrix) is an error, and
    O(files[].state=absent) does not remove it either.
  - A wrong owner, group or mode alone is mended too, and reported as a change.
  - An existing file or link at the path of a file is replaced itself; it is never written through. Links in a path
    are followed only where nobody but root could have put them.
options:
  directories:
    description: Directories that must exist. Missing parents are made too, owned by root with mode 0755.
    type: list
    elements: dict
    default: []
    suboptions:
      path: &path
        description: Absolute path.
        type: str
        required: true
      owner: &owner
        description: Name (or number) of the owner.
        type: str
        default: root
      group: &group
        description: Name (or number) of the group.
        type: str
        default: root
      mode:
        description: Mode in octal, in quotes.
        type: raw
        default: "0755"
  files:
    description: Files that are wholly this role's.
    type: list
    elements: dict
    default: []
    suboptions:
      path: *path
      content:
        description:
          - What the file holds, as text.
          - Exactly one of O(files[].content) and O(files[].secret_content) is given when O(files[].state=present).
        type: raw
      secret_content:
        description: The same, for what must not be shown; neither in the diff nor in what a validator prints.
        type: raw
      diff:
        description:
          - Whether the diff shows the lines. With V(false) it says in one line how many there are, and their digest;
            for code and lock files, which would bury the rest.
        type: bool
        default: true
      owner: *owner
      group: *group
      mode: &file_mode
        description: Mode in octal, in quotes.
        type: raw
        default: "0644"
      state: &state
        description: Whether it is there.
        type: str
        choices: [present, absent]
        default: present
      replaces:
        description:
          - SHA-256, in hexadecimal, of what somebody else has put there and which may be replaced all the same, such as
            a conffile that is as its package ships it. What is there otherwise stays an error.
        type: str
  blocks:
    description:
      - Marked blocks (C(# BEGIN cae.matrix NAME) to C(# END cae.matrix NAME)) in files that others may write too.
      - Such a file keeps its owner and mode; if it is missing, it is made, owned by root with mode 0644.
    type: list
    elements: dict
    default: []
    suboptions:
      path: *path
      name:
        description: Name of the block, unique in the file. Put the instance's name into it.
        type: str
        required: true
      content:
        description: The lines of the block.
        type: raw
      state: *state
      position:
        description:
          - Where the block stands. A block is moved only when a line that is neither empty, nor a comment, nor in
            another such block stands before it (V(start)) or after it (V(end)).
        type: str
        choices: [start, end]
        default: end
  secrets:
    description:
      - Secrets that are made on the machine when they are missing, and never changed or returned afterwards.
      - An existing secret that is empty is refused.
    type: list
    elements: dict
    default: []
    suboptions:
      path: *path
      owner: *owner
      group: *group
      mode:
        description: Mode in octal, in quotes.
        type: raw
        default: "0600"
      kind:
        description: V(token) is 64 random URL-safe characters, V(synapse_signing_key) an Ed25519 key of Synapse.
        type: str
        choices: [token, synapse_signing_key]
        default: token
  links:
    description:
      - Symbolic links. A file at that path is replaced (and kept in O(backup_dir)) if it names C(cae.matrix); another
        one and a directory are refused.
    type: list
    elements: dict
    default: []
    suboptions:
      path: *path
      target:
        description:
          - What the link points to; it need not exist. With O(links[].state=absent), only a link to it is removed.
        type: str
      state: *state
  validate:
    description:
      - Programs that must accept the new configuration before anything of it is put in place.
      - Each one runs only when something under its trees would change.
    type: list
    elements: dict
    default: []
    suboptions:
      command:
        description: The program and its arguments; no shell.
        type: list
        elements: str
        required: true
      tree:
        description: Directories that the program sees as they would be.
        type: list
        elements: str
        required: true
      forbid:
        description: A regular expression; a line of the program's output that has it refuses as well.
        type: str
      input:
        description: What the program reads on its standard input.
        type: str
  backup_dir:
    description:
      - Where previous versions of what changes are kept, in C(documents/DATE/) followed by their path. The newest five
        sets stay. Made with mode 0700 when missing.
    type: str
  in_force:
    description:
      - Who reads what is written here, each to be run with what is on disk afterwards, whoever has written it and when,
        as by M(cae.matrix.in_force), in this order. Nobody of this collection writes meanwhile.
    type: list
    elements: dict
    default: []
    suboptions:
      kind:
        description: Who reads it.
        type: str
        required: true
        choices: [synapse, nginx, postgresql, unit, trusted_cas]
      unit:
        description: Its systemd unit.
        type: str
      config_dir:
        description: For V(synapse), the instance's directory.
        type: path
      enabled:
        description: Whether to enable the unit.
        type: bool
        default: false
      may_restart:
        description: For V(postgresql), whether it may be restarted where a setting needs that.
        type: bool
        default: true
attributes:
  check_mode:
    description: Says what would change, and changes nothing.
    support: full
    details:
      - On a machine that is still bare, an unknown owner or group, a missing directory and a validator that is not
        installed yet are tolerated in check mode.
  diff_mode:
    description: What would change, as RV(diff) has it; secrets are masked.
    support: full
"""

EXAMPLES = r"""
- name: Write everything that belongs to this instance's web server
  cae.matrix.documents:
    directories:
      - path: /etc/matrix/atelier/well-known
        group: matrix-atelier
        mode: "0750"
    files:
      - path: /etc/matrix/atelier/well-known/client
        content: "{{ reverse_proxy_document.client | to_nice_json }}\n"
        group: matrix-atelier
        mode: "0640"
      - path: /etc/nginx/sites-available/matrix-atelier.conf
        content: "{{ lookup('ansible.builtin.template', 'vhosts.conf.j2') }}"
    links:
      - path: /etc/nginx/sites-enabled/matrix-atelier.conf
        target: ../sites-available/matrix-atelier.conf
    validate:
      - command: [nginx, -t]
        tree: [/etc/nginx, /etc/matrix/atelier]
    backup_dir: /var/backups/matrix/atelier
    in_force:
      - {kind: nginx, unit: nginx.service, enabled: true}

- name: Let an instance reach its own database only
  cae.matrix.documents:
    blocks:
      - path: /etc/postgresql/15/main/pg_hba.conf
        name: atelier
        position: start
        content: local matrix_atelier matrix_atelier peer map=matrix

- name: Have secrets born on the machine
  cae.matrix.documents:
    secrets:
      - path: /etc/matrix/atelier/secrets/signing.key
        owner: matrix-atelier
        group: matrix-atelier
        kind: synapse_signing_key
      - path: /etc/matrix/atelier/secrets/macaroon_secret_key
        owner: matrix-atelier
        group: matrix-atelier
"""

RETURN = r"""
changed_paths:
  description: What was changed (in check mode, what would be), in the order of writing, parents included.
  returned: success
  type: list
  elements: str
  sample: [/etc/matrix/atelier/well-known/client]
made_paths:
  description: Files and links among them that were not there before.
  returned: success
  type: list
  elements: str
in_force:
  description: What was done about who reads it, and because of what.
  returned: success
  type: list
  elements: dict
  sample: [{name: nginx.service, done: [reloaded], because: [/etc/nginx/sites-enabled/matrix-atelier.conf is newer]}]
backup_set:
  description: Directory with the previous versions of what changed.
  returned: when something was replaced and O(backup_dir) is given
  type: str
  sample: /var/backups/matrix/atelier/documents/20261122T170000.123456789Z
diff:
  description:
    - One entry for each changed path; the content of secrets is masked. New directories are one entry together, and so
      are new files with O(files[].diff=false), a line each.
  returned: success
  type: list
  elements: dict
  contains:
    before_header:
      description: The path.
      type: str
    after_header:
      description: The path.
      type: str
    before:
      description: What was there; owner, group and mode where only these differ.
      type: str
    after:
      description: What is there now.
      type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cae.matrix.plugins.module_utils.host.document_rehearsal import rehearse, sweep
from ansible_collections.cae.matrix.plugins.module_utils.host.document_set import (
    DocumentError,
    Ended,
    Transaction,
    check,
    lock,
    plan,
)
from ansible_collections.cae.matrix.plugins.module_utils.host.in_force import InForceError, Outcome
from ansible_collections.cae.matrix.plugins.module_utils.host.in_force_readers import OPTIONS, problems, put_in_force

PATH = {"type": "str", "required": True}
NAME = {"type": "str", "default": "root"}
STATE = {"type": "str", "choices": ["present", "absent"], "default": "present"}


def mode(default: str) -> dict[str, str]:
    return {"type": "raw", "default": default}


def items(**options: dict[str, Any]) -> dict[str, Any]:
    return {"type": "list", "elements": "dict", "default": [], "options": options}


ARGUMENTS: dict[str, Any] = {
    "directories": items(path=PATH, owner=NAME, group=NAME, mode=mode("0755")),
    "files": items(
        path=PATH,
        content={"type": "raw"},
        secret_content={"type": "raw", "no_log": True},
        diff={"type": "bool", "default": True},
        owner=NAME,
        group=NAME,
        mode=mode("0644"),
        state=STATE,
        replaces={"type": "str"},
    ),
    "blocks": items(
        path=PATH,
        name={"type": "str", "required": True},
        content={"type": "raw"},
        state=STATE,
        position={"type": "str", "choices": ["start", "end"], "default": "end"},
    ),
    "secrets": items(
        path=PATH,
        owner=NAME,
        group=NAME,
        mode=mode("0600"),
        kind={"type": "str", "choices": ["token", "synapse_signing_key"], "default": "token"},
    )
    | {"no_log": False},
    "links": items(path=PATH, target={"type": "str"}, state=STATE),
    "validate": items(
        command={"type": "list", "elements": "str", "required": True},
        tree={"type": "list", "elements": "str", "required": True},
        forbid={"type": "str"},
        input={"type": "str", "no_log": True},
    ),
    "backup_dir": {"type": "str"},
    "in_force": {"type": "list", "elements": "dict", "default": [], "options": OPTIONS},
}


class QuietModule(AnsibleModule):  # type: ignore[misc]
    """Documents do not belong into the system's journal, where Ansible logs the arguments of modules."""

    def _log_invocation(self) -> None:
        self.log("Invoked to write documents")


def write(params: dict[str, Any], check_mode: bool) -> tuple[dict[str, Any], list[str]]:
    """The result, and what there is to warn of."""
    outcomes: list[Outcome] = []
    if check_mode:
        planned = plan(params, check_mode=True)
        rehearse(params["validate"], planned.steps, check_mode=True)
        backup = None
        outcomes += [put_in_force(spec, check_mode=True) for spec in params["in_force"]]
    else:
        with lock():
            sweep()
            planned = plan(params)
            backup = Transaction().apply(
                planned.steps,
                params["backup_dir"],
                judge=lambda: rehearse(params["validate"], planned.steps),
                trees=[tree for each in params["validate"] for tree in each["tree"]],
            )
            # One after the other: who fails leaves the rest for the next run, which finds all of it again.
            for spec in params["in_force"]:
                outcomes.append(put_in_force(spec))
    done = [outcome for outcome in outcomes if outcome.changed]
    result = {
        "changed": bool(planned.steps or done),
        "changed_paths": planned.changed_paths,
        "made_paths": planned.made_paths,
        "diff": planned.diff + [outcome.diff for outcome in done],
        "in_force": [outcome.told() for outcome in outcomes],
    } | ({"backup_set": backup} if backup else {})
    return result, [warning for outcome in outcomes for warning in outcome.warnings]


def main() -> None:
    module = QuietModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    wrong = check(module.params) + [text for spec in module.params["in_force"] for text in problems(spec)]
    if wrong:
        module.fail_json(msg="Nothing was changed. " + "\n".join(wrong))
    try:
        result, warnings = write(module.params, module.check_mode)
    except DocumentError as error:
        module.fail_json(msg=str(error))
    except InForceError as error:
        module.fail_json(msg=f"What is declared is on disk, and not in force: {error}")
    except OSError as error:
        module.fail_json(msg=f"Nothing was changed, because writing failed: {error}")
    except Ended as signal_name:
        module.fail_json(msg=f"Nothing was changed, because the run was ended from outside ({signal_name}).")
    for warning in warnings:
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
