# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an inventory or the command line declares is converted by its spec, or refused with its name."""

from __future__ import annotations

import datetime
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.cae.matrix.plugins.module_utils.instance.variables import (
    check,
    misspellings,
    nearest,
    read_options,
    shape_problems,
)
from ansible_collections.cae.matrix.tests.unit.programs import ansible_playbook
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = read_options(ROOT / "roles")
ACCOUNTS = "encryption_gate_administrators"


def problems(values: dict[str, Any], **more: Any) -> list[str]:
    return check(values, OPTIONS, names=values, **more).problems


def converted(values: dict[str, Any], **more: Any) -> dict[str, Any]:
    checked = check(values, OPTIONS, **more)
    assert checked.problems == []
    return checked.converted


class TestConversion:
    @pytest.mark.parametrize("text", ["no", "No", "off", "false", "False", "FALSE", "0", 0])
    def test_all_ways_to_say_no(self, text: object) -> None:
        assert converted({"synapse_presence_enabled": text})["synapse_presence_enabled"] is False

    @pytest.mark.parametrize("text", ["yes", "on", "On", "true", "True", "1", 1])
    def test_all_ways_to_say_yes(self, text: object) -> None:
        assert converted({"synapse_presence_enabled": text})["synapse_presence_enabled"] is True

    @pytest.mark.parametrize(
        ("name", "value", "expected"),
        [
            ("postgresql_port", "5433", 5433),
            ("postgresql_port", " 5433 ", 5433),
            ("synapse_cache_factor", "0.5", 0.5),
            ("synapse_cache_factor", "2", 2.0),
            ("matrix_name", 2024, "2024"),
            ("postgresql_password", 123456, "123456"),
            ("matrix_ca_file", 1, "1"),
            ("federation_denied_servers", [12], ["12"]),
            ("federation_space", {"alias": 2024}, {"alias": "2024"}),
            (ACCOUNTS, [{"localpart": "jo"}, {"localpart": 2024}], [{"localpart": "jo"}, {"localpart": "2024"}]),
            (
                "rooms_declared",
                [{"alias": "a", "listed": "no", "servers": {"allow": [1]}}],
                [{"alias": "a", "listed": False, "servers": {"allow": ["1"]}}],
            ),
            ("registration_token_expiry", datetime.date(2027, 1, 31), "2027-01-31"),
        ],
    )
    def test_other_types(self, name: str, value: Any, expected: Any) -> None:
        found = converted({name: value})[name]
        assert found == expected
        assert type(found) is type(expected)

    def test_what_needs_no_conversion_is_left_alone(self) -> None:
        fine = {
            "synapse_presence_enabled": False,
            "synapse_cache_factor": 1,
            ACCOUNTS: [{"localpart": "jo"}],
            # Synapse's own: "off" has a meaning there.
            "synapse_extra_config": {
                "encryption_enabled_by_default_for_room_type": "off",
                "retention": {"enabled": "no"},
            },
            "matrix_resolve": {"a.test": "192.0.2.1"},
        }
        assert converted(fine) == {}

    def test_the_command_line_is_converted_where_it_is_read(self) -> None:
        values = {"matrix_element_enabled": "false", "postgresql_port": "5433", "synapse_cache_factor": "0.5"}
        assert converted(values, command_line=values) == {}

    def test_what_could_not_be_replaced_is_refused(self) -> None:
        values = {"matrix_name": 2024, ACCOUNTS: [{"localpart": 2024}]}
        assert problems(values, command_line=values) == [
            "matrix_name: comes from the command line as a number: put it in quotes",
            f"{ACCOUNTS}[0].localpart: comes from the command line as a number: put it in quotes",
        ]

    @given(st.sampled_from(sorted(OPTIONS)), st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    ))  # fmt: skip
    def test_anything_is_converted_or_refused_and_then_stays(self, name: str, value: Any) -> None:
        checked = check({name: value}, OPTIONS)
        assert all(problem.startswith(name) for problem in checked.problems)
        if not checked.problems:
            assert check({name: checked.converted.get(name, value)}, OPTIONS).converted == {}


class TestRefusal:
    @pytest.mark.parametrize(
        ("name", "value", "words"),
        [
            ("synapse_presence_enabled", "nein", '"nein" is neither true nor false'),
            ("synapse_presence_enabled", "", '"" is neither true nor false'),
            ("synapse_presence_enabled", 2, '"2" is neither true nor false'),
            ("synapse_presence_enabled", [], "a list is neither true nor false"),
            ("postgresql_port", "54x", '"54x" is no whole number: write one, such as 5432'),
            ("postgresql_port", 5432.5, '"5432.5" is no whole number'),
            ("postgresql_port", True, "is no whole number"),
            ("synapse_cache_factor", "1,5", '"1,5" is no number: write one, such as 1.0'),
            ("synapse_cache_factor", "nan", "is no number"),
            ("element_web_country_code", False, "is read as true or false: put it in quotes"),
            ("synapse_version", 1.163, "is read as a number: put it in quotes"),
            ("matrix_name", ["a"], "is a list, text is needed"),
            ("matrix_name", None, "has no value: write one, or delete the line"),
            ("synapse_admin_contact", None, 'has no value: write one, "" for none, or delete the line'),
            ("postgresql_sslmode", "verfy-full", '"verfy-full" is unknown: write one of disable, allow'),
            ("encryption_gate_registration", "ouvert", '"ouvert" is unknown: write one of closed, token'),
            ("matrix_resolve", '{"a.test": "192.0.2.1"}', "is text, a dict is needed: write it as YAML, or -e '{\"mat"),
            ("federation_denied_servers", "a.test", "is text, a list is needed"),
            ("federation_denied_servers", {"a.test": 1}, "is a dict, a list is needed"),
            ("synapse_extra_config", [], "is a list, a dict is needed"),
        ],
    )  # fmt: skip
    def test_of_a_value(self, name: str, value: Any, words: str) -> None:
        (problem,) = problems({name: value})
        assert problem.startswith(f"{name}: ")
        assert words in problem

    @pytest.mark.parametrize(
        ("value", "where", "words"),
        [
            ([{"localpart": "a"}, 5], "[1]", "is a number, a dict is needed"),
            ([{"localpart": True}], "[0].localpart", "put it in quotes"),
            ([{"localpart": None}], "[0].localpart", "has no value"),
            ([{}], "[0].localpart", "is missing: add it"),
            ([{"localprt": "a"}], "[0].localprt", "is unknown: write localpart"),
            ([{"localpart": "a", "age": 5}], "[0].age", "known are localpart, display_name, password"),
        ],
    )
    def test_inside_a_value(self, value: Any, where: str, words: str) -> None:
        (problem,) = problems({ACCOUNTS: value})
        assert problem.startswith(f"{ACCOUNTS}{where}: ")
        assert words in problem

    def test_all_at_once(self) -> None:
        values = {"synapse_presence_enabled": "nein", "postgresql_port": "x", "matrix_resolve": "y"}
        assert [text.split(":")[0] for text in problems(values)] == list(values)

    def test_what_is_not_there(self) -> None:
        assert problems({}, required=["matrix_domain"]) == ["matrix_domain: is missing: set it for this host"]
        assert problems({"matrix_domain": "a.test"}, required=["matrix_domain"]) == []

    def test_no_secret_is_shown(self) -> None:
        for value in (["hunter2"], {"x": "hunter2"}, 47.11):
            (problem,) = problems({"postgresql_password": value})
            assert "hunter2" not in problem
            assert "47.11" not in problem


class TestMisspellings:
    @pytest.mark.parametrize(
        ("name", "meant"),
        [
            ("synapse_presnce_enabled", "synapse_presence_enabled"),
            ("synapse_url_preview_enabled", "synapse_url_previews_enabled"),
            ("synapse_enabled_presence", "synapse_presence_enabled"),
            ("synpase_presence_enabled", "synapse_presence_enabled"),
            ("Matrix_Domain", "matrix_domain"),
            ("matrix_domian", "matrix_domain"),
            ("element_hostnam", "element_hostname"),
            ("encryption_gate_administrator", ACCOUNTS),
            # Another role's in front, or one too many.
            ("synapse_max_upload_size", "matrix_max_upload_size"),
            ("element_web_turn_uris", "synapse_turn_uris"),
            ("matrix_admin_contact", "synapse_admin_contact"),
            ("matrix_element_hostname", "element_hostname"),
            ("synapse_postgresql_ca_file", "postgresql_ca_file"),
        ],
    )
    def test_are_refused(self, name: str, meant: str) -> None:
        assert problems({}, own=[name]) == []
        (problem,) = check({}, OPTIONS, names=[name]).problems
        assert problem.startswith(f"{name}: ")
        assert f"write {meant}" in problem
        assert "matrix_own_variables" in problem
        assert check({}, OPTIONS, names=[name], own=[name]).problems == []

    def test_a_required_variable_that_is_misspelt_is_named_once(self) -> None:
        (problem,) = check({}, OPTIONS, names=["matrix_domian"], required=["matrix_domain"]).problems
        assert "write matrix_domain" in problem

    @pytest.mark.parametrize(
        "name",
        ["_matrix_domian", "vault_domain", "domain", "matrix_host", "synapse_token", "postgresql_version", "x"],
    )
    def test_variables_of_others_are_not(self, name: str) -> None:
        assert nearest(name, OPTIONS) is None or name.startswith("_")
        assert check({}, OPTIONS, names=[name]).problems == []

    def test_nothing_that_we_set_ourselves_looks_like_one(self) -> None:
        places = [
            path for name in ("roles", "playbooks", "inventories", "molecule") for path in (ROOT / name).rglob("*.yml")
        ]
        names = {name for path in places for name in re.findall(r"(?m)^[\s-]*([a-z]\w*):", path.read_text("utf-8"))}
        assert len(names) > 200
        assert list(misspellings(names, OPTIONS)) == []


BASE = {"database": {"name": "psycopg2", "args": {"host": "x"}}, "modules": [], "report_stats": False}


class TestShapes:
    @pytest.mark.parametrize(
        ("given", "problem"),
        [
            ({"database": "sqlite"}, "extra.database: is text, a dict is needed: write {…}"),
            ({"database": ["sqlite"]}, "extra.database: is a list, a dict is needed: write {…}"),
            ({"database": {"args": 5}}, "extra.database.args: is a number, a dict is needed: write {…}"),
            ({"database": None}, "extra.database: has no value: write {…}, or delete the line"),
            ({"modules": {"module": "x.Y"}}, "extra.modules: is a dict, a list is needed: write […]"),
            ({"modules": "x.Y"}, "extra.modules: is text, a list is needed: write […]"),
            ({"modules": None}, "extra.modules: has no value: write […], or delete the line"),
        ],
    )
    def test_what_would_break_one_is_named_with_its_place(self, given: dict[str, Any], problem: str) -> None:
        assert shape_problems(given, BASE, "extra") == [problem]

    @pytest.mark.parametrize(
        "given",
        [
            {},
            {"database": {"name": "sqlite3", "args": {"host": None}, "more": []}},
            {"modules": [{"module": "x.Y"}]},
            {"report_stats": None},
            {"ours_has_no_such": {"x": 1}},
        ],
    )
    def test_the_rest_is_for_the_program_to_judge(self, given: dict[str, Any]) -> None:
        assert shape_problems(given, BASE, "extra") == []

    def test_no_value_is_shown(self) -> None:
        (problem,) = shape_problems({"modules": {"module": "hunter2"}}, BASE, "extra")
        assert "hunter2" not in problem


def test_every_option_of_every_role_is_known() -> None:
    entries = (yaml.safe_load(path.read_text("utf-8")) for path in ROOT.glob("roles/*/meta/argument_specs.yml"))
    names = {name for found in entries for spec in found["argument_specs"].values() for name in spec.get("options", {})}
    assert names == set(OPTIONS)
    kinds = {option["type"] for option in OPTIONS.values()}
    assert kinds == {"str", "path", "bool", "int", "float", "list", "dict"}


# What the declared documents say, from the real roles; nothing connects to a machine.
PLAY = [
    {
        "hosts": "all",
        "gather_facts": False,
        "vars": {"_matrix_on_machine": False},
        "tasks": [
            {"ansible.builtin.include_role": {"name": "cae.matrix.synapse", "tasks_from": "documents"}},
            {"ansible.builtin.include_role": {"name": "cae.matrix.element_web", "tasks_from": "documents"}},
            {
                "ansible.builtin.copy": {
                    "content": "{{ [synapse_document, element_web_document] | to_json }}",
                    "dest": "out.json",
                },
                "delegate_to": "localhost",
            },
        ],
    }
]  # fmt: skip


@pytest.fixture
def play(tmp_path: Path) -> Any:
    """A run with an inventory in INI format and with what the command line adds; what it said, and what it declared."""

    def run(inventory: str, *arguments: str) -> tuple[subprocess.CompletedProcess[str], Any]:
        (tmp_path / "hosts.ini").write_text(inventory)
        (tmp_path / "play.json").write_text(json.dumps(PLAY))
        done = ansible_playbook(tmp_path, "-i", "hosts.ini", *arguments, "-e", "ansible_connection=local", "play.json")
        out = tmp_path / "out.json"
        assert "[DEPRECATION" not in done.stderr + done.stdout
        return done, json.loads(out.read_text()) if out.exists() else None

    return run


INI = """\
[cooperatives]
atelier matrix_domain=atelier.test matrix_name=2024
[cooperatives:vars]
synapse_url_previews_enabled=no
synapse_presence_enabled=off
synapse_search_all_users=no
element_web_registration=no
element_web_disable_guests=False
postgresql_pool_max=7
encryption_gate_administrators=[{"localpart": 2024}]
"""


def test_an_inventory_in_ini_format_means_what_it_says(play: Any) -> None:
    done, found = play(INI)
    assert done.returncode == 0, done.stdout + done.stderr
    synapse, element = found
    assert synapse["url_preview_enabled"] is False
    assert synapse["presence"]["enabled"] is False
    assert synapse["user_directory"]["search_all_users"] is False
    assert synapse["database"]["args"]["cp_max"] == 7
    assert element["setting_defaults"]["UIFeature.registration"] is False
    assert element["disable_guests"] is False
    assert element["brand"] == "2024"


def test_the_command_line_means_what_it_says(play: Any) -> None:
    words = "synapse_url_previews_enabled=yes synapse_presence_enabled=on matrix_element_enabled=false"
    done, found = play(INI, "-e", words, "-e", "postgresql_pool_max=8")
    assert done.returncode == 0, done.stdout + done.stderr
    synapse, element = found
    assert synapse["url_preview_enabled"] is True
    assert synapse["presence"]["enabled"] is True
    assert synapse["database"]["args"]["cp_max"] == 8
    assert "web_client_location" not in synapse
    assert element is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("synapse_presence_enabled=nein", 'synapse_presence_enabled: "nein" is neither true nor false'),
        ("matrix_element_enabled=peut-être", 'matrix_element_enabled: "peut-être" is neither true nor false'),
        ("matrix_resolve=x", "matrix_resolve: is text, a dict is needed"),
        ('{"matrix_name": 2024}', "matrix_name: comes from the command line as a number"),
        ("synapse_presence_enable=no", "write synapse_presence_enabled"),
    ],
)
def test_what_cannot_be_converted_is_refused_at_once(play: Any, given: str, words: str) -> None:
    done, found = play(INI, "-e", given)
    assert done.returncode == 2
    assert words in done.stdout + done.stderr
    assert done.stdout.count("fatal: ") == 1
    assert found is None
