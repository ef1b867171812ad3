# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Element sends telephones to its guide: there is a page of the cooperative's own, and nobody else is asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.cae.matrix.plugins.module_utils.encryption.verification import TELEPHONES
from conftest import Instance, Visit, open_page
from playwright.sync_api import Browser, expect
from real_element import PATIENCE, foreign_links, shoot


@pytest.fixture(params=TELEPHONES)
def telephone(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Visit]:
    screen = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
    seen = open_page(browser, user_agent=TELEPHONES[request.param], **screen)
    yield seen
    seen.page.context.close()


def test_a_telephone_is_led_to_the_cooperatives_page(
    instance: Instance, telephone: Visit, screenshots: Path, request: pytest.FixtureRequest
) -> None:
    page = telephone.page
    page.goto(instance.element_url)
    page.wait_for_url(f"{instance.element_url}mobile_guide/", timeout=PATIENCE)
    heading = page.get_by_role("heading", level=1)
    expect(heading).to_contain_text("la messagerie sur un téléphone")
    expect(page.locator(".server:visible")).to_have_text(instance.domain)
    kind = request.node.callspec.params["telephone"].lower()
    shoot(page, screenshots, f"telephone-{kind}")
    # Nothing is wider than the screen.
    assert page.evaluate("() => document.documentElement.scrollWidth") == 390
    assert foreign_links(instance, page) == set()
    page.get_by_role("link", name="English").click()
    expect(heading).to_contain_text("the chat on a telephone")
    expect(page.locator(".server:visible")).to_have_text(instance.domain)
    page.get_by_role("link", name="Français").click()
    expect(heading).to_contain_text("la messagerie sur un téléphone")
    # Element does not send back whom the page lets go on.
    page.get_by_role("link", name="continuez dans ce navigateur").click()
    expect(page.get_by_text("Se connecter", exact=True)).to_be_visible(timeout=PATIENCE)
    page.wait_for_load_state("networkidle")
    shoot(page, screenshots, f"telephone-{kind}-browser")
    assert "mobile_guide" not in page.url
    assert foreign_links(instance, page) == set()
    assert telephone.hosts() <= instance.hosts
