# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What only the real Element Web can show: its pages in French, plain rooms, the switch to encrypt, no third party."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from urllib.parse import quote, urlsplit

from conftest import Instance, Visit
from playwright.sync_api import expect

PATIENCE = 60_000
# Written into Element itself; a link that nothing is loaded from.
LINKS_OF_ELEMENT = {"matrix.org"}


def foreign_links(instance: Instance, visit: Visit) -> set[str]:
    links = visit.page.eval_on_selector_all("a[href]", "all => all.map(one => one.href)")
    return {str(urlsplit(link).hostname) for link in links if link.startswith("http")} - instance.hosts


def test_the_welcome_page(instance: Instance, visit: Visit, screenshots: Path) -> None:
    visit.page.goto(f"{instance.element_url}#/welcome")
    expect(visit.page.get_by_role("heading", level=1)).to_be_visible(timeout=PATIENCE)
    expect(visit.page.get_by_text("Se connecter")).to_be_visible()
    visit.page.wait_for_load_state("networkidle")
    visit.page.screenshot(path=screenshots / "welcome.png")
    assert visit.hosts() <= instance.hosts
    assert foreign_links(instance, visit) <= LINKS_OF_ELEMENT


def test_the_login_page(instance: Instance, visit: Visit, screenshots: Path) -> None:
    visit.page.goto(f"{instance.element_url}#/login")
    expect(visit.page.get_by_role("button", name="Se connecter", exact=True)).to_be_visible(timeout=PATIENCE)
    visit.page.wait_for_load_state("networkidle")
    visit.page.screenshot(path=screenshots / "login.png")
    assert visit.hosts() <= instance.hosts
    assert foreign_links(instance, visit) <= LINKS_OF_ELEMENT


def test_a_room_is_plain_and_can_be_encrypted(instance: Instance, visit: Visit, screenshots: Path) -> None:
    person, page = instance.accounts[0], visit.page
    page.goto(f"{instance.element_url}#/login")
    page.locator("input[name=username]").fill(person["user_id"].split(":")[0].removeprefix("@"), timeout=PATIENCE)
    page.locator("input[name=password]").fill(person["password"])
    page.get_by_role("button", name="Se connecter", exact=True).click()
    page.wait_for_function("() => window.mxMatrixClientPeg?.get()?.isInitialSyncComplete()", timeout=PATIENCE)

    name = f"Essai {uuid.uuid4().hex[:6]}"
    room = page.evaluate(
        "async name => (await window.mxMatrixClientPeg.get().createRoom({name, preset: 'private_chat'})).room_id", name
    )
    page.goto(f"{instance.element_url}#/room/{quote(room, safe='!:')}")
    composer = page.locator(".mx_BasicMessageComposer_input, .mx_WysiwygComposer_Editor_content").first
    # A first session may be told that its keys were not set up; a later issue keeps that away.
    cancel = page.get_by_role("button", name="Annuler")
    expect(composer.or_(cancel).first).to_be_visible(timeout=PATIENCE)
    if cancel.count():
        cancel.first.click()
    expect(composer).to_be_visible(timeout=PATIENCE)
    composer.click()
    page.keyboard.type("Bonjour à toutes et à tous")
    page.keyboard.press("Enter")
    expect(page.locator(".mx_EventTile").get_by_text("Bonjour à toutes et à tous")).to_be_visible(timeout=PATIENCE)
    page.screenshot(path=screenshots / "room.png")
    encrypted = "room => window.mxMatrixClientPeg.get().getRoom(room).hasEncryptionStateEvent()"
    assert page.evaluate(encrypted, room) is False

    page.evaluate(
        "room => window.mxDispatcher.dispatch({action: 'open_room_settings', initial_tab_id: 'ROOM_SECURITY_TAB', room_id: room})",
        room,
    )
    switch = page.get_by_role("switch", name=re.compile("chiffr", re.IGNORECASE)).first
    expect(switch).to_be_visible(timeout=PATIENCE)
    expect(switch).to_be_enabled()
    page.screenshot(path=screenshots / "switch.png")
    assert visit.hosts() <= instance.hosts, "a third party was asked"
