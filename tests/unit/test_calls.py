# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A relay for calls is declared whole or refused, and its secret goes where only Synapse reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.cae.matrix.tests.unit.programs import ansible_playbook

ROOT = Path(__file__).parents[2]
SECRET = "quelque-chose-de-secret"
RELAY = ["turn:turn.a.example?transport=udp", "turns:turn.a.example:5349?transport=tcp"]
MAIL = {"smtp_host": "smtp.a.example", "notif_from": "a@a.example"}
HOSTS: dict[str, dict[str, Any]] = {
    "none": {},
    "relay": {"synapse_turn_uris": RELAY, "synapse_turn_shared_secret": SECRET},
    "beside-others": {
        "synapse_turn_uris": RELAY[:1],
        "synapse_turn_shared_secret": SECRET,
        "synapse_turn_user_lifetime": "12h",
        "synapse_secret_config": {"email": MAIL},
    },
    "by-hand": {
        "synapse_extra_config": {"turn_uris": RELAY, "turn_username": "a"},
        "synapse_secret_config": {"turn_password": SECRET},
    },
    "secret-in-a-file": {"synapse_turn_uris": RELAY, "synapse_extra_config": {"turn_shared_secret_path": "/etc/turn"}},
    # Refused, with these words.
    "web-address": {"synapse_turn_uris": ["https://turn.a.example/"], "synapse_turn_shared_secret": SECRET},
    "slashes": {"synapse_turn_uris": [*RELAY, "turn://turn.a.example"], "synapse_turn_shared_secret": SECRET},
    "no-secret": {"synapse_turn_uris": RELAY},
    "secret-alone": {"synapse_turn_shared_secret": SECRET},
}
REFUSED = {
    "web-address": "synapse_turn_uris: https://turn.a.example/: an address begins with turn:",
    "slashes": "synapse_turn_uris: turn://turn.a.example: an address begins with turn:",
    "no-secret": "synapse_turn_uris: nothing lets people use that relay; set synapse_turn_shared_secret",
    "secret-alone": "synapse_turn_shared_secret: it is for no relay; set synapse_turn_uris",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    place = tmp_path_factory.mktemp("calls")
    hosts = {
        name: {"matrix_domain": f"{name}.example", "matrix_instance": name, "ansible_host": name, **values}
        for name, values in HOSTS.items()
    }
    documents = {"name": "cae.matrix.synapse", "tasks_from": "documents", "public": True}
    parts = {"plain": "{{ _synapse_homeserver }}", "secret": "{{ _synapse_secrets }}", "refused": []}
    made = "{{ dict(ansible_play_hosts | zip(ansible_play_hosts | map('extract', hostvars, 'made'))) | to_json }}"
    block = {
        "block": [{"ansible.builtin.include_role": documents}, {"ansible.builtin.set_fact": {"made": parts}}],
        "rescue": [{"ansible.builtin.set_fact": {"made": {"refused": "{{ [ansible_failed_result.msg] | flatten }}"}}}],
    }
    copy = {"content": made, "dest": str(place / "made.json"), "mode": "0600"}
    tasks = [block, {"ansible.builtin.copy": copy, "run_once": True}]
    (place / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    (place / "play.yml").write_text(
        yaml.safe_dump([{"hosts": "all", "gather_facts": False, "vars": {"_matrix_on_machine": False}, "tasks": tasks}])
    )
    done = ansible_playbook(ROOT, "-i", str(place / "hosts.yml"), "-c", "local", "-v", str(place / "play.yml"))
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, dict[str, Any]] = json.loads((place / "made.json").read_text(encoding="utf-8"))
    return found


def test_synapse_is_told(made: dict[str, dict[str, Any]]) -> None:
    of = {
        name: {key: value for key, value in one["plain"].items() if "turn_" in key}
        for name, one in made.items()
        if "plain" in one
    }
    assert of["none"] == {}
    assert of["relay"] == {"turn_uris": RELAY, "turn_user_lifetime": "1d", "turn_allow_guests": False}
    assert of["beside-others"] == {"turn_uris": RELAY[:1], "turn_user_lifetime": "12h", "turn_allow_guests": False}
    assert of["by-hand"] == {"turn_uris": RELAY, "turn_username": "a"}


def test_the_secret_is_where_only_synapse_reads(made: dict[str, dict[str, Any]]) -> None:
    assert made["relay"]["secret"] == {"turn_shared_secret": SECRET}
    assert made["beside-others"]["secret"] == {"turn_shared_secret": SECRET, "email": MAIL}
    assert made["none"]["secret"] == {}
    for name, one in made.items():
        assert SECRET not in str(one.get("plain")), name


def test_half_a_relay_is_refused(made: dict[str, dict[str, Any]]) -> None:
    refused = {name: one["refused"] for name, one in made.items() if one["refused"]}
    assert set(refused) == set(REFUSED)
    for name, words in REFUSED.items():
        assert len(refused[name]) == 1
        assert refused[name][0].startswith(words)
        assert SECRET not in refused[name][0]
