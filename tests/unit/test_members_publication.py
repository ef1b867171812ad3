# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The list from the hub's machine to a member's controller: signed by openssl, fetched over HTTPS, verified."""

from __future__ import annotations

import base64
import contextlib
import copy
import datetime
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.cae.matrix.plugins.module_utils.federation import members
from ansible_collections.cae.matrix.plugins.module_utils.matrix import signed_json
from ansible_collections.cae.matrix.plugins.modules import members as members_module
from ansible_collections.cae.matrix.plugins.modules import members_publication
from ansible_collections.cae.matrix.tests.patience import patient
from ansible_collections.cae.matrix.tests.unit.programs import ansible_playbook, program
from ansible_collections.cae.matrix.tests.unit.public_server import Answer, Asked, Authority, serve, speak
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
HUB, ADDRESS = "federation.example", "https://federation.example/members.json"
LIST: dict[str, Any] = {
    "schema": "cae.matrix/members/1",
    "name": "Fédération des CAE",
    "hub": HUB,
    "members": [
        {"name": "Fédération", "domain": HUB},
        {"name": "Atelier", "domain": "atelier.example", "contact": "support@atelier.example", "profile": "federation"},
    ],
}
# As Ansible does it, on a machine that has no more than Debian's python3.
RUN = """
import runpy, sys
for missing in sys.argv[3:]:
    sys.modules[missing] = None
from ansible.module_utils import basic
basic._ANSIBLE_ARGS = sys.argv[2].encode()
basic._ANSIBLE_PROFILE = "legacy"
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def run(module: Any, *missing: str, check: bool = False, **params: Any) -> dict[str, Any]:
    params |= {"_ansible_check_mode": check, "_ansible_diff": True}
    if not missing:
        said = io.StringIO()
        with patch_module_args(params), contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            module.main()
        return dict(json.loads(said.getvalue()))
    arguments = {"ANSIBLE_MODULE_ARGS": params}
    done = subprocess.run(
        [sys.executable, "-c", RUN, module.__file__, json.dumps(arguments), *missing],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def normalised(**changes: Any) -> dict[str, Any]:
    document, _ = members.read_published(json.dumps({**LIST, **changes}), "x")
    return document


class Hub:
    """The hub's machine: its key and what it serves."""

    def __init__(self, directory: Path) -> None:
        self.key, self.file = directory / "members.key", directory / "members.json"
        self.public_key = ""

    def publish(self, check: bool = False, **changes: Any) -> dict[str, Any]:
        result = run(
            members_publication,
            "cryptography",
            "yaml",
            check=check,
            document=normalised(**changes),
            key_path=str(self.key),
            path=str(self.file),
        )
        self.public_key = result.get("public_key", self.public_key)
        return result

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.file.read_text(encoding="utf-8"))
        return found

    def sign(self, document: dict[str, Any]) -> dict[str, Any]:
        """Signed with the hub's key, whatever it says."""
        unsigned = {key: value for key, value in document.items() if key != "signatures"}
        raw = members_publication.sign(self.key, signed_json.signed_part(unsigned))
        name = signed_json.key_id(signed_json.decode_base64(self.public_key))
        return {**unsigned, "signatures": {unsigned["hub"]: {name: signed_json.encode_base64(raw)}}}


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    made = Hub(tmp_path)
    result = made.publish()
    assert not result.get("failed"), result
    return made


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes]:
    """One list as it is served, and the key of its hub."""
    made = Hub(tmp_path_factory.mktemp("hub"))
    made.publish()
    return made.file.read_text(encoding="utf-8"), signed_json.decode_base64(made.public_key)


# -- on the hub's machine --------------------------------------------------------------------------------------------


def test_openssl_signs_what_cryptography_verifies(hub: Hub) -> None:
    document, notes = members.read_published(hub.file.read_text(encoding="utf-8"), "x")
    assert notes == []
    members.check_signature(document, members.public_key(hub.public_key), "x")
    jsonschema.validate(document, json.loads((ROOT / "docs/members.schema.json").read_text(encoding="utf-8")))
    assert members.moment(document["issued"]) <= datetime.datetime.now(datetime.UTC)


def test_a_second_run_changes_nothing(hub: Hub) -> None:
    before = (hub.key.read_bytes(), hub.file.read_bytes(), hub.file.stat().st_mtime_ns, hub.file.stat().st_ino)
    for check in (False, True):
        result = hub.publish(check)
        assert result["changed"] is False
        assert result["diff"]["before"] == result["diff"]["after"]
    assert before == (hub.key.read_bytes(), hub.file.read_bytes(), hub.file.stat().st_mtime_ns, hub.file.stat().st_ino)


def test_a_new_content_is_newer_even_within_a_second(hub: Hub) -> None:
    dates = [hub.document["issued"]]
    for name in ("a", "b", "c"):
        result = hub.publish(name=name)
        assert result["changed"] is True
        assert result["issued"] == hub.document["issued"]
        assert f'+ "name": "{name}"' not in result["diff"]["before"]
        assert f'"name": "{name}"' in result["diff"]["after"]
        dates.append(hub.document["issued"])
    assert dates == sorted(set(dates))
    assert len(dates) == 4


def test_the_key_is_roots_alone_and_stays(hub: Hub) -> None:
    assert hub.key.stat().st_mode & 0o777 == 0o600
    assert hub.file.stat().st_mode & 0o777 == 0o644
    assert not list(hub.key.parent.glob(".*"))
    hub.key.chmod(0o640)
    born = hub.key.read_bytes()
    assert hub.publish()["changed"] is True
    assert hub.key.stat().st_mode & 0o777 == 0o600
    assert hub.key.read_bytes() == born
    # Another run may have been quicker.
    with pytest.raises(FileExistsError):
        members_publication.bear_key(hub.key)
    assert hub.key.read_bytes() == born
    assert not list(hub.key.parent.glob(".*"))


def test_check_mode_makes_nothing(tmp_path: Path) -> None:
    made = Hub(tmp_path / "not" / "there")
    result = made.publish(check=True)
    assert result["changed"] is True
    assert result["public_key"] == ""
    assert '"name": "Atelier"' in result["diff"]["after"]
    assert list(tmp_path.iterdir()) == []
    assert "is no directory; make it first" in made.publish()["msg"]


def test_a_logo_is_shown_by_its_size(hub: Hub) -> None:
    logo = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(200)).decode()
    result = hub.publish(members=[*LIST["members"], {"name": "B", "domain": "b.example", "logo": logo}])
    assert f'"logo": "({len(logo)} characters)"' in result["diff"]["after"]
    assert "base64" not in json.dumps(result["diff"])
    assert hub.document["members"][-1]["logo"] == logo


def test_a_mode_that_was_asked_for_is_kept(hub: Hub) -> None:
    arguments: dict[str, Any] = {
        "document": normalised(),
        "key_path": str(hub.key),
        "path": str(hub.file),
        "mode": "0640",
    }
    assert run(members_publication, **arguments)["changed"] is True
    assert hub.file.stat().st_mode & 0o777 == 0o640
    assert run(members_publication, **arguments)["changed"] is False


def edited(document: dict[str, Any], *path: Any, to: Any) -> str:
    found = copy.deepcopy(document)
    inner: Any = found
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return json.dumps(found)


def test_what_is_not_its_own_is_never_replaced(hub: Hub) -> None:
    document = hub.document
    name = signed_json.key_id(signed_json.decode_base64(hub.public_key))
    signature = document["signatures"][HUB][name]
    future = hub.sign({**document, "issued": "2999-01-01T00:00:00Z"})
    for text, problem in (
        ("# notes of somebody\n", "holds something that is no published list"),
        ("[]", "holds something that is no published list"),
        ('{"schema": "x"}', "holds something that is no published list"),
        (edited(document, "issued", to="yesterday"), "holds something that is no published list"),
        (edited(document, "members", 1, "domain", to="ateleir.example"), "was changed after it was signed"),
        (edited(document, "signatures", HUB, to={"ed25519:other": signature}), "another key (ed25519:other) than"),
        (json.dumps(hub.sign({**document, "hub": "other.example"})), "the list of another hub, other.example"),
        (json.dumps(future), "issued on 2999-01-01T00:00:00Z, which is yet to come"),
    ):
        hub.file.write_text(text, encoding="utf-8")
        result = hub.publish(name="another")
        assert result.get("failed"), text
        assert problem in result["msg"]
        assert str(hub.file) in result["msg"]
        assert hub.file.read_text(encoding="utf-8") == text


def test_a_lost_key_is_not_born_again_behind_the_back_of_members(hub: Hub) -> None:
    hub.key.unlink()
    result = hub.publish()
    assert "Put the key back from the backup" in result["msg"]
    assert not hub.key.exists()


@pytest.mark.parametrize(
    "algorithm", [["-algorithm", "x25519"], ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]]
)
def test_another_kind_of_key_is_refused_and_kept(tmp_path: Path, algorithm: list[str]) -> None:
    made = Hub(tmp_path)
    subprocess.run(
        [program("openssl", "openssl"), "genpkey", *algorithm, "-out", str(made.key)], check=True, capture_output=True
    )
    made.key.chmod(0o600)
    content = made.key.read_bytes()
    assert "is no ed25519 key" in made.publish()["msg"]
    assert made.key.read_bytes() == content
    made.key.write_text("nothing")
    assert "is no private key" in made.publish()["msg"]


def test_a_document_that_is_none_is_refused(hub: Hub) -> None:
    before = hub.file.read_bytes()
    for document in ({}, {**normalised(), "schema": "x"}, {**normalised(), "hub": "other.example"}):
        result = run(members_publication, document=document, key_path=str(hub.key), path=str(hub.file))
        assert result["msg"].startswith("document: ")
    assert hub.file.read_bytes() == before


# -- the signature ---------------------------------------------------------------------------------------------------


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_no_byte_can_be_changed(published: tuple[str, bytes], data: st.DataObject) -> None:
    """One byte of what is served replaced, left out or added: refused, or it says the very same."""
    text, key = published
    raw = text.encode("utf-8")
    at = data.draw(st.integers(0, len(raw) - 1))
    new = data.draw(st.binary(max_size=2))
    changed = raw[:at] + new + raw[at + 1 :]
    try:
        document, _ = members.read_published(changed.decode("utf-8", errors="replace"), "x")
        members.check_signature(document, key, "x")
    except members.MembersError:
        return
    assert signed_json.signed_part(document) == signed_json.signed_part(json.loads(text))


def test_another_key_and_a_forged_signature_are_told_apart(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Hub(tmp_path / "other")
    other.publish()
    key, other_key = members.public_key(hub.public_key), members.public_key(other.public_key)
    with pytest.raises(members.MembersError, match=r"was signed by federation\.example with another key"):
        members.check_signature(other.document, key, "x")
    forged = {**hub.document, "name": "Another"}
    with pytest.raises(members.MembersError, match="does not match; something has changed the list"):
        members.check_signature(forged, key, "x")
    unsigned = {**hub.document, "signatures": {"other.example": hub.document["signatures"][HUB]}}
    with pytest.raises(members.MembersError, match=r"is not signed by federation\.example"):
        members.check_signature(unsigned, key, "x")
    # While a hub's key is changed, both may sign.
    both = copy.deepcopy(hub.document)
    both["signatures"][HUB] |= {"ed25519:zero": "A" * 86, **other.sign(both)["signatures"][HUB]}
    members.check_signature(both, key, "x")
    members.check_signature(both, other_key, "x")


@pytest.mark.parametrize("text", ["", "é", "c2hvcnQ", "A" * 44, "?" * 43])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(members.MembersError, match=r"federation_members_key: .* is no public key"):
        members.public_key(text)


# -- on a member's controller ----------------------------------------------------------------------------------------


class Place:
    """What answers at the hub's address, and what a member asks with."""

    def __init__(self, hub: Hub, directory: Path) -> None:
        self.hub = hub
        self.status, self.body = 200, b""
        self.authority = Authority(directory)
        self.at = ""

    def site(self, asked: Asked) -> Answer:
        return self.status, {"Content-Type": "application/json"}, self.body or self.hub.file.read_bytes()

    def ask(self, **params: Any) -> dict[str, Any]:
        return run(
            members_module,
            **{
                "source": ADDRESS,
                "key": self.hub.public_key,
                "hub": HUB,
                "domain": "atelier.example",
                "hostname": "matrix.atelier.example",
                "profile": "federation",
                "resolve": {HUB: self.at},
                "ca_file": str(self.authority.ca_file),
                "timeout": int(patient(2)),
                **params,
            },
        )


@pytest.fixture
def place(hub: Hub, tmp_path: Path) -> Iterator[Place]:
    made = Place(hub, tmp_path)
    with serve(made.site, made.authority.server_context(HUB)) as at:
        made.at = at
        yield made


def record(document: dict[str, Any] | None) -> str:
    """federation.json as slurp returns it."""
    content = {"schema": "cae.matrix/federation/1", "profile": "federation", "list": document}
    return base64.b64encode(json.dumps(content).encode()).decode()


def test_a_published_list_is_fetched(place: Place) -> None:
    result = place.ask()
    assert result["changed"] is False
    assert result["notes"] == []
    assert result["list"] == {**place.hub.document, "source": "url"}


def test_a_newer_list_takes_the_place_of_the_one_in_force(place: Place) -> None:
    old = record(place.hub.document)
    place.hub.publish(members=[*LIST["members"], {"name": "B", "domain": "b.example"}])
    assert [one["name"] for one in place.ask(in_force=old)["list"]["members"]] == ["Fédération", "Atelier", "B"]


def test_an_older_list_is_refused(place: Place) -> None:
    old = place.hub.document
    place.hub.publish(name="new")
    new = place.hub.document
    place.body = json.dumps(old).encode()
    result = place.ask(in_force=record(new))
    assert f"issued on {old['issued']}, but the one in force is of {new['issued']}" in result["msg"]


def test_a_list_from_the_future_is_refused(place: Place) -> None:
    place.body = json.dumps(place.hub.sign({**place.hub.document, "issued": "2999-01-01T00:00:00Z"})).encode()
    assert "issued on 2999-01-01T00:00:00Z, which is yet to come" in place.ask()["msg"]


def test_a_signature_that_does_not_match_is_refused_whatever_is_in_force(place: Place) -> None:
    good = place.hub.document
    for changes, problem in (
        ({"name": "Another"}, "does not match"),
        ({"signatures": {}}, "holds none"),
        ({"signatures": {HUB: {"ed25519:other": "A" * 86}}}, "with another key (ed25519:other)"),
        ({"hub": "atelier.example"}, "is not signed by atelier.example"),
    ):
        place.body = json.dumps({**good, **changes}).encode()
        result = place.ask(in_force=record(good))
        assert result.get("failed"), changes
        assert problem in result["msg"]
    unsigned = {key: value for key, value in good.items() if key != "signatures"}
    place.body = json.dumps(unsigned).encode()
    assert "is not signed by federation.example" in place.ask(in_force=record(good))["msg"]


def test_a_signed_list_with_a_wrong_entry_is_refused_by_its_name(place: Place) -> None:
    document = place.hub.document
    document["members"][1]["profile"] = "shut"
    place.body = json.dumps(place.hub.sign(document)).encode()
    assert 'Atelier: profile: "shut" is unknown' in place.ask(in_force=record(place.hub.document))["msg"]


@pytest.mark.parametrize(
    ("status", "body", "cause"),
    [
        (503, b"{}", "answered 503"),
        (200, b"<html>maintenance</html>", "it begins with '<html>maintenance</html>'"),
        (200, b"[" * 100_000, "is no JSON"),
        (200, b'{"m.server": "x"}', "is JSON, but no list of members"),
        (200, b"\xff\xfe", "is no JSON"),
    ],
)
def test_while_the_hub_answers_nonsense_the_list_in_force_stays(
    place: Place, status: int, body: bytes, cause: str
) -> None:
    place.status, place.body = status, body
    good = place.hub.document
    result = place.ask(in_force=record(good))
    assert result["list"] == {**good, "source": "in force"}
    assert result["notes"][0].startswith(f"The list could not be fetched; the one in force, issued on {good['issued']}")
    assert cause in result["notes"][0]
    alone = place.ask()
    assert alone["failed"]
    assert "none is in force yet" in alone["msg"]
    assert cause in alone["msg"]


def test_while_the_hub_is_away_the_list_in_force_stays(place: Place, tmp_path: Path) -> None:
    good = record(place.hub.document)
    with speak(lambda peer: None) as closed:
        for params, cause in (
            ({"resolve": {HUB: "127.0.0.1:1"}}, "refuses connections"),
            ({"resolve": {HUB: closed}}, "closed the connection"),
            ({"ca_file": ""}, "certificate"),
            ({"source": "https://nobody.invalid/members.json"}, "nobody.invalid"),
        ):
            result = place.ask(in_force=good, **params)
            assert result["list"]["source"] == "in force", result
            assert cause in result["notes"][0]


def test_a_certificate_that_has_run_out_keeps_the_list_in_force(place: Place, tmp_path: Path) -> None:
    over = place.authority.server_context(HUB, ends=-datetime.timedelta(days=1))
    with serve(place.site, over) as at:
        result = place.ask(in_force=record(place.hub.document), resolve={HUB: at})
    assert result["list"]["source"] == "in force"
    assert "expired" in result["notes"][0]


def test_what_is_in_force_must_be_signed_too(place: Place) -> None:
    place.status = 503
    good = place.hub.document
    forged = {**good, "name": "Another"}
    unsigned = {key: value for key, value in good.items() if key != "signatures"}
    for document, problem in (
        (forged, "the list in force on the machine: its signature by federation.example"),
        (unsigned, "the list in force on the machine: is not signed"),
        (None, "none is in force yet"),
    ):
        assert problem in place.ask(in_force=record(document))["msg"]
    for garbled in ("!", base64.b64encode(b"[").decode(), base64.b64encode(b"[]").decode()):
        assert "none is in force yet" in place.ask(in_force=garbled)["msg"]


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({"key": ""}, "federation_members_key: is missing"),
        ({"key": "short"}, 'federation_members_key: "short" is no public key'),
        ({"source": "http://federation.example/members.json"}, "is not https"),
        ({"source": "https:///members.json"}, "federation_members: "),
        ({"ca_file": "/nowhere.pem"}, "/nowhere.pem"),
        (
            {"hub": "federatoin.example"},
            'federation_hub: "federatoin.example" is unknown to https://federation.example',
        ),
        ({"domain": "ateleir.example"}, "(Atelier is there with atelier.example)"),
        ({"domain": "b.example"}, "ask whoever keeps the list to add it, or set matrix_profile to open"),
    ],
)
def test_a_mistake_of_the_inventory_is_an_error_even_with_a_list_in_force(
    place: Place, params: dict[str, Any], problem: str
) -> None:
    result = place.ask(in_force=record(place.hub.document), **params)
    assert result.get("failed"), result
    assert problem in result["msg"]


def test_who_is_no_member_may_read_the_list(place: Place) -> None:
    for profile in ("open", "internal"):
        assert place.ask(domain="b.example", profile=profile)["notes"] == []
    assert place.ask(domain="")["list"]["hub"] == HUB


def test_what_differs_from_ones_own_entry_is_noted(place: Place) -> None:
    notes = place.ask(hostname="chat.atelier.example", profile="open")["notes"]
    assert len(notes) == 2
    assert "hostname: the list says matrix.atelier.example, matrix_hostname here is chat.atelier.example" in notes[0]
    assert "profile: the list says federation, matrix_profile here is open" in notes[1]


def test_a_file_needs_no_key_and_a_copy_of_what_is_published_is_checked(hub: Hub, tmp_path: Path) -> None:
    written = tmp_path / "members.yml"
    written.write_text(json.dumps(LIST), encoding="utf-8")
    found = run(members_module, source=str(written))["list"]
    assert (found["source"], found["issued"]) == ("file", None)
    assert "signatures" not in found
    assert run(members_module, source=str(hub.file), key=hub.public_key)["list"] == {**hub.document, "source": "file"}
    hub.file.write_text(json.dumps({**hub.document, "name": "Another"}), encoding="utf-8")
    assert "does not match" in run(members_module, source=str(hub.file), key=hub.public_key)["msg"]


# -- with the role ---------------------------------------------------------------------------------------------------

# What role matrix gives, and the role's own files, without the machine that its dependency wants to look at.
PLAY = [
    {
        "hosts": "all",
        "gather_facts": False,
        "vars_files": [str(ROOT / f"roles/federation/{part}/main.yml") for part in ("defaults", "vars")],
        "vars": {
            "matrix_domain": "atelier.example",
            "matrix_hostname": "matrix.atelier.example",
            "matrix_profile": "federation",
        },
        "tasks": [
            {"ansible.builtin.include_tasks": str(ROOT / "roles/federation/tasks/members.yml")},
            {
                "ansible.builtin.copy": {
                    "dest": "{{ _matrix_config_dir }}/found.json",
                    "content": "{{ federation_list | to_json }}",
                    "mode": "0600",
                }
            },
        ],
    }
]


def play(directory: Path, **variables: Any) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Run the role's tasks on this machine; the output, and the list that was found."""
    found = directory / "found.json"
    found.unlink(missing_ok=True)
    (directory / "play.json").write_text(json.dumps(PLAY), encoding="utf-8")
    inventory = {"all": {"hosts": {"atelier": {"ansible_connection": "local"}}}}
    (directory / "hosts.json").write_text(json.dumps(inventory), encoding="utf-8")
    given = {"_matrix_config_dir": str(directory), "ansible_python_interpreter": sys.executable, **variables}
    done = ansible_playbook(
        ROOT, "-i", str(directory / "hosts.json"), "-e", json.dumps(given), str(directory / "play.json")
    )
    assert "WARNING" not in done.stdout + done.stderr, done.stdout + done.stderr
    return done, json.loads(found.read_text(encoding="utf-8")) if done.returncode == 0 else {}


def test_the_role_reads_keeps_and_explains(place: Place, tmp_path: Path) -> None:
    fetched = {
        "federation_members": ADDRESS,
        "federation_members_key": place.hub.public_key,
        "matrix_resolve": {HUB: place.at},
        "matrix_ca_file": str(place.authority.ca_file),
    }
    good = place.hub.document
    done, found = play(tmp_path, **fetched)
    assert found == {**good, "source": "url"}, done.stdout
    place.status = 503
    (tmp_path / "federation.json").write_text(json.dumps({"list": good}), encoding="utf-8")
    done, found = play(tmp_path, **fetched)
    assert found == {**good, "source": "in force"}, done.stdout
    assert "The list could not be fetched" in done.stdout
    assert "answered 503" in " ".join(done.stdout.split())


def test_the_role_finds_a_file_beside_the_inventory(hub: Hub, tmp_path: Path) -> None:
    written = {**LIST, "members": [*LIST["members"], {"name": "{{ 1 + 1 }}", "domain": "b.example"}]}
    (tmp_path / "list.yml").write_text(json.dumps(written), encoding="utf-8")
    done, found = play(tmp_path, federation_members="list.yml", matrix_resolve={}, matrix_ca_file="")
    assert [one["name"] for one in found["members"]] == ["Fédération", "Atelier", "{{ 1 + 1 }}"], done.stdout
    assert found["source"] == "file"
    assert play(tmp_path)[1] == {}
