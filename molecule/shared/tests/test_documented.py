# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What our pages show for the machine works there as it is written; tests/unit/test_documented_commands.py has more."""

from __future__ import annotations

import pytest
from ansible_collections.cae.matrix.tests.unit import documentation
from conftest import Instance

FOUND = {
    command.text: command
    for page in documentation.pages()
    for block in documentation.blocks(page)
    for command in documentation.commands(block)
    if "atelier" in command.text and command.parts[0][:1] in (["psql"], ["python3"]) and "$TOKEN" not in command.text
}


@pytest.mark.parametrize("text", FOUND)
def test_it_works_as_it_is_written(text: str, instance: Instance) -> None:
    if instance.slug != "atelier":
        pytest.skip("the pages are about atelier")
    # The page names that of Debian 12, and how to find another.
    here = " ".join(instance.run("pg_lsclusters", "--no-header").split()[:2]).replace(" ", "/")
    text = text.replace("15/main", here)
    # Synapse has never heard of that other server, and says so to somebody whom it lets ask.
    assert instance.run("bash", "-c", text) == {"psql": "", "python3": "404\n"}[text.split()[0]]


def test_there_are_some() -> None:
    assert {text.split()[0] for text in FOUND} == {"psql", "python3"}
