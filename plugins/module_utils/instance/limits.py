# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What one instance may take of its machine, and what the instances of a machine may take together.

Pure functions, used by the filters C(cache_memory) and C(limit_problems).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.cae.matrix.plugins.module_utils.host.postgresql_settings import rounded, shared_buffers_mb

# In MiB. Few steps: a cache of another size restarts Synapse.
CACHE_STEPS = (1024, 768, 512, 384, 256)
# For the system and everything else, in MiB.
SYSTEM = 256

MEMORY = re.compile(r"([1-9][0-9]*)([KMG])")
PERCENT = re.compile(r"[1-9][0-9]*%")
NUMBER = re.compile(r"[1-9][0-9]*")
PERIOD = re.compile(r"[1-9][0-9]*[smhdwy]?")
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


def cache_mb(memory_mb: int, instances: int) -> int:
    """Memory in MiB above which an instance empties its caches: twice that, which it may take at most, fits into the
    machine for each instance, beside PostgreSQL. Never less than a Synapse can live with.

    The number of instances counts as the next power of two.

    >>> cache_mb(3920, 1), cache_mb(3920, 2), cache_mb(970, 1), cache_mb(24000, 4)
    (1024, 512, 256, 1024)
    """
    share = (rounded(memory_mb) - shared_buffers_mb(memory_mb) - SYSTEM) // (2 << (max(instances, 1) - 1).bit_length())
    return next((step for step in CACHE_STEPS if step <= share), CACHE_STEPS[-1])


def slice_limits(slugs: Iterable[str], units: Path) -> dict[str, int | None]:
    """What the instances on a machine may take, in bytes, as their slices say; None for no limit."""
    limits: dict[str, int | None] = {}
    for name in slugs:
        try:
            text = (units / f"matrix-{name.replace('-', '_')}.slice").read_text(encoding="utf-8")
        except OSError:
            continue
        given = re.search(r"^MemoryMax=(\S+)$", text, re.MULTILINE)
        limits[name] = memory(given[1]) if given else None
    return limits


def overcommitted(machine: Mapping[str, Any], instance: str, own: object) -> str | None:
    """A warning when what the instances of a machine may take together, and PostgreSQL's buffers, exceed its memory.

    Args:
        machine: the fact C(cae_matrix_machine).
        instance: the instance whose limit C(own) is.
        own: its C(synapse_memory_max).
    """
    limits = {**machine.get("memory_limits", {}), instance: memory(own)}
    default = 2 * cache_mb(machine["memory_mb"], len(machine["expected"])) * UNITS["M"]
    limits = {name: default for name in machine["expected"]} | limits
    taken = sum(limit for limit in limits.values() if limit) // UNITS["M"]
    cluster = machine.get("postgresql") or {}
    buffers = 0
    if cluster:
        buffers = cluster.get("settings", {}).get("shared_buffers", 0) // UNITS["M"]
        buffers = buffers or shared_buffers_mb(machine["memory_mb"])
    if taken + buffers <= machine["memory_mb"]:
        return None
    return (
        f"This machine has {machine['memory_mb']} MiB of memory; its {len(limits)} instance(s) "
        f"({', '.join(sorted(limits))}) may take {taken} MiB (synapse_memory_max), and PostgreSQL's shared_buffers are "
        f"{buffers} MiB: lower synapse_cache_max_memory or machine_postgresql_memory_mb, or give it more memory."
    )


def problems(given: Mapping[str, Any]) -> list[str]:
    """Everything wrong with the limits of an instance, each naming the variable and the mend.

    Args:
        given: the values of C(synapse_memory_high), C(synapse_memory_max), C(synapse_cpu_quota), C(synapse_cpu_weight),
            C(synapse_tasks_max) and C(synapse_cache_max_memory), by their names, empty for no limit; and of
            C(synapse_media_upload_limits) and C(matrix_max_upload_size).

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
    uploads = given.get("synapse_media_upload_limits") or []
    return found + _upload_problems(uploads, given.get("matrix_max_upload_size"))


def _upload_problems(limits: object, largest: object) -> list[str]:
    name = "synapse_media_upload_limits"
    if not isinstance(limits, list) or not all(isinstance(limit, Mapping) for limit in limits):
        return [f"{name}: a list of dicts is needed, such as [{{time_period: 1d, max_size: 500M}}], or [] for no limit"]
    found = []
    for limit in limits:
        size, period = limit.get("max_size"), limit.get("time_period")
        most = size if isinstance(size, int) and not isinstance(size, bool) else memory(size)
        if most is None:
            found.append(f'{name}: "{size}" is no max_size; a whole number and K, M or G, such as 500M')
        elif most < (memory(largest) or 0):
            found.append(
                f"{name}: {size} is less than one file may have (matrix_max_upload_size, {largest}), which nobody "
                "could send; raise it, or lower matrix_max_upload_size"
            )
        if not PERIOD.fullmatch(str(period)):
            found.append(f'{name}: "{period}" is no time_period; a whole number and h, d or w, such as 1d')
    return found
