# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is said about certificates, with real ones made for each fault."""

from __future__ import annotations

import datetime
import json
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.cae.matrix.plugins.module_utils.host import tls_pair
from ansible_collections.cae.matrix.plugins.modules import certificate, certificate_request
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
NAMES = ["atelier.test", "matrix.atelier.test"]


@dataclass
class Made:
    """A certificate, its key, and their PEM texts."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def key_pem(self, passphrase: bytes | None = None) -> str:
        encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        ).decode()


def make(
    common_name: str = "atelier.test",
    names: list[str] | None = None,
    issuer: Made | None = None,
    days: tuple[int, int] = (-1, 90),
    ca: bool = False,
) -> Made:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + datetime.timedelta(days=days[0]))
        .not_valid_after(NOW + datetime.timedelta(days=days[1], hours=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if not ca:
        alternative = x509.SubjectAlternativeName([x509.DNSName(name) for name in names or NAMES])
        builder = builder.add_extension(alternative, critical=False)
    return Made(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


@pytest.fixture(scope="module")
def ca() -> Made:
    return make("CA", ca=True)


Put = Callable[..., dict[str, Any]]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Write a pair and return what examine() needs."""

    def write(chain: str | None, key: str | None) -> dict[str, Any]:
        for name, text in (("fullchain.pem", chain), ("privkey.pem", key)):
            if text is not None:
                (tmp_path / name).write_text(text)
        return {
            "path": str(tmp_path / "fullchain.pem"),
            "key_path": str(tmp_path / "privkey.pem"),
            "names": NAMES,
            "path_variable": "the_certificate_variable",
            "key_path_variable": "the_key_variable",
        }

    return write


def codes(report: tls_pair.Report) -> list[str]:
    return [problem.code for problem in report.problems]


def test_a_good_pair_has_no_problem(put: Put, ca: Made) -> None:
    leaf = make(issuer=ca)
    report = tls_pair.examine(**put(leaf.pem + ca.pem, leaf.key_pem()), ca=ca.pem)
    assert codes(report) == []
    assert report.usable
    assert not report.expires_soon
    assert report.certificate is not None
    assert report.certificate.names == tuple(NAMES)
    assert report.certificate.fingerprint == leaf.certificate.fingerprint(hashes.SHA256()).hex()
    assert report.days_left == 90


@pytest.mark.parametrize(
    ("chain", "key", "expected"),
    [
        (False, True, ["missing"]),
        (True, False, ["key-missing"]),
        (False, False, ["key-missing", "missing"]),
    ],
)
def test_missing_files_are_named_with_their_variables(
    put: Put, ca: Made, chain: bool, key: bool, expected: list[str]
) -> None:
    leaf = make(issuer=ca)
    report = tls_pair.examine(**put(leaf.pem if chain else None, leaf.key_pem() if key else None))
    assert codes(report) == expected
    assert not report.usable
    for problem in report.problems:
        variable = "the_key_variable" if problem.code == "key-missing" else "the_certificate_variable"
        assert problem.text.startswith(f"{variable}: ")


@pytest.mark.parametrize("text", ["", "hello\n", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate(put: Put, ca: Made, text: str) -> None:
    assert codes(tls_pair.examine(**put(text, make(issuer=ca).key_pem()))) == ["unreadable"]


def test_a_key_of_another_certificate(put: Put, ca: Made) -> None:
    report = tls_pair.examine(**put(make(issuer=ca).pem, make(issuer=ca).key_pem()))
    assert codes(report) == ["mismatch"]
    assert "does not belong" in report.problems[0].text
    assert not report.usable


def test_an_encrypted_key_is_refused_without_asking(put: Put, ca: Made) -> None:
    leaf = make(issuer=ca)
    report = tls_pair.examine(**put(leaf.pem, leaf.key_pem(b"secret")))
    assert codes(report) == ["mismatch"]
    assert "passphrase" in report.problems[0].text


def test_a_key_that_is_none(put: Put, ca: Made) -> None:
    report = tls_pair.examine(**put(make(issuer=ca).pem, "nothing"))
    assert codes(report) == ["mismatch"]


def test_expired(put: Put, ca: Made) -> None:
    leaf = make(issuer=ca, days=(-90, -1))
    report = tls_pair.examine(**put(leaf.pem, leaf.key_pem()))
    assert codes(report) == ["expired"]
    assert f"{NOW - datetime.timedelta(days=1) + datetime.timedelta(hours=1):%Y-%m-%d}" in report.problems[0].text
    assert report.usable, "a web server starts with it all the same"


def test_not_valid_yet(put: Put, ca: Made) -> None:
    leaf = make(issuer=ca, days=(2, 90))
    assert codes(tls_pair.examine(**put(leaf.pem, leaf.key_pem()))) == ["not-yet"]


@pytest.mark.parametrize(("left", "soon"), [(31, False), (30, False), (29, True), (0, True)])
def test_due_for_renewal(put: Put, ca: Made, left: int, soon: bool) -> None:
    leaf = make(issuer=ca, days=(-1, left))
    report = tls_pair.examine(**put(leaf.pem, leaf.key_pem()))
    assert codes(report) == []
    assert report.expires_soon is soon


def test_every_missing_name_is_told(put: Put, ca: Made) -> None:
    leaf = make(issuer=ca, names=["chat.atelier.test"])
    report = tls_pair.examine(**put(leaf.pem, leaf.key_pem()))
    assert codes(report) == ["names"]
    assert "atelier.test, matrix.atelier.test" in report.problems[0].text


@pytest.mark.parametrize(
    ("names", "wanted", "good"),
    [
        (["*.a.test"], "chat.a.test", True),
        (["*.a.test"], "a.test", False),
        (["*.a.test"], "x.chat.a.test", False),
        (["*.test"], "test", False),
        (["a.test"], "b.test", False),
    ],
)
def test_wildcards(names: list[str], wanted: str, good: bool) -> None:
    assert tls_pair.covers(names, wanted) is good


def test_a_chain_out_of_order(put: Put, ca: Made) -> None:
    intermediate = make("Intermediate", issuer=ca, ca=True)
    leaf = make(issuer=intermediate)
    assert codes(tls_pair.examine(**put(leaf.pem + intermediate.pem, leaf.key_pem()), ca=ca.pem)) == []
    assert codes(tls_pair.examine(**put(leaf.pem + ca.pem + intermediate.pem, leaf.key_pem()))) == ["chain", "chain"]


def test_the_ca_must_be_the_one_in_use(put: Put, ca: Made) -> None:
    # A CA that was made anew has the same name: the signature tells, not the name.
    leaf = make(issuer=make("CA", ca=True))
    assert codes(tls_pair.examine(**put(leaf.pem, leaf.key_pem()), ca=ca.pem)) == ["issuer"]


def test_a_hand_in_a_certificate_of_our_own_ca_is_seen(put: Put, ca: Made) -> None:
    leaf = make(issuer=ca)
    arguments = put(leaf.pem + "# by hand\n", leaf.key_pem())
    assert codes(tls_pair.examine(**arguments, ca=ca.pem)) == ["edited"]
    # Others may comment on theirs.
    assert codes(tls_pair.examine(**arguments)) == []


def test_a_placeholder_is_told_from_a_real_one(put: Put) -> None:
    leaf = make()
    arguments = put(leaf.pem, leaf.key_pem())
    assert codes(tls_pair.examine(**arguments)) == []
    report = tls_pair.examine(**arguments, placeholder_is_problem=True)
    assert codes(report) == ["placeholder"]
    assert report.usable


def run(
    module: Any, arguments: dict[str, Any], capsys: pytest.CaptureFixture[str], check_mode: bool = False
) -> dict[str, Any]:
    """A module's result, run as Ansible runs it."""
    with patch_module_args({**arguments, "_ansible_check_mode": check_mode}), pytest.raises(SystemExit):
        module.main()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_the_module_fails_with_everything_in_one_message(
    put: Put, ca: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    leaf = make(issuer=ca, names=["atelier.test"], days=(-9, -1))
    arguments = put(leaf.pem, make(issuer=ca).key_pem())
    told = run(certificate, arguments, capsys)
    assert told["needed"]
    assert not told.get("failed")
    refused = run(certificate, {**arguments, "required": True}, capsys)
    assert refused["failed"]
    for text in ("the_key_variable", "expired on", "does not cover matrix.atelier.test", "nothing was changed"):
        assert text in refused["msg"]


def test_a_request_makes_a_pair_that_works_and_then_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory, link = tmp_path / "placeholder", tmp_path / "live"
    arguments = {"directory": str(directory), "link": str(link), "names": NAMES}

    dry = run(certificate_request, arguments, capsys, check_mode=True)
    assert dry["changed"]
    assert not directory.exists()

    first = run(certificate_request, arguments, capsys)
    assert first["changed"]
    request = x509.load_pem_x509_csr(first["request"].encode())
    alternative = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert alternative.get_values_for_type(x509.DNSName) == NAMES
    assert stat.S_IMODE((directory / "privkey.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    key = (directory / "privkey.pem").read_text()
    report = tls_pair.examine(
        str(link / "fullchain.pem"), str(link / "privkey.pem"), NAMES, placeholder_is_problem=True
    )
    assert codes(report) == ["placeholder"]

    assert not run(certificate_request, arguments, capsys)["changed"]
    assert (directory / "privkey.pem").read_text() == key


def test_a_broken_key_is_made_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = {"directory": str(tmp_path / "pair"), "names": NAMES}
    run(certificate_request, arguments, capsys)
    (tmp_path / "pair" / "privkey.pem").write_text("")
    assert run(certificate_request, arguments, capsys)["changed"]
    assert certificate_request.works(str(tmp_path / "pair"))


def test_a_link_that_works_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(certificate_request, {"directory": str(tmp_path / "real"), "names": NAMES}, capsys)
    (tmp_path / "live").symlink_to(tmp_path / "real")
    arguments = {"directory": str(tmp_path / "placeholder"), "link": str(tmp_path / "live"), "names": NAMES}
    run(certificate_request, arguments, capsys)
    assert (tmp_path / "live").resolve() == tmp_path / "real"


def test_no_openssl_is_said_clearly(
    put: Put, ca: Made, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    leaf = make(issuer=ca)
    arguments = put(leaf.pem, leaf.key_pem())

    def nowhere(*arguments: str, stdin: str = "") -> str:
        raise tls_pair.OpensslError("the command openssl is not installed")

    monkeypatch.setattr(certificate, "examine", lambda *a, **k: nowhere())
    assert "Install the package openssl" in run(certificate, arguments, capsys)["msg"]
