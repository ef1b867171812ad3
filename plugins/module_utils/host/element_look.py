# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a cooperative gives Element to look like it: pictures, and one colour that people can read."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PICTURES = {
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
}
# Everybody loads them, in the same document as everything else.
LARGEST = {"element_web_logo_file": 64 << 10, "element_web_background_file": 256 << 10}

# What WCAG 2 asks of text (level AA).
READABLE = 4.5
# Element's own grounds, light and dark. What stands on a coloured button has the colour of the ground.
GROUNDS = {"light": "#ffffff", "dark": "#101317"}


class LookError(Exception):
    """What is wrong with a picture or a colour, and the fix."""


def picture_uri(path: str, variable: str = "element_web_logo_file") -> str:
    """A picture on the controller as a data: address."""
    file = Path(path).expanduser()
    kind = PICTURES.get(file.suffix.lower())
    if kind is None:
        raise LookError(f'{variable}: "{path}" is none of {", ".join(PICTURES)}')
    try:
        content = file.read_bytes()
    except OSError as error:
        raise LookError(f'{variable}: "{path}" cannot be read on the controller: {error}') from error
    largest = LARGEST[variable]
    if len(content) > largest:
        raise LookError(
            f'{variable}: "{path}" has {-(-len(content) >> 10)} KiB, and everybody loads it; '
            f"make it {largest >> 10} KiB or smaller"
        )
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def channels(colour: str) -> tuple[float, float, float]:
    """Red, green and blue from 0 to 1.

    >>> channels("#00f")
    (0.0, 0.0, 1.0)
    """
    if not re.fullmatch(r"#([0-9A-Fa-f]{3}|[0-9A-Fa-f]{6})", colour):
        raise LookError(f'element_web_colour: "{colour}" is no colour; write it as #rrggbb, such as "#0b5c4a"')
    digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
    red, green, blue = (int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4))
    return red, green, blue


def contrast(one: str, other: str) -> float:
    """How well one is read on the other, from 1 to 21 (WCAG 2).

    >>> contrast("#000000", "#ffffff")
    21.0
    """

    def luminance(colour: str) -> float:
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in channels(colour)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def mixed(colour: str, other: str, share: float) -> str:
    """`colour` with `share` of the other in it.

    >>> mixed("#000000", "#ffffff", 0.2)
    '#333333'
    """
    parts = zip(channels(colour), channels(other), strict=True)
    return "#" + "".join(f"{round(255 * (own * (1 - share) + its * share)):02x}" for own, its in parts)


def readable(colour: str, ground: str) -> str:
    """The colour, or the one nearest to it that can be read on that ground."""
    away = "#000000" if ground == GROUNDS["light"] else "#ffffff"
    steps = (mixed(colour, away, step / 50) for step in range(51))
    return next(one for one in steps if contrast(one, ground) >= READABLE)


def palette(colour: str) -> dict[str, dict[str, str]]:
    """The colour at rest, under the pointer and pressed, for the light and the dark theme."""
    on_light = contrast(colour, GROUNDS["light"])
    if on_light < READABLE:
        raise LookError(
            f'element_web_colour: "{colour}" cannot be read: its contrast with white is {on_light:.1f}, and '
            f'{READABLE} is needed; choose a darker one, such as "{readable(colour, GROUNDS["light"])}"'
        )
    found = {}
    for theme, ground in GROUNDS.items():
        rest = readable(colour, ground)
        # Further away from the ground, so that what is written there stays readable; what is nearly black gets lighter.
        away = "#000000" if theme == "light" else "#ffffff"
        if contrast(rest, away) < 1.5:
            away = "#666666"
        found[theme] = {"rest": rest, "hovered": mixed(rest, away, 0.15), "pressed": mixed(rest, away, 0.3)}
    return found


def problems(given: Mapping[str, Any]) -> list[str]:
    """Everything wrong with the pictures and the colour."""
    found = []
    for variable in LARGEST:
        if path := str(given.get(variable) or ""):
            try:
                picture_uri(path, variable)
            except LookError as error:
                found.append(str(error))
    if colour := str(given.get("element_web_colour") or ""):
        try:
            palette(colour)
        except LookError as error:
            found.append(str(error))
    return found
