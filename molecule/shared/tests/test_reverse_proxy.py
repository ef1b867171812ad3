# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What reaches the homeserver from outside, and how it is served."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from ansible_collections.cae.matrix.tests.patience import START, patient
from conftest import Instance
from testinfra.host import Host

HSTS = "max-age=63072000"


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


def connect(instance: Instance, name: str, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
    raw = socket.create_connection((instance.address, 443), timeout=patient(START))
    return (context or instance.ssl_context()).wrap_socket(raw, server_hostname=name)


def get(
    instance: Instance, name: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
) -> Answer:
    """One request; the path goes out exactly as it stands, which no polite client would do."""
    connection = http.client.HTTPConnection(name)
    connection.sock = connect(instance, name)
    try:
        connection.request("POST" if body is not None else "GET", path, body, dict(headers or {}))
        answer = connection.getresponse()
        return Answer(answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def test_the_client_api_passes(instance: Instance) -> None:
    answer = get(instance, instance.matrix_hostname, "/_matrix/client/versions")
    assert answer.status == 200
    assert "v1.1" in json.loads(answer.body)["versions"]
    assert answer.headers["strict-transport-security"] == HSTS


def test_the_address_passes_as_it_came(instance: Instance) -> None:
    # Synapse answers for the room that it is asked about: with a slash made of %2F it is not another address.
    room = f"/_matrix/client/v3/directory/room/%23a%2Fb%25c:{instance.domain}"
    answer = get(instance, instance.matrix_hostname, room)
    assert answer.status == 404
    assert json.loads(answer.body)["errcode"] == "M_NOT_FOUND", answer.body
    through = get(instance, instance.matrix_hostname, "/_matrix/client/v3/directory/room/a/b")
    assert json.loads(through.body)["errcode"] == "M_UNRECOGNIZED"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/health",
        "/_synapse/admin/v1/server_version",
        "/_synapse/metrics",
        "/_synapse/replication/x",
        "//_synapse/admin/v1/server_version",
        "/_matrix/../_synapse/admin/v1/server_version",
        "/_matrix/%2e%2e/_synapse/admin/v1/server_version",
        "/_matrix/..%2f_synapse/admin/v1/server_version",
        "/_synapse/client/../admin/v1/server_version",
        "/_synapse/client/%2e%2e/admin/v1/server_version",
        "/%5fsynapse/admin/v1/server_version",
        # nginx sees /_matrix/x in these, Synapse would see the admin API.
        "/_synapse/admin/v1/server_version/../../../../_matrix/x",
        "/_synapse/admin/v1/whois/..%2f..%2f..%2f..%2f_matrix%2fx",
        "/_synapse/admin/v1/whois/%2e%2e%2f%2e%2e%2f%2e%2e%2f%2e%2e%2f_matrix%2fx",
    ],
)
def test_nothing_else_passes(instance: Instance, path: str) -> None:
    answer = get(instance, instance.matrix_hostname, path)
    assert answer.status == 404
    assert json.loads(answer.body)["error"] == "Not served here", "this came from Synapse"
    assert len(answer.body) < 200


def test_a_request_that_is_too_large_is_told_so(instance: Instance) -> None:
    connection = http.client.HTTPConnection(instance.matrix_hostname)
    connection.sock = connect(instance, instance.matrix_hostname)
    try:
        connection.putrequest("POST", "/_matrix/media/v3/upload")
        connection.putheader("Content-Length", str(2**40))
        connection.endheaders()
        answer = connection.getresponse()
        assert answer.status == 413
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert json.loads(answer.read())["errcode"] == "M_TOO_LARGE"
    finally:
        connection.close()


@pytest.mark.parametrize("document", ["client", "server"])
def test_well_known_documents(instance: Instance, document: str) -> None:
    for name in (instance.domain, instance.matrix_hostname):
        answer = get(instance, name, f"/.well-known/matrix/{document}")
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["access-control-allow-origin"] == "*"
        content = json.loads(answer.body)
        if document == "client":
            assert content["m.homeserver"]["base_url"] == instance.base_url
            assert content["io.element.e2ee"]["default"] is False
        else:
            assert content["m.server"] == f"{instance.matrix_hostname}:443"


def test_http_leads_to_https(instance: Instance) -> None:
    for name in (instance.domain, instance.matrix_hostname):
        connection = http.client.HTTPConnection(instance.address, 80, timeout=patient(START))
        connection.request("GET", "/a?b", headers={"Host": name})
        answer = connection.getresponse()
        assert answer.status == 301
        assert answer.headers["Location"] == f"https://{name}/a?b"
        connection.close()


@pytest.mark.parametrize(
    ("path", "status", "cache"),
    [
        ("/", 200, "no-cache"),
        ("/index.html", 200, "no-cache"),
        ("/config.json", 200, "no-cache"),
        ("/mobile_guide/", 200, "no-cache"),
        ("/manifest.json", 200, "no-cache"),
        ("/no-such-page", 404, "no-cache"),
        ("/bundles/0123456789abcdef/no-such-file.js", 404, "no-cache"),
    ],
)
def test_elements_headers_are_on_every_response(instance: Instance, path: str, status: int, cache: str) -> None:
    answer = get(instance, instance.element_hostname, path)
    assert answer.status == status
    assert answer.headers["x-frame-options"] == "SAMEORIGIN"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "frame-ancestors 'self'"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["strict-transport-security"] == HSTS
    assert answer.headers["cache-control"] == cache
    if status == 200 and "etag" in answer.headers:
        again = get(instance, instance.element_hostname, path, {"If-None-Match": answer.headers["etag"]})
        assert again.status == 304
        assert again.headers["x-frame-options"] == "SAMEORIGIN"
        assert again.headers["cache-control"] == cache


def test_elements_configuration_by_hostname(instance: Instance) -> None:
    plain = get(instance, instance.element_hostname, "/config.json")
    named = get(instance, instance.element_hostname, f"/config.{instance.element_hostname}.json")
    assert named.status == 200
    assert json.loads(plain.body) == json.loads(named.body)


@pytest.mark.parametrize("path", ["/mobile_guide/", "/mobile_guide/index.html", "/mobile_guide/assets/x.svg?y"])
def test_telephones_get_the_cooperatives_page(instance: Instance, path: str) -> None:
    answer = get(instance, instance.element_hostname, path)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/html")
    page = answer.body.decode()
    assert instance.domain in page
    assert "la messagerie sur un téléphone" in page


def test_the_chat_name_is_not_the_homeserver(instance: Instance) -> None:
    assert get(instance, instance.element_hostname, "/_matrix/client/versions").status == 404


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_versions_and_suites(instance: Instance, version: ssl.TLSVersion) -> None:
    context = instance.ssl_context()
    context.minimum_version = context.maximum_version = version
    with connect(instance, instance.matrix_hostname, context) as connected:
        cipher = connected.cipher()
    assert cipher is not None
    assert version == ssl.TLSVersion.TLSv1_3 or cipher[0].startswith("ECDHE-")
    assert any(aead in cipher[0] for aead in ("GCM", "CHACHA20"))


@pytest.mark.parametrize("suite", ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA256", "ECDHE-RSA-AES256-SHA384"])
def test_weak_suites_are_refused(instance: Instance, suite: str) -> None:
    context = instance.ssl_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(suite)
    with pytest.raises(ssl.SSLError, match=r"(?i)handshake.failure"):
        connect(instance, instance.matrix_hostname, context)


def test_names_that_nobody_claims_get_no_certificate(instance: Instance) -> None:
    with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
        connect(instance, "nobody.invalid")


def test_the_configuration_is_quiet_and_ours_alone(instance: Instance, host: Host) -> None:
    tested = host.run("nginx -t")
    assert tested.succeeded
    assert "warn" not in tested.stderr
    assert "default_server" not in host.file(f"/etc/nginx/sites-available/matrix-{instance.slug}.conf").content_string
    assert host.service("nginx").is_enabled
    assert host.service("nginx").is_running


def test_the_key_is_roots(instance: Instance, host: Host) -> None:
    key = host.check_output(f"realpath /etc/matrix/{instance.slug}/tls/live/privkey.pem")
    assert host.file(key).mode == 0o600
    assert host.file(key).user == "root"
    assert host.file(f"/etc/matrix/{instance.slug}/tls").mode == 0o700
