# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The commands that our pages show, as they are written there."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHELL = ("sh", "shell", "bash", "console")
_HEREDOC = re.compile(r"<<-?\s*'?(\w+)'?")
_COMMENT = re.compile(r"\s+# .*$")


@dataclass(frozen=True)
class Block:
    """Lines that are shown as they are: C(language) is what the fence says, if there is one."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Command:
    """One command, over as many lines as it takes; C(words) without what the shell makes of them."""

    block: Block
    text: str

    @property
    def where(self) -> str:
        return self.block.where

    @property
    def parts(self) -> list[list[str]]:
        """The words of each part of C(… && …), variables of the environment before a program left out."""
        found: list[list[str]] = []
        for part in self.text.partition("\n")[0].split(" && "):
            words = shlex.split(part)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words = words[1:]
            found.append(words)
        return found


def pages() -> list[Path]:
    found = [ROOT / "README.md", *ROOT.glob("docs/*/*.md"), *ROOT.glob("inventories/*/README.md")]
    return sorted([*found, *ROOT.glob("roles/*/README.md")])


def blocks(page: Path) -> Iterator[Block]:
    """Between fences, or indented by four and more after an empty line."""
    lines = page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        start, stripped = number, lines[number].strip()
        number += 1
        if stripped.startswith("```"):
            while number < len(lines) and lines[number].strip() != "```":
                number += 1
            text = textwrap.dedent("\n".join(lines[start + 1 : number]))
            yield Block(page, start + 2, stripped.strip("`"), text)
            number += 1
        elif stripped and lines[start].startswith("    ") and (start == 0 or not lines[start - 1].strip()):
            while number < len(lines) and (lines[number].startswith("    ") or not lines[number].strip()):
                number += 1
            yield Block(page, start + 1, "", textwrap.dedent("\n".join(lines[start:number])).strip("\n"))


def commands(block: Block) -> Iterator[Command]:
    """A line each, but for those that go on: after a backslash, or to the end of a here-document. Without comments."""
    lines = iter(block.text.splitlines())
    for line in lines:
        text = line
        while text.endswith("\\"):
            text = f"{text[:-1].rstrip()} {next(lines).strip()}"
        text = _COMMENT.sub("", text).strip()
        if here := _HEREDOC.search(text):
            body = []
            for more in lines:
                body.append(more)
                if more == here[1]:
                    break
            text = "\n".join([text, *body])
        if text and not text.startswith("# "):
            yield Command(block, text)
