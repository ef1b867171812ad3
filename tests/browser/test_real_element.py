# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What only the real Element Web can show: its pages in French, plain rooms, the switch to encrypt, no third party.

One person logs in once, and does in the tests what people do, in this order.
"""

from __future__ import annotations

import json
import re
import secrets
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from ansible_collections.cae.matrix.tests.patience import START, eventually
from conftest import Instance, Visit, arrive, open_page
from playwright.sync_api import Browser, Page, expect
from real_element import (
    CLIENT,
    COMPOSER,
    PATIENCE,
    becomes_encrypted,
    create_room,
    encryption,
    foreign_links,
    new_conversation,
    room_of,
    say,
    shoot,
    talk_to,
)

# Written into Element, with nothing to set: its help on the page about identities, and whom its pictures belong to,
# which their licences want to be said. Nothing is loaded from there.
LINKS_OF_THE_IDENTITY_PAGE = {"element.io"}
LINKS_OF_THE_CREDITS = {
    "www.flickr.com",
    "creativecommons.org",
    "github.com",
    "mozilla.org",
    "www.apache.org",
    "twemoji.twitter.com",
}


@dataclass
class SignedIn:
    visit: Visit
    token: str
    room: str = ""

    @property
    def page(self) -> Page:
        return self.visit.page


@pytest.fixture(scope="module")
def person(instance: Instance, browser: Browser, screenshots: Path) -> Iterator[SignedIn]:
    account = instance.people[0]
    localpart = account["user_id"].split(":")[0].removeprefix("@")
    login: dict[str, Any] = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": localpart},
        "password": account["password"],
    }
    status, answer = instance.api("POST", f"{CLIENT}/login", login)
    assert status == 200, answer
    token = str(answer["access_token"])
    asked: dict[str, Any] = {"device_keys": {account["user_id"]: []}}
    _status, keys = instance.api("POST", f"{CLIENT}/keys/query", asked, token)
    has_identity = account["user_id"] in keys["master_keys"]

    visit = open_page(browser)
    page = visit.page
    arrive(page, f"{instance.element_url}#/login")
    page.locator("input[name=username]").fill(localpart, timeout=PATIENCE)
    page.locator("input[name=password]").fill(account["password"])
    page.get_by_role("button", name="Se connecter", exact=True).click()
    inside = page.get_by_role("button", name="Menu utilisateur")
    identity = page.get_by_role("button", name="Ignorer la vérification pour l’instant")
    stopped = page.get_by_text("Impossible de configurer les clés")
    expect(inside.or_(identity).or_(stopped).first).to_be_visible(timeout=PATIENCE)
    assert stopped.count() == 0
    # Whoever took part in an encrypted room in an earlier run of these tests is asked first.
    if has_identity and identity.count():
        shoot(page, screenshots, "identity")
        assert foreign_links(instance, page) <= LINKS_OF_THE_IDENTITY_PAGE
        identity.click()
        page.get_by_role("button", name=re.compile("plus tard")).click()
    expect(inside).to_be_visible(timeout=PATIENCE)
    page.wait_for_function("() => window.mxMatrixClientPeg?.get()?.isInitialSyncComplete()", timeout=PATIENCE)
    yield SignedIn(visit, token)
    instance.api("POST", f"{CLIENT}/logout", {}, token)
    page.context.close()


def colour(instance: Instance) -> str:
    """The cooperative's, or else the one of Element's buttons."""
    served = json.loads(instance.document(f"{instance.element_url}config.json"))
    if "/custom/colours.js" not in served["modules"]:
        return "#1b1d22"
    return str(json.loads(instance.document(f"{instance.element_url}manifest.json"))["theme_color"])


def test_the_welcome_page(instance: Instance, visit: Visit, screenshots: Path) -> None:
    visit.page.goto(f"{instance.element_url}#/welcome")
    expect(visit.page.get_by_role("heading", level=1)).to_be_visible(timeout=PATIENCE)
    button = visit.page.get_by_text("Se connecter", exact=True)
    expect(button).to_be_visible()
    red, green, blue = (int(colour(instance)[at : at + 2], 16) for at in (1, 3, 5))
    expect(button).to_have_css("background-color", f"rgb({red}, {green}, {blue})")
    visit.page.wait_for_load_state("networkidle")
    shoot(visit.page, screenshots, "welcome")
    assert visit.hosts() <= instance.hosts
    assert foreign_links(instance, visit.page) == set()
    help_link = visit.page.get_by_role("link", name="Besoin d’aide")
    expect(help_link).to_have_attribute("href", f"{instance.element_url}custom/aide.html")
    button.click()
    expect(visit.page.locator("input[name=password]")).to_be_visible(timeout=PATIENCE)


def test_who_has_a_code_creates_an_account(instance: Instance, visit: Visit, screenshots: Path) -> None:
    page = visit.page
    arrive(page, f"{instance.element_url}#/welcome")
    page.get_by_text("Créer un compte").click()
    page.locator("#mx_RegistrationForm_username").fill(f"nouvelle-{uuid.uuid4().hex[:6]}", timeout=PATIENCE)
    password = secrets.token_urlsafe(16)
    page.locator("#mx_RegistrationForm_password").fill(password)
    page.locator("#mx_RegistrationForm_passwordConfirm").fill(password)
    page.get_by_role("button", name=re.compile("inscrire")).click()
    expect(page.get_by_role("textbox", name="Code d’invitation")).to_be_visible(timeout=PATIENCE)
    assert "jeton" not in page.locator("body").inner_text().lower()
    shoot(page, screenshots, "register")
    assert foreign_links(instance, page) == set()
    assert visit.hosts() <= instance.hosts


def test_the_login_page(instance: Instance, visit: Visit, screenshots: Path) -> None:
    arrive(visit.page, f"{instance.element_url}#/login")
    expect(visit.page.get_by_role("button", name="Se connecter", exact=True)).to_be_visible(timeout=PATIENCE)
    visit.page.wait_for_load_state("networkidle")
    shoot(visit.page, screenshots, "login")
    # There is no mail server to send a new one.
    expect(visit.page.get_by_text("Mot de passe oublié")).to_have_count(0)
    assert visit.hosts() <= instance.hosts
    assert foreign_links(instance, visit.page) == set()


def test_a_new_room_is_plain_and_its_dialog_offers_encryption(
    instance: Instance, person: SignedIn, screenshots: Path
) -> None:
    page = person.page
    dialog = new_conversation(page, "Nouveau salon")
    switch = dialog.get_by_role("switch", name=re.compile("chiffrement"))
    expect(switch).to_be_visible(timeout=PATIENCE)
    expect(switch).to_be_enabled()
    expect(switch).not_to_be_checked()
    shoot(page, screenshots, "create")
    assert foreign_links(instance, page) == set()
    dialog.get_by_role("textbox").first.fill(f"Essai {uuid.uuid4().hex[:6]}")
    dialog.get_by_role("button", name="Créer un salon").click()
    person.room = room_of(page)
    say(page, "Bonjour à toutes et à tous")
    shoot(page, screenshots, "room")
    assert encryption(instance, person.token, person.room) == 404
    assert foreign_links(instance, page) == set()


def test_a_direct_conversation_is_plain(instance: Instance, person: SignedIn) -> None:
    page, other = person.page, instance.people[1]["user_id"]
    text = f"Bonjour {uuid.uuid4().hex[:6]}"

    def look() -> None:
        assert foreign_links(instance, page) == set()

    room = talk_to(page, other, text, look)
    assert room != person.room
    assert encryption(instance, person.token, room) == 404
    # The server itself reads it: plain in the event, not only in what Element shows, perhaps before it is sent.
    path = f"{CLIENT}/rooms/{quote(room)}/messages?dir=b&limit=5"

    def read() -> list[str]:
        _status, answer = instance.api("GET", path, token=person.token)
        return [event["content"].get("body") for event in answer["chunk"] if event["type"] == "m.room.message"]

    eventually(lambda: text in read(), "the server reads what was said", START)


def test_people_turn_encryption_on_in_the_rooms_settings(
    instance: Instance, person: SignedIn, screenshots: Path
) -> None:
    page = person.page
    page.goto(f"{instance.element_url}#/room/{quote(person.room, safe='!:')}")
    expect(page.locator(COMPOSER).first).to_be_visible(timeout=PATIENCE)
    page.get_by_role("button", name=re.compile("^Informations? (du|sur le) salon")).first.click()
    page.get_by_role("menuitem", name="Paramètres").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("tab", name=re.compile("Sécurité")).click()
    switch = dialog.get_by_role("switch", name=re.compile("chiffr", re.IGNORECASE)).first
    expect(switch).to_be_visible(timeout=PATIENCE)
    expect(switch).to_be_enabled()
    expect(switch).not_to_be_checked()
    shoot(page, screenshots, "switch")
    assert foreign_links(instance, page) == set()
    switch.click()
    question = page.get_by_role("dialog").filter(has_text="Activer le chiffrement ?").last
    assert foreign_links(instance, page) == set()
    question.get_by_role("button", name="OK").click()
    expect(switch).to_be_checked(timeout=PATIENCE)
    assert becomes_encrypted(instance, person.token, person.room)
    page.keyboard.press("Escape")


def test_the_settings_lead_to_nobody_else(instance: Instance, person: SignedIn, screenshots: Path) -> None:
    page = person.page
    page.get_by_role("button", name="Menu utilisateur").click()
    assert foreign_links(instance, page) == set()
    page.get_by_role("menuitem", name="Tous les paramètres").click()
    tabs = page.get_by_role("dialog").get_by_role("tab")
    expect(tabs.first).to_be_visible(timeout=PATIENCE)
    assert tabs.count() > 5
    found: dict[str, set[str]] = {}
    for tab in tabs.all():
        tab.click()
        expect(tab).to_have_attribute("aria-selected", "true")
        expect(page.get_by_role("dialog").get_by_role("heading", level=2).first).to_be_visible(timeout=PATIENCE)
        name = str(tab.get_attribute("data-testid") or tab.get_attribute("aria-controls"))
        found[name] = foreign_links(instance, page)
        if "ENCRYPTION" in name:
            shoot(page, screenshots, "settings")
    credits = {name: hosts for name, hosts in found.items() if hosts}
    assert all("HELP" in name and hosts <= LINKS_OF_THE_CREDITS for name, hosts in credits.items()), credits


def test_elements_help_leads_to_the_help_page(instance: Instance, person: SignedIn, screenshots: Path) -> None:
    page = person.page
    settings = page.get_by_role("dialog")
    settings.get_by_role("tab", name=re.compile("^Aide")).click()
    with page.context.expect_page() as opened:
        settings.get_by_role("link", name="ici", exact=True).click()
    help_page = opened.value
    expect(help_page.get_by_role("heading", level=1)).to_contain_text("aide de la messagerie", timeout=PATIENCE)
    assert help_page.url == f"{instance.element_url}custom/aide.html"
    assert "un compte Matrix sur un autre serveur" in help_page.locator("body").inner_text()
    shoot(help_page, screenshots, "help")
    assert foreign_links(instance, help_page) == set()
    assert help_page.locator("script").count() == 0
    help_page.close()
    page.keyboard.press("Escape")
    expect(settings).to_be_hidden(timeout=PATIENCE)


@pytest.mark.parametrize("looked_up", [False, True], ids=["as it is set here", "as Element sets it"])
def test_whom_no_server_knows_can_be_invited(
    instance: Instance, person: SignedIn, screenshots: Path, looked_up: bool
) -> None:
    """Of people on other servers nothing is told, either: Element must not make their invitation depend on it."""
    page, unknown = person.page, f"@inconnue-{uuid.uuid4().hex[:6]}:{instance.domain}"
    setting = "promptBeforeInviteUnknownUsers"
    assert page.evaluate(f"() => window.mxSettingsStore.getValue('{setting}')") is False
    if looked_up:
        page.evaluate(f"() => window.mxSettingsStore.setValue('{setting}', null, 'device', true)")
    # Or the room that is open would be taken for the new one.
    page.goto(f"{instance.element_url}#/home")
    room = create_room(page)
    page.get_by_role("button", name=re.compile("^Informations? (du|sur le) salon")).first.click()
    page.get_by_role("menuitem", name="Inviter", exact=True).click()
    dialog = page.get_by_role("dialog")
    dialog.locator("input").first.fill(unknown)
    dialog.get_by_role("button", name="Inviter", exact=True).click()
    confirm = page.get_by_role("dialog").filter(has_text="Inviter de nouveaux contacts dans ce salon")
    expect(confirm).to_be_visible(timeout=PATIENCE)
    if not looked_up:
        shoot(page, screenshots, "invite")
    confirm.get_by_role("button", name="Inviter", exact=True).click()
    stopped = page.get_by_role("dialog").filter(has_text=re.compile("pourraient ne pas exister|n’ont pas pu être"))
    expect(stopped if looked_up else page.get_by_text(f"a invité {unknown}")).to_be_visible(timeout=PATIENCE)
    path = f"{CLIENT}/rooms/{quote(room)}/state/m.room.member/{quote(unknown)}"
    status, content = instance.api("GET", path, token=person.token)
    assert (status, content.get("membership")) == ((404, None) if looked_up else (200, "invite"))
    assert bool(stopped.count()) is looked_up
    if looked_up:
        page.evaluate(f"() => window.mxSettingsStore.setValue('{setting}', null, 'device', null)")


def test_nobody_else_was_asked(instance: Instance, person: SignedIn) -> None:
    assert person.visit.hosts() <= instance.hosts
