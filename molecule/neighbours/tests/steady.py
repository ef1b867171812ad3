# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether an instance keeps answering while something happens to its neighbour."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from types import TracebackType
from urllib.parse import urlsplit

from ansible_collections.cae.matrix.tests.patience import patient

PERIOD = 0.1
# Slower than this on a quiet machine, people would notice.
TIMEOUT = 5.0


class Steady:
    """Asks every 100 ms, each time over a new connection, through nginx and Synapse down to the database.

    Use it as a context manager, and look at C(failures) and C(count) afterwards::

        with Steady(base_url, domain, ssl_context) as asked:
            restart_the_neighbour()
        assert asked.count > 10 and not asked.failures
    """

    def __init__(self, base_url: str, domain: str, context: ssl.SSLContext) -> None:
        self.host = urlsplit(base_url).hostname or ""
        # Synapse answers it from the database only: "there is no such room" is good news.
        self.path = f"/_matrix/client/v3/directory/room/%23health-check:{domain}"
        self.context = context
        self.failures: list[str] = []
        self.count = 0
        self.slowest = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask_on)

    def __enter__(self) -> Steady:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _ask_on(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due = max(due + PERIOD, time.monotonic())
            began = time.monotonic()
            problem = self._ask()
            self.count += 1
            self.slowest = max(self.slowest, time.monotonic() - began)
            if problem:
                self.failures.append(f"{time.strftime('%H:%M:%S')} {problem}")

    def _ask(self) -> str:
        connection = http.client.HTTPSConnection(self.host, timeout=patient(TIMEOUT), context=self.context)
        try:
            connection.request("GET", self.path, headers={"Connection": "close"})
            answer = connection.getresponse()
            said = answer.read()
            good = answer.status == 404 and json.loads(said)["errcode"] == "M_NOT_FOUND"
            return "" if good else f"{answer.status} {said[:200]!r}"
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            return f"{type(error).__name__}: {error}"
        finally:
            connection.close()
