# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The hub's pages: the list as it was signed, how the members' servers are, and what people read."""

from __future__ import annotations

import base64
import json

import pytest
import requests
from ansible_collections.cae.matrix.plugins.module_utils.federation.members import check_signature, read_published
from ansible_collections.cae.matrix.tests.patience import START, patient
from conftest import Api
from federation import HUB, MEMBERS, SERVERS

PROGRAM = f"matrix-federation-directory@{HUB}"
SERVED = f"/var/www/matrix-{HUB}/federation"


def get(name: str = "") -> requests.Response:
    """What anybody gets who asks the hub's domain."""
    session = Api(SERVERS[HUB]).session
    return session.get(f"https://{SERVERS[HUB].domain}/federation/{name}", timeout=patient(START))


@pytest.fixture(autouse=True, scope="module")
def as_it_is_now() -> None:
    """Not as it was while another test had broken something."""
    SERVERS[HUB].run("systemctl", "restart", f"{PROGRAM}.service")


def test_all_members_servers_answer_the_hub() -> None:
    answer = get("state.json")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    found = {one["domain"]: (one["state"], one["problem"]) for one in answer.json()["members"]}
    assert found == {SERVERS[name].domain: ("answers", None) for name in MEMBERS}


def test_people_read_who_is_a_member() -> None:
    answer = get()
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none';")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    for name in MEMBERS:
        assert f"@prénom:{SERVERS[name].domain}" in answer.text
    assert f"{len(MEMBERS)} sur {len(MEMBERS)} répondent." in answer.text
    assert get("style.css").headers["Content-Type"].startswith("text/css")


def test_the_list_is_signed_with_the_key_that_members_pin() -> None:
    key = f"/etc/matrix/{HUB}/federation/members.key"
    public = SERVERS[HUB].run("sh", "-c", f"openssl pkey -in {key} -pubout -outform DER | tail -c 32 | base64")
    answer = get("members.json")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    document, _ = read_published(answer.text, "the hub")
    assert document["hub"] == SERVERS[HUB].domain
    check_signature(json.loads(answer.text), base64.b64decode(public), "the hub")


def test_nothing_else_is_shown_by_a_link() -> None:
    SERVERS[HUB].run("ln", "-s", "/etc/hostname", f"{SERVED}/other.json")
    try:
        assert get("other.json").status_code == 403
    finally:
        SERVERS[HUB].run("rm", f"{SERVED}/other.json")


def test_the_state_is_seen_anew_every_few_minutes() -> None:
    assert SERVERS[HUB].run("systemctl", "is-active", f"{PROGRAM}.timer").strip() == "active"
    assert "OnCalendar=*:0/5" in SERVERS[HUB].run("systemctl", "cat", f"{PROGRAM}.timer")
