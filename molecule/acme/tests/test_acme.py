# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The certificate is the ACME server's, and a renewal reaches people without anybody's help."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from ansible_collections.cae.matrix.tests.patience import eventually
from testinfra.host import Host

LIVE = "/etc/matrix/atelier/tls/live"


def served(host: Host, *what: str) -> str:
    """What openssl says about the certificate that a client is shown."""
    command = host.run(
        "openssl s_client -connect localhost:443 -servername matrix.atelier.test </dev/null 2>/dev/null"
        f" | openssl x509 -noout {' '.join(what)}"
    )
    assert command.succeeded, host.run("journalctl -u nginx --no-pager -n 50").stdout
    return str(command.stdout).strip()


def test_the_certificate_is_the_acme_servers(host: Host) -> None:
    assert "Pebble" in served(host, "-issuer")
    assert host.check_output(f"realpath {LIVE}") == "/etc/letsencrypt/live/matrix-atelier"


def test_it_covers_every_name(host: Host) -> None:
    names = served(host, "-ext", "subjectAltName")
    assert "DNS:atelier.test" in names
    assert "DNS:matrix.atelier.test" in names


def test_certbots_timer_renews(host: Host) -> None:
    assert host.service("certbot.timer").is_enabled
    assert host.service("certbot.timer").is_running


def test_a_renewal_reaches_people(host: Host) -> None:
    before = served(host, "-serial")
    master = host.check_output("systemctl show -p MainPID --value nginx")
    renewal = host.run("certbot renew --cert-name matrix-atelier --force-renewal --no-random-sleep-on-renew")
    assert renewal.succeeded, renewal.stderr + host.run("journalctl -u pebble --no-pager -n 50").stdout
    eventually(lambda: served(host, "-serial") != before, "another certificate than before is served")
    assert host.check_output("systemctl show -p MainPID --value nginx") == master, "nginx was restarted, not reloaded"


@pytest.mark.last
def test_a_removal_takes_the_certificate_along(host: Host) -> None:
    ephemeral = os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]
    variables = {"matrix_state": "absent", "matrix_removal_confirmed": "atelier.test"}
    done = subprocess.run(
        ["ansible-playbook", "-i", f"{ephemeral}/inventory", "playbooks/cooperative.yml", "-e", json.dumps(variables)],
        cwd=os.environ["MOLECULE_PROJECT_DIRECTORY"],
        env=os.environ | {"ANSIBLE_CONFIG": f"{ephemeral}/ansible.cfg"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        host.run("find /etc/letsencrypt /usr/local/share /etc/ssl/certs /var/www -name '*matrix-atelier*'").stdout == ""
    )
    assert not host.run("grep -c Pebble /etc/ssl/certs/ca-certificates.crt").stdout.strip().strip("0")
    assert host.service("nginx").is_running
