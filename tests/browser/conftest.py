# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A real browser, in English, in front of a running instance; every request it makes is written down."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from ansible_collections.cae.matrix.tests.patience import PROMPT, START, patient
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


@dataclass
class Instance:
    """One entry of a summary, as C(make demo) leaves it."""

    domain: str
    homeserver_url: str
    element_url: str
    address: str
    ca_file: str
    accounts: list[dict[str, Any]]
    container: str = ""

    @property
    def hosts(self) -> set[str]:
        return {self.domain, *(str(urlsplit(url).hostname) for url in (self.homeserver_url, self.element_url))}

    @property
    def people(self) -> list[dict[str, Any]]:
        return [account for account in self.accounts if not account["admin"]]

    def connect(self, host: str) -> ssl.SSLSocket:
        """A connection whose certificate has been verified against the CA, with its name."""
        context = ssl.create_default_context(cafile=self.ca_file or None)
        raw = socket.create_connection((self.address, 443), timeout=patient(START))
        return context.wrap_socket(raw, server_hostname=host)

    def api(
        self, method: str, path: str, body: dict[str, Any] | None = None, token: str | None = None
    ) -> tuple[int, Any]:
        """The client API as a person's client asks it, past the browser."""
        host = str(urlsplit(self.homeserver_url).hostname)
        connection = http.client.HTTPSConnection(host)
        connection.sock = self.connect(host)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    def document(self, url: str, kind: str = "") -> bytes:
        """What a public address serves, past the browser."""
        parts = urlsplit(url)
        connection = http.client.HTTPSConnection(str(parts.hostname))
        connection.sock = self.connect(str(parts.hostname))
        connection.request("GET", parts.path)
        answer = connection.getresponse()
        assert answer.status == 200, url
        assert kind in str(answer.getheader("Content-Type")), url
        return answer.read()


@dataclass
class Visit:
    """A page and the requests that were made from it."""

    page: Page
    requests: list[str] = field(default_factory=list)

    def hosts(self) -> set[str]:
        parts = [urlsplit(url) for url in self.requests]
        return {str(part.hostname) for part in parts if part.scheme in ("http", "https", "ws", "wss")}


@pytest.fixture(scope="session")
def instance() -> Instance:
    found = json.loads(Path(os.environ["MATRIX_SUMMARY"]).read_text(encoding="utf-8"))["instances"][0]
    return Instance(
        domain=found["matrix_domain"],
        homeserver_url=found["homeserver_url"].rstrip("/"),
        element_url=found["element_url"].rstrip("/") + "/",
        address=found["address"],
        ca_file=found["ca_file"],
        accounts=found["accounts"],
        container=found.get("container", ""),
    )


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = Path(os.environ.get("MATRIX_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def public_key_pin(pem: str) -> str:
    """What Chromium calls a certificate's key: the SHA-256 of its public key, in Base64."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = x509.load_pem_x509_certificate(pem.encode()).public_key()
    return base64.b64encode(
        hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    ).decode()


def trusted_pins(instance: Instance) -> list[str]:
    """The keys of the instance's certificates, each verified: Chromium has no other way to be told of a CA."""
    pins = []
    for host in sorted(instance.hosts):
        with instance.connect(host) as connection:
            certificate = connection.getpeercert(binary_form=True)
        pins.append(public_key_pin(ssl.DER_cert_to_PEM_cert(certificate or b"")))
    return pins


@pytest.fixture(scope="session")
def browser(instance: Instance) -> Iterator[Browser]:
    rules = ", ".join(f"MAP {host} {instance.address}" for host in sorted(instance.hosts))
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=os.environ.get("MATRIX_CHROMIUM", "/usr/bin/chromium"),
            args=[
                *FLAGS,
                f"--host-resolver-rules={rules}",
                f"--ignore-certificate-errors-spki-list={','.join(sorted(set(trusted_pins(instance))))}",
            ],
        )
        yield started
        started.close()


def open_page(browser: Browser, **options: Any) -> Visit:
    given = {"locale": "en-GB", "viewport": {"width": 1280, "height": 800}, **options}
    context: BrowserContext = browser.new_context(**given)
    # Playwright's own thirty seconds, and five for what is expected, know nothing of a busy machine.
    context.set_default_timeout(patient(START) * 1000)
    expect.set_options(timeout=patient(PROMPT) * 1000)
    page = context.new_page()
    seen = Visit(page)
    context.on("request", lambda request: seen.requests.append(request.url))
    page.on("websocket", lambda socket: seen.requests.append(socket.url))
    return seen


def arrive(page: Page, url: str) -> None:
    """Opens a page and lets its service worker, if it has one, take over first: requests under way would be lost."""
    page.goto(url)
    page.wait_for_load_state("networkidle")
    page.evaluate(
        "async () => { if (await navigator.serviceWorker.getRegistration()) await navigator.serviceWorker.ready; }"
    )


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    seen = open_page(browser)
    yield seen
    seen.page.context.close()
