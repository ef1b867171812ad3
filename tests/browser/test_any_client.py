# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What must hold for any client that is served, the fixture included."""

from __future__ import annotations

import json
import re
from urllib.parse import urljoin

from conftest import Instance, Visit, arrive
from playwright.sync_api import expect


def test_a_person_logs_in_and_nobody_else_is_asked(instance: Instance, visit: Visit) -> None:
    # Not the person of the other tests: a real client that is closed right after its login may have half its keys made.
    person = instance.people[-1]
    localpart = person["user_id"].split(":")[0].removeprefix("@")
    arrive(visit.page, f"{instance.element_url}#/login")
    visit.page.locator("input[name=username]").fill(localpart)
    visit.page.locator("input[name=password]").fill(person["password"])
    expect(visit.page.locator("html")).to_have_attribute("lang", re.compile("^fr"))
    with visit.page.expect_response(
        lambda response: response.url.endswith("/login") and response.request.method == "POST"
    ) as answer:
        visit.page.get_by_role("button", name="Se connecter", exact=True).click()
    assert answer.value.status == 200
    assert answer.value.json()["user_id"] == person["user_id"]
    assert visit.hosts() <= instance.hosts


def test_modules_are_there(instance: Instance) -> None:
    """Element does not start where one is missing, or is served as anything but a script."""
    modules = json.loads(instance.document(f"{instance.element_url}config.json"))["modules"]
    assert "/custom/encryption-opt-in.js" in modules
    for module in modules:
        assert instance.document(urljoin(instance.element_url, module), "javascript")
