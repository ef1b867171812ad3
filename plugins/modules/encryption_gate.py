#!/usr/bin/python
# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Keeps registration closed until the running server is proven to be opt-in."""

from __future__ import annotations

DOCUMENTATION = r"""
module: encryption_gate
short_description: Keep registration closed until encryption is proven to be opt-in
version_added: 0.1.0
author: cae.matrix contributors
description:
  - Is the only writer of C(registration.yaml), which decides whether and how accounts come to be, and of
    C(attestation.json), which says what was proven.
  - With O(state=closed_unless_attested) it closes registration at once, unless the attestation is for O(digest). What
    is declared is rehearsed before that, and refused if Synapse could not start with it.
  - Configuration files in Synapse's directory that no role wrote are moved to O(backup_dir) and registration is
    closed, whatever is attested; the task fails and names them. A unit that has Synapse read other places is refused,
    too.
  - After closing, the doors are tried. If one is open nevertheless, Synapse is stopped and disabled, and the task
    says so.
  - With O(state=proven) it compares what the public names serve (O(observed), from M(cae.matrix.public_documents)) with
    what was declared, makes throw-away rooms over Synapse's Unix socket and removes them, and, before the first
    attestation only, counts what is encrypted in the database. When all is well it attests, opens registration as
    asked, and sees that it is so. Otherwise it closes registration and fails with a report.
  - The rooms are made again only when the documents or the process (systemd's C(InvocationID)) are not those attested.
  - An answer that did not arrive closes nothing that is attested, but the task fails.
  - Runs on the target as root.
options:
  state:
    description: What to bring about.
    type: str
    choices: [closed_unless_attested, proven]
    required: true
  instance:
    description: The slug of the instance.
    type: str
    required: true
  domain:
    description: The part after the colon in C(@name:domain).
    type: str
    required: true
  user:
    description: The instance's system user, also its group.
    type: str
    required: true
  service:
    description: Synapse's systemd unit.
    type: str
    required: true
  config_dir:
    description: The instance's directory, such as C(/etc/matrix/atelier).
    type: path
    required: true
  socket:
    description: Synapse's Unix socket.
    type: path
  digest:
    description: Of what matters to encryption in the declared documents.
    type: str
    required: true
  synapse_digest:
    description: Of Synapse's part of it, for the attestation, which Synapse itself compares with what it runs with;
      needed with O(state=proven).
    type: str
  configuration:
    description: Synapse's whole configuration as declared, in JSON, for the rehearsal.
    type: str
  release_marker:
    description:
      - A file that is there once the release that is to run is complete, in its virtual environment. Without it,
        nothing is rehearsed.
    type: path
  backup_dir:
    description: Where files that are set aside go. Default, C(/var/backups/matrix/) and O(instance).
    type: path
  closed_until_proven:
    description: The text of C(registration.yaml) until the gate has passed.
    type: str
    required: true
  proven:
    description: The text of C(registration.yaml) once the gate has passed. Required with O(state=proven).
    type: str
  prove_again:
    description:
      - Whether O(proven) brings code of others that O(closed_until_proven) holds back. Then rooms are proven once more
        after opening, and registration closes again if they are not as they should be.
    type: bool
    default: false
  registration:
    description: How people register once the gate has passed.
    type: str
    choices: [closed, token]
    default: closed
  declared:
    description: What the public names have to serve. Required with O(state=proven).
    type: dict
  observed:
    description: What they serve. Required with O(state=proven).
    type: dict
  database:
    description: How libpq reaches the database. Required with O(state=proven).
    type: dict
  database_password:
    description: Its password, if there is one that libpq does not read from a file.
    type: str
  accepted_rooms:
    description: IDs of rooms that may be encrypted already when the database is counted. Those that are, are attested.
    type: list
    elements: str
    default: []
  collection_version:
    description: The version of this collection, for the attestation.
    type: str
    default: unknown
  timeout:
    description: Seconds that Synapse may take to start.
    type: int
    default: 120
attributes:
  check_mode:
    support: full
    description: Says what it would change, and makes no room, account or restart. It does not fail for what an earlier
      task of the same run would have mended.
  diff_mode:
    support: partial
    description: Names the files; C(registration.yaml) may hold secrets and is not shown.
seealso:
  - module: cae.matrix.public_documents
  - module: cae.matrix.administrators
"""

EXAMPLES = r"""
- name: Close registration unless what is declared has been proven
  cae.matrix.encryption_gate:
    state: closed_unless_attested
    instance: atelier
    domain: atelier.example.coop
    user: matrix-atelier
    service: matrix-synapse@atelier.service
    config_dir: /etc/matrix/atelier
    digest: "{{ plan.digest }}"
    synapse_digest: "{{ plan.synapse_digest }}"
    closed_until_proven: "{{ plan.closed_until_proven }}"
  vars:
    plan: "{{ encryption_gate_documents | cae.matrix.gate_plan('closed') }}"
"""

RETURN = r"""
attested:
  description: Whether an attestation stands for the declared documents.
  returned: always
  type: bool
checks:
  description: What was looked at.
  returned: with O(state=proven)
  type: list
  elements: dict
  sample: [{name: a private room starts plain, status: passed, why: "", mend: ""}]
proved:
  description: Whether rooms were made for it in this run.
  returned: with O(state=proven)
  type: bool
restarted:
  description: Whether Synapse was restarted.
  returned: always
  type: bool
report:
  description: The checks, for people.
  returned: with O(state=proven)
  type: str
moved_aside:
  description: Where an attestation that no longer holds was kept.
  returned: when there was one
  type: str
set_aside:
  description: Configuration files that no role wrote, and where they are now.
  returned: when there were some
  type: dict
"""

import dataclasses
import os
import pwd
import time
from pathlib import Path
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cae.matrix.plugins.module_utils.encryption import attestation as attestations
from ansible_collections.cae.matrix.plugins.module_utils.encryption import audit as audits
from ansible_collections.cae.matrix.plugins.module_utils.encryption import configuration_files, gate
from ansible_collections.cae.matrix.plugins.module_utils.encryption.attestation import Attestation, Malformed
from ansible_collections.cae.matrix.plugins.module_utils.encryption.gate import Check
from ansible_collections.cae.matrix.plugins.module_utils.host.in_force import InForceError, signature
from ansible_collections.cae.matrix.plugins.module_utils.host.in_force_readers import SynapseReader
from ansible_collections.cae.matrix.plugins.module_utils.host.interpreter import with_library
from ansible_collections.cae.matrix.plugins.module_utils.matrix.identifiers import is_service_account
from ansible_collections.cae.matrix.plugins.module_utils.synapse.admin import (
    ServiceAccount,
    Synapse,
    SynapseError,
    quote,
    read_text,
    write_private,
)
from ansible_collections.cae.matrix.plugins.module_utils.synapse.registration_file import RegistrationFile, stamp


class Gate:
    """One run of the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params: dict[str, Any] = module.params
        self.config_dir = Path(self.params["config_dir"])
        self.synapse_dir = self.config_dir / "synapse"
        self.registration_file = self.synapse_dir / "registration.yaml"
        self.attestation_file = self.config_dir / "attestation.json"
        self.registration = RegistrationFile(
            self.config_dir, (self.params["proven"], self.params["closed_until_proven"])
        )
        self.synapse = Synapse(self.params["socket"] or "")
        self.service = SynapseReader(self.params["service"], str(self.config_dir))
        self.changed_paths: list[str] = []
        self.changed = False
        self.restarted = False
        self.moved_aside = ""
        self.set_aside: dict[str, str] = {}
        # What is known of the doors after closing, for the message.
        self.doors = ""
        self.checks: list[Check] = []
        self.attestation: Attestation | None = None
        self.malformed = ""
        self.read_attestation()

    # -- the files ----------------------------------------------------------------------------------------------

    def read_attestation(self) -> None:
        text = read_text(self.attestation_file)
        if text is None:
            return
        try:
            found = attestations.parse(text)
        except Malformed as error:
            self.malformed = str(error)
            return
        if not found.is_for(self.params["instance"], self.params["domain"]):
            self.malformed = f"it is for {found.instance}, {found.domain}"
        elif found.machine not in ("", attestations.this_machine()):
            self.malformed = "it was made on another machine"
        else:
            self.attestation = found

    @property
    def holds(self) -> bool:
        """Whether what is declared has been proven, be it by another process."""
        return self.attestation is not None and self.attestation.digest == self.params["digest"]

    def owner(self) -> tuple[int, int]:
        try:
            entry = pwd.getpwnam(self.params["user"])
        except KeyError:
            self.fail(f"The system user {self.params['user']} does not exist; run role machine first.")
        return entry.pw_uid, entry.pw_gid

    def write_registration(self, text: str, again: bool = False) -> bool:
        """Whether registration.yaml changed, in content or owner; written `again`, it is newer than Synapse."""
        if self.module.check_mode and not self.registration_file.exists():
            return self.note(self.registration_file)
        uid, gid = self.owner()
        if not again and read_text(self.registration_file) == text:
            now = self.registration_file.stat()
            if (now.st_uid, now.st_gid, now.st_mode & 0o7777) == (uid, gid, 0o600):
                return False
        if self.registration.edited():
            self.warn_of_edited()
        if not self.module.check_mode:
            self.registration.note(text)
            write_private(self.registration_file, text, uid, gid, 0o600)
        return self.note(self.registration_file)

    def warn_of_edited(self) -> None:
        """What somebody has written is kept, and named."""
        gone, check_mode = self.registration.text is None, self.module.check_mode
        kept = "" if gone or check_mode else f" What was there is kept in {self.registration.keep()}."
        self.module.warn(
            f"{self.registration_file} was {'gone' if gone else 'edited by hand'}; the gate alone writes it, and "
            f"{'would put it right' if check_mode else 'has put it right'}.{kept} Set encryption_gate_registration, or "
            "synapse_extra_config for single sign-on, instead."
        )

    def write_attestation(self, proof: Attestation) -> None:
        if not self.module.check_mode:
            _, gid = self.owner()
            write_private(self.attestation_file, proof.to_json(), 0, gid, 0o640)
        self.attestation = proof
        self.note(self.attestation_file)

    def set_attestation_aside(self) -> None:
        if not self.attestation_file.exists():
            return
        kept = self.attestation_file.with_name(f"attestation.{stamp()}.json")
        if not self.module.check_mode:
            self.attestation_file.rename(kept)
        self.moved_aside = str(kept)
        self.attestation = None
        self.note(self.attestation_file)

    def set_files_aside(self, stray: list[Path]) -> None:
        if not self.module.check_mode:
            backup_dir = self.params["backup_dir"] or f"/var/backups/matrix/{self.params['instance']}"
            self.set_aside |= configuration_files.set_aside(stray, Path(backup_dir))
        for path in stray:
            self.note(path)

    def note(self, path: Path) -> bool:
        self.changed = True
        if str(path) not in self.changed_paths:
            self.changed_paths.append(str(path))
        return True

    # -- the service --------------------------------------------------------------------------------------------

    def unit(self) -> tuple[str, str]:
        """systemd's state of the unit, and the name of its present process."""
        self.service.unit.refresh()
        return self.service.unit["ActiveState"] or "unknown", self.service.unit["InvocationID"]

    def newer(self) -> list[str]:
        """What Synapse has not read: somebody was interrupted before the restart, or has edited it by hand."""
        self.service.unit.refresh()
        running = self.service.running()
        return self.service.newer(running, signature(self.service.files())) if running else []

    def stale(self) -> bool:
        """Whether Synapse runs on with an older registration.yaml."""
        return str(self.registration_file) in self.newer()

    def see_in_force(self) -> None:
        """An attestation is about the process that runs: it must have read what is on disk."""
        newer = self.newer()
        why = f"Synapse has not read {', '.join(newer)}: changed while it was being proven"
        mend = "see who writes there, and run the playbook again"
        found = Check("configuration in force", *((gate.FAILED, why, mend) if newer else (gate.PASSED,)))
        self.checks = [*(one for one in self.checks if one.name != found.name), found]

    def journal(self) -> str:
        command = ["journalctl", "--unit", self.params["service"], "--lines", "20", "--no-pager", "--output", "cat"]
        return "\n" + str(self.module.run_command(command)[1]).strip()

    def restart(self) -> None:
        """Synapse reads its configuration once, when it starts."""
        self.restarted = True
        if self.module.check_mode:
            return
        self.synapse.close()
        try:
            self.service.apply("restart", None)
        except InForceError as error:
            raise SynapseError(
                f"{self.params['service']} does not start: {error}",
                f"Read its journal: journalctl -u {self.params['service']}.",
            ) from None
        if self.params["socket"]:
            self.synapse.wait_until_up(self.params["timeout"])

    def stop(self) -> None:
        """The door that nothing else closes; nor does a reboot open it again."""
        self.changed = True
        if not self.module.check_mode:
            self.synapse.close()
            self.module.run_command(["systemctl", "disable", "--now", self.params["service"]], check_rc=True)

    def other_places(self) -> tuple[list[str], list[str]]:
        """What else the unit has Synapse read when it starts, and what else the running process has read."""
        unit = self.service.unit
        unit.refresh()
        if unit["NeedDaemonReload"] == "yes" and not self.module.check_mode:
            # The role would do it before it starts Synapse: what counts is what the unit says then.
            self.module.run_command(["systemctl", "daemon-reload"], check_rc=True)
            unit.refresh()
        declared = configuration_files.command_of_unit(unit["ExecStart"])
        running = configuration_files.command_of_process(unit["MainPID"])
        return (
            configuration_files.other_places(declared, self.synapse_dir),
            configuration_files.other_places(running, self.synapse_dir),
        )

    def close_registration(self) -> None:
        """Nobody gets an account from now on, until it is proven that encryption is opt-in."""
        stray = configuration_files.stray_files(self.synapse_dir)
        if stray:
            # First: killed in between, the next run finds a server that is not attested, and closes it.
            self.set_attestation_aside()
        changed = self.write_registration(self.params["closed_until_proven"], again=bool(stray))
        self.set_files_aside(stray)
        if ((changed or stray) and self.unit()[0] == "active") or self.stale():
            self.changed = True
            declared, running = self.other_places()
            # What it would read for the first time might open the door.
            if set(declared) <= set(running):
                self.restart()
            else:
                self.stop()
        # Here it goes last: killed in between, the next run finds that it does not match, and closes again.
        self.set_attestation_aside()
        self.try_doors()

    def try_doors(self) -> None:
        """Registration is closed when it was tried, and refused."""
        if self.module.check_mode or not self.params["socket"]:
            return
        if self.unit()[0] != "active":
            self.doors = "Registration is closed: Synapse does not run."
            return
        closed: list[tuple[int, Any]] = [
            self.synapse.ask(method, f"/_matrix/client/v3/{path}", body, token="")
            for method, path, body in (
                ("POST", "register", {}),
                ("POST", "register?kind=guest", {}),
                ("GET", "login", None),
            )
        ]
        found = gate.open_doors(*closed)
        if found:
            self.stop()
            self.doors = (
                f"Registration was open nevertheless ({', '.join(found)}): Synapse was stopped, and stays so. Look "
                f"what else it reads: systemctl cat {self.params['service']}; {self.synapse_dir}."
            )
        elif closed[0][0] >= 500:
            self.doors = f"Registration is closed on disk; could not be tried: /register answers {closed[0][0]}."
        else:
            self.doors = "Registration is closed."

    # -- leaving ------------------------------------------------------------------------------------------------

    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "changed": self.changed,
            "attested": self.holds,
            "restarted": self.restarted,
            "changed_paths": self.changed_paths,
            "diff": [
                {"before_header": path, "after_header": path, "before": "", "after": "(changed, not shown)\n"}
                for path in self.changed_paths
            ],
        }
        if self.moved_aside:
            found["moved_aside"] = self.moved_aside
        if self.set_aside:
            found["set_aside"] = self.set_aside
        return found

    def fail(self, message: str, **more: Any) -> NoReturn:
        self.module.fail_json(msg=message, **(self.result() if self.attestation_file else {}), **more)
        raise AssertionError  # fail_json does not return

    # -- state=closed_unless_attested ---------------------------------------------------------------------------

    def closed_unless_attested(self) -> None:
        stray = configuration_files.stray_files(self.synapse_dir)
        places = self.other_places()[0]
        refusal = "" if self.holds else self.unfit("--imports")
        if refusal and self.attestation and not (stray or places):
            self.fail(f"Nothing was changed. Synapse could not start with what is declared: {refusal}")
        if not self.holds or stray or places:
            try:
                self.close_registration()
            except SynapseError as error:
                self.fail(f"Registration is closed on disk, but Synapse runs on with what it had: {error}")
        elif self.params["proven"]:
            try:
                self.put_right()
            except SynapseError as error:
                self.fail(f"registration.yaml is put right on disk, but Synapse runs on with what it had: {error}")
        if refusal:
            self.fail(f"Synapse could not start with what is declared: {refusal} {self.doors}".rstrip())
        if stray or places:
            self.fail(self.not_ours(stray, places))
        self.module.exit_json(**self.result())

    def put_right(self) -> None:
        """registration.yaml as the gate left it. Whoever runs with another one is restarted; others are, later."""
        text = self.registration.text
        edited = text is None or self.registration.edited()
        in_force = edited and self.unit()[0] == "active" and not self.stale()
        if edited:
            as_attested = self.in_force() == self.params["registration"]
            text = self.params["proven" if as_attested else "closed_until_proven"]
        self.write_registration(text or "")
        if not self.module.check_mode:
            self.registration.adopt()
        if in_force:
            self.restart()

    def not_ours(self, stray: list[Path], places: list[str]) -> str:
        """What a person has to decide about what Synapse reads besides what roles wrote."""
        told = []
        for path in stray:
            kept = self.set_aside.get(str(path))
            told.append(
                f"{path}, which no role wrote, " + (f"was set aside: {kept}." if kept else "would be set aside.")
            )
        if places:
            told.append(
                f"{self.params['service']} has Synapse read {', '.join(places)} as well: take that out of its drop-in "
                f"(systemctl cat {self.params['service']})."
            )
        told.append(self.doors)
        told.append(
            "Move what is needed of it into synapse_extra_config (secrets: synapse_secret_config), and run the "
            "playbook again."
        )
        return " ".join(line for line in told if line)

    def unfit(self, *how: str) -> str:
        """Why Synapse could not start with what is declared, from the release that is to run; empty if it could."""
        marker = Path(self.params["release_marker"] or "/nonexistent")
        if (
            not marker.exists()
            or not self.params["configuration"]
            or not (self.synapse_dir / "homeserver.yaml").exists()
        ):
            return ""
        python = [str(marker.parent / "bin" / "python"), "-m", "cae_matrix_rehearsal"]
        rc, out, err = self.module.run_command(
            ["runuser", f"--user={self.params['user']}", "--", *python, *how, str(self.synapse_dir)],
            data=self.params["configuration"],
        )
        return "" if rc == 0 else (err or out).strip()[-2000:]

    # -- state=proven -------------------------------------------------------------------------------------------

    def proven(self) -> None:
        state, invocation = self.unit()
        if state == "activating":
            self.module.run_command(["systemctl", "start", self.params["service"]])
            state, invocation = self.unit()
        if self.module.check_mode and (state != "active" or not self.holds):
            self.changed = True
            self.leave("would be proven", proved=False)
        proof: Attestation | None = None
        try:
            if state != "active":
                raise SynapseError(
                    f"systemd says that {self.params['service']} is {state}.",
                    f"Read its journal: journalctl -u {self.params['service']}.",
                )
            newer = self.newer()
            if newer and not self.module.check_mode:
                # What is proven is what runs, and that has to be what is on disk.
                self.module.warn(f"{self.params['service']} was restarted: it had not read {', '.join(newer)}.")
                self.changed = True
                self.restart()
                invocation = self.unit()[1]
            self.synapse.wait_until_up(self.params["timeout"])
            self.look()
            fresh = self.attestation is None or not self.holds or not self.is_of(invocation, self.attestation)
            if self.module.check_mode:
                self.changed = fresh or bool(newer) or not self.is_open_as_asked() or bool(gate.refused(self.checks))
                self.leave("would be proven" if self.changed else "as attested", proved=False)
            if fresh:
                proof = self.prove(invocation)
                self.see_in_force()
                if not gate.refused(self.checks):
                    # First the attestation, then the door: an open door without an attestation must not exist.
                    self.write_attestation(proof)
            if not gate.refused(self.checks) and not self.is_open_as_asked():
                self.open_registration()
        except SynapseError as error:
            self.checks.append(Check("Synapse answers", gate.UNSEEN, error.cause, error.mend))
        if gate.refused(self.checks):
            self.refuse()
        self.leave("passed", proved=proof is not None)

    def is_of(self, invocation: str, found: Attestation) -> bool:
        """Whether it is of this process, and says all that Synapse wants to read in it."""
        wanted = invocation, self.params["synapse_digest"], attestations.this_machine()
        return (found.invocation_id, found.synapse_digest, found.machine) == wanted

    def leave(self, outcome: str, proved: bool) -> NoReturn:
        self.module.exit_json(**self.result(), **self.told(outcome), proved=proved)
        raise AssertionError  # exit_json does not return

    def told(self, outcome: str) -> dict[str, Any]:
        return {
            "checks": [dataclasses.asdict(check) for check in self.checks],
            "report": gate.report(self.params["instance"], self.checks, outcome),
        }

    def refuse(self) -> NoReturn:
        """Closes unless all that is wrong is that something did not answer, and what is declared was proven before."""
        contradicted = any(check.status == gate.FAILED for check in self.checks)
        if self.holds and not contradicted:
            outcome = "not passed: something could not be seen. What was attested before still stands"
        else:
            try:
                self.close_registration()
                outcome = f"not passed. {self.doors or 'Registration is closed'}".rstrip(".")
            except SynapseError as error:
                outcome = "not passed. Registration is closed on disk; whether it is could not be tried"
                self.checks.append(Check("closing registration", gate.FAILED, error.cause, error.mend))
            if self.set_aside:
                outcome += "; set aside: " + ", ".join(self.set_aside.values())
        if self.malformed:
            outcome += f" (the attestation that was there says nothing: {self.malformed})"
        told = self.told(outcome)
        self.fail(told.pop("report"), **told)

    def look(self) -> None:
        """What costs nothing: files, and the answers that the controller brought."""
        declared = self.params["declared"]
        own = self.synapse.call("GET", "/_matrix/key/v2/server", token="") if declared["federates"] else {}
        self.checks.append(gate.files_check(path.name for path in self.synapse_dir.glob("*.yaml")))
        self.checks += gate.public_checks(
            self.params["observed"], declared, self.params["domain"], own.get("verify_keys", {})
        )
        self.checks.append(self.look_at_registration())

    def look_at_registration(self) -> Check:
        answer = self.params["observed"]["register"]
        check = gate.register_check(answer, self.in_force())
        if check.status == gate.FAILED and self.holds and read_text(self.registration_file) == self.params["proven"]:
            # A run that was cut short has opened what was proven, and could not attest that any more.
            check = gate.register_check(answer, self.params["registration"])
        return check

    def in_force(self) -> str:
        """How registration has to be found: as it was last seen when it was attested, and closed otherwise."""
        return self.attestation.registration if self.attestation and self.holds else "closed"

    def is_open_as_asked(self) -> bool:
        """Whether registration is what the inventory asks for, in the file and in the process."""
        on_disk = read_text(self.registration_file) == self.params["proven"]
        return on_disk and self.in_force() == self.params["registration"] and not self.stale()

    def prove(self, invocation: str) -> Attestation:
        """Rooms on the running server, and the database before the first attestation."""
        account = ServiceAccount(
            self.synapse,
            self.params["domain"],
            self.config_dir / "gate.token",
            self.config_dir / "secrets" / "registration_shared_secret",
        )
        if account.ready():
            self.note(account.token_file)
        self.remove_rooms(self.left_over(account))
        first = attestations.earliest(self.config_dir, self.params["instance"], self.params["domain"])
        verdict, accepted = (first.verdict, first.accepted_rooms) if first else self.audit()
        self.probe_rooms()
        version = self.synapse.call("GET", "/_synapse/admin/v1/server_version").get("server_version")
        element = self.params["observed"].get("element_version") or {}
        now = attestations.now()
        return Attestation(
            instance=self.params["instance"],
            domain=self.params["domain"],
            attested_at=now,
            first_attested_at=first.first_attested_at if first else now,
            collection_version=self.params["collection_version"],
            synapse_version=str(version).split(" ", 1)[0],
            element_version=element.get("text") or None if element.get("status") == 200 else None,
            digest=self.params["digest"],
            invocation_id=invocation,
            registration=self.in_force(),
            verdict=verdict,
            accepted_rooms=accepted,
            synapse_digest=self.params["synapse_digest"],
            machine=attestations.this_machine(),
        )

    def open_registration(self) -> None:
        """As the inventory asks, and seen to be so; attests the process that was started for it."""
        name, mend = "Synapse starts with all that is declared", "mend synapse_extra_config, and run the playbook again"
        refusal = self.unfit()
        if refusal:
            self.checks.append(Check(name, gate.FAILED, refusal, mend))
            return
        self.write_registration(self.params["proven"])
        try:
            self.restart()
        except SynapseError as error:
            # Whoever refuses closes: what it started with before is in force again.
            self.checks.append(Check(name, gate.FAILED, f"{error.cause} Its journal ends with: {self.journal()}", mend))
            return
        status, answer = self.synapse.ask("POST", "/_matrix/client/v3/register", {}, token="")
        seen = {"url": "/_matrix/client/v3/register", "status": status, "json": answer, "error": None}
        check = gate.register_check(seen, self.params["registration"])
        self.checks = [*(one for one in self.checks if one.name != check.name), check]
        if self.params["prove_again"]:
            self.probe_rooms("with everything declared, ")
        self.see_in_force()
        if not gate.refused(self.checks) and self.attestation:
            self.write_attestation(
                dataclasses.replace(
                    self.attestation, invocation_id=self.unit()[1], registration=self.params["registration"]
                )
            )

    # -- rooms --------------------------------------------------------------------------------------------------

    def left_over(self, account: ServiceAccount) -> list[str]:
        """Rooms of a gate that was interrupted, whether its account is still in them or not."""
        name = quote(gate.ROOM_NAME)
        listed = self.synapse.call("GET", f"/_synapse/admin/v1/rooms?limit=1000&search_term={name}")
        mine = {account.user_id} | {room["creator"] for room in listed["rooms"] if self.is_ours(room.get("creator"))}
        rooms = {room["room_id"] for room in listed["rooms"] if room.get("creator") in mine}
        joined = self.synapse.call("GET", f"/_synapse/admin/v1/users/{quote(account.user_id)}/joined_rooms")
        return sorted(rooms | set(joined["joined_rooms"]))

    def is_ours(self, creator: object) -> bool:
        """A service account of the gate: the name alone is not enough, people could have taken one."""
        if not is_service_account(creator, self.params["domain"]):
            return False
        status, answer = self.synapse.ask("GET", f"/_synapse/admin/v1/users/{quote(str(creator))}/admin")
        return status == 200 and bool(answer.get("admin"))

    def probe_rooms(self, when: str = "") -> None:
        rooms: dict[str, str] = {}
        try:
            for kind, variant in gate.PROBES.items():
                label = when + kind
                body = {"name": gate.ROOM_NAME, "creation_content": {"m.federate": False}, **variant}
                status, answer = self.synapse.ask("POST", "/_matrix/client/v3/createRoom", body)
                if status != 200:
                    refusal = self.synapse.refusal("POST", "/_matrix/client/v3/createRoom", status, answer)
                    mend = "take what forbids it (power levels, a module) out of synapse_extra_config"
                    self.checks.append(Check(f"{label} starts plain", gate.FAILED, refusal.cause, mend))
                    continue
                rooms[label] = answer["room_id"]
                self.checks.append(gate.room_check(label, self.encryption(rooms[label])))
            for kind in gate.PROBES:
                room_id = rooms.get(when + kind)
                if room_id and kind != gate.HABIT:
                    path = f"/_matrix/client/v3/rooms/{quote(room_id)}/state/{gate.ENCRYPTION}"
                    status, answer = self.synapse.ask("PUT", path, {"algorithm": gate.ALGORITHM})
                    self.checks.append(gate.opt_in_check(when, kind, status, answer, self.encryption(room_id)))
        finally:
            self.remove_rooms(list(rooms.values()))

    def encryption(self, room_id: str) -> Any:
        path = f"/_matrix/client/v3/rooms/{quote(room_id)}/state/{gate.ENCRYPTION}"
        status, answer = self.synapse.ask("GET", path)
        if status == 404:
            return None
        if status != 200:
            raise self.synapse.refusal("GET", path, status, answer)
        return answer

    def remove_rooms(self, rooms: list[str]) -> None:
        """Gone from the database when this returns.

        A server that is new, or has just been upgraded, still fills tables in the background, and a removal that meets
        them fails (a foreign key of sliding sync's); the same removal succeeds a little later.
        """
        tasks = {task: room_id for room_id in rooms for task in self.start_removal(room_id)}
        deadline = time.monotonic() + self.params["timeout"]
        while tasks:
            for task, room_id in list(tasks.items()):
                answer = self.synapse.call("GET", f"/_synapse/admin/v2/rooms/delete_status/{quote(task)}")
                if answer["status"] not in ("complete", "failed") and time.monotonic() <= deadline:
                    continue
                del tasks[task]
                if answer["status"] == "complete":
                    continue
                if time.monotonic() > deadline:
                    raise SynapseError(
                        f"Synapse does not remove the gate's room {room_id}: {answer['status']}.",
                        f"Read its journal: journalctl -u {self.params['service']}.",
                    )
                tasks |= dict.fromkeys(self.start_removal(room_id), room_id)
            if tasks:
                time.sleep(0.5)

    def start_removal(self, room_id: str) -> list[str]:
        """The removal's identifier, or nothing where there is no such room."""
        path = f"/_synapse/admin/v2/rooms/{quote(room_id)}"
        status, answer = self.synapse.ask("DELETE", path, {"block": False, "purge": True, "force_purge": True})
        if status == 200:
            return [answer["delete_id"]]
        if status == 404 or "already" in str(answer.get("error", "")):
            return []
        raise self.synapse.refusal("DELETE", path, status, answer)

    # -- the database -------------------------------------------------------------------------------------------

    def audit(self) -> tuple[str, tuple[str, ...]]:
        """Is it too late? And which rooms were accepted. Counted before the first attestation only."""
        arguments = dict(self.params["database"])
        if self.params["database_password"]:
            arguments["password"] = self.params["database_password"]
        try:
            found = audits.read_database(arguments, self.params["domain"])
        except audits.Unreadable as error:
            raise SynapseError(f"What is encrypted already cannot be counted. {error.cause}", error.mend) from None
        accepted = self.params["accepted_rooms"]
        counts = found.rooms, found.identities or 0, found.key_backups or 0
        self.checks.append(gate.audit_check(*counts, found.accounts, accepted))
        absent = gate.not_encrypted(accepted, found.rooms)
        if absent:
            self.module.warn(gate.accepted_in_vain(absent))
        kept = tuple(room.room_id for room in found.rooms if room.room_id in accepted)
        return gate.verdict(*counts, accepted), kept


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "required": True, "choices": ["closed_unless_attested", "proven"]},
            "instance": {"type": "str", "required": True},
            "domain": {"type": "str", "required": True},
            "user": {"type": "str", "required": True},
            "service": {"type": "str", "required": True},
            "config_dir": {"type": "path", "required": True},
            "socket": {"type": "path"},
            "digest": {"type": "str", "required": True},
            "synapse_digest": {"type": "str"},
            "configuration": {"type": "str", "no_log": True},
            "release_marker": {"type": "path"},
            "backup_dir": {"type": "path"},
            "closed_until_proven": {"type": "str", "required": True, "no_log": True},
            "proven": {"type": "str", "no_log": True},
            "prove_again": {"type": "bool", "default": False},
            "registration": {"type": "str", "choices": ["closed", "token"], "default": "closed"},
            "declared": {"type": "dict"},
            "observed": {"type": "dict"},
            "database": {"type": "dict"},
            "database_password": {"type": "str", "no_log": True},
            "accepted_rooms": {"type": "list", "elements": "str", "default": []},
            "collection_version": {"type": "str", "default": "unknown"},
            "timeout": {"type": "int", "default": 120},
        },
        required_if=[("state", "proven", ("socket", "proven", "declared", "observed", "database", "synapse_digest"))],
        supports_check_mode=True,
    )
    if os.geteuid() != 0:
        module.fail_json(msg="The encryption gate runs as root on the target; set become: true on the play.")
    if module.params["database"]:
        with_library("psycopg2")
    run = Gate(module)
    if module.params["state"] == "proven":
        run.proven()
    else:
        run.closed_unless_attested()


if __name__ == "__main__":
    main()
