# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What one instance may take of its machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cae.matrix.plugins.module_utils.instance import limits

GOOD: dict[str, Any] = {
    "synapse_memory_high": "1536M",
    "synapse_memory_max": "2G",
    "synapse_cpu_quota": "150%",
    "synapse_cpu_weight": 200,
    "synapse_tasks_max": 512,
    "synapse_cache_max_memory": "1024M",
    "synapse_media_upload_limits": [
        {"time_period": "1d", "max_size": 500 * 2**20},
        {"time_period": "1w", "max_size": "2G"},
    ],
    "matrix_max_upload_size": "50M",
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
        {"synapse_media_upload_limits": []},
        {"synapse_media_upload_limits": [{"time_period": "1d", "max_size": "50M"}]},
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
        ("synapse_media_upload_limits", "500M", "a list of dicts"),
        ("synapse_media_upload_limits", {"time_period": "1d"}, "a list of dicts"),
        ("synapse_media_upload_limits", [{"time_period": "1d", "max_size": "500 MB"}], "such as 500M"),
        ("synapse_media_upload_limits", [{"time_period": "1d"}], "such as 500M"),
        ("synapse_media_upload_limits", [{"time_period": "daily", "max_size": "1G"}], "such as 1d"),
        ("synapse_media_upload_limits", [{"time_period": "1d", "max_size": "49M"}], "lower matrix_max_upload_size"),
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


@pytest.mark.parametrize(
    ("memory_mb", "instances", "expected"),
    [
        # What it was before it followed the memory, on machines as the documentation recommends them.
        (3920, 1, 1024),
        (7900, 2, 1024),
        (3920, 2, 512),
        (1950, 1, 512),
        (970, 1, 256),
        (480, 1, 256),
        (970, 8, 256),
        (24000, 4, 1024),
        # Up to the next power of two, another neighbour changes nothing.
        (16000, 5, 512),
        (16000, 8, 512),
    ],
)
def test_caches_follow_the_memory_and_the_instances(memory_mb: int, instances: int, expected: int) -> None:
    assert limits.cache_mb(memory_mb, instances) == expected


@pytest.mark.parametrize("memory_mb", [970, 1950, 3920, 7900, 15900, 31900])
@pytest.mark.parametrize("instances", [1, 2, 3, 4, 7, 8])
def test_what_is_given_by_default_fits_unless_it_is_the_least(memory_mb: int, instances: int) -> None:
    slugs = [f"i{number}" for number in range(instances)]
    machine = {"memory_mb": memory_mb, "expected": slugs, "memory_limits": {}, "postgresql": {"cluster": "15/main"}}
    cache = limits.cache_mb(memory_mb, instances)
    told = limits.overcommitted(machine, "i0", f"{2 * cache}M")
    assert told is None or cache == 256


def machine(**more: Any) -> dict[str, Any]:
    return {"memory_mb": 3920, "expected": ["atelier", "nord"], "memory_limits": {}, "postgresql": {}, **more}


def test_more_than_the_machine_has_is_told() -> None:
    told = limits.overcommitted(machine(memory_limits={"nord": 3 * 2**30}), "atelier", "2G")
    assert told
    for word in ("3920 MiB", "atelier, nord", "5120 MiB", "synapse_cache_max_memory", "machine_postgresql_memory_mb"):
        assert word in told
    # The instance's own value is the new one, and no limit counts as none.
    known = machine(memory_limits={"nord": 2**30, "atelier": 4 * 2**30})
    assert limits.overcommitted(known, "atelier", "2G") is None
    assert limits.overcommitted(known, "atelier", "") is None
    # PostgreSQL as it runs, or as it will.
    assert limits.overcommitted(known | {"postgresql": {"settings": {"shared_buffers": 2 * 2**30}}}, "atelier", "2G")
    assert limits.overcommitted(known | {"postgresql": {"cluster": "15/main"}}, "atelier", "2G")


def test_limits_of_others_are_read_from_their_slices(tmp_path: Path) -> None:
    (tmp_path / "matrix-atelier_nord.slice").write_text("[Slice]\nMemoryHigh=1G\nMemoryMax=2G\n")
    (tmp_path / "matrix-atelier.slice").write_text("[Slice]\nTasksMax=512\n")
    found = limits.slice_limits(["atelier-nord", "atelier", "partie"], tmp_path)
    assert found == {"atelier-nord": 2**31, "atelier": None}
