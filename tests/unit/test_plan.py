# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whatever is wrong with an inventory, whichever role it concerns, is told in one message, before any connection."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.cae.matrix.plugins.plugin_utils.plan import message, roles
from ansible_collections.cae.matrix.tests.unit.programs import ansible_playbook

ROOT = Path(__file__).resolve().parents[2]
# Nothing listens there: whoever connects is told so, and fails otherwise than the plan does.
NOWHERE = {"ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_become": False}
SOUND = {"matrix_domain": "atelier.example", "reverse_proxy_certificate": "private_ca"}


def planned(place: Path, group: str = "cooperatives", /, **variables: Any) -> str:
    """What a run of the playbook says against an inventory of one host that cannot be reached."""
    hosts = {"atelier": {**NOWHERE, **variables}}
    (place / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": {group: {"hosts": hosts}}}}))
    playbook = {"cooperatives": "cooperative.yml", "federation_hub": "federation_hub.yml"}[group]
    done = ansible_playbook(place, "-i", "hosts.yml", ROOT / "playbooks" / playbook)
    assert done.returncode != 0
    assert "[DEPRECATION" not in done.stdout + done.stderr
    return done.stdout


def mistakes(said: str) -> list[str]:
    """The lines of the one message; none where the run has gone on to connect."""
    if "UNREACHABLE!" in said:
        return []
    assert len(re.findall(r"^fatal: ", said, re.M)) == 1, said
    return re.findall(r"^ +\d+\. (\S.*)$", said, re.M)


def test_without_a_mistake_the_run_goes_on(tmp_path: Path) -> None:
    assert "UNREACHABLE!" in planned(tmp_path, **SOUND)


# A mistake of each role, with the beginning of its line.
EACH: dict[str, tuple[dict[str, Any], str]] = {
    "plan": ({"machine_proxi_user": "www-data"}, "machine_proxi_user: no role"),
    "types": ({"matrix_people": "many"}, 'matrix_people: "many" is no whole number'),
    "matrix": ({"matrix_hostname": "https://m.example"}, 'matrix_hostname: "https://m.example" has a scheme'),
    "machine": ({"machine_extra_packages": "vim"}, "machine_extra_packages: is text"),
    "postgresql": ({"postgresql_pool_max": "five"}, "postgresql_pool_max: "),
    "synapse": ({"synapse_memory_max": "2 GB"}, 'synapse_memory_max: "2 GB" is no size'),
    "shapes": ({"synapse_extra_config": {"database": "x"}}, "synapse_extra_config.database: is text"),
    "relay": ({"synapse_turn_uris": ["http://turn.example"]}, "synapse_turn_uris: http://turn.example"),
    "element_web": ({"element_web_colour": "blau"}, 'element_web_colour: "blau" is no colour'),
    "reverse_proxy": ({"reverse_proxy_certificate": "files"}, 'reverse_proxy_certificate: with "files"'),
    "encryption_gate": ({"encryption_gate_accepted_rooms": ["#a:b"]}, "encryption_gate_accepted_rooms: #a:b"),
    "federation": ({"federation_denied_servers": ["https://bad.example"]}, "federation_denied_servers: "),
    "rooms": ({"rooms_declared": [{"alias": "a", "name": "A", "join": "space"}]}, "rooms_declared[1] (a): join is "),
    "opt_in": (
        {"reverse_proxy_well_known_client_extra": {"io.element.e2ee": {"default": True}}},
        "well_known: client.io.element.e2ee",
    ),
}  # fmt: skip


def test_mistakes_of_all_roles_come_in_one_message(tmp_path: Path) -> None:
    variables: dict[str, Any] = {**SOUND, "rooms_owner": "amina"}
    for more, _ in EACH.values():
        variables |= more
    found = mistakes(planned(tmp_path, **variables))
    for _, begins in EACH.values():
        assert [line for line in found if line.startswith(begins)], (begins, found)
    # The relay that nobody may use is one more; nothing else follows from these.
    assert len(found) == len(EACH) + 1, found


@pytest.mark.parametrize("kind", EACH)
def test_each_alone_is_told_before_any_connection(tmp_path: Path, kind: str) -> None:
    more, begins = EACH[kind]
    said = planned(tmp_path, **{**SOUND, "rooms_owner": "amina", **more})
    assert "UNREACHABLE!" not in said
    assert begins in said


def test_without_a_domain_the_rest_is_told_and_nothing_made_up(tmp_path: Path) -> None:
    found = mistakes(planned(tmp_path, synapse_memory_max="2 GB", element_web_colour="blau"))
    assert [line.partition(":")[0] for line in found] == ["matrix_domain", "element_web_colour", "synapse_memory_max"]


def test_a_list_of_members_on_the_controller_is_read_with_the_rest(tmp_path: Path) -> None:
    twice = [{"name": "Nord", "domain": "nord.example"}, {"name": "Nord", "domain": "nord.example"}]
    listed = {"schema": "cae.matrix/members/1", "name": "Fédération", "hub": "nord.example", "members": twice}
    (tmp_path / "members.yml").write_text(yaml.safe_dump(listed))
    found = mistakes(planned(tmp_path, **SOUND, federation_members="members.yml", synapse_memory_max="2 GB"))
    # Each mistake in the list counts for itself, with its place.
    assert len([line for line in found if "members.yml:" in line and "is also that of" in line]) == 2, found
    assert [line for line in found if line.startswith("synapse_memory_max")]


def test_a_list_that_is_fetched_waits_until_the_machine_can_be_asked(tmp_path: Path) -> None:
    more = {"federation_members": "https://hub.example/federation/members.json", "federation_members_key": "x"}
    said = planned(tmp_path, **SOUND, **more, matrix_profile="federation")
    assert "UNREACHABLE!" in said, said


def test_what_makes_no_hub_is_told_with_the_rest(tmp_path: Path) -> None:
    found = mistakes(planned(tmp_path, "federation_hub", **SOUND, synapse_memory_max="2 GB"))
    assert [line.partition(":")[0] for line in found].count("federation_members") == 1, found
    assert [line for line in found if line.startswith("synapse_memory_max")]


def test_an_instance_that_goes_is_not_held_up_by_what_it_was(tmp_path: Path) -> None:
    absent = {**SOUND, "matrix_state": "absent", "matrix_removal_confirmed": "atelier.example"}
    assert "UNREACHABLE!" in planned(tmp_path, **absent, synapse_memory_max="2 GB", element_web_colour="blau")


def test_no_secret_is_shown(tmp_path: Path) -> None:
    said = planned(tmp_path, **SOUND, synapse_secret_config={"database": "hunter2", "email": {"smtp_pass": "hunter2"}})
    assert "synapse_secret_config.database: is text" in said
    assert "hunter2" not in said


def test_what_waits_for_the_machine_is_asked_once_it_is_known(tmp_path: Path) -> None:
    """A check that cannot be read before any connection is not passed over for good."""
    machine = {"debian": "12", "memory_mb": 4000, "instances": [], "expected": ["atelier"], "relays": ["http://t.test"]}
    everything = {"plan_documents": ["synapse", "reverse_proxy", "element_web"]}
    tasks: list[dict[str, Any]] = [
        {"ansible.builtin.include_role": {"name": "cae.matrix.plan"}},
        {"ansible.builtin.set_fact": {"cae_matrix_machine": machine, "cacheable": True}},
        {
            "ansible.builtin.include_role": {"name": "cae.matrix.plan", "tasks_from": "documents"},
            "vars": everything,
        },
    ]
    variables = {"_matrix_on_machine": False, "_matrix_playbook": "cooperative"}
    play = {"hosts": "all", "gather_facts": False, "vars": variables, "tasks": tasks}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    waits = {"synapse_turn_uris": "{{ ansible_facts.cae_matrix_machine.relays }}", "synapse_turn_shared_secret": "x"}
    hosts = {"atelier": {**SOUND, **waits, "ansible_connection": "local"}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    done = ansible_playbook(tmp_path, "-i", "hosts.yml", "play.yml")
    assert done.returncode != 0
    # Nothing was made of it before.
    assert "TASK [cae.matrix.plan : Declare the documents, and refuse" in done.stdout, done.stdout
    assert "synapse_turn_uris: http://t.test" in done.stdout


@pytest.mark.parametrize("callback", ["ansible.builtin.default", "ansible.posix.json"])
def test_what_is_planned_reaches_no_callback(tmp_path: Path, callback: str) -> None:
    role = {"name": "cae.matrix.synapse", "tasks_from": "documents"}
    kept = {"assert": {"that": "synapse_document.email.smtp_pass == 'hunter2'"}}
    tasks = [{"ansible.builtin.include_role": role}, kept]
    play = {"hosts": "all", "gather_facts": False, "vars": {"_matrix_on_machine": False}, "tasks": tasks}
    secrets = {"synapse_secret_config": {"email": {"smtp_pass": "hunter2"}}, "postgresql_password": 31415926}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    hosts = {"atelier": {**SOUND, **secrets, "ansible_connection": "local"}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    environment = {**os.environ, "ANSIBLE_STDOUT_CALLBACK": callback}
    done = ansible_playbook(tmp_path, "-i", "hosts.yml", "-vvv", "play.yml", environment=environment)
    assert done.returncode == 0, done.stdout
    said = (done.stdout + done.stderr).replace("== 'hunter2'", "")
    assert "hunter2" not in said
    assert "31415926" not in said


def test_every_list_of_mistakes_is_its_roles_own() -> None:
    """One under another name would be read by nobody."""
    for path in ROOT.glob("roles/*/vars/main.yml"):
        own = {f"_{path.parent.parent.name}_{kind}" for kind in ("problems", "checks")}
        names = {name for name in yaml.safe_load(path.read_text("utf-8")) if re.search(r"_(problems|checks)$", name)}
        parts = {"_synapse_shape_problems", "_synapse_limit_problems", "_federation_hub_checks"}
        assert names - own <= parts, path


def test_the_roles_are_those_of_the_collection() -> None:
    assert set(roles()) == {path.name for path in (ROOT / "roles").iterdir()}
    assert roles()[0] == "matrix"


def test_one_mistake_has_no_number() -> None:
    assert message(["a: is missing"]) == "a: is missing"
    assert message(["a: x", "b: y"]).splitlines()[1:] == ["  1. a: x", "  2. b: y"]
