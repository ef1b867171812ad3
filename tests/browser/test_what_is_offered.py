# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What cannot work here, or asks people what they did not ask for, is hidden; without us, Element shows it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from conftest import Instance
from playwright.sync_api import Browser, Locator, Page, expect
from real_element import (
    PATIENCE,
    Person,
    Session,
    create_room,
    newcomer,
    say,
    sessions,
    shoot,
    talk_to,
    with_settings,
    without_module,
)

Opened = Callable[..., Session]


@pytest.fixture
def opened(browser: Browser) -> Iterator[Opened]:
    with sessions(browser) as open_one:
        yield open_one


@pytest.fixture
def person(instance: Instance) -> Person:
    return newcomer(instance, "elise")


def calls(page: Page) -> Locator:
    return page.locator(".mx_RoomHeader").get_by_role("button", name=re.compile("appel", re.IGNORECASE))


def open_settings(page: Page, tab: str) -> Locator:
    page.get_by_role("button", name="Menu utilisateur").click()
    page.get_by_role("menuitem", name="Tous les paramètres").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("tab").first).to_be_visible(timeout=PATIENCE)
    dialog.get_by_role("tab", name=tab).click()
    return dialog


def close_dialog(page: Page) -> None:
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden(timeout=PATIENCE)


def dot(dialog: Locator) -> bool:
    """Whether the tab has its red dot, which is there with Element's mark and drawn by its style."""
    tab = dialog.get_by_role("tab", name="Chiffrement")
    expect(tab).to_have_class(re.compile("mx_SettingsDialog_tabLabelsAlert"), timeout=PATIENCE)
    return bool(tab.evaluate("one => getComputedStyle(one, '::after').display !== 'none'"))


def test_calls_that_cannot_get_through_are_not_offered(
    opened: Opened, instance: Instance, person: Person, screenshots: Path
) -> None:
    other = newcomer(instance, "fatou")
    for offered, prepare in ((False, None), (True, with_settings(**{"UIFeature.voip": True}))):
        session = opened(person, prepare)
        page = session.page
        talk_to(page, other.user_id, f"Bonjour {uuid.uuid4().hex[:6]}")
        expect(calls(page)).to_have_count(2 if offered else 0, timeout=PATIENCE)
        if not offered:
            shoot(page, screenshots, "direct")
        create_room(page)
        say(page, "Bonjour")
        # Alone in a room, one counts as being two.
        expect(calls(page)).to_have_count(2 if offered else 0, timeout=PATIENCE)


def test_the_second_sessions_settings_ask_nothing(opened: Opened, person: Person, screenshots: Path) -> None:
    opened(person)
    page = opened(person).page
    page.get_by_role("button", name="Menu utilisateur").click()
    expect(page.get_by_role("menuitem", name="Tous les paramètres")).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_role("menuitem", name="Associer un nouvel appareil")).to_be_hidden()
    shoot(page, screenshots, "menu")
    page.keyboard.press("Escape")
    dialog = open_settings(page, "Sessions")
    expect(dialog.get_by_role("heading", name="Cette session")).to_be_visible(timeout=PATIENCE)
    expect(dialog.get_by_text("QR code")).to_be_hidden()
    expect(dialog.get_by_text("Associer un nouvel appareil")).to_be_hidden()
    expect(dialog.get_by_text("ne sert qu’aux conversations chiffrées").first).to_be_visible()
    assert not dot(dialog)
    shoot(page, screenshots, "sessions")
    close_dialog(page)
    # Whoever opts in sees the dot, in a session that was open before.
    room = person.call("POST", "/createRoom", {"preset": "private_chat", "name": "Confidentiel"})["room_id"]
    person.call("PUT", f"/rooms/{quote(room)}/state/m.room.encryption/", {"algorithm": "m.megolm.v1.aes-sha2"})
    page.wait_for_function(
        "room => window.mxMatrixClientPeg.get().getRoom(room)?.hasEncryptionStateEvent()", arg=room, timeout=PATIENCE
    )
    assert dot(open_settings(page, "Sessions"))


def test_without_the_module_the_settings_ask(opened: Opened, person: Person) -> None:
    """What everyone else has, and proof that the other test sees what there is to see."""
    person.call("PUT", f"/user/{quote(person.user_id)}/account_data/io.element.recovery", {"enabled": False})
    page = opened(person, without_module).page
    page.get_by_role("button", name="Menu utilisateur").click()
    expect(page.get_by_role("menuitem", name="Associer un nouvel appareil")).to_be_visible(timeout=PATIENCE)
    page.keyboard.press("Escape")
    dialog = open_settings(page, "Sessions")
    expect(dialog.get_by_text("QR code").first).to_be_visible(timeout=PATIENCE)
    assert dot(dialog)
