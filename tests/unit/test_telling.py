# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What people see on their terminal, with Ansible's own settings: lines, and each of them once."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cae.matrix.tests.unit.programs import ansible_playbook

ROOT = Path(__file__).resolve().parents[2]
TABLE = ["CHECK   STATE", "DNS     ok", '    cause  It\'s "é"']


def play(place: Path, *tasks: dict[str, Any], **environment: str) -> subprocess.CompletedProcess[str]:
    """Without any ansible.cfg: what somebody has configured must not matter."""
    (place / "play.json").write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
    local = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
    (place / "hosts.json").write_text(json.dumps({"all": {"hosts": {"atelier": local, "fabrique": local}}}))
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    return ansible_playbook(place, "-i", "hosts.json", "play.json", environment=kept | environment)


@pytest.mark.parametrize("settings", [{}, {"ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml"}, {"ANSIBLE_CHECK_MODE": "1"}])
def test_a_table_stays_a_table(tmp_path: Path, settings: dict[str, str]) -> None:
    shown = {"cae.matrix.show": {"lines": TABLE}, "throttle": 1}
    done = play(tmp_path, shown, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\n".join(TABLE) + "\n") == 2
    assert "\\n" not in done.stdout
    assert done.stderr == ""


def test_a_text_counts_as_its_lines_and_gives_the_terminal_no_orders(tmp_path: Path) -> None:
    done = play(tmp_path, {"cae.matrix.show": {"lines": ["one\ntwo", "", "red \x1b[31m"]}, "run_once": True})
    assert "\none\ntwo\n\nred \ufffd[31m\n" in done.stdout


def test_a_program_has_them_in_the_result(tmp_path: Path) -> None:
    """A callback of the test's own, which prints JSON and nothing else."""
    plugins = tmp_path / "callback_plugins"
    plugins.mkdir()
    (plugins / "own_json.py").write_text(
        "import json\n"
        "from ansible.plugins.callback import CallbackBase\n"
        "class CallbackModule(CallbackBase):\n"
        "    CALLBACK_TYPE, CALLBACK_NAME, CALLBACK_VERSION = 'stdout', 'own_json', 2.0\n"
        "    def v2_runner_on_ok(self, result):\n"
        "        print(json.dumps(result._result['lines']))\n"
    )
    shown = {"cae.matrix.show": {"lines": TABLE}, "run_once": True}
    done = play(tmp_path, shown, ANSIBLE_STDOUT_CALLBACK="own_json", ANSIBLE_CALLBACK_PLUGINS=str(plugins))
    assert json.loads(done.stdout.splitlines()[0]) == TABLE, done.stdout + done.stderr


def test_what_may_not_be_shown_is_not(tmp_path: Path) -> None:
    done = play(tmp_path, {"cae.matrix.show": {"lines": ["hunter2"]}, "no_log": True})
    assert done.returncode == 0
    assert "hunter2" not in done.stdout + done.stderr


def test_a_failure_of_several_lines_is_told_once(tmp_path: Path) -> None:
    """A removal that nobody has confirmed: what would be lost, once for each host, and which one is which."""
    names = {key: "atelier" for key in ("instance", "user", "service", "slice", "site", "database")}
    for path in ("etc", "data", "backup"):
        (tmp_path / path).mkdir()
    (tmp_path / "etc/instance.json").write_text("{}")
    done = play(
        tmp_path,
        {
            "cae.matrix.instance_removal": {
                **names,
                "domain": "atelier.test",
                "config_dir": str(tmp_path / "etc"),
                "data_dir": str(tmp_path / "data"),
                "backup_dir": str(tmp_path / "backup"),
                "connection": {"host": "127.0.0.1", "port": 1, "dbname": "a", "user": "a"},
            }
        },
    )
    assert done.returncode == 2
    told = done.stdout + done.stderr
    assert told.count("media and data: ") == 2, told
    assert told.count("set matrix_removal_confirmed to atelier.test") == 2
    for host in ("atelier", "fabrique"):
        assert (
            f"\n{host}: Nothing has been removed. Without the instance atelier (atelier.test), its people lose:\n"
            in told
        )
        assert f"fatal: [{host}]: FAILED!" in told
    assert "lost" not in told.replace("people lose", "").replace("is lost", "")


def test_other_failures_stay_as_they_are(tmp_path: Path) -> None:
    options = {"policy": {}, "config_dir": "/nowhere", "domain": "a.test", "database": {}, "accepted": ["no name/"]}
    done = play(tmp_path, {"cae.matrix.federation_losses": options})
    assert '"msg": "federation_accepted_losses: ' in done.stdout
