# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A certificate chain and its key, looked at with the standard library and the openssl command.

Nothing here writes. Used by the modules C(certificate) and C(certificate_request).
"""

from __future__ import annotations

import datetime
import itertools
import os
import re
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_DATE = "%b %d %H:%M:%S %Y GMT"


class OpensslError(Exception):
    """The openssl command is missing or refused its input."""


@dataclass(frozen=True)
class Certificate:
    """What matters of one certificate."""

    subject: str
    issuer: str
    not_before: datetime.datetime
    not_after: datetime.datetime
    names: tuple[str, ...]
    fingerprint: str

    @property
    def self_signed(self) -> bool:
        return self.subject == self.issuer


@dataclass(frozen=True)
class Problem:
    """C(code) is for programs, C(text) for people."""

    code: str
    text: str


@dataclass
class Report:
    """What was found out about a pair."""

    exists: bool = False
    usable: bool = False
    certificate: Certificate | None = None
    problems: list[Problem] = field(default_factory=list)
    expires_soon: bool = False
    days_left: int | None = None


def openssl(*arguments: str, stdin: str = "") -> str:
    """The output of one openssl command."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            [shutil.which("openssl") or "/usr/bin/openssl", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            env=environment,
            check=False,
        )
    except FileNotFoundError as error:
        raise OpensslError("the command openssl is not installed") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise OpensslError(lines[0] if lines else f"openssl {arguments[0]} failed")
    return done.stdout


def parse_certificate(pem: str) -> Certificate:
    """Read one certificate."""
    text = openssl(
        "x509", "-noout", "-subject", "-issuer", "-startdate", "-enddate", "-fingerprint", "-sha256",
        "-nameopt", "RFC2253", "-ext", "subjectAltName", stdin=pem,
    )  # fmt: skip
    values = dict(line.split("=", 1) for line in text.splitlines() if re.match(r"[A-Za-z0-9 ]+=", line))
    fingerprint = next((value for name, value in values.items() if name.lower() == "sha256 fingerprint"), "")
    return Certificate(
        subject=values.get("subject", "").strip(),
        issuer=values.get("issuer", "").strip(),
        not_before=_date(values["notBefore"]),
        not_after=_date(values["notAfter"]),
        names=tuple(name.lower() for name in re.findall(r"DNS:([^,\s]+)", text)),
        fingerprint=fingerprint.replace(":", "").lower(),
    )


def _date(text: str) -> datetime.datetime:
    return datetime.datetime.strptime(" ".join(text.split()), _DATE).replace(tzinfo=datetime.UTC)


def covers(names: Sequence[str], wanted: str) -> bool:
    """Whether a certificate with C(names) is good for C(wanted), the way clients decide it.

    >>> covers(["*.example.coop"], "chat.example.coop"), covers(["*.example.coop"], "example.coop")
    (True, False)
    """
    parent = wanted.split(".", 1)[1] if "." in wanted else ""
    return wanted in names or (bool(parent) and f"*.{parent}" in names)


def key_matches(certificate_path: str, key_path: str) -> str | None:
    """Why a server could not use the two files together, or None."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    asked = []

    def password() -> bytes:
        # Never right, so that an encrypted key is an error and never a prompt.
        asked.append(True)
        return b"no"

    try:
        context.load_cert_chain(certificate_path, key_path, password=password)
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).lower().replace("_", " ")
        if "mismatch" in reason:
            return "the key does not belong to the certificate"
        if asked:
            return "the key is encrypted; a server that starts by itself needs one without a passphrase"
        return f"the key cannot be used ({reason})"
    except (OSError, ValueError) as error:
        return f"the key cannot be used ({error})"
    return None


def key_usable(key_path: str) -> bool:
    """Whether there is a private key without a passphrase."""
    try:
        openssl("pkey", "-in", key_path, "-noout", "-passin", "pass:no")
    except OpensslError:
        return False
    return True


def signed_by(leaf: str, others: Sequence[str], ca: str) -> bool:
    """Whether C(leaf) leads to one of the certificates in C(ca), a root or not, whatever the date."""
    with tempfile.TemporaryDirectory(prefix="cae-matrix-") as directory:
        paths = {name: os.path.join(directory, name) for name in ("leaf", "chain", "ca")}
        for name, text in (("leaf", leaf), ("chain", "\n".join(others)), ("ca", ca)):
            with open(paths[name], "w", encoding="ascii", errors="replace") as file:
                file.write(text + "\n")
        command = ["verify", "-no_check_time", "-partial_chain", "-CAfile", paths["ca"], "-no-CApath", "-no-CAstore"]
        if others:
            command += ["-untrusted", paths["chain"]]
        try:
            openssl(*command, paths["leaf"])
        except OpensslError as error:
            if "not installed" in str(error):
                raise
            return False
    return True


def _read(path: str) -> tuple[str | None, str]:
    """The text of a file, or why there is none."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(), ""
    except FileNotFoundError:
        return None, "there is no such file on the machine"
    except OSError as error:
        return None, f"cannot be read: {error.strerror}"


def examine(
    path: str,
    key_path: str,
    names: Sequence[str],
    *,
    path_variable: str = "path",
    key_path_variable: str = "key_path",
    renew_before_days: int = 30,
    ca: str = "",
    placeholder_is_problem: bool = False,
    now: datetime.datetime | None = None,
) -> Report:
    """Everything wrong with a pair, each problem with the variable to look at."""
    now = now or datetime.datetime.now(datetime.UTC)
    report = Report()
    certificate_text, certificate_cause = _read(path)
    key_text, key_cause = _read(key_path)
    here, there = f"{path_variable}: {path}", f"{key_path_variable}: {key_path}"
    report.exists = certificate_text is not None and key_text is not None

    if key_text is None:
        report.problems.append(Problem("key-missing", f"{there}: {key_cause}; put the private key (PEM) there"))
    if certificate_text is None:
        report.problems.append(
            Problem("missing", f"{here}: {certificate_cause}; put the certificate and its intermediates (PEM) there")
        )
        return report

    blocks = _PEM.findall(certificate_text)
    try:
        chain = [parse_certificate(block) for block in blocks]
    except (OpensslError, KeyError, ValueError) as error:
        report.problems.append(Problem("unreadable", f"{here}: a certificate in it cannot be read ({error})"))
        return report
    if not chain:
        report.problems.append(Problem("unreadable", f"{here}: holds no certificate (PEM); give the full chain"))
        return report

    leaf = report.certificate = chain[0]
    report.days_left = (leaf.not_after - now).days
    if key_text is not None:
        cause = key_matches(path, key_path)
        report.usable = cause is None
        if cause:
            report.problems.append(
                Problem("mismatch", f"{there}: {cause}; give the key that {path} was made with, the leaf first in it")
            )
    if now > leaf.not_after:
        report.problems.append(
            Problem("expired", f"{here}: expired on {leaf.not_after:%Y-%m-%d}; put a renewed certificate there")
        )
    elif now < leaf.not_before:
        report.problems.append(
            Problem("not-yet", f"{here}: not valid before {leaf.not_before:%Y-%m-%d %H:%M} UTC; is the clock right?")
        )
    else:
        report.expires_soon = report.days_left < renew_before_days
    missing = [name for name in names if not covers(leaf.names, name)]
    if missing:
        report.problems.append(
            Problem(
                "names",
                f"{here}: does not cover {', '.join(missing)} (it covers {', '.join(leaf.names) or 'no name'}); "
                "get one that has every name",
            )
        )
    for child, parent in itertools.pairwise(chain):
        if child.issuer != parent.subject:
            report.problems.append(
                Problem(
                    "chain",
                    f"{here}: its certificates are not in order: {child.subject} was issued by {child.issuer}, but "
                    f"{parent.subject} follows; the server's own first, then each one's issuer",
                )
            )
    if leaf.self_signed and placeholder_is_problem:
        report.problems.append(Problem("placeholder", f"{here}: signed by itself, until there is a real one"))
    elif ca and not signed_by(blocks[0], blocks[1:], ca):
        report.problems.append(Problem("issuer", f"{here}: issued by {leaf.issuer}, not by the CA in use"))
    elif ca and _PEM.sub("", certificate_text).strip():
        # Where we sign it ourselves, nothing else belongs there: somebody has edited it.
        report.problems.append(Problem("edited", f"{here}: holds something else than certificates"))
    return report
