# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The federation's list of members: read with its line numbers, checked whole, and its signature.

Runs on the controller: it needs PyYAML and `cryptography`, which every controller has with ansible-core. What the
hub's machine needs is in C(signed_json). The list's JSON schema is docs/members.schema.json.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import json
import re
import unicodedata
import urllib.parse
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.cae.matrix.plugins.module_utils.host.element_look import PICTURES
from ansible_collections.cae.matrix.plugins.module_utils.instance.names import PROFILES
from ansible_collections.cae.matrix.plugins.module_utils.matrix.server_names import hostname_problem
from ansible_collections.cae.matrix.plugins.module_utils.matrix.signed_json import decode_base64, key_id, signed_part
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SCHEMA = "cae.matrix/members/1"
LIST_KEYS = ("schema", "name", "hub", "members", "issued", "signatures")
MEMBER_KEYS = ("name", "domain", "hostname", "contact", "logo", "profile")
LARGEST_LOGO = 16 << 10
# 500 members, each with the largest logo, and room to spare.
LARGEST_LIST = 16 << 20
LONGEST_NAME = 100
ISSUED = "%Y-%m-%dT%H:%M:%SZ"
# Clocks of a hub and of a controller may differ by this much.
CLOCKS = datetime.timedelta(hours=1)

_DATA_URI = re.compile(r"data:(image/[a-z+]+);base64,([A-Za-z0-9+/]+={0,2})")
_STARTS = {
    "image/png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "image/jpeg": re.compile(rb"\xff\xd8\xff"),
    "image/webp": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "image/svg+xml": re.compile(
        rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*\?>\s*|<!--.*?-->\s*|<!DOCTYPE[^>\[]*>\s*)*<svg[\s>]", re.DOTALL
    ),
}
_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# A list, its members, what is in one: nothing deeper has a meaning.
_DEEPEST = 3
_TOO_DEEP = 20


class MembersError(Exception):
    """A list that is refused: every problem, each with its place, its entry and the mend."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


class Nonsense(MembersError):
    """What was fetched is no list at all: whoever answered is not the hub as we know it."""


@dataclass(frozen=True)
class Node:
    """A value with the place where it stands: text, a mapping, a sequence, or something else, as it is shown."""

    value: str | dict[str, Node] | list[Node] | _Other
    where: str


@dataclass(frozen=True)
class _Other:
    shown: str


@dataclass
class _Entry:
    """One member on its way in."""

    where: str
    label: str
    member: dict[str, str] = field(default_factory=dict)


# --- reading ----------------------------------------------------------------------------------------------------


def read_file(path: str) -> tuple[dict[str, Any], list[str]]:
    """The list in a YAML (or JSON) file on the controller, and what is worth a look in it.

    >>> read_file("/nowhere/members.yml")
    Traceback (most recent call last):
    ...
    ansible_collections.cae.matrix.plugins.module_utils.federation.members.MembersError: federation_members: ...
    """
    file = Path(path)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise MembersError(
            f'federation_members: "{path}" cannot be read on the controller ({error.strerror}); '
            "name the list's file (a relative path, from the inventory's directory) or its https address"
        ) from None
    if len(content) > LARGEST_LIST:
        raise MembersError(
            f"{path}: has {len(content) >> 20} MiB, more than any list of members; is it the right file?"
        )
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise MembersError(f"{path}:{line}: is not UTF-8; save the file in that encoding") from None
    problems: list[str] = []
    root = _from_yaml(text, path, problems)
    return _checked(root, file.parent, problems)


def read_published(text: str, source: str) -> tuple[dict[str, Any], list[str]]:
    """The list in the JSON that a hub publishes; Nonsense when it is none at all.

    >>> read_published("<html>", "https://federation.example/members.json")
    Traceback (most recent call last):
    ...
    ansible_collections.cae.matrix.plugins.module_utils.federation.members.Nonsense: ...
    """
    problems: list[str] = []
    try:
        value = json.loads(text, object_pairs_hook=lambda pairs: _object(pairs, source, problems))
    except (ValueError, RecursionError):
        begins = " ".join(text[:60].split())
        raise Nonsense(f"{source}: is no JSON; it begins with {begins!r}") from None
    schema = value.get("schema") if isinstance(value, dict) else None
    if not isinstance(schema, str) or not schema.startswith(SCHEMA.rsplit("/", 1)[0]):
        raise Nonsense(f"{source}: is JSON, but no list of members (schema: {SCHEMA})")
    return _checked(_from_data(value, source, 0), None, problems)


def _object(pairs: list[tuple[str, Any]], source: str, problems: list[str]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        problems.append(f"{source}: holds an object with the same key twice ({', '.join(key for key, _ in pairs)})")
    return found


def _from_data(value: Any, where: str, depth: int) -> Node:
    if value is None or isinstance(value, str):
        return Node(value or "", where)
    if isinstance(value, dict) and depth < _DEEPEST:
        return Node({key: _from_data(inner, where, depth + 1) for key, inner in value.items()}, where)
    if isinstance(value, list) and depth < _DEEPEST:
        return Node([_from_data(inner, where, depth + 1) for inner in value], where)
    return Node(_Other(_shown(value)), where)


def _shown(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return "a mapping" if isinstance(value, dict) else "a list"
    return json.dumps(value)


def _from_yaml(text: str, path: str, problems: list[str]) -> Node:
    try:
        depth = 0
        # The fast loader goes down without a limit until the interpreter dies: look how deep it is first.
        for event in yaml.parse(text, Loader=_YAML_LOADER):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _TOO_DEEP:
                raise MembersError(f"{_at(path, event.start_mark)}: is nested too deeply; a list of members is not")
        root = yaml.compose(text, Loader=_YAML_LOADER)
    except yaml.MarkedYAMLError as error:
        where = _at(path, error.problem_mark or error.context_mark)
        raise MembersError(f"{where}: is no YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise MembersError(f"{path}: is no YAML: {' '.join(str(error).split())}") from None
    if root is None:
        raise MembersError(f"{path}: is empty; it holds schema: {SCHEMA}, name, hub and members")
    return _from_yaml_node(root, path, 0, problems)


def _at(path: str, mark: Any) -> str:
    return f"{path}:{mark.line + 1}" if mark else path


def _from_yaml_node(node: Any, path: str, depth: int, problems: list[str]) -> Node:
    where = _at(path, node.start_mark)
    if isinstance(node, yaml.ScalarNode):
        # A value with a type of its own (a number, yes, a date, nothing) is kept as it was written.
        if node.tag == "tag:yaml.org,2002:str":
            return Node(node.value, where)
        return Node("" if node.tag == "tag:yaml.org,2002:null" else _Other(node.value), where)
    if depth >= _DEEPEST:
        return Node(_Other("a mapping" if isinstance(node, yaml.MappingNode) else "a list"), where)
    if isinstance(node, yaml.SequenceNode):
        return Node([_from_yaml_node(inner, path, depth + 1, problems) for inner in node.value], where)
    found: dict[str, Node] = {}
    for key, inner in node.value:
        line = _at(path, key.start_mark)
        if not isinstance(key, yaml.ScalarNode):
            problems.append(f"{line}: a key is one word, not a mapping or a list")
        elif key.value in found:
            problems.append(f"{line}: {key.value}: stands there twice (the first, {found[key.value].where}); keep one")
        else:
            value = _from_yaml_node(inner, path, depth + 1, problems)
            # A value may begin on a later line than its key, which is where people look.
            found[key.value] = Node(value.value, line)
    return Node(found, where)


# --- checking ---------------------------------------------------------------------------------------------------


def _checked(root: Node, directory: Path | None, problems: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The normalised document, or MembersError with everything that is wrong."""
    value = root.value
    if not isinstance(value, dict):
        raise MembersError(f"{root.where}: is no mapping; it holds schema: {SCHEMA}, name, hub and members")
    _refuse_unknown(value, LIST_KEYS, "", problems)
    document: dict[str, Any] = {}
    schema = _text(value, "schema", root.where, "", problems, required=f"write schema: {SCHEMA}")
    if schema and schema != SCHEMA:
        problems.append(
            f'{value["schema"].where}: schema: "{schema}" is unknown to this version of cae.matrix, which reads '
            f"{SCHEMA}; write that, or install the version that the list is for"
        )
    document["schema"] = SCHEMA
    document["name"] = _text(
        value, "name", root.where, "", problems, required="the federation's name as people read it"
    )
    _name_problem(document["name"], value, "", problems)
    document["hub"] = _text(value, "hub", root.where, "", problems, required="the domain of the federation's hub")
    document["issued"] = _issued(value, problems)
    entries = _entries(value, root.where, directory, problems)
    _refuse_twice(entries, problems)
    notes = _typing_errors(entries, problems)
    _check_hub(document["hub"], value, entries, problems)
    document["members"] = [entry.member for entry in entries]
    if "signatures" in value:
        document["signatures"] = _signatures(value["signatures"], problems)
    if problems:
        raise MembersError(*sorted(problems, key=_line))
    return document, notes


def _line(problem: str) -> int:
    match = re.search(r":(\d+): ", problem)
    return int(match.group(1)) if match else 0


def _refuse_unknown(given: Mapping[str, Node], known: tuple[str, ...], label: str, problems: list[str]) -> None:
    problems.extend(
        f"{node.where}: {label}{key}: is unknown; known are {', '.join(known)}"
        for key, node in given.items()
        if key not in known
    )


def _text(given: Mapping[str, Node], key: str, where: str, label: str, problems: list[str], required: str = "") -> str:
    """The text under a key; empty when there is none, or when it is no text, which is then among the problems."""
    node = given.get(key)
    if node is not None and not isinstance(node.value, str):
        shown = node.value.shown if isinstance(node.value, _Other) else "a list or a mapping"
        problems.append(f"{node.where}: {label}{key}: {shown} is no text; put it in quotes, or mend it")
        return ""
    text = node.value if node is not None and isinstance(node.value, str) else ""
    if not text and required:
        problems.append(f"{node.where if node else where}: {label}{key}: is missing; {required}")
    return text


def _name_problem(name: str, given: Mapping[str, Node], label: str, problems: list[str]) -> None:
    if name and (name != name.strip() or not name.isprintable() or len(name) > LONGEST_NAME):
        problems.append(
            f"{given['name'].where}: {label}name: one line of {LONGEST_NAME} characters at most is needed, "
            "without spaces around it or control characters"
        )


def _issued(given: Mapping[str, Node], problems: list[str]) -> str | None:
    text = _text(given, "issued", "", "", problems)
    if not text:
        return None
    try:
        if moment(text).strftime(ISSUED) != text:
            raise ValueError(text)
    except ValueError:
        problems.append(f'{given["issued"].where}: issued: "{text}" is no date such as 2026-11-22T10:00:00Z')
    return text


def moment(issued: str) -> datetime.datetime:
    """When a list was issued.

    >>> moment("2026-11-22T10:00:00Z").hour
    10
    """
    return datetime.datetime.strptime(issued, ISSUED).replace(tzinfo=datetime.UTC)


def _entries(given: Mapping[str, Node], where: str, directory: Path | None, problems: list[str]) -> list[_Entry]:
    node = given.get("members")
    if node is None or node.value == "" or node.value == []:
        problems.append(f"{node.where if node else where}: members: is missing; list them, the hub among them")
        return []
    if not isinstance(node.value, list):
        problems.append(f"{node.where}: members: is no list; begin each member with a dash")
        return []
    found = []
    for number, item in enumerate(node.value, 1):
        if isinstance(item.value, dict):
            found.append(_entry(item.value, item.where, number, directory, problems))
        else:
            problems.append(f"{item.where}: member {number}: is no mapping; it has at least name and domain")
    return found


def _entry(given: Mapping[str, Node], where: str, number: int, directory: Path | None, problems: list[str]) -> _Entry:
    texts = (node.value for key in ("name", "domain") if (node := given.get(key)) and isinstance(node.value, str))
    label = next((text for text in texts if text), f"member {number}")
    entry = _Entry(where, label)
    prefix = f"{label}: "
    _refuse_unknown(given, MEMBER_KEYS, prefix, problems)
    name = _text(given, "name", where, prefix, problems, required="the cooperative's name as people read it")
    _name_problem(name, given, prefix, problems)
    domain = _text(given, "domain", where, prefix, problems, required="the part after the colon in @person:domain")
    sound = bool(domain) and not _refuse_host(given, "domain", domain, prefix, problems)
    hostname = _text(given, "hostname", where, prefix, problems)
    if hostname:
        _refuse_host(given, "hostname", hostname, prefix, problems)
    contact = _text(given, "contact", where, prefix, problems)
    if contact and contact_host(contact) is None:
        problems.append(
            f'{given["contact"].where}: {prefix}contact: "{contact}" is none of support@{domain or "example.coop"}, '
            f"@support:{domain or 'example.coop'} and https://…"
        )
    profile = _text(given, "profile", where, prefix, problems) or "open"
    if profile not in PROFILES:
        problems.append(
            f'{given["profile"].where}: {prefix}profile: "{profile}" is unknown; one of {", ".join(PROFILES)}'
        )
    logo = _text(given, "logo", where, prefix, problems)
    if logo:
        try:
            logo = logo_uri(logo, directory)
        except ValueError as error:
            problems.append(f"{given['logo'].where}: {prefix}logo: {error}")
    entry.member = {
        "name": name,
        # What is wrong already is not compared with the others.
        "domain": domain if sound else "",
        "hostname": hostname or (f"matrix.{domain}" if sound else ""),
        "contact": contact,
        "logo": logo,
        "profile": profile,
    }
    return entry


def _refuse_host(given: Mapping[str, Node], key: str, value: str, prefix: str, problems: list[str]) -> bool:
    if text := hostname_problem(key, value):
        problems.append(f"{given[key].where}: {prefix}{text}")
    return text is not None


def contact_host(contact: str) -> str | None:
    """The host that a contact is at: an e-mail address, a person on Matrix or an https page; None for anything else.

    >>> contact_host("support@atelier.example"), contact_host("@support:atelier.example")
    ('atelier.example', 'atelier.example')
    """
    if re.search(r"[\s<>\"'`\\]", contact) or not contact.isprintable() or len(contact) > 255:
        return None
    if match := re.fullmatch(r"(?:@[^@:]+:|[^@:]+@)([^@:]+)", contact):
        host = match.group(1)
    elif contact.startswith("https://"):
        try:
            parts = urllib.parse.urlsplit(contact)
            if parts.username is not None or parts.port not in (None, 443):
                return None
        except ValueError:
            return None
        host = parts.hostname or ""
    else:
        return None
    return None if hostname_problem("contact", host.lower()) else host.lower()


def logo_uri(logo: str, directory: Path | None) -> str:
    """A logo as a data address, from one or (with the list's directory) from a file; ValueError says what is wrong.

    >>> logo_uri("logos/atelier.svg", None)
    Traceback (most recent call last):
    ...
    ValueError: "logos/atelier.svg" is no data: address, which a list that is fetched has
    """
    if match := _DATA_URI.fullmatch(logo):
        kind = match.group(1)
        try:
            content = base64.b64decode(match.group(2), validate=True)
        except binascii.Error:
            raise ValueError("its data: address is damaged; name a file in its place") from None
        shown = "the picture"
    elif logo.startswith("data:"):
        raise ValueError("its data: address is no picture in base64; name a file in its place")
    elif directory is None:
        raise ValueError(f'"{logo}" is no data: address, which a list that is fetched has')
    else:
        file = directory / Path(logo).expanduser()
        kind, shown = PICTURES.get(file.suffix.lower(), ""), f'"{logo}"'
        if not kind:
            raise ValueError(f"{shown} is none of {', '.join(PICTURES)}")
        try:
            content = file.read_bytes()
        except OSError as error:
            raise ValueError(f"{shown} cannot be read beside the list ({error.strerror}): {file}") from None
    if len(content) > LARGEST_LOGO:
        raise ValueError(
            f"{shown} has {-(-len(content) // 1024)} KiB, and every member fetches it with the list; make it "
            f"{LARGEST_LOGO >> 10} KiB or smaller"
        )
    starts = _STARTS.get(kind)
    if starts is None or not starts.match(content):
        raise ValueError(f"{shown} is no picture of the kind {kind}; save it again as SVG, PNG, JPEG or WebP")
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _refuse_twice(entries: list[_Entry], problems: list[str]) -> None:
    """A member stands there once, and nobody's server is somebody else's."""
    kinds: tuple[tuple[str, Callable[[str], str]], ...] = (("name", _folded), ("domain", str), ("hostname", str))
    seen: dict[str, dict[str, _Entry]] = {key: {} for key, _same in kinds}
    for entry in entries:
        for key, same in kinds:
            value = same(entry.member[key])
            first = seen[key].setdefault(value, entry) if value else entry
            # Two of the same domain have the same hostname for the same reason: say it once.
            if first is not entry and not (key == "hostname" and first.member["domain"] == entry.member["domain"]):
                problems.append(
                    f'{entry.where}: {entry.label}: {key}: "{entry.member[key]}" is also that of {first.label} '
                    f"({first.where}); a member stands in the list once"
                )
    for entry in entries:
        owner = seen["domain"].get(entry.member["hostname"])
        if owner is not None and owner is not entry and owner.member["domain"] != entry.member["domain"]:
            problems.append(
                f'{entry.where}: {entry.label}: hostname: "{entry.member["hostname"]}" is the domain of {owner.label} '
                f"({owner.where}); name the server of {entry.member['domain']}"
            )


def _folded(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _check_hub(hub: str, given: Mapping[str, Node], entries: list[_Entry], problems: list[str]) -> None:
    if not hub:
        return
    own = next((entry for entry in entries if entry.member["domain"] == hub), None)
    if own is None:
        near = next((entry for entry in entries if one_slip(entry.member["domain"], hub)), None)
        meant = f" Is {near.member['domain']} ({near.label}, {near.where}) meant?" if near else ""
        problems.append(
            f'{given["hub"].where}: hub: "{hub}" is not among the members; the hub is one itself, add it.{meant}'
        )
    elif own.member["profile"] == "internal":
        problems.append(
            f"{own.where}: {own.label}: profile: the hub cannot be internal, nobody would reach it; "
            "make it open or federation"
        )


def _signatures(node: Node, problems: list[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    signers = node.value if isinstance(node.value, dict) else {}
    for signer, keys in signers.items():
        if isinstance(keys.value, dict):
            found[signer] = {key: inner.value for key, inner in keys.value.items() if isinstance(inner.value, str)}
    if not any(found.values()):
        problems.append(f"{node.where}: signatures: holds none; leave it out of a list that you write yourself")
    return found


# --- domains that look like a typing error ------------------------------------------------------------------------


def one_slip(one: str, other: str) -> bool:
    """Whether two names differ by one typing error: a letter changed, added, left out, or two neighbours swapped.

    >>> one_slip("atelier.example", "ateleir.example"), one_slip("atelier.example", "atelier.example")
    (True, False)
    """
    if abs(len(one) - len(other)) > 1 or one == other:
        return False
    start = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    rest, others = one[start:], other[start:]
    if len(rest) > len(others):
        return rest[1:] == others
    if len(rest) < len(others):
        return rest == others[1:]
    return rest[1:] == others[1:] or (rest[:2] == others[1::-1] and rest[2:] == others[2:])


def _close_pairs(domains: list[str]) -> Iterator[tuple[int, int]]:
    """Pairs at one typing error, without comparing each with each: such two become equal when each loses a letter."""
    alike: dict[str, set[int]] = defaultdict(set)
    for index, domain in enumerate(domains):
        for text in {domain, *(domain[:at] + domain[at + 1 :] for at in range(len(domain)))} if domain else ():
            alike[text].add(index)
    pairs = {pair for indexes in alike.values() if len(indexes) > 1 for pair in combinations(sorted(indexes), 2)}
    return (pair for pair in sorted(pairs) if one_slip(domains[pair[0]], domains[pair[1]]))


def _typing_errors(entries: list[_Entry], problems: list[str]) -> list[str]:
    """Domains that differ by one typing error: a problem when something else leads to the other one, else a note."""
    notes = []
    for first, second in _close_pairs([entry.member["domain"] for entry in entries]):
        one, other = entries[first], entries[second]
        between = (
            f'{other.where}: {other.label}: domain: "{other.member["domain"]}" differs by one typing error from '
            f"{one.member['domain']} of {one.label} ({one.where})"
        )
        if led := _leads_to(other, one) or _leads_to(one, other):
            problems.append(f"{between}, and {led}; mend the domain, or what leads to the other member")
        elif not _numbered(one.member["domain"], other.member["domain"]):
            notes.append(f"{between}; if both are right, nothing needs to be done")
    return notes


def _numbered(one: str, other: str) -> bool:
    """Whether only digits differ: nobody numbers domains by accident."""
    return re.sub(r"\d", "", one) == re.sub(r"\d", "", other)


def _leads_to(entry: _Entry, other: _Entry) -> str:
    """What of C(entry) belongs to C(other), in words."""
    if _letters(entry.label) == _letters(other.label):
        return f'"{entry.label}" and "{other.label}" are one name'
    theirs = other.member["domain"]
    hosts = (("hostname", entry.member["hostname"]), ("contact", contact_host(entry.member["contact"])))
    for key, host in hosts:
        if host and _under(host, theirs):
            return f"the {key} of {entry.label}, {entry.member[key]}, is at {theirs}"
    return ""


def _letters(name: str) -> str:
    """A name without what people write now this way, now that: capitals, accents, spaces, dashes."""
    plain = unicodedata.normalize("NFKD", name).casefold()
    return "".join(character for character in plain if character.isalnum())


def _under(host: str, domain: str) -> bool:
    return host == domain or host.endswith(f".{domain}")


# --- the signature ----------------------------------------------------------------------------------------------


def public_key(text: str) -> bytes:
    """The bytes of C(federation_members_key); MembersError says what is wrong with it.

    >>> public_key("c2hvcnQ")
    Traceback (most recent call last):
    ...
    ansible_collections.cae.matrix.plugins.module_utils.federation.members.MembersError: federation_members_key: ...
    """
    try:
        raw = decode_base64(text)
        Ed25519PublicKey.from_public_bytes(raw)
    except ValueError:
        raise MembersError(
            f'federation_members_key: "{text}" is no public key (43 characters of base64); '
            "write the one that the hub's run shows"
        ) from None
    return raw


def check_signature(document: Mapping[str, Any], key: bytes, source: str) -> None:
    """Refuse a list that the hub it names has not signed with this key.

    >>> check_signature({"hub": "hub.example"}, bytes(32), "members.json")
    Traceback (most recent call last):
    ...
    ansible_collections.cae.matrix.plugins.module_utils.federation.members.MembersError: members.json: ...
    """
    pinned = key_id(key)
    theirs = document.get("signatures", {}).get(document["hub"], {})
    if not theirs:
        raise MembersError(
            f"{source}: is not signed by {document['hub']}; nothing was taken over. Look at what is served there: the "
            "hub's run publishes a signed list"
        )
    public = Ed25519PublicKey.from_public_bytes(key)
    signed = signed_part(document)
    for signature in theirs.values():
        try:
            public.verify(decode_base64(signature), signed)
        except (InvalidSignature, ValueError):
            continue
        return
    if pinned in theirs:
        raise MembersError(
            f"{source}: its signature by {document['hub']} ({pinned}) does not match; something has changed the list "
            "on its way. Nothing was taken over; let the hub publish it again, and tell whoever keeps the hub"
        )
    raise MembersError(
        f"{source}: was signed by {document['hub']} with another key ({', '.join(sorted(theirs))}) than "
        f"federation_members_key ({pinned}); nothing was taken over. Ask whoever keeps the hub, by another way than "
        "this address, whether its key has changed, and write the new one"
    )


# --- which list is in force -------------------------------------------------------------------------------------


def check_age(document: Mapping[str, Any], in_force: Mapping[str, Any] | None, now: datetime.datetime) -> None:
    """Refuse a list that is older than the one in force, or that comes from the future.

    >>> new, old = {"issued": "2026-11-22T10:00:00Z"}, {"issued": "2026-11-21T10:00:00Z"}
    >>> check_age(new, old, moment("2026-11-23T10:00:00Z"))
    """
    issued = document["issued"]
    if issued is None:
        raise MembersError("federation_members: the list has no date (issued); a list that is fetched has one")
    if moment(issued) > now + CLOCKS:
        raise MembersError(
            f"federation_members: the list was issued on {issued}, which is yet to come; "
            "check the clocks of the hub and of this machine"
        )
    before = (in_force or {}).get("issued")
    if before and moment(issued) < moment(before):
        raise MembersError(
            f"federation_members: the list was issued on {issued}, but the one in force is of {before}; an older list "
            "is not taken over. Look for a cache in front of the hub, or a hub that was restored from a backup: its "
            "next run after a change of the list issues a newer one"
        )


def check_place(document: Mapping[str, Any], source: str, hub: str, own: Mapping[str, str]) -> list[str]:
    """Refuse a list of another federation, and one that leaves out who cannot do without; notes on what differs.

    Args:
        document: the list.
        source: what to call it.
        hub: C(federation_hub), or nothing.
        own: C(domain) (empty, nobody in particular), C(hostname) and C(profile) of the instance.

    >>> check_place({"hub": "hub.example", "members": []}, "members.yml", "", {"domain": "a.test", "profile": "open"})
    []
    """
    if hub and hub != document["hub"]:
        near = ", which is one typing error away" if one_slip(hub, document["hub"]) else ""
        raise MembersError(
            f'federation_hub: "{hub}" is unknown to {source}, whose hub is {document["hub"]}{near}; '
            "mend federation_hub, or federation_members"
        )
    member = next((member for member in document["members"] if member["domain"] == own["domain"]), None)
    if member is None:
        if not own["domain"] or own["profile"] != "federation":
            return []
        near_one = next((m for m in document["members"] if one_slip(m["domain"], own["domain"])), None)
        meant = f" ({near_one['name']} is there with {near_one['domain']})" if near_one else ""
        raise MembersError(
            f"federation_members: {own['domain']} is not in {source}{meant}, and with matrix_profile federation it "
            "would talk to members who refuse it; ask whoever keeps the list to add it, or set matrix_profile to open "
            "or internal"
        )
    notes = []
    for key, variable in (("hostname", "matrix_hostname"), ("profile", "matrix_profile")):
        if own.get(key) and member[key] != own[key]:
            notes.append(
                f"{source}: {member['name']}: {key}: the list says {member[key]}, {variable} here is {own[key]}; tell "
                "whoever keeps the list, or mend the variable"
            )
    return notes
