# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The help page says plainly with whom people can talk, and holds nothing but words, whatever others are called."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.cae.matrix.tests.unit.programs import ANSIBLE_PLAYBOOK

ROOT = Path(__file__).parents[2]


class Untrusted(str):
    """What others have written, as a module returns it: no template, whatever is in it."""


yaml.SafeDumper.add_representer(Untrusted, lambda dumper, text: dumper.represent_scalar("!unsafe", str(text)))
HOSTILE = Untrusted(""""><script>alert('x')</script> {{ 7 * 7 }} & Fils""")


def member(name: str, domain: str, profile: str = "open") -> dict[str, str]:
    return {
        "name": name,
        "domain": domain,
        "hostname": f"matrix.{domain}",
        "contact": "",
        "logo": "",
        "profile": profile,
    }


LIST: dict[str, Any] = {
    "schema": "cae.matrix/members/1",
    "name": HOSTILE,
    "hub": "hub.example",
    "issued": None,
    "members": [
        member("Fédération", "hub.example", "federation"),
        member("Atelier", "a.example"),
        member("Retirée", "r.example", "internal"),
        member(HOSTILE, "z.example"),
    ],
    "source": "file",
}
CONTACTS = [{"email_address": "aide@a.example"}, {"matrix_id": "@support:a.example"}]
HOSTS: dict[str, dict[str, Any]] = {
    "open": {"federation_denied_servers": ["bad.example"]},
    "listed": {"federation_list": LIST},
    "federation": {
        "matrix_profile": "federation",
        "federation_list": LIST,
        "federation_allowed_servers": ["c.example"],
    },
    "internal": {"matrix_profile": "internal", "reverse_proxy_support_contacts": CONTACTS},
    "english": {
        "matrix_language": "en",
        "matrix_profile": "internal",
        "reverse_proxy_support_page": "javascript:alert(1)",
    },
    "hostile": {"matrix_name": HOSTILE, "reverse_proxy_support_contacts": [{"email_address": HOSTILE}]},
    "elsewhere": {"element_web_help_url": "https://aide.example/"},
}


@dataclass
class Page(HTMLParser):
    """What a browser would make of it."""

    text: str = ""
    tags: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    handlers: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [str(value) for name, value in attrs if name in ("href", "src")]
        self.handlers += [name for name, _value in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text = " ".join(f"{self.text} {data}".split())


@dataclass(frozen=True)
class Made:
    page: Page
    welcome: Page
    config: dict[str, Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    place = tmp_path_factory.mktemp("help")
    hosts = {
        name: {
            "matrix_domain": "a.example",
            "matrix_name": "Atelier",
            "ansible_host": name,
            "matrix_instance": name,
            **values,
        }
        for name, values in HOSTS.items()
    }
    # One task writes it all: every other one would start a program for each host.
    templates = ROOT / "roles/element_web/templates"
    tasks: list[dict[str, Any]] = [
        {
            "ansible.builtin.include_role": {
                "name": "cae.matrix.element_web",
                "tasks_from": "documents",
                "public": True,
            }
        }
    ]
    made = {
        "page": f"{{{{ lookup('ansible.builtin.template', '{templates}/help.html.j2') }}}}",
        "welcome": f"{{{{ lookup('ansible.builtin.template', '{templates}/welcome.html.j2') }}}}",
        "config": "{{ element_web_document }}",
    }
    tasks.append({"ansible.builtin.set_fact": {"made": made}})
    written = "{{ dict(ansible_play_hosts | zip(ansible_play_hosts | map('extract', hostvars, 'made'))) | to_json }}"
    to = {"content": written, "dest": str(place / "made.json"), "mode": "0600"}
    tasks.append({"ansible.builtin.copy": to, "run_once": True})
    (place / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}, allow_unicode=True))
    (place / "play.yml").write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
    done = subprocess.run(
        [ANSIBLE_PLAYBOOK, "-i", str(place / "hosts.yml"), "-c", "local", str(place / "play.yml")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = {}
    for name, one in json.loads((place / "made.json").read_text(encoding="utf-8")).items():
        pages = {}
        for kind in ("page", "welcome"):
            pages[kind] = Page()
            pages[kind].feed(one[kind])
            pages[kind].close()
        found[name] = Made(**pages, config=one["config"])
    return found


ELSEWHERE = "un compte Matrix sur un autre serveur"
ONLY_HERE = "Uniquement avec les personnes de"


def test_it_says_with_whom_one_can_talk(made: dict[str, Made]) -> None:
    text = {name: one.page.text for name, one in made.items()}
    assert ELSEWHERE in text["open"]
    assert "refuse toutefois certains serveurs" in text["open"]
    assert ELSEWHERE in text["listed"]
    assert "refuse toutefois" not in text["listed"]
    for name in ("listed", "federation"):
        assert "Fédération ( hub.example )" in text[name]
        # Neither oneself, nor who is not within reach.
        assert "Atelier ( a.example )" not in text[name]
        assert "r.example" not in text[name]
    assert "Pas avec d’autres serveurs." in text["federation"]
    assert "Et de plus : c.example ." in text["federation"]
    assert ONLY_HERE in text["internal"]
    assert "Only with the people of your cooperative." in text["english"]
    assert all(ONLY_HERE not in text[name] for name in ("open", "listed", "federation"))


def test_it_promises_nothing_that_the_profile_does_not_keep(made: dict[str, Made]) -> None:
    for name, words in (("internal", "depuis un autre serveur"), ("english", "from another server")):
        assert words not in made[name].page.text
        assert "@camille" not in made[name].page.text
    for name in ("open", "federation"):
        assert "@camille:autre.example" in made[name].page.text
        assert "celui-ci peut aussi les lire" in made[name].page.text


def test_it_says_whom_to_ask(made: dict[str, Made]) -> None:
    assert "mailto:aide@a.example" in made["internal"].page.links
    assert "@support:a.example" in made["internal"].page.text
    assert "qui vous a donné votre compte" in made["open"].page.text
    # An address that is none of a page is no link.
    assert "who gave you your account" in made["english"].page.text


def test_it_holds_nothing_but_words(made: dict[str, Made]) -> None:
    for name, one in made.items():
        assert "script" not in one.page.tags | one.welcome.tags, name
        assert one.page.handlers == [], name
        assert one.page.tags <= {
            *("html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "ul", "li", "a", "strong", "code"),
        }, name
        assert [link for link in one.page.links if not link.startswith("mailto:")] == [], name
    # As it was written, and not calculated.
    assert HOSTILE in made["federation"].page.text
    assert HOSTILE in made["hostile"].page.text
    assert HOSTILE in made["hostile"].welcome.text


def test_element_leads_there(made: dict[str, Made]) -> None:
    page = "https://chat.a.example/custom/aide.html"
    for name in ("open", "internal"):
        config = made[name].config
        assert config["help_url"] == page
        assert config["help_encryption_url"] == config["help_key_storage_url"] == f"{page}#chiffrement"
        assert page in made[name].welcome.links
    config = made["elsewhere"].config
    assert {config[f"help_{kind}url"] for kind in ("", "encryption_", "key_storage_")} == {"https://aide.example/"}
    assert "https://aide.example/" in made["elsewhere"].welcome.links


def test_element_warns_of_people_who_may_not_exist_only_where_the_server_knows_all(made: dict[str, Made]) -> None:
    asks = {name: one.config["setting_defaults"]["promptBeforeInviteUnknownUsers"] for name, one in made.items()}
    assert {name for name, asked in asks.items() if asked} == {"internal", "english"}


def test_the_hubs_directory_is_offered_where_the_hub_shows_it(made: dict[str, Made]) -> None:
    directories = {name: one.config["room_directory"]["servers"] for name, one in made.items()}
    hub = ["a.example", "hub.example"]
    assert (directories["listed"], directories["federation"]) == (hub, hub)
    assert (directories["open"], directories["internal"]) == (["a.example"], ["a.example"])
