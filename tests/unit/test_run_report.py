# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a run says at its end, and what it leaves in the machine's log."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from ansible_collections.cae.matrix.plugins.module_utils.instance import run_log, run_report
from ansible_collections.cae.matrix.plugins.modules import instance_claim
from ansible_collections.cae.matrix.plugins.modules import run_report as module
from ansible_collections.cae.matrix.tests.unit.programs import ansible_playbook

ROOT = Path(__file__).resolve().parents[2]
ABOUT: dict[str, Any] = {
    "instance": "atelier",
    "name": "Coopérative Atelier",
    "domain": "atelier.test",
    "homeserver_url": "https://matrix.atelier.test/",
    "element_url": "https://chat.atelier.test/",
    "profile": "open",
    "registration": "token",
    "administrators": ["support", "amina"],
    "collection_version": "0.1.0",
}
FOUND: dict[str, Any] = {
    "versions": {"synapse": "1.163.2", "element_web": "1.12.25"},
    "password_files": {"support": "/etc/matrix/atelier/admins/support.password"},
    "log": "/var/log/matrix/atelier.log",
    "check_mode": False,
}
LINE = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ (began|ended|removed)( [a-z_]+=[\w.,:/@+-]+)+")


def test_it_is_about_ten_lines() -> None:
    changed = {"synapse": ["service", "/etc/a/homeserver.yaml"], "reverse_proxy": ["reload"]}
    assert run_report.lines(ABOUT, changed, FOUND) == [
        "Coopérative Atelier (atelier.test), instance atelier",
        "  Element         https://chat.atelier.test/",
        "  homeserver      https://matrix.atelier.test/",
        "  versions        Synapse 1.163.2, Element Web 1.12.25, cae.matrix 0.1.0",
        "  talks to        every Matrix server (matrix_profile: open)",
        "  registers       whoever has a registration token (encryption_gate_registration: token)",
        "  administers     @support:atelier.test, password in /etc/matrix/atelier/admins/support.password",
        "                  @amina:atelier.test",
        "  changed         synapse: service, homeserver.yaml",
        "                  reverse_proxy: reload",
        "  log             /var/log/matrix/atelier.log",
        "  next            cae.matrix.verify looks from outside",
        "                  cae.matrix.registration_token -e registration_token_action=create makes an invitation code;",
        "                  people register with it at https://chat.atelier.test/",
    ]


def test_a_check_says_what_would_be() -> None:
    about: dict[str, Any] = ABOUT | {
        "element_url": None,
        "registration": "closed",
        "administrators": [],
        "profile": "internal",
    }
    told = run_report.lines(about, {}, {"check_mode": True})
    assert told == [
        "Coopérative Atelier (atelier.test), instance atelier: as it would be, nothing was changed",
        "  Element         none (matrix_element_enabled: false)",
        "  homeserver      https://matrix.atelier.test/",
        "  versions        Synapse (not there yet), cae.matrix 0.1.0",
        "  talks to        nobody outside (matrix_profile: internal)",
        "  registers       nobody; the ops team makes the accounts (encryption_gate_registration: closed)",
        "  administers     nobody yet (encryption_gate_administrators)",
        "  would change    nothing",
        "  next            the same without --check",
    ]


def test_what_has_changed_is_told_by_role_in_the_order_of_a_run() -> None:
    variables = {
        "__rooms_made": {"changed": True},
        "__machine_user": {"changed": True, "name": "x"},
        "__machine_packages": {"changed": False},
        "__machine_documents": {"changed": True, "changed_paths": ["/etc/x"]},
        "__element_web_document": "nothing of the kind",
        "_machine_files": {"changed": True},
        "__verify": {"changed": True},
    }
    paths = {"element_web": ["/e/config.json"], "machine": ["/etc/x", "/etc/x"], "": ["/somebody"]}
    assert run_report.changes(variables, paths) == {
        "machine": ["user", "/etc/x"],
        "element_web": ["/e/config.json"],
        "rooms": ["made"],
    }
    assert run_report.count(run_report.changes(variables, paths)) == 4


# --- every change is told ---------------------------------------------------------------------------------------

# These change nothing, or tell what they have changed by themselves.
QUIET = re.compile(
    r"ansible\.builtin\.(assert|debug|fail|include_\w+|import_\w+|meta|set_fact|slurp|stat|uri|wait_for)"
    r"|cae\.matrix\.(certificate|documents|element_web_release|federation_losses|instance_claim|members|public_documents"
    r"|run_report|show)"
    r"|community\.postgresql\.postgresql_query|community\.crypto\.\w+_pipe"
)
KEYWORDS = {
    *(
        "name",
        "register",
        "when",
        "vars",
        "notify",
        "listen",
        "become",
        "become_user",
        "retries",
        "delay",
        "until",
        "loop",
    ),
    *("changed_when", "failed_when", "check_mode", "environment", "delegate_to", "throttle", "no_log", "loop_control"),
}


def tasks(entries: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for entry in entries:
        inner = [part for key in ("block", "rescue", "always") for part in entry.get(key, [])]
        yield from tasks(inner) if inner else [entry]


@pytest.mark.parametrize("role", run_report.ROLES)
def test_whatever_changes_something_is_registered(role: str) -> None:
    looked_at = 0
    for file in sorted((ROOT / "roles" / role).glob("[th]a*/*.yml")):
        for task in tasks(yaml.safe_load(file.read_text()) or []):
            (action,) = set(task) - KEYWORDS
            looked_at += 1
            # registration_token.yml is a playbook of its own, which says what it did.
            if QUIET.fullmatch(action) or task.get("changed_when") is False or file.name == "token.yml":
                continue
            assert str(task.get("register", "")).startswith(f"__{role}_"), f"{file}: {task['name']}"
    assert looked_at


def test_no_role_is_forgotten() -> None:
    there = {path.name for path in (ROOT / "roles").iterdir() if (path / "tasks").is_dir()}
    assert there - set(run_report.ROLES) == {"matrix", "plan", "removal"}


# --- the log ----------------------------------------------------------------------------------------------------


def run(main: Any, capsys: pytest.CaptureFixture[str], check: bool = False, **params: Any) -> dict[str, Any]:
    with patch_module_args(params | {"_ansible_check_mode": check}), contextlib.suppress(SystemExit):
        main.main()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "os-release").write_text('ID=debian\nVERSION_ID="12"\n')
    places = {"markers_dir": "matrix", "os_release": "os-release", "backups_dir": "backups", "log_dir": "log"}
    return {name: str(tmp_path / path) for name, path in places.items()}


def claim(capsys: pytest.CaptureFixture[str], machine: dict[str, str], **more: Any) -> dict[str, Any]:
    about = {"instance": "atelier", "domain": "atelier.test", "inventory_host": "atelier", "playbook": "cooperative"}
    return run(
        instance_claim,
        capsys,
        **(about | machine | {"operator": "amina k@office", "collection_version": "0.1.0"} | more),
    )


def test_a_run_leaves_a_line_when_it_begins_and_one_when_it_has_ended(
    capsys: pytest.CaptureFixture[str], machine: dict[str, str], tmp_path: Path
) -> None:
    name = claim(capsys, machine)["ansible_facts"]["cae_matrix_machine"]["run"]
    config = tmp_path / "matrix/atelier"
    (config / "admins").mkdir(parents=True)
    (config / "element").mkdir()
    (config / "admins/support.password").write_text("hunter2\n")
    (config / "venv").symlink_to("/opt/matrix/synapse/1.163.2-0a1b2c3d4e5f")
    (config / "element/release").symlink_to("/opt/matrix/element-web/1.12.25")
    about = ABOUT | {
        "config_dir": str(config),
        "run": name,
        "log_dir": machine["log_dir"],
        "digest": "sha256:ab",
        "changed": 3,
    }

    result = run(module, capsys, **about)

    assert result["changed"] is False
    assert result["versions"] == FOUND["versions"]
    assert result["password_files"] == {"support": str(config / "admins/support.password")}
    log = Path(result["log"])
    began, ended = log.read_text().splitlines()
    assert LINE.fullmatch(began)
    assert LINE.fullmatch(ended)
    assert began[21:] == f"began run={name} playbook=cooperative version=0.1.0 by=amina_k@office"
    said = f"ended run={name} changed=3 registration=token digest=sha256:ab synapse=1.163.2 element_web=1.12.25"
    assert ended[21:] == said
    assert "hunter2" not in log.read_text() + json.dumps(result)
    assert log.stat().st_mode & 0o777 == 0o640


def test_nothing_is_logged_in_check_mode_for_others_or_without_a_playbook(
    capsys: pytest.CaptureFixture[str], machine: dict[str, str], tmp_path: Path
) -> None:
    for more in ({"check": True}, {"playbook": ""}, {"state": "absent"}):
        assert claim(capsys, machine, **more)["ansible_facts"]["cae_matrix_machine"]["run"] == ""
    marker = tmp_path / "matrix/atelier/instance.json"
    marker.parent.mkdir(parents=True)
    marker.write_text(json.dumps({"matrix_domain": "autre.test", "inventory_hostname": "autre"}))
    assert claim(capsys, machine)["failed"]
    run(module, capsys, check=True, **ABOUT, config_dir=str(tmp_path), run="ab12cd", log_dir=machine["log_dir"])
    run(module, capsys, **ABOUT, config_dir=str(tmp_path), log_dir=machine["log_dir"])
    assert not Path(machine["log_dir"]).exists()


def test_a_log_that_cannot_be_written_stops_nobody(
    capsys: pytest.CaptureFixture[str], machine: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warned: list[str] = []
    monkeypatch.setattr(AnsibleModule, "warn", lambda _, text: warned.append(text))
    (tmp_path / "log").write_text("in the way\n")
    result = claim(capsys, machine)
    assert result["ansible_facts"]["cae_matrix_machine"]["run"] == ""
    assert len(warned) == 1
    assert "could not be written down" in warned[0]


def test_the_log_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_log, "LIMIT", 1000)
    file = run_log.path("atelier", str(tmp_path))
    for number in range(100):
        run_log.write(file, run_log.line("began", f"{number:06}"))
    lines = file.read_text().splitlines()
    assert file.stat().st_size < 1100
    assert all(LINE.fullmatch(line) for line in lines)
    assert [line[-6:] for line in lines] == [f"{number:06}" for number in range(100 - len(lines), 100)]


def test_it_is_never_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "atelier.log").symlink_to(tmp_path / "shadow")
    with pytest.raises(OSError, match="symbolic link"):
        run_log.write(run_log.path("atelier", str(tmp_path)), "x")
    assert not (tmp_path / "shadow").exists()


# --- a run ------------------------------------------------------------------------------------------------------


def test_a_play_tells_what_its_roles_have_changed(tmp_path: Path) -> None:
    """Twice: the second time, nothing."""
    role = tmp_path / "roles/synapse/tasks"
    role.mkdir(parents=True)
    files = [{"path": f"{tmp_path}/{name}", "content": "x\n"} for name in ("a.yaml", "b.yaml")]
    (role / "main.yml").write_text(
        json.dumps(
            [
                {"cae.matrix.documents": {"files": files[:1]}},
                {"cae.matrix.documents": {"files": files}},
                {
                    "ansible.builtin.file": {"path": f"{tmp_path}/c", "state": "directory"},
                    "register": "__synapse_service",
                },
            ]
        )
    )
    about = {key: value for key, value in ABOUT.items() if key != "collection_version"}
    report = {
        "cae.matrix.run_report": about | {"config_dir": "/nowhere", "run": "ab12cd", "log_dir": f"{tmp_path}/log"}
    }
    play = {"hosts": "all", "gather_facts": False, "roles": ["synapse"], "post_tasks": [report]}
    (tmp_path / "play.json").write_text(json.dumps([play]))
    local = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"hosts": {"atelier": local}}}))

    def told(*more: str) -> str:
        done = ansible_playbook(tmp_path, "-i", "hosts.json", "play.json", *more)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""
        return done.stdout

    # In check mode the first task has made nothing, so the second tells its file again; it is told once all the same.
    assert "\n  would change    synapse: service, a.yaml, b.yaml\n" in told("--check")
    assert not (tmp_path / "log").exists()
    first = told()
    assert "\n  changed         synapse: service, a.yaml, b.yaml\n" in first
    assert "\nCoopérative Atelier (atelier.test), instance atelier\n" in first
    assert "\n  changed         nothing\n" in told()
    assert [line.split()[3] for line in (tmp_path / "log/atelier.log").read_text().splitlines()] == [
        "changed=3",
        "changed=0",
    ]
