# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What docs/en/profiles.md says of an outage: the real Synapse with the shipped settings, and with its own."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.cae.matrix.tests.unit.homeserver import ROOT, Homeserver

DEFAULTS = yaml.safe_load((ROOT / "roles/synapse/defaults/main.yml").read_text(encoding="utf-8"))
SHIPPED: dict[str, Any] = DEFAULTS["synapse_federation_retries"]
MINUTE, DAY = 60, 24 * 3600
OUTAGE, PROMISED = 15 * MINUTE, 120


def tried(python: str, directory: Path, settings: dict[str, Any]) -> dict[str, Any]:
    extra = {"federation": settings, "modules": [{"module": "federation_retries.Retries"}]}
    server = Homeserver(python, directory, extra)
    try:
        status, answer = server.request("GET", "/_synapse/client/retries")
    finally:
        server.stop()
    assert status == 200, server.log[-3000:]
    return answer


@pytest.fixture(scope="module")
def shipped(python: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return tried(python, tmp_path_factory.mktemp("shipped"), SHIPPED)


def test_a_message_is_still_being_tried_when_an_outage_ends(shipped: dict[str, Any]) -> None:
    for pauses in shipped["pauses"]:
        assert len(pauses) == 26
        assert sum(pauses) > OUTAGE
        # Whenever the outage ends, the next attempt is not far; what then has to be sent has the rest of the time.
        assert max(pauses) <= 63 < PROMISED - 30


def test_a_server_that_failed_once_is_not_kept_away_from_for_long(shipped: dict[str, Any]) -> None:
    intervals = shipped["intervals"]
    assert intervals[0] == 30
    assert all(after <= max(before * 1.5 * 1.4, DAY) for before, after in pairwise(intervals))
    assert sum(1 for interval in intervals if interval <= PROMISED) >= 2


def test_a_server_that_is_gone_for_good_costs_one_series_a_day(shipped: dict[str, Any]) -> None:
    assert shipped["intervals"][-1] == DAY
    spent, attempts = 0.0, 0
    for pauses, interval in zip(shipped["pauses"], shipped["intervals"], strict=True):
        if spent < DAY:
            attempts += len(pauses) + 1
        spent += sum(pauses) + interval
    assert attempts < 600


def test_with_synapses_own_settings_it_gives_up_during_the_outage(python: str, tmp_path: Path) -> None:
    found = tried(python, tmp_path, {})
    assert all(sum(pauses) < OUTAGE for pauses in found["pauses"])
    assert found["intervals"][0] == 10 * MINUTE
    assert max(found["intervals"]) > DAY
