# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a cluster is sized, and that one that others use is neither shrunk nor restarted."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.cae.matrix.plugins.module_utils.host.postgresql_settings import amount, plan, sized

GB = 2**30
OURS: dict[str, Any] = {"cluster": "15/main", "service": "postgresql@15-main.service", "ours": True, "settings": {}}
SHARED: dict[str, Any] = OURS | {
    "ours": False,
    "foreign": ["paie"],
    "settings": {"max_connections": 400, "shared_buffers": 2 * GB, "work_mem": 4 * 2**20},
    "written": {},
}


def test_what_is_ours_is_sized() -> None:
    settings, told = plan(OURS, 1024, [10])
    assert told == []
    assert settings == {
        "effective_cache_size": "512MB",
        "maintenance_work_mem": "64MB",
        "max_connections": 200,
        "random_page_cost": 1.1,
        "shared_buffers": "256MB",
        "wal_compression": "on",
        "work_mem": "4MB",
    }


@pytest.mark.parametrize(
    ("memory_mb", "shared_buffers"),
    [(256, "128MB"), (970, "192MB"), (1023, "192MB"), (3920, "960MB"), (64000, "8192MB")],
)
def test_sizes_follow_the_memory(memory_mb: int, shared_buffers: str) -> None:
    assert sized(memory_mb, 200)["shared_buffers"] == shared_buffers


@pytest.mark.parametrize(("instances", "expected"), [(1, 200), (18, 200), (19, 300), (40, 500)])
def test_connections_follow_what_the_instances_may_open(instances: int, expected: int) -> None:
    settings, told = plan(OURS, 1024, [10] * instances)
    assert (settings["max_connections"], told) == (expected, [])


def test_too_few_connections_are_told() -> None:
    settings, told = plan(OURS, 1024, [50, 50], max_connections=100)
    assert settings["max_connections"] == 100
    assert len(told) == 1
    for word in ("machine_postgresql_max_connections: 100", "120", "postgresql_pool_max"):
        assert word in told[0]
    assert plan(OURS, 1024, [50, 50], max_connections=120)[1] == []
    assert plan(OURS, 1024, [50], declared={"max_connections": 60})[1]


def test_what_the_inventory_names_wins_in_a_cluster_of_ours() -> None:
    settings, _ = plan(OURS, 1024, [10], declared={"shared_buffers": "1GB", "log_statement": "ddl"})
    assert (settings["shared_buffers"], settings["log_statement"]) == ("1GB", "ddl")


def test_nothing_is_written_into_a_cluster_that_others_use() -> None:
    settings, told = plan(SHARED, 1024, [10])
    assert settings == {}
    assert len(told) == 1
    for word in ("max_connections is 400 (wanted: 200)", "shared_buffers is 2GB (wanted: 256MB)", "paie"):
        assert word in told[0]
    assert "machine_postgresql_settings" in told[0]
    assert "postgresql@15-main.service" in told[0]


def test_what_is_in_force_as_declared_is_not_told() -> None:
    declared = {"max_connections": 400, "shared_buffers": "2GB"}
    assert plan(SHARED, 1024, [10], declared=declared) == (declared, [])


def test_what_the_inventory_names_is_raised_and_never_lowered() -> None:
    declared = {"max_connections": 500, "shared_buffers": "1GB", "work_mem": 2048, "log_statement": "ddl"}
    settings, told = plan(SHARED, 1024, [10], declared=declared)
    assert settings == {"max_connections": 500, "log_statement": "ddl"}
    for word in (
        "max_connections is 400 (wanted: 500)",
        "shared_buffers is 2GB (wanted: 1GB)",
        "work_mem is 4MB (wanted: 2MB)",
    ):
        assert word in told[0]
    assert plan(SHARED, 1024, [10], max_connections=150)[0] == {}
    assert plan(SHARED, 1024, [10], max_connections=450)[0] == {"max_connections": 450}


def test_a_cluster_that_was_ours_keeps_what_was_written() -> None:
    """Also what another memory would change, and what the inventory does not name any more."""
    written = {"max_connections": "200", "shared_buffers": "960MB", "log_statement": "ddl"}
    present = {"max_connections": 200, "shared_buffers": 960 * 2**20}
    settings, told = plan(SHARED | {"written": written, "settings": present}, 512, [10])
    assert settings == written
    assert "shared_buffers is 960MB (wanted: 128MB)" in told[0]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("shared_buffers", "1GB", GB),
        ("shared_buffers", 131072, GB),
        ("work_mem", "4096", 4 * 2**20),
        ("max_connections", 100, 100),
        ("log_statement", "ddl", None),
        ("work_mem", "4 MB", 4 * 2**20),
    ],
)
def test_values_are_compared_as_numbers(name: str, value: object, expected: int | None) -> None:
    assert amount(name, value) == expected
