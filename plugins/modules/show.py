#!/usr/bin/python
# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documents the action of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: show
short_description: Show lines to the person at the terminal
version_added: 0.1.0
author: cae.matrix contributors
description:
  - Prints lines as they are, whatever the callback and its C(result_format); columns stay aligned.
    M(ansible.builtin.debug) prints them as a value, with quotes and C(\n).
  - With a callback that prints JSON, the lines are in the result instead.
options:
  lines:
    description: What to show. A text of several lines counts as so many.
    type: list
    elements: str
    required: true
attributes:
  check_mode:
    description: Shows the same in check mode.
    support: full
  diff_mode:
    description: There is nothing to change.
    support: none
"""

EXAMPLES = r"""
- name: Show what was seen
  cae.matrix.show:
    lines: "{{ seen.table }}"
"""

RETURN = r"""
lines:
  description: The lines, one each.
  type: list
  elements: str
  returned: when the callback prints JSON, or the task has C(no_log)
"""
