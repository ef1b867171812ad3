# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""C(ansible_become) and C(ansible_connection) of an inventory beat the keywords, and reach what is delegated too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.cae.matrix.tests.unit.programs import ansible_playbook

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    path for name in ("roles", "playbooks") for path in sorted((ROOT / name).rglob("*.yml")) if "meta" not in path.parts
]


def delegated(content: Any) -> Iterator[dict[str, Any]]:
    if isinstance(content, list):
        for item in content:
            yield from delegated(item)
    elif isinstance(content, dict):
        if "delegate_to" in content or content.get("hosts") == "localhost":
            yield content
        for key in ("block", "rescue", "always", "tasks", "pre_tasks", "post_tasks", "handlers"):
            yield from delegated(content.get(key, []))


TASKS = [
    pytest.param(task, id=f"{path.name}: {task['name']}")
    for path in FILES
    for task in delegated(yaml.safe_load(path.read_text("utf-8")))
]


@pytest.mark.parametrize("task", TASKS)
def test_what_is_delegated_says_how_it_connects_and_who_it_is(task: dict[str, Any]) -> None:
    said = task.get("vars", {})
    assert {"ansible_become", "ansible_connection", "ansible_python_interpreter"} <= set(said), task["name"]
    if "{{" not in task.get("delegate_to", ""):
        assert said["ansible_become"] is False
        assert said["ansible_connection"] == "local"
        assert said["ansible_python_interpreter"] == "{{ ansible_playbook_python }}"


def test_there_are_some() -> None:
    assert len(TASKS) >= 8


@pytest.mark.parametrize("listed", [False, True], ids=["implicit localhost", "localhost in the inventory"])
def test_an_inventory_that_connects_and_becomes_everywhere_does_not_reach_the_controller(
    tmp_path: Path, listed: bool
) -> None:
    """Fetching a list of members is the controller's: it would hang in a su that asks for a password, or in SSH."""
    everywhere = {
        "ansible_connection": "ssh",
        "ansible_host": "127.0.0.9",
        "ansible_become": True,
        "ansible_become_method": "su",
        "ansible_become_exe": "/bin/false",
        "ansible_become_user": "nobody",
        "ansible_python_interpreter": "/nowhere/python",
    }
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/all.yml").write_text(yaml.safe_dump(everywhere))
    (tmp_path / "list.json").write_text("{}")
    one = {"matrix_domain": "a.test", "matrix_profile": "federation", "federation_members": "list.json"}
    others: dict[str, Any] = {"localhost": {}} if listed else {}
    inventory = {"cooperatives": {"hosts": {"a": one}}, "ungrouped": {"hosts": others}}
    (tmp_path / "hosts.json").write_text(json.dumps(inventory))
    role = {"name": "cae.matrix.federation", "tasks_from": "policy"}
    play = {"hosts": "all", "gather_facts": False, "vars": {"_matrix_on_machine": False}}
    (tmp_path / "play.json").write_text(json.dumps([{**play, "tasks": [{"ansible.builtin.include_role": role}]}]))
    done = ansible_playbook(tmp_path, "-i", "hosts.json", "--limit", "a", "play.json")
    # The module has run here, and says what is wrong with the list.
    assert "list.json:1: hub: is missing" in done.stdout + done.stderr, done.stdout + done.stderr
    assert "UNREACHABLE" not in done.stdout


PLACES = {
    "roles/encryption_gate/tasks/apply.yml": {"encryption_gate_checks_from": "elsewhere"},
    "playbooks/audit.yml": {"audit_homeserver_url": "https://a.test", "audit_from": "elsewhere"},
    "playbooks/remedy.yml": {"remedy_homeserver_url": "https://a.test", "remedy_from": "elsewhere"},
}


def test_each_place_that_is_chosen_is_tried() -> None:
    chosen = {
        str(path.relative_to(ROOT))
        for path in FILES
        for task in delegated(yaml.safe_load(path.read_text("utf-8")))
        if "{{" in task.get("delegate_to", "")
    }
    assert chosen == set(PLACES)


@pytest.mark.parametrize("here", [False, True], ids=["elsewhere", "the controller"])
@pytest.mark.parametrize("file", PLACES)
def test_what_an_inventory_delegates_goes_where_it_says(tmp_path: Path, file: str, here: bool) -> None:
    """How such a task connects is decided without the variables of the host that it is for."""
    content = yaml.safe_load((ROOT / file).read_text("utf-8"))
    (task,) = [one for one in delegated(content) if "{{" in one.get("delegate_to", "")]
    variables = ROOT / Path(file).parents[1] / "vars/main.yml"
    around = content[0]["vars"] if "hosts" in content[0] else yaml.safe_load(variables.read_text("utf-8"))
    own = {key: value.replace("elsewhere", "localhost") if here else value for key, value in PLACES[file].items()}
    # Nothing answers at either; that host is in a group of its own, without the variables of the others.
    away = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    groups = {"cooperatives": {"hosts": {"a": {**away, **own}}}, "others": {"hosts": {"elsewhere": away}}}
    asked = {key: task[key] for key in ("name", "delegate_to", "vars")} | {"ansible.builtin.ping": {}}
    play = {"hosts": "cooperatives", "gather_facts": False, "vars": around, "tasks": [asked]}
    (tmp_path / "hosts.json").write_text(json.dumps(groups))
    (tmp_path / "play.json").write_text(json.dumps([play]))
    done = ansible_playbook(tmp_path, "-i", "hosts.json", "play.json")
    expected = "ok: [a -> localhost]" if here else "fatal: [a -> elsewhere]: UNREACHABLE!"
    assert expected in done.stdout + done.stderr, done.stdout + done.stderr
