# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A CA of two files on the controller: looked at, made where there is none, and used; never replaced.

C(cryptography) comes with ansible-core, so that it is on every controller. Used by the action C(private_ca).
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CERTIFICATE, KEY = "ca.pem", "ca.key"
DIRECTORY, PASSPHRASE, DAYS = (f"reverse_proxy_private_ca_{name}" for name in ("dir", "passphrase", "days"))
CA_DAYS = 3650
# OpenSSL takes no shorter one at its default level.
RSA_BITS = 2048
PEM = serialization.Encoding.PEM
SIGNERS = (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey, ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey)


class CaError(Exception):
    """Something a person has to mend; the message names the file or the variable, and how."""


@dataclass(frozen=True)
class Ca:
    """A CA that can sign: its certificate, those above it, its key."""

    chain: tuple[x509.Certificate, ...]
    key: Any

    @property
    def certificate(self) -> x509.Certificate:
        return self.chain[0]

    @property
    def pem(self) -> str:
        return "".join(each.public_bytes(PEM).decode() for each in self.chain)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def load(directory: Path, passphrase: str, names: Sequence[str] = ()) -> Ca | None:
    """The CA in a directory, or None if there is none; what is there and cannot sign is an error."""
    certificate, key = directory / CERTIFICATE, directory / KEY
    texts = {path: _read(path) for path in (certificate, key)}
    if texts[certificate] is None and texts[key] is None:
        return None
    if None in texts.values() and all(_staged(path).exists() for path in texts):
        # A run was killed while it put the two in place: the next one that makes a CA completes that.
        return None
    for path, other in ((certificate, key), (key, certificate)):
        if texts[path] is None:
            raise CaError(
                f"{path} is missing, and {other} is there ({DIRECTORY}): put it back from a backup; or, if nobody "
                f"trusts that CA any more, move {other} away as well, and a new one is made"
            )
    chain = _certificates(certificate, texts[certificate] or b"")
    found = Ca(chain, _private_key(key, texts[key] or b"", passphrase))
    problems = list(_problems(found, names))
    if problems:
        raise CaError("\n".join(f"{certificate}: {text}" for text in problems))
    return found


def make(directory: Path, passphrase: str) -> Ca:
    """A new CA, where there is none: under a lock, so that of two runs at once one makes it and the other takes it."""
    with _alone(directory):
        _complete(directory)
        found = load(directory, passphrase)
        if found is None:
            found = _new()
            secret = passphrase.encode()
            hidden = serialization.BestAvailableEncryption(secret) if secret else serialization.NoEncryption()
            key = found.key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, hidden)
            _put_pair(directory, key, found.pem.encode())
        return found


def sign(ca: Ca, request: str, names: Sequence[str], days: int) -> str:
    """A chain for the key of a request: its certificate, the CA's, and those above it.

    Of the request only the key is taken, and the names are those that were asked for here: a machine cannot have
    anything else certified, a CA of its own for instance.
    """
    asked = x509.load_pem_x509_csr(request.encode())
    if not asked.is_signature_valid:
        raise CaError("The machine's request is not signed by its own key: run again")
    start, signer = now() - datetime.timedelta(hours=1), ca.certificate
    end = min(now() + datetime.timedelta(days=days), signer.not_valid_after_utc)
    built = (
        x509.CertificateBuilder()
        # A common name holds 64 characters.
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])]))
        .issuer_name(signer.subject)
        .public_key(asked.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(asked.public_key()), critical=False)
        .add_extension(_authority(signer), critical=False)
    )
    leaf = built.sign(ca.key, _digest(ca.key))
    return leaf.public_bytes(PEM).decode() + ca.pem


# --- what is there ----------------------------------------------------------------------------------------------


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        if path.is_symlink():
            raise CaError(f"{path} is a link that leads nowhere: mend it, or remove it ({DIRECTORY})") from None
        return None
    except OSError as error:
        raise CaError(f"{path} cannot be read: {error.strerror}; let {_who()} read it ({DIRECTORY})") from error


def _who() -> str:
    return f"the user who runs Ansible (uid {os.geteuid()})"


def _certificates(path: Path, text: bytes) -> tuple[x509.Certificate, ...]:
    try:
        return tuple(x509.load_pem_x509_certificates(text))
    except ValueError as error:
        raise CaError(f"{path}: holds no certificate that can be read (PEM): put the CA's there ({error})") from error


def _private_key(path: Path, text: bytes, passphrase: str) -> Any:
    try:
        return serialization.load_pem_private_key(text, passphrase.encode() or None)
    except TypeError:
        # cryptography tells by the type of the error whether a passphrase was missing, or given without need.
        if passphrase:
            fix = f"is not encrypted, but {PASSPHRASE} is set: empty it, or encrypt the file (openssl pkey -aes256)"
        else:
            fix = f"is encrypted: set {PASSPHRASE}"
        raise CaError(f"{path} {fix}") from None
    except (ValueError, UnsupportedAlgorithm):
        cause = f"with this passphrase: correct {PASSPHRASE}" if passphrase else "as a private key (PEM)"
        raise CaError(
            f"{path} cannot be read {cause}. It is never overwritten: if it is broken, put it back from a backup"
        ) from None


def _problems(ca: Ca, names: Sequence[str]) -> Iterator[str]:
    found = ca.certificate
    if _spki(found.public_key()) != _spki(ca.key.public_key()):
        if any(_spki(each.public_key()) == _spki(ca.key.public_key()) for each in ca.chain):
            yield f"the certificate of {KEY} is not the first one in it: put it first, and then each one's issuer"
        else:
            yield f"does not belong to {KEY}: give the two that were made together"
        return
    if not isinstance(ca.key, SIGNERS):
        yield f"its key ({type(ca.key).__name__}) is of a kind that is not used here: take one with EC, RSA or Ed25519"
    if isinstance(ca.key, rsa.RSAPrivateKey) and ca.key.key_size < RSA_BITS:
        yield f"its RSA key has {ca.key.key_size} bits, and clients want {RSA_BITS} or more: use another CA"
    constraints = _extension(found, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        yield "is not a CA's (basicConstraints CA:TRUE is missing): clients accept nothing that it signs; use a CA's"
    usage = _extension(found, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        yield "its keyUsage does not allow it to sign certificates (keyCertSign is missing): use another CA"
    if now() > found.not_valid_after_utc:
        yield f"expired on {found.not_valid_after_utc:%Y-%m-%d}: renew it, with the same key"
    if now() < found.not_valid_before_utc:
        yield f"is not valid before {found.not_valid_before_utc:%Y-%m-%d %H:%M} UTC: is the clock right?"
    for child, parent in zip(ca.chain, ca.chain[1:], strict=False):
        if not _issued(child, parent):
            yield (
                f"its certificates are not in order: {child.subject.rfc4514_string()} was not issued by "
                f"{parent.subject.rfc4514_string()}, which follows; put each one's issuer after it"
            )
    refused = [name for name in names if not all(_permits(each, name) for each in ca.chain)]
    if refused:
        yield f"its name constraints do not permit {', '.join(refused)}: use a CA that may sign for these names"


def _extension(certificate: x509.Certificate, kind: Any) -> Any:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _issued(child: x509.Certificate, parent: x509.Certificate) -> bool:
    try:
        child.verify_directly_issued_by(parent)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _permits(certificate: x509.Certificate, name: str) -> bool:
    constraints = _extension(certificate, x509.NameConstraints)
    if constraints is None:
        return True

    def within(trees: Sequence[x509.GeneralName] | None) -> list[bool]:
        domains = [tree.value.lower() for tree in trees or () if isinstance(tree, x509.DNSName)]
        # With a dot in front, OpenSSL takes the names below a domain, and not itself.
        return [name == each or not each or name.endswith("." + each.removeprefix(".")) for each in domains]

    permitted = within(constraints.permitted_subtrees)
    return (not permitted or any(permitted)) and not any(within(constraints.excluded_subtrees))


def _spki(key: Any) -> bytes:
    found: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return found


# --- what is made -----------------------------------------------------------------------------------------------


def _new() -> Ca:
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cae.matrix private CA")])
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - datetime.timedelta(hours=1))
        .not_valid_after(now() + datetime.timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return Ca((built.sign(key, _digest(key)),), key)


def _usage(*wanted: str) -> x509.KeyUsage:
    kinds = ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"]
    kinds += ["key_cert_sign", "crl_sign", "encipher_only", "decipher_only"]
    return x509.KeyUsage(**{kind: kind in wanted for kind in kinds})


def _authority(signer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    own = _extension(signer, x509.SubjectKeyIdentifier)
    if own is None:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _digest(key: Any) -> hashes.SHA256 | None:
    """Ed25519 and Ed448 have theirs built in."""
    return None if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else hashes.SHA256()


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    try:
        if not directory.is_dir():
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CaError(
            f"{directory} cannot be written to: {error.strerror}; let {_who()} write there ({DIRECTORY})"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _staged(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def _put_pair(directory: Path, key: bytes, certificate: bytes) -> None:
    """Both are complete beside their places before one of them is seen."""
    for name, content, mode in ((KEY, key, 0o600), (CERTIFICATE, certificate, 0o644)):
        with open(os.open(_staged(directory / name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
    # Never over something that appeared meanwhile.
    os.link(_staged(directory / KEY), directory / KEY)
    _complete(directory)


def _complete(directory: Path) -> None:
    """What a run that was killed has begun: the other half if one is in place, and nothing of it otherwise."""
    paths = [directory / KEY, directory / CERTIFICATE]
    begun = any(path.exists() and _staged(path).exists() and path.samefile(_staged(path)) for path in paths)
    if begun and all(_staged(path).exists() for path in paths):
        for path in paths:
            if not path.exists():
                os.link(_staged(path), path)
    for path in paths:
        _staged(path).unlink(missing_ok=True)
