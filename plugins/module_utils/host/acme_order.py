# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a certificate was asked for with, and whether something else is declared now.

certbot renews with what it remembers, whatever the inventory says since: an ACME server, an account, a way of proof.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RENEWAL = "/etc/letsencrypt/renewal"
_SERVER = re.compile(r"^server = (.+)$", re.MULTILINE)


def record_of(directory: str, options: Mapping[str, object]) -> dict[str, str]:
    """What is remembered of an order: options may hold secrets, and leave a digest only."""
    text = json.dumps(dict(options), sort_keys=True) if options else ""
    return {"directory": directory, "options": hashlib.sha256(text.encode()).hexdigest() if text else ""}


def other_order(
    name: str, directory: str, options: Mapping[str, object], record: str, renewal: str = RENEWAL
) -> str | None:
    """Why the certificate that certbot calls C(name) has to be asked for anew; nothing if it does not have to be."""
    known = _recorded(record) or _renewed(Path(renewal, f"{name}.conf"))
    if known.get("directory", directory) != directory:
        return f"it came from {known['directory']}, and {directory} is declared"
    if "options" in known:
        same = known["options"] == record_of(directory, options)["options"]
        return None if same else "it was asked for with other options of certbot"
    return "whether it was asked for with these options of certbot is not known" if known and options else None


def _recorded(record: str) -> dict[str, Any]:
    """What was remembered; nothing where it is lost or damaged, or from before there were records."""
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(Path(record).read_text(encoding="utf-8"))
        return known if isinstance(known, dict) else {}
    return {}


def _renewed(configuration: Path) -> dict[str, Any]:
    """What certbot remembers for its renewals; nothing where it has no such certificate."""
    with contextlib.suppress(OSError):
        server = _SERVER.search(configuration.read_text(encoding="utf-8"))
        return {"certbot": True, **({"directory": server.group(1).strip()} if server else {})}
    return {}
