# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The playbook that looks from outside sees who reaches whom, and the cause of each gap."""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible_collections.cae.matrix.tests.patience import PROMPT, SETTLE, patient
from conftest import EPHEMERAL, PROJECT, Instance
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from federation import MAY, MAY_NOT, OUTSIDER, SERVERS, WAYS, Run, play
from partition import partition

Pairs = dict[tuple[str, str], dict[str, Any]]
NAMES = {instance.domain: name for name, instance in SERVERS.items()}


def look(work: Path) -> tuple[Run, Pairs]:
    report = work / "report.json"
    # Who is cut off is waited for to the end, whatever the machine does; all together may take longer on a busy one.
    waits: dict[str, Any] = {"verify_timeout": round(PROMPT), "verify_pairs_deadline": round(patient(SETTLE))}
    done = play(PROJECT / "molecule/shared/outside.yml", work, verify_report=str(report), **waits)
    found: list[dict[str, Any]] = json.loads(report.read_text())["pairs"]
    return done, {(NAMES[pair["from"]], NAMES[pair["to"]]): pair for pair in found}


def test_every_pair_has_the_promised_outcome(tmp_path: Path) -> None:
    done, pairs = look(tmp_path)
    assert done.status == 0, done.output
    assert {way for way, pair in pairs.items() if pair["outcome"] == "reached"} == set(MAY)
    assert {way for way, pair in pairs.items() if pair["outcome"].startswith("refused")} == set(MAY_NOT)
    assert {pair["state"] for pair in pairs.values()} == {"ok"}, pairs
    assert f"{len(MAY)} reached, {len(MAY_NOT)} refused as declared" in done.output


def inside(instance: Instance, command: str, content: str = "") -> None:
    argv = ["docker", "exec", "-i", instance.container, "sh", "-c", command]
    subprocess.run(argv, input=content, text=True, check=True, capture_output=True)


@contextlib.contextmanager
def other_content(instance: Instance, path: str, content: str, told: str) -> Iterator[None]:
    """A file with somebody else's content, for a while; `told` is run after each change."""
    try:
        inside(instance, f"cp -p {path} {path}.kept && cat >{path} && {told}", content)
        yield
    finally:
        inside(instance, f"mv {path}.kept {path} && {told}")


def run_out(instance: Instance) -> str:
    """The instance's certificate as the CA would have signed it long ago."""
    ca = x509.load_pem_x509_certificate((EPHEMERAL / "ca/ca.pem").read_bytes())
    key = serialization.load_pem_private_key((EPHEMERAL / "ca/ca.key").read_bytes(), None)
    chain = instance.run("cat", f"/etc/matrix/{instance.slug}/tls/live/fullchain.pem")
    own = x509.load_pem_x509_certificate(chain.encode())
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(
        own.issuer,
        own.subject,
        own.public_key(),
        own.serial_number,
        now - datetime.timedelta(days=90),
        now - datetime.timedelta(days=1),
        list(own.extensions),
    )
    signed = builder.sign(key, hashes.SHA384())  # type: ignore[arg-type]
    return "".join(each.public_bytes(serialization.Encoding.PEM).decode() for each in (signed, ca))


def another_key() -> str:
    return f"ed25519 a_other {base64.b64encode(secrets.token_bytes(32)).decode().rstrip('=')}\n"


def test_each_gap_is_told_with_its_cause(tmp_path: Path) -> None:
    """Three things broken at once, in three places; what they do not touch is seen as before."""
    expired, impostor = SERVERS["jardin"], SERVERS["fabrique"]
    cut = SERVERS[OUTSIDER], SERVERS["atelier"]
    with contextlib.ExitStack() as broken:
        live = "/etc/matrix/jardin/tls/live/fullchain.pem"
        broken.enter_context(other_content(expired, live, run_out(expired), "systemctl reload nginx"))
        broken.enter_context(other_content(impostor, "/etc/matrix/fabrique/secrets/signing.key", another_key(), "true"))
        broken.enter_context(partition(*((each.container, each.address) for each in cut)))
        done, pairs = look(tmp_path)
    assert done.status != 0
    gaps = {way: pair["cause"] for way, pair in pairs.items() if pair["state"] == "FAIL"}
    # Who refuses by its own policy need not ask; whether the other refuses must be seen.
    asked = {way for way in WAYS if way in MAY or way[0] == OUTSIDER}
    wanted = {way: "another key" for way in MAY if way[0] == "fabrique" and way[1] != "jardin"}
    wanted |= {way: "expired" for way in asked if way[1] == "jardin"}
    wanted |= {way: "did not answer" for way in asked if set(way) == {OUTSIDER, "atelier"}}
    # On the machine that is cut off, too: its refusal would be what is promised.
    wanted[OUTSIDER, "fabrique"] = "cannot be seen"
    assert set(gaps) == set(wanted), done.output
    assert [(way, gaps[way]) for way, word in wanted.items() if word not in gaps[way]] == []
    # What was broken is mended, or other tests would tell the wrong story.
    for name, instance in SERVERS.items():
        for path in ("secrets/signing.key.kept", "tls/live/fullchain.pem.kept"):
            assert not instance.machine.file(f"/etc/matrix/{name}/{path}").exists
