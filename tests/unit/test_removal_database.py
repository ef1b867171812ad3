# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A removal drops what is the instance's own in the instance's own cluster, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.cae.matrix.plugins.module_utils.instance.removal import Database, Names, RemovalError
from ansible_collections.cae.matrix.tests.unit.ports import free_port
from ansible_collections.cae.matrix.tests.unit.services import DebianClusters, debian_clusters

NAMES = "SELECT datname FROM pg_database UNION SELECT rolname FROM pg_roles"


@pytest.fixture(scope="module")
def made() -> Iterator[DebianClusters]:
    with debian_clusters() as found, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PG_CLUSTER_CONF_ROOT", str(found.confroot))
        yield found


def names(root: Path, slug: str, cluster: str) -> Names:
    return Names(
        instance=slug,
        domain=f"{slug}.test",
        user=f"matrix-{slug}",
        service=f"matrix-synapse@{slug}.service",
        slice=f"matrix-{slug}.slice",
        site=f"matrix-{slug}",
        database=f"matrix_{slug}",
        config_dir=root / "etc",
        data_dir=root / "lib",
        backup_dir=root / "backups",
        cluster=cluster,
    )


def test_the_others_stay(made: DebianClusters, tmp_path: Path) -> None:
    """Another cluster has a database of the same name, and the machine's default port is nobody's business."""
    own, other = free_port(), free_port()
    cluster = made.create(own)
    made.create(other)
    for port in (own, other):
        made.sql(
            port, "CREATE ROLE matrix_un LOGIN", "CREATE DATABASE matrix_un OWNER matrix_un", "CREATE DATABASE paie"
        )
    made.sql(own, "CREATE ROLE matrix_deux LOGIN", "CREATE DATABASE matrix_deux")
    database = Database(names(tmp_path, "un", cluster))
    assert database.has_data()
    database.dump(tmp_path / "database.dump")
    database.drop()
    assert not database.there()
    assert {"paie", "matrix_deux"} <= set(made.sql(own, NAMES).split())
    assert "matrix_un" not in made.sql(own, NAMES).split()
    assert "matrix_un" in made.sql(other, NAMES).split()

    # A database that belongs to somebody else is theirs; the role is ours.
    database = Database(names(tmp_path, "deux", cluster))
    assert (database.there(), database.has_data()) == (True, False)
    database.drop()
    assert "matrix_deux" in made.sql(own, "SELECT datname FROM pg_database").split()
    assert "matrix_deux" not in made.sql(own, "SELECT rolname FROM pg_roles").split()

    # No cluster any more: no other is asked.
    assert not Database(names(tmp_path, "un", "")).there()


def test_one_that_is_stopped_is_named(made: DebianClusters, tmp_path: Path) -> None:
    cluster = made.create(free_port(), False)
    with pytest.raises(RemovalError, match="pg_ctlcluster"):
        Database(names(tmp_path, "un", cluster)).there()
