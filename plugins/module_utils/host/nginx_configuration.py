# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What nginx would serve, read from C(nginx -T): every directive with the file and line it stands in.

Pure, and without Ansible.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_FILE = re.compile(r"^# configuration file (.+):$", re.MULTILINE)
_WORD = re.compile(r"""(?:\\.|\$\{[^}]*\}|[^\s;{}\\])+""", re.DOTALL)
_GROUP = re.compile(r"\(\?<([A-Za-z_]\w*)>")
HTTP_PORT = 80
# A word, its line, and whether it was quoted.
Token = tuple[str, int, bool]


@dataclass(frozen=True)
class Directive:
    """A directive, where it stands, and what is in its block."""

    words: tuple[str, ...]
    file: str
    line: int
    block: tuple[Directive, ...] = ()

    @property
    def name(self) -> str:
        return self.words[0]

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Listen:
    """Where a server listens: C(address) is empty for every one, C(port) 0 for a socket of another kind."""

    address: str
    port: int
    directive: Directive


@dataclass(frozen=True)
class Server:
    listens: tuple[Listen, ...]
    names: tuple[tuple[str, Directive], ...]


@dataclass
class Configuration:
    """The parts that matter to somebody who adds a site."""

    user: str = ""
    http: list[Directive] = field(default_factory=list)
    servers: list[Server] = field(default_factory=list)
    # Of the `stream` module: connections, whatever is spoken on them.
    streams: list[Listen] = field(default_factory=list)
    # Patterns of files that are read as part of `http`, absolute.
    included: list[str] = field(default_factory=list)

    def reads(self, path: str) -> bool:
        """Whether a file at a path would be part of `http`."""
        return any(globbed(pattern, path) for pattern in self.included)


def files_of(dump: str) -> dict[str, str]:
    """The files of a dump, the main one first."""
    parts = _FILE.split(dump)
    files: dict[str, str] = {}
    for name, text in zip(parts[1::2], parts[2::2], strict=True):
        files.setdefault(name, text[1:])
    return files


def globbed(pattern: str, path: str) -> bool:
    """Whether C(glob) would find a path."""
    wanted, found = pattern.split("/"), path.split("/")
    return len(wanted) == len(found) and all(
        fnmatch.fnmatchcase(part, mask) and (not part.startswith(".") or mask.startswith("."))
        for mask, part in zip(wanted, found, strict=True)
    )


def _tokens(text: str) -> Iterator[Token]:
    """Words and C(; { }); what Lua blocks hold is passed over."""
    place, line, first = 0, 1, ""
    while place < len(text):
        character = text[place]
        if character == "\n":
            line += 1
        if character.isspace():
            place += 1
        elif character == "#":
            end = text.find("\n", place)
            place = len(text) if end < 0 else end
        elif character in ";{}":
            yield character, line, False
            place += 1
            if character == "{" and first.endswith("_by_lua_block"):
                end = _end_of_block(text, place)
                line += text.count("\n", place, end)
                place = end
            first = ""
        elif character in "\"'":
            end = place + 1
            while end < len(text) and text[end] != character:
                end += 2 if text[end] == "\\" else 1
            yield re.sub(r"\\(.)", r"\1", text[place + 1 : end]), line, True
            line += text.count("\n", place, end)
            place, first = end + 1, first or "quoted"
        else:
            found = _WORD.match(text, place)
            word = found.group() if found else character
            yield word, line, False
            line += word.count("\n")
            place, first = place + len(word), first or word


def _end_of_block(text: str, place: int) -> int:
    depth = 1
    while place < len(text):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return place
        place += 1
    return place


def parse(files: Mapping[str, str]) -> tuple[Directive, ...]:
    """The directives of the main file, each `include` replaced by what it leads to."""
    main = next(iter(files), "")
    return _Reader(files, os.path.dirname(main)).read(main) if main else ()


class _Reader:
    def __init__(self, files: Mapping[str, str], prefix: str) -> None:
        self.files, self.prefix = files, prefix

    def pattern(self, given: str) -> str:
        return os.path.join(self.prefix, given)

    def read(self, file: str, above: tuple[str, ...] = ()) -> tuple[Directive, ...]:
        if file in above:
            return ()
        return self._block(file, _tokens(self.files[file]), (*above, file))

    def _block(self, file: str, tokens: Iterator[Token], above: tuple[str, ...]) -> tuple[Directive, ...]:
        found: list[Directive] = []
        words: list[str] = []
        start = 0
        for word, line, quoted in tokens:
            if quoted or word not in ("{", "}", ";"):
                start = start if words else line
                words.append(word)
                continue
            if word == "}":
                break
            block = self._block(file, tokens, above) if word == "{" else ()
            if words:
                found.append(Directive(tuple(words), file, start, block))
                if words[0] == "include" and len(words) > 1:
                    for name in sorted(self.files):
                        if globbed(self.pattern(words[1]), name):
                            found += self.read(name, above)
            words = []
        return tuple(found)


def configuration(dump: str) -> Configuration:
    """What a dump says."""
    files = files_of(dump)
    reader = _Reader(files, os.path.dirname(next(iter(files), "")))
    found = Configuration()
    for directive in parse(files):
        if directive.name == "user" and len(directive.words) > 1:
            found.user = directive.words[1]
        elif directive.name == "http":
            found.http += directive.block
        elif directive.name == "stream":
            found.streams += [
                listen(inner) for server in directive.block if server.name == "server"
                for inner in server.block if inner.name == "listen"
            ]  # fmt: skip
    for directive in found.http:
        if directive.name == "include" and len(directive.words) > 1:
            found.included.append(reader.pattern(directive.words[1]))
        elif directive.name == "server":
            found.servers.append(_server(directive))
    return found


def _server(directive: Directive) -> Server:
    listens = [listen(inner) for inner in directive.block if inner.name == "listen"]
    names = [(name, inner) for inner in directive.block if inner.name == "server_name" for name in inner.words[1:]]
    return Server(tuple(listens) or (Listen("", HTTP_PORT, directive),), tuple(names))


def listen(directive: Directive) -> Listen:
    """Where a `listen` leads.

    >>> found = listen(Directive(("listen", "[::1]:443", "ssl"), "a", 1))
    >>> found.address, found.port
    ('::1', 443)
    """
    given = directive.words[1] if len(directive.words) > 1 else ""
    if given.startswith("unix:"):
        return Listen(given, 0, directive)
    if given.startswith("["):
        address, _, port = given[1:].partition("]")
        port = port.lstrip(":")
    elif given.isdecimal():
        address, port = "", given
    else:
        address, _, port = given.partition(":")
    address = "" if address in ("*", "0.0.0.0", "::") else address  # noqa: S104
    return Listen(address, int(port) if port.isdecimal() else HTTP_PORT, directive)


def claims(pattern: str, name: str, hostname: str = "") -> str:
    """How a word of `server_name` stands for a name: C(exact), C(pattern), or empty.

    >>> claims(".coop.test", "coop.test"), claims("*.coop.test", "chat.coop.test"), claims("coop.*", "coop.test")
    ('exact', 'pattern', 'pattern')
    """
    if pattern.startswith("~"):
        try:
            found = re.search(_GROUP.sub(r"(?P<\1>", pattern[1:]), name, re.IGNORECASE)
        except re.error:
            return ""
        return "pattern" if found else ""
    pattern = (hostname if pattern == "$hostname" else pattern).lower()
    if name in (pattern, pattern.removeprefix(".")):
        return "exact"
    if pattern.startswith((".", "*.")) and name.endswith(pattern.removeprefix("*")):
        return "pattern"
    if pattern.endswith(".*") and re.fullmatch(re.escape(pattern[:-2]) + r"\.[^.].*", name):
        return "pattern"
    return ""
