# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What one instance may take of its machine.

Pure functions, used by the filter C(limit_problems).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MEMORY = re.compile(r"([1-9][0-9]*)([KMG])")
PERCENT = re.compile(r"[1-9][0-9]*%")
NUMBER = re.compile(r"[1-9][0-9]*")
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}
# Weights as systemd has them.
MAX_WEIGHT = 10000
# Synapse's own threads, those of its database pool, and of jemalloc.
MIN_TASKS = 64


def memory(value: object) -> int | None:
    """Bytes of a size such as 768M; None for what is no size.

    >>> memory("2G") == 2 * 2**30
    True
    """
    found = MEMORY.fullmatch(str(value))
    return int(found[1]) * UNITS[found[2]] if found else None


def problems(given: Mapping[str, Any]) -> list[str]:
    """Everything wrong with the limits of an instance, each naming the variable and the mend.

    Args:
        given: the values of C(synapse_memory_high), C(synapse_memory_max), C(synapse_cpu_quota), C(synapse_cpu_weight),
            C(synapse_tasks_max) and C(synapse_cache_max_memory), by their names; empty for no limit.

    >>> problems({"synapse_memory_max": "2 GB"})
    ['synapse_memory_max: "2 GB" is no size; a whole number and K, M or G, such as 2G, or "" for none']
    """
    found: list[str] = []
    values = {name: str(value) for name, value in given.items() if value is not None and str(value)}

    sizes: dict[str, int] = {}
    for name in ("synapse_memory_high", "synapse_memory_max", "synapse_cache_max_memory"):
        size = memory(values.get(name, ""))
        if size is not None:
            sizes[name] = size
        elif name in values and name != "synapse_cache_max_memory":
            found.append(
                f'{name}: "{values[name]}" is no size; a whole number and K, M or G, such as 2G, or "" for none'
            )

    high, most = sizes.get("synapse_memory_high"), sizes.get("synapse_memory_max")
    if high is not None and most is not None and high > most:
        found.append(
            f"synapse_memory_high: {values['synapse_memory_high']} is more than synapse_memory_max, "
            f"{values['synapse_memory_max']}: Synapse would be ended before it is slowed down; lower it"
        )
    caches = sizes.get("synapse_cache_max_memory")
    for name in ("synapse_memory_high", "synapse_memory_max"):
        if caches is not None and name in sizes and sizes[name] <= caches:
            found.append(
                f"{name}: {values[name]} is not more than synapse_cache_max_memory, "
                f"{values['synapse_cache_max_memory']}: caches would fill the whole of it before any is emptied; "
                "raise it, or lower synapse_cache_max_memory and synapse_cache_target_memory"
            )

    quota = values.get("synapse_cpu_quota", "")
    if quota and not PERCENT.fullmatch(quota):
        found.append(
            f'synapse_cpu_quota: "{quota}" is no share of a core; a whole number and %, such as 150% for one core and '
            'a half, or "" for none'
        )
    weight = values.get("synapse_cpu_weight", "")
    if weight and not (NUMBER.fullmatch(weight) and int(weight) <= MAX_WEIGHT):
        found.append(
            f'synapse_cpu_weight: "{weight}" is no weight; a whole number from 1 to {MAX_WEIGHT}, or "" for '
            "systemd's own 100"
        )
    tasks = values.get("synapse_tasks_max", "")
    if tasks and not (NUMBER.fullmatch(tasks) and int(tasks) >= MIN_TASKS):
        found.append(
            f'synapse_tasks_max: "{tasks}" is no number of threads that Synapse could run with; a whole number, '
            f'{MIN_TASKS} or more, or "" for none'
        )
    return found
