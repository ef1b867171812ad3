# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""CI has no real Element: what was last seen with it must be about the files as they are."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

BROWSER = Path(__file__).parents[1] / "browser"


def recording() -> ModuleType:
    spec = importlib.util.spec_from_file_location("recording", BROWSER / "recording.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_result_is_about_these_files() -> None:
    result = json.loads((BROWSER / "recorded/result.json").read_text(encoding="utf-8"))
    assert result["files"] == recording().digest(), "run make test-element ELEMENT_WEB_RELEASE=file.tar.gz again"


def test_everything_passed_and_was_seen() -> None:
    result = json.loads((BROWSER / "recorded/result.json").read_text(encoding="utf-8"))
    assert result["checks"]
    assert set(result["checks"].values()) == {"passed"}
    pictures = {path.stem: path.stat().st_size for path in BROWSER.glob("recorded/*.png")}
    assert {"welcome", "login", "create", "room", "switch", "settings", "help", "invite"} <= set(pictures)
    assert {"register", "telephone-iphone", "telephone-android", "direct", "menu", "sessions"} <= set(pictures)
    assert {"first-session", "second-session", "asked-next-session", "explanation"} <= set(pictures)
    assert max(pictures.values()) <= 250 << 10


@pytest.mark.parametrize(
    "path",
    [
        "roles/element_web/templates/welcome.html.j2",
        "roles/element_web/templates/help.fr.html.j2",
        "roles/element_web/templates/telephone.html.j2",
        "roles/element_web/templates/colours.css.j2",
        "roles/element_web/vars/main.yml",
        "roles/element_web/defaults/main.yml",
        "roles/element_web/files/encryption-opt-in.js",
        "roles/reverse_proxy/templates/nginx.conf.j2",
        "tests/browser/test_real_element.py",
    ],
)
def test_a_change_in_what_it_depends_on_is_seen(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = recording()
    before = known.digest()
    for file in known.files():
        copy = tmp_path / file.relative_to(known.ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    monkeypatch.setattr(known, "ROOT", tmp_path)
    assert known.digest() == before
    with open(tmp_path / path, "a") as file:
        file.write("\n")
    assert known.digest() != before
