# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A CA on the controller: any that can sign is used, none is ever replaced."""

from __future__ import annotations

import datetime
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cae.matrix.plugins.module_utils.host import private_ca, tls_pair
from ansible_collections.cae.matrix.plugins.module_utils.host.private_ca import CaError, load, make, sign
from ansible_collections.cae.matrix.tests.unit.programs import ansible_playbook
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.x509.oid import NameOID

NAMES = ["atelier.test", "matrix.atelier.test", "chat.atelier.test"]
DAY = datetime.timedelta(days=1)
PEM = serialization.Encoding.PEM
CRL_ONLY = x509.KeyUsage(False, False, False, False, False, False, True, False, False)


def p256() -> Any:
    return ec.generate_private_key(ec.SECP256R1())


def certificate(
    key: Any,
    name: str = "Somebody's CA",
    days: tuple[int, int] = (-1, 3650),
    issuer: tuple[x509.Certificate, Any] | None = None,
    extensions: tuple[x509.ExtensionType, ...] = (x509.BasicConstraints(ca=True, path_length=None),),
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer = issuer[1] if issuer else key
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(
        issuer[0].subject if issuer else subject, subject, key.public_key(), x509.random_serial_number(),
        now + days[0] * DAY, now + days[1] * DAY,
    )  # fmt: skip
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(signer, None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256())


def pem(*certificates: x509.Certificate) -> str:
    return "".join(each.public_bytes(PEM).decode() for each in certificates)


def key_text(key: Any, passphrase: str = "", kind: Any = serialization.PrivateFormat.PKCS8) -> str:
    hidden: Any = serialization.NoEncryption()
    if passphrase:
        hidden = serialization.BestAvailableEncryption(passphrase.encode())
    found: bytes = key.private_bytes(PEM, kind, hidden)
    return found.decode()


def put(directory: Path, certificates: str | None, key: str | None) -> dict[str, bytes]:
    """Somebody's two files, and what they hold."""
    directory.mkdir(exist_ok=True)
    for name, text in ((private_ca.CERTIFICATE, certificates), (private_ca.KEY, key)):
        if text is not None:
            (directory / name).write_text(text)
    return held(directory)


def held(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if not path.name.startswith(".lock")}


def request(key: Any, *extensions: x509.ExtensionType) -> str:
    builder = x509.CertificateSigningRequestBuilder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "evil.test")]))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(PEM).decode()


def signed(ca: private_ca.Ca | None, tmp_path: Path, *extensions: x509.ExtensionType) -> x509.Certificate:
    """The certificate of a machine, and that a client which trusts the CA trusts it too."""
    assert ca
    key = p256()
    chain = sign(ca, request(key, *extensions), NAMES, 90)
    (tmp_path / "chain.pem").write_text(chain)
    (tmp_path / "key.pem").write_text(key_text(key))
    report = tls_pair.examine(str(tmp_path / "chain.pem"), str(tmp_path / "key.pem"), NAMES, ca=ca.pem)
    assert report.problems == []
    return x509.load_pem_x509_certificates(chain.encode())[0]


def test_where_there_is_none_one_is_made_and_then_kept(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "ca"
    assert load(directory, "") is None
    made = make(directory, "")
    before = held(directory)
    assert sorted(before) == ["ca.key", "ca.pem"]
    assert oct((directory / "ca.key").stat().st_mode)[-3:] == "600"
    assert oct(directory.stat().st_mode)[-3:] == "700"
    again = make(directory, "")
    assert again.pem == made.pem
    assert held(directory) == before
    leaf = signed(again, tmp_path)
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == 90 * DAY + DAY / 24


@pytest.mark.parametrize(
    "key",
    [
        p256,
        lambda: ec.generate_private_key(ec.SECP521R1()),
        lambda: rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate,
    ],
    ids=["P-256", "P-521", "RSA", "Ed25519"],
)
@pytest.mark.parametrize("passphrase", ["", "secret"])
def test_any_ca_that_can_sign_is_used_and_left_alone(tmp_path: Path, key: Any, passphrase: str) -> None:
    made = key()
    before = put(tmp_path / "ca", pem(certificate(made)), key_text(made, passphrase))
    found = make(tmp_path / "ca", passphrase)
    assert signed(found, tmp_path).issuer == certificate(made).subject
    assert held(tmp_path / "ca") == before


def test_keys_in_older_formats(tmp_path: Path) -> None:
    key = p256()
    put(tmp_path / "ca", pem(certificate(key)), key_text(key, kind=serialization.PrivateFormat.TraditionalOpenSSL))
    signed(load(tmp_path / "ca", ""), tmp_path)


@pytest.mark.parametrize("root_too", [True, False])
def test_an_intermediate_ca(tmp_path: Path, root_too: bool) -> None:
    root_key, key = p256(), p256()
    root = certificate(root_key, "Root")
    between = certificate(key, "Between", issuer=(root, root_key))
    put(tmp_path / "ca", pem(between, root) if root_too else pem(between), key_text(key))
    signed(load(tmp_path / "ca", "", NAMES), tmp_path)


CA = x509.BasicConstraints(ca=True, path_length=0)
FOR_OTHERS = x509.NameConstraints([x509.DNSName("other.test")], None)
BELOW = x509.NameConstraints([x509.DNSName(".atelier.test")], None)
FOR_US = x509.NameConstraints([x509.DNSName("atelier.test")], [x509.DNSName("secret.atelier.test")])


def cases() -> dict[str, tuple[str | None, str | None, str, str]]:
    """Certificate, key, passphrase, and the words of the error."""
    key, other = p256(), p256()
    short = rsa.generate_private_key(65537, 1024)
    good = pem(certificate(key))

    def with_(*extensions: x509.ExtensionType) -> str:
        return pem(certificate(key, extensions=extensions))

    return {
        "no certificate": (None, key_text(key), "", r"ca\.pem is missing, and .*ca\.key is there .*put it back"),
        "no key": (good, None, "", r"ca\.key is missing, and .*ca\.pem is there"),
        "expired": (pem(certificate(key, days=(-9, -1))), key_text(key), "", "expired on .*renew it"),
        "not yet": (pem(certificate(key, days=(1, 9))), key_text(key), "", "not valid before .*clock"),
        "another's key": (good, key_text(other), "", r"does not belong to ca\.key"),
        "not first": (pem(certificate(other), certificate(key)), key_text(key), "", "is not the first one"),
        "no CA": (with_(x509.BasicConstraints(ca=False, path_length=None)), key_text(key), "", "CA:TRUE is missing"),
        "no constraints": (with_(), key_text(key), "", "CA:TRUE is missing"),
        "usage": (
            with_(CA, CRL_ONLY),
            key_text(key),
            "",
            "keyCertSign is missing",
        ),
        "names": (with_(CA, FOR_OTHERS), key_text(key), "", "name constraints do not permit atelier.test, matrix"),
        "below": (with_(CA, BELOW), key_text(key), "", "do not permit atelier.test: use"),
        "order": (pem(certificate(key, "A"), certificate(other, "B")), key_text(key), "", "not in order: CN=A"),
        "short RSA": (pem(certificate(short)), key_text(short), "", "RSA key has 1024 bits"),
        "other kind": (good, key_text(x25519.X25519PrivateKey.generate()), "", "does not belong"),
        "passphrase missing": (
            good,
            key_text(key, "right"),
            "",
            "is encrypted: set reverse_proxy_private_ca_passphrase",
        ),
        "passphrase wrong": (good, key_text(key, "right"), "wrong", "correct reverse_proxy_private_ca_passphrase"),
        "passphrase needless": (
            good,
            key_text(key),
            "some",
            "is not encrypted, but reverse_proxy_private_ca_passphrase",
        ),
        "broken key": (good, "-----BEGIN PRIVATE KEY-----\nAAAA\n", "", "never overwritten"),
        "empty key": (good, "", "", "never overwritten"),
        "broken certificate": ("hello", key_text(key), "", "holds no certificate"),
        "empty certificate": ("", key_text(key), "", "holds no certificate"),
    }


CASES = cases()


@pytest.mark.parametrize("name", CASES)
def test_what_cannot_sign_is_an_error_and_is_left_alone(tmp_path: Path, name: str) -> None:
    certificates, key, passphrase, words = CASES[name]
    before = put(tmp_path / "ca", certificates, key)
    with pytest.raises(CaError, match=words) as raised:
        load(tmp_path / "ca", passphrase, NAMES)
    assert str(tmp_path / "ca") in str(raised.value)
    if name not in ("names", "below"):
        with pytest.raises(CaError):
            make(tmp_path / "ca", passphrase)
    assert held(tmp_path / "ca") == before


def test_name_constraints_that_permit(tmp_path: Path) -> None:
    key = p256()
    put(tmp_path / "ca", pem(certificate(key, extensions=(CA, FOR_US))), key_text(key))
    signed(load(tmp_path / "ca", "", NAMES), tmp_path)
    with pytest.raises(CaError, match=r"do not permit secret\.atelier\.test"):
        load(tmp_path / "ca", "", [*NAMES, "secret.atelier.test"])


def test_a_machine_cannot_have_anything_else_certified(tmp_path: Path) -> None:
    more = (x509.BasicConstraints(ca=True, path_length=None), x509.SubjectAlternativeName([x509.DNSName("bank.test")]))
    leaf = signed(make(tmp_path / "ca", ""), tmp_path, *more)
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == NAMES
    assert "evil.test" not in leaf.subject.rfc4514_string()


def test_a_certificate_does_not_outlive_its_ca(tmp_path: Path) -> None:
    key = p256()
    own = certificate(key, days=(-1, 40))
    put(tmp_path / "ca", pem(own), key_text(key))
    assert signed(load(tmp_path / "ca", ""), tmp_path).not_valid_after_utc == own.not_valid_after_utc


def test_of_many_runs_at_once_one_makes_the_ca(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: make(tmp_path / "ca", "").pem, range(8)))
    assert len(set(found)) == 1
    assert found[0] == (tmp_path / "ca/ca.pem").read_text()


@pytest.mark.parametrize("steps", range(1, 9))
def test_a_run_that_is_killed_while_it_makes_one_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """After each step that changes something in the directory, the next run has a CA that works."""

    class KilledError(Exception):
        pass

    left = [steps]

    def counted(real: Any) -> Any:
        def step(*arguments: Any, **more: Any) -> Any:
            if left[0] == 0:
                raise KilledError
            left[0] -= 1
            return real(*arguments, **more)

        return step

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", counted(os.link))
        patch.setattr(os, "fsync", counted(os.fsync))
        patch.setattr(Path, "unlink", counted(Path.unlink))
        try:
            make(tmp_path / "ca", "")
        except KilledError:
            key = tmp_path / "ca" / "ca.key"
            seen = key.read_bytes() if key.exists() else None
            patch.undo()
            load(tmp_path / "ca", "")
            signed(make(tmp_path / "ca", ""), tmp_path)
            assert seen in (None, key.read_bytes()), "a key that was there was replaced"
    signed(load(tmp_path / "ca", ""), tmp_path)


def test_the_action_needs_no_connection_and_shows_no_passphrase(tmp_path: Path) -> None:
    key = p256()
    before = put(tmp_path / "ca", pem(certificate(key)), key_text(key, "hunter2"))
    arguments = {"directory": str(tmp_path / "ca"), "passphrase": "hunter2", "names": NAMES, "make": True}
    elsewhere = {"directory": str(tmp_path / "none"), "names": NAMES, "make": True}
    tasks = [
        {"cae.matrix.private_ca": arguments | {"request": request(p256())}, "register": "signed"},
        {"ansible.builtin.assert": {"that": ["signed.chain is match('-----BEGIN')", "signed is changed"]}},
        {"cae.matrix.private_ca": elsewhere, "check_mode": True, "register": "would"},
        {"ansible.builtin.assert": {"that": ["would is changed", "not would.exists"]}},
        {"cae.matrix.private_ca": arguments | {"passphrase": "*******"}, "register": "wrong", "ignore_errors": True},
        {"ansible.builtin.assert": {"that": ["wrong is failed", "'correct reverse_proxy_private_ca' in wrong.msg"]}},
    ]
    play = [{"hosts": "far", "gather_facts": False, "tasks": tasks}]
    (tmp_path / "play.yml").write_text(json.dumps(play))
    # Whatever people set for their machines, the controller's part does not follow it.
    host = "far ansible_host=192.0.2.1 ansible_connection=ssh ansible_become=true ansible_python_interpreter=/nowhere"
    (tmp_path / "hosts").write_text(host + "\n")
    done = ansible_playbook(tmp_path, "-vvv", "-i", "hosts", "play.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    assert held(tmp_path / "ca") == before
    assert not (tmp_path / "none").exists()
