# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Updates of a running instance, each killed at another moment, and one run after each. Started by bench/run.

Each update changes what people may send, how many connections PostgreSQL takes, and who may do what in new rooms. It is
killed as soon as a file has been written, or a little later, by turns the controller alone (its process group) and what
it runs on the machine as well, as a power cut does. Then the same playbook runs once, and what is in force is compared
with what is on disk: in Synapse and PostgreSQL by asking them, at nginx from outside, and by the gate's attestation.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

# What a run writes, in its order; and how long after the first of it has changed, in seconds.
MOMENTS = [
    (path, delay)
    for path in (
        "/etc/postgresql/15/main/conf.d/cae-matrix.conf",
        "/etc/matrix/{slug}/synapse/registration.yaml",
        "/etc/matrix/{slug}/synapse/homeserver.yaml",
        "/etc/nginx/sites-available/matrix-{slug}.conf",
    )
    for delay in (0.0, 0.01, 0.1, 0.5, 2.0)
]

# Runs on the machine, from before the update: waits until a file has changed, and for a moment more.
WATCH = """
import os, pathlib, signal, sys, time
path, delay, all_of_it = sys.argv[1], float(sys.argv[2]), sys.argv[3] == "machine"
def state():
    try:
        found = os.stat(path)
        return found.st_ino, found.st_ctime_ns
    except FileNotFoundError:
        return None
before = state()
print("ready", flush=True)
while state() == before:
    time.sleep(0.001)
time.sleep(delay)
for process in pathlib.Path("/proc").glob("[0-9]*") if all_of_it else []:
    try:
        if b"ansible" in (process / "cmdline").read_bytes().lower() and int(process.name) != os.getpid():
            os.kill(int(process.name), signal.SIGKILL)
    except OSError:
        pass
print("now", flush=True)
"""

LOOK = Path(__file__).with_name("in_force_look.py").read_text()


def update(number: int) -> dict[str, Any]:
    """Another one each time."""
    levels = {"private_chat": {"events": {"m.room.topic": 10 + number}}}
    return {
        "matrix_max_upload_size": f"{20 + number}M",
        "machine_postgresql_max_connections": 120 + number,
        "synapse_extra_config": {"default_power_level_content_override": levels},
    }


class Kills:
    """One instance, and what happens to its updates."""

    def __init__(self, playbook: list[str], environment: dict[str, str], root: str, container: str, slug: str) -> None:
        self.playbook, self.environment, self.root = playbook, environment, root
        self.container, self.slug = container, slug

    def python(self, program: str, *arguments: str) -> subprocess.Popen[str]:
        command = ["docker", "exec", "-i", self.container, "/usr/bin/python3", "-c", program, *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def begin(self, variables: dict[str, Any]) -> subprocess.Popen[str]:
        command = [*self.playbook, "-e", json.dumps(variables)]
        more: dict[str, Any] = {"cwd": self.root, "env": self.environment, "start_new_session": True, "text": True}
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **more)

    def killed(self, variables: dict[str, Any], path: str, delay: float, where: str) -> bool:
        """Whether the update came so far as to be killed."""
        watch = self.python(WATCH, path.format(slug=self.slug), str(delay), where)
        assert watch.stdout
        assert watch.stdout.readline() == "ready\n"
        run = self.begin(variables)
        hit = watch.stdout.readline() == "now\n"
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate()
        watch.communicate()
        return hit

    def differences(self) -> list[str]:
        looked = self.python(LOOK, self.slug, f"{self.slug}.test")
        said, error = looked.communicate()
        try:
            found = json.loads(said)
        except ValueError:
            return [f"it could not be asked: {error.strip().splitlines()[-1:]}"]
        disk, force = found["disk"], found["force"]
        return [f"{name}: on disk {disk[name]}, in force {force[name]}" for name in disk if disk[name] != force[name]]

    def measure(self, say: Callable[[str], None]) -> dict[str, Any]:
        """The moments, and what differed after the one run that followed each."""
        wrong: list[dict[str, Any]] = []
        for number, (path, delay) in enumerate(MOMENTS):
            where = ("controller", "machine")[number % 2]
            moment = {"file": path, "seconds": delay, "killed": where}
            if not self.killed(update(number), path, delay, where):
                raise RuntimeError(f"the update never wrote {path}")
            left = self.differences()
            run = self.begin(update(number))
            said, _ = run.communicate()
            found = self.differences() if run.returncode == 0 else [f"the run failed: {said[-2000:]}"]
            say(f"{number + 1}: {path} + {delay:g} s, {where}; before {left or 'nothing'}, after {found or 'nothing'}")
            if found:
                wrong.append(moment | {"differences": found})
        return {"kills": len(MOMENTS), "wrong": wrong}
