# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who reads what the roles write, and when: Synapse, nginx, PostgreSQL, systemd's timers, and those who trust CAs."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import pwd
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.cae.matrix.plugins.module_utils.host.in_force import (
    InForceError,
    Outcome,
    Reader,
    Running,
    enforce,
    run,
)

KINDS = ("synapse", "nginx", "postgresql", "unit", "trusted_cas")
OPTIONS: dict[str, Any] = {
    "kind": {"type": "str", "required": True, "choices": list(KINDS)},
    "unit": {"type": "str"},
    "config_dir": {"type": "path"},
    "enabled": {"type": "bool", "default": False},
    "may_restart": {"type": "bool", "default": True},
}


class SynapseReader(Reader):
    """Reads everything once, when it starts. Its attestation it looks at anew each time, libpq its password file."""

    # A file that a setting of Synapse names, as to_nice_yaml writes it: one to a line.
    _SETTING = re.compile(r"""^[ -]*(?:["']?([\w.]+)["']?:)?[ -]*["']?(/[^\s"'#]+)["']?\s*$""", re.MULTILINE)
    _READ_LATER = frozenset({"attestation", "passfile", "pid_file", "sslcert", "sslkey", "sslrootcert"})
    _TEMPLATES = frozenset({"custom_template_directory", "template_dir"})

    def __init__(self, unit: str, config_dir: str, enabled: bool = False) -> None:
        super().__init__(unit, enabled)
        self.config_dir = config_dir

    def running(self) -> Running | None:
        if self.unit["ActiveState"] not in ("active", "activating", "reloading") or not self.unit.main_pid:
            return None
        return Running(self.unit["InvocationID"], self.unit.time("ExecMainStartTimestamp"))

    def files(self) -> set[str]:
        read = set(glob.glob(f"{glob.escape(self.config_dir)}/synapse/*.yaml"))
        read |= {f"{self.config_dir}/{name}" for name in ("log.yaml", "started-from.json", "venv")}
        for path in glob.glob(f"{glob.escape(self.config_dir)}/synapse/*.yaml"):
            with contextlib.suppress(OSError):
                read |= set(self._named(Path(path).read_text(encoding="utf-8", errors="replace")))
        return read | super().files()

    def directories(self) -> set[str]:
        return {f"{self.config_dir}/synapse"}

    def _named(self, text: str) -> Iterator[str]:
        for key, path in self._SETTING.findall(text):
            if key in self._TEMPLATES:
                yield from filter(os.path.isfile, glob.glob(f"{glob.escape(path)}/**", recursive=True))
            elif key not in self._READ_LATER and os.path.isfile(path):
                yield path


class NginxReader(Reader):
    """Reads everything when it is told to, and then starts new workers beside those that finish what they are at."""

    verb = "reload"
    _FILE = re.compile(r"^# configuration file (.+):$", re.MULTILINE)
    _INCLUDE = re.compile(r"""(?:^|[;{}])\s*include\s+["']?([^\s;"']+)""", re.MULTILINE)
    _CERTIFICATE = re.compile(r"""(?:^|[;{}])\s*\w*ssl_\w+\s+["']?([^\s;"']+)""", re.MULTILINE)
    _WORKER = b"nginx: worker process"

    def __init__(self, unit: str = "nginx.service", enabled: bool = False) -> None:
        super().__init__(unit, enabled)
        self._files: set[str] = set()
        self._directories: set[str] = set()

    def running(self) -> Running | None:
        workers = self._workers()
        if self.unit["ActiveState"] not in ("active", "reloading") or not workers:
            return None
        # A worker that died has been replaced by one that has read nothing new: systemd knows when it was told to.
        oldest = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + min(workers.values())
        identity = " ".join(f"{pid}:{started}" for pid, started in sorted(workers.items()))
        return Running(identity, min(oldest, self.unit.time("StateChangeTimestamp")))

    def _workers(self) -> dict[int, float]:
        """Those that take connections, and when each was started, in seconds since boot."""
        found = {}
        for directory in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                after_name = (directory / "stat").read_bytes().rpartition(b")")[2].split()
                if int(after_name[1]) != self.unit.main_pid:
                    continue
                if (directory / "cmdline").read_bytes().rstrip(b"\0 ") == self._WORKER:
                    found[int(directory.name)] = int(after_name[19]) / os.sysconf("SC_CLK_TCK")
        return found

    def reasons(self) -> list[str]:
        """A worker belongs to the groups that its user had when it was started."""
        for pid in self._workers():
            with contextlib.suppress(OSError, KeyError):
                status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
                lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
                user = pwd.getpwuid(int(lines["Uid"].split()[0]))
                groups = set(os.getgrouplist(user.pw_name, user.pw_gid)) - {user.pw_gid}
                if user.pw_uid and groups - set(map(int, lines["Groups"].split())):
                    return [f"{user.pw_name} has become a member of a group"]
        return []

    def _look(self) -> None:
        judged = run("nginx", "-T", may_fail=True, hint="Install it first.")
        if judged.returncode != 0:
            said = " ".join(judged.stderr.split())
            raise InForceError(
                f"nginx refuses the configuration on disk, and would not start again with it: {said}. Fix that file "
                "(`nginx -t` checks it) and run again; nginx goes on with what it has read before."
            )
        listed = self._FILE.findall(judged.stdout)
        top = os.path.dirname(listed[0]) if listed else "/etc/nginx"
        included = {os.path.dirname(os.path.join(top, path)) for path in self._INCLUDE.findall(judged.stdout)}
        certificates = {os.path.join(top, path) for path in self._CERTIFICATE.findall(judged.stdout)}
        self._files = {*listed, *filter(os.path.isfile, certificates)}
        self._directories = included | {os.path.dirname(path) for path in listed}

    def files(self) -> set[str]:
        self._look()
        return self._files

    def directories(self) -> set[str]:
        return self._directories

    def _another(self, before: Running | None) -> Running | None:
        self.unit.refresh()
        found = self.running()
        old = set(before.identity.split()) if before else set()
        return found if found is not None and not old & set(found.identity.split()) else None


class PostgresqlReader(Reader):
    """Reads its files when it is told to; what of them only a start can change, it says itself."""

    _ASK = """
        SELECT json_build_object(
          'started', extract(epoch FROM pg_postmaster_start_time()),
          'loaded', extract(epoch FROM pg_conf_load_time()),
          'files', ARRAY(SELECT sourcefile FROM pg_file_settings WHERE sourcefile IS NOT NULL
                         UNION SELECT current_setting('config_file')
                         UNION SELECT current_setting('hba_file')
                         UNION SELECT current_setting('ident_file')
                         UNION SELECT to_jsonb(r)->>'file_name' FROM pg_hba_file_rules r
                         WHERE to_jsonb(r) ? 'file_name'),
          'waiting', ARRAY(SELECT DISTINCT name FROM pg_file_settings WHERE error = 'setting could not be applied'),
          'wrong', ARRAY(SELECT sourcefile || ':' || sourceline || ': ' || error FROM pg_file_settings
                         WHERE error <> 'setting could not be applied'
                         UNION ALL SELECT current_setting('hba_file') || ':' || line_number || ': ' || error
                         FROM pg_hba_file_rules WHERE error IS NOT NULL))
    """

    def __init__(self, unit: str, may_restart: bool = True, enabled: bool = False) -> None:
        super().__init__(unit, enabled)
        self.may_restart = may_restart
        self._said: dict[str, Any] = {}

    @property
    def _cluster(self) -> str:
        """As Debian's programs call it: 15/main for postgresql@15-main.service."""
        name = self.unit.name.removeprefix("postgresql@").removesuffix(".service")
        return name.replace("-", "/", 1)

    def ask(self) -> dict[str, Any]:
        hint = f"See that {self.unit.name} runs and lets postgres log in over its socket (pg_hba.conf)."
        options = ("--no-psqlrc", "--tuples-only", "--no-align", "--dbname=postgres", f"--command={self._ASK}")
        return dict(json.loads(run(*self.psql(), *options, hint=hint).stdout))

    def psql(self) -> tuple[str, ...]:
        return ("runuser", "--user=postgres", "--", "psql", "--cluster", self._cluster)

    def running(self) -> Running | None:
        self._said = {}
        if self.unit["ActiveState"] not in ("active", "reloading"):
            return None
        self._said = self.ask()
        return Running(f"{self._said['started']} {self._said['loaded']}", float(self._said["loaded"]))

    def files(self) -> set[str]:
        if self._said.get("wrong"):
            raise InForceError(
                f"PostgreSQL refuses its configuration on disk: {'; '.join(self._said['wrong'])}. Fix that line "
                "(machine_postgresql_settings, if the file is conf.d/cae-matrix.conf) and run again."
            )
        return set(self._said.get("files", ()))

    def directories(self) -> set[str]:
        return {os.path.dirname(path) for path in self._said.get("files", ())}

    @property
    def verb(self) -> str:  # type: ignore[override]
        return "restart" if self.reasons() else "reload"

    def reasons(self) -> list[str]:
        waiting = self._said.get("waiting", []) if self.may_restart else []
        return [f"{name} has changed, which takes a restart" for name in waiting]

    @property
    def warnings(self) -> tuple[str, ...]:  # type: ignore[override]
        waiting = self._said.get("waiting", [])
        if self.may_restart or not waiting:
            return ()
        return (
            f"{self.unit.name} also serves databases that are not of this collection, so it was not restarted; "
            f"until somebody does (systemctl restart {self.unit.name}), these settings wait: {', '.join(waiting)}.",
        )


class TrustedCas:
    """CAs that roles bring, and what Debian makes of all of them: links by hash, and last a bundle."""

    def __init__(
        self,
        sources: str = "/usr/local/share/ca-certificates",
        made: str = "/etc/ssl/certs",
        options: Sequence[str] = (),
    ) -> None:
        self.sources, self.made, self.options = Path(sources), Path(made), options
        self.bundle = self.made / "ca-certificates.crt"

    def _bodies(self, path: Path) -> set[str]:
        try:
            text = path.read_text(encoding="ascii", errors="replace")
        except OSError:
            return set()
        found = re.findall(r"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", text, re.DOTALL)
        return {"".join(body.split()) for body in found}

    def reasons(self) -> list[str]:
        ours = sorted(self.sources.glob("matrix-*.crt"))
        trusted = self._bodies(self.bundle) if ours else set()
        found = [f"{path} is not trusted yet" for path in ours if self._bodies(path) - trusted]
        gone = [link for link in sorted(self.made.glob("matrix-*.pem")) if link.is_symlink() and not link.exists()]
        return found + [f"{os.readlink(link)} is gone, and still trusted" for link in gone]

    def enforce(self, check_mode: bool) -> Outcome:
        outcome = Outcome("trusted CAs", because=self.reasons())
        if not outcome.because:
            return outcome
        outcome.done.append("update-ca-certificates")
        if check_mode:
            return outcome
        # Where a link is there already, Debian's program makes none by hash: one that was killed had come no further.
        for link in self.made.glob("matrix-*.pem"):
            if link.is_symlink() and any(os.readlink(link) in reason for reason in outcome.because):
                link.unlink()
        self.bundle.with_name(f"{self.bundle.name}.new").unlink(missing_ok=True)
        run("update-ca-certificates", *self.options)
        left = self.reasons()
        if left:
            raise InForceError(f"update-ca-certificates has run, but {'; '.join(left)}. Is it a certificate in PEM?")
        return outcome


def problems(spec: dict[str, Any]) -> list[str]:
    """What is missing to look at one."""
    found = []
    if spec["kind"] in ("synapse", "postgresql", "unit") and not spec["unit"]:
        found.append(f"in_force: kind {spec['kind']} needs unit")
    if spec["kind"] == "synapse" and not spec["config_dir"]:
        found.append("in_force: kind synapse needs config_dir")
    return found


def put_in_force(spec: dict[str, Any], check_mode: bool = False) -> Outcome:
    """Have one of those who read run with what is on disk."""
    kind, unit, enabled = spec["kind"], spec["unit"], spec["enabled"]
    if kind == "trusted_cas":
        return TrustedCas().enforce(check_mode)
    reader: Reader = Reader(unit, enabled)
    if kind == "synapse":
        reader = SynapseReader(unit, spec["config_dir"], enabled)
    elif kind == "nginx":
        reader = NginxReader(unit or "nginx.service", enabled)
    elif kind == "postgresql":
        reader = PostgresqlReader(unit, spec["may_restart"], enabled)
    return enforce(reader, check_mode)
