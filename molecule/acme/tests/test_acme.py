# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The certificate is the ACME server's, and a renewal reaches people without anybody's help."""

from __future__ import annotations

import time

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
    deadline = time.monotonic() + 15
    while (after := served(host, "-serial")) == before and time.monotonic() < deadline:
        time.sleep(0.2)
    assert after != before
    assert host.check_output("systemctl show -p MainPID --value nginx") == master, "nginx was restarted, not reloaded"
