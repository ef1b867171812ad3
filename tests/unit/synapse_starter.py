# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run by the interpreter that has Synapse: reads its code once, then starts each server as a copy of itself.

Reading the code is most of what a start takes. It is done as Synapse's own launcher for Complement does it, but for
servers that come and go: one JSON document a line in, a process id a line out. Nothing that is started outlives this,
nor this its standard input.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import signal
import sys
from typing import Any

from ansible_collections.cae.matrix.tests.unit import names
from ansible_collections.cae.matrix.tests.unit.synapse_once import check_schemas_once

# Before anything else takes what it replaces.
names.keep_inside(lambda name: print(f"{names.ASKED_OUTSIDE} {name}", file=sys.stderr))

from synapse.app.complement_fork_starter import ProxiedReactor, _worker_entrypoint
from twisted.internet import defer
from twisted.internet.main import installReactor
from twisted.names import client
from twisted.names.error import DNSNameError

PR_SET_PDEATHSIG = 1
APPS = ("synapse.app.homeserver", "synapse.app.generic_worker")


def spare_the_disk() -> None:
    """A database is of no use after its test: what a power cut would do to it does not matter."""
    engine = importlib.import_module("synapse.storage.engines.sqlite").Sqlite3Engine
    as_shipped = engine.on_new_connection

    def on_new_connection(self: Any, connection: Any) -> None:
        as_shipped(self, connection)
        connection.execute("PRAGMA synchronous = OFF;")

    engine.on_new_connection = on_new_connection


def become(order: dict[str, Any], reactor: ProxiedReactor) -> None:
    """In the new process: what C(python -m module arguments) would be."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.chdir(order["directory"])
    os.environ.update(order["environment"])
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for number, path, how in ((0, os.devnull, os.O_RDONLY), (1, order["log"], flags)):
        opened = os.open(path, how, 0o644)
        os.dup2(opened, number)
        os.close(opened)
    os.dup2(1, 2)
    module = importlib.import_module(order["module"])
    _worker_entrypoint(module.main, reactor, [order["module"], *order["arguments"]])


def main() -> None:
    reactor = ProxiedReactor()
    installReactor(reactor)
    # Nor is the DNS asked for SRV records: it knows of none.
    client.lookupService = lambda name, *_: defer.fail(DNSNameError(name))
    for name in APPS:
        importlib.import_module(name)
    spare_the_disk()
    check_schemas_once()
    gc.collect()
    gc.freeze()
    children: set[int] = set()
    for line in sys.stdin:
        order = json.loads(line)
        if "forget" in order:
            # Not before: until then, its number is nobody else's.
            child = order["forget"]
            os.waitpid(child, 0)
            children.remove(child)
        else:
            child = os.fork()
            if child == 0:
                return become(order, reactor)
            children.add(child)
        print(child, flush=True)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
