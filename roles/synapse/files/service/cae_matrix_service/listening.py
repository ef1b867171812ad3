# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Room for those who come at once, as everybody does after a restart.

Synapse's sockets let 50 wait. For each one more nginx gets EAGAIN, and people an error.
"""

from __future__ import annotations

import inspect
import logging
import types

from synapse.app import _base

logger = logging.getLogger(__name__)

BACKLOG = 4096
"""How many can wait. The kernel's own limit (net.core.somaxconn) is the same, since Linux 5.4."""
_FUNCTIONS = ("listen_unix", "listen_tcp", "listen_ssl")


def lengthen_queues() -> None:
    """Whatever listens from now on lets more wait."""
    for name in _FUNCTIONS:
        if not _lengthen(getattr(_base, name, None)):
            logger.warning(
                "synapse.app._base.%s of this Synapse takes no backlog as expected, nothing changed: when many come "
                "at once, some get errors. Set synapse_version to the version before.",
                name,
            )


def _lengthen(listen: object) -> bool:
    if not isinstance(listen, types.FunctionType):
        return False
    taken = inspect.signature(listen, follow_wrapped=False).parameters
    backlog = taken.get("backlog")
    if backlog is None or backlog.kind is not backlog.POSITIONAL_OR_KEYWORD or type(backlog.default) is not int:
        return False
    positional = [one for one in taken.values() if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    defaults = {one.name: one.default for one in positional if one.default is not one.empty}
    listen.__defaults__ = tuple((defaults | {"backlog": max(BACKLOG, backlog.default)}).values())
    return True
