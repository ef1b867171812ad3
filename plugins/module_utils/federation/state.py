# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How the federation's servers are, as their hub sees it: asks them all at once, and writes state.json and the page.

Runs on the hub, by a timer, with the Python of Synapse's virtual environment; C(main) is given the one file that role
C(federation) writes for it.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.cae.matrix.plugins.module_utils.encryption.verification import server_name
from ansible_collections.cae.matrix.plugins.module_utils.federation.page import page
from ansible_collections.cae.matrix.plugins.module_utils.matrix import keys as federation_keys
from ansible_collections.cae.matrix.plugins.module_utils.outside.public_client import (
    PublicClient,
    Response,
    Unreachable,
)

SCHEMA = "cae.matrix/federation-state/1"
ANSWERS, SILENT, INTERNAL = "answers", "silent", "internal"
# One request, and all of them together: the page must be there when the next run begins, whoever hangs.
REQUEST_SECONDS = 8.0
ALL_SECONDS = 40.0
AT_ONCE = 64
LARGEST_ANSWER = 1 << 16
EXPIRY_WARNING = datetime.timedelta(days=14)
_TIME = "%Y-%m-%dT%H:%M:%SZ"


class Trouble(Exception):
    """A server that answers, but not what another server needs."""

    def __init__(self, kind: str, host: str, cause: str, status: int | None = None) -> None:
        super().__init__(cause)
        self.kind, self.host, self.status = kind, host, status


@dataclass
class Seen:
    """What was seen of one member: C(problem) is why others cannot reach it, C(warnings) what will become one."""

    state: str
    problem: dict[str, Any] | None = None
    warnings: list[dict[str, Any]] = field(default_factory=list)
    server: str | None = None
    version: str | None = None
    certificate_ends: str | None = None
    # For the journal, where whoever mends it looks.
    cause: str = ""


# --- asking -----------------------------------------------------------------------------------------------------


def look(member: Mapping[str, str], client: PublicClient, now: datetime.datetime) -> Seen:
    """One member's server, asked as other servers find it: delegation, certificate, signing keys, version."""
    if member.get("profile") == INTERNAL:
        return Seen(INTERNAL)
    seen = Seen(ANSWERS)
    host = member["domain"]
    try:
        found, ends = _delegation(member["domain"], client)
        host, port = found
        seen.server = f"{_netloc(host)}:{port}"
        version = _ask(client, seen.server, "/_matrix/federation/v1/version", host)
        server = _document(version, host).get("server")
        seen.version = _version(server if isinstance(server, dict) else {})
        keys = _document(_ask(client, seen.server, "/_matrix/key/v2/server", host), host)
        try:
            federation_keys.check(keys, member["domain"], now)
        except federation_keys.KeyProblem as error:
            raise Trouble("keys", host, error.cause) from None
        ends = min(ends, _ends(version))
        seen.certificate_ends = ends.strftime(_TIME)
        if ends - now < EXPIRY_WARNING:
            seen.warnings.append({"kind": "certificate-ends", "days": (ends - now).days})
        if host != member["hostname"]:
            seen.warnings.append({"kind": "elsewhere", "host": host, "listed": member["hostname"]})
    except Trouble as error:
        seen.state, seen.cause = SILENT, str(error)
        seen.problem = {"kind": error.kind, "host": error.host}
        if error.status is not None:
            seen.problem["status"] = error.status
    except Unreachable as error:
        seen.state, seen.cause = SILENT, error.cause
        seen.problem = {"kind": error.kind, "host": host}
        if error.kind == "tls-expired":
            shown = client.look_at_certificate(host, int(seen.server.rpartition(":")[2]) if seen.server else 443)
            seen.certificate_ends = shown.not_after.strftime(_TIME) if shown else None
    return seen


def _delegation(domain: str, client: PublicClient) -> tuple[tuple[str, int], datetime.datetime]:
    """Where the domain's server is, and until when the domain's own certificate is valid."""
    answer = client.get(f"https://{domain}/.well-known/matrix/server")
    ends = _ends(answer)
    if answer.status != 200:
        # Servers then look for SRV records, which the standard library cannot, and try 8448.
        with contextlib.suppress(Unreachable):
            client.handshake(domain, 8448)
            return (domain, 8448), ends
        raise Trouble("well-known", domain, f"{answer.url} answers {answer.status}.", answer.status)
    name = _document(answer, domain).get("m.server")
    try:
        host, port = server_name(name if isinstance(name, str) else "")
    except ValueError:
        raise Trouble("delegation", domain, f"{answer.url} names no server: m.server is {name!r}.") from None
    return (host, port or 8448), ends


def _ask(client: PublicClient, server: str, path: str, host: str) -> Response:
    answer = client.get(f"https://{server}{path}")
    if answer.status != 200:
        raise Trouble("status", host, f"{answer.url} answers {answer.status}.", answer.status)
    return answer


def _document(answer: Response, host: str) -> dict[str, Any]:
    document = answer.json()
    if not isinstance(document, dict):
        raise Trouble("not-json", host, f"{answer.url} is JSON, but not an object.")
    return document


def _ends(answer: Response) -> datetime.datetime:
    """When the certificate ends; what was asked over HTTPS has one, and a redirect to HTTP is not followed."""
    if answer.certificate is None:
        raise Trouble("closed", answer.url, f"{answer.url} showed no certificate.")
    return answer.certificate.not_after


def _netloc(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _version(server: Mapping[str, Any]) -> str:
    text = " ".join(str(server.get(key) or "") for key in ("name", "version")).strip()
    return "".join(character for character in text if character.isprintable())[:60]


def look_at_all(
    members: Iterable[Mapping[str, str]],
    one: Callable[[Mapping[str, str]], Seen],
    seconds: float = ALL_SECONDS,
    at_once: int = AT_ONCE,
) -> dict[str, Seen]:
    """Every member's C(Seen) by its domain; who has not answered when time is up is silent."""
    waiting: queue.SimpleQueue[Mapping[str, str]] = queue.SimpleQueue()
    done: dict[str, Seen] = {}
    expected = list(members)
    for member in expected:
        waiting.put(member)

    def work() -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                member = waiting.get_nowait()
                try:
                    done[member["domain"]] = one(member)
                except Exception as error:  # whatever one server does to us, the others are to be seen
                    traceback.print_exc()
                    done[member["domain"]] = _silent("unexpected", member, repr(error))

    # A thread that waits for somebody's name server cannot be called back: it must not keep the program from its end.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(at_once, len(expected)))]
    end = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    late = f"No answer within {seconds:.0f} s."
    return {member["domain"]: done.get(member["domain"]) or _silent("timeout", member, late) for member in expected}


def _silent(kind: str, member: Mapping[str, str], cause: str) -> Seen:
    return Seen(SILENT, {"kind": kind, "host": member["domain"]}, cause=cause)


# --- what is written --------------------------------------------------------------------------------------------


def state_document(
    members: Sequence[Mapping[str, str]],
    seen: Mapping[str, Seen],
    before: Mapping[str, Any],
    now: datetime.datetime,
) -> dict[str, Any]:
    """What state.json holds; C(since) goes on where a member is as it was C(before)."""
    at = now.strftime(_TIME)
    known = {one["domain"]: one for one in before.get("members", [])}
    found = []
    for member in members:
        one = {key: value for key, value in asdict(seen[member["domain"]]).items() if key != "cause"}
        old = known.get(member["domain"], {})
        since = old.get("since", at) if old.get("state") == one["state"] else at
        found.append({"domain": member["domain"], **one, "since": since})
    return {"schema": SCHEMA, "seen": at, "members": found}


def read_before(path: Path) -> dict[str, Any]:
    """The state of the run before; nothing where there is none, or none that can be used."""
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError, KeyError):
        before = json.loads(path.read_text(encoding="utf-8"))
        if before["schema"] == SCHEMA:
            members = before["members"]
            for one in members:
                datetime.datetime.strptime(one["since"], _TIME)
            return {"members": [{key: str(one[key]) for key in ("domain", "state", "since")} for one in members]}
    return {}


def write(path: Path, text: str) -> None:
    """Whole or not at all: somebody may be reading. What is the same is left alone: caches know it by its date."""
    with contextlib.suppress(OSError, ValueError):
        if path.read_text(encoding="utf-8") == text:
            return
    # By this name, it goes with the hub's next run if this one is killed (module documents).
    name = path.with_name(f".{path.name}.{os.getpid()}.cae-matrix-new")
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(name, 0o644)  # everybody may read what is published
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def main(arguments: Sequence[str]) -> int:
    """C(arguments): the settings' file.

    In it, C(members) and C(style) are files that are served as they are, C(directory) is where everything is served
    from; C(language), C(space) and C(every) are for the page.
    """
    settings = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    signed = Path(settings["members"]).read_text(encoding="utf-8")
    published = json.loads(signed)
    directory = Path(settings["directory"])
    members = published["members"]
    # First of all: the list does not wait for servers that hang.
    write(directory / "members.json", signed)
    write(directory / "style.css", Path(settings["style"]).read_text(encoding="utf-8"))
    now = datetime.datetime.now(datetime.UTC)
    client = PublicClient(
        timeout=REQUEST_SECONDS, max_body=LARGEST_ANSWER, max_redirects=2, user_agent="cae.matrix directory"
    )
    seen = look_at_all(members, lambda member: look(member, client, now))
    state = state_document(members, seen, read_before(directory / "state.json"), now)
    write(directory / "state.json", json.dumps(state, ensure_ascii=False, indent=2) + "\n")
    write(directory / "index.html", page(published, state, settings))
    for member in members:
        if seen[member["domain"]].cause:
            print(f"{member['name']} ({member['domain']}): {seen[member['domain']].cause}")
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    # Not sys.exit: it would wait for nobody, but tidy up under the feet of threads that still run.
    os._exit(main(sys.argv[1:]))
