# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a removal looks at, keeps and refuses, without a machine. With one: molecule/neighbours."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cae.matrix.plugins.module_utils.instance import removal
from ansible_collections.cae.matrix.plugins.module_utils.instance.removal import Names, Removal, RemovalError
from ansible_collections.cae.matrix.plugins.modules.instance_removal import refusal


def names(root: Path, instance: str = "atelier") -> Names:
    underscored = instance.replace("-", "_")
    return Names(
        instance=instance,
        domain=f"{instance}.test",
        user=f"matrix-{instance}",
        service=f"matrix-synapse@{instance}.service",
        slice=f"matrix-{underscored}.slice",
        site=f"matrix-{instance}",
        database=f"matrix_{underscored}",
        config_dir=root / "etc/matrix" / instance,
        data_dir=root / "var/lib/matrix" / instance,
        backup_dir=root / "var/backups/matrix" / instance,
        root=root,
    )


def put(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Two instances, one's name being the beginning of the other's."""
    for slug in ("atelier", "atelier-nord"):
        put(tmp_path / "etc/matrix" / slug / "instance.json", "{}")
        put(tmp_path / "etc/matrix" / slug / "synapse/homeserver.yaml")
        put(tmp_path / "var/lib/matrix" / slug / "media/a", "12345")
        put(tmp_path / f"etc/nginx/sites-available/matrix-{slug}.conf")
        put(tmp_path / f"etc/systemd/system/matrix-{slug.replace('-', '_')}.slice")
        put(tmp_path / f"etc/systemd/system/matrix-synapse@{slug}.service.d/slice.conf")
        put(tmp_path / f"etc/systemd/system/matrix-directory@{slug}.timer")
        put(tmp_path / f"etc/systemd/system/multi-user.target.wants/matrix-synapse@{slug}.service")
        put(tmp_path / f"var/log/nginx/matrix-{slug}.access.log")
        put(tmp_path / f"usr/local/share/ca-certificates/matrix-{slug}-federation.crt")
    put(tmp_path / "etc/systemd/system/matrix-synapse@.service")
    return tmp_path


@pytest.mark.parametrize("slug", ["atelier", "atelier-nord"])
def test_only_what_is_the_instances_own_is_found(machine: Path, slug: str) -> None:
    found = Removal(names(machine, slug))
    underscored = slug.replace("-", "_")
    assert [path.name for path in found._cas()] == [f"matrix-{slug}-federation.crt"]
    assert [path.name for path in found._leftovers()] == [f"matrix-{slug}.access.log"]
    assert sorted(path.name for path in found._unit_files()) == sorted(
        [
            f"matrix-{underscored}.slice",
            f"matrix-directory@{slug}.timer",
            f"matrix-synapse@{slug}.service",
            f"matrix-synapse@{slug}.service.d",
        ]
    )
    assert [path.name for path in found._configuration()] == ["synapse"]


def test_nothing_to_remove_is_left_at_that(tmp_path: Path) -> None:
    assert not Removal(names(tmp_path)).there()


@pytest.mark.parametrize(
    "trace",
    ["etc/matrix/atelier/log.yaml", "var/lib/matrix/atelier/a", "etc/nginx/sites-available/matrix-atelier.conf"],
)
def test_what_has_no_owner_is_not_removed(tmp_path: Path, trace: str) -> None:
    put(tmp_path / trace)
    with pytest.raises(RemovalError, match="no owner marker"):
        Removal(names(tmp_path)).there()


def test_a_removal_that_was_begun_goes_on_in_the_same_archive(machine: Path) -> None:
    first = Removal(names(machine))
    first._begin({"people": 3})
    second = Removal(names(machine))
    assert (second.archive, second.begun, second.losses()) == (first.archive, True, {"people": 3})
    second._finish()
    assert not Removal(names(machine)).begun
    assert json.loads((first.archive / "removal.json").read_text())["finished"]
    assert (first.archive / "removal.json").stat().st_mode & 0o777 == 0o600


def test_losses_without_a_database_are_still_told(machine: Path) -> None:
    put(machine / "etc/matrix/atelier/secrets/signing.key", "ed25519 a_test c2VjcmV0\n")
    lost = Removal(names(machine)).losses()
    assert lost["media_bytes"] == 5
    assert lost["signing_key"] == "ed25519:a_test"
    told = refusal(names(machine), removal.report(names(machine), lost), "autre.test")
    assert "set matrix_removal_confirmed to atelier.test" in told
    assert '"autre.test"' in told
    assert "c2VjcmV0" not in told


def test_a_full_disk_is_seen_before_anything_changes(machine: Path) -> None:
    found = Removal(names(machine))
    assert found.lacks({"database_bytes": 1}) == ""
    assert "make room there" in found.lacks({"database_bytes": 2**60})
    assert not found.archive.exists()


@pytest.mark.parametrize("move", [removal.move, removal.copy_across])
def test_a_tree_is_moved_whole(tmp_path: Path, move: Callable[[Path, Path], None]) -> None:
    source, target = tmp_path / "data", tmp_path / "kept/data"
    put(source / "media/a", "written by a person")
    (source / "link").symlink_to("media/a")
    # What an interrupted copy has left.
    put(tmp_path / "kept/data.part/media/b", "written")
    move(source, target)
    assert not source.exists()
    assert sorted(path.name for path in target.rglob("*")) == ["a", "link", "media"]
    assert (target / "media/a").read_text() == "written by a person"
    assert os.readlink(target / "link") == "media/a"


def test_what_is_kept_is_never_written_over(tmp_path: Path) -> None:
    for text in ("first", "second"):
        removal.move(put(tmp_path / "proxy", text), tmp_path / "kept/proxy")
    assert [(tmp_path / "kept" / name).read_text() for name in ("proxy", "proxy.2")] == ["first", "second"]


@pytest.mark.parametrize(
    ("lost", "lines"),
    [
        ({}, ["media and data: 0 B"]),
        (
            {"people": 2, "rooms": 1, "messages": 9, "shared_rooms": 1, "servers": ["nord.test"], "media": 4},
            ["accounts of people: 2", "messages: 9", "rooms shared with other servers: 1 (nord.test)"],
        ),
    ],
)
def test_the_report(tmp_path: Path, lost: dict[str, Any], lines: list[str]) -> None:
    told = "\n".join(removal.report(names(tmp_path), lost))
    for line in lines:
        assert line in told
