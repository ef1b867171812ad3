# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A cooperative's colour can be read in both themes, or is refused with one that can; pictures stay small."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.cae.matrix.plugins.module_utils.host import element_look
from ansible_collections.cae.matrix.plugins.module_utils.host.element_look import GROUNDS, LookError, contrast


@pytest.mark.parametrize(
    "colour", ["#0b5c4a", "#A3195B", "#000", "#010101", "#000000", "#000080", "#767676", "#6a1b9a"]
)
def test_text_can_be_read_on_every_shade_and_in_every_shade(colour: str) -> None:
    for theme, shades in element_look.palette(colour).items():
        for shade in shades.values():
            assert contrast(shade, GROUNDS[theme]) >= 4.5, (theme, shade)
        assert len(set(shades.values())) == 3, "nothing shows under the pointer"
    # In the light theme it is the cooperative's own.
    assert contrast(element_look.palette(colour)["light"]["rest"], colour) == 1


@pytest.mark.parametrize("colour", ["#ffcc00", "#fff", "#777777", "#00a884", "#FFFFFF"])
def test_what_cannot_be_read_is_refused_with_one_that_can(colour: str) -> None:
    with pytest.raises(LookError, match=r"^element_web_colour: .* contrast with white is .* a darker one") as refused:
        element_look.palette(colour)
    element_look.palette(str(refused.value).split('"')[-2])


@pytest.mark.parametrize(
    "colour", ["red", "0b5c4a", "#0b5c4", "#0b5c4a80", "rgb(1,2,3)", "#gggggg", "#0b5c4a;}", " #000"]
)
def test_what_is_no_colour_is_refused(colour: str) -> None:
    assert element_look.problems({"element_web_colour": colour}) == [
        f'element_web_colour: "{colour}" is no colour; write it as #rrggbb, such as "#0b5c4a"'
    ]


def test_the_figures_are_those_of_wcag() -> None:
    # The examples that everybody compares with.
    assert round(contrast("#777777", "#ffffff"), 2) == 4.48
    assert round(contrast("#767676", "#ffffff"), 2) == 4.54
    assert round(contrast("#0000ff", "#ffffff"), 2) == 8.59


@pytest.mark.parametrize(("variable", "largest"), element_look.LARGEST.items())
def test_a_picture_travels_whole_up_to_its_limit(variable: str, largest: int, tmp_path: Path) -> None:
    picture = tmp_path / "picture.webp"
    picture.write_bytes(bytes(largest))
    assert element_look.picture_uri(str(picture), variable).startswith("data:image/webp;base64,AAAA")
    picture.write_bytes(bytes(largest + 1))
    found = element_look.problems({variable: str(picture)})
    assert len(found) == 1
    assert found[0].startswith(f'{variable}: "{picture}" has {(largest >> 10) + 1} KiB')


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(b"GIF")
    given = {
        "element_web_logo_file": str(tmp_path / "a.gif"),
        "element_web_background_file": str(tmp_path / "missing.png"),
        "element_web_colour": "#eee",
    }
    assert [problem.split(":")[0] for problem in element_look.problems(given)] == list(given)
    assert element_look.problems(dict.fromkeys(given, "")) == []
