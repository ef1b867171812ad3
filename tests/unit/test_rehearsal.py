# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What Synapse could not start with is found before it is put in place: by the program that its own Python runs."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cae.matrix.tests.patience import START, patient
from ansible_collections.cae.matrix.tests.unit import programs
from ansible_collections.cae.matrix.tests.unit.homeserver import IMPORTS, KEY, OWN, Homeserver

SECRET = "a-secret-that-nobody-is-shown"
# One process for all: reading Synapse's code is what takes time.
RUN = """
import contextlib, io, json, sys
from cae_matrix_rehearsal import main
for line in sys.stdin:
    arguments, declared = json.loads(line)
    sys.stdin, said = io.StringIO(declared), io.StringIO()
    with contextlib.redirect_stderr(said):
        status = main(arguments)
    print(json.dumps([status, said.getvalue()]), flush=True)
"""
MODULES = {
    "broken_module.py": "raise RuntimeError('it wants another Synapse')\n",
    "fine_module.py": """
from synapse.config._base import ConfigError

class Fine:
    @staticmethod
    def parse_config(config):
        if "wrong" in config:
            raise ConfigError("is not known here", ("wrong",))
        return config
""",
}
LDAP = {
    "module": "ldap_auth_provider.LdapAuthProviderModule",
    "config": {
        "enabled": True,
        "uri": "ldap://ldap.coop.example",
        "start_tls": True,
        "base": "ou=users,dc=coop,dc=example",
        "attributes": {"uid": "cn", "mail": "mail", "name": "givenName"},
        "bind_dn": "cn=matrix,dc=coop,dc=example",
        "bind_password": SECRET,
    },
}
SAML = {"sp_config": {"metadata": {}, "description": "Coop", "name": ["Coop", "fr"]}}


class Rehearsal:
    """The program, and a directory with the configuration of a server."""

    def __init__(self, python: str, directory: Path) -> None:
        self.directory = directory / "synapse"
        self.directory.mkdir()
        for name, content in MODULES.items():
            (directory / name).write_text(content)
        self.log = directory / "log.yaml"
        self.log.write_text('{"version": 1}')
        self.config = {
            "server_name": "coop.example",
            "public_baseurl": "https://matrix.coop.example/",
            "report_stats": False,
            "database": {"name": "sqlite3", "args": {"database": str(directory / "db")}},
            "signing_key": KEY,
            "media_store_path": str(directory / "media"),
            "macaroon_secret_key": SECRET,
            "trusted_key_servers": [],
            "log_config": str(self.log),
        }
        (self.directory / "homeserver.yaml").write_text(json.dumps(self.config))
        paths = (directory, OWN / "rehearsal", *IMPORTS)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
        command = [python, "-c", RUN]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=directory, text=True
        )

    def __call__(self, declared: Any, *flags: str) -> str:
        """What it says against it; nothing if Synapse could start."""
        text = declared if isinstance(declared, str) else json.dumps(declared)
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([[*flags, str(self.directory)], text]) + "\n")
        self._process.stdin.flush()
        status, said = json.loads(self._process.stdout.readline())
        assert bool(status) is bool(said)
        return str(said)

    def end(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def rehearsal(python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    one = Rehearsal(python, tmp_path_factory.mktemp("rehearsal"))
    try:
        yield one
    finally:
        one.end()


def listener(module: str) -> dict[str, Any]:
    resources = {"/_extra": {"module": module, "config": {}}}
    return {"listeners": [{"type": "http", "path": "/s", "resources": [], "additional_resources": resources}]}


def oidc(module: str) -> dict[str, Any]:
    provider = {"idp_id": "coop", "idp_name": "Coop", "issuer": "https://sso.example/", "client_id": "x"}
    mapping = {"module": module, "config": {}}
    return {"oidc_providers": [provider | {"client_secret": SECRET, "user_mapping_provider": mapping}]}


NAMED: dict[str, Any] = {
    "modules": lambda module: {"modules": [{"module": module, "config": {}}]},
    "password_providers": lambda module: {"password_providers": [{"module": module, "config": {}}]},
    "spam_checker": lambda module: {"spam_checker": {"module": module, "config": {}}},
    "spam_checkers": lambda module: {"spam_checker": [{"module": module, "config": {}}]},
    "third_party_event_rules": lambda module: {"third_party_event_rules": {"module": module, "config": {}}},
    "presence_router": lambda module: {"presence": {"presence_router": {"module": module, "config": {}}}},
    "media": lambda module: {"media_storage_providers": [{"module": module, "store_local": True, "config": {}}]},
    "resource": listener,
    "oidc": oidc,
    "saml": lambda module: {"saml2_config": {"user_mapping_provider": {"module": module, "config": {}}, **SAML}},
}


def test_what_runs_already_could_start(rehearsal: Rehearsal) -> None:
    assert rehearsal("") == ""
    assert rehearsal(rehearsal.config) == ""
    assert rehearsal({"modules": [{"module": "fine_module.Fine", "config": {}}]}) == ""


@pytest.mark.parametrize("flags", [(), ("--imports",)], ids=["whole", "imports"])
@pytest.mark.parametrize("where", NAMED)
@pytest.mark.parametrize(
    ("module", "why"),
    [
        ("not_installed.Module", "No module named 'not_installed'"),
        ("fine_module.Missing", "no attribute 'Missing'"),
        ("broken_module.Module", "it wants another Synapse"),
    ],
)
def test_code_that_cannot_be_imported(
    rehearsal: Rehearsal, where: str, module: str, why: str, flags: tuple[str, ...]
) -> None:
    said = rehearsal(NAMED[where](module), *flags)
    assert f"{module} cannot be imported" in said
    assert why in said
    assert "synapse_extra_requirements" in said
    assert SECRET not in said


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"modules": [{"module": "fine_module.Fine", "config": {"wrong": 1}}]}, ("modules", "wrong", "not known here")),
        ({"opentracing": {"enabled": True}}, ("opentracing", "synapse_extra_requirements")),
        ({"sentry": {"dsn": "https://x@sentry.example/1"}}, ("sentry", "synapse_extra_requirements")),
        ({"max_upload_size": "many"}, ("many",)),
        ({"macaroon_secret_key_path": "/nowhere"}, ("macaroon_secret_key_path",)),
        ({"oidc_providers": [{"idp_id": "coop", "client_secret": [SECRET]}]}, ("oidc_providers",)),
        ({"log_config": "/nowhere/log.yaml"}, ("/nowhere/log.yaml",)),
        ([], ("no mapping",)),
        ("{", ("no YAML",)),
    ],
    ids=str,
)
def test_a_configuration_that_synapse_would_refuse(rehearsal: Rehearsal, declared: Any, words: tuple[str, ...]) -> None:
    if declared == []:
        declared = "[1]"
    said = rehearsal(declared)
    assert said
    for word in words:
        assert word in said
    assert SECRET not in said


def test_imports_alone_ask_for_no_file_that_is_still_to_come(rehearsal: Rehearsal) -> None:
    assert rehearsal({"macaroon_secret_key_path": "/nowhere", "log_config": "/nowhere"}, "--imports") == ""


def test_the_journal_s_classes_are_looked_for_and_not_made(rehearsal: Rehearsal, tmp_path: Path) -> None:
    there = rehearsal.log.read_text()
    file = {"class": "logging.handlers.WatchedFileHandler", "filename": str(tmp_path / "synapse.log")}
    try:
        rehearsal.log.write_text(json.dumps({"version": 1, "handlers": {"file": file}}))
        assert rehearsal("") == ""
        assert not list(tmp_path.iterdir())
        rehearsal.log.write_text(json.dumps({"version": 1, "handlers": {"gone": {"class": "not_installed.Handler"}}}))
        assert "handlers.gone" in rehearsal("")
    finally:
        rehearsal.log.write_text(there)


def test_nothing_is_made(rehearsal: Rehearsal) -> None:
    parent = rehearsal.directory.parent
    before = sorted(parent.rglob("*"))
    assert rehearsal({"modules": [{"module": "fine_module.Fine", "config": {}}]}) == ""
    assert [path for path in sorted(parent.rglob("*")) if path not in before and "__pycache__" not in str(path)] == []


def test_ldap_and_saml_with_their_libraries(rehearsal: Rehearsal, python: str, tmp_path: Path) -> None:
    """As C(synapse_extra_requirements) brings them, with the lock file's own."""
    programs.program("xmlsec1", "xmlsec1")
    there = subprocess.run([python, "-c", "import ldap_auth_provider, saml2"], capture_output=True, check=False)
    if there.returncode:
        programs.lacking("no LDAP and SAML for Synapse: tests/setup venv-synapse")
    assert rehearsal({"modules": [LDAP], "saml2_config": SAML}) == ""
    wrong = LDAP["config"] | {"uri": None} if isinstance(LDAP["config"], dict) else {}
    del wrong["uri"]
    said = rehearsal({"modules": [{**LDAP, "config": wrong}]})
    assert "uri" in said
    assert SECRET not in said
    server = Homeserver(python, tmp_path, {"modules": [LDAP], "password_config": {"enabled": True}})
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop)
        assert server.request("GET", "/_matrix/client/versions")[0] == 200


def test_as_a_program(rehearsal: Rehearsal, python: str) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (OWN / "rehearsal", *IMPORTS)))}
    done = subprocess.run(
        [python, "-m", "cae_matrix_rehearsal", str(rehearsal.directory)],
        input=json.dumps(NAMED["modules"]("not_installed.Module")),
        capture_output=True,
        text=True,
        env=environment,
        timeout=patient(START),
        check=False,
    )
    assert done.returncode == 1
    assert "modules[0]: not_installed.Module cannot be imported" in done.stderr
