# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Of the localparts that an inventory declares, only those that are wrong are named, with what to write."""

from __future__ import annotations

import pytest
from ansible_collections.cae.matrix.plugins.module_utils.matrix.localparts import problems, suggestion


@pytest.mark.parametrize(
    ("localpart", "words"),
    [
        ("Jo", "such as jo"),
        ("Zoé Müller", "such as zoe.muller"),
        ("_jo", "such as jo"),
        ("@jo:a.test", "write its localpart, the part between @ and the colon: jo"),
        ("jo:a.test", ": jo"),
        ("@jo", ": jo"),
        ("jo@a.test", "such as jo.a.test"),
        ("", "is no localpart"),
        ("日本", "not beginning with _"),
        ("encryption-gate", "is the gate's own account"),
        ("encryption-gate-2", "is the gate's own account"),
        ("a" * 248, "is too long"),
    ],
)
def test_only_what_is_wrong_is_named(localpart: str, words: str) -> None:
    (problem,) = problems(["amina", localpart, "2024"], "a.test")
    assert problem.startswith(f'"{localpart}"')
    assert words in problem
    assert "amina" not in problem


@pytest.mark.parametrize(
    "localpart", ["jo", "2024", "a.b_c=d/e+f-g", "encryption-gate-x", "encryption-gates", "a" * 247]
)
def test_what_is_right_is_not(localpart: str) -> None:
    assert list(problems([localpart], "a.test")) == []


def test_what_is_there_twice_is_named_once() -> None:
    assert list(problems(["jo", "ida", "jo"], "a.test")) == ['"jo" is there 2 times; leave one']


@pytest.mark.parametrize("text", ["Jo", "É", "@x:y", "___", "é_é", "😀", "a b"])
def test_a_suggestion_is_one_that_passes(text: str) -> None:
    if meant := suggestion(text):
        assert list(problems([meant], "a.test")) == []
