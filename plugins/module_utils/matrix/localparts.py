# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the names of accounts that an inventory declares may be."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence

from ansible_collections.cae.matrix.plugins.module_utils.matrix.identifiers import LOCALPART, is_service_account

# The whole identifier, with @, colon and domain, is 255 bytes at most.
MOST = 255
ALLOWED = "small letters, digits and . _ = / + -, not beginning with _"


def problems(localparts: Sequence[str], domain: str) -> Iterator[str]:
    """What is wrong with each localpart that is wrong, and what to write.

    >>> list(problems(["jo", "@Zoé:a.test"], "a.test"))
    ['"@Zoé:a.test" is a whole identifier; write its localpart, the part between @ and the colon: zoe']
    """
    for localpart, times in Counter(localparts).items():
        quoted = f'"{localpart}"'
        if re.fullmatch(r"@?[^@:]+:.*|@.*", localpart, re.DOTALL):
            meant = suggestion(localpart)
            fix = f": {meant}" if meant else ""
            yield f"{quoted} is a whole identifier; write its localpart, the part between @ and the colon{fix}"
        elif not LOCALPART.fullmatch(localpart):
            meant = suggestion(localpart)
            yield f"{quoted} is no localpart; {ALLOWED}" + (f", such as {meant}" if meant else "")
        elif is_service_account(f"@{localpart}:{domain}", domain):
            yield f"{quoted} is the gate's own account; choose another"
        elif len(localpart) + len(domain) + 2 > MOST:
            yield f"{quoted} is too long: with @ and :{domain} it has to fit into {MOST} bytes"
        elif times > 1:
            yield f"{quoted} is there {times} times; leave one"


def suggestion(text: str) -> str:
    """A localpart that is near, or nothing."""
    plain = unicodedata.normalize("NFKD", text.removeprefix("@").partition(":")[0])
    plain = plain.encode("ascii", "ignore").decode().lower()
    plain = re.sub(r"[^a-z0-9._=/+-]+", ".", plain).strip("._")
    return plain if LOCALPART.fullmatch(plain) else ""
