# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What one instance may take of its machine."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.cae.matrix.plugins.module_utils import limits

GOOD: dict[str, Any] = {
    "synapse_memory_high": "1536M",
    "synapse_memory_max": "2G",
    "synapse_cpu_quota": "150%",
    "synapse_cpu_weight": 200,
    "synapse_tasks_max": 512,
    "synapse_cache_max_memory": "1024M",
}


@pytest.mark.parametrize(
    "changed",
    [
        {},
        dict.fromkeys(GOOD, ""),
        {"synapse_memory_max": "1025M", "synapse_memory_high": ""},
        {"synapse_cpu_weight": "10000", "synapse_tasks_max": "64"},
        # Synapse itself judges what it reads.
        {"synapse_cache_max_memory": "lots"},
    ],
)
def test_what_systemd_and_synapse_can_live_with_passes(changed: dict[str, Any]) -> None:
    assert limits.problems(GOOD | changed) == []


@pytest.mark.parametrize(
    ("name", "value", "mend"),
    [
        ("synapse_memory_high", "2 GB", "such as 2G"),
        ("synapse_memory_max", "0", "such as 2G"),
        ("synapse_memory_max", 2048, "such as 2G"),
        ("synapse_memory_max", "infinity", '"" for none'),
        ("synapse_memory_high", "3G", "lower it"),
        ("synapse_memory_high", "1G", "raise it"),
        ("synapse_cpu_quota", "1.5", "150%"),
        ("synapse_cpu_quota", 150, "150%"),
        ("synapse_cpu_quota", "0%", "150%"),
        ("synapse_cpu_weight", 0, "1 to 10000"),
        ("synapse_cpu_weight", 10001, "1 to 10000"),
        ("synapse_cpu_weight", "idle", "1 to 10000"),
        ("synapse_tasks_max", 63, "64 or more"),
        ("synapse_tasks_max", "10%", "64 or more"),
    ],
)
def test_everything_else_is_refused_by_name(name: str, value: Any, mend: str) -> None:
    found = limits.problems(GOOD | {name: value})
    assert len(found) == 1
    assert found[0].startswith(f"{name}: ")
    assert mend in found[0]


def test_caches_larger_than_the_limits_are_refused_for_both() -> None:
    found = limits.problems(GOOD | {"synapse_cache_max_memory": "4G"})
    assert [text.split(":")[0] for text in found] == ["synapse_memory_high", "synapse_memory_max"]


@pytest.mark.parametrize(
    ("text", "size"), [("1K", 1024), ("768M", 768 * 2**20), ("2G", 2**31), ("2g", None), ("", None)]
)
def test_sizes(text: str, size: int | None) -> None:
    assert limits.memory(text) == size
