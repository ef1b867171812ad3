# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Each bad input gives one clear error before anything changes on the target."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
EPHEMERAL = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
CONTAINER = f"cae-matrix-{os.environ.get('MATRIX_TEST_CORE', 'dev')}-{os.environ['MOLECULE_SCENARIO_NAME']}-atelier"
ADDRESS = json.loads((EPHEMERAL / "addresses.json").read_text())["atelier"]

# What an ordinary run would set. Every case changes something of it.
SOUND: dict[str, Any] = {
    "matrix_domain": "atelier.test",
    "matrix_resolve": {name: ADDRESS for name in ("atelier.test", "matrix.atelier.test", "chat.atelier.test")},
    "matrix_element_enabled": False,
    "reverse_proxy_certificate": "private_ca",
    "reverse_proxy_private_ca_dir": str(EPHEMERAL / "ca"),
}


def inside(*argv: str, content: bytes | None = None) -> str:
    done = subprocess.run(["docker", "exec", "-i", CONTAINER, *argv], input=content, capture_output=True, check=True)
    return done.stdout.decode()


def snapshot() -> str:
    """Everything that a run could leave behind; Ansible's own temporary directory is not of it."""
    listing = inside(
        "find", "/etc", "/opt", "/usr", "/var", "/srv", "/home", "-xdev", "-not", "-path", "/var/log/*",
        "-not", "-path", "/var/lib/systemd/*", "-not", "-path", "/var/tmp/*", "-printf", "%p %y %s %m %u %g %T@\\n",
    )  # fmt: skip
    return "\n".join(sorted(listing.splitlines()))


def run(tmp_path: Path, hosts: dict[str, dict[str, Any]]) -> tuple[int, str]:
    inventory = tmp_path / "inventory.json"
    connection = {"ansible_connection": "community.docker.docker", "ansible_host": CONTAINER}
    known = {name: {**connection, **SOUND, **values} for name, values in hosts.items()}
    inventory.write_text(json.dumps({"cooperatives": {"hosts": known}}))
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(PROJECT / ".ansible/collections"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_INJECT_FACT_VARS": "0",
    }
    done = subprocess.run(
        ["ansible-playbook", "-i", str(inventory), str(PROJECT / "playbooks/cooperative.yml")],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def refused(tmp_path: Path, words: str, hosts: dict[str, dict[str, Any]]) -> None:
    """Fails, once a host at most, with words that name the cause, and leaves the machine as it was."""
    before = snapshot()
    status, output = run(tmp_path, hosts)
    assert status != 0, output
    fatal = re.findall(r"^fatal: \[([^\]]+)\]", output, re.MULTILINE)
    assert fatal, output
    assert len(fatal) == len(set(fatal)), output
    # The message may be wrapped: words are looked for in one line of it all.
    flat = " ".join(output.split())
    assert re.search(words, flat, re.IGNORECASE), output
    assert "Traceback" not in output, output
    assert snapshot() == before
    changed = re.findall(r"changed=(\d+)", output)
    assert changed, output
    assert set(changed) == {"0"}, output
    assert "DEPRECATION" not in output
    assert "[WARNING]" not in output


@pytest.mark.parametrize(
    "domain", ["https://atelier.test", "atelier.test:443", "Atelier.test", "atelier.test.", "atelier test", ""]
)
def test_a_domain_that_is_none(tmp_path: Path, domain: str) -> None:
    refused(tmp_path, "matrix_domain", {"atelier": {"matrix_domain": domain}})


@pytest.mark.parametrize("slug", ["Atelier", "1atelier", "atelier_nord", "a" * 21, "atelier/../x"])
def test_an_instance_name_that_is_no_slug(tmp_path: Path, slug: str) -> None:
    refused(tmp_path, "matrix_instance", {"atelier": {"matrix_instance": slug}})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"matrix_profile": "ouvert"}, "matrix_profile.*ouvert.*open, federation, internal"),
        ({"matrix_profile": "federation"}, "federation_members.*needs the list of members"),
        (
            {"matrix_profile": "internal", "federation_denied_servers": ["x.test"]},
            "federation_denied_servers.*empty it",
        ),
        ({"federation_denied_servers": ["*.test"]}, "federation_denied_servers.*atelier.test.*own domain"),
        (
            {"synapse_extra_config": {"federation_domain_whitelist": ["x.test"]}},
            "federation_domain_whitelist: matrix_profile",
        ),
    ],
)
def test_a_profile_that_cannot_be(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    refused(tmp_path, words, {"atelier": changes})


HUB = {"name": "Fédération", "domain": "federation.test"}
OWN = {"name": "Atelier", "domain": "atelier.test"}
OTHER = {"name": "Fabrique", "domain": "fabrique.test"}


@pytest.mark.parametrize(
    ("changes", "variables", "words"),
    [
        ({"members": [HUB, OWN, OTHER, OTHER]}, {}, r"list\.json:1: Fabrique: domain: .* is also that of Fabrique"),
        (
            {"members": [HUB, OWN, {"name": "ATELIER !", "domain": "atleier.test"}]},
            {},
            r"ATELIER !: domain: \"atleier\.test\" differs by one typing error from atelier\.test of Atelier",
        ),
        ({"hub": "moyeu.test"}, {}, r"list\.json:1: hub: \"moyeu\.test\" is not among the members"),
        ({"members": [HUB, OTHER]}, {}, r"federation_members: atelier\.test is not in .*list\.json"),
        ({"members": [HUB, {**OWN, "profil": "open"}]}, {}, r"Atelier: profil: is unknown; known are name, domain"),
        ({}, {"federation_hub": "inconnu.test"}, r"federation_hub: \"inconnu\.test\" is unknown to"),
        ({}, {"federation_members": "nulle-part.yml"}, r"federation_members: .*nulle-part\.yml.* cannot be read"),
        ({}, {"federation_members": "https://federation.test/members.json"}, "federation_members_key: is missing"),
        (
            {"issued": "2026-11-22T10:00:00Z", "signatures": {"federation.test": {"ed25519:a": "A" * 86}}},
            {"federation_members_key": "0d8iZNUPx0xNFv9ndPVwLFzZQ5ZoFrgRzU8wPzYyyPg"},
            "was signed by federation.test with another key",
        ),
    ],
)
def test_a_list_of_members_that_is_wrong(
    tmp_path: Path, changes: dict[str, Any], variables: dict[str, Any], words: str
) -> None:
    given = {
        "schema": "cae.matrix/members/1",
        "name": "Fédération des CAE",
        "hub": "federation.test",
        "members": [HUB, OWN, OTHER],
        **changes,
    }
    (tmp_path / "list.json").write_text(json.dumps(given, ensure_ascii=False), encoding="utf-8")
    variables = {"matrix_profile": "federation", "federation_members": "list.json", **variables}
    refused(tmp_path, words, {"atelier": variables})


@pytest.fixture
def another_distribution() -> Iterator[None]:
    original = inside("cat", "/usr/lib/os-release")
    stranger = re.sub(r"(?m)^ID=.*$", "ID=ubuntu", re.sub(r"(?m)^VERSION_ID=.*$", 'VERSION_ID="24.04"', original))
    inside("sh", "-c", "cat >/usr/lib/os-release", content=stranger.encode())
    yield
    inside("sh", "-c", "cat >/usr/lib/os-release", content=original.encode())


@pytest.mark.usefixtures("another_distribution")
def test_an_unsupported_distribution(tmp_path: Path) -> None:
    refused(tmp_path, "Debian 12", {"atelier": {}})


def certificate(key: ec.EllipticCurvePrivateKey, days: int, names: list[str]) -> bytes:
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=90))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(entry) for entry in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return built.public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="session")
def certificates() -> str:
    """A directory on the machine with certificates that are no good, and their keys."""
    place = "/srv/certificates"
    inside("mkdir", "-p", place)
    names = ["atelier.test", "matrix.atelier.test", "chat.atelier.test"]
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    files = {
        "key.pem": pem,
        "expired.pem": certificate(key, -1, names),
        "mismatch.pem": certificate(other, 90, names),
        "short.pem": certificate(key, 90, ["www.atelier.test"]),
    }
    for name, content in files.items():
        inside("sh", "-c", f"umask 077; cat >{place}/{name}", content=content)
    return place


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("missing.pem", r"missing\.pem"),
        ("expired.pem", "expired"),
        ("mismatch.pem", "match|belong"),
        ("short.pem", r"matrix\.atelier\.test"),
    ],
)
def test_a_certificate_that_is_no_good(tmp_path: Path, certificates: str, file: str, words: str) -> None:
    values = {
        "reverse_proxy_certificate": "files",
        "reverse_proxy_certificate_path": f"{certificates}/{file}",
        "reverse_proxy_certificate_key_path": f"{certificates}/key.pem",
    }
    refused(tmp_path, words, {"atelier": values})


def test_an_external_database_that_does_not_answer(tmp_path: Path) -> None:
    values = {
        "postgresql_host": "127.0.0.1",
        "postgresql_port": 9,
        "postgresql_password": "not-asked-for",
        "postgresql_connect_timeout": 3,
    }
    refused(tmp_path, "postgresql_host", {"atelier": values})


def test_two_hosts_with_one_instance_name(tmp_path: Path) -> None:
    both = {
        "atelier": {"matrix_instance": "atelier"},
        "autre": {"matrix_instance": "atelier", "matrix_domain": "autre.test"},
    }
    refused(tmp_path, "matrix_instance", both)


def test_two_hosts_with_one_domain(tmp_path: Path) -> None:
    refused(tmp_path, "matrix_domain", {"atelier": {}, "autre": {"matrix_domain": "atelier.test"}})


@pytest.fixture
def neighbour() -> Iterator[None]:
    """An instance that another inventory brought up on this machine."""
    marker = {"instance": "voisine", "matrix_domain": "voisine.test", "inventory_hostname": "voisine"}
    inside("mkdir", "-p", "/etc/matrix/voisine")
    inside("sh", "-c", "cat >/etc/matrix/voisine/instance.json", content=json.dumps(marker).encode())
    yield
    inside("rm", "-r", "/etc/matrix")


@pytest.mark.usefixtures("neighbour")
@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"matrix_instance": "voisine"}, "voisine"),
        ({"matrix_domain": "voisine.test", "matrix_hostname": "matrix.atelier.test"}, "voisine"),
    ],
    ids=["instance", "domain"],
)
def test_a_name_that_another_inventory_has_taken(tmp_path: Path, values: dict[str, Any], words: str) -> None:
    refused(tmp_path, words, {"atelier": values})


@pytest.mark.parametrize(
    "extra",
    [
        {"enable_registration": True, "enable_registration_without_verification": True},
        {"enable_registration": True, "registration_requires_token": True},
        {"allow_guest_access": True},
        {"registration_shared_secret": "known-to-many"},
    ],
    ids=lambda extra: "-".join(extra),
)
def test_registration_by_a_side_door(tmp_path: Path, extra: dict[str, Any]) -> None:
    name = next(iter(extra))
    refused(tmp_path, f"synapse_extra_config.*{name}", {"atelier": {"synapse_extra_config": extra}})


def test_an_element_release_with_a_wrong_digest(tmp_path: Path) -> None:
    made = json.loads((EPHEMERAL / "element" / "variables.json").read_text())
    made["element_web_release_sha256"] = hashlib.sha256(b"what was promised").hexdigest()
    refused(tmp_path, "element_web_release_sha256", {"atelier": {"matrix_element_enabled": True, **made}})


@pytest.mark.parametrize("server", ["https://client.test", "@jo:client.test", "Client.test", "*.client.test", ""])
def test_a_loss_of_what_is_no_server(tmp_path: Path, server: str) -> None:
    refused(tmp_path, "federation_accepted_losses: ", {"atelier": {"federation_accepted_losses": [server]}})
