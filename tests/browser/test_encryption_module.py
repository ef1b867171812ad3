# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Nobody meets encryption who has not asked for it; everybody can ask: with the real Element, as new people see it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from conftest import Instance, Visit
from playwright.sync_api import Browser, Page, expect
from real_element import (
    COMPOSER,
    PATIENCE,
    Person,
    Session,
    another_version,
    becomes_encrypted,
    create_room,
    encryption,
    identity_page,
    inside,
    newcomer,
    say,
    sessions,
    shoot,
    talk_to,
    without_module,
)

PREFERENCE = "cae.matrix.encrypt_new_rooms"
RECOVERY = "io.element.recovery"
EXPLANATION = "Qui peut lire cette conversation ?"
Opened = Callable[..., Session]
Record = Callable[[str, object], None]


@pytest.fixture
def opened(browser: Browser) -> Iterator[Opened]:
    """Sessions that end with the test."""
    with sessions(browser) as open_one:
        yield open_one


@pytest.fixture
def person(instance: Instance) -> Person:
    return newcomer(instance, "chloe")


@pytest.fixture
def other(instance: Instance) -> Person:
    return newcomer(instance, "david")


def first_steps(session: Session, other: Person) -> str:
    """A sent direct message and a room of one's own; the room."""
    talk_to(session.page, other.user_id, f"Bonjour {uuid.uuid4().hex[:6]}")
    room = create_room(session.page)
    say(session.page, "Bienvenue ici")
    session.settle()
    return room


def go_to(page: Page, room: str) -> None:
    page.goto(f"{page.url.split('#')[0]}#/room/{quote(room, safe='!:')}")
    expect(page.locator(COMPOSER).first).to_be_visible(timeout=PATIENCE)


def test_a_newcomer_is_asked_nothing(
    opened: Opened, person: Person, other: Person, screenshots: Path, record_property: Record
) -> None:
    first = opened(person)
    first_steps(first, other)
    shoot(first.page, screenshots, "first-session")
    record_property("with the module: prompts, first session", len(first.prompts))
    assert first.prompts == []

    second = opened(person)
    shoot(second.page, screenshots, "second-session")
    record_property("with the module: prompts, second browser", len(second.prompts))
    assert second.prompts == []
    expect(inside(second.page)).to_be_visible()
    # Nor does the first session ask about the new one.
    first.settle()
    assert first.prompts == []
    second.page.reload()
    expect(inside(second.page)).to_be_visible(timeout=PATIENCE)
    second.settle()
    assert second.prompts == []


def test_without_the_module_element_asks(
    opened: Opened, instance: Instance, person: Person, other: Person, screenshots: Path, record_property: Record
) -> None:
    """What everyone else has, and proof that the detector sees what there is to see."""
    person.call("PUT", f"/user/{quote(person.user_id)}/account_data/{RECOVERY}", {})
    first = opened(person, without_module)
    first_steps(first, other)
    shoot(first.page, screenshots, "first-session-without")
    record_property("now: prompts, first session", len(first.prompts))
    assert any("Sauvegardez vos discussions" in prompt for prompt in first.prompts), first.prompts

    second = opened(person, without_module)
    shoot(second.page, screenshots, "second-session-without")
    record_property("now: prompts, second browser", len(second.prompts))
    assert any("Confirmez votre identité numérique" in prompt for prompt in second.prompts), second.prompts
    first.settle()
    assert any("Était-ce vous" in prompt for prompt in first.prompts), first.prompts


def test_who_accepts_an_invitation_to_an_encrypted_room_is_asked(
    opened: Opened, person: Person, other: Person, screenshots: Path, record_property: Record
) -> None:
    first, second = opened(person), opened(person)
    room = other.call("POST", "/createRoom", {"preset": "private_chat", "name": "Confidentiel"})["room_id"]
    other.call("PUT", f"/rooms/{quote(room)}/state/m.room.encryption/", {"algorithm": "m.megolm.v1.aes-sha2"})
    other.call("POST", f"/rooms/{quote(room)}/invite", {"user_id": person.user_id})
    for session in (first, second):
        expect(session.page.get_by_text("Confidentiel").first).to_be_visible(timeout=PATIENCE)
        session.settle()
        assert session.prompts == []  # An invitation is no choice.
    go_to_invitation(first.page, room)
    first.page.get_by_role("button", name="Accepter").click()
    expect(first.page.locator(COMPOSER).first).to_be_visible(timeout=PATIENCE)

    # Without a reload: what was held back shows now, in the session that was new and in the other.
    expect(second.page.locator(".mx_Toast_toast")).to_contain_text("Vérifiez cet appareil", timeout=PATIENCE)
    toast = first.page.locator(".mx_Toast_toast")
    expect(toast.first).to_contain_text("Était-ce vous", timeout=PATIENCE)
    # The server undoes what it had put off; only then is Element done with asking, and does not ask the same again.
    known = "() => window.mxToastStore.getToasts().some((toast) => toast.key === 'setupencryption')"
    first.page.wait_for_function(known, timeout=PATIENCE)
    first.settle()
    toast.first.get_by_role("button", name="Oui, c’était moi").click()
    expect(toast.first).to_contain_text("Sauvegardez vos discussions", timeout=PATIENCE)
    shoot(first.page, screenshots, "asked-first-session")
    shoot(second.page, screenshots, "asked-second-session")
    for label, session in (("first", first), ("second", second)):
        titles = " ".join(prompt.split(" | ")[0] for prompt in session.prompts)
        record_property(f"with the module: after an encrypted invitation, {label} session", titles)

    third = opened(person)
    expect(identity_page(third.page)).to_be_visible(timeout=PATIENCE)
    shoot(third.page, screenshots, "asked-next-session")
    record_property(
        "with the module: after an encrypted invitation, next session", "Confirmez votre identité numérique"
    )


def go_to_invitation(page: Page, room: str) -> None:
    page.goto(f"{page.url.split('#')[0]}#/room/{quote(room, safe='!:')}")
    expect(page.get_by_role("button", name="Accepter")).to_be_visible(timeout=PATIENCE)


def test_the_settings_keep_everything(opened: Opened, person: Person, screenshots: Path) -> None:
    """Who wants to verify a session without having an encrypted room, can."""
    opened(person)
    second = opened(person)
    page = second.page
    page.get_by_role("button", name="Menu utilisateur").click()
    page.get_by_role("menuitem", name="Tous les paramètres").click()
    page.get_by_role("dialog").get_by_role("tab", name="Chiffrement").click()
    page.get_by_role("dialog").get_by_role("button", name="Vérifiez cet appareil").click()
    question = page.get_by_role("dialog").filter(has_text="Confirmez votre identité numérique")
    expect(question.last).to_be_visible(timeout=PATIENCE)
    second.settle()
    expect(question.last).to_be_visible()
    shoot(page, screenshots, "verify-from-settings")


def test_no_more_clicks_to_encryption_than_without_the_module(
    opened: Opened,
    instance: Instance,
    person: Person,
    other: Person,
    screenshots: Path,
    record_property: Record,
) -> None:
    def stock_way(page: Page, click: Callable[..., None]) -> None:
        click(page.get_by_role("button", name=re.compile("^Informations? (du|sur le) salon")).first)
        click(page.get_by_role("menuitem", name="Paramètres"))
        click(page.get_by_role("dialog").get_by_role("tab", name=re.compile("Sécurité")))

    def our_way(page: Page, click: Callable[..., None]) -> None:
        click(page.get_by_role("button", name=EXPLANATION))
        click(page.get_by_role("dialog").get_by_role("button", name="Activer le chiffrement ici"))

    counted = {}
    for label, who, prepare, way in (
        ("now", person, without_module, stock_way),
        ("with the module, as before", other, None, stock_way),
        ("with the module", other, None, our_way),
    ):
        page = opened(who, prepare).page
        clicks: list[str] = []

        def click(target: Any, clicks: list[str] = clicks) -> None:
            target.click()
            clicks.append(str(target))

        if identity_page(page).count():
            page.get_by_role("button", name="Ignorer la vérification pour l’instant").click()
            page.get_by_role("button", name=re.compile("plus tard")).click()
        room = create_room(page)
        way(page, click)
        switch = page.get_by_role("dialog").get_by_role("switch", name=re.compile("chiffr", re.IGNORECASE)).first
        expect(switch).to_be_visible(timeout=PATIENCE)
        shoot(page, screenshots, "switch-" + ("module" if way is our_way else "stock"))
        click(switch)
        question = page.get_by_role("dialog").filter(has_text="Activer le chiffrement ?").last
        click(question.get_by_role("button", name="OK"))
        expect(switch).to_be_checked(timeout=PATIENCE)
        assert becomes_encrypted(instance, who.token, room)
        counted[label] = len(clicks)
        record_property(f"{label}: clicks from an open room to encryption on", len(clicks))
    assert counted["with the module, as before"] == counted["now"]
    assert counted["with the module"] <= counted["now"]


def test_a_choice_in_the_dialog_that_makes_a_room_is_kept(
    opened: Opened, instance: Instance, person: Person, record_property: Record
) -> None:
    room = create_room(opened(person).page, encrypted=True)
    kept = encryption(instance, person.token, room) == 200
    record_property("with the module: explicit choices lost in Element's own dialog", int(not kept))
    assert kept


def act_on(page: Page, message: str, name: str, where: str = ".mx_RoomView_timeline") -> None:
    """Points at a message, and takes one of the buttons that this brings up, once the message has been sent."""
    tile = page.locator(f"{where} .mx_EventTile[data-event-id^='$']").filter(has_text=message).last
    expect(tile).to_be_visible(timeout=PATIENCE)
    # A pointer that is there already brings up nothing.
    page.mouse.move(0, 0)
    tile.hover()
    tile.get_by_role("button", name=name, exact=True).click()


def test_the_words_of_a_plain_conversation(opened: Opened, person: Person, other: Person, screenshots: Path) -> None:
    session = opened(person)
    page = session.page
    create_room(page)
    expect(page.locator(COMPOSER).first).to_have_attribute("aria-label", "Envoyer un message…", timeout=PATIENCE)
    intro = page.locator(".mx_NewRoomIntro")
    expect(intro).to_contain_text("le serveur de votre coopérative peut lire cette conversation")
    shoot(page, screenshots, "words")
    say(page, "Un message")
    act_on(page, "Un message", "Répondre")
    expect(page.locator(COMPOSER).first).to_have_attribute("aria-label", "Envoyer une réponse…")
    page.keyboard.press("Escape")
    expect(page.locator(".mx_ReplyPreview")).to_be_hidden()
    act_on(page, "Un message", "Répondre dans le fil de discussion")
    thread = page.locator(".mx_ThreadView")
    thread.locator(COMPOSER).click(timeout=PATIENCE)
    page.keyboard.type("Dans le fil")
    page.keyboard.press("Enter")
    act_on(page, "Dans le fil", "Répondre", ".mx_ThreadView")
    expect(thread.locator(COMPOSER)).to_have_attribute("aria-label", "Répondre au fil de discussion…")
    assert session.prompts == []


def test_the_explanation_and_the_preference(
    opened: Opened, instance: Instance, person: Person, screenshots: Path
) -> None:
    page = opened(person).page
    create_room(page)
    # With the keyboard alone.
    page.get_by_role("button", name=EXPLANATION).focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name=EXPLANATION)
    expect(dialog).to_contain_text("Cette conversation n’est pas chiffrée")
    expect(dialog).to_contain_text("peuvent être lues par le serveur de votre coopérative")
    switch = dialog.get_by_role("switch", name="Chiffrer dès le début toutes les conversations que je crée")
    expect(switch).not_to_be_checked()
    shoot(page, screenshots, "explanation")
    switch.focus()
    page.keyboard.press("Space")
    expect(switch).to_be_checked(timeout=PATIENCE)
    assert person.account_data(PREFERENCE) == {"enabled": True}
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()

    # The page of its own, which a support team can send around, shows the same choice, also in the next session.
    again = opened(person).page
    again.goto(f"{instance.element_url}#/chiffrement")
    expect(again.get_by_role("heading", name="Qui peut lire mes conversations ?")).to_be_visible(timeout=PATIENCE)
    switch = again.get_by_role("switch", name="Chiffrer dès le début toutes les conversations que je crée")
    expect(switch).to_be_checked(timeout=PATIENCE)
    again.evaluate("() => window.mxSettingsStore.setValue('theme', null, 'device', 'dark')")
    expect(again.locator("body")).to_have_class(re.compile("cpd-theme-dark"), timeout=PATIENCE)
    shoot(again, screenshots, "explanation-page")
    room = person.call("POST", "/createRoom", {"preset": "private_chat"})["room_id"]
    assert encryption(instance, person.token, room) == 200
    switch.click()
    expect(switch).not_to_be_checked(timeout=PATIENCE)
    assert person.account_data(PREFERENCE) == {"enabled": False}
    room = person.call("POST", "/createRoom", {"preset": "private_chat"})["room_id"]
    assert encryption(instance, person.token, room) == 404


def test_logging_out_warns_of_encrypted_conversations_only(opened: Opened, person: Person, screenshots: Path) -> None:
    page = opened(person).page
    page.get_by_role("button", name="Menu utilisateur").click()
    page.get_by_role("menuitem", name="Tous les paramètres").click()
    page.get_by_role("dialog").get_by_role("button", name="Supprimer cet appareil").click()
    dialog = page.get_by_role("dialog").last
    expect(dialog).to_contain_text("Supprimer cet appareil ?", timeout=PATIENCE)
    expect(dialog).to_contain_text("Si vous participez à des conversations chiffrées")
    shoot(page, screenshots, "logout")


def test_in_english(opened: Opened, person: Person, screenshots: Path) -> None:
    page = opened(person).page
    page.evaluate("() => window.mxSettingsStore.setValue('language', null, 'device', 'en')")
    page.reload()
    expect(page.get_by_role("button", name="User menu")).to_be_visible(timeout=PATIENCE)
    page.get_by_role("button", name="New conversation").first.click()
    page.get_by_role("menuitem", name="New room").click()
    page.get_by_role("dialog").get_by_role("textbox").first.fill("Trial")
    page.get_by_role("button", name="Create room").click()
    expect(page.locator(COMPOSER).first).to_have_attribute("aria-label", "Send a message…", timeout=PATIENCE)
    expect(page.locator(".mx_NewRoomIntro")).to_contain_text("your cooperative's server can read this conversation")
    page.get_by_role("button", name="Who can read this conversation?").click()
    expect(page.get_by_role("dialog")).to_contain_text("unless encryption is turned on")
    shoot(page, screenshots, "explanation-english")


def test_on_another_version_it_does_nothing_and_says_so(opened: Opened, person: Person) -> None:
    first = opened(person, partial(another_version, version="1.99.0"))
    warnings = [line for line in first.console if "encryption-opt-in" in line]
    assert len(warnings) == 1
    assert warnings[0].startswith("warning: encryption-opt-in: not tried with Element Web 1.99.0")
    create_room(first.page)
    expect(first.page.locator(COMPOSER).first).to_be_visible(timeout=PATIENCE)
    assert first.page.get_by_role("button", name=EXPLANATION).count() == 0
    second = opened(person, partial(another_version, version="1.99.0"))
    expect(identity_page(second.page)).to_be_visible()


def test_where_element_lacks_something_it_does_nothing_and_says_so(instance: Instance, visit: Visit) -> None:
    """Whatever is missing: Element would not start if the module failed."""
    page = visit.page
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(f"{instance.element_url}custom/welcome.html")
    page.evaluate(
        """async () => {
            const { default: Module } = await import("/custom/encryption-opt-in.js");
            await new Module({}).load();
            window.mxPlatformPeg = { get: () => ({ getAppVersion: async () => "1.12.25" }) };
            await new Module({}).load();
            Object.assign(window, { React: {}, mxMatrixClientPeg: {}, mxDispatcher: {} });
            await new Module({}).load();
        }"""
    )
    said = [line for line in said if line.startswith("encryption-opt-in: ")]
    assert [line.split(": ")[1].split(" ")[0] for line in said] == ["not", "there", "failed"], said
