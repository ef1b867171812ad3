# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tokens travel encrypted, or not at all, whichever client of ours carries them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.cae.matrix.plugins.module_utils.encryption.audit import AdminApi, Unreadable
from ansible_collections.cae.matrix.plugins.module_utils.outside.public_client import PublicClient
from ansible_collections.cae.matrix.plugins.module_utils.synapse.admin import RemoteSynapse, SynapseError
from ansible_collections.cae.matrix.tests.unit.public_server import Answer, Asked, Authority, serve

NAME = "localhost"
CLIENTS: dict[str, Callable[[str], object]] = {
    "audit": lambda url: AdminApi(PublicClient(), url, "token"),
    "remedy": RemoteSynapse,
}


@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)
@pytest.mark.parametrize(
    "url",
    [
        "http://matrix.coop.example",
        "http://192.0.2.1:8008",
        "http://localhost.evil.example",
        "http://127.0.0.1.nip.io",
        "http://127.0.0.1@evil.example",
        "http://localhost:8008@evil.example",
        "http://evil.example#localhost",
        "http://evil.example?localhost",
        "http://2130706433",
        "http://0.0.0.0:8008",
        "HTTP://matrix.coop.example",
        "https://user:password@matrix.coop.example",
        "https://matrix.coop.example:99999",
        "ftp://localhost",
        "matrix.coop.example",
        "https://",
        "http://[::1",
        "",
    ],
)
def test_an_address_that_would_give_the_token_away_is_refused(client: Callable[[str], object], url: str) -> None:
    with pytest.raises((Unreadable, SynapseError)) as raised:
        client(url)
    assert "https://" in str(raised.value)


@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)
@pytest.mark.parametrize(
    "url", ["http://localhost:8008", "http://[::1]:8008", "http://127.0.0.1:8008/", "https://matrix.coop.example"]
)
def test_an_address_that_keeps_it(client: Callable[[str], object], url: str) -> None:
    client(url)


def test_what_stands_in_for_dns_leads_no_token_away() -> None:
    with pytest.raises(Unreadable, match="matrix_resolve"):
        AdminApi(PublicClient({"localhost": "192.0.2.1"}), "http://localhost:8008", "token")


def versions(asked: Asked) -> Answer:
    return 200, {"Content-Type": "application/json"}, b'{"versions": []}'


def test_a_ca_file_joins_the_system_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system, own = Authority(tmp_path, "System"), Authority(tmp_path, "Own")
    monkeypatch.setenv("SSL_CERT_FILE", str(system.ca_file))
    for authority in (system, own):
        with serve(versions, authority.server_context(NAME)) as where:
            remote = RemoteSynapse(f"https://localhost:{where.rpartition(':')[2]}", str(own.ca_file))
            assert remote.call("GET", "/_matrix/client/versions") == {"versions": []}
            remote.close()
    (tmp_path / "none.pem").write_text("no certificate")
    with pytest.raises(SynapseError, match="no certificate in PEM"):
        RemoteSynapse("https://localhost", str(tmp_path / "none.pem"))


def test_no_redirect_is_followed_with_the_token(tmp_path: Path) -> None:
    asked: list[Asked] = []

    def site(what: Asked) -> Answer:
        asked.append(what)
        return 302, {"Location": "http://127.0.0.1:1/"}, b"{}"

    with serve(site) as where:
        remote = RemoteSynapse(f"http://{where}")
        remote.token = "secret"
        assert remote.ask("GET", "/_matrix/client/versions")[0] == 302
        remote.close()
    assert len(asked) == 1
