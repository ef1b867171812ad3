# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Our module of Element Web fits the version that the role pins, speaks both languages, and stays in config.json."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.cae.matrix.tests.unit.programs import ansible_playbook

ROOT = Path(__file__).parents[2]
ROLE = ROOT / "roles/element_web"
OURS = "/custom/encryption-opt-in.js"


@pytest.fixture(scope="module")
def source() -> str:
    return (ROLE / "files" / Path(OURS).name).read_text(encoding="utf-8")


def test_it_was_tried_with_the_version_that_is_installed(source: str) -> None:
    tried = re.search(r"^const TRIED = (\[.*\]);$", source, re.MULTILINE)
    assert tried is not None
    version = yaml.safe_load((ROLE / "defaults/main.yml").read_text(encoding="utf-8"))["element_web_version"]
    assert version in json.loads(tried[1]), "try it (make test-element), then add the version to TRIED"
    recorded = json.loads((ROOT / "tests/browser/recorded/result.json").read_text(encoding="utf-8"))
    assert recorded["element"].removeprefix("v") in json.loads(tried[1])


def test_it_speaks_both_languages(source: str) -> None:
    words = source[source.index("const WORDS") : source.index("const warned")]
    english, french = words.split("\n    fr: {")
    keys = [re.findall(r"^ {8}(\w+):", half, re.MULTILINE) for half in (english, french)]
    assert len(keys[0]) > 5
    assert keys[0] == keys[1]
    assert set(re.findall(r'say\("(\w+)"\)', source)) <= set(keys[0])


def test_what_it_rewords_is_in_both_languages() -> None:
    translations: dict[str, dict[str, str]] = yaml.safe_load((ROLE / "vars/main.yml").read_text(encoding="utf-8"))[
        "_element_web_translations"
    ]
    assert {"composer|placeholder", "composer|placeholder_reply", "composer|placeholder_thread"} <= set(translations)
    assert all(set(languages) == {"fr", "en"} for languages in translations.values())


def test_nobody_is_asked_who_has_not_opted_in() -> None:
    """The goals, as the real Element showed them."""
    figures = json.loads((ROOT / "tests/browser/recorded/result.json").read_text(encoding="utf-8"))["figures"]
    prompts = {name: int(count) for name, count in figures.items() if ": prompts, " in name}
    assert {name: count for name, count in prompts.items() if name.startswith("with the module")} == {
        "with the module: prompts, first session": 0,
        "with the module: prompts, second browser": 0,
    }
    assert all(count > 0 for name, count in prompts.items() if name.startswith("now"))
    assert sum(name.startswith("with the module: after an encrypted invitation") for name in figures) == 3
    clicks = {name.split(":")[0]: int(count) for name, count in figures.items() if ": clicks " in name}
    assert max(clicks["with the module"], clicks["with the module, as before"]) <= clicks["now"]
    assert figures["with the module: explicit choices lost in Element's own dialog"] == "0"


# What the inventory says, and what Element is told. What is no list is left for encryption_opt_in to refuse.
MODULES: tuple[tuple[dict[str, Any], object], ...] = (
    ({}, [OURS]),
    ({"modules": ["/custom/other.js"]}, [OURS, "/custom/other.js"]),
    ({"modules": [OURS]}, [OURS]),
    ({"modules": []}, [OURS]),
    ({"modules": None}, [OURS]),
)
NO_LISTS = ("/custom/other.js", {"a": 1}, 7)


def test_the_inventory_adds_modules_and_takes_none_away(tmp_path: Path) -> None:
    hosts = {
        f"host{number}": {"matrix_domain": f"{number}.test", "element_web_extra_config": extra}
        for number, (extra, _modules) in enumerate([*MODULES, *(({"modules": odd}, None) for odd in NO_LISTS)])
    }
    play = {
        "hosts": "all",
        "gather_facts": False,
        "vars": {"_matrix_on_machine": False},
        "tasks": [
            {
                "ansible.builtin.include_role": {
                    "name": "cae.matrix.element_web",
                    "tasks_from": "documents",
                    "public": True,
                }
            },
            {"ansible.builtin.set_fact": {"made": "{{ element_web_document.modules }}"}},
            {
                "ansible.builtin.copy": {
                    "content": "{{ ansible_play_hosts | map('extract', hostvars, 'made') | to_json }}",
                    "dest": str(tmp_path / "made.json"),
                    "mode": "0600",
                },
                "run_once": True,
            },
        ],
    }
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    done = ansible_playbook(ROOT, "-i", str(tmp_path / "hosts.yml"), "-c", "local", str(tmp_path / "play.yml"))
    found = json.loads((tmp_path / "made.json").read_text())
    # What is no list is refused as such, not replaced by ours.
    assert done.stdout.count("Mend: element_web_extra_config.modules: make it a list.") == len(NO_LISTS), done.stdout
    assert found == [modules for _extra, modules in MODULES]
