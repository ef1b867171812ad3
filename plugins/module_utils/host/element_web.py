# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A release of Element Web: what it is known by, and how it is put in place. Standard library only."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+(-[A-Za-z0-9.]+)?")
SHA256 = re.compile(r"[0-9a-f]{64}")
FINGERPRINT = re.compile(r"[0-9A-F]{40}")
MARKER = ".complete.json"
LARGEST_TREE = 1 << 30
LANGUAGES = ("fr", "en")
# What a release cannot be without.
EXPECTED = ("index.html", "version")


class ReleaseError(Exception):
    """Why a release is refused, and the mend."""


def digest_of(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    sha256 = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            sha256.update(chunk)
    return sha256.hexdigest()


def dearmor(key: str) -> bytes:
    """The packets of an armored public key, as gpgv wants them."""
    match = re.search(
        r"-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(.*?)-----END PGP PUBLIC KEY BLOCK-----", key, re.DOTALL
    )
    if match is None:
        raise ReleaseError("element_web_signing_key: is no armored OpenPGP public key; give its text")
    lines = [line.strip() for line in match.group(1).splitlines()]
    if "" in lines:
        lines = lines[lines.index("") + 1 :]
    body = "".join(line for line in lines if line and not line.startswith("=") and ":" not in line)
    try:
        packets = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ReleaseError(f"element_web_signing_key: its armor is damaged ({error}); copy it whole") from error
    if not packets:
        raise ReleaseError("element_web_signing_key: is empty; give its text")
    return packets


def primary_fingerprint(packets: bytes) -> str:
    """The fingerprint of the primary key (version 4) that the packets begin with."""
    try:
        tag = packets[0]
        if tag & 0x40:  # new format
            kind, length, start = tag & 0x3F, packets[1], 2
            if 192 <= length < 224:
                length, start = ((length - 192) << 8) + packets[2] + 192, 3
            elif length == 255:
                length, start = int.from_bytes(packets[2:6], "big"), 6
        else:
            size = (1, 2, 4)[tag & 3]
            kind, length, start = (tag >> 2) & 0xF, int.from_bytes(packets[1 : 1 + size], "big"), 1 + size
        body = packets[start : start + length]
        if not tag & 0x80 or kind != 6 or len(body) != length or body[0] != 4:
            raise ReleaseError("element_web_signing_key: does not begin with a public key of version 4")
    except IndexError as error:
        raise ReleaseError("element_web_signing_key: is cut short; copy it whole") from error
    return hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body, usedforsecurity=False).hexdigest().upper()


def _fingerprint(value: object) -> str:
    return str(value).replace(" ", "").upper()


def check_key(key: str, fingerprint: str) -> bytes:
    """The packets of ``key``, which must be the one that ``fingerprint`` names."""
    packets = dearmor(key)
    found = primary_fingerprint(packets)
    if found != _fingerprint(fingerprint):
        raise ReleaseError(
            f"element_web_signing_key: its fingerprint is {found}, but element_web_signing_key_fingerprint says "
            f"{_fingerprint(fingerprint)}; find out which one Element publishes before you change either"
        )
    return packets


def problems(given: Mapping[str, Any]) -> list[str]:
    """Everything wrong with what is to be installed that can be seen without the target."""
    found = []
    version, sha256 = str(given["element_web_version"]), str(given["element_web_release_sha256"])
    if not VERSION.fullmatch(version):
        found.append(f'element_web_version: "{version}" is no version; such as 1.12.25, without the v')
    if not SHA256.fullmatch(sha256):
        found.append(
            f'element_web_release_sha256: "{sha256}" is no SHA-256 digest; 64 of 0-9 and a-f. How to obtain and '
            "confirm that of a release stands in the README of role element_web"
        )
    if not FINGERPRINT.fullmatch(_fingerprint(given["element_web_signing_key_fingerprint"])):
        found.append("element_web_signing_key_fingerprint: must be the whole fingerprint, 40 hexadecimal digits")
    else:
        try:
            check_key(str(given["element_web_signing_key"]), str(given["element_web_signing_key_fingerprint"]))
        except ReleaseError as error:
            found.append(str(error))
    found += _source_problems(given, version, sha256)
    language = given.get("element_web_language", "fr")
    if language not in LANGUAGES:
        found.append(f'element_web_language: "{language}" is unknown; one of {", ".join(LANGUAGES)}')
    return found


def _source_problems(given: Mapping[str, Any], version: str, sha256: str) -> list[str]:
    found = []
    release = str(given.get("element_web_release_file") or "")
    if release:
        signature = str(given["element_web_release_signature_file"])
        for variable, path in (
            ("element_web_release_file", release),
            ("element_web_release_signature_file", signature),
        ):
            if not os.path.isfile(os.path.expanduser(path)):
                found.append(f'{variable}: there is no file "{path}" on the controller')
        if not found and SHA256.fullmatch(sha256) and (actual := digest_of(os.path.expanduser(release))) != sha256:
            found.append(
                f'element_web_release_file: the SHA-256 digest of "{release}" is {actual}, but '
                f"element_web_release_sha256 promises {sha256} for version {version}; get the file again, or set the "
                "digest that was published"
            )
    else:
        for variable in ("element_web_release_url", "element_web_release_signature_url"):
            if not re.match(r"https?://[^/\s]+/\S+$", str(given[variable])):
                found.append(f'{variable}: "{given[variable]}" is no https:// address')
    return found


def verify(release: str, signature: str, sha256: str, key: str, fingerprint: str) -> None:
    """Refuse a tarball that is not the one promised, or not signed by the key that ``fingerprint`` names."""
    actual = digest_of(release)
    if actual != sha256:
        raise ReleaseError(
            f"the SHA-256 digest of the release is {actual}, but element_web_release_sha256 promises {sha256}; "
            "nothing was unpacked"
        )
    packets = check_key(key, fingerprint)
    gpgv = shutil.which("gpgv")
    if gpgv is None:
        raise ReleaseError("gpgv is missing on the machine; install Debian's package gpgv (role machine does)")
    with tempfile.TemporaryDirectory(prefix="cae-matrix-gpgv-") as home:
        keyring = os.path.join(home, "keyring.gpg")
        Path(keyring).write_bytes(packets)
        done = subprocess.run(
            [gpgv, "--homedir", home, "--status-fd", "1", "--keyring", keyring, signature, release],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"},
        )
    status = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("[GNUPG:] ")]
    words = {fields[0] for fields in status if fields}
    signers = {fields[-1] for fields in status if fields and fields[0] == "VALIDSIG"}
    bad = words & {"BADSIG", "ERRSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG", "NODATA"}
    if done.returncode != 0 or bad or signers != {_fingerprint(fingerprint)} or "GOODSIG" not in words:
        cause = ", ".join(sorted(bad)) or done.stderr.strip() or "no signature"
        raise ReleaseError(
            f"the release is not signed by {_fingerprint(fingerprint)} ({cause}); nothing was unpacked. "
            "Get release and signature again from the same place, and confirm element_web_signing_key"
        )


def members(archive: tarfile.TarFile) -> list[tuple[tarfile.TarInfo, str]]:
    """The members with their paths below the release's only top folder; what could reach outside is refused."""
    found: list[tuple[tarfile.TarInfo, str]] = []
    tops: set[str] = set()
    size = 0
    for member in archive:
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        if member.name.startswith("/") or ".." in parts or "\\" in member.name or "\0" in member.name:
            raise ReleaseError(f'the release holds "{member.name}", which leads outside of it; nothing was unpacked')
        if not (member.isreg() or member.isdir()):
            raise ReleaseError(
                f'the release holds "{member.name}", which is neither a file nor a directory; nothing was unpacked'
            )
        if not parts:
            continue
        tops.add(parts[0])
        size += member.size
        if size > LARGEST_TREE:
            raise ReleaseError(f"the release unpacks to more than {LARGEST_TREE >> 20} MiB; nothing was unpacked")
        if len(parts) > 1:
            found.append((member, "/".join(parts[1:])))
        elif member.isreg():
            raise ReleaseError(f'the release holds "{member.name}" beside its top folder; nothing was unpacked')
    if len(tops) != 1:
        raise ReleaseError(f"the release has {len(tops)} top folders in place of one; nothing was unpacked")
    paths = [path for _member, path in found]
    if len(set(paths)) != len(paths) or MARKER in paths:
        raise ReleaseError("the release holds the same file twice; nothing was unpacked")
    if missing := [path for path in EXPECTED if path not in paths]:
        raise ReleaseError(f"the release has no {', '.join(missing)}: is it Element Web? Nothing was unpacked")
    return found


def unpack(release: str, tree: Path, version: str, sha256: str) -> None:
    """Unpack beside ``tree`` and move it there whole, so that an interrupted run leaves nothing half done."""
    beside = tree.parent / f".{tree.name}.partial"
    old = tree.parent / f".{tree.name}.old"
    for leftover in (beside, old):
        if leftover.exists():
            shutil.rmtree(leftover)
    with tarfile.open(release, "r:gz") as archive:
        wanted = members(archive)
        beside.mkdir(mode=0o755)
        beside.chmod(0o755)
        files: dict[str, str] = {}
        for member, path in wanted:
            target = beside / path
            make_directories(beside, target if member.isdir() else target.parent)
            if member.isdir():
                continue
            source = archive.extractfile(member)
            if source is None:
                raise ReleaseError(f'the release holds "{member.name}", which cannot be read')
            with open(target, "xb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
            os.chmod(target, 0o644)
            files[path] = digest_of(target)
    named = (beside / "version").read_text(encoding="utf-8").strip().removeprefix("v")
    if named != version:
        shutil.rmtree(beside)
        raise ReleaseError(f"the release is version {named}, but element_web_version is {version}")
    marker = beside / MARKER
    marker.write_text(
        json.dumps({"version": version, "sha256": sha256, "files": files}, indent=1, sort_keys=True) + "\n"
    )
    os.chmod(marker, 0o644)
    os.sync()
    if tree.exists():
        os.rename(tree, old)
    os.rename(beside, tree)
    if old.exists():
        shutil.rmtree(old)


def make_directories(top: Path, directory: Path) -> None:
    """Directories from ``top`` down, readable by all whatever the umask."""
    if directory != top and not directory.is_dir():
        make_directories(top, directory.parent)
        directory.mkdir()
        directory.chmod(0o755)


def state(tree: Path, sha256: str) -> tuple[bool, str]:
    """Whether ``tree`` is whole and as it was unpacked, and if not, why."""
    try:
        marker = json.loads((tree / MARKER).read_text(encoding="utf-8"))
        promised, files = str(marker["sha256"]), dict(marker["files"])
    except FileNotFoundError:
        return False, "not complete" if tree.exists() else "not there"
    except (OSError, ValueError, TypeError, KeyError):
        return False, "its marker is damaged"
    if promised != sha256:
        raise ReleaseError(
            f"{tree} was made from a release with the digest {promised}, but element_web_release_sha256 is {sha256}. "
            "Instances share it: set the digest that was published, and remove the directory if it is the wrong one"
        )
    seen = {
        os.path.relpath(os.path.join(where, name), tree)
        for where, _directories, names in os.walk(tree)
        for name in names
    } - {MARKER}
    if seen != set(files):
        return False, f"files differ: {', '.join(sorted(seen ^ set(files))[:3])}"
    for path, digest in files.items():
        if (tree / path).is_symlink() or digest_of(tree / path) != digest:
            return False, f"{path} was changed"
    return True, "complete"
