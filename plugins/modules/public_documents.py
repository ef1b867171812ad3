#!/usr/bin/python
# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What clients and servers get through an instance's public names."""

from __future__ import annotations

DOCUMENTATION = r"""
module: public_documents
short_description: Read what an instance serves through its public names
version_added: 0.1.0
author: cae.matrix contributors
description:
  - Asks, in parallel, for the documents that decide about encryption, as a client would from where the module runs,
    which is usually the controller.
  - It judges nothing and never fails because of an answer; M(cae.matrix.encryption_gate) does that.
  - It changes nothing, in check mode as well.
options:
  domain:
    description: The part after the colon in C(@name:domain), where C(.well-known) is read.
    type: str
    required: true
  hostname:
    description: Where the homeserver is served.
    type: str
    required: true
  element_hostname:
    description: Where Element Web is served. Without it, no Element is asked for.
    type: str
  resolve:
    description: Addresses by name, in place of DNS.
    type: dict
    default: {}
  ca_file:
    description: A file of CA certificates (PEM) that is trusted besides the system's.
    type: str
    default: ""
  timeout:
    description: Seconds for one request.
    type: int
    default: 10
attributes:
  check_mode:
    support: full
    description: It only reads.
seealso:
  - module: cae.matrix.encryption_gate
"""

EXAMPLES = r"""
- name: Read what the public names serve
  cae.matrix.public_documents:
    domain: example.coop
    hostname: matrix.example.coop
    element_hostname: chat.example.coop
  delegate_to: localhost
  become: false
  vars:
    ansible_python_interpreter: "{{ ansible_playbook_python }}"
"""

RETURN = r"""
observed:
  description: One answer for each document, by its name.
  returned: always
  type: dict
  sample:
    well_known_client:
      url: https://example.coop/.well-known/matrix/client
      status: 200
      cors: "*"
      json: {"m.homeserver": {"base_url": "https://matrix.example.coop/"}, "io.element.e2ee": {"default": false}}
      text: ""
      error: null
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cae.matrix.plugins.module_utils.encryption.gate import questions
from ansible_collections.cae.matrix.plugins.module_utils.outside.public_client import PublicClient, Unreachable

_SHOWN = 200


def observe(client: PublicClient, method: str, url: str, wants_json: bool) -> dict[str, Any]:
    """One answer as plain data."""
    answer: dict[str, Any] = {"url": url, "status": 0, "cors": "", "json": None, "text": "", "error": None}
    try:
        body = b"{}" if method == "POST" else None
        headers = {"Content-Type": "application/json"} if body else {"Origin": "https://element.invalid"}
        response = client.request(method, url, headers=headers, body=body)
        answer["status"] = response.status
        answer["cors"] = str(response.headers.get("Access-Control-Allow-Origin") or "")
        if wants_json:
            answer["json"] = response.json()
        else:
            answer["text"] = response.text().strip()[:_SHOWN]
    except Unreachable as error:
        answer["error"] = {"kind": error.kind, "cause": error.cause, "mend": error.mend}
    return answer


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "domain": {"type": "str", "required": True},
            "hostname": {"type": "str", "required": True},
            "element_hostname": {"type": "str"},
            "resolve": {"type": "dict", "default": {}},
            "ca_file": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": 10},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        client = PublicClient(params["resolve"], params["ca_file"] or None, float(params["timeout"]))
    except Unreachable as error:
        module.fail_json(msg=str(error))
    asked = questions(params["domain"], params["hostname"], params["element_hostname"])
    with ThreadPoolExecutor(max_workers=len(asked)) as pool:
        answers = {
            name: pool.submit(observe, client, method, url, wants_json)
            for name, (method, url, wants_json) in asked.items()
        }
        observed = {name: answer.result() for name, answer in answers.items()}
    module.exit_json(changed=False, observed=observed)


if __name__ == "__main__":
    main()
