# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A backslash in an expression is one for Ansible, whatever Jinja says: only YAML makes C(\\n) the end of a line.

In a folded or single-quoted scalar C(join('\\n')) puts a backslash and an n into files and messages, and in a regular
expression two backslashes ask for one in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path for path in [*ROOT.glob("roles/**/*.yml"), *ROOT.glob("playbooks/**/*.yml")])
WRONG = re.compile(r"""(?:(?:join|split)\(\s*|~\s*)'[^']*\\[nt]|'[^']*\\[nt]'\s*~|'[^']*\\\\[^']*'""")


def texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict):
        for value in content.values():
            yield from texts(value)
    elif isinstance(content, list):
        for value in content:
            yield from texts(value)


def wrong(source: str) -> list[str]:
    return [found.group() for text in texts(yaml.safe_load(source)) if "{{" in text for found in WRONG.finditer(text)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_line_ends_are_line_ends(path: Path) -> None:
    assert wrong(path.read_text(encoding="utf-8")) == []


def test_what_was_wrong_is_seen() -> None:
    assert wrong("a: >-\n  {{ lines | join('\\n') ~ '\\n' }}\n")
    assert wrong("a: >-\n  {{ '\\n' ~ journal }}\n")
    assert wrong("a: >-\n  {{ text | regex_replace('\\\\.txt$', '') }}\n")
    assert wrong("a: \"{{ lines | join('\\n') ~ '\\n' }}\"\n") == []
    assert wrong("a: \"{{ text | regex_replace('[^\\\\s]', '') }}\"\n") == []
