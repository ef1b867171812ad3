# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""CI has no real Element: what was last seen with it must be about the files as they are."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

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
    assert {"welcome.png", "login.png", "room.png", "switch.png"} <= {p.name for p in BROWSER.glob("recorded/*.png")}
