# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files as a run leaves them that was killed before the restart: one more run puts them in force.

Real kills, twenty of them: bench/run --only in_force.
"""

from __future__ import annotations

from conftest import Instance
from neighbours import done, play

UNIT = "matrix-synapse@atelier.service"

# Runs on the machine. What the declaration below comes to, written, and nobody told; and what writing leaves behind.
WRITTEN = """
cd /etc/matrix/atelier
sed -i 's/^max_upload_size: .*/max_upload_size: 20M/' synapse/homeserver.yaml
sed -i 's/client_max_body_size 52428800/client_max_body_size 20971520/' /etc/nginx/sites-available/matrix-atelier.conf
sed -i "s/^work_mem = .*/work_mem = '9MB'/" /etc/postgresql/*/main/conf.d/cae-matrix.conf
sed -i '/^TasksMax=/i CPUWeight=77' /etc/systemd/system/matrix-atelier.slice
touch .log.yaml.cae-matrix-previous synapse/.homeserver.yaml.cae-matrix-new
! grep -q '52428800' /etc/nginx/sites-available/matrix-atelier.conf
"""
DECLARED = {
    "matrix_max_upload_size": "20M",
    # A setting that takes a restart would be felt by the neighbour.
    "machine_postgresql_settings": {"work_mem": "9MB"},
    "synapse_cpu_weight": "77",
}


def show(instance: Instance, unit: str, name: str) -> str:
    return instance.run("systemctl", "show", "--property", name, "--value", unit).strip()


def workers(instance: Instance) -> set[str]:
    return set(instance.run("pgrep", "--full", "^nginx: worker process$").split())


def work_mem(instance: Instance) -> str:
    return instance.run("runuser", "-u", "postgres", "--", "psql", "-d", "postgres", "-Atc", "SHOW work_mem").strip()


def upload_size(instance: Instance) -> int:
    status, answer = instance.admin("GET", "/_matrix/client/v1/media/config")
    assert status == 200, answer
    return int(answer["m.upload.size"])


def test_what_a_killed_run_has_written_comes_into_force(as_declared: Instance) -> None:
    atelier = as_declared
    assert (upload_size(atelier), work_mem(atelier)) == (50 * 2**20, "4MB")
    before, served = show(atelier, UNIT, "InvocationID"), workers(atelier)
    atelier.run("sh", "-ec", WRITTEN)
    said = done(play(atelier, "--diff", **DECLARED))
    for reason in (
        "/etc/matrix/atelier/synapse/homeserver.yaml is newer",
        "/etc/nginx/sites-available/matrix-atelier.conf is newer",
        "/main/conf.d/cae-matrix.conf is newer",
    ):
        assert reason in said
    assert (upload_size(atelier), work_mem(atelier)) == (20 * 2**20, "9MB")
    assert show(atelier, "matrix-atelier.slice", "CPUWeight") == "77"
    assert show(atelier, UNIT, "InvocationID") != before
    assert not served & workers(atelier)
    assert atelier.run("find", "/etc", "-name", "*.cae-matrix-*") == ""
