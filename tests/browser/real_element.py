# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What people do in the real Element Web, in French, and what it asks of them."""

from __future__ import annotations

import io
import json
import re
import secrets
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from ansible_collections.cae.matrix.tests.patience import SETTLE, START, eventually, patient
from conftest import Instance, Visit, arrive, open_page
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, Route, expect

# In milliseconds, as Playwright counts.
PATIENCE = patient(SETTLE) * 1000
CLIENT = "/_matrix/client/v3"
COMPOSER = ".mx_BasicMessageComposer_input, .mx_WysiwygComposer_Editor_content"

# Element's words, and not those of the settings or of the dialog that makes a room: there, people look for themselves.
# What a room's own page says of it (a padlock, the first line of the timeline) asks nothing of anybody.
DETECTOR = r"""
(() => {
    const places = ".mx_Toast_toast, .mx_AuthPage, .mx_Dialog, [role=dialog], [role=alertdialog]";
    const asked = ".mx_CreateRoomDialog, .mx_UserSettingsDialog, .mx_RoomSettingsDialog";
    const words = new RegExp(
        "chiffr|vérifi|récupération|numérique|\\bclés?\\b|sauvegard|appareil|était-ce vous|session|" +
            "encrypt|verif|recover|\\bkeys?\\b|back.?up|device",
        "i",
    );
    const met = new Set();
    const look = () => {
        for (const place of document.querySelectorAll(places)) {
            if (place.closest(asked) || place.querySelector(asked) || place.querySelector(".cae_encryption")) continue;
            const title = place.querySelector("h1, h2, h3, [class*=title]")?.textContent ?? "";
            if (!words.test(place.textContent) || met.has(title)) continue;
            met.add(title);
            window.caePrompt(title + " | " + place.textContent);
        }
    };
    new MutationObserver(look).observe(document, { childList: true, subtree: true, characterData: true });
})();
"""

# Run by root in the instance's container: people get their accounts from the admin API, which the proxy does not serve.
MAKE_ACCOUNT = """
import glob, http.client, json, socket, sys
user, content = sys.argv[1:]
token = open(glob.glob("/etc/matrix/*/gate.token")[0]).read().strip()
connection = http.client.HTTPConnection("localhost")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect(glob.glob("/run/matrix-synapse/*/client.sock")[0])
connection.request("PUT", f"/_synapse/admin/v2/users/{user}", content, {"Authorization": f"Bearer {token}"})
answer = connection.getresponse()
sys.exit(0 if answer.status == 201 else answer.read().decode())
"""


@dataclass
class Person:
    """Somebody with a new account, and a token of their own beside the browser for what a test does in their name."""

    instance: Instance
    user_id: str
    password: str
    token: str

    @property
    def localpart(self) -> str:
        return self.user_id.split(":")[0].removeprefix("@")

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        status, answer = self.instance.api(method, f"{CLIENT}{path}", body, self.token)
        assert status == 200, answer
        return answer

    def account_data(self, kind: str) -> dict[str, Any] | None:
        path = f"{CLIENT}/user/{quote(self.user_id)}/account_data/{kind}"
        status, answer = self.instance.api("GET", path, token=self.token)
        return dict(answer) if status == 200 else None


def newcomer(instance: Instance, name: str) -> Person:
    user_id = f"@{name}-{uuid.uuid4().hex[:6]}:{instance.domain}"
    password = secrets.token_urlsafe(15)
    content = json.dumps({"password": password, "displayname": name.capitalize()})
    command = ["docker", "exec", "-i", instance.container, "python3", "-", user_id, content]
    subprocess.run(command, input=MAKE_ACCOUNT, text=True, check=True)
    login: dict[str, Any] = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": user_id},
        "password": password,
    }
    status, answer = instance.api("POST", f"{CLIENT}/login", login)
    assert status == 200, answer
    return Person(instance, user_id, password, str(answer["access_token"]))


@dataclass
class Session:
    """A person in a browser of their own; everything that Element asks about encryption is written down."""

    visit: Visit
    prompts: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)

    @property
    def page(self) -> Page:
        return self.visit.page

    def settle(self) -> None:
        """Lets Element decide whether there is something to ask, as it does whenever keys, devices or rooms change."""
        self.page.wait_for_function(
            "() => window.mxMatrixClientPeg?.get()?.isInitialSyncComplete() && window.mxDeviceListener",
            timeout=PATIENCE,
        )
        self.page.evaluate("() => window.mxDeviceListener.doRecheck()")

    def close(self) -> None:
        self.page.context.close()


def without_module(instance: Instance, page: Page) -> None:
    """The same Element, with nothing in its config.json of our module."""

    def serve(route: Route) -> None:
        config = json.loads(instance.document(route.request.url))
        config.pop("modules", None)
        route.fulfill(json=config)

    page.context.route(re.compile(r"/config(\.[^/]*)?\.json"), serve)


def with_settings(**settings: object) -> Callable[[Instance, Page], None]:
    """The same Element, with other defaults in its config.json."""

    def prepare(instance: Instance, page: Page) -> None:
        def serve(route: Route) -> None:
            config = json.loads(instance.document(route.request.url))
            config["setting_defaults"] |= settings
            route.fulfill(json=config)

        page.context.route(re.compile(r"/config(\.[^/]*)?\.json"), serve)

    return prepare


def another_version(instance: Instance, page: Page, version: str) -> None:
    """The same Element, which calls itself another version."""

    def serve(route: Route) -> None:
        body = re.sub(
            rb'"VERSION","v[0-9.]+"', f'"VERSION","v{version}"'.encode(), instance.document(route.request.url)
        )
        assert version.encode() in body
        route.fulfill(body=body, content_type="text/javascript")

    page.context.route(re.compile(r"/bundles/[0-9a-f]+/init\.js"), serve)
    # Element loads anew when it finds itself older than what is served.
    page.context.route(
        re.compile(rf"^{re.escape(instance.element_url)}version\b"), lambda route: route.fulfill(body=f"v{version}")
    )


def open_session(browser: Browser, person: Person, prepare: Callable[[Instance, Page], None] | None = None) -> Session:
    """Logs in, and stops at the first thing that is there: Element's inside, or a page of questions before it."""
    session = Session(open_page(browser))
    page = session.page
    page.on("console", lambda message: session.console.append(f"{message.type}: {message.text}"))
    page.expose_function("caePrompt", lambda text: session.prompts.append(text))
    page.add_init_script(DETECTOR)
    if prepare:
        prepare(person.instance, page)
    arrive(page, f"{person.instance.element_url}#/login")
    page.locator("input[name=username]").fill(person.localpart, timeout=PATIENCE)
    page.locator("input[name=password]").fill(person.password)
    page.get_by_role("button", name="Se connecter", exact=True).click()
    expect(inside(page).or_(identity_page(page)).first).to_be_visible(timeout=PATIENCE)
    session.settle()
    return session


@contextmanager
def sessions(browser: Browser) -> Iterator[Callable[..., Session]]:
    """Opens sessions that end with it."""
    with ExitStack() as stack:

        def open_one(person: Person, prepare: Callable[[Instance, Page], None] | None = None) -> Session:
            session = open_session(browser, person, prepare)
            stack.callback(session.close)
            return session

        yield open_one


def inside(page: Page) -> Locator:
    return page.get_by_role("button", name="Menu utilisateur")


def identity_page(page: Page) -> Locator:
    return page.locator(".mx_CompleteSecurityBody").get_by_text("Confirmez votre identité numérique")


def shoot(page: Page, screenshots: Path, name: str) -> None:
    """Small enough for the repository: a photograph behind a page weighs more than a megabyte otherwise."""
    whole = Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
    whole.thumbnail((1024, 844), Image.Resampling.LANCZOS)
    whole.quantize(96, dither=Image.Dither.NONE).save(screenshots / f"{name}.png", optimize=True)


def foreign_links(instance: Instance, page: Page) -> set[str]:
    """The hosts of others that something visible leads to."""
    links: list[tuple[str, str]] = page.eval_on_selector_all(
        "a[href]", "all => all.map(one => [one.href, one.innerText.trim() || one.querySelector('img, svg')?.tagName])"
    )
    return {str(urlsplit(link).hostname) for link, shown in links if shown and link.startswith("http")} - instance.hosts


def encryption(instance: Instance, token: str, room: str) -> int:
    """404 for a plain room, 200 for an encrypted one."""
    status, _content = instance.api("GET", f"{CLIENT}/rooms/{quote(room)}/state/m.room.encryption/", token=token)
    return status


def becomes_encrypted(instance: Instance, token: str, room: str) -> bool:
    """Element shows a switch as turned before the server has heard of it."""
    return bool(eventually(lambda: encryption(instance, token, room) == 200, f"{room} is encrypted", START))


def room_of(page: Page) -> str:
    page.wait_for_url(re.compile(r"#/room/!(?!local)[^?]+"), timeout=PATIENCE)
    return unquote(page.url.split("#/room/")[1].split("?")[0])


def say(page: Page, text: str) -> None:
    composer = page.locator(COMPOSER).first
    expect(composer).to_be_visible(timeout=PATIENCE)
    composer.click()
    page.keyboard.type(text)
    page.keyboard.press("Enter")
    expect(page.locator(".mx_EventTile").get_by_text(text)).to_be_visible(timeout=PATIENCE)


def new_conversation(page: Page, kind: str) -> Locator:
    page.get_by_role("button", name="Nouvelle conversation").first.click()
    page.get_by_role("menuitem", name=kind, exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible(timeout=PATIENCE)
    return dialog


def create_room(page: Page, encrypted: bool = False) -> str:
    dialog = new_conversation(page, "Nouveau salon")
    dialog.get_by_role("textbox").first.fill(f"Essai {uuid.uuid4().hex[:6]}")
    if encrypted:
        dialog.get_by_role("switch", name=re.compile("chiffrement")).click()
    dialog.get_by_role("button", name="Créer un salon").click()
    return room_of(page)


def talk_to(page: Page, other: str, text: str, look: Callable[[], None] = lambda: None) -> str:
    """A direct conversation, up to the first message; `look` is called wherever something new shows."""
    dialog = new_conversation(page, "Démarrer une discussion")
    dialog.locator("input").first.fill(other)
    dialog.get_by_role("option").filter(has_text=other).first.click()
    look()
    dialog.get_by_role("button", name="C’est parti").click()
    # Asked once about each new contact.
    confirm = page.get_by_role("dialog").filter(has_text="ce nouveau contact").get_by_role("button", name="Continuer")
    expect(confirm.or_(page.locator("body:not(:has([role=dialog]))")).first).to_be_visible(timeout=PATIENCE)
    if confirm.count():
        look()
        confirm.click()
    expect(page.get_by_role("dialog")).to_be_hidden(timeout=PATIENCE)
    say(page, text)
    return room_of(page)
