# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The certificate is the ACME server's, and a renewal reaches people without anybody's help."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.cae.matrix.tests.patience import eventually
from conftest import run_playbook
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


CONVERGE = "molecule/acme/converge.yml"


# The same server under another address: what certbot remembers, and what is declared, differ.
ELSEWHERE: dict[str, Any] = {"reverse_proxy_acme_directory": "https://localhost:14001/dir"}


@pytest.fixture
def another_acme_server(host: Host) -> Iterator[None]:
    settings = json.loads(host.check_output("cat /etc/pebble.json"))
    settings["pebble"] |= {"listenAddress": "127.0.0.1:14001", "managementListenAddress": "127.0.0.1:15001"}
    host.check_output("printf %s '" + json.dumps(settings) + "' > /etc/pebble-2.json")
    host.check_output(
        "systemd-run --unit pebble-2 --setenv=PEBBLE_VA_NOSLEEP=1 --setenv=PEBBLE_WFE_NONCEREJECT=0"
        " pebble -config /etc/pebble-2.json"
    )
    eventually(lambda: host.socket("tcp://127.0.0.1:14001").is_listening, "the other ACME server listens")
    yield
    host.run("systemctl stop pebble-2")


def test_a_record_that_leads_elsewhere_is_named_before_anything_changes(host: Host) -> None:
    """The machine has no IPv6 address: an ACME server prefers an AAAA record, and would find nobody."""
    host.check_output("cp /etc/hosts /etc/hosts.before && echo '2001:db8::9 matrix.atelier.test' >> /etc/hosts")
    before = served(host, "-serial")
    try:
        status, said = run_playbook(CONVERGE, **ELSEWHERE)
    finally:
        # A mount of the container's: written to, not replaced.
        host.check_output("cat /etc/hosts.before > /etc/hosts")
    assert status != 0
    assert (
        "the AAAA record of matrix.atelier.test leads to 2001:db8::9, and this machine has no IPv6 address"
        in " ".join(said.split())
    )
    assert re.search(r"^atelier .*changed=0 ", said, re.MULTILINE), said
    assert served(host, "-serial") == before


# As another certbot that runs: until somebody has come, and a moment more.
HOLD = """
import fcntl, subprocess, time
held = open("/var/lib/letsencrypt/.certbot.lock", "w")
fcntl.lockf(held, fcntl.LOCK_EX)
while subprocess.run(["pgrep", "--full", "[c]ertbot certonly"], stdout=subprocess.DEVNULL).returncode:
    time.sleep(0.1)
time.sleep(2)
"""


def test_another_directory_account_or_option_is_put_in_force(host: Host, another_acme_server: None) -> None:
    """Staging and then production, say; with what is declared now, the timer renews too."""
    before = served(host, "-issuer")
    host.check_output(f"systemd-run --unit certbot-held python3 -c '{HOLD}'")
    eventually(lambda: "Another instance of Certbot" in host.run("certbot certificates").stderr, "certbot is held up")
    status, said = run_playbook(CONVERGE, **ELSEWHERE)
    assert status == 0, said
    assert not host.service("certbot-held").is_running
    assert served(host, "-issuer") != before
    renewal = host.check_output("cat /etc/letsencrypt/renewal/matrix-atelier.conf")
    assert "server = https://localhost:14001/dir" in renewal
    more = {**ELSEWHERE, "reverse_proxy_acme_options": {"reuse-key": True}}
    status, said = run_playbook(CONVERGE, **more)
    assert status == 0, said
    assert "reuse_key = True" in host.check_output("cat /etc/letsencrypt/renewal/matrix-atelier.conf")
    serial = served(host, "-serial")
    status, said = run_playbook(CONVERGE, **more)
    assert status == 0, said
    assert re.search(r"^atelier .*changed=0 ", said, re.MULTILINE), said
    assert served(host, "-serial") == serial


@pytest.mark.last
def test_a_removal_takes_the_certificate_along(host: Host) -> None:
    status, said = run_playbook(
        "playbooks/cooperative.yml", matrix_state="absent", matrix_removal_confirmed="atelier.test"
    )
    assert status == 0, said
    assert (
        host.run("find /etc/letsencrypt /usr/local/share /etc/ssl/certs /var/www -name '*matrix-atelier*'").stdout == ""
    )
    assert not host.run("grep -c Pebble /etc/ssl/certs/ca-certificates.crt").stdout.strip().strip("0")
    assert host.service("nginx").is_running
