# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""cae.matrix.documents against a real file system, as root: what it promises, one test each."""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.cae.matrix.plugins.module_utils.host import document_rehearsal, document_set
from ansible_collections.cae.matrix.plugins.modules import documents
from ansible_collections.cae.matrix.tests.patience import START, eventually, patient
from hypothesis import given
from hypothesis import strategies as st

NOBODY = 65534
SECRET = "hunter2-is-no-good-password"
Result = dict[str, Any]
Module = Callable[..., Result]


# All that the other tests write is theirs; what was there before is tested on its own.
OURS = re.compile("/")
IN_A_PROCESS = f"""
import re
from {document_set.__name__.rpartition(".")[0]} import document_set
from {documents.__name__} import main
document_set.OURS = re.compile("/")
main()
"""


@pytest.fixture(autouse=True)
def everything_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_set, "OURS", OURS)


@pytest.fixture
def module(capsys: pytest.CaptureFixture[str]) -> Module:
    """Runs the module as Ansible does, in this process."""

    def run(check: bool = False, **params: Any) -> Result:
        with patch_module_args(params | {"_ansible_check_mode": check}), contextlib.suppress(SystemExit):
            documents.main()
        result: Result = json.loads(capsys.readouterr().out)
        result.pop("invocation", None)
        return result

    return run


def in_a_process(**params: Any) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", IN_A_PROCESS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": params}))
    process.stdin.close()
    process.stdin = None
    return process


def snapshot(root: Path) -> dict[str, tuple[Any, ...]]:
    """Everything below a directory, as far as a person could see a difference."""
    seen = {}
    for path in [root, *sorted(root.rglob("*"))]:
        found = path.lstat()
        holds: Any = None
        if path.is_symlink():
            holds = os.readlink(path)
        elif path.is_file():
            holds = (path.read_bytes(), found.st_ino, found.st_mtime_ns)
        seen[str(path)] = (oct(found.st_mode), found.st_uid, found.st_gid, found.st_nlink, holds)
    return seen


def mode_of(path: Path) -> str:
    return f"{stat.S_IMODE(path.lstat().st_mode):04o}"


def everything(root: Path) -> dict[str, Any]:
    """One of each thing the module can write; part of it is there already, different."""
    (root / "old").write_text("old\n")
    (root / "gone").write_text("gone\n")
    (root / "link").symlink_to("nowhere")
    (root / "shared").write_text("others\n")
    (root / "drift").write_text("drift\n")
    (root / "drift").chmod(0o600)
    (root / "open").mkdir(mode=0o777)
    return {
        "directories": [
            {"path": f"{root}/new/deep", "owner": "nobody", "group": "nogroup", "mode": "0750"},
            {"path": f"{root}/open", "mode": "0700"},
        ],
        "files": [
            {"path": f"{root}/old", "content": "new\n"},
            {"path": f"{root}/drift", "content": "drift\n", "mode": "0644"},
            {"path": f"{root}/gone", "state": "absent"},
            {"path": f"{root}/new/deep/file", "content": "é\n", "owner": "nobody", "group": "nogroup", "mode": "0640"},
            {"path": f"{root}/new/password", "secret_content": SECRET, "mode": "0600"},
        ],
        "secrets": [{"path": f"{root}/new/token", "owner": "nobody", "group": "nogroup"}],
        "links": [{"path": f"{root}/link", "target": "new/deep"}],
        "blocks": [{"path": f"{root}/shared", "name": "one", "content": "ours"}],
    }


CHANGED = ["new", "open", "new/deep", "new/token", "old", "drift", "gone", "new/deep/file", "new/password", "link"]
CHANGED.append("shared")


def test_it_writes_everything_in_one_run(module: Module, tmp_path: Path) -> None:
    result = module(**everything(tmp_path))

    assert result["changed"] is True
    assert result["changed_paths"] == [str(tmp_path / name) for name in CHANGED]
    assert (tmp_path / "old").read_text() == "new\n"
    assert not (tmp_path / "gone").exists()
    assert (tmp_path / "new/deep/file").read_text() == "é\n"
    assert (tmp_path / "new/password").read_text() == SECRET
    assert os.readlink(tmp_path / "link") == "new/deep"
    assert (tmp_path / "shared").read_text() == "others\n# BEGIN cae.matrix one\nours\n# END cae.matrix one\n"
    modes = {name: mode_of(tmp_path / name) for name in CHANGED if name not in ("gone", "link")}
    assert modes == {
        "new": "0755",
        "open": "0700",
        "new/deep": "0750",
        "new/token": "0600",
        "old": "0644",
        "drift": "0644",
        "new/deep/file": "0640",
        "new/password": "0600",
        "shared": "0644",
    }
    theirs = {name for name in CHANGED if name != "gone" and (tmp_path / name).lstat().st_uid == NOBODY}
    assert theirs == {"new/deep", "new/deep/file", "new/token"}
    assert not [path for path in tmp_path.rglob(".*")]


def test_a_second_run_changes_nothing(module: Module, tmp_path: Path) -> None:
    params = everything(tmp_path)
    module(**params)
    before = snapshot(tmp_path)

    result = module(**params)

    assert (result["changed"], result["changed_paths"], result["diff"]) == (False, [], [])
    assert snapshot(tmp_path) == before


def test_the_umask_of_whoever_runs_it_does_not_matter(module: Module, tmp_path: Path) -> None:
    previous = os.umask(0o077)
    try:
        module(**everything(tmp_path))
    finally:
        os.umask(previous)
    assert (mode_of(tmp_path / "new"), mode_of(tmp_path / "old")) == ("0755", "0644")


def test_check_mode_announces_the_same_and_changes_nothing(module: Module, tmp_path: Path) -> None:
    params = everything(tmp_path)
    params |= {
        "backup_dir": f"{tmp_path}/backup",
        "validate": [{"command": ["true"], "tree": [f"{tmp_path}/new", str(tmp_path)]}],
    }
    before = snapshot(tmp_path)

    announced = module(check=True, **params)

    assert snapshot(tmp_path) == before
    done = module(**params)
    assert announced["changed"] is True
    assert announced["changed_paths"] == done["changed_paths"]
    assert announced["diff"] == done["diff"]


def test_check_mode_works_on_a_machine_that_is_still_bare(module: Module, tmp_path: Path) -> None:
    result = module(
        check=True,
        directories=[{"path": f"{tmp_path}/etc", "owner": "matrix-nobody-yet"}],
        files=[{"path": f"{tmp_path}/server/conf.d/x", "content": "x", "group": "matrix-nobody-yet"}],
        secrets=[{"path": f"{tmp_path}/server/key", "owner": "matrix-nobody-yet"}],
        validate=[
            {"command": ["no-such-program"], "tree": str(tmp_path)},
            {"command": ["env", f"{tmp_path.parent}/no-such-program", f"{tmp_path}/server"], "tree": str(tmp_path)},
            {"command": ["false"], "tree": f"{tmp_path}/server"},
        ],
    )
    assert result["changed"] is True
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_owner_is_refused_otherwise(module: Module, tmp_path: Path) -> None:
    result = module(files=[{"path": f"{tmp_path}/x", "content": "x", "group": "matrix-nobody-yet"}])
    assert result["failed"]
    assert result["msg"] == f"{tmp_path}/x: this machine has no group 'matrix-nobody-yet' to be its group."


def test_owners_can_be_numbers(module: Module, tmp_path: Path) -> None:
    module(files=[{"path": f"{tmp_path}/x", "content": "x", "owner": "4321", "group": "4322"}])
    assert ((tmp_path / "x").stat().st_uid, (tmp_path / "x").stat().st_gid) == (4321, 4322)


def test_a_missing_directory_is_named_with_the_mend(module: Module, tmp_path: Path) -> None:
    result = module(files=[{"path": f"{tmp_path}/absent/x", "content": "x"}])
    assert f"{tmp_path}/absent/x cannot be written: its directory {tmp_path}/absent does not exist" in result["msg"]
    assert "Name it in directories" in result["msg"]


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"files": [{"path": "etc/x", "content": ""}]}, "file 'etc/x': the path must be absolute"),
        (
            {"files": [{"path": "/etc/../x", "content": ""}]},
            "file '/etc/../x': the path must be written in its shortest",
        ),
        ({"directories": [{"path": "/etc/x/"}]}, "directory '/etc/x/': the path must be written in its shortest"),
        ({"directories": [{"path": "//etc"}]}, "directory '//etc': the path must be written in its shortest"),
        ({"directories": [{"path": "/"}]}, "not / itself"),
        ({"links": [{"path": "/a\nb", "target": "x"}]}, "link '/a\\nb': the path holds a character"),
        (
            {"files": [{"path": "/x", "content": ""}, {"path": "/x", "content": ""}]},
            "/x: named twice, as file and as file",
        ),
        (
            {"files": [{"path": "/x", "content": ""}], "links": [{"path": "/x", "target": "y"}]},
            "/x: named twice, as file and as link",
        ),
        (
            {"secrets": [{"path": "/x"}], "directories": [{"path": "/x"}]},
            "/x: named twice, as directory and as secret",
        ),
        (
            {"files": [{"path": "/x", "content": ""}], "blocks": [{"path": "/x", "name": "n", "content": ""}]},
            "/x: named both as file and as the file of block 'n'",
        ),
        (
            {"files": [{"path": "/x/y", "content": ""}], "links": [{"path": "/x", "target": "z"}]},
            "/x/y: lies under /x, which is named as link",
        ),
        ({"files": [{"path": "/x", "content": "", "mode": "rw"}]}, "/x: mode 'rw' is none"),
        ({"files": [{"path": "/x", "content": "", "mode": 420}]}, "/x: mode 420 is none"),
        ({"directories": [{"path": "/x", "mode": "0789"}]}, "/x: mode '0789' is none"),
        ({"secrets": [{"path": "/x", "mode": "600 "}]}, "/x: mode '600 ' is none"),
        ({"files": [{"path": "/x"}]}, "/x: give exactly one of content and secret_content"),
        ({"files": [{"path": "/x", "content": "", "secret_content": ""}]}, "/x: give exactly one of"),
        (
            {"files": [{"path": "/x", "content": "", "state": "absent"}]},
            "/x: state is absent, so content has no meaning",
        ),
        ({"files": [{"path": "/x", "content": {"a": 1}}]}, "/x: content is a dict, not text; serialise it"),
        ({"files": [{"path": "/x", "secret_content": [SECRET]}]}, "/x: secret_content is a list, not text"),
        ({"links": [{"path": "/x"}]}, "/x: a link needs a target"),
        ({"blocks": [{"path": "/x", "name": "n"}]}, "/x: block 'n' needs content"),
        ({"blocks": [{"path": "/x", "name": "n\nm", "content": ""}]}, "/x: a block's name is one line"),
        ({"blocks": [{"path": "/x", "name": "n ", "content": ""}]}, "/x: a block's name is one line"),
        ({"blocks": [{"path": "x", "name": "n", "content": ""}]}, "block 'n' in 'x': the path must be absolute"),
        (
            {"blocks": [{"path": "/x", "name": "n", "content": ""}, {"path": "/x", "name": "n", "content": ""}]},
            "/x: block 'n' is named twice",
        ),
        (
            {"blocks": [{"path": "/x", "name": "n", "content": "# END cae.matrix n\n"}]},
            "/x: the content of block 'n' holds a marker",
        ),
        ({"validate": [{"command": [], "tree": "/etc"}]}, "validate: a command is missing"),
        ({"validate": [{"command": ["true"], "tree": []}]}, "validate: tree names the directories"),
        ({"validate": [{"command": ["true"], "tree": "etc"}]}, "validate: tree 'etc': the path must be absolute"),
        ({"backup_dir": "backup"}, "backup_dir 'backup': the path must be absolute"),
    ],
)
@pytest.mark.parametrize("check", [False, True])
def test_wrong_parameters_are_refused_before_anything_is_touched(
    module: Module, tmp_path: Path, params: dict[str, Any], says: str, check: bool
) -> None:
    good = {"path": f"{tmp_path}/made"}
    result = module(check=check, **(params | {"directories": [good, *params.get("directories", [])]}))
    assert result["failed"]
    assert result["msg"].startswith("Nothing was changed. ")
    assert says in result["msg"]
    assert list(tmp_path.iterdir()) == []


def test_all_mistakes_come_in_one_message(module: Module) -> None:
    result = module(files=[{"path": "a", "content": ""}, {"path": "/b"}], links=[{"path": "/c"}])
    assert len(result["msg"].splitlines()) == 3


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("directory", {"files": [{"path": "there", "content": ""}]}),
        ("directory", {"files": [{"path": "there", "state": "absent"}]}),
        ("directory", {"links": [{"path": "there", "target": "x"}]}),
        ("directory", {"links": [{"path": "there", "state": "absent"}]}),
        ("directory", {"secrets": [{"path": "there"}]}),
        ("directory", {"blocks": [{"path": "there", "name": "n", "content": ""}]}),
        ("file", {"directories": [{"path": "there"}]}),
        ("file", {"directories": [{"path": "there/below"}]}),
        ("file", {"files": [{"path": "there/below", "content": ""}]}),
        ("file", {"links": [{"path": "there", "state": "absent"}]}),
        ("dangling", {"directories": [{"path": "there"}]}),
        ("dangling", {"secrets": [{"path": "there"}]}),
        ("fifo", {"files": [{"path": "there", "content": ""}]}),
        ("fifo", {"links": [{"path": "there", "target": "x"}]}),
    ],
)
def test_what_is_there_is_not_swept_away(module: Module, tmp_path: Path, kind: str, params: dict[str, Any]) -> None:
    there = tmp_path / "there"
    make: dict[str, Callable[[], Any]] = {
        "directory": there.mkdir,
        "file": there.touch,
        "dangling": lambda: there.symlink_to("nowhere"),
        "fifo": lambda: os.mkfifo(there),
    }
    make[kind]()
    for items in params.values():
        items[0]["path"] = str(tmp_path / items[0]["path"])
    before = snapshot(tmp_path)

    result = module(**params, backup_dir=f"{tmp_path}/backup")

    assert result["failed"]
    assert str(there) in result["msg"]
    assert snapshot(tmp_path) == before


def test_a_file_takes_the_place_of_a_link_and_is_not_written_through_it(module: Module, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("theirs")
    (tmp_path / "x").symlink_to("elsewhere")
    module(files=[{"path": f"{tmp_path}/x", "content": "ours"}])
    assert not (tmp_path / "x").is_symlink()
    assert ((tmp_path / "x").read_text(), (tmp_path / "elsewhere").read_text()) == ("ours", "theirs")


@pytest.mark.parametrize(
    "params",
    [
        {"directories": [{"path": "home/planted"}]},
        {"directories": [{"path": "home/planted/below"}]},
        {"files": [{"path": "home/planted/x", "content": "x"}]},
        {"secrets": [{"path": "home/planted/x"}]},
        {"links": [{"path": "home/planted/x", "target": "y"}]},
        {"blocks": [{"path": "home/planted/x", "name": "n", "content": "x"}]},
        {"blocks": [{"path": "home/file", "name": "n", "content": "x"}]},
    ],
)
@pytest.mark.parametrize("whose", ["user's directory", "user's link", "anybody's directory"])
def test_root_is_not_led_elsewhere_by_a_users_link(
    module: Module, tmp_path: Path, params: dict[str, Any], whose: str
) -> None:
    home, target = tmp_path / "home", tmp_path / "target"
    home.mkdir()
    target.mkdir()
    (target / "file").write_text("root's")
    (home / "planted").symlink_to(target)
    (home / "file").symlink_to(target / "file")
    if whose == "user's directory":
        os.chown(home, NOBODY, NOBODY)
    elif whose == "anybody's directory":
        home.chmod(0o777)
    else:
        os.lchown(home / "planted", NOBODY, NOBODY)
        os.lchown(home / "file", NOBODY, NOBODY)
    before = snapshot(tmp_path)
    for items in params.values():
        items[0] = items[0] | {"path": str(tmp_path / items[0]["path"])}

    result = module(**params)

    assert "is a link that others than root can change" in result["msg"]
    assert snapshot(tmp_path) == before


def test_a_link_that_root_made_is_followed_in_a_path(module: Module, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir(mode=0o777)
    (tmp_path / "data").symlink_to("disk")
    module(
        directories=[{"path": f"{tmp_path}/data", "mode": "0700"}],
        files=[{"path": f"{tmp_path}/data/x", "content": ""}],
    )
    assert mode_of(tmp_path / "disk") == "0700"
    assert (tmp_path / "disk/x").is_file()


# --- drift, diff, secrets ---------------------------------------------------------------------------------------


def test_a_wrong_mode_or_owner_alone_is_mended_and_shown(module: Module, tmp_path: Path) -> None:
    params = {
        "directories": [{"path": f"{tmp_path}/d", "mode": "0750"}],
        "files": [{"path": f"{tmp_path}/d/f", "content": "same\n", "mode": "0640"}],
        "secrets": [{"path": f"{tmp_path}/d/s"}],
        "backup_dir": f"{tmp_path}/backup",
    }
    module(**params)
    token = (tmp_path / "d/s").read_text()
    os.chown(tmp_path / "d/f", NOBODY, NOBODY)
    (tmp_path / "d").chmod(0o777)
    (tmp_path / "d/s").chmod(0o644)

    result = module(**params)

    assert [(entry["before"], entry["after"]) for entry in result["diff"]] == [
        ("(directory) root:root 0777\n", "(directory) root:root 0750\n"),
        ("(secret, unchanged) root:root 0644\n", "(secret, unchanged) root:root 0600\n"),
        ("nobody:nogroup 0640\n", "root:root 0640\n"),
    ]
    assert [mode_of(tmp_path / name) for name in ("d", "d/f", "d/s")] == ["0750", "0640", "0600"]
    assert (tmp_path / "d/f").stat().st_uid == 0
    assert (tmp_path / "d/s").read_text() == token
    assert not (tmp_path / "backup").exists()
    assert not module(**params)["changed"]


def test_the_diff_shows_text_as_it_was_and_is(module: Module, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"caf\xe9\n")
    (tmp_path / "x").chmod(0o600)
    result = module(files=[{"path": f"{tmp_path}/x", "content": "café\n"}])
    assert result["diff"] == [
        {
            "before_header": f"{tmp_path}/x (root:root 0600)",
            "after_header": f"{tmp_path}/x (root:root 0644)",
            "before": "caf\ufffd\n",
            "after": "café\n",
        }
    ]


@pytest.mark.parametrize("check", [False, True])
def test_what_is_new_and_says_nothing_is_a_list(module: Module, tmp_path: Path, check: bool) -> None:
    """A bare machine has dozens of directories and shipped files, five lines of diff each."""
    result = module(
        check=check,
        directories=[{"path": f"{tmp_path}/{name}", "mode": "0755"} for name in ("a", "b", "b/c")],
        files=[
            {"path": f"{tmp_path}/a/one", "content": "1\n", "diff": False},
            {"path": f"{tmp_path}/a/shown", "content": "text\n"},
            {"path": f"{tmp_path}/b/two", "content": "2\n", "diff": False},
        ],
    )
    one, two = (hashlib.sha256(text).hexdigest() for text in (b"1\n", b"2\n"))
    assert [(entry["after_header"], entry["before"], entry["after"]) for entry in result["diff"]] == [
        ("new directories", "", "".join(f"{tmp_path}/{name} root:root 0755\n" for name in ("a", "b", "b/c"))),
        (
            "new files, in short",
            "",
            f"{tmp_path}/a/one (1 lines, sha256 {one})\n{tmp_path}/b/two (1 lines, sha256 {two})\n",
        ),
        (f"{tmp_path}/a/shown", "", "text\n"),
    ]


@pytest.mark.parametrize("check", [False, True])
def test_a_file_is_shown_in_short_where_it_is_asked_for(module: Module, tmp_path: Path, check: bool) -> None:
    (tmp_path / "changes").write_text("one\ntwo\n")
    (tmp_path / "goes").write_text("one\n")
    (tmp_path / "link").symlink_to("elsewhere")
    new, changes, goes = (hashlib.sha256(text).hexdigest() for text in (b"a\nb\nc\n", b"one\ntwo\n", b"one\n"))

    result = module(
        check=check,
        files=[
            {"path": f"{tmp_path}/is-new", "content": "a\nb\nc\n", "diff": False},
            {"path": f"{tmp_path}/changes", "content": "a\nb\nc\n", "diff": False},
            {"path": f"{tmp_path}/link", "content": "a\nb\nc\n", "diff": False},
            {"path": f"{tmp_path}/goes", "state": "absent", "diff": False},
        ],
    )

    after = f"(3 lines, sha256 {new})\n"
    assert [(entry["before"], entry["after"]) for entry in result["diff"]] == [
        ("", f"{tmp_path}/is-new {after}"),
        (f"(2 lines, sha256 {changes})\n", after),
        ("-> elsewhere\n", after),
        (f"(1 lines, sha256 {goes})\n", ""),
    ]


@pytest.mark.parametrize("check", [False, True])
def test_secrets_are_never_shown(module: Module, tmp_path: Path, check: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    journal: list[str] = []
    monkeypatch.setattr("syslog.syslog", lambda *arguments: journal.append(str(arguments)))
    monkeypatch.setattr("ansible.module_utils.basic.has_journal", False)
    for name in ("changes", "drifts", "goes"):
        (tmp_path / name).write_text(f"old {SECRET}\nline\n")
        (tmp_path / name).chmod(0o600)
    (tmp_path / "drifts").write_text(f"{SECRET}\nline\n")

    result = module(
        check=check,
        files=[
            {"path": f"{tmp_path}/is-new", "secret_content": f"{SECRET}\nline\n"},
            {"path": f"{tmp_path}/changes", "secret_content": f"{SECRET}\nline\n"},
            {"path": f"{tmp_path}/drifts", "secret_content": f"{SECRET}\nline\n", "mode": "0640"},
            {"path": f"{tmp_path}/goes", "state": "absent"},
        ],
        secrets=[{"path": f"{tmp_path}/token"}],
    )

    assert [(entry["before"], entry["after"]) for entry in result["diff"]] == [
        ("", "(secret, made on this machine) root:root 0600\n"),
        ("", "(secret, changed)\n"),
        ("(secret)\n", "(secret, changed)\n"),
        ("(secret, unchanged) root:root 0600\n", "(secret, unchanged) root:root 0640\n"),
        ("(secret)\n", ""),
    ]
    born = set() if check else {(tmp_path / "token").read_text()}
    for secret in {SECRET} | born:
        assert secret not in json.dumps(result)
        assert secret not in "".join(journal)
    assert journal


def test_the_result_that_ansible_prints_holds_no_secret(tmp_path: Path) -> None:
    process = in_a_process(files=[{"path": f"{tmp_path}/x", "secret_content": f"{SECRET}\nline\n"}])
    said = "".join(process.communicate())
    assert json.loads(said)["changed"]
    assert SECRET not in said


def test_a_token_is_born_once(module: Module, tmp_path: Path) -> None:
    params = {"secrets": [{"path": f"{tmp_path}/a"}, {"path": f"{tmp_path}/b"}]}
    assert module(**params)["changed"]
    first, second = (tmp_path / "a").read_text(), (tmp_path / "b").read_text()
    assert re.fullmatch(r"[A-Za-z0-9_-]{64}", first)
    assert first != second
    assert not module(**params)["changed"]
    assert (tmp_path / "a").read_text() == first


def test_a_signing_key_is_one_that_synapse_reads(module: Module, tmp_path: Path) -> None:
    module(secrets=[{"path": f"{tmp_path}/key", "kind": "synapse_signing_key"}])
    algorithm, version, seed = (tmp_path / "key").read_text().removesuffix("\n").split(" ")
    assert algorithm == "ed25519"
    assert re.fullmatch(r"a_[A-Za-z]{4}", version)
    assert len(base64.b64decode(seed + "=")) == 32
    assert not seed.endswith("=")


def test_a_person_s_own_secret_is_left_alone(module: Module, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("brought along")
    module(secrets=[{"path": f"{tmp_path}/key"}])
    assert (tmp_path / "key").read_text() == "brought along"


def test_an_empty_secret_is_refused_with_the_mend(module: Module, tmp_path: Path) -> None:
    (tmp_path / "key").touch()
    result = module(secrets=[{"path": f"{tmp_path}/key"}], files=[{"path": f"{tmp_path}/x", "content": ""}])
    assert result["msg"].startswith(
        f"The secret {tmp_path}/key is empty, and is never overwritten. Put the right one back"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_secret_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    steps = document_set.plan(
        {"secrets": [{"path": f"{tmp_path}/k", "owner": "root", "group": "root", "mode": "0600", "kind": "token"}]}
    ).steps
    (tmp_path / "k").write_text("faster")
    with pytest.raises(FileExistsError):
        document_set.Transaction().apply(steps)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("k", "faster")]


# --- all or nothing ---------------------------------------------------------------------------------------------


def calls_made(
    monkeypatch: pytest.MonkeyPatch, root: Path, name: str, fail_at: int, how: Callable[[], None]
) -> list[str]:
    """Let the nth call of an os function that concerns ``root`` fail (before it does anything), counting from 1."""
    real, seen = getattr(os, name), list[str]()

    def call(*arguments: Any, **more: Any) -> Any:
        if isinstance(arguments[0], int) or any(str(argument).startswith(str(root)) for argument in arguments):
            seen.append(str(arguments))
            if len(seen) == fail_at:
                how()
        return real(*arguments, **more)

    monkeypatch.setattr(os, name, call)
    return seen


def no_space() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


# How often a run of everything() calls each of these.
CALLS = {"mkdir": 3, "fchown": 9, "fchmod": 9, "fsync": 9, "link": 6, "symlink": 1, "rename": 6, "unlink": 27}


@pytest.mark.parametrize("name", CALLS)
def test_every_call_is_made_to_fail_below(
    module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    params = everything(tmp_path)
    with monkeypatch.context() as patch:
        seen = calls_made(patch, tmp_path, name, 0, no_space)
        module(**params)
    assert len(seen) == CALLS[name]


@pytest.mark.parametrize(("name", "nth"), [(name, nth) for name, count in CALLS.items() for nth in range(1, count + 1)])
def test_a_write_that_fails_half_way_is_undone(
    module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, nth: int
) -> None:
    params = everything(tmp_path)
    before = snapshot(tmp_path)
    with monkeypatch.context() as patch:
        calls_made(patch, tmp_path, name, nth, no_space)
        result = module(**params)
    if name == "unlink" and "msg" not in result:
        # All was in place, only a second name was not removed: no failure, and the next run does not mind.
        assert result["changed"]
        assert all(".cae-matrix-" in path for path in module(**params)["changed_paths"])
        assert not module(**params)["changed"]
        return
    assert result["msg"] == "Nothing was changed, because writing failed: [Errno 28] No space left on device"
    assert snapshot(tmp_path) == before
    assert module(**params)["changed"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_ended_half_way_is_undone(
    module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    params = everything(tmp_path)
    before = snapshot(tmp_path)
    with monkeypatch.context() as patch:
        calls_made(patch, tmp_path, "rename", 3, lambda: os.kill(os.getpid(), number))
        result = module(**params)
    assert f"ended from outside ({number.name})" in result["msg"]
    assert snapshot(tmp_path) == before


def test_what_a_killed_run_left_behind_does_no_harm(module: Module, tmp_path: Path) -> None:
    for suffix in ("new", "previous"):
        (tmp_path / f".x.cae-matrix-{suffix}").write_text("left behind")
    (tmp_path / "x").write_text("old")
    module(files=[{"path": f"{tmp_path}/x", "content": "new"}])
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("x", "new")]


def test_what_a_killed_run_left_behind_goes_with_the_next_run(module: Module, tmp_path: Path) -> None:
    """Also where nothing else is to be changed, and beside the files of blocks, secrets and links."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "shared").write_text("others\n")
    params = {
        "directories": [{"path": f"{tmp_path}/tree"}],
        "files": [{"path": f"{tmp_path}/files", "content": "x"}],
        "secrets": [{"path": f"{tmp_path}/tree/secret"}],
        "links": [{"path": f"{tmp_path}/tree/link", "target": "secret"}],
        "blocks": [{"path": f"{tmp_path}/shared", "name": "one", "content": "ours"}],
    }
    module(**params)
    sound = snapshot(tmp_path)
    left = [
        tmp_path / name
        for name in (
            ".shared.cae-matrix-new",
            "tree/.a.0.cae-matrix-new",  # No process has that number.
            "tree/.a.cae-matrix-new",
            "tree/.secret.cae-matrix-previous",
        )
    ]
    for path in left:
        path.write_text("left behind")
    announced = module(check=True, **params)
    assert announced["changed_paths"] == sorted(map(str, left))
    done = module(**params)
    assert (done["changed"], done["changed_paths"]) == (True, announced["changed_paths"])
    assert snapshot(tmp_path) == sound
    # Of one that is still writing.
    (tmp_path / f"tree/.a.{os.getpid()}.cae-matrix-new").touch()
    assert not module(**params)["changed"]


def test_a_rehearsal_that_was_killed_leaves_nothing(
    module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a copy of what is secret, too."""
    monkeypatch.setattr(document_rehearsal, "_RUN", str(tmp_path))
    dead = subprocess.Popen(["true"])
    dead.wait()
    others = [tmp_path / f"cae-matrix-{os.getpid()}-alive", tmp_path / "cae-matrix"]
    for path in [tmp_path / f"cae-matrix-{dead.pid}-dead", *others]:
        path.mkdir()
    module(files=[{"path": f"{tmp_path}/cae-matrix/file", "content": "x"}])
    assert sorted(tmp_path.iterdir()) == sorted(others)


def test_a_reader_sees_the_old_or_the_new_file_and_nothing_else(
    module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").write_text("old")
    seen: list[tuple[str, str, int]] = []

    def look(name: str) -> None:
        real = getattr(os, name)

        def call(*arguments: Any, **more: Any) -> Any:
            result = real(*arguments, **more)
            seen.append(((tmp_path / "x").read_text(), mode_of(tmp_path / "x"), (tmp_path / "x").stat().st_uid))
            return result

        monkeypatch.setattr(os, name, call)

    for name in ("open", "fchown", "fchmod", "fsync", "link", "rename", "unlink"):
        look(name)
    module(files=[{"path": f"{tmp_path}/x", "content": "new", "owner": "nobody", "mode": "0600"}])
    assert set(seen) == {("old", "0644", 0), ("new", "0600", NOBODY)}


# --- backups ----------------------------------------------------------------------------------------------------


def test_previous_versions_are_kept_with_owner_and_mode(module: Module, tmp_path: Path) -> None:
    params = everything(tmp_path)
    (tmp_path / "old").chmod(0o640)
    os.chown(tmp_path / "old", NOBODY, NOBODY)

    result = module(**params, backup_dir=f"{tmp_path}/backups/matrix/i")

    kept = Path(result["backup_set"])
    assert kept.parent == tmp_path / "backups/matrix/i/documents"
    names = sorted(str(path.relative_to(str(kept) + str(tmp_path))) for path in kept.rglob("*") if not path.is_dir())
    assert names == ["gone", "link", "old", "shared"]
    old = Path(str(kept) + str(tmp_path)) / "old"
    assert (old.read_text(), mode_of(old), old.stat().st_uid) == ("old\n", "0640", NOBODY)
    assert os.readlink(old.parent / "link") == "nowhere"
    assert [mode_of(tmp_path / name) for name in ("backups", "backups/matrix", "backups/matrix/i")] == [
        "0755",
        "0755",
        "0700",
    ]
    assert mode_of(kept) == "0700"


def test_the_newest_five_sets_stay(module: Module, tmp_path: Path) -> None:
    sets = []
    for number in range(8):
        result = module(files=[{"path": f"{tmp_path}/x", "content": str(number)}], backup_dir=f"{tmp_path}/backup")
        sets.append(result.get("backup_set"))
    assert sets[0] is None
    assert sorted(str(path) for path in (tmp_path / "backup/documents").iterdir()) == sets[3:]
    assert [Path(f"{kept}{tmp_path}/x").read_text() for kept in sets[3:]] == ["2", "3", "4", "5", "6"]


def test_sets_are_named_in_the_order_of_their_time(
    module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the clock is between two seconds while it is asked."""
    path, backup = f"{tmp_path}/x", f"{tmp_path}/backup"
    module(files=[{"path": path, "content": "0"}], backup_dir=backup)
    begin = 1795661507 * 10**9
    for number, moment in enumerate((begin + 999_999_990, begin + 10**9 + 10), 1):
        monkeypatch.setattr(time, "time_ns", partial(int, moment))
        result = module(files=[{"path": path, "content": str(number)}], backup_dir=backup)
        stamp = Path(result["backup_set"]).name
        assert stamp == time.strftime("%Y%m%dT%H%M%S", time.gmtime(moment // 10**9)) + f".{moment % 10**9:09d}Z"


# --- blocks and links -------------------------------------------------------------------------------------------


def test_the_file_of_a_block_keeps_its_owner_and_mode_and_other_lines(module: Module, tmp_path: Path) -> None:
    shared = tmp_path / "pg_hba.conf"
    shared.write_bytes(b"# caf\xe9\nlocal all all peer")
    shared.chmod(0o640)
    os.chown(shared, NOBODY, NOBODY)
    params: dict[str, Any] = {
        "blocks": [
            {"path": str(shared), "name": "first", "content": "one\n", "position": "start"},
            {"path": str(shared), "name": "second", "content": "two", "position": "start"},
            {"path": str(shared), "name": "last", "content": ""},
        ]
    }
    module(**params)
    assert shared.read_bytes() == (
        b"# BEGIN cae.matrix first\none\n# END cae.matrix first\n"
        b"# BEGIN cae.matrix second\ntwo\n# END cae.matrix second\n"
        b"# caf\xe9\nlocal all all peer\n"
        b"# BEGIN cae.matrix last\n# END cae.matrix last\n"
    )
    assert (mode_of(shared), shared.stat().st_uid, shared.stat().st_gid) == ("0640", NOBODY, NOBODY)
    assert not module(**params)["changed"]

    module(blocks=[{"path": str(shared), "name": name, "state": "absent"} for name in ("first", "second", "last")])
    assert shared.read_bytes() == b"# caf\xe9\nlocal all all peer\n"


def test_a_block_in_a_linked_file_leaves_the_link(module: Module, tmp_path: Path) -> None:
    (tmp_path / "real").write_text("x\n")
    (tmp_path / "link").symlink_to("real")
    module(blocks=[{"path": f"{tmp_path}/link", "name": "n", "content": "y"}])
    assert (tmp_path / "link").is_symlink()
    assert "y\n" in (tmp_path / "real").read_text()


def test_removing_a_block_from_no_file_makes_none(module: Module, tmp_path: Path) -> None:
    result = module(blocks=[{"path": f"{tmp_path}/no/such", "name": "n", "state": "absent"}])
    assert result["changed"] is False


A = "# BEGIN cae.matrix a\n1\n# END cae.matrix a\n"
B = "# BEGIN cae.matrix b\n1\n# END cae.matrix b\n"


@pytest.mark.parametrize(
    ("text", "position", "after"),
    [
        ("", "end", B),
        ("x\n", "start", B + "x\n"),
        ("x", "end", "x\n" + B),
        (A + "x\n", "start", A + B + "x\n"),
        (A + "# c\n\n" + B + "x\n", "start", A + "# c\n\n" + B + "x\n"),  # stays: only comments before it
        ("x\n" + A + B, "start", B + "x\n" + A),  # somebody's line came before it: moved
        (B + A + "# c\n", "end", B + A + "# c\n"),
        (B + A + "x\n", "end", A + "x\n" + B),
        (B.replace("1", "old") + "x\n", "start", B + "x\n"),
        (B.replace("\n", " \n") + "x\n", "start", B + "x\n"),
    ],
)
def test_where_a_block_stands(text: str, position: str, after: str) -> None:
    assert document_set.with_block(text, "b", "1", position, "/x") == after
    assert document_set.with_block(after, "b", "1", position, "/x") == after


@pytest.mark.parametrize(
    "text", [B.splitlines(True)[0], B.splitlines(True)[2], B + B, "".join(reversed(B.splitlines(True)))]
)
def test_broken_markers_are_for_a_person_to_mend(text: str) -> None:
    with pytest.raises(document_set.DocumentError, match=r"/x: the markers of block 'b' do not match"):
        document_set.with_block(text, "b", "1", "end", "/x")


LINES = st.lists(st.sampled_from(["", "x", "y", "# c", "  # d", "local all all peer"]))
BLOCKS = st.lists(st.sampled_from(["a", "b", "c"]), unique=True)
POSITION = st.sampled_from(["start", "end"])


@given(LINES, BLOCKS, POSITION, st.text("01\n"), st.randoms())
def test_blocks_leave_all_other_lines_in_their_order(
    lines: list[str], names: list[str], position: str, content: str, random: Any
) -> None:
    pieces = [[line] for line in lines]
    for name in names:
        block = [f"# BEGIN cae.matrix {name}", "content", f"# END cae.matrix {name}"]
        pieces.insert(random.randint(0, len(pieces)), block)
    text = "".join(f"{line}\n" for piece in pieces for line in piece)

    after = document_set.with_block(text, "b", content, position, "/x")

    assert document_set.with_block(after, "b", content, position, "/x") == after
    gone = document_set.with_block(after, "b", None, position, "/x")
    assert gone == document_set.with_block(text, "b", None, position, "/x")
    assert "".join(after.splitlines(True)).count("# BEGIN cae.matrix b\n") == 1
    real = [line for line in document_set.with_block(gone, "a", None, "end", "/x").splitlines() if line in ("x", "y")]
    assert real == [line for line in lines if line in ("x", "y")]


def test_processes_at_once_lose_nothing_of_each_other(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    names = [f"instance-{number}" for number in range(8)]
    processes = [in_a_process(blocks=[{"path": str(shared), "name": name, "content": name}]) for name in names]
    for process in processes:
        said, wrong = process.communicate(timeout=patient(START))
        assert json.loads(said)["changed"], wrong
    lines = shared.read_text().splitlines()
    assert sorted(line for line in lines if not line.startswith("#")) == names
    assert len(lines) == 3 * len(names)


def test_a_run_that_has_made_its_plan_is_not_overtaken(tmp_path: Path) -> None:
    shared, reached, go = tmp_path / "etc/shared", tmp_path / "reached", tmp_path / "go"
    shared.parent.mkdir()
    os.mkfifo(reached)
    os.mkfifo(go)
    first = in_a_process(
        blocks=[{"path": str(shared), "name": "first", "content": "1"}],
        validate=shell(f"echo >{reached}; read -r line <{go}", shared.parent),
    )
    reached.read_text()
    second = in_a_process(blocks=[{"path": str(shared), "name": "second", "content": "2"}])

    def waits() -> bool:
        return any("->" in line and f" {second.pid} " in line for line in Path("/proc/locks").read_text().splitlines())

    eventually(lambda: second.poll() is not None or waits(), "the second one waits")
    go.write_text("\n")
    for process in (first, second):
        assert json.loads(process.communicate(timeout=patient(START))[0])["changed"]
    assert [line for line in shared.read_text().splitlines() if not line.startswith("#")] == ["1", "2"]


def test_a_lock_that_is_held_is_named_after_the_wait(tmp_path: Path) -> None:
    path = str(tmp_path / "run/lock")
    with document_set.lock(path):
        said = rf"writing on this machine for 0\.2 s: it holds {path} \(process {os.getpid()}\)"
        with pytest.raises(document_set.DocumentError, match=said), document_set.lock(path, timeout=0.2):
            pass
    with document_set.lock(path, timeout=0.2):
        pass


def test_a_lock_that_another_user_laid_out_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    os.chown(tmp_path / "lock", NOBODY, NOBODY)
    with (
        pytest.raises(document_set.DocumentError, match="belongs to somebody else"),
        document_set.lock(f"{tmp_path}/lock"),
    ):
        pass


def test_a_link_takes_the_place_of_a_file_which_is_kept(module: Module, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("by hand")
    result = module(links=[{"path": f"{tmp_path}/x", "target": "y"}], backup_dir=f"{tmp_path}/backup")
    assert os.readlink(tmp_path / "x") == "y"
    assert Path(f"{result['backup_set']}{tmp_path}/x").read_text() == "by hand"


def test_a_link_is_removed_and_what_it_points_to_is_not(module: Module, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "x").symlink_to("d")
    params = {"links": [{"path": f"{tmp_path}/x", "state": "absent"}]}
    assert module(**params)["changed"]
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
    assert not module(**params)["changed"]


# --- validation -------------------------------------------------------------------------------------------------


def shell(script: str, *trees: Path) -> list[dict[str, Any]]:
    return [{"command": ["sh", "-c", script], "tree": [str(tree) for tree in trees]}]


@pytest.mark.parametrize("check", [False, True])
def test_the_program_sees_the_new_set_at_its_real_place(module: Module, tmp_path: Path, check: bool) -> None:
    root = tmp_path / "etc"
    root.mkdir()
    params = everything(root)
    (root / "untouched").write_text("as it was")
    (root / "untouched").chmod(0o604)
    os.chown(root / "untouched", NOBODY, 0)
    (root / "relative").symlink_to("old")
    script = f"""
        set -e; cd {root}
        grep -qx new old; grep -qx new relative; test ! -e gone; test "$(readlink link)" = new/deep
        grep -q ours shared; test -s new/token; grep -q {SECRET} new/password
        test "$(stat -c '%U %a' new/deep/file)" = "nobody 640"; test "$(stat -c %a open)" = 700
        test "$(stat -c '%U %a' untouched)" = "nobody 604"; test -L relative
        grep -qx elsewhere {tmp_path}/lib/x
        echo seen >{tmp_path}/seen
    """
    (tmp_path / "lib").mkdir()
    params["files"].append({"path": f"{tmp_path}/lib/x", "content": "elsewhere\n"})

    result = module(check=check, **params, validate=shell(script, root, tmp_path / "lib"))

    assert result.get("msg") is None
    assert result["changed"]
    assert (tmp_path / "seen").exists()


@pytest.mark.parametrize("check", [False, True])
def test_what_the_program_refuses_is_never_put_in_place(module: Module, tmp_path: Path, check: bool) -> None:
    params = everything(tmp_path)
    before = snapshot(tmp_path)
    script = f"! grep -qx new {tmp_path}/old || {{ echo 'line 1: new is wrong' >&2; exit 3; }}"
    result = module(check=check, **params, validate=shell(script, tmp_path), backup_dir=f"{tmp_path}/backup")
    assert "(exit status 3), so nothing was changed:\nline 1: new is wrong" in result["msg"]
    assert snapshot(tmp_path) == before


def test_what_the_program_writes_there_is_lost(module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.setattr("tempfile.mkdtemp", lambda **more: str(work))
    (tmp_path / "etc").mkdir()
    script = f"touch {tmp_path}/etc/mark; test -e {tmp_path}/etc/mark; test -e {work}"
    result = module(files=[{"path": f"{tmp_path}/etc/x", "content": ""}], validate=shell(script, tmp_path / "etc"))
    assert result["changed"]
    assert [path.name for path in (tmp_path / "etc").iterdir()] == ["x"]
    assert not work.exists()


def test_a_tree_that_is_new_is_judged_too_and_leaves_no_trace(module: Module, tmp_path: Path) -> None:
    tree = tmp_path / "new/tree"
    params: dict[str, Any] = {
        "directories": [{"path": f"{tree}/deep"}],
        "files": [{"path": f"{tree}/deep/x", "content": "wrong"}],
    }
    refused = module(**params, validate=shell(f"! grep -q wrong {tree}/deep/x", tree))
    assert "refuses the new configuration" in refused["msg"]
    assert list(tmp_path.iterdir()) == []
    assert module(**params, validate=shell(f"grep -q wrong {tree}/deep/x", tree))["changed"]


def test_the_program_is_not_asked_when_nothing_it_sees_changes(module: Module, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    params = {"files": [{"path": f"{tmp_path}/a/x", "content": ""}]}
    assert module(**params, validate=shell("exit 1", tmp_path / "b"))["changed"]
    assert module(**params, validate=shell("exit 1", tmp_path / "a"))["changed"] is False


def test_every_program_has_to_agree(module: Module, tmp_path: Path) -> None:
    result = module(
        files=[{"path": f"{tmp_path}/x", "content": ""}],
        validate=shell("exit 0", tmp_path) + shell("echo second; exit 1", tmp_path),
    )
    assert "second" in result["msg"]
    assert list(tmp_path.iterdir()) == []


def test_a_secret_that_the_program_quotes_is_masked(module: Module, tmp_path: Path) -> None:
    result = module(
        files=[{"path": f"{tmp_path}/x", "secret_content": f"a: 1\npassword: '{SECRET}'\n"}],
        secrets=[{"path": f"{tmp_path}/token"}],
        validate=shell(f"cd {tmp_path}; cat x token; tail -n 1 x | sed 's/password/bad/'; exit 1", tmp_path),
    )
    assert "bad: '(secret)'" in result["msg"]
    assert SECRET not in result["msg"]
    assert not re.search(r"[A-Za-z0-9_-]{64}", result["msg"])


def test_a_missing_program_is_refused(module: Module, tmp_path: Path) -> None:
    result = module(
        files=[{"path": f"{tmp_path}/x", "content": ""}],
        validate=[{"command": ["no-such-program", "-t"], "tree": str(tmp_path)}],
    )
    assert "there is no program 'no-such-program' on this machine. Install it first" in result["msg"]
    assert list(tmp_path.iterdir()) == []


def test_where_no_private_namespace_is_allowed_the_error_says_so(
    module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin/unshare"
    fake.write_text("#!/bin/sh\necho 'unshare: unshare failed: Operation not permitted' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    (tmp_path / "etc").mkdir()
    result = module(files=[{"path": f"{tmp_path}/etc/x", "content": ""}], validate=shell("exit 0", tmp_path / "etc"))
    assert (
        "does not allow a private mount namespace (unshare: unshare failed: Operation not permitted)" in result["msg"]
    )
    assert list((tmp_path / "etc").iterdir()) == []


# --- what somebody else has made ----------------------------------------------------------------------------------


@pytest.fixture
def of_others(everything_is_ours: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A directory that is not the collection's, with somebody's file and link; below C(own), everything is ours."""
    monkeypatch.setattr(document_set, "OURS", re.compile(f"{tmp_path}/own/"))
    (tmp_path / "own").mkdir()
    (tmp_path / "own/x").write_text("anything\n")
    (tmp_path / "x").write_text("mine\n")
    (tmp_path / "link").symlink_to("/dev/null")
    (tmp_path / "empty").touch()
    (tmp_path / "ours").write_text("# Written by cae.matrix.\nold\n")
    return tmp_path


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize(
    "params",
    [
        {"files": [{"path": "{}/x", "content": "new\n"}, {"path": "{}/new", "content": "new\n"}]},
        {"files": [{"path": "{}/x", "secret_content": "new\n"}]},
        # A unit that somebody has masked, for instance.
        {"files": [{"path": "{}/link", "content": "new\n"}]},
        {"links": [{"path": "{}/x", "target": "new"}]},
    ],
    ids=["file", "secret file", "link in place of a file", "file in place of a link"],
)
def test_what_somebody_else_has_made_is_never_replaced(
    module: Module, of_others: Path, params: dict[str, Any], check: bool
) -> None:
    before = snapshot(of_others)
    placed = json.loads(json.dumps(params).replace("{}", str(of_others)))
    result = module(check=check, **placed, backup_dir=f"{of_others}/own/backup")
    assert "is there already, and was not written by cae.matrix" in result["msg"]
    assert "move it away" in result["msg"]
    assert snapshot(of_others) == before


def test_what_is_ours_is_replaced_and_what_is_as_it_should_be_is_adopted(module: Module, of_others: Path) -> None:
    files = [{"path": f"{of_others}/{name}", "content": "new\n"} for name in ("ours", "own/x", "empty")]
    files.append({"path": f"{of_others}/x", "content": "mine\n", "mode": "0600"})
    result = module(files=files, backup_dir=f"{of_others}/own/backup")
    assert result["changed_paths"] == [file["path"] for file in files]
    assert Path(result["backup_set"] + f"{of_others}/ours").read_text().endswith("old\n")
    assert mode_of(of_others / "x") == "0600"


def test_what_somebody_else_has_made_is_replaced_if_it_is_what_was_looked_at(module: Module, of_others: Path) -> None:
    looked_at = hashlib.sha256(b"mine\n").hexdigest()
    files = [{"path": f"{of_others}/x", "content": "mine, with more\n", "replaces": looked_at}]
    result = module(files=files, backup_dir=f"{of_others}/own/backup")
    assert result["changed_paths"] == [f"{of_others}/x"]
    assert Path(result["backup_set"] + f"{of_others}/x").read_text() == "mine\n"
    # Somebody has changed it since; nothing says whose it is.
    assert "was not written by cae.matrix" in module(files=[files[0] | {"content": "another\n"}])["msg"]


def test_what_somebody_else_has_made_is_not_removed(module: Module, of_others: Path) -> None:
    (of_others / "led").symlink_to("x")
    before = snapshot(of_others)
    gone = {
        "files": [{"path": f"{of_others}/{name}", "state": "absent"} for name in ("x", "link")],
        "links": [{"path": f"{of_others}/led", "target": "y", "state": "absent"}],
    }
    assert module(**gone)["changed"] is False
    gone["files"], gone["links"] = gone["files"][1:], [{"path": f"{of_others}/x", "target": "y", "state": "absent"}]
    assert module(**gone)["changed"] is False
    assert snapshot(of_others) == before
    gone = {
        "files": [{"path": f"{of_others}/ours", "state": "absent"}],
        "links": [{"path": f"{of_others}/led", "target": "x", "state": "absent"}],
    }
    assert module(**gone)["changed_paths"] == [f"{of_others}/ours", f"{of_others}/led"]


@pytest.mark.parametrize(
    "name", ["directory.service.j2", "directory.timer.j2", "nginx.conf.j2", "matrix-synapse@.service"]
)
def test_templates_of_such_files_say_so(name: str) -> None:
    (found,) = (Path(document_set.__file__).parents[3] / "roles").glob(f"*/*/{name}")
    assert document_set.MARK in found.read_bytes()


def test_a_warning_that_is_forbidden_refuses(module: Module, tmp_path: Path) -> None:
    params = {"files": [{"path": f"{tmp_path}/x", "content": "x"}]}
    warns = shell("echo 'conflicting server name \"a.test\"'; exit 0", tmp_path)
    refused = module(**params, validate=[each | {"forbid": 'name "(a|b)\\.test"'} for each in warns])
    assert "counts as an error here, so nothing was changed:\nconflicting server name" in refused["msg"]
    assert not (tmp_path / "x").exists()
    assert module(**params, validate=[each | {"forbid": 'name "b\\.test"'} for each in warns])["changed"]
