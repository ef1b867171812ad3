# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The pages beside Element say plainly what people can do, and hold nothing but words, whatever others are called."""

from __future__ import annotations

import base64
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.cae.matrix.tests.unit.programs import ansible_playbook

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
    "token": {"encryption_gate_registration": "token", "matrix_name": "L’Atelier"},
    "token english": {"encryption_gate_registration": "token", "matrix_name": "Les Abeilles", "matrix_language": "en"},
    # As an INI inventory gives it.
    "nobody registers": {"encryption_gate_registration": "token", "element_web_registration": "no"},
    "relay": {
        "synapse_turn_uris": ["turn:turn.a.example"],
        "synapse_secret_config": {"email": {"smtp_host": "smtp.a.example"}},
        "element_web_mobile_urls": {"android": "https://apps.a.example/"},
    },
    "relay by hand": {"synapse_extra_config": {"turn_uris": ["turn:turn.a.example"], "email": {"smtp_host": "a"}}},
    "element call": {"element_web_element_call_url": "https://call.a.example"},
    "jitsi": {"element_web_jitsi_domain": "meet.a.example", "synapse_extra_config": {"email": {}}},
    "as one says": {
        "element_web_calls": "yes",
        "element_web_password_reset": "no",
        "synapse_secret_config": {"email": {"smtp_host": "smtp.a.example"}},
    },
    "colour": {"element_web_colour": "#0b5c4a"},
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


def parsed(text: str) -> Page:
    page = Page()
    page.feed(text)
    page.close()
    return page


@dataclass(frozen=True)
class Made:
    page: Page
    welcome: Page
    telephone: Page
    config: dict[str, Any]
    manifest: dict[str, Any]
    css: str


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    place = tmp_path_factory.mktemp("help")
    hosts = {
        name.replace(" ", "-"): {
            "matrix_domain": "a.example",
            "matrix_name": "Atelier",
            "ansible_host": name.replace(" ", "-"),
            "matrix_instance": name.replace(" ", "-"),
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
    names = {
        "page": "help.html",
        "welcome": "welcome.html",
        "telephone": "telephone.html",
        "css": "colours.css",
    }
    made = {
        **{
            key: f"{{{{ lookup('ansible.builtin.template', '{templates}/{name}.j2') }}}}" for key, name in names.items()
        },
        "config": "{{ element_web_document }}",
        "manifest": "{{ _element_web_manifest }}",
    }
    tasks.append({"ansible.builtin.set_fact": {"made": made}})
    written = "{{ dict(ansible_play_hosts | zip(ansible_play_hosts | map('extract', hostvars, 'made'))) | to_json }}"
    to = {"content": written, "dest": str(place / "made.json"), "mode": "0600"}
    tasks.append({"ansible.builtin.copy": to, "run_once": True})
    (place / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}, allow_unicode=True))
    play = {"hosts": "all", "gather_facts": False, "vars": {"_matrix_on_machine": False}, "tasks": tasks}
    (place / "play.yml").write_text(yaml.safe_dump([play]))
    done = ansible_playbook(ROOT, "-i", str(place / "hosts.yml"), "-c", "local", str(place / "play.yml"))
    assert done.returncode == 0, done.stdout + done.stderr
    found = {}
    for name, one in json.loads((place / "made.json").read_text(encoding="utf-8")).items():
        page, welcome, telephone = (parsed(one[kind]) for kind in ("page", "welcome", "telephone"))
        shown = Made(page, welcome, telephone, one["config"], one["manifest"], one["css"])
        found[name.replace("-", " ")] = shown
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
        assert "script" not in one.page.tags | one.welcome.tags | one.telephone.tags, name
        assert one.page.handlers == one.telephone.handlers == [], name
        tags = {*("html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "ul", "li", "a", "strong", "code")}
        assert one.page.tags <= tags, name
        assert one.telephone.tags <= tags | {"section", "ol", "br"}, name
        own = ("mailto:", "https://chat.a.example/", "#")
        links = [link for link in one.page.links + one.telephone.links if not link.startswith(own)]
        assert links == (["https://apps.a.example/"] * 2 if name == "relay" else []), name
    # As it was written, and not calculated.
    assert HOSTILE in made["federation"].page.text
    assert HOSTILE in made["hostile"].page.text
    assert HOSTILE in made["hostile"].welcome.text
    assert HOSTILE in made["hostile"].telephone.text


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


def test_who_has_a_code_can_create_an_account(made: dict[str, Made]) -> None:
    register = "https://chat.a.example/#/register"
    assert register in made["token"].welcome.links
    assert "Créer un compte" in made["token"].welcome.text
    assert "code d’invitation" in made["token"].welcome.text
    assert "Create account" in made["token english"].welcome.text
    assert "invitation code" in made["token english"].welcome.text
    assert register in made["token"].telephone.links
    for name in ("open", "nobody registers"):
        assert register not in made[name].welcome.links + made[name].telephone.links
        assert "code d’invitation" not in made[name].welcome.text
        assert made[name].config["setting_defaults"]["UIFeature.registration"] is False


def test_no_preposition_has_to_fit_a_name(made: dict[str, Made]) -> None:
    for name, called in (("token", "L’Atelier"), ("token english", "Les Abeilles"), ("open", "Atelier")):
        for text in (made[name].page.text, made[name].welcome.text, made[name].telephone.text):
            assert called in text
            bent = rf"\b(de|du|des|à|au|chez|par|of|at|from)\s{called}|[dl]’{called}|{called}['’]s"
            assert not re.search(bent, text), text
    assert "L’Atelier : bienvenue sur la messagerie" in made["token"].welcome.text


def test_a_telephone_is_told_the_server_in_both_languages(made: dict[str, Made]) -> None:
    for name, one in made.items():
        for words in ("Indiquez le serveur", "Name the server", "Element X", "FluffyChat"):
            assert words in one.telephone.text, name
        assert one.telephone.text.count(" a.example ") == 2, name
        assert {"#fr", "#en"} <= set(one.telephone.links), name
        assert "https://chat.a.example/mobile_guide/" in one.page.links, name
    assert "aide@a.example" in made["internal"].telephone.text
    assert "https://apps.a.example/" in made["relay"].telephone.links


def test_what_could_only_fail_is_not_offered(made: dict[str, Made]) -> None:
    def offered(feature: str) -> set[str]:
        settings = {name: one.config["setting_defaults"][feature] for name, one in made.items()}
        assert all(isinstance(value, bool) for value in settings.values())
        return {name for name, value in settings.items() if value}

    assert offered("UIFeature.voip") == {"relay", "relay by hand", "element call", "jitsi", "as one says"}
    assert offered("UIFeature.passwordReset") == {"relay", "relay by hand"}
    # Element Call alone: its calls, and not those of two without a relay.
    assert "element call" not in offered("enableLegacyCallsVoip")
    assert {"relay", "jitsi"} <= offered("enableLegacyCallsVoip")


def test_the_colour_is_the_cooperatives(made: dict[str, Made]) -> None:
    one = made["colour"]
    assert one.config["modules"] == ["/custom/encryption-opt-in.js", "/custom/colours.js"]
    kind, content = one.config["branding"]["welcome_background_url"].split(",")
    assert kind == "data:image/svg+xml;base64"
    assert ET.fromstring(base64.b64decode(content)).tag == "{http://www.w3.org/2000/svg}svg"
    assert one.manifest["theme_color"] == "#0b5c4a"
    assert ".cpd-theme-light {" in one.css
    assert "--cpd-color-bg-action-primary-rest: #0b5c4a;" in one.css
    plain = made["open"]
    assert plain.config["modules"] == ["/custom/encryption-opt-in.js"]
    assert "welcome_background_url" not in plain.config["branding"]
    assert "--cpd" not in plain.css


def test_an_installed_page_is_called_after_the_cooperative_and_names_no_shop(made: dict[str, Made]) -> None:
    assert made["token"].manifest["name"] == made["token"].manifest["short_name"] == "L’Atelier"
    assert all("related_applications" not in one.manifest and "://" not in str(one.manifest) for one in made.values())
