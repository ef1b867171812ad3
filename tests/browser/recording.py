# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which of our files the result with the real Element depends on, and their digest."""

from __future__ import annotations

import hashlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RECORDED = ROOT / "tests/browser/recorded"
# Our configuration of Element, the proxy's part of what serves it, and the checks themselves.
PATTERNS = ("roles/element_web/**/*", "roles/reverse_proxy/templates/nginx.conf.j2", "tests/browser/*.py")


def files() -> list[Path]:
    found = {path for pattern in PATTERNS for path in ROOT.glob(pattern) if path.is_file()}
    return sorted(path for path in found if path.suffix not in (".md", ".pyc"))


def digest() -> str:
    sha256 = hashlib.sha256()
    for path in files():
        sha256.update(f"{path.relative_to(ROOT)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return f"sha256:{sha256.hexdigest()}"
