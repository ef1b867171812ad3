# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A server that an earlier version of the collection brought up, with people on it, gets the next one."""

from __future__ import annotations

from gate import CONFIG, EARLIER, Server, passed

# Run by the release's own Python, which has YAML: as it was before Synapse had a module of ours.
BEFORE = """
import json, os, pathlib, shutil, subprocess, sys, yaml
config = pathlib.Path(sys.argv[1])
release = (config / "venv").resolve()
earlier = pathlib.Path(sys.argv[2])
subprocess.run(["cp", "-al", release, earlier], check=True)
shutil.rmtree(next(earlier.glob("lib/python3*/site-packages/cae_matrix_opt_in")))
(config / "venv").unlink()
(config / "venv").symlink_to(earlier)
homeserver = config / "synapse/homeserver.yaml"
document = yaml.safe_load(homeserver.read_text())
del document["modules"]
homeserver.write_text(yaml.safe_dump(document))
attestation = config / "attestation.json"
found = json.loads(attestation.read_text())
found["digest"] = "sha256:" + 64 * "0"
attestation.write_text(json.dumps(found))
"""


def test_a_server_without_the_module_gets_it(server: Server) -> None:
    release = server.inside("readlink", "-f", f"{CONFIG}/venv").strip()
    server.inside(f"{release}/bin/python", "-c", BEFORE, CONFIG, EARLIER)
    server.restart()
    passed(server, server.run("molecule/gate/upgrade.yml"))
    assert server.inside("readlink", "-f", f"{CONFIG}/venv").strip() == release
    status, answer = server.ask(
        "POST",
        "/_matrix/client/v3/createRoom",
        {"initial_state": [{"type": "m.room.encryption", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}]},
        server.token_of_support(),
    )
    assert status == 200, answer
    assert "Started plain" in server.journal("--lines", "200")
    server.inside("rm", "-r", EARLIER)
    assert server.attested()["digest"] != "sha256:" + 64 * "0"
