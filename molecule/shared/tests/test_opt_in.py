# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Encryption is somebody's choice, whatever the client does out of habit: seen from outside, through the proxy."""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import quote

import pytest
from ansible_collections.cae.matrix.tests.patience import eventually
from conftest import Api, Instance, Person

CLIENT = "/_matrix/client/v3"
MEGOLM = {"algorithm": "m.megolm.v1.aes-sha2"}
ENCRYPTED = [{"type": "m.room.encryption", "state_key": "", "content": MEGOLM}]


def make_room(api: Api, owner: Person, headers: dict[str, str], **content: Any) -> str:
    body = {"preset": "private_chat", "initial_state": ENCRYPTED, **content}
    answer = api.request("POST", f"{CLIENT}/createRoom", body, owner.token, headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["room_id"])


def is_encrypted(api: Api, person: Person, room_id: str) -> bool:
    path = f"{CLIENT}/rooms/{quote(room_id)}/state/m.room.encryption/"
    status = api.request("GET", path, token=person.token).status_code
    assert status in (200, 404)
    return status == 200


def account_data(api: Api, person: Person, kind: str) -> dict[str, Any] | None:
    path = f"{CLIENT}/user/{quote(person.user_id)}/account_data/{kind}"
    answer = api.request("GET", path, token=person.token)
    return answer.json() if answer.status_code == 200 else None


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Matrix-Own-Client": "element-web-x"},
        {"Origin": "https://elsewhere.test", "X-Matrix-Own-Client": "element-web-x"},
        {"Origin": "https://chat.{domain}.elsewhere.test"},
        {"Origin": "http://chat.{domain}"},
    ],
    ids=["no mark", "the mark itself", "another site", "a site with our name in it", "without TLS"],
)
def test_what_clients_do_out_of_habit_is_undone(
    instance: Instance, api: Api, people: list[Person], headers: dict[str, str]
) -> None:
    sent = {name: value.format(domain=instance.domain) for name, value in headers.items()}
    amina, bruno = people
    room = make_room(api, amina, sent, preset="trusted_private_chat", is_direct=True, invite=[bruno.user_id])
    assert not is_encrypted(api, amina, room)
    # Both people of a direct conversation can turn it on, from any client.
    api.ok("POST", f"{CLIENT}/join/{quote(room)}", {}, bruno.token)
    api.ok("PUT", f"{CLIENT}/rooms/{quote(room)}/state/m.room.encryption/", MEGOLM, bruno.token)
    assert is_encrypted(api, amina, room)


def test_a_choice_made_in_the_cooperatives_own_element_is_kept(
    instance: Instance, api: Api, people: list[Person]
) -> None:
    if not instance.serves_element:
        assert not is_encrypted(
            api, people[0], make_room(api, people[0], {"Origin": f"https://chat.{instance.domain}"})
        )
        return
    room = make_room(api, people[0], {"Origin": f"https://{instance.element_hostname}"})
    assert is_encrypted(api, people[0], room)


def test_a_person_can_ask_for_more(api: Api, people: list[Person]) -> None:
    bruno = people[1]
    path = f"{CLIENT}/user/{quote(bruno.user_id)}/account_data/cae.matrix.encrypt_new_rooms"
    api.ok("PUT", path, {"enabled": True}, bruno.token)
    assert is_encrypted(api, bruno, make_room(api, bruno, {}, initial_state=[]))
    api.ok("PUT", path, {"enabled": False}, bruno.token)
    assert not is_encrypted(api, bruno, make_room(api, bruno, {}))


def test_newcomers_are_not_asked_about_recovery_until_they_opt_in(api: Api, registration_token: str) -> None:
    answer = api.register(f"dalia-{secrets.token_hex(4)}", "un mot de passe assez long", registration_token)
    assert answer.status_code == 200, answer.text
    dalia = api.login(answer.json()["user_id"], "un mot de passe assez long")
    eventually(lambda: account_data(api, dalia, "io.element.recovery") == {"enabled": False})
    room = make_room(api, dalia, {})
    assert account_data(api, dalia, "io.element.recovery") == {"enabled": False}
    api.ok("PUT", f"{CLIENT}/rooms/{quote(room)}/state/m.room.encryption/", MEGOLM, dalia.token)
    eventually(lambda: account_data(api, dalia, "io.element.recovery") == {})
