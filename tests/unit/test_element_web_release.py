# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Only the release that was promised and signed is unpacked, whole, and nowhere but in its tree."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cae.matrix.plugins.module_utils.host import element_web

ROOT = Path(__file__).parents[2]
ELEMENT = "712BFBEE92DCA45252DB17D7C7BE97EFA179B100"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    directory = tmp_path_factory.mktemp("release")
    command = [sys.executable, str(ROOT / "tests/element_fixture/make"), str(directory)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def archive(path: Path, *extra: tarfile.TarInfo) -> str:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in (("index.html", b"<p>"), ("version", b"v1.2.3")):
            member = tarfile.TarInfo(f"element-v1.2.3/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in extra:
            tar.addfile(member)
    return str(path)


def test_the_shipped_key_is_elements() -> None:
    key = (ROOT / "roles/element_web/files/element-release-key.asc").read_text(encoding="utf-8")
    assert element_web.primary_fingerprint(element_web.dearmor(key)) == ELEMENT


def test_a_signed_release_is_verified(made: dict[str, Any]) -> None:
    element_web.verify(made["file"], made["signature"], made["sha256"], made["key"], made["fingerprint"])


def test_another_digest_is_refused(made: dict[str, Any]) -> None:
    with pytest.raises(element_web.ReleaseError, match="digest"):
        element_web.verify(made["file"], made["signature"], "0" * 64, made["key"], made["fingerprint"])


def test_another_signature_is_refused(made: dict[str, Any], tmp_path: Path) -> None:
    other = tmp_path / "other.tar.gz"
    other.write_bytes(b"something else")
    digest = element_web.digest_of(other)
    with pytest.raises(element_web.ReleaseError, match=r"not signed.*BADSIG"):
        element_web.verify(str(other), made["signature"], digest, made["key"], made["fingerprint"])


def test_another_key_is_refused(made: dict[str, Any]) -> None:
    with pytest.raises(element_web.ReleaseError, match="fingerprint"):
        element_web.verify(made["file"], made["signature"], made["sha256"], made["key"], ELEMENT)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("element-v1.2.3/../outside", tarfile.REGTYPE),
        ("/etc/outside", tarfile.REGTYPE),
        ("element-v1.2.3/link", tarfile.SYMTYPE),
        ("element-v1.2.3/hard", tarfile.LNKTYPE),
        ("element-v1.2.3/device", tarfile.CHRTYPE),
        ("another/file", tarfile.REGTYPE),
        ("element-v1.2.3/index.html", tarfile.REGTYPE),
    ],
)
def test_what_leads_outside_is_refused(tmp_path: Path, name: str, kind: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    with pytest.raises(element_web.ReleaseError, match="unpacked"):
        element_web.unpack(archive(tmp_path / "a.tar.gz", member), tmp_path / "1.2.3", "1.2.3", "0" * 64)
    assert not (tmp_path / "1.2.3").exists()


def test_a_tree_is_whole_and_a_change_in_it_is_seen(tmp_path: Path) -> None:
    tree, release = tmp_path / "1.2.3", archive(tmp_path / "a.tar.gz")
    (tmp_path / ".1.2.3.partial").mkdir()
    assert element_web.state(tree, "0" * 64) == (False, "not there")
    element_web.unpack(release, tree, "1.2.3", "0" * 64)
    assert element_web.state(tree, "0" * 64) == (True, "complete")
    (tree / "index.html").write_text("changed")
    assert element_web.state(tree, "0" * 64)[0] is False
    element_web.unpack(release, tree, "1.2.3", "0" * 64)
    assert element_web.state(tree, "0" * 64)[0] is True
    with pytest.raises(element_web.ReleaseError, match="share"):
        element_web.state(tree, "1" * 64)
