# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How long tests wait: for a condition, and until a deadline that stands here and nowhere else.

A deadline tells a fault from a slow machine, so it grows with what the machine has to do: a machine with twice as many
processes that want to run as it has cores takes twice as long for everything. ``MATRIX_TEST_PATIENCE=3`` makes all
deadlines three times as long in any case, for machines that are slow by themselves. Waiting costs nothing where
all is well: whoever waits goes on as soon as the condition holds.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

# Seconds, on a machine that has nothing else to do.
PROMPT = 15.0
"""What runs is asked: a page, a counter, a message that comes to somebody of the same server."""
START = 60.0
"""A program starts, or stops; one request is answered at all."""
SETTLE = 180.0
"""Servers find each other again, a scheduler has its next round, a whole run of a playbook."""


def factor() -> float:
    """How much longer than on a quiet machine everything may take now, 1 or more."""
    busy = os.getloadavg()[0] / (os.cpu_count() or 1)
    return max(1.0, busy) * max(1.0, float(os.environ.get("MATRIX_TEST_PATIENCE") or 1))


def patient(seconds: float) -> float:
    """A number of seconds, as long as it may be now: for the time limits of programs and connections."""
    return seconds * factor()


def eventually(condition: Callable[[], Any], what: str = "", seconds: float = PROMPT, every: float = 0.05) -> Any:
    """The first value of a condition that is true, and no exception.

    Raises:
        AssertionError: time is up: what was waited for, and the last value. If the condition raised in the end, its
            own exception.
    """
    begin = time.monotonic()
    while True:
        failure: Exception | None = None
        value: Any = None
        try:
            value = condition()
        except Exception as error:  # whatever it is, it is raised in the end
            failure = error
        if value:
            return value
        waited = time.monotonic() - begin
        # Asked each time: the machine may have become busy since.
        if waited > patient(seconds):
            raise failure or AssertionError(f"not within {waited:.0f} s: {what or condition}; last: {value!r}")
        time.sleep(every)


@contextlib.contextmanager
def at_most(seconds: float, what: str = "this") -> Iterator[None]:
    """What is done inside must be over within the time; for promises about waiting, not about computing."""
    begin = time.monotonic()
    yield
    took = time.monotonic() - begin
    assert took < patient(seconds), f"{what} took {took:.2f} s, and may take {seconds:g} s on a quiet machine"


@contextlib.contextmanager
def cpu_at_most(seconds: float, what: str = "this") -> Iterator[None]:
    """What is computed inside must cost less than so many seconds of this thread: true on a busy machine, too."""
    begin = time.thread_time()
    yield
    took = time.thread_time() - begin
    assert took < seconds, f"{what} cost {took:.2f} s of CPU, and may cost {seconds:g} s"
