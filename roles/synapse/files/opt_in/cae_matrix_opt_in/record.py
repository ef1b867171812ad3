# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the module did, for the journal and for Prometheus: one line and one count each."""

from __future__ import annotations

import logging

from prometheus_client import Counter

logger = logging.getLogger(__name__.split(".", 1)[0])

_PLAIN = Counter(
    "cae_matrix_rooms_started_plain", "Rooms whose client asked for encryption out of habit, and that started plain"
)
_OPT_INS = Counter("cae_matrix_opt_ins", "Rooms that somebody wanted encrypted", ["how"])
_REFUSALS = Counter("cae_matrix_refusals", "What the encryption opt-in module refused", ["what"])
# Zero is worth showing, too.
for _how in ("creation", "preference", "later"):
    _OPT_INS.labels(how=_how)
for _what in ("registration", "malformed room"):
    _REFUSALS.labels(what=_what)


def started_plain(creator: str, kind: str, client: str) -> None:
    """A room was made plain against its client's habit."""
    _PLAIN.inc()
    logger.info("Started plain: a room (%s) of %s, whose client %r asks for encryption by habit", kind, creator, client)


def opt_in(how: str, message: str, *details: str) -> None:
    """Somebody wants encryption."""
    _OPT_INS.labels(how=how).inc()
    logger.info("Opt-in (%s): " + message, how, *details)


def refused(what: str, message: str, *details: object) -> None:
    """Something was not let through."""
    _REFUSALS.labels(what=what).inc()
    logger.warning("Refused: " + message, *details)
