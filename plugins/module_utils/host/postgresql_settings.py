# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a cluster is sized, and what of that is written where others use it, too.

Pure functions, used by the filter C(postgresql_settings).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

MEMORY_STEP = 256
MIN_MEMORY = 512
# Changed in steps: another instance rarely means that PostgreSQL has to be started again.
MIN_CONNECTIONS = 200
CONNECTIONS_STEP = 100
# For superusers, dumps, the gate and the audit.
RESERVED_CONNECTIONS = 20
DEFAULT_POOL = 10
# Both need a restart, and both are worth one.
IMPORTANT = ("max_connections", "shared_buffers")
SIZE = re.compile(r"(\d+)\s*(B|kB|MB|GB|TB)?")
FACTORS = {"B": 1, "kB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40}
# What a number without a unit counts, of those that are compared.
UNITS = {"max_connections": 1, "shared_buffers": 8192, "effective_cache_size": 8192}
KILOBYTE = 1024


def rounded(memory_mb: int) -> int:
    """Rounded, so that a kernel update that changes the memory by some pages does not restart PostgreSQL.

    >>> rounded(3920)
    3840
    """
    return max(memory_mb // MEMORY_STEP * MEMORY_STEP, MIN_MEMORY)


def shared_buffers_mb(memory_mb: int) -> int:
    """A quarter of the memory.

    >>> shared_buffers_mb(3920)
    960
    """
    return min(rounded(memory_mb) // 4, 8192)


def needed_connections(pools: Iterable[int]) -> int:
    """What the pools of all instances may open, and some.

    >>> needed_connections([10, 10])
    40
    """
    return sum(pools) + RESERVED_CONNECTIONS


def default_connections(pools: Iterable[int]) -> int:
    """
    >>> default_connections([10] * 18), default_connections([10] * 19)
    (200, 300)
    """
    return max(MIN_CONNECTIONS, -(-needed_connections(pools) // CONNECTIONS_STEP) * CONNECTIONS_STEP)


def sized(memory_mb: int, connections: int) -> dict[str, Any]:
    """The settings of a cluster that is ours alone."""
    memory = rounded(memory_mb)
    return {
        "max_connections": connections,
        "shared_buffers": f"{shared_buffers_mb(memory_mb)}MB",
        "effective_cache_size": f"{memory // 2}MB",
        "work_mem": f"{min(max(memory // 512, 4), 32)}MB",
        "maintenance_work_mem": f"{min(max(memory // 16, 64), 1024)}MB",
        "wal_compression": "on",
        "random_page_cost": 1.1,
    }


def amount(name: str, value: object) -> int | None:
    """A value of a setting as a number that can be compared; None for what is none.

    >>> amount("shared_buffers", "2GB") == amount("shared_buffers", 262144)
    True
    """
    found = SIZE.fullmatch(str(value).strip())
    if found is None:
        return None
    return int(found[1]) * (FACTORS[found[2]] if found[2] else UNITS.get(name, KILOBYTE))


def shown(name: str, number: int) -> str:
    """A number as people write it.

    >>> shown("shared_buffers", 2 * 2**30), shown("max_connections", 400)
    ('2GB', '400')
    """
    if name == "max_connections":
        return str(number)
    for unit in ("GB", "MB", "kB"):
        if number >= FACTORS[unit] and number % FACTORS[unit] == 0:
            return f"{number // FACTORS[unit]}{unit}"
    return f"{number}B"


def plan(
    cluster: Mapping[str, Any],
    memory_mb: int,
    pools: Iterable[int],
    max_connections: int | None = None,
    declared: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """What our file of settings holds, and what is to be told.

    Where the cluster holds databases that are not ours, that is only what the inventory names itself and does not lower
    anything, besides what is in the file already.

    Args:
        cluster: the fact C(cae_matrix_machine.postgresql).
        memory_mb: what PostgreSQL may count on.
        pools: the most connections of each instance on the machine.
        max_connections: what the inventory says.
        declared: what the inventory says of other settings; it wins.
    """
    pools, declared = list(pools), dict(declared or {})
    wished = sized(memory_mb, max_connections or default_connections(pools)) | declared
    if cluster.get("ours", True):
        return wished, _too_few(wished, needed_connections(pools))
    if max_connections:
        declared = {"max_connections": max_connections} | declared
    present = cluster.get("settings", {})
    kept = {name for name in declared if _lower(name, declared[name], present)}
    written = {**cluster.get("written", {}), **{name: declared[name] for name in declared if name not in kept}}
    return written, _told(cluster, wished, declared, present)


def _lower(name: str, value: object, present: Mapping[str, int]) -> bool:
    number = amount(name, value)
    return name in present and number is not None and number < present[name]


def _too_few(wished: Mapping[str, Any], needed: int) -> list[str]:
    given = amount("max_connections", wished["max_connections"])
    if given is None or given >= needed:
        return []
    return [
        f"machine_postgresql_max_connections: {given} are fewer than the instances on this machine may open at once, "
        f"{needed} (postgresql_pool_max of each, and {RESERVED_CONNECTIONS}): raise it, or lower postgresql_pool_max."
    ]


def _told(
    cluster: Mapping[str, Any], wished: Mapping[str, Any], declared: Mapping[str, Any], present: Mapping[str, int]
) -> list[str]:
    """What is in force and what it would be, of a cluster that is not ours alone."""
    lines = []
    for name in dict.fromkeys([*IMPORTANT, *declared]):
        number = amount(name, wished[name])
        if name in present and number is not None and number != present[name]:
            lines.append(f"{name} is {shown(name, present[name])} (wanted: {shown(name, number)})")
    if not lines:
        return []
    return [
        f"PostgreSQL {cluster['cluster']} holds databases that are not of this collection "
        f"({', '.join(cluster.get('foreign', []))}): it is not restarted, and nothing is lowered. {'; '.join(lines)}. "
        "Set machine_postgresql_settings to the values that are right for all of them, and restart "
        f"{cluster['service']} yourself where they need it."
    ]
