# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Each bad input gives one clear error before anything changes on the target.

All of them are hosts of one inventory, on one machine, and one run of the playbook refuses them all: each case has
names of its own below its own domain, and sees what the run said to its own host.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import EPHEMERAL, container_of
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
CONTAINER = container_of("atelier")
ADDRESS = json.loads((EPHEMERAL / "addresses.json").read_text())["atelier"]
SYNAPSE = PROJECT / "roles/synapse/files"
CERTIFICATES = "/srv/certificates"
AUTHORITY = str(EPHEMERAL / "authority")

HUB = {"name": "Fédération", "domain": "federation.test"}
OWN = {"name": "Atelier", "domain": "atelier.test"}
OTHER = {"name": "Fabrique", "domain": "fabrique.test"}


@dataclass(frozen=True)
class Case:
    """What an inventory says that it should not, and the words of the refusal (a pattern).

    Everything is written for the domain C(atelier.test); each case moves it, and all others, to a place of its own.
    """

    words: str
    changes: dict[str, Any]
    members: dict[str, Any] = field(default_factory=dict)


def member_list(words: str, members: dict[str, Any], **variables: Any) -> Case:
    """A list of members of which something is wrong."""
    given = {
        "schema": "cae.matrix/members/1",
        "name": "Fédération des CAE",
        "hub": "federation.test",
        "members": [HUB, OWN, OTHER],
        **members,
    }
    return Case(words, {"matrix_profile": "federation", "federation_members": "{case}/list.json", **variables}, given)


def certificate_file(words: str, file: str) -> Case:
    values = {
        "reverse_proxy_certificate": "files",
        "reverse_proxy_certificate_path": f"{CERTIFICATES}/{file}",
        "reverse_proxy_certificate_key_path": f"{CERTIFICATES}/key.pem",
    }
    return Case(words, values)


def extra(**content: Any) -> Case:
    return Case(f"synapse_extra_config.*{next(iter(content))}", {"synapse_extra_config": content})


def numbered(name: str, cases: list[Case]) -> dict[str, Case]:
    return {f"{name}-{number}": case for number, case in enumerate(cases, 1)}


def element(**changes: Any) -> dict[str, Any]:
    """The release of the tests, and what is wrong."""
    made: dict[str, Any] = json.loads((EPHEMERAL / "element" / "variables.json").read_text())
    return {"matrix_element_enabled": True, **made, **changes}


DOMAINS = ["https://atelier.test", "atelier.test:443", "Atelier.test", "atelier.test.", "atelier test", ""]
SLUGS = ["Atelier", "1atelier", "atelier_nord", "a" * 21, "atelier/../x"]
SERVERS = ["https://client.test", "@jo:client.test", "Client.test", "*.client.test", ""]

# By the name of the host.
CASES = {
    **numbered("domain", [Case("matrix_domain", {"matrix_domain": domain}) for domain in DOMAINS]),
    **numbered("slug", [Case("matrix_instance", {"matrix_instance": slug}) for slug in SLUGS]),
    **numbered(
        "value",
        [
            Case('synapse_presence_enabled: "nein" is neither true nor false', {"synapse_presence_enabled": "nein"}),
            Case('matrix_element_enabled: "peut-être"', {"matrix_element_enabled": "peut-être"}),
            Case('postgresql_port: "54x" is no whole number', {"postgresql_port": "54x"}),
            Case("matrix_name: has no value", {"matrix_name": None}),
            Case("synapse_rc_login: is text, a dict is needed", {"synapse_rc_login": "{}"}),
            Case("synapse_presnce_enabled: .* write synapse_presence_enabled", {"synapse_presnce_enabled": False}),
            Case(
                r"encryption_gate_administrators\[0\].localprt: is unknown: write localpart",
                {"encryption_gate_administrators": [{"localprt": "jo"}]},
            ),
            Case("element_web_country_code: .* put it in quotes", {"element_web_country_code": False}),
            # Another role's, which would be read by nobody.
            Case("synapse_max_upload_size: .* write matrix_max_upload_size", {"synapse_max_upload_size": "20M"}),
        ],
    ),
    # What takes the place of ours in homeserver.yaml and cannot.
    **numbered(
        "shape",
        [
            Case(
                r"synapse_extra_config\.database: is text, a dict is needed",
                {"synapse_extra_config": {"database": "x"}},
            ),
            Case(
                r"synapse_extra_config\.modules: is a dict, a list is needed",
                {"synapse_extra_config": {"modules": {"module": "x.Y"}}},
            ),
            Case(
                r"synapse_secret_config\.turn_uris: is text, a list is needed",
                {"synapse_secret_config": {"turn_uris": "turn:turn.atelier.test"}},
            ),
            Case(
                r"synapse_extra_config\.listeners: .* write it beside yours",
                {"synapse_extra_config": {"listeners": [{"type": "metrics", "port": 9100}]}},
            ),
        ],
    ),
    **numbered(
        "profile",
        [
            Case("matrix_profile.*ouvert.*open, federation, internal", {"matrix_profile": "ouvert"}),
            Case("federation_members.*needs the list of members", {"matrix_profile": "federation"}),
            Case(
                "federation_denied_servers.*empty it",
                {"matrix_profile": "internal", "federation_denied_servers": ["x.test"]},
            ),
            Case("federation_denied_servers.*atelier.test.*own domain", {"federation_denied_servers": ["*.test"]}),
            Case(
                "federation_domain_whitelist: matrix_profile",
                {"synapse_extra_config": {"federation_domain_whitelist": ["x.test"]}},
            ),
        ],
    ),
    **numbered(
        "members",
        [
            member_list(
                r"list\.json:1: Fabrique: domain: .* is also that of Fabrique", {"members": [HUB, OWN, OTHER, OTHER]}
            ),
            member_list(
                r"ATELIER !: domain: \"atleier\.test\" differs by one typing error from atelier\.test of Atelier",
                {"members": [HUB, OWN, {"name": "ATELIER !", "domain": "atleier.test"}]},
            ),
            member_list(r"list\.json:1: hub: \"moyeu\.test\" is not among the members", {"hub": "moyeu.test"}),
            member_list(
                r"federation_members: atelier\.test is not in .*list\.json",
                {"members": [HUB, OTHER]},
            ),
            member_list(
                r"Atelier: profil: is unknown; known are name, domain",
                {"members": [HUB, {**OWN, "profil": "open"}]},
            ),
            member_list(r"federation_hub: \"inconnu\.test\" is unknown to", {}, federation_hub="inconnu.test"),
            member_list(
                r"federation_members: .*nulle-part\.yml.* cannot be read", {}, federation_members="nulle-part.yml"
            ),
            member_list(
                "federation_members_key: is missing", {}, federation_members="https://federation.test/members.json"
            ),
            member_list(
                "was signed by federation.test with another key",
                {
                    "issued": "2026-11-22T10:00:00Z",
                    "signatures": {"federation.test": {"ed25519:a": "A" * 86}},
                },
                federation_members_key="0d8iZNUPx0xNFv9ndPVwLFzZQ5ZoFrgRzU8wPzYyyPg",
            ),
        ],
    ),
    "certificate-missing": certificate_file(r"missing\.pem", "missing.pem"),
    "certificate-expired": certificate_file("expired", "expired.pem"),
    "certificate-mismatch": certificate_file("match|belong", "mismatch.pem"),
    "certificate-short": certificate_file(r"matrix\.atelier\.test", "short.pem"),
    # Somebody's CA, of another kind than we make: main has replaced it.
    "private-ca": Case(
        r"ca\.key cannot be read with this passphrase: correct reverse_proxy_private_ca_passphrase",
        {"reverse_proxy_private_ca_dir": AUTHORITY, "reverse_proxy_private_ca_passphrase": "wrong"},
    ),
    "private-ca-days": Case("reverse_proxy_private_ca_days: 30 days", {"reverse_proxy_private_ca_days": 30}),
    "acme-email": Case(
        "reverse_proxy_acme_email: .aide @atelier.test",
        {"reverse_proxy_certificate": "acme", "reverse_proxy_acme_email": "aide @atelier.test"},
    ),
    **numbered(
        "lock",
        [
            Case(r"synapse_version: there is no lock file for 1\.0\.0, only for 1\.", {"synapse_version": "1.0.0"}),
            Case(r"synapse_lock_file: .*/mine\.txt is no file", {"synapse_lock_file": "mine.txt"}),
            Case(
                r"synapse_lock_file: .* is for Synapse 1\.\S+, and synapse_version is 1\.0\.0",
                {"synapse_version": "1.0.0", "synapse_lock_file": str(next(SYNAPSE.glob("requirements-*.txt")))},
            ),
            Case(
                r"synapse_lock_file: matrix-synapse\[.*: each is one version with its hashes",
                {"synapse_lock_file": str(SYNAPSE / "requirements.in")},
            ),
        ],
    ),
    "trusted-proxies": Case("reverse_proxy_trusted_proxies.*everybody", {"reverse_proxy_trusted_proxies": ["::/0"]}),
    "database-silent": Case(
        "postgresql_host",
        {
            "postgresql_host": "127.0.0.1",
            "postgresql_port": 9,
            "postgresql_password": "not-asked-for",
            "postgresql_connect_timeout": 3,
        },
    ),
    # Two hosts with one instance name, two with one domain.
    "namesake-1": Case("matrix_instance", {"matrix_instance": "namesake"}),
    "namesake-2": Case("matrix_instance", {"matrix_instance": "namesake"}),
    "same-domain-1": Case("matrix_domain", {"matrix_domain": "same-domain.example"}),
    "same-domain-2": Case("matrix_domain", {"matrix_domain": "same-domain.example"}),
    # Two with one name, which is the domain of one of them.
    "same-name-1": Case("matrix_hostname.*host same-name-2", {"matrix_hostname": "same-name.example"}),
    "same-name-2": Case("matrix_domain.*host same-name-1", {"matrix_domain": "same-name.example"}),
    # Those of an instance that another inventory brought up on this machine.
    "taken-instance": Case("voisine", {"matrix_instance": "voisine"}),
    "taken-domain": Case("voisine", {"matrix_domain": "voisine.example", "matrix_hostname": "matrix.atelier.test"}),
    **numbered(
        "side-door",
        [
            extra(enable_registration=True, enable_registration_without_verification=True),
            extra(enable_registration=True, registration_requires_token=True),
            extra(allow_guest_access=True),
            extra(registration_shared_secret="known-to-many"),
        ],
    ),
    "element-digest": Case(
        "element_web_release_sha256",
        element(element_web_release_sha256=hashlib.sha256(b"what was promised").hexdigest()),
    ),
    "element-colour": Case(
        "element_web_colour: .*#ffcc00.* cannot be read: its contrast with white is 1.5.*a darker one",
        element(element_web_colour="#ffcc00"),
    ),
    "calls-no-secret": Case(
        "synapse_turn_uris: .*set synapse_turn_shared_secret", {"synapse_turn_uris": ["turn:turn.atelier.test"]}
    ),
    **numbered(
        "loss", [Case("federation_accepted_losses: ", {"federation_accepted_losses": [server]}) for server in SERVERS]
    ),
}


def inside(*argv: str, content: bytes | None = None) -> str:
    done = subprocess.run(["docker", "exec", "-i", CONTAINER, *argv], input=content, capture_output=True, check=True)
    return done.stdout.decode()


def snapshot() -> str:
    """Everything that a run could leave behind; Ansible's own temporary directory and the log of runs are not of it."""
    listing = inside(
        "find", "/etc", "/opt", "/usr", "/var", "/srv", "/home", "-xdev", "-not", "-path", "/var/log*",
        "-not", "-path", "/var/lib/systemd/*", "-not", "-path", "/var/tmp/*", "-printf", "%p %y %s %m %u %g %T@\\n",
    )  # fmt: skip
    return "\n".join(sorted(listing.splitlines()))


def placed(name: str, value: Any) -> Any:
    """With the domains of this case, which nobody else has."""
    text = json.dumps(value, ensure_ascii=False)
    return json.loads(text.replace(".test", f".{name}.test").replace("{case}", name))


def names(case: str) -> list[str]:
    found: list[str] = placed(case, ["atelier.test", "matrix.atelier.test", "chat.atelier.test"])
    return found


def host(name: str, case: Case) -> dict[str, Any]:
    """What an ordinary run would set, and what is wrong."""
    return {
        "ansible_connection": "community.docker.docker",
        "ansible_host": CONTAINER,
        "matrix_domain": names(name)[0],
        "matrix_resolve": dict.fromkeys(names(name), ADDRESS),
        "matrix_element_enabled": False,
        "reverse_proxy_certificate": "private_ca",
        "reverse_proxy_private_ca_dir": str(EPHEMERAL / "ca"),
        **placed(name, case.changes),
    }


@dataclass
class Refusals:
    """What a run said, to each host and in all."""

    status: int
    output: str
    before: str
    after: str

    def check(self, name: str, words: str) -> None:
        """Failed, once, with words that name the cause, and left the machine as it was."""
        assert self.status != 0, self.output
        # The message may be wrapped: words are looked for in one line of it all.
        found = re.findall(rf"^fatal: \[{name}(?: -> .*)?\].*\n(?:[ ].*\n|\n)*", self.output, re.MULTILINE)
        assert len(found) == 1, found or self.output[-8000:]
        # Several mistakes are told in lines of their own, once.
        told = "".join(re.findall(rf"^{name}: .*\n(?:[ ].*\n)*", self.output, re.MULTILINE)) + found[0]
        assert re.search(words, " ".join(told.split()), re.IGNORECASE), told
        assert re.search(rf"^{name} .*changed=0 ", self.output, re.MULTILINE), self.output
        assert "Traceback" not in self.output
        assert "DEPRECATION" not in self.output
        # All cases are instances of one machine, which has no memory for so many, and is told so.
        warnings = re.findall(r"^\[WARNING\]: (.*)", self.output, re.MULTILINE)
        assert [text for text in warnings if " MiB of memory; its " not in text] == []
        assert set(self.after.splitlines()) ^ set(self.before.splitlines()) == set()


def run(directory: Path, cases: dict[str, Case]) -> Refusals:
    for name, case in cases.items():
        if case.members:
            (directory / name).mkdir()
            (directory / name / "list.json").write_text(
                json.dumps(placed(name, case.members), ensure_ascii=False), encoding="utf-8"
            )
    inventory = directory / "inventory.json"
    inventory.write_text(json.dumps({"cooperatives": {"hosts": {name: host(name, cases[name]) for name in cases}}}))
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(PROJECT / ".ansible/collections"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_INJECT_FACT_VARS": "0",
    }
    before = snapshot()
    done = subprocess.run(
        ["ansible-playbook", "-i", str(inventory), str(PROJECT / "playbooks/cooperative.yml")],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return Refusals(done.returncode, done.stdout + done.stderr, before, snapshot())


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


def put_certificates() -> None:
    """On the machine, certificates that are no good, and their key."""
    inside("mkdir", "-p", CERTIFICATES)
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    files = {
        "key.pem": pem,
        "expired.pem": certificate(key, -1, names("certificate-expired")),
        "mismatch.pem": certificate(other, 90, names("certificate-mismatch")),
        "short.pem": certificate(key, 90, ["www.atelier.test"]),
    }
    for name, content in files.items():
        inside("sh", "-c", f"umask 077; cat >{CERTIFICATES}/{name}", content=content)


def put_neighbour() -> None:
    """On the machine, an instance that another inventory brought up."""
    marker = {"instance": "voisine", "matrix_domain": "voisine.example", "inventory_hostname": "voisine"}
    inside("mkdir", "-p", "/etc/matrix/voisine")
    inside("sh", "-c", "cat >/etc/matrix/voisine/instance.json", content=json.dumps(marker).encode())


def put_authority() -> dict[str, bytes]:
    """On the controller, somebody's CA; what it is."""
    key = ec.generate_private_key(ec.SECP256R1())
    secret = serialization.BestAvailableEncryption(b"right")
    files = {
        "ca.pem": certificate(key, 90, ["ca.example"]),
        "ca.key": key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret),
    }
    Path(AUTHORITY).mkdir(exist_ok=True)
    for name, content in files.items():
        Path(AUTHORITY, name).write_bytes(content)
    return files


@pytest.fixture(scope="session")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Refusals]:
    put_certificates()
    put_neighbour()
    authority = put_authority()
    yield run(tmp_path_factory.mktemp("cases"), CASES)
    assert {path.name: path.read_bytes() for path in Path(AUTHORITY).iterdir()} == authority
    inside("rm", "-r", "/etc/matrix", CERTIFICATES)


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused(refusals: Refusals, name: str) -> None:
    refusals.check(name, CASES[name].words.replace(".test", f".{name}.test"))


@pytest.fixture
def another_distribution() -> Iterator[None]:
    original = inside("cat", "/usr/lib/os-release")
    stranger = re.sub(r"(?m)^ID=.*$", "ID=ubuntu", re.sub(r"(?m)^VERSION_ID=.*$", 'VERSION_ID="24.04"', original))
    inside("sh", "-c", "cat >/usr/lib/os-release", content=stranger.encode())
    yield
    inside("sh", "-c", "cat >/usr/lib/os-release", content=original.encode())


@pytest.mark.usefixtures("another_distribution")
def test_an_unsupported_distribution(tmp_path: Path) -> None:
    run(tmp_path, {"atelier": Case("", {})}).check("atelier", "Debian 12")


@pytest.fixture
def another_web_server() -> Iterator[str]:
    """Its program and process."""
    started = "python3 -m http.server 80 >/dev/null 2>&1 & echo $!"
    process = inside("sh", "-c", started).strip()
    inside("timeout", "30", "sh", "-c", "until grep -q ':0050 .* 0A ' /proc/net/tcp; do :; done")
    yield f"python3 (process {process})"
    inside("kill", process)


def test_a_web_server_that_is_there(tmp_path: Path, another_web_server: str) -> None:
    found = run(tmp_path, {"atelier": Case("", {})})
    found.check("atelier", re.escape(f"port 80 of this machine: held by {another_web_server}") + ".*mode: external")
