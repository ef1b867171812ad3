# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which cluster of the machine an instance uses, and why it cannot be that one.

Pure functions. The cluster is, in this order: the one recorded in the instance's owner marker, the one that
C(postgresql_cluster) names, the one that holds the instance's database, the one that the machine's other instances use,
the only one there is, the one that Debian's package will create.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.cae.matrix.plugins.module_utils.host.machine_postgresql import (
    CONFROOT,
    DEFAULT_PORT,
    GROUP,
    OWNER,
    Cluster,
    facts,
    hindrance,
)
from ansible_collections.cae.matrix.plugins.module_utils.host.postgresql_settings import DEFAULT_POOL

CLUSTER = re.compile(r"([0-9]+(?:\.[0-9]+)?)/([-.\w]+)")


class ChoiceError(Exception):
    """No cluster can be used; the message names the cause, the variable or command, and the fix."""


class GoneError(ChoiceError):
    """The instance's cluster is not there any more, and neither is its database."""


def database_of(slug: str) -> str:
    """The database and role of an instance, as role C(matrix) derives it.

    >>> database_of("atelier-nord")
    'matrix_atelier_nord'
    """
    return "matrix_" + slug.replace("-", "_")


@dataclass(frozen=True)
class Claim:
    """Who asks: the instance, what the inventory says, and the owner markers of the machine by slug."""

    instance: str
    wanted: str
    # Debian's own version of PostgreSQL.
    version: str
    markers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    # Why the package would bring no cluster.
    hindrance: Callable[[str, Sequence[Cluster]], str] = hindrance

    @property
    def known(self) -> bool:
        """Whether the machine has this instance already."""
        return self.instance in self.markers

    @property
    def recorded(self) -> str:
        """The cluster that the instance's marker names."""
        return str(self.markers.get(self.instance, {}).get("postgresql_cluster", ""))

    @property
    def database(self) -> str:
        """The instance's database and role."""
        return database_of(self.instance)


def choose(claim: Claim, found: Sequence[Cluster]) -> Cluster:
    """The cluster of the instance; it may still be one that cannot be used (C(problem)).

    Raises:
        ChoiceError: there is none, or nothing says which.
    """
    by_id = {cluster.id: cluster for cluster in found}
    if claim.wanted and not CLUSTER.fullmatch(claim.wanted):
        raise ChoiceError(
            f'postgresql_cluster: "{claim.wanted}" is no cluster; VERSION/NAME as pg_lsclusters lists them, such as '
            f'"{claim.version}/main"'
        )
    if claim.wanted:
        return _wanted(claim, by_id)
    if claim.recorded in by_id:
        return by_id[claim.recorded]
    if claim.known and (holders := [cluster for cluster in found if claim.database in cluster.databases]):
        # Before clusters were recorded, it was the one on the default port.
        preferred = [cluster for cluster in holders if cluster.port == DEFAULT_PORT] or holders
        return _only(claim, preferred, f"several clusters hold a database {claim.database}")
    if claim.recorded:
        raise GoneError(
            f"The cluster {claim.recorded}, recorded for this instance, is gone, and no other holds its database "
            f"{claim.database}. {_listing(found)}: restore the database into one of them, and set postgresql_cluster "
            "to it."
        )
    used = {claim.markers[slug].get("postgresql_cluster") for slug in claim.markers}
    used |= {cluster.id for cluster in found for slug in claim.markers if database_of(slug) in cluster.databases}
    if neighbours := [cluster for cluster in found if cluster.id in used]:
        return _only(claim, neighbours, "other instances use several clusters")
    candidates = [cluster for cluster in found if cluster.binaries and (cluster.running or cluster.start == "auto")]
    if candidates:
        return _only(claim, candidates, "there are several PostgreSQL clusters on this machine")
    return _created(claim, f"{claim.version}/main", found)


def _wanted(claim: Claim, by_id: Mapping[str, Cluster]) -> Cluster:
    """The cluster that the inventory names, unless the instance's database is in another."""
    here = by_id.get(claim.wanted)
    before = by_id.get(claim.recorded)
    holds = here is not None and claim.database in here.databases
    others = [other for other in by_id.values() if other.id != claim.wanted and claim.database in other.databases]
    stopped = before is not None and before.id != claim.wanted and not before.running
    if claim.known and not holds and (others or stopped):
        place = others[0].id if others else claim.recorded
        raise ChoiceError(
            f"postgresql_cluster: {claim.wanted}, but the database {claim.database} of this instance is in {place}: "
            f"set postgresql_cluster to {place}, or move the database first (stop the service, pg_dump, pg_restore, "
            "drop it there)."
        )
    return here or _created(claim, claim.wanted, list(by_id.values()))


def _created(claim: Claim, wanted: str, found: Sequence[Cluster]) -> Cluster:
    """The cluster that comes with Debian's package, if it comes."""
    cause = f"Debian's package creates {claim.version}/main only"
    if wanted == f"{claim.version}/main":
        cause = claim.hindrance(claim.version, found)
        if not cause:
            cluster = Cluster(claim.version, "main", port=0, present=False)
            cluster.settle(CONFROOT)
            return cluster
    version, name = wanted.split("/")
    raise ChoiceError(
        f"There is no PostgreSQL cluster {wanted} on this machine, and {cause}. {_listing(found)}: create it "
        f"(pg_createcluster {version} {name} --start), or set postgresql_cluster to one that there is, or "
        "postgresql_host to a server that postgresql-common does not manage."
    )


def _only(claim: Claim, clusters: Sequence[Cluster], cause: str) -> Cluster:
    if len(clusters) == 1:
        return clusters[0]
    raise ChoiceError(
        f"It is not clear which PostgreSQL cluster {claim.instance} is to use: {cause}. {_listing(clusters)}: set "
        f'postgresql_cluster to one of them, such as "{clusters[0].id}".'
    )


def _listing(found: Sequence[Cluster]) -> str:
    if not found:
        return "pg_lsclusters lists none"
    listed = (f"{one.id} on port {one.port}{'' if one.running else ', stopped'}" for one in found)
    return f"pg_lsclusters lists {'; '.join(listed)}"


def foreign(cluster: Cluster, slugs: Sequence[str]) -> list[str]:
    """What is in the cluster and not ours: databases of no instance that has a marker on the machine."""
    own = {database_of(slug) for slug in slugs}
    found = [name for name in sorted(cluster.databases) if name not in own]
    return found + (["postgres (it has tables)"] if cluster.tables else [])


def problem(claim: Claim, cluster: Cluster) -> str | None:
    """Why the chosen cluster cannot be used, with the fix, or None."""
    if not cluster.present:
        return None
    command = f"pg_ctlcluster {cluster.version} {cluster.name}"
    start_conf = f"/etc/postgresql/{cluster.id}/start.conf"
    choose_another = "or set postgresql_cluster to another"
    if not cluster.binaries:
        return (
            f"PostgreSQL {cluster.version} of the cluster {cluster.id} is not installed: install it, {choose_another}."
        )
    if cluster.owner != OWNER:
        return (
            f"The cluster {cluster.id} belongs to the system user {cluster.owner}; instances use clusters of {OWNER}: "
            "set postgresql_cluster to one of those (pg_lsclusters)."
        )
    if cluster.recovery:
        return (
            f"The cluster {cluster.id} is a standby, which nothing can be written to: set postgresql_cluster to "
            "another, or postgresql_host to its primary."
        )
    if not cluster.running and cluster.start != "auto":
        return (
            f"The cluster {cluster.id} is stopped, and {start_conf} says {cluster.start}: write auto into it and start "
            f"it ({command} start), {choose_another}."
        )
    if not cluster.running and not claim.known:
        return f"The cluster {cluster.id} is stopped: start it ({command} start), {choose_another}."
    if cluster.error:
        return (
            f"The cluster {cluster.id} on port {cluster.port} runs and cannot be asked as {OWNER} over its socket: "
            f"{cluster.error}: pg_hba.conf needs the line `local all postgres peer`; {choose_another}."
        )
    return _taken(claim, cluster)


def _taken(claim: Claim, cluster: Cluster) -> str | None:
    """What has one of our names and was not made by us."""
    name, marker = claim.database, f"/etc/matrix/{claim.instance}/instance.json"
    database, role = name in cluster.databases, name in cluster.roles
    # Markers of before name no cluster; then it is ours if it is as we make it.
    ours = cluster.databases.get(name) == name and name in cluster.group_members
    if (database or role) and not claim.known:
        held = " and ".join(what for what, there in (("a database", database), ("a role", role)) if there)
        return (
            f"The cluster {cluster.id} has {held} {name} already, and no owner marker ({marker}) says that this "
            "instance made it: give the instance another matrix_instance, rename what is there, or put the marker back "
            "if the instance lived here."
        )
    if database and claim.recorded != cluster.id and not ours:
        return (
            f"The database {name} in the cluster {cluster.id} belongs to {cluster.databases[name]} and was not made by "
            f"this collection: rename it, or make it the instance's (ALTER DATABASE {name} OWNER TO {name}; "
            f"GRANT {GROUP} TO {name})."
        )
    strangers = [member for member in cluster.group_members if not member.startswith("matrix_")]
    group = cluster.roles.get(GROUP, {})
    if strangers or group.get("login") or group.get("powerful"):
        why = f"has the members {', '.join(strangers)}" if strangers else "can log in or has rights of its own"
        return (
            f"The role {GROUP} of the cluster {cluster.id}, the group of the instances' roles, is somebody else's: it "
            f"{why}. Rename it (ALTER ROLE {GROUP} RENAME TO …), or set postgresql_cluster to another cluster."
        )
    return None


def look(
    claim: Claim, found: Sequence[Cluster], expected: Iterable[str] = (), absent: bool = False
) -> tuple[dict[str, Any], str]:
    """The fact C(cae_matrix_machine.postgresql), and why the cluster cannot be used, or nothing.

    Args:
        claim: who asks.
        found: the clusters of the machine.
        expected: the slugs of the instances that are or will be on the machine.
        absent: whether the instance is about to be removed: a cluster that is gone is no hindrance then.
    """
    try:
        cluster = choose(claim, found)
    except GoneError as error:
        return {}, "" if absent else str(error)
    except ChoiceError as error:
        return {}, "" if absent and not claim.known else str(error)
    strange = foreign(cluster, list(claim.markers))
    told = cluster.running and not cluster.error
    known = facts(cluster) | {
        "foreign": strange,
        "ours": not strange and (told or not cluster.present),
        "pools": _pools(claim, cluster, expected),
    }
    return known, "" if absent else problem(claim, cluster) or ""


def _pools(claim: Claim, cluster: Cluster, expected: Iterable[str]) -> dict[str, int]:
    """The most connections of the other instances in the cluster; of those that are not there yet, the default."""
    pools = {}
    for slug in {*expected, *claim.markers} - {claim.instance}:
        marker = claim.markers.get(slug, {})
        if marker.get("postgresql_cluster", cluster.id) == cluster.id:
            pools[slug] = int(marker.get("postgresql_pool_max", DEFAULT_POOL))
    return dict(sorted(pools.items()))
